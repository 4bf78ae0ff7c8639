//! What a sensor gets of guests that leave segmenting and checksums to the network card: QEMU's.

#![allow(clippy::unwrap_used)]

mod lab;

use lab::{Guest, Inspection, Node, Stream, TapFrame};

const MTU: usize = 1500;
const LEN: usize = 4 << 20;

/// What the sensor shall be spared.
#[derive(Clone, Copy)]
enum Wire {
    /// Nothing.
    No,
    /// Frames that could not be on a wire.
    True,
}

/// 101, 102 and the sensor 200 on vmbr0, with taps as QEMU opens them.
fn node() -> Node {
    let vm = |vmid| Guest::vm(vmid).net(0, "virtio,bridge=vmbr0").qemu();
    let sensor = Guest::vm(200).net(1, "virtio,bridge=vmbr0").qemu_reader();
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    node.add_all([&vm(101), &vm(102), &sensor]);
    node.start_guests([101, 102, 200]);
    node
}

/// Mirrors what 101 sends and receives to 200/net1.
fn mirror(node: &Node, wire: Wire) {
    let chain = |hook: &str| {
        format!(
            "chain {hook} {{\n type filter hook {hook} device \"tap101i0\" priority 0;\n dup to \"tap200i1\"\n }}\n"
        )
    };
    node.nft(&format!(
        "table netdev by-hand {{\n{}{}}}\n",
        chain("ingress"),
        chain("egress")
    ));
    if let Wire::True = wire {
        node.ethtool(&["-K", "tap200i1", "tso", "off", "gso", "off"]);
        node.ethtool(&["-K", "tap200i1", "tx", "off", "sg", "off"]);
    }
}

/// A TCP stream between 101 and 102, and what the sensor got while it went.
fn stream(node: &Node) -> (Stream, Vec<TapFrame>) {
    let mut sensor = node.capture_tap("200/net1");
    let stream = node.stream("101/net0", "102/net0", LEN);
    node.exchange("101/net0", "102/net0", "behind-the-stream");
    (stream, sensor.all_until("behind-the-stream"))
}

#[test]
fn as_it_is_a_mirror_delivers_what_was_never_on_a_wire() {
    let node = node();
    mirror(&node, Wire::No);
    let (stream, frames) = stream(&node);
    let found = Inspection::of_tap(&frames, MTU);
    assert!(found.longest > 30_000 && found.oversize > 0, "{found:?}");
    assert!(found.gso > 0 && found.bad_tcp > found.gso, "{found:?}");
    assert_eq!(found.has_all_of(&stream), Ok(()), "{found:?}");
}

#[test]
fn without_the_sensors_offloads_each_frame_is_as_on_a_wire_and_no_byte_is_missing() {
    let node = node();
    mirror(&node, Wire::True);
    let (stream, frames) = stream(&node);
    let found = Inspection::of_tap(&frames, MTU);
    assert!(found.is_wire_true(), "{found:?}");
    assert!(found.frames > 2 * LEN / MTU, "{found:?}");
    assert_eq!(found.has_all_of(&stream), Ok(()), "{found:?}");
}
