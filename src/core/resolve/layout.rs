//! A running session laid out over the bridges: one wanted mirror a bridge and output, and the reason for
//! whatever does not reach an output.

use std::collections::BTreeSet;

use super::choice::{Choice, Whole};
use super::outputs::{Outputs, Place, is_uplink, on_linux_bridge};
use crate::core::annotations::{EngineChoice, NEEDS_NFT, Point, Session};
use crate::core::model::{IfName, MAX_LISTED};
use crate::core::ports::{BridgeKind, Port, PortMap};
use crate::core::selector::Output;
use crate::core::state::{
    Desired, Lack, MirrorConfig, MirrorKey, MirrorOutput, OutputState, SessionState, Taken, Wanted,
};

/// Lays a running session out over the bridges.
pub fn place(
    session: &Session,
    choice: &Choice<'_>,
    outputs: &Outputs<'_>,
    state: &mut SessionState,
    desired: &mut Desired,
) {
    for output in &session.outputs {
        let layout = Layout {
            outputs,
            session,
            choice,
            map: outputs.map,
            output: &output.value,
        };
        let served = outputs
            .place(&output.value)
            .map(|place| layout.on_bridges(&place, state, desired));
        let output = output.value.to_string();
        state.outputs.push(match served {
            Ok((engine, lacks)) => OutputState {
                output,
                engine: Some(engine),
                fault: None,
                lacks,
            },
            Err(fault) => OutputState {
                output,
                engine: None,
                fault: Some(fault),
                lacks: Vec::new(),
            },
        });
    }
}

/// One output's part of a session.
struct Layout<'a> {
    outputs: &'a Outputs<'a>,
    session: &'a Session,
    choice: &'a Choice<'a>,
    map: &'a PortMap,
    output: &'a Output,
}

