//! Sessions that come, change and go while a guest's frames are copied: none of them may be lost or doubled.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::collections::BTreeSet;

use scene::linux::{linux_guests, sensor_on, vm_on};
use scene::{apply, told};

/// Frames a second: few enough that two processors also have time for a thousand changes.
const RATE: u32 = 10_000;

/// How many changes are made.
const CHANGES: usize = 1000;

/// The session whose frames are counted.
const STEADY: &str = "[steady]\nsource = 101, 102\noutput = 200/net1\n";

/// What else there is, one after the other: sessions with and without sources in common, with other outputs and the
/// same, with filters that change, and none.
const OTHERS: [&str; 8] = [
    "",
    "[other]\nsource = 103\noutput = 201/net1\n",
    "[other]\nsource = 101, 103\noutput = 201/net1\n",
    "[other]\nsource = 101\noutput = 201/net1\nfilter = udp port 53 or host 10.0.0.9\n",
    "[other]\nsource = 101, 102\noutput = 201/net1\nfilter = not tcp\nsample = 1/7\n",
    "[aaa]\nsource = 103\noutput = 200/net1\n[zzz]\nsource = 103\noutput = 201/net1\ndirection = from\n",
    "[other]\nsource = 101-103\noutput = 201/net1\ndirection = to\ndedup = no\n",
    "[other]\nsource = bridge:vmbr0\noutput = 201/net1\nvlan = 0\n",
];

#[test]
fn a_thousand_changes_of_other_sessions_lose_and_double_no_frame() {
    let node = linux_guests(&[
        vm_on(101, "bridge=vmbr0"),
        vm_on(102, "bridge=vmbr0"),
        vm_on(103, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr0"),
        sensor_on(201, "bridge=vmbr0"),
    ]);
    node.introduce("101/net0", "102/net0");
    apply(&node, STEADY);
    let sensor = node.counter("200/net1", "load");
    let load = node.load("101/net0", "102/net0", "load", RATE);
    load.wait_for(1000);
    node.inside(|| {
        for others in OTHERS.iter().cycle().skip(1).take(CHANGES) {
            node.span_cfg(&format!("{STEADY}{others}"));
            let output = node.pve_span(&["apply"]);
            assert!(output.status.success(), "{}", told(&output));
        }
    });
    load.wait_for(1000);
    let (sent, guest) = load.finish();
    let sensor = sensor.finish();
    assert!(
        guest.lost(0..sent).is_empty() && guest.doubled().is_empty(),
        "the guests themselves lost or doubled frames"
    );
    assert_eq!(
        (sensor.lost(0..sent), sensor.doubled()),
        (vec![], vec![]),
        "of {sent} frames"
    );
}

#[test]
fn sessions_that_a_node_has_no_room_for_are_named_and_the_others_are_planned() {
    let node = linux_guests(&[vm_on(101, "bridge=vmbr0"), sensor_on(200, "bridge=vmbr0")]);
    let session = |number: u32| {
        let port = number + 1;
        format!("[s{number:04}]\nsource = 101\noutput = 200/net1\nfilter = tcp port {port}\n")
    };
    node.span_cfg(&(0..500).map(session).collect::<String>());
    let plan = told(&node.pve_span(&["plan"]));
    let of = |word: &str| -> Vec<String> {
        let lines = plan.lines().filter(|line| line.contains(word));
        let names = lines.filter_map(|line| line.split("s0").nth(1)?.get(..3));
        let names: BTreeSet<String> = names.map(|name| format!("s0{name}")).collect();
        names.into_iter().collect()
    };
    let (beyond, planned) = (of("has no room for the session"), of("create mirror"));
    let all: Vec<String> = (0..500).map(|number| format!("s{number:04}")).collect();
    assert!(beyond.len() > 1 && !planned.is_empty(), "{plan}");
    assert_eq!([planned, beyond.clone()].concat(), all);
    let check = node.pve_span(&["check"]);
    let said = told(&check);
    let count = format!("{} sessions are not copied on this node", beyond.len());
    assert!(check.status.success() && said.contains(&count), "{said}");
    assert!(said.contains(&format!("from {} on", beyond[0])), "{said}");
}
