//! Taps opened as QEMU opens them: with a `struct virtio_net_hdr` before each frame, and with the offloads that a
//! guest's driver has agreed to.
//!
//! A frame then crosses the node as the guest has left it: up to 64 KiB long, its checksum not computed yet.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::errno::Errno;
use nix::libc;

use super::frame::Frame;
use super::node::Node;

/// `struct virtio_net_hdr_mrg_rxbuf` (virtio 1.2, 5.1.6), which QEMU takes for a virtio 1.0 guest.
pub(super) const HEADER: usize = 12;

/// VIRTIO_NET_HDR_F_NEEDS_CSUM
const NEEDS_CSUM: u8 = 1;

/// What stands before a frame on a tap's file descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VnetHeader {
    /// `VIRTIO_NET_HDR_F_…`
    pub flags: u8,
    /// `VIRTIO_NET_HDR_GSO_…`: 0 for a frame as on a wire, 1 for TCP over IPv4, 4 over IPv6, 5 for UDP.
    pub gso_type: u8,
    /// Payload bytes that each of its segments would have.
    pub gso_size: u16,
}

/// A frame as a program behind a tap gets it.
#[derive(Clone, Debug)]
pub struct TapFrame {
    /// What the node says about it.
    pub header: VnetHeader,
    /// Its bytes. Where the header leaves the checksum to the receiver, [`Frame::checksum_done`] is false.
    pub frame: Frame,
}

impl TapFrame {
    /// Takes apart what a read of the tap returned.
    pub(super) fn parse(bytes: &[u8]) -> TapFrame {
        let header = VnetHeader {
            flags: bytes[0],
            gso_type: bytes[1],
            gso_size: u16::from_ne_bytes([bytes[4], bytes[5]]),
        };
        let frame = Frame::from_bytes(bytes[HEADER..].to_vec());
        let frame = if header.flags & NEEDS_CSUM == 0 {
            frame
        } else {
            frame.without_checksum()
        };
        TapFrame { header, frame }
    }

    /// Whether it still has to be cut into segments.
    pub fn is_gso(&self) -> bool {
        self.header.gso_type != 0
    }
}

/// Makes the tap `name` in this thread's network namespace; it goes when the file is closed. Reads and writes do
/// not block.
pub(super) fn open(name: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    attach(&file, name)?;
    let size = libc::c_int::try_from(HEADER).map_err(io::Error::other)?;
    // SAFETY: TUNSETVNETHDRSZ reads one int through the pointer, which is to a live one.
    Errno::result(unsafe {
        libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size)
    })?;
    negotiate(&file)?;
    Ok(file)
}

/// What QEMU does whenever the guest's driver has started: the device gets the offloads that the two agreed on.
fn negotiate(file: &File) -> nix::Result<()> {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    // UDP segmentation is Linux 6.2's. QEMU too asks for it first and goes on without.
    let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    offload(file, tcp | udp).or_else(|_| offload(file, tcp))
}

/// A tap of nobody's; the device goes when it is dropped.
pub struct Tap(File);

impl Node {
    /// Makes a tap on the node, up and in no bridge.
    #[track_caller]
    pub fn tap(&self, name: &str) -> Tap {
        let tap = self.inside(|| open(name));
        let tap = tap.unwrap_or_else(|error| panic!("cannot make the tap {name}: {error}"));
        self.ip(&[format!("link set {name} promisc on up")]);
        Tap(tap)
    }
}

impl Tap {
    /// The guest's driver starts anew.
    #[track_caller]
    pub fn negotiate(&self) {
        negotiate(&self.0).unwrap_or_else(|error| panic!("cannot set a tap's offloads: {error}"));
    }
}

fn attach(file: &File, name: &str) -> io::Result<()> {
    // SAFETY: all of its bytes may be zero: it is integers, addresses and null pointers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    assert!(name.len() < request.ifr_name.len(), "{name} is too long");
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::try_from(from).map_err(io::Error::other)?;
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: TUNSETIFF reads and writes one ifreq through the pointer, which is to a live one.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    Errno::result(result)?;
    Ok(())
}

fn offload(file: &File, what: libc::c_uint) -> nix::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes a number, no pointer.
    let result = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            libc::TUNSETOFFLOAD,
            libc::c_ulong::from(what),
        )
    };
    Errno::result(result).map(drop)
}
