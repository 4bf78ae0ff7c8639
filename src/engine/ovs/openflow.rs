//! The little of OpenFlow that makes ovs-vswitchd look at its datapath flows again.
//!
//! A change of a flow table makes it translate each datapath flow anew and change those in place whose actions differ.
//! A deletion counts as a change also when it finds nothing. So a flow is deleted that nobody has: its cookie, or the port
//! that it leads to, and its table are nobody's. Nothing else is ever sent.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::rpc;
use pve_span_core::model::IfName;

/// Why a bridge was not asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its socket does not accept.
    #[error("cannot connect to {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The connection broke.
    #[error("lost the connection to ovs-vswitchd")]
    Broken(#[source] io::Error),
    /// No answer in time.
    #[error(
        "ovs-vswitchd does not answer at {path}: does it hang? (systemctl status openvswitch-switch)"
    )]
    Timeout {
        /// The socket.
        path: PathBuf,
    },
    /// The bridge is set to versions that are not spoken here.
    #[error("the bridge's `protocols` allow none of OpenFlow 1.0, 1.2, 1.3, 1.4 and 1.5")]
    NoVersion,
    /// It answered with an error (OpenFlow 1.0, §5.4.4).
    #[error("ovs-vswitchd refused it (OpenFlow error {kind}, code {code})")]
    Refused {
        /// The error's type.
        kind: u16,
        /// Its code.
        code: u16,
    },
    /// What arrives is not OpenFlow.
    #[error("ovs-vswitchd's answer is not understood")]
    Protocol,
}

/// Wire versions that have a flow table's deletion as it is written here: 1.0, 1.2, 1.3, 1.4, 1.5.
const VERSIONS: u32 = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6;
const NEWEST: u8 = 6;
const OPENFLOW_10: u8 = 1;

const HELLO: u8 = 0;
const ERROR: u8 = 1;
const ECHO_REQUEST: u8 = 2;
const ECHO_REPLY: u8 = 3;
const FLOW_MOD: u8 = 14;
/// Its type is another one in OpenFlow 1.0; the reply's is one more.
const BARRIER_REQUEST_10: u8 = 18;
const BARRIER_REQUEST: u8 = 20;

const DELETE_STRICT: u8 = 4;
/// The last table that is not ovs-vswitchd's own.
const TABLE: u8 = 253;
/// Nobody's cookie.
const COOKIE: [u8; 8] = *b"pve-span";
/// OpenFlow 1.0 knows no cookies in deletions: there it is what only such a flow has, leading to this port. It is above
/// those that Open vSwitch gives to devices.
const PORT_10: [u8; 2] = [0xfe, 0xff];
/// Nobody's addresses: from and to the same one.
const MAC_10: [u8; 6] = *b"\x02span!";

/// A connection to a bridge.
#[derive(Debug)]
pub struct Switch {
    path: PathBuf,
    stream: UnixStream,
    deadline: Instant,
    received: Vec<u8>,
}

impl Switch {
    /// Connects and says hello, without waiting for the answer.
    ///
    /// # Errors
    /// Nobody accepts.
    pub fn connect(root: &Path, bridge: &IfName, deadline: Instant) -> Result<Self, Error> {
        let path = root.join(format!("run/openvswitch/{bridge}.mgmt"));
        let stream = rpc::connect(&path, deadline).map_err(|source| Error::Connect {
            path: path.clone(),
            source,
        })?;
        let mut switch = Self {
            path,
            stream,
            deadline,
            received: Vec::new(),
        };
        // An element with the versions (OpenFlow 1.3.1, §A.5.1).
        let mut versions = vec![0, 1, 0, 8];
        versions.extend(VERSIONS.to_be_bytes());
        switch.send(&message(NEWEST, HELLO, &versions))?;
        Ok(switch)
    }

    /// Has ovs-vswitchd revalidate the datapath flows of this bridge and of all others with the same datapath. It begins
    /// at once after this.
    ///
    /// # Errors
    /// It was not done, or nobody knows.
    pub fn revalidate(mut self) -> Result<(), Error> {
        let (version, versions) = loop {
            let (version, kind, body) = self.receive()?;
            match kind {
                HELLO => break (version, versions(version, &body)),
                ERROR => return Err(refusal(&body)),
                _ => {}
            }
        };
        let common = (versions & VERSIONS).checked_ilog2();
        let chosen = common.and_then(|bit| u8::try_from(bit).ok());
        let chosen = chosen.ok_or(Error::NoVersion)?;
        log::trace!("{}: OpenFlow {version}, {chosen}", self.path.display());
        let barrier = if chosen == OPENFLOW_10 {
            BARRIER_REQUEST_10
        } else {
            BARRIER_REQUEST
        };
        let mut asked = message(chosen, FLOW_MOD, &deletion(chosen));
        asked.extend(message(chosen, barrier, &[]));
        self.send(&asked)?;
        loop {
            let (_, kind, body) = self.receive()?;
            match kind {
                ERROR => return Err(refusal(&body)),
                ECHO_REQUEST => self.send(&message(chosen, ECHO_REPLY, &body))?,
                kind if kind == barrier + 1 => return Ok(()),
                _ => {}
            }
        }
    }

