//! The laboratory: a miniature Proxmox VE node, made anew for each test.
//!
//! pve-span's work is to notice what Open vSwitch, the kernel and Proxmox VE really do, so its tests run
//! against the real ones: a private ovsdb-server and ovs-vswitchd (userspace datapath), real Linux bridges,
//! guests on ports that are named and plugged as Proxmox VE does it, an /etc/pve tree, and real frames.
//! Nothing here is a stand-in for the code under test, and nothing touches the machine's own network.
//!
//! ```text
//!   netns span-<pid>-<n>-node                          netns span-<pid>-<n>-wire
//!   ovsdb-server, ovs-vswitchd, pve-span
//!   vmbr2 ── fwln101o0 ── fwbr101i0 ── tap101i0 ══════ g101i0   (inside guest 101)
//!   vmbr0 ── veth300i0 ═══════════════════════════════ g300i0   (inside container 300)
//!         └─ eno1 ════════════════════════════════════ weno1    (the cable)
//! ```
//!
//! ```no_run
//! let node = Node::start();
//! node.ovs_bridge("vmbr2");
//! node.add(&Guest::vm(101).net(0, "virtio=BC:24:11:2A:00:01,bridge=vmbr2,firewall=1"));
//! node.add(&Guest::vm(102).net(0, "virtio=BC:24:11:2A:00:02,bridge=vmbr2"));
//! node.start_guests([101, 102]);
//! node.exchange("101/net0", "102/net0", "hello");
//! ```
//!
//! A guest's devices are veth pairs, whose far ends take frames made by hand; `Guest::qemu` has real taps with
//! offloads and a network stack behind them instead (see `qemu`).
//!
//! Each test uses a part of it only, hence the `dead_code` below; and a laboratory that cannot do what it is
//! asked fails the test on the spot, hence the panics.
#![allow(dead_code, unused_imports)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod daemon;
mod device;
mod frame;
mod guest;
mod inspect;
mod load;
mod node;
mod ovs;
mod packet;
mod plug;
mod pve;
mod qemu;
mod random;
mod reaper;
mod run;
mod skip;
mod sniff;
mod span;
mod stream;
mod tap;
mod watch;
mod wire;

pub use frame::{Frame, Mac};
pub use guest::{Guest, Inside, Kind, Nic};
pub use inspect::Inspection;
pub use load::{Counter, Load, Tally};
pub use node::Node;
pub use random::Random;
pub use run::{PATIENCE, run, try_run, wait_until};
pub use skip::or_skip;
pub use sniff::TapCapture;
pub use span::binary;
pub use stream::Stream;
pub use tap::{Tap, TapFrame, VnetHeader};
pub use watch::{Watch, is_alive};
pub use wire::{Capture, Sender};
