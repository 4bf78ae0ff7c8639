//! The laboratory itself: what the other tests stand on must do what it says.

mod lab;
mod scene;

use std::collections::BTreeSet;
use std::thread;

use lab::{Frame, Guest, Mac, Node, wait_until};
use scene::linux::{linux_three_guests, mixed_bridges};

fn vm(vmid: u32, nic: &str) -> Guest {
    Guest::vm(vmid).net(
        0,
        &format!("virtio=BC:24:11:2A:00:{:02X},{nic}", vmid % 100),
    )
}

/// 101 and 102 plugged as `nic` says.
fn two_guests(node: &Node, nic: &str) {
    node.add_all([&vm(101, nic), &vm(102, nic)]);
    node.start_guests([101, 102]);
}

/// A frame from 101 to 102 and one back, unchanged.
#[track_caller]
fn assert_they_talk(node: &Node) {
    for (from, to) in [("101/net0", "102/net0"), ("102/net0", "101/net0")] {
        assert_eq!(
            node.exchange(from, to, "hello"),
            node.frame(from, to, "hello")
        );
    }
}

#[test]
fn frames_cross_an_ovs_bridge() {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    two_guests(&node, "bridge=vmbr2");
    assert_they_talk(&node);
    assert_eq!(
        node.ovs_vsctl(&["list-ports", "vmbr2"]),
        "tap101i0\ntap102i0\n"
    );
}

#[test]
fn frames_cross_an_ovs_bridge_through_firewall_bridges() {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    two_guests(&node, "bridge=vmbr2,firewall=1,tag=10");
    assert_they_talk(&node);
    assert_eq!(
        node.ovs_vsctl(&["list-ports", "vmbr2"]),
        "fwln101o0\nfwln102o0\n"
    );
    assert_eq!(node.ovs_vsctl(&["get", "Port", "fwln101o0", "tag"]), "10\n");
    assert_eq!(
        node.ovs_vsctl(&["get", "Interface", "fwln101o0", "type"]),
        "internal\n"
    );
    assert_eq!(node.bridge_port("101/net0"), "fwln101o0");
    let ports = BTreeSet::from(["fwln101o0".to_owned(), "tap101i0".to_owned()]);
    assert_eq!(node.bridge_ports("fwbr101i0"), ports);
}

#[test]
fn frames_cross_a_linux_bridge() {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    node.add(&vm(101, "bridge=vmbr0"));
    node.add(&Guest::ct(300).net(
        0,
        "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:30:00,type=veth",
    ));
    node.start_guests([101, 300]);
    node.exchange("101/net0", "300/net0", "hello");
    let ports = BTreeSet::from(["tap101i0".to_owned(), "veth300i0".to_owned()]);
    assert_eq!(node.bridge_ports("vmbr0"), ports);
}

#[test]
fn frames_cross_a_linux_bridge_through_firewall_bridges() {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    two_guests(&node, "bridge=vmbr0,firewall=1");
    assert_they_talk(&node);
    let ports = BTreeSet::from(["fwpr101p0".to_owned(), "fwpr102p0".to_owned()]);
    assert_eq!(node.bridge_ports("vmbr0"), ports);
    let ports = BTreeSet::from(["fwln101i0".to_owned(), "tap101i0".to_owned()]);
    assert_eq!(node.bridge_ports("fwbr101i0"), ports);
    // A live edit takes the firewall away, and there is no firewall bridge with the nftables firewall anyway.
    node.use_nftables_firewall();
    node.replug("101/net0");
    assert_they_talk(&node);
    let ports = BTreeSet::from(["fwpr102p0".to_owned(), "tap101i0".to_owned()]);
    assert_eq!(node.bridge_ports("vmbr0"), ports);
    assert!(!node.has_device("fwbr101i0"));
}

#[test]
fn the_scenes_with_linux_bridges_are_plugged_as_they_say() {
    assert_they_talk(&linux_three_guests());
    let node = mixed_bridges();
    assert_they_talk(&node);
    node.exchange("103/net0", "300/net0", "hello");
    let nics = ["101", "102", "103", "104", "300"].map(|guest| format!("{guest}/net0"));
    assert_eq!(
        nics.map(|nic| node.bridge_port(&nic)),
        [
            "tap101i0",
            "fwln102o0",
            "fwpr103p0",
            "tap104i0",
            "veth300i0"
        ]
    );
    assert!(node.bridge_ports("vmbr0v20").contains("tap104i0"));
    assert!(node.bridge_ports("vmbr0").contains("tap201i1"));
    assert!(
        node.ovs_vsctl(&["list-ports", "vmbr2"])
            .contains("tap200i1")
    );
}

