//! The moments in between, and what goes wrong: at each of them guests start.

use std::path::Path;

use crate::built::{self, NEWER};
use crate::chroot::Chroot;
use crate::snippet::{SNIPPET, is_in_place, starts_guest};

/// Called as Proxmox VE does, in a maintainer script: says how it went.
const PROBE: &str =
    "\n/var/lib/vz/snippets/pve-span 101 pre-start; echo \"$0 $1: the guest starts: $?\"\n";

/// Brings in a version with a change to its scripts, as /changed.deb.
fn bring(chroot: &Chroot, change: impl FnOnce(&Path)) {
    let version = built::version(NEWER, change);
    chroot.bring(&version.path().join("pve-span.deb"), "/changed.deb");
}

/// Puts the probe at the beginning of a script.
fn probe(tree: &Path, name: &str) {
    let old = std::fs::read_to_string(tree.join("DEBIAN").join(name)).unwrap_or_default();
    built::script(tree, name, &format!("#!/bin/sh{PROBE}{old}"));
}

/// How the probes went, in their order: `prerm remove: 0`.
fn probes(said: &str) -> Vec<String> {
    let probes = said
        .lines()
        .filter_map(|line| line.split_once(": the guest starts: "));
    let name = |path: &str| path.rsplit(['/', '.']).next().unwrap().to_owned();
    probes
        .map(|(script, code)| format!("{}: {code}", name(script)))
        .collect()
}

in_both_releases! {
    fn guests_start_at_every_moment_of_an_upgrade_and_of_a_removal(chroot) {
        bring(chroot, |tree| {
            for name in ["preinst", "postinst", "prerm", "postrm"] {
                probe(tree, name);
            }
        });
        built::install(chroot);
        chroot.write("/etc/pve/.version", "{}\n");
        chroot.write("/etc/pve/nodes/pve1/qemu-server/101.conf", "hookscript: local:snippets/pve-span\n");
        let said = chroot.run("dpkg -i /changed.deb");
        assert_eq!(probes(&said), ["preinst upgrade: 0", "postinst configure: 0"], "{said}");
        let said = chroot.run("dpkg -i /changed.deb; dpkg -r pve-span");
        assert_eq!(
            probes(&said),
            ["prerm upgrade: 0", "preinst upgrade: 0", "postrm upgrade: 0", "postinst configure: 0", "prerm remove: 0", "postrm remove: 0"],
            "{said}"
        );
    }

    fn an_upgrade_that_fails_leaves_everything_as_it_was(chroot) {
        built::install(chroot);
        bring(chroot, |tree| built::script(tree, "preinst", "#!/bin/sh\nexit 1\n"));
        assert_ne!(chroot.sh("dpkg -i /changed.deb").code, 0);
        is_in_place(chroot, "");
        starts_guest(chroot);
        assert_eq!(chroot.run("dpkg-query -W -f '${db:Status-Status} ${Version}' pve-span"), "installed 0.1.0-1");
    }

    fn an_upgrade_that_fails_late_is_completed_by_the_next_one(chroot) {
        built::install(chroot);
        bring(chroot, |tree| built::script(tree, "postinst", "#!/bin/sh\nexit 1\n"));
        assert_ne!(chroot.sh("dpkg -i /changed.deb").code, 0);
        starts_guest(chroot);
        built::install(chroot);
        is_in_place(chroot, "");
        starts_guest(chroot);
    }

    fn a_removal_that_is_called_off_brings_the_service_back(chroot) {
        bring(chroot, |tree| built::append(&tree.join("DEBIAN/prerm"), "\nexit 1\n"));
        chroot.run("dpkg -i /changed.deb");
        let said = chroot.sh("dpkg -r pve-span");
        assert_ne!(said.code, 0, "{}", said.text);
        starts_guest(chroot);
        assert_eq!(chroot.run("systemctl is-enabled pve-span").trim_end(), "enabled");
        built::install(chroot);
        assert!(!chroot.has("/var/lib/pve-span/pve-span.removed"));
    }

    fn what_cannot_be_told_to_anybody_stops_neither_installation_nor_removal(chroot) {
        chroot.write(SNIPPET, "#!/bin/sh\npve-span\n");
        chroot.write("/etc/systemd/system/pve-span.service", "[Service]\nExecStart=/bin/true\n");
        let deb = built::deb();
        chroot.bring(&deb, "/pve-span.deb");
        let status = "dpkg-query -W -f '${db:Status-Status}' pve-span";
        for deaf in ["2>/dev/full", "2>&-"] {
            chroot.run(&format!("dpkg -i /pve-span.deb {deaf}"));
            assert_eq!(chroot.run(status), "installed", "{deaf}");
            chroot.run(&format!("dpkg -r pve-span {deaf}"));
            assert_eq!(chroot.run(status), "config-files", "{deaf}");
            // dpkg itself minds that it cannot warn of a folder that it shares with others.
            chroot.sh(&format!("dpkg -P pve-span {deaf}"));
            assert_ne!(chroot.sh(status).code, 0, "{deaf}");
        }
        assert!(chroot.has(SNIPPET));
    }

    fn a_package_that_takes_its_place_leaves_the_hookscript(chroot) {
        built::install(chroot);
        chroot.write("/other/DEBIAN/control", "Package: other-span\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\n\
            Conflicts: pve-span\nReplaces: pve-span\nProvides: pve-span\nDescription: another\n");
        chroot.run("dpkg-deb --build /other /other.deb");
        chroot.write("/etc/pve/.version", "{}\n");
        chroot.write("/etc/pve/nodes/pve1/qemu-server/101.conf", "hookscript: local:snippets/pve-span\n");
        chroot.run("dpkg -i --auto-deconfigure /other.deb");
        assert!(!chroot.has("/usr/bin/pve-span"));
        assert!(chroot.has(SNIPPET));
        crate::snippet::starts_guest_without_program(chroot);
    }
}
