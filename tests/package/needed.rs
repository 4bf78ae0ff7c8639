//! Removal while guests have the hookscript, or while nobody can tell: it stays, and lets them start.

use crate::built;
use crate::chroot::Chroot;
use crate::snippet::{SNIPPET, starts_guest_without_program};

const CFG: &str = "hookscript: local:snippets/pve-span\n";

/// The package installed, on a node of a cluster whose /etc/pve has these files below nodes/.
fn installed(chroot: &Chroot, configs: &[(&str, &str)]) {
    chroot.write("/etc/pve/.version", "{}\n");
    chroot.run(
        "mkdir -p /etc/pve/nodes/pve1/qemu-server /etc/pve/nodes/pve1/lxc /etc/pve/nodes/pve2",
    );
    for (path, text) in configs {
        chroot.write(&format!("/etc/pve/nodes/{path}"), text);
    }
    built::install(chroot);
}

fn long(count: u32, guests: &str) -> String {
    format!(
        "pve-span: {SNIPPET} stays. Proxmox VE does not start a guest whose hookscript is missing, and this is that of {count}:\n\
         {guests}\
         pve-span: without the program it lets them start, and calls what is called after it. To take it off a guest, on its \
         node: qm set VMID --delete hookscript, or pct set VMID --delete hookscript (with another one called after it: \
         qm set VMID --hookscript and its name; a snapshot that has it goes with qm delsnapshot). \
         When no guest has it any more: rm {SNIPPET}\n"
    )
}

in_both_releases! {
    fn it_stays_while_a_guest_of_any_node_has_it(chroot) {
        installed(chroot, &[
            ("pve1/qemu-server/101.conf", &format!("boot: order=scsi0\n{CFG}memory: 2048\n")),
            ("pve2/lxc/300.conf", "hookscript: nas:snippets/pve-span\r\n"),
            ("pve2/qemu-server/102.conf", &format!("name: b\n[before upgrade]\n{CFG}[PENDING]\n{CFG}")),
            ("pve2/qemu-server/103.conf", "#hookscript: local:snippets/pve-span\nhookscript: local:snippets/pve-span-not\n"),
        ]);
        for (vmid, other) in [("101", "nas:snippets/old one\u{7}.pl"), ("102", "local:snippets/not-in-force"), ("999", "x")] {
            let record = format!("# a comment\nvolume = {other}\npath = /srv/old\n");
            chroot.write(&format!("/etc/pve/span-hooks/{vmid}"), &record);
        }
        chroot.write("/srv/old", "#!/bin/sh\n");
        chroot.run("chmod 755 /srv/old");
        let said = chroot.run("dpkg -r pve-span");
        let guests = "  CT 300 on pve2\n  VM 101 on pve1, with nas:snippets/old one.pl called after it\n  VM 102 on pve2, as a change that waits\n  \
            VM 102 on pve2, in snapshot before upgrade\n";
        assert!(said.contains(&long(3, guests)), "{said}");
        assert!(!chroot.has("/usr/bin/pve-span"));
        starts_guest_without_program(chroot);

        let said = chroot.run("dpkg -P pve-span");
        let short = format!("pve-span: {SNIPPET} stays, for the guests that have it as their hookscript: 3\n");
        assert!(said.contains(&short), "{said}");
        starts_guest_without_program(chroot);
    }

    fn it_goes_when_no_guest_has_it(chroot) {
        installed(chroot, &[
            ("pve1/qemu-server/101.conf", "#hookscript: local:snippets/pve-span\nname: a\nhookscript: local:snippets/pve-span2\n"),
            ("pve1/lxc/300.conf", "hookscript: local:snippets/other\n[before]\nhookscript: local:snippets/pve-span.old\n"),
            ("pve1/qemu-server/notes.txt", CFG),
        ]);
        let said = chroot.run("dpkg -r pve-span");
        assert!(!chroot.has(SNIPPET), "{said}");
    }

    fn it_goes_with_the_purge_when_the_last_guest_has_let_go(chroot) {
        installed(chroot, &[("pve1/qemu-server/101.conf", CFG)]);
        chroot.run("dpkg -r pve-span");
        assert!(chroot.has(SNIPPET));
        chroot.write("/etc/pve/nodes/pve1/qemu-server/101.conf", "name: a\n");
        chroot.run("dpkg -P pve-span");
        assert!(!chroot.has(SNIPPET));
    }

    fn unknown_is_not_unneeded(chroot) {
        let unknown = format!(
            "pve-span: {SNIPPET} stays: /etc/pve is not mounted or cannot be read, so nobody can tell whether guests have it as \
             their hookscript, and Proxmox VE does not start a guest whose hookscript is missing. Without the program it does \
             nothing and lets them start. Once no guest has it any more (grep -r snippets/pve-span /etc/pve/nodes): rm {SNIPPET}\n"
        );
        // No /etc/pve at all; an empty one; one with counters and nothing else.
        for prepare in ["rm -rf /etc/pve", "mkdir /etc/pve", "touch /etc/pve/.version"] {
            chroot.run(prepare);
            built::install(chroot);
            let said = chroot.run("dpkg -r pve-span");
            assert!(said.contains(&unknown), "{prepare}: {said}");
            starts_guest_without_program(chroot);
            let said = chroot.run("dpkg -P pve-span");
            assert!(
                said.contains(&format!("pve-span: {SNIPPET} stays, as /etc/pve does not tell whether guests need it\n")),
                "{said}"
            );
            starts_guest_without_program(chroot);
        }
    }

    fn many_guests_are_counted_and_some_are_named(chroot) {
        let paths: Vec<String> = (100..600).map(|vmid| format!("pve1/qemu-server/{vmid}.conf")).collect();
        let configs: Vec<(&str, &str)> = paths.iter().map(|path| (path.as_str(), CFG)).collect();
        installed(chroot, &configs);
        let said = chroot.run("dpkg -r pve-span");
        let first: String = (100..120).map(|vmid| format!("  VM {vmid} on pve1\n")).collect();
        assert!(said.contains(&long(500, &format!("{first}  and 480 more\n"))), "{said}");
    }

    fn what_a_config_says_cannot_write_on_the_terminal(chroot) {
        installed(chroot, &[("pve1/qemu-server/101.conf", &format!("[\u{1b}[31mred$(id)]\n{CFG}"))]);
        let said = chroot.run("dpkg -r pve-span");
        assert!(said.contains("\n  VM 101 on pve1, in snapshot 31mredid\n"), "{said}");
        assert!(!said.contains('\u{1b}'));
    }

    fn hookscripts_of_others_that_call_it_are_named(chroot) {
        installed(chroot, &[]);
        chroot.write("/var/lib/vz/snippets/mine", "#!/bin/sh\npve-span hook \"$1\" \"$2\"\n");
        chroot.write("/var/lib/vz/snippets/other.yml", "users: []\n");
        let said = chroot.run("dpkg -r pve-span");
        let named: Vec<&str> = said.lines().filter(|line| line.contains("mentions")).collect();
        assert_eq!(named, ["pve-span: /var/lib/vz/snippets/mine mentions pve-span, which is gone: if it is a guest's \
            hookscript, see that it exits with 0 all the same, or the guest does not start"]);
    }
}
