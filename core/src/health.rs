//! How a session does: whether what should be mirrored is, and why not.
//!
//! What is told here follows from one look. That a mirror counts nothing although its sources move frames takes two,
//! and is the service's to tell ([`Health::Stalled`]).

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::model::{IfName, NicId, SessionName};
use super::plan::{Plan, PortChange, ProblemKind};
use super::state::{Desired, Fault, LinkState, Observed, OvsState, SessionPhase, SessionState};

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

/// How to find out what is pending, and to have it done.
pub const REMEDY: &str = "see pve-span plan, then pve-span apply";

/// What is said when ovs-vswitchd has not acted on a commit in time.
pub const NOT_ACTED: &str = "committed to Open vSwitch's database, but ovs-vswitchd has not acted on it yet; \
    is it running? (systemctl status openvswitch-switch)";

/// That mirrors are not as they shall be, and a reconcile would make them so.
pub fn not_in_force() -> String {
    format!("not in force yet: {REMEDY}")
}

/// That conversations which began before a change of mirrors do not follow it.
pub fn old_flows(bridge: &IfName) -> String {
    format!(
        "what was changed holds for new conversations only: those that pass {bridge} already go on as before until the next \
         hook or `pve-span apply`"
    )
}

/// Why a session is not whole, or what should be known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Which one it is.
    pub id: ReasonId,
    /// In words.
    pub text: String,
}

/// Which reason it is. The same one has the same id later, whatever its text tells of causes and of how long something was
/// waited for. Outputs are named as span.cfg writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReasonId {
    /// The session is over, and its mirrors are still there.
    StillMirrored,
    /// Its mirrors are not as they shall be.
    Pending,
    /// Something of it cannot be done.
    Problem(ProblemKind),
    /// ovs-vswitchd has not acted on what was committed.
    NotActed,
    /// Flows of this bridge are older than its mirrors.
    OldFlows(IfName),
    /// Open vSwitch, which does not answer, has a part of it.
    WaitsForOvs,
    /// This output is not there now.
    Absent(String),
    /// This output is refused.
    Refused(String),
    /// Nobody can tell where this output is, or whether it is free.
    OutputUnknown(String),
    /// A source does not get to this output.
    Lack(String, Option<NicId>, IfName),
    /// All of its outputs are on other nodes.
    Nowhere,
    /// This source is in no bridge.
    Unplugged(NicId),
    /// Nothing passes this source or output.
    Down(String, LinkState),
    /// Something else of it cannot be told.
    Unknown,
    /// What an administrator should know, and no fault.
    Note,
}

impl Reason {
    fn new(id: ReasonId, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { id, text }
    }

    /// Is it certain that something is wrong?
    pub fn is_certain(&self) -> bool {
        !matches!(self.id, ReasonId::OutputUnknown(_) | ReasonId::Unknown)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How a session does, by one look, and what of it is not told by [`faults`].
pub fn health(
    state: &SessionState,
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
) -> (Health, Vec<Reason>) {
    let pending = is_pending(&state.name, desired, plan);
    let problems = plan.problems.iter();
    let problems = problems.filter(|problem| problem.session == state.name);
    let problems: Vec<Reason> = problems
        .map(|problem| Reason::new(ReasonId::Problem(problem.kind), &problem.text))
        .collect();
    match &state.phase {
        SessionPhase::Disabled | SessionPhase::Expired if pending => {
            let text =
                "still mirrored, although span.cfg no longer asks for it: pve-span apply ends it";
            let reason = Reason::new(ReasonId::StillMirrored, text);
            return (Health::Degraded, vec![reason]);
        }
        SessionPhase::Disabled | SessionPhase::Expired if !problems.is_empty() => {
            return (Health::Degraded, problems);
        }
        SessionPhase::Disabled => return (Health::Disabled, Vec::new()),
        SessionPhase::Expired => return (Health::Expired, Vec::new()),
        SessionPhase::Running => {}
    }
    let mut reasons = Vec::new();
    if pending {
        reasons.push(Reason::new(ReasonId::Pending, not_in_force()));
    }
    reasons.extend(problems);
    let has_mirror = desired
        .mirrors
        .keys()
        .any(|key| key.of.session == state.name);
    if has_mirror && matches!(&observed.ovs, OvsState::Present(ovs) if !ovs.caught_up) {
        reasons.push(Reason::new(ReasonId::NotActed, NOT_ACTED));
    }
    let stale = desired
        .mirrors
        .keys()
        .filter(|key| key.of.session == state.name);
    let stale = stale.filter_map(|key| key.engine.bridge());
    let stale = stale.filter(|bridge| observed.stale.contains(*bridge));
    let stale = stale.collect::<BTreeSet<_>>().into_iter();
    reasons.extend(
        stale.map(|bridge| Reason::new(ReasonId::OldFlows(bridge.clone()), old_flows(bridge))),
    );
    if desired.waiting.contains(&state.name) {
        let text = "Open vSwitch does not answer: what is on its bridges waits for it, and existing mirrors are kept";
        reasons.push(Reason::new(ReasonId::WaitsForOvs, text));
    }
    let sources_here = !state.present.is_empty();
    let is_fault = |fault: &Reason| match fault.id {
        ReasonId::Absent(_) | ReasonId::OutputUnknown(_) => sources_here,
        _ => true,
    };
    if !reasons.is_empty() || faults(state).iter().any(is_fault) {
        (Health::Degraded, reasons)
    } else if sources_here {
        (Health::Active, reasons)
    } else {
        (Health::Idle, reasons)
    }
}

/// What keeps a session from being whole, and then its notes.
pub fn faults_and_notes(state: &SessionState) -> Vec<Reason> {
    let mut reasons = faults(state);
    let note = |note| Reason::new(ReasonId::Note, format!("note: {note}"));
    reasons.extend(state.all_notes().map(note));
    reasons
}

/// What keeps a session from being whole.
pub fn faults(state: &SessionState) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut add = |id, text| reasons.push(Reason { id, text });
    for output in &state.outputs {
        let name = || output.output.clone();
        let fault = output.fault.as_ref().map(|fault| match fault {
            Fault::Absent(why) => (ReasonId::Absent(name()), "nothing is mirrored to", why),
            Fault::Refused(why) => (ReasonId::Refused(name()), "nothing is mirrored to", why),
            Fault::Unknown(why) => (
                ReasonId::OutputUnknown(name()),
                "nothing new is mirrored to",
                why,
            ),
        });
        if let Some((id, what, why)) = fault {
            add(id, format!("{what} {}: {why}", name()));
        }
        for lack in &output.lacks {
            add(
                ReasonId::Lack(name(), lack.nic, lack.port.clone()),
                format!("{lack} is not mirrored to {}: {}", name(), lack.why),
            );
        }
    }
    if let Some(why) = state.nowhere() {
        add(ReasonId::Nowhere, why);
    }
    for source in &state.unplugged {
        add(
            ReasonId::Unplugged(source.nic),
            format!("{} is not mirrored: {}", source.nic, source.why),
        );
    }
    for down in &state.down {
        add(
            ReasonId::Down(down.port.clone(), down.state),
            down.to_string(),
        );
    }
    for unknown in &state.unknown {
        add(ReasonId::Unknown, unknown.clone());
    }
    reasons
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
    let problems = plan.problems.iter().map(|problem| &problem.session);
    let names: BTreeSet<&SessionName> = plan.sessions().into_iter().chain(problems).collect();
    let names = names.into_iter().filter(|name| !listed(name));
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
