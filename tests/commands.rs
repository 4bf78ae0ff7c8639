//! The commands that administrators type: what they print, and their exit codes.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use clap::CommandFactory as _;
use lab::{Guest, Node};
use pve_span::cli::Cli;
use scene::{apply, guests, mirrors, run, sensor, their_mirror, three_guests, told, vm};
use serde_json::Value;

const SPAN_CFG: &str = "[dmz]\nsource = 101, 102\noutput = 200/net1\n";

fn json(node: &Node, args: &[&str]) -> (i32, Value) {
    let (code, out, _) = run(node, args);
    (code, serde_json::from_str(&out).unwrap())
}

#[test]
fn plan_shows_what_apply_does_and_then_nothing() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    let (code, out, err) = run(&node, &["plan"]);
    assert_eq!((code, err.as_str()), (2, ""));
    assert_eq!(
        out,
        "dmz → 200/net1: engine ovs: same bridge, vmbr2\n\
         vmbr2 dmz → 200/net1: create mirror\n\
         vmbr2 dmz → 200/net1: output tap200i1\n\
         vmbr2 dmz → 200/net1: + source 101/net0 (tap101i0), both\n\
         vmbr2 dmz → 200/net1: + source 102/net0 (tap102i0), both\noutput 200/net1 (tap200i1): offloads off, for frames as on a wire\n"
    );
    assert_eq!(mirrors(&node), [] as [&str; 0], "a plan changes nothing");
    let (code, out, err) = run(&node, &["apply"]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (
            0,
            "dmz: mirrors 101/net0, 102/net0 to 200/net1 (ovs, vmbr2)\noutput 200/net1 (tap200i1): offloads off, for frames as on a wire\n",
            ""
        )
    );
    let (code, out, _) = run(&node, &["plan"]);
    assert_eq!(
        (code, out.as_str()),
        (
            0,
            "dmz → 200/net1: engine ovs: same bridge, vmbr2\nnothing to do\n"
        )
    );
    assert_eq!(
        run(&node, &["apply"]),
        (0, "nothing to do\n".into(), String::new())
    );
}

#[test]
fn changes_are_made_in_place() {
    let node = three_guests();
    apply(&node, SPAN_CFG);
    let row = || node.ovs_vsctl(&["--bare", "--columns=_uuid", "list", "Mirror"]);
    let before = row();
    node.span_cfg(
        "[dmz]\nsource = 101\ndirection = to\nvlan = 10, 20-21\nsnaplen = 96\noutput = 200/net1\n",
    );
    let (code, out, _) = run(&node, &["plan"]);
    assert_eq!(code, 2);
    assert_eq!(
        out,
        "dmz → 200/net1: engine ovs: same bridge, vmbr2\n\
         vmbr2 dmz → 200/net1: VLAN 10,20-21 only\n\
         vmbr2 dmz → 200/net1: the first 96 bytes of each frame\n\
         vmbr2 dmz → 200/net1: ~ source 101/net0 (tap101i0), to instead of both\n\
         vmbr2 dmz → 200/net1: - source 102/net0 (tap102i0)\n"
    );
    let (code, out, _) = run(&node, &["apply"]);
    assert_eq!(code, 0);
    assert_eq!(
        out,
        "dmz: no longer mirrors 102/net0 to 200/net1 (ovs, vmbr2), changes 101/net0 (to) to 200/net1 (ovs, vmbr2), \
         VLAN 10,20-21 only, the first 96 bytes of each frame\n"
    );
    assert_eq!(mirrors(&node), ["dmz tap200i1: from , to tap101i0"]);
    assert_eq!(row(), before, "it is still the same row");
}

