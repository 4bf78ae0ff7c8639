//! The Debian package, by Debian's own tools: built as `make deb` builds it, and put through whatever can happen to a
//! package by dpkg and apt themselves, in Debian 12 and Debian 13 (debootstrap, from the mirror that this machine uses).
//!
//! What it must never do is keep a guest from starting. So most tests end by calling the hookscript as Proxmox VE does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

#[path = "../fuse/mod.rs"]
mod fuse;
#[path = "../lab/mod.rs"]
mod lab;
#[path = "../scene/mod.rs"]
mod scene;

#[macro_use]
mod release;
mod base;
mod built;
mod chroot;
mod contents;
mod counted;
mod hung;
mod interrupted;
mod life;
mod manuals;
mod mirrors;
mod needed;
mod playbook;
mod prepared;
mod repository;
mod snippet;
