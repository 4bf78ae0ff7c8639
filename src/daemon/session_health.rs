//! Since when sessions are as they are, for how long they were blind, and which ones are set up and yet mirror nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::duration::duration;
use super::state::{OutputRecord, SessionRecord, State};
use super::task_reports::{Count, Counts, Session, Surveyed};
use pve_span_core::health::Health;

/// How many frames have to move without one being mirrored before it is no coincidence.
const FRAMES: u64 = 10;

/// How many counts there have to be without one.
const COUNTS: u32 = 2;

/// How many reasons of a session are kept. Each of hundreds of sources may have one of its own, and the first of them tell
/// what is wrong.
const REASONS: usize = 10;

/// What is known of frames, between one count and the next.
#[derive(Debug, Default)]
pub struct Flow {
    last: BTreeMap<(String, String), LastCount>,
}

#[derive(Debug)]
struct LastCount {
    count: Count,
    /// Since when nothing has been mirrored.
    since: Instant,
    /// In how many counts frames have moved since, and how many.
    counts: u32,
    moved: u64,
    stalled: bool,
}

impl Flow {
    /// Takes a count in; `so_often` is how often there is one.
    pub fn counted(&mut self, counts: Counts, now: Instant, so_often: Duration) {
        let delay = Duration::from_millis(counts.ovs_interval).saturating_mul(2);
        let patience = delay.max(so_often.saturating_mul(COUNTS));
        let mut last = std::mem::take(&mut self.last);
        for count in counts.outputs {
            let key = (count.session.clone(), count.output.clone());
            let next = match last.remove(&key) {
                Some(old) => old.next(count, now, patience),
                None => LastCount::first(count, now),
            };
            self.last.insert(key, next);
        }
    }

    /// What is said of an output that should get frames, and gets none.
    fn stalled(&self, session: &str) -> Vec<String> {
        let of_session = self
            .last
            .values()
            .filter(|last| last.count.session == session);
        let stalled = of_session.filter(|last| last.stalled).map(|last| {
            format!(
                "its sources have moved {} frames in {}, and none was mirrored to {}",
                last.moved,
                duration(last.since.elapsed()),
                last.count.output
            )
        });
        stalled.collect()
    }
}

impl LastCount {
    fn first(count: Count, now: Instant) -> Self {
        Self {
            count,
            since: now,
            counts: 0,
            moved: 0,
            stalled: false,
        }
    }

    fn next(self, count: Count, now: Instant, patience: Duration) -> Self {
        if self.count.frames != count.frames {
            return Self::first(count, now);
        }
        // Of devices that were there before: what a new one moved may have been before it was a source.
        let moved: u64 = count
            .moved
            .iter()
            .filter_map(|(index, now)| Some(now.saturating_sub(*self.count.moved.get(index)?)))
            .sum();
        let moved_since = self.moved.saturating_add(moved);
        let counts = self.counts + u32::from(moved > 0);
        Self {
            stalled: moved_since >= FRAMES
                && counts >= COUNTS
                && now.duration_since(self.since) >= patience,
            count,
            since: self.since,
            counts,
            moved: moved_since,
        }
    }
}

/// Brings what is known of sessions up to date.
pub fn update(state: &mut State, surveyed: &Surveyed, flow: &Flow, now: i64) {
    // Nobody can tell: what was known stays known.
    if !surveyed.is_known && surveyed.sessions.is_empty() {
        return;
    }
    let before = std::mem::take(&mut state.sessions);
    for (name, session) in &surveyed.sessions {
        let new = record(name, session, before.get(name), flow, now);
        state.sessions.insert(name.clone(), new);
    }
}

fn record(
    name: &str,
    session: &Session,
    old: Option<&SessionRecord>,
    flow: &Flow,
    now: i64,
) -> SessionRecord {
    let mut reasons: Vec<String> = session.reasons.iter().map(ToString::to_string).collect();
    let mut health = session.health;
    if health == Health::Active {
        let stalled = flow.stalled(name);
        if !stalled.is_empty() {
            health = Health::Stalled;
            reasons.splice(0..0, stalled);
        }
    }
    if reasons.len() > REASONS {
        let more = reasons.len() - REASONS;
        reasons.truncate(REASONS);
        reasons.push(format!("and {more} more (see pve-span status)"));
    }
    let outputs = session.outputs.iter().map(|(output, what)| {
        let known = flow.last.get(&(name.to_owned(), output.clone()));
        let count = known.map(|last| &last.count);
        let record = OutputRecord {
            frames: count.and_then(|count| count.frames),
            bytes: count.and_then(|count| count.bytes),
            device: what.device.as_ref().map(|device| device.name.clone()),
            dropped: count.and_then(|count| count.dropped),
        };
        (output.clone(), record)
    });
    SessionRecord {
        health,
        since: old
            .filter(|old| old.health == health)
            .map_or(now, |old| old.since),
        reasons,
        ids: session
            .reasons
            .iter()
            .map(|reason| reason.id.clone())
            .collect(),
        present: session.present,
        configured: session.configured,
        blind: old.map_or(0.0, |old| old.blind),
        outputs: outputs.collect(),
    }
}

/// Adds the time that sessions have been blind.
pub fn add_blind(state: &mut State, time: Duration) {
    let blind = |record: &&mut SessionRecord| !record.health.is_healthy() && record.present > 0;
    for record in state.sessions.values_mut().filter(blind) {
        record.blind += time.as_secs_f64();
    }
}

/// Adds the time from an event to the reconcile that has just followed it. Where a session is known not to be healthy,
/// that time has been added already.
pub fn add_moment(state: &mut State, sessions: &[String], time: Duration) {
    for session in sessions {
        if let Some(record) = state.sessions.get_mut(session) {
            if record.health.is_healthy() {
                record.blind += time.as_secs_f64();
            }
        }
    }
}

