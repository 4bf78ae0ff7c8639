//! Open vSwitch with the kernel's datapath, as on a Proxmox VE node: its ports as sources and outputs of both engines.
//! Where the kernel has none, the test says so and does nothing; the userspace datapath is tested elsewhere.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use lab::{Capture, Frame, Inspection, Mac, Node, or_skip};
use scene::conversation::{by_the_service, every_way};
use scene::linux::{sensor_on, start, vm_on};
use scene::{apply, counts, hook, mirrors};

/// Sends there and back between two NICs; how often each arrived at the sensor.
fn there_and_back(node: &Node, sensor: &mut Capture, a: &str, b: &str) -> Vec<usize> {
    node.exchange(a, b, "there");
    node.exchange(b, a, "back");
    counts(sensor, &["there", "back"])
}

/// The OVS bridge vmbr2 on the kernel's datapath: 101, 102, 103 behind a firewall bridge, 104 and 105 in VLAN 20, the
/// sensor 200; and the sensor 201 on the Linux bridge vmbr0.
fn kernel_datapath() -> Result<Node, String> {
    let node = Node::start_with_kernel_datapath()?;
    node.ovs_bridge("vmbr2");
    node.linux_bridge("vmbr0");
    start(
        &node,
        &[
            vm_on(101, "bridge=vmbr2"),
            vm_on(102, "bridge=vmbr2"),
            vm_on(103, "bridge=vmbr2,firewall=1"),
            vm_on(104, "bridge=vmbr2,tag=20"),
            vm_on(105, "bridge=vmbr2,tag=20"),
            sensor_on(200, "bridge=vmbr2"),
            sensor_on(201, "bridge=vmbr0"),
        ],
    );
    Ok(node)
}

#[test]
fn ports_of_open_vswitchs_kernel_datapath_are_mirrored_by_both_engines() {
    let Some(node) = or_skip(kernel_datapath()) else {
        return;
    };
    node.introduce("101/net0", "102/net0");
    node.introduce("103/net0", "102/net0");
    node.introduce("104/net0", "105/net0");
    for (session, output, pair) in [
        ("source = 101\nengine = ovs\n", "200/net1", [101, 102]),
        ("source = 101\nengine = nft\n", "200/net1", [101, 102]),
        ("source = 101\n", "201/net1", [101, 102]),
        ("source = 103\n", "200/net1", [103, 102]),
        ("source = 103\nengine = nft\n", "200/net1", [103, 102]),
        ("source = 103\npoint = guest\n", "200/net1", [103, 102]),
        ("source = 103\npoint = guest\n", "201/net1", [103, 102]),
        ("source = 103\npoint = bridge\n", "201/net1", [103, 102]),
        ("source = bridge:vmbr2\n", "201/net1", [101, 102]),
        ("source = bridge:vmbr2\n", "201/net1", [103, 102]),
        ("source = 104\nvlan = 20\n", "201/net1", [104, 105]),
        ("source = 104\nvlan = 20\n", "200/net1", [104, 105]),
    ] {
        let directions: &[(&str, [usize; 2])] = if session.contains("bridge:") {
            &[("both", [1, 1])]
        } else {
            &[("from", [1, 0]), ("to", [0, 1]), ("both", [1, 1])]
        };
        for (direction, expected) in directions {
            let case = format!("[dmz]\n{session}direction = {direction}\noutput = {output}\n");
            apply(&node, &case);
            let mut sensor = node.capture(output);
            let [a, b] = pair.map(|vmid| format!("{vmid}/net0"));
            let arrived = there_and_back(&node, &mut sensor, &a, &b);
            assert_eq!(arrived, *expected, "{case}");
        }
    }
}

