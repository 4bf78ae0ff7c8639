//! The Debian releases that the package is for: Proxmox VE 8's and 9's base.

use super::chroot::{Chroot, Start};
use super::{base, built};
use crate::lab;

/// A release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    Twelve,
    Thirteen,
}

impl Release {
    pub fn codename(self) -> &'static str {
        match self {
            Release::Twelve => "bookworm",
            Release::Thirteen => "trixie",
        }
    }

    /// A fresh chroot of it in which the package can be installed. None, and a word about it, where the package was
    /// built on a later release, whose libc it needs.
    pub fn chroot(self, start: Start<'_>) -> Option<Chroot> {
        self.chroot_with(base::Kind::Plain, start)
    }

    /// The same with other things installed.
    pub fn chroot_with(self, kind: base::Kind, start: Start<'_>) -> Option<Chroot> {
        let chroot = Chroot::new(&base::base(self, kind), start);
        let needed = built::needed_libc();
        let is_there = chroot.sh(&format!(
            "dpkg --compare-versions \"$(dpkg-query -W -f '${{Version}}' libc6)\" ge {needed}"
        ));
        assert!(matches!(is_there.code, 0 | 1), "{is_there:?}");
        let why = || format!("the package needs libc6 {needed}, which {self:?} does not have");
        lab::or_skip((is_there.code == 0).then_some(chroot).ok_or_else(why))
    }
}

/// A test that gets a chroot of each release, as two tests.
macro_rules! in_both_releases {
    ($(fn $name:ident($chroot:ident) $body:block)+) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            use crate::chroot::{Chroot, Start};
            use crate::release::Release;

            fn test($chroot: &Chroot) $body

            #[test]
            fn in_debian_12() {
                if let Some(chroot) = Release::Twelve.chroot(Start::Alone) {
                    test(&chroot);
                }
            }

            #[test]
            fn in_debian_13() {
                if let Some(chroot) = Release::Thirteen.chroot(Start::Alone) {
                    test(&chroot);
                }
            }
        }
    )+};
}
