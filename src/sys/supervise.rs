//! Work in a child process, with an end that nothing can put off: the parent touches no file, relays what the child
//! says, and leaves when it is time.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::process::{Child, Ended};
use super::write::write_in_time;

/// Which child it is that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildAttempt {
    /// The first one.
    First,
    /// The second one, which is to keep off what the first one, this process, hangs in.
    Instead(u32),
}

/// Until when a child is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// The work as a whole.
    pub deadline: Instant,
    /// How long the first child may be in what may hang ([`super::Progress`]) until there is a second one.
    pub hung: Duration,
}

/// Runs `work` in a child and relays its output, until the deadline at most. What the child has written to the file that
/// it is given, however it ended, is the answer. A child that hangs is sent SIGKILL and left behind, and another one
/// does the work.
///
/// How it ended: nothing if it did not in time, and was sent SIGKILL; with 0 if it said that it need not be waited for.
/// Then it may go on, and nobody hears what it says.
///
/// # Panics
/// This process has more than one thread.
///
/// # Errors
/// There can be no first child; nothing was done.
pub fn supervise(
    patience: Deadlines,
    work: impl Fn(ChildAttempt, File) -> i32,
) -> io::Result<(Option<Ended>, Vec<u8>)> {
    let deadline = patience.deadline;
    let mut answer = Vec::new();
    let mut child = Child::fork(None, |report| work(ChildAttempt::First, report))?;
    if relay(&mut child, deadline, Some(patience.hung), &mut answer) == RelayEnd::Hung {
        child.kill();
        // One that was only slow is reaped, so that nobody finds it still at it.
        child.update();
        let instead = ChildAttempt::Instead(child.pid());
        let Ok(second) = Child::fork(None, |report| work(instead, report)) else {
            // What the first one has said still counts.
            return Ok((None, answer));
        };
        child = second;
        relay(&mut child, deadline, None, &mut answer);
    }
    // It may have gone on while somebody who reads slowly was written to.
    child.update();
    answer.append(&mut child.report.take());
    if child.may_be_left() {
        return Ok((Some(Ended::Exited(0)), answer));
    }
    let ended = child.ended();
    child.kill();
    Ok((ended, answer))
}

/// Why there is no more to relay.
#[derive(PartialEq, Eq)]
enum RelayEnd {
    /// The child has ended, it is too late, or the child need not be waited for.
    All,
    Hung,
}

/// Relays what the child says.
fn relay(
    child: &mut Child,
    deadline: Instant,
    hung: Option<Duration>,
    answer: &mut Vec<u8>,
) -> RelayEnd {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    loop {
        let hangs_at = |child: &Child| hung.and_then(|patience| child.hangs_at(patience));
        let until = hangs_at(child).map_or(deadline, |at| at.min(deadline));
        let in_time = child.wait(None, until);
        write_in_time(stdout.as_fd(), &stdout, &child.stdout.take(), deadline);
        write_in_time(stderr.as_fd(), &stderr, &child.stderr.take(), deadline);
        answer.append(&mut child.report.take());
        if child.is_over() || child.may_be_left() || Instant::now() >= deadline {
            return RelayEnd::All;
        }
        if !in_time && hangs_at(child).is_some_and(|at| Instant::now() >= at) {
            return RelayEnd::Hung;
        }
    }
}
