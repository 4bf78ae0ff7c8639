//! What a sensor gets of guests that leave segmenting and checksums to the network card: QEMU's.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use lab::{Inspection, Node, Stream, TapFrame, wait_until};
use scene::linux::{linux_qemu_guests, ovs_qemu_guests};
use scene::{apply, hook, told};

const MTU: usize = 1500;
const LEN: usize = 4 << 20;
/// Open vSwitch 3.1's userspace datapath forgets the TCP options when it says into how large pieces a frame shall be
/// cut (`netdev_linux_prepend_vnet_hdr`); there are at most 40 bytes of them. The kernel's datapath does not cut.
const OPTIONS: usize = 40;

/// What the sensor shall be spared.
#[derive(Clone, Copy)]
enum Wire {
    /// Nothing.
    No,
    /// Frames that could not be on a wire.
    True,
}

/// Mirrors what 101 sends and receives to 200/net1.
fn mirror(node: &Node, engine: &str, wire: Wire) {
    let wire = match wire {
        Wire::No => "no",
        Wire::True => "yes",
    };
    let session = format!("source = 101\noutput = 200/net1\nengine = {engine}\nwire = {wire}\n");
    apply(node, &format!("[dmz]\n{session}"));
}

/// A TCP stream between 101 and 102, and what the sensor got while it went.
fn stream(node: &Node) -> (Stream, Vec<TapFrame>) {
    let mut sensor = node.capture_tap("200/net1");
    let stream = node.stream("101/net0", "102/net0", LEN);
    node.exchange("101/net0", "102/net0", "behind-the-stream");
    (stream, sensor.all_until("behind-the-stream"))
}

#[track_caller]
fn assert_never_on_a_wire(node: &Node) {
    let (stream, frames) = stream(node);
    let found = Inspection::of_tap(&frames, MTU);
    // How much TCP hands over at once depends on how busy the machine is.
    assert!(found.longest > 2 * MTU && found.oversize > 0, "{found:?}");
    assert!(found.gso > 0 && found.bad_tcp > found.gso, "{found:?}");
    assert_eq!(found.has_all_of(&stream), Ok(()), "{found:?}");
}

#[track_caller]
fn assert_wire_true(node: &Node, mtu: usize) {
    let (stream, frames) = stream(node);
    let found = Inspection::of_tap(&frames, mtu);
    assert!(found.is_wire_true(), "{found:?}");
    assert!(found.frames > 2 * LEN / MTU, "{found:?}");
    assert_eq!(found.has_all_of(&stream), Ok(()), "{found:?}");
}

#[test]
fn as_it_is_a_mirror_delivers_what_was_never_on_a_wire() {
    let node = linux_qemu_guests("bridge=vmbr0");
    mirror(&node, "auto", Wire::No);
    assert_never_on_a_wire(&node);
}

#[test]
fn without_the_sensors_offloads_each_frame_is_as_on_a_wire_and_no_byte_is_missing() {
    let node = linux_qemu_guests("bridge=vmbr0");
    mirror(&node, "auto", Wire::True);
    assert_wire_true(&node, MTU);
}

#[test]
fn the_same_behind_firewall_bridges() {
    let node = linux_qemu_guests("bridge=vmbr0,firewall=1");
    mirror(&node, "auto", Wire::True);
    assert_wire_true(&node, MTU);
}

#[test]
fn a_sensor_that_starts_anew_has_its_offloads_back() {
    let node = linux_qemu_guests("bridge=vmbr0");
    mirror(&node, "auto", Wire::True);
    node.stop_guest(200);
    node.start_guest(200);
    mirror(&node, "auto", Wire::No);
    assert_never_on_a_wire(&node);
    hook(&node, 200, "post-start");
    mirror(&node, "auto", Wire::True);
    assert_wire_true(&node, MTU);
}

#[test]
fn open_vswitchs_own_mirror_delivers_the_same_and_is_cured_by_the_same() {
    let node = ovs_qemu_guests();
    mirror(&node, "ovs", Wire::No);
    assert_never_on_a_wire(&node);
    mirror(&node, "ovs", Wire::True);
    assert_wire_true(&node, MTU + OPTIONS);
}

#[test]
fn nftables_mirrors_a_port_of_open_vswitch_too() {
    let node = ovs_qemu_guests();
    mirror(&node, "nft", Wire::True);
    assert_wire_true(&node, MTU + OPTIONS);
}

/// A stream between 101 and 102 on the Linux bridge vmbr0, as it gets out of the port `output` of the node, read by
/// `capture`.
#[track_caller]
fn assert_port_is_wire_true(node: &Node, output: &str, end: &str) {
    let before = node.ethtool(&["-k", output]);
    let session =
        format!("[dmz]\nsource = 101\noutput = port:{output}\ncapture-only = port:{output}\n");
    for (wire, is_finished) in [("no", false), ("yes", true)] {
        apply(node, &format!("{session}wire = {wire}\n"));
        let mut capture = node.capture(end);
        let stream = node.stream("101/net0", "102/net0", LEN);
        node.exchange("101/net0", "102/net0", "behind-the-stream");
        capture.wait_for(|frame| frame.contains("behind-the-stream"));
        let frames = capture.frames();
        let found = Inspection::of(&frames, MTU);
        assert_eq!(found.has_all_of(&stream), Ok(()), "{wire}: {found:?}");
        assert_eq!(found.oversize == 0, is_finished, "{wire}: {found:?}");
        assert_eq!(found.bad_tcp == 0, is_finished, "{wire}: {found:?}");
    }
    apply(node, "# nothing\n");
    assert_eq!(node.ethtool(&["-k", output]), before);
}

#[test]
fn a_veth_that_leads_to_a_sensor_on_the_node_gets_frames_as_on_a_wire() {
    let node = linux_qemu_guests("bridge=vmbr0");
    let end = node.physical_unplugged("span0");
    assert_port_is_wire_true(&node, "span0", &end);
}

#[test]
fn so_does_a_veth_in_a_bridge() {
    let node = linux_qemu_guests("bridge=vmbr0");
    let end = node.physical("span0", "vmbr0");
    assert_port_is_wire_true(&node, "span0", &end);
}

#[test]
fn an_internal_port_of_open_vswitch_gets_frames_as_guests_leave_them_and_that_is_told() {
    let node = ovs_qemu_guests();
    let port = ["add-port", "vmbr2", "span0", "--", "set"];
    node.ovs_vsctl(&[&port[..], &["Interface", "span0", "type=internal"]].concat());
    node.ip(&["link set span0 up"]);
    let before = node.ethtool(&["-k", "span0"]);
    apply(&node, "[dmz]\nsource = 101\noutput = port:span0\n");
    let mut tcpdump = node.command("tcpdump");
    tcpdump.args([
        "-nUi",
        "span0",
        "-c",
        "1",
        "-w",
        "/dev/null",
        "greater",
        "3000",
    ]);
    let mut large = tcpdump.spawn().unwrap();
    wait_until("a frame arrives that is longer than the MTU", || {
        node.stream("101/net0", "102/net0", LEN);
        large.try_wait().unwrap().is_some()
    });
    assert_eq!(node.ethtool(&["-k", "span0"]), before);
    let plan = told(&node.pve_span(&["plan"]));
    let note = "port:span0 is an internal port of Open vSwitch, which delivers frames there as guests leave them";
    assert!(plan.contains(note), "{plan}");
}
