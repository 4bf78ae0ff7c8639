//! One reconcile at a time on a node, and as few as possible.
//!
//! `/run/pve-span.lock` is held (flock(2)) while a reconcile runs, and holds two things that the next
//! one wants to know: when the last good one began, so that who waited for it has nothing left to do;
//! and which guests have just been announced as stopping, so that another guest's hook does not put
//! their mirrors back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::core::model::Vmid;
use crate::files;

/// The lock, below the root directory.
pub const PATH: &str = "run/pve-span.lock";

/// How long a guest counts as stopping after its pre-stop. A shutdown that the guest refuses leaves
/// it running, and then its mirror has to come back.
pub const STOPPING: Duration = Duration::from_secs(5);

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
}

/// A moment on a clock that all processes share and nobody sets, in nanoseconds since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Moment(u64);

impl Moment {
    /// Now.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME)
            .map(Duration::from)
            .unwrap_or_default();
        Self(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
    }

    fn after(self, time: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// How far a reconcile has looked for guests' configs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reach {
    /// This node's, and those that the hook's caller named.
    Node,
    /// Wherever in the cluster they are filed.
    Cluster,
}

/// What the lock remembers between its holders.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Who wrote this.
    #[serde(default)]
    pid: Option<u32>,
    /// When the last reconcile that succeeded began, for which guests as gone, and how far it looked.
    #[serde(default)]
    last: Option<(Moment, BTreeSet<u32>, Reach)>,
    /// Guests that were announced as stopping, and until when that counts.
    #[serde(default)]
    stopping: BTreeMap<u32, Moment>,
}

impl Memory {
    /// The guests that count as stopping now.
    pub fn stopping(&self, now: Moment) -> BTreeSet<u32> {
        self.stopping
            .iter()
            .filter(|(_, until)| **until > now && **until <= now.after(STOPPING))
            .map(|(vmid, _)| *vmid)
            .collect()
    }

    /// How long it takes until one of them no longer does.
    pub fn settles_in(&self, now: Moment) -> Option<Duration> {
        let until = self.stopping.values().filter(|until| **until > now).min()?;
        Some(Duration::from_nanos(until.0.saturating_sub(now.0)).min(STOPPING))
    }

    /// What the last holder of the lock left, without waiting for the lock.
    pub fn peek(root: &Path) -> Self {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(root.join(PATH));
        file.map(|mut file| read(&mut file)).unwrap_or_default()
    }

    /// Notes that a guest is about to stop.
    pub fn stops(&mut self, vmid: Vmid, now: Moment) {
        self.stopping.insert(vmid.get(), now.after(STOPPING));
    }

    /// Notes that a guest is no longer about to stop: it has, or it has started.
    pub fn settled(&mut self, vmid: Vmid) {
        self.stopping.remove(&vmid.get());
    }

    /// Forgets all announcements.
    pub fn forget(&mut self) {
        self.stopping.clear();
    }

    /// Has a reconcile that began after `arrival` and looked as far already done, for the same guests as gone, what
    /// the one that arrived then would do?
    pub fn covers(&self, arrival: Moment, now: Moment, gone: &BTreeSet<u32>, reach: Reach) -> bool {
        self.last
            .as_ref()
            .is_some_and(|(began, last_gone, last_reach)| {
                (arrival..=now).contains(began) && last_gone == gone && *last_reach >= reach
            })
    }

    /// Notes a reconcile that succeeded.
    pub fn succeeded(&mut self, began: Moment, gone: BTreeSet<u32>, reach: Reach) {
        self.last = Some((began, gone, reach));
    }

    /// Notes that the last reconcile counts for nothing.
    pub fn failed(&mut self) {
        self.last = None;
    }
}

/// The lock, held until dropped.
#[derive(Debug)]
pub struct Lock {
    file: Flock<File>,
    /// What it remembers; [`Lock::store`] writes it.
    pub memory: Memory,
}

