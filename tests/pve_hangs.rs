//! Commands while the cluster filesystem takes requests and never answers.

#![allow(clippy::unwrap_used)]

mod fuse;
mod lab;
mod scene;

use lab::Node;
use nix::sched::{CloneFlags, unshare};
use scene::linux::{ct_on, mixed_guests, sensor_on, vm_on};
use scene::{apply, mirrors, run, settings};

const DMZ: &str = "[dmz]\nsource = 101, 103\noutput = 200/net1\n";

/// Runs `work` while every read in /etc/pve hangs.
fn while_it_hangs<R: Send>(node: &Node, work: impl FnOnce() -> R + Send) -> R {
    let hang = || {
        // The mount goes with the thread that has made it.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let _hung = fuse::mount_hung(&node.path("etc/pve"));
        work()
    };
    std::thread::scope(|scope| scope.spawn(hang).join().unwrap())
}

/// 101 beside the sensor on Open vSwitch, 103 on a Linux bridge: both engines.
fn node() -> Node {
    let nic = "bridge=vmbr2";
    mixed_guests(&[
        vm_on(101, nic),
        ct_on(103, "bridge=vmbr0"),
        sensor_on(200, nic),
    ])
}

#[test]
fn all_mirrors_can_be_cleared() {
    let node = node();
    let before = settings(&node, "tap200i1");
    apply(&node, DMZ);
    let (code, out, err) = while_it_hangs(&node, || run(&node, &["clear", "--all"]));
    assert_eq!(
        err,
        "pve-span: warning: /etc/pve/ does not answer: does pmxcfs hang? (systemctl status pve-cluster); \
         nobody can tell whether span.cfg brings them back\n"
    );
    assert_eq!((code, out.lines().count()), (0, 2), "{out}");
    assert_eq!(mirrors(&node), [""; 0]);
    assert!(!node.nft_list().contains("pve-span"), "{}", node.nft_list());
    assert_eq!(settings(&node, "tap200i1"), before);
}

#[test]
fn other_commands_say_so_and_change_nothing() {
    let node = node();
    apply(&node, DMZ);
    let before = (mirrors(&node), node.nft_list());
    let calls: [(&[&str], i32); 5] = [
        (&["check"], 2),
        (&["plan"], 1),
        (&["clear", "dmz"], 1),
        (&["status"], 2),
        (&["init"], 1),
    ];
    while_it_hangs(&node, || {
        for (call, expected) in calls {
            let (code, out, err) = run(&node, call);
            assert_eq!(
                (code, out.as_str(), err.as_str()),
                (
                    expected,
                    "",
                    "pve-span: error: /etc/pve/ does not answer: does pmxcfs hang? (systemctl status pve-cluster)\n"
                ),
                "{call:?}"
            );
        }
    });
    assert_eq!((mirrors(&node), node.nft_list()), before);
}
