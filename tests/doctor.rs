//! `pve-span doctor` as a whole: what it prints, that it changes nothing, and that nothing which hangs holds it.

#![allow(clippy::unwrap_used)]

mod doctor_lab;
mod fuse;
mod lab;
mod scene;

use std::collections::BTreeSet;

use doctor_lab::{fine, found, gone, look, look_by, sh};
use lab::{Node, wait_until};
use nix::sched::{CloneFlags, unshare};
use pve_span_core::doctor::Id;
use scene::linux::mixed_bridges;
use scene::{apply, run, three_guests};

const DMZ: &str = "[dmz]\nsource = 101\noutput = 200/net1\n";

/// A node where nothing is wrong, and the service.
fn well() -> (Node, lab::Watch) {
    let node = three_guests();
    node.put_package();
    for vmid in [101, 200] {
        node.edit(vmid, |guest| {
            guest.set("hookscript", "local:snippets/pve-span")
        });
    }
    let snippet = node.path("var/lib/vz/snippets/pve-span");
    sh(
        &node,
        &format!(
            "cp {} {}",
            node.path("usr/share/pve-span/hookscript").display(),
            snippet.display()
        ),
    );
    let unit = node.path("etc/systemd/system/pve-span.service");
    std::fs::create_dir_all(unit.parent().unwrap()).unwrap();
    std::fs::write(&unit, include_str!("../pve-config/pve-span.service")).unwrap();
    sh(
        &node,
        &format!("systemctl --root={} enable pve-span", node.root().display()),
    );
    apply(&node, DMZ);
    let watch = node.watch();
    // It is ready a moment before it has written down how sessions do.
    wait_until("the service's account", || {
        node.path("run/pve-span/state.json").exists()
    });
    (node, watch)
}

#[test]
fn on_a_node_where_nothing_is_wrong_it_says_so_in_a_line() {
    let (node, _watch) = well();
    let (code, out, err) = run(&node, &["doctor"]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, "nothing is wrong: 17 checks passed\n", "")
    );
    let (code, out, _) = run(&node, &["doctor", "-v"]);
    assert_eq!(code, 0);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let versions = format!(
        "ok: pve-span {}, Linux {} [versions]\n  seen: nftables ",
        env!("CARGO_PKG_VERSION"),
        kernel.trim()
    );
    assert!(out.contains(&versions), "{out}");
    assert_eq!(
        out.lines().filter(|line| line.starts_with("ok: ")).count(),
        17
    );
    let (_, findings) = look(&node);
    assert!(findings.iter().all(|finding| finding.severity == "ok"));
}

#[test]
fn findings_come_with_evidence_and_remedy_the_worst_first() {
    let (node, watch) = well();
    watch.kill();
    std::fs::remove_file(node.path("run/pve-span/state.json")).unwrap();
    std::fs::remove_file(node.path("var/lib/vz/snippets/pve-span")).unwrap();
    node.span_cfg(&format!("{DMZ}enabled = no\n"));
    let (code, out, err) = run(&node, &["doctor"]);
    assert_eq!((code, err.as_str()), (2, ""));
    assert_eq!(
        out,
        "error: guests 101 and 200 do not start here: the hookscript local:snippets/pve-span is missing [snippet-missing]\n\
         \x20 seen: /etc/pve/nodes/pve1/qemu-server/101.conf: hookscript: local:snippets/pve-span; there is no /var/lib/vz/snippets/pve-span\n\
         \x20 do: mkdir -p /var/lib/vz/snippets && install -m 755 /usr/share/pve-span/hookscript /var/lib/vz/snippets/pve-span\n\
         warning: changes are pending, and no service runs that would make them [plan-pending]\n\
         \x20 seen: pve-span plan has 2 changes (of dmz)\n  do: pve-span apply\n\
         note: session dmz is switched off [session-over]\n\
         \x20 seen: /etc/pve/span.cfg, [dmz], `enabled = no`\n  do: pve-span edit: change that key, or delete the session\n\
         note: the service does not run: between hooks nobody follows what happens to ports, bridges and span.cfg [service-stopped]\n\
         \x20 seen: there is no /run/pve-span/state.json; systemctl is-enabled pve-span.service: enabled\n\
         \x20 do: systemctl enable --now pve-span\n\
         1 error, 1 warning, 2 notes; 11 checks passed\n"
    );
}

