//! Sessions that come, change and go while a guest's frames are copied: none of them may be lost or doubled.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

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
