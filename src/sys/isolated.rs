//! Work in a child process, for its result: what hangs in it is left behind.
//!
//! The same reason as in `supervise`: a read from a hung file system cannot be interrupted. Here the result matters, and
//! the caller goes on without it.

use std::io::Write;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::worker::Job;
use super::write::remaining;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There can be no child.
    #[error("cannot start a process")]
    Start(#[source] Errno),
    /// It did not end in time, and has been sent SIGKILL.
    #[error("not done within {} s", patience.as_secs_f64())]
    TooLate {
        /// How long it was waited for.
        patience: Duration,
    },
    /// It ended without a result.
    #[error("the process that did it ended early")]
    Died,
}

/// How long a child that has said everything is waited for.
const LAST_WAIT: Duration = Duration::from_millis(200);

/// Does `work` in a child. What it says on stderr is said here.
///
/// Must be called while the process has one thread only.
///
/// # Errors
/// There is no result.
pub fn apart<T: Serialize + DeserializeOwned>(
    patience: Duration,
    work: impl FnOnce() -> T,
) -> Result<T, Error> {
    let deadline = Instant::now() + patience;
    let mut job = Job::start(None, || {
        let text = serde_json::to_vec(&work()).unwrap_or_default();
        let mut stdout = std::io::stdout();
        let _ = stdout.write_all(&text).and_then(|()| stdout.flush());
    })
    .map_err(Error::Start)?;
    let mut text = Vec::new();
    let closed = loop {
        let closed = job.read();
        text.append(&mut job.take_stdout());
        let said = job.take_stderr();
        if !said.is_empty() {
            crate::sys::logging::say(&String::from_utf8_lossy(&said));
        }
        if closed || Instant::now() >= deadline {
            break closed;
        }
        let mut waiting: Vec<PollFd<'_>> = job
            .fds()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let _ = poll(&mut waiting, remaining(deadline));
    };
    if !closed {
        job.kill();
    }
    let until = Instant::now() + LAST_WAIT;
    while !job.has_ended() && Instant::now() < until {
        std::thread::sleep(Duration::from_micros(200));
    }
    if !closed {
        return Err(Error::TooLate { patience });
    }
    serde_json::from_slice(&text).map_err(|_| Error::Died)
}