#[test]
fn it_changes_nothing() {
    let node = mixed_bridges();
    node.put_package();
    apply(
        &node,
        "[a]\nsource = 101-104, 300\noutput = 200/net1, 201/net1\n",
    );
    node.span_cfg("[a]\nsource = 101\noutput = 201/net1\n[b]\nsource = all\noutput = 200/net1\n");
    let all = || {
        let of = |program: &str, args: &[&str]| {
            let mut command = node.command(program);
            command.args(args);
            lab::run(command, "")
        };
        let files = of(
            "sh",
            &[
                "-c",
                &format!(
                    "cd {} && find . -name openvswitch -prune -o -path ./var/log -prune -o -type f -exec md5sum {{}} + | sort -k2",
                    node.root().display()
                ),
            ],
        );
        let database = node.ovs_vsctl(&[
            "--format=json",
            "--columns=_uuid,name,mirrors,ports,other_config,external_ids",
            "list",
            "Bridge",
        ]);
        // The counters aside, which move by themselves.
        let table = node.nft_list();
        let table: Vec<&str> = table
            .lines()
            .filter(|line| !line.contains("packets"))
            .collect();
        // The kernel tells of a link that has come up a moment later.
        let links = of("ip", &["link", "show"]);
        [
            files,
            node.mirrors_raw(),
            database,
            node.ovs_vsctl(&["get", "Open_vSwitch", ".", "next_cfg"]),
            table.join("\n"),
            of("bridge", &["-d", "link", "show"]),
            links
                .replace("state UNKNOWN", "state UP")
                .replace("state LOWERLAYERDOWN", "state UP"),
            of("ethtool", &["-k", "tap200i1"]),
        ]
    };
    let before = all();
    let (code, _) = look(&node);
    assert_eq!(code, 1);
    for (before, after) in before.iter().zip(all()) {
        assert_eq!(*before, after);
    }
}

#[test]
fn an_etc_pve_that_hangs_is_a_finding_and_the_rest_is_told() {
    let (node, _watch) = well();
    let hang = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let hung = fuse::mount_hung(&node.path("etc/pve"));
        let finding = found(
            &node,
            "pve-hangs",
            "error: /etc/pve does not answer: guests, span.cfg and hookscripts cannot be looked at, and mirrors stay as they are\n\
         seen: reading /etc/pve/.version took longer than a few seconds\n\
         do: systemctl status pve-cluster, then systemctl restart pve-cluster",
        );
        fine(&node, "kernel");
        fine(&node, "nft");
        fine(&node, "ovs");
        fine(&node, "service");
        assert!(hung.requests() > 0, "it has been asked something");
        finding
    };
    std::thread::scope(|scope| scope.spawn(hang).join().unwrap());
    gone(&node, "pve-hangs");
}

#[test]
fn a_storage_that_hangs_is_a_finding_and_the_rest_is_told() {
    let (node, _watch) = well();
    std::fs::create_dir_all(node.path("mnt/pve/nas")).unwrap();
    node.pve_file(
        "storage.cfg",
        "nfs: nas\n\tserver 10.0.0.9\n\texport /srv\n\tcontent snippets\n\n",
    );
    node.edit(102, |guest| {
        guest.set("hookscript", "nas:snippets/theirs.sh")
    });
    let hang = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let _hung = fuse::mount_hung(&node.path("mnt/pve/nas"));
        found(
            &node,
            "snippet-unclear",
            "warning: cannot tell whether the hookscript nas:snippets/theirs.sh can be called: guest 102 does not start here if it cannot\n\
         seen: /etc/pve/nodes/pve1/qemu-server/102.conf: hookscript: nas:snippets/theirs.sh; /mnt/pve/nas/snippets/theirs.sh: not done within 3 s: does its storage hang?\n\
         do: pvesm status shows whether its storage is there",
        );
        fine(&node, "snippet");
        fine(&node, "sensors");
    };
    std::thread::scope(|scope| scope.spawn(hang).join().unwrap());
}

