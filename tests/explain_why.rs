//! `explain`: why a session does not take a NIC, what has no port, and what cannot be told.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use lab::Guest;
use scene::explain::{explain, explained, json, pinned, ways};
use scene::linux::{linux_guests, mixed_guests, sensor_on, vm_on};
use scene::{apply, guests, run, sensor, vm};
use serde_json::Value;

#[test]
fn what_has_no_port_here_is_told_with_the_reason() {
    let more = "virtio=BC:24:11:2A:07";
    let node = guests(&[
        vm(101, ",link_down=1")
            .net(1, &format!("{more}:01"))
            .net(2, &format!("{more}:02,bridge=vmbr2"))
            .net(3, &format!("{more}:03,bridge=vmbr2,firewall=1")),
        vm(102, ",tag=7").name("off"),
        vm(103, ""),
        sensor(200),
    ]);
    node.unplug("101/net2");
    node.ovs_vsctl(&["del-port", "fwln101o3"]);
    node.stop_guest(102);
    node.file_under("pve2", 103);
    node.stop_guest(103);
    node.add(&vm(104, "").set("template", "1"));
    node.add(&Guest::vm(110));
    node.add(&Guest::ct(111).net(0, "name=eth0,hwaddr=BC:24:11:2C:00:6F,type=veth"));
    node.span_cfg(
        "[a]\nsource = all\noutput = 200/net1\n[b]\nsource = node:pve2\noutput = 200/net1\n",
    );
    run(&node, &["apply"]);
    pinned(
        "absent",
        &explained(&node, &["101", "102", "103", "104", "110", "111"]),
    );
    let (_, report) = json(&node, &["101", "102", "103", "104"]);
    let states: Vec<&Value> = report["guests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|guest| &guest["state"]["is"])
        .collect();
    assert_eq!(states, ["here", "off", "elsewhere", "template"]);
    let nics = report["guests"][0]["nics"].as_array().unwrap();
    let states: Vec<&Value> = nics.iter().map(|nic| &nic["state"]["is"]).collect();
    assert_eq!(states, ["plugged", "no-bridge", "no-device", "unplugged"]);
}

#[test]
fn a_guest_that_migrates_here_is_told_by_its_port() {
    let node = guests(&[vm(101, ""), sensor(200)]);
    node.file_under("pve2", 101);
    apply(
        &node,
        "[dmz]\nsource = 101\noutput = 200/net1\n[two]\nsource = node:pve2\noutput = 200/net1\n",
    );
    assert_eq!(
        explained(&node, &["101"]),
        "VM 101\n\
         \x20 it has a port here, while its config is filed under node pve2: a migration, under way or broken off\n\n\
         101/net0 → tap101i0 → vmbr2 (OVS) → session dmz → tap200i1 → 200/net1\n\
         \x20 taken by `101` (span.cfg:2): what it sends and what is delivered to it\n\
         \x20 engine ovs: same bridge, vmbr2; mirrored at its port tap101i0\n\
         \x20 in force\n\
         101/net0 is not taken by\n\
         \x20 two: takes node:pve2; this node is pve1\n"
    );
    node.stop_guest(101);
    assert_eq!(
        explained(&node, &["101"]),
        "VM 101\n\
         \x20 on node pve2: `pve-span explain 101` there tells what becomes of its frames\n\n\
         101/net0\n\
         \x20 configured for vmbr2\n\
         101/net0 is not taken by\n\
         \x20 dmz: would take it by `101` (span.cfg:2), but it is on node pve2\n\
         \x20 two: takes node:pve2; this node is pve1\n"
    );
}

#[test]
fn why_a_session_does_not_take_a_nic_is_told() {
    let node = guests(&[
        vm(101, ",tag=10")
            .name("web1")
            .tags("prod;db")
            .net(1, "virtio=BC:24:11:2A:07:01,bridge=vmbr2"),
        vm(102, "").tags("noisy"),
        sensor(200),
        sensor(201).tags("web"),
        sensor(202)
            .net(0, "virtio=BC:24:11:2A:07:44,bridge=vmbr2")
            .tags("loop"),
        sensor(203)
            .tags("loop")
            .net(2, "virtio=BC:24:11:2A:07:45,bridge=vmbr2"),
    ]);
    node.stop_guest(201);
    node.linux_bridge("vmbr0");
    node.user_cfg("pool:prod::101:\npool:prod/x::101:\n");
    node.span_cfg(include_str!("explain/reasons.cfg"));
    run(&node, &["apply"]);
    pinned(
        "reasons",
        &explained(&node, &["101/net0", "102", "200", "201/net1", "202"]),
    );
}

#[test]
fn a_guest_that_is_not_there_is_told_and_the_others_are_explained() {
    let node = guests(&[vm(101, "")]);
    let (code, out, err) = explain(&node, &["101/net7", "999", "101"]);
    assert_eq!(code, 1);
    assert!(out.starts_with("VM 101\n\n101/net0 → "), "{out}");
    assert_eq!(
        err,
        "pve-span: warning: there is no /etc/pve/span.cfg: run `pve-span init`, which writes a first one\n\
         pve-span: error: guest 101 has no net7: it has net0\n\
         pve-span: error: there is no guest 999 in the cluster\n"
    );
    let (code, report) = json(&node, &["999"]);
    assert_eq!(
        (code, &report["errors"][0]),
        (1, &"there is no guest 999 in the cluster".into())
    );
    let (code, out, err) = explain(&node, &["web1"]);
    assert_eq!((code, out.as_str()), (64, ""));
    assert!(
        err.contains("`web1` is neither a guest (101) nor a NIC (101/net0)"),
        "{err}"
    );
    assert_eq!(explain(&node, &[]).0, 64);
}

#[test]
fn what_cannot_be_told_is_not_guessed() {
    let node = guests(&[vm(101, ""), vm(102, ""), sensor(200)]);
    node.stop_guest(102);
    apply(
        &node,
        "[dmz]\nsource = 101\noutput = 200/net1\n[web]\nsource = tag:web\noutput = 200/net1\n[prod]\nsource = pool:prod\noutput = 200/net1\n",
    );
    node.pve_file("user.cfg", "");
    let said = explained(&node, &["101"]);
    let unknown = "  prod: cannot tell what `pool:prod` (span.cfg:8) means for it: /etc/pve/user.cfg is not understood: it is empty; existing mirrors are kept\n";
    assert!(said.contains(unknown), "{said}");
    let (_, report) = json(&node, &["101"]);
    let sessions = report["guests"][0]["nics"][0]["sessions"]
        .as_array()
        .unwrap();
    let taken: Vec<&Value> = sessions.iter().map(|part| &part["taken"]).collect();
    assert_eq!(
        taken,
        [&Value::Bool(true), &Value::Null, &Value::Bool(false)]
    );

    std::fs::write(node.path("etc/pve/nodes/pve1/qemu-server/102.conf"), "").unwrap();
    let (code, _, err) = explain(&node, &["102"]);
    assert_eq!(
        (code, err.as_str()),
        (
            2,
            "pve-span: error: cannot tell what guest 102 is like: the config of guest 102 is empty\n"
        )
    );

    node.unmount_pve();
    let notice = "pve-span: warning: /etc/pve/ is not mounted (no .version in it); see systemctl status pve-cluster; \
                  the last good copy, /var/lib/pve-span/span.cfg, stays in force\n";
    let (code, out, err) = explain(&node, &["101"]);
    assert_eq!((code, err.as_str()), (0, notice));
    assert!(
        out.starts_with("VM 101\n  its config cannot be read: /etc/pve is not mounted\n"),
        "{out}"
    );
    assert!(
        out.contains("→ session dmz → tap200i1 → 200/net1\n"),
        "{out}"
    );
    assert!(
        out.contains(
            "  web: cannot tell what `tag:web` (span.cfg:5) means for it: /etc/pve is not mounted; "
        ),
        "{out}"
    );
    let (code, _, err) = explain(&node, &["102"]);
    let error = "pve-span: error: cannot tell whether there is a guest 102: it has no device here, and /etc/pve is not mounted\n";
    assert_eq!((code, err), (2, format!("{notice}{error}")));
}

#[test]
fn without_a_valid_span_cfg_the_last_good_copy_counts_and_else_nothing() {
    let node = guests(&[vm(101, ""), sensor(200)]);
    apply(&node, "[dmz]\nsource = 101\noutput = 200/net1\n");
    node.span_cfg("[dmz]\nsouce = 101\n");
    let (code, out, err) = explain(&node, &["101"]);
    assert_eq!(code, 0);
    assert!(
        err.ends_with("the last good copy, /var/lib/pve-span/span.cfg, stays in force\n"),
        "{err}"
    );
    assert!(
        out.contains("→ session dmz → tap200i1 → 200/net1\n"),
        "{out}"
    );
    std::fs::remove_file(node.path("var/lib/pve-span/span.cfg")).unwrap();
    let (code, out, err) = explain(&node, &["101"]);
    assert_eq!(code, 2);
    assert!(
        err.ends_with("there is no last good copy, so nothing is changed\n"),
        "{err}"
    );
    assert_eq!(
        out,
        "VM 101\n\n101/net0 → tap101i0 → vmbr2 (OVS)\n  which sessions take it cannot be told\n"
    );
}

#[test]
fn without_open_vswitch_what_is_on_it_is_told_as_missing() {
    let node = mixed_guests(&[
        vm_on(101, "bridge=vmbr2,firewall=1"),
        vm_on(102, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr0"),
        sensor_on(201, "bridge=vmbr2"),
    ]);
    apply(
        &node,
        "[dmz]\nsource = 101, 102\noutput = 200/net1\n[held]\nsource = 102\noutput = 201/net1\n",
    );
    node.pause_ovsdb();
    let (code, out, err) = explain(&node, &["101", "102", "201/net1"]);
    node.resume_ovsdb();
    assert_eq!(code, 2);
    assert!(
        err.starts_with(
            "pve-span: error: cannot reach Open vSwitch, so what is on it is missing here: "
        ),
        "{err}"
    );
    assert!(
        out.contains("101/net0 → tap101i0 → fwbr101i0\n  tap101i0 is in fwbr101i0, and where that leads only Open vSwitch knows: "),
        "{out}"
    );
    assert!(
        out.contains("102/net0 → tap102i0 → session dmz → tap200i1 → 200/net1\n"),
        "{out}"
    );
    // What is copied there stays.
    let why = "tap201i1 is in no Linux bridge, and ";
    for told in [
        format!("  cannot tell whether it is in force: {why}"),
        format!("what arrives at 201/net1 from session held cannot be told: {why}"),
    ] {
        assert!(out.contains(&told), "{out}");
    }

    let node = linux_guests(&[vm_on(101, "bridge=vmbr0"), sensor_on(200, "bridge=vmbr0")]);
    apply(&node, "[dmz]\nsource = 101\noutput = 200/net1\n");
    let (code, said, err) = explain(&node, &["101"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        ways(&said)[1],
        "101/net0 → tap101i0 → session dmz → tap200i1 → 200/net1"
    );
    assert!(
        said.contains("  in force; 0 frames so far, of all the session's sources\n"),
        "{said}"
    );
}

#[test]
fn names_from_configs_cannot_write_on_the_terminal() {
    let node = guests(&[
        vm(101, "")
            .name("a\u{1b}[2Jb")
            .tags("x\u{1b}]0;evil\u{7};y"),
        sensor(200).name("\u{9b}2J"),
    ]);
    node.span_cfg(
        "[dmz]\nsource = 101\noutput = 200/net1\n[web]\nsource = tag:web\noutput = 200/net1\n",
    );
    for args in [&["101", "200"][..], &["101", "200", "--json"]] {
        let (code, out, err) = explain(&node, args);
        assert_eq!(code, 0, "{err}");
        let bad = |text: &str| text.chars().any(|c| c != '\n' && c.is_control());
        assert!(!bad(&out) && !bad(&err), "{out:?}{err:?}");
    }
}
