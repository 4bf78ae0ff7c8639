//! `pve-span verify` says yes when every frame arrives once, and no, with the reason, when a mirror is broken in any way.

#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;
mod scene;

use std::process::Stdio;
use std::time::Duration;

use lab::{Node, wait_until};
use scene::linux::{
    linux_guests, linux_qemu_guests, linux_three_guests, mixed_bridges, sensor_on, vm_on,
};
use scene::{apply, run};
use serde_json::Value;

const DMZ: &str = "[dmz]\nsource = 101\noutput = 200/net1\n";

/// What `verify` said: its exit code, stdout and stderr.
type Said = (i32, String, String);

/// Runs `verify`, and `work` again and again while it watches.
#[track_caller]
fn while_watching(node: &Node, args: &[&str], mut work: impl FnMut()) -> Said {
    let mut command = node.pve_span_command(&[&["verify"], args].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let sockets = format!("/proc/{}/net/packet", child.id());
    let mut has_ended = false;
    wait_until("it watches, or has ended", || {
        let listed = std::fs::read_to_string(&sockets);
        has_ended = child.try_wait().unwrap().is_some();
        has_ended || listed.is_ok_and(|list| list.lines().count() > 2)
    });
    while child.try_wait().unwrap().is_none() {
        work();
    }
    let output = child.wait_with_output().unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// The same for a second, and the first session of its JSON.
#[track_caller]
fn session_while(node: &Node, args: &[&str], work: impl FnMut()) -> (i32, Value) {
    let args = [&["--time", "1", "--json"], args].concat();
    let (code, stdout, stderr) = while_watching(node, &args, work);
    match serde_json::from_str::<Value>(&stdout) {
        Ok(mut report) => (code, report["sessions"][0].take()),
        Err(_) => panic!("{code} {stdout}{stderr}"),
    }
}

/// Frames both ways between two NICs.
fn talk<'n>(node: &'n Node, a: &'n str, b: &'n str) -> impl FnMut() + 'n {
    node.introduce(a, b);
    let mut number = 0;
    move || {
        number += 1;
        node.exchange(a, b, &format!("there-{number}"));
        node.exchange(b, a, &format!("back-{number}"));
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Which of an output's numbers are not 0.
fn faults(session: &Value) -> String {
    let output = &session["outputs"][0];
    let names = ["missing", "doubled", "foreign", "oversize", "bad_checksum"];
    let is_told = |name: &&str| output[*name].as_u64() != Some(0);
    names
        .into_iter()
        .filter(is_told)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Why it is not proven, counts left out.
fn reasons(session: &Value) -> Vec<String> {
    let reason = |reason: &Value| {
        let text = reason.as_str().unwrap();
        let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let count = if rest.len() < text.len() { "N" } else { "" };
        format!("{count}{rest}")
    };
    session["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(reason)
        .collect()
}

/// Watched and arrived, by source and direction.
fn sources(session: &Value) -> Vec<(String, u64, u64)> {
    let source = |source: &Value| {
        let word = |name: &str| source[name].as_str().unwrap().to_owned();
        let number = |name: &str| source[name].as_u64().unwrap();
        let name = format!("{} {}", word("direction"), word("source"));
        (name, number("watched"), number("arrived"))
    };
    let sources = session["outputs"][0]["sources"].as_array().unwrap();
    sources.iter().map(source).collect()
}

#[track_caller]
fn assert_proven((code, session): (i32, Value)) {
    assert_eq!(
        (code, faults(&session), reasons(&session)),
        (0, String::new(), vec![]),
        "{session:#}"
    );
    assert_eq!(session["proven"], true);
    for (name, watched, arrived) in sources(&session) {
        assert!(watched > 0 && watched == arrived, "{name}: {session:#}");
    }
    let latency = &session["outputs"][0]["latency"];
    assert!(
        latency["median_us"].as_f64() <= latency["max_us"].as_f64(),
        "{session:#}"
    );
}

const PENDING: &str = "not in force yet: see pve-span plan, then pve-span apply";
const MISSING: &str = "N frames are missing at 200/net1 (tap200i1): pve-span status and pve-span plan tell whether the mirror \
    is whole; what the source's rate= or another nftables table drops before it is mirrored is missing too";
const DOUBLED: &str = "N frames arrived more than once at 200/net1: is there a mirror made by hand (ovs-vsctl list Mirror, nft \
    list ruleset, tc filter), does a source send from a MAC address that is not in its config, or do both engines serve the \
    output (pve-span plan)?";
const FOREIGN: &str = "N frames arrived at 200/net1 that no source has sent or got: something else sends to tap200i1, or a \
    source's frames were dropped behind the mirror (rate= on its NIC)";
const OVERSIZE: &str = "N frames are longer than the MTU of tap200i1, 1500: the offloads of tap200i1 are on again (pve-span \
    apply switches them off), or a source's MTU is larger";
const BAD: &str = "N frames have a bad checksum at 200/net1: the offloads of tap200i1 are on again (pve-span apply switches them \
    off), or a guest sends such frames";

/// Copies by hand what passes a device.
fn copy_by_hand(node: &Node, hook: &str, device: &str) {
    node.nft(&format!(
        "table netdev theirs {{\n chain x {{\n type filter hook {hook} device \"{device}\" priority 0;\n dup to \"tap200i1\"\n }}\n}}"
    ));
}

/// Guests with network stacks on Open vSwitch, which takes their large pieces.
fn ovs_qemu_guests() -> Node {
    let node = Node::start();
    node.ovs_takes_offloads();
    node.ovs_bridge("vmbr2");
    let guests = [
        vm_on(101, "bridge=vmbr2").qemu(),
        vm_on(102, "bridge=vmbr2").qemu(),
        sensor_on(200, "bridge=vmbr2").qemu_reader(),
    ];
    node.add_all(&guests);
    node.start_guests([101, 102, 200]);
    node
}

#[test]
fn live_traffic_proves_a_session_on_either_bridge() {
    let linux = linux_three_guests();
    let ovs = scene::three_guests();
    for node in [&linux, &ovs] {
        apply(node, DMZ);
        assert_proven(session_while(node, &[], talk(node, "101/net0", "102/net0")));
        apply(
            node,
            "[dmz]\nsource = 101\ndirection = from\noutput = 200/net1\nengine = nft\n",
        );
        assert_proven(session_while(
            node,
            &["dmz"],
            talk(node, "101/net0", "102/net0"),
        ));
    }
    apply(&linux, "[dmz]\nsource = bridge:vmbr0\noutput = 200/net1\n");
    assert_proven(session_while(
        &linux,
        &[],
        talk(&linux, "101/net0", "102/net0"),
    ));
    apply(&ovs, "[dmz]\nsource = bridge:vmbr2\noutput = 200/net1\n");
    assert_proven(session_while(&ovs, &[], talk(&ovs, "101/net0", "102/net0")));
    apply(
        &ovs,
        "[dmz]\nsource = 101, 102\noutput = 200/net1\nsnaplen = 64\n",
    );
    assert_proven(session_while(&ovs, &[], talk(&ovs, "101/net0", "102/net0")));
}

#[test]
fn marked_frames_reach_guests_on_all_kinds_of_ports() {
    let node = mixed_bridges();
    let session = "[dmz]\nsource = 101-104, 300\ndirection = to\noutput = 200/net1\n";
    for more in ["", "point = guest\n", "engine = nft\n"] {
        apply(&node, &format!("{session}{more}"));
        let (code, session) = session_while(&node, &["--inject"], || {});
        let names = sources(&session).into_iter().map(|(name, ..)| name);
        let all = ["101", "102", "103", "104", "300"].map(|guest| format!("to {guest}/net0"));
        assert_eq!(names.collect::<Vec<_>>(), all);
        // A bridge that does not know a guest yet sends its frames to others too.
        assert!(
            sources(&session)
                .iter()
                .all(|(_, watched, _)| *watched >= 11)
        );
        assert_eq!(session["outputs"][0]["watched"], 55, "{session:#}");
        assert_proven((code, session));
    }
}

#[test]
fn marked_frames_have_the_vlan_that_is_needed() {
    let node = scene::guests(&[
        scene::vm(101, ",tag=10"),
        scene::vm(102, ",trunks=10;20"),
        scene::sensor(200),
    ]);
    for engine in ["ovs", "nft"] {
        let session =
            "[dmz]\nsource = 101, 102\ndirection = to\noutput = 200/net1\nvlan = 10\nengine = ";
        apply(&node, &format!("{session}{engine}\n"));
        assert_proven(session_while(&node, &["--inject"], || {}));
    }
    apply(
        &node,
        "[dmz]\nsource = 101, 102\noutput = vlan:999\ndirection = to\n",
    );
    let (code, session) = session_while(&node, &["--inject"], || {});
    assert_eq!(code, 0, "{session:#}");
}

#[test]
fn where_the_frames_have_to_be_between_sources_only_marked_ones_prove_the_rest() {
    let node = linux_three_guests();
    apply(&node, "[dmz]\nsource = 101, 102\noutput = 200/net1\n");
    let (code, session) = session_while(&node, &[], talk(&node, "101/net0", "102/net0"));
    let elsewhere = |nic: &str| {
        format!(
            "all that was seen to {nic} in 1 s came from other sources, and is mirrored where they send it: \
             send some with --inject, or wait longer (--time)"
        )
    };
    let both = vec![elsewhere("101/net0"), elsewhere("102/net0")];
    assert_eq!(
        (code, reasons(&session), faults(&session)),
        (1, both, String::new())
    );
    let talk = talk(&node, "101/net0", "102/net0");
    assert_proven(session_while(&node, &["--inject"], talk));
}

#[test]
fn what_is_missing_doubled_or_foreign_is_told() {
    let node = linux_three_guests();
    let found = |node: &Node| {
        let (code, session) = session_while(node, &[], talk(node, "101/net0", "102/net0"));
        (code, faults(&session), reasons(&session))
    };
    apply(&node, DMZ);
    node.nft("flush chain netdev pve-span out/tap101i0/200/net1");
    let missing = vec![PENDING.to_owned(), MISSING.to_owned()];
    assert_eq!(found(&node), (1, "missing".into(), missing.clone()));

    apply(&node, DMZ);
    copy_by_hand(&node, "egress", "tap101i0");
    assert_eq!(found(&node), (1, "doubled".into(), vec![DOUBLED.into()]));
    node.nft("delete table netdev theirs");

    apply(&node, &format!("{DMZ}direction = from\n"));
    copy_by_hand(&node, "ingress", "tap102i0");
    assert_eq!(found(&node), (1, "foreign".into(), vec![FOREIGN.into()]));
    node.nft("delete table netdev theirs");

    apply(&node, DMZ);
    node.stop_guest(200);
    node.start_guest(200);
    assert_eq!(found(&node), (1, "missing".into(), missing));
    apply(&node, DMZ);
    assert_eq!(found(&node), (0, String::new(), vec![]));
}

#[test]
fn what_open_vswitch_no_longer_mirrors_or_mirrors_twice_is_told() {
    let node = scene::three_guests();
    apply(&node, DMZ);
    let mirror = node.ovs_vsctl(&["--bare", "--columns=_uuid", "list", "Mirror"]);
    node.ovs_vsctl(&["clear", "Mirror", mirror.trim(), "select_dst_port"]);
    node.settle();
    let (code, session) = session_while(&node, &[], talk(&node, "101/net0", "102/net0"));
    let missing = vec![PENDING.to_owned(), MISSING.to_owned()];
    assert_eq!(
        (code, faults(&session), reasons(&session)),
        (1, "missing".into(), missing)
    );
    let [from, to] = &sources(&session)[..] else {
        panic!("{session:#}")
    };
    assert!(from.1 == from.2 && to.1 > 0 && to.2 == 0, "{session:#}");

    apply(&node, DMZ);
    copy_by_hand(&node, "ingress", "tap101i0");
    let (code, session) = session_while(&node, &[], talk(&node, "101/net0", "102/net0"));
    assert_eq!((code, reasons(&session)), (1, vec![DOUBLED.to_owned()]));
}

#[test]
fn large_pieces_are_proven_as_the_frames_that_they_become() {
    let node = linux_qemu_guests("bridge=vmbr0");
    apply(&node, DMZ);
    let stream = || drop(node.stream("101/net0", "102/net0", 2 << 20));
    assert_proven(session_while(&node, &[], stream));
    node.ethtool(&[
        "-K", "tap200i1", "tso", "on", "gso", "on", "tx", "on", "sg", "on",
    ]);
    let (code, session) = session_while(&node, &[], stream);
    assert_eq!(
        (code, faults(&session)),
        (1, "oversize bad_checksum".into())
    );
    assert_eq!(reasons(&session), [PENDING, OVERSIZE, BAD]);
    // Whoever wants them so gets them so.
    apply(&node, &format!("{DMZ}wire = no\n"));
    assert_proven(session_while(&node, &[], stream));
}

#[test]
fn large_pieces_are_proven_with_open_vswitch_too() {
    let node = ovs_qemu_guests();
    // Small ones and a pause: what does not fit ovs-vswitchd's own socket is not switched, and so not mirrored.
    let stream = || {
        node.stream("101/net0", "102/net0", 64 << 10);
        std::thread::sleep(Duration::from_millis(10));
    };
    for engine in ["ovs", "nft"] {
        apply(&node, &format!("{DMZ}engine = {engine}\n"));
        assert_proven(session_while(&node, &[], stream));
    }
}

#[test]
fn under_load_no_frame_is_missing_or_doubled() {
    let node = linux_guests(&[
        vm_on(101, "bridge=vmbr0"),
        vm_on(102, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr0"),
    ]);
    node.introduce("101/net0", "102/net0");
    apply(
        &node,
        "[dmz]\nsource = 101\ndirection = from\noutput = 200/net1\n",
    );
    let load = node.load("101/net0", "102/net0", "load", 10_000);
    load.wait_for(100);
    let (code, session) =
        session_while(&node, &[], || std::thread::sleep(Duration::from_millis(5)));
    load.finish();
    let watched = session["outputs"][0]["watched"].as_u64();
    assert!(watched > Some(500), "{session:#}");
    assert_proven((code, session));
}

#[test]
fn of_a_sample_the_share_is_judged() {
    let node = linux_three_guests();
    apply(&node, &format!("{DMZ}sample = 1/3\n"));
    let (code, session) = session_while(&node, &[], talk(&node, "101/net0", "102/net0"));
    assert_eq!(
        (code, &session["outputs"][0]["missing"]),
        (0, &Value::Null),
        "{session:#}"
    );
    node.nft("flush chain netdev pve-span copy/dmz/200/net1");
    let (code, session) = session_while(&node, &[], talk(&node, "101/net0", "102/net0"));
    let reason = reasons(&session).remove(1);
    assert!(
        code == 1 && reason.ends_with(" and 0 arrived: too few to tell, wait longer (--time)"),
        "{session:#}"
    );
}

#[test]
fn what_changes_meanwhile_is_told() {
    let node = linux_three_guests();
    apply(&node, DMZ);
    let mut talk = talk(&node, "101/net0", "102/net0");
    let mut changed = false;
    let (code, session) = session_while(&node, &[], || {
        talk();
        if !std::mem::replace(&mut changed, true) {
            apply(&node, &format!("{DMZ}direction = from\n"));
        }
    });
    let reasons = reasons(&session);
    assert_eq!(code, 1);
    assert!(
        reasons.contains(
            &"its sources, its output or its lines in span.cfg changed while it was watched: verify it again".to_owned()
        ),
        "{reasons:#?}"
    );
}

#[test]
fn who_interrupts_it_sees_what_there_was() {
    let node = linux_three_guests();
    apply(&node, DMZ);
    let mut command = node.pve_span_command(&["verify", "--time", "3600", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    let sockets = format!("/proc/{pid}/net/packet");
    let mut talk = talk(&node, "101/net0", "102/net0");
    wait_until("it watches", || {
        std::fs::read_to_string(&sockets).is_ok_and(|list| list.lines().count() > 2)
    });
    (0..40).for_each(|_| talk());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    wait_until("it ends", || child.try_wait().unwrap().is_some());
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let session = &report["sessions"][0];
    assert_eq!(output.status.code(), Some(1));
    assert!(
        reasons(session).contains(&"it was interrupted".to_owned()),
        "{session:#}"
    );
    assert_eq!(faults(session), "");
}

#[test]
fn without_anything_to_prove_nothing_is_proven() {
    let node = linux_three_guests();
    assert_eq!(run(&node, &["verify"]).0, 1);
    let off = "[off]\nsource = 101\noutput = 200/net1\nenabled = no\n";
    apply(
        &node,
        &format!("{off}[idle]\nsource = 109\noutput = 200/net1\n"),
    );
    let (code, stdout, _) = run(&node, &["verify"]);
    assert_eq!(
        (code, stdout.as_str()),
        (
            1,
            "\
SESSION  PROVEN  OUTPUT  SOURCE  WATCHED  ARRIVED  MISSING  DOUBLED  OVERSIZE  BAD SUM  LATENCY
idle     -       -       -       -        -        -        -        -         -        -
  none of its sources is here now
off      -       -       -       -        -        -        -        -         -        -
  it is disabled (enabled = no)
"
        )
    );
    let (code, stdout, _) = run(&node, &["verify", "off"]);
    assert!(code == 1 && stdout.contains("off      no "), "{stdout}");
    let usage = run(&node, &["verify", "of"]);
    assert_eq!(
        (usage.0, usage.2.as_str()),
        (
            2,
            "pve-span: error: there is no session `of`, did you mean `off`?\n"
        )
    );
    assert_eq!(run(&node, &["verify", "--time", "0"]).0, 2);
    apply(
        &node,
        &format!("{DMZ}[far]\nsource = 101\noutput = 201/net1\n"),
    );
    let (code, session) = session_while(&node, &["far"], || {});
    let absent = "nothing is mirrored to 201/net1: there is no guest 201";
    assert_eq!((code, reasons(&session)), (1, vec![absent.to_owned()]));
}

#[test]
fn what_cannot_be_injected_is_told() {
    let node = linux_three_guests();
    apply(&node, &format!("{DMZ}filter = tcp\n"));
    let (code, session) = session_while(&node, &["--inject"], || {});
    assert_eq!(code, 1);
    assert_eq!(
        reasons(&session),
        [
            "no frame was seen from 101/net0 in 1 s: wait longer (--time), or make it send; what it sends cannot be injected",
            "no frame was seen to 101/net0 in 1 s, marked frames neither: wait longer (--time)",
            "nothing was injected to 101/net0: the session's filter or vlan does not take them (EtherType 0x88b5)",
        ]
    );
}

/// The page's example, latencies left out.
#[test]
fn the_documentation_shows_what_is_printed() {
    let node = linux_three_guests();
    apply(&node, "[dmz-ids]\nsource = 101\noutput = 200/net1\n");
    let (code, stdout, _) = while_watching(&node, &["--inject", "--time", "1"], || {});
    let page = include_str!("../docs/verify.md");
    let shown = page
        .split("```console\n# pve-span verify --inject --time 1\n")
        .nth(1)
        .unwrap();
    let shown = shown.split("```").next().unwrap();
    let plain = |text: &str| {
        let lines = text.lines().map(|line| match line.split_once(" µs") {
            Some((before, _)) => before.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.'),
            None => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!((code, plain(&stdout)), (1, plain(shown)));
}
