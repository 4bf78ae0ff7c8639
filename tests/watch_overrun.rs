//! More is announced than the service has room for.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use lab::wait_until;
use nix::sys::signal::Signal;
use scene::watched::{LINUX, assert_mirrored, assert_no_faults, quiet, watched};

/// Messages of devices, each of which takes a page or more of the socket's four MiB.
const CHANGES: usize = 4000;

#[test]
fn what_happened_while_announcements_were_lost_is_found_out() {
    let node = LINUX.three_guests();
    let watch = watched(&node, "[dmz]\nsource = 101, 102\noutput = 200/net1\n");
    quiet(&node);
    watch.signal(Signal::SIGSTOP);
    node.ip(&["link add noise type veth peer name noise2"]);
    let change = |number: usize| format!("link set noise mtu {}", 1000 + number % 2);
    node.ip(&(0..CHANGES).map(change).collect::<Vec<_>>());
    // Nobody hears of these any more.
    node.stop_guest(101);
    node.start_guest(101);
    let lost = || {
        let sockets = std::fs::read_to_string(format!("/proc/{}/net/netlink", watch.pid()));
        let text = sockets.unwrap();
        // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
        let drops = text.lines().skip(1).filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            (fields.get(1) == Some(&"0")).then(|| fields.get(8)?.parse::<u64>().ok())?
        });
        drops.sum::<u64>()
    };
    assert!(lost() > 0, "nothing was lost, so nothing is tested");
    watch.signal(Signal::SIGCONT);
    wait_until("101 is mirrored again", || {
        node.pve_span(&["plan"]).status.success()
    });
    assert_mirrored(&node, "overrun", "101/net0", "102/net0");
    assert_no_faults(&watch);
}
