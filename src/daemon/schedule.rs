//! When what is due: bursts become one reconcile, one after the other has its distance, and what failed is tried again.

use std::time::{Duration, Instant};

use crate::sys::clock::MonotonicTime;

/// How long after the first event of a burst a reconcile begins: what comes in one go is done in one go.
const BURST: Duration = Duration::from_millis(2);
/// How much time there is at least between the beginnings of two reconciles.
const APART: Duration = Duration::from_millis(20);
/// How much time there is at most between two reconciles of which one comes soon after the other.
const SOON: Duration = Duration::from_secs(1);
/// How often /etc/pve is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often a reconcile is done although nothing has been announced.
const SAFETY_INTERVAL: Duration = Duration::from_secs(300);
/// How long after a change a survey comes, and how much time there is at least between two.
const SURVEY_AFTER: Duration = Duration::from_millis(100);
const SURVEYS_APART: Duration = Duration::from_millis(500);
/// When a reconcile that left something undone is repeated: at first, and at most.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// When what is due.
#[derive(Debug)]
pub struct Schedule {
    tick: Instant,
    next_safety_reconcile: Instant,
    count: Instant,
    count_every: Duration,
    reconcile: Option<Instant>,
    survey: Option<Instant>,
    /// When the first event that has not been dealt with arrived, and the last one.
    first_event: Option<Instant>,
    arrival: MonotonicTime,
    /// When the last reconcile began, how long it took, and when it ended.
    last_began: Option<Instant>,
    took: Duration,
    last_end: Option<Instant>,
    /// How many of the last ones, one soon after the other, have changed nothing.
    without_change: u32,
    /// When the last survey ended, and how long it took.
    last_survey: Option<(Instant, Duration)>,
    retry: Duration,
}

/// What a reconcile is for.
#[derive(Debug, Clone, Copy)]
pub struct ReconcileRequest {
    /// When its first event arrived.
    pub first: Instant,
    /// When the last one did.
    pub last: MonotonicTime,
}

/// What may be started now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IdleWorkers {
    /// A reconcile.
    pub reconcile: bool,
    /// A survey or a count.
    pub side: bool,
}

impl Schedule {
    /// A reconcile is due at once.
    pub fn new(started: Instant, count_every: Duration) -> Self {
        Self {
            tick: started,
            next_safety_reconcile: started + SAFETY_INTERVAL,
            count: started + count_every,
            count_every,
            reconcile: Some(started),
            survey: None,
            first_event: Some(started),
            arrival: MonotonicTime::now(),
            last_began: None,
            took: Duration::ZERO,
            last_end: None,
            without_change: 0,
            last_survey: None,
            retry: FIRST_RETRY,
        }
    }

    /// Something has happened. There is a pause at least between two reconciles.
    pub fn request_reconcile(&mut self, now: Instant, pause: Duration) {
        self.arrival = MonotonicTime::now();
        self.first_event.get_or_insert(now);
        // Who hears of much that comes to nothing listens less eagerly, so that it costs a part of a core at most. One
        // that took long because something hung is no reason to be slow when it no longer does.
        let pace = self.took.min(SOON) * (2 + self.without_change.min(8)) / 2;
        let pace = pace.min(SOON).max(pause).max(APART);
        let after_the_last = self.last_began.map_or(now, |last| last + pace);
        self.reconcile_by(after_the_last.max(now + BURST));
    }

    /// A reconcile is due at a time, if not earlier.
    pub fn reconcile_by(&mut self, due: Instant) {
        self.reconcile = Some(self.reconcile.map_or(due, |earlier| earlier.min(due)));
    }

    /// What a reconcile was for is still to be done, at once.
    pub fn put_back(&mut self, first_event: Instant, now: Instant) {
        self.first_event = Some(
            self.first_event
                .map_or(first_event, |later| later.min(first_event)),
        );
        self.reconcile_by(now);
    }

    /// Something was left undone.
    pub fn retry(&mut self, now: Instant) {
        // Whatever has been done until now does not count as having done it.
        self.arrival = MonotonicTime::now();
        self.reconcile_by(now + self.retry);
        self.retry = (self.retry * 2).min(LAST_RETRY);
    }

    /// What is left undone next is tried again soon.
    pub fn retry_soon(&mut self) {
        self.retry = FIRST_RETRY;
    }

    /// Sets off a reconcile, if one is due.
    pub fn take_reconcile(&mut self, now: Instant) -> Option<ReconcileRequest> {
        self.reconcile.filter(|due| now >= *due)?;
        self.reconcile = None;
        self.last_began = Some(now);
        Some(ReconcileRequest {
            first: self.first_event.take().unwrap_or(now),
            last: self.arrival,
        })
    }

    /// A reconcile has ended, whatever has become of it.
    pub fn reconciled(&mut self, now: Instant, took: Duration) {
        self.took = took;
        self.next_safety_reconcile = now + SAFETY_INTERVAL;
    }

    /// It has changed something, or nothing.
    pub fn note_result(&mut self, now: Instant, nothing: bool) {
        let is_soon =
            |last: Instant| now.saturating_duration_since(last) < SOON.saturating_add(self.took);
        self.without_change = match self.last_end.replace(now) {
            Some(last) if is_soon(last) && nothing => self.without_change.saturating_add(1),
            _ => 0,
        };
    }

    /// How things are may have changed.
    pub fn survey_soon(&mut self, now: Instant) {
        let apart = self.last_survey.map_or(now, |(ended, took)| {
            ended + SURVEYS_APART.max(took.saturating_mul(10))
        });
        self.survey_by(apart.max(now + SURVEY_AFTER));
    }

