//! `pve-span attach` and `detach`: what they say, what they call, and what guests' configs are like afterwards.

#![allow(clippy::unwrap_used)]

mod lab;
mod proxmox;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lab::{Guest, Node};
use proxmox::{Trouble, add, calls, cluster, conf, install, members, node, run, script, trouble};

const OURS: &str = "local:snippets/pve-span";
const NOTES: &str = "hookscript%3A not this one\nhookscript: nor this";
const SECTIONS: &str =
    "[PENDING]\ncores: 4\n\n[before]\nhookscript: local:snippets/older.pl\nsnaptime: 1790000000\n";

fn vm(vmid: u32) -> Guest {
    Guest::vm(vmid).name(&format!("web{vmid}")).net(
        0,
        &format!("virtio=BC:24:11:2A:00:{:02X},bridge=vmbr0", vmid % 256),
    )
}

fn ct(vmid: u32) -> Guest {
    Guest::ct(vmid).net(
        0,
        "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:2A:01:01,type=veth",
    )
}

fn with(hookscript: &str, guest: Guest) -> Guest {
    guest.set("hookscript", hookscript)
}

/// What went well, and nothing else was said.
#[track_caller]
fn says(node: &Node, args: &[&str], expected: &str) {
    assert_eq!(
        run(node, args),
        (0, expected.to_owned(), String::new()),
        "{args:?}"
    );
}

#[track_caller]
fn refuses(node: &Node, args: &[&str], out: &str, err: &str) {
    assert_eq!(
        run(node, args),
        (1, out.to_owned(), err.to_owned()),
        "{args:?}"
    );
}

#[test]
fn guests_of_both_kinds_are_attached_and_detached_and_nothing_else_is_touched() {
    let node = node();
    let guest = vm(101).notes(NOTES).sections(SECTIONS);
    add(&node, "pve1", &guest);
    add(&node, "pve1", &ct(300));
    let (before, ct_before) = (
        conf(&node, "pve1/qemu-server/101.conf"),
        conf(&node, "pve1/lxc/300.conf"),
    );
    says(
        &node,
        &["attach", "101", "300"],
        "101 web101: attached\n300: attached\n",
    );
    assert_eq!(
        calls(&node),
        [
            "qm set 101 --hookscript local:snippets/pve-span",
            "pct set 300 --hookscript local:snippets/pve-span"
        ]
    );
    assert_eq!(
        conf(&node, "pve1/qemu-server/101.conf"),
        with(OURS, guest).to_conf()
    );
    says(
        &node,
        &["attach", "101,300"],
        "101 web101: attached already\n300: attached already\n",
    );
    assert_eq!(calls(&node), [] as [&str; 0]);
    says(
        &node,
        &["detach", "101", "300"],
        "101 web101: detached\n300: detached\n",
    );
    assert_eq!(
        calls(&node),
        [
            "qm set 101 --delete hookscript",
            "pct set 300 --delete hookscript"
        ]
    );
    assert_eq!(conf(&node, "pve1/qemu-server/101.conf"), before);
    assert_eq!(conf(&node, "pve1/lxc/300.conf"), ct_before);
    says(&node, &["detach", "101"], "101 web101: is not attached\n");
    assert!(!node.path("etc/pve/span-hooks").exists());
}

#[test]
fn guests_of_other_nodes_are_changed_there() {
    let node = cluster();
    add(&node, "pve1", &vm(101));
    add(&node, "pve2", &vm(102));
    add(&node, "pve3", &ct(300));
    says(
        &node,
        &["attach", "all"],
        "101 web101: attached\n102 web102: attached\n300: attached\n",
    );
    assert_eq!(
        calls(&node),
        [
            "pvesh get /nodes/pve2/storage/local/content --content snippets --output-format json",
            "pvesh get /nodes/pve3/storage/local/content --content snippets --output-format json",
            "qm set 101 --hookscript local:snippets/pve-span",
            "pvesh set /nodes/pve2/qemu/102/config --hookscript local:snippets/pve-span",
            "pvesh set /nodes/pve3/lxc/300/config --hookscript local:snippets/pve-span",
        ]
    );
    says(
        &node,
        &["detach", "node:pve2", "300"],
        "102 web102: detached\n300: detached\n",
    );
    assert_eq!(
        calls(&node),
        [
            "pvesh set /nodes/pve2/qemu/102/config --delete hookscript",
            "pvesh set /nodes/pve3/lxc/300/config --delete hookscript"
        ]
    );
    says(&node, &["detach", "--all"], "101 web101: detached\n");
    assert_eq!(calls(&node), ["qm set 101 --delete hookscript"]);
    says(&node, &["detach", "--all"], "nothing to do\n");
}

