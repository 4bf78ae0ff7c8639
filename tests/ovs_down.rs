//! An Open vSwitch that is installed and does not answer: what is on Linux bridges is served as ever, what only Open
//! vSwitch could tell stays as it is, and nothing is mirrored twice.

#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;
mod scene;

use lab::{Load, Node};
use scene::linux::{ct_on, linux_three_guests, mixed_guests, sensor_on, vm_on};
use scene::{apply, counts, hook, run, settings};
use serde_json::Value;

/// Ticks or unticks the firewall of 101's or 300's NIC, as Proxmox VE does: no hook is called.
fn set_firewall(node: &Node, vmid: u32, firewall: bool) {
    node.edit(vmid, |guest| {
        let more = if firewall { ",firewall=1" } else { "" };
        let nic = guest.to_conf();
        let line = nic.lines().find_map(|line| line.strip_prefix("net0: "));
        let line = line.unwrap().replace(",firewall=1", "");
        guest.net(0, &format!("{line}{more}"))
    });
    node.replug(&format!("{vmid}/net0"));
}

fn states(node: &Node) -> (i32, Vec<(String, String)>) {
    let (code, out, err) = run(node, &["status", "--json"]);
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    let sessions = told["sessions"].as_array().unwrap().iter();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let states = sessions.map(|told| (word(&told["name"]), word(&told["state"])));
    (code, states.collect())
}

/// Linux bridges only, and an Open vSwitch that was once installed and does not run.
fn linux_with_dead_ovs() -> Node {
    let node = linux_three_guests();
    node.install_ovs();
    node.kill_vswitchd();
    node.stop_ovsdb();
    node
}

#[test]
fn a_firewall_toggle_on_a_linux_bridge_mirrors_each_frame_once() {
    let node = linux_with_dead_ovs();
    apply(&node, "[dmz]\nsource = 101\noutput = 200/net1\n");
    node.introduce("101/net0", "102/net0");
    for firewall in [true, false] {
        set_firewall(&node, 101, firewall);
        let (code, _, err) = run(&node, &["apply"]);
        assert_eq!((code, err.as_str()), (0, ""));
        let mut at_sensor = node.capture("200/net1");
        node.exchange("101/net0", "102/net0", "once");
        node.exchange("102/net0", "101/net0", "back");
        node.exchange("102/net0", "200/net1", "last");
        assert_eq!(counts(&mut at_sensor, &["once", "back"]), [1, 1]);
        let healthy = vec![("dmz".to_owned(), "active".to_owned())];
        assert_eq!(states(&node), (0, healthy));
        assert_eq!(
            hook(&node, 101, "post-start"),
            <(String, String)>::default()
        );
        for command in ["plan", "ports"] {
            assert_eq!(run(&node, &[command]).0, 0, "{command}");
        }
    }
}

#[test]
fn under_traffic_the_service_doubles_no_frame() {
    let node = linux_with_dead_ovs();
    node.introduce("101/net0", "102/net0");
    node.span_cfg("[dmz]\nsource = 101\noutput = 200/net1\n");
    let watch = node.watch();
    let counter = node.counter("200/net1", "flow");
    let load: Load<'_> = node.load("101/net0", "102/net0", "flow", 500);
    load.wait_for(200);
    for firewall in [true, false, true] {
        set_firewall(&node, 101, firewall);
        let before = counter.received();
        lab::wait_until("it is mirrored again", || counter.received() > before + 50);
    }
    load.finish();
    assert_eq!(counter.finish().doubled(), [0usize; 0]);
    watch.terminate();
}

