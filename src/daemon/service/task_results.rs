//! What becomes of children's work: what they found is told, kept, and decides what is due next.

use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::{PATIENCE, Running, Service, Side, is_running};
use crate::daemon::faults::{Fault, FaultId, FaultSource};
use crate::daemon::task_reports::{Counts, ReconcileReport, Surveyed};
use crate::daemon::transitions::Transition;
use crate::daemon::{metrics, session_health, tasks};
use crate::reconcile::events;
use crate::sys::clock;
use crate::sys::error::with_causes;
use crate::sys::files;
use crate::sys::logging as logger;
use crate::sys::process::Child;

/// How long a child may take beyond its own deadline.
const GRACE: Duration = Duration::from_secs(2);

impl Service {
    pub(super) fn look_after_children(&mut self) {
        self.lost.retain_mut(is_running);
        if let Some(mut running) = self.reconcile.take() {
            match over(&mut running.child, Reads::Pve) {
                WorkerProgress::No => self.reconcile = Some(running),
                WorkerProgress::Yes => self.reconciled(running),
                WorkerProgress::Hangs => {
                    self.schedule.put_back(running.first_event, Instant::now());
                    self.abandon_hung(running.child);
                }
                WorkerProgress::TooLate => {
                    let totals = &mut self.state.totals;
                    totals.reconciles += 1;
                    totals.failures += 1;
                    self.abandon(running.child, FaultSource::Work);
                }
            }
        }
        if let Some((side, mut child)) = self.side.take() {
            let reads = match side {
                Side::Survey => Reads::Pve,
                Side::Count => Reads::Nothing,
            };
            match over(&mut child, reads) {
                WorkerProgress::No => self.side = Some((side, child)),
                WorkerProgress::Yes => self.side_done(side, child),
                WorkerProgress::Hangs => {
                    if side == Side::Survey {
                        self.schedule.survey_again(Instant::now());
                    }
                    self.abandon_hung(child);
                }
                WorkerProgress::TooLate => self.abandon(child, FaultSource::Look),
            }
        }
    }

    /// A child that hangs.
    fn abandon(&mut self, mut child: Child, source: FaultSource) {
        child.kill();
        self.lost.push(child);
        let what = match source {
            FaultSource::Look => "a look at the node",
            _ => "a reconcile",
        };
        let seconds = (tasks::DEADLINE + GRACE).as_secs();
        let text = format!(
            "{what} timed out after {seconds} s and was killed; it is retried when the process has ended"
        );
        self.faults
            .now(source, &[Fault::new(FaultId::TooLate(source), text)]);
        self.schedule.retry(Instant::now());
        self.publish();
    }

    fn reconciled(&mut self, mut running: Running) {
        let said = self.said(&mut running.child);
        self.faults.now(FaultSource::Said, &said);
        let began = running.child.began;
        let took = began.elapsed();
        let report: Option<ReconcileReport> = read_report(&mut running.child);
        log::debug!(
            "reconciled in {} ms, {} ms after the first event",
            took.as_millis(),
            running.first_event.elapsed().as_millis()
        );
        self.reap(running.child);
        let totals = &mut self.state.totals;
        totals.reconciles += 1;
        let now = Instant::now();
        self.schedule.reconciled(now, took);
        let Some(report) = report else {
            totals.failures += 1;
            let text = "a reconcile ended without a result; it is tried again";
            let fault = Fault::new(FaultId::NoResult(FaultSource::Work), text);
            self.faults.now(FaultSource::Work, &[fault]);
            self.schedule.retry(now);
            return;
        };
        self.faults.now(FaultSource::Work, &[]);
        self.faults.now(FaultSource::Reconcile, &report.faults);
        if report.faults.is_empty() {
            self.schedule.retry_soon();
            totals.last_reconcile = Some(clock::now());
        } else {
            totals.failures += 1;
            self.schedule.retry(now);
            self.event_sources.ask();
        }
        self.flap_guard.changed(&report.made, &report.changed, now);
        if !report.changed.is_empty() {
            self.state.totals.last_change = Some(clock::now());
            match self.flap_guard.fault(now) {
                // Counted, and not told each time.
                Some(text) => self
                    .faults
                    .now(FaultSource::Again, &[Fault::new(FaultId::Undone, text)]),
                None => report.changed.iter().for_each(|line| log::info!("{line}")),
            }
        }
        self.schedule.note_result(now, report.changed.is_empty());
        let blind = running.first_event.elapsed();
        for session in &report.sessions {
            self.transitions.forget(session);
        }
        session_health::add_moment(&mut self.state, &report.sessions, blind);
        if let Some(millis) = report.settles_in {
            let due = now + Duration::from_millis(millis.saturating_add(5));
            self.schedule.reconcile_by(due);
        }
        self.schedule.survey_soon(now);
        if began >= self.unready_since {
            self.report_ready();
        }
    }

