//! Work in a child process, for its result: what hangs in it is left behind, and the caller goes on without it.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::process::Child;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There can be no child.
    #[error("cannot start a process")]
    Start(#[source] io::Error),
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

/// Does `work` in a child. What it says on stderr is said here.
///
/// # Panics
/// This process has more than one thread.
///
/// # Errors
/// There is no result.
pub fn isolated<T: Serialize + DeserializeOwned>(
    patience: Duration,
    work: impl FnOnce() -> T,
) -> Result<T, Error> {
    let deadline = Instant::now() + patience;
    let mut child = Child::fork(None, |mut report| {
        let text = serde_json::to_vec(&work()).unwrap_or_default();
        i32::from(report.write_all(&text).is_err())
    })
    .map_err(Error::Start)?;
    let mut result = Vec::new();
    let is_closed = loop {
        let in_time = child.wait(None, deadline);
        result.append(&mut child.report.take());
        let said = child.stderr.take();
        if !said.is_empty() {
            super::logging::say(&String::from_utf8_lossy(&said));
        }
        if child.is_closed() || !in_time {
            break child.is_closed();
        }
    };
    child.end();
    if !is_closed {
        return Err(Error::TooLate { patience });
    }
    serde_json::from_slice(&result).map_err(|_| Error::Died)
}
