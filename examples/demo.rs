//! `make demo`: a miniature Proxmox VE node, its hookscript called as Proxmox VE calls it, and what arrives at
//! the sensor before, while and after guest 101 is mirrored.
//!
//! `make demo KEEP=1` leaves the node up.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic)]

#[path = "../tests/lab/mod.rs"]
mod lab;

use std::collections::BTreeMap;
use std::io::IsTerminal;

use lab::{Capture, Guest, Node};

const SPAN_CFG: &str = "[dmz-ids]\nsource = 101, tag:web\noutput = 200/net1\n";
const FRAMES: usize = 20;

fn main() {
    heading("A Proxmox VE node, in network namespaces of its own");
    let node = build();
    println!("  vmbr2 (Open vSwitch, userspace datapath) with");
    println!(
        "    101 web1    VM, VLAN 10, firewall bridge   tap101i0 ─ fwbr101i0 ─ fwln101o0 ─ vmbr2"
    );
    println!("    102 db1     VM, VLAN 10                    tap102i0 ─ vmbr2");
    println!("    103 web2    container, VLAN 10, tag `web`  veth103i0 ─ vmbr2");
    println!("    200 sensor  VM, its monitor NIC is net1    tap200i1 ─ vmbr2");

    heading("Before");
    let mut sensor = node.capture("200/net1");
    node.introduce("101/net0", "102/net0");
    node.introduce("103/net0", "102/net0");
    sensor.clear();
    talk(&node, "before", &["101", "103"]);
    node.introduce("101/net0", "102/net0");
    arrived(&mut sensor, "before");

    heading("/etc/pve/span.cfg");
    node.span_cfg(SPAN_CFG);
    print!("{}", indented(SPAN_CFG));

    heading("Guest 101 starts: Proxmox VE calls the hookscript");
    hook(&node, 101, "pre-start");
    hook(&node, 101, "post-start");
    node.settle();
    talk(&node, "while", &["101", "103"]);
    sensor.wait_for(|frame| frame.contains(&last("while")));
    arrived(&mut sensor, "while");

    heading("What there is");
    // ovs-vswitchd writes its counters every five seconds.
    lab::wait_until("Open vSwitch's counters", || {
        let mirror = node.ovs_vsctl(&["--bare", "--columns=statistics", "list", "Mirror"]);
        mirror.contains(&format!("tx_packets={}", 2 * FRAMES))
    });
    pve_span(&node, "status");
    println!();
    pve_span(&node, "ports");

    heading("Guest 101 stops");
    hook(&node, 101, "pre-stop");
    node.stop_guest(101);
    hook(&node, 101, "post-stop");
    node.settle();
    talk(&node, "after", &["103"]);
    sensor.wait_for(|frame| frame.contains(&last("after")));
    arrived(&mut sensor, "after");

    println!();
    if std::env::var_os("KEEP").is_some_and(|keep| !keep.is_empty() && keep != "0") {
        keep(node, sensor);
    } else {
        drop(sensor);
        drop(node);
        println!("The node is gone again: no namespace, process or file is left.");
    }
}

fn build() -> Node {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    let vm = |vmid, name: &str, nic: &str| Guest::vm(vmid).name(name).net(0, nic);
    node.add_all([
        &vm(
            101,
            "web1",
            "virtio=BC:24:11:2A:00:01,bridge=vmbr2,firewall=1,tag=10",
        ),
        &vm(102, "db1", "virtio=BC:24:11:2A:00:02,bridge=vmbr2,tag=10"),
        &Guest::ct(103).name("web2").tags("web").net(
            0,
            "name=eth0,bridge=vmbr2,hwaddr=BC:24:11:2A:00:03,tag=10,type=veth",
        ),
        &Guest::vm(200)
            .name("sensor")
            .net(0, "virtio=BC:24:11:2A:00:C7")
            .net(1, "virtio=BC:24:11:2A:00:C8,bridge=vmbr2"),
    ]);
    node.start_guests([101, 102, 103, 200]);
    node
}

