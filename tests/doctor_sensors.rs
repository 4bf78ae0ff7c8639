//! `pve-span doctor`, finding by finding: sensors, and sources that do not get there.
//! Each condition is made on a node, told with its evidence and its remedy, and gone when the remedy was applied.

#![allow(clippy::unwrap_used)]

mod doctor_lab;
mod lab;
mod scene;

use doctor_lab::{fine, found, gone, qm, sh};
use lab::{Guest, Node};
use scene::linux::{linux_guests, sensor_on, vm_on};
use scene::{apply, guests, sensor, their_mirror, vm};

const DMZ: &str = "[dmz]\nsource = 101\noutput = 200/net1\n";

#[test]
fn what_keeps_copies_from_a_sensor_is_told() {
    let node = guests(&[
        vm(101, ""),
        sensor(200),
        Guest::vm(201)
            .net(
                0,
                "virtio=BC:24:11:2A:00:C9,bridge=vmbr2,firewall=1,rate=5,link_down=1",
            )
            .set("ipconfig0", "ip=10.0.0.7/24"),
        Guest::ct(202)
            .net(
                0,
                "name=eth0,bridge=vmbr2,hwaddr=BC:24:11:2A:00:CA,ip=dhcp,type=veth",
            )
            .net(
                1,
                "name=eth1,bridge=vmbr2,hwaddr=BC:24:11:2A:00:CB,ip=dhcp,gw=10.0.0.1,type=veth",
            ),
    ]);
    apply(&node, DMZ);
    fine(&node, "sensors");
    node.stop_guest(200);
    found(
        &node,
        "sensor-off",
        "warning: the sensor 200 (sensor) does not run: what session dmz mirrors gets nowhere\n\
         seen: 200/net1 has no port on any bridge of this node\n\
         do: qm start 200",
    );
    found(
        &node,
        "session-degraded",
        "warning: session dmz is degraded: something that it should mirror is not mirrored\n\
         seen: not in force yet: see pve-span plan, then pve-span apply; nothing is mirrored to 200/net1: guest 200 is not running on this node\n\
         do: pve-span status",
    );
    node.start_guest(200);
    gone(&node, "sensor-off");
    node.span_cfg(&DMZ.replace("200/net1", "200/net5"));
    gone(&node, "sensor-off");
    node.span_cfg(&DMZ.replace("200/net1", "201/net0"));
    set_sensor(
        &node,
        &found(
            &node,
            "sensor-address",
            "error: the sensor's 201/net0 has an address in its config, so it is refused as an output: it would be cut off from the network\n\
         seen: /etc/pve/nodes/pve1/qemu-server/201.conf: ipconfig0: ip=10.0.0.7/24\n\
         do: qm set 201 --delete ipconfig0",
        ),
    );
    // One command mends the whole NIC: those of several findings would undo each other.
    let mend = "do: qm set 201 --net0 virtio=BC:24:11:2A:00:C9,bridge=vmbr2";
    found(
        &node,
        "sensor-firewall",
        &format!(
            "note: the sensor's 201/net0 is behind its firewall bridge: engine nft delivers past it, Open vSwitch could not\n\
         seen: tap201i0 is a port of fwbr201i0; /etc/pve/nodes/pve1/qemu-server/201.conf: firewall=1\n{mend}"
        ),
    );
    found(
        &node,
        "sensor-rate",
        &format!(
            "warning: the sensor's 201/net0 is limited to 5 MB/s: copies beyond that are dropped\n\
         seen: /etc/pve/nodes/pve1/qemu-server/201.conf: net0: rate=5\n{mend}"
        ),
    );
    set_sensor(
        &node,
        &found(
            &node,
            "sensor-unplugged",
            &format!(
                "error: the sensor's 201/net0 is unplugged (link_down=1): the guest sees no frame\n\
         seen: /etc/pve/nodes/pve1/qemu-server/201.conf: net0: link_down=1\n{mend}"
            ),
        ),
    );
    gone(&node, "sensor-firewall");
    gone(&node, "sensor-rate");
    set_sensor(
        &node,
        &found(
            &node,
            "sensor-only-nic",
            "error: the sensor 201 has no other NIC than 201/net0, so it is refused as an output: nobody could reach the guest any more\n\
         seen: /etc/pve/nodes/pve1/qemu-server/201.conf: only net0\n\
         do: qm set 201 --net1 virtio,bridge=vmbr2",
        ),
    );
    node.stop_guest(201);
    node.span_cfg(&format!(
        "{}engine = ovs\n",
        DMZ.replace("200/net1", "201/net0")
    ));
    node.edit(201, |guest| {
        guest.net(0, "virtio=BC:24:11:2A:00:C9,bridge=vmbr2,firewall=1")
    });
    node.start_guest(201);
    found(
        &node,
        "sensor-firewall",
        "error: the sensor's 201/net0 is behind its firewall bridge, which drops copies, and session dmz leaves engine nft out, which would deliver past it\n\
         seen: tap201i0 is a port of fwbr201i0; /etc/pve/nodes/pve1/qemu-server/201.conf: firewall=1\n\
         do: qm set 201 --net0 virtio=BC:24:11:2A:00:C9,bridge=vmbr2; or leave `engine = ovs` out of span.cfg",
    );
    node.span_cfg(&DMZ.replace("200/net1", "202/net1"));
    let finding = found(
        &node,
        "sensor-address",
        "error: the sensor's 202/net1 has an address in its config, so it is refused as an output: it would be cut off from the network\n\
         seen: /etc/pve/nodes/pve1/lxc/202.conf: net1: ip=dhcp\n\
         do: pct set 202 --net1 name=eth1,bridge=vmbr2,hwaddr=BC:24:11:2A:00:CB,type=veth",
    );
    qm(&node, &finding.remedy);
    gone(&node, "sensor-address");
    node.edit(201, |_| {
        Guest::vm(201)
            .net(0, "virtio=BC:24:11:2A:00:C9,bridge=vmbr2")
            .set("hostpci0", "0000:01:00")
    });
    node.span_cfg(&format!(
        "{}capture-only = 201/net0\n",
        DMZ.replace("200/net1", "201/net0")
    ));
    gone(&node, "sensor-only-nic");
    gone(&node, "passthrough");
}

