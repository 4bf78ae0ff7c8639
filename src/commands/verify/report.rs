//! What `verify` prints: a table with a line for each source and direction, or JSON.

use serde::Serialize;

use super::capture::Outcome;
use crate::commands::format::Format;
use crate::config::active::InForce;
use crate::sys::output;
use crate::sys::output::{Printer, Row};
use pve_span_core::engine::nft::spec::Passing;
use pve_span_core::model::{IfName, SessionName};
use pve_span_core::verify::capture_points::{Group, Part};
use pve_span_core::verify::verdict::{Found, Verdict};

/// What was found of a session.
#[derive(Debug, Serialize)]
pub struct SessionReport {
    /// Its name.
    pub name: SessionName,
    /// Is it proven that it mirrors?
    pub verdict: Verdict,
    /// Is there nothing to prove, and nobody asked for it by name?
    pub skipped: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// By output.
    pub outputs: Vec<OutputReport>,
}

/// What was found of an output.
#[derive(Debug, Serialize)]
pub struct OutputReport {
    /// As span.cfg writes it.
    pub output: String,
    /// Where the copies were seen.
    pub device: IfName,
    /// One frame in so many.
    pub sample: u32,
    /// Frames that should have arrived.
    pub watched: u64,
    /// Those that did.
    pub arrived: u64,
    /// Those that did not; nobody can tell where only some are mirrored.
    pub missing: Option<u64>,
    /// Frames that arrived too often.
    pub doubled: u64,
    /// Frames that no source has sent or got.
    pub foreign: u64,
    /// Frames that are longer than the MTU.
    pub oversize: u64,
    /// Frames with a bad checksum.
    pub bad_checksum: u64,
    /// How long copies took.
    pub latency: Option<Latency>,
    /// By source and direction.
    pub sources: Vec<SourceReport>,
}

/// How long copies took, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Half of them at most so long.
    pub median_us: f64,
    /// None longer.
    pub max_us: f64,
}

/// What was found of a source and direction.
#[derive(Debug, Serialize)]
pub struct SourceReport {
    /// `101/net0`, a port or a bridge.
    pub source: String,
    /// `from`, `to`, or `all` of a bridge.
    pub direction: &'static str,
    /// Is it a bridge?
    #[serde(skip)]
    pub whole: bool,
    /// Frames that should have arrived.
    pub watched: u64,
    /// Those that did.
    pub arrived: u64,
    /// Marked frames that were sent to it.
    pub injected: u64,
    /// Why none were.
    pub not_injected: Option<String>,
    /// Frames that are mirrored where another source sends them.
    pub elsewhere: u64,
}

#[derive(Serialize)]
struct Report<'a> {
    notice: Option<&'a str>,
    /// For how long frames were judged.
    seconds: f64,
    sessions: &'a [SessionReport],
}

impl OutputReport {
    /// What was found of a part.
    pub fn of(group: &Group, part: &Part, found: &Found) -> Self {
        let all = found.tally.all;
        let sources = part.subjects.iter().enumerate().map(|(at, subject)| {
            let counts = found.tally.subjects.get(at).copied().unwrap_or_default();
            SourceReport {
                source: subject.name.clone(),
                direction: match (subject.whole, subject.passing) {
                    (true, _) => "all",
                    (false, Passing::From) => "from",
                    (false, Passing::To) => "to",
                },
                whole: subject.whole,
                watched: counts.watched,
                arrived: counts.arrived,
                injected: 0,
                not_injected: None,
                elsewhere: found.elsewhere.get(at).copied().unwrap_or(0),
            }
        });
        Self {
            output: part.key.output.clone(),
            device: group.sensor.spot.device.clone(),
            sample: part.sample,
            watched: all.watched,
            arrived: all.arrived,
            missing: (part.sample == 1).then_some(all.watched - all.arrived),
            doubled: found.tally.doubled,
            foreign: found.foreign,
            oversize: found.oversize,
            bad_checksum: found.bad_checksum,
            latency: Latency::of(&found.tally.latencies),
            sources: sources.collect(),
        }
    }
}

