//! `pve-span verify` says yes when every frame arrives once, and no, with the reason, when a mirror is broken in any way.

#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;
mod scene;

use std::process::Stdio;
use std::time::Duration;

use lab::{Node, wait_until};
use scene::linux::{
    linux_guests, linux_qemu_guests, linux_three_guests, mixed_bridges, sensor_on, vm_on,
};
use scene::{apply, run};
use serde_json::Value;

const DMZ: &str = "[dmz]\nsource = 101\noutput = 200/net1\n";

/// What `verify` said: its exit code, stdout and stderr.
type Said = (i32, String, String);

/// Runs `verify`, and `work` again and again while it watches.
#[track_caller]
fn while_watching(node: &Node, args: &[&str], mut work: impl FnMut()) -> Said {
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
fn session_while(node: &Node, args: &[&str], work: impl FnMut()) -> (i32, Value) {
    let args = [&["--time", "1", "--json"], args].concat();
    let (code, stdout, stderr) = while_watching(node, &args, work);
    match serde_json::from_str::<Value>(&stdout) {
        Ok(mut report) => (code, report["sessions"][0].take()),
        Err(_) => panic!("{code} {stdout}{stderr}"),
    }
}

/// Frames both ways between two NICs.
fn talk<'n>(node: &'n Node, a: &'n str, b: &'n str) -> impl FnMut() + 'n {
    node.introduce(a, b);
    let mut number = 0;
    move || {
        number += 1;
        node.exchange(a, b, &format!("there-{number}"));
        node.exchange(b, a, &format!("back-{number}"));
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Numbers of an output that tell something.
fn numbers(session: &Value) -> String {
    let output = &session["outputs"][0];
    let names = ["missing", "doubled", "foreign", "oversize", "bad_checksum"];
    let of = |name: &&str| match output[*name].as_u64() {
        Some(0) => None,
        Some(_) => Some((*name).to_owned()),
        None => Some(format!("{name} not told")),
    };
    names.iter().filter_map(of).collect::<Vec<_>>().join(" ")
}

#[test]
fn explore2() {
    let show = |what: &str, (code, session): (i32, Value)| {
        println!(
            "== {what}: {code} [{}] {}",
            numbers(&session),
            session["reasons"]
        );
        println!("{}", session["outputs"]);
    };
    {
        let node = Node::start();
        node.ovs_takes_offloads();
        node.ovs_bridge("vmbr2");
        let guests = [
            vm_on(101, "bridge=vmbr2").qemu(),
            vm_on(102, "bridge=vmbr2").qemu(),
            sensor_on(200, "bridge=vmbr2").qemu_reader(),
        ];
        node.add_all(&guests);
        node.start_guests([101, 102, 200]);
        apply(&node, DMZ);
        show(
            "gso ovs",
            session_while(&node, &[], || {
                node.stream("101/net0", "102/net0", 2 << 20);
            }),
        );
        println!(
            "{}",
            node.ovs_vsctl(&["get", "interface", "tap101i0", "statistics"])
        );
        show(
            "gso ovs small",
            session_while(&node, &[], || {
                node.stream("101/net0", "102/net0", 1 << 17);
                std::thread::sleep(Duration::from_millis(10));
            }),
        );
        println!(
            "{}",
            node.ovs_vsctl(&["get", "interface", "tap101i0", "statistics"])
        );
        apply(
            &node,
            "[dmz]\nsource = 101\noutput = 200/net1\nengine=nft\n",
        );
        show(
            "gso nft small",
            session_while(&node, &[], || {
                node.stream("101/net0", "102/net0", 1 << 17);
                std::thread::sleep(Duration::from_millis(10));
            }),
        );
    }
}
