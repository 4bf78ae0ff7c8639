//! What the service knows, kept in a file: for `status`, which says since when a session is degraded, for the metrics,
//! and for the service itself after a restart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sys::files;
use pve_span_core::health::{Health, ReasonId};

/// The file, below the root directory.
pub const STATE: &str = "run/pve-span/state.json";

/// What the service knows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The service's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it was started, in seconds since 1970.
    pub started: i64,
    /// When this was written, in seconds since 1970. The service writes it at least once a minute.
    pub written: i64,
    /// Why span.cfg itself is not in force, if it is not.
    pub notice: Option<String>,
    /// The sessions, by name.
    pub sessions: BTreeMap<String, SessionRecord>,
    /// What it has done since it was first started after the node's boot.
    pub totals: Totals,
}

/// What the service has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Reconciles.
    pub reconciles: u64,
    /// Of these, the ones that failed or left something undone.
    pub failures: u64,
    /// When the last one ended well, in seconds since 1970.
    pub last_reconcile: Option<i64>,
    /// When the last one ended that changed anything.
    pub last_change: Option<i64>,
}

/// What is known of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// How it does.
    pub health: Health,
    /// Since when, in seconds since 1970.
    pub since: i64,
    /// Why, if it is not healthy; and what else should be known.
    pub reasons: Vec<String>,
    /// Which ones these are, but for what only the service sees.
    #[serde(skip)]
    pub ids: Vec<ReasonId>,
    /// Sources that are here.
    pub present: usize,
    /// Sources that there would be if all guests of this node ran.
    pub configured: usize,
    /// For how long frames that should have been mirrored were not, as far as the service can tell, in seconds.
    pub blind: f64,
    /// Its outputs, as span.cfg writes them.
    pub outputs: BTreeMap<String, OutputRecord>,
}

/// What is known of one of a session's outputs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputRecord {
    /// Frames mirrored, if anybody counts.
    pub frames: Option<u64>,
    /// Bytes mirrored.
    pub bytes: Option<u64>,
    /// The device that they leave through, if it is here.
    pub device: Option<String>,
    /// Frames that the device had no room for, mirrored ones or others.
    pub dropped: Option<u64>,
}

/// How old the file of a service that runs can be, in seconds.
const FRESH: i64 = 150;

impl State {
    /// Has it been written by a service that still runs?
    pub fn is_fresh(&self, now: i64) -> bool {
        (self.written..=self.written.saturating_add(FRESH)).contains(&now)
            && PathBuf::from(format!("/proc/{}", self.pid)).exists()
    }

    /// What was written last; nothing if there is no file or it is not understood.
    pub fn load(root: &Path) -> Option<Self> {
        let text = files::read_text(&root.join(STATE)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Writes the file as a whole.
    ///
    /// # Errors
    /// It cannot be written; what it said before still stands.
    pub fn store(&self, root: &Path) -> Result<(), files::Error> {
        let path = root.join(STATE);
        let text = serde_json::to_string(self).map_err(|error| files::Error::Write {
            path: path.clone(),
            source: error.into(),
        })?;
        files::replace_private(&path, &(text + "\n"))
    }
}
