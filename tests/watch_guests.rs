//! Guests that start, crash, refuse to stop and come in crowds under the service; with hooks and without.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::thread;
use std::time::{Duration, Instant};

use lab::{Guest, wait_until};
use scene::hook;
use scene::linux::{ct_on, mixed_guests, sensor_on, vm_on};
use scene::watched::{
    DMZ, LINUX, MIXED, OVS, Place, assert_mirrored, assert_no_faults, events, followed, let_go,
    mentions, ours, quiet, watched,
};

#[test]
fn a_crash_is_noticed_and_the_guest_is_mirrored_when_it_runs_again() {
    for place in Place::all() {
        let node = place.three_guests();
        let watch = watched(&node, "[dmz]\nsource = 101, 102\noutput = 200/net1\n");
        for round in ["crash", "second crash"] {
            node.crash_guest(101);
            let_go(&node, "tap101i0");
            quiet(&node);
            node.start_guest(101);
            followed(&node, round, "101/net0", "102/net0", Instant::now());
        }
        assert_no_faults(&watch);
    }
}

#[test]
fn a_crash_behind_a_firewall_bridge_is_noticed() {
    for place in Place::all() {
        let node = place.guests(&[
            place.vm(101, ",firewall=1"),
            place.vm(102, ""),
            place.sensor(200, ""),
        ]);
        let _watch = watched(&node, DMZ);
        // The firewall bridge and its port stay, as Proxmox VE's cleanup takes them away only later.
        node.crash_guest(101);
        quiet(&node);
        node.start_guest(101);
        followed(&node, "crash", "101/net0", "102/net0", Instant::now());
    }
}

#[test]
fn a_refused_shutdown_ends_with_the_mirror_back() {
    // It takes five seconds at least, so all at once.
    thread::scope(|scope| {
        for place in [OVS, LINUX, MIXED] {
            scope.spawn(move || {
                let node = place.three_guests();
                let watch = watched(&node, DMZ);
                let since = Instant::now();
                hook(&node, 101, "pre-stop");
                assert!(!mentions(&ours(&node), "tap101i0"), "{}", ours(&node));
                followed(&node, "refused shutdown", "101/net0", "102/net0", since);
                assert_no_faults(&watch);
            });
        }
    });
}

#[test]
fn pressing_shutdown_again_and_again_does_not_keep_a_guest_out_of_its_mirror() {
    for place in [OVS, LINUX] {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        let is_mirrored = || mentions(&ours(&node), "tap101i0");
        let since = Instant::now();
        hook(&node, 101, "pre-stop");
        assert!(!is_mirrored(), "{}", ours(&node));
        followed(&node, "the first", "101/net0", "102/net0", since);
        quiet(&node);
        // It has had its pause: of what it says during the next ones, each frame arrives.
        node.introduce("101/net0", "102/net0");
        let sensor = node.counter("200/net1", "pressed");
        let load = node.load("101/net0", "102/net0", "pressed", 400);
        for _ in 0..3 {
            load.wait_for(100);
            hook(&node, 101, "pre-stop");
            load.wait_for(100);
            assert!(is_mirrored(), "{}", ours(&node));
        }
        let (sent, _) = load.finish();
        wait_until("all copies", || sensor.received() >= sent);
        let tally = sensor.finish();
        assert_eq!((tally.lost(0..sent), tally.doubled()), (vec![], vec![]));
        // One that has stopped may be announced again; and so may one that runs anew, though no hook has said so.
        node.stop_guest(101);
        hook(&node, 101, "post-stop");
        node.start_guest(101);
        hook(&node, 101, "post-start");
        assert!(is_mirrored(), "{}", ours(&node));
        hook(&node, 101, "pre-stop");
        assert!(!is_mirrored(), "{}", ours(&node));
        node.crash_guest(101);
        node.start_guest(101);
        wait_until("it is mirrored", is_mirrored);
        hook(&node, 101, "pre-stop");
        assert!(!is_mirrored(), "{}", ours(&node));
        assert_no_faults(&watch);
    }
}

#[test]
fn a_guest_that_is_stopping_is_not_put_back_by_what_others_do() {
    for place in [OVS, LINUX] {
        let node = place.three_guests();
        node.add(&place.vm(103, ""));
        let watch = watched(&node, "[dmz]\nsource = 101, 103\noutput = 200/net1\n");
        let before = events(&node).len();
        let since = Instant::now();
        hook(&node, 101, "pre-stop");
        node.start_guest(103);
        followed(&node, "another", "103/net0", "102/net0", Instant::now());
        node.stop_guest(101);
        hook(&node, 101, "post-stop");
        // For so long a stopping guest counts as gone; on a machine that is slower than this there is nothing to see.
        if since.elapsed() < Duration::from_secs(5) {
            let told = events(&node);
            let back = told[before..]
                .iter()
                .find(|event| event.contains(": mirrors") && mentions(event, "101"));
            assert_eq!(back, None, "{told:#?}");
        }
        quiet(&node);
        assert!(!mentions(&ours(&node), "tap101i0"), "{}", ours(&node));
        assert_no_faults(&watch);
    }
}

