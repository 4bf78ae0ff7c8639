//! The kernel, given the rules that a filter becomes, copies the frames that tcpdump would have taken.
//!
//! Real frames go through the three places where rules meet them differently:
//!
//! ```text
//! netns wire                        netns node
//!   win0 ─────────────────────────── in0 ── br0 ── out0 ──── wout0 (wire)
//!   egress: the tag is in the        ingress: the kernel has    egress: it still stands beside
//!   bytes; copies to x0 ── x1        taken it out of the bytes; copies to m1 ── wm1
//!                                    copies to m0 ── wm0
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod filters;
mod lab;

use std::collections::BTreeSet;

use filters::frames::{arrives, frames};
use filters::oracle::{Program, keeps, pcap};
use filters::{corpus, expressions};
use lab::{Capture, Frame, Mac, Node, Sender, run};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use pve_span::engine::nft::json;
use pve_span_core::engine::nft::frames::{Branch, To, lower};
use pve_span_core::engine::nft::{Act, Command, CopyVerdict, Field, Hook, Match, Rule, Side, Test};
use pve_span_core::filter;
use pve_span_core::model::{IfName, VlanSet};

/// Who sends the frame behind all others, which is copied whatever the filter says.
const MARKER: Mac = Mac([0x02, 0, 0, 0, 0, 0x77]);

/// Where frames are copied, in the order of [`Bench::copies`].
const HOOKS: [&str; 3] = [
    "the egress of win0",
    "the ingress of in0",
    "the egress of out0",
];

struct Bench {
    node: Node,
    sender: Sender,
    /// What the three hooks have copied.
    copies: [Capture; 3],
    /// What has gone the whole way.
    arrived: Capture,
}

impl Bench {
    fn new() -> Self {
        stay_on_one_cpu();
        let node = Node::without_ovs();
        node.inside(let_bridges_alone);
        node.linux_bridge("br0");
        for name in ["in0", "out0", "m0", "m1"] {
            node.physical_unplugged(name);
        }
        // All goes through, whoever has been heard of where.
        node.ip(&[
            "link set br0 type bridge mcast_snooping 0",
            "link set in0 master br0",
            "link set in0 type bridge_slave learning off",
            "link set out0 master br0",
        ]);
        node.ip_wire(&[
            "link add x0 type veth peer name x1",
            "link set x0 up",
            "link set x1 up",
        ]);
        Self {
            sender: node.sender("win0"),
            copies: ["x1", "wm0", "wm1"].map(|at| node.capture(at)),
            arrived: node.capture("wout0"),
            node,
        }
    }

    fn load(&self, chains: &[Vec<Branch>]) {
        let wire = table(chains, &[("win0", Side::Egress, "x0")]);
        let node = table(
            chains,
            &[("in0", Side::Ingress, "m0"), ("out0", Side::Egress, "m1")],
        );
        let mut nft = self.node.wire_command("nft");
        nft.args(["-j", "-f", "-"]);
        run(nft, &wire);
        let mut nft = self.node.command("nft");
        nft.args(["-j", "-f", "-"]);
        run(nft, &node);
    }

    /// Sends frames and returns what has been copied by each hook.
    fn send(&mut self, frames: &[Vec<u8>]) -> [BTreeSet<Vec<u8>>; 3] {
        for frame in frames {
            self.sender.send(&Frame::from_bytes(frame.clone()));
        }
        self.sender.send(&Frame::new(MARKER, Mac::BROADCAST));
        let all = received(&mut self.arrived);
        let lost = frames.iter().find(|frame| !all.contains(*frame));
        assert_eq!(lost, None, "it does not get through, whatever is copied");
        self.copies.each_mut().map(received)
    }
}

/// What has been captured up to the marker.
fn received(capture: &mut Capture) -> BTreeSet<Vec<u8>> {
    capture.wait_for(|frame| frame.src() == MARKER);
    let frames = capture.frames();
    capture.clear();
    let frames = frames.iter().filter(|frame| frame.src() != MARKER);
    frames.map(|frame| frame.bytes().to_vec()).collect()
}

/// Otherwise iptables' bridge helper drops IPv4 and IPv6 that is not whole.
fn let_bridges_alone() {
    for family in ["ip", "ip6", "arp"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{family}tables");
        if std::path::Path::new(&path).exists() {
            std::fs::write(&path, "0").unwrap();
        }
    }
}

/// Frames queue up for each processor by itself: the marker must not overtake those of another one.
fn stay_on_one_cpu() {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).unwrap();
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap());
    let mut one = CpuSet::new();
    one.set(first.unwrap()).unwrap();
    sched_setaffinity(this, &one).unwrap();
}

