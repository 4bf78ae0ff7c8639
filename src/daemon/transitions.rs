//! What is told of sessions: that one is degraded or stalled, and that it no longer is. Not what is over in a moment, as
//! when a guest's ports are plugged one after the other.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::duration::duration;
use super::state::{SessionRecord, State};
use pve_span_core::health::{Health, ReasonId};

/// How long something has to be wrong before it is told.
const GRACE: Duration = Duration::from_secs(2);

/// What has become better or worse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// For the worse.
    Worse(String),
    /// For the better.
    Better(String),
}

impl Transition {
    /// In words.
    pub fn text(&self) -> &str {
        match self {
            Self::Worse(text) | Self::Better(text) => text,
        }
    }
}

/// What has been told, and what is about to be.
#[derive(Debug, Default)]
pub struct Transitions {
    told: BTreeMap<String, Announcement>,
    suspects: BTreeMap<String, Instant>,
}

/// What was told of a session that is not well.
#[derive(Debug)]
struct Announcement {
    health: Health,
    reasons: Vec<ReasonId>,
    since: i64,
}

impl Transitions {
    /// What there is to tell now.
    pub fn of(&mut self, state: &State, time: Instant, now: i64) -> Vec<Transition> {
        let mut transitions = Vec::new();
        let gone: Vec<String> = self
            .told
            .keys()
            .filter(|name| !state.sessions.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            self.told.remove(&name);
            transitions.push(Transition::Better(format!("{name} is no longer asked for")));
        }
        self.suspects
            .retain(|name, _| state.sessions.contains_key(name));
        for (name, record) in &state.sessions {
            if record.health.is_healthy() {
                self.suspects.remove(name);
                transitions.extend(self.told.remove(name).map(|told| {
                    let lasted = u64::try_from(now.saturating_sub(told.since)).unwrap_or(0);
                    Transition::Better(format!(
                        "{name} is {} again, after it was {} for {}",
                        record.health.word(),
                        told.health.word(),
                        duration(Duration::from_secs(lasted))
                    ))
                }));
            } else if self.is_news(name, record) {
                let since = *self.suspects.entry(name.clone()).or_insert(time);
                if time.duration_since(since) >= GRACE {
                    self.suspects.remove(name);
                    transitions.push(self.worse(name, record));
                }
            } else {
                self.suspects.remove(name);
            }
        }
        transitions
    }

    /// A session's mirrors have just been changed: what was wrong before was another thing.
    pub fn forget(&mut self, session: &str) {
        self.suspects.remove(session);
    }

    /// Is there anything that will be told if it lasts?
    pub fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }

    fn is_news(&self, name: &str, record: &SessionRecord) -> bool {
        self.told.get(name).is_none_or(|told| {
            told.health != record.health
                || record.health != Health::Stalled && told.reasons != record.ids
        })
    }

    fn worse(&mut self, name: &str, record: &SessionRecord) -> Transition {
        let since = self.told.get(name).map_or(record.since, |told| told.since);
        let told = Announcement {
            health: record.health,
            reasons: record.ids.clone(),
            since,
        };
        self.told.insert(name.to_owned(), told);
        Transition::Worse(format!(
            "{name} is {}: {}",
            record.health.word(),
            record.reasons.join("; ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pve_span_core::plan::ProblemKind;

    fn state(health: Health, why: &str) -> State {
        let record = SessionRecord {
            health,
            since: 100,
            reasons: vec![why.to_owned()],
            ids: vec![ReasonId::Problem(ProblemKind::MirrorLimit)],
            present: 1,
            configured: 1,
            blind: 0.0,
            outputs: BTreeMap::new(),
        };
        State {
            sessions: [("dmz".to_owned(), record)].into(),
            ..State::default()
        }
    }

    fn told(transitions: &[Transition]) -> Vec<String> {
        transitions
            .iter()
            .map(|transition| transition.text().to_owned())
            .collect()
    }

    #[test]
    fn what_lasts_is_told_once_and_its_end_too() {
        let (mut transitions, start) = (Transitions::default(), Instant::now());
        let (bad, good) = (state(Health::Degraded, "why"), state(Health::Active, ""));
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(told(&transitions.of(&bad, at(0), 100)), [""; 0]);
        assert!(transitions.has_suspects());
        assert_eq!(
            told(&transitions.of(&bad, at(3), 103)),
            ["dmz is degraded: why"]
        );
        assert_eq!(told(&transitions.of(&bad, at(9), 109)), [""; 0]);
        assert!(!transitions.has_suspects());
        assert_eq!(
            told(&transitions.of(&good, at(60), 160)),
            ["dmz is active again, after it was degraded for 60 s"]
        );
    }

    #[test]
    fn for_how_long_was_waited_is_no_news() {
        let (mut transitions, start) = (Transitions::default(), Instant::now());
        let hung = |ms: u32| {
            state(
                Health::Degraded,
                &format!("no answer within {ms} ms (transact)"),
            )
        };
        transitions.of(&hung(3001), start, 100);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(transitions.of(&hung(3002), at(3), 103).len(), 1);
        assert_eq!(told(&transitions.of(&hung(3003), at(60), 160)), [""; 0]);
        assert!(!transitions.has_suspects());
    }

    #[test]
    fn what_is_over_in_a_moment_is_not_told() {
        let (mut transitions, start) = (Transitions::default(), Instant::now());
        transitions.of(&state(Health::Degraded, "why"), start, 100);
        let later = start + Duration::from_secs(5);
        assert_eq!(
            told(&transitions.of(&state(Health::Idle, ""), later, 105)),
            [""; 0]
        );
        assert_eq!(
            told(&transitions.of(&state(Health::Degraded, "why"), later, 105)),
            [""; 0]
        );
    }

    #[test]
    fn a_session_that_goes_is_no_longer_degraded() {
        let (mut transitions, start) = (Transitions::default(), Instant::now());
        transitions.of(&state(Health::Degraded, "why"), start, 100);
        transitions.of(&state(Health::Degraded, "why"), start + GRACE, 102);
        assert_eq!(
            told(&transitions.of(&State::default(), start + GRACE, 103)),
            ["dmz is no longer asked for"]
        );
    }
}
