//! The laboratory's numbered frames: what is sent arrives, and what is missing or doubled is noticed.

mod lab;

use lab::{Guest, Node};

/// Frames a second.
const RATE: u32 = 20_000;

/// 101, 102 and the sensor 200 on the Linux bridge vmbr0, which floods nothing to the sensor.
fn node() -> Node {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    let vm = |vmid| Guest::vm(vmid).net(0, "virtio,bridge=vmbr0");
    node.add_all([&vm(101), &vm(102), &vm(200)]);
    node.start_guests([101, 102, 200]);
    node.introduce("101/net0", "102/net0");
    node
}

/// A table with one mirror of `device`'s frames to the sensor.
fn mirror(table: &str, device: &str, hook: &str) -> String {
    format!(
        "table netdev {table} {{\nchain c {{\n type filter hook {hook} device \"{device}\" priority 0;\n \
         dup to \"tap200i0\"\n }}\n}}\n"
    )
}

#[test]
fn an_undisturbed_mirror_loses_nothing_and_doubles_nothing() {
    let node = node();
    node.nft(&mirror("in", "tap101i0", "ingress"));
    let sensor = node.counter("200/net0", "load");
    let load = node.load("101/net0", "102/net0", "load", RATE);
    load.wait_for(20_000);
    let (sent, guest) = load.finish();
    let sensor = sensor.finish();
    for tally in [&guest, &sensor] {
        assert_eq!(
            (tally.lost(0..sent), tally.doubled()),
            (vec![], vec![]),
            "{tally:?}"
        );
    }
}

#[test]
fn what_a_mirror_misses_or_doubles_is_noticed() {
    let node = node();
    let sensor = node.counter("200/net0", "load");
    let load = node.load("101/net0", "102/net0", "load", RATE);
    load.wait_for(1_000);
    node.nft(&mirror("in", "tap101i0", "ingress"));
    let once = load.sent();
    load.wait_for(1_000);
    let twice = load.sent();
    node.nft(&mirror("out", "tap102i0", "egress"));
    // The first of them may have been on its way already, and not counted yet.
    load.wait_for(1_001);
    let (sent, guest) = load.finish();
    let sensor = sensor.finish();
    assert_eq!(guest.lost(0..sent), vec![], "{guest:?}");
    let lost = sensor.lost(0..sent);
    assert_eq!((lost.len(), lost[0].start), (1, 0), "{sensor:?}");
    assert!((1_000..=once).contains(&lost[0].end), "{lost:?}");
    let doubled = sensor.doubled();
    assert!(doubled[0] as u64 >= once, "{sensor:?}");
    assert_eq!(doubled.last(), Some(&(usize::try_from(sent).unwrap() - 1)));
    assert!(doubled.len() >= 1_000 && twice < sent, "{sensor:?}");
}
