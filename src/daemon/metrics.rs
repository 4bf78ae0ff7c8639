//! What the service knows, as Prometheus reads it: its text format, version 0.0.4
//! (prometheus.io, "Exposition formats" and "Metric and label naming").
//!
//! Text only: nothing here looks at the node. docs/metrics.md tells what each metric means.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::state::{OutputRecord, SessionRecord, State};
use pve_span_core::health::Health;

/// How the text is announced over HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics.
pub fn text(state: &State) -> String {
    let mut text = Text::default();
    text.up(1);
    about_the_service(&mut text, state);
    about_sessions(&mut text, state);
    about_outputs(&mut text, state);
    text.0
}

/// What takes their place in the file when the service is stopped: values that nobody keeps would pass for news.
pub fn stopped() -> String {
    let mut text = Text::default();
    text.up(0);
    text.0
}

fn about_the_service(text: &mut Text, state: &State) {
    text.family(
        "pve_span_build_info",
        "gauge",
        "The version of pve-span that runs; always 1.",
    );
    text.sample(&[("version", &state.version)], 1);
    text.single(
        "pve_span_start_time_seconds",
        "gauge",
        "When the service was started, in seconds since 1970.",
        Some(state.started),
    );
    text.single(
        "pve_span_config_in_force",
        "gauge",
        "Whether /etc/pve/span.cfg itself is gone by (1), or what was known before because it cannot be used (0).",
        Some(u8::from(state.notice.is_none())),
    );
    text.single(
        "pve_span_reconciles_total",
        "counter",
        "Reconciles by the service.",
        Some(state.totals.reconciles),
    );
    text.single(
        "pve_span_reconcile_failures_total",
        "counter",
        "Reconciles by the service that failed or left something undone.",
        Some(state.totals.failures),
    );
    text.single(
        "pve_span_last_successful_reconcile_timestamp_seconds",
        "gauge",
        "When the last reconcile ended well, in seconds since 1970.",
        state.totals.last_reconcile,
    );
    text.single(
        "pve_span_last_change_timestamp_seconds",
        "gauge",
        "When the last reconcile ended that changed anything, in seconds since 1970.",
        state.totals.last_change,
    );
}

fn about_sessions(text: &mut Text, state: &State) {
    text.family(
        "pve_span_sessions",
        "gauge",
        "Sessions, by how they do on this node.",
    );
    for health in Health::ALL {
        let sessions = state.sessions.values();
        let count = sessions.filter(|session| session.health == health).count();
        text.sample(&[("state", health.word())], count);
    }
    text.family(
        "pve_span_session_state",
        "gauge",
        "How the session does: 1 for the state that it is in, 0 for the others.",
    );
    for (name, session) in &state.sessions {
        for health in Health::ALL {
            text.sample(
                &[("session", name), ("state", health.word())],
                u8::from(session.health == health),
            );
        }
    }
    text.by_session(
        state,
        "pve_span_session_sources",
        "gauge",
        "Sources of the session that are here.",
        |session| Some(session.present),
    );
    text.by_session(
        state,
        "pve_span_session_sources_configured",
        "gauge",
        "Sources that the session would have here if all guests of this node ran.",
        |session| Some(session.configured),
    );
    text.by_session(
        state,
        "pve_span_session_blind_seconds_total",
        "counter",
        "For how long frames that should have been mirrored were not, as far as the service can tell.",
        |session| session.blind.is_finite().then_some(session.blind.max(0.0)),
    );
}

fn about_outputs(text: &mut Text, state: &State) {
    text.by_output(
        state,
        "pve_span_mirrored_frames_total",
        "Frames mirrored to the output, where an engine counts them.",
        |output| output.frames,
    );
    text.by_output(
        state,
        "pve_span_mirrored_bytes_total",
        "Bytes mirrored to the output, where an engine counts them.",
        |output| output.bytes,
    );
    text.family(
        "pve_span_output_info",
        "gauge",
        "The device that the output's frames leave through; always 1.",
    );
    // A device may be the output of several sessions, and has one count.
    let mut dropped: BTreeMap<&str, u64> = BTreeMap::new();
    for (session, name, output) in outputs(state) {
        let Some(device) = output.device.as_deref() else {
            continue;
        };
        text.sample(
            &[("session", session), ("output", name), ("device", device)],
            1,
        );
        if let Some(count) = output.dropped {
            let most = dropped.entry(device).or_default();
            *most = count.max(*most);
        }
    }
    text.family(
        "pve_span_output_dropped_frames_total",
        "counter",
        "Frames that an output's device had no room for, mirrored ones or others.",
    );
    for (device, count) in dropped {
        text.sample(&[("device", device)], count);
    }
}

fn outputs(state: &State) -> impl Iterator<Item = (&str, &str, &OutputRecord)> {
    state.sessions.iter().flat_map(|(session, record)| {
        let outputs = record.outputs.iter();
        outputs.map(move |(name, output)| (session.as_str(), name.as_str(), output))
    })
}

/// The text so far. A metric is announced once, before its samples, and not at all if it has none.
#[derive(Default)]
struct Text(String, Option<Family>);

/// A metric whose samples come next.
struct Family {
    name: &'static str,
    announcement: String,
}

impl Text {
    fn up(&mut self, up: u8) {
        self.single(
            "pve_span_up",
            "gauge",
            "Whether the service runs (1), or was stopped (0).",
            Some(up),
        );
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        let announcement = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        self.1 = Some(Family { name, announcement });
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let Some(family) = &mut self.1 else { return };
        self.0.push_str(&std::mem::take(&mut family.announcement));
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let labels = match labels.as_slice() {
            [] => String::new(),
            labels => format!("{{{}}}", labels.join(",")),
        };
        self.0
            .push_str(&format!("{}{labels} {value}\n", family.name));
    }

    fn single(&mut self, name: &'static str, kind: &str, help: &str, value: Option<impl Display>) {
        self.family(name, kind, help);
        if let Some(value) = value {
            self.sample(&[], value);
        }
    }

    fn by_session<V: Display>(
        &mut self,
        state: &State,
        name: &'static str,
        kind: &str,
        help: &str,
        value: impl Fn(&SessionRecord) -> Option<V>,
    ) {
        self.family(name, kind, help);
        for (session, record) in &state.sessions {
            if let Some(value) = value(record) {
                self.sample(&[("session", session)], value);
            }
        }
    }

    fn by_output(
        &mut self,
        state: &State,
        name: &'static str,
        help: &str,
        value: impl Fn(&OutputRecord) -> Option<u64>,
    ) {
        self.family(name, "counter", help);
        for (session, output, record) in outputs(state) {
            if let Some(value) = value(record) {
                self.sample(&[("session", session), ("output", output)], value);
            }
        }
    }
}

/// A label's value. A session's name may come from a mark in Open vSwitch's database, and then be any text; two that
/// differ stay different, as a sample that is there twice would cost all the others.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests;
