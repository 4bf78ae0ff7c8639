//! One reconcile at a time on a node, and as few as possible.
//!
//! `/run/pve-span.lock` is held (flock(2)) while a reconcile changes something, and holds what the next
//! one wants to know ([`Memory`]): when the last good one began, so that who waited for it has nothing left to do;
//! which guests have just been announced as stopping, so that another guest's hook does not put
//! their mirrors back; and what hung, so that not everybody waits for it.
//!
//! Who holds it does not touch /etc/pve, which may hang; see [`readers`].

mod memory;
pub mod readers;

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use serde::Deserialize;

use crate::sys::files::open_or_make;
use crate::sys::lock_held::HeldMark;
use crate::sys::mounts;

pub use memory::{Life, Memory, ReadScope, STOPPING};

/// The lock, below the root directory.
pub const PATH: &str = "run/pve-span.lock";

/// How long one who waits sleeps before the next try: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// The most that is read of the memory, in bytes.
const MOST: usize = 1 << 20;

/// Why the lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be opened.
    #[error("cannot open the lock {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else holds it all the time.
    #[error("another pve-span has held {path} for more than {} ms{}", waited.as_millis(), holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Busy {
        /// The file.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
        /// Who it was, as far as they said.
        holder: Option<u32>,
    },
    /// It is somebody else's turn to read in /etc/pve all the time.
    #[error("another pve-span has been reading /etc/pve for more than {} ms{}", waited.as_millis(), reader.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Reading {
        /// How long was waited.
        waited: Duration,
        /// Who reads.
        reader: Option<u32>,
    },
}

/// The lock's file, open.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    path: PathBuf,
    /// The device number of /etc/pve's file system; 0 where none is mounted there.
    mount: i64,
}

impl LockFile {
    /// Opens it, and makes it if it is not there.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let path = root.join(PATH);
        let file = open_or_make(&path).map_err(|source| Error::Open {
            path: path.clone(),
            source,
        })?;
        Ok(Self::of(file, path, root))
    }

    /// Opens it for reading only, if it is there.
    pub fn existing(root: &Path) -> Option<Self> {
        let path = root.join(PATH);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(&path)
            .ok()?;
        Some(Self::of(file, path, root))
    }

    fn of(file: File, path: PathBuf, root: &Path) -> Self {
        let mount = mounts::device_at(&root.join("etc/pve")).unwrap_or_default();
        Self {
            file,
            path,
            mount: mount.into(),
        }
    }

    /// What the last holder of the lock left, without waiting for the lock.
    pub fn peek(&self) -> Memory {
        read(&self.file)
    }

    /// Waits for the lock, until the deadline at most.
    ///
    /// # Errors
    /// The file cannot be opened, or somebody else holds it all the time.
    pub fn lock(self, deadline: Instant) -> Result<Lock, Error> {
        let Self {
            mut file,
            path,
            mount,
        } = self;
        let open = |source| Error::Open {
            path: path.clone(),
            source,
        };
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut at_once = true;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(locked) => {
                    if is_current(&locked, &path) {
                        let memory = read(&locked);
                        return Ok(Lock {
                            file: locked,
                            path,
                            mount,
                            memory,
                            at_once,
                            _mark: HeldMark::new(),
                        });
                    }
                    // Somebody removed it, and whoever comes next makes a new one.
                    drop(locked);
                    at_once = false;
                    if Instant::now() >= deadline {
                        return Err(open(io::ErrorKind::NotFound.into()));
                    }
                    file = open_or_make(&path).map_err(open)?;
                }
                Err((back, nix::errno::Errno::EWOULDBLOCK | nix::errno::Errno::EINTR)) => {
                    at_once = false;
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        let holder = read(&back).pid;
                        return Err(Error::Busy {
                            path,
                            waited: began.elapsed(),
                            holder,
                        });
                    }
                    file = back;
                    std::thread::sleep(pause.min(left));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err((_, errno)) => return Err(open(errno.into())),
            }
        }
    }
}

/// The lock, held until dropped.
#[derive(Debug)]
pub struct Lock {
    file: Flock<File>,
    path: PathBuf,
    mount: i64,
    /// What it remembers; [`Lock::store`] writes it.
    pub memory: Memory,
    /// Was it free?
    pub at_once: bool,
    _mark: HeldMark,
}

impl Lock {
    /// Opens the file and waits for the lock, until the deadline at most.
    ///
    /// # Errors
    /// The file cannot be opened, or somebody else holds it all the time.
    pub fn acquire(root: &Path, deadline: Instant) -> Result<Self, Error> {
        LockFile::open(root)?.lock(deadline)
    }

    /// Lets go of the lock, and keeps the file, with the turn to read if that is ours.
    ///
    /// # Errors
    /// The kernel does not unlock it.
    pub fn release(self) -> Result<LockFile, Error> {
        let (path, mount) = (self.path, self.mount);
        match self.file.unlock() {
            Ok(file) => Ok(LockFile { file, path, mount }),
            Err((_, errno)) => Err(Error::Open {
                path,
                source: errno.into(),
            }),
        }
    }

    /// Writes the memory for the next holder.
    pub fn store(&mut self) {
        self.memory.tidy();
        self.memory.pid = Some(std::process::id());
        let text = serde_json::to_string(&self.memory).unwrap_or_default();
        let file: &File = &self.file;
        let length = u64::try_from(text.len()).unwrap_or_default();
        // In this order, who reads meanwhile finds a whole text at the beginning.
        let written = file
            .write_all_at(text.as_bytes(), 0)
            .and_then(|()| file.set_len(length));
        if let Err(error) = written {
            // The next holder then reconciles once more than it had to.
            log::warn!("cannot write {PATH}: {error}");
        }
    }
}

