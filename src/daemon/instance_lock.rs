//! One service on a node: two would keep the books in the same files, and tell everything twice.

use std::fs::File;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::error::Error;
use super::state::{STATE, State};
use crate::sys::clock::now;
use crate::sys::files;

/// Held for as long as the service runs: the folder of its files. Its children let go of it at once.
#[derive(Debug)]
pub struct InstanceLock {
    _folder: Option<Flock<File>>,
}

impl InstanceLock {
    /// Is there no other service?
    ///
    /// # Errors
    /// There is one.
    pub fn claim(root: &Path) -> Result<Self, Error> {
        let state = root.join(STATE);
        let folder = state.parent().unwrap_or(root);
        let made = files::make_private_folder(folder);
        let Ok(folder) = made.and_then(|()| File::open(folder)) else {
            // Then the files cannot be written either, and that is said where it is tried.
            return Ok(Self { _folder: None });
        };
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Err((_, Errno::EWOULDBLOCK)) => Err(Error::Twice {
                pid: State::load(root)
                    .filter(|state| state.is_fresh(now()))
                    .map(|state| state.pid),
            }),
            claimed => Ok(Self {
                _folder: claimed.ok(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_until_it_ends() {
        let root = tempfile::tempdir().unwrap();
        let first = InstanceLock::claim(root.path()).unwrap();
        let second = InstanceLock::claim(root.path()).unwrap_err().to_string();
        assert!(second.starts_with("another `pve-span watch` runs here already"));
        drop(first);
        InstanceLock::claim(root.path()).unwrap();
    }
}
