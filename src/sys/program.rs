//! Where a program is, and running one: in a process group of its own, so that whatever it starts ends with it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::process::{Child, Ended};

/// Looks along `PATH`, and where administrators' programs are on Debian: a hook's `PATH` may be short.
pub fn find(name: &str) -> Option<PathBuf> {
    find_along(std::env::var_os("PATH").as_deref(), name)
}

pub(crate) fn find_along(path: Option<&OsStr>, name: &str) -> Option<PathBuf> {
    let along = std::env::split_paths(path.unwrap_or_default());
    along
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        // A program of root's is not looked for in whatever folder the caller is in.
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|path| is_program(path))
}

/// Is it a file that may be executed?
pub fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// Nothing: not in time. It and all that it started have been sent SIGKILL.
    pub ended: Option<Ended>,
    /// On its standard output.
    pub answer: Vec<u8>,
    /// On its standard error, as far as that is of use.
    pub said: Vec<u8>,
}

/// The most that is kept of a program's standard output, and of its standard error, in bytes.
const MOST_ANSWERED: usize = 4 << 20;
const MOST_SAID: usize = 16 << 10;

/// Runs a program to its end, in time, with a text on its standard input.
///
/// # Errors
/// It cannot be started.
pub fn run(
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    input: &[u8],
    deadline: Instant,
) -> io::Result<Outcome> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        // Messages are looked at.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = Child::spawn_group(&mut command, input)?;
    child.stdout.most = MOST_ANSWERED;
    child.stderr.most = MOST_SAID;
    while child.wait(None, deadline) && !child.is_over() {}
    let ended = child.ended();
    if ended.is_none() {
        child.end();
    }
    Ok(Outcome {
        ended,
        answer: child.stdout.take(),
        said: child.stderr.take(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;
    use std::time::Duration;

    fn shell(script: &str, input: &[u8], patience: Duration) -> Outcome {
        let deadline = Instant::now() + patience;
        run(Path::new("/bin/sh"), &["-c", script], input, deadline).unwrap()
    }

    fn said(outcome: &Outcome) -> (Option<Ended>, String) {
        let said = String::from_utf8_lossy(&outcome.said);
        (outcome.ended, said.into_owned())
    }

    const LONG: Duration = Duration::from_secs(20);

    fn exited(code: i32, said: &str) -> (Option<Ended>, String) {
        (Some(Ended::Exited(code)), said.to_owned())
    }

    #[test]
    fn it_reads_to_the_end_and_says_how_it_went() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(
            said(&shell("wc -c >&2; exit 3", &input, LONG)),
            exited(3, "1048576\n")
        );
    }

    #[test]
    fn a_program_that_does_not_read_is_no_obstacle() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(
            said(&shell("echo no >&2; exit 1", &input, LONG)),
            exited(1, "no\n")
        );
    }

    #[test]
    fn a_program_that_talks_before_it_reads_does_not_hang() {
        let input = vec![b'x'; 1 << 20];
        let outcome = shell("yes | head -c 1000000 >&2; cat >/dev/null", &input, LONG);
        assert_eq!(outcome.ended, Some(Ended::Exited(0)));
        assert_eq!(outcome.said.len(), MOST_SAID);
    }

    #[test]
    fn an_answer_is_read_beside_what_else_is_said() {
        let script = "yes | head -c 1000000; echo no >&2; yes | head -c 1000000; exit 3";
        let outcome = shell(script, b"", LONG);
        assert_eq!(said(&outcome), exited(3, "no\n"));
        assert_eq!(outcome.answer.len(), 2_000_000);
        let outcome = shell("head -c 5000000 /dev/zero", b"", LONG);
        assert_eq!(said(&outcome), exited(0, ""));
        assert_eq!(outcome.answer.len(), MOST_ANSWERED);
    }

    #[test]
    fn a_signal_is_told() {
        let killed = Some(Ended::Killed(Signal::SIGKILL));
        assert_eq!(shell("kill -9 $$", b"", LONG).ended, killed);
    }

    #[test]
    fn what_does_not_end_is_ended_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        let outcome = shell(&script, b"", Duration::from_millis(300));
        assert_eq!(outcome.ended, None);
        let sleeper: i32 = std::fs::read_to_string(file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let is_gone = || {
            std::fs::read_to_string(format!("/proc/{sleeper}/stat"))
                .map_or(true, |stat| stat.contains(") Z "))
        };
        let deadline = Instant::now() + LONG;
        while !is_gone() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }
}