#[test]
fn groups_leave_templates_out_and_a_number_takes_one() {
    let node = node();
    add(&node, "pve1", &vm(101).tags("web"));
    add(&node, "pve1", &vm(102));
    add(&node, "pve1", &vm(103).tags("web").set("template", "1"));
    says(
        &node,
        &["attach", "tag:web"],
        "101 web101: attached\n\
         templates left out: 103; what is cloned from one has its hookscript, so name it by its number if you want that\n",
    );
    says(&node, &["attach", "103"], "103 web103: attached\n");
}

#[test]
fn every_source_of_the_sessions_is_found_in_the_whole_cluster() {
    let node = cluster();
    add(&node, "pve1", &vm(101).tags("web"));
    add(&node, "pve2", &vm(102).tags("web"));
    add(&node, "pve2", &vm(103).tags("web;quiet"));
    add(&node, "pve3", &vm(104));
    let sensor = vm(200).net(1, "virtio=BC:24:11:2A:02:01,bridge=vmbr0");
    add(&node, "pve1", &sensor);
    node.span_cfg(
        "[a]\nsource = tag:web\nexclude = tag:quiet\noutput = 200/net1\n\
         [b]\nsource = 104\noutput = 200/net1\nenabled = no\n",
    );
    says(
        &node,
        &["attach", "--all-sources"],
        "101 web101: attached\n102 web102: attached\nfor a sensor that reboots: pve-span attach 200\n",
    );
    says(
        &node,
        &["attach", "--all-sources", "200"],
        "101 web101: attached already\n102 web102: attached already\n200 web200: attached\n",
    );
    fs::remove_file(node.path("etc/pve/span.cfg")).unwrap();
    refuses(
        &node,
        &["attach", "--all-sources"],
        "",
        "pve-span: error: there is no /etc/pve/span.cfg, so there are no sources\n",
    );
}

#[test]
fn a_dry_run_says_what_would_be_called_and_changes_nothing() {
    let node = cluster();
    add(&node, "pve1", &with("local:snippets/old.pl", vm(101)));
    add(&node, "pve2", &vm(102));
    script(&node, "old.pl", "#!/bin/sh\n");
    let before = conf(&node, "pve1/qemu-server/101.conf");
    says(
        &node,
        &["attach", "all", "--chain", "--dry-run"],
        "101 web101: would write down local:snippets/old.pl in /etc/pve/span-hooks/101, to be called after pve-span\n\
         101 web101: would call qm set 101 --hookscript local:snippets/pve-span\n\
         102 web102: would call pvesh set /nodes/pve2/qemu/102/config --hookscript local:snippets/pve-span\n",
    );
    assert!(
        calls(&node)
            .iter()
            .all(|call| call.starts_with("pvesh get ")),
        "only what changes nothing"
    );
    assert_eq!(conf(&node, "pve1/qemu-server/101.conf"), before);
    assert!(!node.path("etc/pve/span-hooks").exists());
    says(
        &node,
        &["detach", "101", "--dry-run"],
        "101 web101: is not attached; its hookscript is local:snippets/old.pl\n",
    );
    says(&node, &["attach", "102"], "102 web102: attached\n");
    calls(&node);
    says(
        &node,
        &["detach", "102", "--dry-run"],
        "102 web102: would call pvesh set /nodes/pve2/qemu/102/config --delete hookscript\n",
    );
    assert_eq!(calls(&node), [] as [&str; 0]);
}

