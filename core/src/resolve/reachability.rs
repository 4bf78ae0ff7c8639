//! Where frames can go on this node: from a bridge through its ports to other bridges, and to addresses of the node.
//!
//! Guests are left out: whether one passes frames on from one of its NICs to another, nobody here can tell.

use core::net::IpAddr;
use std::collections::BTreeSet;

use crate::engine::port::is_link_local;
use crate::model::{IfName, NicId, port_owner};
use crate::state::{Link, LinkState, Observed, OvsBridge, OvsPort, OvsState};

/// The kinds of devices that lead out of the node when they have a carrier: hardware (no kind) and what is built on it.
/// A veth, a tap or a dummy device has a carrier wherever it leads.
const UPLINKS: [&str; 4] = ["bond", "team", "vlan", "vxlan"];

/// Which ports lead out of the node?
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum UplinkRequirement {
    /// Those that provably carry now.
    Now,
    /// Those that do while their cable is in and they are up.
    Whenever,
}

/// The ways between this node's devices.
pub struct ForwardingGraph<'a> {
    observed: &'a Observed,
}

impl<'a> ForwardingGraph<'a> {
    pub fn new(observed: &'a Observed) -> Self {
        Self { observed }
    }

    /// The bridge of a port through which frames may go to or from an address of the node, and that address.
    pub fn address_behind(&self, port: &IfName) -> Option<(IfName, IpAddr)> {
        if self.is_dead_end(port) {
            return None;
        }
        let bridges = self.bridges_of(port);
        bridges.into_iter().find_map(|bridge| {
            let reached = self.reach([bridge], &BTreeSet::new());
            let (_, address) = self.addresses(&reached).next()?;
            Some((bridge.clone(), address))
        })
    }

    /// Is there such a device behind a port's bridges?
    pub fn reaches(&self, port: &IfName, is_such: impl Fn(&IfName) -> bool) -> bool {
        let reached = self.reach(self.bridges_of(port), &BTreeSet::new());
        reached.into_iter().any(is_such)
    }

    /// Without this port and those other ones, has an address of the node no way out that provably carries?
    pub fn strands(&self, port: &IfName, others: &BTreeSet<&IfName>) -> bool {
        let closed: BTreeSet<&IfName> = others.iter().copied().chain([port]).collect();
        let reached = self.reach(self.bridges_of(port), &BTreeSet::new());
        let mut carriers = self.addresses(&reached).map(|(device, _)| device);
        carriers.any(|device| {
            let left = self.reach(self.down_from(device), &closed);
            !left
                .into_iter()
                .any(|name| self.leads_out(name, UplinkRequirement::Now))
        })
    }

    /// The bridge whose guests would have no port left that leads out, and one of them. Guests' NICs that are outputs do not
    /// count; a port that is in no bridge is no guest's way.
    pub fn guest_without(
        &self,
        port: &IfName,
        others: &BTreeSet<&IfName>,
        leads: UplinkRequirement,
    ) -> Option<(IfName, NicId)> {
        let bridges = self.bridges_of(port);
        if bridges.is_empty() || self.is_dead_end(port) {
            return None;
        }
        let closed: BTreeSet<&IfName> = others.iter().copied().chain([port]).collect();
        let sides = bridges.into_iter().chain(self.far_end(port));
        sides.into_iter().find_map(|side| {
            let reached = self.reach([side], &closed);
            let guest = self.guest_on(&reached, others)?;
            let is_left = reached.iter().any(|name| self.leads_out(name, leads));
            (!is_left).then_some(guest)
        })
    }

    /// A guest's NIC that is plugged into one of these bridges, and the bridge.
    fn guest_on(
        &self,
        bridges: &BTreeSet<&IfName>,
        others: &BTreeSet<&IfName>,
    ) -> Option<(IfName, NicId)> {
        let links = self.observed.links.iter();
        let linux = links.filter_map(|(name, link)| Some((link.master.as_ref()?, name)));
        let ovs = bridges.iter().filter_map(|bridge| self.bridge_row(bridge));
        let ovs = ovs.flat_map(|(bridge, row)| row.ports.keys().map(move |name| (bridge, name)));
        let plugged = linux.filter(|(bridge, _)| bridges.contains(bridge));
        let mut plugged = plugged
            .chain(ovs)
            .filter(|(_, name)| !others.contains(name));
        plugged.find_map(|(bridge, name)| {
            let (nic, _) = port_owner(name.as_str())?;
            Some((bridge.clone(), nic))
        })
    }

    /// Nothing is behind it: a device of the node itself that nothing is built on and that is in no other bridge, or a pair
    /// that ends in one.
    fn is_dead_end(&self, port: &IfName) -> bool {
        let link = self.link(port);
        let ovs = self.ovs_port(port).map(|(_, row)| row.kind.as_str());
        if ovs == Some("internal") {
            return !link.is_some_and(|link| self.has_bridge(link));
        }
        let Some(far_end) = self.far_end(port) else {
            // A patch port whose other end is missing leads nowhere, and so does a dummy device; a pair's end that is not
            // here leads somewhere else.
            return ovs == Some("patch")
                || link.is_some_and(|link| link.kind.as_deref() == Some("dummy"));
        };
        let behind = self.reach([far_end], &[port].into());
        behind.len() <= 1 && self.addresses(&behind).next().is_none()
    }