#[test]
fn a_guest_that_starts_again_right_after_its_stop_is_mirrored_at_once() {
    for place in Place::all() {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        for (number, with_hooks) in [true, false, true].into_iter().enumerate() {
            if with_hooks {
                hook(&node, 101, "pre-stop");
            }
            node.stop_guest(101);
            if with_hooks {
                hook(&node, 101, "post-stop");
                hook(&node, 101, "pre-start");
            }
            node.start_guest(101);
            let since = Instant::now();
            if with_hooks {
                hook(&node, 101, "post-start");
            }
            followed(
                &node,
                &format!("reboot-{number}"),
                "101/net0",
                "102/net0",
                since,
            );
        }
        assert_no_faults(&watch);
    }
}

#[test]
fn a_container_is_mirrored_as_a_virtual_machine_is() {
    for place in Place::all() {
        let node = place.guests(&[place.vm(102, ""), place.sensor(200, "")]);
        let watch = watched(&node, "[dmz]\nsource = 300\noutput = 200/net1\n");
        node.add(&ct_on(300, &format!("bridge={}", place.sources)));
        node.start_guest(300);
        followed(&node, "container", "300/net0", "102/net0", Instant::now());
        node.stop_guest(300);
        let_go(&node, "veth300i0");
        assert_no_faults(&watch);
    }
}

#[test]
fn twenty_guests_that_start_at_once_are_all_mirrored_and_all_let_go() {
    for place in Place::all() {
        let guests: Vec<Guest> = (301..=320).map(|vmid| place.vm(vmid, "")).collect();
        let node = place.guests(&[place.vm(102, ""), place.sensor(200, "")]);
        let watch = watched(&node, "[many]\nsource = 301-320\noutput = 200/net1\n");
        node.add_all(&guests);
        node.start_guests(301..=320);
        let since = Instant::now();
        for vmid in [301, 310, 320] {
            let nic = format!("{vmid}/net0");
            followed(&node, "one of twenty", &nic, "102/net0", since);
        }
        let all = ours(&node);
        for vmid in 301..=320 {
            assert!(mentions(&all, &format!("tap{vmid}i0")), "{vmid}: {all}");
        }
        node.stop_guests(301..=320);
        for vmid in 301..=320 {
            let_go(&node, &format!("tap{vmid}i0"));
        }
        quiet(&node);
        assert_no_faults(&watch);
    }
}

#[test]
fn guests_on_both_kinds_of_bridges_start_at_once_in_threads_with_their_hooks() {
    let node = mixed_guests(&[
        vm_on(102, "bridge=vmbr2"),
        vm_on(103, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr2"),
    ]);
    let watch = watched(&node, "[many]\nsource = 301-308\noutput = 200/net1\n");
    let bridge = |vmid: u32| if vmid % 2 == 0 { "vmbr2" } else { "vmbr0" };
    thread::scope(|scope| {
        for vmid in 301..=308 {
            let node = &node;
            scope.spawn(move || {
                node.add(&vm_on(vmid, &format!("bridge={}", bridge(vmid))));
                hook(node, vmid, "pre-start");
                node.start_guest(vmid);
                hook(node, vmid, "post-start");
            });
        }
    });
    for vmid in 301..=308 {
        let to = if vmid % 2 == 0 {
            "102/net0"
        } else {
            "103/net0"
        };
        followed(
            &node,
            "one of eight",
            &format!("{vmid}/net0"),
            to,
            Instant::now(),
        );
    }
    assert_no_faults(&watch);
}

#[test]
fn a_guest_that_is_destroyed_leaves_nothing() {
    for place in Place::all() {
        let node = place.three_guests();
        let watch = watched(&node, "[dmz]\nsource = all\noutput = 200/net1\n");
        assert_mirrored(&node, "before", "101/net0", "102/net0");
        node.stop_guest(101);
        node.destroy(101);
        let_go(&node, "tap101i0");
        quiet(&node);
        wait_until("the record of it", || {
            events(&node).iter().any(|event| mentions(event, "101"))
        });
        assert_no_faults(&watch);
    }
}