#[test]
fn somebody_else_s_hookscript_is_not_overwritten() {
    let node = node();
    add(&node, "pve1", &with("local:snippets/backup.pl", vm(101)));
    add(&node, "pve1", &vm(102));
    add(&node, "pve1", &with("share:snippets/pve-span", vm(103)));
    refuses(
        &node,
        &["attach", "101", "102", "103"],
        "102 web102: attached\n103 web103: attached already (share:snippets/pve-span)\n",
        "pve-span: error: 101 web101: has local:snippets/backup.pl already; --chain keeps calling it\n",
    );
    assert_eq!(
        calls(&node),
        ["qm set 102 --hookscript local:snippets/pve-span"]
    );
}

#[test]
fn a_chained_hookscript_is_written_down_and_detach_restores_it_byte_for_byte() {
    let node = cluster();
    let guest = with(
        "local:snippets/old.pl",
        vm(101).notes(NOTES).sections(SECTIONS),
    );
    add(&node, "pve1", &guest);
    add(&node, "pve2", &with("share:snippets/their hook", vm(102)));
    script(&node, "old.pl", "#!/bin/sh\n");
    let before = conf(&node, "pve1/qemu-server/101.conf");
    says(
        &node,
        &["attach", "--chain", "101", "102"],
        "101 web101: attached, and local:snippets/old.pl is called after it\n\
         102 web102: attached, and share:snippets/their hook is called after it\n",
    );
    let record = |vmid: u32| {
        let path = node.path(&format!("etc/pve/span-hooks/{vmid}"));
        fs::read_to_string(path).unwrap()
    };
    assert_eq!(
        record(101),
        "# Written by `pve-span attach 101 --chain`: the hookscript that guest 101 had before, called after pve-span.\n\
         # `pve-span detach 101` sets it back and removes this file.\n\
         volume = local:snippets/old.pl\npath = /var/lib/vz/snippets/old.pl\n"
    );
    assert!(record(102).ends_with("\npath = /srv/snippets/their hook\n"));
    says(
        &node,
        &["attach", "101"],
        "101 web101: attached already, and local:snippets/old.pl is called after it\n",
    );
    says(
        &node,
        &["detach", "101"],
        "101 web101: detached, and local:snippets/old.pl is its hookscript again\n",
    );
    assert_eq!(conf(&node, "pve1/qemu-server/101.conf"), before);
    assert!(!node.path("etc/pve/span-hooks/101").exists());
    assert!(node.path("etc/pve/span-hooks/102").exists());
    // What is not there on pve2 cannot be set back by Proxmox VE.
    calls(&node);
    refuses(
        &node,
        &["detach", "102"],
        "",
        "pve-span: error: 102 web102: `pvesh set /nodes/pve2/qemu/102/config --hookscript 'share:snippets/their hook'` failed: \
         script 'share:snippets/their hook' does not exist\n",
    );
    assert!(node.path("etc/pve/span-hooks/102").exists());
    install(&node, "others/pve2/srv/snippets/their hook");
    says(
        &node,
        &["detach", "102"],
        "102 web102: detached, and share:snippets/their hook is its hookscript again\n",
    );
    assert!(!node.path("etc/pve/span-hooks").exists(), "the last one");
}

#[test]
fn a_record_of_another_time_is_never_acted_upon_and_is_cleaned() {
    let node = node();
    let record = |vmid: u32| node.path(&format!("etc/pve/span-hooks/{vmid}"));
    let write = |vmid: u32, text: &str| {
        fs::create_dir_all(node.path("etc/pve/span-hooks")).unwrap();
        fs::write(record(vmid), text).unwrap();
    };
    const OLD: &str = "volume = local:snippets/old.pl\npath = /var/lib/vz/snippets/old.pl\n";
    add(&node, "pve1", &vm(101));
    add(&node, "pve1", &with("local:snippets/other.pl", vm(102)));
    add(&node, "pve1", &with(OURS, vm(103)));
    write(101, OLD);
    says(&node, &["attach", "101"], "101 web101: attached\n");
    assert!(!record(101).exists());

    write(102, "torn");
    write(999, OLD);
    says(
        &node,
        &["detach", "--all", "--dry-run"],
        "101 web101: would call qm set 101 --delete hookscript\n\
         102 web102: is not attached; its hookscript is local:snippets/other.pl; the record /etc/pve/span-hooks/102 was of another time and would be removed\n\
         103 web103: would call qm set 103 --delete hookscript\n\
         999: is not attached; the record /etc/pve/span-hooks/999 was of another time and would be removed\n",
    );
    says(
        &node,
        &["detach", "--all"],
        "101 web101: detached\n\
         102 web102: is not attached; its hookscript is local:snippets/other.pl; the record /etc/pve/span-hooks/102 was of another time and was removed\n\
         103 web103: detached\n\
         999: is not attached; the record /etc/pve/span-hooks/999 was of another time and was removed\n",
    );
    assert!(!node.path("etc/pve/span-hooks").exists());

    add(&node, "pve1", &with(OURS, vm(103)));
    write(
        103,
        "volume = local:snippets/pve-span\npath = /x/pve-span\n",
    );
    refuses(
        &node,
        &["detach", "103"],
        "",
        "pve-span: error: 103 web103: the record of the hookscript that it had before cannot be used: \
         /etc/pve/span-hooks/103 is not understood: local:snippets/pve-span is pve-span's own hookscript\n",
    );
    assert!(record(103).exists(), "somebody has to look at it");
}

