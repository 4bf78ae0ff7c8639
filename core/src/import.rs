//! Mirrors that others have made → sessions that do the same: read, joined by what they have in common, and written
//! as span.cfg.
//!
//! What cannot be carried over is never dropped without a word: it stands there as a comment, with the reason.

mod already_configured;
mod merge;
pub mod mirrors_conf;
mod name_sessions;
pub mod ovs_mirrors;
mod writer;

use super::config::selector::{Output, Selector};
use super::model::{Direction, NicId, SessionName, VlanSet, Vmid};
use crate::model::Taken;

pub use merge::merge;
pub use name_sessions::settle;
pub use writer::{append, text};

/// What one of the old mirrors does with one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whose frames.
    pub source: Selector,
    /// Which of them.
    pub taken: Taken,
    /// Where to.
    pub output: Output,
    /// Only these VLANs; all when empty.
    pub vlans: VlanSet,
    /// Bytes kept of each frame.
    pub snaplen: Option<u16>,
    /// Which mirror it is of: an index of the origins.
    pub origin: usize,
}

/// An old mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// What it is called in comments: `mirror span0 of vmbr2`. Printable, and one line.
    pub label: String,
    /// What a session of its own would be called.
    pub wish: Option<String>,
    /// What of it is not carried over, and why.
    pub left_out: Vec<String>,
    /// What need not be carried over, and why.
    pub needless: Option<&'static str>,
}

/// A session that does what old mirrors do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Its name, once it is settled.
    pub name: String,
    /// Whose frames.
    pub sources: Vec<Selector>,
    /// Which of them.
    pub taken: Taken,
    /// Where to.
    pub outputs: Vec<Output>,
    /// Only these VLANs; all when empty.
    pub vlans: VlanSet,
    /// Bytes kept of each frame.
    pub snaplen: Option<u16>,
    /// Which old mirrors it does the work of.
    pub origins: Vec<usize>,
    /// Keys that are written since `[defaults]` says otherwise.
    pub overrides: Vec<(&'static str, &'static str)>,
    /// What an administrator has to know.
    pub notes: Vec<String>,
    /// Why it is a comment only.
    pub refused: Option<String>,
    /// The session of span.cfg that does the same already.
    pub covered: Option<SessionName>,
}

impl Draft {
    /// Is it a session that span.cfg does not have yet?
    pub fn is_new(&self) -> bool {
        self.refused.is_none() && self.covered.is_none()
    }

    /// As span.cfg has it.
    pub fn direction(&self) -> Direction {
        match self.taken {
            Taken::Both => Direction::Both,
            Taken::Sent => Direction::From,
            Taken::Delivered => Direction::To,
        }
    }
}

/// The guest that a source is of.
fn guest_of(source: &Selector) -> Option<Vmid> {
    match source {
        Selector::Guests { low, .. } => Some(*low),
        _ => None,
    }
}

/// One NIC of one guest, as a source.
fn nic_source(nic: NicId) -> Selector {
    Selector::Guests {
        low: nic.vmid,
        high: nic.vmid,
        nic: Some(nic.index),
    }
}

#[cfg(test)]
mod tests;
