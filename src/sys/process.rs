//! A child process, and the one loop that waits for it: poll(2) over its pipes and its pidfd, until a deadline.
//!
//! Everything else that runs children is made from this: programs ([`super::program`]), work whose result counts
//! ([`super::isolated`]), a hook's work ([`super::supervise`]), the editor ([`super::terminal`]). The service adds
//! [`Child::fds`] to its own poll(2). A hookscript that comes after ours is no child: it replaces this process.
//!
//! What may hang is a child's work and not a thread's: a read from a hung FUSE file system cannot be interrupted once
//! the request is with its daemon (fs/fuse/dev.c, `request_wait_answer`), not even by SIGKILL, and a process is not over
//! before all its threads are. So nothing here waits for a child's end without a deadline.

mod fork;
mod syscalls;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::progress::Waiting;
use super::write::remaining;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code.
    Exited(i32),
    /// By a signal.
    Killed(Signal),
}

/// A child process.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    /// Where signals to it go: to its process group, if it has one of its own.
    target: Pid,
    pub(crate) began: Instant,
    state: State,
    /// Where it reads, and what it has not read yet; none when it has all.
    input: Option<(File, VecDeque<u8>)>,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
    /// What forked work writes to the file that it is given.
    pub(crate) report: Output,
    waiting: Waiting,
}

#[derive(Debug)]
enum State {
    /// Its pidfd (pidfd_open(2), Linux 5.3) can be read when it has ended.
    Running(OwnedFd),
    /// It is reaped.
    Ended(Ended),
}

/// The most that is kept of what a child writes into a pipe, in bytes; the rest is read and forgotten.
const MOST: usize = 64 << 20;

/// How long one that has been sent SIGKILL is waited for.
const LAST_WAIT: Duration = Duration::from_millis(200);

/// How much is read from a pipe at once, and how often without a look at the other ones: together more than it holds.
const PIECE: usize = 16 << 10;
const PIECES: usize = 16;

