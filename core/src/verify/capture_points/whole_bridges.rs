//! Where frames enter a bridge that a session takes as a whole: at every port that exists, whatever the plan has made of
//! it. A port that the plan misses is what `verify` is for.

use std::collections::BTreeSet;

use super::expected::Takes;
use super::{DeviceSide, Group, Node, Subject, not_a_guest};
use crate::config::Session;
use crate::engine::nft::Side;
use crate::engine::nft::spec::{Copies, Passing};
use crate::model::OutputKey;
use crate::model::Switch;
use crate::model::{IfName, SessionName, VlanSet};
use crate::state::{Link, OvsPort, OvsState, SourceState};

impl Node<'_> {
    /// The bridges that a session takes as a whole.
    pub(super) fn whole_bridges(&self, session: &SessionName) -> BTreeSet<&IfName> {
        let mut states = self.desired.sessions.iter();
        let state = states.find(|state| state.name == *session);
        let sources = state.into_iter().flat_map(|state| &state.present);
        let is_whole = |source: &&SourceState| {
            source.nic.is_none()
                && source.port == source.bridge
                && self.map.bridges.contains_key(&source.bridge)
        };
        sources
            .filter(is_whole)
            .map(|source| &source.bridge)
            .collect()
    }

    /// What a session leaves out of the bridges that it takes as a whole.
    pub(super) fn left_out(&self, session: &SessionName) -> BTreeSet<&IfName> {
        let mut states = self.desired.sessions.iter();
        let state = states.find(|state| state.name == *session);
        state
            .into_iter()
            .flat_map(|state| &state.left_out)
            .collect()
    }

    /// Watches the ports of whole bridges that nftables does not copy at.
    pub(super) fn rest_of_whole(
        &self,
        key: &OutputKey,
        copies: &Copies,
        group: &mut Group,
        part: usize,
    ) {
        let Some(session) = self.sessions.get(&key.session) else {
            return;
        };
        let left_out = self.left_out(&key.session);
        let whole = self.whole_bridges(&key.session);
        let lacking = self.lacking(key);
        for bridge in &whole {
            let is_served_by_ovs = self.desired.mirrors.iter().any(|(mirror, wanted)| {
                mirror.engine.bridge() == Some(*bridge) && mirror.of == *key && wanted.config.all
            });
            if is_served_by_ovs {
                continue;
            }
            for spot in self.entries(bridge) {
                let is_copied = copies
                    .sources
                    .get(&spot.device)
                    .is_some_and(|source| source.hooks().any(|(side, _)| side == spot.side));
                let is_left = lacking.contains(&spot.device)
                    || left_out.contains(&spot.device)
                    || self.desired.outputs.contains_key(&spot.device)
                    || (session.dedup == Switch::Yes
                        && self.leads_to_another(&spot.device, bridge, &whole));
                let takes = self.takes_at(&spot.device, session, copies);
                let (false, false, Some(takes)) = (is_copied, is_left, takes) else {
                    continue;
                };
                let name = format!("bridge:{bridge}");
                let subject = Subject {
                    way: not_a_guest(&name),
                    name,
                    passing: Passing::From,
                    whole: true,
                };
                group.add(part, subject, spot, takes, Passing::From);
            }
        }
    }

    /// Where frames enter a bridge.
    fn entries(&self, bridge: &IfName) -> Vec<DeviceSide> {
        let links = &self.observed.links;
        let spot = |(device, side): (&IfName, Side)| DeviceSide {
            device: device.clone(),
            side,
        };
        if let OvsState::Present(ovs) = &self.observed.ovs {
            if let Some(row) = ovs.bridges.get(bridge) {
                let ports = row
                    .ports
                    .iter()
                    .filter(|(name, _)| links.contains_key(*name));
                return ports
                    .map(|(name, port)| spot((name, side(port, Passing::From))))
                    .collect();
            }
        }
        let ports = links
            .iter()
            .filter(|(_, link)| link.master.as_ref() == Some(bridge));
        let ports = ports.map(|(name, _)| (name, Side::Ingress));
        ports.chain([(bridge, Side::Egress)]).map(spot).collect()
    }

    /// Does what passes there come from another bridge that is taken as a whole, where it was copied?
    fn leads_to_another(
        &self,
        device: &IfName,
        bridge: &IfName,
        whole: &BTreeSet<&IfName>,
    ) -> bool {
        let link = |device: &IfName| self.observed.links.get(device);
        let peer = link(device).and_then(|link| link.peer.as_ref());
        [Some(device), peer].into_iter().flatten().any(|device| {
            let master = link(device).and_then(|link| link.master.as_ref());
            let on_ovs = self.map.ports.get(device).map(|port| &port.bridge);
            [master, on_ovs]
                .into_iter()
                .flatten()
                .any(|other| other != bridge && whole.contains(other))
        })
    }

    /// The ports of which the plan says itself that nothing of them gets to the output.
    pub(super) fn lacking(&self, key: &OutputKey) -> BTreeSet<&IfName> {
        let states = self.desired.sessions.iter();
        let outputs = states
            .filter(|state| state.name == key.session)
            .flat_map(|state| &state.outputs);
        outputs
            .filter(|output| output.output == key.output)
            .flat_map(|output| &output.lacks)
            .map(|lack| &lack.port)
            .collect()
    }

    /// Which frames are taken at a port; none if it is in a VLAN that the session does not take.
    fn takes_at(&self, device: &IfName, session: &Session, copies: &Copies) -> Option<Takes> {
        let vlans = &session.vlans;
        let link = self.observed.links.get(device);
        let access = |link: &Link| link.access_vlan;
        let tag = self
            .map
            .of_device(device)
            .find_map(|port| port.tag)
            .or_else(|| link.and_then(access));
        let untagged = match tag {
            Some(tag) if !vlans.is_empty() => {
                return vlans
                    .contains(tag)
                    .then(|| Takes::of_vlans(VlanSet::default(), &copies.frames));
            }
            _ => link.and_then(|link| link.native_vlan),
        };
        let is_native = untagged.is_some_and(|native| vlans.contains(native));
        let taken = if is_native {
            vlans.iter().chain([0]).collect()
        } else {
            vlans.clone()
        };
        Some(Takes::of_vlans(taken, &copies.frames))
    }
}

