//! The hookscript, called as Proxmox VE calls it, through the life of guests.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use lab::{Guest, Node, wait_until};
use scene::{guests, hook, mirrors, sensor, stderr, stdout, their_mirror, three_guests, told, vm};

const SPAN_CFG: &str = "[dmz]\nsource = 101, 102\noutput = 200/net1\n";
const BOTH_MIRRORED: &str = "dmz tap200i1: from tap101i0 tap102i0, to tap101i0 tap102i0";

/// The three guests, and both sources mirrored.
fn mirrored() -> Node {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    hook(&node, 101, "post-start");
    assert_eq!(mirrors(&node), [BOTH_MIRRORED]);
    node
}

#[test]
fn a_guest_is_mirrored_from_its_start_to_its_stop() {
    let node = guests(&[sensor(200)]);
    node.add(&vm(101, ""));
    node.add(&vm(102, ""));
    node.start_guest(102);
    node.span_cfg("[dmz]\nsource = 101\noutput = 200/net1\n");
    let mut sensor = node.capture("200/net1");

    assert_eq!(
        hook(&node, 101, "pre-start"),
        (String::new(), String::new())
    );
    node.start_guest(101);
    let (out, err) = hook(&node, 101, "post-start");
    assert_eq!(
        out,
        "pve-span: dmz: mirrors 101/net0 to 200/net1 (ovs, vmbr2)\n"
    );
    assert_eq!(err, "");
    node.settle();
    node.exchange("101/net0", "102/net0", "while-it-runs");
    assert_eq!(sensor.count("while-it-runs"), 1);

    assert_eq!(
        hook(&node, 101, "post-start"),
        (String::new(), String::new()),
        "nothing changed, nothing said"
    );

    let (out, err) = hook(&node, 101, "pre-stop");
    assert_eq!(
        out,
        "pve-span: dmz: no longer mirrors to 200/net1 (ovs, vmbr2): none of its sources is here\n"
    );
    assert_eq!(err, "");
    assert_eq!(mirrors(&node), [] as [&str; 0]);
    node.stop_guest(101);
    assert_eq!(
        hook(&node, 101, "post-stop"),
        (String::new(), String::new())
    );
    assert_eq!(mirrors(&node), [] as [&str; 0]);
}

#[test]
fn a_guest_that_refuses_to_stop_is_mirrored_again_at_the_next_apply() {
    let node = mirrored();
    hook(&node, 101, "pre-stop");
    assert_eq!(mirrors(&node), ["dmz tap200i1: from tap102i0, to tap102i0"]);
    // Another guest's hook in the meantime does not put it back.
    hook(&node, 102, "post-start");
    assert_eq!(mirrors(&node), ["dmz tap200i1: from tap102i0, to tap102i0"]);
    assert!(node.pve_span(&["apply"]).status.success());
    assert_eq!(mirrors(&node), [BOTH_MIRRORED]);
}

#[test]
fn a_session_that_keeps_its_mirrors_sees_the_shutdown_too() {
    let node = guests(&[vm(101, ""), vm(102, ""), sensor(200), sensor(201)]);
    node.span_cfg(
        "[dmz]\nsource = 101\noutput = 200/net1\npre-stop = keep\n[ids]\nsource = 101\noutput = 201/net1\n",
    );
    hook(&node, 101, "post-start");
    let dmz = "dmz tap200i1: from tap101i0, to tap101i0";
    let ids = "ids tap201i1: from tap101i0, to tap101i0";
    assert_eq!(mirrors(&node), [dmz, ids]);
    node.introduce("101/net0", "102/net0");
    let sensor = node.counter("200/net1", "goodbye");
    let load = node.load("101/net0", "102/net0", "goodbye", 400);
    load.wait_for(100);
    hook(&node, 101, "pre-stop");
    assert_eq!(mirrors(&node), [dmz], "each as it says");
    load.wait_for(100);
    let (sent, _) = load.finish();
    wait_until("all copies", || sensor.received() >= sent);
    assert_eq!(sensor.finish().lost(0..sent), []);
    node.stop_guest(101);
    hook(&node, 101, "post-stop");
    assert_eq!(mirrors(&node), [] as [&str; 0]);
    node.start_guest(101);
    hook(&node, 101, "post-start");
    // A sensor that stops: the same holds for the sessions that it is an output of.
    hook(&node, 200, "pre-stop");
    assert_eq!(mirrors(&node), [dmz, ids]);
    hook(&node, 201, "pre-stop");
    assert_eq!(mirrors(&node), [dmz]);
}

#[test]
fn a_guest_that_crashed_leaves_nothing_behind() {
    let node = mirrored();
    node.crash_guest(101);
    let (out, _) = hook(&node, 101, "post-stop");
    assert_eq!(
        out,
        "pve-span: dmz: no longer mirrors 101/net0 to 200/net1 (ovs, vmbr2)\n"
    );
    assert_eq!(mirrors(&node), ["dmz tap200i1: from tap102i0, to tap102i0"]);
}

