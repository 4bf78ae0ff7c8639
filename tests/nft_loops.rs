//! Every way to feed a mirror into itself: refused, or without harm.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use lab::{Frame, Mac, Node};
use scene::linux::{linux_guests, linux_three_guests, sensor_on, vm_on};
use scene::run;

const LOOSE: &str = "02:00:00:00:00:99";

/// Applies a file that is not wholly done, and returns what was said.
#[track_caller]
fn refused(node: &Node, span_cfg: &str) -> String {
    node.span_cfg(span_cfg);
    let (code, out, err) = run(node, &["apply"]);
    assert_eq!(code, 1, "{out}{err}");
    err
}

/// A frame goes from 101 to 102, and then another one; how often the first has passed each device's egress by then.
fn storm(node: &Node, devices: &[&str]) -> Vec<u64> {
    let before: Vec<u64> = devices
        .iter()
        .map(|device| node.statistic(device, "tx_packets"))
        .collect();
    node.exchange("101/net0", "102/net0", "spark");
    let after = devices
        .iter()
        .map(|device| node.statistic(device, "tx_packets"));
    after
        .zip(before)
        .map(|(after, before)| after - before)
        .collect()
}

#[test]
fn a_sensor_that_is_its_own_source_by_number_is_an_error_of_the_file() {
    let node = linux_three_guests();
    let file =
        "/etc/pve/span.cfg:2:10: error: guest 200 is the sensor of [a] and cannot be its source";
    node.span_cfg("[a]\nsource = 200\noutput = 200/net1\n");
    let (code, out, _) = run(&node, &["check"]);
    assert_eq!((code, out.lines().next()), (1, Some(file)));
    // Two that feed each other.
    node.span_cfg("[a]\nsource = 101\noutput = 200/net1\n[b]\nsource = 200\noutput = 101/net0\n");
    let (code, out, _) = run(&node, &["check"]);
    assert!(
        code == 1 && out.contains("a loop: [a] feeds guest 200 from guest 101"),
        "{out}"
    );
}

#[test]
fn a_port_that_is_an_output_is_nobodys_source() {
    let node = linux_three_guests();
    for name in ["eno1", "eno2"] {
        node.physical_unplugged(name);
    }
    node.introduce("101/net0", "102/net0");
    // A to B and B to A.
    let said = refused(
        &node,
        "[a]\nsource = port:eno1\noutput = port:eno2\n[b]\nsource = port:eno2\noutput = port:eno1\n",
    );
    assert_eq!(
        said,
        "pve-span: warning: a: eno1 is not mirrored to port:eno2: it is an output of b, and carries copies only\n\
         pve-span: warning: b: eno2 is not mirrored to port:eno1: it is an output of a, and carries copies only\n"
    );
    // A chain of sessions.
    let said = refused(
        &node,
        "[a]\nsource = 101\noutput = port:eno2\n[b]\nsource = port:eno2\noutput = 200/net1\n",
    );
    assert_eq!(
        said,
        "pve-span: warning: b: eno2 is not mirrored to 200/net1: it is an output of a, and carries copies only\n"
    );
    // And a file that says it of one session.
    node.span_cfg("[a]\nsource = port:eno1\noutput = port:eno1\n");
    let (code, out, _) = run(&node, &["check"]);
    assert!(
        code == 1 && out.contains("port:eno1 is a source of the session that it is an output of"),
        "{out}"
    );
}

