//! What each command takes.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `hook`.
#[derive(Debug, Args)]
pub struct HookArgs {
    /// The guest, as Proxmox VE gives it.
    pub vmid: String,
    /// pre-start, post-start, pre-stop or post-stop.
    pub phase: String,
    /// Anything more that a later Proxmox VE may give; not looked at.
    #[arg(hide = true)]
    pub more: Vec<String>,
    /// When the hook is over, whatever hangs, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = crate::hook::DEADLINE)]
    pub deadline: f64,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The file; /etc/pve/span.cfg by default.
    pub file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of commands that only print.
#[derive(Debug, Args)]
pub struct PrintArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Show what happened lately instead: what was changed and by whom, and how sessions did.
    #[arg(long)]
    pub events: bool,
}

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Write metrics to this file, for the textfile collector of Prometheus's node_exporter. By default
    /// var/lib/prometheus/node-exporter/pve-span.prom, where that folder exists.
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// Serve metrics over HTTP, at /metrics: a port (of the loopback address), or an address with one.
    #[arg(long, value_name = "[ADDRESS:]PORT")]
    pub listen: Option<crate::daemon::metrics_server::ListenAddress>,
    /// How often frames are counted, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0, hide = true)]
    pub count_every: f64,
}

/// Arguments of `clear`.
#[derive(Debug, Args)]
pub struct ClearArgs {
    /// The sessions.
    #[arg(
        value_name = "SESSION",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub sessions: Vec<String>,
    /// All of them, and whatever else carries our mark.
    #[arg(long)]
    pub all: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `complete`.
#[derive(Debug, Args)]
pub struct CompleteArgs {
    /// What stands behind `pve-span` up to the cursor, word by word; the last one is being typed.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}
