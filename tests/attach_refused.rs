//! `pve-span attach` and `detach` where something is missing, wrong, off or hung: what is said, and that nothing is done by halves.

#![allow(clippy::unwrap_used)]

mod lab;
mod proxmox;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lab::Node;
use proxmox::*;

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
        "pve-span: error: 101 web101: `qm set 101 --hookscript local:snippets/pve-span` timed out after 2 s and was killed; \
         it may be done later, so the record /etc/pve/span-hooks/101 stays\n\
         pve-span: error: 102 web102: `qm set 102 --hookscript local:snippets/pve-span` timed out after 2 s and was killed; \
         its config has been changed all the same, run the same command again\n",
    );
    assert!(node.path("etc/pve/span-hooks/101").exists());
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

const INSTALL: &str = "install the package pve-span there (where it is installed, /usr/share/pve-span/put-snippet puts it there again), \
    or copy hookscripts/pve-span to /var/lib/vz/snippets/pve-span and chmod 755 it";

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
fn a_file_of_that_name_that_is_somebody_s_own_is_warned_of() {
    let node = cluster();
    add(&node, "pve1", &vm(101));
    let snippet = node.path("var/lib/vz/snippets/pve-span");
    fs::remove_file(&snippet).unwrap();
    fs::write(&snippet, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&snippet, fs::Permissions::from_mode(0o755)).unwrap();
    let (code, out, err) = run(&node, &["attach", "101"]);
    assert_eq!((code, out.as_str()), (0, "101 web101: attached\n"));
    assert_eq!(
        err,
        format!(
            "pve-span: warning: /var/lib/vz/snippets/pve-span on this node, pve1, does not call pve-span; \
             if it is not meant to be there, move it away and {INSTALL}\n"
        )
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
             pve-span: error: cannot tell whether pve3 has local:snippets/pve-span: `pvesh get /nodes/pve3/{get} timed out after 1 s and was killed\n"
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
             pve-span: error: 103 web103: is on pve3, which is off; try again when it is back\n"
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

    // The package has nothing to do with it.
    refused(
        "some",
        "/some/snippets/pve-span is missing on this node, pve1: \
         install -D -m 755 /usr/share/pve-span/hookscript /some/snippets/pve-span",
    );

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
        assert_eq!((code, out.as_str()), (64, ""), "{args:?}");
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
fn what_somebody_else_changes_meanwhile_is_not_overwritten() {
    let node = cluster();
    for vmid in [101, 102, 103, 104] {
        add(&node, "pve1", &vm(vmid));
    }
    trouble(
        &node,
        "qm-101",
        Trouble::Meddle(
            "echo 'hookscript: local:snippets/new.pl' >>nodes/pve1/qemu-server/102.conf\n\
             mv nodes/pve1/qemu-server/103.conf nodes/pve2/qemu-server/\n\
             sed -i '/\"103\"/s/pve1/pve2/' .vmlist\n\
             rm nodes/pve1/qemu-server/104.conf\n",
        ),
    );
    refuses(
        &node,
        &["attach", "all"],
        "101 web101: attached\n",
        "pve-span: error: 102 web102: has local:snippets/new.pl already; --chain keeps calling it\n\
         pve-span: error: 103 web103: its config has just been changed by somebody else; nothing was done, try again\n\
         pve-span: error: 104 web104: its config cannot be read: there is no config of guest 104\n",
    );
    says(&node, &["attach", "103"], "103 web103: attached\n");
}

#[test]
fn a_record_that_is_taken_for_a_stale_one_meanwhile_is_written_again() {
    let node = node();
    add(&node, "pve1", &with("local:snippets/old.pl", vm(101)));
    script(&node, "old.pl", "#!/bin/sh\n");
    // What `pve-span detach --all` does as long as guest 101 has old.pl.
    trouble(&node, "qm-101", Trouble::Meddle("rm -r span-hooks\n"));
    says(
        &node,
        &["attach", "101", "--chain"],
        "101 web101: attached, and local:snippets/old.pl is called after it\n",
    );
    says(
        &node,
        &["detach", "101"],
        "101 web101: detached, and local:snippets/old.pl is its hookscript again\n",
    );
}