impl Lock {
    /// Waits for the lock, until the deadline at most.
    ///
    /// # Errors
    /// The file cannot be opened, or somebody else holds it all the time.
    pub fn acquire(root: &Path, deadline: Instant) -> Result<Self, Error> {
        let path = root.join(PATH);
        let open = |source| Error::Open {
            path: path.clone(),
            source,
        };
        let mut file = open_or_make(&path).map_err(open)?;
        let began = Instant::now();
        let mut pause = Duration::from_micros(200);
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut locked) => {
                    if is_current(&locked, &path) {
                        let memory = read(&mut locked);
                        return Ok(Self {
                            file: locked,
                            memory,
                        });
                    }
                    // Somebody removed it, and whoever comes next makes a new one.
                    drop(locked);
                    if Instant::now() >= deadline {
                        return Err(open(io::ErrorKind::NotFound.into()));
                    }
                    file = open_or_make(&path).map_err(open)?;
                }
                Err((mut back, nix::errno::Errno::EWOULDBLOCK | nix::errno::Errno::EINTR)) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        let holder = read(&mut back).pid;
                        return Err(Error::Busy {
                            path,
                            waited: began.elapsed(),
                            holder,
                        });
                    }
                    file = back;
                    std::thread::sleep(pause.min(left));
                    pause = (pause * 2).min(Duration::from_millis(10));
                }
                Err((_, errno)) => return Err(open(errno.into())),
            }
        }
    }

    /// Writes the memory for the next holder.
    pub fn store(&mut self) {
        let now = Moment::now();
        self.memory.stopping.retain(|_, until| *until > now);
        self.memory.pid = Some(std::process::id());
        let text = serde_json::to_string(&self.memory).unwrap_or_default();
        let file: &mut File = &mut self.file;
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(text.as_bytes()));
        if let Err(error) = written {
            // The next holder then reconciles once more than it had to.
            log::warn!("cannot write {PATH}: {error}");
        }
    }
}

/// Opens the lock, and makes it if it is not there: for root alone, or another user could hold it.
pub(crate) fn open_or_make(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)?;
    files::close_to_others(&file)?;
    Ok(file)
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
fn read(file: &mut File) -> Memory {
    let mut text = String::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(1 << 20).read_to_string(&mut text));
    read.ok()
        .and_then(|_| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("run")).unwrap();
        root
    }

    fn soon() -> Instant {
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
    fn work_that_began_after_the_arrival_covers_it() {
        let mut memory = Memory::default();
        let gone = BTreeSet::new();
        memory.succeeded(Moment(10), gone.clone(), Reach::Node);
        assert!(memory.covers(Moment(9), Moment(20), &gone, Reach::Node));
        assert!(
            !memory.covers(Moment(9), Moment(20), &gone, Reach::Cluster),
            "a guest that comes in may be filed elsewhere"
        );
        assert!(
            !memory.covers(Moment(11), Moment(20), &gone, Reach::Node),
            "it may have missed what happened since"
        );
        assert!(
            !memory.covers(Moment(9), Moment(20), &[101].into(), Reach::Node),
            "another guest counted as gone"
        );
        assert!(
            !memory.covers(Moment(3), Moment(8), &gone, Reach::Node),
            "it cannot have begun later than now"
        );
        memory.failed();
        assert!(!memory.covers(Moment(9), Moment(20), &gone, Reach::Node));
    }

    #[test]
    fn a_guest_counts_as_stopping_for_a_while() {
        let mut memory = Memory::default();
        let (now, vmid) = (Moment(5), Vmid::new(101).unwrap());
        memory.stops(vmid, now);
        assert_eq!(memory.stopping(now), [101].into());
        assert_eq!(memory.stopping(now.after(STOPPING)), [].into());
        memory.settled(vmid);
        assert_eq!(memory.stopping(now), [].into());
    }

    #[test]
    fn what_is_remembered_survives_and_garbage_does_no_harm() {
        let root = tree();
        std::fs::write(root.path().join(PATH), "garbage").unwrap();
        let mut lock = Lock::acquire(root.path(), soon()).unwrap();
        assert_eq!(lock.memory, Memory::default());
        lock.memory.stops(Vmid::new(101).unwrap(), Moment::now());
        lock.store();
        drop(lock);
        let lock = Lock::acquire(root.path(), soon()).unwrap();
        assert_eq!(lock.memory.stopping(Moment::now()), [101].into());
    }
}
