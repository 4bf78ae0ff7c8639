//! The command line, as clap reads it. What the words mean is decided elsewhere.

mod args;
mod attach;
pub mod complete;
mod doctor;
mod edit;
pub mod examples;
mod explain;
pub mod hook_call;
mod verify;

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};

pub use args::{CheckArgs, ClearArgs, CompleteArgs, HookArgs, PrintArgs, StatusArgs, WatchArgs};
pub use attach::{AttachArgs, CommonArgs, DetachArgs};
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
#[command(name = "pve-span", version, after_long_help = examples::FIRST)]
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
    /// React to a guest's phase, as Proxmox VE's hookscript.
    ///
    /// After a guest has started and before it stops, this node's mirrors are brought into the state that span.cfg asks
    /// for. The guest goes on whatever happens: the exit code is 0, always, and the deadline is kept whatever hangs.
    #[command(after_long_help = examples::HOOK)]
    Hook(HookArgs),
    /// Check span.cfg, and tell all its faults.
    ///
    /// Each fault is shown where it stands, with what to do about it. Warnings are no faults. Nothing is changed.
    #[command(after_long_help = examples::CHECK)]
    Check(CheckArgs),
    /// Show what `apply` would change on this node.
    ///
    /// First each output with the engine that serves it and why, then what is refused, then each change of a mirror or of
    /// an output's device. Nothing is changed.
    #[command(after_long_help = examples::PLAN)]
    Plan(PrintArgs),
    /// Bring this node's mirrors into the state that span.cfg asks for.
    ///
    /// What is there is looked at, what differs is changed, and the result is looked at again. Mirrors and rules of others
    /// are left alone. With the service running there is no need to: it does the same by itself.
    #[command(after_long_help = examples::APPLY)]
    Apply(PrintArgs),
    /// Remove this node's mirrors of some sessions, or of all.
    ///
    /// Outputs' devices are put back as they were. A session that span.cfg still lists comes back with the next reconcile;
    /// `enabled = no` in span.cfg keeps it off.
    #[command(after_long_help = examples::CLEAR)]
    Clear(ClearArgs),
    /// Show how each session does on this node.
    ///
    /// Its state, how many of its sources are here, its outputs, which engine serves them and why, how much was mirrored,
    /// and what is wrong.
    #[command(after_long_help = examples::STATUS)]
    Status(StatusArgs),
    /// Show every guest NIC of this node.
    ///
    /// Its device, its port, bridge and VLAN, its firewall bridge, and the sessions that it is a source or an output of.
    #[command(after_long_help = examples::PORTS)]
    Ports(PrintArgs),
    /// Make pve-span the hookscript of guests.
    ///
    /// In the whole cluster, by Proxmox VE's own qm, pct and pvesh. A guest that has another hookscript is refused, unless
    /// that shall be called after pve-span's (--chain).
    #[command(after_long_help = examples::ATTACH)]
    Attach(AttachArgs),
    /// Take pve-span's hookscript off guests.
    ///
    /// A hookscript that was chained is set back as it was.
    #[command(after_long_help = examples::DETACH)]
    Detach(DetachArgs),
    /// Tell what becomes of guests' frames, and what arrives at sensors.
    ///
    /// For each NIC the path of its frames through the node, which sessions take them, where and by which engine, and why
    /// other sessions do not. For a sensor, what arrives at it.
    #[command(after_long_help = examples::EXPLAIN)]
    Explain(ExplainArgs),
    /// Write a first span.cfg, with what this node offers.
    ///
    /// All of it is comments: it mirrors nothing until lines are uncommented (pve-span edit). A file that is there is never
    /// overwritten.
    #[command(after_long_help = examples::INIT)]
    Init(InitArgs),
    /// Edit span.cfg, and put it in place only when it is valid.
    ///
    /// The editor is $VISUAL, $EDITOR or sensible-editor, with a copy. Then faults are told, the plan is shown, and a question
    /// asked, as visudo does it.
    #[command(after_long_help = examples::EDIT)]
    Edit(EditArgs),
    /// Turn mirrors made by hand, or proxmox-ovs-mirror's, into sessions.
    ///
    /// The sessions are printed, with the commands that take the old mirrors over without a frame lost or doubled. Nothing
    /// is changed without --write.
    #[command(after_long_help = examples::IMPORT)]
    Import(ImportArgs),
    /// Look for what may be wrong with this node.
    ///
    /// Kernel, programs, span.cfg, sensors, hookscripts and other tools' rules: each finding comes with its evidence and what to do.
    /// With -v also what is well. Nothing is changed.
    #[command(after_long_help = examples::DOCTOR)]
    Doctor(DoctorArgs),
    /// Keep this node's mirrors right between hooks: the service.
    ///
    /// It follows span.cfg, guests' ports, Open vSwitch and nftables, and repairs what others change, until it gets SIGTERM. The
    /// package runs it as pve-span.service.
    #[command(after_long_help = examples::WATCH)]
    Watch(WatchArgs),
    /// Prove that sessions mirror, frame by frame.
    ///
    /// Frames are watched at sources and sensors, and matched one by one: what is missing, doubled, or not as on a wire is
    /// told. Nothing is changed; --inject sends marked frames to sources that are silent.
    #[command(after_long_help = examples::VERIFY)]
    Verify(VerifyArgs),
    /// Tell a shell what can stand at the cursor, for its completion.
    #[command(hide = true)]
    Complete(CompleteArgs),
}

#[cfg(test)]
mod tests {
    use super::hook_call::with_hook;
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does_in_a_line_and_has_examples_that_can_be_called() {
        for command in Cli::command().get_subcommands() {
            if command.is_hide_set() {
                continue;
            }
            let about = command.get_about().map(ToString::to_string).unwrap();
            assert!(about.len() < 75 && !about.contains(": 0 "), "{about}");
            assert!(command.get_long_about().is_some(), "{about}");
            let text = command.get_after_long_help().unwrap().to_string();
            let examples = examples::calls(&text);
            assert!(!examples.is_empty(), "{about}");
            for (call, _) in examples {
                let words = call.split(' ').map(Into::into).collect();
                let read = Cli::try_parse_from(with_hook(words));
                assert!(read.is_ok(), "{call}: {}", read.unwrap_err());
            }
        }
    }
}
