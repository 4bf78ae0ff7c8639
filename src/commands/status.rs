//! `pve-span status`: each session, whether it is whole, and why not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::context::asked_context;
use super::format::{Format, notice};
use super::rate::{Measured, Rate};
use crate::config::active::InForce;
use crate::daemon::state::State;
use crate::reconcile::Error;
use crate::reconcile::inputs::Detail;
use crate::reconcile::observe::{Look, look};
use crate::sys;
use crate::sys::clock::now;
use crate::sys::output;
use crate::sys::output::{Printer, Row};
use pve_span_core::engine::Statistics;
use pve_span_core::engine::nft::{NftState, names};
use pve_span_core::health::{Health, faults_and_notes, health, leftovers};
use pve_span_core::model::OutputKey;
use pve_span_core::model::SessionName;
use pve_span_core::state::{OutputState, OvsState, SessionState, SourceState};

fn painted(health: Health) -> output::Look {
    match health {
        Health::Active => output::Look::Good,
        Health::Degraded | Health::Stalled => output::Look::Bad,
        _ => output::Look::Plain,
    }
}

#[derive(Serialize)]
struct Report<'a> {
    notice: Option<&'a str>,
    /// Is it the file itself that is gone by?
    in_force: ConfigSource,
    sessions: Vec<Session<'a>>,
}

/// What is gone by.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum ConfigSource {
    /// span.cfg itself.
    File,
    /// The last good copy of it.
    LastGood,
    /// There is no span.cfg.
    Nothing,
}

#[derive(Serialize)]
struct Session<'a> {
    name: &'a SessionName,
    state: Health,
    /// Since when, in seconds since 1970, if the service runs and knows.
    since: Option<i64>,
    reasons: Vec<String>,
    sources: Sources<'a>,
    outputs: Vec<Output<'a>>,
    notes: Vec<&'a str>,
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
    /// Frames that its device had no room for since it is there.
    dropped: Option<u64>,
    /// Of what nftables copies; Open vSwitch tells new figures every few seconds only.
    rate: Option<Rate>,
}

