//! Mirrors that others have made, taken over: as sessions, and without a frame lost or doubled.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::fs;

use lab::{Node, try_run};
use scene::editing::at_terminal;
use scene::{apply, mirrors, run, sensor, stderr, stdout, their_mirror, three_guests, told, vm};
use serde_json::Value;

/// The row of a mirror, by its name.
fn row(node: &Node, name: &str) -> String {
    let find = format!("name={name}");
    let uuid = node.ovs_vsctl(&["--bare", "--columns=_uuid", "find", "Mirror", &find]);
    uuid.trim().to_owned()
}

/// The names of all mirrors.
fn names(node: &Node) -> Vec<String> {
    let names = node.ovs_vsctl(&["--bare", "--columns=name", "list", "Mirror"]);
    let mut names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
    names.sort();
    names
}

/// Runs a line of the guidance on the node, as it is to be typed.
#[track_caller]
fn type_in(node: &Node, line: &str) {
    let socket = format!(
        "--db=unix:{}",
        node.path("run/openvswitch/db.sock").display()
    );
    let line = line.replace("ovs-vsctl ", &format!("ovs-vsctl {socket} "));
    let pve_span = format!(
        "{} --root {}",
        lab::binary().display(),
        node.root().display()
    );
    let line = line.replace("pve-span ", &format!("{pve_span} "));
    let mut shell = node.command("sh");
    shell.args(["-ec", &line]);
    let output = try_run(shell, "");
    assert!(output.status.success(), "{line}: {}", told(&output));
    node.forget_flows();
}

/// Like [`run`], the node's root taken out of what is said.
#[track_caller]
fn import(node: &Node, args: &[&str]) -> (i32, String, String) {
    let output = node.pve_span(&[&["import"], args].concat());
    let root = node.root().display().to_string();
    (
        output.status.code().unwrap(),
        stdout(&output).replace(&root, ""),
        stderr(node, &output),
    )
}

/// The commands that the guidance gives, in its order.
fn commands(said: &str) -> Vec<String> {
    let lines = said.lines().filter_map(|line| line.strip_prefix("     "));
    lines
        .map(|line| line.split("   #").next().unwrap().to_owned())
        .collect()
}

const SPAN0: [&str; 4] = [
    "name=span0",
    "select_src_port=@tap101i0",
    "select_dst_port=@tap101i0",
    "output_port=@tap200i1",
];

#[test]
fn mirrors_of_others_become_sessions_and_the_way_over_is_shown() {
    let node = three_guests();
    their_mirror(&node, &SPAN0);
    their_mirror(
        &node,
        &[
            "name=all_of_it",
            "select_all=true",
            "select_vlan=10,20",
            "snaplen=96",
            "output_vlan=999",
        ],
    );
    apply(&node, "[span0]\nsource = 102\noutput = 200/net1\n");
    let before = names(&node);
    let (code, out, err) = import(&node, &[]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        out,
        "# Sessions for span.cfg, by `pve-span import`.\n\
         \n# From mirror all_of_it of vmbr2\n[all-of-it]\nsource = bridge:vmbr2\nvlan = 10,20\nsnaplen = 96\noutput = vlan:999\n\
         \n# From mirror span0 of vmbr2\n[span0-2]\nsource = 101/net0\noutput = 200/net1\n"
    );
    let uuids = [row(&node, "all_of_it"), row(&node, "span0")];
    assert_eq!(
        err,
        format!(
            "\nTo take the old mirrors over without a gap:\n\
             1. Append these sessions to span.cfg:\n     pve-span import --write\n\
             2. Bring them into force, beside the old mirrors:\n     pve-span apply\n\
             3. See that each is active:\n     pve-span status\n\
             4. Switch off what makes the old mirrors (hookscripts, units, cron, /etc/network/interfaces): it makes them anew.\n\
             5. Remove the old mirrors, each by itself:\n     \
             ovs-vsctl -- --id=@m get Mirror {} -- remove Bridge vmbr2 mirrors @m   # all_of_it\n     \
             ovs-vsctl -- --id=@m get Mirror {} -- remove Bridge vmbr2 mirrors @m   # span0\n",
            uuids[0], uuids[1]
        )
    );
    assert_eq!(names(&node), before, "it only tells");
    // What it prints is a span.cfg by itself, too.
    let alone = node.path("alone.cfg");
    fs::write(&alone, &out).unwrap();
    let (code, checked, _) = run(&node, &["check", alone.to_str().unwrap()]);
    assert_eq!(
        (code, checked.as_str()),
        (0, "/alone.cfg is valid: 2 sessions\n")
    );
}

