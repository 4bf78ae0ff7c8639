//! The sensor's side under the service: it restarts, moves, and somebody changes its port by hand.

mod lab;
mod scene;

use std::time::Instant;

use lab::{Frame, Mac, Node, run, try_run, wait_until};
use scene::linux::{mixed_guests, sensor_on, vm_on};
use scene::settings;
use scene::watched::{
    DMZ, LINUX, MIXED, OVS, Place, assert_mirrored, assert_mirrored_at, assert_no_faults, followed,
    let_go, ours, quiet, watched,
};

fn said(node: &Node, line: &str) {
    let mut words = line.split(' ');
    let mut command = node.command(words.next().unwrap_or_default());
    command.args(words);
    run(command, "");
}

#[test]
fn a_sensor_that_restarts_is_fed_again() {
    for place in Place::all() {
        let node = place.three_guests();
        let _watch = watched(&node, DMZ);
        for round in ["restart", "another restart"] {
            node.stop_guest(200);
            let_go(&node, "tap200i1");
            quiet(&node);
            assert!(!node.path("run/pve-span/outputs.json").exists());
            node.start_guest(200);
            followed(&node, round, "101/net0", "102/net0", Instant::now());
        }
        // So quickly that the name is hardly ever gone: it is the interface's index that is another one.
        for round in ["crash", "another crash"] {
            node.crash_guest(200);
            node.start_guest(200);
            followed(&node, round, "101/net0", "102/net0", Instant::now());
        }
    }
}

#[test]
fn a_sensor_whose_nic_is_pulled_and_plugged_is_fed_again() {
    for place in Place::all() {
        let node = place.three_guests();
        let _watch = watched(&node, DMZ);
        for round in ["replug", "another replug"] {
            node.unplug("200/net1");
            node.plug("200/net1");
            followed(&node, round, "101/net0", "102/net0", Instant::now());
        }
    }
}

#[test]
fn a_sensor_that_moves_to_another_bridge_is_fed_there() {
    for sources in ["bridge=vmbr2", "bridge=vmbr0"] {
        let node = mixed_guests(&[
            vm_on(101, sources),
            vm_on(102, sources),
            sensor_on(200, "bridge=vmbr2"),
        ]);
        let watch = watched(&node, DMZ);
        assert_mirrored(&node, "before", "101/net0", "102/net0");
        for nic in [
            "bridge=vmbr0",
            "bridge=vmbr2,firewall=1",
            "bridge=vmbr0,firewall=1",
            "bridge=vmbr2",
        ] {
            node.add(&sensor_on(200, nic));
            node.replug("200/net1");
            followed(&node, nic, "101/net0", "102/net0", Instant::now());
        }
        assert_no_faults(&watch);
    }
}

#[test]
fn what_somebody_changes_at_the_sensors_port_is_put_right() {
    for place in Place::all() {
        let node = place.three_guests();
        let before = settings(&node, "tap200i1");
        let watch = watched(&node, DMZ);
        let during = settings(&node, "tap200i1");
        assert_ne!(during, before);
        let offloads = [
            "tx on",
            "tx on sg on",
            "tx on sg on tso on",
            "tx on sg on gso on",
        ];
        let changes = offloads.map(|what| format!("ethtool -K tap200i1 {what}"));
        let mut changes = changes.to_vec();
        if place.sensor == "vmbr0" {
            for flag in ["flood on", "mcast_flood on", "bcast_flood on", "state 3"] {
                changes.push(format!("bridge link set dev tap200i1 {flag}"));
            }
        }
        for change in &changes {
            let before = watch.stderr();
            // ethtool complains where it finds undone already what it has done.
            let mut command = node.command("sh");
            command.args(["-c", change]);
            try_run(command, "");
            wait_until(&format!("{change} is noticed"), || watch.stderr() != before);
            wait_until(&format!("{change} is undone"), || {
                settings(&node, "tap200i1") == during
            });
        }
        quiet(&node);
        assert_mirrored(&node, "after", "101/net0", "102/net0");
        assert!(watch.times("error: ") == 0, "{}", watch.stderr());
        // And it does not take what it has put right for how the port was.
        node.span_cfg("# nothing\n");
        wait_until("everything is as before", || {
            settings(&node, "tap200i1") == before
        });
        assert_eq!(ours(&node), "");
    }
}

#[test]
fn what_somebody_changes_elsewhere_is_none_of_our_business() {
    for place in [LINUX, MIXED] {
        let node = place.guests(&[
            place.vm(101, ""),
            place.vm(102, ""),
            place.sensor(200, ""),
            place.sensor(201, ""),
        ]);
        let watch = watched(&node, DMZ);
        said(&node, "ethtool -K tap201i1 tso off");
        said(&node, "bridge link set dev tap201i1 flood off");
        said(&node, "ip link set tap102i0 mtu 1400");
        let changed = settings(&node, "tap201i1");
        said(&node, "ethtool -K tap200i1 tso on");
        wait_until("ours is put right", || {
            settings(&node, "tap200i1").contains("tcp-segmentation-offload: off")
        });
        quiet(&node);
        assert_eq!(settings(&node, "tap201i1"), changed);
        assert_no_faults(&watch);
    }
}

#[test]
fn a_sensor_gets_nothing_but_copies_whatever_was_done_to_its_port() {
    let place = LINUX;
    let node = place.three_guests();
    let _watch = watched(&node, DMZ);
    let during = settings(&node, "tap200i1");
    said(&node, "bridge link set dev tap200i1 flood on state 3");
    wait_until("it is undone", || settings(&node, "tap200i1") == during);
    let mut sensor = node.capture("200/net1");
    let nobody = Mac([2, 0, 0, 0, 0, 0x77]);
    let stray = Frame::new(node.mac("102/net0"), nobody).carrying("stray");
    node.send("102/net0", &stray);
    node.exchange("102/net0", "101/net0", "behind-it");
    sensor.wait_for(|frame| frame.contains("behind-it"));
    // It was delivered to 101 too, which nobody knew not to be meant; that copy arrives.
    assert!(sensor.count("stray") <= 1);
}

#[test]
fn two_sensors_are_fed_while_one_of_them_comes_and_goes() {
    for place in [OVS, LINUX] {
        let node = place.guests(&[
            place.vm(101, ""),
            place.vm(102, ""),
            place.sensor(200, ""),
            place.sensor(201, ""),
        ]);
        let both = "[dmz]\nsource = 101\noutput = 200/net1, 201/net1\n";
        let _watch = watched(&node, both);
        for round in ["one", "two", "three"] {
            node.stop_guest(201);
            quiet(&node);
            assert_mirrored(&node, round, "101/net0", "102/net0");
            node.start_guest(201);
            let since = Instant::now();
            let after = node.arrives("101/net0", "102/net0", "201/net1", since);
            scene::watched::say_after("a second sensor", after);
            quiet(&node);
            assert_mirrored_at(&node, "201/net1", round, "101/net0", "102/net0");
            assert_mirrored(&node, round, "101/net0", "102/net0");
        }
    }
}
