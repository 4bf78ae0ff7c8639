//! Who reads in /etc/pve, and whose turn it is.
//!
//! A process that hangs there can neither be interrupted nor killed, and whatever it holds is held for as long. So it
//! never holds the lock. It holds two marks, which are locks on bytes of the same file far beyond its end (fcntl(2),
//! "Open file description locks"), and which go with the process:
//!
//! - *it reads*: a byte of its own, by its process id. So others can tell whether a process that hung still does.
//! - *its turn*: one for the node. Who reconciles reads in turn, and keeps the turn until it has the lock. So nobody's
//!   reading is followed by one that is older.
//!
//! Both are marks on one mount of /etc/pve, by its device number: who hangs in one that was unmounted, lazily as it has to
//! be then, says nothing about the next one.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, c_int, c_short, off_t};

use super::{Error, FIRST_PAUSE, LONGEST_PAUSE, Lock, LockFile};

/// The first byte of the turn on the first device. Its length says whose it is.
const TURN: off_t = 1 << 44;
/// The first process's byte on the first device.
const READS: off_t = 1 << 45;
/// How many bytes there are for each device: more than there are process ids (at most 2²², proc(5), `pid_max`). There are at
/// most 2²⁰ devices.
const EACH: off_t = 1 << 23;

/// How long another process may be in /etc/pve, while it is waited for, until it counts as hung.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whose turn it is to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Ours, until it is ended or the file is closed.
    Ours,
    /// Nobody's: this process hangs in /etc/pve.
    Hung(u32),
}

impl LockFile {
    /// Does what may hang in /etc/pve, and is marked as reading there meanwhile.
    pub fn while_reading<T>(&self, work: impl FnOnce() -> T) -> T {
        let mark = self.byte_of(std::process::id());
        // A lock for reading is one that a file has also if it is open for reading only.
        let _ = set(&self.file, libc::F_RDLCK, mark, 1);
        let result = work();
        let _ = set(&self.file, libc::F_UNLCK, mark, 1);
        result
    }

    /// The process that was found to hang in /etc/pve and still does.
    pub fn hung(&self) -> Option<u32> {
        self.peek().hung.filter(|pid| self.is_reading(*pid))
    }

    /// Waits for the turn to read, until the deadline at most; not for one that hangs. `waits` is called if it has to
    /// wait.
    ///
    /// # Errors
    /// Others have had it all the time.
    pub fn take_turn(&self, deadline: Instant, waits: impl Fn()) -> Result<Turn, Error> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut reader: Option<(u32, Instant)> = None;
        loop {
            if let Some(pid) = self.hung() {
                return Ok(Turn::Hung(pid));
            }
            let length = off_t::from(std::process::id()) + 1;
            let turn = TURN + self.mount * EACH;
            match set(&self.file, libc::F_WRLCK, turn, length) {
                Err(Errno::EAGAIN | Errno::EACCES | Errno::EINTR) => {}
                // Where there are no such locks it goes without.
                _ => return Ok(Turn::Ours),
            }
            waits();
            let now = Instant::now();
            let holder = holder(&self.file, turn, EACH)
                .and_then(|found| u32::try_from(found.l_len - 1).ok());
            reader = match (holder.filter(|pid| self.is_reading(*pid)), reader) {
                (Some(pid), Some((last, since))) if pid == last => {
                    if now.duration_since(since) >= PATIENCE {
                        return Ok(Turn::Hung(pid));
                    }
                    reader
                }
                (found, _) => found.map(|pid| (pid, now)),
            };
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() {
                return Err(Error::Reading {
                    waited: began.elapsed(),
                    reader: holder,
                });
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Is this process reading in /etc/pve, as it is mounted now?
    pub fn is_reading(&self, pid: u32) -> bool {
        holder(&self.file, self.byte_of(pid), 1).is_some()
    }

    fn byte_of(&self, pid: u32) -> off_t {
        READS + self.mount * EACH + off_t::from(pid)
    }
}

/// The same where there may be no such file to mark.
pub fn marked<T>(file: Option<&LockFile>, work: impl FnOnce() -> T) -> T {
    match file {
        Some(file) => file.while_reading(work),
        None => work(),
    }
}

/// Does this child, which says nothing any more, hang in /etc/pve as it is mounted now? Where that cannot be told, it does.
pub fn hangs(root: &Path, pid: u32) -> bool {
    LockFile::existing(root).is_none_or(|file| file.is_reading(pid))
}

impl Lock {
    /// Lets others read in /etc/pve, if it is our turn.
    pub fn end_turn(&mut self) {
        let _ = set(&self.file, libc::F_UNLCK, TURN, READS - TURN);
    }
}

fn range(kind: c_int, start: off_t, length: off_t) -> libc::flock {
    libc::flock {
        l_type: c_short::try_from(kind).unwrap_or_default(),
        l_whence: c_short::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: start,
        l_len: length,
        // Must be so for locks of an open file description.
        l_pid: 0,
    }
}

fn set(file: &File, kind: c_int, start: off_t, length: off_t) -> Result<(), Errno> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&range(kind, start, length))).map(drop)
}

