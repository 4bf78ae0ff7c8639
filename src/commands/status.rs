//! `pve-span status`: each session, whether it is whole, and why not.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use super::rate::{Measured, Rate};
use super::{Format, context, faults, notice};
use crate::apply::Error;
use crate::core::copies::CopyKey;
use crate::core::model::SessionName;
use crate::core::nft::{NftState, names};
use crate::core::state::{
    Fault, OutputState, OvsState, SessionPhase, SessionState, SourceState, Statistics,
};
use crate::inforce::InForce;
use crate::look::{Detail, Look, look};
use crate::report::{self, Out, Row};

/// How a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    /// Frames of its sources reach its outputs.
    Active,
    /// None of its sources is here now.
    Idle,
    /// Something that should be mirrored is not.
    Degraded,
    /// Switched off in span.cfg.
    Disabled,
    /// Its time is over.
    Expired,
}

impl Health {
    fn is_healthy(self) -> bool {
        self != Self::Degraded
    }

    fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Degraded => "degraded",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
        }
    }

    fn look(self) -> report::Look {
        match self {
            Self::Active => report::Look::Good,
            Self::Degraded => report::Look::Bad,
            _ => report::Look::Plain,
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    notice: Option<&'a str>,
    sessions: Vec<Session<'a>>,
}

#[derive(Serialize)]
struct Session<'a> {
    name: &'a SessionName,
    state: Health,
    reasons: Vec<String>,
    sources: Sources<'a>,
    outputs: Vec<Output<'a>>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct Sources<'a> {
    present: &'a [SourceState],
    total: usize,
}

#[derive(Serialize)]
struct Output<'a> {
    #[serde(flatten)]
    state: &'a OutputState,
    frames: Option<u64>,
    bytes: Option<u64>,
    /// Of what nftables copies; Open vSwitch tells new figures every few seconds only.
    rate: Option<Rate>,
}

/// Exit codes: 0 every session is healthy, 1 one is not, 2 cannot tell.
///
/// # Errors
/// Nothing can be told at all.
pub fn run(root: &Path, format: Format) -> Result<u8, Error> {
    let look = look(&context(root, "status"), Detail::All, &BTreeSet::new())?;
    if let InForce::Unknown { why } = &look.in_force {
        return Err(Error::NotInForce(why.clone()));
    }
    if let (OvsState::Failed(why), true) = (&look.observed.ovs, look.needs_ovs()) {
        return Err(Error::Ovs(why.clone()));
    }
    notice(&look);
    let leftovers = leftovers(&look);
    let measured = Measured::take(&look);
    let sessions: Vec<Session<'_>> = look
        .desired
        .sessions
        .iter()
        .chain(&leftovers)
        .map(|state| session(state, &look, measured.as_ref()))
        .collect();
    let healthy = sessions.iter().all(|session| session.state.is_healthy());
    let mut out = Out::new();
    if format == Format::Json {
        out.json(&Report {
            notice: look.in_force.notice(),
            sessions,
        });
    } else if let InForce::NotConfigured { path } = &look.in_force {
        out.line(&format!("no sessions: there is no {}", path.display()));
    } else if sessions.is_empty() {
        out.line("no sessions");
    } else {
        let rows: Vec<Row> = sessions.iter().flat_map(rows).collect();
        out.table(
            &[
                "SESSION", "STATE", "SOURCES", "OUTPUT", "ENGINE", "FRAMES", "BYTES", "RATE",
            ],
            &rows,
        );
    }
    Ok(u8::from(!healthy))
}

fn session<'a>(
    state: &'a SessionState,
    look: &'a Look,
    measured: Option<&Measured>,
) -> Session<'a> {
    let (health, mut reasons) = health(state, look);
    reasons.extend(faults(state));
    let remarks = look
        .plan
        .remarks
        .iter()
        .filter(|remark| remark.session == state.name);
    reasons.extend(remarks.map(|remark| format!("note: {}", remark.text)));
    let outputs = state.outputs.iter().map(|output| {
        let statistics = statistics(&state.name, &output.output, look);
        Output {
            state: output,
            frames: statistics.map(|s| s.frames),
            bytes: statistics.map(|s| s.bytes),
            rate: measured.and_then(|measured| measured.rate(&state.name, &output.output)),
        }
    });
    Session {
        name: &state.name,
        state: health,
        reasons,
        sources: Sources {
            present: &state.present,
            total: state.total,
        },
        outputs: outputs.collect(),
        notes: &state.notes,
    }
}

/// What is said of a session that is over and whose mirrors are still there.
const STILL_MIRRORED: &str =
    "still mirrored, although span.cfg no longer asks for it: pve-span apply ends it";

fn is_pending(session: &SessionName, look: &Look) -> bool {
    let actions = &look.plan.actions;
    let outputs = look
        .plan
        .ports
        .iter()
        .filter_map(|change| look.desired.outputs.get(change.device()));
    actions
        .iter()
        .any(|action| action.mirror.session == *session)
        || outputs
            .flat_map(|output| &output.of)
            .any(|key| key.session == *session)
}

