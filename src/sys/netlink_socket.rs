//! A netlink socket that knows no family: a question goes out, answers come back, in time.
//!
//! netlink(7): each question ends with an acknowledgement, an error or, if it is for a list, with the list's
//! end. What the answers mean is the caller's.

use std::io;
use std::os::fd::AsRawFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN,
};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::sys::time::TimeVal;

/// How long the kernel may take for an answer, in seconds; it takes microseconds.
const PATIENCE: i64 = 2;

/// `NLM_F_DUMP_INTR` (linux/netlink.h): the list changed while it was sent.
const DUMP_INTERRUPTED: u16 = 0x10;

/// The largest answer: the kernel fills at most 32 KiB at once (net/netlink/af_netlink.c, `netlink_recvmsg`).
const LARGEST: usize = 64 * 1024;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// One thing, or a change.
    One,
    /// All there are.
    List,
}

/// How an answer arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DumpState {
    /// In one piece.
    Whole,
    /// What it tells of changed meanwhile: some may be missing, some be there twice.
    Broken,
}

/// A socket to the kernel, and room for its answers.
pub struct Netlink {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Netlink {
    /// A socket of a netlink family (`NETLINK_ROUTE` …).
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let patience = TimeVal::new(PATIENCE, 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
        setsockopt(&socket, sockopt::SendTimeout, &patience)?;
        Ok(Self {
            socket,
            buffer: vec![0; LARGEST],
        })
    }

    /// From now on the kernel takes what a question says of a list as a choice (`NETLINK_GET_STRICT_CHK`, Linux 4.20).
    pub fn strict(self) -> io::Result<Self> {
        self.socket.set_netlink_get_strict_chk(true)?;
        Ok(self)
    }

    /// Asks, and hands each message of the answer to `take`: its type, and what follows its header.
    pub fn ask(
        &mut self,
        kind: u16,
        want: RequestKind,
        body: &[u8],
        mut take: impl FnMut(u16, &[u8]),
    ) -> io::Result<DumpState> {
        let flags = match want {
            RequestKind::One => NLM_F_REQUEST | NLM_F_ACK,
            RequestKind::List => NLM_F_REQUEST | NLM_F_DUMP,
        };
        self.socket.send(&message(kind, flags, body), 0)?;
        let mut arrived = DumpState::Whole;
        loop {
            let length = recv(
                self.socket.as_raw_fd(),
                &mut self.buffer,
                MsgFlags::MSG_TRUNC,
            )?;
            let answer = self.buffer.get(..length).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "an answer larger than ever")
            })?;
            for message in Messages(answer) {
                let message = message?;
                if message.flags & DUMP_INTERRUPTED != 0 {
                    arrived = DumpState::Broken;
                }
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => return message.end().map(|()| arrived),
                    NLMSG_OVERRUN => arrived = DumpState::Broken,
                    kind => take(kind, message.body),
                }
            }
        }
    }
}

/// A message (struct nlmsghdr).
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Neither sequence number nor port: a socket has one question at a time, and the kernel knows whose it is.
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// The size of struct nlmsghdr.
const HEADER: usize = 16;

/// A message that arrived.
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    flags: u16,
    pub(crate) body: &'a [u8],
}

impl Message<'_> {
    /// How it went, by the number that an end carries: 0, or an error's, negative.
    pub(crate) fn end(&self) -> io::Result<()> {
        match self
            .body
            .first_chunk()
            .map_or(0, |code| i32::from_ne_bytes(*code))
        {
            0.. => Ok(()),
            code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        }
    }
}

/// The messages in a piece of an answer.
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Messages<'a> {
    /// Each message's type, and what follows its header.
    pub fn of(bytes: &'a [u8]) -> impl Iterator<Item = io::Result<(u16, &'a [u8])>> {
        Messages(bytes).map(|message| message.map(|message| (message.kind, message.body)))
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = io::Result<Message<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        if bytes.is_empty() {
            return None;
        }
        let Some((message, length)) = first(bytes) else {
            return Some(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message that is cut off",
            )));
        };
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(message))
    }
}

/// The first message, and how long it is.
fn first(bytes: &[u8]) -> Option<(Message<'_>, usize)> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?);
    let length = usize::try_from(length).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let flags = u16::from_ne_bytes(*bytes.get(6..)?.first_chunk()?);
    let body = bytes.get(HEADER..length)?;
    Some((Message { kind, flags, body }, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_told_apart() {
        let mut bytes = message(7, 1, b"four");
        bytes.extend(message(8, DUMP_INTERRUPTED, b"three"));
        let found: Vec<_> = Messages(&bytes)
            .map(Result::unwrap)
            .map(|message| (message.kind, message.body.to_vec()))
            .collect();
        assert_eq!(found, [(7, b"four".to_vec()), (8, b"three".to_vec())]);
    }

    proptest! {
        #[test]
        fn hostile_bytes_end(bytes: Vec<u8>) {
            prop_assert!(Messages(&bytes).count() <= bytes.len() / HEADER + 1);
        }
    }
}
