//! The commands that administrators type: each looks at the node, or changes it, and tells.

mod apply;
mod attach;
mod check;
mod clear;
mod complete;
mod doctor;
mod edit;
mod events;
mod explain;
mod import;
mod init;
mod plan;
mod ports;
mod rate;
mod review;
mod status;
mod verify;

use std::path::Path;
use std::time::{Duration, Instant};

pub use apply::run as apply;
pub use attach::{attach, detach};
pub use check::run as check;
pub use clear::run as clear;
pub use complete::run as complete;
pub use doctor::{Extent, run as doctor};
pub use edit::run as edit;
pub use events::run as events;
pub use explain::run as explain;
pub use import::run as import;
pub use init::run as init;
pub use plan::run as plan;
pub use ports::run as ports;
pub use status::run as status;
pub use verify::run as verify;

use crate::config::active;
use crate::config::active::InForce;
use crate::pve::Pve;
use crate::reconcile::Error;
use crate::reconcile::inputs::PveAccess;
use crate::reconcile::lock::LockFile;
use crate::reconcile::observe::{Context, Look};
use crate::sys::output::Out;
use crate::sys::{IsolatedError, isolated};
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

/// How long a command waits for whatever hangs, and of that for ovs-vswitchd.
const DEADLINE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(5);

/// How long /etc/pve may take to answer at all; it takes microseconds.
const PVE_PATIENCE: Duration = Duration::from_secs(3);

/// Makes sure that /etc/pve answers: what reads from a pmxcfs that hangs cannot be interrupted, so a child asks first;
/// unless another process is known to hang there.
///
/// # Errors
/// It does not.
pub fn expect_pve(root: &Path) -> Result<(), Error> {
    let pve = Pve::new(root);
    let hangs = || Error::PveHangs { path: pve.path("") };
    if LockFile::existing(root).is_some_and(|file| file.hung().is_some()) {
        return Err(hangs());
    }
    match isolated(PVE_PATIENCE, || pve.is_mounted()) {
        Err(IsolatedError::TooLate { .. }) => Err(hangs()),
        // Whatever else is wrong shows when it is read.
        _ => Ok(()),
    }
}

/// Where nobody has written a span.cfg yet, says on stderr what to do first. For when /etc/pve answers.
pub fn say_first_step(root: &Path) {
    if let InForce::NotConfigured { path } = active::load(root) {
        log::warn!(
            "there is no {}: run `pve-span init`, which writes a first one",
            path.display()
        );
    }
}

fn context(root: &Path, by: &str) -> Context {
    Context::new(root, by, Instant::now() + DEADLINE, PATIENCE)
}

/// The same, by the last good copy if /etc/pve does not answer.
fn asked_context(root: &Path, by: &str) -> Context {
    let pve = match expect_pve(root) {
        Ok(()) => {
            say_first_step(root);
            PveAccess::Answers
        }
        Err(_) => PveAccess::Hangs(None),
    };
    Context {
        pve,
        ..context(root, by)
    }
}

/// The same for another look, later.
fn anew(context: Context) -> Context {
    Context {
        deadline: Instant::now() + DEADLINE,
        ..context
    }
}

/// Says on stderr which annotations are in force, if not the file's.
fn notice(look: &Look) {
    if let Some(notice) = look.in_force.notice() {
        log::warn!("{notice}");
    }
}

fn line_per_session(out: &mut Out, states: &[SessionState]) {
    for state in states {
        for fault in faults_and_notes(state) {
            out.line(&format!("{}: {fault}", state.name));
        }
    }
}
