//! `pve-span verify` says yes when every frame arrives once, and no, with the reason, when a mirror is broken in any way.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use lab::{Node, wait_until};
use scene::linux::{linux_guests, linux_qemu_guests, linux_three_guests, sensor_on, vm_on};
use scene::{apply, told};
use serde_json::Value;

const DMZ: &str = "[dmz]\nsource = 101\noutput = 200/net1\n";

/// Runs `verify`, and `work` while it watches.
fn verify_while(node: &Node, args: &[&str], work: impl FnMut()) -> (i32, String, String) {
    let mut command: Command = node.pve_span_command(&[&["verify", "-v"], args].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child: Child = command.spawn().unwrap();
    let mut work = work;
    let watches = format!("/proc/{}/net/packet", child.id());
    wait_until("it watches", || {
        std::fs::read_to_string(&watches).is_ok_and(|sockets| sockets.lines().count() > 2)
    });
    while child.try_wait().unwrap().is_none() {
        work();
    }
    let output: Output = child.wait_with_output().unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// The same, and its JSON.
fn json_while(node: &Node, args: &[&str], work: impl FnMut()) -> (i32, Value) {
    let (code, stdout, stderr) = verify_while(node, &[args, &["--json"]].concat(), work);
    let report = serde_json::from_str(&stdout);
    (
        code,
        report.unwrap_or_else(|_| panic!("{code} {stdout}{stderr}")),
    )
}

/// Frames both ways between 101 and 102.
fn talk(node: &Node) -> impl FnMut() + '_ {
    node.introduce("101/net0", "102/net0");
    let mut number = 0;
    move || {
        number += 1;
        node.exchange("101/net0", "102/net0", &format!("there-{number}"));
        node.exchange("102/net0", "101/net0", &format!("back-{number}"));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn on_a_linux_bridge_live_traffic_proves_a_session() {
    let node = linux_three_guests();
    apply(&node, DMZ);
    let (code, report) = json_while(&node, &["--time", "1"], talk(&node));
    println!("{report:#}");
    assert_eq!(code, 0);
}

#[test]
fn with_open_vswitch_live_traffic_proves_a_session() {
    let node = scene::three_guests();
    apply(&node, DMZ);
    let (code, report) = json_while(&node, &["--time", "1"], talk(&node));
    println!("{report:#}");
    assert_eq!(code, 0);
    let (code, stdout, stderr) = verify_while(&node, &["--time", "1"], || {});
    println!("{code} {stdout}{stderr}");
    let (code, stdout, stderr) = verify_while(&node, &["--time", "1", "--inject"], || {});
    println!("{code} {stdout}{stderr}");
}
