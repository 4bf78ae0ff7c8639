//! Asking `pve-span doctor`, and doing what it says.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::process::Command;

use serde_json::Value;

use super::lab::{Guest, Node, binary, try_run};

/// A finding, paths with the node's root.
#[derive(Clone, Debug)]
pub struct Finding {
    pub severity: String,
    pub id: String,
    pub what: String,
    pub evidence: String,
    pub remedy: String,
}

impl Node {
    /// Puts there what the package has: the program and the snippet.
    pub fn put_package(&self) {
        for folder in ["usr/bin", "usr/share/pve-span"] {
            std::fs::create_dir_all(self.path(folder)).unwrap();
        }
        std::os::unix::fs::symlink(binary(), self.path("usr/bin/pve-span")).unwrap();
        let hookscript = concat!(env!("CARGO_MANIFEST_DIR"), "/hookscripts/pve-span");
        std::fs::copy(hookscript, self.path("usr/share/pve-span/hookscript")).unwrap();
    }
}

/// The exit code, and all findings.
pub fn look(node: &Node) -> (i32, Vec<Finding>) {
    look_by(node.pve_span_command(&["doctor", "--json"]))
}

/// The same by a command of one's own.
pub fn look_by(command: Command) -> (i32, Vec<Finding>) {
    let output = try_run(command, "");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let findings = report["findings"].as_array().unwrap().iter();
    let findings: Vec<Finding> = findings
        .map(|finding| Finding {
            severity: text(finding, "severity"),
            id: text(finding, "id"),
            what: text(finding, "what"),
            evidence: text(finding, "evidence"),
            remedy: text(finding, "remedy"),
        })
        .collect();
    let worst = findings
        .iter()
        .map(|finding| match finding.severity.as_str() {
            "error" => 2,
            "warning" => 1,
            _ => 0,
        });
    let code = output.status.code().unwrap();
    assert_eq!(code, worst.max().unwrap(), "{findings:#?}");
    (code, findings)
}

/// The first finding of that name that is not well, which has to be told like this (without the node's root).
#[track_caller]
pub fn found(node: &Node, id: &str, expected: &str) -> Finding {
    let command = node.pve_span_command(&["doctor", "--json"]);
    found_by(command, node, id, expected)
}

/// The same by a command of one's own.
#[track_caller]
pub fn found_by(command: Command, node: &Node, id: &str, expected: &str) -> Finding {
    let (_, findings) = look_by(command);
    let finding = findings
        .iter()
        .find(|finding| finding.id == id && finding.severity != "ok")
        .unwrap_or_else(|| panic!("no {id}: {findings:#?}"));
    let told = format!(
        "{}: {}\nseen: {}\ndo: {}",
        finding.severity, finding.what, finding.evidence, finding.remedy
    );
    let told = steady(&told.replace(&node.root().display().to_string(), ""));
    assert_eq!(told, expected);
    finding.clone()
}

/// Nothing of that name is wrong.
#[track_caller]
pub fn gone(node: &Node, id: &str) {
    let (_, findings) = look(node);
    let left = findings
        .iter()
        .find(|finding| finding.id == id && finding.severity != "ok");
    assert!(left.is_none(), "{left:#?}");
}

/// Something of that name is told to be well.
#[track_caller]
pub fn fine(node: &Node, id: &str) {
    let (_, findings) = look(node);
    assert!(
        findings
            .iter()
            .any(|finding| finding.id == id && finding.severity == "ok"),
        "no {id} is well: {findings:#?}"
    );
}

/// Runs a remedy as it stands.
#[track_caller]
pub fn sh(node: &Node, command: &str) {
    let mut shell = node.command("sh");
    shell.args(["-e", "-c", command]);
    super::lab::run(shell, "");
}

/// Does what Proxmox VE's qm and pct do with the remedy: `qm set VMID --KEY VALUE`, `--delete KEY`, and nothing else.
#[track_caller]
pub fn qm(node: &Node, command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    let [program @ ("qm" | "pct"), "set", vmid, option, value] = words.as_slice() else {
        panic!("not understood: {command}");
    };
    let vmid: u32 = vmid.parse().unwrap();
    let value = value.trim_matches('\'');
    node.edit(vmid, |guest: Guest| {
        assert_eq!(guest.kind.word() == "qemu", *program == "qm", "{command}");
        match option.strip_prefix("--").unwrap() {
            "delete" => guest.unset(value),
            key => guest.set(key, value),
        }
    });
}

/// A text without what is another on each machine and at each time: versions, numbers of processes.
fn steady(text: &str) -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut text = text.replace(release.trim(), "RELEASE");
    for before in ["process ", "cur_cfg is ", "schema ", "wrote it last, "] {
        let mut parts = text.split(before);
        let mut steady = parts.next().unwrap().to_owned();
        for part in parts {
            let rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            let number = if rest.len() < part.len() { "N" } else { "" };
            steady += &format!("{before}{number}{rest}");
        }
        text = steady;
    }
    text
}
