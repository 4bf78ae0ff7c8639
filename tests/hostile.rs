//! Callers, rows and devices that nobody would expect, and that must neither stop us nor be touched.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use lab::{Node, try_run};
use nix::fcntl::OFlag;
use scene::{apply, hook, mirrors, run, three_guests, told};

const SPAN_CFG: &str = "[dmz]\nsource = 101\noutput = 200/net1\n";
const MIRRORED: &str = "dmz tap200i1: from tap101i0, to tap101i0";

fn node() -> Node {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    node
}

/// A pipe that is full, and whose reader lives and sleeps.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
    while nix::unistd::write(&writer, &[b'x'; 4096]).is_ok() {}
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (reader, writer)
}

#[test]
fn a_caller_that_sleeps_does_not_hold_the_hook() {
    let node = node();
    node.pause_ovsdb();
    for (vmid, phase) in [(101, "post-start"), (101, "no-such-phase")] {
        let (reader, writer) = full_pipe();
        let mut command = node.hook_command(vmid, phase);
        command.args(["--deadline", "0.5"]);
        command
            .stdout(Stdio::from(writer.try_clone().unwrap()))
            .stderr(Stdio::from(writer));
        let mut child = command.spawn().unwrap();
        drop(command);
        lab::wait_until("the hook's end", || child.try_wait().unwrap().is_some());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{phase}");
        drop(reader);
    }
    node.resume_ovsdb();
}

#[test]
fn a_caller_that_ignores_its_children_is_told_the_truth() {
    let node = node();
    let mut shell = node.command("sh");
    let hook = format!(
        "{} --root {} 101 post-start",
        lab::binary().display(),
        node.root().display()
    );
    shell.args(["-c", &format!("trap '' CHLD; exec {hook}")]);
    let output = try_run(shell, "");
    assert_eq!(
        told(&output),
        "pve-span: dmz: mirrors 101/net0 to 200/net1 (ovs, vmbr2)\n"
    );
}

