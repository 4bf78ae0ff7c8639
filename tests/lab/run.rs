//! Running programs and waiting, always with a bound.
//!
//! A hanging child would hang the whole test run without a word; here it becomes a panic that says what hung.

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long the laboratory waits for something that should happen at once: generous, because a test must
/// not fail on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The places of the programs that the laboratory calls; a plain user's `PATH` lacks the last two.
pub(super) fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
    format!("{path}:/usr/sbin:/sbin")
}

/// Panics with one sentence that says what to install, or how to run, if the laboratory can't work here.
pub(super) fn require(programs: &[(&str, &str)]) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "the test laboratory makes network namespaces, so it needs root: run it with sudo"
    );
    let path = search_path();
    let missing = |program: &str| {
        !path
            .split(':')
            .any(|dir| std::path::Path::new(dir).join(program).is_file())
    };
    for (program, package) in programs {
        assert!(
            !missing(program),
            "the test laboratory needs the program `{program}`: apt-get install {package}"
        );
    }
}

/// Waits until `condition` holds; panics with `what` if it does not within [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "waited {PATIENCE:?} in vain: {what}"
        );
        thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `command` to its end, `input` on its standard input; kills it and panics if it takes longer than [`PATIENCE`].
#[track_caller]
pub fn try_run(mut command: Command, input: &str) -> Output {
    let text = format!("{command:?}");
    let stdin = if input.is_empty() {
        Stdio::null()
    } else {
        Stdio::piped()
    };
    command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {text}: {error}"));
    let pid = pid_of(&child);
    let pipe = child.stdin.take();
    let (done, result) = mpsc::channel();
    let input = input.to_owned();
    thread::spawn(move || {
        if let Some(mut pipe) = pipe {
            // A child that does not read to the end says why on its standard error.
            let _ = pipe.write_all(input.as_bytes());
        }
    });
    // Left alone, should a daemon that the child has left behind hold its output open for ever.
    thread::spawn(move || done.send(child.wait_with_output()));
    match result.recv_timeout(PATIENCE) {
        Ok(output) => output.unwrap_or_else(|error| panic!("cannot wait for {text}: {error}")),
        Err(_) => {
            let _ = kill(pid, Signal::SIGKILL);
            panic!("not done after {PATIENCE:?}, or its output still held open: {text}");
        }
    }
}

/// Runs `command`; panics with its standard error unless it succeeds. Returns its standard output.
#[track_caller]
pub fn run(command: Command, input: &str) -> String {
    let text = format!("{command:?}");
    let output = try_run(command, input);
    assert!(
        output.status.success(),
        "{text} failed: {}\n{}{input}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A child's process id, in the kernel's type.
pub(super) fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("pid_max is far below"))
}
