//! rtnetlink(7): devices and addresses, each in one dump.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use netlink_packet_core::{
    NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecBridge, BridgeVlanInfoFlags, InfoBridge, InfoData, LinkAttribute, LinkExtentMask,
    LinkFlags, LinkInfo, LinkMessage, Prop,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::sys::netlink_socket::{DumpState, Netlink, RequestKind};
use pve_span_core::model::IfName;
use pve_span_core::state::{Link, LinkState};

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
/// The kernel does not answer.
pub fn links() -> Result<BTreeMap<IfName, Link>, Error> {
    let mut request = LinkMessage::default();
    // Without statistics an answer is half as long.
    request
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let found = dump(&RouteNetlinkMessage::GetLink(request), found)?;
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
/// The kernel does not answer.
pub fn links_named(wanted: &BTreeSet<IfName>) -> Result<BTreeMap<IfName, Link>, Error> {
    let mut socket = open()?;
    let mut found = Vec::new();
    for name in wanted {
        found.extend(one(&mut socket, Some(name), 0)?);
    }
    let mut names: BTreeMap<u32, IfName> = found
        .iter()
        .map(|link| (link.index, link.name.clone()))
        .collect();
    let indexes: BTreeSet<u32> = names.keys().copied().collect();
    let masters: BTreeSet<u32> = found.iter().filter_map(|link| link.master).collect();
    for index in masters.into_iter().filter(|index| !indexes.contains(index)) {
        if let Some(master) = one(&mut socket, None, index)? {
            names.insert(index, master.name.clone());
            found.push(master);
        }
    }
    Ok(found
        .into_iter()
        .map(|link| (link.name.clone(), link.link(&names, Vec::new())))
        .collect())
}

/// A bridge port's VLAN for frames without a tag, and whether it is in no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortVlan {
    /// It is in this one only.
    Access(u16),
    /// It is in others too.
    Native(u16),
}

/// The VLANs of ports of Linux bridges, by interface index. Ports of bridges that are not VLAN-aware are listed too, and
/// there it means nothing.
///
/// # Errors
/// The kernel does not answer.
pub fn port_vlans() -> Result<BTreeMap<u32, PortVlan>, Error> {
    let mut request = LinkMessage::default();
    request.header.interface_family = AddressFamily::Bridge;
    request.attributes.push(LinkAttribute::ExtMask(vec![
        LinkExtentMask::BrvlanCompressed,
    ]));
    let answers = dump(&RouteNetlinkMessage::GetLink(request), port_vlan)?;
    Ok(answers.into_iter().collect())
}

fn port_vlan(message: RouteNetlinkMessage) -> Option<(u32, PortVlan)> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let mut vlans = Vec::new();
    for attribute in message.attributes {
        if let LinkAttribute::AfSpecBridge(specs) = attribute {
            vlans.extend(specs.into_iter().filter_map(|spec| match spec {
                AfSpecBridge::VlanInfo(vlan) => Some(vlan),
                _ => None,
            }));
        }
    }
    let native = vlans
        .iter()
        .find(|vlan| vlan.flags.contains(BridgeVlanInfoFlags::Pvid))?;
    let vlan = if vlans.len() == 1 {
        PortVlan::Access(native.vid)
    } else {
        PortVlan::Native(native.vid)
    };
    Some((message.header.index, vlan))
}

/// A device as the kernel tells of it.
struct Found {
    name: IfName,
    index: u32,
    master: Option<u32>,
    parent: Option<u32>,
    peer: Option<u32>,
    kind: Option<String>,
    vlan_aware: bool,
    state: LinkState,
    mtu: Option<u32>,
    altnames: Vec<IfName>,
    loopback: bool,
}

impl Found {
    fn link(self, names: &BTreeMap<u32, IfName>, addresses: Vec<core::net::IpAddr>) -> Link {
        let name = |index: u32| names.get(&index).cloned();
        let (master, parent) = (self.master.and_then(name), self.parent.and_then(name));
        let peer = self.peer.and_then(name);
        Link {
            index: self.index,
            kind: self.kind,
            master,
            parent,
            peer,
            vlan_aware: self.vlan_aware,
            state: self.state,
            access_vlan: None,
            native_vlan: None,
            mtu: self.mtu,
            addresses,
            altnames: self.altnames,
            loopback: self.loopback,
            routed: false,
        }
    }
}

fn found(message: RouteNetlinkMessage) -> Option<Found> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let (mut name, mut master, mut parent, mut kind) = (None, None, None, None);
    let (mut vlan_aware, mut elsewhere, mut mtu) = (false, false, None);
    let mut altnames = Vec::new();
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = text.parse().ok(),
            LinkAttribute::Controller(index) => master = Some(index),
            LinkAttribute::Link(index) => parent = Some(index),
            LinkAttribute::Mtu(bytes) => mtu = Some(bytes),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::PropList(properties) => {
                altnames = properties.iter().filter_map(altname).collect()
            }
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(kind_of);
                vlan_aware = infos.iter().any(is_vlan_aware);
            }
            _ => {}
        }
    }
    // A veth's is its peer, whose index counts in the peer's own network namespace.
    let is_veth = kind.as_deref() == Some("veth");
    let peer = parent.filter(|_| is_veth && !elsewhere);
    // An index of another network namespace says nothing here.
    let parent = parent.filter(|_| !is_veth && !elsewhere);
    Some(Found {
        name: name?,
        index: message.header.index,
        master,
        parent,
        peer,
        kind,
        vlan_aware,
        state: link_state(message.header.flags),
        mtu,
        altnames,
        loopback: message.header.flags.contains(LinkFlags::Loopback),
    })
}

