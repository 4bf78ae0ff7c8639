//! Drafts that span.cfg has a session for already: from another node with the same mirrors, or from an earlier import.

use std::collections::BTreeMap;

use super::draft::Draft;
use crate::config::selector::{Output, Selector};
use crate::config::{Annotations, EngineChoice, Point, Session};
use crate::model::Switch;

/// Notes on each draft which session does the same already, if one does.
pub fn mark(drafts: &mut [Draft], there: &Annotations) {
    let mut sessions: BTreeMap<&Output, Vec<&Session>> = BTreeMap::new();
    for session in there.sessions.values() {
        for output in &session.outputs {
            sessions.entry(&output.value).or_default().push(session);
        }
    }
    for draft in drafts {
        let first = draft.outputs.first();
        let mut candidates = first
            .and_then(|output| sessions.get(output))
            .into_iter()
            .flatten();
        let same = candidates.find(|session| does(session, draft));
        draft.covered = same.map(|session| session.name.clone());
    }
}

/// Does the session what the draft would, and leaves nothing of it out?
fn does(session: &Session, draft: &Draft) -> bool {
    let has_output = |output: &Output| session.outputs.iter().any(|there| there.value == *output);
    let has_source = |source: &Selector| {
        session
            .sources
            .iter()
            .any(|there| takes(&there.value, source))
    };
    session.direction == draft.direction()
        && session.vlans == draft.vlans
        && session.snaplen == draft.snaplen
        && session.filter.is_none()
        && session.sample == 1
        && session.exclude.is_empty()
        && session.point == Point::Bridge
        && session.engine != EngineChoice::Nft
        && session.enabled == Switch::Yes
        && session.expires.is_none()
        && draft.outputs.iter().all(has_output)
        && draft.sources.iter().all(has_source)
}

/// The same source, or all NICs of its guest.
fn takes(there: &Selector, source: &Selector) -> bool {
    match (there, source) {
        (
            Selector::Guests {
                low,
                high,
                nic: None,
            },
            Selector::Guests { low: guest, .. },
        ) => (low..=high).contains(&guest),
        _ => there == source,
    }
}
