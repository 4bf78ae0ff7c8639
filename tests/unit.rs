//! The service's unit, by systemd's own word (`systemd-analyze`, which needs no running systemd).

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const UNIT: &str = "pve-config/pve-span.service";

/// The highest exposure, as `systemd-analyze security` reckons it, in tenths: 2.0 of 10.
const MOST: u32 = 20;

fn unit() -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(UNIT)).unwrap()
}

/// The unit in a folder of its own, with a program that is there.
fn installed() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pve-span.service");
    let program = env!("CARGO_BIN_EXE_pve-span");
    fs::write(&path, unit().replace("/usr/bin/pve-span", program)).unwrap();
    (folder, path)
}

fn analyze(arguments: &[&str], unit: &Path) -> Output {
    Command::new("systemd-analyze")
        .args(arguments)
        .arg(unit)
        .env("SYSTEMD_PAGER", "")
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn systemd_understands_every_line() {
    let (_folder, path) = installed();
    let output = analyze(&["verify", "--man=no"], &path);
    let said = said(&output);
    // What other units of the machine are told about is theirs.
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("pve-span"))
        .collect();
    assert_eq!(ours, Vec::<&str>::new());
}

#[test]
fn the_service_is_exposed_as_little_as_promised() {
    let (_folder, path) = installed();
    let threshold = format!("--threshold={MOST}");
    let output = analyze(&["security", "--offline=true", &threshold], &path);
    assert!(output.status.success(), "{}", said(&output));
}

/// The values of a setting, one after the other.
fn values<'a>(unit: &'a str, setting: &str) -> Vec<&'a str> {
    unit.lines()
        .filter_map(|line| line.strip_prefix(setting)?.strip_prefix('='))
        .collect()
}

#[test]
fn what_is_left_to_it_is_what_the_page_gives_reasons_for() {
    let unit = unit();
    assert_eq!(values(&unit, "CapabilityBoundingSet"), ["CAP_NET_ADMIN"]);
    assert_eq!(
        values(&unit, "RestrictAddressFamilies"),
        ["AF_UNIX AF_NETLINK"]
    );
    // What may be missing has `-`: the service does not start otherwise.
    assert_eq!(
        values(&unit, "ReadWritePaths"),
        ["-/run/pve-span.lock -/var/lib/prometheus/node-exporter"]
    );
    assert_eq!(values(&unit, "ReadOnlyPaths"), ["/run"]);
    assert_eq!(
        values(&unit, "InaccessiblePaths"),
        ["-/etc/ssh -/var/lib/pve-cluster -/run/qemu-server -/run/dbus -/run/systemd/private"]
    );
    assert_eq!(values(&unit, "RuntimeDirectory"), ["pve-span"]);
    assert_eq!(values(&unit, "RuntimeDirectoryPreserve"), ["yes"]);
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
    let page = fs::read_to_string(page).unwrap();
    for name in [
        "CAP_NET_ADMIN",
        "AF_UNIX",
        "AF_NETLINK",
        "/run/pve-span.lock",
    ] {
        assert!(page.contains(name), "{name}");
    }
}

/// The system calls of a filter's sets, in systemd's own words.
fn calls(sets: &str) -> Vec<String> {
    let output = Command::new("systemd-analyze")
        .arg("syscall-filter")
        .args(sets.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut found = Vec::new();
    for line in text.lines().filter(|line| line.starts_with(' ')) {
        match line.trim() {
            comment if comment.starts_with('#') => {}
            set if set.starts_with('@') => found.extend(calls(set)),
            call => found.push(call.to_owned()),
        }
    }
    found
}

#[test]
fn the_filter_leaves_the_calls_that_cannot_be_done_without() {
    let unit = unit();
    let [allowed, denied] = values(&unit, "SystemCallFilter")[..] else {
        panic!("two lines, what is allowed and what of it is not");
    };
    let (allowed, denied) = (calls(allowed), calls(denied.trim_start_matches('~')));
    // Beyond reading and writing files: what children, locks, signals, sockets and waiting need.
    for call in [
        "clone",
        "clone3",
        "close_range",
        "dup2",
        "execve",
        "fchmod",
        "flock",
        "fsync",
        "ftruncate",
        "getsockopt",
        "ioctl",
        "kill",
        "pidfd_open",
        "pipe2",
        "poll",
        "prlimit64",
        "recvmsg",
        "rename",
        "renameat",
        "rt_sigprocmask",
        "sched_getaffinity",
        "sendmsg",
        "setpgid",
        "setsockopt",
        "signalfd4",
        "socket",
        "statx",
        "unlinkat",
        "unshare",
        "wait4",
        "waitid",
    ] {
        let is_allowed = allowed.iter().any(|name| name == call);
        assert!(
            is_allowed && !denied.iter().any(|name| name == call),
            "{call}"
        );
    }
}
