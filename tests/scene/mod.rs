//! What most tests begin with: a node with guests 101 and 102 and the sensor 200 on one OVS bridge. Those with Linux
//! bridges are in `linux`.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod conversation;
pub mod editing;
pub mod explain;
pub mod linux;
pub mod watched;

use std::process::Output;

use super::lab::{Capture, Guest, Node};

/// A guest with one NIC on vmbr2.
pub fn vm(vmid: u32, more: &str) -> Guest {
    Guest::vm(vmid).net(
        0,
        &format!(
            "virtio=BC:24:11:2A:{:02X}:{:02X},bridge=vmbr2{more}",
            vmid / 256,
            vmid % 256
        ),
    )
}

/// The sensor: its monitor NIC is net1; net0 is of no concern here (user-mode NAT, no port).
pub fn sensor(vmid: u32) -> Guest {
    let mac = |nic: u32| format!("BC:24:11:2A:{nic:02X}:{:02X}", vmid % 256);
    let monitor = format!("virtio={},bridge=vmbr2", mac(1));
    Guest::vm(vmid)
        .name("sensor")
        .net(0, &format!("virtio={}", mac(9)))
        .net(1, &monitor)
}

/// 101, 102 and the sensor 200, all running.
pub fn three_guests() -> Node {
    guests(&[vm(101, ""), vm(102, ""), sensor(200)])
}

/// These guests, all running.
pub fn guests(guests: &[Guest]) -> Node {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    node.add_all(guests);
    node.start_guests(
        guests
            .iter()
            .flat_map(|guest| guest.nics().into_iter().take(1))
            .map(|nic| nic.vmid),
    );
    node
}

/// Writes the file and applies it; everything has to be done.
#[track_caller]
pub fn apply(node: &Node, span_cfg: &str) {
    node.span_cfg(span_cfg);
    let output = node.pve_span(&["apply"]);
    assert!(output.status.success(), "{}", told(&output));
    node.settle();
}

/// Everything that a command said.
pub fn told(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// What it said on stdout.
pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What it said on stderr, with the node's root taken out.
pub fn stderr(node: &Node, output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).replace(&node.root().display().to_string(), "")
}

/// A hook that must exit with 0; what it said on stdout and on stderr.
#[track_caller]
pub fn hook(node: &Node, vmid: u32, phase: &str) -> (String, String) {
    let output = node.hook(vmid, phase);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    (stdout(&output), stderr(node, &output))
}

/// How often each of some frames arrived, when all that were sent have been switched.
pub fn counts(capture: &mut Capture, tokens: &[&str]) -> Vec<usize> {
    tokens.iter().map(|token| capture.count(token)).collect()
}

/// The ports of our mirrors: `session output-port: from …, to …`, one line a mirror.
pub fn mirrors(node: &Node) -> Vec<String> {
    let ports = node.ovs_vsctl(&["--format=json", "--columns=_uuid,name", "list", "Port"]);
    let mirrors = node.ovs_vsctl(&[
        "--format=json",
        "--columns=external_ids,output_port,select_src_port,select_dst_port",
        "list",
        "Mirror",
    ]);
    let ports: serde_json::Value = serde_json::from_str(&ports).unwrap();
    let mirrors: serde_json::Value = serde_json::from_str(&mirrors).unwrap();
    let name = |uuid: &serde_json::Value| {
        let row = ports["data"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row[0] == *uuid);
        row.map_or("?".to_owned(), |row| row[1].as_str().unwrap().to_owned())
    };
    let names = |value: &serde_json::Value| {
        let items = if value[0] == "set" {
            value[1].as_array().unwrap().clone()
        } else {
            vec![value.clone()]
        };
        let mut names: Vec<String> = items.iter().map(name).collect();
        names.sort();
        names.join(" ")
    };
    let mut lines: Vec<String> = Vec::new();
    for row in mirrors["data"].as_array().unwrap() {
        let ids = row[0][1].as_array().unwrap();
        let session = ids
            .iter()
            .find(|pair| pair[0] == "pve-span")
            .map(|pair| pair[1].as_str().unwrap());
        if let Some(session) = session {
            lines.push(format!(
                "{session} {}: from {}, to {}",
                names(&row[1]),
                names(&row[2]),
                names(&row[3])
            ));
        }
    }
    lines.sort();
    lines
}

/// Exit code, stdout and stderr, with the node's root taken out.
pub fn run(node: &Node, args: &[&str]) -> (i32, String, String) {
    let output: Output = node.pve_span(args);
    let root = node.root().display().to_string();
    (
        output.status.code().unwrap(),
        stdout(&output).replace(&root, ""),
        stderr(node, &output),
    )
}

/// Makes a mirror that is not ours on vmbr2; `columns` may name ports as `@tap102i0`.
pub fn their_mirror(node: &Node, columns: &[&str]) {
    let ports: std::collections::BTreeSet<&str> = columns
        .iter()
        .filter_map(|column| column.split_once("=@"))
        .map(|(_, port)| port)
        .collect();
    let mut args: Vec<String> = Vec::new();
    for port in ports {
        args.extend([
            "--".into(),
            format!("--id=@{port}"),
            "get".into(),
            "port".into(),
            port.into(),
        ]);
    }
    args.extend(["--", "--id=@mirror", "create", "mirror"].map(str::to_owned));
    args.extend(columns.iter().map(|column| (*column).to_owned()));
    args.extend(["--", "add", "bridge", "vmbr2", "mirrors", "@mirror"].map(str::to_owned));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    node.ovs_vsctl(&args);
}

/// All that can be seen of a device's settings.
pub fn settings(node: &Node, device: &str) -> String {
    let of =
        |program: &str, args: &[&str]| told(&node.command(program).args(args).output().unwrap());
    of("bridge", &["-d", "link", "show", "dev", device]) + &of("ethtool", &["-k", device])
}
