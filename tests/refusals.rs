//! What cannot or must not be mirrored: each refused with its reason and what to do.

mod lab;
mod scene;

use lab::{Guest, Node};
use scene::{guests, run, sensor, vm};

#[test]
fn what_cannot_be_mirrored_is_refused_with_reason_and_remedy() {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    node.ovs_bridge("vmbr3");
    node.linux_bridge("vmbr0");
    node.add(
        &vm(101, ",firewall=1")
            .net(1, "virtio=BC:24:11:2A:00:02,bridge=vmbr3")
            .net(2, "virtio=BC:24:11:2A:00:03,bridge=vmbr0"),
    );
    node.add(
        &Guest::vm(200)
            .net(1, "virtio=BC:24:11:2A:01:C8,bridge=vmbr2,firewall=1")
            .net(2, "virtio=BC:24:11:2A:02:C8,bridge=vmbr0"),
    );
    node.add(&sensor(201));
    node.start_guests([101, 200, 201]);
    node.span_cfg(
        "[across]\nsource = 101\nengine = ovs\noutput = 201/net1\n\
         [before]\nsource = 101/net0\nengine = ovs\npoint = guest\noutput = 201/net1\n\
         [behind]\nsource = 101/net0\nengine = ovs\noutput = 200/net1\n\
         [cut]\nsource = 101/net2\nsnaplen = 100\noutput = 201/net1\n\
         [linux]\nsource = 101/net2\nengine = ovs\noutput = 200/net2\n\
         [rspan]\nsource = 101/net0, 101/net2\noutput = vlan:999\n\
         [tunnel]\nsource = 101/net0\noutput = vxlan:10.0.0.9/100, 201/net1\n",
    );
    let (code, out, err) = run(&node, &["apply"]);
    assert_eq!(code, 1);
    assert_eq!(
        out,
        "across: mirrors 101/net0 to 201/net1 (ovs, vmbr2)\nrspan: mirrors 101/net0 to vlan:999 (ovs, vmbr2)\n\
         tunnel: mirrors 101/net0 to 201/net1 (ovs, vmbr2)\n\
         output 201/net1 (tap201i1): offloads off, for frames as on a wire\n"
    );
    let ovs_only = "and `engine = ovs` leaves the nft engine out";
    assert_eq!(
        err,
        format!(
            "pve-span: warning: across: 101/net1 is not mirrored to 201/net1: it goes from vmbr3 to vmbr2, {ovs_only}\n\
             pve-span: warning: across: 101/net2 is not mirrored to 201/net1: it goes from the Linux bridge vmbr0 to vmbr2, {ovs_only}\n\
             pve-span: warning: before: 101/net0 is not mirrored to 201/net1: `point = guest` is before the firewall bridge fwbr101i0, {ovs_only}\n\
             pve-span: warning: behind: 101/net0 is not mirrored to 200/net1: 200/net1 is behind its firewall bridge fwbr200i1, {ovs_only}\n\
             pve-span: warning: cut: 101/net2 is not mirrored to 201/net1: it goes from the Linux bridge vmbr0 to vmbr2, and the nft engine has no \
             `snaplen`: leave it out, or put the sensor on the source's Open vSwitch bridge\n\
             pve-span: warning: linux: 101/net2 is not mirrored to 200/net2: 200/net2 is on the Linux bridge vmbr0, {ovs_only}\n\
             pve-span: warning: rspan: 101/net2 is not mirrored to vlan:999: it is on the Linux bridge vmbr0, and RSPAN (vlan:) is for Open vSwitch \
             bridges\n\
             pve-span: warning: rspan: note: vlan:999 also goes to guests whose NIC takes every VLAN: 101/net0, 200/net1, 201/net1 (set tag= or \
             trunks=)\n\
             pve-span: warning: tunnel: nothing is mirrored to vxlan:10.0.0.9/100: tunnels are not available in this version\n"
        )
    );
    let (code, _, _) = run(&node, &["status"]);
    assert_eq!(code, 1);
}

#[test]
fn a_tag_on_the_sensor_does_not_make_it_feed_itself() {
    let node = guests(&[
        vm(101, "").tags("web"),
        sensor(200).tags("web"),
        sensor(201).tags("web"),
    ]);
    node.span_cfg(
        "[a]\nsource = tag:web\noutput = 200/net1\n[b]\nsource = tag:web\noutput = 201/net1\n",
    );
    let (code, out, err) = run(&node, &["apply"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        out,
        "a: mirrors 101/net0 to 200/net1 (ovs, vmbr2)\nb: mirrors 101/net0 to 201/net1 (ovs, vmbr2)\n\
         output 200/net1 (tap200i1): offloads off, for frames as on a wire\noutput 201/net1 (tap201i1): offloads off, for frames as on a wire\n"
    );
}
