//! `span.cfg` text → sessions, or every fault that it has.
//!
//! A file with an error is not taken at all: its reader keeps the last good copy. What is merely
//! not available in this version is marked as such and refused session by session.

pub mod cycles;
pub mod diagnostic;
pub mod selector;

mod checks;
mod ini;
mod reader;
mod session;
mod values;

use std::collections::BTreeMap;

use crate::model::SessionName;
pub(crate) use checks::NO_TUNNELS;
use diagnostic::{Diagnostic, Severity};
pub use reader::KEYS;
use reader::Reader;
pub use session::{At, EngineChoice, Point, PreStop, Session};

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Annotations {
    /// Its sessions by name; without meaning when the file has errors.
    pub sessions: BTreeMap<SessionName, Session>,
    /// Everything worth saying about it, in the order of the lines.
    pub diagnostics: Vec<Diagnostic>,
}

impl Annotations {
    /// May the file be taken?
    pub fn is_valid(&self) -> bool {
        self.diagnostics
            .iter()
            .all(|diagnostic| diagnostic.severity != Severity::Error)
    }
}

/// The most faults that are told of one file, errors of later lines left out: nobody reads more.
const MOST_DIAGNOSTICS: usize = 1000;

/// Reads a file; `file` is its name in the diagnostics.
pub fn parse(file: &str, text: &str) -> Annotations {
    let mut reader = Reader {
        file,
        diagnostics: Vec::new(),
    };
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        reader.diagnostics.push(Diagnostic {
            file: file.to_owned(),
            place: None,
            severity: Severity::Error,
            message: "the file is empty".into(),
            hint: Some("a file with nothing but a comment line ends every session".into()),
        });
    }
    let (defaults, sections) = reader.sections(text);
    let defaults = reader.defaults(&defaults);
    let mut sessions = BTreeMap::new();
    for section in sections {
        let session = reader.session(&section, defaults.as_ref());
        sessions.insert(section.name, session);
    }
    reader.diagnostics.extend(checks::check(file, &sessions));
    reader.diagnostics.sort_by(|a, b| {
        (&a.place, a.severity, &a.message).cmp(&(&b.place, b.severity, &b.message))
    });
    reader.diagnostics.dedup();
    reader.diagnostics.truncate(MOST_DIAGNOSTICS);
    Annotations {
        sessions,
        diagnostics: reader.diagnostics,
    }
}

#[cfg(test)]
mod tests;
