//! Looks at /etc/pve in a child process, once each time it is asked: other nodes' writes are announced to nobody, and
//! who reads from a hung FUSE file system hangs with it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::unistd::pipe2;

use crate::pve::{Pve, SPAN_CFG};
use crate::reconcile::lock::{LockFile, readers};
use crate::sys::files;
use crate::sys::process::Child;

/// The process that looks.
#[derive(Debug)]
pub struct ConfigPoller {
    child: Child,
    questions: File,
    /// Since when there is no answer.
    asked: Option<Instant>,
    /// What was mounted at /etc/pve then.
    mount: Option<u32>,
}

/// What it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nothing has arrived.
    Nothing,
    /// It is as it was, and /etc/pve is mounted.
    Same,
    /// It is as it was, and /etc/pve is not mounted.
    Unmounted,
    /// It has changed; or this was the first look.
    Changed,
    /// The process has ended.
    Ended,
}

const SAME: u8 = b's';
const UNMOUNTED: u8 = b'u';
const CHANGED: u8 = b'c';

impl ConfigPoller {
    /// Starts the process.
    ///
    /// # Errors
    /// There can be none.
    pub fn start(root: &Path) -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // The child reads blocking.
        let questions = File::from(read);
        nix::fcntl::fcntl(&questions, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty()))?;
        let child = Child::fork(Some(questions), |report| {
            answer_questions(root, report);
            0
        })?;
        Ok(Self {
            child,
            questions: File::from(write),
            asked: None,
            mount: None,
        })
    }

    /// Asks, unless it is at work.
    pub fn ask(&mut self, mount: Option<u32>) {
        if self.asked.is_none() && self.questions.write_all(b"?").is_ok() {
            self.asked = Some(Instant::now());
            self.mount = mount;
        }
    }

    /// What was mounted at /etc/pve when it was asked last.
    pub fn mount(&self) -> Option<u32> {
        self.mount
    }

    /// Since when there is no answer.
    pub fn asked(&self) -> Option<Instant> {
        self.asked
    }

    /// What to poll.
    pub fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        self.child.fds()
    }

    /// Reads what has arrived.
    pub fn read(&mut self) -> Answer {
        self.child.update();
        drop((self.child.stdout.take(), self.child.stderr.take()));
        let answers = self.child.report.take();
        if !answers.is_empty() {
            self.asked = None;
        }
        if answers.contains(&CHANGED) {
            Answer::Changed
        } else if self.child.is_closed() {
            Answer::Ended
        } else if answers.is_empty() {
            Answer::Nothing
        } else if answers.ends_with(&[UNMOUNTED]) {
            Answer::Unmounted
        } else {
            Answer::Same
        }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// The process alone, which is asked nothing any more.
    pub fn into_child(self) -> Child {
        self.child
    }

    /// Has the process ended?
    pub fn has_ended(&self) -> bool {
        self.child.ended().is_some()
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill();
    }
}

/// The child's life: until the service closes the pipe.
fn answer_questions(root: &Path, mut report: File) {
    let pve = Pve::new(root);
    let mut stdin = io::stdin();
    let mut last: Option<Stamp> = None;
    let mut round: u64 = 0;
    let mut touched = Instant::now();
    let mut question = [0; 1];
    while matches!(stdin.read(&mut question), Ok(1)) {
        // The whole list now and then: that its number grows with it is pmxcfs's habit, not its promise.
        let old = last.as_ref().filter(|_| round % 10 != 0);
        let text = if touched.elapsed() < GRAIN {
            Text::Read
        } else {
            Text::AsBefore
        };
        let take = || Stamp::take(&pve, old, text);
        // One that hangs can be told by others to do so.
        let stamp = readers::marked(LockFile::open(root).ok().as_ref(), take);
        round += 1;
        if last.as_ref().is_none_or(|last| last.time() != stamp.time()) {
            touched = Instant::now();
        }
        let answer = match &stamp.versions {
            _ if last.as_ref() != Some(&stamp) => CHANGED,
            Some(_) => SAME,
            None => UNMOUNTED,
        };
        last = Some(stamp);
        if report.write_all(&[answer]).is_err() {
            return;
        }
    }
}

/// For how long after a file's time has changed its text is read at each look: pmxcfs's times have whole seconds, so who
/// writes twice within one leaves the same time, and, in place, the same inode.
const GRAIN: Duration = Duration::from_secs(3);

/// How to know what span.cfg says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    /// Its time, size and inode tell.
    AsBefore,
    /// They do not, yet.
    Read,
}

/// What tells that something in /etc/pve has changed.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    versions: Option<Vec<u8>>,
    guests: Option<Vec<u8>>,
    span_cfg: Option<Time>,
    text: Option<Vec<u8>>,
}

/// A file's mtime in seconds and nanoseconds, size and inode.
type Time = (i64, i64, u64, u64);

impl Stamp {
    fn time(&self) -> Option<Time> {
        self.span_cfg
    }

    fn take(pve: &Pve, old: Option<&Self>, text: Text) -> Self {
        let versions = files::read_bytes(&pve.path(".version"))
            .ok()
            .map(|text| relevant(&text));
        let guests = match old {
            Some(old) if old.versions == versions => old.guests.clone(),
            _ => files::read_bytes(&pve.path(".vmlist")).ok(),
        };
        let span_cfg = std::fs::metadata(pve.path(SPAN_CFG)).ok();
        let span_cfg =
            span_cfg.map(|file| (file.mtime(), file.mtime_nsec(), file.size(), file.ino()));
        let text = match old {
            Some(old) if text == Text::AsBefore && old.span_cfg == span_cfg => old.text.clone(),
            _ => files::read_bytes(&pve.path(SPAN_CFG)).ok(),
        };
        Self {
            versions,
            guests,
            span_cfg,
            text,
        }
    }
}

/// The counters that matter. Others, of nodes' and services' states, change every few seconds.
fn relevant(text: &[u8]) -> Vec<u8> {
    const COUNTERS: [&str; 4] = ["starttime", "clinfo", "vmlist", "user.cfg"];
    match serde_json::from_slice::<serde_json::Value>(text) {
        Ok(all) => COUNTERS
            .map(|name| all.get(name).map(ToString::to_string).unwrap_or_default())
            .join(" ")
            .into_bytes(),
        Err(_) => text.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_writes_in_place_within_a_second_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let pve = Pve::new(root.path());
        let path = pve.path(SPAN_CFG);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let write = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
                .unwrap();
        };
        write("[dmz]\nsource = 101\n");
        let first = Stamp::take(&pve, None, Text::Read);
        write("[dmz]\nsource = 102\n");
        let second = Stamp::take(&pve, Some(&first), Text::Read);
        assert_eq!(first.time(), second.time(), "or nothing is tested");
        assert_ne!(first, second);
        assert_eq!(second, Stamp::take(&pve, Some(&second), Text::AsBefore));
    }

    #[test]
    fn other_counters_do_not_matter() {
        let with = |text: &str| relevant(text.as_bytes());
        let one = r#"{"starttime": 1, "clinfo": 2, "vmlist": 3, "user.cfg": 4, "kvstore": {"pve1": {"nodestatus": 5}}}"#;
        assert_eq!(with(one), with(&one.replace('5', "6")));
        assert_ne!(with(one), with(&one.replace('3', "7")));
        assert_ne!(with("{"), with("{{"));
    }
}