#[test]
fn a_program_that_fails_midway_does_not_stop_the_others() {
    let node = node();
    for vmid in [101, 102, 103] {
        add(&node, "pve1", &with("local:snippets/old.pl", vm(vmid)));
    }
    script(&node, "old.pl", "#!/bin/sh\n");
    trouble(
        &node,
        "qm-102",
        Trouble::Fail(
            "can't lock file '/var/lock/qemu-server/lock-102.conf' - got timeout\u{1b}[2J",
        ),
    );
    refuses(
        &node,
        &["attach", "all", "--chain"],
        "101 web101: attached, and local:snippets/old.pl is called after it\n\
         103 web103: attached, and local:snippets/old.pl is called after it\n",
        "pve-span: error: 102 web102: `qm set 102 --hookscript local:snippets/pve-span` failed: \
         can't lock file '/var/lock/qemu-server/lock-102.conf' - got timeout\\u{1b}[2J\n",
    );
    assert!(!node.path("etc/pve/span-hooks/102").exists(), "taken back");
    assert!(node.path("etc/pve/span-hooks/103").exists());
}

#[test]
fn a_program_that_hangs_is_named_and_what_it_did_is_looked_at() {
    let node = node();
    for vmid in [101, 102] {
        add(&node, "pve1", &with("local:snippets/old.pl", vm(vmid)));
    }
    script(&node, "old.pl", "#!/bin/sh\n");
    trouble(&node, "qm-101", Trouble::Hang);
    trouble(&node, "qm-102", Trouble::Late);
    refuses(
        &node,
        &["attach", "all", "--chain", "--patience", "2"],
        "",
        "pve-span: error: 101 web101: `qm set 101 --hookscript local:snippets/pve-span` was not through within 2 s, and has been ended\n\
         pve-span: error: 102 web102: `qm set 102 --hookscript local:snippets/pve-span` was not through within 2 s, and has been ended; \
         its config has been changed all the same, run the same command again\n",
    );
    assert!(!node.path("etc/pve/span-hooks/101").exists());
    assert!(
        node.path("etc/pve/span-hooks/102").exists(),
        "it is in force"
    );
    refuses(
        &node,
        &["attach", "101", "102", "--patience", "2"],
        "102 web102: attached already, and local:snippets/old.pl is called after it\n",
        "pve-span: error: 101 web101: has local:snippets/old.pl already; --chain keeps calling it\n",
    );
}

#[test]
fn a_program_that_only_says_that_it_is_done_is_found_out() {
    let node = node();
    add(&node, "pve1", &vm(101));
    add(&node, "pve1", &with(OURS, vm(102)));
    trouble(&node, "qm-101", Trouble::Lie);
    trouble(&node, "qm-102", Trouble::Lie);
    refuses(
        &node,
        &["attach", "101"],
        "",
        "pve-span: error: 101 web101: `qm set 101 --hookscript local:snippets/pve-span` says it is done, but there is no hookscript\n",
    );
    refuses(
        &node,
        &["detach", "102"],
        "",
        "pve-span: error: 102 web102: `qm set 102 --delete hookscript` says it is done, but the hookscript is local:snippets/pve-span\n",
    );
}

