//! Old mirrors, what they do, and the sessions that do the same.

use crate::config::selector::{Output, Selector};
use crate::model::{Direction, NicId, SessionName, Taken, VlanSet, Vmid};

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
pub(super) fn guest_of(source: &Selector) -> Option<Vmid> {
    match source {
        Selector::Guests { low, .. } => Some(*low),
        _ => None,
    }
}

/// One NIC of one guest, as a source.
pub(super) fn nic_source(nic: NicId) -> Selector {
    Selector::Guests {
        low: nic.vmid,
        high: nic.vmid,
        nic: Some(nic.index),
    }
}
