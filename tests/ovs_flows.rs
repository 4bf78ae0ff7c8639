//! Conversations that exist already follow each change of mirrors, and production traffic does not notice.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::collections::BTreeMap;

use lab::{Node, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scene::conversation::{Conversation, Copied, DMZ, by_the_service, every_way};
use scene::{guests, hook, run, sensor, vm};

/// What is owed, on file.
const OWED: &str = "run/pve-span/flows.json";

/// Such a note, whose process has ended.
const OLD: &str = "{\"vmbr2\": {\"since\": 0, \"by\": 0}}";

const EVERYBODY_ELSE: &str = "what was changed holds for new conversations only: those that pass vmbr2 already go on as \
     before until the next hook or `pve-span apply`";

/// 101, 102 and 103 in VLAN 10, and two sensors.
fn node() -> Node {
    let tagged = |vmid| vm(vmid, ",tag=10");
    guests(&[
        tagged(101).tags("web"),
        tagged(102),
        tagged(103),
        sensor(200),
        sensor(201),
    ])
}

/// The bridges that are owed a revalidation.
fn owed(node: &Node) -> Vec<String> {
    let text = std::fs::read_to_string(node.path(OWED)).unwrap_or_default();
    let owed: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap_or_default();
    owed.into_keys().collect()
}

fn note_stale(node: &Node, text: &str) {
    std::fs::write(node.path(OWED), text).unwrap();
}

fn signal_vswitchd(node: &Node, signal: Signal) {
    let pid = node.ovs_pids().1.unwrap();
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

/// How often ovs-vswitchd has revalidated because of a flow table.
fn revalidations(node: &Node) -> u64 {
    let count = node.ovs_appctl(&["coverage/read-counter", "rev_flow_table"]);
    count.trim().parse().unwrap()
}

#[test]
fn a_conversation_that_exists_follows_each_change() {
    every_way(&node());
}

#[test]
fn a_conversation_that_exists_follows_what_the_service_does() {
    let node = node();
    let _watch = node.watch();
    by_the_service(&node);
}

#[test]
fn a_revalidation_loses_and_floods_nothing_and_needs_no_certain_version_of_openflow() {
    let node = node();
    scene::apply(&node, DMZ);
    // A guest that says nothing: whoever forgets its address floods.
    node.introduce("101/net0", "102/net0");
    let bystander = node.counter("103/net0", "one-way");
    let sensor = node.counter("200/net1", "one-way");
    let load = node.load("101/net0", "102/net0", "one-way", 2000);
    load.wait_for(100);
    let tables = || {
        let mgmt = node.path("run/openvswitch/vmbr2.mgmt");
        let mut command = node.command("ovs-ofctl");
        command.args(["--no-stats", "dump-flows"]);
        lab::run(
            {
                command.arg(format!("unix:{}", mgmt.display()));
                command
            },
            "",
        )
    };
    let before = tables();
    for version in ["", "10", "12", "13", "14", "15"] {
        let protocols = if version.is_empty() {
            "[]".to_owned()
        } else {
            format!("OpenFlow{version}")
        };
        node.ovs_vsctl(&["set", "Bridge", "vmbr2", &format!("protocols={protocols}")]);
        for _ in 0..5 {
            let count = revalidations(&node);
            note_stale(&node, OLD);
            let (code, out, err) = run(&node, &["apply"]);
            assert_eq!(
                (code, out.as_str(), err.as_str()),
                (0, "nothing to do\n", "")
            );
            assert_eq!(owed(&node), [""; 0]);
            assert_eq!(revalidations(&node), count + 1, "{protocols}");
        }
    }
    node.ovs_vsctl(&["set", "Bridge", "vmbr2", "protocols=[]"]);
    assert_eq!(tables(), before);
    // What is not owed is not done.
    let count = revalidations(&node);
    run(&node, &["apply"]);
    assert_eq!(revalidations(&node), count);
    let (sent, tally) = load.finish();
    let (sensor, bystander) = (sensor.finish(), bystander.finish());
    for tally in [&tally, &sensor] {
        assert_eq!(tally.lost(0..sent), [], "{tally:?}");
        assert_eq!(tally.doubled(), [0; 0], "{tally:?}");
    }
    assert_eq!(bystander.received(), 0, "flooded: {bystander:?}");
    // And one that is not spoken is told.
    node.ovs_vsctl(&["set", "Bridge", "vmbr2", "protocols=OpenFlow11"]);
    note_stale(&node, OLD);
    let (code, _, err) = run(&node, &["apply"]);
    assert_eq!(code, 1);
    assert!(
        err.contains(EVERYBODY_ELSE) && err.contains("`protocols`"),
        "{err}"
    );
}

#[test]
fn what_a_hung_vswitchd_has_not_taken_is_followed_when_it_has() {
    let node = node();
    let conversation = Conversation::begin(&node, "200/net1", "103/net0");
    node.span_cfg(DMZ);
    // The userspace datapath forwards in threads of its own, which stop with the process: only what comes after counts.
    signal_vswitchd(&node, Signal::SIGSTOP);
    let (_, err) = hook(&node, 101, "post-start");
    assert!(
        err.contains("ovs-vswitchd has not acted on it yet"),
        "{err}"
    );
    assert_eq!(owed(&node), ["vmbr2"]);
    assert_eq!(run(&node, &["apply"]).0, 1, "it is still so");
    signal_vswitchd(&node, Signal::SIGCONT);
    wait_until("the next hook makes up for it", || {
        hook(&node, 102, "post-start");
        owed(&node).is_empty()
    });
    conversation.becomes("the next hook", Copied::Both);
    let (code, out, _) = run(&node, &["apply"]);
    assert_eq!((code, out.as_str()), (0, "nothing to do\n"));
    // The service needs no hook for it.
    let _watch = node.watch();
    signal_vswitchd(&node, Signal::SIGSTOP);
    node.span_cfg("# nothing\n");
    wait_until("the service has committed", || owed(&node) == ["vmbr2"]);
    signal_vswitchd(&node, Signal::SIGCONT);
    conversation.becomes("the service", Copied::Nothing);
    conversation.end_after_a_stop();
}

#[test]
fn no_hook_waits_for_a_revalidation_and_one_that_does_not_come_is_told() {
    let node = node();
    scene::apply(&node, DMZ);
    note_stale(&node, OLD);
    signal_vswitchd(&node, Signal::SIGSTOP);
    for _ in 0..2 {
        assert_eq!(hook(&node, 102, "post-start"), Default::default());
        assert_eq!(owed(&node), ["vmbr2"]);
        let (code, out, _) = run(&node, &["status"]);
        assert!(
            code == 1 && out.contains("already go on as before"),
            "{out}"
        );
    }
    signal_vswitchd(&node, Signal::SIGCONT);
    wait_until("a hook has made up for it", || {
        hook(&node, 102, "post-start");
        owed(&node).is_empty()
    });
    assert_eq!(run(&node, &["status"]).0, 0);
}

#[test]
fn where_a_bridge_cannot_be_asked_that_is_told_until_it_was_done() {
    let node = node();
    let conversation = Conversation::begin(&node, "200/net1", "103/net0");
    let socket = node.path("run/openvswitch/vmbr2.mgmt");
    let away = socket.with_extension("away");
    std::fs::rename(&socket, &away).unwrap();
    node.span_cfg(DMZ);
    let (code, out, err) = run(&node, &["apply"]);
    assert_eq!(code, 1, "{out}");
    assert!(
        err.contains(EVERYBODY_ELSE) && err.contains("cannot connect to"),
        "{err}"
    );
    assert_eq!(owed(&node), ["vmbr2"]);
    let (code, out, _) = run(&node, &["status"]);
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("degraded") && out.contains("already go on as before"),
        "{out}"
    );
    std::fs::rename(&away, &socket).unwrap();
    assert_eq!(hook(&node, 102, "post-start"), Default::default());
    conversation.becomes("the next hook", Copied::Both);
    wait_until("it is struck off", || owed(&node).is_empty());
    assert_eq!(run(&node, &["status"]).0, 0);
    conversation.end();
}

/// A note of a process that has still time for it.
fn of_process(pid: u32) -> String {
    format!("{{\"vmbr2\": {{\"since\": {}, \"by\": {pid}}}}}", u64::MAX)
}

#[test]
fn what_another_process_is_at_is_left_to_it_unless_somebody_asks_and_what_it_leaves_is_done_at_once()
 {
    let node = node();
    scene::apply(&node, DMZ);
    let count = revalidations(&node);
    note_stale(&node, &of_process(std::process::id()));
    assert_eq!(hook(&node, 102, "post-start"), Default::default());
    assert_eq!((owed(&node).len(), revalidations(&node)), (1, count));
    assert_eq!(run(&node, &["status"]).0, 0);
    assert_eq!(run(&node, &["apply"]).0, 0);
    assert_eq!((owed(&node).len(), revalidations(&node)), (0, count + 1));
    // A hook that is killed between the commit and the revalidation, on a node where nothing else happens.
    let mut dead = std::process::Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let watch = node.watch();
    note_stale(&node, &of_process(dead.id()));
    wait_until("the service does it", || owed(&node).is_empty());
    assert_eq!(revalidations(&node), count + 2);
    // One that is not done is tried again, and told meanwhile.
    let socket = node.path("run/openvswitch/vmbr2.mgmt");
    let away = socket.with_extension("away");
    std::fs::rename(&socket, &away).unwrap();
    note_stale(&node, &of_process(dead.id()));
    watch.wait_until_it_says("already go on as before");
    std::fs::rename(&away, &socket).unwrap();
    wait_until("the service does it then", || owed(&node).is_empty());
}

#[test]
fn without_a_note_a_bridge_with_mirrors_of_ours_is_revalidated_once() {
    let node = node();
    scene::apply(&node, DMZ);
    for note in [None, Some("garbage")] {
        match note {
            None => std::fs::remove_file(node.path(OWED)).unwrap(),
            Some(text) => note_stale(&node, text),
        }
        let count = revalidations(&node);
        for _ in 0..3 {
            hook(&node, 102, "post-start");
            wait_until("it is done", || {
                std::fs::read_to_string(node.path(OWED)).is_ok_and(|text| text == "{}\n")
            });
        }
        assert_eq!(revalidations(&node), count + 1, "{note:?}");
    }
}
