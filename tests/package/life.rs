//! What happens to every package: installed, upgraded, taken back, installed anew, removed, purged.

use crate::built::{self, NEWER, OLDER};
use crate::snippet::{MARK, SNIPPET, is_in_place, starts_guest, starts_guest_without_program};

/// What the package and its scripts have made, apart from dpkg's own books.
const TRACES: [&str; 5] = [
    "/usr/bin/pve-span",
    "/usr/share/pve-span",
    "/usr/share/doc/pve-span",
    "/etc/systemd/system/multi-user.target.wants/pve-span.service",
    "/var/lib/pve-span",
];

in_both_releases! {
    fn installed_it_is_ready_to_use(chroot) {
        let said = built::install(chroot);
        let ours: Vec<&str> = said.lines().filter(|line| line.starts_with("pve-span: ")).collect();
        let next = "pve-span: installed. Next, unless another node has done it: pve-span init, which writes a first \
                    /etc/pve/span.cfg; then pve-span edit. What this node mirrors: pve-span status";
        assert_eq!(ours, [next], "no more than that");
        assert_eq!(chroot.run("pve-span --version").trim_end(), "pve-span 0.1.0");
        is_in_place(chroot, "");
        starts_guest(chroot);
        assert_eq!(
            chroot.run("systemctl is-enabled pve-span").trim_end(),
            "enabled"
        );
        // Dependencies are there, files are as they were packed.
        assert_eq!(chroot.run("dpkg --verify pve-span; apt-get check -qq"), "");
    }

    fn systemd_understands_the_installed_unit(chroot) {
        built::install(chroot);
        let said = chroot.sh("systemd-analyze verify --man=no pve-span.service").text;
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("pve-span")).collect();
        assert_eq!(ours, Vec::<&str>::new());
    }

    fn an_upgrade_renews_the_hookscript_and_the_old_version_brings_its_own_back(chroot) {
        built::install(chroot);
        built::install_version(chroot, NEWER);
        is_in_place(chroot, &format!("# {NEWER}\n"));
        starts_guest(chroot);
        let said = built::install_version(chroot, OLDER);
        assert!(!said.contains("pve-span init"), "who upgrades knows: {said}");
        assert!(said.contains("warning: downgrading pve-span"), "{said}");
        is_in_place(chroot, &format!("# {OLDER}\n"));
        starts_guest(chroot);
        built::install(chroot);
        is_in_place(chroot, "");
    }

    fn installed_anew_it_mends_a_hookscript_that_is_gone_or_broken(chroot) {
        built::install(chroot);
        for damage in [
            format!("rm {SNIPPET}"),
            format!("chmod -x {SNIPPET}"),
            format!("echo '# {MARK}' >{SNIPPET}"),
            "rm -r /var/lib/vz".to_owned(),
        ] {
            chroot.run(&damage);
            built::install(chroot);
            is_in_place(chroot, "");
            starts_guest(chroot);
        }
    }

    fn a_service_that_was_switched_off_stays_off(chroot) {
        built::install(chroot);
        chroot.run("systemctl disable pve-span");
        built::install_version(chroot, NEWER);
        assert_eq!(chroot.sh("systemctl is-enabled pve-span").text.trim_end(), "disabled");
    }

    fn removed_and_purged_nothing_of_it_is_left(chroot) {
        chroot.write("/etc/pve/.version", "{}\n");
        chroot.write("/etc/pve/span.cfg", "[a]\nsource = 101\noutput = 200/net1\n");
        chroot.run("mkdir -p /etc/pve/nodes/pve1/qemu-server /var/lib/prometheus/node-exporter /run/pve-span");
        chroot.run("touch /run/pve-span/events /run/pve-span.lock /var/lib/prometheus/node-exporter/pve-span.prom");
        built::install(chroot);
        chroot.write("/var/lib/pve-span/span.cfg", "# the last good copy\n");
        chroot.run("dpkg -r pve-span");
        assert!(!chroot.has(SNIPPET), "no guest needs it");
        assert!(chroot.has("/var/lib/pve-span/span.cfg"), "it may come back");
        assert!(!chroot.has("/var/lib/pve-span/pve-span.removed"));

        let said = chroot.run("dpkg -P pve-span");
        let left: Vec<&str> = TRACES.into_iter().filter(|path| chroot.has(path)).collect();
        assert_eq!(left, Vec::<&str>::new());
        for path in ["/run/pve-span", "/run/pve-span.lock", "/var/lib/prometheus/node-exporter/pve-span.prom"] {
            assert!(!chroot.has(path), "{path}");
        }
        assert_eq!(chroot.run("find / -xdev -name '*pve-span*' -not -path '/proc/*' -not -path '/*.deb'"), "");
        assert!(chroot.has("/etc/pve/span.cfg"), "it is every node's");
        assert!(
            said.contains("pve-span: /etc/pve/span.cfg and /etc/pve/span-hooks are left alone, if they are there: they are every node's\n"),
            "{said}"
        );
    }

    fn removed_and_installed_again_it_is_as_before(chroot) {
        built::install(chroot);
        chroot.run("dpkg -r pve-span");
        starts_guest_without_program(chroot);
        built::install(chroot);
        is_in_place(chroot, "");
        starts_guest(chroot);
        assert_eq!(chroot.run("systemctl is-enabled pve-span").trim_end(), "enabled");
    }

    fn what_an_administrator_installed_by_hand_is_taken_over(chroot) {
        chroot.write("/etc/systemd/system/pve-span.service", "[Service]\nExecStart=/bin/true\n");
        chroot.write("/usr/bin/pve-span", "#!/bin/sh\nexit 7\n");
        chroot.run("chmod 755 /usr/bin/pve-span; mkdir -p /var/lib/vz/snippets; ln -s /usr/bin/pve-span /var/lib/vz/snippets/");
        let said = built::install(chroot);
        assert!(
            said.contains(
                "pve-span: /etc/systemd/system/pve-span.service is used in place of the package's unit. Unless you want that: \
                 rm /etc/systemd/system/pve-span.service; systemctl daemon-reload; systemctl reenable --now pve-span\n"
            ),
            "{said}"
        );
        assert_eq!(chroot.run("pve-span --version").trim_end(), "pve-span 0.1.0");
        is_in_place(chroot, "");
    }
}