#[test]
fn the_takeover_loses_and_doubles_no_frame() {
    let node = three_guests();
    node.introduce("101/net0", "102/net0");
    their_mirror(&node, &SPAN0);
    their_mirror(
        &node,
        &[
            "name=span1",
            "select_dst_port=@tap102i0",
            "output_port=@tap200i1",
        ],
    );
    node.forget_flows();
    let sensor = node.counter("200/net1", "takeover");
    let load = node.load("101/net0", "102/net0", "takeover", 4000);
    load.wait_for(500);
    let (_, _, err) = import(&node, &[]);
    let steps = commands(&err);
    assert_eq!(steps.len(), 5, "{err}");
    assert_eq!(steps[0], "pve-span import --write");
    for step in steps {
        let step = step.replace("--write", "--write --yes");
        type_in(&node, &step);
        load.wait_for(500);
    }
    let (sent, at_guest) = load.finish();
    let at_sensor = sensor.finish();
    assert_eq!(at_guest.lost(0..sent), []);
    assert_eq!(
        (at_sensor.lost(0..sent), at_sensor.doubled()),
        (vec![], vec![]),
        "{at_sensor:?}"
    );
    assert!(sent > 3000, "{sent}");
    assert!(
        !names(&node)
            .iter()
            .any(|name| name == "span0" || name == "span1")
    );
    // 101's frames both ways and 102's incoming ones: two directions, so two sessions.
    assert_eq!(
        mirrors(&node),
        [
            "span0 tap200i1: from tap101i0, to tap101i0",
            "span1 tap200i1: from , to tap102i0"
        ]
    );
}

/// What proxmox-ovs-mirror has made of its `zone`: names as it gives them.
fn ovs_mirror(node: &Node) -> String {
    let conf = node.path("etc/ovs-mirror/mirrors.conf");
    fs::create_dir_all(conf.parent().unwrap()).unwrap();
    fs::write(
        &conf,
        "# zone 1\nvmbr2  vm101:0  200  1\nvmbr2  eno1  200  1  promisc=yes select=src\n",
    )
    .unwrap();
    their_mirror(
        node,
        &[
            "name=mirror_vmbr2_tap101i0_to_vm200i1",
            "select_src_port=@tap101i0",
            "select_dst_port=@tap101i0",
            "output_port=@tap200i1",
        ],
    );
    conf.to_str().unwrap().to_owned()
}

#[test]
fn the_rules_of_proxmox_ovs_mirror_become_sessions() {
    let node = three_guests();
    let conf = ovs_mirror(&node);
    for (path, text) in [
        (
            "var/lib/vz/snippets/ovs-mirror-hook.sh",
            "#!/bin/bash\n/usr/local/bin/configure-ovs-mirrors.sh --vm \"$1\"\n",
        ),
        (
            "etc/systemd/system/ovs-mirrors.service",
            "[Service]\nExecStart=/usr/local/bin/configure-ovs-mirrors.sh --all\n",
        ),
        ("etc/cron.d/other", "* * * * * root true\n"),
    ] {
        fs::create_dir_all(node.path(path).parent().unwrap()).unwrap();
        fs::write(node.path(path), text).unwrap();
    }
    node.edit(101, |guest| {
        guest.set("hookscript", "local:snippets/ovs-mirror-hook.sh")
    });
    let (code, out, err) = import(&node, &["--mirrors-conf", &conf]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        out,
        "# Sessions for span.cfg, by `pve-span import`.\n\
         \n# From mirrors.conf, line 2: vmbr2  vm101:0  200  1\n[guest-101-net0]\nsource = 101/net0\noutput = 200/net1\n\
         \n# From mirrors.conf, line 3: vmbr2  eno1  200  1  promisc=yes select=src\n\
         #   promisc=yes is not needed: Open vSwitch makes its ports promiscuous by itself\n[eno1]\nsource = port:eno1\ndirection = from\noutput = 200/net1\n"
    );
    assert_eq!(
        commands(&err),
        [
            "pve-span import --mirrors-conf /etc/ovs-mirror/mirrors.conf --write",
            "pve-span apply",
            "pve-span status",
            "/etc/systemd/system/ovs-mirrors.service: systemctl disable --now ovs-mirrors.service",
            "/var/lib/vz/snippets/ovs-mirror-hook.sh",
            "qm set 101 --hookscript local:snippets/pve-span",
            &format!(
                "ovs-vsctl -- --id=@m get Mirror {} -- remove Bridge vmbr2 mirrors @m",
                row(&node, "mirror_vmbr2_tap101i0_to_vm200i1")
            ),
        ],
        "{err}"
    );

    fs::write(
        &conf,
        "vmbr2 vm101:0 200\nvmbr2 vm102:0 200 1 # the other one\n",
    )
    .unwrap();
    let (code, out, err) = import(&node, &["--mirrors-conf", &conf]);
    assert_eq!(code, 1, "a line is missing");
    assert!(out.contains("\n[guest-102-net0]\n"), "{out}");
    assert!(
        err.starts_with(
            "/etc/ovs-mirror/mirrors.conf:1:1: error: 3 of at least 4 words are here\n 1 | vmbr2 vm101:0 200\n   \
             | ^^^^^^^^^^^^^^^^^\n   = a line is: BRIDGE SOURCE"
        ),
        "{err}"
    );
    assert!(
        err.contains("None of the old mirrors is in Open vSwitch now"),
        "{err}"
    );
    let (code, _, err) = import(&node, &["--mirrors-conf", "/no/such/file"]);
    assert_eq!(
        (code, err.as_str()),
        (
            2,
            "pve-span: error: cannot read /no/such/file: No such file or directory (os error 2)\n"
        )
    );
}

