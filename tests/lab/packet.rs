//! Packet sockets (packet(7)): the few system calls that the standard library and nix lack.
//!
//! The kernel takes the outer 802.1Q tag out of the bytes on receiving and puts it beside them; it is put back
//! here, so a frame is as it was on the wire.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType};
use nix::sys::socket::{recvmsg, setsockopt, socket};

use super::frame::Frame;

/// The largest frame that segmentation offload makes, and some.
pub(super) const LARGEST: usize = 70_000;

/// Room for what arrives while the test is busy; taken only as it fills.
const BUFFER: usize = 256 << 20;

// linux/if_packet.h
const TP_STATUS_CSUMNOTREADY: u32 = 1 << 3;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;

/// What a socket is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Receives nothing.
    Send,
    /// Receives what comes in, not what goes out.
    Receive,
}

/// Opens a socket on a device of this thread's network namespace.
pub(super) fn open(device: &str, purpose: Use) -> io::Result<OwnedFd> {
    let index = i32::try_from(if_nametoindex(device)?).map_err(io::Error::other)?;
    // Without a protocol it receives nothing yet; so nothing gets in from other devices before the bind.
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut protocol = 0;
    if purpose == Use::Receive {
        set_packet_option(&socket, libc::PACKET_AUXDATA)?;
        set_packet_option(&socket, libc::PACKET_IGNORE_OUTGOING)?;
        setsockopt(&socket, RcvBufForce, &BUFFER)?;
        protocol = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?;
    }
    bind(&socket, protocol, index)?;
    Ok(socket)
}

fn bind(socket: &OwnedFd, protocol: u16, index: i32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = u32::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length are of one live sockaddr_ll.
    Errno::result(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(())
}

fn set_packet_option(socket: &OwnedFd, option: libc::c_int) -> nix::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length (4) are of one live int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const on).cast(),
            4,
        )
    };
    Errno::result(result).map(drop)
}

/// How many frames the kernel has thrown away for want of room since the last call.
pub(super) fn missed(socket: &OwnedFd) -> nix::Result<u32> {
    // struct tpacket_stats: packets seen, packets dropped.
    let mut stats = [0_u32; 2];
    let mut len: libc::socklen_t = 8;
    let (fd, level, option) = (
        socket.as_raw_fd(),
        libc::SOL_PACKET,
        libc::PACKET_STATISTICS,
    );
    // SAFETY: the pointer and the length (8) are of the live array.
    Errno::result(unsafe {
        libc::getsockopt(fd, level, option, (&raw mut stats).cast(), &raw mut len)
    })?;
    Ok(stats[1])
}

/// Receives one frame; `EAGAIN` if there is none.
pub(super) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> nix::Result<Frame> {
    let mut room = nix::cmsg_space!([u32; 5]);
    let (len, auxiliary) = {
        let mut parts = [io::IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut room), flags)?;
        let auxiliary = message.cmsgs()?.find_map(|part| match part {
            ControlMessageOwned::Unknown(part) => Some(part.data_bytes),
            _ => None,
        });
        (message.bytes, auxiliary.expect("PACKET_AUXDATA is on"))
    };
    assert!(len <= buffer.len(), "a frame of {len} bytes");
    let mut frame = Frame::from_bytes(buffer[..len].to_vec());
    // struct tpacket_auxdata: u32 status, len, snaplen; u16 mac, net, vlan_tci, vlan_tpid.
    let u16_at = |at: usize| u16::from_ne_bytes([auxiliary[at], auxiliary[at + 1]]);
    let status = u32::from_ne_bytes([auxiliary[0], auxiliary[1], auxiliary[2], auxiliary[3]]);
    if status & TP_STATUS_VLAN_VALID != 0 {
        let tpid = if status & TP_STATUS_VLAN_TPID_VALID != 0 {
            u16_at(18)
        } else {
            0x8100
        };
        frame.insert_tag(tpid, u16_at(16));
    }
    Ok(if status & TP_STATUS_CSUMNOTREADY != 0 {
        frame.without_checksum()
    } else {
        frame
    })
}
