//! The loop: one thread, poll(2), and children for everything that may hang.

mod pve_access;
mod task_results;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::config_poller::Sentinel;
use super::event_sources::Wakers;
use super::faults::{Fault, FaultId, Faults, Whence};
use super::flap_guard::Again;
use super::instance_lock::Alone;
use super::metrics;
use super::metrics_server::{Listen, Server};
use super::schedule::{Free, Schedule};
use super::sd_notify::Notify;
use super::session_health;
use super::session_health::Flow;
use super::state::State;
use super::task_reports::{Surveyed, tell};
use super::transitions::Turns;
use super::{Error, Options, tasks};
use crate::engine::ovs::flows;
use crate::engine::ovs::flows::Owed;
use crate::reconcile::lock;
use crate::sys::clock::now;
use crate::sys::error::with_causes;
use crate::sys::files as node_files;
use crate::sys::logging as logger;
use crate::sys::worker::Job;

/// When the service is ready although its first reconcile is not done: the node's boot waits for it.
const READY_ANYWAY: Duration = Duration::from_secs(5);
/// How often what is known is written although it is what it was, in seconds.
const WRITTEN_EVERY: i64 = 60;
/// How long a child may go on when the service ends.
const LAST_WORK: Duration = Duration::from_millis(50);

/// The service.
pub struct Service {
    options: Options,
    _alone: Alone,
    notify: Notify,
    signals: SignalFd,
    wakers: Wakers,
    server: Option<Server>,
    metrics_file: Option<PathBuf>,
    sentinel: Option<Sentinel>,
    reconcile: Option<Running>,
    side: Option<(Side, Job)>,
    /// Children that were sent SIGKILL and have not ended.
    lost: Vec<Job>,
    /// Those of them that hang in /etc/pve, where they hold nothing.
    hung: Vec<Job>,
    /// Is it known that /etc/pve does not answer?
    pve_hangs: bool,
    schedule: Schedule,
    /// When systemd is to be told that the service lives.
    ping: Option<Instant>,
    faults: Faults,
    /// The revalidations that nobody sees to, as far as it is known.
    abandoned: Owed,
    again: Again,
    flow: Flow,
    turns: Turns,
    surveyed: Surveyed,
    state: State,
    /// Until when blind seconds are counted.
    blind_until: Instant,
    ready: bool,
    /// Since when it has not been ready: a reconcile that was at work already may have missed what a reload is for.
    unready_since: Instant,
    status: String,
}

/// A reconcile at work.
struct Running {
    job: Job,
    /// When its first event arrived.
    roused: Instant,
}

/// Other work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Survey,
    Count,
}

