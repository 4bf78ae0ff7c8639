//! What `init`, `edit` and `import` take.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Print what would be written, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `edit`.
#[derive(Debug, Args)]
pub struct EditArgs {
    /// Do not ask: a valid text is written, one with faults is not. For scripts, with EDITOR set to one.
    #[arg(long)]
    pub yes: bool,
}

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Read the rules of proxmox-ovs-mirror from this file, /etc/ovs-mirror/mirrors.conf for example, instead of
    /// looking for mirrors in Open vSwitch.
    #[arg(long, value_name = "FILE")]
    pub mirrors_conf: Option<PathBuf>,
    /// Append the sessions to span.cfg, after a check, the plan and a question.
    #[arg(long, conflicts_with = "json")]
    pub write: bool,
    /// With --write: do not ask.
    #[arg(long, requires = "write")]
    pub yes: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
