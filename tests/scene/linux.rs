//! Nodes with Linux bridges, for sessions that Open vSwitch's mirrors cannot serve.

use super::super::lab::{Guest, Node};
use super::told;

/// A guest with one NIC; `nic` is what follows its MAC address: `bridge=vmbr0,firewall=1`.
pub fn vm_on(vmid: u32, nic: &str) -> Guest {
    let [_, _, high, low] = vmid.to_be_bytes();
    Guest::vm(vmid).net(0, &format!("virtio=BC:24:11:2A:{high:02X}:{low:02X},{nic}"))
}

/// A container with one NIC.
pub fn ct_on(vmid: u32, nic: &str) -> Guest {
    let [_, _, high, low] = vmid.to_be_bytes();
    let mac = format!("BC:24:11:2C:{high:02X}:{low:02X}");
    Guest::ct(vmid).net(0, &format!("name=eth0,hwaddr={mac},{nic},type=veth"))
}

/// A sensor whose monitor NIC is net1, as [`super::sensor`].
pub fn sensor_on(vmid: u32, nic: &str) -> Guest {
    let [_, _, _, low] = vmid.to_be_bytes();
    let mac = |n: u32| format!("BC:24:11:2A:{n:02X}:{low:02X}");
    Guest::vm(vmid)
        .name("sensor")
        .net(0, &format!("virtio={}", mac(9)))
        .net(1, &format!("virtio={},{nic}", mac(1)))
}

/// Guests 101, 102 and the sensor 200 on the Linux bridge vmbr0, all running; without Open vSwitch.
pub fn linux_three_guests() -> Node {
    linux_guests(&[
        vm_on(101, "bridge=vmbr0"),
        vm_on(102, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr0"),
    ])
}

/// These guests on a node with the Linux bridge vmbr0 and without Open vSwitch, all running. With `tag=20` in their
/// line they are on vmbr0v20.
pub fn linux_guests(guests: &[Guest]) -> Node {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    start(&node, guests);
    node
}

/// The same taps as QEMU has: 101 and 102 with network stacks, the sensor 200 with a reader.
pub fn linux_qemu_guests(nic: &str) -> Node {
    linux_guests(&[
        vm_on(101, nic).qemu(),
        vm_on(102, nic).qemu(),
        sensor_on(200, "bridge=vmbr0").qemu_reader(),
    ])
}

/// Guests with network stacks on Open vSwitch, which takes their large pieces.
pub fn ovs_qemu_guests() -> Node {
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
    node
}

/// Both kinds of bridges: 101 on the OVS bridge vmbr2, 102 there behind a firewall bridge; container 300 on the Linux
/// bridge vmbr0, 103 there behind a firewall bridge, 104 on its VLAN 20; sensors 200 on vmbr2 and 201 on vmbr0.
pub fn mixed_bridges() -> Node {
    mixed_guests(&[
        vm_on(101, "bridge=vmbr2"),
        vm_on(102, "bridge=vmbr2,firewall=1"),
        vm_on(103, "bridge=vmbr0,firewall=1"),
        vm_on(104, "bridge=vmbr0,tag=20"),
        ct_on(300, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr2"),
        sensor_on(201, "bridge=vmbr0"),
    ])
}

/// These guests on a node with the OVS bridge vmbr2 and the Linux bridge vmbr0, all running.
pub fn mixed_guests(guests: &[Guest]) -> Node {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    node.linux_bridge("vmbr0");
    start(&node, guests);
    node
}

/// Adds these guests and starts them.
pub fn start(node: &Node, guests: &[Guest]) {
    node.add_all(guests);
    node.start_guests(guests.iter().map(|guest| guest.vmid));
}

/// `tap_rate_limit` (PVE::Network): what a live edit of `rate=` runs, in this order. Where the kernel has no `police`, the
/// filter is made without it: what could stand in the way is the qdiscs.
#[track_caller]
pub fn rate_edit(node: &Node, device: &str, rate: Option<u32>) {
    let tc = |args: &str| {
        let mut command = node.command("tc");
        command.args(args.split(' ')).output().unwrap()
    };
    // These may fail: there may be nothing to delete.
    tc(&format!("class del dev {device} parent 1: classid 1:1"));
    tc(&format!(
        "filter del dev {device} parent ffff: protocol all pref 50 u32"
    ));
    tc(&format!("qdisc del dev {device} ingress"));
    tc(&format!("qdisc del dev {device} root"));
    let Some(rate) = rate else { return };
    let burst = 1024 * 1024;
    for args in [
        format!("qdisc add dev {device} root handle 1: htb default 1"),
        format!("class add dev {device} parent 1: classid 1:1 htb rate {rate}bps burst {burst}b"),
        format!("qdisc add dev {device} handle ffff: ingress"),
    ] {
        let output = tc(&args);
        assert!(output.status.success(), "tc {args}: {}", told(&output));
    }
    let filter =
        format!("filter add dev {device} parent ffff: protocol all prio 50 u32 match u32 0 0");
    let policed = tc(&format!(
        "{filter} police rate {rate}bps burst {burst}b mtu 64kb drop flowid :1"
    ));
    if !policed.status.success() {
        let is_full_kernel = std::env::var_os("PVE_SPAN_VM").is_some();
        assert!(!is_full_kernel, "{}", told(&policed));
        assert!(told(&policed).contains("TC action"), "{}", told(&policed));
        let output = tc(&format!("{filter} flowid :1"));
        assert!(output.status.success(), "{}", told(&output));
    }
}