/// The table with the chains, and hooks that lead to them.
fn table(chains: &[Vec<Branch>], hooks: &[(&str, Side, &str)]) -> String {
    let name = |copy: &str, number: usize| format!("frames/{copy}/{number}");
    let mut commands = vec![
        Command::AddTable,
        Command::DeleteTable,
        Command::AddTable,
        Command::AddCounter("copied".into()),
    ];
    for (device, side, output) in hooks {
        let hook = Hook {
            device: device.parse::<IfName>().unwrap(),
            side: *side,
        };
        let (base, copy) = (format!("base/{device}"), format!("copy/{output}"));
        commands.push(Command::AddChain(base.clone(), Some(hook)));
        commands.push(Command::AddChain(copy.clone(), None));
        for number in 0..chains.len() {
            commands.push(Command::AddChain(name(output, number), None));
        }
        let mut add = |chain: &str, matches: Vec<Match>, action: Act| {
            let rule = Rule {
                matches,
                action,
                purpose: "filter test".into(),
            };
            commands.push(Command::AddRule(chain.to_owned(), rule));
        };
        let source = Match::Bits {
            field: Field {
                offset: 48,
                length: 48,
                mask: None,
            },
            test: Test::In,
            ranges: vec![(0x0200_0000_0077, 0x0200_0000_0077)],
        };
        add(&base, vec![source], Act::Goto(copy.clone()));
        add(&base, Vec::new(), Act::Jump(name(output, 0)));
        for (number, chain) in chains.iter().enumerate() {
            for branch in chain {
                let action = match branch.to {
                    To::Taken => Act::Goto(copy.clone()),
                    To::Chain(next) => Act::Goto(name(output, next)),
                };
                add(&name(output, number), branch.matches.clone(), action);
            }
        }
        let copied = Act::Copy {
            counter: "copied".into(),
            device: output.parse::<IfName>().unwrap(),
            index: 0,
            then: CopyVerdict::Accept,
        };
        add(&copy, Vec::new(), copied);
    }
    serde_json::to_string(&json::commands(&commands).unwrap()).unwrap()
}

/// Loads an expression, sends frames, and compares what was copied with what tcpdump keeps.
fn check(bench: &mut Bench, expression: &str, seed: u64) {
    let filter =
        filter::parse(expression).unwrap_or_else(|error| panic!("`{expression}`: {error}"));
    let Ok(chains) = lower(Some(&filter), &VlanSet::default()) else {
        return;
    };
    let frames = frames_that_arrive(seed, 250);
    let file = pcap(&frames);
    let kept = keeps(&file, frames.len(), expression, Program::AsWritten);
    check_chains(bench, &chains, &frames, &kept, expression);
}

fn frames_that_arrive(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut frames = frames(seed, count);
    frames.retain(|frame| arrives(frame));
    frames
}

/// Each hook copies the frames that are `wanted`, and no others.
fn check_chains(
    bench: &mut Bench,
    chains: &[Vec<Branch>],
    frames: &[Vec<u8>],
    wanted: &[bool],
    what: &str,
) {
    bench.load(chains);
    let copies = bench.send(frames);
    for (at, copied) in HOOKS.iter().zip(&copies) {
        for (frame, wanted) in frames.iter().zip(wanted) {
            assert_eq!(
                copied.contains(frame),
                *wanted,
                "`{what}` at {at}: {frame:02x?}\n{chains:#?}"
            );
        }
    }
}

#[test]
fn the_kernel_copies_what_tcpdump_takes_for_the_corpus() {
    let mut bench = Bench::new();
    for (number, expression) in corpus().iter().enumerate() {
        check(&mut bench, expression, number as u64);
    }
}

#[test]
fn the_kernel_copies_what_tcpdump_takes_for_any_expression() {
    let mut bench = Bench::new();
    let mut runner = TestRunner::default();
    for seed in 0..60 {
        let expression = expressions::expression().new_tree(&mut runner).unwrap();
        check(&mut bench, &expression.current(), seed);
    }
}

#[test]
fn the_kernel_finds_the_outer_tag_wherever_it_keeps_it() {
    let mut bench = Bench::new();
    let frames = frames_that_arrive(0, 400);
    for vlans in [&[0][..], &[10], &[0, 10], &[20, 30, 4095]] {
        let chains = lower(None, &vlans.iter().copied().collect()).unwrap();
        let wanted: Vec<_> = frames
            .iter()
            .map(|frame| match frame[12..14] {
                [0x81, 0x00] | [0x88, 0xa8] => {
                    vlans.contains(&(u16::from_be_bytes([frame[14], frame[15]]) & 0xfff))
                }
                _ => vlans.contains(&0),
            })
            .collect();
        check_chains(
            &mut bench,
            &chains,
            &frames,
            &wanted,
            &format!("VLANs {vlans:?}"),
        );
    }
}
