//! Drafts made into sessions that a span.cfg can take: names that are free, nothing that it refuses, and nothing changed
//! by its `[defaults]`.

use std::collections::BTreeSet;

use super::already_configured;
use super::draft::{Draft, Origin};
use super::writer::{Rendered, append, render};
use crate::config;
use crate::config::diagnostic::Severity;
use crate::config::selector::Selector;
use crate::config::{Annotations, EngineChoice, Point, PreStop, Session};
use crate::model::Direction;
use crate::model::Switch;
use crate::model::session_names::{fresh, is_free};

/// The most sessions that span.cfg may have.
const MOST_SESSIONS: usize = 1000;

/// How often faults are looked for: once they are found and once that they are gone, and loops within loops.
const PASSES: usize = 4;

/// Settles the drafts for a file that says `existing`.
pub fn name_sessions(drafts: &mut [Draft], origins: &[Origin], existing: &str) {
    let there = config::parse("span.cfg", existing);
    let taken = there.sessions.keys().map(|name| name.as_str().to_owned());
    let mut taken: BTreeSet<String> = taken.collect();
    let room = MOST_SESSIONS.saturating_sub(taken.len());
    already_configured::mark(drafts, &there);
    let new = drafts.iter_mut().filter(|draft| draft.is_new());
    for (number, draft) in new.enumerate() {
        if number < room {
            draft.name = name(draft, origins, &mut taken);
        } else {
            // A comment need not have a name of its own.
            draft.name = name(draft, origins, &mut BTreeSet::new());
            draft.refused = Some(format!("span.cfg has {MOST_SESSIONS} sessions at most"));
        }
    }
    for pass in 0..=PASSES {
        let rendered = render(drafts, origins);
        let (text, before) = append(existing, &rendered.text);
        let read = config::parse("span.cfg", &text);
        let is_changed = follow_defaults(drafts, &read);
        let has_faults = refuse_faults(drafts, &read, &rendered, before);
        if !has_faults && !is_changed {
            return;
        }
        if pass == PASSES && has_faults {
            for draft in drafts.iter_mut().filter(|draft| draft.is_new()) {
                let why = || "together with the others it is not valid".to_owned();
                draft.refused.get_or_insert_with(why);
            }
        }
    }
}

/// The old mirror's name, or the only source's, or the output's.
fn name(draft: &Draft, origins: &[Origin], taken: &mut BTreeSet<String>) -> String {
    let first = draft.origins.first().and_then(|index| origins.get(*index));
    let wish = first.and_then(|origin| origin.wish.clone());
    let wish = wish.unwrap_or_else(|| match (draft.sources.as_slice(), draft.outputs.first()) {
        ([Selector::Port(port) | Selector::Bridge(port)], _) => port.as_str().to_owned(),
        ([source], _) => format!("guest-{source}"),
        (_, Some(output)) => format!("to-{output}"),
        (_, None) => "session".to_owned(),
    });
    let with_direction = format!("{wish}-{}", draft.direction());
    if !is_free(&wish, taken) && draft.direction() != Direction::Both && with_direction.len() <= 32
    {
        return fresh(&with_direction, taken);
    }
    fresh(&wish, taken)
}

/// What `[defaults]` says counts for these sessions, too, unless they say otherwise. Where they cannot, it is noted.
fn follow_defaults(drafts: &mut [Draft], read: &Annotations) -> bool {
    let mut is_changed = false;
    for draft in drafts.iter_mut().filter(|draft| draft.is_new()) {
        let Some(session) = read.sessions.get(draft.name.as_str()) else {
            continue;
        };
        for (key, value) in otherwise(session, draft) {
            if !draft.overrides.contains(&(key, value)) {
                draft.overrides.push((key, value));
                is_changed = true;
            }
        }
        for key in unavoidable(session, draft) {
            let note =
                format!("`{key}` of [defaults] holds here, too, and the old mirror had none");
            if !draft.notes.contains(&note) {
                draft.notes.push(note);
                is_changed = true;
            }
        }
    }
    is_changed
}

/// Keys that have to be written.
fn otherwise(session: &Session, draft: &Draft) -> Vec<(&'static str, &'static str)> {
    let asked = [
        (
            session.direction != draft.direction(),
            ("direction", draft.direction().word()),
        ),
        (session.point != Point::Bridge, ("point", "bridge")),
        (session.engine != EngineChoice::Auto, ("engine", "auto")),
        (session.sample != 1, ("sample", "1/1")),
        (session.dedup != Switch::Yes, ("dedup", "yes")),
        (session.wire != Switch::Yes, ("wire", "yes")),
        (session.pre_stop != PreStop::Clear, ("pre-stop", "clear")),
        (session.enabled != Switch::Yes, ("enabled", "yes")),
    ];
    asked
        .into_iter()
        .filter_map(|(is_other, key)| is_other.then_some(key))
        .collect()
}

/// Keys that have no value for "as without".
fn unavoidable(session: &Session, draft: &Draft) -> Vec<&'static str> {
    let asked = [
        (session.vlans != draft.vlans, "vlan"),
        (session.snaplen != draft.snaplen, "snaplen"),
        (session.filter.is_some(), "filter"),
        (!session.exclude.is_empty(), "exclude"),
        (session.expires.is_some(), "expires"),
    ];
    asked
        .into_iter()
        .filter_map(|(holds, key)| holds.then_some(key))
        .collect()
}

/// Makes comments of the sessions that would make the file invalid.
fn refuse_faults(
    drafts: &mut [Draft],
    read: &Annotations,
    rendered: &Rendered,
    before: usize,
) -> bool {
    let mut found = false;
    for diagnostic in &read.diagnostics {
        let line = diagnostic.place.as_ref().map_or(0, |place| place.line);
        let Some(line) = line.checked_sub(before).filter(|line| *line > 0) else {
            continue;
        };
        // The lines of each draft, in order.
        let index = rendered.begins.partition_point(|begin| *begin <= line);
        let Some(draft) = index.checked_sub(1).and_then(|index| drafts.get_mut(index)) else {
            continue;
        };
        match diagnostic.severity {
            Severity::Error => {
                found = true;
                draft
                    .refused
                    .get_or_insert_with(|| diagnostic.message.clone());
            }
            Severity::Unsupported if !draft.notes.contains(&diagnostic.message) => {
                draft.notes.push(diagnostic.message.clone());
            }
            _ => {}
        }
    }
    found
}