impl Latency {
    #[allow(clippy::cast_precision_loss)]
    fn of(ascending: &[u64]) -> Option<Self> {
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        Some(Self {
            median_us: micros(*ascending.get(ascending.len() / 2)?),
            max_us: micros(*ascending.last()?),
        })
    }
}

/// Prints it.
pub fn tell(sessions: &[SessionReport], outcome: &Outcome, in_force: &InForce, format: Format) {
    let mut out = Printer::new();
    if format == Format::Json {
        out.json(&Report {
            notice: in_force.notice(),
            seconds: outcome.judged.as_secs_f64(),
            sessions,
        });
    } else if sessions.is_empty() {
        out.line("no sessions");
    } else {
        let rows: Vec<Row> = sessions.iter().flat_map(rows).collect();
        out.table(&HEADINGS, &rows);
    }
}

const HEADINGS: [&str; 11] = [
    "SESSION", "VERDICT", "OUTPUT", "SOURCE", "WATCHED", "ARRIVED", "MISSING", "DOUBLED",
    "OVERSIZE", "BAD SUM", "LATENCY",
];

fn rows(session: &SessionReport) -> Vec<Row> {
    let dash = || "-".to_owned();
    let look = match session.verdict {
        Verdict::Proven => output::Look::Good,
        Verdict::Untested => output::Look::Plain,
        Verdict::Failed => output::Look::Bad,
    };
    let word = if session.skipped {
        "-"
    } else {
        session.verdict.word()
    };
    let verdict = (word, look);
    let row = |cells: Vec<String>, look| Row {
        cells,
        look,
        look_at: Some(1),
        notes: Vec::new(),
    };
    let mut rows = Vec::new();
    for output in &session.outputs {
        let mut cells = match rows.is_empty() {
            true => vec![session.name.to_string(), verdict.0.to_owned()],
            false => vec![String::new(); 2],
        };
        cells.extend([output.output.clone(), "all".to_owned()]);
        cells.extend([output.watched, output.arrived].map(|number| number.to_string()));
        cells.push(missing(output.missing));
        let numbers = [output.doubled, output.oversize, output.bad_checksum];
        cells.extend(numbers.map(|number| number.to_string()));
        cells.push(output.latency.map_or_else(dash, |latency| {
            format!(
                "{} (max {})",
                short(latency.median_us),
                short(latency.max_us)
            )
        }));
        rows.push(row(cells, verdict.1));
        for source in &output.sources {
            let mut cells = vec![String::new(); 3];
            let what = if source.whole {
                source.source.clone()
            } else {
                format!("{} {}", source.direction, source.source)
            };
            let lacks = output.missing.map(|_| source.watched - source.arrived);
            let (watched, arrived) = (source.watched.to_string(), source.arrived.to_string());
            cells.extend([what, watched, arrived, missing(lacks)]);
            cells.resize(HEADINGS.len(), String::new());
            rows.push(row(cells, output::Look::Plain));
        }
    }
    if rows.is_empty() {
        let mut cells = vec![session.name.to_string(), verdict.0.to_owned()];
        cells.resize_with(HEADINGS.len(), dash);
        rows.push(row(cells, verdict.1));
    }
    if let Some(last) = rows.last_mut() {
        last.notes = session.reasons.clone();
        last.notes.extend(notes(session));
    }
    rows
}

/// What is worth knowing, and keeps nothing from being proven.
fn notes(session: &SessionReport) -> Vec<String> {
    let mut notes = Vec::new();
    for output in &session.outputs {
        if output.sample > 1 {
            notes.push(format!(
                "note: one frame in {} goes to {}: nobody can tell which ones, so none counts as missing",
                output.sample, output.output
            ));
        }
        let injected: u64 = output.sources.iter().map(|source| source.injected).sum();
        if injected > 0 {
            notes.push(format!(
                "note: {injected} marked frames were sent, and count with the others"
            ));
        }
    }
    notes
}

/// Where only some are mirrored, nobody can tell.
fn missing(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

fn short(micros: f64) -> String {
    if micros < 1000.0 {
        format!("{micros:.0} µs")
    } else if micros < 1_000_000.0 {
        format!("{:.1} ms", micros / 1000.0)
    } else {
        format!("{:.1} s", micros / 1_000_000.0)
    }
}