const INSTALL: &str = "install the package pve-span there, or copy hookscripts/pve-span to /var/lib/vz/snippets/pve-span and chmod 755 it";

#[test]
fn a_snippet_that_is_missing_anywhere_is_refused_before_anything_is_changed() {
    let node = cluster();
    add(&node, "pve1", &vm(101));
    fs::remove_file(node.path("others/pve3/var/lib/vz/snippets/pve-span")).unwrap();
    let snippet = node.path("var/lib/vz/snippets/pve-span");
    fs::remove_file(&snippet).unwrap();
    let missing = |here: &str| {
        format!(
            "pve-span: error: {here}\npve-span: error: local:snippets/pve-span is missing on pve3: {INSTALL}\n"
        )
    };
    let here = format!("/var/lib/vz/snippets/pve-span is missing on this node, pve1: {INSTALL}");
    refuses(&node, &["attach", "101"], "", &missing(&here));
    fs::write(&snippet, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&snippet, fs::Permissions::from_mode(0o644)).unwrap();
    let here = "/var/lib/vz/snippets/pve-span on this node, pve1, is not executable: chmod 755 /var/lib/vz/snippets/pve-span";
    refuses(&node, &["attach", "101"], "", &missing(here));
    fs::remove_file(&snippet).unwrap();
    fs::create_dir(&snippet).unwrap();
    let here = "/var/lib/vz/snippets/pve-span on this node, pve1, is not a file";
    refuses(&node, &["attach", "101"], "", &missing(here));
    assert!(
        calls(&node)
            .iter()
            .all(|call| call.starts_with("pvesh get "))
    );
}

#[test]
fn a_node_that_cannot_be_asked_is_refused_and_one_that_is_off_is_warned_of() {
    let node = cluster();
    add(&node, "pve1", &vm(101));
    add(&node, "pve3", &vm(103));
    trouble(&node, "pvesh-pve2", Trouble::Fail("500 proxy: no"));
    trouble(&node, "pvesh-pve3", Trouble::Hang);
    let get = "storage/local/content --content snippets --output-format json`";
    refuses(
        &node,
        &["attach", "101", "--patience", "1"],
        "",
        &format!(
            "pve-span: error: cannot tell whether pve2 has local:snippets/pve-span: `pvesh get /nodes/pve2/{get} failed: 500 proxy: no\n\
             pve-span: error: cannot tell whether pve3 has local:snippets/pve-span: `pvesh get /nodes/pve3/{get} was not through within 1 s, and has been ended\n"
        ),
    );
    fs::remove_file(node.path("stand-in/fail/pvesh-pve2")).unwrap();
    trouble(&node, "pvesh-pve2", Trouble::Lie);
    members(&node, &["pve3"]);
    let (code, _, err) = run(&node, &["attach", "101"]);
    assert_eq!(code, 1);
    assert_eq!(
        err,
        format!(
            "pve-span: warning: pve3 is off, so nobody can tell whether it has local:snippets/pve-span: before a guest starts there, {INSTALL}\n\
             pve-span: error: cannot tell whether pve2 has local:snippets/pve-span: `pvesh get /nodes/pve2/{get} gave an answer that is not understood: EOF while parsing a value at line 1 column 0\n"
        )
    );
    fs::remove_file(node.path("stand-in/lie/pvesh-pve2")).unwrap();
    refuses(
        &node,
        &["attach", "101", "103"],
        "101 web101: attached\n",
        &format!(
            "pve-span: warning: pve3 is off, so nobody can tell whether it has local:snippets/pve-span: before a guest starts there, {INSTALL}\n\
             pve-span: error: 103 web103: is on pve3, which is off\n"
        ),
    );
}

