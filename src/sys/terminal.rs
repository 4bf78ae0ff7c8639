//! At an administrator's terminal: their editor, and questions. Signals arrive as answers, so that what they have
//! written is not lost without a word.
//!
//! The editor stays in this process's group: another one could not read from the terminal.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::read;

use super::process::{Child, Ended};

/// Signals that would end us.
const SIGNALS: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGHUP,
];

/// Longer than anybody edits without a break; then the editor is waited for anew.
const FOREVER: Duration = Duration::from_secs(86400);

/// How long an editor may take to put its things in order, when we are told to end.
const GRACE: Duration = Duration::from_secs(2);

/// A terminal, while signals are held back.
#[derive(Debug)]
pub struct Terminal {
    signals: SignalFd,
    before: SigSet,
}

/// How a program at the terminal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Without us.
    Ended(Ended),
    /// We were told to end by a signal, and so was it.
    Told(Signal),
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This line, in lower case and without outer blanks.
    Line(String),
    /// Nobody is there any more.
    Nobody,
}

impl Terminal {
    /// Holds signals back from now on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open() -> io::Result<Self> {
        let mask = SigSet::from_iter(SIGNALS);
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), Some(&mut before))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&mask, flags)?;
        Ok(Self { signals, before })
    }

    /// Is somebody there to be asked?
    pub fn is_attended() -> bool {
        io::stdin().is_terminal()
    }

    /// Runs a program with the terminal, to its end. Ctrl-C is the program's own.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, command: &mut Command) -> io::Result<Left> {
        as_before(command, self.before);
        let mut child = Child::spawn(command)?;
        loop {
            while let Ok(Some(signal)) = self.signals.read_signal() {
                let told = signal_of(signal.ssi_signo);
                if let Some(told @ (Signal::SIGTERM | Signal::SIGHUP)) = told {
                    child.signal(told);
                    child.finish(GRACE);
                    child.end();
                    return Ok(Left::Told(told));
                }
            }
            if let Some(ended) = child.ended() {
                return Ok(Left::Ended(ended));
            }
            child.wait(Some(self.signals.as_fd()), Instant::now() + FOREVER);
        }
    }

    /// Waits for a line. A signal, or the terminal's end, is nobody's answer.
    pub fn answer(&self) -> Answer {
        let stdin = io::stdin();
        let mut line = Vec::new();
        loop {
            let asked = [
                PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            if wait(&asked, PollTimeout::NONE).is_err() {
                return Answer::Nobody;
            }
            if let Ok(Some(_)) = self.signals.read_signal() {
                return Answer::Nobody;
            }
            let is_ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
            if !matches!(wait(&is_ready, PollTimeout::ZERO), Ok(1..)) {
                continue;
            }
            // A terminal gives a line at most; what is typed ahead stays there for the next question.
            let mut piece = [0; 256];
            match read(&stdin, &mut piece) {
                Ok(0) | Err(_) => return Answer::Nobody,
                Ok(count) => line.extend_from_slice(piece.get(..count).unwrap_or_default()),
            }
            if line.ends_with(b"\n") || line.len() > 4096 {
                let text = String::from_utf8_lossy(&line);
                return Answer::Line(text.trim().to_lowercase());
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // What is still waiting has been meant for what is over now.
        while let Ok(Some(_)) = self.signals.read_signal() {}
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}

/// The program gets the signals that we were to get.
#[allow(unsafe_code)]
fn as_before(command: &mut Command, before: SigSet) {
    let restore = move || {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
        Ok(())
    };
    // SAFETY: between fork and exec it calls sigprocmask(2) alone, which may be called there (signal-safety(7)).
    unsafe { command.pre_exec(restore) };
}

fn signal_of(number: u32) -> Option<Signal> {
    Signal::try_from(i32::try_from(number).ok()?).ok()
}

fn wait(fds: &[PollFd<'_>], timeout: PollTimeout) -> Result<i32, Errno> {
    let mut fds = fds.to_vec();
    match poll(&mut fds, timeout) {
        Err(Errno::EINTR) => Ok(0),
        result => result,
    }
}
