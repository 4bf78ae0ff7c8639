//! Whose frames nftables copies, and which: real frames through real bridges.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;
mod verifying;

use lab::{Capture, Frame, Guest, Mac, Nic, Node};
use scene::linux::{
    ct_on, linux_guests, linux_three_guests, mixed_guests, sensor_on, start, vm_on,
};
use scene::{apply, counts, run};
use verifying::{faults, session_while, talk};

const BOTH: &str = "[dmz]\nsource = 101\noutput = 200/net1\n";

/// The sensor, when the bridge has learned both guests.
fn sensor_of(node: &Node, a: &str, b: &str) -> Capture {
    node.introduce(a, b);
    node.capture("200/net1")
}

/// Sends there and back between two NICs; how often each arrived at the sensor.
fn there_and_back(node: &Node, sensor: &mut Capture, a: &str, b: &str) -> Vec<usize> {
    node.exchange(a, b, "there");
    node.exchange(b, a, "back");
    counts(sensor, &["there", "back"])
}

fn engine(node: &Node) -> String {
    let (_, plan, _) = run(node, &["plan"]);
    plan.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn two_guests_on_a_linux_bridge_are_mirrored_both_ways_each_frame_once() {
    let node = linux_three_guests();
    apply(&node, "[dmz]\nsource = 101, 102\noutput = 200/net1\n");
    let mut sensor = sensor_of(&node, "101/net0", "102/net0");
    assert_eq!(
        there_and_back(&node, &mut sensor, "101/net0", "102/net0"),
        [1, 1]
    );
    assert_eq!(
        engine(&node),
        "dmz → 200/net1: engine nft: 200/net1 is on the Linux bridge vmbr0"
    );
    // Without dedup it arrives where it is sent, and where it is delivered.
    apply(
        &node,
        "[dmz]\nsource = 101, 102\ndedup = no\noutput = 200/net1\n",
    );
    sensor.clear();
    assert_eq!(
        there_and_back(&node, &mut sensor, "101/net0", "102/net0"),
        [2, 2]
    );
}

#[test]
fn one_direction_only() {
    let node = linux_three_guests();
    let mut sensor = sensor_of(&node, "101/net0", "102/net0");
    for (direction, expected) in [("from", [1, 0]), ("to", [0, 1]), ("both", [1, 1])] {
        apply(&node, &format!("{BOTH}direction = {direction}\n"));
        sensor.clear();
        let arrived = there_and_back(&node, &mut sensor, "101/net0", "102/net0");
        assert_eq!(arrived, expected, "{direction}");
    }
}

#[test]
fn a_container_and_a_vlan_of_a_bridge_are_mirrored() {
    let guests = [
        ct_on(101, "bridge=vmbr0,tag=20"),
        vm_on(102, "bridge=vmbr0,tag=20"),
        vm_on(103, "bridge=vmbr0"),
        vm_on(104, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr0"),
    ];
    let node = linux_guests(&guests);
    apply(
        &node,
        "[dmz]\nsource = 101, 103\nvlan = 20\noutput = 200/net1\n",
    );
    let mut sensor = sensor_of(&node, "101/net0", "102/net0");
    assert_eq!(
        there_and_back(&node, &mut sensor, "101/net0", "102/net0"),
        [1, 1]
    );
    // 103's port is in no VLAN, so its frames' own tags count.
    node.introduce("103/net0", "104/net0");
    sensor.clear();
    assert_eq!(
        there_and_back(&node, &mut sensor, "103/net0", "104/net0"),
        [0, 0]
    );
    let mut other = node.capture("104/net0");
    for vlan in [20, 21] {
        let frame = node.frame("103/net0", "104/net0", &format!("tag-{vlan}"));
        node.send("103/net0", &frame.tagged(vlan));
        other.wait_for(|frame| frame.contains(&format!("tag-{vlan}")));
    }
    let tagged = sensor.wait_for(|frame| frame.contains("tag-20"));
    assert_eq!((tagged.vlans(), sensor.count("tag-21")), (vec![20], 0));
    apply(
        &node,
        "[dmz]\nsource = 101, 103\nvlan = 0, 21\noutput = 200/net1\n",
    );
    sensor.clear();
    assert_eq!(
        there_and_back(&node, &mut sensor, "103/net0", "104/net0"),
        [1, 1]
    );
    sensor.clear();
    assert_eq!(
        there_and_back(&node, &mut sensor, "101/net0", "102/net0"),
        [0, 0]
    );
}

#[test]
fn behind_firewall_bridges_both_ways_round_before_and_after_the_firewall() {
    let guests = [
        vm_on(101, "bridge=vmbr0,firewall=1"),
        vm_on(102, "bridge=vmbr0"),
        vm_on(103, "bridge=vmbr2,firewall=1"),
        vm_on(104, "bridge=vmbr2"),
        sensor_on(200, "bridge=vmbr0,firewall=1"),
    ];
    let node = mixed_guests(&guests);
    assert_eq!(node.bridge_port("103/net0"), "fwln103o0");
    for (source, peer) in [(101, 102), (103, 104)] {
        let (source, peer) = (format!("{source}/net0"), format!("{peer}/net0"));
        for point in ["bridge", "guest"] {
            for (direction, expected) in [("from", [1, 0]), ("to", [0, 1]), ("both", [1, 1])] {
                let session =
                    format!("source = {source}\npoint = {point}\ndirection = {direction}\n");
                apply(&node, &format!("[dmz]\n{session}output = 200/net1\n"));
                let mut sensor = sensor_of(&node, &source, &peer);
                let arrived = there_and_back(&node, &mut sensor, &source, &peer);
                assert_eq!(arrived, expected, "{source} {point} {direction}");
            }
        }
    }
    // What the guest's firewall drops is seen before it, and not after it.
    let firewall = "table bridge fw {\n chain forward {\n type filter hook forward priority 0; iifname \"tap101i0\" drop;\n }\n }\n";
    node.nft(firewall);
    for (point, expected) in [("bridge", 0), ("guest", 1)] {
        let session = format!("source = 101\npoint = {point}\noutput = 200/net1\n");
        apply(&node, &format!("[dmz]\n{session}"));
        let mut sensor = node.capture("200/net1");
        node.send("101/net0", &node.frame("101/net0", "102/net0", "dropped"));
        node.exchange("102/net0", "101/net0", "behind-it");
        sensor.wait_for(|frame| frame.contains("behind-it"));
        assert_eq!(sensor.count("dropped"), expected, "{point}");
    }
}

#[test]
fn across_bridges_a_session_uses_both_engines_and_says_so() {
    let guests = [
        vm_on(101, "bridge=vmbr2"),
        vm_on(102, "bridge=vmbr2"),
        ct_on(300, "bridge=vmbr0"),
        vm_on(104, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr2"),
    ];
    let node = mixed_guests(&guests);
    apply(&node, "[dmz]\nsource = 101, 300\noutput = 200/net1\n");
    assert_eq!(
        engine(&node),
        "dmz → 200/net1: engine ovs: same bridge, vmbr2; nft: it goes from the Linux bridge vmbr0 to vmbr2"
    );
    let mut sensor = sensor_of(&node, "101/net0", "102/net0");
    node.introduce("300/net0", "104/net0");
    sensor.clear();
    assert_eq!(
        there_and_back(&node, &mut sensor, "101/net0", "102/net0"),
        [1, 1]
    );
    sensor.clear();
    assert_eq!(
        there_and_back(&node, &mut sensor, "300/net0", "104/net0"),
        [1, 1]
    );
    let (code, status, _) = run(&node, &["status"]);
    assert_eq!(code, 0, "{status}");
    apply(
        &node,
        "[dmz]\nsource = 101, 300\nengine = nft\noutput = 200/net1\n",
    );
    assert_eq!(engine(&node), "dmz → 200/net1: engine nft: as asked");
    sensor.clear();
    assert_eq!(
        there_and_back(&node, &mut sensor, "101/net0", "102/net0"),
        [1, 1]
    );
    node.introduce("300/net0", "104/net0");
    sensor.clear();
    assert_eq!(
        there_and_back(&node, &mut sensor, "300/net0", "104/net0"),
        [1, 1]
    );
}

#[test]
fn a_whole_linux_bridge_is_every_frame_once_the_nodes_own_included() {
    let guests = [
        vm_on(101, "bridge=vmbr0"),
        vm_on(102, "bridge=vmbr0,firewall=1"),
        sensor_on(200, "bridge=vmbr0"),
    ];
    let node = linux_guests(&guests);
    let cable = node.physical("eno1", "vmbr0");
    let host: Mac = "02:00:00:00:00:99".parse().unwrap();
    node.ip(&["addr add 10.77.0.1/24 dev vmbr0"]);
    apply(&node, "[all]\nsource = bridge:vmbr0\noutput = 200/net1\n");
    let mut sensor = node.capture("200/net1");
    let mut guest = node.capture("101/net0");
    node.exchange("101/net0", "102/net0", "inside");
    let to_guest = |token: &str| Frame::new(host, node.mac("101/net0")).carrying(token);
    node.send(&cable, &to_guest("arriving"));
    guest.wait_for(|frame| frame.contains("arriving"));
    let out = Frame::new(node.mac("101/net0"), host).carrying("leaving");
    node.send("101/net0", &out);
    // Broadcast goes to everybody, and is copied where it enters.
    let all = Frame::new(host, "ff:ff:ff:ff:ff:ff".parse().unwrap()).carrying("everybody");
    node.send(&cable, &all);
    guest.wait_for(|frame| frame.contains("everybody"));
    sensor.wait_for(|frame| frame.contains("everybody"));
    assert_eq!(
        counts(&mut sensor, &["inside", "arriving", "leaving", "everybody"]),
        [1, 1, 1, 1]
    );
    // The node asks for a neighbour.
    sensor.clear();
    node.inside(|| {
        let socket = std::net::UdpSocket::bind("10.77.0.1:0").unwrap();
        socket.send_to(b"x", "10.77.0.9:9").unwrap();
    });
    let is_arp = |frame: &Frame| frame.ethertype() == 0x0806;
    sensor.wait_for(is_arp);
    node.exchange("101/net0", "102/net0", "behind-it");
    let asked = sensor.frames().into_iter().filter(is_arp).count();
    assert_eq!(asked, 1);
    // Some left out.
    apply(
        &node,
        "[all]\nsource = bridge:vmbr0\nexclude = 101\noutput = 200/net1\n",
    );
    sensor.clear();
    node.exchange("101/net0", "102/net0", "left-out");
    node.exchange("102/net0", "101/net0", "taken");
    assert_eq!(counts(&mut sensor, &["left-out", "taken"]), [0, 1]);
}

#[test]
fn a_whole_open_vswitch_bridge_goes_to_a_sensor_on_another_bridge() {
    let guests = [
        vm_on(101, "bridge=vmbr2"),
        vm_on(102, "bridge=vmbr2,firewall=1"),
        sensor_on(200, "bridge=vmbr0"),
    ];
    let node = mixed_guests(&guests);
    apply(&node, "[all]\nsource = bridge:vmbr2\noutput = 200/net1\n");
    let mut sensor = sensor_of(&node, "101/net0", "102/net0");
    assert_eq!(
        there_and_back(&node, &mut sensor, "101/net0", "102/net0"),
        [1, 1]
    );
}

#[test]
fn physical_ports_in_a_bridge_and_in_none() {
    let node = linux_three_guests();
    let (bridged, alone) = (
        node.physical("eno1", "vmbr0"),
        node.physical_unplugged("eno2"),
    );
    let host: Mac = "02:00:00:00:00:99".parse().unwrap();
    let to_guest = |token: &str| Frame::new(host, node.mac("101/net0")).carrying(token);
    apply(
        &node,
        "[up]\nsource = port:eno1, port:eno2\noutput = 200/net1\n",
    );
    let mut sensor = node.capture("200/net1");
    let mut guest = node.capture("101/net0");
    node.send(&bridged, &to_guest("bridged-in"));
    guest.wait_for(|frame| frame.contains("bridged-in"));
    let mut far = node.capture(&bridged);
    node.send(
        "101/net0",
        &Frame::new(node.mac("101/net0"), host).carrying("bridged-out"),
    );
    far.wait_for(|frame| frame.contains("bridged-out"));
    node.send(&alone, &to_guest("alone-in"));
    sensor.wait_for(|frame| frame.contains("alone-in"));
    let arrived = counts(&mut sensor, &["bridged-in", "bridged-out", "alone-in"]);
    assert_eq!(arrived, [1, 1, 1]);
    // A session for what is not there yet.
    node.span_cfg("[up]\nsource = port:eno9\noutput = 200/net1\n");
    let (code, out, _) = run(&node, &["apply"]);
    assert_eq!(
        (code, out.contains("no longer mirrors")),
        (0, true),
        "{out}"
    );
}

#[test]
fn one_frame_in_ten() {
    let node = linux_three_guests();
    apply(&node, &format!("{BOTH}direction = from\nsample = 1/10\n"));
    let mut sensor = sensor_of(&node, "101/net0", "102/net0");
    let mut guest = node.capture("102/net0");
    for number in 0..100 {
        node.send(
            "101/net0",
            &node.frame("101/net0", "102/net0", &format!("sample-{number:03}")),
        );
    }
    guest.wait_for(|frame| frame.contains("sample-099"));
    assert_eq!(sensor.count("sample-"), 10);
}

#[test]
fn a_filter_chooses_frames() {
    let node = linux_three_guests();
    let mut sensor = sensor_of(&node, "101/net0", "102/net0");
    let udp = |port: u16| {
        let (from, to) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let frame = Frame::new(node.mac("101/net0"), node.mac("102/net0"));
        frame.udp((from, 999), (to, port), format!("to-port-{port}."))
    };
    for (filter, expected) in [
        ("udp port 53", [1, 0]),
        ("not port 53", [0, 1]),
        ("tcp or dst portrange 50-60", [1, 0]),
    ] {
        apply(&node, &format!("{BOTH}filter = {filter}\n"));
        sensor.clear();
        for port in [53, 5353] {
            node.send("101/net0", &udp(port));
        }
        node.exchange("101/net0", "102/net0", "behind-it");
        let arrived = counts(&mut sensor, &["to-port-53.", "to-port-5353."]);
        assert_eq!(arrived, expected, "{filter}");
    }
}

#[test]
fn sessions_end_when_they_are_switched_off_or_over() {
    let node = linux_three_guests();
    let mut sensor = sensor_of(&node, "101/net0", "102/net0");
    for ended in ["enabled = no", "expires = 2026-01-31T18:00Z"] {
        apply(&node, BOTH);
        sensor.clear();
        assert_eq!(
            there_and_back(&node, &mut sensor, "101/net0", "102/net0"),
            [1, 1]
        );
        apply(&node, &format!("{BOTH}{ended}\n"));
        sensor.clear();
        assert_eq!(
            there_and_back(&node, &mut sensor, "101/net0", "102/net0"),
            [0, 0],
            "{ended}"
        );
        assert_eq!(node.nft_list(), "", "{ended} leaves something");
    }
}

#[test]
fn two_sessions_to_one_sensor_deliver_a_frame_once() {
    let node = linux_three_guests();
    apply(
        &node,
        "[one]\nsource = 101\noutput = 200/net1\n[two]\nsource = 101, 102\noutput = 200/net1\n",
    );
    let mut sensor = sensor_of(&node, "101/net0", "102/net0");
    assert_eq!(
        there_and_back(&node, &mut sensor, "101/net0", "102/net0"),
        [1, 1]
    );
    // Two sensors get one each.
    let more = sensor_on(201, "bridge=vmbr0");
    node.add(&more);
    node.start_guest(201);
    apply(
        &node,
        "[one]\nsource = 101\noutput = 200/net1, 201/net1\n[two]\nsource = 102\noutput = 201/net1\n",
    );
    let mut other = node.capture("201/net1");
    sensor.clear();
    assert_eq!(
        there_and_back(&node, &mut sensor, "101/net0", "102/net0"),
        [1, 1]
    );
    assert_eq!(counts(&mut other, &["there", "back"]), [1, 1]);
}

#[test]
fn tags_choose_sources_on_linux_bridges_too() {
    let guests = [
        vm_on(101, "bridge=vmbr0").tags("web"),
        vm_on(102, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr0").tags("web"),
    ];
    let node = linux_guests(&guests);
    apply(&node, "[web]\nsource = tag:web\noutput = 200/net1\n");
    let mut sensor = sensor_of(&node, "101/net0", "102/net0");
    assert_eq!(
        there_and_back(&node, &mut sensor, "101/net0", "102/net0"),
        [1, 1]
    );
}

#[test]
fn a_port_with_a_native_vlan_and_others_is_told_apart_by_the_frames_tags() {
    let trunk = vm_on(101, "bridge=vmbr2,tag=10,trunks=20;30");
    let node = mixed_guests(&[
        trunk,
        vm_on(102, "bridge=vmbr2"),
        sensor_on(200, "bridge=vmbr0"),
    ]);
    let mut sensor = node.capture("200/net1");
    for (vlan, expected) in [("20", [0, 1, 0]), ("10", [1, 0, 0]), ("10, 30", [1, 0, 1])] {
        apply(
            &node,
            &format!("[dmz]\nsource = 101\ndirection = from\nvlan = {vlan}\noutput = 200/net1\n"),
        );
        sensor.clear();
        let frame = |token: &str| node.frame("101/net0", "102/net0", token);
        node.send("101/net0", &frame("native"));
        node.send("101/net0", &frame("twenty").tagged(20));
        node.send("101/net0", &frame("thirty").tagged(30));
        node.settle();
        apply(
            &node,
            "[dmz]\nsource = 101\ndirection = from\noutput = 200/net1\n",
        );
        node.send("101/net0", &frame("last"));
        sensor.wait_for(|frame| frame.contains("last"));
        let arrived = counts(&mut sensor, &["native", "twenty", "thirty"]);
        assert_eq!(arrived, expected, "vlan = {vlan}");
    }
}

#[test]
fn an_output_on_open_vswitch_that_nftables_copies_to_is_reserved_by_a_mirror_without_sources() {
    let node = mixed_guests(&[
        vm_on(101, "bridge=vmbr2,tag=10"),
        vm_on(102, "bridge=vmbr2,tag=10"),
        sensor_on(200, "bridge=vmbr2"),
    ]);
    node.span_cfg("[dmz]\nsource = 101\nengine = nft\nvlan = 10\noutput = 200/net1\n");
    let (code, out, err) = run(&node, &["apply"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        out,
        "dmz: mirrors 101/net0 to 200/net1 (nft), VLAN 10 only; reserves 200/net1 (ovs, vmbr2) for copies\n\
         output 200/net1 (tap200i1): offloads off, for frames as on a wire\n"
    );
    let columns = [
        "--bare",
        "--columns=select_all,select_src_port,select_dst_port",
        "list",
        "Mirror",
    ];
    assert_eq!(node.ovs_vsctl(&columns).trim(), "false");
    let mut sensor = sensor_of(&node, "101/net0", "102/net0");
    assert_eq!(
        there_and_back(&node, &mut sensor, "101/net0", "102/net0"),
        [1, 1]
    );
}

/// Guests 101 and 102 on the Linux bridge vnet1, which Proxmox VE's VLAN zone joins to the Open vSwitch bridge vmbr2 by an
/// internal port of that in VLAN 20; 103 on vmbr2 itself; the sensor on `bridge`. The uplink's cable comes back too.
fn vlan_zone(bridge: &str) -> (Node, String) {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    node.linux_bridge("vmbr0");
    node.linux_bridge("vnet1");
    let port = ["add-port", "vmbr2", "ln_vnet1", "tag=20"];
    let internal = ["--", "set", "Interface", "ln_vnet1", "type=internal"];
    node.ovs_vsctl(&[&port[..], &internal].concat());
    node.ip(&["link set ln_vnet1 master vnet1 up"]);
    start(
        &node,
        &[
            vm_on(101, "bridge=vnet1"),
            vm_on(102, "bridge=vnet1,firewall=1"),
            vm_on(103, "bridge=vmbr2,tag=20"),
            sensor_on(200, &format!("bridge={bridge}")),
        ],
    );
    let cable = node.physical("eno1", "vmbr2");
    (node, cable)
}

/// How often the sensor gets what crosses vnet1 and vmbr2: between 101 and 102, from the uplink to 101, from 101 to the
/// uplink, from 101 to 103 and back.
#[track_caller]
fn across_the_zone(node: &Node, cable: &str) -> Vec<usize> {
    let host: Mac = "02:00:00:00:00:99".parse().unwrap();
    let (mut guest, mut far) = (node.capture("101/net0"), node.capture(cable));
    let arriving = Frame::new(host, node.mac("101/net0")).tagged(20);
    node.send(cable, &arriving.clone().carrying("learn-me"));
    guest.wait_for(|frame| frame.contains("learn-me"));
    node.introduce("101/net0", "102/net0");
    node.introduce("101/net0", "103/net0");
    let mut sensor = node.capture("200/net1");
    node.exchange("101/net0", "102/net0", "inside");
    node.send(cable, &arriving.carrying("arriving"));
    guest.wait_for(|frame| frame.contains("arriving"));
    let out = Frame::new(node.mac("101/net0"), host);
    node.send("101/net0", &out.carrying("leaving"));
    far.wait_for(|frame| frame.contains("leaving"));
    node.exchange("101/net0", "103/net0", "there");
    node.exchange("103/net0", "101/net0", "back");
    counts(
        &mut sensor,
        &["inside", "arriving", "leaving", "there", "back"],
    )
}

#[test]
fn a_whole_linux_bridge_has_what_enters_by_a_port_of_open_vswitch_each_frame_once() {
    for bridge in ["vnet1", "vmbr0", "vmbr2"] {
        let (node, cable) = vlan_zone(bridge);
        let session = |source: &str| format!("[all]\nsource = {source}\noutput = 200/net1\n");
        apply(&node, &session("bridge:vnet1"));
        assert_eq!(across_the_zone(&node, &cable), [1; 5], "{bridge}");
        let (code, status, _) = run(&node, &["status"]);
        assert_eq!(code, 0, "{status}");
        if bridge == "vmbr0" {
            // What enters there is missed when it is not copied.
            node.nft("flush chain netdev pve-span in/ln_vnet1/200/net1");
            let (code, verified) = session_while(&node, &[], talk(&node, "103/net0", "101/net0"));
            assert_eq!((code, faults(&verified)), (1, "missing".to_owned()));
            apply(&node, &session("bridge:vmbr2"));
            assert_eq!(across_the_zone(&node, &cable), [0, 1, 1, 1, 1]);
            // Both of them: what passes from the one into the other is one frame.
            apply(&node, &session("bridge:vmbr2, bridge:vnet1"));
            assert_eq!(across_the_zone(&node, &cable), [1; 5]);
            apply(
                &node,
                &(session("bridge:vnet1, bridge:vmbr2") + "dedup = no\n"),
            );
            assert_eq!(across_the_zone(&node, &cable), [1, 2, 2, 2, 2]);
            apply(&node, &session("port:ln_vnet1"));
            assert_eq!(across_the_zone(&node, &cable), [0, 1, 1, 1, 1]);
        }
    }
}

#[test]
fn bridges_that_a_veth_pair_joins_are_every_frame_once() {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    node.linux_bridge("vmbr1");
    node.ip(&[
        "link add joint0 type veth peer name joint1",
        "link set joint0 master vmbr0 up",
        "link set joint1 master vmbr1 up",
    ]);
    start(
        &node,
        &[
            vm_on(101, "bridge=vmbr0"),
            vm_on(102, "bridge=vmbr1"),
            sensor_on(200, "bridge=vmbr1"),
        ],
    );
    for (source, expected) in [
        ("bridge:vmbr0", [1, 1]),
        ("bridge:vmbr0, bridge:vmbr1", [1, 1]),
        ("bridge:vmbr1, bridge:vmbr0\ndedup = no", [2, 2]),
    ] {
        apply(
            &node,
            &format!("[all]\nsource = {source}\noutput = 200/net1\n"),
        );
        let mut sensor = sensor_of(&node, "101/net0", "102/net0");
        let arrived = there_and_back(&node, &mut sensor, "101/net0", "102/net0");
        assert_eq!(arrived, expected, "{source}");
    }
}

/// The flags of a device, by ip(8): `BROADCAST,MULTICAST,UP,LOWER_UP`.
fn link_flags(node: &Node, device: &str) -> Vec<String> {
    let mut command = node.command("ip");
    command.args(["link", "show", "dev", device]);
    let shown = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let flags = shown.split(['<', '>']).nth(1).unwrap();
    flags.split(',').map(str::to_owned).collect()
}

fn has(node: &Node, device: &str, flag: &str) -> bool {
    link_flags(node, device).iter().any(|word| word == flag)
}

const CABLE: &str = "[cable]\nsource = port:eno2\noutput = 200/net1\n";

#[test]
fn a_port_in_no_bridge_takes_in_every_frame_while_it_is_a_source_and_is_then_as_before() {
    let node = linux_three_guests();
    let cable = node.physical_unplugged("eno2");
    // With IPv6 it has a link-local address of its own when it is up.
    node.inside(|| std::fs::write("/proc/sys/net/ipv6/conf/eno2/disable_ipv6", "0"))
        .unwrap();
    let frame =
        |token: &str| Frame::new(Mac([2, 0, 0, 0, 0, 9]), Mac([2, 0, 0, 0, 0, 8])).carrying(token);
    for (was_up, was_promiscuous) in [(false, false), (true, false), (false, true)] {
        let word = |is: bool, on: &'static str, off: &'static str| if is { on } else { off };
        node.ip(&[format!(
            "link set eno2 promisc {} {}",
            word(was_promiscuous, "on", "off"),
            word(was_up, "up", "down")
        )]);
        let before = link_flags(&node, "eno2");
        node.span_cfg(CABLE);
        let (_, plan, _) = run(&node, &["plan"]);
        let told = match (was_up, was_promiscuous) {
            (true, _) => "promiscuous, to take in what is addressed to others",
            (false, true) => "up",
            (false, false) => "up, promiscuous, to take in what is addressed to others",
        };
        assert!(
            plan.contains(&format!("source port:eno2: {told}\n")),
            "{plan}"
        );
        apply(&node, CABLE);
        assert!(has(&node, "eno2", "PROMISC") && has(&node, "eno2", "UP"));
        let mut sensor = node.capture("200/net1");
        node.send(&cable, &frame("to-others"));
        sensor.wait_for(|frame| frame.contains("to-others"));
        assert_eq!(run(&node, &["status"]).0, 0);
        if was_up {
            apply(&node, "# nothing\n");
        } else {
            assert_eq!(run(&node, &["clear", "--all"]).0, 0);
        }
        assert_eq!(link_flags(&node, "eno2"), before);
        assert!(!node.path("run/pve-span/outputs.json").exists());
    }
    // Somebody changes it meanwhile, and it is changed again.
    node.ip(&["link set eno2 promisc off up"]);
    apply(&node, CABLE);
    node.ip(&["link set eno2 promisc off"]);
    assert_eq!(run(&node, &["status"]).0, 1);
    apply(&node, CABLE);
    assert!(has(&node, "eno2", "PROMISC"));
    apply(&node, "# nothing\n");
    assert!(!has(&node, "eno2", "PROMISC") && has(&node, "eno2", "UP"));
}

#[test]
fn an_output_without_carrier_or_down_is_degraded_and_the_reason_is_told() {
    let node = linux_guests(&[vm_on(101, "bridge=vmbr0"), vm_on(102, "bridge=vmbr0")]);
    let cable = node.physical_unplugged("eno2");
    apply(&node, "[dmz]\nsource = 101\noutput = port:eno2\n");
    assert_eq!(run(&node, &["status"]).0, 0);
    let told = |what: &str| {
        let (code, status, _) = run(&node, &["status"]);
        assert!(code == 1 && status.contains(what), "{status}");
    };
    node.ip_wire(&[format!("link set {cable} down")]);
    told("port:eno2 has no carrier, so no copy leaves: check its cable and the other end");
    node.ip_wire(&[format!("link set {cable} up")]);
    assert_eq!(run(&node, &["status"]).0, 0);
    node.ip(&["link set eno2 down"]);
    told("port:eno2 is down, so no copy leaves");
    node.stop_guest(101);
    assert_eq!(run(&node, &["apply"]).0, 0);
    let (code, status, _) = run(&node, &["status"]);
    assert_eq!(code, 0, "nothing is to leave by it: {status}");
}

#[test]
fn a_source_without_carrier_or_down_is_degraded_and_the_reason_is_told() {
    let node = linux_three_guests();
    let cable = node.physical_unplugged("eno2");
    node.physical("eno1", "vmbr0");
    let session = CABLE.replace("port:eno2", "port:eno1, port:eno2");
    apply(&node, &session);
    assert_eq!(run(&node, &["status"]).0, 0);
    node.ip_wire(&[format!("link set {cable} down")]);
    let (code, status, _) = run(&node, &["status"]);
    let carrier = "port:eno2 has no carrier, so no frame passes: check its cable and the other end";
    assert!(code == 1 && status.contains(carrier), "{status}");
    assert!(
        status.contains("degraded") && !status.contains("port:eno1"),
        "{status}"
    );
    node.ip_wire(&[format!("link set {cable} up")]);
    node.ip(&["link set eno1 down"]);
    let (code, status, _) = run(&node, &["status"]);
    let down = "port:eno1 is down, so no frame passes";
    assert!(code == 1 && status.contains(down), "{status}");
    assert!(!status.contains(carrier), "{status}");
    // A port of a bridge is not ours to set up.
    apply(&node, &session);
    assert!(!has(&node, "eno1", "UP") && !has(&node, "eno1", "PROMISC"));
    node.ip(&["link set eno1 up", "link set vmbr0 down"]);
    assert_eq!(run(&node, &["status"]).0, 0);
    apply(&node, &CABLE.replace("port:eno2", "bridge:vmbr0"));
    let (code, status, _) = run(&node, &["status"]);
    let down = "bridge:vmbr0 is down, so no frame passes";
    assert!(code == 1 && status.contains(down), "{status}");
}

#[test]
fn a_source_that_was_made_anew_or_that_somebody_uses_by_now_is_left_as_it_is() {
    let node = linux_three_guests();
    node.physical_unplugged("eno2");
    node.ip(&["link set eno2 down"]);
    apply(&node, CABLE);
    node.ip(&["link del eno2"]);
    node.physical_unplugged("eno2");
    apply(&node, CABLE);
    assert!(has(&node, "eno2", "PROMISC"));
    apply(&node, "# nothing\n");
    assert!(has(&node, "eno2", "UP") && !has(&node, "eno2", "PROMISC"));
    // Set up by us, and given an address or a bridge meanwhile: setting it down would cut that off.
    for (use_it, no_more) in [
        ("addr add 10.77.1.1/24 dev eno2", "addr flush dev eno2"),
        (
            "link add link eno2 name above up type macvlan",
            "link del above",
        ),
        (
            "route add 10.78.0.0/16 dev eno2",
            "route del 10.78.0.0/16 dev eno2",
        ),
        ("link set eno2 master vmbr0", "link set eno2 nomaster"),
    ] {
        node.ip(&["link set eno2 down"]);
        apply(&node, CABLE);
        node.ip(&[use_it]);
        apply(&node, "# nothing\n");
        assert!(
            has(&node, "eno2", "UP") && !has(&node, "eno2", "PROMISC"),
            "{use_it}"
        );
        node.ip(&[no_more]);
    }
}

#[test]
fn a_source_of_what_goes_out_by_it_is_set_up_too_and_one_that_is_over_is_not_judged() {
    let node = linux_three_guests();
    node.physical_unplugged("eno2");
    node.ip(&["link set eno2 down"]);
    let out = CABLE.replace("output", "direction = to\noutput");
    apply(&node, &out);
    assert!(has(&node, "eno2", "UP"));
    assert_eq!(run(&node, &["status"]).0, 0);
    apply(&node, &format!("{out}enabled = no\n"));
    assert!(!has(&node, "eno2", "UP"));
    let (code, status, err) = run(&node, &["status"]);
    assert!(
        code == 0 && !status.contains("eno2 is down"),
        "{status}{err}"
    );
    let (code, out, err) = run(&node, &["apply"]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, "nothing to do\n", "")
    );
}

#[test]
fn a_sensor_whose_own_interface_is_down_gets_nothing_and_that_is_told() {
    let node = linux_guests(&[
        vm_on(101, "bridge=vmbr0"),
        vm_on(102, "bridge=vmbr0"),
        ct_sensor(),
    ]);
    apply(&node, "[dmz]\nsource = 101\noutput = 200/net1\n");
    assert_eq!(run(&node, &["status"]).0, 0);
    let inside = |state: &str| node.ip_wire(&[format!("link set g200i1 {state}")]);
    inside("down");
    node.exchange("101/net0", "102/net0", "lost");
    let (code, status, _) = run(&node, &["status"]);
    let told = "200/net1 (veth200i1) has no carrier, so no copy arrives: is the interface up inside the guest?";
    assert!(code == 1 && status.contains(told), "{status}");
    assert!(!status.contains("does not keep up"), "{status}");
    inside("up");
    // The kernel takes a bridge port into action again when its carrier comes back.
    assert_eq!(run(&node, &["apply"]).0, 0);
    let (code, status, _) = run(&node, &["status"]);
    assert_eq!(code, 0, "{status}");
    assert!(
        status.contains("the sensor does not keep up, or its interface was down"),
        "{status}"
    );
    node.ip(&["link set veth200i1 down"]);
    let (code, status, _) = run(&node, &["status"]);
    assert!(
        code == 1 && status.contains("200/net1 (veth200i1) is down, so no copy arrives"),
        "{status}"
    );
}

/// A container with its network by net0, and the monitor NIC net1.
fn ct_sensor() -> Guest {
    let nic = |n| {
        format!(
            "name=eth{n},bridge=vmbr0,hwaddr={}",
            Nic::default_mac(200, n)
        )
    };
    Guest::ct(200).net(0, &nic(0)).net(1, &nic(1))
}

#[test]
fn without_a_firewall_bridge_what_a_guest_sends_is_copied_before_its_firewall_and_that_is_told() {
    let node = Node::without_ovs();
    node.use_nftables_firewall();
    node.linux_bridge("vmbr0");
    start(
        &node,
        &[
            vm_on(101, "bridge=vmbr0,firewall=1"),
            vm_on(102, "bridge=vmbr0"),
            sensor_on(200, "bridge=vmbr0"),
        ],
    );
    assert_eq!(node.bridge_port("101/net0"), "tap101i0");
    node.introduce("101/net0", "102/net0");
    node.nft(
        "table bridge fw {\n chain forward {\n type filter hook forward priority 0; iifname \"tap101i0\" drop; \
         oifname \"tap101i0\" drop;\n }\n }\n",
    );
    let told = "101/net0: `firewall=1`, but no firewall bridge (so it is with Proxmox VE's nftables firewall): what the guest \
                sends is copied before its firewall, and what it gets after it";
    for point in ["bridge", "guest"] {
        apply(&node, &format!("{BOTH}point = {point}\n"));
        let mut sensor = node.capture("200/net1");
        let mut broadcast = node.capture("102/net0");
        for number in 0..10 {
            let sent = node.frame("101/net0", "102/net0", &format!("sent-{number}"));
            let got = node.frame("102/net0", "101/net0", &format!("got-{number}"));
            node.send("101/net0", &sent);
            node.send("102/net0", &got);
        }
        sensor.wait_for(|frame| frame.contains("sent-9"));
        assert_eq!(
            (sensor.count("sent-"), sensor.count("got-")),
            (10, 0),
            "{point}"
        );
        assert_eq!(broadcast.count("sent-"), 0);
        let (_, plan, _) = run(&node, &["plan"]);
        assert!(plan.contains(told), "{plan}");
        let (_, explained, _) = run(&node, &["explain", "101/net0"]);
        assert!(
            explained.contains(told.split_once(": ").unwrap().1),
            "{explained}"
        );
    }
}