/// Does what the remedy says to guest 201, after which the finding has to be gone.
#[track_caller]
fn set_sensor(node: &Node, finding: &doctor_lab::Finding) {
    // What a NIC is plugged into changes with its config.
    node.stop_guest(201);
    qm(node, &finding.remedy);
    node.start_guest(201);
    gone(node, &finding.id);
}

#[test]
fn an_output_that_takes_less_than_its_sources_send_is_told() {
    let node = linux_guests(&[vm_on(101, "bridge=vmbr0"), sensor_on(200, "bridge=vmbr0")]);
    node.ip(&["link set tap101i0 mtu 9000"]);
    apply(&node, DMZ);
    let finding = found(
        &node,
        "mtu-smaller",
        "warning: session dmz: frames above 1500 bytes may be lost on the way to 200/net1, and its sources send up to 9000\n\
         seen: tap101i0 has MTU 9000, tap200i1 has MTU 1500\n\
         do: ip link set tap200i1 mtu 9000; to last, `mtu 9000` for its bridge in /etc/network/interfaces; the sensor has to take such frames, too",
    );
    sh(&node, finding.remedy.split_once(';').unwrap().0);
    gone(&node, "mtu-smaller");
    fine(&node, "mtu");
    node.edit(200, |_| sensor_on(200, "bridge=vmbr0,mtu=1500,rate=5"));
    let rate = |finding: &doctor_lab::Finding| finding.id == "sensor-rate";
    let rates = doctor_lab::look(&node).1;
    let remedy = rates.into_iter().find(rate).unwrap().remedy;
    assert_eq!(
        remedy, "qm set 200 --net1 virtio=BC:24:11:2A:01:C8,bridge=vmbr0,mtu=9000",
        "both findings' commands do all of it"
    );
    let finding = found(
        &node,
        "mtu-smaller",
        "warning: session dmz: frames above 1500 bytes may be lost on the way to 200/net1, and its sources send up to 9000\n\
         seen: tap101i0 has MTU 9000, /etc/pve/nodes/pve1/qemu-server/200.conf has net1: mtu=1500\n\
         do: qm set 200 --net1 virtio=BC:24:11:2A:01:C8,bridge=vmbr0,mtu=9000; the sensor has to take such frames, too",
    );
    qm(&node, finding.remedy.split_once(';').unwrap().0);
    gone(&node, "mtu-smaller");
}

#[test]
fn guests_that_no_mirror_of_this_node_reaches_are_told() {
    let node = guests(&[
        vm(101, ""),
        vm(102, ""),
        vm(103, "").set("hostpci0", "0000:01:00"),
        sensor(200),
    ]);
    apply(&node, "[dmz]\nsource = 101-103\noutput = 200/net1\n");
    found(
        &node,
        "passthrough",
        "note: guest 103 has devices of the node for itself: if one of them is a network card, no mirror on this node sees its frames\n\
         seen: /etc/pve/nodes/pve1/qemu-server/103.conf: hostpci0\n\
         do: give it a NIC on a bridge instead, or mirror on the physical switch",
    );
    node.stop_guest(102);
    node.file_under("pve2", 102);
    found(
        &node,
        "source-elsewhere",
        "warning: session dmz: 102/net0 is on another node than the sensor, and not mirrored to 200/net1 (tunnels are not there yet)\n\
         seen: /etc/pve/nodes/pve2/qemu-server/102.conf; the sensor is here, on pve1\n\
         do: a sensor on each node; or qm migrate 102 pve1 --online",
    );
    node.file_under("pve1", 102);
    gone(&node, "source-elsewhere");
    node.stop_guest(200);
    node.file_under("pve2", 200);
    found(
        &node,
        "sensor-elsewhere",
        "warning: session dmz: the sensor 200/net1 is on node pve2, and 101/net0, 102/net0 and 103/net0 of this node are not mirrored to it (tunnels are not there yet)\n\
         seen: /etc/pve/nodes/pve2/qemu-server/200.conf; /etc/pve/nodes/pve1/qemu-server/101.conf\n\
         do: a sensor on each node; or, on pve2: qm migrate 200 pve1 --online",
    );
}

