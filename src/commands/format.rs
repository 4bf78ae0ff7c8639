//! How commands print what they have to say, and what several of them say.

use crate::reconcile::observe::Look;
use crate::sys::output::Printer;
use pve_span_core::health::faults_and_notes;
use pve_span_core::state::SessionState;

/// How a command prints what it has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl From<bool> for Format {
    fn from(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// Says on stderr which annotations are in force, if not the file's.
pub(super) fn notice(look: &Look) {
    if let Some(notice) = look.in_force.notice() {
        log::warn!("{notice}");
    }
}

pub(super) fn line_per_session(out: &mut Printer, states: &[SessionState]) {
    for state in states {
        for fault in faults_and_notes(state) {
            out.line(&format!("{}: {fault}", state.name));
        }
    }
}
