//! What an administrator may not expect of an output, and would want to know.

use std::collections::BTreeSet;

use super::layout::Layout;
use super::outputs::{Target, is_uplink};
use crate::engine::nft::spec::{Copies, Facing};
use crate::model::Switch;
use crate::model::{IfName, MAX_LISTED};
use crate::state::port_map::{BridgeKind, Port};

impl Layout<'_> {
    /// Guests that get the RSPAN VLAN because nobody told their NIC which VLANs it takes.
    pub fn rspan_note(&self, bridges: &BTreeSet<&IfName>) -> Option<String> {
        let is_trunk = |port: &&Port| {
            port.bridge_kind == BridgeKind::Ovs
                && port.tag.is_none()
                && port.trunks.is_empty()
                && bridges.contains(&port.bridge)
        };
        let all = self
            .map
            .ports
            .values()
            .filter(is_trunk)
            .filter_map(|port| port.nic.as_ref());
        let all: Vec<String> = all.map(|nic| nic.id.to_string()).collect();
        let some = all
            .iter()
            .take(MAX_LISTED)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        let more = if all.len() > MAX_LISTED {
            format!(" and {} more", all.len() - MAX_LISTED)
        } else {
            String::new()
        };
        (!all.is_empty()).then(|| {
            format!(
                "{} also goes to guests whose NIC takes every VLAN: {some}{more} (set tag= or trunks=)",
                self.output
            )
        })
    }

    /// What an administrator may not expect of an output.
    pub fn notes(&self, target: &Target<'_>, copies: Option<&Copies>, by_ovs: bool) -> Vec<String> {
        let mut notes = Vec::new();
        let port = target.port;
        if let (Some(tag), false, BridgeKind::Ovs) = (port.tag, copies.is_some(), port.bridge_kind)
        {
            notes.push(format!(
                "{} is in VLAN {tag}: frames arrive without their 802.1Q tags",
                self.output
            ));
        }
        // From outside, where nobody here can see what leads where.
        let outside = copies.into_iter().flat_map(|copies| &copies.sources);
        let outside = outside.filter(|(_, source)| {
            is_uplink(port) && source.nic.is_none() && source.facing == Facing::Source
        });
        let outside: Vec<String> = outside.map(|(device, _)| device.to_string()).collect();
        if !outside.is_empty() {
            notes.push(format!(
                "{} must not lead back to {}: copies that come in there again would be copied again and again",
                self.output,
                outside.join(", ")
            ));
        }
        if by_ovs && target.is_internal() && self.session.wire == Switch::Yes {
            notes.push(format!(
                "{} is an internal port of Open vSwitch, which delivers frames there as guests leave them: up to 64 KiB, without \
                 checksums (for frames as on a wire, make the output one end of a veth pair)",
                self.output
            ));
        }
        if by_ovs && copies.is_some() && self.session.dedup == Switch::Yes {
            notes.push(format!(
                "{} is served by both engines: a frame between a source of the one and a source of the other may arrive twice \
                 (`engine = nft` leaves it to one)",
                self.output
            ));
        }
        notes
    }
}