#[test]
fn what_others_copy_or_divert_is_told() {
    let node = guests(&[vm(101, ""), vm(102, ""), sensor(200)]);
    apply(&node, DMZ);
    for id in ["tc-mirred", "mirror-foreign", "mac-shared"] {
        gone(&node, id);
    }
    // A script of earlier days: both directions of a source to its sensor, and a guest that nobody asked for.
    let filter = "protocol all u32 match u8 0 0 action mirred egress";
    node.tc(&[
        "qdisc add dev tap101i0 clsact".to_owned(),
        format!("filter add dev tap101i0 ingress pref 7 {filter} mirror dev tap200i1"),
        format!("filter add dev tap101i0 egress pref 8 {filter} mirror dev tap200i1"),
        "qdisc add dev tap102i0 handle ffff: ingress".to_owned(),
        format!("filter add dev tap102i0 parent ffff: pref 9 {filter} redirect dev tap101i0"),
    ]);
    for (side, pref) in [("ingress", 7), ("egress", 8)] {
        let finding = found(
            &node,
            "tc-mirred",
            &format!(
                "warning: a filter of tc copies frames of tap101i0 ({side}) to tap200i1: the sensor of dmz gets frames there that \
                 pve-span did not send, or gets them twice\n\
                 seen: tc filter show dev tap101i0 {side}: pref {pref} u32, action mirred mirror\n\
                 do: tc filter del dev tap101i0 {side} pref {pref}"
            ),
        );
        sh(&node, &finding.remedy);
    }
    let finding = found(
        &node,
        "tc-mirred",
        "warning: a filter of tc diverts frames of tap102i0 (ingress) to tap101i0: these frames do not go their own way\n\
         seen: tc filter show dev tap102i0 ingress: pref 9 u32, action mirred redirect\n\
         do: tc filter del dev tap102i0 ingress pref 9",
    );
    sh(&node, &finding.remedy);
    gone(&node, "tc-mirred");

    node.nft(
        "table netdev theirs {\n chain early {\n type filter hook ingress device \"tap101i0\" priority 0;\n \
         ip saddr 10.0.0.1 dup to \"tap200i1\"\n }\n chain other {\n \
         type filter hook ingress device \"tap102i0\" priority 0;\n dup to \"tap101i0\"\n }\n}\n",
    );
    let finding = found(
        &node,
        "mirror-foreign",
        "warning: somebody else's nftables rule copies frames of tap101i0 (ingress) to tap200i1: the sensor of dmz gets frames \
         there that pve-span did not send, or gets them twice\n\
         seen: table netdev theirs, chain early: ip saddr 10.0.0.1 dup to \"tap200i1\"\n\
         do: nft delete rule netdev theirs early handle 3",
    );
    sh(&node, &finding.remedy);
    gone(&node, "mirror-foreign");

    their_mirror(
        &node,
        &[
            "name=old",
            "select_src_port=@tap101i0",
            "output_port=@tap102i0",
        ],
    );
    let finding = found(
        &node,
        "mirror-foreign",
        "note: somebody else's mirror on vmbr2 takes tap101i0 too, and sends it to tap102i0: it stays as it is, and what it \
         sends is not pve-span's\n\
         seen: ovs-vsctl list mirror old\n\
         do: ovs-vsctl -- --id=@m get mirror old -- remove bridge vmbr2 mirrors @m; or take it over: pve-span import",
    );
    let (command, _) = finding.remedy.split_once(';').unwrap();
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    node.ovs_vsctl(&words);
    gone(&node, "mirror-foreign");
}

#[test]
fn guests_that_share_a_mac_address_are_told() {
    let shared = "virtio=BC:24:11:2A:00:01,bridge=vmbr2";
    let node = guests(&[
        Guest::vm(101).net(0, shared),
        Guest::vm(102).net(0, "virtio=bc:24:11:2a:00:01,bridge=vmbr2,tag=5"),
        sensor(200),
    ]);
    apply(&node, DMZ);
    let finding = found(
        &node,
        "mac-shared",
        "warning: 101/net0 and 102/net0 have the same MAC address bc:24:11:2a:00:01: their bridge delivers one guest's frames to the \
         other, and a sensor cannot tell them apart\n\
         seen: /etc/pve/nodes/pve1/qemu-server/101.conf: net0 and /etc/pve/nodes/pve1/qemu-server/102.conf: net0\n\
         do: qm set 102 --net0 virtio,bridge=vmbr2,tag=5 (Proxmox VE makes a new address)",
    );
    // One that does not run harms nobody.
    node.stop_guest(102);
    gone(&node, "mac-shared");
    node.start_guest(102);
    let (command, _) = finding.remedy.split_once(" (").unwrap();
    qm(&node, command);
    gone(&node, "mac-shared");
}
