//! rtnetlink(7): devices and addresses, each in one dump.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::core::model::IfName;
use crate::core::state::Link;

/// Why the kernel's devices could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed.
    #[error("cannot read network devices from the kernel (rtnetlink, {doing})")]
    Socket {
        /// What was being done.
        doing: &'static str,
        /// How it failed.
        source: io::Error,
    },
    /// The kernel's answer cannot be decoded.
    #[error("the kernel's list of network devices is not understood: {0}")]
    Decode(String),
    /// Devices came and went faster than they could be listed.
    #[error("the kernel's list of network devices kept changing while it was read")]
    Unstable,
}

/// How often a list that changed while it was read is read again.
const TRIES: usize = 10;

/// All network devices of this network namespace, with the addresses that they carry.
///
/// # Errors
/// The kernel cannot be asked.
pub fn links() -> Result<BTreeMap<IfName, Link>, Error> {
    let mut request = LinkMessage::default();
    // Without statistics an answer is half as long.
    request
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let answers = dump(&RouteNetlinkMessage::GetLink(request))?;
    let found: Vec<Found> = answers.into_iter().filter_map(found).collect();
    let names: BTreeMap<u32, IfName> = found
        .iter()
        .map(|link| (link.index, link.name.clone()))
        .collect();
    let mut addresses = addresses()?;
    let link = |found: Found| {
        let addresses = addresses.remove(&found.index).unwrap_or_default();
        (found.name.clone(), found.link(&names, addresses))
    };
    Ok(found.into_iter().map(link).collect())
}

/// The devices of these names, as far as they exist, and what they are enslaved to. Addresses are not
/// read.
///
/// # Errors
/// The kernel cannot be asked.
pub fn links_named(wanted: &BTreeSet<IfName>) -> Result<BTreeMap<IfName, Link>, Error> {
    let mut socket = Netlink::open()?;
    let mut found = Vec::new();
    for name in wanted {
        found.extend(socket.link(Some(name), 0)?);
    }
    let mut names: BTreeMap<u32, IfName> = found
        .iter()
        .map(|link| (link.index, link.name.clone()))
        .collect();
    let indexes: BTreeSet<u32> = names.keys().copied().collect();
    let masters: BTreeSet<u32> = found.iter().filter_map(|link| link.master).collect();
    for index in masters.into_iter().filter(|index| !indexes.contains(index)) {
        if let Some(master) = socket.link(None, index)? {
            names.insert(index, master.name.clone());
            found.push(master);
        }
    }
    Ok(found
        .into_iter()
        .map(|link| (link.name.clone(), link.link(&names, Vec::new())))
        .collect())
}

/// A device as the kernel tells of it.
struct Found {
    name: IfName,
    index: u32,
    master: Option<u32>,
    parent: Option<u32>,
    kind: Option<String>,
}

impl Found {
    fn link(self, names: &BTreeMap<u32, IfName>, addresses: Vec<core::net::IpAddr>) -> Link {
        let name = |index: u32| names.get(&index).cloned();
        let (master, parent) = (self.master.and_then(name), self.parent.and_then(name));
        Link {
            index: self.index,
            kind: self.kind,
            master,
            parent,
            addresses,
        }
    }
}

fn found(message: RouteNetlinkMessage) -> Option<Found> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let (mut name, mut master, mut parent, mut kind) = (None, None, None, None);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = text.parse().ok(),
            LinkAttribute::Controller(index) => master = Some(index),
            LinkAttribute::Link(index) => parent = Some(index),
            LinkAttribute::LinkInfo(infos) => kind = infos.iter().find_map(kind_of),
            _ => {}
        }
    }
    // A veth's is its peer, whose index counts in the peer's own network namespace.
    let parent = parent.filter(|_| kind.as_deref() != Some("veth"));
    Some(Found {
        name: name?,
        index: message.header.index,
        master,
        parent,
        kind,
    })
}

fn kind_of(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

/// The node's addresses by interface index; loopback and link-local ones say nothing about it.
fn addresses() -> Result<BTreeMap<u32, Vec<core::net::IpAddr>>, Error> {
    let mut found: BTreeMap<u32, Vec<core::net::IpAddr>> = BTreeMap::new();
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Unspec;
    for message in dump(&RouteNetlinkMessage::GetAddress(request))? {
        let RouteNetlinkMessage::NewAddress(message) = message else {
            continue;
        };
        let local = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
        let address = local.or_else(|| {
            message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                })
        });
        if let Some(address) =
            address.filter(|address| !address.is_loopback() && !is_link_local(*address))
        {
            found.entry(message.header.index).or_default().push(address);
        }
    }
    Ok(found)
}

