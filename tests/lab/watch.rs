//! The service on a node, started as systemd starts it: in the foreground, with a notification socket of its own
//! (sd_notify(3)).

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use super::frame::Frame;
use super::node::Node;
use super::run::{PATIENCE, pid_of, wait_until};
use super::wire::{Capture, Sender};

/// What the listener is told in the end; nothing that a service would say.
const END: &str = "LAB=end";

/// The service that runs on a node; killed when dropped.
pub struct Watch {
    child: Child,
    ended: bool,
    notices: Notices,
    log: PathBuf,
    /// As long as this: the paths in what it says are told without it.
    root: PathBuf,
}

/// What a notification socket has received.
struct Notices {
    socket: PathBuf,
    lines: Arc<Mutex<Vec<String>>>,
    listener: Option<JoinHandle<()>>,
}

impl Node {
    /// Starts the service and waits until it says that it is ready.
    #[track_caller]
    pub fn watch(&self) -> Watch {
        self.watch_with(&[], |_| {})
    }

    /// The same with more arguments, and whatever the command shall have besides: environment, a namespace.
    #[track_caller]
    pub fn watch_with(&self, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Watch {
        let mut watch = self.watch_unready(args, prepare);
        watch.wait_for("READY=1");
        watch
    }

    /// The same, which may not be ready yet.
    #[track_caller]
    pub fn watch_unready(&self, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Watch {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let notices = Notices::listen(self.path(&format!("run/notify-{number}")));
        let log = self.path(&format!("var/watch-{number}.log"));
        let file = File::create(&log).expect("the node's folders are there");
        let copy = file.try_clone().expect("cannot duplicate a descriptor");
        let mut command = self.pve_span_command(&["watch"]);
        command.args(args);
        prepare(&mut command);
        if !command.get_envs().any(|(name, _)| name == "NOTIFY_SOCKET") {
            command.env("NOTIFY_SOCKET", &notices.socket);
        }
        command
            .stdin(Stdio::null())
            .stdout(copy)
            .stderr(file)
            .process_group(0);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Watch {
            child,
            ended: false,
            notices,
            log,
            root: self.root().to_owned(),
        }
    }

    /// Sends frames from NIC to NIC until a copy of one is seen at the sensor; returns the time since `since`.
    #[track_caller]
    pub fn arrives(&self, from: &str, to: &str, at_sensor: &str, since: Instant) -> Duration {
        // Opening and closing packet sockets takes the kernel its time, which is not the service's.
        let (mut known, mut sensor) = (self.capture(from), self.capture(at_sensor));
        let (sender, neighbour) = (self.sender(from), self.sender(to));
        // What the switches do not know yet they would flood, to the sensor too.
        self.probe(&neighbour, &self.frame(to, from, ""), &mut known);
        self.probe(&sender, &self.frame(from, to, ""), &mut sensor);
        since.elapsed()
    }

    /// The same as [`Node::introduce`], between NICs whose ports may just have been plugged: what is sent to them in
    /// the first moment may get lost.
    #[track_caller]
    pub fn acquaint(&self, a: &str, b: &str) {
        for (from, to) in [(a, b), (b, a)] {
            let (sender, mut capture) = (self.sender(from), self.capture(to));
            self.probe(&sender, &self.frame(from, to, ""), &mut capture);
        }
        self.settle();
    }

    /// Sends frames like this one until one is captured. They are of one flow, which is never at rest: what changes
    /// meanwhile holds for it too.
    #[track_caller]
    fn probe(&self, sender: &Sender, frame: &Frame, capture: &mut Capture) {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let token = format!("probe-{}-", COUNT.fetch_add(1, Ordering::Relaxed));
        let deadline = Instant::now() + PATIENCE;
        let frame = frame.clone().carrying(&token);
        loop {
            sender.send(&frame);
            let pause = Duration::from_millis(1);
            let seen = capture.wait_within(pause, |frame| frame.contains(&token));
            if seen.is_some() {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "waited {PATIENCE:?} in vain: nothing like {frame:?} has arrived"
            );
        }
    }
}

impl Watch {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid()));
        tasks.map_or(0, Iterator::count)
    }

    /// The processes that it has started and that have not ended.
    pub fn children(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect()
    }

    /// All that it has said on stderr (and on stdout) so far, without the node's root in paths.
    pub fn stderr(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.replace(&self.root.display().to_string(), "")
    }

    /// How many lines of that contain `what`.
    pub fn times(&self, what: &str) -> usize {
        self.stderr()
            .lines()
            .filter(|line| line.contains(what))
            .count()
    }

    /// How often it has said that `what` is wrong. (That it is over it says too.)
    pub fn faults(&self, what: &str) -> usize {
        let is_fault = |line: &&str| line.contains("error: ") || line.contains("warning: ");
        self.stderr()
            .lines()
            .filter(is_fault)
            .filter(|line| line.contains(what))
            .count()
    }

    /// What it has told systemd so far, an assignment each.
    pub fn notices(&self) -> Vec<String> {
        self.notices.lines.lock().unwrap().clone()
    }

    /// How often it has told systemd this.
    pub fn noticed(&self, line: &str) -> usize {
        self.notices().iter().filter(|told| *told == line).count()
    }

    /// The status that `systemctl status` shows now.
    pub fn status_line(&self) -> Option<String> {
        let notices = self.notices();
        let mut status = notices
            .iter()
            .filter_map(|line| line.strip_prefix("STATUS="));
        status.next_back().map(str::to_owned)
    }

    /// Waits until it has told systemd this.
    #[track_caller]
    pub fn wait_for(&mut self, line: &str) {
        wait_until(&format!("the service says {line}"), || {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.ended = true;
                panic!("the service ended, {status}:\n{}", self.stderr());
            }
            self.noticed(line) > 0
        });
    }

    /// Waits until a line with `what` is among those that it has said.
    #[track_caller]
    pub fn wait_until_it_says(&self, what: &str) {
        wait_until(&format!("the service says `{what}`"), || {
            self.times(what) > 0
        });
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(pid_of(&self.child), signal)
            .expect("our child cannot be gone, we have not waited for it");
    }

    /// Asks for a reconcile.
    pub fn hup(&self) {
        self.signal(Signal::SIGHUP);
    }

    /// Ends it as `systemctl stop` does; returns how long that took.
    #[track_caller]
    pub fn terminate(mut self) -> Duration {
        let since = Instant::now();
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{status}: {}", self.stderr());
        since.elapsed()
    }

    /// Waits for the end of one that was asked to; returns its exit code.
    #[track_caller]
    pub fn terminated(mut self) -> Option<i32> {
        self.wait().code()
    }

    /// Ends it as a crash does.
    #[track_caller]
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        wait_until("the service ends", || {
            ended = self.child.try_wait().expect("it is our child");
            ended.is_some()
        });
        self.ended = true;
        ended.expect("this is what was waited for")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.ended {
            // Both fail only for a child that has already ended and been waited for.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("the service said:\n{}", self.stderr());
        }
    }
}

impl Notices {
    fn listen(path: PathBuf) -> Notices {
        let socket = UnixDatagram::bind(&path)
            .unwrap_or_else(|error| panic!("cannot bind {}: {error}", path.display()));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&lines);
        let listener = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..len]);
                if text == END {
                    break;
                }
                heard
                    .lock()
                    .unwrap()
                    .extend(text.lines().map(str::to_owned));
            }
        });
        Notices {
            socket: path,
            lines,
            listener: Some(listener),
        }
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        let told = UnixDatagram::unbound().and_then(|socket| {
            // Its queue may be full while a service that was killed is read out.
            socket.set_write_timeout(Some(PATIENCE))?;
            socket.send_to(END.as_bytes(), &self.socket)
        });
        // Without the node's folder there is no socket to tell it by; the thread then ends with the process.
        if let (Ok(_), Some(listener)) = (told, self.listener.take()) {
            let _ = listener.join();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Whether a process is there that has not ended.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}
