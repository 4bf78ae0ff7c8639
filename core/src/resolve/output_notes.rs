//! What an administrator may not expect of an output, and would want to know.

use std::collections::BTreeSet;

use super::outputs::{Target, is_uplink};
use crate::config::Session;
use crate::config::selector::Output;
use crate::engine::nft::spec::{Copies, DeviceEnd};
use crate::model::{IfName, NicId, Switch, some};
use crate::state::port_map::{BridgeKind, Port, PortMap};

/// Guests that get the RSPAN VLAN because nobody told their NIC which VLANs it takes.
pub(super) fn rspan_note(
    map: &PortMap,
    output: &Output,
    bridges: &BTreeSet<&IfName>,
) -> Option<String> {
    let is_trunk = |port: &&Port| {
        port.bridge_kind == BridgeKind::Ovs
            && port.tag.is_none()
            && port.trunks.is_empty()
            && bridges.contains(&port.bridge)
    };
    let all = map
        .ports
        .values()
        .filter(is_trunk)
        .filter_map(|port| port.nic.as_ref());
    let all: Vec<NicId> = all.map(|nic| nic.id).collect();
    (!all.is_empty()).then(|| {
        format!(
            "{output} also goes to guests whose NIC takes every VLAN: {} (set tag= or trunks=)",
            some(&all)
        )
    })
}

/// What an administrator may not expect of an output.
pub(super) fn notes(
    session: &Session,
    output: &Output,
    target: &Target<'_>,
    copies: Option<&Copies>,
    by_ovs: bool,
) -> Vec<String> {
    let mut notes = Vec::new();
    let port = target.port;
    if let (Some(tag), false, BridgeKind::Ovs) = (port.tag, copies.is_some(), port.bridge_kind) {
        notes.push(format!(
            "{output} is in VLAN {tag}: frames arrive without their 802.1Q tags"
        ));
    }
    // From outside, where nobody here can see what leads where.
    let outside = copies.into_iter().flat_map(|copies| &copies.sources);
    let outside = outside.filter(|(_, source)| {
        is_uplink(port) && source.nic.is_none() && source.facing == DeviceEnd::Source
    });
    let outside: Vec<String> = outside.map(|(device, _)| device.to_string()).collect();
    if !outside.is_empty() {
        notes.push(format!(
            "{output} must not lead back to {}: copies that come in there again would be copied again and again",
            outside.join(", ")
        ));
    }
    if by_ovs && target.is_internal() && session.wire == Switch::Yes {
        notes.push(format!(
            "{output} is an internal port of Open vSwitch, which delivers frames there as guests leave them: up to 64 KiB, without \
             checksums (for frames as on a wire, make the output one end of a veth pair)"
        ));
    }
    if by_ovs && copies.is_some() && session.dedup == Switch::Yes {
        notes.push(format!(
            "{output} is served by both engines: a frame between a source of the one and a source of the other may arrive twice \
             (`engine = nft` leaves it to one)"
        ));
    }
    notes
}