#[test]
fn a_tag_on_a_linux_bridge_makes_an_extra_bridge() {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    node.physical("eno1", "vmbr0");
    two_guests(&node, "bridge=vmbr0,tag=20");
    assert_they_talk(&node);
    assert!(node.bridge_ports("vmbr0v20").is_superset(&BTreeSet::from([
        "tap101i0".to_owned(),
        "tap102i0".to_owned()
    ])));
}

#[test]
fn a_captured_frame_keeps_its_vlan_tags() {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    let cable = node.physical("eno1", "vmbr2");
    node.add(&vm(101, "bridge=vmbr2,tag=10"));
    node.add(&vm(102, "bridge=vmbr2,trunks=10;20-29"));
    node.start_guests([101, 102]);
    // From an access port to a trunk, and to the cable.
    let mut at_cable = node.capture(&cable);
    let arrived = node.exchange("101/net0", "102/net0", "tagged");
    assert_eq!(
        arrived,
        node.frame("101/net0", "102/net0", "tagged").tagged(10)
    );
    assert_eq!(at_cable.wait_for(|frame| frame.contains("tagged")), arrived);
    // Two tags, from the cable to a trunk; and a VLAN that is not on the trunk.
    let mut capture = node.capture("102/net0");
    let sender = Mac([2, 0, 0, 0, 0, 9]);
    let other = Frame::new(sender, Mac::BROADCAST)
        .carrying("other")
        .tagged(40);
    let double = Frame::new(sender, Mac::BROADCAST)
        .carrying("double")
        .tagged(7)
        .tagged(25);
    node.send(&cable, &other);
    node.send(&cable, &double);
    assert_eq!(capture.wait_for(|frame| frame.contains("double")), double);
    assert_eq!((double.vlans(), capture.count("other")), (vec![25, 7], 0));
}

#[test]
fn a_mirror_made_by_hand_delivers_each_frame_once() {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    two_guests(&node, "bridge=vmbr2,tag=10");
    node.add(&vm(109, "bridge=vmbr2"));
    node.start_guest(109);
    node.introduce("101/net0", "102/net0");
    let mut sensor = node.capture("109/net0");
    node.exchange("101/net0", "102/net0", "before");
    assert_eq!(sensor.count("before"), 0);

    let make = "-- --id=@s get Port tap101i0 -- --id=@d get Port tap102i0 -- --id=@o get Port tap109i0 \
                -- --id=@m create Mirror name=hand select_src_port=@s,@d select_dst_port=@s,@d output_port=@o \
                -- add Bridge vmbr2 mirrors @m";
    node.ovs_vsctl(&make.split_whitespace().collect::<Vec<_>>());
    node.forget_flows();
    for token in ["first", "second", "third"] {
        let arrived = node.exchange("101/net0", "102/net0", token);
        let mirrored = sensor.wait_for(|frame| frame.contains(token));
        assert_eq!(mirrored, arrived.tagged(10));
        assert_eq!(sensor.count(token), 1);
    }
    let before = node.mirrors_raw();
    node.exchange("102/net0", "101/net0", "back");
    assert_eq!(sensor.count("back"), 1);
    assert_eq!(node.mirrors_raw(), before);
    assert!(before.contains("hand"));
}

#[test]
fn nodes_of_the_same_names_know_nothing_of_each_other() {
    let nodes = [Node::start(), Node::start()];
    thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(|| {
                node.ovs_bridge("vmbr2");
                two_guests(node, "bridge=vmbr2");
            });
        }
    });
    let mut other = nodes[1].capture("102/net0");
    let broadcast = Frame::new(nodes[0].mac("101/net0"), Mac::BROADCAST).carrying("to-all");
    let mut capture = nodes[0].capture("102/net0");
    nodes[0].send("101/net0", &broadcast);
    capture.wait_for(|frame| frame.contains("to-all"));
    assert_they_talk(&nodes[1]);
    assert_eq!(other.count("to-all"), 0);
}