/// Exit codes: 0 every session is healthy and span.cfg in force, 1 one is not, or the last good copy is in force, 2 cannot tell.
///
/// # Errors
/// Nothing can be told at all.
pub fn run(root: &Path, format: Format) -> Result<u8, Error> {
    let look = look(
        &asked_context(root, "status"),
        Detail::All,
        &BTreeSet::new(),
    )?;
    if let InForce::Unknown { why, .. } = &look.in_force {
        return Err(Error::NotInForce(why.clone()));
    }
    notice(&look);
    let silent = look.waits_for_ovs();
    if let Some(why) = silent {
        log::error!("{}", Error::Ovs(why.to_owned()));
    }
    let known = known(root);
    let counted = sys::counters().unwrap_or_default();
    let leftovers = leftovers(&look.desired, &look.plan);
    let measured = Measured::take(&look);
    let sessions: Vec<Session<'_>> = look
        .desired
        .sessions
        .iter()
        .chain(&leftovers)
        .map(|state| session(state, &look, measured.as_ref(), known.as_ref(), &counted))
        .collect();
    let waiting = &look.desired.waiting;
    let is_sick =
        |session: &Session<'_>| !session.state.is_healthy() && !waiting.contains(session.name);
    let is_any_sick = sessions.iter().any(is_sick);
    let in_force = match &look.in_force {
        InForce::File { .. } => ConfigSource::File,
        InForce::LastGood { .. } => ConfigSource::LastGood,
        InForce::NotConfigured { .. } | InForce::Unknown { .. } => ConfigSource::Nothing,
    };
    let mut out = Printer::new();
    if format == Format::Json {
        out.json(&Report {
            notice: look.in_force.notice(),
            in_force,
            sessions,
        });
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
    if let (Format::Text, ConfigSource::LastGood, Some(fallback)) =
        (format, in_force, look.in_force.fallback())
    {
        out.line(&format!("span.cfg is not in force: {fallback}"));
    }
    Ok(
        match (is_any_sick || in_force == ConfigSource::LastGood, silent) {
            (true, _) => 1,
            (false, Some(_)) => 2,
            (false, None) => 0,
        },
    )
}

/// What devices have counted, by interface index.
type Counters = BTreeMap<u32, sys::Counted>;

fn dropped(session: &SessionName, output: &str, look: &Look, counted: &Counters) -> Option<u64> {
    let key = OutputKey::new(session, output);
    let device = look.desired.device_of(&key)?;
    let link = look.observed.links.get(device)?;
    Some(counted.get(&link.index)?.send_dropped)
}

/// What the service knows; nothing without one. One that does no longer run is told of.
fn known(root: &Path) -> Option<State> {
    let state = State::load(root)?;
    if state.is_fresh(now()) {
        return Some(state);
    }
    let at = jiff::Timestamp::from_second(state.written).unwrap_or_default();
    log::warn!(
        "the service has not been heard of since {at}, so nobody follows what happens between hooks \
         (systemctl status pve-span)"
    );
    None
}

fn session<'a>(
    state: &'a SessionState,
    look: &'a Look,
    measured: Option<&Measured>,
    known: Option<&State>,
    counted: &Counters,
) -> Session<'a> {
    let (mut health, why) = health(state, &look.desired, &look.observed, &look.plan);
    let why = why.into_iter().chain(faults_and_notes(state));
    let mut reasons: Vec<String> = why.map(|reason| reason.text).collect();
    let record = known.and_then(|known| known.sessions.get(state.name.as_str()));
    if let Some(record) = record.filter(|record| record.health == Health::Stalled) {
        // That takes two looks, which only the service has had.
        if health == Health::Active {
            (health, reasons) = (Health::Stalled, record.reasons.clone());
        }
    }
    let since = record
        .filter(|record| record.health == health)
        .map(|record| record.since);
    if let Some(since) = since.filter(|_| !health.is_healthy()) {
        let at = jiff::Timestamp::from_second(since).unwrap_or_default();
        reasons.push(format!("{} since {at}", health.word()));
    }
    let remarks = look
        .plan
        .remarks
        .iter()
        .filter(|remark| remark.session == state.name);
    reasons.extend(remarks.map(|remark| format!("note: {}", remark.text)));
    let outputs: Vec<Output<'a>> = state.outputs.iter().map(|output| {
        let statistics = statistics(&state.name, &output.output, look);
        let dropped = dropped(&state.name, &output.output, look, counted);
        let is_down = state.down.iter().any(|down| down.port == output.output);
        if let Some(dropped) = dropped.filter(|dropped| *dropped > 0 && !is_down) {
            reasons.push(format!(
                "note: {} had no room for {dropped} frames since it was started: the sensor does not keep up, or its interface \
                 was down",
                output.output
            ));
        }
        Output {
            dropped,
            state: output,
            frames: statistics.map(|s| s.frames),
            bytes: statistics.map(|s| s.bytes),
            rate: measured.and_then(|measured| measured.rate(&state.name, &output.output)),
        }
    }).collect();
    Session {
        name: &state.name,
        state: health,
        since,
        reasons,
        sources: Sources {
            present: &state.present,
            total: state.total,
        },
        outputs,
        notes: state.all_notes().collect(),
    }
}

/// What the session's mirrors to an output have counted, over all bridges.
pub(super) fn statistics(session: &SessionName, output: &str, look: &Look) -> Option<Statistics> {
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
    let key = OutputKey::new(session, output);
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
        let elsewhere = output.state.elsewhere.as_ref();
        let elsewhere = elsewhere.map(|node| format!("on node {node}"));
        let engine = output
            .state
            .engine
            .as_ref()
            .map(ToString::to_string)
            .or(elsewhere);
        let engine = engine.unwrap_or_else(dash);
        cells.extend([
            output.state.output.clone(),
            engine,
            number(output.frames),
            number(output.bytes),
            output.rate.map_or_else(dash, |rate| rate.to_string()),
        ]);
        rows.push(Row {
            cells,
            look: painted(session.state),
            look_at: Some(1),
            notes: Vec::new(),
        });
    }
    if rows.is_empty() {
        let mut cells = head.to_vec();
        cells.extend([dash(), dash(), dash(), dash(), dash()]);
        rows.push(Row {
            cells,
            look: painted(session.state),
            look_at: Some(1),
            notes: Vec::new(),
        });
    }
    if let Some(last) = rows.last_mut() {
        last.notes.clone_from(&session.reasons);
    }
    rows
}
