//! Changes of our table, made by nft(8): a text in its JSON (libnftables-json(5)) goes in, and all of it is done or
//! nothing.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use crate::sys::process::Ended;
use crate::sys::program;
use pve_span_core::model::printable;

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no nft(8).
    #[error("the program nft is not there; do: apt install nftables")]
    Missing,
    /// It cannot be run.
    #[error("cannot run {path}")]
    Run {
        /// The program.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It was not through in time. What it was at is done as a whole or not at all.
    #[error("{path} timed out and was killed")]
    TooLate {
        /// The program.
        path: PathBuf,
    },
    /// It was killed.
    #[error("{path} was killed by signal {signal}")]
    Killed {
        /// The program.
        path: PathBuf,
        /// The signal's number.
        signal: i32,
    },
    /// It, or the kernel, did not want to. Nothing was changed.
    #[error("nft refused the change: {message}")]
    Refused {
        /// What it said.
        message: String,
    },
}

/// nft(8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
}

impl Program {
    /// Looks along `PATH`, and where it is on Debian: a hook's `PATH` may be short.
    ///
    /// # Errors
    /// It is not installed.
    pub fn find() -> Result<Self, Error> {
        Self::find_along(std::env::var_os("PATH").as_deref())
    }

    fn find_along(path: Option<&OsStr>) -> Result<Self, Error> {
        program::find_along(path, "nft")
            .map(|path| Self { path })
            .ok_or(Error::Missing)
    }

    /// Makes all of the changes in `json`, or none.
    ///
    /// # Errors
    /// They were not made; or, after [`Error::TooLate`] and [`Error::Killed`], nobody can tell.
    pub fn load(&self, json: &[u8], deadline: Instant) -> Result<(), Error> {
        self.run(&["-j", "-f", "-"], json, deadline)
    }

    pub(super) fn run(
        &self,
        arguments: &[&str],
        input: &[u8],
        deadline: Instant,
    ) -> Result<(), Error> {
        let path = || self.path.clone();
        let outcome = program::run(&self.path, arguments, input, deadline).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                return Error::Missing;
            }
            Error::Run {
                path: path(),
                source,
            }
        })?;
        match outcome.ended {
            Some(Ended::Exited(0)) => Ok(()),
            Some(Ended::Exited(code)) => Err(Error::Refused {
                message: message(&outcome.said).unwrap_or_else(|| format!("exit code {code}")),
            }),
            Some(Ended::Killed(signal)) => Err(Error::Killed {
                path: path(),
                signal: signal as i32,
            }),
            None => Err(Error::TooLate { path: path() }),
        }
    }
}

/// Makes all of the changes in `json`, or none, with the node's nft(8).
///
/// # Errors
/// As [`Program::find`] and [`Program::load`].
pub fn load(json: &[u8], deadline: Instant) -> Result<(), Error> {
    Program::find()?.load(json, deadline)
}

/// The most of a message that is passed on, in characters.
const LONGEST: usize = 300;

/// The line that says what is wrong, without where in a text that nobody sees.
fn message(said: &[u8]) -> Option<String> {
    let said = String::from_utf8_lossy(said);
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines()
        .find_map(|line| line.split_once("Error: ").map(|(_, message)| message))
        .or_else(|| lines().next())?;
    Some(printable(&line.chars().take(LONGEST).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    /// A program that is written by another process: one that this process has open for writing while another
    /// test starts a child cannot be run (`ETXTBSY`).
    fn script(folder: &Path, text: &str) -> Program {
        let path = folder.join("nft");
        let written = std::process::Command::new("/bin/sh")
            .args([
                "-c",
                "printf '#!/bin/sh\n%s\n' \"$2\" >\"$1\" && chmod 755 \"$1\"",
                "sh",
            ])
            .arg(&path)
            .arg(text)
            .status();
        assert!(written.unwrap().success());
        Program { path }
    }

    #[test]
    fn the_message_is_the_line_that_says_what_is_wrong() {
        let of = |said: &str| message(said.as_bytes());
        assert_eq!(
            of("internal:0:0-0: Error: Could not process rule: Operation not supported\n\n"),
            Some("Could not process rule: Operation not supported".into())
        );
        assert_eq!(
            of("\n \nnft: \u{1b}[31mno\n"),
            Some("nft: \\u{1b}[31mno".into())
        );
        assert_eq!(of(""), None);
        assert_eq!(of(&"x".repeat(1000)).map(|text| text.len()), Some(LONGEST));
    }

    #[test]
    fn path_comes_before_the_usual_places_and_relative_parts_of_it_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let program = script(dir.path(), "exit 0");
        let path = format!(".::relative:/nowhere:{}", dir.path().display());
        assert_eq!(
            Program::find_along(Some(OsStr::new(&path))).unwrap(),
            program
        );
        fs::set_permissions(&program.path, fs::Permissions::from_mode(0o644)).unwrap();
        let elsewhere = Program::find_along(Some(OsStr::new(&path)));
        assert!(elsewhere.is_ok_and(|found| found.path.ends_with("sbin/nft")));
    }

    #[test]
    fn each_way_to_fail_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let text = |body: &str| {
            let program = script(dir.path(), body);
            let failed = program.load(b"{}", soon()).unwrap_err();
            failed
                .to_string()
                .replace(&dir.path().display().to_string(), "")
        };
        assert_eq!(text("exit 4"), "nft refused the change: exit code 4");
        assert_eq!(
            text(
                "echo 'internal:0:0-0: Error: Could not process rule: No such file or directory' >&2; exit 1"
            ),
            "nft refused the change: Could not process rule: No such file or directory"
        );
        assert_eq!(text("kill -11 $$"), "/nft was killed by signal 11");
        let hung = script(dir.path(), "sleep 1000");
        assert!(matches!(
            hung.load(b"{}", Instant::now() + Duration::from_millis(100)),
            Err(Error::TooLate { .. })
        ));
        fs::remove_file(&hung.path).unwrap();
        assert_eq!(
            hung.load(b"{}", soon()).unwrap_err().to_string(),
            "the program nft is not there; do: apt install nftables"
        );
    }
}