fn heading(text: &str) {
    if std::io::stdout().is_terminal() {
        println!("\n\u{1b}[1m{text}\u{1b}[0m");
    } else {
        println!("\n== {text}");
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// Calls the hookscript as Proxmox VE does, and shows what the task log would show.
fn hook(node: &Node, vmid: u32, phase: &str) {
    println!("  # /var/lib/vz/snippets/pve-span {vmid} {phase}");
    let output = node.hook(vmid, phase);
    print!(
        "{}{}",
        indented(&String::from_utf8_lossy(&output.stdout)),
        indented(&String::from_utf8_lossy(&output.stderr))
    );
    assert!(
        output.status.success(),
        "the hookscript failed: {}",
        output.status
    );
}

fn pve_span(node: &Node, command: &str) {
    println!("  # pve-span {command}");
    let output = node.pve_span(&[command]);
    print!(
        "{}{}",
        indented(&String::from_utf8_lossy(&output.stdout)),
        indented(&String::from_utf8_lossy(&output.stderr))
    );
}

/// Guests each send frames to the database and get as many back.
fn talk(node: &Node, when: &str, guests: &[&str]) {
    for guest in guests {
        let nic = format!("{guest}/net0");
        for number in 0..FRAMES / 2 {
            send(
                node,
                &nic,
                "102/net0",
                &format!("{when} {guest} request {number};"),
            );
            send(
                node,
                "102/net0",
                &nic,
                &format!("{when} {guest} answer {number};"),
            );
        }
        println!("  {FRAMES} frames between {guest} and 102");
    }
}

/// One frame, and its arrival.
fn send(node: &Node, from: &str, to: &str, token: &str) {
    let mut there = node.capture(to);
    node.send(from, &node.frame(from, to, token));
    there.wait_for(|frame| frame.contains(token));
}

/// The last frame that [`talk`] sends: all that is mirrored has arrived when it has.
fn last(when: &str) -> String {
    format!("{when} 103 answer {};", FRAMES / 2 - 1)
}

/// How many of the frames reached the sensor, how many of them twice, and with which VLAN tag.
fn arrived(sensor: &mut Capture, when: &str) {
    let mut copies: BTreeMap<String, usize> = BTreeMap::new();
    let mut vlans: BTreeMap<Option<u16>, usize> = BTreeMap::new();
    for frame in sensor.frames() {
        let text = String::from_utf8_lossy(frame.payload()).into_owned();
        if let Some(token) = text
            .split(';')
            .next()
            .filter(|token| token.contains(when) && text.contains(';'))
        {
            *copies.entry(token.to_owned()).or_default() += 1;
            *vlans.entry(frame.vlan()).or_default() += 1;
        }
    }
    let of = |guest: &str| copies.keys().filter(|token| token.contains(guest)).count();
    let twice = copies.values().filter(|count| **count > 1).count();
    println!(
        "  arrived at the sensor: {} of 101's, {} of 103's, {twice} twice",
        of(" 101 "),
        of(" 103 ")
    );
    if let Some(Some(vlan)) = vlans.keys().next() {
        println!("  with their 802.1Q tag: VLAN {vlan}");
    }
}

fn keep(node: Node, sensor: Capture) {
    drop(sensor);
    let (netns, root) = (node.netns().to_owned(), node.root().display().to_string());
    let binary = lab::binary();
    let clean_up = node.keep();
    println!("The node stays up; guest 101 is off. In a shell on it (`exit` leaves it):");
    println!("  ip netns exec {netns} bash");
    println!("  alias pve-span='{} --root {root}'", binary.display());
    println!("  pve-span check; pve-span plan; pve-span apply; pve-span status; pve-span ports");
    println!("  pve-span 103 pre-stop; pve-span 103 post-start");
    println!("  ovs-vsctl --db=unix:{root}/run/openvswitch/db.sock list Mirror");
    println!("The files are in {root}/etc/pve: edit span.cfg there.");
    println!("Take it down with:");
    println!("  {clean_up}");
}
