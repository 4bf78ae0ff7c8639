//! The exit codes of docs/commands.md: each command in each state, called wrongly, and where its output cannot be written.

#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;
mod scene;

use std::fs::{self, File};
use std::process::Stdio;

use lab::{Node, try_run};
use scene::linux::linux_three_guests;
use scene::{apply, run, stderr};

const DMZ: &str = "[dmz]\nsource = 101\noutput = 200/net1\n";

/// Commands that look at the node and change nothing.
const LOOKING: [&[&str]; 9] = [
    &["check"],
    &["plan"],
    &["status"],
    &["status", "--events"],
    &["ports"],
    &["explain", "101"],
    &["verify", "--time", "1"],
    &["verify", "--time", "1", "--strict"],
    &["import"],
];

/// The exit codes that docs/commands.md has for a call: those whose column says what they mean.
#[track_caller]
fn documented(args: &[&str]) -> Vec<i32> {
    let rows = include_str!("../docs/commands.md").lines();
    let mut rows = rows.filter(|line| line.starts_with("| "));
    let heads = rows.next().unwrap().split('|');
    let code = |head: &str| head.trim().trim_start_matches("exit ").parse().ok();
    let codes: Vec<Option<i32>> = heads.map(code).collect();
    let is_for = |row: &&str| {
        let call = row.split('`').nth(1).unwrap_or_default();
        let words = call.trim_start_matches("pve-span ").split_whitespace();
        let words =
            words.take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
        words
            .zip(args.iter().map(Some).chain(std::iter::repeat(None)))
            .all(|(word, arg)| arg == Some(&word))
    };
    let row = rows
        .filter(is_for)
        .max_by_key(|row| row.split('`').nth(1).map(str::len));
    let row = row.unwrap_or_else(|| panic!("docs/commands.md has no row for {args:?}"));
    let said = row
        .split('|')
        .zip(codes)
        .filter(|(cell, _)| !cell.trim().is_empty());
    said.filter_map(|(_, code)| code).collect()
}

#[track_caller]
fn assert_documented(args: &[&str], code: i32) {
    let codes = documented(args);
    assert!(
        codes.contains(&code),
        "{args:?}: {code} is none of {codes:?}"
    );
}

#[track_caller]
fn assert_codes(node: &Node, state: &str, codes: [i32; 9]) {
    let found = LOOKING.map(|args| {
        let (code, ..) = run(node, args);
        let json: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        assert_eq!(run(node, &json).0, code, "{state}: {json:?}");
        assert_documented(args, code);
        code
    });
    assert_eq!(found, codes, "{state}: {LOOKING:?}");
}

#[test]
fn each_command_in_each_state() {
    let node = linux_three_guests();
    apply(&node, DMZ);
    assert_codes(&node, "healthy", [0, 0, 0, 0, 0, 0, 0, 1, 0]);
    node.span_cfg(&format!("{DMZ}direction = from\n"));
    assert_codes(&node, "pending", [0, 2, 1, 0, 0, 0, 1, 1, 0]);
    node.span_cfg("[dmz]\nsouce = 101\n");
    assert_codes(&node, "last good copy", [1, 0, 1, 0, 0, 0, 0, 1, 0]);
    let (_, out, err) = run(&node, &["status"]);
    let told = "span.cfg is not in force: the last good copy, /var/lib/pve-span/span.cfg, stays in force\n";
    assert!(out.ends_with(told), "{out}");
    assert!(err.contains("span.cfg is not valid (line 1: "), "{err}");
    let (_, out, _) = run(&node, &["status", "--json"]);
    assert!(out.contains("\"in_force\": \"last-good\""), "{out}");
    assert_eq!(run(&node, &["apply"]).0, 1);
    fs::remove_file(node.path("var/lib/pve-span/span.cfg")).unwrap();
    assert_codes(&node, "no copy either", [1, 1, 2, 0, 0, 2, 2, 2, 0]);
    assert_eq!(run(&node, &["apply"]).0, 1);
    node.span_cfg(DMZ);
    assert_eq!(run(&node, &["apply"]).0, 0);
    node.stop_guest(200);
    assert_eq!(run(&node, &["apply"]).0, 0, "as far as guests run");
    assert_codes(&node, "the sensor is off", [0, 0, 1, 0, 0, 0, 1, 1, 0]);
    assert_eq!(run(&node, &["clear", "--all"]).0, 0);
}

#[test]
fn a_wrong_call_is_64_everywhere() {
    let node = linux_three_guests();
    apply(&node, DMZ);
    let commands = [
        "check", "plan", "apply", "clear", "status", "ports", "explain", "doctor", "verify",
        "init", "edit", "import", "attach", "detach", "watch",
    ];
    for command in commands {
        let (code, out, err) = run(&node, &[command, "--nope"]);
        assert_eq!((code, out.as_str()), (64, ""), "{command}");
        assert!(err.contains("--nope"), "{err}");
        assert_documented(&[command], code);
    }
    let wrong: [&[&str]; 8] = [
        &["nope"],
        &["clear"],
        &["clear", "nope"],
        &["verify", "nope"],
        &["verify", "--time", "0"],
        &["explain", "nope"],
        &["attach", "nope/net0"],
        &["detach", "tga:web"],
    ];
    for args in wrong {
        let (code, _, err) = run(&node, args);
        assert_eq!(code, 64, "{args:?}: {err}");
    }
    let (code, ..) = run(&node, &["hook", "101"]);
    assert_eq!(code, 0, "a guest starts, however its hook is called");
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let node = linux_three_guests();
    apply(&node, DMZ);
    let to_full = |args: &[&str]| {
        let mut command = node.pve_span_command(args);
        let full = File::options().write(true).open("/dev/full").unwrap();
        command.stdout(full).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        (output.status.code().unwrap(), stderr(&node, &output))
    };
    let more: [&[&str]; 6] = [
        &["apply"],
        &["clear", "dmz"],
        &["doctor"],
        &["init", "--dry-run"],
        &["--help"],
        &["--version"],
    ];
    for args in LOOKING.iter().chain(&more) {
        let has_json = !args[0].starts_with("--") && args[0] != "init";
        let json: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        for args in [Some(args.to_vec()), has_json.then_some(json)]
            .iter()
            .flatten()
            // Without mirrors of others it has nothing to print but JSON.
            .filter(|args| **args != ["import"])
        {
            let (code, err) = to_full(args);
            assert_eq!(code, 74, "{args:?}: {err}");
            if !args[0].starts_with("--") {
                assert_documented(args, code);
            }
            let told =
                "pve-span: error: cannot write output: No space left on device (os error 28)\n";
            assert!(err.ends_with(told), "{args:?}: {err}");
        }
    }
    apply(&node, DMZ);
    // Who reads no longer is no error, and a guest's start is nobody's business.
    let mut child = node.pve_span_command(&["status", "--json"]);
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut hook = node.hook_command(101, "post-start");
    hook.stdout(File::options().write(true).open("/dev/full").unwrap());
    assert_eq!(hook.status().unwrap().code(), Some(0));
    assert_eq!(
        try_run(node.pve_span_command(&["status"]), "")
            .status
            .code(),
        Some(0)
    );
}
