//! Where an output is on this node, or why frames cannot be delivered there.

use std::collections::BTreeSet;

use crate::core::annotations::{NEEDS_NFT, NO_TUNNELS};
use crate::core::cluster::Cluster;
use crate::core::model::{IfName, NicId};
use crate::core::ports::{BridgeKind, Port, PortMap};
use crate::core::selector::Output;
use crate::core::state::{Fault, Observed, OvsState};

use Fault::{Absent, Refused};

/// An output that can be served here.
pub enum Place<'a> {
    /// A port of an Open vSwitch bridge.
    Port(&'a Port),
    /// A VLAN of whichever bridge the sources are on.
    Vlan(u16),
}

/// What is looked at to place an output.
pub struct Outputs<'a> {
    /// The ports that exist.
    pub map: &'a PortMap,
    /// What else was observed.
    pub observed: &'a Observed,
    /// Where guests are filed.
    pub cluster: &'a Cluster,
}

impl<'a> Outputs<'a> {
    /// Finds the output, or says why it cannot be served, and what to do.
    pub fn place(&self, output: &Output) -> Result<Place<'a>, Fault> {
        match output {
            Output::Nic(nic) => self.sensor(*nic).map(Place::Port),
            Output::Port(port) => self.port(port).map(Place::Port),
            Output::Vlan(vlan) => Ok(Place::Vlan(*vlan)),
            Output::Vxlan(..) | Output::Gre(..) | Output::Erspan(..) => {
                Err(Refused(NO_TUNNELS.into()))
            }
        }
    }

    fn sensor(&self, nic: NicId) -> Result<&'a Port, Fault> {
        let Some(port) = self.map.of_nic(nic) else {
            return Err(self.why_no_port(nic));
        };
        if port.bridge_kind == BridgeKind::Linux {
            return Err(Refused(on_linux_bridge(&port.bridge)));
        }
        if let Some(bridge) = port
            .nic
            .as_ref()
            .and_then(|nic| nic.firewall_bridge.as_ref())
        {
            return Err(Refused(format!(
                "it is behind its firewall bridge {bridge}, which learns both ends of a conversation on one port \
                 and then drops the frames between them: switch the firewall off on this NIC (firewall=0)"
            )));
        }
        Ok(port)
    }

    fn why_no_port(&self, nic: NicId) -> Fault {
        let guest = nic.vmid;
        if let OvsState::Failed(why) = &self.observed.ovs {
            return Refused(format!(
                "Open vSwitch cannot be asked where {nic} is: {why}"
            ));
        }
        if let Some(device) = self.map.unplugged.get(&nic) {
            return self.why_unplugged(device);
        }
        if let (Ok(placements), Ok(this)) = (&self.cluster.placements, &self.cluster.this) {
            match placements.get(&guest) {
                None => return Refused(format!("there is no guest {guest}")),
                Some(placement) if placement.node != *this => {
                    return Absent(format!(
                        "guest {guest} is on node {}, and outputs on another node are not available in this version",
                        placement.node
                    ));
                }
                Some(_) => {}
            }
        }
        if let Some(config) = self.cluster.guest(guest) {
            match config.nics.get(&nic.index) {
                None => return Refused(format!("guest {guest} has no net{}", nic.index)),
                Some(config) if config.bridge.is_none() => {
                    return Refused("it has no bridge (user-mode NAT)".into());
                }
                Some(_) => {}
            }
        }
        if self.map.nics().any(|(_, plugged)| plugged.id.vmid == guest) {
            return Absent(format!(
                "guest {guest} is running, but its net{} has no port",
                nic.index
            ));
        }
        Absent(format!("guest {guest} is not running on this node"))
    }

    /// Why a device is in no bridge that can be seen.
    pub fn why_unplugged(&self, device: &IfName) -> Fault {
        match &self.observed.ovs {
            OvsState::Absent(why) | OvsState::Failed(why) => {
                Refused(format!("{device} is in no Linux bridge, and {why}"))
            }
            _ => Absent(format!("{device} is not plugged into any bridge")),
        }
    }

    fn port(&self, name: &IfName) -> Result<&'a Port, Fault> {
        if self.map.bridges.contains_key(name) {
            return Err(Refused(format!(
                "{name} is a bridge, and frames can only go out of a port"
            )));
        }
        let link = self.observed.links.get(name);
        if let Some(address) = link.and_then(|link| link.addresses.first()) {
            return Err(Refused(format!(
                "{name} carries this node's address {address}: a mirror into it would cut the node off"
            )));
        }
        let Some(port) = self.map.ports.get(name) else {
            return Err(match (link, &self.observed.ovs) {
                (_, OvsState::Failed(why)) => Refused(format!(
                    "Open vSwitch cannot be asked where {name} is: {why}"
                )),
                (None, _) => Absent(format!("there is no port {name} on this node")),
                (Some(_), _) => Refused(format!(
                    "{name} is not a port of an Open vSwitch bridge; that {NEEDS_NFT}"
                )),
            });
        };
        if port.bridge_kind == BridgeKind::Linux {
            return Err(Refused(on_linux_bridge(&port.bridge)));
        }
        self.only_uplink(port)?;
        Ok(port)
    }

    /// An output port is reserved: taking the only uplink of a bridge that carries the node's address
    /// would cut the node off.
    fn only_uplink(&self, port: &Port) -> Result<(), Fault> {
        let Some(address) = self.address_over(&port.bridge).filter(|_| is_uplink(port)) else {
            return Ok(());
        };
        let on_bridge = self
            .map
            .ports
            .values()
            .filter(|other| other.bridge == port.bridge);
        if on_bridge.filter(|other| is_uplink(other)).count() > 1 {
            return Ok(());
        }
        Err(Refused(format!(
            "{} is the only uplink of {}, which carries this node's address {address}: a mirror into it would cut the node off",
            port.name, port.bridge
        )))
    }

    /// An address of the node whose frames cross the bridge: on the bridge itself, on a port of it, or on what
    /// is built on those (a VLAN device, a Linux bridge).
    pub fn address_over(&self, bridge: &IfName) -> Option<core::net::IpAddr> {
        let ports = self
            .map
            .ports
            .values()
            .filter(|port| port.bridge == *bridge && port.nic.is_none());
        let mut over: BTreeSet<&IfName> = ports.map(|port| &port.name).collect();
        over.insert(bridge);
        loop {
            let known = over.len();
            let masters: Vec<&IfName> = over
                .iter()
                .filter_map(|name| self.observed.links.get(*name)?.master.as_ref())
                .collect();
            over.extend(masters);
            let above = self.observed.links.iter().filter(|(_, link)| {
                link.parent
                    .as_ref()
                    .is_some_and(|parent| over.contains(parent))
            });
            let above: Vec<&IfName> = above.map(|(name, _)| name).collect();
            over.extend(above);
            if over.len() == known {
                break;
            }
        }
        over.iter()
            .filter_map(|name| self.observed.links.get(*name))
            .find_map(|link| link.addresses.first().copied())
    }
}

/// Why the ovs engine cannot serve a port of that bridge.
pub fn on_linux_bridge(bridge: &IfName) -> String {
    format!("it is on the Linux bridge {bridge}, which {NEEDS_NFT}")
}

/// May the port lead to the world outside?
pub fn is_uplink(port: &Port) -> bool {
    port.nic.is_none() && !matches!(port.kind.as_str(), "internal" | "patch")
}
