//! Running `pve-span verify` while something happens, and what it said.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::lab::{Node, wait_until};

/// What 101 sends and gets.
pub const DMZ: &str = "[dmz]\nsource = 101\noutput = 200/net1\n";

/// What `verify` said: its exit code, stdout and stderr.
pub type Said = (i32, String, String);

/// Runs `verify`, and `work` again and again while it watches.
#[track_caller]
pub fn while_watching(node: &Node, args: &[&str], mut work: impl FnMut()) -> Said {
    let mut command = node.pve_span_command(&[&["verify"], args].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let sockets = format!("/proc/{}/net/packet", child.id());
    let mut has_ended = false;
    wait_until("it watches, or has ended", || {
        let listed = std::fs::read_to_string(&sockets);
        has_ended = child.try_wait().unwrap().is_some();
        has_ended || listed.is_ok_and(|list| list.lines().count() > 2)
    });
    while child.try_wait().unwrap().is_none() {
        work();
    }
    let output = child.wait_with_output().unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// The same for a second, and the first session of its JSON.
#[track_caller]
pub fn session_while(node: &Node, args: &[&str], work: impl FnMut()) -> (i32, Value) {
    session_for("1", node, args, work)
}

/// The same for some seconds.
#[track_caller]
pub fn session_for(seconds: &str, node: &Node, args: &[&str], work: impl FnMut()) -> (i32, Value) {
    let args = [&["--time", seconds, "--json"], args].concat();
    let (code, stdout, stderr) = while_watching(node, &args, work);
    match serde_json::from_str::<Value>(&stdout) {
        Ok(mut report) => (code, report["sessions"][0].take()),
        Err(_) => panic!("{code} {stdout}{stderr}"),
    }
}

/// Frames both ways between two NICs.
pub fn talk<'n>(node: &'n Node, a: &'n str, b: &'n str) -> impl FnMut() + 'n {
    node.introduce(a, b);
    let mut number = 0;
    move || {
        number += 1;
        node.exchange(a, b, &format!("there-{number}"));
        node.exchange(b, a, &format!("back-{number}"));
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Which of an output's numbers are not 0.
pub fn faults(session: &Value) -> String {
    let output = &session["outputs"][0];
    let names = ["missing", "doubled", "foreign", "oversize", "bad_checksum"];
    let is_told = |name: &&str| output[*name].as_u64() != Some(0);
    names
        .into_iter()
        .filter(is_told)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Why it is not proven, counts left out.
pub fn reasons(session: &Value) -> Vec<String> {
    let reason = |reason: &Value| {
        let text = reason.as_str().unwrap();
        let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let count = if rest.len() < text.len() { "N" } else { "" };
        format!("{count}{rest}")
    };
    session["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(reason)
        .collect()
}

/// Watched and arrived, by source and direction.
pub fn sources(session: &Value) -> Vec<(String, u64, u64)> {
    let source = |source: &Value| {
        let word = |name: &str| source[name].as_str().unwrap().to_owned();
        let number = |name: &str| source[name].as_u64().unwrap();
        let name = format!("{} {}", word("direction"), word("source"));
        (name, number("watched"), number("arrived"))
    };
    let sources = session["outputs"][0]["sources"].as_array().unwrap();
    sources.iter().map(source).collect()
}

/// It says that all is well, and its numbers say so too.
#[track_caller]
pub fn assert_proven((code, session): (i32, Value)) {
    assert_eq!(
        (code, faults(&session), reasons(&session)),
        (0, String::new(), vec![]),
        "{session:#}"
    );
    assert_eq!(session["verdict"], "proven");
    for (name, watched, arrived) in sources(&session) {
        assert!(watched > 0 && watched == arrived, "{name}: {session:#}");
    }
    let latency = &session["outputs"][0]["latency"];
    assert!(
        latency["median_us"].as_f64() <= latency["max_us"].as_f64(),
        "{session:#}"
    );
}

/// A reason.
pub const PENDING: &str = "not in force yet: see pve-span plan, then pve-span apply";
/// A reason.
pub const MISSING: &str = "N frames are missing at 200/net1 (tap200i1): pve-span status and pve-span plan tell whether the mirror \
    is whole; what the source's rate= or another nftables table drops before it is mirrored is missing too";
/// A reason.
pub const DOUBLED: &str = "N frames arrived more than once at 200/net1: is there a mirror made by hand (ovs-vsctl list Mirror, nft \
    list ruleset, tc filter), does a source send from a MAC address that is not in its config, or do both engines serve the \
    output (pve-span plan)?";
/// A reason.
pub const FOREIGN: &str = "N frames arrived at 200/net1 that no source has sent or got: something else sends to tap200i1, or a \
    source's frames were dropped behind the mirror (rate= on its NIC)";
/// A reason.
pub const OVERSIZE: &str = "N frames are longer than the MTU of tap200i1, 1500: the offloads of tap200i1 are on again (pve-span \
    apply switches them off), or a source's MTU is larger";
/// A reason.
pub const BAD: &str = "N frames have a bad checksum at 200/net1: the offloads of tap200i1 are on again (pve-span apply switches them \
    off), or a guest sends such frames";
