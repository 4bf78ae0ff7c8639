//! What a session makes of a NIC: whether it takes it, where its frames are copied, and where the copies go.

use std::collections::BTreeSet;

use serde::Serialize;

use super::effective::InForce;
use super::index::ExplainContext;
use super::path::{Hop, HopKind};
use super::placement::NicState;
use super::reason_text::{DELIVERED, SENT, why};
use crate::config::Session;
use crate::config::selector::{Output, Selector};
use crate::engine::nft::Side;
use crate::engine::nft::spec::{CopySource, Passing};
use crate::engine::{Engine, EngineKind};
use crate::health::REMEDY;
use crate::model::OutputKey;
use crate::model::{IfName, NicId, SessionName};
use crate::resolve::engine_choice::why_ovs;
use crate::resolve::reasons::{Reason, Standing};
use crate::state::port_map::Port;
use crate::state::{
    MirrorKey, MirrorOutput, OutputState, SessionPhase, SessionState, SourceState, Wanted,
};

/// What a session makes of a NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The session.
    pub session: SessionName,
    /// Does it take it? Nothing if nobody can tell.
    pub taken: Option<bool>,
    /// Why, in words.
    pub why: String,
    /// Where its frames go, if it is taken: one for each output and engine.
    pub outputs: Vec<OutputPath>,
}

/// The way from a NIC to one of a session's outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutputPath {
    /// The output, as span.cfg writes it.
    pub output: String,
    /// The whole way, from the NIC; it ends at the session where nothing gets to the output.
    pub path: Vec<Hop>,
    /// Who mirrors.
    pub engine: Option<EngineKind>,
    /// Why that engine.
    pub why: Option<String>,
    /// Where frames are copied, in words.
    pub at: Option<String>,
    /// Is it so now?
    pub in_force: Option<InForce>,
    /// Why nothing of this NIC gets there.
    pub fault: Option<String>,
    /// What the session has copied to this output so far, of all its sources; nothing if nobody counts.
    pub frames: Option<u64>,
}

/// A source that a session has here, as it is laid out.
struct Source<'a> {
    session: &'a Session,
    state: &'a SessionState,
    nic: NicId,
    port: &'a Port,
    path: &'a [Hop],
    reason: &'a Reason,
}