impl Child {
    /// Starts a program in this process's group, with the pipes that the command asks for.
    ///
    /// # Errors
    /// It cannot be started, or has no pidfd and is killed.
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        syscalls::default_sigchld()?;
        let mut child = command.spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        let [stdin, stdout, stderr] = [
            child.stdin.take().map(OwnedFd::from),
            child.stdout.take().map(OwnedFd::from),
            child.stderr.take().map(OwnedFd::from),
        ];
        Self::new(pid, stdin, [None, stdout, stderr])
    }

    /// Starts a program in a process group of its own, so that what it starts ends with it, and writes `input` to it.
    ///
    /// # Errors
    /// As for [`Child::spawn`].
    pub(super) fn spawn_group(command: &mut Command, input: &[u8]) -> io::Result<Self> {
        let mut child = Self::spawn(command.process_group(0))?;
        child.target = Pid::from_raw(-child.pid.as_raw());
        if let Some((_, rest)) = &mut child.input {
            rest.extend(input);
        }
        Ok(child)
    }

    /// A child that has just been started. One that cannot be watched is killed: nobody could tell when it ends.
    fn new(
        pid: Pid,
        stdin: Option<OwnedFd>,
        [report, stdout, stderr]: [Option<OwnedFd>; 3],
    ) -> io::Result<Self> {
        let new = || {
            let pidfd = syscalls::pidfd_open(pid)
                .map_err(|errno| io::Error::other(format!("pidfd_open: {errno}")))?;
            Ok(Self {
                pid,
                target: pid,
                began: Instant::now(),
                state: State::Running(pidfd),
                input: stdin
                    .map(never_waiting)
                    .transpose()?
                    .map(|file| (file, VecDeque::new())),
                stdout: Output::new(stdout)?,
                stderr: Output::new(stderr)?,
                report: Output::new(report)?,
                waiting: Waiting::begun(),
            })
        };
        new().inspect_err(|_| {
            let _ = kill(pid, Signal::SIGKILL);
            // It has just begun, so it hangs nowhere.
            let until = Instant::now() + LAST_WAIT;
            while Instant::now() < until
                && waitpid(pid, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive)
            {
                std::thread::sleep(Duration::from_millis(5));
            }
        })
    }

    /// What to poll.
    pub fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let pidfd = match &self.state {
            State::Running(pidfd) => Some(pidfd.as_fd()),
            State::Ended(_) => None,
        };
        let outputs = [&self.report, &self.stdout, &self.stderr];
        let open = outputs.into_iter().filter_map(|it| it.file.as_ref());
        let reading = pidfd.into_iter().chain(open.map(AsFd::as_fd));
        let input = self.input.iter().map(|(file, _)| file.as_fd());
        let writing = input.map(|fd| (fd, PollFlags::POLLOUT));
        reading.map(|fd| (fd, PollFlags::POLLIN)).chain(writing)
    }

    /// Waits until there is something to read or write or it has ended, or the one beside it can be read. Is there time left?
    pub(super) fn wait(&mut self, beside: Option<BorrowedFd<'_>>, until: Instant) -> bool {
        let beside = beside.map(|fd| (fd, PollFlags::POLLIN));
        let mut fds: Vec<PollFd<'_>> = self
            .fds()
            .chain(beside)
            .map(|(fd, flags)| PollFd::new(fd, flags))
            .collect();
        // What it fails for is a signal.
        let _ = poll(&mut fds, remaining(until));
        self.update();
        Instant::now() < until
    }

    /// Waits for its end, for so long at most.
    pub fn finish(&mut self, patience: Duration) {
        let until = Instant::now() + patience;
        while self.ended().is_none() && self.wait(None, until) {}
    }

    /// Reads and writes what can be without waiting, and reaps it if it has ended.
    pub fn update(&mut self) {
        self.input
            .take_if(|(file, rest)| write(file, rest).is_break());
        // The report first: what was written to the others before the report's last byte is then read too.
        self.report.read();
        self.waiting.take(&mut self.report.text);
        self.stdout.read();
        self.stderr.read();
        if let State::Running(pidfd) = &self.state {
            let ended = match waitid(
                Id::PIDFd(pidfd.as_fd()),
                WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG,
            ) {
                Ok(WaitStatus::StillAlive) => return,
                Ok(WaitStatus::Exited(_, code)) => Ended::Exited(code),
                Ok(WaitStatus::Signaled(_, signal, _)) => Ended::Killed(signal),
                // Nobody else reaps it, so what is left is a realtime signal, which has no name here.
                Ok(_) | Err(_) => Ended::Killed(Signal::SIGKILL),
            };
            self.state = State::Ended(ended);
        }
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<Ended> {
        match self.state {
            State::Running(_) => None,
            State::Ended(ended) => Some(ended),
        }
    }

    /// Is there nothing more to read?
    pub fn is_closed(&self) -> bool {
        let outputs = [&self.report, &self.stdout, &self.stderr];
        outputs.into_iter().all(|output| output.file.is_none())
    }

    /// Has it ended, and is there nothing more to read?
    pub(super) fn is_over(&self) -> bool {
        self.is_closed() && self.ended().is_some()
    }

    pub(crate) fn pid(&self) -> u32 {
        u32::try_from(self.pid.as_raw()).unwrap_or_default()
    }

    /// When it will have been in what may hang for so long; nothing if it is not.
    pub fn hangs_at(&self, patience: Duration) -> Option<Instant> {
        self.waiting.until(patience)
    }

    /// Has it said that it need not be waited for?
    pub(super) fn may_be_left(&self) -> bool {
        self.waiting.is_over()
    }

    pub(super) fn signal(&self, signal: Signal) {
        if self.ended().is_none() {
            let _ = kill(self.target, signal);
        }
    }

    /// Sends SIGKILL and waits a moment, so that nothing of it is left. One that is within a system call that cannot be
    /// interrupted ends later, and is then init's.
    pub(super) fn end(&mut self) {
        self.kill();
        self.finish(LAST_WAIT);
    }

    /// Sends SIGKILL, and listens no longer. What hangs within the kernel ends later.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.input = None;
        for output in [&mut self.report, &mut self.stdout, &mut self.stderr] {
            output.file = None;
        }
    }
}

/// Writes what the reader takes; breaks when there is no more to write, or it does not want to know the rest: why, it says.
fn write(file: &mut File, rest: &mut VecDeque<u8>) -> ControlFlow<()> {
    match file.write(rest.as_slices().0) {
        Ok(count) => drop(rest.drain(..count)),
        Err(error) if is_passing(&error) => {}
        Err(_) => return ControlFlow::Break(()),
    }
    if rest.is_empty() {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

/// What comes out of a pipe.
#[derive(Debug)]
pub struct Output {
    /// Until its end.
    file: Option<File>,
    text: Vec<u8>,
    pub(super) most: usize,
}

impl Output {
    fn new(pipe: Option<OwnedFd>) -> io::Result<Self> {
        Ok(Self {
            file: pipe.map(never_waiting).transpose()?,
            text: Vec::new(),
            most: MOST,
        })
    }

    /// What has arrived, and not been taken.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.text)
    }

    fn read(&mut self) {
        let mut piece = [0; PIECE];
        for _ in 0..PIECES {
            let Some(file) = &mut self.file else { return };
            match file.read(&mut piece) {
                Ok(0) => self.file = None,
                Ok(count) => {
                    let room = self.most.saturating_sub(self.text.len());
                    self.text
                        .extend(piece.get(..count.min(room)).unwrap_or_default());
                }
                Err(error) if is_passing(&error) => return,
                Err(_) => self.file = None,
            }
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn never_waiting(pipe: OwnedFd) -> io::Result<File> {
    let flags = OFlag::from_bits_retain(fcntl(&pipe, FcntlArg::F_GETFL)?);
    fcntl(&pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(pipe.into())
}