#[test]
fn storages_are_looked_at_before_anything_is_changed() {
    let node = cluster();
    add(&node, "pve1", &vm(101));
    add(&node, "pve2", &vm(102));
    let refused = |storage: &str, why: &str| {
        refuses(
            &node,
            &["attach", "101", "--storage", storage],
            "",
            &format!("pve-span: error: {why}\n"),
        );
    };
    refused("none", "there is no storage `none`");
    refused(
        "off",
        "the storage off is disabled: pvesm set off --disable 0",
    );
    refused(
        "local-lvm",
        "the storage `local-lvm` (lvmthin) keeps no snippets",
    );
    assert_eq!(calls(&node), [] as [&str; 0]);

    // Only some nodes have it.
    install(&node, "some/snippets/pve-span");
    refuses(
        &node,
        &["attach", "101", "102", "--storage", "some"],
        "101 web101: attached\n",
        "pve-span: error: 102 web102: is on pve2, which does not have the storage some\n",
    );
    assert_eq!(
        calls(&node),
        ["qm set 101 --hookscript some:snippets/pve-span"]
    );
    // On a shared one, one look tells.
    install(&node, "srv/snippets/pve-span");
    install(&node, "others/pve2/srv/snippets/pve-span");
    says(
        &node,
        &["attach", "102", "--storage", "share"],
        "102 web102: attached\n",
    );
    assert_eq!(
        calls(&node),
        ["pvesh set /nodes/pve2/qemu/102/config --hookscript share:snippets/pve-span"]
    );
}

#[test]
fn a_storage_that_does_not_allow_snippets_is_warned_of() {
    let remedy = "the storage local does not allow snippets; do: pvesm set local --content iso,snippets,vztmpl\n";
    let alone = node();
    let forbid = |node: &Node| {
        let text = "dir: local\n\tpath /var/lib/vz\n\tcontent iso,vztmpl\n";
        fs::write(node.path("etc/pve/storage.cfg"), text).unwrap();
    };
    forbid(&alone);
    add(&alone, "pve1", &vm(101));
    assert_eq!(
        run(&alone, &["attach", "101"]),
        (
            0,
            "101 web101: attached\n".into(),
            format!("pve-span: warning: {remedy}")
        )
    );
    // Other nodes' cannot be told then.
    let cluster = cluster();
    forbid(&cluster);
    add(&cluster, "pve1", &vm(101));
    let untold = |node: &str| {
        format!(
            "pve-span: error: cannot tell whether {node} has local:snippets/pve-span: Proxmox VE lists no snippets where they are not allowed\n"
        )
    };
    refuses(
        &cluster,
        &["attach", "101"],
        "",
        &format!(
            "pve-span: warning: {remedy}{}{}",
            untold("pve2"),
            untold("pve3")
        ),
    );
}

#[test]
fn who_cannot_be_told_is_refused() {
    let node = node();
    add(&node, "pve1", &vm(101).tags("web"));
    add(&node, "pve1", &vm(102));
    fs::write(node.path("etc/pve/nodes/pve1/qemu-server/102.conf"), "").unwrap();
    refuses(
        &node,
        &["attach", "tag:web", "102", "105", "300-399"],
        "101 web101: attached\n",
        "pve-span: error: 102: its config cannot be read: the config of guest 102 is empty\n\
         pve-span: error: 105: there is no such guest\n\
         pve-span: error: `300-399` takes no guest\n",
    );
    node.span_cfg("[a]\nsource = all\noutput = port:eno9\n");
    refuses(
        &node,
        &["attach", "--all-sources"],
        "101 web101: attached already\n",
        "pve-span: error: 102: cannot tell whether it is a source: the config of guest 102 is empty\n",
    );
    node.unmount_pve();
    for args in [&["attach", "101"], &["detach", "101"], &["detach", "--all"]] {
        refuses(
            &node,
            args,
            "",
            "pve-span: error: cannot tell which guests are meant: /etc/pve is not mounted\n",
        );
    }
}