impl ExplainContext<'_> {
    pub(super) fn part(
        &self,
        nic: NicId,
        state: &NicState,
        path: &[Hop],
        reason: &Reason,
    ) -> Option<Part> {
        let session = self.view.annotations.sessions.get(&reason.session)?;
        let laid_out = self.laid_out(&reason.session)?;
        let reason = &self.as_done(session, nic, reason);
        let taken = match (&reason.standing, &laid_out.phase, state) {
            (Standing::Undecided(..) | Standing::PerhapsLoop(_), SessionPhase::Running, _) => None,
            (Standing::Taken(_), SessionPhase::Running, NicState::Plugged) => Some(true),
            _ => Some(false),
        };
        let port = self.map.of_nic(nic).filter(|_| taken == Some(true));
        let outputs = port.map_or_else(Vec::new, |port| {
            let source = Source {
                session,
                state: laid_out,
                nic,
                port,
                path,
                reason,
            };
            self.legs(&source)
        });
        let mut why = why(self, session, reason, nic, state);
        if taken == Some(false) && self.is_still_mirrored(&session.name, nic) {
            why = format!("{why}; still mirrored: {REMEDY}");
        }
        Some(Part {
            session: session.name.clone(),
            taken,
            why,
            outputs,
        })
    }

    /// A mirror of everything on a bridge leaves nothing out but outputs, which carry copies only.
    fn as_done(&self, session: &Session, nic: NicId, reason: &Reason) -> Reason {
        let mut reason = reason.clone();
        let port = self.map.of_nic(nic);
        let bridge = port.map(|port| &port.bridge);
        let word = || {
            let mut words = session.sources.iter();
            words.find(|word| match &word.value {
                Selector::Bridge(named) => bridge == Some(named),
                _ => false,
            })
        };
        let takes_all = || {
            let mut outputs = session.outputs.iter();
            outputs.any(|output| {
                let wanted = self.wanted(session, &output.value, bridge);
                wanted.is_some_and(|(_, wanted)| wanted.config.all)
            })
        };
        if let Standing::Loop(_) | Standing::PerhapsLoop(_) = reason.standing {
            if let Some(word) = word().filter(|_| takes_all()) {
                reason.standing = Standing::Taken(word.into());
            }
        }
        reason
    }

    /// The mirror that a session shall have on a bridge, to an output.
    fn wanted(
        &self,
        session: &Session,
        output: &Output,
        bridge: Option<&IfName>,
    ) -> Option<(MirrorKey, &Wanted)> {
        let key = MirrorKey {
            engine: Engine::Ovs(bridge?.clone()),
            of: OutputKey::new(&session.name, output),
        };
        let wanted = self.view.desired.mirrors.get(&key)?;
        Some((key, wanted))
    }

    fn legs(&self, source: &Source<'_>) -> Vec<OutputPath> {
        let mut legs = Vec::new();
        for output in &source.session.outputs {
            let spelled = output.value.to_string();
            let mut outputs = source.state.outputs.iter();
            let Some(state) = outputs.find(|state| state.output == spelled) else {
                continue;
            };
            let before = legs.len();
            legs.extend(self.by_ovs(source, &output.value));
            legs.extend(self.by_nft(source, &output.value));
            if let Some(fault) = self.fault(source, state, legs.len() > before) {
                legs.truncate(before);
                let leg = leg(source, &output.value, source.path, Vec::new());
                legs.push(if self.is_held(&source.session.name, state) {
                    OutputPath {
                        in_force: Some(InForce::Unknown(fault)),
                        ..leg
                    }
                } else {
                    OutputPath {
                        fault: Some(fault),
                        ..leg
                    }
                });
            }
        }
        legs
    }

    /// Does what is mirrored to an output stay as it is, as nobody can tell where that is?
    pub(super) fn is_held(&self, session: &SessionName, output: &OutputState) -> bool {
        output.fault.is_some()
            && self
                .view
                .desired
                .held
                .holds(&OutputKey::new(session, &output.output))
    }

    /// Why nothing of it gets to an output.
    fn fault(&self, source: &Source<'_>, state: &OutputState, is_copied: bool) -> Option<String> {
        if let Some(fault) = state.not_here() {
            return Some(fault);
        }
        if let Some(other) = in_other_vlan(source.session, source.port) {
            return Some(other);
        }
        if is_copied {
            return None;
        }
        let own = |nic: Option<NicId>, port: &IfName| {
            nic == Some(source.nic) || *port == source.port.name || *port == source.port.bridge
        };
        let lack = state.lacks.iter().find(|lack| own(lack.nic, &lack.port));
        let why = lack.map_or("nothing is copied from it to there", |lack| &lack.why);
        Some(why.to_owned())
    }

    fn by_ovs(&self, source: &Source<'_>, output: &Output) -> Option<OutputPath> {
        let port = source.port;
        let takes =
            |wanted: &Wanted| wanted.config.all || wanted.config.ports.contains_key(&port.name);
        let (key, wanted) = self
            .wanted(source.session, output, Some(&port.bridge))
            .filter(|(_, wanted)| takes(wanted))?;
        let device = match &wanted.config.output {
            MirrorOutput::Port(name) => Some(name),
            MirrorOutput::Vlan(_) | MirrorOutput::None => None,
        };
        let why = why_ovs(source.session, output);
        Some(OutputPath {
            engine: Some(EngineKind::Ovs),
            why: Some(format!("{why}, {}", port.bridge)),
            at: Some(format!(
                "mirrored at its port {}{}",
                port.name,
                side_of_firewall(port, &port.name)
            )),
            in_force: Some(self.ovs_in_force(&key, &port.name)),
            ..leg(
                source,
                output,
                source.path,
                to_output(output, device, &port.bridge),
            )
        })
    }

    fn by_nft(&self, source: &Source<'_>, output: &Output) -> Option<OutputPath> {
        let key = OutputKey::new(&source.session.name, output);
        let copies = self.view.desired.copies.get(&key)?;
        let mut sources = copies.sources.iter();
        let (device, copied) = sources.find(|(_, copied)| copied.nic == Some(source.nic))?;
        let is_there = |hop: &Hop| hop.kind != HopKind::Bridge && hop.name == device.to_string();
        let upto = source.path.iter().position(is_there);
        let path = upto.map_or(source.path, |at| &source.path[..=at]);
        let end = to_output(output, Some(&copies.device), &source.port.bridge);
        Some(OutputPath {
            engine: Some(EngineKind::Nft),
            why: source.reason.nft.get(&key.output).cloned(),
            at: Some(format!(
                "copied at {device}{}: {}{}",
                side_of_firewall(source.port, device),
                hooks(copied),
                rest_of_whole(source)
            )),
            in_force: Some(self.nft_in_force(&key, device, copied)),
            ..leg(source, output, path, end)
        })
    }

    /// Which of a session's sources get to an output, VLANs apart.
    pub(super) fn reach<'s>(
        &self,
        state: &'s SessionState,
        output: &'s OutputState,
    ) -> impl Iterator<Item = &'s SourceState> {
        let ports: BTreeSet<&IfName> = output.lacks.iter().map(|lack| &lack.port).collect();
        let nics: BTreeSet<NicId> = output.lacks.iter().filter_map(|lack| lack.nic).collect();
        let reaches = move |source: &&SourceState| {
            !ports.contains(&source.port) && source.nic.is_none_or(|nic| !nics.contains(&nic))
        };
        state.present.iter().filter(reaches)
    }
}

