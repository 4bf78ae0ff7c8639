//! Open vSwitch under the service: its daemons die and come back, and its rows are changed by hand.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::time::Instant;

use lab::{Node, wait_until};
use scene::watched::{
    DMZ, MIXED, OVS, assert_no_faults, followed, let_go, mentions, ours, quiet, watched,
};
use scene::{hook, mirrors, their_mirror};

const MIRRORED: &str = "dmz tap200i1: from tap101i0, to tap101i0";

fn row(node: &Node) -> String {
    let row = node.ovs_vsctl(&["--bare", "--columns=_uuid", "list", "Mirror"]);
    row.trim().to_owned()
}

/// The arguments of ovs-vsctl that change the row of a mirror.
type Change<'a> = &'a dyn Fn(&str) -> Vec<String>;

#[test]
fn a_killed_ovsdb_server_is_found_again() {
    for place in [OVS, MIXED] {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        for (number, end) in [Node::kill_ovsdb, Node::stop_ovsdb].into_iter().enumerate() {
            end(&node);
            // (The userspace datapath switches nothing meanwhile, the kernel's would.)
            watch.hup();
            node.start_ovsdb();
            quiet(&node);
            node.unplug("101/net0");
            node.plug("101/net0");
            let what = format!("ovsdb-server is back {number}");
            followed(&node, &what, "101/net0", "102/net0", Instant::now());
        }
    }
}

#[test]
fn what_was_asked_for_while_ovsdb_server_was_away_is_done_when_it_is_back() {
    for place in [OVS, MIXED] {
        let node = place.three_guests();
        let watch = watched(&node, "# nothing\n");
        node.kill_ovsdb();
        node.span_cfg(DMZ);
        watch.wait_until_it_says("Open vSwitch");
        node.start_ovsdb();
        followed(
            &node,
            "asked for before",
            "101/net0",
            "102/net0",
            Instant::now(),
        );
    }
}

#[test]
fn a_hung_ovsdb_server_holds_nothing_but_itself() {
    for place in [OVS, MIXED] {
        let node = place.three_guests();
        let _watch = watched(&node, DMZ);
        node.pause_ovsdb();
        node.span_cfg("[dmz]\nsource = 101, 102\noutput = 200/net1\n");
        node.crash_guest(101);
        node.resume_ovsdb();
        node.start_guest(101);
        followed(&node, "resumed", "101/net0", "102/net0", Instant::now());
        assert!(mentions(&ours(&node), "tap102i0"));
    }
}

#[test]
fn a_killed_vswitchd_mirrors_again_when_it_is_back() {
    for place in [OVS, MIXED] {
        for more in ["", ",firewall=1"] {
            let node = place.guests(&[
                place.vm(101, more),
                place.vm(102, ""),
                place.sensor(200, ""),
            ]);
            let _watch = watched(&node, DMZ);
            for number in 0..2 {
                node.kill_vswitchd();
                node.start_vswitchd();
                let what = format!("ovs-vswitchd is back {number}");
                followed(&node, &what, "101/net0", "102/net0", Instant::now());
            }
        }
    }
}

#[test]
fn guests_that_came_and_went_while_vswitchd_was_away_are_followed() {
    let node = OVS.guests(&[OVS.vm(101, ""), OVS.vm(102, ""), OVS.sensor(200, "")]);
    let _watch = watched(&node, "[dmz]\nsource = 101, 103\noutput = 200/net1\n");
    node.kill_vswitchd();
    node.add(&OVS.vm(103, ""));
    node.start_guest(103);
    node.stop_guest(101);
    node.start_vswitchd();
    followed(
        &node,
        "came meanwhile",
        "103/net0",
        "102/net0",
        Instant::now(),
    );
    let_go(&node, "tap101i0");
}

#[test]
fn both_daemons_restart_as_in_an_upgrade() {
    for place in [OVS, MIXED] {
        let node = place.three_guests();
        let _watch = watched(&node, DMZ);
        node.kill_vswitchd();
        node.stop_ovsdb();
        node.start_ovsdb();
        node.start_vswitchd();
        followed(&node, "upgrade", "101/net0", "102/net0", Instant::now());
    }
}

