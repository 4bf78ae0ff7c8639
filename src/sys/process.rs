//! A program that is run to its end, in time, with a text to read.
//!
//! It gets its own process group, so that whatever it starts ends with it, and none of the caller's pipes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::write::remaining;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// By itself.
    Exited {
        /// Its exit code.
        code: i32,
        /// What it said on its standard error, as far as that is of use.
        said: Vec<u8>,
    },
    /// By a signal; the number.
    Signalled(i32),
    /// Not in time. It has been sent SIGKILL.
    TooLate,
}

/// What is kept of a program's output, in bytes; the rest is read and forgotten.
const KEPT: usize = 16 * 1024;

/// How long a program that has been sent SIGKILL is waited for. One that is within a system call that cannot be
/// interrupted ends later, and is then init's.
const LAST_WAIT: Duration = Duration::from_millis(200);

/// The most that is kept of an answer, in bytes.
const MOST_ANSWERED: usize = 4 << 20;

/// Runs a program with a text on its standard input. Of its output, only standard error is kept.
///
/// # Errors
/// It cannot be started or waited for.
pub fn run(
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    input: &[u8],
    deadline: Instant,
) -> io::Result<Outcome> {
    let (outcome, _) = start(program, arguments, input, Stdio::null(), deadline)?;
    Ok(outcome)
}

/// Runs a program that has nothing to read, and keeps what it says on its standard output too.
///
/// # Errors
/// It cannot be started or waited for.
pub fn ask(
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    deadline: Instant,
) -> io::Result<(Outcome, Vec<u8>)> {
    start(program, arguments, b"", Stdio::piped(), deadline)
}

fn start(
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    input: &[u8],
    stdout: Stdio,
    deadline: Instant,
) -> io::Result<(Outcome, Vec<u8>)> {
    let mut child = Command::new(program)
        .args(arguments)
        // Messages are looked at.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let said = talk(&mut child, input, deadline);
    let status = said.and_then(|said| Ok((said, wait(&mut child, deadline)?)));
    if !matches!(status, Ok((_, Some(_)))) {
        end(&mut child);
    }
    let ((said, answer), status) = status?;
    let outcome = match status {
        None => Outcome::TooLate,
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Outcome::Exited { code, said },
            (None, signal) => Outcome::Signalled(signal.unwrap_or_default()),
        },
    };
    Ok((outcome, answer))
}

/// Writes the input and reads what is said, whichever the program is ready for, until it has no more to say: on standard
/// error, and on standard output.
fn talk(child: &mut Child, input: &[u8], deadline: Instant) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut stdin = child.stdin.take().map(OwnedFd::from).map(File::from);
    let stderr = child.stderr.take().map(OwnedFd::from).map(File::from);
    let stdout = child.stdout.take().map(OwnedFd::from).map(File::from);
    for pipe in stdin.iter().chain(&stderr).chain(&stdout) {
        never_wait(pipe.as_fd())?;
    }
    let mut said = Said::new(stderr, KEPT);
    let mut answer = Said::new(stdout, MOST_ANSWERED);
    let mut rest = input;
    while Instant::now() < deadline && (said.pipe.is_some() || answer.pipe.is_some()) {
        if rest.is_empty() {
            // Closed: the input's end.
            stdin = None;
        }
        let reading = said.pipe.iter().chain(&answer.pipe);
        let mut waiting: Vec<PollFd<'_>> = reading
            .map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN))
            .collect();
        waiting.extend(
            stdin
                .as_ref()
                .map(|stdin| PollFd::new(stdin.as_fd(), PollFlags::POLLOUT)),
        );
        match poll(&mut waiting, remaining(deadline)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(pipe) = &mut stdin {
            match pipe.write(rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if is_passing(&error) => {}
                // It does not want to know the rest; why, it says.
                Err(_) => rest = &[],
            }
        }
        said.read()?;
        answer.read()?;
    }
    Ok((said.text, answer.text))
}

/// What comes out of a pipe.
struct Said {
    /// Until its end.
    pipe: Option<File>,
    text: Vec<u8>,
    /// The most that is kept; the rest is read and forgotten.
    most: usize,
}

impl Said {
    fn new(pipe: Option<File>, most: usize) -> Self {
        let text = Vec::new();
        Self { pipe, text, most }
    }

    /// Reads a piece, if there is one.
    fn read(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(());
        };
        let mut piece = [0; 4096];
        match pipe.read(&mut piece) {
            Ok(0) => self.pipe = None,
            Ok(count) => {
                let room = self.most.saturating_sub(self.text.len());
                let piece = piece.get(..count.min(room)).unwrap_or_default();
                self.text.extend_from_slice(piece);
            }
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn never_wait(pipe: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(pipe, FcntlArg::F_GETFL)?);
    fcntl(pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Waits for the end, until the deadline at most. A program that has closed its output is about to end, so the
/// first looks come at once.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    const NEAR: usize = 200;
    let mut looks = 0_usize;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        looks += 1;
        if looks < NEAR {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

/// Ends the program and all that it has started, and reaps it.
fn end(child: &mut Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _ = wait(child, Instant::now() + LAST_WAIT);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, input: &[u8], patience: Duration) -> Outcome {
        let deadline = Instant::now() + patience;
        run(Path::new("/bin/sh"), &["-c", script], input, deadline).unwrap()
    }

    const LONG: Duration = Duration::from_secs(20);

    fn exited(code: i32, said: &str) -> Outcome {
        Outcome::Exited {
            code,
            said: said.as_bytes().to_vec(),
        }
    }

    #[test]
    fn it_reads_to_the_end_and_says_how_it_went() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(
            shell("wc -c >&2; exit 3", &input, LONG),
            exited(3, "1048576\n")
        );
    }

    #[test]
    fn a_program_that_does_not_read_is_no_obstacle() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(
            shell("echo no >&2; exit 1", &input, LONG),
            exited(1, "no\n")
        );
    }

    #[test]
    fn a_program_that_talks_before_it_reads_does_not_hang() {
        let input = vec![b'x'; 1 << 20];
        let outcome = shell("yes | head -c 1000000 >&2; cat >/dev/null", &input, LONG);
        let Outcome::Exited { code: 0, said } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(said.len(), KEPT);
    }

    #[test]
    fn an_answer_is_read_beside_what_else_is_said() {
        let script = "yes | head -c 1000000; echo no >&2; yes | head -c 1000000; exit 3";
        let deadline = Instant::now() + LONG;
        let (outcome, answer) = ask(Path::new("/bin/sh"), &["-c", script], deadline).unwrap();
        assert_eq!(outcome, exited(3, "no\n"));
        assert_eq!(answer.len(), 2_000_000);
        let endless = "head -c 5000000 /dev/zero";
        let (outcome, answer) = ask(Path::new("/bin/sh"), &["-c", endless], deadline).unwrap();
        assert_eq!((outcome, answer.len()), (exited(0, ""), MOST_ANSWERED));
    }

    #[test]
    fn a_signal_is_told() {
        assert_eq!(shell("kill -9 $$", b"", LONG), Outcome::Signalled(9));
    }

    #[test]
    fn what_does_not_end_is_ended_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        assert_eq!(
            shell(&script, b"", Duration::from_millis(300)),
            Outcome::TooLate
        );
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