/// All in a line, for `systemctl status`.
pub fn status_line(state: &State) -> String {
    let count = |health| {
        let records = state.sessions.values();
        records.filter(|record| record.health == health).count()
    };
    let states = Health::ALL.map(|health| (health, count(health)));
    let states: Vec<String> = states
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(health, count)| format!("{count} {}", health.word()))
        .collect();
    let present: usize = state.sessions.values().map(|record| record.present).sum();
    let worst = state
        .sessions
        .iter()
        .find(|(_, record)| !record.health.is_healthy());
    let worst = worst.map(|(name, record)| {
        let why = record
            .reasons
            .first()
            .map(String::as_str)
            .unwrap_or_default();
        format!("; {name}: {why}")
    });
    match (&state.notice, states.is_empty()) {
        (Some(notice), true) => notice.clone(),
        (None, true) => "no sessions".to_owned(),
        (_, false) => format!(
            "sessions: {}; {present} sources here{}",
            states.join(", "),
            worst.unwrap_or_default()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pve_span_core::health::{Reason, ReasonId};
    use pve_span_core::plan::ProblemKind;

    fn count(frames: Option<u64>, moved: &[(u32, u64)]) -> Counts {
        let count = Count {
            session: "dmz".into(),
            output: "200/net1".into(),
            frames,
            moved: moved.iter().copied().collect(),
            ..Count::default()
        };
        Counts {
            outputs: vec![count],
            ovs_interval: 0,
        }
    }

    /// Counts, a second apart; is the session stalled after the last one?
    fn is_stalled(counts: &[Counts]) -> bool {
        let (mut flow, start) = (Flow::default(), Instant::now());
        for (second, counts) in (0..).zip(counts) {
            let at = start + Duration::from_secs(second);
            flow.counted(counts.clone(), at, Duration::from_secs(1));
        }
        !flow.stalled("dmz").is_empty()
    }

    #[test]
    fn frames_that_move_and_are_not_mirrored_are_a_stall() {
        let at = |frames, moved| count(frames, &[(5, moved)]);
        assert!(is_stalled(&[
            at(Some(7), 0),
            at(Some(7), 5),
            at(Some(7), 10)
        ]));
        assert!(
            !is_stalled(&[at(Some(7), 0), at(Some(7), 5), at(Some(8), 10)]),
            "one was"
        );
        assert!(
            !is_stalled(&[at(Some(7), 0), at(Some(7), 5), at(Some(7), 9)]),
            "too few"
        );
        assert!(!is_stalled(&[at(Some(7), 0), at(Some(7), 10)]), "too soon");
        assert!(
            !is_stalled(&[at(Some(7), 0), at(Some(7), 10), at(Some(7), 10)]),
            "once"
        );
        assert!(
            is_stalled(&[at(None, 0), at(None, 5), at(None, 10)]),
            "never counted"
        );
    }

    fn session(health: Health, reasons: &[String]) -> Surveyed {
        let reason = |text: &String| Reason {
            id: ReasonId::Problem(ProblemKind::MirrorLimit),
            text: text.clone(),
        };
        let session = Session {
            health,
            reasons: reasons.iter().map(reason).collect(),
            present: 1,
            configured: 1,
            outputs: BTreeMap::new(),
        };
        Surveyed {
            sessions: [("dmz".to_owned(), session)].into(),
            ..Surveyed::default()
        }
    }

    #[test]
    fn the_time_that_a_session_was_blind_is_added_once() {
        let mut state = State::default();
        let flow = Flow::default();
        let moment = Duration::from_millis(500);
        let names = ["dmz".to_owned(), "gone".to_owned()];
        update(&mut state, &session(Health::Active, &[]), &flow, 1);
        add_blind(&mut state, moment);
        assert_eq!(state.sessions["dmz"].blind, 0.0);
        add_moment(&mut state, &names, moment);
        assert_eq!(state.sessions["dmz"].blind, 0.5);
        update(&mut state, &session(Health::Degraded, &[]), &flow, 2);
        add_blind(&mut state, moment);
        add_moment(&mut state, &names, moment);
        assert_eq!(state.sessions["dmz"].blind, 1.0);
    }

    #[test]
    fn of_hundreds_of_reasons_the_first_are_kept() {
        let mut state = State::default();
        let reasons: Vec<String> = (0..500).map(|n| format!("reason {n}")).collect();
        let surveyed = session(Health::Degraded, &reasons);
        update(&mut state, &surveyed, &Flow::default(), 1);
        let kept = &state.sessions["dmz"].reasons;
        assert_eq!((kept.len(), kept[0].as_str()), (11, "reason 0"));
        assert_eq!(kept[10], "and 490 more (see pve-span status)");
    }

    #[test]
    fn what_a_device_moved_before_it_was_a_source_does_not_count() {
        let gone_and_back = [
            count(Some(7), &[(5, 100)]),
            count(Some(7), &[(9, 5000)]),
            count(Some(7), &[(9, 5001)]),
        ];
        assert!(!is_stalled(&gone_and_back));
    }

    #[test]
    fn figures_that_come_late_are_waited_for() {
        let late = |moved| Counts {
            ovs_interval: 5000,
            ..count(Some(7), &[(5, moved)])
        };
        let counts: Vec<Counts> = (0..10).map(|second| late(second * 100)).collect();
        assert!(!is_stalled(&counts));
        let counts: Vec<Counts> = (0..12).map(|second| late(second * 100)).collect();
        assert!(is_stalled(&counts));
    }
}
