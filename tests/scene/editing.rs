//! `pve-span edit` with editors that are scripts, with and without a terminal.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};

use super::super::lab::{Node, try_run, wait_until};
use super::{stderr, stdout};

/// A span.cfg.
pub const SPAN_CFG: &str = "[dmz]\nsource = 101, 102\noutput = 200/net1\n";
/// One that takes less.
pub const LESS: &str = "[dmz]\nsource = 101\noutput = 200/net1\n";

/// What is in span.cfg.
pub fn file(node: &Node) -> String {
    fs::read_to_string(node.path("etc/pve/span.cfg")).unwrap()
}

/// What lies in /etc/pve beside what is always there.
pub fn strays(node: &Node) -> Vec<String> {
    let entries = fs::read_dir(node.path("etc/pve")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.contains("tmp") || name.contains("span.cfg."))
        .collect()
}

/// The copies that editing has left.
pub fn kept(node: &Node) -> Vec<PathBuf> {
    let entries = fs::read_dir(node.path("run/pve-span"))
        .into_iter()
        .flatten();
    let folders = entries.map(|entry| entry.unwrap().path());
    let mut kept: Vec<PathBuf> = folders
        .filter(|path| path.is_dir() && path.to_str().unwrap().contains("/edit-"))
        .collect();
    kept.sort();
    kept
}

/// An editor: a script that gets the copy as `$1`.
pub fn editor(node: &Node, body: &str) -> PathBuf {
    let path = node.path("editor");
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A script that writes this text into the copy.
pub fn writes(text: &str) -> String {
    format!("cat >\"$1\" <<'END'\n{text}END")
}

pub fn edit_command(node: &Node, body: &str, args: &[&str]) -> Command {
    let editor = editor(node, body);
    let mut command = node.pve_span_command(&[&["edit"], args].concat());
    command.env("EDITOR", editor).env_remove("VISUAL");
    command
}

/// `pve-span edit --yes` with that editor; exit code, stdout, stderr, the copy's number taken out.
#[track_caller]
pub fn edit(node: &Node, body: &str) -> (i32, String, String) {
    let output = try_run(edit_command(node, body, &["--yes"]), "");
    let root = node.root().display().to_string();
    let code = output.status.code().unwrap();
    (
        code,
        unnumbered(&stdout(&output).replace(&root, "")),
        unnumbered(&stderr(node, &output)),
    )
}

/// Both ends of a new terminal. No child gets the administrator's end, or it would never go away.
pub fn terminal() -> (nix::pty::PtyMaster, fs::File) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(ptsname_r(&master).unwrap());
    (master, slave.unwrap())
}

/// The same at a terminal, where these lines are typed before it goes away; all that was said.
#[track_caller]
pub fn edit_at_terminal(node: &Node, body: &str, typed: &str) -> (i32, String) {
    at_terminal(node, edit_command(node, body, &[]), typed)
}

/// A command at a terminal, likewise.
#[track_caller]
pub fn at_terminal(node: &Node, mut command: Command, typed: &str) -> (i32, String) {
    let (mut master, slave) = terminal();
    master.write_all(typed.as_bytes()).unwrap();
    let both = node.path("said");
    let said = fs::File::create(&both).unwrap();
    command
        .stdin(slave)
        .stdout(said.try_clone().unwrap())
        .stderr(said);
    let mut child = command.spawn().unwrap();
    drop(command);
    if typed.is_empty() {
        wait_until("it asks", || {
            fs::read_to_string(&both).unwrap().contains("? [")
        });
        drop(master);
    }
    wait_until("it ends", || child.try_wait().unwrap().is_some());
    let root = node.root().display().to_string();
    let text = fs::read_to_string(&both).unwrap().replace(&root, "");
    let code = child.wait().unwrap().code().unwrap();
    (code, unnumbered(&text))
}

/// `edit-4711` → `edit-N`
pub fn unnumbered(text: &str) -> String {
    let mut parts = text.split("/run/pve-span/edit-");
    let mut result = parts.next().unwrap().to_owned();
    for part in parts {
        result.push_str("/run/pve-span/edit-N");
        result.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    result
}