fn is_link_local(address: core::net::IpAddr) -> bool {
    match address {
        core::net::IpAddr::V4(address) => address.is_link_local(),
        core::net::IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Asks for a list until it arrives unbroken.
fn dump(request: &RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Error> {
    for _ in 0..TRIES {
        if let Some(messages) = dump_once(request)? {
            return Ok(messages);
        }
    }
    Err(Error::Unstable)
}

/// `NLM_F_DUMP_INTR` (linux/netlink.h): the list changed while it was sent.
const DUMP_INTERRUPTED: u16 = 0x10;

fn dump_once(request: &RouteNetlinkMessage) -> Result<Option<Vec<RouteNetlinkMessage>>, Error> {
    let mut socket = Netlink::open()?;
    socket.send(request.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
    let mut messages = Vec::new();
    let mut interrupted = false;
    loop {
        for message in socket.receive()? {
            interrupted |= message.header.flags & DUMP_INTERRUPTED != 0;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(messages)),
                NetlinkPayload::Error(error) => {
                    return Err(Error::Socket {
                        doing: "listing",
                        source: error.to_io(),
                    });
                }
                NetlinkPayload::InnerMessage(inner) => messages.push(inner),
                _ => {}
            }
        }
    }
}

/// A socket to the kernel, and room for its answers.
struct Netlink {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Netlink {
    fn open() -> Result<Self, Error> {
        let failed = |doing| move |source| Error::Socket { doing, source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("opening a socket"))?;
        socket.bind_auto().map_err(failed("binding"))?;
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(failed("connecting"))?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(64 * 1024),
        })
    }

    /// One device, by its name or its index; nothing if it is not there.
    fn link(&mut self, name: Option<&IfName>, index: u32) -> Result<Option<Found>, Error> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        request
            .attributes
            .extend(name.map(|name| LinkAttribute::IfName(name.to_string())));
        request
            .attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.send(RouteNetlinkMessage::GetLink(request), NLM_F_REQUEST)?;
        for message in self.receive()? {
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => return Ok(found(inner)),
                NetlinkPayload::Error(error) => {
                    let source = error.to_io();
                    let is_gone = source.raw_os_error() == Some(nix::libc::ENODEV);
                    return if is_gone {
                        Ok(None)
                    } else {
                        Err(Error::Socket {
                            doing: "asking for a device",
                            source,
                        })
                    };
                }
                _ => {}
            }
        }
        Err(Error::Decode("an empty answer".into()))
    }

    fn send(&mut self, request: RouteNetlinkMessage, flags: u16) -> Result<(), Error> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket
            .send(&bytes, 0)
            .map_err(|source| Error::Socket {
                doing: "sending",
                source,
            })?;
        Ok(())
    }

    fn receive(&mut self) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, Error> {
        self.buffer.clear();
        self.socket
            .recv(&mut self.buffer, 0)
            .map_err(|source| Error::Socket {
                doing: "receiving",
                source,
            })?;
        let mut messages = Vec::new();
        let mut offset = 0;
        while let Some(rest) = self.buffer.get(offset..).filter(|rest| !rest.is_empty()) {
            let length = rest
                .first_chunk()
                .map_or(0, |length| u32::from_ne_bytes(*length));
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length == 0 {
                return Err(Error::Decode("a message without length".into()));
            }
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) {
                Ok(message) => messages.push(message),
                // A device whose name is not text is no guest's; any other one that is not understood might be.
                Err(_) if !has_name(rest.get(..length).unwrap_or(rest)) => {}
                Err(error) => return Err(Error::Decode(error.to_string())),
            }
            offset = offset.saturating_add(length.next_multiple_of(4));
        }
        Ok(messages)
    }
}

/// Is the name in an `RTM_NEWLINK` text? (struct nlmsghdr and struct ifinfomsg are 16 bytes each.)
fn has_name(message: &[u8]) -> bool {
    const IFLA_IFNAME: u16 = 3;
    let attributes = NlasIterator::new(message.get(32..).unwrap_or_default());
    let mut names = attributes
        .flatten()
        .filter(|attribute| attribute.kind() == IFLA_IFNAME);
    names
        .next()
        .is_none_or(|name| std::str::from_utf8(name.value()).is_ok())
}
