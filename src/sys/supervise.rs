//! Work in a child process, with an end that nothing can put off.
//!
//! A thread would not do: a read from a hung FUSE file system cannot be interrupted once the request
//! is with its daemon (fs/fuse/dev.c, `request_wait_answer`), not even by SIGKILL, and a process is
//! not over before all its threads are. So the work is a child's, which has none of the caller's
//! pipes; the parent touches no file, relays what the child says, and leaves when it is time.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::progress::Waiting;
use super::write::{remaining, write_in_time};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, pipe2};

/// How the work ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It has said that it need not be waited for: it may go on, and nobody hears what it says from then on.
    Done,
    /// By itself, with this exit code.
    Exited(i32),
    /// By a signal.
    Killed(Signal),
    /// Not in time. It has been sent SIGKILL; whatever it hangs in keeps it until then.
    TooLate,
}

/// The most that is kept of an answer, in bytes.
const MOST_ANSWERED: usize = 16 * 1024;

/// Which child it is that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The first one.
    First,
    /// The second one, which is to keep off what the first one, this process, hangs in.
    Instead(u32),
}

/// Until when a child is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The work as a whole.
    pub deadline: Instant,
    /// How long the first child may be in what may hang ([`super::Progress`]) until there is a second one.
    pub hung: Duration,
}

/// Runs `work` in a child and relays its output, until the deadline at most. What the child has written to the file that
/// it is given, however it ended, is the answer. A child that hangs is sent SIGKILL and left behind, and another one
/// does the work.
///
/// Must be called while the process has one thread only.
///
/// # Errors
/// There can be no first child; nothing was done.
pub fn supervise(
    patience: Patience,
    work: impl Fn(Attempt, File) -> i32,
) -> Result<(Ended, Vec<u8>), Errno> {
    default_sigchld()?;
    let deadline = patience.deadline;
    let mut answer = Vec::new();
    let first = start(&work, Attempt::First)?;
    let (mut child, mut relayed) = (
        first.pid,
        first.relay(deadline, Some(patience.hung), &mut answer),
    );
    if relayed == Relayed::Hung {
        let _ = kill(child, Signal::SIGKILL);
        // One that was only slow is reaped, so that nobody finds it still at it.
        let _ = waitpid(child, Some(WaitPidFlag::WNOHANG));
        let hung = u32::try_from(child.as_raw()).unwrap_or_default();
        let Ok(second) = start(&work, Attempt::Instead(hung)) else {
            // What the first one has said still counts.
            return Ok((Ended::TooLate, answer));
        };
        child = second.pid;
        relayed = second.relay(deadline, None, &mut answer);
    }
    let ended = match relayed {
        Relayed::Done => Ended::Done,
        Relayed::All | Relayed::Hung => reap(child, deadline),
    };
    Ok((ended, answer))
}

/// A child, and what is to be relayed of it.
struct Started {
    pid: Pid,
    pipes: [(OwnedFd, Destination); 3],
}

fn start(work: &impl Fn(Attempt, File) -> i32, attempt: Attempt) -> Result<Started, Errno> {
    let (out_read, out_write) = pipe2(OFlag::O_CLOEXEC)?;
    let (err_read, err_write) = pipe2(OFlag::O_CLOEXEC)?;
    let (answer_read, answer_write) = pipe2(OFlag::O_CLOEXEC)?;
    match fork()? {
        ForkResult::Child => {
            let code = if become_child(None, out_write, err_write, Some(&answer_write)).is_ok() {
                let work = || work(attempt, answer_write.into());
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(101)
            } else {
                102
            };
            std::process::exit(code);
        }
        ForkResult::Parent { child } => Ok(Started {
            pid: child,
            pipes: [
                (out_read, Destination::Stdout),
                (err_read, Destination::Stderr),
                (answer_read, Destination::Answer),
            ],
        }),
    }
}

#[allow(unsafe_code)]
pub(super) fn fork() -> Result<ForkResult, Errno> {
    // SAFETY: the caller promises one thread, so no lock can be held by another one in the child.
    unsafe { nix::unistd::fork() }
}

/// A caller that ignores SIGCHLD hands that on, and then a child's end could not be waited for.
#[allow(unsafe_code)]
pub(super) fn default_sigchld() -> Result<(), Errno> {
    // SAFETY: the default disposition runs no code of ours.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map(|_| ())
}

/// Lets go of everything that the caller might wait for, but for the one that is kept. Without a `stdin` there is nothing to read.
pub(super) fn become_child(
    stdin: Option<File>,
    out: OwnedFd,
    err: OwnedFd,
    kept: Option<&OwnedFd>,
) -> Result<(), Box<dyn std::error::Error>> {
    let stdin = match stdin {
        Some(stdin) => stdin,
        None => File::open("/dev/null")?,
    };
    dup2_stdin(&stdin)?;
    dup2_stdout(&out)?;
    dup2_stderr(&err)?;
    drop((stdin, out, err));
    close_others(kept)?;
    Ok(())
}

