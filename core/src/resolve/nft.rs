//! What nftables copies for one output of one session: which device, which way round, which VLANs.

use std::collections::{BTreeMap, BTreeSet};

use super::outputs::{Outputs, Target};
use crate::config::{Point, Session};
use crate::engine::nft::spec::{Copies, CopySource, DeviceEnd, Frames, Mac, Vlans};
use crate::model::Taken;
use crate::model::{IfName, NicId, SessionName};
use crate::state::UndeliveredSource;
use crate::state::port_map::{BridgeKind, Port};

/// One output's part of a session.
pub struct CopyBuilder<'a> {
    pub session: &'a Session,
    pub outputs: &'a Outputs<'a>,
    pub target: &'a Target<'a>,
    /// The ports that are outputs, and whose.
    pub reserved: &'a BTreeMap<IfName, &'a SessionName>,
    /// What cannot be copied, and why.
    pub lacks: Vec<UndeliveredSource>,
}

impl<'a> CopyBuilder<'a> {
    /// Everything that is copied there; nothing if the kernel does not show the output.
    pub fn copies(
        &mut self,
        ports: &[(&Port, Taken)],
        bridges: &[&IfName],
        undecided: &[&Port],
        perhaps_on_ovs: &BTreeSet<IfName>,
    ) -> Option<Copies> {
        let mut sources = BTreeMap::new();
        let below = self.below_target();
        for (port, taken) in ports {
            sources.extend(self.port(port, *taken, &below));
        }
        for bridge in bridges {
            sources.extend(self.own_traffic(bridge));
        }
        let mut undecided: BTreeSet<IfName> = undecided
            .iter()
            .filter_map(|port| self.device(port).ok())
            .cloned()
            .collect();
        undecided.extend(perhaps_on_ovs.iter().cloned());
        let session = self.session;
        Some(Copies {
            device: self.target.device.clone(),
            index: self.target.index?,
            sources,
            undecided,
            frames: Frames {
                vlans: session.vlans.clone(),
                filter: session.filter.clone(),
                sample: session.sample,
                dedup: session.dedup,
            },
        })
    }

    /// The device where a port's frames are taken.
    fn device<'p>(&self, port: &'p Port) -> Result<&'p IfName, String> {
        let links = &self.outputs.observed.links;
        let nic = port.nic.as_ref();
        let behind =
            nic.filter(|nic| nic.firewall_bridge.is_some() && self.session.point == Point::Guest);
        let device = match behind {
            Some(nic) => nic
                .device
                .as_ref()
                .ok_or_else(|| format!("the kernel shows no device of {}", nic.id))?,
            None => &port.name,
        };
        if links.contains_key(device) {
            return Ok(device);
        }
        let bond = self.outputs.map.why_no_device(device);
        Err(bond.unwrap_or_else(|| format!("the kernel shows no device {device}")))
    }

    /// `below` are the devices that the output is built on.
    fn port(
        &mut self,
        port: &Port,
        taken: Taken,
        below: &BTreeSet<&IfName>,
    ) -> Option<(IfName, CopySource)> {
        let nic = port.nic.as_ref().map(|nic| nic.id);
        let device = match self
            .device(port)
            .and_then(|device| self.harmless(device, below).map(|()| device))
        {
            Ok(device) => device.clone(),
            Err(_) if port.kind == "patch" && nic.is_none() => {
                self.lacks.push(UndeliveredSource {
                    nic,
                    port: port.name.clone(),
                    why: "a patch port has no device: what comes in by it is not seen".into(),
                });
                return None;
            }
            Err(why) => {
                self.lacks.push(UndeliveredSource {
                    nic,
                    port: port.name.clone(),
                    why,
                });
                return None;
            }
        };
        let vlans = match (self.session.vlans.is_empty(), port.tag) {
            (true, _) => Vlans::All,
            (false, Some(tag)) if self.session.vlans.contains(tag) => Vlans::All,
            (false, Some(_)) => return None,
            (false, None) => match port.native {
                Some(native) if self.session.vlans.contains(native) => Vlans::Native,
                _ => Vlans::Tagged,
            },
        };
        let is_own_device = device != port.name;
        let facing =
            if port.bridge_kind == BridgeKind::Ovs && port.kind == "internal" && !is_own_device {
                DeviceEnd::Node
            } else {
                DeviceEnd::Source
            };
        let source = CopySource {
            nic,
            taken,
            facing,
            vlans,
            mac: nic.map_or(Mac::None, |nic| self.mac(nic)),
        };
        Some((device, source))
    }

    /// What the node itself sends into a Linux bridge. (Into Open vSwitch's it does so through a port.)
    fn own_traffic(&mut self, bridge: &IfName) -> Option<(IfName, CopySource)> {
        if self.outputs.map.bridges.get(bridge) != Some(&BridgeKind::Linux) {
            return None;
        }
        let vlans = if self.session.vlans.is_empty() {
            Vlans::All
        } else {
            Vlans::Tagged
        };
        let source = CopySource {
            nic: None,
            taken: Taken::Sent,
            facing: DeviceEnd::Node,
            vlans,
            mac: Mac::None,
        };
        Some((bridge.clone(), source))
    }

    /// Copies must not come by where they are taken.
    fn harmless(&self, device: &IfName, below: &BTreeSet<&IfName>) -> Result<(), String> {
        if device == self.target.device {
            return Err("it is the output itself".into());
        }
        if let Some(session) = self.reserved.get(device) {
            return Err(format!(
                "it is an output of {session}, and carries copies only"
            ));
        }
        let links = &self.outputs.observed.links;
        let is_peer = |one: &IfName, other: &IfName| {
            links.get(one).and_then(|link| link.peer.as_ref()) == Some(other)
        };
        if is_peer(device, self.target.device) || is_peer(self.target.device, device) {
            return Err(format!(
                "it is the other end of {}, where all that is copied would come in again",
                self.target.device
            ));
        }
        if below.contains(device) {
            return Err(format!(
                "what is copied to {} leaves through it",
                self.target.device
            ));
        }
        Ok(())
    }

    /// The devices that the output is built on.
    fn below_target(&self) -> BTreeSet<&'a IfName> {
        let links = &self.outputs.observed.links;
        let mut below: BTreeSet<&'a IfName> = [self.target.device].into();
        loop {
            let known = below.len();
            let parents: Vec<&IfName> = below
                .iter()
                .filter_map(|name| links.get(*name)?.parent.as_ref())
                .collect();
            below.extend(parents);
            let bonded = links.iter().filter(|(_, link)| {
                let master = link.master.as_ref().filter(|master| below.contains(master));
                master.is_some_and(|master| {
                    links.get(master).and_then(|link| link.kind.as_deref()) == Some("bond")
                })
            });
            let bonded: Vec<&IfName> = bonded.map(|(name, _)| name).collect();
            below.extend(bonded);
            if below.len() == known {
                below.remove(self.target.device);
                return below;
            }
        }
    }

    fn mac(&self, nic: NicId) -> Mac {
        let Some(guest) = self.outputs.cluster.guest(nic.vmid) else {
            return Mac::Unknown;
        };
        let nic = guest.nics.get(&nic.index);
        nic.and_then(|nic| nic.mac_number())
            .map_or(Mac::None, Mac::Known)
    }
}
