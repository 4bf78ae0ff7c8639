//! Work in a child process while this one goes on: what it says arrives through pipes, and what hangs in it can be
//! left behind.
//!
//! The same reason as in `supervise`: a read from a hung FUSE file system cannot be interrupted, and a process in it
//! not ended.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, pipe2};

use super::progress::Waiting;
use super::supervise::{become_child, default_sigchld, fork};

/// A child at work.
#[derive(Debug)]
pub struct Job {
    pid: Pid,
    /// When it was started.
    pub began: Instant,
    stdout: Pipe,
    stderr: Pipe,
    waiting: Waiting,
    ended: bool,
}

#[derive(Debug)]
struct Pipe {
    file: Option<File>,
    text: Vec<u8>,
}

/// The most that is kept of what a child says, in bytes.
const MOST: usize = 64 << 20;

impl Job {
    /// Starts `work` in a child, with `stdin` if it is to be asked something. What it writes on stdout and stderr is
    /// collected here.
    ///
    /// Must be called while the process has one thread only.
    ///
    /// # Errors
    /// There can be no child; nothing was done.
    pub fn start(stdin: Option<File>, work: impl FnOnce()) -> Result<Self, Errno> {
        default_sigchld()?;
        let (out_read, out_write) = pipe2(OFlag::O_CLOEXEC)?;
        let (err_read, err_write) = pipe2(OFlag::O_CLOEXEC)?;
        match fork()? {
            ForkResult::Child => {
                drop((out_read, err_read));
                let begun = become_child(stdin, out_write, err_write, None).is_ok()
                    // The parent reads its signals from a descriptor; here they are to end the process again.
                    && sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).is_ok();
                let ended =
                    begun && std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_ok();
                std::process::exit(i32::from(!ended));
            }
            ForkResult::Parent { child } => {
                drop((out_write, err_write));
                Ok(Self {
                    pid: child,
                    began: Instant::now(),
                    stdout: Pipe::new(out_read.into())?,
                    stderr: Pipe::new(err_read.into())?,
                    waiting: Waiting::begun(),
                    ended: false,
                })
            }
        }
    }

    /// What to poll for reading.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.stdout, &self.stderr]
            .into_iter()
            .filter_map(|pipe| pipe.file.as_ref().map(AsFd::as_fd))
    }

    /// Reads what has arrived. Has the child closed both pipes?
    pub fn read(&mut self) -> bool {
        self.stdout.read();
        self.stderr.read();
        self.waiting.take(&mut self.stdout.text);
        self.stdout.file.is_none() && self.stderr.file.is_none()
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        u32::try_from(self.pid.as_raw()).unwrap_or_default()
    }

    /// When it will have been in what may hang for so long; nothing if it is not, or has not said that it is out.
    pub fn hangs_at(&self, patience: Duration) -> Option<Instant> {
        self.waiting.until(patience)
    }

    /// What it has written on stdout so far, and not been taken.
    pub fn take_stdout(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.stdout.text)
    }

    /// What it has written on stderr so far, and not been taken.
    pub fn take_stderr(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.stderr.text)
    }

    /// Has the process ended? Then it is reaped.
    pub fn has_ended(&mut self) -> bool {
        self.ended = self.ended
            || !matches!(
                waitpid(self.pid, Some(WaitPidFlag::WNOHANG)),
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR)
            );
        self.ended
    }

    /// Sends SIGKILL. What hangs within the kernel ends later.
    pub fn kill(&self) {
        if !self.ended {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }
}

impl Pipe {
    fn new(file: File) -> Result<Self, Errno> {
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
        fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self {
            file: Some(file),
            text: Vec::new(),
        })
    }

    fn read(&mut self) {
        let mut piece = vec![0; 64 * 1024];
        while let Some(file) = &mut self.file {
            match file.read(&mut piece) {
                Ok(0) => self.file = None,
                Ok(count) if self.text.len() < MOST => {
                    self.text.extend(piece.get(..count).unwrap_or_default());
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.file = None,
            }
        }
    }
}
