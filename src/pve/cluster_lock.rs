//! Proxmox VE's own lock of a file in /etc/pve, which counts on every node of the cluster: a folder in /etc/pve/priv/lock.
//!
//! mkdir(2) on pmxcfs is atomic cluster-wide. A holder that was killed leaves its lock; pmxcfs removes one that nobody has
//! renewed for 120 s, when somebody asks it to by setting the folder's times to 0 (pmxcfs: `cfs_plug_memdb_utimens`). So
//! no node's clock matters. The name is the one that `cfs_lock_file` of Proxmox VE makes of a file's.

use std::fs::{self, DirBuilder, FileTimes, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::pve::Pve;

/// Where locks are, in /etc/pve.
const FOLDER: &str = "priv/lock";

/// How long to wait for somebody else, as Proxmox VE does.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often to try meanwhile: each time is a message to all nodes.
const PAUSE: Duration = Duration::from_millis(250);

/// How long it surely is ours: half of what pmxcfs gives it.
const OURS: Duration = Duration::from_secs(60);

/// Why a file's lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else has it.
    #[error(
        "{file} is being written by another process or node, which has held {lock} for more than {} s; try again. If that \
         process is gone, Proxmox VE gives the lock up after 120 s",
        waited.as_secs()
    )]
    Busy {
        /// The file.
        file: PathBuf,
        /// Its lock.
        lock: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// It cannot be made.
    #[error("cannot make {lock}{}", hint(source))]
    Make {
        /// The lock.
        lock: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What it means that pmxcfs refuses.
pub(crate) fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (not as root, or the cluster is not quorate: see pvecm status)"
        }
        _ => "",
    }
}

/// The right to write a file, until it is dropped.
#[derive(Debug)]
pub struct ClusterLock {
    file: PathBuf,
    lock: PathBuf,
    since: Instant,
}

impl ClusterLock {
    /// Takes the lock of a file, `span.cfg`, and waits for it ten seconds at most.
    ///
    /// # Errors
    /// Somebody else has it, or it cannot be made.
    pub fn take(pve: &Pve, file: &str) -> Result<Self, Error> {
        Self::take_within(pve, file, PATIENCE)
    }

    fn take_within(pve: &Pve, file: &str, waited: Duration) -> Result<Self, Error> {
        let name = format!("file-{}", file.replace(['.', '/'], "_"));
        let lock = pve.path(FOLDER).join(name);
        let file = pve.path(file);
        let until = Instant::now() + waited;
        loop {
            let since = Instant::now();
            match make(&lock) {
                Ok(()) => return Ok(Self { file, lock, since }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(Error::Make { lock, source }),
            }
            if since >= until {
                return Err(Error::Busy { file, lock, waited });
            }
            ask_to_give_up(&lock);
            std::thread::sleep(PAUSE);
        }
    }

    /// Puts a text in the file's place, as a whole: a reader sees the old or the new, never a part. What a killed
    /// writer has left beside it goes.
    ///
    /// # Errors
    /// It cannot be written, or took so long that the lock may be another's by now; the old file is then still there.
    pub fn put(&self, text: &str) -> io::Result<()> {
        let mut aside = self.file.clone().into_os_string();
        aside.push(".tmp");
        let aside = PathBuf::from(aside);
        let _ = fs::remove_file(&aside);
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o640)
                .open(&aside)?;
            // In one go: pmxcfs passes each write on to all nodes.
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            if self.since.elapsed() > OURS {
                return Err(io::ErrorKind::TimedOut.into());
            }
            fs::rename(&aside, &self.file)
        };
        write().inspect_err(|_| {
            let _ = fs::remove_file(&aside);
        })
    }
}

impl Drop for ClusterLock {
    fn drop(&mut self) {
        // Later it may be another's.
        if self.since.elapsed() <= OURS {
            let _ = fs::remove_dir(&self.lock);
        }
    }
}

fn make(lock: &Path) -> io::Result<()> {
    let make = || DirBuilder::new().mode(0o700).create(lock);
    match (make(), lock.parent()) {
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
            make()
        }
        (made, _) => made,
    }
}