#[test]
fn check_tells_every_fault_and_exits_accordingly() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    assert_eq!(
        run(&node, &["check"]),
        (
            0,
            "/etc/pve/span.cfg is valid: 1 session\n".into(),
            String::new()
        )
    );

    node.span_cfg("[dmz]\nsource = 101, 105, 102/net7, pool:prud, node:pve9\noutput = 200/net1\n");
    node.user_cfg("pool:prod:::\n");
    let (code, out, _) = run(&node, &["check"]);
    assert_eq!(code, 0, "only warnings");
    let file = "/etc/pve/span.cfg";
    let line = " 2 | source = 101, 105, 102/net7, pool:prud, node:pve9\n   | ";
    assert_eq!(
        out,
        format!(
            "{file}:2:15: warning: there is no guest 105\n{line}              ^^^\n\n\
             {file}:2:20: warning: guest 102 has no net7\n{line}                   ^^^^^^^^\n\n\
             {file}:2:30: warning: there is no pool `prud`\n{line}                             ^^^^^^^^^\n   = did you mean `prod`?\n\n\
             {file}:2:41: warning: there is no node `pve9`\n{line}                                        ^^^^^^^^^\n   = did you mean `pve1`?\n\n\
             {file} is valid: 1 session; 4 warnings\n"
        )
    );

    node.span_cfg("[dmz]\nsouce = 101\noutput = 200/net1\n");
    let (code, out, err) = run(&node, &["check"]);
    assert_eq!(code, 1);
    assert_eq!(
        out,
        format!(
            "{file}:2:1: error: unknown key `souce`\n 2 | souce = 101\n   | ^^^^^\n   = did you mean `source`?\n\n{file} is not valid: 1 error\n"
        )
    );
    assert_eq!(
        err,
        "pve-span: warning: there is no last good copy, so nothing is changed\n"
    );
    let (code, report) = json(&node, &["check", "--json"]);
    assert_eq!((code, &report["valid"]), (1, &Value::Bool(false)));
    assert_eq!(report["diagnostics"][0]["hint"], "did you mean `source`?");
    assert_eq!(report["diagnostics"][0]["column"], 1);

    node.span_cfg("[dmz]\nsource = 101\noutput = 200/net1\nfilter = tcp port 80\nsnaplen = 64\n");
    let (code, out, _) = run(&node, &["check"]);
    assert_eq!(code, 1, "valid, but not what was asked for");
    assert!(
        out.contains(
            "`snaplen` is refused: the nft engine, which `filter` needs, does not cut frames"
        ),
        "{out}"
    );

    // Guest configs that are not understood are named, and do not make span.cfg invalid.
    node.span_cfg(SPAN_CFG);
    node.edit(101, |guest| {
        guest.set("net3", "superfast=BC:24:11:2A:00:99,bridge=vmbr2")
    });
    let (code, _, err) = run(&node, &["check"]);
    assert_eq!(code, 0);
    assert!(
        err.starts_with("pve-span: warning: /etc/pve/nodes/pve1/qemu-server/101.conf:"),
        "{err}"
    );
    assert!(
        err.contains("`net3`: unknown NIC model `superfast`"),
        "{err}"
    );

    let missing = node.path("none.cfg");
    let (code, _, err) = run(&node, &["check", missing.to_str().unwrap()]);
    assert_eq!(
        (code, err.as_str()),
        (
            2,
            "pve-span: error: cannot read /none.cfg: No such file or directory (os error 2)\n"
        )
    );
}