#[test]
fn a_sensor_on_the_kernel_datapath_gets_copies_only() {
    let Some(node) = or_skip(kernel_datapath()) else {
        return;
    };
    node.introduce("101/net0", "102/net0");
    for engine in ["ovs", "nft"] {
        apply(
            &node,
            &format!(
                "[dmz]\nsource = 101\nengine = {engine}\ndirection = from\noutput = 200/net1\n"
            ),
        );
        assert_eq!(mirrors(&node).len(), 1, "{engine}");
        let mut sensor = node.capture("200/net1");
        let mut guest = node.capture("102/net0");
        let all = |nic: &str, token: &str| {
            let frame = Frame::new(node.mac(nic), Mac::BROADCAST).carrying(token);
            node.send(nic, &frame);
        };
        all("200/net1", "from-the-sensor");
        all("103/net0", "everybody");
        guest.wait_for(|frame| frame.contains("everybody"));
        node.exchange("101/net0", "102/net0", "copied");
        sensor.wait_for(|frame| frame.contains("copied"));
        assert_eq!(counts(&mut sensor, &["copied", "everybody"]), [1, 0]);
        assert_eq!(guest.count("from-the-sensor"), 0, "{engine}");
    }
    // A guest that is started anew.
    node.stop_guest(101);
    hook(&node, 101, "post-stop");
    node.start_guest(101);
    let (out, err) = hook(&node, 101, "post-start");
    assert!(
        out.contains("mirrors 101/net0") && err.is_empty(),
        "{out}{err}"
    );
    node.introduce("101/net0", "102/net0");
    let mut sensor = node.capture("200/net1");
    node.exchange("101/net0", "102/net0", "anew");
    sensor.wait_for(|frame| frame.contains("anew"));
    assert_eq!(sensor.count("anew"), 1);
    apply(&node, "# nothing\n");
    assert_eq!(mirrors(&node), [] as [&str; 0]);
}

#[test]
fn on_the_kernel_datapath_each_frame_is_as_on_a_wire_and_no_byte_is_missing() {
    const MTU: usize = 1500;
    let Some(node) = or_skip(Node::start_with_kernel_datapath()) else {
        return;
    };
    node.ovs_bridge("vmbr2");
    start(
        &node,
        &[
            vm_on(101, "bridge=vmbr2").qemu(),
            vm_on(102, "bridge=vmbr2").qemu(),
            sensor_on(200, "bridge=vmbr2").qemu_reader(),
        ],
    );
    for engine in ["ovs", "nft"] {
        for wire in ["no", "yes"] {
            apply(
                &node,
                &format!(
                    "[dmz]\nsource = 101\noutput = 200/net1\nengine = {engine}\nwire = {wire}\n"
                ),
            );
            let mut sensor = node.capture_tap("200/net1");
            let stream = node.stream("101/net0", "102/net0", 1 << 20);
            node.exchange("101/net0", "102/net0", "behind-the-stream");
            let frames = sensor.all_until("behind-the-stream");
            let found = Inspection::of_tap(&frames, MTU);
            assert_eq!(found.is_wire_true(), wire == "yes", "{engine}: {found:?}");
            assert_eq!(found.has_all_of(&stream), Ok(()), "{engine}: {found:?}");
        }
    }
}

/// 101, 102 and 103 in VLAN 10, and two sensors, on the kernel's datapath.
fn conversing() -> Result<Node, String> {
    let node = Node::start_with_kernel_datapath()?;
    node.ovs_bridge("vmbr2");
    start(
        &node,
        &[
            vm_on(101, "bridge=vmbr2,tag=10").tags("web"),
            vm_on(102, "bridge=vmbr2,tag=10"),
            vm_on(103, "bridge=vmbr2,tag=10"),
            sensor_on(200, "bridge=vmbr2"),
            sensor_on(201, "bridge=vmbr2"),
        ],
    );
    Ok(node)
}

#[test]
fn a_conversation_on_the_kernel_datapath_follows_each_change() {
    if let Some(node) = or_skip(conversing()) {
        every_way(&node);
    }
}

#[test]
fn a_conversation_on_the_kernel_datapath_follows_what_the_service_does() {
    let Some(node) = or_skip(conversing()) else {
        return;
    };
    let _watch = node.watch();
    by_the_service(&node);
}
