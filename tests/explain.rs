//! `explain`: the way of each NIC's frames, for every way that a NIC can be plugged and both engines, and whether it is
//! so now.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use lab::{Node, or_skip, wait_until};
use scene::explain::{explain, explained, json, pinned, ways};
use scene::linux::{ct_on, linux_guests, mixed_guests, sensor_on, start, vm_on};
use scene::{apply, guests, run, sensor, vm};

const DMZ_IDS: &str = "\
# what the IDS sees
[dmz-ids]
source = 101, 104, tag:dmz
output = 200/net1

[web]
source = tag:web
filter = tcp port 80 or 443
output = 200/net1
";

/// The node of README.md and docs/explain.md.
fn readme_node() -> Node {
    guests(&[
        vm(101, ",firewall=1,tag=10").name("web1").tags("prod;db"),
        vm(104, ",tag=10").name("db1"),
        sensor(200),
    ])
}

#[test]
fn a_nic_s_frames_are_told_as_a_path_and_in_words() {
    let node = readme_node();
    apply(&node, DMZ_IDS);
    let said = explained(&node, &["101"]);
    assert_eq!(
        ways(&said),
        [
            "101/net0 → tap101i0 → fwbr101i0 → fwln101o0 → vmbr2 (OVS, VLAN 10) → session dmz-ids → tap200i1 → 200/net1"
        ]
    );
    pinned("guest", &said);
    assert_eq!(explained(&node, &["101/net0"]), said, "it has no other NIC");
    pinned("sensor", &explained(&node, &["200"]));
}

