//! The service is killed at any moment of its work: whoever comes next finds its way.

#![allow(clippy::print_stdout)]

mod lab;
mod scene;

use std::thread;
use std::time::{Duration, Instant};

use lab::{Node, Random, wait_until};
use scene::linux::{ct_on, mixed_guests, sensor_on, vm_on};
use scene::settings;
use scene::watched::{assert_mirrored, followed, ours, quiet};

/// Seeds that have once shown something, and some that have not.
const SEEDS: [u64; 4] = [1, 2, 3, 4];

const SESSIONS: [&str; 4] = [
    "[one]\nsource = 101, 300\noutput = 200/net1\n",
    "[one]\nsource = 101, 102, 300\noutput = 200/net1\n[two]\nsource = 101\nwire = no\noutput = 201/net1\n",
    "[three]\nsource = tag:web\noutput = 201/net1\n",
    "# nothing\n",
];

/// One of the things that happen on a node.
fn something(node: &Node, random: &mut Random) {
    let nics = ["101/net0", "102/net0", "300/net0", "200/net1", "201/net1"];
    match random.below(5) {
        0 => node.replug(random.pick(&nics)),
        1 => {
            let nic = random.pick(&nics);
            node.unplug(nic);
            node.plug(nic);
        }
        2 => {
            let vmid = random.pick(&[101, 102, 300, 200, 201]);
            node.crash_guest(vmid);
            node.start_guest(vmid);
        }
        3 => {
            let tag = random.pick(&["web", "prod", "noisy"]);
            node.edit(random.pick(&[101, 102, 300]), |guest| guest.tags(tag));
        }
        _ => node.span_cfg(random.pick(&SESSIONS)),
    }
}

fn survives(seed: u64) {
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let node = mixed_guests(&[
        vm_on(101, "bridge=vmbr2"),
        vm_on(102, "bridge=vmbr2,firewall=1"),
        ct_on(300, "bridge=vmbr0"),
        vm_on(103, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr2"),
        sensor_on(201, "bridge=vmbr0"),
    ]);
    let before = [settings(&node, "tap200i1"), settings(&node, "tap201i1")];
    node.span_cfg(SESSIONS[0]);
    for _ in 0..12 {
        let watch = node.watch_unready(&[], |_| {});
        let lives = Duration::from_micros(random.below(60_000));
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(lives);
                watch.kill();
            });
            something(&node, &mut random);
        });
    }
    let watch = node.watch();
    quiet(&node);
    node.span_cfg(SESSIONS[1]);
    followed(
        &node,
        "after the kills",
        "101/net0",
        "102/net0",
        Instant::now(),
    );
    assert_mirrored(&node, "linux", "300/net0", "103/net0");
    // What the outputs were like has outlived everybody.
    for nic in ["200/net1", "201/net1"] {
        node.unplug(nic);
        node.plug(nic);
    }
    quiet(&node);
    node.span_cfg("# nothing\n");
    wait_until("nothing of ours is left", || ours(&node).is_empty());
    quiet(&node);
    let after = [settings(&node, "tap200i1"), settings(&node, "tap201i1")];
    let normal = |text: &String| scene::watched::without_identity(text);
    assert_eq!(
        after.each_ref().map(normal),
        before.each_ref().map(normal),
        "{}",
        watch.stderr()
    );
}

#[test]
fn whoever_comes_after_a_kill_finds_its_way() {
    SEEDS.into_iter().for_each(survives);
}

#[test]
fn whoever_comes_after_a_kill_finds_its_way_whenever_that_was() {
    survives(Random::any_seed());
}

#[test]
fn an_output_that_was_changed_by_one_that_was_killed_is_put_back_by_the_next() {
    for place in scene::watched::Place::all() {
        let node = place.three_guests();
        let before = settings(&node, "tap200i1");
        let watch = scene::watched::watched(&node, scene::watched::DMZ);
        assert_ne!(settings(&node, "tap200i1"), before);
        watch.kill();
        node.span_cfg("# nothing\n");
        let _next = node.watch();
        quiet(&node);
        assert_eq!(settings(&node, "tap200i1"), before);
        assert_eq!(ours(&node), "");
    }
}