    /// The other end of a pair or of a patch port, if it is on this node.
    fn far_end(&self, port: &IfName) -> Option<&'a IfName> {
        let far_end = match self.ovs_port(port) {
            Some((_, row)) if row.kind == "patch" => row.peer.as_ref(),
            _ => self.link(port).and_then(|link| link.peer.as_ref()),
        };
        self.known(far_end?)
    }

    fn has_bridge(&self, link: &Link) -> bool {
        let master = link.master.as_ref().and_then(|master| self.link(master));
        master.is_some_and(|master| master.kind.as_deref() == Some("bridge"))
    }

    /// Everything that frames get to from there, not passing the closed ports.
    fn reach(
        &self,
        from: impl IntoIterator<Item = &'a IfName>,
        closed: &BTreeSet<&IfName>,
    ) -> BTreeSet<&'a IfName> {
        let is_open =
            |name: &&IfName| !closed.contains(*name) && port_owner(name.as_str()).is_none();
        let mut ahead: Vec<&IfName> = from.into_iter().filter(is_open).collect();
        let mut reached = BTreeSet::new();
        while let Some(name) = ahead.pop() {
            if reached.insert(name) {
                ahead.extend(self.next(name).into_iter().filter(is_open));
            }
        }
        reached
    }

    /// What is one step away: a bridge's ports, a port's bridges, what is built on a device, the other end of a pair.
    fn next(&self, name: &IfName) -> Vec<&'a IfName> {
        let links = &self.observed.links;
        let mut next = self.bridges_of(name);
        let is_bridge = self
            .link(name)
            .is_some_and(|link| link.kind.as_deref() == Some("bridge"));
        let on_it = links.iter().filter(|(_, link)| {
            (is_bridge && link.master.as_ref() == Some(name)) || link.parent.as_ref() == Some(name)
        });
        next.extend(on_it.map(|(name, _)| name));
        if let Some((_, row)) = self.bridge_row(name) {
            next.extend(row.ports.keys());
        }
        next.extend(self.link(name).and_then(|link| link.peer.as_ref()));
        next.extend(self.ovs_port(name).and_then(|(_, row)| row.peer.as_ref()));
        next
    }

    /// The bridges that a port is in: the kernel's, Open vSwitch's, or both.
    fn bridges_of(&self, port: &IfName) -> Vec<&'a IfName> {
        let link = self.link(port).filter(|link| self.has_bridge(link));
        let linux = link.and_then(|link| link.master.as_ref());
        let ovs = self.ovs_port(port).map(|(bridge, _)| bridge);
        linux.into_iter().chain(ovs).collect()
    }

    /// A device, and those that it is built on.
    fn down_from(&self, device: &'a IfName) -> Vec<&'a IfName> {
        let mut below = vec![device];
        let parent = |name: &IfName| self.link(name)?.parent.as_ref();
        while let Some(parent) = below.last().and_then(|last| parent(last)) {
            if below.contains(&parent) {
                break;
            }
            below.push(parent);
        }
        below
    }

    /// The node's addresses there. A link-local one is on every device that has IPv6, so it does not tell anything.
    fn addresses<'r>(
        &'r self,
        reached: &'r BTreeSet<&'a IfName>,
    ) -> impl Iterator<Item = (&'a IfName, IpAddr)> + 'r {
        reached.iter().filter_map(|name| {
            let mut addresses = self.link(name)?.addresses.iter();
            let address = addresses.find(|address| !is_link_local(address))?;
            Some((*name, *address))
        })
    }

    /// Is it a port that leads out of the node?
    fn leads_out(&self, name: &IfName, leads: UplinkRequirement) -> bool {
        let carries = |name: &IfName| {
            self.link(name).is_some_and(|link| {
                let kind = link.kind.as_deref();
                (leads == UplinkRequirement::Whenever || link.state == LinkState::Up)
                    && kind.is_none_or(|kind| UPLINKS.contains(&kind))
            })
        };
        let bond = self.ovs_port(name).map(|(_, row)| &row.members);
        let is_port = !self.bridges_of(name).is_empty();
        is_port && (carries(name) || bond.is_some_and(|members| members.iter().any(carries)))
    }

    fn link(&self, name: &IfName) -> Option<&'a Link> {
        self.observed.links.get(name)
    }

    /// A device or port of that name.
    fn known(&self, name: &IfName) -> Option<&'a IfName> {
        let link = self
            .observed
            .links
            .get_key_value(name)
            .map(|(name, _)| name);
        let port = || {
            let (bridge, _) = self.ovs_port(name)?;
            let (_, row) = self.bridge_row(bridge)?;
            row.ports.get_key_value(name).map(|(name, _)| name)
        };
        link.or_else(port)
    }

    fn bridge_row(&self, name: &IfName) -> Option<(&'a IfName, &'a OvsBridge)> {
        match &self.observed.ovs {
            OvsState::Present(ovs) => ovs.bridges.get_key_value(name),
            OvsState::Absent(_) | OvsState::Failed(_) => None,
        }
    }

    fn ovs_port(&self, name: &IfName) -> Option<(&'a IfName, &'a OvsPort)> {
        let OvsState::Present(ovs) = &self.observed.ovs else {
            return None;
        };
        let mut bridges = ovs.bridges.iter();
        bridges.find_map(|(bridge, row)| Some((bridge, row.ports.get(name)?)))
    }
}