/// Has pmxcfs remove the lock if nobody has renewed it for too long; it refuses otherwise.
fn ask_to_give_up(lock: &Path) {
    let never = FileTimes::new()
        .set_accessed(SystemTime::UNIX_EPOCH)
        .set_modified(SystemTime::UNIX_EPOCH);
    let _ = fs::File::open(lock).and_then(|folder| folder.set_times(never));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    const SHORT: Duration = Duration::ZERO;

    fn tree() -> (tempfile::TempDir, Pve) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/pve")).unwrap();
        let pve = Pve::new(root.path());
        (root, pve)
    }

    #[test]
    fn it_is_the_one_that_proxmox_ve_would_take_and_goes_when_it_is_dropped() {
        let (root, pve) = tree();
        let folder = root.path().join("etc/pve/priv/lock");
        for (file, lock) in [
            ("span.cfg", "file-span_cfg"),
            ("span-hooks/101", "file-span-hooks_101"),
        ] {
            let held = ClusterLock::take(&pve, file).unwrap();
            assert!(folder.join(lock).is_dir());
            drop(held);
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        }
    }

    #[test]
    fn one_has_it_at_a_time_and_the_other_is_told() {
        let (root, pve) = tree();
        let held = ClusterLock::take(&pve, "span.cfg").unwrap();
        let busy = ClusterLock::take_within(&pve, "span.cfg", SHORT).unwrap_err();
        let told = busy
            .to_string()
            .replace(&root.path().display().to_string(), "");
        assert_eq!(
            told,
            "/etc/pve/span.cfg is being written by another process or node, which has held \
             /etc/pve/priv/lock/file-span_cfg for more than 0 s; try again. If that process is gone, Proxmox VE gives the \
             lock up after 120 s"
        );
        assert!(held.lock.is_dir(), "it is not taken away");
        drop(held);
        let holders = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let held = ClusterLock::take_within(&pve, "span.cfg", Duration::from_secs(60));
                    let held = held.unwrap();
                    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    holders.fetch_sub(1, Ordering::SeqCst);
                    drop(held);
                });
            }
        });
    }

    #[test]
    fn pmxcfs_is_asked_to_give_up_a_lock_whose_holder_is_gone() {
        let (_root, pve) = tree();
        let held = ClusterLock::take(&pve, "span.cfg").unwrap();
        let lock = held.lock.clone();
        std::mem::forget(held);
        let (asked, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let pve = &pve;
            scope.spawn(move || {
                let taken = ClusterLock::take_within(pve, "span.cfg", Duration::from_secs(60));
                asked.send(taken).unwrap();
            });
            // What pmxcfs does when it is asked, and the lock is old enough.
            while lock.metadata().unwrap().modified().unwrap() != SystemTime::UNIX_EPOCH {
                assert!(told.try_recv().is_err(), "it waits");
                std::thread::yield_now();
            }
            fs::remove_dir(&lock).unwrap();
            told.recv().unwrap().unwrap();
        });
        assert!(!lock.exists());
    }

    #[test]
    fn what_a_killed_writer_has_left_goes_with_the_next_write() {
        let (root, pve) = tree();
        let left = root.path().join("etc/pve/span.cfg.tmp");
        fs::write(&left, "longer than what comes next").unwrap();
        let held = ClusterLock::take(&pve, "span.cfg").unwrap();
        held.put("next").unwrap();
        assert_eq!(fs::read_to_string(&held.file).unwrap(), "next");
        assert!(!left.exists());
    }

    #[test]
    fn who_has_held_it_for_too_long_writes_nothing() {
        let (_root, pve) = tree();
        let mut held = ClusterLock::take(&pve, "span.cfg").unwrap();
        let Some(long_ago) = Instant::now().checked_sub(2 * OURS) else {
            return;
        };
        held.since = long_ago;
        assert_eq!(
            held.put("next").unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
        let lock = held.lock.clone();
        assert!(!held.file.exists());
        drop(held);
        assert!(lock.exists(), "it may be another's");
    }
}
