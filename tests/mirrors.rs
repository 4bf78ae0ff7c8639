//! What arrives at the sensor: real frames through a real Open vSwitch.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use lab::{Frame, Guest, Mac, Node};
use scene::{apply, counts, guests, sensor, three_guests, vm};

const BOTH: &str = "[dmz]\nsource = 101\noutput = 200/net1\n";

#[test]
fn two_guests_on_one_bridge_are_mirrored_both_ways_each_frame_once() {
    let node = three_guests();
    let mut sensor = node.capture("200/net1");
    node.introduce("101/net0", "102/net0");
    node.exchange("101/net0", "102/net0", "before");
    apply(&node, "[dmz]\nsource = 101, 102\noutput = 200/net1\n");
    node.exchange("101/net0", "102/net0", "there");
    node.exchange("102/net0", "101/net0", "back");
    assert_eq!(counts(&mut sensor, &["before", "there", "back"]), [0, 1, 1]);
}

#[test]
fn frames_of_access_ports_arrive_with_their_vlan_tag() {
    let node = guests(&[vm(101, ",tag=10"), vm(102, ",tag=10"), sensor(200)]);
    apply(&node, BOTH);
    let mut sensor = node.capture("200/net1");
    node.exchange("101/net0", "102/net0", "there");
    node.exchange("102/net0", "101/net0", "back");
    assert_eq!(
        sensor.wait_for(|frame| frame.contains("there")).vlan(),
        Some(10)
    );
    assert_eq!(
        sensor.wait_for(|frame| frame.contains("back")).vlan(),
        Some(10)
    );
    assert_eq!(counts(&mut sensor, &["there", "back"]), [1, 1]);
}

#[test]
fn a_sensor_nic_with_a_vlan_tag_gets_the_frames_without_theirs() {
    let tagged = sensor(200).net(1, "virtio=BC:24:11:2A:01:C8,bridge=vmbr2,tag=99");
    let node = guests(&[vm(101, ",tag=10"), vm(102, ",tag=10"), tagged]);
    apply(&node, BOTH);
    let mut sensor = node.capture("200/net1");
    node.exchange("101/net0", "102/net0", "there");
    assert_eq!(
        sensor.wait_for(|frame| frame.contains("there")).vlan(),
        None
    );
}

#[test]
fn a_host_behind_the_physical_port_is_seen_like_a_guest_on_another_node() {
    let node = three_guests();
    let cable = node.physical("eno1", "vmbr2");
    apply(&node, BOTH);
    let mut sensor = node.capture("200/net1");
    let mut guest = node.capture("101/net0");
    let mut far = node.capture(&cable);
    let host: Mac = "02:00:00:00:00:99".parse().unwrap();
    let frame = |from: Mac, to: Mac, token: &str| Frame::new(from, to).carrying(token.as_bytes());
    node.send(&cable, &frame(host, node.mac("101/net0"), "in"));
    guest.wait_for(|frame| frame.contains("in"));
    node.send("101/net0", &frame(node.mac("101/net0"), host, "out"));
    far.wait_for(|frame| frame.contains("out"));
    sensor.wait_for(|frame| frame.contains("out"));
    assert_eq!(counts(&mut sensor, &["in", "out"]), [1, 1]);
}

#[test]
fn a_source_behind_its_firewall_bridge_is_found_and_mirrored() {
    let node = guests(&[
        vm(101, ",firewall=1,tag=10"),
        vm(102, ",tag=10"),
        sensor(200),
    ]);
    assert_eq!(node.bridge_port("101/net0"), "fwln101o0");
    apply(&node, BOTH);
    let mut sensor = node.capture("200/net1");
    node.exchange("101/net0", "102/net0", "there");
    node.exchange("102/net0", "101/net0", "back");
    assert_eq!(counts(&mut sensor, &["there", "back"]), [1, 1]);
}

#[test]
fn a_container_is_mirrored() {
    let container = Guest::ct(300).net(
        0,
        "name=eth0,bridge=vmbr2,hwaddr=BC:24:11:00:30:00,type=veth",
    );
    let node = guests(&[container, vm(102, ""), sensor(200)]);
    apply(&node, "[dmz]\nsource = 300/net0\noutput = 200/net1\n");
    let mut sensor = node.capture("200/net1");
    node.exchange("300/net0", "102/net0", "there");
    node.exchange("102/net0", "300/net0", "back");
    assert_eq!(counts(&mut sensor, &["there", "back"]), [1, 1]);
}

#[test]
fn one_direction_only() {
    let node = three_guests();
    let mut sensor = node.capture("200/net1");
    node.introduce("101/net0", "102/net0");
    apply(
        &node,
        "[dmz]\nsource = 101\ndirection = from\noutput = 200/net1\n",
    );
    node.exchange("101/net0", "102/net0", "sent");
    node.exchange("102/net0", "101/net0", "delivered");
    assert_eq!(counts(&mut sensor, &["sent", "delivered"]), [1, 0]);

    apply(
        &node,
        "[dmz]\nsource = 101\ndirection = to\noutput = 200/net1\n",
    );
    node.exchange("101/net0", "102/net0", "sent-2");
    node.exchange("102/net0", "101/net0", "delivered-2");
    assert_eq!(counts(&mut sensor, &["sent-2", "delivered-2"]), [0, 1]);
}

