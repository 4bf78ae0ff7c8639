//! Where an output is on this node, or why frames cannot be delivered there.

use std::collections::{BTreeMap, BTreeSet};

use super::need::Need;
use crate::config::selector::Output;
use crate::config::{Annotations, EngineChoice, NO_TUNNELS, Session};
use crate::model::{IfName, NicId, NodeName};
use crate::pve::cluster::Cluster;
use crate::state::port_map::{BridgeKind, Port, PortMap, why_in_no_bridge, without_device};
use crate::state::{Fault, LinkState, Observed, OvsState};

use Fault::{Absent, Refused, Unknown};

/// An output that can be served here.
pub enum Place<'a> {
    /// A device of this node.
    Port(Target<'a>),
    /// A VLAN of whichever bridge the sources are on.
    Vlan(u16),
    /// Another node, which mirrors its own sources to it.
    Elsewhere(NodeName),
}

/// Where copies leave this node's hands.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The port on its bridge: the firewall's, where there is a firewall bridge.
    pub port: &'a Port,
    /// The device itself, past the firewall bridge.
    pub device: &'a IfName,
    /// Its interface index, if the kernel shows it.
    pub index: Option<u32>,
}

impl Target<'_> {
    /// The port and the device.
    pub fn ports(&self) -> impl Iterator<Item = IfName> + use<> {
        [self.port.name.clone(), self.device.clone()].into_iter()
    }

    /// The firewall bridge between the device and its bridge.
    pub fn firewall_bridge(&self) -> Option<&IfName> {
        self.port.nic.as_ref()?.firewall_bridge.as_ref()
    }

    /// Is it a device that Open vSwitch has made for the node itself?
    pub fn is_internal(&self) -> bool {
        self.port.bridge_kind == BridgeKind::Ovs
            && self.port.kind == "internal"
            && self.port.nic.is_none()
    }

    /// Can Open vSwitch mirror to it?
    pub fn is_on_ovs(&self) -> bool {
        self.port.bridge_kind == BridgeKind::Ovs && self.firewall_bridge().is_none()
    }

    /// Does the session make it one that carries copies only? An output that no engine can serve for it is not cut off for
    /// nothing.
    pub fn is_reserved_by(&self, session: &Session) -> bool {
        let by_nft = session.engine != EngineChoice::Ovs && session.snaplen.is_none();
        by_nft || self.is_on_ovs()
    }
}

/// What is looked at to place an output.
pub struct Outputs<'a> {
    /// The ports that exist.
    pub map: &'a PortMap,
    /// What else was observed.
    pub observed: &'a Observed,
    /// Where guests are filed.
    pub cluster: &'a Cluster,
    /// What span.cfg says.
    pub annotations: &'a Annotations,
    /// The ports that are outputs, and not refused.
    pub reserved: BTreeSet<IfName>,
    /// The ports that are outputs, and of which nobody can tell whether they are refused.
    pub undetermined: BTreeSet<IfName>,
    /// What needs a port that is free by itself and not beside the others; nothing where one of these is undetermined.
    pub conflicts: BTreeMap<IfName, Option<Need>>,
}

impl<'a> Outputs<'a> {
    /// Finds the output, or says why it cannot be served, and what to do.
    pub fn place(&self, output: &Output) -> Result<Place<'a>, Fault> {
        match output {
            Output::Nic(nic) => match self.map.of_nic(*nic) {
                Some(port) => Ok(Place::Port(self.target(port))),
                None => self.without_port(*nic),
            },
            Output::Port(port) => self.port(port).map(|port| Place::Port(self.target(port))),
            Output::Vlan(vlan) => Ok(Place::Vlan(*vlan)),
            Output::Vxlan(..) | Output::Gre(..) | Output::Erspan(..) => {
                Err(Refused(NO_TUNNELS.into()))
            }
        }
    }

    fn target(&self, port: &'a Port) -> Target<'a> {
        let device = port
            .nic
            .as_ref()
            .and_then(|nic| nic.device.as_ref())
            .unwrap_or(&port.name);
        let link = self.observed.links.get(device);
        Target {
            port,
            device,
            index: link.map(|link| link.index).filter(|index| *index > 0),
        }
    }

    /// Whether frames pass a port: the best of what it has, as an Open vSwitch bond has several devices.
    pub fn link_state(&self, port: &IfName) -> Option<LinkState> {
        let links = &self.observed.links;
        let members = self.map.members.get(port).into_iter().flatten();
        let devices = members.chain([port]).filter_map(|name| links.get(name));
        devices.map(|link| link.state).min()
    }

    /// Where a guest's NIC is, whose port is not here.
    fn without_port(&self, nic: NicId) -> Result<Place<'a>, Fault> {
        let guest = nic.vmid;
        if let Some(device) = self.map.unplugged.get(&nic) {
            return Err(self.why_unplugged(nic, device));
        }
        let placed = self.cluster.placements.as_ref().map(|all| all.get(&guest));
        let placed = placed.and_then(|placed| Ok((placed, self.cluster.this.as_ref()?)));
        match placed {
            Ok((None, _)) => return Err(Refused(format!("there is no guest {guest}"))),
            Ok((Some(placement), this)) if placement.node != *this => {
                return Ok(Place::Elsewhere(placement.node.clone()));
            }
            Ok(_) | Err(_) => {}
        }
        if let Some(config) = self.cluster.guest(guest) {
            match config.nics.get(&nic.index) {
                None => return Err(Refused(format!("guest {guest} has no net{}", nic.index))),
                Some(config) if config.bridge.is_none() => {
                    return Err(Refused("it has no bridge (user-mode NAT)".into()));
                }
                Some(_) => {}
            }
        }
        if self.map.nics().any(|(_, plugged)| plugged.id.vmid == guest) {
            return Err(Absent(without_device(nic)));
        }
        Err(match placed {
            Ok(_) => Absent(format!("guest {guest} is not running on this node")),
            Err(why) => Unknown(format!(
                "guest {guest} is not running on this node, and which node it is on cannot be told: {why}"
            )),
        })
    }

    /// Why a device is in no bridge that can be seen.
    pub fn why_unplugged(&self, nic: NicId, device: &IfName) -> Fault {
        if let Some(why) = self.cluster.out_of_bridges(nic) {
            return Absent(why.told(device));
        }
        let why = why_in_no_bridge(device, self.observed);
        match &self.observed.ovs {
            OvsState::Absent(_) => Refused(why),
            OvsState::Failed(_) => Unknown(why),
            OvsState::Present(_) => Absent(why),
        }
    }

    fn port(&self, name: &IfName) -> Result<&'a Port, Fault> {
        let is_device = self.observed.links.contains_key(name);
        let port = self.map.ports.get(name);
        port.ok_or_else(|| match &self.observed.ovs {
            OvsState::Failed(why) if !is_device || self.map.may_be_on_ovs(name) => Unknown(format!(
                "{name} is in no Linux bridge, and whether it is in one of Open vSwitch's cannot be told: {why}"
            )),
            _ if is_device => Refused(format!("{name} is part of a firewall bridge")),
            _ => Absent(self.map.why_no_port(name)),
        })
    }
}

/// May the port lead to the world outside?
pub fn is_uplink(port: &Port) -> bool {
    port.nic.is_none() && !matches!(port.kind.as_str(), "internal" | "patch")
}
