//! The Ansible playbook, run for real: the node is the chroot itself.

use crate::base::Kind;
use crate::built::{self, NEWER, deb};
use crate::chroot::Start;
use crate::lab;
use crate::release::Release;
use crate::repository::{Keys, OURS};
use crate::snippet::{is_in_place, starts_guest};

const PLAY: &str =
    "cd /play && ansible-playbook -i inventory pve-span.yml -e pve_span_repository=file:/repo";

/// What the last line says: `ok=5 changed=3 failed=0`.
fn recap(said: &str) -> String {
    let line = said
        .lines()
        .rfind(|line| line.contains("changed="))
        .unwrap_or_else(|| panic!("{said}"));
    let words = line.split_whitespace();
    let kept = words.filter(|word| {
        ["ok=", "changed=", "failed="]
            .iter()
            .any(|key| word.starts_with(key))
    });
    kept.collect::<Vec<&str>>().join(" ")
}

#[test]
fn the_playbook_installs_does_nothing_twice_and_upgrades() {
    let Some(chroot) = Release::Thirteen.chroot_with(Kind::Ansible, Start::Alone) else {
        return;
    };
    let keys = Keys::new(&[OURS]);
    let folder = tempfile::tempdir().unwrap();
    let publish = |file: std::path::PathBuf| {
        let output = keys.repository(OURS, folder.path(), &[file]);
        assert!(output.status.success(), "{output:?}");
        let _ = std::fs::remove_dir_all(chroot.path("/repo"));
        let mut copy = std::process::Command::new("cp");
        copy.arg("-rT").arg(folder.path()).arg(chroot.path("/repo"));
        lab::run(copy, "");
    };
    publish(deb());
    chroot.run("mkdir /play; cp /repo/pve-span.gpg /play");
    chroot.write(
        "/play/inventory",
        "[pve]\nlocalhost ansible_connection=local\n",
    );
    chroot.write(
        "/play/pve-span.yml",
        include_str!("../../pve-config/ansible/pve-span.yml"),
    );
    // A node without guests.
    chroot.write("/etc/pve/.version", "{}\n");
    chroot.write("/etc/pve/.vmlist", "{\n\"version\": 1\n\n}\n");
    chroot.write(
        "/etc/pve/.members",
        "{\n\"nodename\": \"pve1\",\n\"version\": 0\n}\n",
    );
    chroot.write("/etc/pve/user.cfg", "user:root@pam:1:0:::::\n");
    chroot.write(
        "/etc/pve/span.cfg",
        "[dmz]\nsource = 101\noutput = 200/net1\n",
    );
    chroot.run("mkdir -p /etc/pve/nodes/pve1/qemu-server /etc/pve/nodes/pve1/lxc; ln -s nodes/pve1 /etc/pve/local");

    assert_eq!(recap(&chroot.run(PLAY)), "ok=5 changed=3 failed=0");
    is_in_place(&chroot, "");
    starts_guest(&chroot);
    assert_eq!(recap(&chroot.run(PLAY)), "ok=5 changed=0 failed=0");

    let newer = built::version(NEWER, |_| {});
    publish(newer.path().join("pve-span.deb"));
    assert_eq!(recap(&chroot.run(PLAY)), "ok=5 changed=1 failed=0");
    is_in_place(&chroot, &format!("# {NEWER}\n"));
}
