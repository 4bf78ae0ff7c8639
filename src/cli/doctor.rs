//! What `doctor` takes.

use clap::Args;

/// Arguments of `doctor`. With `-v` it also lists the checks that passed.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
