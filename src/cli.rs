//! The command line, as clap reads it. What the words mean is decided elsewhere.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};

/// Port mirroring (SPAN, RSPAN) for Proxmox VE that follows its guests.
///
/// As a hookscript it is called as `pve-span VMID PHASE`, which is the same as
/// `pve-span hook VMID PHASE`.
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
    /// Show every session: 0 all healthy, 1 one is degraded or stalled, 2 cannot tell.
    Status(StatusArgs),
    /// Show every guest NIC of this node: its device, port and bridge, and what it is part of.
    Ports(PrintArgs),
    /// Keep this node's mirrors right between hooks: the service, pve-span.service.
    Watch(WatchArgs),
}

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
    pub listen: Option<crate::watch::listen::Listen>,
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

/// A hookscript's call exactly as Proxmox VE makes it (and with `--root` behind it, as tests do): it is read
/// without clap, whose start takes a tenth of the hook's time.
pub fn plain_hook(args: &[OsString]) -> Option<(PathBuf, &str, &str)> {
    let (root, vmid, phase) = match args {
        [_, vmid, phase] => (PathBuf::from("/"), vmid, phase),
        [_, vmid, phase, option, root] | [_, option, root, vmid, phase] if option == "--root" => {
            (PathBuf::from(root), vmid, phase)
        }
        _ => return None,
    };
    let (vmid, phase) = (vmid.to_str()?, phase.to_str()?);
    (vmid.bytes().all(|byte| byte.is_ascii_digit()) && PHASES.contains(&phase))
        .then_some((root, vmid, phase))
}

/// The phases that Proxmox VE calls a hookscript for.
const PHASES: [&str; 4] = ["pre-start", "post-start", "pre-stop", "post-stop"];

/// `pve-span [OPTIONS] VMID PHASE`, as Proxmox VE calls it, is `pve-span hook VMID PHASE`: whatever has a
/// number where the command should be, or a phase and no command.
pub fn with_hook(mut args: Vec<OsString>) -> Vec<OsString> {
    let at = command_at(&args);
    let is_number = |arg: &OsString| {
        arg.to_str()
            .is_some_and(|arg| arg.starts_with(|c: char| c.is_ascii_digit()))
    };
    let is_command = |arg: &OsString| {
        Cli::command()
            .get_subcommands()
            .any(|command| *arg == *command.get_name())
    };
    let has_phase = || {
        args.iter()
            .skip(1)
            .any(|arg| PHASES.iter().any(|phase| arg == phase))
    };
    let is_hook = match args.get(at) {
        Some(word) => is_number(word) || (has_phase() && !is_command(word)),
        None => false,
    };
    if is_hook {
        args.insert(at, "hook".into());
    }
    args
}

/// Is it a call of this command, whatever may be wrong with it?
pub fn is_command(args: &[OsString], name: &str) -> bool {
    args.get(command_at(args))
        .is_some_and(|command| command == name)
}

/// Where the command stands, behind the options that may precede it.
fn command_at(args: &[OsString]) -> usize {
    let mut at = 1;
    while let Some(arg) = args.get(at).and_then(|arg| arg.to_str()) {
        match arg {
            "--root" => at += 2,
            _ if arg.starts_with('-') => at += 1,
            _ => break,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &str) -> Vec<String> {
        let args = with_hook(args.split(' ').map(OsString::from).collect());
        args.into_iter()
            .map(|arg| arg.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_number_in_place_of_a_command_is_a_hook() {
        assert_eq!(
            read("pve-span 101 post-start"),
            ["pve-span", "hook", "101", "post-start"]
        );
        assert_eq!(
            read("pve-span --root /x -v 101 pre-stop")[3..],
            ["-v", "hook", "101", "pre-stop"]
        );
        assert_eq!(
            read("pve-span --root=/x 101 pre-stop")[2..],
            ["hook", "101", "pre-stop"]
        );
        assert_eq!(read("pve-span status"), ["pve-span", "status"]);
        assert_eq!(read("pve-span clear 101"), ["pve-span", "clear", "101"]);
        assert_eq!(
            read("pve-span web1 post-start"),
            ["pve-span", "hook", "web1", "post-start"]
        );
        assert_eq!(
            read("pve-span -5 post-start"),
            ["pve-span", "-5", "hook", "post-start"]
        );
        assert_eq!(
            read("pve-span clear post-start"),
            ["pve-span", "clear", "post-start"]
        );
        let hook = with_hook(
            ["pve-span", "--root", "/x", "101"]
                .map(OsString::from)
                .into(),
        );
        assert!(is_command(&hook, "hook"));
        assert!(!is_command(
            &["pve-span", "clear", "hook"].map(OsString::from),
            "hook"
        ));
    }

    #[test]
    fn proxmox_ve_s_own_call_is_read_at_once() {
        let read = |args: &str| {
            let args: Vec<OsString> = args.split(' ').map(OsString::from).collect();
            plain_hook(&args)
                .map(|(root, vmid, phase)| format!("{} {vmid} {phase}", root.display()))
        };
        assert_eq!(
            read("f 101 post-start").as_deref(),
            Some("/ 101 post-start")
        );
        assert_eq!(
            read("f 101 pre-stop --root /x").as_deref(),
            Some("/x 101 pre-stop")
        );
        for other in [
            "f 101",
            "f 101 status",
            "f web1 post-start",
            "f clear post-start",
            "f 101 post-start -v",
            "f -1 post-start",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
