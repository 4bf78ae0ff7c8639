//! The loop: one thread, poll(2), and children for everything that may hang.

mod pve_access;
mod task_results;

use std::fs::File;
use std::io;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde::Serialize;

use super::config_poller::ConfigPoller;
use super::error::Error;
use super::event_sources::EventSources;
use super::faults::{Fault, FaultId, FaultSource, Faults};
use super::flap_guard::FlapGuard;
use super::instance_lock::InstanceLock;
use super::metrics;
use super::metrics_server::{ListenAddress, MetricsServer};
use super::schedule::{IdleWorkers, Schedule};
use super::sd_notify::SdNotify;
use super::session_health;
use super::session_health::Flow;
use super::state::State;
use super::task_reports::Surveyed;
use super::tasks;
use super::transitions::Transitions;
use crate::engine::ovs::flows;
use crate::engine::ovs::flows::StaleFlows;
use crate::reconcile::lock;
use crate::sys::clock::now;
use crate::sys::error::with_causes;
use crate::sys::files as node_files;
use crate::sys::logging as logger;
use crate::sys::process::Child;
use crate::sys::write::remaining;

/// When the service is ready although its first reconcile is not done: the node's boot waits for it.
const READY_ANYWAY: Duration = Duration::from_secs(5);
/// How often what is known is written although it is what it was, in seconds.
const WRITTEN_EVERY: i64 = 60;
/// How long /etc/pve may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a child may go on when the service ends.
const LAST_WORK: Duration = Duration::from_millis(50);

/// How the service is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The prefix of every path.
    pub root: PathBuf,
    /// The file for node_exporter's textfile collector.
    pub metrics_file: Option<PathBuf>,
    /// Where metrics are served.
    pub listen: Option<ListenAddress>,
    /// How often frames are counted.
    pub count_every: Duration,
}

/// The service.
pub struct Service {
    options: Options,
    _instance_lock: InstanceLock,
    notify: SdNotify,
    signals: SignalFd,
    event_sources: EventSources,
    server: Option<MetricsServer>,
    metrics_file: Option<PathBuf>,
    config_poller: Option<ConfigPoller>,
    reconcile: Option<Running>,
    side: Option<(Side, Child)>,
    /// Children that were sent SIGKILL and have not ended.
    lost: Vec<Child>,
    /// Those of them that hang in /etc/pve, where they hold nothing.
    hung: Vec<Child>,
    /// Is it known that /etc/pve does not answer?
    pve_hangs: bool,
    schedule: Schedule,
    /// When systemd is to be told that the service lives.
    ping: Option<Instant>,
    faults: Faults,
    /// The revalidations that nobody sees to, as far as it is known.
    abandoned: StaleFlows,
    flap_guard: FlapGuard,
    flow: Flow,
    transitions: Transitions,
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
    child: Child,
    /// When its first event arrived.
    first_event: Instant,
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
        let alone = InstanceLock::claim(&options.root)?;
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
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
        let event_sources = EventSources::open(&options.root).map_err(|source| Error::Start {
            doing: "listening to the kernel",
            source,
        })?;
        let server = options.listen.map(open_server).transpose()?;
        let metrics_file = options.metrics_file.clone().or_else(|| {
            let folder = options.root.join(METRICS_FOLDER);
            folder.is_dir().then(|| folder.join(METRICS_FILE))
        });
        let notify = SdNotify::from_environment();
        let started = Instant::now();
        let mut state = State::load(&options.root).unwrap_or_default();
        state.version = env!("CARGO_PKG_VERSION").to_owned();
        state.pid = std::process::id();
        state.started = now();
        let schedule = Schedule::new(started, options.count_every);
        let ping = notify.watchdog.map(|_| started);
        Ok(Self {
            options,
            _instance_lock: alone,
            notify,
            signals,
            event_sources,
            server,
            metrics_file,
            config_poller: None,
            reconcile: None,
            side: None,
            lost: Vec::new(),
            hung: Vec::new(),
            pve_hangs: false,
            schedule,
            ping,
            faults: Faults::default(),
            abandoned: StaleFlows::new(),
            flap_guard: FlapGuard::default(),
            flow: Flow::default(),
            transitions: Transitions::default(),
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
            if self.event_sources.drain() {
                self.request_reconcile();
            }
            if let Some(server) = &mut self.server {
                server.serve(|| metrics::text(&self.state));
            }
            self.look_after_files();
            self.look_after_children();
            self.follow_pve();
            self.run_due_work()?;
            self.start_what_is_due();
        }
    }

    /// Waits for whatever comes first.
    fn wait(&self) -> Result<(), Error> {
        let reading = std::iter::once(self.signals.as_fd()).chain(self.event_sources.fds());
        let reconcile = self.reconcile.as_ref().map(|running| &running.child);
        let side = self.side.as_ref().map(|(_, child)| child);
        let left = self.lost.iter().chain(&self.hung);
        let children = reconcile.into_iter().chain(side).chain(left);
        let mut waiting: Vec<PollFd<'_>> = reading
            .map(|fd| (fd, PollFlags::POLLIN))
            .chain(self.config_poller.iter().flat_map(ConfigPoller::fds))
            .chain(children.flat_map(Child::fds))
            .chain(self.server.iter().flat_map(MetricsServer::fds))
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
        let free = IdleWorkers {
            reconcile: may_start && self.reconcile.is_none(),
            side: may_start && self.side.is_none(),
        };
        let server = self.server.as_ref().and_then(MetricsServer::next_timeout);
        let others = [
            self.ping,
            self.event_sources.next_try(),
            server,
            self.next_hang(),
        ];
        let others = others.into_iter().flatten();
        remaining(others.fold(self.schedule.next(free), Instant::min))
    }

