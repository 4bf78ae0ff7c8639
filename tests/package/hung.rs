//! A cluster filesystem that hangs holds neither installation nor removal for ever.

use crate::built::{self, NEWER};
use crate::chroot::Start;
use crate::release::Release;
use crate::snippet::SNIPPET;

#[test]
fn packages_come_and_go_while_etc_pve_hangs() {
    let Some(chroot) = Release::Thirteen.chroot(Start::Alone) else {
        return;
    };
    chroot.run("mkdir /etc/pve");
    built::install(&chroot);
    chroot.while_pve_hangs(|| {
        built::install_version(&chroot, NEWER);
        let said = chroot.run("dpkg -r pve-span");
        assert!(!said.contains("mirrors"), "they are taken down all the same: {said}");
        let unknown = format!("pve-span: {SNIPPET} stays: /etc/pve is not mounted or cannot be read, so nobody can tell");
        assert!(said.contains(&unknown), "{said}");
        let said = chroot.run(&format!("{SNIPPET} 101 pre-start"));
        let unknown = "pve-span: guest 101: /etc/pve/span-hooks does not answer, so nobody can tell whether another hookscript \
            is to be called; none is\n";
        assert!(said.ends_with(unknown), "{said}");
        let said = chroot.run("dpkg -P pve-span");
        assert!(said.contains("stays, as /etc/pve does not tell whether guests need it"), "{said}");
    });
}
