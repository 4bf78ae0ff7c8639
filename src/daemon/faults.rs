//! What is wrong right now, so that each fault is said when it begins and when it is over, and not each time that it is
//! met.

use std::collections::BTreeMap;
use std::time::Instant;

use super::duration::duration;

/// Who met a fault: each one says all that it meets each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whence {
    /// A reconcile.
    Reconcile,
    /// Somebody who undoes what is done.
    Again,
    /// A child that could not be started.
    Start,
    /// A reconcile that did not end, or said nothing.
    Work,
    /// A look at the node that did not end.
    Look,
    /// A survey.
    Survey,
    /// The look at /etc/pve.
    Files,
    /// What a child said on stderr.
    Said,
    /// A file that could not be written.
    Writing,
}

#[derive(Debug)]
struct Fault {
    text: String,
    since: Instant,
    times: u64,
}

/// The faults that there are.
#[derive(Debug, Default)]
pub struct Faults(BTreeMap<(Whence, String), Fault>);

impl Faults {
    /// Takes note of all that is wrong now, says what is new, and what is over.
    pub fn now(&mut self, whence: Whence, wrong: &[String]) {
        let keys: Vec<(Whence, String)> = wrong.iter().map(|text| (whence, same(text))).collect();
        let is_over = |key: &(Whence, String)| key.0 == whence && !keys.contains(key);
        let over: Vec<_> = self.0.keys().filter(|key| is_over(key)).cloned().collect();
        for key in over {
            if let Some(fault) = self.0.remove(&key).filter(|_| !self.is_known(&key.1)) {
                let lasted = duration(fault.since.elapsed());
                let times = match fault.times {
                    1 => String::new(),
                    times => format!(" (met {times} times)"),
                };
                log::info!("over after {lasted}{times}: {}", fault.text);
            }
        }
        for (key, text) in keys.into_iter().zip(wrong) {
            match self.0.get_mut(&key) {
                Some(fault) => fault.times += 1,
                None => {
                    if !self.is_known(&key.1) {
                        log::error!("{text}");
                    }
                    let fault = Fault {
                        text: text.clone(),
                        since: Instant::now(),
                        times: 1,
                    };
                    self.0.insert(key, fault);
                }
            }
        }
    }

    /// Has somebody met the same already?
    fn is_known(&self, same: &str) -> bool {
        self.0.keys().any(|(_, known)| known == same)
    }

    /// Is anything wrong, as far as one of them can tell?
    pub fn any(&self, whence: Whence) -> bool {
        self.0.keys().any(|key| key.0 == whence)
    }
}

/// What stays the same of a fault that is met again: not for how many milliseconds was waited, nor whose process it was.
pub(super) fn same(text: &str) -> String {
    let mut words: Vec<&str> = text.split(' ').collect();
    for place in 0..words.len() {
        let is_number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        let is_measured = words
            .get(place + 1)
            .is_some_and(|unit| unit.starts_with("ms"))
            || place
                .checked_sub(1)
                .and_then(|before| words.get(before))
                .is_some_and(|word| word.ends_with("(pid"));
        if is_measured
            && words
                .get(place)
                .is_some_and(|word| is_number(word.trim_end_matches(')')))
        {
            if let Some(word) = words.get_mut(place) {
                *word = "#";
            }
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_does_not_make_another_fault() {
        assert_eq!(
            same("another pve-span has held it for more than 10003 ms (pid 77)"),
            "another pve-span has held it for more than # ms (pid #"
        );
        assert_eq!(same("guest 101: no"), "guest 101: no");
    }

    #[test]
    fn a_fault_is_one_until_it_is_over() {
        let mut faults = Faults::default();
        let text = |number: u32| vec![format!("not within {number} ms")];
        faults.now(Whence::Reconcile, &text(1));
        faults.now(Whence::Reconcile, &text(2));
        assert_eq!(
            faults
                .0
                .values()
                .map(|fault| fault.times)
                .collect::<Vec<_>>(),
            [2]
        );
        faults.now(Whence::Files, &[]);
        assert!(faults.any(Whence::Reconcile));
        faults.now(Whence::Reconcile, &[]);
        assert!(!faults.any(Whence::Reconcile));
    }
}