fn link_state(flags: LinkFlags) -> LinkState {
    match (
        flags.contains(LinkFlags::Up),
        flags.contains(LinkFlags::LowerUp),
    ) {
        (false, _) => LinkState::Down,
        (true, false) => LinkState::NoCarrier,
        (true, true) => LinkState::Up,
    }
}

fn altname(property: &Prop) -> Option<IfName> {
    match property {
        Prop::AltIfName(name) => name.parse().ok(),
        _ => None,
    }
}

fn is_vlan_aware(info: &LinkInfo) -> bool {
    match info {
        LinkInfo::Data(InfoData::Bridge(data)) => data
            .iter()
            .any(|of_bridge| matches!(of_bridge, InfoBridge::VlanFiltering(true))),
        _ => false,
    }
}

fn kind_of(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

/// The node's addresses by interface index.
fn addresses() -> Result<BTreeMap<u32, Vec<core::net::IpAddr>>, Error> {
    let mut found: BTreeMap<u32, Vec<core::net::IpAddr>> = BTreeMap::new();
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Unspec;
    for (index, address) in dump(&RouteNetlinkMessage::GetAddress(request), address)? {
        found.entry(index).or_default().push(address);
    }
    Ok(found)
}

/// An address, and the index of the device that carries it.
fn address(message: RouteNetlinkMessage) -> Option<(u32, core::net::IpAddr)> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    let attributes = || message.attributes.iter();
    let local = attributes().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = local.or_else(|| {
        attributes().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    });
    Some((message.header.index, address?))
}

/// Asks for a list until it arrives unbroken. Each part is taken as it arrives: a device's message is some hundred
/// times what is of interest of it.
fn dump<T>(
    request: &RouteNetlinkMessage,
    take: fn(RouteNetlinkMessage) -> Option<T>,
) -> Result<Vec<T>, Error> {
    for _ in 0..TRIES {
        if let Some(taken) = dump_once(request, take)? {
            return Ok(taken);
        }
    }
    Err(Error::Unstable)
}

fn dump_once<T>(
    request: &RouteNetlinkMessage,
    take: fn(RouteNetlinkMessage) -> Option<T>,
) -> Result<Option<Vec<T>>, Error> {
    let mut socket = open()?;
    let mut taken = Vec::new();
    let mut fault = None;
    let kind = request.message_type();
    let arrived = socket
        .ask(
            kind,
            RequestKind::List,
            &body(request),
            |kind, body| match parse(kind, body) {
                Ok(message) => taken.extend(message.and_then(take)),
                Err(error) => fault = Some(error),
            },
        )
        .map_err(failed("listing"))?;
    match fault {
        Some(error) => Err(error),
        None => Ok((arrived == DumpState::Whole).then_some(taken)),
    }
}

/// One device, by its name or its index; nothing if it is not there.
fn one(socket: &mut Netlink, name: Option<&IfName>, index: u32) -> Result<Option<Found>, Error> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    request
        .attributes
        .extend(name.map(|name| LinkAttribute::IfName(name.as_str().to_owned())));
    request
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let request = RouteNetlinkMessage::GetLink(request);
    let mut answer = None;
    let asked = socket.ask(
        request.message_type(),
        RequestKind::One,
        &body(&request),
        |kind, body| {
            answer = Some(parse(kind, body));
        },
    );
    match asked {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => return Ok(None),
        Err(error) => return Err(failed("asking for a device")(error)),
    }
    let answer = answer.ok_or_else(|| Error::Decode("an empty answer".into()))?;
    Ok(answer?.and_then(found))
}

fn open() -> Result<Netlink, Error> {
    Netlink::open(NETLINK_ROUTE).map_err(failed("opening a socket"))
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Socket { doing, source }
}

fn body(request: &RouteNetlinkMessage) -> Vec<u8> {
    let mut body = vec![0; request.buffer_len()];
    request.serialize(&mut body);
    body
}

fn parse(kind: u16, body: &[u8]) -> Result<Option<RouteNetlinkMessage>, Error> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    match RouteNetlinkMessage::deserialize(&header, body) {
        Ok(message) => Ok(Some(message)),
        // A device whose name is not text is no guest's; any other one that is not understood might be.
        Err(_) if !has_name(body) => Ok(None),
        Err(error) => Err(Error::Decode(error.to_string())),
    }
}

/// All that is ever made of a message, whichever was asked for.
pub(crate) fn decode(kind: u16, body: &[u8]) {
    let message = || parse(kind, body).ok().flatten();
    let _ = message().and_then(found);
    let _ = message().and_then(address);
    let _ = message().and_then(port_vlan);
}

/// Is the name in an `RTM_NEWLINK` text? (struct ifinfomsg has 16 bytes.)
fn has_name(message: &[u8]) -> bool {
    const IFLA_IFNAME: u16 = 3;
    let attributes = NlasIterator::new(message.get(16..).unwrap_or_default());
    let mut names = attributes
        .flatten()
        .filter(|attribute| attribute.kind() == IFLA_IFNAME);
    names
        .next()
        .is_none_or(|name| std::str::from_utf8(name.value()).is_ok())
}