impl Layout<'_> {
    /// The mirrors to an output, the engine with its reason, and what they do not take.
    fn on_bridges(
        &self,
        place: &Place<'_>,
        state: &mut SessionState,
        desired: &mut Desired,
    ) -> (String, Vec<Lack>) {
        let bridges: BTreeSet<&IfName> = match place {
            Place::Port(port) => [&port.bridge].into(),
            Place::Vlan(_) => self.rspan_bridges(),
        };
        state.notes.extend(self.notes(place, &bridges));
        let mut lacks = Vec::new();
        for bridge in &bridges {
            if let Some(wanted) = self.on_bridge(bridge, place, &mut lacks) {
                let output = self.output.to_string();
                let key = MirrorKey {
                    bridge: (*bridge).clone(),
                    session: self.session.name.clone(),
                    output,
                };
                desired.mirrors.insert(key, wanted);
            }
        }
        for source in self
            .choice
            .present()
            .into_iter()
            .filter(|source| !bridges.contains(&source.bridge))
        {
            let why = self.not_on(&source.bridge, &bridges);
            lacks.push(Lack {
                nic: source.nic,
                port: source.port,
                why,
            });
        }
        (self.engine(place, &bridges), lacks)
    }

    /// The Open vSwitch bridges that have sources: each gets its part of an RSPAN VLAN.
    fn rspan_bridges(&self) -> BTreeSet<&IfName> {
        let undecided = self.choice.undecided.values().map(|port| &port.bridge);
        let bridges = self
            .choice
            .ports
            .values()
            .map(|port| &port.bridge)
            .chain(undecided);
        let bridges = bridges.chain(self.choice.bridges.keys().copied());
        bridges
            .filter(|bridge| self.map.bridges.get(*bridge) == Some(&BridgeKind::Ovs))
            .collect()
    }

    /// What an administrator may not expect of an output.
    fn notes(&self, place: &Place<'_>, bridges: &BTreeSet<&IfName>) -> Vec<String> {
        match place {
            Place::Port(Port { tag: Some(tag), .. }) => {
                vec![format!(
                    "{} is in VLAN {tag}: frames arrive without their 802.1Q tags",
                    self.output
                )]
            }
            Place::Port(port) => {
                let address = self
                    .outputs
                    .address_over(&port.bridge)
                    .filter(|_| is_uplink(port));
                let note = |address| {
                    format!(
                        "{} carries this node's address {address}: make sure that {} is not the uplink in use",
                        port.bridge, port.name
                    )
                };
                address.map(note).into_iter().collect()
            }
            Place::Vlan(_) => {
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
                let note = format!(
                    "{} also goes to guests whose NIC takes every VLAN: {some}{more} (set tag= or trunks=)",
                    self.output
                );
                if all.is_empty() {
                    Vec::new()
                } else {
                    vec![note]
                }
            }
        }
    }

    /// The engine and why: so far there is one, and it mirrors within a bridge.
    fn engine(&self, place: &Place<'_>, bridges: &BTreeSet<&IfName>) -> String {
        let why = match (self.session.engine, place) {
            (EngineChoice::Ovs, _) => "as asked",
            (_, Place::Vlan(_)) => "RSPAN",
            (_, Place::Port(_)) => "same bridge",
        };
        let names: Vec<&str> = bridges.iter().map(|bridge| bridge.as_str()).collect();
        let place = if names.is_empty() {
            String::new()
        } else {
            format!(", {}", names.join(" and "))
        };
        format!("ovs: {why}{place}")
    }

    fn not_on(&self, bridge: &IfName, bridges: &BTreeSet<&IfName>) -> String {
        if self.map.bridges.get(bridge) == Some(&BridgeKind::Linux) {
            return on_linux_bridge(bridge);
        }
        let there: Vec<&str> = bridges.iter().map(|bridge| bridge.as_str()).collect();
        format!(
            "it is on {bridge} and the output on {}: mirroring across bridges {NEEDS_NFT}",
            there.join(", ")
        )
    }

    /// Why a port of the right bridge cannot be mirrored there, if it cannot.
    fn obstacle(&self, port: &Port, place: &Place<'_>) -> Option<String> {
        let firewall = port
            .nic
            .as_ref()
            .and_then(|nic| nic.firewall_bridge.as_ref());
        match (self.session.point, firewall, place) {
            (Point::Guest, Some(firewall), _) => Some(format!(
                "`point = guest` behind the firewall bridge {firewall} {NEEDS_NFT}"
            )),
            (_, _, Place::Vlan(vlan)) if port.tag == Some(*vlan) => Some(format!(
                "it is itself in VLAN {vlan}, and Open vSwitch mirrors nothing into a frame's own VLAN: use a VLAN of its own for RSPAN"
            )),
            _ => None,
        }
    }

    /// One bridge's part; nothing when there is nothing to take.
    fn on_bridge(
        &self,
        bridge: &IfName,
        place: &Place<'_>,
        lacks: &mut Vec<Lack>,
    ) -> Option<Wanted> {
        let output = match place {
            Place::Port(port) => MirrorOutput::Port(port.name.clone()),
            Place::Vlan(vlan) => MirrorOutput::Vlan(*vlan),
        };
        let is_output =
            |port: &IfName| matches!(place, Place::Port(output) if output.name == *port);
        let (vlans, snaplen) = (self.session.vlans.clone(), self.session.snaplen);
        let mut config = MirrorConfig {
            vlans,
            snaplen,
            output,
            ..MirrorConfig::default()
        };
        let whole = self.choice.bridges.get(bridge);
        if whole == Some(&Whole::Everything) {
            config.all = true;
            return Some(Wanted {
                config,
                undecided: BTreeSet::new(),
            });
        }
        let direction = self.session.direction;
        // A whole bridge is every frame, so both directions of what is left of it.
        let taken = match whole {
            Some(_) => Some(Taken::Both),
            None => Taken::new(direction.takes_sent(), direction.takes_delivered()),
        };
        let here = |port: &Port| port.bridge == *bridge && !is_output(&port.name);
        for port in self.choice.ports.values().filter(|port| here(port)) {
            match self.obstacle(port, place) {
                Some(why) => lacks.push(Lack {
                    nic: port.nic.as_ref().map(|nic| nic.id),
                    port: port.name.clone(),
                    why,
                }),
                None => config
                    .ports
                    .extend(taken.map(|taken| (port.name.clone(), taken))),
            }
        }
        let undecided = self.choice.undecided.values().filter(|port| here(port));
        let undecided: BTreeSet<IfName> = undecided.map(|port| port.name.clone()).collect();
        (!config.ports.is_empty() || !undecided.is_empty()).then_some(Wanted { config, undecided })
    }
}