#[test]
fn calls_that_only_look_like_a_hook_exit_with_0_and_others_do_not() {
    let node = node();
    for args in [
        ["abc", "post-start"],
        ["", "post-start"],
        ["-5", "post-start"],
        ["101", "--no-such"],
        ["hook", "--no-such"],
    ] {
        let output = node.pve_span(&args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", told(&output));
    }
    for args in [
        vec!["clear", "hook", "--no-such"],
        vec!["status", "post-start"],
        vec!["no-such"],
    ] {
        let output = node.pve_span(&args);
        assert_eq!(
            output.status.code(),
            Some(64),
            "{args:?}: {}",
            told(&output)
        );
    }
}

#[test]
fn a_lock_that_somebody_wrote_nonsense_into_blinds_nobody() {
    let node = node();
    let max = u64::MAX;
    std::fs::write(
        node.path("run/pve-span.lock"),
        format!("{{\"last\":[{max},[]],\"stopping\":{{\"101\":{max}}}}}"),
    )
    .unwrap();
    hook(&node, 102, "post-start");
    assert_eq!(mirrors(&node), [MIRRORED]);
}

#[test]
fn somebody_elses_mirror_on_two_bridges_is_no_obstacle() {
    let node = node();
    node.ovs_bridge("vmbr3");
    node.ovs_vsctl(&[
        "--",
        "--id=@m",
        "create",
        "mirror",
        "name=theirs",
        "--",
        "add",
        "bridge",
        "vmbr2",
        "mirrors",
        "@m",
        "--",
        "add",
        "bridge",
        "vmbr3",
        "mirrors",
        "@m",
    ]);
    let theirs = node.mirrors_raw();
    apply(&node, SPAN_CFG);
    assert_eq!(mirrors(&node), [MIRRORED]);
    let output = node.pve_span(&["clear", "--all"]);
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(node.mirrors_raw(), theirs);
}

#[test]
fn a_port_of_another_bridge_in_our_row_is_taken_out() {
    let node = node();
    apply(&node, SPAN_CFG);
    node.ovs_bridge("vmbr9");
    let row = node.ovs_vsctl(&["--bare", "--columns=_uuid", "list", "Mirror"]);
    node.ovs_vsctl(&[
        "--",
        "--id=@p",
        "get",
        "port",
        "vmbr9",
        "--",
        "add",
        "mirror",
        row.trim(),
        "select_src_port",
        "@p",
    ]);
    for _ in 0..2 {
        hook(&node, 101, "post-start");
        assert_eq!(mirrors(&node), [MIRRORED]);
    }
    let (code, out, err) = run(&node, &["plan"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn a_bridge_whose_name_no_device_can_have_is_no_obstacle() {
    let node = node();
    node.ovs_vsctl(&["--no-wait", "add-br", "averyveryverylongbridge"]);
    hook(&node, 101, "post-start");
    assert_eq!(mirrors(&node), [MIRRORED]);
    node.ovs_vsctl(&["--no-wait", "del-br", "averyveryverylongbridge"]);
}

#[test]
fn a_device_whose_name_is_not_text_is_no_obstacle() {
    use std::os::unix::ffi::OsStrExt;
    let node = node();
    let mut ip = node.command("ip");
    ip.args(["link", "add"])
        .arg(std::ffi::OsStr::from_bytes(b"a\xffb"))
        .args(["type", "bridge"]);
    let output = try_run(ip, "");
    assert!(output.status.success(), "{}", told(&output));
    hook(&node, 101, "post-start");
    assert_eq!(mirrors(&node), [MIRRORED]);
    for command in ["apply", "ports", "status"] {
        let output = node.pve_span(&[command]);
        assert!(output.status.success(), "{command}: {}", told(&output));
    }
}

#[test]
fn what_a_row_says_cannot_write_on_the_terminal() {
    let node = node();
    let output = "external_ids:pve-span-output=\"a\u{1b}[2Jb\"";
    node.ovs_vsctl(&[
        "--",
        "--id=@m",
        "create",
        "mirror",
        "name=evil",
        "external_ids:pve-span=\"x\u{1b}[2J\"",
        output,
        "--",
        "add",
        "bridge",
        "vmbr2",
        "mirrors",
        "@m",
    ]);
    for args in [
        vec!["plan"],
        vec!["status"],
        vec!["clear", "xx"],
        vec!["apply"],
    ] {
        let output = node.pve_span(&args);
        assert!(
            !told(&output).contains('\u{1b}'),
            "{args:?}: {:?}",
            told(&output)
        );
    }
}

#[test]
fn what_a_guest_s_config_says_cannot_write_on_the_terminal() {
    let node = three_guests();
    node.span_cfg("[dmz]\nsource = tag:web\noutput = 200/net1\n");
    node.edit(101, |guest| {
        let guest = guest
            .name("a\u{1b}[2J\u{9b}2J\u{202e}")
            .tags("web;x\u{1b}[2J");
        guest.net(9, "\u{1b}]0;x\u{7},bridge=\u{1b}[2J")
    });
    for args in [
        vec!["check"],
        vec!["check", "--json"],
        vec!["plan", "-vv"],
        vec!["101", "post-start"],
        vec!["apply", "-vv"],
        vec!["ports"],
        vec!["ports", "--json"],
        vec!["status"],
        vec!["status", "--events"],
    ] {
        let said = told(&node.pve_span(&args));
        let is_bad = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!said.contains(is_bad), "{args:?}: {said:?}");
    }
    assert_eq!(mirrors(&node), [MIRRORED]);
}

#[test]
fn a_lock_that_is_a_link_is_not_followed() {
    let node = node();
    let (lock, victim) = (node.path("run/pve-span.lock"), node.path("victim"));
    std::fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, &lock).unwrap();
    let (_, err) = hook(&node, 101, "post-start");
    assert!(err.contains("cannot open the lock"), "{err}");
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(mirrors(&node), [] as [&str; 0]);
}

#[test]
fn files_that_are_caught_half_written_are_not_known() {
    let node = three_guests();
    node.edit(101, |guest| guest.tags("web"));
    node.user_cfg("pool:prod::102::\n");
    apply(
        &node,
        "[a]\nsource = tag:web, pool:prod\noutput = 200/net1\n",
    );
    let both = "a tap200i1: from tap101i0 tap102i0, to tap101i0 tap102i0";
    assert_eq!(mirrors(&node), [both]);
    let empty = |path: &str| drop(File::create(node.path(path)).unwrap());
    empty("etc/pve/nodes/pve1/qemu-server/101.conf");
    hook(&node, 102, "post-start");
    assert_eq!(mirrors(&node), [both]);
    for user_cfg in ["", "pool:prod::10"] {
        node.user_cfg(user_cfg);
        hook(&node, 102, "post-start");
        assert_eq!(mirrors(&node), [both]);
    }
    empty("etc/pve/.vmlist");
    hook(&node, 102, "post-start");
    let output = node.pve_span(&["apply"]);
    assert_eq!(mirrors(&node), [both], "{}", told(&output));
}

#[test]
fn an_uplink_is_refused_wherever_above_it_the_address_is() {
    let node = three_guests();
    node.physical("eno1", "vmbr2");
    node.ip(&[
        "link add mgmt link vmbr2 type macvlan mode bridge".to_owned(),
        "addr add 10.99.0.1/24 dev mgmt".to_owned(),
        "link set mgmt up".to_owned(),
    ]);
    node.span_cfg("[x]\nsource = 101\noutput = port:eno1\n");
    let (code, _, err) = run(&node, &["apply"]);
    assert_eq!(code, 1, "{err}");
    assert!(
        err.contains(
            "eno1 may be the only way out of vmbr2, over which this node has the address 10.99.0.1"
        ),
        "{err}"
    );
}

#[test]
fn a_source_in_the_rspan_vlan_is_left_out_and_takes_nobody_along() {
    let node = three_guests();
    node.edit(101, |guest| guest.tags("web"));
    node.edit(102, |guest| guest.tags("web"));
    node.span_cfg("[rspan]\nsource = tag:web\noutput = vlan:999\n");
    hook(&node, 101, "post-start");
    let both = "rspan : from tap101i0 tap102i0, to tap101i0 tap102i0";
    assert_eq!(mirrors(&node), [both]);
    node.add(&scene::vm(300, ",tag=999").tags("web"));
    node.start_guest(300);
    let (out, err) = hook(&node, 300, "post-start");
    assert_eq!(out, "");
    assert!(
        err.contains("rspan: 300/net0 is not mirrored to vlan:999: it is itself in VLAN 999"),
        "{err}"
    );
    assert_eq!(mirrors(&node), [both]);
    // Taken as a whole, the bridge may have its RSPAN receiver on it; hook and apply see the same.
    node.span_cfg("[rspan]\nsource = bridge:vmbr2\noutput = vlan:999\n");
    hook(&node, 101, "post-start");
    let (code, out, err) = run(&node, &["plan"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = run(&node, &["apply"]);
    assert_eq!((code, out.as_str()), (0, "nothing to do\n"), "{err}");
}

#[test]
fn our_own_row_in_a_second_bridge_is_put_right() {
    let node = node();
    node.ovs_bridge("vmbr3");
    node.edit(102, |guest| {
        guest.net(0, "virtio=BC:24:11:2A:00:66,bridge=vmbr3")
    });
    node.replug("102/net0");
    let span_cfg = "[rspan]\nsource = 101, 102\noutput = vlan:999\n";
    apply(&node, span_cfg);
    let good = [
        "rspan : from tap101i0, to tap101i0",
        "rspan : from tap102i0, to tap102i0",
    ];
    assert_eq!(mirrors(&node), good);
    let row = node.ovs_vsctl(&["--bare", "get", "Bridge", "vmbr2", "mirrors"]);
    let row = row.trim().trim_matches(['[', ']']).to_owned();
    node.ovs_vsctl(&["set", "Bridge", "vmbr3", &format!("mirrors={row}")]);
    apply(&node, span_cfg);
    assert_eq!(mirrors(&node), good);
    let (code, out, _) = run(&node, &["plan"]);
    assert_eq!(code, 0, "{out}");
}