#[test]
fn written_sessions_stand_behind_what_is_there_and_are_served() {
    let node = three_guests();
    let conf = ovs_mirror(&node);
    fs::write(&conf, "vmbr2 tap101i0 200 1\n").unwrap();
    let existing = "# mine\n[mine]\nsource = 102\noutput = 200/net1";
    node.span_cfg(existing);
    assert_eq!(run(&node, &["apply"]).0, 0);
    let (code, _, err) = import(&node, &["--mirrors-conf", &conf, "--write"]);
    assert_eq!(
        (code, err.as_str()),
        (
            1,
            "pve-span: error: import --write asks before it writes, and needs a terminal for it; --yes does without\n"
        )
    );
    let (code, out, err) = import(&node, &["--mirrors-conf", &conf, "--write", "--yes"]);
    assert_eq!(code, 0, "{out}{err}");
    let file = fs::read_to_string(node.path("etc/pve/span.cfg")).unwrap();
    let added = "\n# From mirrors.conf, line 1: vmbr2 tap101i0 200 1\n[guest-101-net0]\nsource = 101/net0\noutput = 200/net1\n";
    assert_eq!(file, format!("{existing}\n{added}"));
    assert!(out.starts_with(added), "{out}");
    assert!(
        out.contains("vmbr2 guest-101-net0 → 200/net1: + source 101/net0 (tap101i0), both\n"),
        "{out}"
    );
    assert!(commands(&err)[0] == "pve-span apply", "{err}");
    // A second time there is nothing to write, and the way goes on where it was.
    let (code, out, err) = import(&node, &["--mirrors-conf", &conf]);
    assert_eq!(code, 0);
    assert!(
        out.contains("# It is in span.cfg already: [guest-101-net0]\n"),
        "{out}"
    );
    assert_eq!(commands(&err)[0], "pve-span apply", "{err}");
    assert!(err.contains("remove Bridge vmbr2"), "{err}");
    let (code, _, err) = import(&node, &["--mirrors-conf", &conf, "--write", "--yes"]);
    assert_eq!((code, err.as_str()), (0, "there is nothing to write\n"));
    assert_eq!(run(&node, &["apply"]).0, 0);
    assert_eq!(run(&node, &["status"]).0, 0);
}

#[test]
fn at_a_terminal_it_asks_before_it_appends() {
    let node = three_guests();
    their_mirror(&node, &SPAN0);
    let question = "Append these sessions to /etc/pve/span.cfg? [y/N] ";
    let import = || node.pve_span_command(&["import", "--write"]);
    let (code, said) = at_terminal(&node, import(), "\n");
    let end = format!("{question}/etc/pve/span.cfg stays as it was\n");
    assert!(code == 1 && said.ends_with(&end), "{said}");
    assert!(!node.path("etc/pve/span.cfg").exists());
    let (code, said) = at_terminal(&node, import(), "y\n");
    assert!(code == 0 && said.contains(question), "{said}");
    let file = fs::read_to_string(node.path("etc/pve/span.cfg")).unwrap();
    assert_eq!(
        file,
        "# From mirror span0 of vmbr2\n[span0]\nsource = 101/net0\noutput = 200/net1\n"
    );
}

