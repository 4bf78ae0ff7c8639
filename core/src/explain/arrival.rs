//! What arrives at a sensor's NIC: from which sessions, and of which sources.

use serde::Serialize;

use super::delivery::{in_other_vlan, to_output};
use super::effective::InForce;
use super::index::ExplainContext;
use super::path::{Hop, HopKind};
use crate::config::Session;
use crate::config::selector::Output;
use crate::engine::Engine;
use crate::model::OutputKey;
use crate::model::{NicId, SessionName, excerpt};
use crate::state::{MirrorKey, NO_SOURCE, OutputState, SessionState, SourceState};

/// What a session sends to a NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Arrival {
    /// The session.
    pub session: SessionName,
    /// Whose frames arrive.
    pub sources: Vec<String>,
    /// From the session to the NIC.
    pub path: Vec<Hop>,
    /// The engines, and why.
    pub engine: Option<String>,
    /// Is it so now?
    pub in_force: Option<InForce>,
    /// Why nothing arrives.
    pub fault: Option<String>,
    /// Sources that are here and do not arrive, and why.
    pub lacks: Vec<String>,
    /// What an administrator may not expect of what arrives.
    pub notes: Vec<String>,
    /// What was copied so far; nothing if nobody counts.
    pub frames: Option<u64>,
}

impl ExplainContext<'_> {
    pub(super) fn arrivals(&self, nic: NicId) -> Vec<Arrival> {
        let spelled = nic.to_string();
        let of = |state: &SessionState| {
            let output = state.outputs.iter().find(|output| output.output == spelled);
            let annotations = &self.view.annotations.sessions;
            let session = annotations.get(&state.name)?;
            let mut outputs = session.outputs.iter();
            outputs.find(|output| output.value == Output::Nic(nic))?;
            Some(self.arrival(nic, session, state, output))
        };
        self.view.desired.sessions.iter().filter_map(of).collect()
    }

    fn arrival(
        &self,
        nic: NicId,
        session: &Session,
        state: &SessionState,
        output: Option<&OutputState>,
    ) -> Arrival {
        let mut arrival = Arrival {
            session: state.name.clone(),
            sources: Vec::new(),
            path: vec![Hop::new(HopKind::Session, &state.name)],
            engine: None,
            in_force: None,
            fault: None,
            lacks: Vec::new(),
            notes: Vec::new(),
            frames: None,
        };
        let fault = output.and_then(OutputState::not_here);
        arrival.fault = state.phase.over().map(str::to_owned).or(fault);
        if output.is_some_and(|output| self.is_held(&state.name, output)) {
            arrival.in_force = arrival.fault.take().map(InForce::Unknown);
            return arrival;
        }
        let Some(output) = output.filter(|_| arrival.fault.is_none()) else {
            return arrival;
        };
        let lacks = output.lacks.iter();
        arrival.lacks = lacks.map(|lack| format!("{lack}: {}", lack.why)).collect();
        let mut reach: Vec<&SourceState> = self.reach(state, output).collect();
        reach.sort_by_key(|source| (source.nic.is_none(), source.nic, &source.port));
        for source in reach {
            let name = self.source_name(source);
            let port = self.map.ports.get(&source.port);
            match port.and_then(|port| in_other_vlan(session, port)) {
                Some(other) => arrival.lacks.push(format!("{name}: {other}")),
                None => arrival.sources.push(name),
            }
        }
        if arrival.sources.is_empty() {
            let nothing = if arrival.lacks.is_empty() {
                NO_SOURCE
            } else {
                "none of its sources gets there"
            };
            arrival.fault = Some(nothing.to_owned());
            return arrival;
        }
        if let Some(port) = self.map.of_nic(nic) {
            let device = port.nic.as_ref().and_then(|nic| nic.device.as_ref());
            let device = device.unwrap_or(&port.name);
            let hops = to_output(&Output::Nic(nic), Some(device), &port.bridge);
            arrival.path.extend(hops);
        }
        arrival.engine = output.engine.as_ref().map(ToString::to_string);
        arrival.notes.clone_from(&output.notes);
        arrival.in_force = Some(self.arrival_in_force(state, output));
        arrival
    }

    /// All that a session mirrors to an output, whichever engine does it.
    fn arrival_in_force(&self, state: &SessionState, output: &OutputState) -> InForce {
        let mirrors = self.map.bridges.keys().filter_map(|bridge| {
            let key = MirrorKey {
                engine: Engine::Ovs(bridge.clone()),
                of: OutputKey::new(&state.name, &output.output),
            };
            let wanted = self.view.desired.mirrors.get(&key)?;
            Some((key, wanted))
        });
        let ovs = mirrors.flat_map(|(key, wanted)| {
            let all = key
                .engine
                .bridge()
                .into_iter()
                .filter(|_| wanted.config.all);
            let ports = wanted.config.ports.keys().chain(all);
            ports
                .map(|port| self.ovs_in_force(&key, port))
                .collect::<Vec<_>>()
        });
        let key = OutputKey::new(&state.name, &output.output);
        let copies = self.view.desired.copies.get(&key);
        let sources = copies.into_iter().flat_map(|copies| &copies.sources);
        let nft = sources.map(|(device, copied)| self.nft_in_force(&key, device, copied));
        let mut not_all = ovs.chain(nft).filter(|in_force| *in_force != InForce::Yes);
        not_all.next().unwrap_or(InForce::Yes)
    }

    fn source_name(&self, source: &SourceState) -> String {
        match source.nic {
            Some(nic) => {
                let guest = self.view.cluster.guest(nic.vmid);
                let name = guest.and_then(|guest| guest.name.as_deref());
                name.map_or_else(
                    || nic.to_string(),
                    |name| format!("{nic} ({})", excerpt(name)),
                )
            }
            None if source.port == source.bridge
                && self.map.bridges.contains_key(&source.bridge) =>
            {
                format!("everything on {}", source.bridge)
            }
            None => format!("port:{}", source.port),
        }
    }
}
