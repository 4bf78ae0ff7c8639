//! The same change again and again: somebody undoes it each time. Both could go on for ever, dozens of times a second,
//! so the service takes its time then, and says so once.

use std::time::{Duration, Instant};

use serde_json::Value;

/// How often the same change may be made in a row before it is no coincidence.
const FREE: u32 = 8;

/// What is made again after so long is another story.
const MEMORY: Duration = Duration::from_secs(10);

/// How often it is made then. (What else happens waits for so long, too.) Who does something to a port now and then, or a
/// guest that starts again and again, is not as quick as that, and is never kept waiting.
const EVERY: Duration = Duration::from_secs(1);

/// What was changed last, and how often.
#[derive(Debug, Default)]
pub struct FlapGuard {
    made: Value,
    /// Its first line in words.
    first: String,
    at: Option<Instant>,
    times: u32,
    /// How many of these were more than one each [`EVERY`], as time: a bucket that leaks.
    ahead: Duration,
}

impl FlapGuard {
    /// Takes note of what a reconcile has changed: as data, and in words.
    pub fn changed(&mut self, made: &Value, words: &[String], now: Instant) {
        let Some(first) = words.first() else { return };
        if self.made == *made && !self.is_old(now) {
            self.times = self.times.saturating_add(1);
            self.ahead = self.ahead(now).saturating_add(EVERY);
        } else {
            self.times = 0;
            self.ahead = Duration::ZERO;
        }
        self.made.clone_from(made);
        self.first.clone_from(first);
        self.at = Some(now);
    }

    /// How much time there has to be between two reconciles.
    pub fn pause(&self, now: Instant) -> Duration {
        // One more, and it is more than was free.
        if self.ahead(now) + EVERY > EVERY * FREE {
            EVERY
        } else {
            Duration::ZERO
        }
    }

    /// What is said of it, while it goes on.
    pub fn fault(&self, now: Instant) -> Option<String> {
        let first = &self.first;
        (self.times >= FREE && !self.is_old(now)).then(|| {
            format!(
                "somebody undoes what pve-span does, again and again (it did: {first}); it is done once a second at most \
                 until that ends: which other program manages mirrors or nftables' rules here?"
            )
        })
    }

    fn ahead(&self, now: Instant) -> Duration {
        let since = self
            .at
            .map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        self.ahead.saturating_sub(since)
    }

    fn is_old(&self, now: Instant) -> bool {
        self.at
            .is_none_or(|at| now.saturating_duration_since(at) > MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(flap_guard: &mut FlapGuard, what: &str, now: Instant) {
        flap_guard.changed(&what.into(), &[what.to_owned()], now);
    }

    #[test]
    fn who_is_undone_each_time_takes_its_time() {
        let (mut flap_guard, start) = (FlapGuard::default(), Instant::now());
        let mut now = start;
        let mut done = 0;
        while now < start + Duration::from_secs(60) {
            // What changes nothing is no news.
            flap_guard.changed(&Value::Null, &[], now);
            changed(&mut flap_guard, "one", now);
            assert_eq!(flap_guard.fault(now).is_some(), done >= FREE, "{done}");
            done += 1;
            now += flap_guard.pause(now).max(Duration::from_millis(20));
        }
        assert!((60..60 + 2 * FREE).contains(&done), "{done}");
        assert!(flap_guard.fault(now).unwrap().contains("(it did: one)"));
        let later = now + MEMORY + Duration::from_secs(1);
        assert_eq!(
            (flap_guard.pause(later), flap_guard.fault(later)),
            (Duration::ZERO, None)
        );
    }

    #[test]
    fn who_does_the_same_now_and_then_is_not_kept_waiting() {
        let (mut flap_guard, mut now) = (FlapGuard::default(), Instant::now());
        for _ in 0..100 {
            changed(&mut flap_guard, "one", now);
            assert_eq!(flap_guard.pause(now + EVERY), Duration::ZERO);
            now += EVERY;
        }
        assert!(flap_guard.fault(now).is_some(), "but it is told of");
    }

    #[test]
    fn changes_that_differ_are_no_fight() {
        let (mut flap_guard, now) = (FlapGuard::default(), Instant::now());
        for _ in 0..100 {
            changed(&mut flap_guard, "one", now);
            changed(&mut flap_guard, "two", now);
        }
        assert_eq!(
            (flap_guard.pause(now), flap_guard.fault(now)),
            (Duration::ZERO, None)
        );
    }
}