    fn side_done(&mut self, side: Side, mut child: Child) {
        let said = self.said(&mut child);
        let took = child.began.elapsed();
        self.faults.now(FaultSource::Look, &[]);
        match side {
            Side::Survey => {
                if let Some(surveyed) = read_report::<Surveyed>(&mut child) {
                    log::debug!("surveyed in {} ms", took.as_millis());
                    self.schedule.surveyed(Instant::now(), took);
                    self.surveyed(surveyed, said);
                } else {
                    let text = "a look at the node ended without a result, so what is told of sessions may be old; it is \
                        repeated after the next reconcile";
                    let mut wrong = said;
                    wrong.push(Fault::new(FaultId::NoResult(FaultSource::Survey), text));
                    self.faults.now(FaultSource::Survey, &wrong);
                }
            }
            Side::Count => {
                if let Some(counts) = read_report::<Counts>(&mut child) {
                    self.flow
                        .counted(counts, Instant::now(), self.options.count_every);
                    self.update();
                }
            }
        }
        self.reap(child);
    }

    fn surveyed(&mut self, mut surveyed: Surveyed, said: Vec<Fault>) {
        let mut wrong = std::mem::take(&mut surveyed.faults);
        wrong.extend(said);
        self.faults.now(FaultSource::Survey, &wrong);
        if surveyed.pending && !self.faults.any(FaultSource::Reconcile) {
            self.schedule.retry(Instant::now());
        }
        self.state.notice.clone_from(&surveyed.notice);
        surveyed.mounted = surveyed.mounted.or(self.surveyed.mounted);
        self.surveyed = surveyed;
        self.update();
    }

    /// Brings what is known of sessions up to date, and tells.
    fn update(&mut self) {
        let (moment, now) = (Instant::now(), clock::now());
        session_health::update(&mut self.state, &self.surveyed, &self.flow, now);
        let transitions = self.transitions.of(&self.state, moment, now);
        for transition in &transitions {
            match transition {
                Transition::Worse(text) => log::warn!("{text}"),
                Transition::Better(text) => log::info!("{text}"),
            }
        }
        let told: Vec<String> = transitions
            .iter()
            .map(|transition| transition.text().to_owned())
            .collect();
        events::record(&self.options.root, "watch", &told);
        if self.transitions.has_suspects() {
            self.schedule.survey_again(moment);
        }
        self.publish();
    }

    /// Says how things are, to whoever wants to know.
    pub(super) fn publish(&mut self) {
        self.state.written = clock::now();
        let mut wrong = Vec::new();
        if let Err(error) = self.state.store(&self.options.root) {
            wrong.push(Fault::new(FaultId::StateFile, with_causes(&error)));
        }
        if let Some(path) = &self.metrics_file {
            if let Err(error) = files::publish(path, &metrics::text(&self.state)) {
                wrong.push(Fault::new(FaultId::MetricsFile, with_causes(&error)));
            }
        }
        self.faults.now(FaultSource::Writing, &wrong);
        let status = session_health::status_line(&self.state);
        if status != self.status && self.notify.tell_status(&status).is_ok() {
            self.status = status;
        }
    }

    /// What a child has said on stderr.
    fn said(&self, child: &mut Child) -> Vec<Fault> {
        let text = child.stderr.take();
        let text = String::from_utf8_lossy(&text);
        let said = text.lines().filter_map(logger::of_child);
        said.map(|(place, text)| Fault::new(FaultId::Said(place.to_owned()), text))
            .collect()
    }

    /// A child that has said all it had to say ends in a moment, if it has not.
    fn reap(&mut self, child: Child) {
        if child.ended().is_none() {
            self.lost.push(child);
        }
    }
}

/// How far a child is.
enum WorkerProgress {
    No,
    Yes,
    /// It hangs in /etc/pve.
    Hangs,
    TooLate,
}

/// Does a child's work read in /etc/pve?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    Pve,
    Nothing,
}

fn over(child: &mut Child, reads: Reads) -> WorkerProgress {
    let hangs = |child: &Child| {
        child
            .hangs_at(PATIENCE)
            .is_some_and(|at| reads == Reads::Pve && Instant::now() >= at)
    };
    child.update();
    if child.is_closed() {
        WorkerProgress::Yes
    } else if hangs(child) {
        WorkerProgress::Hangs
    } else if child.began.elapsed() > tasks::DEADLINE + GRACE {
        WorkerProgress::TooLate
    } else {
        WorkerProgress::No
    }
}

fn read_report<T: DeserializeOwned>(child: &mut Child) -> Option<T> {
    serde_json::from_slice(&child.report.take()).ok()
}