/// Is a port's access VLAN none of those that the session takes?
pub(super) fn in_other_vlan(session: &Session, port: &Port) -> Option<String> {
    let vlans = &session.vlans;
    let other = |tag: &u16| !vlans.is_empty() && !vlans.contains(*tag);
    let tag = port.tag.filter(other)?;
    Some(format!(
        "it is in VLAN {tag}, and the session takes VLAN {vlans} only"
    ))
}

/// The way so far, the session, and the hops to its output if it gets there.
fn leg(source: &Source<'_>, output: &Output, path: &[Hop], end: Vec<Hop>) -> OutputPath {
    let mut path = path.to_vec();
    path.push(Hop::new(HopKind::Session, &source.session.name));
    path.extend(end);
    OutputPath {
        output: output.to_string(),
        path,
        engine: None,
        why: None,
        at: None,
        in_force: None,
        fault: None,
        frames: None,
    }
}

/// The last hops, where anything gets there.
pub(super) fn to_output(output: &Output, device: Option<&IfName>, bridge: &IfName) -> Vec<Hop> {
    match (output, device) {
        (Output::Nic(nic), Some(device)) => vec![
            Hop::new(HopKind::Device, device),
            Hop::new(HopKind::Nic, nic),
        ],
        (Output::Port(_), Some(_)) => vec![Hop::new(HopKind::Port, output)],
        (Output::Vlan(_), _) => vec![Hop {
            detail: Some(format!("RSPAN on {bridge}")),
            ..Hop::new(HopKind::Vlan, output)
        }],
        _ => Vec::new(),
    }
}

/// Which side of the firewall bridge a device is on, where there is one.
fn side_of_firewall(port: &Port, device: &IfName) -> &'static str {
    match port.nic.as_ref().map(|nic| nic.firewall_bridge.is_some()) {
        Some(true) if *device == port.name => ", on the bridge's side of the guest's firewall",
        Some(true) => ", on the guest's side of its firewall",
        _ => "",
    }
}

/// Of a whole bridge's port nftables takes one direction only.
fn rest_of_whole(source: &Source<'_>) -> String {
    match &source.reason.standing {
        Standing::Taken(word) if matches!(word.selector, Selector::Bridge(_)) => format!(
            "; {} is copied where it enters {}",
            DELIVERED, source.port.bridge
        ),
        _ => String::new(),
    }
}

/// What passes which hook.
fn hooks(copied: &CopySource) -> String {
    let words = copied.hooks().map(|(side, passing)| {
        let what = match passing {
            Passing::From => SENT,
            Passing::To => DELIVERED,
        };
        let side = match side {
            Side::Ingress => "ingress",
            Side::Egress => "egress",
        };
        format!("{what} on {side}")
    });
    words.collect::<Vec<_>>().join(", ")
}
