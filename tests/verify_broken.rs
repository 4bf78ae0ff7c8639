//! `pve-span verify` says no when a mirror is broken in any way, and why.

#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;
mod scene;
mod verifying;

use std::process::Stdio;

use lab::{Node, wait_until};
use scene::linux::linux_three_guests;
use scene::{apply, run};
use serde_json::Value;
use verifying::{
    DMZ, DOUBLED, FOREIGN, MISSING, PENDING, faults, reasons, session_while, sources, talk,
};

/// Copies by hand what passes a device.
fn copy_by_hand(node: &Node, hook: &str, device: &str) {
    node.nft(&format!(
        "table netdev theirs {{\n chain x {{\n type filter hook {hook} device \"{device}\" priority 0;\n dup to \"tap200i1\"\n }}\n}}"
    ));
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
    node.forget_flows();
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
    assert_eq!((code, session["verdict"].as_str()), (0, Some("untested")));
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
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(session["verdict"], "untested");
    assert!(
        reasons(session).contains(&"it was interrupted".to_owned()),
        "{session:#}"
    );
    assert_eq!(faults(session), "");
}

#[test]
fn without_anything_to_prove_nothing_is_tested() {
    let node = linux_three_guests();
    assert_eq!(run(&node, &["verify"]).0, 0);
    assert_eq!(run(&node, &["verify", "--strict"]).0, 1);
    let off = "[off]\nsource = 101\noutput = 200/net1\nenabled = no\n";
    apply(
        &node,
        &format!("{off}[idle]\nsource = 109\noutput = 200/net1\n"),
    );
    let (code, stdout, _) = run(&node, &["verify"]);
    assert_eq!(
        (code, stdout.as_str()),
        (
            0,
            "\
SESSION  VERDICT  OUTPUT  SOURCE  WATCHED  ARRIVED  MISSING  DOUBLED  OVERSIZE  BAD SUM  LATENCY
idle     -        -       -       -        -        -        -        -         -        -
  none of its sources is here
off      -        -       -       -        -        -        -        -         -        -
  the session is switched off
"
        )
    );
    let (code, stdout, _) = run(&node, &["verify", "off"]);
    assert!(
        code == 0 && stdout.contains("off      untested "),
        "{stdout}"
    );
    assert_eq!(run(&node, &["verify", "--strict", "off"]).0, 1);
    let usage = run(&node, &["verify", "of"]);
    assert_eq!(
        (usage.0, usage.2.as_str()),
        (
            64,
            "pve-span: error: there is no session `of`, did you mean `off`?\n"
        )
    );
    assert_eq!(run(&node, &["verify", "--time", "0"]).0, 64);
    node.span_cfg(&format!("{DMZ}[far]\nsource = 101\noutput = 201/net1\n"));
    assert_eq!(run(&node, &["apply"]).0, 1);
    let (code, session) = session_while(&node, &["far"], || {});
    let absent = "nothing is mirrored to 201/net1: there is no guest 201";
    assert_eq!((code, reasons(&session)), (1, vec![absent.to_owned()]));
    assert_eq!(session["verdict"], "failed");
}

#[test]
fn what_cannot_be_injected_is_told() {
    let node = linux_three_guests();
    apply(&node, &format!("{DMZ}filter = tcp\n"));
    let (code, session) = session_while(&node, &["--inject"], || {});
    assert_eq!((code, session["verdict"].as_str()), (0, Some("untested")));
    assert_eq!(
        session_while(&node, &["--inject", "--strict"], || {}).0,
        1,
        "a quiet guest"
    );
    assert_eq!(
        reasons(&session),
        [
            "no frame was seen from 101/net0 in 1 s: wait longer (--time), or make it send; what it sends cannot be injected",
            "no frame was seen to 101/net0 in 1 s, nor any marked frame: wait longer (--time)",
            "nothing was injected to 101/net0: the session's filter or vlan does not take them (EtherType 0x88b5)",
        ]
    );
}
