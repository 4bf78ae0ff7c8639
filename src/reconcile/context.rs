//! Who asks, where, and until when.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::sys::Progress;
use pve_span_core::model::{NodeName, Vmid};

/// Where and until when.
#[derive(Debug, Clone)]
pub struct Context {
    /// The prefix of every path.
    pub root: PathBuf,
    /// When everything has to be over.
    pub deadline: Instant,
    /// How long to wait for ovs-vswitchd after a commit.
    pub patience: Duration,
    /// Who looks: `hook 101 post-start`, `apply`, `watch`. It is told in Open vSwitch's database log and in the events.
    pub by: String,
    /// Where an incoming guest's config may still be filed.
    pub migrated_from: Option<NodeName>,
    /// Does /etc/pve answer?
    pub pve: PveAccess,
    /// Where to say that what comes may hang.
    pub progress: Progress,
    /// How long Open vSwitch may take to answer a look.
    pub ovs_patience: Duration,
}

impl Context {
    /// For one whom nobody waits for, where everything answers.
    pub fn new(root: &Path, by: &str, deadline: Instant, patience: Duration) -> Self {
        Self {
            root: root.to_owned(),
            deadline,
            patience,
            by: by.to_owned(),
            migrated_from: None,
            pve: PveAccess::Answers,
            progress: Progress::default(),
            ovs_patience: OVS_PATIENCE,
        }
    }
}

/// How long Open vSwitch may take to answer a look; it takes milliseconds.
const OVS_PATIENCE: Duration = Duration::from_secs(3);

/// Does /etc/pve answer?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PveAccess {
    /// It does, as far as anybody knows.
    Answers,
    /// It hangs, and is not touched; so does this process, if it is known, which tells when that is over.
    Hangs(Option<u32>),
}

/// Who asks for a reconcile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// An administrator: what is, is.
    Command,
    /// A guest has started or stopped.
    Settled(Vmid),
    /// A guest is about to stop.
    Stopping(Vmid),
    /// Something has changed, says the service.
    Watch,
}
