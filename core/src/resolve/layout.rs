//! A running session laid out over the node: one wanted mirror a bridge and output, what nftables copies,
//! and the reason for whatever does not reach an output.

use std::collections::{BTreeMap, BTreeSet};

use super::availability::Standing;
use super::engine_choice::{ChosenEngine, From, Reason, engine, never_ovs, why_ovs};
use super::nft::CopyBuilder;
use super::offload::hands_over_unfinished;
use super::output_notes::{notes, rspan_note};
use super::outputs::{Outputs, Place, Target};
use super::selection::{Choice, WholeBridgeMode};
use crate::config::Session;
use crate::config::selector::Output;
use crate::engine::Engine;
use crate::engine::nft::spec::{Copies, Exclusive, OutputPort, Raise, SourcePort};
use crate::model::OutputKey;
use crate::model::Switch;
use crate::model::Taken;
use crate::model::{IfName, SessionName};
use crate::state::port_map::{BridgeKind, Port, PortMap};
use crate::state::{
    Desired, DownRole, Engines, Fault, LinkState, MirrorConfig, MirrorKey, MirrorOutput,
    OutputReservation, OutputState, PortDown, SessionState, UndeliveredSource, Wanted,
};

/// Lays a running session out over the node. `reserved` are the ports that are outputs, and whose.
pub fn place(
    session: &Session,
    choice: &Choice<'_>,
    outputs: &Outputs<'_>,
    reserved: &BTreeMap<IfName, &SessionName>,
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
            reserved,
        };
        let mut served = OutputState {
            output: output.value.to_string(),
            engine: None,
            fault: None,
            elsewhere: None,
            lacks: Vec::new(),
            notes: Vec::new(),
        };
        let place = outputs.serve(session, &output.value);
        let target = place.as_ref().ok().and_then(|(place, _)| match place {
            Place::Port(target) => Some(*target),
            Place::Vlan(_) | Place::Elsewhere(_) => None,
        });
        if let Ok((_, Standing::Confirmed)) = &place {
            desired.confirmed.insert(layout.key());
        }
        match place {
            Ok((Place::Elsewhere(node), _)) => served.elsewhere = Some(node),
            Ok((Place::Vlan(vlan), _)) => match session.asks_for_nft() {
                Some(nft) => {
                    served.fault = Some(Fault::Refused(format!(
                        "RSPAN is for the ovs engine, and `{nft}` needs the nft engine"
                    )));
                }
                None => layout.rspan(vlan, &mut served, desired),
            },
            Ok((Place::Port(target), standing)) => {
                layout.span(&target, standing, &mut served, desired);
            }
            Err(fault) => {
                if matches!(fault, Fault::Unknown(_)) {
                    layout.keep_reserved(desired);
                }
                served.fault = Some(fault);
            }
        }
        let is_unknown = matches!(served.fault, Some(Fault::Unknown(_)));
        if is_unknown && outputs.observed.ovs.unanswered().is_some() {
            // Where the output is cannot be told, so what is copied to it stays.
            desired
                .held
                .outputs
                .insert(OutputKey::new(&session.name, &served.output));
            desired.waiting.insert(session.name.clone());
            if let Some(Fault::Unknown(why)) = &mut served.fault {
                why.push_str("; existing mirrors are kept");
            }
        }
        // span.cfg is the whole cluster's: that this node needs a port itself is no fault of a session that has its sources,
        // and its port of that name, on other nodes.
        match (&served.fault, &output.value) {
            (Some(Fault::Refused(why)), Output::Port(_)) if state.has_no_source => {
                served.fault = Some(Fault::Absent(why.clone()));
            }
            (None, _) if !state.present.is_empty() => {
                let down = target.and_then(|target| down(&output.value, &target, outputs));
                state.down.extend(down);
            }
            _ => {}
        }
        state.outputs.push(served);
    }
}

/// An output by which no copy passes.
fn down(output: &Output, target: &Target<'_>, outputs: &Outputs<'_>) -> Option<PortDown> {
    let link = outputs.link_state(target.device)?;
    let (device, role) = match output {
        Output::Nic(nic) => {
            let config = outputs.cluster.guest(nic.vmid);
            let nic = config.and_then(|config| config.nics.get(&nic.index));
            let role = if nic.is_some_and(|nic| nic.link_down) {
                DownRole::Unplugged
            } else {
                DownRole::Sensor
            };
            (Some(target.device.clone()), role)
        }
        _ => (None, DownRole::Output),
    };
    let is_down = link != LinkState::Up || role == DownRole::Unplugged;
    is_down.then(|| PortDown {
        port: output.to_string(),
        device,
        role,
        state: link,
    })
}