#[test]
fn our_row_that_somebody_removes_or_changes_is_put_back() {
    let node = OVS.three_guests();
    let watch = watched(&node, DMZ);
    assert_eq!(mirrors(&node), [MIRRORED]);
    let changes: [Change<'_>; 6] = [
        &|_| {
            ["clear", "Bridge", "vmbr2", "mirrors"]
                .map(str::to_owned)
                .to_vec()
        },
        &|row| {
            ["remove", "Bridge", "vmbr2", "mirrors", row]
                .map(str::to_owned)
                .to_vec()
        },
        &|row| {
            ["clear", "Mirror", row, "select_src_port"]
                .map(str::to_owned)
                .to_vec()
        },
        &|row| {
            ["clear", "Mirror", row, "output_port"]
                .map(str::to_owned)
                .to_vec()
        },
        &|row| {
            ["set", "Mirror", row, "select_all=true"]
                .map(str::to_owned)
                .to_vec()
        },
        &|row| {
            ["set", "Mirror", row, "snaplen=64"]
                .map(str::to_owned)
                .to_vec()
        },
    ];
    for (number, change) in changes.iter().enumerate() {
        let args = change(&row(&node));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        node.ovs_vsctl(&args);
        followed(
            &node,
            &format!("row-{number}"),
            "101/net0",
            "102/net0",
            Instant::now(),
        );
        assert_eq!(mirrors(&node), [MIRRORED], "{args:?}");
    }
    assert_no_faults(&watch);
}

#[test]
fn somebody_elses_mirror_comes_goes_and_stays_as_it_is() {
    let node = OVS.three_guests();
    let watch = watched(&node, DMZ);
    let theirs = ["name=theirs", "select_src_port=@tap102i0", "output_vlan=77"];
    their_mirror(&node, &theirs);
    let only_theirs = || {
        let raw: serde_json::Value =
            serde_json::from_str(node.mirrors_raw().lines().next().unwrap()).unwrap();
        let rows = raw["data"].as_array().unwrap().iter();
        let rows: Vec<String> = rows.map(ToString::to_string).collect();
        rows.into_iter()
            .filter(|row| row.contains("theirs"))
            .collect::<Vec<_>>()
    };
    let before = only_theirs();
    assert_eq!(before.len(), 1);
    for round in ["one", "two"] {
        node.stop_guest(101);
        let_go(&node, "tap101i0");
        node.start_guest(101);
        followed(&node, round, "101/net0", "102/net0", Instant::now());
        assert_eq!(only_theirs(), before);
    }
    // Made as guides make theirs: it takes everybody else's away.
    node.ovs_vsctl(&[
        "--",
        "--id=@m",
        "create",
        "mirror",
        "name=theirs2",
        "--",
        "set",
        "Bridge",
        "vmbr2",
        "mirrors=@m",
    ]);
    followed(
        &node,
        "after a guide",
        "101/net0",
        "102/net0",
        Instant::now(),
    );
    assert_eq!(
        only_theirs().len(),
        1,
        "the second one, the first is gone with ours"
    );
    assert_no_faults(&watch);
}

#[test]
fn a_bridge_that_is_deleted_and_made_anew_is_mirrored_again() {
    for place in [OVS, MIXED] {
        let node = place.three_guests();
        let _watch = watched(&node, DMZ);
        node.ovs_vsctl(&["del-br", "vmbr2"]);
        wait_until("nothing is mirrored", || mirrors(&node).is_empty());
        node.ovs_bridge("vmbr2");
        for nic in ["102/net0", "101/net0", "200/net1"] {
            node.replug(nic);
        }
        followed(
            &node,
            "a new bridge",
            "101/net0",
            "102/net0",
            Instant::now(),
        );
    }
}

#[test]
fn open_vswitch_that_is_installed_later_is_found() {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    let guests = [MIXED.sensor(200, "")];
    scene::linux::start(&node, &guests);
    node.span_cfg(DMZ);
    let _watch = node.watch();
    node.install_ovs();
    node.ovs_bridge("vmbr2");
    scene::linux::start(&node, &[MIXED.vm(101, ""), MIXED.vm(102, "")]);
    followed(
        &node,
        "after an installation",
        "101/net0",
        "102/net0",
        Instant::now(),
    );
}

#[test]
fn a_hook_and_the_service_do_not_hinder_each_other() {
    let node = OVS.three_guests();
    let watch = watched(&node, DMZ);
    for round in 0..5 {
        hook(&node, 101, "pre-stop");
        node.stop_guest(101);
        hook(&node, 101, "post-stop");
        assert!(!mentions(&ours(&node), "tap101i0"));
        node.start_guest(101);
        let (_, err) = hook(&node, 101, "post-start");
        assert_eq!(err, "");
        assert_eq!(mirrors(&node), [MIRRORED], "{round}");
    }
    assert_no_faults(&watch);
}