/// Another's lock within the range.
fn holder(file: &File, start: off_t, length: off_t) -> Option<libc::flock> {
    let mut asked = range(libc::F_WRLCK, start, length);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut asked)).ok()?;
    let is_free = c_int::from(asked.l_type) == libc::F_UNLCK;
    (!is_free).then_some(asked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::lock::tests::{soon, tree};

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn one_reads_at_a_time_and_the_turn_says_whose_it_is() {
        let root = tree();
        let first = LockFile::open(root.path()).unwrap();
        let second = LockFile::open(root.path()).unwrap();
        assert_eq!(first.take_turn(soon(), || {}).unwrap(), Turn::Ours);
        assert_eq!(
            first.take_turn(soon(), || {}).unwrap(),
            Turn::Ours,
            "it is ours"
        );
        let Err(Error::Reading { reader, .. }) = second.take_turn(soon(), || {}) else {
            panic!("it has the other's turn");
        };
        assert_eq!(reader, Some(std::process::id()));
        // It is kept until the lock is had.
        let mut lock = first.lock(soon()).unwrap();
        assert!(second.take_turn(soon(), || {}).is_err());
        lock.end_turn();
        assert_eq!(second.take_turn(soon(), || {}).unwrap(), Turn::Ours);
        drop(second);
        let third = LockFile::open(root.path()).unwrap();
        assert_eq!(third.take_turn(soon(), || {}).unwrap(), Turn::Ours);
    }

    #[test]
    fn one_that_was_found_to_hang_is_not_waited_for_and_counts_while_it_does() {
        let root = tree();
        let reader = LockFile::open(root.path()).unwrap();
        let other = LockFile::open(root.path()).unwrap();
        let pid = std::process::id();
        let mut lock = Lock::acquire(root.path(), soon()).unwrap();
        lock.memory.hung = Some(pid);
        lock.store();
        drop(lock);
        assert_eq!(other.hung(), None, "it does not read");
        reader.while_reading(|| {
            assert_eq!(other.hung(), Some(pid));
            assert_eq!(other.take_turn(soon(), || {}).unwrap(), Turn::Hung(pid));
        });
        assert_eq!(other.take_turn(soon(), || {}).unwrap(), Turn::Ours);
    }

    #[test]
    fn one_that_nobody_has_found_to_hang_is_waited_for_once() {
        let root = tree();
        let reader = LockFile::open(root.path()).unwrap();
        assert_eq!(reader.take_turn(soon(), || {}).unwrap(), Turn::Ours);
        let other = LockFile::open(root.path()).unwrap();
        reader.while_reading(|| {
            let pid = std::process::id();
            assert_eq!(other.take_turn(later(), || {}).unwrap(), Turn::Hung(pid));
        });
    }
}
