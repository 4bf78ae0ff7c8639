//! The hookscript in the snippets folder: put there and renewed, and never in place of somebody else's.

use std::os::unix::fs::PermissionsExt as _;

use crate::built::{self, NEWER};
use crate::chroot::Chroot;

pub const SNIPPET: &str = "/var/lib/vz/snippets/pve-span";
pub const MARK: &str = "Hookscript for Proxmox VE that calls pve-span";

const WRAPPER: &str = include_str!("../../hookscripts/pve-span");

/// The hookscript is the package's, with `more` behind it, and nothing else is in the folder.
#[track_caller]
pub fn is_in_place(chroot: &Chroot, more: &str) {
    let file = chroot.path(SNIPPET).symlink_metadata().unwrap();
    assert!(file.is_file(), "not a link");
    assert_eq!(file.permissions().mode() & 0o7777, 0o755);
    assert_eq!(chroot.read(SNIPPET), format!("{WRAPPER}{more}"));
    assert_eq!(
        chroot.run("ls -A /var/lib/vz/snippets"),
        "pve-span\n",
        "nothing is left lying"
    );
}

/// Proxmox VE's call before a guest starts; the program is there, and has nothing to say but that /etc/pve is missing.
#[track_caller]
pub fn starts_guest(chroot: &Chroot) {
    assert!(WRAPPER.contains(MARK));
    let expected = if chroot.has("/etc/pve/.version") {
        ""
    } else {
        "pve-span: error: guest 101: cannot tell whether another hookscript is to be called after pve-span, so none is: \
         /etc/pve is not mounted\n"
    };
    assert_eq!(chroot.run(&format!("{SNIPPET} 101 pre-start")), expected);
}

/// The same where the program is gone.
#[track_caller]
pub fn starts_guest_without_program(chroot: &Chroot) {
    for phase in ["pre-start", "post-start", "pre-stop", "post-stop"] {
        let said = chroot.run(&format!("{SNIPPET} 101 {phase}"));
        assert!(said.starts_with("pve-span: not installed on "), "{said}");
        assert!(
            said.ends_with("; guest 101 goes on without its mirrors\n"),
            "{said}"
        );
    }
}

in_both_releases! {
    fn a_link_to_the_program_becomes_the_hookscript(chroot) {
        // Also one that an earlier removal by hand has left dangling.
        for link in ["/usr/bin/pve-span", "/usr/local/bin/pve-span", "/usr/share/pve-span/hookscript"] {
            chroot.run(&format!("mkdir -p /var/lib/vz/snippets; ln -sfT {link} {SNIPPET}"));
            built::install(chroot);
            is_in_place(chroot, "");
        }
    }

    fn links_that_were_made_since_become_the_hookscript_before_the_program_goes(chroot) {
        built::install(chroot);
        chroot.run(&format!("ln -sf /usr/bin/pve-span {SNIPPET}; ln -s ../../../../usr/bin/pve-span {SNIPPET}-too"));
        chroot.run("ln -s /usr/bin/true /var/lib/vz/snippets/theirs");
        chroot.run("dpkg -r pve-span");
        starts_guest_without_program(chroot);
        assert_eq!(chroot.read(&format!("{SNIPPET}-too")), WRAPPER);
        assert!(chroot.path("/var/lib/vz/snippets/theirs").is_symlink());
    }

    fn links_to_the_hookscript_itself_become_copies_as_it_may_go(chroot) {
        built::install(chroot);
        chroot.run(&format!("ln -s pve-span {SNIPPET}-too"));
        // A guest has it under its other name only.
        chroot.write("/etc/pve/.version", "{}\n");
        chroot.write("/etc/pve/nodes/pve1/qemu-server/101.conf", "hookscript: local:snippets/pve-span-too\n");
        chroot.run("dpkg -r pve-span");
        assert!(!chroot.has(SNIPPET));
        assert_eq!(chroot.read(&format!("{SNIPPET}-too")), WRAPPER);
        let said = chroot.run(&format!("{SNIPPET}-too 101 pre-start"));
        assert!(said.starts_with("pve-span: not installed on "), "{said}");
    }

    fn somebody_else_s_file_of_that_name_is_never_touched(chroot) {
        let theirs = "#!/bin/sh\necho mine\n";
        chroot.write(SNIPPET, theirs);
        let kept = format!(
            "pve-span: {SNIPPET} is not pve-span's, so it stays as it is. To have pve-span's there, move it away and run \
             /usr/share/pve-span/put-snippet; or let it call: /usr/share/pve-span/hookscript \"$@\" || true\n"
        );
        let said = built::install(chroot);
        assert!(said.contains(&kept), "{said}");
        let said = built::install_version(chroot, NEWER);
        assert!(said.contains(&kept), "{said}");
        chroot.write("/etc/pve/.version", "{}\n");
        chroot.run("mkdir -p /etc/pve/nodes");
        chroot.run("dpkg -P pve-span");
        assert_eq!(chroot.read(SNIPPET), theirs);
        assert_eq!(chroot.path(SNIPPET).metadata().unwrap().permissions().mode() & 0o111, 0);
    }

    fn somebody_else_s_link_or_folder_of_that_name_is_not_touched_either(chroot) {
        chroot.write("/root/shared", &format!("#!/bin/sh\n# {MARK}, changed\n"));
        chroot.run(&format!("mkdir -p /var/lib/vz/snippets; ln -s /root/shared {SNIPPET}"));
        let said = built::install(chroot);
        assert!(said.contains(" is not pve-span's, so it stays as it is."), "{said}");
        assert_eq!(chroot.run(&format!("readlink {SNIPPET}")), "/root/shared\n");
        chroot.run(&format!("rm {SNIPPET}; mkdir {SNIPPET}"));
        let said = built::install(chroot);
        assert!(said.contains(" is not pve-span's, so it stays as it is."), "{said}");
        chroot.run("dpkg -P pve-span");
        assert_eq!(chroot.run(&format!("ls -A {SNIPPET}")), "");
    }

    fn moved_away_as_told_it_makes_room_for_ours(chroot) {
        chroot.write(SNIPPET, "#!/bin/sh\n");
        built::install(chroot);
        assert_eq!(chroot.run(&format!("rm {SNIPPET}; /usr/share/pve-span/put-snippet")), "");
        is_in_place(chroot, "");
    }

    fn a_folder_that_cannot_be_written_fails_no_installation_and_keeps_the_old_one(chroot) {
        built::install(chroot);
        let old = chroot.read(SNIPPET);
        chroot.run("mount --bind /var/lib/vz/snippets /var/lib/vz/snippets && mount -o remount,bind,ro /var/lib/vz/snippets");
        let said = built::install_version(chroot, NEWER);
        assert!(
            said.contains(&format!(
                "pve-span: cannot write {SNIPPET}; guests cannot have it as their hookscript until it is there. \
                 Try again: /usr/share/pve-span/put-snippet\n"
            )),
            "{said}"
        );
        assert_eq!(chroot.read(SNIPPET), old);
        starts_guest(chroot);
    }
}