    fn send(&mut self, message: &[u8]) -> Result<(), Error> {
        let left = self.left()?;
        let sent = self
            .stream
            .set_write_timeout(Some(left))
            .and_then(|()| self.stream.write_all(message));
        sent.map_err(|source| self.failure(source))
    }

    /// The next message: its version, type and body.
    fn receive(&mut self) -> Result<(u8, u8, Vec<u8>), Error> {
        loop {
            if let [version, kind, high, low, ..] = *self.received {
                let length = usize::from(u16::from_be_bytes([high, low]));
                if length < HEADER {
                    return Err(Error::Protocol);
                }
                if self.received.len() >= length {
                    let rest = self.received.split_off(length);
                    let message = std::mem::replace(&mut self.received, rest);
                    let body = message.get(HEADER..).unwrap_or_default();
                    return Ok((version, kind, body.to_vec()));
                }
            }
            let left = self.left()?;
            let mut piece = [0; 4096];
            let read = self
                .stream
                .set_read_timeout(Some(left))
                .and_then(|()| self.stream.read(&mut piece));
            match read {
                Ok(0) => return Err(Error::Broken(ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.received.extend(piece.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(self.failure(source)),
            }
        }
    }

    fn left(&self) -> Result<Duration, Error> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) {
            return Err(self.failure(ErrorKind::TimedOut.into()));
        }
        Ok(left)
    }

    fn failure(&self, source: io::Error) -> Error {
        match source.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Timeout {
                path: self.path.clone(),
            },
            _ => Error::Broken(source),
        }
    }
}

/// Version, type, length, transaction (OpenFlow 1.0, §5.1).
const HEADER: usize = 8;

fn message(version: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX);
    let mut message = vec![version, kind];
    message.extend(length.to_be_bytes());
    message.extend([0, 0, 0, 1]);
    message.extend(body);
    message
}

/// The versions that a hello offers, as bits: those of its element, or all up to its own.
fn versions(version: u8, mut elements: &[u8]) -> u32 {
    while let [k0, k1, l0, l1, rest @ ..] = elements {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        if let ([0, 1], [a, b, c, d, ..]) = ([*k0, *k1], rest) {
            return u32::from_be_bytes([*a, *b, *c, *d]);
        }
        // Elements are padded to eight bytes.
        let next = length.max(4).next_multiple_of(8);
        elements = elements.get(next..).unwrap_or_default();
    }
    let newer = 1_u32.checked_shl(u32::from(version) + 1);
    newer.map_or(u32::MAX, |bit| bit - 1) & !1
}

/// The body of a deletion that finds nothing.
fn deletion(version: u8) -> Vec<u8> {
    let mut body = Vec::with_capacity(64);
    if version == OPENFLOW_10 {
        // Compared are the port in and both MAC addresses (§5.2.3); everything else is a wildcard.
        let wildcards: u32 = ((1 << 22) - 1) & !(1 | 1 << 2 | 1 << 3);
        body.extend(wildcards.to_be_bytes());
        body.extend(PORT_10);
        body.extend(MAC_10);
        body.extend(MAC_10);
        body.extend([0; 22]);
        body.extend(COOKIE);
        body.extend([0, DELETE_STRICT, 0, 0, 0, 0, 0, 1]);
        body.extend(u32::MAX.to_be_bytes());
        body.extend(PORT_10);
        body.extend([0; 2]);
    } else {
        body.extend(COOKIE);
        body.extend([u8::MAX; 8]);
        body.extend([TABLE, DELETE_STRICT, 0, 0, 0, 0, 0, 1]);
        // No buffer; any port and group.
        body.extend([u8::MAX; 12]);
        body.extend([0; 4]);
        // An empty match: its type, its length, and padding.
        body.extend([0, 1, 0, 4, 0, 0, 0, 0]);
    }
    body
}

fn refusal(body: &[u8]) -> Error {
    match *body {
        [k0, k1, c0, c1, ..] => Error::Refused {
            kind: u16::from_be_bytes([k0, k1]),
            code: u16::from_be_bytes([c0, c1]),
        },
        _ => Error::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_lengths_that_openflow_gives_them() {
        assert_eq!(message(1, FLOW_MOD, &deletion(1)).len(), 72);
        assert_eq!(message(4, FLOW_MOD, &deletion(4)).len(), 56);
        assert_eq!(message(4, BARRIER_REQUEST, &[]), [4, 20, 0, 8, 0, 0, 0, 1]);
    }

    #[test]
    fn a_hello_tells_its_versions_in_an_element_or_by_its_own() {
        assert_eq!(versions(1, &[]), 0b10);
        assert_eq!(versions(4, &[]), 0b11110);
        assert_eq!(versions(200, &[]), !1);
        assert_eq!(versions(6, &[0, 1, 0, 8, 0, 0, 0, 0b10010]), 0b10010);
        let other = [0, 9, 0, 5, 1, 0, 0, 0, 0, 1, 0, 8, 0, 0, 0, 2];
        assert_eq!(
            versions(6, &other),
            0b10,
            "what is not known is passed over"
        );
        assert_eq!(versions(1, &[0, 1, 0]), 0b10);
        assert_eq!(versions(1, &[0, 9, 0, 0, 0, 1, 0, 8]), 0b10);
    }
}
