//! A bridge port's flags over rtnetlink. They are the device's "slave data" (`IFLA_INFO_SLAVE_DATA`), which, unlike the
//! list of all ports of all bridges in `AF_BRIDGE`, can be asked for one device; the kernel takes both the same way
//! (net/bridge/br_netlink.c, `br_setport`).

use std::io;

use netlink_packet_core::{DefaultNla, Emitable, NetlinkDeserializable, NetlinkHeader};
use netlink_packet_route::link::{
    BridgePortState, BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoPortData,
    InfoPortKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::libc;

use super::error::{Error, failed};
use crate::sys::netlink_socket::{Netlink, RequestKind};
use pve_span_core::engine::port::{BridgeFlags, LinkChange, PortSettings, PortState};
use pve_span_core::model::IfName;

/// All of a device's settings but its offloads.
pub fn read(device: &IfName) -> Result<PortSettings, Error> {
    let link = get(device).map_err(failed(device, "reading its bridge's flags"))?;
    let mut flags = flags(&link);
    if let Some(flags) = &mut flags {
        flags.state = flags.state.filter(|_| !bridge(&link).is_some_and(runs_stp));
    }
    let has = |flag: LinkFlags| link.header.flags.contains(flag);
    Ok(PortSettings {
        index: link.header.index,
        flags,
        promiscuous: Some(has(LinkFlags::Promisc).into()),
        up: Some(has(LinkFlags::Up).into()),
        running: has(LinkFlags::Up | LinkFlags::Running).into(),
        ..PortSettings::default()
    })
}

fn bridge(link: &LinkMessage) -> Option<u32> {
    let mut attributes = link.attributes.iter();
    attributes.find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    })
}

fn get(device: &IfName) -> io::Result<LinkMessage> {
    let mut request = LinkMessage::default();
    request.attributes = vec![
        LinkAttribute::IfName(device.as_str().to_owned()),
        LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]),
    ];
    let mut answer = None;
    ask(libc::RTM_GETLINK, &request, |body| {
        answer = Some(parse(body));
    })
    .and_then(|()| answer.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into())))
}

/// Sets a device up or down, and promiscuous or not.
///
/// # Errors
/// There is no device of this index, or the kernel does not want to.
pub fn set_link(device: &IfName, index: u32, change: LinkChange) -> Result<(), Error> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    let wishes = [
        (change.promiscuous, LinkFlags::Promisc),
        (change.up, LinkFlags::Up),
    ];
    for (wish, flag) in wishes {
        if let Some(wish) = wish {
            request.header.change_mask |= flag;
            request.header.flags.set(flag, wish.is_on());
        }
    }
    // Without NLM_F_CREATE, RTM_NEWLINK changes what is there.
    ask(libc::RTM_NEWLINK, &request, |_| {}).map_err(failed(device, "setting it up or promiscuous"))
}

/// Does the bridge itself decide which ports take part?
fn runs_stp(bridge: u32) -> bool {
    let mut request = LinkMessage::default();
    request.header.index = bridge;
    request.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    let mut answer = None;
    let asked = ask(libc::RTM_GETLINK, &request, |body| {
        answer = parse(body).ok()
    });
    let infos = answer.into_iter().flat_map(|link| link.attributes);
    let mut infos = infos.filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    asked.is_ok()
        && infos.any(|infos| {
            infos.iter().any(|info| match info {
                LinkInfo::Data(InfoData::Bridge(data)) => {
                    data.iter().any(|of_bridge| {
                        matches!(of_bridge, InfoBridge::StpState(state) if *state != BridgeStpState::Disabled)
                    })
                }
                _ => false,
            })
        })
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

fn flags(link: &LinkMessage) -> Option<BridgeFlags> {
    let infos = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        });
    let data = infos?.iter().find_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(data)) => Some(data),
        _ => None,
    });
    let mut flags = BridgeFlags::default();
    for of_port in data? {
        match of_port {
            InfoBridgePort::UnicastFlood(is_on) => flags.flood = (*is_on).into(),
            InfoBridgePort::MulticastFlood(is_on) => flags.mcast_flood = (*is_on).into(),
            InfoBridgePort::BroadcastFlood(is_on) => flags.bcast_flood = (*is_on).into(),
            InfoBridgePort::State(state) => {
                flags.state = match state {
                    BridgePortState::Disabled => Some(PortState::Disabled),
                    BridgePortState::Listening => Some(PortState::Listening),
                    BridgePortState::Learning => Some(PortState::Learning),
                    BridgePortState::Forwarding => Some(PortState::Forwarding),
                    BridgePortState::Blocking => Some(PortState::Blocking),
                    _ => None,
                };
            }
            _ => {}
        }
    }
    Some(flags)
}