    /// How things are is to be looked at without regard to when that was done last.
    pub fn survey_now(&mut self, now: Instant) {
        self.survey = Some(now + SURVEY_AFTER);
    }

    /// How things are is to be looked at again before long.
    pub fn survey_again(&mut self, now: Instant) {
        self.survey_by(now + TICK);
    }

    fn survey_by(&mut self, due: Instant) {
        self.survey = Some(self.survey.map_or(due, |earlier| earlier.min(due)));
    }

    /// Sets off a survey, if one is due.
    pub fn take_survey(&mut self, now: Instant) -> bool {
        let is_due = self.survey.is_some_and(|due| now >= due);
        if is_due {
            self.survey = None;
        }
        is_due
    }

    /// A survey has ended.
    pub fn surveyed(&mut self, now: Instant, took: Duration) {
        self.last_survey = Some((now, took));
    }

    /// Has there been a survey?
    pub fn has_surveyed(&self) -> bool {
        self.last_survey.is_some()
    }

    /// Sets off a count, if one is due.
    pub fn take_count(&mut self, now: Instant) -> bool {
        take(&mut self.count, now, self.count_every)
    }

    /// Is it time for what is done each second?
    pub fn take_tick(&mut self, now: Instant) -> bool {
        take(&mut self.tick, now, TICK)
    }

    /// Is it time for a reconcile although nothing has been announced?
    pub fn take_anyway(&mut self, now: Instant) -> bool {
        take(&mut self.next_safety_reconcile, now, SAFETY_INTERVAL)
    }

    /// When the next of it is due. What waits for a tick (`next_safety_reconcile`) is no reason to wake.
    pub fn next(&self, free: IdleWorkers) -> Instant {
        let reconcile = self.reconcile.filter(|_| free.reconcile);
        let survey = self.survey.filter(|_| free.side);
        let count = Some(self.count).filter(|_| free.side);
        let all = [reconcile, survey, count].into_iter().flatten();
        all.fold(self.tick, Instant::min)
    }
}

/// Is it time? Then the next time is a while after now, however late that is.
fn take(due: &mut Instant, now: Instant, every: Duration) -> bool {
    let is_due = now >= *due;
    if is_due {
        *due = now + every;
    }
    is_due
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const BOTH: IdleWorkers = IdleWorkers {
        reconcile: true,
        side: true,
    };

    /// One whose first reconcile is done, took a millisecond, and changed something.
    fn running() -> (Schedule, Instant) {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 15_000 * MS);
        assert!(schedule.take_tick(start));
        assert_eq!(schedule.take_reconcile(start).unwrap().first, start);
        schedule.reconciled(start + MS, MS);
        schedule.note_result(start + MS, false);
        (schedule, start)
    }

    #[test]
    fn a_burst_is_one_reconcile_a_moment_after_its_first_event() {
        let (mut schedule, start) = running();
        let first = start + 500 * MS;
        for event in 0..100 {
            schedule.request_reconcile(first + event * MS / 100, Duration::ZERO);
        }
        assert_eq!(schedule.next(BOTH), first + BURST);
        assert!(schedule.take_reconcile(first + MS).is_none());
        let first_event = schedule.take_reconcile(first + BURST).unwrap();
        assert_eq!(first_event.first, first);
        assert!(schedule.take_reconcile(first + 10 * BURST).is_none());
    }

    #[test]
    fn two_reconciles_have_their_distance_and_what_is_in_vain_more_of_it() {
        let (mut schedule, start) = running();
        schedule.request_reconcile(start + 5 * MS, Duration::ZERO);
        assert_eq!(schedule.next(BOTH), start + APART);
        let mut now = start + APART;
        for _ in 0..20 {
            assert!(schedule.take_reconcile(now).is_some());
            schedule.reconciled(now + 100 * MS, 100 * MS);
            schedule.note_result(now + 100 * MS, true);
            schedule.request_reconcile(now + 100 * MS, Duration::ZERO);
            now = schedule.reconcile.unwrap();
        }
        assert_eq!(now - schedule.last_began.unwrap(), 500 * MS);
        schedule.take_reconcile(now);
        schedule.request_reconcile(now, 2000 * MS);
        assert_eq!(schedule.reconcile, Some(now + 2000 * MS));
    }

    #[test]
    fn what_failed_is_tried_again_later_and_later() {
        let (mut schedule, mut now) = running();
        let pauses: Vec<u64> = (0..8)
            .map(|_| {
                schedule.retry(now);
                let due = schedule.reconcile.unwrap();
                let pause = due - now;
                now = due;
                assert!(schedule.take_reconcile(now).is_some());
                pause.as_secs()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        schedule.retry_soon();
        schedule.retry(now);
        // An event does not wait for that.
        schedule.request_reconcile(now + 100 * MS, Duration::ZERO);
        assert_eq!(schedule.reconcile, Some(now + 100 * MS + BURST));
    }

    #[test]
    fn what_cannot_be_started_wakes_nobody() {
        let (mut schedule, start) = running();
        schedule.request_reconcile(start + 100 * MS, Duration::ZERO);
        schedule.survey_soon(start + 100 * MS);
        assert_eq!(schedule.next(IdleWorkers::default()), start + TICK);
        assert!(schedule.take_survey(start + 100 * MS + SURVEY_AFTER));
        assert!(!schedule.take_survey(start + 300 * MS));
    }
}