    /// When a child is found to hang in /etc/pve.
    fn next_hang(&self) -> Option<Instant> {
        let reconcile = self.reconcile.as_ref().map(|running| &running.child);
        let survey = self.side.as_ref().filter(|(side, _)| *side == Side::Survey);
        let children = reconcile.into_iter().chain(survey.map(|(_, child)| child));
        children.filter_map(|child| child.hangs_at(PATIENCE)).min()
    }

    /// Something has happened.
    fn request_reconcile(&mut self) {
        let now = Instant::now();
        self.schedule
            .request_reconcile(now, self.flap_guard.pause(now));
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
        self.request_reconcile();
        self.schedule.survey_now(self.unready_since);
    }

    fn report_ready(&mut self) {
        // Until it has been heard: systemd would wait for it, and then end the service.
        self.ready = self.ready || self.notify.tell("READY=1").is_ok();
    }

    fn run_due_work(&mut self) -> Result<(), Error> {
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
            if self.event_sources.listen_again() {
                self.request_reconcile();
            }
            self.retry_abandoned_revalidations();
            if self.flap_guard.fault(time).is_none() {
                self.faults.now(FaultSource::Again, &[]);
            }
            if self.surveyed.expires.is_some_and(|end| now() >= end) {
                self.surveyed.expires = None;
                self.request_reconcile();
            }
        }
        if self.schedule.take_anyway(time) {
            self.request_reconcile();
        }
        if time >= self.unready_since + READY_ANYWAY {
            self.report_ready();
        }
        self.event_sources.reconnect();
        Ok(())
    }

    /// Asks for a reconcile, once, where a process has ended without the revalidation that it had to do. One that fails is repeated
    /// by its own schedule.
    fn retry_abandoned_revalidations(&mut self) {
        let abandoned = flows::abandoned(&self.options.root);
        if self.abandoned != abandoned {
            self.abandoned = abandoned;
            if !self.abandoned.is_empty() {
                self.request_reconcile();
            }
        }
    }

    fn start_what_is_due(&mut self) {
        if !self.lost.is_empty() {
            return;
        }
        let time = Instant::now();
        if self.reconcile.is_none() {
            if let Some(first_event) = self.schedule.take_reconcile(time) {
                let (root, pve) = (self.options.root.clone(), self.pve());
                match child(|report| tasks::reconcile(&root, first_event.last, pve, report)) {
                    Ok(child) => {
                        self.faults.now(FaultSource::Start, &[]);
                        let first_event = first_event.first;
                        self.reconcile = Some(Running { child, first_event });
                    }
                    Err(error) => self.no_child(&error),
                }
            }
        }
        if self.side.is_some() {
            return;
        }
        let (root, pve) = (self.options.root.clone(), self.pve());
        let started = if self.schedule.take_survey(time) {
            child(|report| tasks::survey(&root, pve, report)).map(|child| (Side::Survey, child))
        } else if self.schedule.take_count(time) {
            let sessions = &self.surveyed.sessions;
            child(|_| tasks::count(&root, sessions)).map(|child| (Side::Count, child))
        } else {
            return;
        };
        match started {
            Ok(side) => {
                self.faults.now(FaultSource::Start, &[]);
                self.side = Some(side);
            }
            Err(error) => self.no_child(&error),
        }
    }

    fn no_child(&mut self, error: &io::Error) {
        let text = format!("cannot start a process: {error}");
        self.faults
            .now(FaultSource::Start, &[Fault::new(FaultId::NoChild, text)]);
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
        self.config_poller.iter_mut().for_each(ConfigPoller::kill);
        self.side.iter_mut().for_each(|(_, child)| child.kill());
        // A change that is being made is finished if that is soon; if not, the next one makes up for it.
        if let Some(running) = &mut self.reconcile {
            running.child.finish(LAST_WORK);
            running.child.kill();
        }
    }
}

/// Where Debian's prometheus-node-exporter looks for metrics, below the root directory.
const METRICS_FOLDER: &str = "var/lib/prometheus/node-exporter";
const METRICS_FILE: &str = "pve-span.prom";

fn open_server(listen: ListenAddress) -> Result<MetricsServer, Error> {
    if !listen.0.ip().is_loopback() {
        log::warn!(
            "metrics are served on {}, to whoever gets there: they name sessions, guests and devices",
            listen.0
        );
    }
    MetricsServer::open(listen).map_err(|source| Error::Listen {
        address: listen.0,
        source,
    })
}

/// Has it not ended? It is reaped if it has.
fn is_running(child: &mut Child) -> bool {
    child.update();
    child.ended().is_none()
}

fn child<T: Serialize>(work: impl FnOnce(&File) -> T) -> io::Result<Child> {
    Child::fork(None, |mut report| {
        logger::become_child();
        let text = serde_json::to_vec(&work(&report)).unwrap_or_default();
        // A service that has gone needs no report.
        i32::from(report.write_all(&text).is_err())
    })
}
