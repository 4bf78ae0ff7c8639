//! What `doctor` takes.

use clap::Args;

/// Arguments of `doctor`. With `-v` it also tells what is as it should be.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
