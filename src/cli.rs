//! The command line, as clap reads it. What the words mean is decided elsewhere.

mod args;
mod attach;
mod call;
mod doctor;
mod edit;
mod explain;
mod verify;

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};

pub use args::{CheckArgs, ClearArgs, HookArgs, PrintArgs, StatusArgs, WatchArgs};
pub use attach::{AttachArgs, CommonArgs, DetachArgs};
pub use call::{is_command, plain_hook, with_hook};
pub use doctor::DoctorArgs;
pub use edit::{EditArgs, ImportArgs, InitArgs};
pub use explain::ExplainArgs;
pub use verify::VerifyArgs;

/// A wrong call, of any command (`EX_USAGE` of sysexits.h).
pub const USAGE: u8 = 64;

/// Standard output could not be written, of any command (`EX_IOERR` of sysexits.h).
pub const UNWRITTEN: u8 = 74;

/// Port mirroring (SPAN, RSPAN) for Proxmox VE that follows its guests.
///
/// As a hookscript it is called as `pve-span VMID PHASE`, which is the same as
/// `pve-span hook VMID PHASE`, and then becomes the hookscript that `attach --chain` has found there.
#[derive(Debug, Parser)]
#[command(name = "pve-span", version)]
pub struct Cli {
    /// Prefix of every path that is used (etc/pve, run/openvswitch/db.sock, …), for tests.
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,

    /// Tell more on stderr; twice for everything.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// React to a guest's phase, as Proxmox VE's hookscript; always exits with 0.
    Hook(HookArgs),
    /// Check span.cfg: 0 valid, 1 faults, 2 cannot be read.
    Check(CheckArgs),
    /// Show what `apply` would change: 0 nothing, 1 failed, 2 changes pending.
    Plan(PrintArgs),
    /// Bring this node's mirrors into the state that span.cfg asks for: 0 done and verified, 1 not.
    Apply(PrintArgs),
    /// Remove this node's mirrors of some sessions, or all of ours: 0 done and verified, 1 not.
    Clear(ClearArgs),
    /// Show every session: 0 all healthy, 1 one is not, or span.cfg is not in force, 2 cannot tell.
    Status(StatusArgs),
    /// Show every guest NIC of this node: its device, port and bridge, and what it is part of.
    Ports(PrintArgs),
    /// Make pve-span the hookscript of guests: 0 done, 1 refused or failed for one of them.
    Attach(AttachArgs),
    /// Take pve-span's hookscript off guests, and set back what it was chained with: 0 done, 1 not for all.
    Detach(DetachArgs),
    /// Tell what becomes of guests' frames, and what arrives at sensors: 0 told, 1 no such guest, 2 cannot tell.
    Explain(ExplainArgs),
    /// Write a first span.cfg, all of it comments, with what this node offers: 0 written, 1 not.
    Init(InitArgs),
    /// Edit span.cfg: check it, show the plan, ask, and only then put it in place: 0 done or unchanged, 1 not.
    Edit(EditArgs),
    /// Turn mirrors made by hand, or proxmox-ovs-mirror's, into sessions: 0 all of them, 1 not all, 2 cannot tell.
    Import(ImportArgs),
    /// Look for what may be wrong with this node: 0 nothing worse than notes, 1 warnings, 2 errors.
    Doctor(DoctorArgs),
    /// Keep this node's mirrors right between hooks: the service, pve-span.service.
    Watch(WatchArgs),
    /// Prove that sessions mirror, frame by frame: 0 proven or untested, 1 failed, 2 cannot tell.
    Verify(VerifyArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