#[test]
fn what_is_typed_wrong_is_usage() {
    let node = node();
    let usage = |args: &[&str]| {
        let (code, out, err) = run(&node, args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        err
    };
    assert_eq!(
        usage(&["attach", "101/net0", "bridge:vmbr0,port:eno1"]),
        "pve-span: error: `101/net0`: a hookscript is the whole guest's, not a NIC's; write 101\n\
         pve-span: error: `bridge:vmbr0` names no guest, and only guests have hookscripts\n\
         pve-span: error: `port:eno1` names no guest, and only guests have hookscripts\n"
    );
    assert_eq!(
        usage(&["attach", "101", "--storage", "../x"]),
        "pve-span: error: `../x` is not the name of a storage\n"
    );
    assert!(usage(&["attach"]).contains("required arguments"));
    assert!(usage(&["detach"]).contains("required arguments"));
    assert!(usage(&["detach", "--all", "101"]).contains("cannot be used with"));
}

#[test]
fn without_proxmox_ve_s_programs_nothing_is_begun() {
    let node = node();
    add(&node, "pve1", &with("local:snippets/old.pl", vm(101)));
    add(&node, "pve1", &ct(300));
    for program in ["qm", "pct"] {
        fs::remove_file(node.path("stand-in/bin").join(program)).unwrap();
    }
    refuses(
        &node,
        &["attach", "all", "--chain"],
        "",
        "pve-span: error: the program pct is not there: is this a Proxmox VE node?\n\
         pve-span: error: the program qm is not there: is this a Proxmox VE node?\n",
    );
    assert!(!node.path("etc/pve/span-hooks").exists());
}

#[test]
fn hostile_names_do_nothing_to_a_terminal_or_a_shell() {
    let node = node();
    add(&node, "pve1", &vm(101).name("x\u{1b}[2J\u{202e}"));
    add(
        &node,
        "pve1",
        &with("local:snippets/$(touch pwned) \u{9b}2J", vm(102)),
    );
    let odd = "local:snippets/a;b $(c) 'd'";
    add(&node, "pve1", &with(odd, vm(103)));
    script(&node, "a;b $(c) 'd'", "#!/bin/sh\n");
    refuses(
        &node,
        &["attach", "all", "--chain"],
        "101 x\\u{1b}[2J\\u{202e}: attached\n\
         103 web103: attached, and local:snippets/a;b $(c) 'd' is called after it\n",
        "pve-span: error: 102 web102: its hookscript cannot be chained: \
         `local:snippets/$(touch pwned) \\u{9b}2J` is not a snippet (local:snippets/pve-span)\n",
    );
    calls(&node);
    says(
        &node,
        &["detach", "103"],
        "103 web103: detached, and local:snippets/a;b $(c) 'd' is its hookscript again\n",
    );
    assert_eq!(calls(&node), [format!("qm set 103 --hookscript {odd}")]);
}

#[test]
fn json_has_all_of_it() {
    let node = cluster();
    add(&node, "pve1", &with("local:snippets/old.pl", vm(101)));
    add(&node, "pve2", &ct(300));
    script(&node, "old.pl", "#!/bin/sh\n");
    let json = |args: &[&str]| -> (i32, serde_json::Value) {
        let (code, out, _) = run(&node, args);
        (code, serde_json::from_str(&out).unwrap())
    };
    let (code, report) = json(&["attach", "all", "tag:x", "--chain", "--dry-run", "--json"]);
    assert_eq!(code, 1);
    assert_eq!(
        report,
        serde_json::json!({
            "dry_run": true,
            "guests": [
                {"guest": 101, "name": "web101", "node": "pve1", "type": "qemu", "result": "planned",
                 "other": "local:snippets/old.pl", "why": null,
                 "call": ["qm", "set", "101", "--hookscript", "local:snippets/pve-span"]},
                {"guest": 300, "name": null, "node": "pve2", "type": "lxc", "result": "planned", "other": null, "why": null,
                 "call": ["pvesh", "set", "/nodes/pve2/lxc/300/config", "--hookscript", "local:snippets/pve-span"]},
            ],
            "faults": ["`tag:x` takes no guest"], "warnings": [], "notes": [],
        })
    );
    let (code, report) = json(&["attach", "101", "900", "--json"]);
    assert_eq!(code, 1);
    let guests = report["guests"].as_array().unwrap();
    let told = |at: usize| (guests[at]["result"].clone(), guests[at]["why"].clone());
    assert_eq!(
        told(0),
        (
            "refused".into(),
            "has local:snippets/old.pl already; --chain keeps calling it".into()
        )
    );
    assert_eq!(told(1).1, "there is no such guest");
    node.unmount_pve();
    let (code, report) = json(&["attach", "101", "--json"]);
    assert_eq!(code, 1);
    assert_eq!(
        report["error"],
        "cannot tell which guests are meant: /etc/pve is not mounted"
    );
}
