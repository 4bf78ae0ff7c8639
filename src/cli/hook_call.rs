//! Which calls are a hookscript's: Proxmox VE names a guest and a phase, and no command.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::CommandFactory;

use super::Cli;

/// A hookscript's call exactly as Proxmox VE makes it, or hookscripts/pve-span for it with `hook` before it (and with
/// `--root` behind it, as tests do): it is read without clap, whose start takes a tenth of the hook's time.
pub fn plain_hook(args: &[OsString]) -> Option<(PathBuf, &str, &str)> {
    let args = match args {
        [_, hook, ..] if hook == "hook" => args.get(1..)?,
        _ => args,
    };
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
pub(super) const PHASES: [&str; 4] = ["pre-start", "post-start", "pre-stop", "post-stop"];

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
        assert_eq!(
            read("f hook 101 pre-stop --root /x").as_deref(),
            Some("/x 101 pre-stop")
        );
        for other in [
            "f hook hook 101 pre-stop",
            "f hook 101",
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
}
