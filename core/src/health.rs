//! How a session does: whether what should be mirrored is, and why not.
//!
//! What is told here follows from one look. That a mirror counts nothing although its sources move frames takes two,
//! and is the service's to tell ([`Health::Stalled`]).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::model::SessionName;
use super::plan::{Plan, PortChange};
use super::state::{Desired, Fault, Observed, OutputState, OvsState, SessionPhase, SessionState};

/// How a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Frames of its sources reach its outputs.
    Active,
    /// None of its sources is here now.
    Idle,
    /// Something that should be mirrored is not.
    Degraded,
    /// Everything is set up, its sources move frames, and none is mirrored.
    Stalled,
    /// Switched off in span.cfg.
    Disabled,
    /// Its time is over.
    Expired,
}

impl Health {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Active,
        Self::Idle,
        Self::Degraded,
        Self::Stalled,
        Self::Disabled,
        Self::Expired,
    ];

    /// Is it as span.cfg wants it?
    pub fn is_healthy(self) -> bool {
        !matches!(self, Self::Degraded | Self::Stalled)
    }

    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Degraded => "degraded",
            Self::Stalled => "stalled",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
        }
    }
}

/// What is said of a session that is over and whose mirrors are still there.
const STILL_MIRRORED: &str =
    "still mirrored, although span.cfg no longer asks for it: pve-span apply ends it";

/// What is said of a session of which only Open vSwitch could tell a part.
const WAITS_FOR_OVS: &str = "Open vSwitch does not answer: what is on its bridges waits for it, and existing mirrors are kept";

/// How a session does, by one look, and what of it is not told by [`faults`].
pub fn health(
    state: &SessionState,
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
) -> (Health, Vec<String>) {
    let pending = is_pending(&state.name, desired, plan);
    match &state.phase {
        SessionPhase::Disabled | SessionPhase::Expired if pending => {
            return (Health::Degraded, vec![STILL_MIRRORED.to_owned()]);
        }
        SessionPhase::Disabled => return (Health::Disabled, Vec::new()),
        SessionPhase::Expired => return (Health::Expired, Vec::new()),
        SessionPhase::Running => {}
    }
    let mut reasons = Vec::new();
    if pending {
        reasons.push("not in force yet: see pve-span plan, then pve-span apply".to_owned());
    }
    let problems = plan
        .problems
        .iter()
        .filter(|problem| problem.session == state.name);
    reasons.extend(problems.map(|problem| problem.text.clone()));
    let has_mirror = desired
        .mirrors
        .keys()
        .any(|key| key.of.session == state.name);
    if has_mirror && matches!(&observed.ovs, OvsState::Present(ovs) if !ovs.caught_up) {
        reasons.push("ovs-vswitchd has not acted on the latest changes; is it running? (systemctl status openvswitch-switch)".into());
    }
    let stale = desired
        .mirrors
        .keys()
        .filter(|key| key.of.session == state.name);
    let stale = stale.filter_map(|key| key.engine.bridge());
    let stale = stale.filter(|bridge| observed.stale.contains(*bridge));
    reasons.extend(stale.collect::<BTreeSet<_>>().into_iter().map(|bridge| {
        format!("conversations that pass {bridge} already go on as before the last change: pve-span apply")
    }));
    if desired.waiting.contains(&state.name) {
        reasons.push(WAITS_FOR_OVS.to_owned());
    }
    let sources_here = !state.present.is_empty();
    let output_fault = state.outputs.iter().any(|output| match &output.fault {
        Some(Fault::Refused(_)) => true,
        Some(Fault::Absent(_) | Fault::Unknown(_)) => sources_here,
        None => false,
    });
    let source_fault = state.nowhere().is_some()
        || !state.unplugged.is_empty()
        || !state.down.is_empty()
        || state.outputs.iter().any(|output| !output.lacks.is_empty());
    if !reasons.is_empty() || output_fault || source_fault || !state.unknown.is_empty() {
        (Health::Degraded, reasons)
    } else if sources_here {
        (Health::Active, reasons)
    } else {
        (Health::Idle, reasons)
    }
}

/// What keeps a session from being whole, and then its notes.
pub fn faults_and_notes(state: &SessionState) -> Vec<String> {
    let mut lines = faults(state);
    lines.extend(state.all_notes().map(|note| format!("note: {note}")));
    lines
}

/// Is it certain that something is wrong?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// It is.
    Known,
    /// Nobody can tell.
    Unknown,
}

/// What keeps a session from being whole.
pub fn faults(state: &SessionState) -> Vec<String> {
    let faults = faults_by_certainty(state).into_iter();
    faults.map(|(_, text)| text).collect()
}

/// The same, and whether each is certain.
pub fn faults_by_certainty(state: &SessionState) -> Vec<(Certainty, String)> {
    let of_output = |output: &OutputState| match output.fault {
        Some(Fault::Unknown(_)) => Certainty::Unknown,
        _ => Certainty::Known,
    };
    let outputs = state.outputs.iter().flat_map(|output| {
        let certainty = of_output(output);
        output.faults().map(move |text| (certainty, text))
    });
    let unplugged = state
        .unplugged
        .iter()
        .map(|source| format!("{} is not mirrored: {}", source.nic, source.why));
    let known = state
        .nowhere()
        .into_iter()
        .chain(unplugged)
        .chain(state.down.iter().map(ToString::to_string));
    let unknown = state.unknown.iter().cloned();
    outputs
        .chain(known.map(|text| (Certainty::Known, text)))
        .chain(unknown.map(|text| (Certainty::Unknown, text)))
        .collect()
}

fn is_pending(session: &SessionName, desired: &Desired, plan: &Plan) -> bool {
    let devices = || plan.ports.iter().map(PortChange::device);
    let outputs = devices().filter_map(|device| desired.outputs.get(device));
    let mut sources = devices().filter_map(|device| desired.listening.get(device));
    plan.actions
        .iter()
        .any(|action| action.mirror.of.session == *session)
        || outputs
            .flat_map(|output| &output.of)
            .any(|key| key.session == *session)
        || sources.any(|source| source.of.contains(session))
}

/// Sessions that span.cfg does not list any more, and that are still mirrored.
pub fn leftovers(desired: &Desired, plan: &Plan) -> Vec<SessionState> {
    let listed = |name: &SessionName| desired.sessions.iter().any(|state| state.name == *name);
    let names = plan.sessions().into_iter().filter(|name| !listed(name));
    let leftover = |name: &SessionName| SessionState {
        name: name.clone(),
        phase: SessionPhase::Disabled,
        present: Vec::new(),
        unplugged: Vec::new(),
        down: Vec::new(),
        total: 0,
        has_no_source: false,
        left_out: BTreeSet::new(),
        outputs: Vec::new(),
        unknown: Vec::new(),
        notes: Vec::new(),
    };
    names.map(leftover).collect()
}
