//! One of a node's daemons: a child process that can be stopped, paused and killed by its pid.
//!
//! It runs in the foreground as our own child, so its pid cannot come to mean another process before we have
//! waited for it. The guardian (see `reaper`) ends it if we cannot.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};

use super::run::{pid_of, wait_until};

/// A running daemon; killed when dropped.
pub(super) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command`, its output in the file `log`.
    pub fn start(mut command: Command, log: &Path) -> Daemon {
        let file = File::create(log)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", log.display()));
        let copy = file.try_clone().expect("cannot duplicate a descriptor");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            // Ctrl-C is for the test process; its end then ends us in order.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Daemon {
            child,
            log: log.to_owned(),
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready`; panics with the daemon's own words if it ends instead.
    #[track_caller]
    pub fn wait_until_ready(&mut self, mut ready: impl FnMut() -> bool) {
        let log = self.log.clone();
        wait_until(
            &format!("the daemon that logs to {} is ready", log.display()),
            || {
                if let Ok(Some(status)) = self.child.try_wait() {
                    let words = std::fs::read_to_string(&log).unwrap_or_default();
                    panic!("a daemon of the laboratory ended, {status}:\n{words}");
                }
                ready()
            },
        );
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(pid_of(&self.child), signal)
            .expect("our child cannot be gone, we have not waited for it");
    }

    /// Ends it with `signal` and waits until it has gone.
    pub fn end(mut self, signal: Signal) {
        self.signal(signal);
        wait_until("a daemon ends", || {
            matches!(self.child.try_wait(), Ok(Some(_)))
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only for a child that has already ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
