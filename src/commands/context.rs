//! Within which time a command looks at the node, and whether it reads in /etc/pve.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::active;
use crate::config::active::InForce;
use crate::pve::Pve;
use crate::reconcile::lock::LockFile;
use crate::reconcile::{Context, Error, PveAccess};
use crate::sys::{IsolatedError, isolated};

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

pub(super) fn context(root: &Path, by: &str) -> Context {
    Context::new(root, by, Instant::now() + DEADLINE, PATIENCE)
}

/// The same, by the last good copy if /etc/pve does not answer.
pub(super) fn asked_context(root: &Path, by: &str) -> Context {
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
pub(super) fn anew(context: Context) -> Context {
    Context {
        deadline: Instant::now() + DEADLINE,
        ..context
    }
}