impl Service {
    /// Gets ready to run.
    pub fn new(options: Options) -> Result<Self, Error> {
        let alone = Alone::claim(&options.root)?;
        let mut mask = SigSet::empty();
        for signal in [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGCHLD,
        ] {
            mask.add(signal);
        }
        let failed = |doing| {
            move |errno: Errno| Error::Start {
                doing,
                source: errno.into(),
            }
        };
        mask.thread_block().map_err(failed("blocking signals"))?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&mask, flags).map_err(failed("listening to signals"))?;
        let wakers = Wakers::open(&options.root).map_err(|source| Error::Start {
            doing: "listening to the kernel",
            source,
        })?;
        let server = options.listen.map(open_server).transpose()?;
        let metrics_file = options.metrics_file.clone().or_else(|| {
            let folder = options.root.join(METRICS_FOLDER);
            folder.is_dir().then(|| folder.join(METRICS_FILE))
        });
        let notify = Notify::from_environment();
        let started = Instant::now();
        let mut state = State::load(&options.root).unwrap_or_default();
        state.version = env!("CARGO_PKG_VERSION").to_owned();
        state.pid = std::process::id();
        state.started = now();
        let schedule = Schedule::new(started, options.count_every);
        let ping = notify.watchdog.map(|_| started);
        Ok(Self {
            options,
            _alone: alone,
            notify,
            signals,
            wakers,
            server,
            metrics_file,
            sentinel: None,
            reconcile: None,
            side: None,
            lost: Vec::new(),
            hung: Vec::new(),
            pve_hangs: false,
            schedule,
            ping,
            faults: Faults::default(),
            abandoned: Owed::new(),
            again: Again::default(),
            flow: Flow::default(),
            turns: Turns::default(),
            surveyed: Surveyed::default(),
            state,
            blind_until: started,
            ready: false,
            unready_since: started,
            status: String::new(),
        })
    }

    /// Runs until it is told to end.
    pub fn run(mut self) -> Result<(), Error> {
        loop {
            self.wait()?;
            while let Ok(Some(signal)) = self.signals.read_signal() {
                match Signal::try_from(i32::try_from(signal.ssi_signo).unwrap_or(0)) {
                    Ok(Signal::SIGTERM | Signal::SIGINT) => {
                        self.end();
                        return Ok(());
                    }
                    Ok(Signal::SIGHUP) => self.reload(),
                    _ => {}
                }
            }
            if self.wakers.drain() {
                self.rouse();
            }
            if let Some(server) = &mut self.server {
                server.serve(|| metrics::text(&self.state));
            }
            self.look_after_files();
            self.look_after_children();
            self.follow_pve();
            self.look_at_the_clock()?;
            self.start_what_is_due();
        }
    }

    /// Waits for whatever comes first.
    fn wait(&self) -> Result<(), Error> {
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.signals.as_fd()];
        fds.extend(self.wakers.fds());
        fds.extend(self.sentinel.iter().flat_map(Sentinel::fds));
        let reconcile = self.reconcile.as_ref().map(|running| &running.job);
        let side = self.side.as_ref().map(|(_, job)| job);
        fds.extend(reconcile.into_iter().chain(side).flat_map(Job::fds));
        let reading = fds.into_iter().map(|fd| (fd, PollFlags::POLLIN));
        let served = self.server.iter().flat_map(Server::fds);
        let mut waiting: Vec<PollFd<'_>> = reading
            .chain(served)
            .map(|(fd, flags)| PollFd::new(fd, flags))
            .collect();
        match poll(&mut waiting, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(Error::Start {
                doing: "waiting for events",
                source: errno.into(),
            }),
        }
    }

    fn timeout(&self) -> PollTimeout {
        let may_start = self.lost.is_empty();
        let free = Free {
            reconcile: may_start && self.reconcile.is_none(),
            side: may_start && self.side.is_none(),
        };
        let server = self.server.as_ref().and_then(Server::next_timeout);
        let others = [self.ping, self.wakers.next_try(), server, self.next_hang()];
        let others = others.into_iter().flatten();
        let next = others.fold(self.schedule.next(free), Instant::min);
        let left = next.saturating_duration_since(Instant::now());
        // Rounded up: a moment too early is another round for nothing.
        let millis = left.as_micros().div_ceil(1000);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    }

    /// When a child is found to hang in /etc/pve.
    fn next_hang(&self) -> Option<Instant> {
        let reconcile = self.reconcile.as_ref().map(|running| &running.job);
        let survey = self.side.as_ref().filter(|(side, _)| *side == Side::Survey);
        let jobs = reconcile.into_iter().chain(survey.map(|(_, job)| job));
        jobs.filter_map(|job| job.hangs_at(pve_access::PATIENCE))
            .min()
    }

    /// Something has happened.
    fn rouse(&mut self) {
        let now = Instant::now();
        self.schedule.rouse(now, self.again.pause(now));
    }

    fn reload(&mut self) {
        let monotonic = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
            .map(Duration::from)
            .unwrap_or_default();
        let _ = self.notify.tell(&format!(
            "RELOADING=1\nMONOTONIC_USEC={}",
            monotonic.as_micros()
        ));
        self.ready = false;
        self.unready_since = Instant::now();
        self.schedule.retry_soon();
        self.rouse();
        self.schedule.survey_now(self.unready_since);
    }

    fn be_ready(&mut self) {
        // Until it has been heard: systemd would wait for it, and then end the service.
        self.ready = self.ready || self.notify.tell("READY=1").is_ok();
    }

    fn look_at_the_clock(&mut self) -> Result<(), Error> {
        let time = Instant::now();
        session_health::add_blind(&mut self.state, time.duration_since(self.blind_until));
        self.blind_until = time;
        if let (Some(ping), Some(interval)) = (self.ping, self.notify.watchdog) {
            if time >= ping {
                // One that is not heard is said again soon, and not at once for ever.
                let heard = self.notify.tell("WATCHDOG=1").is_ok();
                self.ping = Some(time + if heard { interval } else { interval / 8 });
            }
        }
        if self.schedule.take_tick(time) {
            if lock::was_removed(&self.options.root) {
                let path = self.options.root.join(lock::PATH);
                return Err(Error::LockRemoved { path });
            }
            self.ask_for_files();
            // Also while nothing can be found out; and a clock that was set back would make it look like one to come.
            let age = now().saturating_sub(self.state.written);
            if self.schedule.has_surveyed() && !(0..WRITTEN_EVERY).contains(&age) {
                self.publish();
            }
            if self.wakers.listen_again() {
                self.rouse();
            }
            self.retry_abandoned_revalidations();
            if self.again.fault(time).is_none() {
                self.faults.now(Whence::Again, &[]);
            }
            if self.surveyed.expires.is_some_and(|end| now() >= end) {
                self.surveyed.expires = None;
                self.rouse();
            }
        }
        if self.schedule.take_anyway(time) {
            self.rouse();
        }
        if time >= self.unready_since + READY_ANYWAY {
            self.be_ready();
        }
        self.wakers.reconnect();
        Ok(())
    }

    /// Asks for a reconcile, once, where a process has ended without the revalidation that it had to do. One that fails is repeated
    /// by its own schedule.
    fn retry_abandoned_revalidations(&mut self) {
        let abandoned = flows::abandoned(&self.options.root);
        if self.abandoned != abandoned {
            self.abandoned = abandoned;
            if !self.abandoned.is_empty() {
                self.rouse();
            }
        }
    }

    fn start_what_is_due(&mut self) {
        if !self.lost.iter_mut().all(Job::has_ended) {
            return;
        }
        self.lost.clear();
        let time = Instant::now();
        if self.reconcile.is_none() {
            if let Some(roused) = self.schedule.take_reconcile(time) {
                let (root, pve) = (self.options.root.clone(), self.pve());
                match child(|| tell(&tasks::reconcile(&root, roused.last, pve))) {
                    Ok(job) => {
                        self.faults.now(Whence::Start, &[]);
                        let roused = roused.first;
                        self.reconcile = Some(Running { job, roused });
                    }
                    Err(errno) => self.no_child(errno),
                }
            }
        }
        if self.side.is_some() {
            return;
        }
        let (root, pve) = (self.options.root.clone(), self.pve());
        let started = if self.schedule.take_survey(time) {
            child(|| tell(&tasks::survey(&root, pve))).map(|job| (Side::Survey, job))
        } else if self.schedule.take_count(time) {
            let sessions = &self.surveyed.sessions;
            child(|| tell(&tasks::count(&root, sessions))).map(|job| (Side::Count, job))
        } else {
            return;
        };
        match started {
            Ok(side) => {
                self.faults.now(Whence::Start, &[]);
                self.side = Some(side);
            }
            Err(errno) => self.no_child(errno),
        }
    }

    fn no_child(&mut self, errno: Errno) {
        let text = format!("cannot start a process: {errno}");
        self.faults
            .now(Whence::Start, &[Fault::new(FaultId::NoChild, text)]);
        self.schedule.retry(Instant::now());
    }

    /// Leaves everything as it is.
    fn end(&mut self) {
        let _ = self.notify.tell("STOPPING=1");
        if let Some(path) = &self.metrics_file {
            if let Err(error) = node_files::publish(path, &metrics::stopped()) {
                log::debug!("{}", with_causes(&error));
            }
        }
        let sentinel = self.sentinel.take();
        sentinel.iter().for_each(Sentinel::kill);
        let side = self.side.take();
        side.iter().for_each(|(_, job)| job.kill());
        // A change that is being made is finished if that is soon; if not, the next one makes up for it.
        if let Some(mut running) = self.reconcile.take() {
            let deadline = Instant::now() + LAST_WORK;
            while !running.job.has_ended() && Instant::now() < deadline {
                running.job.read();
                std::thread::sleep(Duration::from_millis(1));
            }
            running.job.kill();
        }
    }
}

/// Where Debian's prometheus-node-exporter looks for metrics, below the root directory.
const METRICS_FOLDER: &str = "var/lib/prometheus/node-exporter";
const METRICS_FILE: &str = "pve-span.prom";

fn open_server(listen: Listen) -> Result<Server, Error> {
    if !listen.0.ip().is_loopback() {
        log::warn!(
            "metrics are served on {}, to whoever gets there: they name sessions, guests and devices",
            listen.0
        );
    }
    Server::open(listen).map_err(|source| Error::Listen {
        address: listen.0,
        source,
    })
}

fn child(work: impl FnOnce()) -> Result<Job, Errno> {
    Job::start(None, || {
        logger::become_child();
        work();
    })
}