/// Which way round the port's device is: an internal port is the node's own end.
pub(super) fn side(port: &OvsPort, passing: Passing) -> Side {
    match (port.kind == "internal", passing) {
        (false, Passing::From) | (true, Passing::To) => Side::Ingress,
        (false, Passing::To) | (true, Passing::From) => Side::Egress,
    }
}

#[cfg(test)]
mod tests {
    use super::super::CapturePlan;
    use crate::config;
    use crate::engine::nft::Side;
    use crate::model::IfName;
    use crate::pve::cluster::Cluster;
    use crate::resolve::resolve;
    use crate::state::{Assumptions, Desired, Link, Observed};

    fn name(text: &str) -> IfName {
        text.parse().unwrap()
    }

    fn node() -> Observed {
        let mut observed = Observed::default();
        let devices = [
            ("vmbr0", "bridge", ""),
            ("eno1", "", "vmbr0"),
            ("tap101i0", "tun", "vmbr0"),
            ("tap102i0", "tun", "vmbr0"),
            ("tap200i1", "tun", "vmbr0"),
        ];
        for (number, (device, kind, master)) in (1..).zip(devices) {
            let link = Link {
                index: number,
                kind: (!kind.is_empty()).then(|| kind.to_owned()),
                master: master.parse().ok(),
                ..Link::default()
            };
            observed.links.insert(name(device), link);
        }
        observed
    }

    /// Where a plan that has forgotten the port eno1 is watched.
    fn watched(rest: &str) -> Vec<(String, Side)> {
        let text = format!(
            "[all]\nsource = bridge:vmbr0\noutput = 200/net1\ncapture-only = 200/net1\n{rest}"
        );
        let annotations = config::parse("span.cfg", &text);
        let (observed, cluster) = (node(), Cluster::unknown("not read"));
        let mut desired: Desired =
            resolve(&annotations, &cluster, &observed, &Assumptions::default());
        for copies in desired.copies.values_mut() {
            copies.sources.remove(&name("eno1"));
        }
        let asked: Vec<_> = desired.sessions.iter().collect();
        let sessions = &annotations.sessions;
        let watching = CapturePlan::of(sessions, &desired, &observed, &|_| None, &asked);
        let points = watching.groups.iter().flat_map(|group| &group.points);
        let mut spots: Vec<_> = points
            .map(|point| (point.spot.device.to_string(), point.spot.side))
            .collect();
        spots.sort();
        spots
    }

    #[test]
    fn a_whole_bridge_is_judged_by_all_its_ports_not_by_those_of_the_plan() {
        let all = |devices: &[&str]| {
            let ports = devices
                .iter()
                .map(|device| ((*device).to_owned(), Side::Ingress));
            ports
                .chain([("vmbr0".to_owned(), Side::Egress)])
                .collect::<Vec<_>>()
        };
        assert_eq!(watched(""), all(&["eno1", "tap101i0", "tap102i0"]));
        assert_eq!(
            watched("exclude = 102\n"),
            all(&["eno1", "tap101i0"]),
            "and by its words"
        );
    }
}
