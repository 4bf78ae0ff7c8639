//! What `explain` takes.

use clap::Args;

use pve_span_core::explain::Subject;

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Guests (101) or NICs (101/net0); sensors too.
    #[arg(value_name = "GUEST[/NIC]", required = true)]
    pub subjects: Vec<Subject>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
