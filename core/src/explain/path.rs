//! The way of a NIC's frames over this node, hop by hop, read off the devices and ports that exist.

use std::fmt;

use serde::Serialize;

use super::index::ExplainContext;
use super::placement::NicState;
use crate::model::{IfName, NicId, VlanSet};
use crate::pve::guest;
use crate::state::port_map::{BridgeKind, Port};

/// A station on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// What it is.
    pub kind: HopKind,
    /// Its name.
    pub name: String,
    /// What is worth knowing of it: `OVS, VLAN 10`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What a station on the way is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HopKind {
    /// A guest's NIC.
    Nic,
    /// The NIC's device on the node.
    Device,
    /// The firewall bridge.
    FirewallBridge,
    /// What leads from the firewall bridge to the bridge.
    FirewallPort,
    /// The bridge.
    Bridge,
    /// A session.
    Session,
    /// An output that is a port of the node.
    Port,
    /// An output that is a VLAN (RSPAN).
    Vlan,
}

impl Hop {
    /// A station of which there is no more to say.
    pub fn new(kind: HopKind, name: impl fmt::Display) -> Self {
        Self {
            kind,
            name: name.to_string(),
            detail: None,
        }
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == HopKind::Session {
            f.write_str("session ")?;
        }
        f.write_str(&self.name)?;
        match &self.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl ExplainContext<'_> {
    /// From the NIC to its bridge, or as far as there is anything.
    pub(super) fn path(&self, nic: NicId, state: &NicState) -> Vec<Hop> {
        let mut path = vec![Hop::new(HopKind::Nic, nic)];
        if let Some(device) = self.map.unplugged.get(&nic) {
            path.push(Hop::new(HopKind::Device, device));
            path.extend(self.firewall_bridge_of(nic, device));
        }
        let Some(port) = self.map.of_nic(nic).filter(|_| *state == NicState::Plugged) else {
            return path;
        };
        let plugged = port.nic.as_ref();
        let device = plugged.and_then(|plugged| plugged.device.as_ref());
        path.extend(device.map(|device| Hop::new(HopKind::Device, device)));
        if let Some(firewall) = plugged.and_then(|plugged| plugged.firewall_bridge.as_ref()) {
            path.push(Hop::new(HopKind::FirewallBridge, firewall));
            // On a Linux bridge a veth pair leads there; on Open vSwitch the port itself is in both.
            let link = self.view.observed.links.get(&port.name);
            let peer = link.and_then(|link| link.peer.as_ref());
            path.extend(peer.map(|peer| Hop::new(HopKind::FirewallPort, peer)));
            path.push(Hop::new(HopKind::FirewallPort, &port.name));
        } else if device != Some(&port.name) {
            path.push(Hop::new(HopKind::Device, &port.name));
        }
        path.push(self.bridge(nic, port));
        path
    }

    /// The firewall bridge that a device is in without reaching any bridge that can be seen.
    fn firewall_bridge_of(&self, nic: NicId, device: &IfName) -> Option<Hop> {
        let link = self.view.observed.links.get(device)?;
        let master = link.master.as_ref()?;
        (master.as_str() == nic.firewall_bridge())
            .then(|| Hop::new(HopKind::FirewallBridge, master))
    }

    fn bridge(&self, nic: NicId, port: &Port) -> Hop {
        let link = self.view.observed.links.get(&port.bridge);
        let is_aware =
            port.bridge_kind == BridgeKind::Linux && link.is_some_and(|link| link.vlan_aware);
        let mut detail = match port.bridge_kind {
            BridgeKind::Ovs => "OVS".to_owned(),
            BridgeKind::Linux if is_aware => "VLAN-aware Linux bridge".to_owned(),
            BridgeKind::Linux | BridgeKind::None => "Linux bridge".to_owned(),
        };
        // A VLAN-aware bridge keeps its VLANs to itself unless a session asks for them: there the config tells.
        let guest = self.view.cluster.guest(nic.vmid);
        let config: Option<&guest::Nic> = guest
            .and_then(|guest| guest.nics.get(&nic.index))
            .filter(|_| is_aware);
        let trunks = config.map_or(&port.trunks, |config| &config.trunks);
        let tag = port.tag.or(port.native);
        let tag = tag.or_else(|| config.and_then(|config| config.tag));
        if let Some(vlans) = vlans(tag, trunks) {
            detail.push_str(", ");
            detail.push_str(&vlans);
        }
        Hop {
            detail: Some(detail),
            ..Hop::new(HopKind::Bridge, &port.bridge)
        }
    }
}

/// `VLAN 10`, `trunk 20,30-40`, or both.
fn vlans(tag: Option<u16>, trunks: &VlanSet) -> Option<String> {
    match (tag, trunks.is_empty()) {
        (None, true) => None,
        (None, false) => Some(format!("trunk {trunks}")),
        (Some(tag), true) => Some(format!("VLAN {tag}")),
        (Some(tag), false) => Some(format!("VLAN {tag} untagged, trunk {trunks}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Subject, View, explain};
    use crate::config::Annotations;
    use crate::model::{GuestKind, Vmid};
    use crate::plan::Plan;
    use crate::pve::cluster::Cluster;
    use crate::pve::guest;
    use crate::state::{Desired, Link, Observed, OvsState};

    /// The way of 101/net0 on the VLAN-aware bridge vmbr1.
    fn way(config: &str) -> String {
        let mut observed = Observed {
            ovs: OvsState::Absent("there is none".into()),
            ..Observed::default()
        };
        let bridge = Link {
            kind: Some("bridge".into()),
            vlan_aware: true,
            ..Link::default()
        };
        let tap = Link {
            master: "vmbr1".parse().ok(),
            ..Link::default()
        };
        for (name, link) in [("vmbr1", bridge), ("tap101i0", tap)] {
            observed.links.insert(name.parse().unwrap(), link);
        }
        let vmid = Vmid::new(101).unwrap();
        let mut cluster = Cluster::unknown("not asked");
        let (guest, _) = guest::parse(vmid, GuestKind::Qemu, config);
        cluster.guests.insert(vmid, Ok(guest));
        let view = View {
            annotations: &Annotations::default(),
            cluster: &cluster,
            observed: &observed,
            desired: &Desired::default(),
            plan: &Plan::default(),
            now: 0,
        };
        let told = explain(&view, &[Subject::Guest(vmid)]).remove(0).unwrap();
        let hops: Vec<String> = told.nics[0].path.iter().map(ToString::to_string).collect();
        hops.join(" → ")
    }

    #[test]
    fn a_vlan_aware_bridge_s_vlans_are_those_of_the_config() {
        assert_eq!(
            way("net0: virtio,bridge=vmbr1,tag=30\n"),
            "101/net0 → tap101i0 → vmbr1 (VLAN-aware Linux bridge, VLAN 30)"
        );
        assert_eq!(
            way("net0: virtio,bridge=vmbr1,trunks=5;6\n"),
            "101/net0 → tap101i0 → vmbr1 (VLAN-aware Linux bridge, trunk 5-6)"
        );
        assert_eq!(
            way("net0: virtio,bridge=vmbr1,tag=3,trunks=5\n"),
            "101/net0 → tap101i0 → vmbr1 (VLAN-aware Linux bridge, VLAN 3 untagged, trunk 5)"
        );
        assert_eq!(
            way("net0: virtio,bridge=vmbr1\n"),
            "101/net0 → tap101i0 → vmbr1 (VLAN-aware Linux bridge)"
        );
    }
}
