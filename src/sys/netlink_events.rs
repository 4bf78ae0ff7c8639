//! What the kernel announces: that devices (rtnetlink) or nftables' rules have changed. What exactly is not asked here:
//! the next look tells.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};

use super::netlink_attributes::table;
use super::netlink_socket::Messages;
use pve_span_core::engine::nft::TABLE;

/// Which announcements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Devices and bridge ports.
    Links,
    /// Our table in nftables.
    Table,
}

/// What has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Nothing that matters.
    Nothing,
    /// Something has changed.
    Change,
    /// More than there was room for: anything may have changed.
    Overrun,
}

/// `RTNLGRP_LINK` (linux/rtnetlink.h).
const GROUP_LINK: u32 = 1;
/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
const GROUP_NFTABLES: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES`: the upper byte of a message's type.
const SUBSYSTEM_NFTABLES: u16 = 10;
/// `NFPROTO_NETDEV` (linux/netfilter.h).
const FAMILY_NETDEV: u8 = 5;

/// What is kept of announcements that have not been read, in bytes: hundreds of guests that start at once, or another
/// firewall that loads thousands of rules.
const ROOM: usize = 4 << 20;

/// The most that is read in one go, in messages' datagrams: other things want to be looked after too.
const MOST: usize = 1000;

/// A socket that announcements arrive at.
#[derive(Debug)]
pub struct KernelListener {
    socket: Socket,
    about: Topic,
    buffer: Vec<u8>,
}

impl KernelListener {
    /// Listens from now on.
    ///
    /// # Errors
    /// The kernel has none of it, or does not permit it.
    pub fn open(about: Topic) -> io::Result<Self> {
        let (protocol, group) = match about {
            Topic::Links => (NETLINK_ROUTE, GROUP_LINK),
            Topic::Table => (NETLINK_NETFILTER, GROUP_NFTABLES),
        };
        let mut socket = Socket::new(protocol)?;
        socket.set_non_blocking(true)?;
        // Without CAP_NET_ADMIN it is the system's limit.
        if setsockopt(&socket, sockopt::RcvBufForce, &ROOM).is_err() {
            let _ = setsockopt(&socket, sockopt::RcvBuf, &ROOM);
        }
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.add_membership(group)?;
        Ok(Self {
            socket,
            about,
            buffer: vec![0; 32 * 1024],
        })
    }

    /// Reads what has arrived, without waiting.
    ///
    /// # Errors
    /// The socket cannot be used any longer.
    pub fn drain(&mut self) -> io::Result<Heard> {
        let mut heard = Heard::Nothing;
        for _ in 0..MOST {
            match recv(
                self.socket.as_raw_fd(),
                &mut self.buffer,
                MsgFlags::MSG_TRUNC,
            ) {
                Ok(length) => {
                    let matters = match self.buffer.get(..length) {
                        Some(datagram) => self.matters(datagram),
                        // Cut off: it may have been anything.
                        None => true,
                    };
                    if matters && heard == Heard::Nothing {
                        heard = Heard::Change;
                    }
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => heard = Heard::Overrun,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(heard)
    }

    fn matters(&self, datagram: &[u8]) -> bool {
        match self.about {
            Topic::Links => true,
            Topic::Table => Messages::of(datagram).any(|message| match message {
                Ok((kind, body)) => kind >> 8 == SUBSYSTEM_NFTABLES && is_ours(body),
                Err(_) => true,
            }),
        }
    }
}

/// Is it about our table? Each kind of message names the table in its first kind of attribute, after struct nfgenmsg.
pub(crate) fn is_ours(body: &[u8]) -> bool {
    let attributes = body.get(4..).unwrap_or_default();
    body.first() == Some(&FAMILY_NETDEV) && table(attributes).as_deref() == Some(TABLE)
}

impl AsFd for KernelListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