#[test]
fn the_page_about_it_shows_what_it_says() {
    let page = include_str!("../docs/explain.md");
    for (command, name) in [("101", "guest"), ("200", "sensor")] {
        let path = format!("{}/tests/explain/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let said = std::fs::read_to_string(path).unwrap();
        let example = format!("# pve-span explain {command}\n{said}```\n");
        assert!(page.contains(&example), "docs/explain.md lacks\n{example}");
    }
    assert!(page.contains(&format!("```ini\n{DMZ_IDS}```\n")));
    let (_, shell) = page.split_once("```sh\n").unwrap();
    let (shell, _) = shell.split_once("```").unwrap();
    let node = readme_node();
    apply(&node, DMZ_IDS);
    for line in shell.lines() {
        let (command, _) = line.split_once('#').unwrap();
        let args: Vec<&str> = command.split_whitespace().collect();
        assert_eq!(args[..2], ["pve-span", "explain"]);
        explained(&node, &args[2..]);
    }
}

/// Every way to plug a NIC, but for VLAN-aware bridges, which not every kernel has.
fn every_plug() -> Node {
    let node = mixed_guests(&[
        vm_on(101, "bridge=vmbr2"),
        vm_on(102, "bridge=vmbr2,firewall=1,tag=10"),
        vm_on(103, "bridge=vmbr0,firewall=1"),
        vm_on(104, "bridge=vmbr0,tag=20"),
        vm_on(106, "bridge=vmbr2,trunks=20;30-40"),
        vm_on(107, "bridge=vmbr2,tag=5,trunks=20"),
        ct_on(300, "bridge=vmbr0").name("mon"),
        ct_on(301, "bridge=vmbr0,firewall=1,tag=20"),
        ct_on(302, "bridge=vmbr2,firewall=1"),
        sensor_on(200, "bridge=vmbr2"),
        sensor_on(201, "bridge=vmbr0,firewall=1"),
    ]);
    node.linux_bridge("webnet");
    node.physical_unplugged("eno2");
    start(&node, &[vm_on(105, "bridge=webnet")]);
    node
}

const EVERY_GUEST: [&str; 10] = [
    "101", "102", "103", "104", "105", "106", "107", "300", "301", "302",
];

#[test]
fn without_span_cfg_the_way_to_the_bridge_is_told() {
    let node = every_plug();
    let said = explained(&node, &EVERY_GUEST);
    assert_eq!(
        ways(&said),
        [
            "101/net0 → tap101i0 → vmbr2 (OVS)",
            "102/net0 → tap102i0 → fwbr102i0 → fwln102o0 → vmbr2 (OVS, VLAN 10)",
            "103/net0 → tap103i0 → fwbr103i0 → fwln103i0 → fwpr103p0 → vmbr0 (Linux bridge)",
            "104/net0 → tap104i0 → vmbr0v20 (Linux bridge, VLAN 20)",
            "105/net0 → tap105i0 → webnet (Linux bridge)",
            "106/net0 → tap106i0 → vmbr2 (OVS, trunk 20,30-40)",
            "107/net0 → tap107i0 → vmbr2 (OVS, VLAN 5 untagged, trunk 20)",
            "300/net0 → veth300i0 → vmbr0 (Linux bridge)",
            "301/net0 → veth301i0 → fwbr301i0 → fwln301i0 → fwpr301p0 → vmbr0v20 (Linux bridge, VLAN 20)",
            "302/net0 → veth302i0 → fwbr302i0 → fwln302o0 → vmbr2 (OVS)",
        ]
    );
    let why = "  no session takes it: there are none";
    assert_eq!(said.lines().filter(|line| *line == why).count(), 10);
    node.span_cfg("# none yet\n");
    let said = explained(&node, &["101"]);
    assert_eq!(
        said,
        "VM 101\n\n101/net0 → tap101i0 → vmbr2 (OVS)\n  no session takes it: there are none\n"
    );
}

#[test]
fn a_firewall_bridge_is_told_where_there_is_one_whatever_the_checkbox_says() {
    let node = linux_guests(&[]);
    node.use_nftables_firewall();
    start(&node, &[vm_on(101, "bridge=vmbr0,firewall=1")]);
    assert_eq!(
        ways(&explained(&node, &["101"])),
        ["101/net0 → tap101i0 → vmbr0 (Linux bridge)"]
    );
}

#[test]
fn a_vlan_aware_bridge_s_vlans_are_told() {
    let node = linux_guests(&[sensor_on(200, "bridge=vmbr0")]);
    let Some(()) = or_skip(node.linux_bridge_vlan_aware("vmbr1")) else {
        return;
    };
    start(
        &node,
        &[
            vm_on(101, "bridge=vmbr1,tag=30"),
            vm_on(102, "bridge=vmbr1,firewall=1,trunks=5;6"),
            vm_on(103, "bridge=vmbr1"),
        ],
    );
    assert_eq!(
        ways(&explained(&node, &["101", "102", "103"])),
        [
            "101/net0 → tap101i0 → vmbr1 (VLAN-aware Linux bridge, VLAN 30)",
            "102/net0 → tap102i0 → fwbr102i0 → fwln102i0 → fwpr102p0 → vmbr1 (VLAN-aware Linux bridge, trunk 5-6)",
            "103/net0 → tap103i0 → vmbr1 (VLAN-aware Linux bridge)",
        ]
    );
}

#[test]
fn where_frames_are_copied_is_told_for_every_plug_and_both_engines() {
    let node = every_plug();
    let text = "[after]\nsource = all\noutput = 200/net1\n\
                [before]\nsource = all\npoint = guest\ndirection = from\noutput = 201/net1, port:eno2\n\
                [rspan]\nsource = 101, 103\noutput = vlan:999\n\
                [whole]\nsource = bridge:vmbr0\noutput = 201/net1\n";
    node.span_cfg(text);
    let (_, _, err) = run(&node, &["apply"]);
    assert_eq!(
        err.matches("103/net0 is not mirrored to vlan:999").count(),
        1,
        "{err}"
    );
    node.settle();
    pinned("copied", &explained(&node, &EVERY_GUEST));
    pinned("arrives", &explained(&node, &["200/net1", "201/net1"]));
}

#[test]
fn whether_it_is_so_now_is_told() {
    let node = guests(&[vm(101, ""), vm(102, ""), sensor(200)]);
    let text = "[copies]\nsource = 101\nfilter = tcp\noutput = 200/net1\n[dmz]\nsource = 101\noutput = 200/net1\n";
    node.span_cfg(text);
    let force = |args: &[&str]| -> Vec<String> {
        let (_, report) = json(&node, args);
        let parts = report["guests"][0]["nics"][0]["sessions"]
            .as_array()
            .unwrap();
        let legs = parts
            .iter()
            .flat_map(|part| part["outputs"].as_array().unwrap());
        legs.map(|leg| leg["in_force"]["is"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(force(&["101"]), ["no", "no"]);
    let not_yet = "  not in force yet: see pve-span plan, then pve-span apply\n";
    assert_eq!(explained(&node, &["101"]).matches(not_yet).count(), 2);
    apply(&node, text);
    assert_eq!(force(&["101"]), ["yes", "yes"]);

    // A file that has changed since.
    node.span_cfg(
        &text
            .replace("filter = tcp", "filter = udp")
            .replace("[dmz]\n", "[dmz]\nsnaplen = 99\n"),
    );
    assert_eq!(force(&["101"]), ["differs", "differs"]);
    // What the file no longer has, and is still there.
    node.span_cfg("[copies]\nsource = 102\nfilter = tcp\noutput = 200/net1\n[dmz]\nsource = 102\noutput = 200/net1\n");
    let still = "takes 102; still mirrored: see pve-span plan, then pve-span apply\n";
    assert_eq!(explained(&node, &["101"]).matches(still).count(), 2);
    node.span_cfg(text);
    assert_eq!(force(&["101"]), ["yes", "yes"]);

    // Somebody else takes it away; a port that is plugged anew is in no mirror.
    node.replug("101/net0");
    assert_eq!(force(&["101"]), ["yes", "no"]);
    node.nft("flush ruleset\n");
    assert_eq!(force(&["101"]), ["no", "no"]);
    apply(&node, text);

    // Committed, and nobody acts on it.
    node.kill_vswitchd();
    node.ovs_vsctl(&["--no-wait", "set", "bridge", "vmbr2", "other_config:x=1"]);
    node.ovs_vsctl(&["--no-wait", "set", "open_vswitch", ".", "next_cfg=9999"]);
    assert_eq!(force(&["101"]), ["yes", "committed"]);
}

#[test]
fn what_apply_cannot_bring_about_is_told_with_the_reason() {
    let node = guests(&[vm(101, ""), sensor(200)]);
    for number in 0..32 {
        scene::their_mirror(
            &node,
            &[&format!("name=theirs{number}"), "output_port=@tap200i1"],
        );
    }
    node.span_cfg("[dmz]\nsource = 101\noutput = 200/net1\n");
    let said = explained(&node, &["101"]);
    let full = "  not in force: no mirror to 200/net1 on vmbr2: Open vSwitch allows 32 mirrors a bridge, and it has that many \
                (32 of them not pve-span's); use fewer sessions or outputs on this bridge\n";
    assert!(said.contains(full), "{said}");
    let said = explained(&node, &["200/net1"]);
    assert!(said.contains(full), "{said}");
    let shared = "  200/net1 is also the output of mirror `theirs";
    assert!(said.contains(shared), "{said}");
}

#[test]
fn which_frames_are_taken_is_told() {
    let node = guests(&[vm(101, ""), sensor(200)]);
    let chosen = |keys: &str| {
        node.span_cfg(&format!("[dmz]\nsource = 101\n{keys}output = 200/net1\n"));
        let said = explained(&node, &["101"]);
        let taken = said
            .lines()
            .find(|line| line.starts_with("  taken "))
            .unwrap();
        taken.replace("  taken by `101` (span.cfg:2): ", "")
    };
    assert_eq!(chosen("direction = from\n"), "what it sends");
    assert_eq!(
        chosen("direction = to\nsnaplen = 96\n"),
        "what is delivered to it; the first 96 bytes of each frame"
    );
    assert_eq!(
        chosen("vlan = 10, 20-22\nfilter = tcp port 80\nsample = 1/10\ndedup = no\n"),
        "what it sends and what is delivered to it; VLAN 10,20-22 only; only `tcp port 80`; one frame in 10; \
         frames between two sources twice with nft"
    );
}

#[test]
fn frames_are_counted() {
    let node = linux_guests(&[
        vm_on(101, "bridge=vmbr0"),
        vm_on(102, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr0"),
    ]);
    apply(
        &node,
        "[dmz]\nsource = 101\ndirection = from\noutput = 200/net1\n",
    );
    for number in 0..3 {
        let frame = node.frame("101/net0", "102/net0", &format!("frame-{number}"));
        node.send("101/net0", &frame);
    }
    wait_until("three frames are counted", || {
        let (_, report) = json(&node, &["101", "200"]);
        let [source, sensor] = [0, 1].map(|guest| {
            report["guests"][guest]["nics"]
                .as_array()
                .unwrap()
                .last()
                .unwrap()
                .clone()
        });
        source["sessions"][0]["outputs"][0]["frames"] == 3 && sensor["arrivals"][0]["frames"] == 3
    });
}

#[test]
fn the_data_has_the_path_as_a_list() {
    let node = readme_node();
    node.span_cfg(DMZ_IDS);
    let (code, out, err) = explain(&node, &["101", "200/net1", "--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    pinned("json", &out);
}

#[test]
fn words_are_wrapped_to_a_terminal_and_a_path_is_one_line() {
    let node = readme_node();
    apply(&node, DMZ_IDS);
    let on_terminal = |columns: u32, environment: &str| {
        let mut script = node.command("script");
        let binary = lab::binary();
        let command = format!(
            "stty cols {columns} rows 50; {environment} {} explain 101 --root {}",
            binary.display(),
            node.root().display()
        );
        script.args(["-q", "-e", "-c", &command, "/dev/null"]);
        lab::run(script, "").replace('\r', "")
    };
    for columns in [60, 80, 200] {
        let plain = on_terminal(columns, "NO_COLOR=1");
        let words = plain.lines().filter(|line| !line.contains(" → "));
        let widest = words.map(|line| line.chars().count()).max().unwrap();
        assert!(
            widest <= columns as usize,
            "{widest} of {columns}:\n{plain}"
        );
        assert_eq!(ways(&plain).len(), 1);
        assert!(!plain.contains('\u{1b}'));
    }
    let coloured = on_terminal(80, "");
    assert!(
        coloured.contains("\u{1b}[1mVM 101 (web1)\u{1b}[0m"),
        "{coloured}"
    );
    assert!(
        coloured.contains("\u{1b}[32min force\u{1b}[0m"),
        "{coloured}"
    );
}