#[test]
fn a_bridge_that_contains_the_output_is_taken_without_it() {
    let node = linux_guests(&[
        vm_on(101, "bridge=vmbr0"),
        vm_on(102, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr0"),
        sensor_on(201, "bridge=vmbr0,firewall=1"),
    ]);
    let cable = node.physical("eno1", "vmbr0");
    node.introduce("101/net0", "102/net0");
    node.span_cfg("[a]\nsource = bridge:vmbr0\noutput = 200/net1, 201/net1, port:eno1\ncapture-only = port:eno1\n[b]\nsource = bridge:vmbr0\noutput = 201/net1\n");
    let (code, out, err) = run(&node, &["apply"]);
    assert_eq!(code, 0, "{out}{err}");
    // Each gets the two frames of an exchange once, although it is on the bridge.
    assert_eq!(storm(&node, &["tap200i1", "tap201i1", "eno1"]), [2, 2, 2]);
    // And what comes in at an output is no source either.
    let mut sensor = node.capture("200/net1");
    let host: Mac = LOOSE.parse().unwrap();
    node.send(
        &cable,
        &Frame::new(host, node.mac("101/net0")).carrying("from-outside"),
    );
    node.send(
        "201/net1",
        &Frame::new(node.mac("201/net1"), node.mac("101/net0")).carrying("from-outside"),
    );
    node.exchange("101/net0", "102/net0", "behind-it");
    assert_eq!(sensor.count("from-outside"), 0);
}

#[test]
fn a_physical_output_that_comes_back_in_stops_there() {
    let node = linux_three_guests();
    node.physical("eno1", "vmbr0");
    node.physical("eno2", "vmbr0");
    node.introduce("101/net0", "102/net0");
    node.span_cfg("[a]\nsource = bridge:vmbr0\noutput = port:eno2\ncapture-only = port:eno2\n");
    let (code, out, err) = run(&node, &["apply"]);
    assert_eq!(code, 0, "{out}{err}");
    // The switch outside sends everything back.
    node.ip_wire(&[
        "link add switch type bridge forward_delay 0",
        "link set switch up",
        "link set weno2 master switch",
        "link set weno2 type bridge_slave hairpin on learning off",
    ]);
    // What the switch sends back is dropped where it comes in.
    assert_eq!(storm(&node, &["eno2"]), [2]);
    node.settle();
    assert_eq!(storm(&node, &["eno2"]), [2]);
}

#[test]
fn an_output_that_is_built_on_a_source_or_carries_something_is_refused() {
    let node = linux_three_guests();
    node.physical_unplugged("eno1");
    node.ip(&[
        "link add link eno1 name eno1m type macvlan mode bridge",
        "link set eno1m up",
    ]);
    let said = refused(&node, "[a]\nsource = 101, port:eno1\noutput = port:eno1m\n");
    assert_eq!(
        said,
        "pve-span: warning: a: eno1 is not mirrored to port:eno1m: what is copied to eno1m leaves through it\n"
    );
    let said = refused(&node, "[a]\nsource = 101\noutput = port:eno1\n");
    assert_eq!(
        said,
        "pve-span: warning: a: nothing is mirrored to port:eno1: eno1m is built on eno1, and would be cut off by a mirror into it: delete eno1m, or use another port\n"
    );
    // A device with the node's address, and the only uplink of a bridge that has it.
    node.physical_unplugged("eno3");
    node.physical("eno4", "vmbr0");
    node.ip(&[
        "addr add 10.77.0.1/24 dev eno3",
        "addr add 10.77.1.1/24 dev vmbr0",
    ]);
    for (output, why) in [
        (
            "eno3",
            "eno3 carries this node's address 10.77.0.1: a mirror into it would cut the node off: use another port",
        ),
        (
            "eno4",
            "eno4 may be the only way out of vmbr0, over which this node has the address 10.77.1.1: a mirror into it would cut the node off: \
             use another port",
        ),
        (
            "vmbr0",
            "vmbr0 is a bridge, and frames can only go out of a port: as a source it is written bridge:vmbr0",
        ),
    ] {
        let said = refused(
            &node,
            &format!("[a]\nsource = 101\noutput = port:{output}\n"),
        );
        assert_eq!(
            said,
            format!("pve-span: warning: a: nothing is mirrored to port:{output}: {why}\n")
        );
    }
}

#[test]
fn the_other_end_of_the_output_is_no_source() {
    let node = linux_three_guests();
    node.linux_bridge("vmbr1");
    node.ip(&[
        "link add join0 type veth peer name join1",
        "link set join0 up",
        "link set join1 master vmbr1 up",
    ]);
    for source in ["port:join1", "bridge:vmbr1"] {
        let said = refused(
            &node,
            &format!("[a]\nsource = {source}\noutput = port:join0\n"),
        );
        let why = "join1 is not mirrored to port:join0: it is the other end of join0, where all that is copied would come in again";
        assert!(
            said.starts_with(&format!("pve-span: warning: a: {why}\n")),
            "{said}"
        );
    }
}
