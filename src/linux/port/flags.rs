//! A bridge port's flags over rtnetlink. They are the device's "slave data" (`IFLA_INFO_SLAVE_DATA`), which, unlike the
//! list of all ports of all bridges in `AF_BRIDGE`, can be asked for one device; the kernel takes both the same way
//! (net/bridge/br_netlink.c, `br_setport`).

use std::io;

use netlink_packet_core::{Emitable, NetlinkDeserializable, NetlinkHeader};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute, LinkExtentMask, LinkInfo,
    LinkMessage,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::libc;

use super::{Error, failed};
use crate::core::model::IfName;
use crate::core::port_settings::BridgeFlags;
use crate::linux::socket::{Netlink, Want};

/// The device's index, and its flags if it is a port of a Linux bridge.
pub fn read(device: &IfName) -> Result<(u32, Option<BridgeFlags>), Error> {
    let mut request = LinkMessage::default();
    request.attributes = vec![
        LinkAttribute::IfName(device.to_string()),
        LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]),
    ];
    let mut answer = None;
    ask(libc::RTM_GETLINK, &request, |body| {
        answer = Some(parse(body));
    })
    .and_then(|()| answer.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into())))
    .map(|link| (link.header.index, flags(link)))
    .map_err(failed(device, "reading its bridge's flags"))
}

fn parse(body: &[u8]) -> io::Result<LinkMessage> {
    let mut header = NetlinkHeader::default();
    header.message_type = libc::RTM_NEWLINK;
    match RouteNetlinkMessage::deserialize(&header, body) {
        Ok(RouteNetlinkMessage::NewLink(link)) => Ok(link),
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        Err(error) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            error.to_string(),
        )),
    }
}

fn flags(link: LinkMessage) -> Option<BridgeFlags> {
    let infos = link
        .attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        });
    let data = infos?.into_iter().find_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(data)) => Some(data),
        _ => None,
    });
    let mut flags = BridgeFlags::default();
    for of_port in data? {
        match of_port {
            InfoBridgePort::Learning(is_on) => flags.learning = is_on.into(),
            InfoBridgePort::UnicastFlood(is_on) => flags.flood = is_on.into(),
            InfoBridgePort::MulticastFlood(is_on) => flags.mcast_flood = is_on.into(),
            InfoBridgePort::BroadcastFlood(is_on) => flags.bcast_flood = is_on.into(),
            _ => {}
        }
    }
    Some(flags)
}

/// Sets the flags and forgets the learned addresses.
pub fn set(device: &IfName, index: u32, flags: &BridgeFlags) -> Result<(), Error> {
    let data = vec![
        InfoBridgePort::Learning(flags.learning.is_on()),
        InfoBridgePort::UnicastFlood(flags.flood.is_on()),
        InfoBridgePort::MulticastFlood(flags.mcast_flood.is_on()),
        InfoBridgePort::BroadcastFlood(flags.bcast_flood.is_on()),
        // What was learned before would still be sent there; the kernel comes to this one last.
        InfoBridgePort::Flush,
    ];
    let mut request = LinkMessage::default();
    request.header.index = index;
    request.attributes = vec![LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(data)),
    ])];
    // Without NLM_F_CREATE, RTM_NEWLINK changes what is there.
    match ask(libc::RTM_NEWLINK, &request, |_| {}) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Err(Error::NoBridgePort {
            device: device.clone(),
        }),
        result => result.map_err(failed(device, "setting its bridge's flags")),
    }
}

fn ask(kind: u16, request: &LinkMessage, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut body = vec![0; request.buffer_len()];
    request.emit(&mut body);
    Netlink::open(NETLINK_ROUTE)?
        .ask(kind, Want::One, &body, |_, body| take(body))
        .map(|_| ())
}
