//! `explain`: what becomes of each NIC's frames, for every way that a NIC can be plugged, and what is said.
//!
//! What is said is pinned whole, in `tests/explain/`; `UPDATE_EXPLAIN=1 cargo test --test explain` writes it anew, and
//! the diff shows what changed.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use lab::{Guest, Node, or_skip, wait_until};
use scene::linux::{ct_on, linux_guests, mixed_guests, sensor_on, start, vm_on};
use scene::{apply, guests, run, sensor, vm};
use serde_json::Value;

/// Exit code, stdout and stderr of `explain`.
fn explain(node: &Node, args: &[&str]) -> (i32, String, String) {
    run(node, &[&["explain"], args].concat())
}

/// What it says, without a word on stderr and with exit code 0, and without what was counted: Open vSwitch counts when
/// it likes.
#[track_caller]
fn explained(node: &Node, args: &[&str]) -> String {
    let (code, out, err) = explain(node, args);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let uncounted = |line: &str| {
        let counted = line.starts_with("  in force; ");
        format!("{}\n", if counted { "  in force" } else { line })
    };
    out.lines().map(uncounted).collect()
}

fn json(node: &Node, args: &[&str]) -> (i32, Value) {
    let (code, out, _) = explain(node, &[args, &["--json"]].concat());
    (code, serde_json::from_str(&out).unwrap())
}

/// The ways that it tells of: the lines with arrows.
fn ways(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.contains(" → ")).collect()
}

/// Is that what the file has?
#[track_caller]
fn pinned(name: &str, said: &str) {
    let path = format!("{}/tests/explain/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_EXPLAIN").is_some() {
        std::fs::write(&path, said).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(said, wanted, "{path}");
}

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
    let why = "  no session takes it: there is no /etc/pve/span.cfg";
    assert_eq!(said.lines().filter(|line| *line == why).count(), 10);
    node.span_cfg("# none yet\n");
    let said = explained(&node, &["101"]);
    assert_eq!(
        said,
        "VM 101\n\n101/net0 → tap101i0 → vmbr2 (OVS)\n  no session takes it: there are none\n"
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
         \x20 it has a port here, while its config is filed under node pve2: it is migrating\n\n\
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
        "pve-span: error: guest 101 has no net7: it has net0\n\
         pve-span: error: there is no guest 999 in the cluster\n"
    );
    let (code, report) = json(&node, &["999"]);
    assert_eq!(
        (code, &report["errors"][0]),
        (1, &"there is no guest 999 in the cluster".into())
    );
    let (code, out, err) = explain(&node, &["web1"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        err.contains("`web1` is neither a guest (101) nor a NIC (101/net0)"),
        "{err}"
    );
    assert_eq!(explain(&node, &[]).0, 2);
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
    let unknown = "  prod: cannot tell what `pool:prod` (span.cfg:8) means for it: /etc/pve/user.cfg is not understood: it is empty; what is mirrored stays so\n";
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
    ]);
    apply(&node, "[dmz]\nsource = 101, 102\noutput = 200/net1\n");
    node.pause_ovsdb();
    let (code, out, err) = explain(&node, &["101", "102"]);
    node.resume_ovsdb();
    assert_eq!(code, 2);
    assert!(
        err.starts_with(
            "pve-span: error: Open vSwitch cannot be asked, and what is on it is missing here: "
        ),
        "{err}"
    );
    assert!(
        out.contains("101/net0 → tap101i0 → fwbr101i0\n  tap101i0 is in no Linux bridge, and "),
        "{out}"
    );
    assert!(
        out.contains("102/net0 → tap102i0 → session dmz → tap200i1 → 200/net1\n"),
        "{out}"
    );

    let node = linux_guests(&[vm_on(101, "bridge=vmbr0"), sensor_on(200, "bridge=vmbr0")]);
    apply(&node, "[dmz]\nsource = 101\noutput = 200/net1\n");
    let (code, said, err) = explain(&node, &["101"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        ways(&said)[1],
        "101/net0 → tap101i0 → session dmz → tap200i1 → 200/net1"
    );
    assert!(
        said.contains("  in force; 0 frames so far from all its sources\n"),
        "{said}"
    );
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