/// Sessions that span.cfg does not list any more, and that are still mirrored.
fn leftovers(look: &Look) -> Vec<SessionState> {
    let listed = |name: &SessionName| {
        look.desired
            .sessions
            .iter()
            .any(|state| state.name == *name)
    };
    let names = look
        .plan
        .sessions()
        .into_iter()
        .filter(|name| !listed(name));
    let leftover = |name: &SessionName| SessionState {
        name: name.clone(),
        phase: SessionPhase::Disabled,
        present: Vec::new(),
        unplugged: Vec::new(),
        total: 0,
        outputs: Vec::new(),
        notes: Vec::new(),
    };
    names.map(leftover).collect()
}

fn health(state: &SessionState, look: &Look) -> (Health, Vec<String>) {
    match &state.phase {
        SessionPhase::Disabled | SessionPhase::Expired if is_pending(&state.name, look) => {
            return (Health::Degraded, vec![STILL_MIRRORED.to_owned()]);
        }
        SessionPhase::Disabled => return (Health::Disabled, Vec::new()),
        SessionPhase::Expired => return (Health::Expired, Vec::new()),
        SessionPhase::Running => {}
    }
    let mut reasons = Vec::new();
    if is_pending(&state.name, look) {
        reasons.push("not in force yet: see pve-span plan, then pve-span apply".to_owned());
    }
    let problems = look
        .plan
        .problems
        .iter()
        .filter(|problem| problem.session == state.name);
    reasons.extend(problems.map(|problem| problem.text.clone()));
    let has_mirror = look
        .desired
        .mirrors
        .keys()
        .any(|key| key.session == state.name);
    if has_mirror && matches!(&look.observed.ovs, OvsState::Present(ovs) if !ovs.caught_up) {
        reasons.push("ovs-vswitchd has not acted on the latest changes; is it running? (systemctl status openvswitch-switch)".into());
    }
    let sources_here = !state.present.is_empty();
    let output_fault = state.outputs.iter().any(|output| match &output.fault {
        Some(Fault::Refused(_)) => true,
        Some(Fault::Absent(_)) => sources_here,
        None => false,
    });
    let source_fault =
        !state.unplugged.is_empty() || state.outputs.iter().any(|output| !output.lacks.is_empty());
    let undecided = state
        .notes
        .iter()
        .any(|note| note.starts_with("cannot tell"));
    if !reasons.is_empty() || output_fault || source_fault || undecided {
        (Health::Degraded, reasons)
    } else if sources_here {
        (Health::Active, reasons)
    } else {
        (Health::Idle, reasons)
    }
}

/// What the session's mirrors to an output have counted, over all bridges.
fn statistics(session: &SessionName, output: &str, look: &Look) -> Option<Statistics> {
    let mirrors = match &look.observed.ovs {
        OvsState::Present(ovs) => Some(ovs),
        _ => None,
    };
    let mirrors = mirrors
        .into_iter()
        .flat_map(|ovs| ovs.bridges.values())
        .flat_map(|bridge| bridge.mirrors.values());
    let own = mirrors.filter(|mirror| {
        mirror
            .mark
            .as_ref()
            .is_some_and(|mark| mark.session == *session && mark.output == output)
    });
    let key = CopyKey {
        session: session.clone(),
        output: output.to_owned(),
    };
    let copied = match &look.observed.nft {
        NftState::Present(seen) => seen.counters.get(&names::counter(&key)).copied(),
        NftState::Failed(_) => None,
    };
    own.filter_map(|mirror| mirror.statistics)
        .chain(copied)
        .reduce(|sum, one| Statistics {
            frames: sum.frames.saturating_add(one.frames),
            bytes: sum.bytes.saturating_add(one.bytes),
        })
}

fn rows(session: &Session<'_>) -> Vec<Row> {
    let dash = || "-".to_owned();
    let number = |number: Option<u64>| number.map_or_else(dash, |number| number.to_string());
    let sources = format!(
        "{}/{}",
        session.sources.present.len(),
        session.sources.total
    );
    let head = [
        session.name.to_string(),
        session.state.word().to_owned(),
        sources,
    ];
    let mut rows: Vec<Row> = Vec::new();
    for (place, output) in session.outputs.iter().enumerate() {
        let mut cells: Vec<String> = if place == 0 {
            head.to_vec()
        } else {
            vec![String::new(); 3]
        };
        let engine = output.state.engine.clone().unwrap_or_else(dash);
        cells.extend([
            output.state.output.clone(),
            engine,
            number(output.frames),
            number(output.bytes),
            output.rate.map_or_else(dash, |rate| rate.to_string()),
        ]);
        rows.push(Row {
            cells,
            look: session.state.look(),
            look_at: Some(1),
            notes: Vec::new(),
        });
    }
    if rows.is_empty() {
        let mut cells = head.to_vec();
        cells.extend([dash(), dash(), dash(), dash(), dash()]);
        rows.push(Row {
            cells,
            look: session.state.look(),
            look_at: Some(1),
            notes: Vec::new(),
        });
    }
    if let Some(last) = rows.last_mut() {
        last.notes.clone_from(&session.reasons);
    }
    rows
}
