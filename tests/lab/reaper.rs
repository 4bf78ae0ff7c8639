//! The guardian process that takes a node away again, however its test ends.
//!
//! A destructor does not run when a test process is killed, so the cleaning is the work of another process:
//! a shell in a session of its own that reads a pipe whose other end only the test process holds. It also
//! makes what it will clean, so there is no moment in which something exists that nobody would clean.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::run::{PATIENCE, search_path};

const SCRIPT: &str = include_str!("reaper.sh");

/// A directory and two network namespaces that go away with this value, or with this process.
pub(super) struct Reaper {
    /// The node's root directory; short, because unix socket paths end at 108 bytes.
    pub dir: PathBuf,
    /// The namespace of the node.
    pub node: String,
    /// The namespace of the guests' ends and cables.
    pub wire: String,
    guardian: Child,
    pipe: Option<ChildStdin>,
}

impl Reaper {
    /// Makes the directory and the namespaces, under names that nobody else has.
    pub fn new() -> Reaper {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        loop {
            let name = format!(
                "span-{}-{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            );
            let dir = PathBuf::from(format!("/tmp/{name}"));
            let (node, wire) = (format!("{name}-node"), format!("{name}-wire"));
            let mut guardian = Command::new("setsid")
                .args(["sh", "-c", SCRIPT, "reaper", "make"])
                .arg(&dir)
                .args([&node, &wire])
                .env("PATH", search_path())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("cannot start the guardian (setsid sh)");
            let pipe = guardian.stdin.take();
            let answer = guardian
                .stdout
                .take()
                .map(BufReader::new)
                .expect("it is piped");
            let mut reaper = Reaper {
                dir,
                node,
                wire,
                guardian,
                pipe,
            };
            match answer.lines().next() {
                Some(Ok(word)) if word == "ready" => return reaper,
                Some(Ok(word)) if word == "taken" => reaper.finish(),
                _ => {
                    panic!("the guardian could not make the network namespaces; it says why above")
                }
            }
        }
    }

    /// Lets go of everything without cleaning; returns the command that cleans.
    pub fn keep(mut self) -> String {
        let clean = self.dir.join("clean");
        let script = format!(
            "set -- clean '{}' {} {}\n{SCRIPT}",
            self.dir.display(),
            self.node,
            self.wire
        );
        std::fs::write(&clean, script).expect("cannot write the cleaning script");
        let mut pipe = self
            .pipe
            .take()
            .expect("only `finish` takes it, and it is private");
        pipe.write_all(b"keep\n").expect("the guardian has gone");
        drop(pipe);
        self.finish();
        format!("sh {}", clean.display())
    }

    /// Lets go of the pipe and waits until the guardian has done its work. Does not panic, since it also runs
    /// while a failed test unwinds.
    fn finish(&mut self) {
        drop(self.pipe.take());
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.guardian.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                eprintln!(
                    "lab: the guardian of {} is still at work after {PATIENCE:?}",
                    self.dir.display()
                );
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.finish();
    }
}