#[test]
fn one_direction_behind_a_firewall_bridge_is_the_same_direction() {
    let node = guests(&[vm(101, ",firewall=1"), vm(102, ""), sensor(200)]);
    node.introduce("101/net0", "102/net0");
    apply(
        &node,
        "[dmz]\nsource = 101\ndirection = from\noutput = 200/net1\n",
    );
    let mut sensor = node.capture("200/net1");
    node.exchange("101/net0", "102/net0", "sent");
    node.exchange("102/net0", "101/net0", "delivered");
    assert_eq!(counts(&mut sensor, &["sent", "delivered"]), [1, 0]);
}

#[test]
fn snaplen_keeps_the_beginning_of_each_frame() {
    let node = three_guests();
    node.introduce("101/net0", "102/net0");
    apply(
        &node,
        "[dmz]\nsource = 101\nsnaplen = 100\noutput = 200/net1\n",
    );
    let mut sensor = node.capture("200/net1");
    let long = node.frame("101/net0", "102/net0", "long").padded_to(1000);
    let mut guest = node.capture("102/net0");
    node.send("101/net0", &long);
    assert_eq!(guest.wait_for(|frame| frame.contains("long")).len(), 1000);
    let kept = sensor.wait_for(|frame| frame.contains("long"));
    assert_eq!((kept.len(), kept.bytes()), (100, &long.bytes()[..100]));
}

#[test]
fn rspan_puts_the_frames_into_a_vlan_of_their_own() {
    let node = three_guests();
    let cable = node.physical("eno1", "vmbr2");
    node.introduce("101/net0", "102/net0");
    apply(&node, "[dmz]\nsource = 101\noutput = vlan:999\n");
    let mut trunk = node.capture(&cable);
    node.exchange("101/net0", "102/net0", "there");
    let copy = trunk.wait_for(|frame| frame.contains("there"));
    assert_eq!(copy.vlans(), [999]);
    assert_eq!(trunk.count("there"), 1);
}

#[test]
fn only_the_chosen_vlans_are_mirrored() {
    let node = guests(&[
        vm(101, ",tag=10"),
        vm(102, ",tag=10"),
        vm(103, ",tag=20"),
        vm(104, ",tag=20"),
        sensor(200),
    ]);
    apply(
        &node,
        "[dmz]\nsource = 101-104\nvlan = 20-29\noutput = 200/net1\n",
    );
    let mut sensor = node.capture("200/net1");
    node.exchange("101/net0", "102/net0", "ten");
    node.exchange("103/net0", "104/net0", "twenty");
    sensor.wait_for(|frame| frame.contains("twenty"));
    assert_eq!(counts(&mut sensor, &["ten", "twenty"]), [0, 1]);
}

#[test]
fn a_whole_bridge_is_everything_that_crosses_it_once() {
    let node = three_guests();
    let cable = node.physical("eno1", "vmbr2");
    apply(
        &node,
        "[everything]\nsource = bridge:vmbr2\noutput = 200/net1\n",
    );
    assert_eq!(
        node.ovs_vsctl(&["--bare", "--columns=select_all", "list", "Mirror"])
            .trim(),
        "true"
    );
    let mut sensor = node.capture("200/net1");
    let mut guest = node.capture("102/net0");
    node.exchange("101/net0", "102/net0", "inside");
    let host: Mac = "02:00:00:00:00:99".parse().unwrap();
    node.send(
        &cable,
        &Frame::new(host, node.mac("102/net0")).carrying(b"outside"),
    );
    guest.wait_for(|frame| frame.contains("outside"));
    sensor.wait_for(|frame| frame.contains("outside"));
    assert_eq!(counts(&mut sensor, &["inside", "outside"]), [1, 1]);
    // A guest that comes later is taken without a reconcile.
    node.add(&vm(103, ""));
    node.start_guest(103);
    node.exchange("103/net0", "102/net0", "later");
    assert_eq!(sensor.count("later"), 1);
}

#[test]
fn a_whole_bridge_can_leave_some_guests_out() {
    let node = guests(&[
        vm(101, ""),
        vm(102, ""),
        vm(103, "").tags("noisy"),
        vm(104, "").tags("noisy"),
        sensor(200),
    ]);
    for (one, other) in [("101/net0", "102/net0"), ("103/net0", "104/net0")] {
        node.introduce(one, other);
    }
    apply(
        &node,
        "[most]\nsource = bridge:vmbr2\nexclude = tag:noisy\noutput = 200/net1\n",
    );
    let mut sensor = node.capture("200/net1");
    node.exchange("101/net0", "102/net0", "wanted");
    node.exchange("103/net0", "104/net0", "unwanted");
    assert_eq!(counts(&mut sensor, &["wanted", "unwanted"]), [1, 0]);
}

