//! nftables under the service: flushed, deleted and meddled with.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::time::Instant;

use lab::wait_until;
use scene::run;
use scene::watched::{
    DMZ, LINUX, MIXED, OVS, assert_mirrored, assert_no_faults, followed, ours, quiet, watched,
};

const THEIRS: &str = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t\ttcp dport 22 accept\n\t}\n}\n\
                      table netdev other {\n\tchain there {\n\t\ttype filter hook ingress device \"tap101i0\" priority filter; policy accept;\n\t}\n}\n";

#[test]
fn a_flushed_ruleset_is_put_back() {
    for place in [LINUX, MIXED] {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        for (number, flush) in [
            "flush ruleset",
            "delete table netdev pve-span",
            "flush table netdev pve-span",
            "flush ruleset netdev",
        ]
        .into_iter()
        .enumerate()
        {
            node.nft(&format!("{flush}\n"));
            followed(
                &node,
                &format!("flush-{number}"),
                "101/net0",
                "102/net0",
                Instant::now(),
            );
        }
        assert_no_faults(&watch);
    }
}

#[test]
fn the_firewalls_restart_takes_ours_along_and_both_are_back() {
    for place in [LINUX, MIXED] {
        let node = place.three_guests();
        node.nft(THEIRS);
        let watch = watched(&node, DMZ);
        // `systemctl restart nftables`
        node.nft(&format!("flush ruleset\n{THEIRS}"));
        followed(
            &node,
            "nftables restarted",
            "101/net0",
            "102/net0",
            Instant::now(),
        );
        let list = node.nft_list();
        for table in [
            "table inet filter",
            "table netdev other",
            "tcp dport 22 accept",
        ] {
            assert_eq!(list.matches(table).count(), 1, "{list}");
        }
        assert_no_faults(&watch);
    }
}

#[test]
fn whoever_meddles_with_our_table_is_undone() {
    let node = LINUX.three_guests();
    let watch = watched(&node, DMZ);
    for (number, meddling) in [
        "flush chain netdev pve-span copy/dmz/200/net1",
        "add rule netdev pve-span copy/dmz/200/net1 dup to \"tap102i0\"",
        "add chain netdev pve-span mine",
        "flush chain netdev pve-span drop/tap200i1",
        "insert rule netdev pve-span in/tap101i0/200/net1 accept",
    ]
    .into_iter()
    .enumerate()
    {
        node.nft(&format!("{meddling}\n"));
        followed(
            &node,
            &format!("meddling-{number}"),
            "101/net0",
            "102/net0",
            Instant::now(),
        );
        assert!(!ours(&node).contains("chain mine"));
    }
    assert_no_faults(&watch);
}

#[test]
fn other_peoples_tables_come_and_go_and_cost_nothing() {
    for place in [LINUX, OVS] {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        let before = watch.stderr();
        for _ in 0..20 {
            node.nft(THEIRS);
            node.nft("delete table inet filter\ndelete table netdev other\n");
        }
        quiet(&node);
        assert_mirrored(&node, "after", "101/net0", "102/net0");
        assert_eq!(watch.stderr(), before);
    }
}

#[test]
fn counters_start_anew_and_that_is_all() {
    let node = LINUX.three_guests();
    let _watch = watched(&node, DMZ);
    assert_mirrored(&node, "first", "101/net0", "102/net0");
    node.nft("flush ruleset\n");
    followed(&node, "flush", "101/net0", "102/net0", Instant::now());
    wait_until("status is healthy", || run(&node, &["status"]).0 == 0);
}