/// Changes what a port's Linux bridge does with it, and makes the bridge forget the addresses that it has learned from
/// it: known ones are served whatever the flags say.
///
/// # Errors
/// There is no device of this index, it is in no Linux bridge, or the kernel does not want to.
pub fn set_flags(device: &IfName, index: u32, flags: &BridgeFlags) -> Result<(), Error> {
    let data = vec![
        InfoBridgePort::UnicastFlood(flags.flood.is_on()),
        InfoBridgePort::MulticastFlood(flags.mcast_flood.is_on()),
        InfoBridgePort::BroadcastFlood(flags.bcast_flood.is_on()),
        // What was learned before would still be sent there; the kernel comes to this one last.
        InfoBridgePort::Flush,
    ];
    let state = flags.state.map(|state| match state {
        PortState::Disabled => BridgePortState::Disabled,
        PortState::Listening => BridgePortState::Listening,
        PortState::Learning => BridgePortState::Learning,
        PortState::Forwarding => BridgePortState::Forwarding,
        PortState::Blocking => BridgePortState::Blocking,
    });
    let set_state = |state: BridgePortState| match set_state(index, state.into()) {
        // The bridge runs STP, or nobody has opened the device yet: then the kernel sees to it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENETDOWN)) => Ok(()),
        result => result,
    };
    match change(index, data).and_then(|()| state.map_or(Ok(()), set_state)) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Err(Error::NoBridgePort {
            device: device.clone(),
        }),
        result => result.map_err(failed(device, "setting its bridge's flags")),
    }
}

/// By `RTM_SETLINK` in `AF_BRIDGE` and after the flags: any change by way of the slave data is announced as a change of
/// the device, on which the bridge takes a disabled port into action again (net/bridge/br_if.c, `br_port_carrier_check`).
fn set_state(index: u32, state: u8) -> io::Result<()> {
    const IFLA_PROTINFO: u16 = 12;
    const IFLA_BRPORT_STATE: u16 = 1;
    const NLA_F_NESTED: u16 = 1 << 15;
    let of_port = DefaultNla::new(IFLA_BRPORT_STATE, vec![state]);
    let mut nested = vec![0; of_port.buffer_len()];
    of_port.emit(&mut nested);
    let mut request = LinkMessage::default();
    request.header.interface_family = AddressFamily::Bridge;
    request.header.index = index;
    request.attributes = vec![LinkAttribute::Other(DefaultNla::new(
        IFLA_PROTINFO | NLA_F_NESTED,
        nested,
    ))];
    ask(libc::RTM_SETLINK, &request, |_| {})
}

fn change(index: u32, data: Vec<InfoBridgePort>) -> io::Result<()> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    request.attributes = vec![LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(data)),
    ])];
    // Without NLM_F_CREATE, RTM_NEWLINK changes what is there.
    ask(libc::RTM_NEWLINK, &request, |_| {})
}

fn ask(kind: u16, request: &LinkMessage, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut body = vec![0; request.buffer_len()];
    request.emit(&mut body);
    Netlink::open(NETLINK_ROUTE)?
        .ask(kind, RequestKind::One, &body, |_, body| take(body))
        .map(|_| ())
}