#[test]
fn two_sessions_share_a_source() {
    let node = guests(&[vm(101, ""), vm(102, ""), sensor(200), sensor(201)]);
    // Otherwise frames to 102 are flooded, also to a port that is no longer reserved.
    node.introduce("101/net0", "102/net0");
    apply(
        &node,
        "[ids]\nsource = 101\noutput = 200/net1\n[flows]\nsource = 101\nsnaplen = 64\noutput = 201/net1\n",
    );
    let (mut ids, mut flows) = (node.capture("200/net1"), node.capture("201/net1"));
    node.exchange("101/net0", "102/net0", "there");
    assert_eq!((ids.count("there"), flows.count("there")), (1, 1));
    apply(
        &node,
        "[flows]\nsource = 101\nsnaplen = 64\noutput = 201/net1\n",
    );
    node.exchange("101/net0", "102/net0", "again");
    assert_eq!(
        (ids.count("again"), flows.count("again")),
        (0, 1),
        "ending one leaves the other"
    );
}

#[test]
fn one_session_feeds_two_sensors() {
    let node = guests(&[vm(101, ""), vm(102, ""), sensor(200), sensor(201)]);
    apply(&node, "[ids]\nsource = 101\noutput = 200/net1, 201/net1\n");
    let (mut one, mut two) = (node.capture("200/net1"), node.capture("201/net1"));
    node.exchange("101/net0", "102/net0", "there");
    node.exchange("102/net0", "101/net0", "back");
    assert_eq!(counts(&mut one, &["there", "back"]), [1, 1]);
    assert_eq!(counts(&mut two, &["there", "back"]), [1, 1]);
}

#[test]
fn frames_leave_through_a_physical_port() {
    let node = three_guests();
    let _uplink = node.physical("eno1", "vmbr2");
    let cable = node.physical("eno2", "vmbr2");
    apply(
        &node,
        "[tap]\nsource = 101\noutput = port:eno2\ncapture-only = port:eno2\n",
    );
    let mut appliance = node.capture(&cable);
    node.exchange("101/net0", "102/net0", "there");
    assert_eq!(appliance.count("there"), 1);
}

#[test]
fn guest_10_is_not_guest_101() {
    let node = guests(&[vm(10, ""), vm(101, ""), vm(1010, ""), sensor(200)]);
    for (one, other) in [("10/net0", "101/net0"), ("101/net0", "1010/net0")] {
        node.introduce(one, other);
    }
    apply(&node, "[ten]\nsource = 10\noutput = 200/net1\n");
    let mut sensor = node.capture("200/net1");
    node.exchange("101/net0", "1010/net0", "strangers");
    node.exchange("10/net0", "101/net0", "own");
    assert_eq!(counts(&mut sensor, &["strangers", "own"]), [0, 1]);
}

#[test]
fn tags_and_pools_choose_sources() {
    let node = guests(&[
        vm(101, "").tags("prod;web"),
        vm(102, ""),
        vm(103, ""),
        vm(104, ""),
        sensor(200),
    ]);
    node.user_cfg("user:root@pam:1:0:::admin@example.invalid:::\npool:prod:Production:104:local-lvm:\npool:prod/dmz::102::\n");
    for (one, other) in [
        ("101/net0", "103/net0"),
        ("102/net0", "103/net0"),
        ("104/net0", "103/net0"),
    ] {
        node.introduce(one, other);
    }
    apply(
        &node,
        "[web]\nsource = tag:web, pool:prod/dmz\noutput = 200/net1\n",
    );
    let mut sensor = node.capture("200/net1");
    node.exchange("101/net0", "103/net0", "tagged");
    node.exchange("102/net0", "103/net0", "pooled");
    node.exchange("104/net0", "103/net0", "neither");
    assert_eq!(
        counts(&mut sensor, &["tagged", "pooled", "neither"]),
        [1, 1, 0]
    );
}

#[test]
fn what_the_sensor_sends_goes_nowhere_and_it_sees_copies_only() {
    let node: Node = three_guests();
    apply(&node, BOTH);
    let (mut guest, mut sensor) = (node.capture("102/net0"), node.capture("200/net1"));
    node.send(
        "200/net1",
        &node.frame("200/net1", "102/net0", "from-the-sensor"),
    );
    // A broadcast of a guest that is not mirrored does not reach the sensor.
    let broadcast = Frame::new(node.mac("102/net0"), Mac::BROADCAST).carrying(b"broadcast-102");
    node.send("102/net0", &broadcast);
    node.exchange("101/net0", "102/net0", "marker");
    assert_eq!(guest.count("from-the-sensor"), 0);
    // 101 is mirrored both ways, and the broadcast is delivered to it: that copy arrives, and no other.
    assert_eq!(counts(&mut sensor, &["broadcast-102", "marker"]), [1, 1]);
}
