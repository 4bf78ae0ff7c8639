//! `pve-span check`: every fault of span.cfg at once, each where it stands.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::context::context;
use super::format::Format;
use crate::config::active;
use crate::config::active::InForce;
use crate::pve::{ClusterQueries, GuestsToRead, Pve, SPAN_CFG};
use crate::reconcile::observe::observe_for;
use crate::sys::clock::now;
use crate::sys::error::with_causes;
use crate::sys::files;
use crate::sys::output;
use crate::sys::output::Printer;
use pve_span_core::config;
use pve_span_core::config::Annotations;
use pve_span_core::config::diagnostic::{Diagnostic, Severity};
use pve_span_core::engine::nft::frames::{MAX_TABLE_RULES, TooLarge};
use pve_span_core::engine::nft::spec::Copies;
use pve_span_core::engine::nft::table::{Memory, table};
use pve_span_core::model::OutputKey;
use pve_span_core::model::SessionName;
use pve_span_core::pve::cluster::Cluster;
use pve_span_core::resolve::{node_checks, references, resolve};
use pve_span_core::state::{Assumptions, Desired, Observed};

#[derive(Serialize)]
struct Report<'a> {
    file: String,
    valid: bool,
    sessions: usize,
    diagnostics: &'a [Diagnostic],
    notice: Option<&'a str>,
}

/// Exit codes: 0 the file is valid, 1 it has faults, 2 it cannot be read.
pub fn run(root: &Path, file: Option<&Path>, format: Format) -> u8 {
    let pve = Pve::new(root);
    let default = pve.path(SPAN_CFG);
    let path = file.unwrap_or(&default);
    let text = match files::read_text(path) {
        Ok(text) => text,
        Err(error) => {
            let text = with_causes(&error);
            if format == Format::Json {
                Printer::new().json(&serde_json::json!({"error": text}));
            }
            log::error!("{text}");
            if matches!(error, files::Error::NotText { .. }) {
                return 1;
            }
            let missing = error.is_missing();
            if missing && file.is_none() && !pve.is_mounted() {
                log::error!("{}", pve.not_mounted());
            }
            say_in_force(root);
            return 2;
        }
    };
    let name = path.display().to_string();
    let CheckResult {
        annotations,
        warnings: config_warnings,
    } = examine(root, &name, &text);
    let in_force = if file.is_none() {
        Some(active::load(root))
    } else {
        None
    };
    let notice = in_force.as_ref().and_then(InForce::notice);
    let diagnostics = &annotations.diagnostics;
    let worst = diagnostics
        .iter()
        .map(|diagnostic| diagnostic.severity)
        .min();
    config_warnings
        .iter()
        .for_each(|warning| log::warn!("{warning}"));
    let mut out = Printer::new();
    if format == Format::Json {
        let (valid, sessions) = (annotations.is_valid(), annotations.sessions.len());
        out.json(&Report {
            file: name,
            valid,
            sessions,
            diagnostics,
            notice,
        });
    } else {
        tell(&mut out, &name, &annotations);
        if let Some(in_force) = in_force.as_ref().filter(|_| notice.is_some()) {
            output::note(std::io::stdout().flush());
            let said = if annotations.is_valid() {
                in_force.notice()
            } else {
                in_force.fallback()
            };
            log::warn!("{}", said.unwrap_or_default());
        }
    }
    // A file that is cut off may look valid.
    u8::from(notice.is_some() || worst.is_some_and(|worst| worst < Severity::Warning))
}

/// What is said of a text, whether it is span.cfg already or not.
pub(super) struct CheckResult {
    /// What it means, and every fault.
    pub annotations: Annotations,
    /// Lines of guests' configs that were kept opaque.
    pub warnings: Vec<String>,
}