#[test]
fn an_ovsdb_server_that_hangs_is_a_finding_and_the_rest_is_told() {
    let (node, _watch) = well();
    node.pause_ovsdb();
    let (_, findings) = look(&node);
    let down = findings
        .iter()
        .find(|finding| finding.id == "ovs-down")
        .unwrap();
    assert!(
        down.evidence
            .starts_with("ovsdb-server did not answer within 3"),
        "{}",
        down.evidence
    );
    assert_eq!(down.severity, "error");
    fine(&node, "kernel");
    fine(&node, "cfg");
    node.resume_ovsdb();
    gone(&node, "ovs-down");
}

#[test]
fn programs_that_hang_or_are_missing_do_not_hold_it() {
    let (node, _watch) = well();
    let folder = node.path("stand-in");
    std::fs::create_dir(&folder).unwrap();
    for program in ["nft", "systemctl"] {
        sh(
            &node,
            &format!(
                "printf '#!/bin/sh\\nexec sleep 1000\\n' >{0}/{program}; chmod 755 {0}/{program}",
                folder.display()
            ),
        );
    }
    let mut command = node.pve_span_command(&["doctor", "--json"]);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", folder.display()));
    let (code, findings) = look_by(command);
    assert_eq!(code, 1);
    let unclear: BTreeSet<&str> = findings
        .iter()
        .filter(|finding| finding.severity == "warning")
        .map(|finding| finding.id.as_str())
        .collect();
    assert_eq!(unclear, ["nft-unclear", "service-unclear"].into());
    let left = node.pids().into_iter().filter(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.starts_with("sleep"))
    });
    assert_eq!(left.count(), 0, "what hung has been ended");
}

#[test]
fn what_files_say_cannot_write_on_the_terminal() {
    let node = three_guests();
    node.span_cfg(DMZ);
    node.edit(101, |guest| {
        guest
            .set("hookscript", "local:snippets/\u{1b}[2J")
            .name("\u{1b}[31mred")
    });
    node.edit(200, |guest| {
        guest
            .name("\u{202e}turned")
            .net(1, "virtio=BC:24:11:2A:01:C8,bridge=vmbr2,rate=\u{1b}[1m5")
    });
    node.stop_guest(200);
    let (_, out, err) = run(&node, &["doctor", "-v"]);
    let bad = |c: char| c != '\n' && pve_span_core::model::is_control(c);
    assert!(!out.contains(bad) && !err.contains(bad), "{out:?}{err:?}");
    assert!(out.contains("\\u{1b}[2J"), "{out}");
}

#[test]
fn every_finding_is_in_the_documentation_and_nothing_else_is() {
    let text = include_str!("../docs/doctor.md");
    let rows = text.lines().filter_map(|line| {
        let cell = line.strip_prefix("| `")?.split_once('`')?.0;
        Some(cell.to_owned())
    });
    let documented: BTreeSet<String> = rows.collect();
    let known: BTreeSet<String> = Id::ALL.iter().map(|id| id.word().to_owned()).collect();
    let lacking: Vec<&String> = known.difference(&documented).collect();
    assert!(lacking.is_empty(), "not in docs/doctor.md: {lacking:?}");
    let too_many: Vec<&String> = documented.difference(&known).collect();
    assert!(too_many.is_empty(), "only in docs/doctor.md: {too_many:?}");
}