#[test]
fn what_needs_open_vswitch_waits_and_the_rest_is_served() {
    let node = mixed_guests(&[
        vm_on(101, "bridge=vmbr2"),
        vm_on(102, "bridge=vmbr2"),
        ct_on(300, "bridge=vmbr0"),
        ct_on(301, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr2"),
        sensor_on(201, "bridge=vmbr0"),
    ]);
    node.introduce("101/net0", "102/net0");
    node.introduce("300/net0", "301/net0");
    apply(
        &node,
        "[both]\nsource = 300\noutput = 201/net1, 200/net1\n\
         [linux]\nsource = 300\nfilter = udp\noutput = 201/net1\n\
         [ovs]\nsource = 101\noutput = 200/net1\n\
         [whole]\nsource = bridge:vmbr2\nengine = nft\noutput = 201/net1\n",
    );
    let seen = |tokens: &[&str]| {
        let mut captures = [node.capture("201/net1"), node.capture("200/net1")];
        node.exchange("300/net0", "301/net0", tokens[0]);
        node.exchange("101/net0", "102/net0", tokens[1]);
        captures.each_mut().map(|capture| {
            for token in tokens {
                capture.wait_for(|frame| frame.contains(token));
            }
            counts(capture, tokens)
        })
    };
    // 300's go to both sensors; 101's by `whole` to 201 and by `ovs` to 200.
    assert_eq!(seen(&["a-linux", "a-ovs"]), [[1, 1], [1, 1]]);
    // It hangs: ovs-vswitchd goes on, and is not told of anything.
    set_firewall(&node, 300, true);
    node.pause_ovsdb();
    let (code, _, err) = run(&node, &["apply"]);
    assert_eq!(code, 1);
    assert!(err.contains("cannot reach Open vSwitch"), "{err}");
    assert_eq!(seen(&["b-linux", "b-ovs"]), [[1, 1], [1, 1]]);
    let (code, told) = states(&node);
    let told: Vec<(&str, &str)> = told.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(
        (code, told),
        (
            2,
            vec![
                ("both", "degraded"),
                ("linux", "active"),
                ("ovs", "degraded"),
                ("whole", "degraded")
            ]
        )
    );
    let (code, out, err) = run(&node, &["status"]);
    assert_eq!(code, 2);
    assert!(err.contains("cannot reach Open vSwitch"), "{err}");
    assert!(
        out.contains("  cannot tell what the bridge vmbr2 is: Open vSwitch does not answer; existing mirrors are kept\n"),
        "{out}"
    );
    // What is known to be over ends, and the rest stays.
    let (code, _, _) = run(&node, &["clear", "linux"]);
    assert_eq!(code, 1);
    assert!(!node.nft_list().contains("to/linux/"));
    assert_eq!(seen(&["c-linux", "c-ovs"]), [[1, 1], [1, 1]]);
    node.resume_ovsdb();
    apply(
        &node,
        "[both]\nsource = 300\noutput = 201/net1, 200/net1\n[ovs]\nsource = 101\noutput = 200/net1\n",
    );
    let (code, told) = states(&node);
    assert_eq!(code, 0, "{told:?}");
    set_firewall(&node, 300, false);
    apply(
        &node,
        "[both]\nsource = 300\noutput = 201/net1, 200/net1\n[ovs]\nsource = 101\noutput = 200/net1\n",
    );
    let mut at_sensor = node.capture("200/net1");
    node.exchange("300/net0", "301/net0", "d-linux");
    at_sensor.wait_for(|frame| frame.contains("d-linux"));
    assert_eq!(counts(&mut at_sensor, &["d-linux"]), [1]);
}

/// What pve-span has made of a device, and the table.
fn prepared(node: &Node, device: &str) -> (String, String) {
    (settings(node, device), node.nft_list())
}

/// A reconcile, the service's and a command's, changes nothing of an output's device while Open vSwitch does not answer.
#[track_caller]
fn stays_prepared(node: &Node, device: &str) {
    let before = prepared(node, device);
    node.pause_ovsdb();
    let (code, out, err) = run(node, &["apply"]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("existing mirrors are kept"), "{err}");
    assert_eq!(prepared(node, device), before);
    node.resume_ovsdb();
    let (code, out, err) = run(node, &["apply"]);
    assert_eq!((code, out.as_str()), (0, "nothing to do\n"), "{err}");
    assert_eq!(prepared(node, device), before);
}

#[test]
fn an_idle_session_s_sensor_behind_a_firewall_bridge_stays_cut_off() {
    let node = mixed_guests(&[
        vm_on(101, "bridge=vmbr2"),
        vm_on(102, "bridge=vmbr2"),
        sensor_on(200, "bridge=vmbr2,firewall=1"),
    ]);
    let untouched = settings(&node, "tap200i1");
    apply(&node, "[dmz]\nsource = 101\noutput = 200/net1\n");
    node.stop_guest(101);
    assert_eq!(run(&node, &["apply"]).0, 0);
    assert_ne!(settings(&node, "tap200i1"), untouched);
    stays_prepared(&node, "tap200i1");
    // Who ends the session while Open vSwitch may still send copies there does not open the way back either.
    node.pause_ovsdb();
    node.span_cfg("# nothing\n");
    assert_eq!(run(&node, &["apply"]).0, 1);
    assert_ne!(settings(&node, "tap200i1"), untouched);
    node.resume_ovsdb();
    apply(&node, "# nothing\n");
    assert_eq!(settings(&node, "tap200i1"), untouched);
}

#[test]
fn an_idle_session_s_port_stays_wire_true() {
    let node = mixed_guests(&[vm_on(101, "bridge=vmbr0"), vm_on(102, "bridge=vmbr0")]);
    node.ip(&[
        "link add span0 type veth peer name span1",
        "link set span0 up",
        "link set span1 up",
    ]);
    apply(&node, "[dmz]\nsource = 101\noutput = port:span0\n");
    node.stop_guest(101);
    assert_eq!(run(&node, &["apply"]).0, 0);
    stays_prepared(&node, "span0");
}

#[test]
fn clearing_a_session_ends_what_nftables_copies_for_it() {
    let node = mixed_guests(&[
        vm_on(101, "bridge=vmbr2"),
        ct_on(300, "bridge=vmbr0"),
        ct_on(301, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr2"),
        sensor_on(201, "bridge=vmbr2"),
    ]);
    apply(
        &node,
        "[alone]\nsource = 300\noutput = 201/net1\n\
         [first]\nsource = 300\noutput = 200/net1\n\
         [second]\nsource = 301\noutput = 200/net1\n",
    );
    node.introduce("300/net0", "301/net0");
    node.pause_ovsdb();
    for session in ["alone", "first"] {
        let (code, _, err) = run(&node, &["clear", session]);
        assert_eq!(code, 1);
        assert!(err.contains("cannot reach Open vSwitch"), "{err}");
    }
    assert!(!node.nft_list().contains("/alone/"));
    // What `first` has copied `second` leaves out, and what it leaves out cannot be changed now.
    let mut at_sensor = node.capture("200/net1");
    node.exchange("300/net0", "301/net0", "seen");
    at_sensor.wait_for(|frame| frame.contains("seen"));
    assert_eq!(counts(&mut at_sensor, &["seen"]), [1]);
    node.resume_ovsdb();
    let (code, _, err) = run(&node, &["clear", "first"]);
    assert_eq!(code, 0, "{err}");
    assert!(!node.nft_list().contains("/first/"));
    node.exchange("300/net0", "301/net0", "again");
    at_sensor.wait_for(|frame| frame.contains("again"));
    assert_eq!(counts(&mut at_sensor, &["again"]), [1]);
}

/// The node's address is on an Open vSwitch bridge, which a veth pair joins to vmbr0 with its uplink eno1.
#[test]
fn what_may_cut_off_the_node_is_not_begun_by_capture_only_either() {
    let node = mixed_guests(&[
        vm_on(101, "bridge=vmbr2"),
        vm_on(102, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr2"),
    ]);
    node.ip(&[
        "link add eno1 type vxlan id 7 dstport 4790 local 127.0.0.1",
        "link set eno1 master vmbr0 up",
        "link add join0 type veth peer name join1",
        "link set join0 master vmbr0 up",
        "link set join1 up",
        "addr add 10.77.0.1/24 dev vmbr2",
    ]);
    node.ovs_vsctl(&["add-port", "vmbr2", "join1"]);
    node.pause_ovsdb();
    node.span_cfg("[x]\nsource = 101\noutput = port:eno1\ncapture-only = port:eno1\n");
    let (code, out, err) = run(&node, &["apply"]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(
        err.contains("cannot tell whether this node needs eno1"),
        "{err}"
    );
    assert_eq!(node.nft_list(), "");
    node.resume_ovsdb();
    let (code, out, err) = run(&node, &["apply"]);
    assert_eq!((code, out.as_str()), (1, "nothing to do\n"), "{err}");
    assert!(err.contains("would cut the node off"), "{err}");
}

/// Of two uplinks one is an output. The other one cannot be one beside it, and does not become one while that is unclear.
#[test]
fn an_output_beside_another_of_which_nobody_can_tell_is_not_begun() {
    let node = mixed_guests(&[vm_on(101, "bridge=vmbr2"), vm_on(103, "bridge=vmbr0")]);
    for (device, id) in [("eno1", 7), ("eno2", 8)] {
        node.ip(&[
            format!("link add {device} type vxlan id {id} dstport 479{id} local 127.0.0.1"),
            format!("link set {device} master vmbr0 up"),
        ]);
    }
    // Open vSwitch may have it for a port.
    node.ip(&[
        "link add join0 type veth peer name join1",
        "link set join0 master vmbr0 up",
        "link set join1 up",
    ]);
    let text = "[a]\nsource = 101\noutput = port:eno1\n\
                [z]\nsource = 101\noutput = port:eno2\ncapture-only = port:eno2\n";
    node.span_cfg(text);
    let (code, _, err) = run(&node, &["apply"]);
    assert!(
        code == 1 && err.contains("eno2 cannot be an output beside eno1"),
        "{err}"
    );
    node.stop_guest(101);
    assert_eq!(run(&node, &["apply"]).0, 1);
    let before = node.nft_list();
    assert!(
        before.contains("drop/eno1") && !before.contains("drop/eno2"),
        "{before}"
    );
    node.pause_ovsdb();
    let (code, out, err) = run(&node, &["apply"]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert_eq!(node.nft_list(), before);
    node.resume_ovsdb();
    assert_eq!(node.nft_list(), before);
}

#[test]
fn a_former_output_on_a_linux_bridge_is_given_back() {
    for nic in ["bridge=vmbr0", "bridge=vmbr0,firewall=1"] {
        let node = mixed_guests(&[
            vm_on(101, "bridge=vmbr0"),
            vm_on(102, "bridge=vmbr0"),
            sensor_on(201, nic),
        ]);
        let untouched = settings(&node, "tap201i1");
        for ends in [&["clear", "--all"][..], &["apply"][..]] {
            apply(&node, "[dmz]\nsource = 101\noutput = 201/net1\n");
            assert_ne!(settings(&node, "tap201i1"), untouched);
            node.pause_ovsdb();
            if ends == ["apply"] {
                node.span_cfg("# nothing\n");
            }
            let (_, out, err) = run(&node, ends);
            assert_eq!(
                settings(&node, "tap201i1"),
                untouched,
                "{ends:?} {nic}: {out}{err}"
            );
            assert!(!node.nft_list().contains("dmz"), "{out}{err}");
            node.resume_ovsdb();
        }
    }
}

/// The guests on vmbr0 have a second way out by a veth pair, an Open vSwitch bridge and its uplink.
#[test]
fn a_port_whose_other_way_out_only_open_vswitch_knows_stays_an_output() {
    let node = mixed_guests(&[
        vm_on(101, "bridge=vmbr0"),
        vm_on(102, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr2"),
    ]);
    for (device, id) in [("eno1", 7), ("eno2", 8)] {
        node.ip(&[
            format!("link add {device} type vxlan id {id} dstport 479{id} local 127.0.0.1"),
            format!("link set {device} up"),
        ]);
    }
    node.ip(&[
        "link set eno2 master vmbr0",
        "link add join0 type veth peer name join1",
        "link set join0 master vmbr0 up",
        "link set join1 up",
    ]);
    node.ovs_vsctl(&["add-port", "vmbr2", "join1"]);
    node.ovs_vsctl(&["add-port", "vmbr2", "eno1"]);
    let text = "[dmz]\nsource = 101\noutput = port:eno2\n";
    apply(&node, text);
    let before = prepared(&node, "eno2");
    assert!(before.1.contains("drop/eno2"), "{}", before.1);
    node.pause_ovsdb();
    let (_, out, err) = run(&node, &["apply"]);
    assert_eq!(prepared(&node, "eno2"), before, "{out}{err}");
    node.resume_ovsdb();
    let (code, out, err) = run(&node, &["apply"]);
    assert_eq!((code, out.as_str()), (0, "nothing to do\n"), "{err}");
}

#[test]
fn a_session_that_is_over_ends_beside_one_that_copies_nothing() {
    let node = mixed_guests(&[
        vm_on(101, "bridge=vmbr0"),
        ct_on(300, "bridge=vmbr0"),
        ct_on(301, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr2"),
    ]);
    let idle = "[idle]\nsource = 999\noutput = 200/net1\n";
    let over = "[over]\nsource = 300\noutput = 200/net1\n";
    apply(&node, &format!("{idle}{over}"));
    node.pause_ovsdb();
    node.span_cfg(&format!("{idle}{over}enabled = no\n"));
    run(&node, &["apply"]);
    assert!(!node.nft_list().contains("/over/"), "{}", node.nft_list());
    node.resume_ovsdb();
    // One that others depend on stays until then, and that is said.
    let other = "[other]\nsource = 301\noutput = 200/net1\n";
    apply(&node, &format!("{other}{over}"));
    node.pause_ovsdb();
    node.span_cfg(&format!("{other}{over}enabled = no\n"));
    run(&node, &["apply"]);
    let (_, out, _) = run(&node, &["status"]);
    assert!(
        out.contains("still copied to 200/net1, although it is over"),
        "{out}"
    );
    node.resume_ovsdb();
    assert_eq!(run(&node, &["apply"]).0, 0);
    assert!(!node.nft_list().contains("/over/"), "{}", node.nft_list());
    assert_eq!(run(&node, &["status"]).0, 0);
}
