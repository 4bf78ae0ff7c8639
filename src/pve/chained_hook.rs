//! Writing and removing the records of chained hookscripts, `/etc/pve/span-hooks/<vmid>`: one file a guest, so that nobody
//! overwrites what somebody else has just added.
//!
//! pmxcfs lets root alone write there, replaces a file as a whole, and carries it to every node.

use std::io;
use std::path::{Path, PathBuf};

use crate::pve::Pve;
use crate::pve::cluster_lock;
use crate::pve::cluster_lock::ClusterLock;
use pve_span_core::model::Vmid;
use pve_span_core::pve::chained_hook::{Chained, FOLDER};

/// A record that could not be written or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not written, as somebody else is writing it.
    #[error("the hookscript that it has cannot be written down")]
    Lock(#[source] cluster_lock::Error),
    /// Not written.
    #[error("the hookscript that it has cannot be written down: cannot write {path}")]
    Write {
        /// The record.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not removed.
    #[error("cannot remove {path}")]
    Remove {
        /// The record.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Where a guest's record is.
pub fn path(pve: &Pve, vmid: Vmid) -> PathBuf {
    pve.path(&format!("{FOLDER}/{vmid}"))
}

/// Writes a guest's record, over an older one.
///
/// # Errors
/// It cannot be written; an older one is then still there.
pub fn write(pve: &Pve, vmid: Vmid, chained: &Chained) -> Result<(), Error> {
    let lock = ClusterLock::take(pve, &format!("{FOLDER}/{vmid}")).map_err(Error::Lock)?;
    let made = match std::fs::create_dir(pve.path(FOLDER)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => lock.put(&chained.to_text(vmid)),
    };
    made.map_err(|source| {
        let path = path(pve, vmid);
        Error::Write { path, source }
    })
}

/// Removes a guest's record, if there is one, and the folder after the last one.
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove(pve: &Pve, vmid: Vmid) -> Result<(), Error> {
    let path = path(pve, vmid);
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Remove { path, source }),
    }
    // Fails, and should, while there are others.
    let _ = std::fs::remove_dir(path.parent().unwrap_or(Path::new("/")));
    Ok(())
}
