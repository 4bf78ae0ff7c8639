//! The laboratory's guests with real taps: plugged, stopped and crashed like any other, and sending as QEMU's do.

mod lab;

use lab::{Guest, Node};

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
    assert_eq!(node.bridge_port("101/net0"), "fwln101o0");
    node.exchange("102/net0", "101/net0", "hello");
    node.stop_guest(101);
    assert!(!node.has_device("tap101i0"));
}