#[test]
fn the_sensor_stops_first_then_the_sources() {
    let node = mirrored();
    let (out, err) = hook(&node, 200, "pre-stop");
    assert_eq!(
        out,
        "pve-span: dmz: no longer mirrors to 200/net1 (ovs, vmbr2): its output is not here\n"
    );
    assert_eq!(err, "");
    node.stop_guest(200);
    hook(&node, 200, "post-stop");
    assert_eq!(mirrors(&node), [] as [&str; 0]);

    hook(&node, 101, "pre-stop");
    node.stop_guest(101);
    hook(&node, 101, "post-stop");
    node.start_guest(101);
    let (out, err) = hook(&node, 101, "post-start");
    assert_eq!(out, "");
    assert_eq!(
        err,
        "pve-span: warning: dmz: nothing is mirrored to 200/net1: guest 200 is not running on this node\n"
    );

    node.start_guest(200);
    let (out, _) = hook(&node, 200, "post-start");
    assert_eq!(
        out,
        "pve-span: dmz: mirrors 101/net0, 102/net0 to 200/net1 (ovs, vmbr2)\n"
    );
    assert_eq!(mirrors(&node), [BOTH_MIRRORED]);
}

#[test]
fn a_port_that_is_pulled_and_plugged_again_is_mirrored_again() {
    let node = mirrored();
    node.unplug("101/net0");
    // Open vSwitch has stripped the port out of the row by itself.
    assert_eq!(mirrors(&node), ["dmz tap200i1: from tap102i0, to tap102i0"]);
    node.plug("101/net0");
    hook(&node, 101, "post-start");
    assert_eq!(mirrors(&node), [BOTH_MIRRORED]);

    node.unplug("200/net1");
    node.plug("200/net1");
    let (out, _) = hook(&node, 200, "post-start");
    assert_eq!(
        out,
        "pve-span: dmz: 200/net1 (ovs, vmbr2): output tap200i1\n"
    );
    assert_eq!(mirrors(&node), [BOTH_MIRRORED]);
}

#[test]
fn a_toggled_firewall_is_followed() {
    let node = mirrored();
    node.edit(101, |guest| {
        guest.net(0, "virtio=BC:24:11:2A:00:65,bridge=vmbr2,firewall=1")
    });
    node.replug("101/net0");
    hook(&node, 101, "post-start");
    assert_eq!(
        mirrors(&node),
        ["dmz tap200i1: from fwln101o0 tap102i0, to fwln101o0 tap102i0"]
    );
}

#[test]
fn a_foreign_mirror_survives_every_operation_byte_for_byte() {
    let node = three_guests();
    their_mirror(
        &node,
        &[
            "name=theirs",
            "select_src_port=@tap102i0",
            "select_vlan=7",
            "snaplen=99",
            "output_vlan=77",
            "external_ids:owner=them",
        ],
    );
    let theirs = node.mirrors_raw();
    let only_theirs = |node: &Node| {
        let raw: serde_json::Value =
            serde_json::from_str(node.mirrors_raw().lines().next().unwrap()).unwrap();
        let rows = raw["data"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|row| row.to_string().contains("them"));
        rows.map(ToString::to_string).collect::<Vec<_>>()
    };
    let before = only_theirs(&node);
    assert_eq!(before.len(), 1);
    node.span_cfg(SPAN_CFG);
    for phase in ["post-start", "pre-stop", "post-stop", "post-start"] {
        hook(&node, 101, phase);
        assert_eq!(only_theirs(&node), before, "{phase}");
    }
    node.stop_guest(101);
    node.start_guest(101);
    for (text, command) in [
        (SPAN_CFG, vec!["apply"]),
        (
            "[dmz]\nsource = bridge:vmbr2\noutput = vlan:999\nvlan = 5\n",
            vec!["apply"],
        ),
        (SPAN_CFG, vec!["clear", "dmz"]),
        (SPAN_CFG, vec!["apply"]),
        ("# nothing\n", vec!["apply"]),
        (SPAN_CFG, vec!["apply"]),
        (SPAN_CFG, vec!["clear", "--all"]),
    ] {
        node.span_cfg(text);
        let output = node.pve_span(&command);
        assert!(output.status.success(), "{}", told(&output));
        assert_eq!(only_theirs(&node), before, "{command:?}");
    }
    assert_eq!(node.mirrors_raw(), theirs, "nothing else is left");
}

#[test]
fn twenty_guests_that_start_at_once_are_all_mirrored() {
    let node = guests(&[sensor(200)]);
    let vmids: Vec<u32> = (301..=320).collect();
    node.add_all(
        &vmids
            .iter()
            .map(|vmid| vm(*vmid, ""))
            .collect::<Vec<Guest>>(),
    );
    node.start_guests(vmids.iter().copied());
    node.span_cfg("[many]\nsource = 301-320\noutput = 200/net1\n");
    let at_once = |phase: &str| {
        let spawned = vmids
            .iter()
            .map(|vmid| node.hook_command(*vmid, phase).spawn().unwrap());
        let children: Vec<_> = spawned.collect();
        for mut child in children {
            assert_eq!(child.wait().unwrap().code(), Some(0));
        }
    };
    at_once("post-start");
    let ports: Vec<String> = vmids.iter().map(|vmid| format!("tap{vmid}i0")).collect();
    let ports = ports.join(" ");
    assert_eq!(
        mirrors(&node),
        [format!("many tap200i1: from {ports}, to {ports}")]
    );
    assert_eq!(
        transactions(&node, "post-start"),
        1,
        "the first one does the work of all"
    );

    at_once("pre-stop");
    assert_eq!(
        mirrors(&node),
        [] as [&str; 0],
        "none puts another one's mirror back"
    );
}