#[test]
fn a_crashed_guest_leaves_its_port_behind_and_a_stopped_one_does_not() {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    two_guests(&node, "bridge=vmbr2");
    node.crash_guest(101);
    assert!(!node.has_device("tap101i0"));
    assert_eq!(
        node.ovs_vsctl(&["list-ports", "vmbr2"]),
        "tap101i0\ntap102i0\n"
    );
    node.start_guest(101);
    assert_they_talk(&node);
    node.stop_guest(101);
    assert!(!node.has_device("tap101i0"));
    assert_eq!(node.ovs_vsctl(&["list-ports", "vmbr2"]), "tap102i0\n");
}

#[test]
fn the_daemons_can_crash_hang_and_come_back() {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    two_guests(&node, "bridge=vmbr2,firewall=1");
    node.kill_vswitchd();
    assert_eq!(node.ovs_vsctl(&["list-br"]), "vmbr2\n");
    node.start_vswitchd();
    assert_they_talk(&node);
    node.stop_ovsdb();
    node.start_ovsdb();
    wait_until("ovs-vswitchd has reconnected", || {
        node.ovs_vsctl(&["set", "Bridge", "vmbr2", "external_ids:seen=1"])
            .is_empty()
    });
    node.pause_ovsdb();
    node.resume_ovsdb();
    assert_eq!(node.ovs_vsctl(&["list-br"]), "vmbr2\n");
    // A hanging daemon must not keep the node from going away.
    node.pause_ovsdb();
}

#[test]
fn the_tree_is_what_the_cluster_filesystem_shows() {
    let node = Node::without_ovs();
    let read = |path: &str| std::fs::read_to_string(node.path("etc/pve").join(path)).unwrap();
    assert_eq!(
        read(".members"),
        "{\n\"nodename\": \"pve1\",\n\"version\": 0\n}\n"
    );
    assert_eq!(read(".vmlist"), "{\n\"version\": 0\n\n}\n");
    let web = Guest::vm(101)
        .name("web1")
        .tags("prod;web")
        .notes("net0: a note");
    node.add(
        &web.clone()
            .net(0, "virtio=BC:24:11:2A:00:01,bridge=vmbr2,firewall=1,tag=10"),
    );
    let text = "#net0: a note\ncores: 1\nmemory: 512\nname: web1\n\
                net0: virtio=BC:24:11:2A:00:01,bridge=vmbr2,firewall=1,tag=10\n\
                ostype: l26\nscsihw: virtio-scsi-single\ntags: prod;web\n";
    assert_eq!(read("nodes/pve1/qemu-server/101.conf"), text);
    assert_eq!(read("qemu-server/101.conf"), text);
    node.edit(101, |guest| guest.tags("web"));
    node.add(&Guest::ct(300).name("mon"));
    let list = "{\n\"version\": 3,\n\"ids\": {\n\
                \"101\": { \"node\": \"pve1\", \"type\": \"qemu\", \"version\": 2 },\n\
                \"300\": { \"node\": \"pve1\", \"type\": \"lxc\", \"version\": 3 }}\n\n}\n";
    assert_eq!(read(".vmlist"), list);

    node.file_under("pve2", 101);
    assert!(read("nodes/pve2/qemu-server/101.conf").contains("tags: web"));
    let moved = "\"101\": { \"node\": \"pve2\", \"type\": \"qemu\", \"version\": 4 }";
    assert!(read(".vmlist").contains(moved));
    node.unmount_pve();
    assert_eq!(std::fs::read_dir(node.path("etc/pve")).unwrap().count(), 0);
    node.span_cfg("[a]\n");
    node.mount_pve();
    assert_eq!(read("span.cfg"), "[a]\n");
}

#[test]
fn a_datagram_has_the_checksums_that_a_receiver_expects() {
    let (src, dst) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    let frame = Frame::new(Mac([2; 6]), Mac([4; 6])).udp((src, 1000), (dst, 53), "odd");
    // The sums (RFC 1071): 0x26cc over the IP header, 0x1454 over pseudo header, UDP header and data (RFC 768).
    let ip = [
        0x45, 0, 0, 31, 0, 0, 0x40, 0, 64, 17, 0x26, 0xcc, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    let udp = [3, 0xe8, 0, 53, 0, 11, 0x14, 0x54, b'o', b'd', b'd'];
    assert_eq!(frame.payload(), [&ip[..], &udp].concat());
}

#[test]
fn five_hundred_guests_start_in_a_few_calls() {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    let guests: Vec<Guest> = (1000..1500)
        .map(|vmid| Guest::vm(vmid).net(0, "virtio,bridge=vmbr2"))
        .collect();
    node.add_all(&guests);
    node.start_guests(1000..1500);
    node.exchange("1000/net0", "1499/net0", "hello");
}