#[test]
fn nothing_is_appended_to_a_file_that_is_not_in_force() {
    let node = three_guests();
    their_mirror(&node, &SPAN0);
    apply(&node, "[mine]\nsource = 102\noutput = 200/net1\n");
    let span_cfg = node.path("etc/pve/span.cfg");
    for broken in [
        "[mine]\nsouce = 102\n",
        "",
        "[mine]\nsource = 102\noutput = 200/ne",
    ] {
        node.span_cfg(broken);
        let (code, _, err) = import(&node, &["--write", "--yes"]);
        assert_eq!(code, 1);
        assert!(
            err.contains(
                "nothing is appended to a file that is not in force: /etc/pve/span.cfg is "
            ),
            "{err}"
        );
        assert_eq!(fs::read_to_string(&span_cfg).unwrap(), broken);
    }
    fs::remove_file(&span_cfg).unwrap();
    let (code, _, err) = import(&node, &["--write", "--yes"]);
    assert_eq!(code, 1);
    assert!(err.contains("a new file would end those sessions"), "{err}");
    assert!(!span_cfg.exists());
}

#[test]
fn what_pve_span_refuses_here_is_a_comment_with_the_reason() {
    let node = three_guests();
    their_mirror(
        &node,
        &[
            "name=into_itself",
            "select_src_port=@tap101i0",
            "output_port=@vmbr2",
        ],
    );
    their_mirror(&node, &["name=no_output", "select_src_port=@tap102i0"]);
    let (code, out, err) = import(&node, &[]);
    assert_eq!(code, 1);
    assert!(
        out.contains(
            "\n#[into-itself]\n#source = 101/net0\n#direction = from\n#output = port:vmbr2\n"
        ),
        "{out}"
    );
    assert!(out.contains("\n# Refused: port:vmbr2: "), "{out}");
    assert!(
        out.contains("\n# Not taken over: mirror no_output of vmbr2\n#   it has no output, or none any more, and mirrors nothing\n"),
        "{out}"
    );
    assert_eq!(
        err,
        "none of these mirrors can be a session: nothing is taken over, and they stay as they are\n"
    );
    let (code, _, err) = import(&node, &["--write", "--yes"]);
    assert_eq!((code, err.as_str()), (1, "there is nothing to write\n"));
}

#[test]
fn a_sensor_behind_its_firewall_bridge_is_served_by_the_other_engine_and_that_is_said() {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    node.add(&vm(101, ""));
    node.add(&sensor(200).net(1, "virtio=BC:24:11:2A:01:C8,bridge=vmbr2,firewall=1"));
    node.start_guests([101, 200]);
    their_mirror(
        &node,
        &[
            "name=span0",
            "select_src_port=@tap101i0",
            "output_port=@fwln200o1",
        ],
    );
    let (code, out, err) = import(&node, &[]);
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("[span0]\nsource = 101/net0\ndirection = from\noutput = 200/net1\n"),
        "{out}"
    );
    assert!(
        err.contains("Note: span0 → 200/net1 will be served by nftables (nft: "),
        "{err}"
    );
    assert!(err.contains("frames may arrive twice\n"), "{err}");
}

#[test]
fn json_has_the_same() {
    let node = three_guests();
    their_mirror(&node, &SPAN0);
    their_mirror(&node, &["name=no_output", "select_src_port=@tap102i0"]);
    let (code, out, err) = import(&node, &["--json"]);
    assert_eq!((code, err.as_str()), (1, ""));
    let report: Value = serde_json::from_str(&out).unwrap();
    let session = &report["sessions"][0];
    assert_eq!(session["name"], "span0");
    assert_eq!(session["source"][0], "101/net0");
    assert_eq!(
        (&session["direction"], &session["output"][0]),
        (&"both".into(), &"200/net1".into())
    );
    assert_eq!(session["from"][0], "mirror span0 of vmbr2");
    assert_eq!(
        report["not_taken_over"][0]["from"],
        "mirror no_output of vmbr2"
    );
    assert_eq!(report["remove"].as_array().unwrap().len(), 1);
    assert!(report["span_cfg"].as_str().unwrap().contains("[span0]"));
}

#[test]
fn without_mirrors_or_without_an_answer_it_says_so() {
    let node = three_guests();
    apply(&node, "[mine]\nsource = 102\noutput = 200/net1\n");
    assert_eq!(
        import(&node, &[]),
        (
            0,
            String::new(),
            "there are no mirrors in Open vSwitch, but pve-span's own: nothing to take over (tc's mirred is not looked at)\n"
                .into()
        )
    );
    node.stop_ovsdb();
    let (code, out, err) = import(&node, &[]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        err.starts_with("pve-span: error: cannot read Open vSwitch's mirrors: "),
        "{err}"
    );
}