/// Reads a text as span.cfg, and looks up what it names.
pub(super) fn examine(root: &Path, name: &str, text: &str) -> CheckResult {
    let pve = Pve::new(root);
    let mut annotations = config::parse(name, text);
    let mut warnings = Vec::new();
    if pve.is_mounted() {
        let cluster = pve.cluster(
            ClusterQueries::ALL,
            &GuestsToRead::AllAnd(BTreeSet::new()),
            None,
        );
        annotations
            .diagnostics
            .extend(references::check(name, &annotations, &cluster));
        let found = suitable(root, name, &annotations, &cluster);
        annotations.diagnostics.extend(found);
        warnings = cluster.warnings;
    }
    let diagnostics = &mut annotations.diagnostics;
    for session in annotations
        .sessions
        .values()
        .filter(|session| session.has_expired(now()))
    {
        diagnostics.push(Diagnostic {
            file: name.to_owned(),
            place: session.keys.get("expires").cloned(),
            severity: Severity::Warning,
            message: format!("session {} has expired", session.name),
            hint: Some("move `expires`, or delete the session".into()),
        });
    }
    diagnostics.sort_by(|a, b| a.place.cmp(&b.place));
    CheckResult {
        annotations,
        warnings,
    }
}

/// What becomes of sources and outputs on this node and in the cluster. Where the node's devices cannot be looked at, by
/// guests' configs alone.
fn suitable(
    root: &Path,
    name: &str,
    annotations: &Annotations,
    cluster: &Cluster,
) -> Vec<Diagnostic> {
    let observed = observe_for(&context(root, "check"), annotations).unwrap_or_else(|error| {
        log::warn!("ports are not checked: {}", with_causes(&error));
        Observed::default()
    });
    let assume = Assumptions {
        now: now(),
        ..Assumptions::default()
    };
    let desired = resolve(annotations, cluster, &observed, &assume);
    let seen = (cluster, &observed, &desired);
    let mut found = node_checks::check(name, annotations, seen, &assume);
    found.extend(no_room(name, annotations, &desired));
    found
}

/// The sessions that this node's nftables table has no room for, as its guests run now.
fn no_room(name: &str, annotations: &Annotations, desired: &Desired) -> Option<Diagnostic> {
    let is_idle = |_: &OutputKey, copies: &Copies| copies.sources.is_empty();
    let table = table(desired.nft(), &Memory::default(), is_idle);
    let beyond = table.too_large.iter();
    let beyond = beyond.filter(|(_, why)| *why == TooLarge::Table);
    let beyond: BTreeSet<&SessionName> = beyond.map(|(key, _)| &key.session).collect();
    let first = *beyond.first()?;
    let count = match beyond.len() {
        1 => "1 session is".to_owned(),
        many => format!("{many} sessions are"),
    };
    Some(Diagnostic {
        file: name.to_owned(),
        place: annotations
            .sessions
            .get(first)
            .map(|session| session.place.clone()),
        severity: Severity::Warning,
        message: format!(
            "{count} not copied on this node, in the order of names from {first} on: its nftables table may need {MAX_TABLE_RULES} rules"
        ),
        hint: Some("join sessions, shorten filters, or name fewer sources".into()),
    })
}

/// Every fault for people, and a line that sums them up.
pub(super) fn tell(out: &mut Printer, name: &str, annotations: &Annotations) {
    let diagnostics = &annotations.diagnostics;
    diagnostics
        .iter()
        .for_each(|diagnostic| out.line(&format!("{diagnostic}\n")));
    out.line(&summary(name, annotations.sessions.len(), diagnostics));
}

fn say_in_force(root: &Path) {
    if let Some(notice) = active::load(root).notice() {
        log::warn!("{notice}");
    }
}

fn summary(name: &str, sessions: usize, diagnostics: &[Diagnostic]) -> String {
    let count = |severity| {
        diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == severity)
            .count()
    };
    let plural =
        |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let (errors, unsupported, warnings) = (
        count(Severity::Error),
        count(Severity::Unsupported),
        count(Severity::Warning),
    );
    let mut parts = Vec::new();
    if errors > 0 {
        parts.push(plural(errors, "error"));
    }
    if unsupported > 0 {
        parts.push(format!("{unsupported} not supported"));
    }
    if warnings > 0 {
        parts.push(plural(warnings, "warning"));
    }
    if errors > 0 {
        format!("{name} is not valid: {}", parts.join(", "))
    } else if parts.is_empty() {
        format!("{name} is valid: {}", plural(sessions, "session"))
    } else {
        format!(
            "{name} is valid: {}; {}",
            plural(sessions, "session"),
            parts.join(", ")
        )
    }
}