/// How many of our transactions the database's log has for a phase.
fn transactions(node: &Node, phase: &str) -> usize {
    let mut show = node.command("ovsdb-tool");
    show.args(["-m", "show-log"])
        .arg(node.path("etc/openvswitch/conf.db"));
    let log = lab::run(show, "");
    log.lines()
        .filter(|line| line.contains("pve-span: hook") && line.contains(phase))
        .count()
}

#[test]
fn an_incoming_guest_is_mirrored_while_its_config_is_still_filed_elsewhere() {
    let node = three_guests();
    node.add(&vm(103, "").tags("web"));
    node.file_under("pve2", 103);
    node.span_cfg("[web]\nsource = tag:web\noutput = 200/net1\n[here]\nsource = node:pve1\nexclude = 101-102\noutput = 200/net1\n");
    node.start_guest(103);
    let output = node.hook_migrated_from("pve2", 103, "post-start");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        stdout(&output),
        "pve-span: here: mirrors 103/net0 to 200/net1 (ovs, vmbr2)\npve-span: web: mirrors 103/net0 to 200/net1 (ovs, vmbr2)\n"
    );
    node.file_under("pve1", 103);
    assert_eq!(
        hook(&node, 101, "post-start").0,
        "",
        "its config's move changes nothing"
    );

    // It moves on: no hook is called here, the port goes, and the next reconcile clears up.
    node.stop_guest(103);
    node.file_under("pve3", 103);
    hook(&node, 101, "post-start");
    assert_eq!(mirrors(&node), [] as [&str; 0]);
}

#[test]
fn a_config_that_cannot_be_read_changes_nothing() {
    let node = guests(&[
        vm(101, "").tags("web"),
        vm(102, "").tags("web"),
        sensor(200),
    ]);
    node.span_cfg("[web]\nsource = tag:web\noutput = 200/net1\n");
    hook(&node, 101, "post-start");
    let conf = node.path("etc/pve/nodes/pve1/qemu-server/101.conf");
    std::fs::remove_file(&conf).unwrap();
    std::fs::create_dir(&conf).unwrap();
    let (out, _) = hook(&node, 102, "post-start");
    assert_eq!(out, "");
    assert_eq!(
        mirrors(&node),
        ["web tap200i1: from tap101i0 tap102i0, to tap101i0 tap102i0"]
    );
}

#[test]
fn whatever_it_is_called_with_it_exits_with_0() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    let call = |args: &[&str]| {
        let mut command = node.command(lab::binary());
        command.args(args).arg("--root").arg(node.root());
        let output = lab::try_run(command, "");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", told(&output));
        stderr(&node, &output)
    };
    assert_eq!(
        call(&["101", "post-migrate"]),
        "pve-span: warning: guest 101: unknown phase `post-migrate`, nothing done\n"
    );
    assert_eq!(
        call(&["0", "post-start"]),
        "pve-span: warning: `0` is not a guest number, nothing done\n"
    );
    assert_eq!(
        call(&["99999999999999999999", "pre-start"]).lines().count(),
        1
    );
    assert_eq!(call(&["hook", "web1", "pre-start"]).lines().count(), 1);
    assert!(
        call(&["101"]).contains("required arguments"),
        "said, but not a failure"
    );
    assert!(call(&["hook"]).contains("required arguments"));
    call(&["101", "post-start", "something", "more"]);
    call(&["hook", "101", "post-start", "--deadline", "-1"]);
    call(&["hook", "101", "post-start", "--deadline", "nan"]);
    call(&["hook", "101", "post-start", "--deadline", "soon"]);
    assert_eq!(mirrors(&node), [BOTH_MIRRORED]);
}

#[test]
fn a_caller_that_does_not_listen_does_no_harm() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    let mut command = node.hook_command(101, "post-start");
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    wait_until("the mirror", || mirrors(&node) == [BOTH_MIRRORED]);
}

#[test]
fn a_copy_of_the_binary_works_like_a_link() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    let copy = node.path("var/lib/vz/snippets/copy-of-it");
    std::fs::copy(lab::binary(), &copy).unwrap();
    let mut command = node.command(copy);
    command
        .args(["101", "post-start", "--root"])
        .arg(node.root());
    let output = lab::try_run(command, "");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(mirrors(&node), [BOTH_MIRRORED], "{}", told(&output));
}

#[test]
fn without_a_file_it_is_quiet() {
    let node = three_guests();
    assert_eq!(
        hook(&node, 101, "post-start"),
        (String::new(), String::new())
    );
}