/// What the last holder of the lock left, without making a lock where there is none.
pub fn peek(root: &Path) -> Memory {
    LockFile::existing(root).map_or_else(Memory::default, |file| file.peek())
}

/// Is it still the one that others find?
fn is_current(file: &File, path: &Path) -> bool {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino(), metadata.nlink() > 0);
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(ours), Ok(others)) => {
            let ours = identity(ours);
            ours.2 && ours == identity(others)
        }
        _ => false,
    }
}

/// Has the lock been removed where a new one cannot be made or written? So it is in the service's view of /run, of which
/// the file alone is writable: with the file that goes, too (seen with systemd 252).
pub fn was_removed(root: &Path) -> bool {
    open_or_make(&root.join(PATH))
        .is_err_and(|error| error.raw_os_error() == Some(nix::libc::EROFS))
}

/// What an earlier holder wrote; nothing if it is not understood.
fn read(file: &File) -> Memory {
    let mut bytes = vec![0; 4096];
    let mut length = 0;
    loop {
        let at = u64::try_from(length).unwrap_or_default();
        match file.read_at(bytes.get_mut(length..).unwrap_or_default(), at) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Memory::default(),
        }
        if length < bytes.len() || length >= MOST {
            break;
        }
        bytes.resize(length * 2, 0);
    }
    let text = bytes.get(..length).unwrap_or_default();
    // What is left of a longer text that was there before does not count.
    let mut reader = serde_json::Deserializer::from_slice(text);
    Memory::deserialize(&mut reader).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::MonotonicTime;
    use crate::sys::lock_held::is_held;
    use pve_span_core::model::Vmid;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    pub(super) fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("run")).unwrap();
        root
    }

    pub(super) fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[test]
    fn who_finds_the_lock_held_gives_up_at_the_deadline_and_names_the_holder() {
        let root = tree();
        let mut first = Lock::acquire(root.path(), soon()).unwrap();
        first.store();
        let Err(Error::Busy { holder, .. }) = Lock::acquire(root.path(), soon()) else {
            panic!("got a held lock")
        };
        assert_eq!(holder, Some(std::process::id()));
        drop(first);
        Lock::acquire(root.path(), soon()).unwrap();
    }

    #[test]
    fn one_that_was_removed_while_it_was_held_is_not_the_lock_any_more() {
        let root = tree();
        let path = root.path().join(PATH);
        let old = Lock::acquire(root.path(), soon()).unwrap();
        std::fs::remove_file(&path).unwrap();
        let new = Lock::acquire(root.path(), soon()).unwrap();
        assert!(is_current(&new.file, &path) && !is_current(&old.file, &path));
        // Who has opened the old one before gets the new one, once it is free.
        let waiting = std::thread::spawn({
            let root = root.path().to_owned();
            move || Lock::acquire(&root, Instant::now() + Duration::from_secs(60)).map(drop)
        });
        drop(old);
        drop(new);
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn nobody_else_can_hold_it_whoever_made_it() {
        let root = tree();
        let path = root.path().join(PATH);
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        Lock::acquire(root.path(), soon()).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!was_removed(root.path()));
    }

    #[test]
    fn what_is_remembered_survives_and_garbage_does_no_harm() {
        let root = tree();
        std::fs::write(root.path().join(PATH), "garbage").unwrap();
        let mut lock = Lock::acquire(root.path(), soon()).unwrap();
        assert_eq!(lock.memory, Memory::default());
        lock.memory
            .stops(Vmid::new(101).unwrap(), &[7].into(), MonotonicTime::now());
        lock.store();
        drop(lock);
        let lock = Lock::acquire(root.path(), soon()).unwrap();
        assert_eq!(lock.memory.stopping(MonotonicTime::now()), [101].into());
    }

    #[test]
    fn a_shorter_text_leaves_nothing_of_a_longer_one_and_a_longer_one_is_read_whole() {
        let root = tree();
        let mut lock = Lock::acquire(root.path(), soon()).unwrap();
        for vmid in 100..600 {
            let life = (vmid..vmid + 10).collect();
            lock.memory
                .stops(Vmid::new(vmid).unwrap(), &life, MonotonicTime::now());
        }
        lock.store();
        let long = lock.memory.clone();
        assert_eq!(LockFile::open(root.path()).unwrap().peek(), long);
        lock.memory = Memory::default();
        lock.store();
        assert_eq!(LockFile::open(root.path()).unwrap().peek(), lock.memory);
        // Somebody reads between the two steps of a write.
        let short = std::fs::read(root.path().join(PATH)).unwrap();
        let path = root.path().join(PATH);
        std::fs::write(&path, [short.as_slice(), b"}}rest"].concat()).unwrap();
        assert_eq!(LockFile::open(root.path()).unwrap().peek(), lock.memory);
    }

    #[test]
    fn who_holds_it_knows() {
        let root = tree();
        assert!(!is_held());
        let lock = Lock::acquire(root.path(), soon()).unwrap();
        assert!(is_held());
        let file = lock.release().unwrap();
        assert!(!is_held());
        assert!(file.lock(soon()).unwrap().at_once);
        assert!(!is_held());
    }
}