#[test]
fn status_tells_how_each_session_does() {
    let node = guests(&[
        vm(101, ""),
        vm(102, ""),
        sensor(200),
        sensor(202).tags("off"),
    ]);
    node.stop_guest(202);
    node.add(&vm(103, ""));
    apply(
        &node,
        "[active]\nsource = 101, 103\noutput = 200/net1\n\
         [degraded]\nsource = 101\noutput = 202/net1\n\
         [disabled]\nsource = 101\noutput = 200/net1\nenabled = no\n\
         [expired]\nsource = 101\noutput = 200/net1\nexpires = 2020-01-01T00:00Z\n\
         [idle]\nsource = 103\noutput = 202/net1\n\
         [two]\nsource = 102\ndirection = from\noutput = 200/net1, 202/net1\n",
    );
    node.introduce("101/net0", "102/net0");
    let (code, out, err) = run(&node, &["status"]);
    let frames =
        |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    assert_eq!((code, err.as_str()), (1, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        frames(lines[0]),
        [
            "SESSION", "STATE", "SOURCES", "OUTPUT", "ENGINE", "FRAMES", "BYTES", "RATE"
        ]
    );
    assert!(
        lines[1].starts_with("active    active    1/2      200/net1  ovs: same bridge, vmbr2  "),
        "{out}"
    );
    assert!(
        lines[2].starts_with("degraded  degraded  1/1      202/net1  -"),
        "{out}"
    );
    assert_eq!(
        lines[3],
        "  nothing is mirrored to 202/net1: guest 202 is not running on this node"
    );
    assert!(
        lines[4].starts_with("disabled  disabled  1/1      -"),
        "{out}"
    );
    assert!(
        lines[5].starts_with("expired   expired   1/1      -"),
        "{out}"
    );
    assert!(
        lines[6].starts_with("idle      idle      0/1      202/net1  -"),
        "{out}"
    );
    assert!(
        lines[8].starts_with("two       degraded  1/1      200/net1  ovs"),
        "{out}"
    );
    assert!(
        lines[9].starts_with("                             202/net1  -"),
        "{out}"
    );
    assert!(!out.contains('\u{1b}'), "no colour but on a terminal");
}

#[test]
fn status_counts_what_was_mirrored() {
    let node = three_guests();
    apply(
        &node,
        "[dmz]\nsource = 101\ndirection = from\noutput = 200/net1\n",
    );
    node.introduce("101/net0", "102/net0");
    let mut guest = node.capture("102/net0");
    for number in 0..10 {
        let frame = node
            .frame("101/net0", "102/net0", &format!("frame-{number}-"))
            .padded_to(500);
        node.send("101/net0", &frame);
    }
    guest.wait_for(|frame| frame.contains("frame-9-"));
    // ovs-vswitchd writes its counters every few seconds.
    lab::wait_until("the counters", || {
        let (code, report) = json(&node, &["status", "--json"]);
        let output = &report["sessions"][0]["outputs"][0];
        code == 0 && output["frames"].as_u64() >= Some(10) && output["bytes"].as_u64() >= Some(5000)
    });
    let (_, report) = json(&node, &["status", "--json"]);
    let session = &report["sessions"][0];
    assert_eq!(
        (&session["name"], &session["state"]),
        (&"dmz".into(), &"active".into())
    );
    assert_eq!(session["sources"]["total"], 1);
    assert_eq!(session["sources"]["present"][0]["nic"], "101/net0");
    assert_eq!(session["sources"]["present"][0]["port"], "tap101i0");
    assert_eq!(session["outputs"][0]["output"], "200/net1");
}

#[test]
fn ports_shows_how_each_nic_is_plugged_and_what_it_is_part_of() {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    node.linux_bridge("vmbr0");
    node.physical("eno1", "vmbr0");
    node.add(
        &vm(101, ",firewall=1,tag=10")
            .name("web1")
            .net(1, "e1000e=BC:24:11:2A:00:02,bridge=vmbr0")
            .net(2, "virtio=BC:24:11:2A:00:03"),
    );
    node.add(&vm(102, ",trunks=20;30-40").name("db"));
    node.add(
        &Guest::ct(300)
            .name("mon")
            .net(
                0,
                "name=eth0,bridge=vmbr0,firewall=1,hwaddr=BC:24:11:00:30:00,type=veth",
            )
            .net(
                1,
                "name=eth1,bridge=vmbr0,hwaddr=BC:24:11:00:30:01,tag=20,type=veth",
            ),
    );
    node.add(&sensor(200));
    node.start_guests([101, 102, 200, 300]);
    node.span_cfg("[dmz]\nsource = 101, 300\noutput = 200/net1\n[all]\nsource = bridge:vmbr2\noutput = 200/net1\n");
    let (code, out, _) = run(&node, &["ports"]);
    assert_eq!(code, 0);
    assert_eq!(
        out,
        "GUEST       NIC   DEVICE     PORT       BRIDGE    KIND   VLAN            FWBR  PART OF\n\
         101 web1    net0  tap101i0   fwln101o0  vmbr2     ovs    10              yes   source of all, source of dmz\n\
         101 web1    net1  tap101i1   tap101i1   vmbr0     linux  -               no    source of dmz\n\
         102 db      net0  tap102i0   tap102i0   vmbr2     ovs    trunk 20,30-40  no    source of all\n\
         200 sensor  net1  tap200i1   tap200i1   vmbr2     ovs    -               no    output of all, output of dmz\n\
         300 mon     net0  veth300i0  fwpr300p0  vmbr0     linux  -               yes   source of dmz\n\
         300 mon     net1  veth300i1  veth300i1  vmbr0v20  linux  20              no    source of dmz\n"
    );
    let (code, report) = json(&node, &["ports", "--json"]);
    assert_eq!(code, 0);
    assert_eq!(report["ports"][0]["firewall_bridge"], "fwbr101i0");
    assert_eq!(report["ports"][0]["type"], "qemu");
    assert_eq!(report["ports"][2]["trunks"].as_array().unwrap().len(), 12);
}

#[test]
fn tables_fit_a_terminal_and_have_colour_only_there() {
    let node = three_guests();
    apply(&node, SPAN_CFG);
    let on_terminal = |columns: u32, environment: &str| {
        let mut script = node.command("script");
        let binary = lab::binary();
        let command = format!(
            "stty cols {columns} rows 50; {environment} {} status --root {}",
            binary.display(),
            node.root().display()
        );
        script.args(["-q", "-e", "-c", &command, "/dev/null"]);
        lab::run(script, "").replace('\r', "")
    };
    for columns in [70, 80, 200] {
        let plain = on_terminal(columns, "NO_COLOR=1");
        let widest = plain
            .lines()
            .map(|line| line.chars().count())
            .max()
            .unwrap();
        assert!(
            widest <= columns as usize,
            "{widest} columns of {columns}:\n{plain}"
        );
        assert!(!plain.contains('\u{1b}'));
    }
    assert!(on_terminal(80, "").contains("\u{1b}[32mactive\u{1b}[0m"));
}

#[test]
fn clear_removes_ours_and_only_what_it_is_told() {
    let node = three_guests();
    apply(
        &node,
        "[a]\nsource = 101\noutput = 200/net1\n[b]\nsource = 102\noutput = 200/net1\n",
    );
    let (code, _, err) = run(&node, &["clear"]);
    assert_eq!(code, 64, "{err}");
    let (code, _, err) = run(&node, &["clear", "aa"]);
    assert_eq!(
        (code, err.as_str()),
        (
            64,
            "pve-span: error: there is no session `aa`, did you mean `a`?\n"
        )
    );
    let (code, out, err) = run(&node, &["clear", "a"]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (
            0,
            "a: no longer mirrors to 200/net1 (ovs, vmbr2): cleared\n",
            "pve-span: warning: span.cfg still lists a: the next reconcile brings the mirrors back; write `enabled = no` to keep a session off\n"
        )
    );
    assert_eq!(mirrors(&node), ["b tap200i1: from tap102i0, to tap102i0"]);
    // What carries our mark is ours, even if no file has ever listed it.
    their_mirror(&node, &["name=old", "external_ids:pve-span=Old_Session"]);
    node.unmount_pve();
    let (code, out, _) = run(&node, &["clear", "--all"]);
    assert_eq!(code, 0);
    assert!(out.contains("Old_Session"), "{out}");
    assert_eq!(mirrors(&node), [] as [&str; 0]);
    assert_eq!(run(&node, &["clear", "--all"]).1, "nothing to clear\n");
}

#[test]
fn on_a_node_without_sessions_everything_is_quiet() {
    let node = three_guests();
    node.span_cfg("# none yet\n");
    let none = |text: &str| (0, text.to_owned(), String::new());
    assert_eq!(run(&node, &["status"]), none("no sessions\n"));
    assert_eq!(run(&node, &["plan"]), none("nothing to do\n"));
    assert_eq!(run(&node, &["apply"]), none("nothing to do\n"));
}

/// Every command that people call, with arguments that make it a whole call.
fn every_call() -> Vec<Vec<String>> {
    let cli = Cli::command();
    let shown = cli
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    shown
        .map(|command| match command.get_name() {
            "explain" | "attach" | "detach" => {
                vec![command.get_name().to_owned(), "101".to_owned()]
            }
            "clear" | "verify" => vec![command.get_name().to_owned(), "dmz".to_owned()],
            name => vec![name.to_owned()],
        })
        .collect()
}

#[test]
fn without_a_span_cfg_every_command_says_what_writes_one() {
    let node = three_guests();
    let mut calls = every_call();
    // The service starts whatever /etc/pve does, and hooks have nothing to say. init and edit write the file, and edit
    // says what it begins with (tests/editing.rs).
    let silent = ["watch", "hook", "init", "edit"];
    calls.retain(|call| !silent.contains(&call[0].as_str()));
    calls.push(["clear", "--all"].map(str::to_owned).into());
    assert!(calls.len() > 11);
    for call in &calls {
        let args: Vec<&str> = call.iter().map(String::as_str).collect();
        let (_, out, err) = run(&node, &args);
        assert!(
            format!("{out}{err}").contains("pve-span init"),
            "{call:?}:\n{out}{err}"
        );
    }
    assert_eq!(
        run(&node, &["status"]),
        (
            0,
            "no sessions\n".to_owned(),
            "pve-span: warning: there is no /etc/pve/span.cfg: run `pve-span init`, which writes a first one\n"
                .to_owned()
        )
    );
    let guests = run(&node, &["hook", "101", "post-start"]);
    assert_eq!(guests, (0, String::new(), String::new()));
}

#[test]
fn another_user_than_root_is_told_so_by_every_command() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    // Where another user gets at it.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("pve-span");
    std::fs::copy(lab::binary(), &program).unwrap();
    let run = |args: &[String]| {
        let mut command = std::process::Command::new(&program);
        command.args(args).uid(65534).gid(65534).current_dir("/");
        lab::try_run(command, "")
    };
    for call in every_call().iter().filter(|call| call[0] != "hook") {
        let output = run(call);
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "pve-span: error: only root can do this: run as root\n",
            "{call:?}"
        );
        assert!(!output.status.success(), "{call:?}");
    }
    // A file of one's own can be checked.
    let file = folder.path().join("span.cfg");
    std::fs::write(&file, SPAN_CFG).unwrap();
    let output = run(&["check".to_owned(), file.display().to_string()]);
    assert!(output.status.success(), "{}", told(&output));
}