/// Closes everything above stderr (close_range(2), Linux 5.9) that is not kept.
fn close_others(kept: Option<&OwnedFd>) -> Result<(), Errno> {
    use nix::libc::c_uint;
    let kept = kept.and_then(|kept| c_uint::try_from(kept.as_raw_fd()).ok());
    let Some(kept) = kept.filter(|kept| *kept > 2) else {
        return close_range(3, c_uint::MAX);
    };
    if kept > 3 {
        close_range(3, kept - 1)?;
    }
    close_range(kept + 1, c_uint::MAX)
}

#[allow(unsafe_code)]
fn close_range(first: nix::libc::c_uint, last: nix::libc::c_uint) -> Result<(), Errno> {
    // SAFETY: this process has just been forked and is about to work with files that it opens itself; nothing
    // of what it inherited is used, nor dropped, again, but for what is kept.
    let closed = unsafe { nix::libc::syscall(nix::libc::SYS_close_range, first, last, 0) };
    Errno::result(closed).map(drop)
}

#[derive(Debug, Clone, Copy)]
enum Destination {
    Stdout,
    Stderr,
    Answer,
}

/// Why there is no more to relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relayed {
    /// The child has closed its pipes, or it is too late.
    All,
    /// The child hangs.
    Hung,
    /// The child need not be waited for.
    Done,
}

impl Started {
    /// Relays what the child says.
    fn relay(self, deadline: Instant, hung: Option<Duration>, answer: &mut Vec<u8>) -> Relayed {
        let mut waiting_for = Waiting::begun();
        let mut open: Vec<(File, Destination)> =
            self.pipes.map(|(fd, to)| (File::from(fd), to)).into();
        while !open.is_empty() {
            let hangs_at = hung.and_then(|patience| waiting_for.until(patience));
            let until = match hangs_at {
                // What it has said before is there already.
                _ if waiting_for.is_over() => Instant::now(),
                Some(at) => at.min(deadline),
                None => deadline,
            };
            let mut waiting: Vec<PollFd<'_>> = open
                .iter()
                .map(|(pipe, _)| PollFd::new(pipe.as_fd(), PollFlags::POLLIN))
                .collect();
            match poll(&mut waiting, remaining(until)) {
                Ok(0) if waiting_for.is_over() => return Relayed::Done,
                Ok(0) if until < deadline => return Relayed::Hung,
                Err(Errno::EINTR) => continue,
                Ok(0) | Err(_) => return Relayed::All,
                Ok(_) => {}
            }
            let ready: Vec<bool> = waiting
                .iter()
                .map(|pipe| pipe.any().unwrap_or(false))
                .collect();
            let mut ready = ready.into_iter();
            open.retain_mut(|(pipe, to)| {
                !ready.next().unwrap_or(false) || pass_on(pipe, *to, deadline, answer)
            });
            waiting_for.take(answer);
            if Instant::now() >= deadline {
                break;
            }
        }
        Relayed::All
    }
}

/// Passes a piece on; tells whether there may be more.
fn pass_on(pipe: &mut File, to: Destination, deadline: Instant, answer: &mut Vec<u8>) -> bool {
    let mut piece = [0; 4096];
    match pipe.read(&mut piece) {
        Ok(0) => false,
        Ok(count) => {
            let piece = piece.get(..count).unwrap_or_default();
            match to {
                Destination::Answer => {
                    let room = MOST_ANSWERED.saturating_sub(answer.len());
                    answer.extend_from_slice(piece.get(..room).unwrap_or(piece));
                }
                Destination::Stdout => write_in_time(
                    std::io::stdout().as_fd(),
                    std::io::stdout(),
                    piece,
                    deadline,
                ),
                Destination::Stderr => write_in_time(
                    std::io::stderr().as_fd(),
                    std::io::stderr(),
                    piece,
                    deadline,
                ),
            }
            true
        }
        Err(error) => error.kind() == std::io::ErrorKind::Interrupted,
    }
}

/// How often a child that has said its last word is looked after before there is a pause: its end is near.
const NEAR: usize = 200;

fn reap(child: Pid, deadline: Instant) -> Ended {
    let mut looks = 0_usize;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            // Somebody else reaps our children: it has ended, and nobody can tell how.
            Err(Errno::ECHILD) => return Ended::Exited(0),
            Ok(WaitStatus::Exited(_, code)) => return Ended::Exited(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ended::Killed(signal),
            Ok(_) | Err(Errno::EINTR) if Instant::now() < deadline => {
                looks += 1;
                if looks < NEAR {
                    std::thread::yield_now();
                } else {
                    std::thread::sleep(Duration::from_micros(500));
                }
            }
            _ => {
                let _ = kill(child, Signal::SIGKILL);
                return Ended::TooLate;
            }
        }
    }
}
