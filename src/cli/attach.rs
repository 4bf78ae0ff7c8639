//! What `attach` and `detach` take.

use clap::Args;

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// The guests, wherever in the cluster they are: 101, 300-399, tag:web, pool:prod, node:pve2, all.
    #[arg(value_name = "GUEST", required_unless_present = "all_sources")]
    pub guests: Vec<String>,
    /// Every guest that a session of span.cfg takes as a source.
    #[arg(long)]
    pub all_sources: bool,
    /// Where a guest has another hookscript, keep calling that after pve-span's.
    #[arg(long)]
    pub chain: bool,
    /// The storage that the hookscript is on, as a snippet named pve-span.
    #[arg(long, value_name = "STORAGE", default_value = "local")]
    pub storage: String,
    /// What both have.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Arguments of `detach`.
#[derive(Debug, Args)]
pub struct DetachArgs {
    /// The guests, wherever in the cluster they are: 101, 300-399, tag:web, pool:prod, node:pve2, all.
    #[arg(
        value_name = "GUEST",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub guests: Vec<String>,
    /// Every guest that has pve-span's hookscript.
    #[arg(long)]
    pub all: bool,
    /// What both have.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Arguments of both.
#[derive(Debug, Args)]
pub struct CommonArgs {
    /// Check everything, show what would be called, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// How long qm, pct and pvesh may take, each, in seconds.
    #[arg(long, value_name = "SECONDS", hide = true, default_value_t = crate::pve::programs::PATIENCE.as_secs_f64())]
    pub patience: f64,
}
