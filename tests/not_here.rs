//! What is on another node, or plugged into nothing as its config asks, is not here: that is no fault.

#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;
mod scene;

use lab::Node;
use scene::linux::{ct_on, linux_guests, sensor_on, vm_on};
use scene::{apply, counts, guests, hook, run, sensor, vm};
use serde_json::Value;

const TWO_SENSORS: &str = "[dmz]\nsource = 101\noutput = 200/net1, 201/net1\n";

/// 101 and the sensor 200 run here, the sensor 201 on pve2.
fn node() -> Node {
    let node = guests(&[vm(101, ""), sensor(200), sensor(201)]);
    node.file_under("pve2", 201);
    node.stop_guest(201);
    node
}

/// What `status --json` says of a session.
fn status(node: &Node, session: &str) -> (i32, Value) {
    let (code, out, err) = run(node, &["status", "--json"]);
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    let sessions = told["sessions"].as_array().unwrap();
    let found = sessions.iter().find(|told| told["name"] == session);
    (code, found.unwrap().clone())
}

#[test]
fn a_sensor_on_each_node_is_healthy_on_each() {
    let node = node();
    node.span_cfg(TWO_SENSORS);
    let (code, out, err) = run(&node, &["plan"]);
    assert_eq!(code, 2, "{err}");
    assert!(out.contains("dmz → 201/net1: on node pve2\n"), "{out}");
    apply(&node, TWO_SENSORS);
    let (code, dmz) = status(&node, "dmz");
    assert_eq!((code, dmz["state"].as_str()), (0, Some("active")));
    assert_eq!(dmz["reasons"].as_array().unwrap().len(), 0, "{dmz}");
    assert_eq!(dmz["outputs"][1]["elsewhere"], "pve2");
    assert_eq!(dmz["outputs"][1]["fault"], Value::Null);
    let (_, out, _) = run(&node, &["status"]);
    assert!(out.contains("201/net1  on node pve2 "), "{out}");
    // A hook looks no farther than it must, and yet knows the same.
    assert_eq!(hook(&node, 101, "post-start").1, "");
    let (code, out, _) = run(&node, &["explain", "101", "201"]);
    assert_eq!(code, 0);
    let why = "its guest is on node pve2, and gets what that node mirrors";
    assert!(
        out.contains(&format!("nothing of it gets to 201/net1: {why}\n")),
        "{out}"
    );
    assert!(
        out.contains(&format!(
            "nothing arrives at 201/net1 from session dmz: {why}\n"
        )),
        "{out}"
    );
    let (_, out, _) = run(&node, &["doctor"]);
    assert!(!out.contains("201") && !out.contains("degraded"), "{out}");
}

#[test]
fn where_all_sensors_are_elsewhere_sources_here_are_not_mirrored_and_that_is_told() {
    let node = node();
    node.file_under("pve2", 200);
    node.stop_guest(200);
    node.span_cfg(TWO_SENSORS);
    let why = "its sources on this node are not mirrored: 200/net1 is on node pve2, 201/net1 is on node pve2, \
               and copies do not cross between nodes in this version";
    assert_eq!(
        hook(&node, 101, "post-start").1,
        format!("pve-span: warning: dmz: {why}\n")
    );
    let (code, dmz) = status(&node, "dmz");
    assert_eq!((code, dmz["state"].as_str()), (1, Some("degraded")));
    assert_eq!(dmz["reasons"], serde_json::json!([why]));
    // Without a source here, there is nothing that this node should do.
    node.stop_guest(101);
    let (code, dmz) = status(&node, "dmz");
    assert_eq!((code, dmz["state"].as_str()), (0, Some("idle")));
    assert_eq!(hook(&node, 101, "post-stop").1, "");
}

#[test]
fn where_a_guest_is_that_nobody_can_tell_is_not_made_up() {
    let node = node();
    apply(&node, TWO_SENSORS);
    node.pve_file(".vmlist", "{");
    let (code, dmz) = status(&node, "dmz");
    assert_eq!((code, dmz["state"].as_str()), (1, Some("degraded")));
    assert_eq!(dmz["outputs"][1]["fault"]["is"], "unknown");
    let why = dmz["outputs"][1]["fault"]["why"].as_str().unwrap();
    assert!(
        why.starts_with(
            "guest 201 is not running on this node, and which node it is on cannot be told: "
        ),
        "{why}"
    );
    let mut at_sensor = node.capture("200/net1");
    node.exchange("101/net0", "200/net1", "goes-on");
    assert_eq!(counts(&mut at_sensor, &["goes-on"]), [1]);
}

/// Container 300 with its cable out and container 301 without a bridge, as Proxmox VE leaves their devices.
fn cables_out() -> Node {
    let node = linux_guests(&[
        vm_on(101, "bridge=vmbr0"),
        ct_on(300, "bridge=vmbr0"),
        ct_on(301, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr0"),
    ]);
    node.edit(300, |guest| {
        guest.net(
            0,
            "name=eth0,hwaddr=BC:24:11:2C:01:2C,bridge=vmbr0,link_down=1,type=veth",
        )
    });
    node.edit(301, |guest| {
        guest.net(0, "name=eth0,hwaddr=BC:24:11:2C:01:2D,type=veth")
    });
    node.ip(&["link set veth300i0 nomaster", "link set veth301i0 nomaster"]);
    node
}

#[test]
fn a_nic_that_shall_be_in_no_bridge_is_not_here() {
    let node = cables_out();
    let text = "[dmz]\nsource = all\noutput = 200/net1\n";
    apply(&node, text);
    let (code, dmz) = status(&node, "dmz");
    assert_eq!((code, dmz["state"].as_str()), (0, Some("active")), "{dmz}");
    assert_eq!(dmz["sources"]["present"].as_array().unwrap().len(), 1);
    assert_eq!(dmz["sources"]["total"], 2, "300 would be one");
    for guest in [300, 301] {
        assert_eq!(hook(&node, guest, "post-start").1, "");
    }
    let (_, out, _) = run(&node, &["explain", "300"]);
    let why = "its config has `link_down=1`, so Proxmox VE leaves veth300i0 out of its bridge";
    assert!(
        out.contains(&format!(
            "dmz: would take it by `all` (span.cfg:2), but {why}\n"
        )),
        "{out}"
    );
    // What is out of its bridge for no such reason is a fault, as before.
    node.ip(&["link set tap101i0 nomaster"]);
    let (code, dmz) = status(&node, "dmz");
    assert_eq!((code, dmz["state"].as_str()), (1, Some("degraded")));
}

#[test]
fn a_sensor_with_its_cable_out_is_told_as_that() {
    let node = cables_out();
    node.span_cfg("[dmz]\nsource = 101\noutput = 300/net0\n");
    let (code, dmz) = status(&node, "dmz");
    assert_eq!((code, dmz["state"].as_str()), (1, Some("degraded")));
    assert_eq!(
        dmz["reasons"],
        serde_json::json!([
            "nothing is mirrored to 300/net0: its config has `link_down=1`, so Proxmox VE leaves veth300i0 out of its bridge"
        ])
    );
}
