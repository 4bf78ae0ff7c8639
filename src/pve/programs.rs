//! Proxmox VE's own programs, qm, pct and pvesh: the only ones that change a guest's config.
//!
//! Each call has a deadline; what a program says on standard error becomes part of our message.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::sys::process::Ended;
use crate::sys::program;
use pve_span_core::attach::Call;
use pve_span_core::model::{excerpt, printable};

/// How long a program may take. They wait for a guest's lock themselves, for ten seconds.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Why a call has not done what it should have. Unless it says so, nobody can tell how far it got.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not there.
    #[error("the program {program} is not there: is this a Proxmox VE node?")]
    Missing {
        /// Its name.
        program: String,
    },
    /// It cannot be run.
    #[error("cannot run {program}")]
    Run {
        /// Its name.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// It hangs.
    #[error("`{call}` timed out after {} s and was killed", .patience.as_secs_f64())]
    TooLate {
        /// What was called.
        call: Call,
        /// How long it was waited for.
        patience: Duration,
    },
    /// It was killed.
    #[error("`{call}` was killed by signal {signal}")]
    Killed {
        /// What was called.
        call: Call,
        /// The signal's number.
        signal: i32,
    },
    /// It refused.
    #[error("`{call}` failed: {message}")]
    Failed {
        /// What was called.
        call: Call,
        /// What it said.
        message: String,
    },
    /// Its answer is not what it should be.
    #[error("`{call}` gave an answer that is not understood: {why}")]
    Answer {
        /// What was called.
        call: Call,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// Is it certain that nothing comes of the call any more? What pvesh has asked another node for may be done without it.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::Run { .. } => true,
            Self::Failed { call, .. } => call.program() != "pvesh",
            Self::TooLate { .. } | Self::Killed { .. } | Self::Answer { .. } => false,
        }
    }
}

/// Is the program there?
///
/// # Errors
/// It is not.
pub fn check(program: &str) -> Result<(), Error> {
    program::find(program)
        .map(drop)
        .ok_or_else(|| Error::Missing {
            program: program.to_owned(),
        })
}

/// Calls a program; its answer.
///
/// # Errors
/// It was not done, or nobody can tell.
pub fn call(call: &Call, patience: Duration) -> Result<Vec<u8>, Error> {
    let name = || call.program().to_owned();
    let missing = || Error::Missing { program: name() };
    let path = program::find(call.program()).ok_or_else(missing)?;
    log::info!("calling {call}");
    let deadline = Instant::now() + patience;
    let outcome =
        program::run(&path, call.arguments(), b"", deadline).map_err(|source| Error::Run {
            program: name(),
            source,
        })?;
    let said = message(&outcome.said);
    let call = call.clone();
    match outcome.ended {
        Some(Ended::Exited(0)) => {
            if let Some(said) = said {
                log::info!("{call}: {said}");
            }
            Ok(outcome.answer)
        }
        Some(Ended::Exited(code)) => Err(Error::Failed {
            call,
            message: said.unwrap_or_else(|| format!("exit code {code}")),
        }),
        Some(Ended::Killed(signal)) => Err(Error::Killed {
            call,
            signal: signal as i32,
        }),
        None => Err(Error::TooLate { call, patience }),
    }
}

#[derive(Deserialize)]
struct VolumeEntry {
    volid: String,
}

/// The volumes that a call of [`Call::snippets`] lists.
///
/// # Errors
/// As [`call`], or the answer is not its JSON.
pub fn volumes(listing: &Call, patience: Duration) -> Result<BTreeSet<String>, Error> {
    let answer = call(listing, patience)?;
    let listed: Vec<VolumeEntry> =
        serde_json::from_slice(&answer).map_err(|error| Error::Answer {
            call: listing.clone(),
            why: excerpt(&error.to_string()),
        })?;
    Ok(listed.into_iter().map(|listed| listed.volid).collect())
}

/// The most of a message that is passed on, in characters.
const LONGEST: usize = 600;

/// What a program said, in one line.
fn message(said: &[u8]) -> Option<String> {
    let said = String::from_utf8_lossy(said);
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let line: String = lines.join("; ").chars().take(LONGEST).collect();
    (!line.is_empty()).then(|| printable(&line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_becomes_one_line() {
        let of = |said: &str| message(said.as_bytes());
        assert_eq!(
            of("400 Parameter verification failed.\nhookscript: \u{1b}[31mno\n\n"),
            Some("400 Parameter verification failed.; hookscript: \\u{1b}[31mno".into())
        );
        assert_eq!(of(" \n"), None);
        assert_eq!(of(&"x".repeat(5000)).map(|text| text.len()), Some(LONGEST));
    }
}
