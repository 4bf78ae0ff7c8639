//! `pve-span attach` and `detach`: what they say, what they call, and what guests' configs are like afterwards.

#![allow(clippy::unwrap_used)]

mod lab;
mod proxmox;

use std::fs;

use proxmox::*;

const NOTES: &str = "hookscript%3A not this one\nhookscript: nor this";
const SECTIONS: &str =
    "[PENDING]\ncores: 4\n\n[before]\nhookscript: local:snippets/older.pl\nsnaptime: 1790000000\n";

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
        "pve-span: warning: there is no /etc/pve/span.cfg: run `pve-span init`, which writes a first one\n\
         pve-span: error: there are no sessions, and so no sources\n",
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
         102 web102: is not attached; its hookscript is local:snippets/other.pl; its record /etc/pve/span-hooks/102 is stale and would be removed\n\
         103 web103: would call qm set 103 --delete hookscript\n\
         999: is not attached; its record /etc/pve/span-hooks/999 is stale and would be removed\n",
    );
    says(
        &node,
        &["detach", "--all"],
        "101 web101: detached\n\
         102 web102: is not attached; its hookscript is local:snippets/other.pl; its record /etc/pve/span-hooks/102 is stale and was removed\n\
         103 web103: detached\n\
         999: is not attached; its record /etc/pve/span-hooks/999 is stale and was removed\n",
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
