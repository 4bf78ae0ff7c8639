//! A sensor's port, changed and put back, in the real kernel; bridge(8) and ethtool(8) are the witnesses.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lab;

use std::collections::BTreeSet;

use lab::{Frame, Mac, Node, run, wait_until};
use pve_span::engine::port::{Error, read, set_flags, set_offloads};
use pve_span_core::engine::port::{BridgeFlags, PortSettings, Switch, is_unfinished};
use pve_span_core::model::IfName;

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn said(node: &Node, line: &str) -> String {
    let mut words = line.split(' ');
    let mut command = node.command(words.next().unwrap());
    command.args(words);
    run(command, "")
}

/// All that `bridge` and `ethtool` say of a device.
fn witnesses(node: &Node, device: &str) -> String {
    said(node, &format!("ethtool -k {device}"))
        + &said(node, &format!("bridge -d link show dev {device}"))
}

/// The features that are on, by `ethtool -k`; its summary lines stand for several, and are no names.
fn on(node: &Node, device: &str) -> BTreeSet<String> {
    said(node, &format!("ethtool -k {device}"))
        .lines()
        .filter_map(|line| line.trim().split_once(": "))
        .filter(|(_, state)| state.starts_with("on") && !state.contains("fixed"))
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn make_exclusive(device: &IfName, was: &PortSettings) {
    set_flags(device, was.index, &BridgeFlags::exclusive()).unwrap();
    set_offloads(device, &was.offloads, Switch::Off).unwrap();
}

fn put_back(device: &IfName, was: &PortSettings) {
    set_flags(device, was.index, was.flags.as_ref().unwrap()).unwrap();
    set_offloads(device, &was.offloads, Switch::On).unwrap();
}

/// Changes the device and puts it back, with witnesses.
fn there_and_back(node: &Node, device: &str) {
    let port = name(device);
    let before = witnesses(node, device);
    let was = node.inside(|| read(&port)).unwrap();
    node.inside(|| make_exclusive(&port, &was));
    let left: Vec<String> = on(node, device)
        .into_iter()
        .filter(|name| is_unfinished(name))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    let link = said(node, &format!("bridge -d link show dev {device}"));
    for flag in ["flood", "mcast_flood", "bcast_flood"] {
        assert!(link.contains(&format!(" {flag} off ")), "{flag}: {link}");
    }
    let changed = node.inside(|| read(&port)).unwrap();
    assert_eq!(
        changed,
        PortSettings {
            flags: Some(BridgeFlags::exclusive()),
            offloads: BTreeSet::new(),
            ..was.clone()
        }
    );
    node.inside(|| put_back(&port, &was));
    assert_eq!(witnesses(node, device), before);
    assert_eq!(node.inside(|| read(&port)).unwrap(), was);
}

#[test]
fn a_veth_is_changed_and_put_back_exactly() {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    node.physical("veth200i1", "vmbr0");
    let was = node.inside(|| read(&name("veth200i1"))).unwrap();
    assert_eq!(was.flags, Some(BridgeFlags::default()));
    assert!(was.offloads.contains("tx-checksum-ip-generic"));
    there_and_back(&node, "veth200i1");
}

#[test]
fn a_tap_is_changed_and_put_back_exactly() {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    let _tap = node.tap("tap200i1");
    node.ip(&["link set tap200i1 master vmbr0"]);
    assert!(on(&node, "tap200i1").contains("tx-tcp-segmentation"));
    there_and_back(&node, "tap200i1");
}

#[test]
fn what_an_administrator_had_off_stays_off() {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    node.physical("veth200i1", "vmbr0");
    let _tap = node.tap("tap200i1");
    node.ip(&["link set tap200i1 master vmbr0"]);
    for device in ["veth200i1", "tap200i1"] {
        said(
            &node,
            &format!("bridge link set dev {device} learning off mcast_flood off"),
        );
        said(&node, &format!("ethtool -K {device} tso off"));
        let was = node.inside(|| read(&name(device))).unwrap();
        let flags = BridgeFlags {
            mcast_flood: Switch::Off,
            ..BridgeFlags::default()
        };
        assert_eq!(was.flags, Some(flags));
        assert!(!was.offloads.contains("tx-tcp-segmentation"));
        there_and_back(&node, device);
        said(&node, &format!("ethtool -K {device} tx off sg off"));
        there_and_back(&node, device);
    }
}

#[test]
fn a_tap_that_nobody_has_opened_properly_yet_keeps_what_was_asked_for() {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    // `ethtool -k` says `off [requested on]` of most.
    node.ip(&[
        "tuntap add tap200i1 mode tap",
        "link set tap200i1 master vmbr0 up",
    ]);
    there_and_back(&node, "tap200i1");
}

#[test]
fn a_guest_that_starts_its_driver_anew_gets_its_offloads_again() {
    let node = Node::without_ovs();
    let tap = node.tap("tap200i1");
    let port = name("tap200i1");
    let was = node.inside(|| read(&port)).unwrap();
    node.inside(|| set_offloads(&port, &was.offloads, Switch::Off))
        .unwrap();
    tap.negotiate();
    let now = node.inside(|| read(&port)).unwrap();
    // They have to be looked at again and again; the rest is the host's, and stays off.
    assert!(now.offloads.contains("tx-tcp-segmentation"));
    assert!(!now.offloads.contains("tx-scatter-gather"));
    node.inside(|| set_offloads(&port, &now.offloads, Switch::Off))
        .unwrap();
    assert!(node.inside(|| read(&port)).unwrap().offloads.is_empty());
}

#[test]
fn learned_addresses_are_forgotten_and_nothing_is_flooded() {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    let sensor = node.physical("veth200i1", "vmbr0");
    let other = node.physical("veth101i0", "vmbr0");
    let (at_sensor, at_other) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
    node.send(&sensor, &Frame::new(at_sensor, at_other).carrying("learn"));
    let entry = "02:00:00:00:00:01";
    let fdb = || said(&node, "bridge fdb show dev veth200i1");
    wait_until("the bridge has learned", || fdb().contains(entry));
    let port = name("veth200i1");
    let was = node.inside(|| read(&port)).unwrap();
    node.inside(|| set_flags(&port, was.index, &BridgeFlags::exclusive()))
        .unwrap();
    assert!(!fdb().contains(entry), "{}", fdb());
    let mut seen = node.capture(&sensor);
    node.send(&other, &Frame::new(at_other, at_sensor).carrying("known"));
    node.send(
        &other,
        &Frame::new(at_other, Mac([0xff; 6])).carrying("everybody"),
    );
    node.send(
        &other,
        &Frame::new(at_other, Mac([1, 0, 0x5e, 1, 1, 1])).carrying("many"),
    );
    node.inside(|| set_flags(&port, was.index, &BridgeFlags::default()))
        .unwrap();
    node.send(&other, &Frame::new(at_other, at_sensor).carrying("flooded"));
    seen.wait_for(|frame| frame.contains("flooded"));
    for token in ["known", "everybody", "many"] {
        assert_eq!(seen.count(token), 0, "{token}");
    }
}

#[test]
fn a_port_that_is_plugged_anew_starts_with_the_kernels_flags_and_keeps_its_offloads() {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    node.physical("veth200i1", "vmbr0");
    let port = name("veth200i1");
    let was = node.inside(|| read(&port)).unwrap();
    node.inside(|| make_exclusive(&port, &was));
    node.ip(&["link set veth200i1 nomaster"]);
    assert_eq!(node.inside(|| read(&port)).unwrap().flags, None);
    node.ip(&["link set veth200i1 master vmbr0"]);
    let now = node.inside(|| read(&port)).unwrap();
    assert_eq!(now.flags, Some(BridgeFlags::default()));
    assert_eq!(now.offloads, BTreeSet::new());
    assert_eq!(now.index, was.index);
}

#[test]
fn what_is_not_there_is_said() {
    let node = Node::without_ovs();
    let port = name("tap200i1");
    let all = BTreeSet::from(["tx-tcp-segmentation".to_owned()]);
    let flags = BridgeFlags::exclusive();
    let text = |result: Result<(), Error>| result.unwrap_err().to_string();
    let gone = "tap200i1 has gone";
    node.inside(|| {
        assert!(matches!(read(&port), Err(Error::Gone { .. })));
        assert_eq!(text(set_flags(&port, 4711, &flags)), gone);
        assert_eq!(text(set_offloads(&port, &all, Switch::Off)), gone);
    });
    node.physical_unplugged("tap200i1");
    node.inside(|| {
        let was = read(&port).unwrap();
        assert_eq!(was.flags, None);
        assert_eq!(
            text(set_flags(&port, was.index, &flags)),
            "tap200i1 is no port of a Linux bridge"
        );
        // A name that this kernel does not know, and one that the device cannot switch.
        let strange = BTreeSet::from(["tx-magic".to_owned(), "tx-fcoe-segmentation".to_owned()]);
        set_offloads(&port, &strange, Switch::On).unwrap();
        assert_eq!(read(&port).unwrap(), was);
        let long = name("a-name-that-no-device-has");
        assert!(matches!(read(&long), Err(Error::Gone { .. })));
    });
}
