//! What Open vSwitch's own mirrors take, and where it leaves.

use super::expected::Takes;
use super::whole_bridges::side;
use super::{
    CapturePlan, DeviceSide, Node, Sensor, Subject, Way, is_one_station, no_mac, not_a_guest,
    only_it_can,
};
use crate::engine::nft::Side;
use crate::engine::nft::spec::Passing;
use crate::model::OutputKey;
use crate::model::Switch;
use crate::model::Taken;
use crate::model::{IfName, NicId, VlanSet};
use crate::state::port_map::PortMap;
use crate::state::{MirrorConfig, MirrorOutput, OvsBridge, OvsPort, OvsState};

impl Node<'_> {
    /// What a mirror takes.
    pub(super) fn mirror(
        &self,
        key: &OutputKey,
        bridge: &IfName,
        config: &MirrorConfig,
        watching: &mut CapturePlan,
    ) {
        let OvsState::Present(ovs) = &self.observed.ovs else {
            return;
        };
        let Some(row) = ovs.bridges.get(bridge) else {
            return;
        };
        if !config.all && config.ports.is_empty() {
            // It only keeps its output for what nftables copies.
            return;
        }
        let mut sensor = match self.leaves(row, &config.output) {
            Ok(sensor) => sensor,
            Err(why) => {
                let blind = watching.blind.entry(key.session.clone()).or_default();
                blind.push(format!("{} cannot be watched: {why}", key.output));
                return;
            }
        };
        sensor.snaplen = config.snaplen;
        let is_rspan = sensor.vlan.is_some();
        let output = sensor.spot.device.clone();
        let whole = self.whole_bridges(&key.session).contains(bridge);
        let group = watching.group(&sensor);
        let part = group.part(key, None);
        let (left_out, lacking) = (self.left_out(&key.session), self.lacking(key));
        let is_left = |name: &IfName| {
            *name == output
                || left_out.contains(name)
                || lacking.contains(name)
                || self.desired.outputs.contains_key(name)
                // A row that has outlived its device is no port.
                || !self.map.ports.contains_key(name)
        };
        for (name, port) in &row.ports {
            let taken = if config.all {
                (is_rspan || *name != output).then_some(Taken::Sent)
            } else if whole && !config.ports.contains_key(name) {
                // Also what the plan has forgotten.
                (!is_left(name)).then_some(Taken::Both)
            } else {
                config.ports.get(name).copied()
            };
            let Some(taken) = taken else { continue };
            let takes = Takes::mirrored(port, &config.vlans, config_vlan(&config.output));
            if takes.is_nothing() {
                continue;
            }
            let called = match (whole, nic_of(&self.map, name)) {
                (true, _) => format!("bridge:{bridge}"),
                (false, Some(nic)) => nic.to_string(),
                (false, None) => name.to_string(),
            };
            if !self.observed.links.contains_key(name) {
                let blind = no_device(&called, name, port);
                group.parts[part].blind.push(blind);
                continue;
            }
            for passing in passings(taken) {
                let subject = Subject {
                    way: if whole {
                        not_a_guest(&called)
                    } else {
                        self.way(&called, name, bridge, port, passing, &config.vlans)
                    },
                    name: called.clone(),
                    passing: if whole { Passing::From } else { passing },
                    whole,
                };
                let spot = DeviceSide {
                    device: name.clone(),
                    side: side(port, passing),
                };
                group.add(part, subject, spot, takes.clone(), passing);
            }
        }
    }

    /// How marked frames get to a port: Open vSwitch has to deliver them itself.
    fn way(
        &self,
        called: &str,
        name: &IfName,
        bridge: &IfName,
        port: &OvsPort,
        passing: Passing,
        vlans: &VlanSet,
    ) -> Way {
        let Some(nic) = nic_of(&self.map, name) else {
            return not_a_guest(called);
        };
        if passing == Passing::From {
            return only_it_can(called);
        }
        let Some(mac) = (self.mac)(nic).filter(is_one_station) else {
            return no_mac(called);
        };
        let fits =
            |vlan: &u16| *vlan != 0 && (port.trunks.is_empty() || port.trunks.contains(*vlan));
        let vlan = match port.tag {
            Some(tag) => Some(tag),
            None if vlans.is_empty() && port.trunks.is_empty() => None,
            None if vlans.is_empty() => port.trunks.iter().find(fits),
            None if vlans.contains(0) && port.trunks.is_empty() => None,
            None => vlans.iter().find(fits),
        };
        Way::Bridge {
            device: bridge.clone(),
            mac,
            vlan,
        }
    }

    /// Where the copies leave.
    fn leaves(&self, row: &OvsBridge, output: &MirrorOutput) -> Result<Sensor, String> {
        match output {
            MirrorOutput::Port(name) => {
                let port = row.ports.get(name);
                if !self.observed.links.contains_key(name) {
                    return Err(format!("the kernel shows no device {name}"));
                }
                let side = port.map_or(Side::Egress, |port| side(port, Passing::To));
                Ok(self.sensor(name, side))
            }
            MirrorOutput::Vlan(vlan) => self.carrier(row, *vlan),
            MirrorOutput::None => Err("there is no output".into()),
        }
    }

    /// A port that carries an RSPAN VLAN: one that is in no other if there is one, else one that is not a guest's.
    fn carrier(&self, row: &OvsBridge, vlan: u16) -> Result<Sensor, String> {
        let carries = |port: &OvsPort| match port.tag {
            Some(tag) if port.trunks.is_empty() => tag == vlan,
            tag => tag == Some(vlan) || port.trunks.is_empty() || port.trunks.contains(vlan),
        };
        let here = row
            .ports
            .iter()
            .filter(|(name, port)| carries(port) && self.observed.links.contains_key(*name));
        let is_bridge = |name: &IfName| self.map.bridges.contains_key(name);
        let best = here.min_by_key(|(name, port)| {
            let is_guests = nic_of(&self.map, name).is_some();
            (port.tag != Some(vlan), is_bridge(name), is_guests)
        });
        let (name, port) =
            best.ok_or_else(|| format!("no port that can be watched carries VLAN {vlan}"))?;
        let tagged = port.tag != Some(vlan);
        Ok(Sensor {
            vlan: Some(if tagged { vlan } else { 0 }),
            wire: Switch::No,
            ..self.sensor(name, side(port, Passing::To))
        })
    }
}

fn nic_of(map: &PortMap, port: &IfName) -> Option<NicId> {
    Some(map.ports.get(port)?.nic.as_ref()?.id)
}

/// Why a port cannot be watched.
fn no_device(called: &str, name: &IfName, port: &OvsPort) -> String {
    let why = match port.kind.as_str() {
        "patch" => "a patch port has no device",
        _ if port.interfaces > 1 => "a bond of Open vSwitch has no device",
        _ => "the kernel shows no such device",
    };
    if called == name.as_str() {
        format!("{called} cannot be watched: {why}")
    } else {
        format!("{called} ({name}) cannot be watched: {why}")
    }
}

fn config_vlan(output: &MirrorOutput) -> Option<u16> {
    match output {
        MirrorOutput::Vlan(vlan) => Some(*vlan),
        MirrorOutput::Port(_) | MirrorOutput::None => None,
    }
}

fn passings(taken: Taken) -> impl Iterator<Item = Passing> {
    let from = taken.sent().then_some(Passing::From);
    from.into_iter()
        .chain(taken.delivered().then_some(Passing::To))
}
