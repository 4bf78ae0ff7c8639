//! The laboratory's guests with real taps: plugged, stopped and crashed like any other, and sending as QEMU's do.

mod lab;

use lab::{Guest, Inspection, Node};

fn vm(vmid: u32, nic: &str) -> Guest {
    Guest::vm(vmid).net(0, &format!("virtio,{nic}")).qemu()
}

/// 101 and 102 plugged as `nic` says.
fn two_guests(node: &Node, nic: &str) {
    node.add_all([&vm(101, nic), &vm(102, nic)]);
    node.start_guests([101, 102]);
}

#[test]
fn a_guest_has_a_tap_on_the_node_and_takes_frames_like_any_other() {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    two_guests(&node, "bridge=vmbr0,firewall=1");
    node.exchange("101/net0", "102/net0", "hello");
    let flags = |device: &str| {
        let path = format!("/sys/class/net/{device}/tun_flags");
        node.inside(|| std::fs::read_to_string(path)).unwrap()
    };
    // IFF_VNET_HDR | IFF_NO_PI | IFF_TAP
    assert_eq!(flags("tap101i0"), "0x5002\n");
}

#[test]
fn a_guest_stops_crashes_starts_and_is_replugged() {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    two_guests(&node, "bridge=vmbr2");
    node.exchange("101/net0", "102/net0", "hello");
    node.crash_guest(101);
    assert!(!node.has_device("tap101i0"));
    node.start_guest(101);
    node.exchange("101/net0", "102/net0", "hello");
    node.edit(101, |guest| guest.net(0, "virtio,bridge=vmbr2,firewall=1"));
    node.replug("101/net0");
    // Open vSwitch may have cached where 101 was.
    node.settle();
    assert_eq!(node.bridge_port("101/net0"), "fwln101o0");
    node.exchange("102/net0", "101/net0", "hello");
    node.stop_guest(101);
    assert!(!node.has_device("tap101i0"));
}

#[test]
fn a_container_has_a_network_stack_too() {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    let container = Guest::ct(300).net(0, "name=eth0,bridge=vmbr0,type=veth");
    node.add_all([&container.lxc(), &vm(101, "bridge=vmbr0")]);
    node.start_guests([101, 300]);
    node.stream("101/net0", "300/net0", 100_000);
    node.exchange("300/net0", "101/net0", "hello");
    node.stop_guest(300);
    assert!(!node.has_device("veth300i0"));
    node.start_guest(300);
    node.stream("300/net0", "101/net0", 100_000);
}

#[test]
fn an_inspection_notices_what_is_missing_doubled_and_changed() {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    two_guests(&node, "bridge=vmbr0");
    // On the way to 102 the frames are cut and finished as for a wire.
    node.ethtool(&["-K", "tap102i0", "tso", "off", "gso", "off"]);
    node.ethtool(&["-K", "tap102i0", "tx", "off", "sg", "off"]);
    let mut capture = node.capture_tap("102/net0");
    let mut stream = node.stream("101/net0", "102/net0", 100_000);
    node.exchange("101/net0", "102/net0", "behind-it");
    let frames = capture.all_until("behind-it");
    // Only what comes to 102 is there to be seen.
    stream.back.clear();
    let whole = Inspection::of_tap(&frames, 1500);
    assert!(whole.is_wire_true(), "{whole:?}");
    let way = |found: &Inspection<'_>| found.reassemble(stream.client, stream.server);
    assert_eq!(way(&whole).unwrap(), stream.there);
    let why = whole.has_all_of(&stream).unwrap_err();
    assert!(why.starts_with("no SYN from 10.0.0.102:"), "{why}");

    let full = |frame: &&lab::TapFrame| frame.frame.len() == 1514;
    let at = frames.iter().position(|frame| full(&frame)).unwrap();
    let mut fewer = frames.clone();
    let taken = fewer.remove(at);
    let found = Inspection::of_tap(&fewer, 1500);
    assert!(way(&found).unwrap_err().contains("there is nothing at 0"));
    // Late and twice.
    fewer.extend([taken.clone(), taken.clone()]);
    let found = Inspection::of_tap(&fewer, 1500);
    assert_eq!((found.doubled, found.bad_tcp), (1, 0));
    assert_eq!(way(&found).unwrap(), stream.there);
    let mut bytes = taken.frame.bytes().to_vec();
    bytes[1000] ^= 1;
    let changed = lab::Frame::from_bytes(bytes);
    let found = Inspection::of(
        frames.iter().map(|frame| &frame.frame).chain([&changed]),
        1500,
    );
    assert_eq!((found.doubled, found.bad_tcp), (0, 1));
    assert!(way(&found).unwrap_err().contains("two versions"));
}