/// One output's part of a session.
struct Layout<'a> {
    outputs: &'a Outputs<'a>,
    session: &'a Session,
    choice: &'a Choice<'a>,
    map: &'a PortMap,
    output: &'a Output,
    reserved: &'a BTreeMap<IfName, &'a SessionName>,
}

/// The sources of one output by what takes them there.
#[derive(Default)]
struct SourcesByEngine<'a> {
    ovs: Vec<&'a Port>,
    ovs_undecided: BTreeSet<IfName>,
    ovs_bridge: Option<(&'a IfName, WholeBridgeMode)>,
    nft: Vec<(&'a Port, Taken)>,
    nft_bridges: Vec<&'a IfName>,
    nft_undecided: Vec<&'a Port>,
    reasons: BTreeSet<Reason>,
    lacks: Vec<UndeliveredSource>,
}

impl<'a> Layout<'a> {
    /// RSPAN: each Open vSwitch bridge with sources has its part.
    fn rspan(&self, vlan: u16, served: &mut OutputState, desired: &mut Desired) {
        let bridges = self.rspan_bridges();
        served
            .notes
            .extend(rspan_note(self.map, self.output, &bridges));
        let lacks = &mut served.lacks;
        for bridge in &bridges {
            let here = |port: &&&Port| port.bridge == **bridge;
            let (own, others): (Vec<&Port>, Vec<&Port>) = self
                .choice
                .ports
                .values()
                .filter(here)
                .partition(|port| port.tag == Some(vlan));
            let whole = self.choice.bridges.get(*bridge).copied();
            for port in own
                .iter()
                .filter(|_| whole != Some(WholeBridgeMode::Everything))
            {
                lacks.push(UndeliveredSource {
                    nic: port.nic.as_ref().map(|nic| nic.id),
                    port: port.name.clone(),
                    why: format!(
                        "it is itself in VLAN {vlan}, and Open vSwitch mirrors nothing into a frame's own VLAN: use a VLAN of its own for RSPAN"
                    ),
                });
            }
            let split = SourcesByEngine {
                ovs: others,
                ovs_undecided: self
                    .choice
                    .undecided
                    .values()
                    .filter(here)
                    .map(|port| port.name.clone())
                    .collect(),
                ovs_bridge: whole.map(|whole| (*bridge, whole)),
                ..SourcesByEngine::default()
            };
            self.mirror(
                bridge,
                MirrorOutput::Vlan(vlan),
                &split,
                OutputReservation::No,
                desired,
            );
        }
        let elsewhere = self
            .choice
            .present()
            .into_iter()
            .filter(|source| !bridges.contains(&source.bridge));
        lacks.extend(elsewhere.map(|source| UndeliveredSource {
            why: match self.map.bridges.get(&source.bridge) {
                Some(_) => format!(
                    "it is on the Linux bridge {}, and RSPAN (vlan:) is for Open vSwitch bridges",
                    source.bridge
                ),
                None => "it is in no bridge, and RSPAN (vlan:) is for Open vSwitch bridges".into(),
            },
            nic: source.nic,
            port: source.port,
        }));
        let names: Vec<String> = bridges.iter().map(ToString::to_string).collect();
        let place = if names.is_empty() {
            String::new()
        } else {
            format!(", {}", names.join(" and "))
        };
        let why = why_ovs(self.session, self.output);
        served.engine = Some(Engines {
            ovs: Some(format!("{why}{place}")),
            nft: None,
        });
    }

    /// The Open vSwitch bridges that have sources: each gets its part of an RSPAN VLAN.
    fn rspan_bridges(&self) -> BTreeSet<&'a IfName> {
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

    /// A port of this node: each source by the engine that can.
    fn span(
        &self,
        target: &Target<'a>,
        standing: Standing,
        served: &mut OutputState,
        desired: &mut Desired,
    ) {
        let mut split = self.split(target);
        let mut copying = CopyBuilder {
            session: self.session,
            outputs: self.outputs,
            target,
            reserved: self.reserved,
            lacks: Vec::new(),
        };
        let copies = copying.copies(
            &split.nft,
            &split.nft_bridges,
            &split.nft_undecided,
            &self.choice.perhaps_on_ovs,
        );
        split.lacks.append(&mut copying.lacks);
        let copies =
            copies.filter(|copies| !copies.sources.is_empty() || !copies.undecided.is_empty());
        let key = self.key();
        if target.is_on_ovs() {
            let reserves = match &copies {
                Some(copies) if copies.sources.is_empty() => OutputReservation::IfThere,
                Some(_) => OutputReservation::Yes,
                // Without its mirror it would not be told tomorrow that it was an output.
                None if standing == Standing::Kept => OutputReservation::IfThere,
                None => OutputReservation::No,
            };
            let output = MirrorOutput::Port(target.port.name.clone());
            self.mirror(&target.port.bridge, output, &split, reserves, desired);
        }
        let wire = self.wire(target, copies.as_ref());
        if let Some(index) = target.index.filter(|_| target.is_reserved_by(self.session)) {
            let exclusive = if target.is_on_ovs() {
                Exclusive::Ovs
            } else {
                Exclusive::Us
            };
            let reserved = OutputPort::new(index, exclusive, wire);
            self.reserve(target.device, reserved, desired);
        }
        let by_ovs = !split.ovs.is_empty() || split.ovs_bridge.is_some();
        served.notes = notes(self.session, self.output, target, copies.as_ref(), by_ovs);
        if let Some(copies) = copies {
            self.listen(&copies, &split.nft, desired);
            desired.copies.insert(key, copies);
        }
        served.engine = Some(self.explained(target, &split));
        served.lacks = split.lacks;
    }

    /// Whatever the session takes, by engine.
    fn split(&self, target: &Target<'a>) -> SourcesByEngine<'a> {
        let mut split = SourcesByEngine::default();
        let (session, output) = (self.session, self.output);
        for (bridge, whole) in &self.choice.bridges {
            let kind = self
                .map
                .bridges
                .get(*bridge)
                .copied()
                .unwrap_or(BridgeKind::None);
            let from = From {
                bridge,
                kind,
                firewall: None,
            };
            match engine(session, output, target, &from) {
                Ok(ChosenEngine::Ovs) => split.ovs_bridge = Some((*bridge, *whole)),
                Ok(ChosenEngine::Nft(reason)) => {
                    split.reasons.insert(reason);
                    split.nft_bridges.push(*bridge);
                }
                Err(why) => split.lacks.push(UndeliveredSource {
                    nic: None,
                    port: (*bridge).clone(),
                    why,
                }),
            }
        }
        // A whole bridge is every frame, so both directions of what is left of it; and where it enters, with nft.
        let whole = |port: &Port| self.choice.bridges.contains_key(&port.bridge);
        let direction = session.direction;
        let taken = Taken::new(direction.takes_sent(), direction.takes_delivered());
        let is_output = |port: &Port| port.name == target.port.name;
        for port in self.choice.ports.values().filter(|port| !is_output(port)) {
            let is_whole = whole(port);
            match engine(session, output, target, &From::from(*port)) {
                Ok(ChosenEngine::Ovs) => split.ovs.push(port),
                Ok(ChosenEngine::Nft(_)) if is_whole => {
                    split
                        .nft
                        .extend(self.entering(port).map(|taken| (*port, taken)));
                }
                Ok(ChosenEngine::Nft(reason)) => {
                    split.reasons.insert(reason);
                    split.nft.extend(taken.map(|taken| (*port, taken)));
                }
                Err(_) if is_whole => {}
                Err(why) => split.lacks.push(UndeliveredSource {
                    nic: port.nic.as_ref().map(|nic| nic.id),
                    port: port.name.clone(),
                    why,
                }),
            }
        }
        for port in self
            .choice
            .undecided
            .values()
            .filter(|port| !is_output(port))
        {
            match engine(session, output, target, &From::from(*port)) {
                Ok(ChosenEngine::Ovs) => {
                    split.ovs_undecided.insert(port.name.clone());
                }
                Ok(ChosenEngine::Nft(_)) => split.nft_undecided.push(port),
                Err(_) => {}
            }
        }
        split
    }

    /// What is taken at a port of a whole bridge: what enters the bridge there. What passes from one whole bridge into
    /// another one was taken where it entered the first.
    fn entering(&self, port: &Port) -> Option<Taken> {
        let leads_to_whole = |device: &IfName| {
            let mut sides = self.map.of_device(device);
            sides.any(|side| {
                side.bridge != port.bridge && self.choice.bridges.contains_key(&side.bridge)
            })
        };
        let links = &self.outputs.observed.links;
        let peer = links.get(&port.name).and_then(|link| link.peer.as_ref());
        match (leads_to_whole(&port.name), self.session.dedup) {
            (true, Switch::Yes) => None,
            (true, Switch::No) => Some(Taken::Both),
            (false, Switch::Yes) if peer.is_some_and(leads_to_whole) => None,
            (false, _) => Some(Taken::Sent),
        }
    }

    /// The mirror on one Open vSwitch bridge, if there is anything for it to do.
    fn mirror(
        &self,
        bridge: &IfName,
        output: MirrorOutput,
        split: &SourcesByEngine<'_>,
        reserves: OutputReservation,
        desired: &mut Desired,
    ) {
        let (vlans, snaplen) = (self.session.vlans.clone(), self.session.snaplen);
        let mut config = MirrorConfig {
            vlans,
            snaplen,
            output,
            ..MirrorConfig::default()
        };
        let mut undecided = split.ovs_undecided.clone();
        if split.ovs_bridge == Some((bridge, WholeBridgeMode::Everything)) {
            config.all = true;
            undecided.clear();
        } else {
            let direction = self.session.direction;
            let taken = match split.ovs_bridge {
                Some(_) => Some(Taken::Both),
                None => Taken::new(direction.takes_sent(), direction.takes_delivered()),
            };
            for port in &split.ovs {
                config
                    .ports
                    .extend(taken.map(|taken| (port.name.clone(), taken)));
            }
        }
        let is_empty = !config.all && config.ports.is_empty() && undecided.is_empty();
        if is_empty && reserves == OutputReservation::No {
            return;
        }
        let key = MirrorKey {
            engine: Engine::Ovs(bridge.clone()),
            of: OutputKey::new(&self.session.name, self.output),
        };
        let wanted = Wanted {
            config,
            reserves,
            undecided,
        };
        desired.mirrors.insert(key, wanted);
    }

    /// A port in no bridge has to be up and to take in what is addressed to others, for as long as it is a source.
    fn listen(&self, copies: &Copies, sources: &[(&Port, Taken)], desired: &mut Desired) {
        let alone = sources.iter().filter(|(port, _)| {
            port.bridge_kind == BridgeKind::None && copies.sources.contains_key(&port.name)
        });
        for (port, _) in alone {
            let Some(link) = self.outputs.observed.links.get(&port.name) else {
                continue;
            };
            let raise = if link.master.is_none() {
                Raise::Yes
            } else {
                Raise::No
            };
            let source = desired
                .listening
                .entry(port.name.clone())
                .or_insert_with(|| SourcePort {
                    index: link.index,
                    of: BTreeSet::new(),
                    raise,
                });
            source.of.insert(self.session.name.clone());
        }
    }

    /// Nobody can tell whether the output is free: no mirror begins, and a device that is reserved stays as it is.
    fn keep_reserved(&self, desired: &mut Desired) {
        if let Some((device, reserved)) = self.outputs.reserved_device(self.output) {
            self.reserve(device, reserved, desired);
        }
    }

    fn key(&self) -> OutputKey {
        OutputKey::new(&self.session.name, self.output)
    }

    /// The output's device is one for as long as the session runs, with or without sources.
    fn reserve(&self, device: &IfName, as_what: OutputPort, desired: &mut Desired) {
        let wire = as_what.wire;
        let output = desired.outputs.entry(device.clone()).or_insert(as_what);
        output.of.insert(self.key());
        if wire == Switch::Yes {
            output.wire = wire;
        }
    }

    /// Is the kernel to finish frames on the way out? Open vSwitch gives an internal port to the node as a receiver, and
    /// nothing on that way finishes them.
    fn wire(&self, target: &Target<'_>, copies: Option<&Copies>) -> Switch {
        let is_virtual = matches!(self.output, Output::Nic(_))
            || hands_over_unfinished(target.device, &self.outputs.observed.links);
        if is_virtual && (copies.is_some() || !target.is_internal()) {
            self.session.wire
        } else {
            Switch::No
        }
    }

    /// The engines and why.
    fn explained(&self, target: &Target<'_>, split: &SourcesByEngine<'_>) -> Engines {
        let by_ovs =
            !split.ovs.is_empty() || split.ovs_bridge.is_some() || !split.ovs_undecided.is_empty();
        let mut reasons = split.reasons.clone();
        if reasons.is_empty() && !by_ovs {
            reasons.extend(never_ovs(self.session, self.output, target));
        }
        let words: Vec<String> = reasons.iter().map(Reason::to_string).collect();
        let by_ovs = by_ovs || (words.is_empty() && split.nft_undecided.is_empty());
        let why = why_ovs(self.session, self.output);
        Engines {
            ovs: by_ovs.then(|| format!("{why}, {}", target.port.bridge)),
            nft: (!words.is_empty()).then(|| words.join(", ")),
        }
    }
}
