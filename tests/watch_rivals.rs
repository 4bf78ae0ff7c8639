//! Others who manage mirrors or rules on the same node, and daemons that hang while there is other work.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::time::{Duration, Instant};

use lab::{Node, wait_until};
use pve_span::daemon::state::State;
use scene::linux::{sensor_on, start, vm_on};
use scene::watched::{DMZ, LINUX, OVS, events, followed, mentions, ours, quiet, watched};

#[test]
fn a_program_that_undoes_everything_is_told_of_once_and_does_not_keep_the_node_busy() {
    for place in [OVS, LINUX] {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        let undo = || {
            if place == OVS {
                node.ovs_vsctl(&["clear", "Bridge", "vmbr2", "mirrors"]);
            } else {
                node.nft("delete table netdev pve-span\n");
            }
        };
        let is_told = || watch.faults("somebody undoes what pve-span does") > 0;
        wait_until("it is told of", || {
            if mentions(&ours(&node), "tap101i0") {
                undo();
            }
            is_told()
        });
        let (lines, before) = (watch.stderr().lines().count(), events(&node).len());
        for _ in 0..6 {
            wait_until("it is done again", || mentions(&ours(&node), "tap101i0"));
            undo();
        }
        assert!(events(&node).len() > before);
        let told = watch.stderr();
        let new: Vec<&str> = told.lines().skip(lines).collect();
        // That the session is degraded may be told meanwhile, too.
        assert!(
            new.iter().all(|line| !line.contains("dmz: mirrors")),
            "{new:#?}"
        );
        assert_eq!(watch.faults("somebody undoes what pve-span does"), 1);
        followed(&node, "peace", "101/net0", "102/net0", Instant::now());
        watch.wait_until_it_says("over after");
    }
}

#[test]
fn a_hung_ovsdb_server_does_not_hold_what_nftables_does() {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    node.linux_bridge("vmbr0");
    let guests = [
        vm_on(101, "bridge=vmbr0"),
        vm_on(102, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr0"),
    ];
    start(&node, &guests);
    let _watch = watched(&node, DMZ);
    node.pause_ovsdb();
    node.nft("delete table netdev pve-span\n");
    wait_until("it is put back", || mentions(&node.nft_list(), "tap101i0"));
    node.resume_ovsdb();
    quiet(&node);
}

#[test]
fn sessions_with_one_sensor_are_not_stalled_by_each_other() {
    for place in [OVS, LINUX] {
        let node = place.three_guests();
        node.span_cfg(
            "[a]\nsource = 101\ndirection = from\noutput = 200/net1\n\
             [b]\nsource = 102\ndirection = to\noutput = 200/net1\n",
        );
        let watch = node.watch_with(&["--count-every", "0.5"], |_| {});
        quiet(&node);
        let (sender, frame) = (
            node.sender("101/net0"),
            node.frame("101/net0", "102/net0", "talk"),
        );
        // Open vSwitch's figures are waited for twice five seconds.
        let patience = Duration::from_secs(if place == OVS { 13 } else { 3 });
        let frames = || {
            let state = State::load(node.root()).unwrap_or_default();
            let a = state.sessions.get("a")?;
            a.outputs.get("200/net1")?.frames
        };
        let since = Instant::now();
        wait_until("they have talked for long enough", || {
            sender.send(&frame);
            since.elapsed() > patience && frames() > Some(10)
        });
        assert_eq!(watch.times("stalled"), 0, "{}", watch.stderr());
    }
}
