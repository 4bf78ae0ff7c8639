//! What `verify` takes.

use clap::Args;

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The sessions; all that have a source here by default.
    #[arg(value_name = "SESSION")]
    pub sessions: Vec<String>,
    /// How long to watch, in seconds: 1 to 3600.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub time: u32,
    /// Send marked frames (EtherType 0x88B5, which guests ignore) to the sources too.
    #[arg(long)]
    pub inject: bool,
    /// Exit with 1 also where not everything could be tested.
    #[arg(long)]
    pub strict: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
