//! What the lock remembers between its holders.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sys::clock::MonotonicTime;
use pve_span_core::model::Vmid;

/// How long a guest counts as stopping after its pre-stop. A shutdown that the guest refuses leaves
/// it running, and then its mirror has to come back.
pub const STOPPING: Duration = Duration::from_secs(5);

/// The most announcements that are kept. Each one goes when its guest has stopped or started.
const MOST_ANNOUNCED: usize = 1000;

/// How far a reconcile has looked for guests' configs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ReadScope {
    /// Nowhere: /etc/pve did not answer.
    LastGood,
    /// This node's, and those that the hook's caller named.
    Node,
    /// Wherever in the cluster they are filed.
    Cluster,
}

/// The interface indexes of a guest's ports. They tell one run of the guest from the next, also where its hooks are lost.
pub type Life = BTreeSet<u32>;

/// A guest that was announced as stopping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoppingGuest {
    /// Until when it counts as gone.
    until: MonotonicTime,
    /// Which run of it that was.
    life: Life,
}

/// What the lock remembers between its holders.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Who wrote this.
    #[serde(default)]
    pub(super) pid: Option<u32>,
    /// When the last reconcile that succeeded began, for which guests as gone, and how far it looked.
    #[serde(default)]
    last: Option<(MonotonicTime, BTreeSet<u32>, ReadScope)>,
    /// How often somebody has begun to change something, or has ended: odd from the one to the other, and after a work that
    /// did not end well.
    #[serde(default)]
    works: u64,
    /// Guests whose pre-stop was called, until they have stopped or started.
    #[serde(default)]
    announced: BTreeMap<u32, StoppingGuest>,
    /// A process that hangs in /etc/pve, for as long as it marks itself as reading there.
    #[serde(default)]
    pub hung: Option<u32>,
    /// The `cur_cfg` that ovs-vswitchd did not get beyond while the last one waited for it.
    #[serde(default)]
    pub stuck_at: Option<i64>,
    /// Did ovsdb-server let the last one wait in vain?
    #[serde(default)]
    pub is_ovs_silent: bool,
}

impl Memory {
    /// The guests that count as stopping now.
    pub fn stopping(&self, now: MonotonicTime) -> BTreeSet<u32> {
        self.announced
            .iter()
            .filter(|(_, one)| one.until > now && one.until <= now.after(STOPPING))
            .map(|(vmid, _)| *vmid)
            .collect()
    }

    /// How long it takes until one of them no longer does.
    pub fn settles_in(&self, now: MonotonicTime) -> Option<Duration> {
        let all = self.announced.values().map(|one| one.until);
        let until = all.filter(|until| *until > now).min()?;
        Some(now.until(until).min(STOPPING))
    }

    /// Notes that a guest is about to stop. It counts as gone for a while once in its life: whoever may only press
    /// *Shutdown* does not keep a guest out of its mirror by doing so again and again.
    pub fn stops(&mut self, vmid: Vmid, life: &Life, now: MonotonicTime) {
        let until = now.after(STOPPING);
        let fresh = StoppingGuest {
            until,
            life: Life::new(),
        };
        let one = self.announced.entry(vmid.get()).or_insert(fresh);
        if one.life.is_disjoint(life) {
            one.until = until;
            one.life.clear();
        }
        // A port that was plugged in since is of the same life.
        one.life.extend(life);
    }

    /// Notes that a guest is no longer about to stop: it has, or it has started.
    pub fn settled(&mut self, vmid: Vmid) {
        self.announced.remove(&vmid.get());
    }

    /// Forgets that guests are stopping. Those that go on running have had their pause.
    pub fn forget(&mut self) {
        for one in self.announced.values_mut() {
            one.until = MonotonicTime::default();
        }
    }

    /// Has a reconcile that began after `arrival` and looked as far already done, for the same guests as gone, what
    /// the one that arrived then would do?
    pub fn covers(
        &self,
        arrival: MonotonicTime,
        now: MonotonicTime,
        gone: &BTreeSet<u32>,
        reach: ReadScope,
    ) -> bool {
        self.last
            .as_ref()
            .is_some_and(|(began, last_gone, last_reach)| {
                (arrival..=now).contains(began) && last_gone == gone && *last_reach >= reach
            })
    }

    /// Notes a reconcile that succeeded.
    pub fn succeeded(&mut self, began: MonotonicTime, gone: BTreeSet<u32>, reach: ReadScope) {
        self.last = Some((began, gone, reach));
    }

    /// Notes that somebody begins to change something: until that has succeeded, nothing is known to be done.
    pub fn begins(&mut self) {
        self.last = None;
        self.works = self.works.wrapping_add(1) | 1;
    }

    /// Notes that it is over, however it went: what is there stays so until somebody else begins.
    pub fn ends(&mut self) {
        self.works = self.works.wrapping_add(1) & !1;
    }

    /// Was nobody at work then, and has nobody begun since? What was seen in between is as it was seen.
    pub fn is_as_at(&self, earlier: &Self) -> bool {
        earlier.works % 2 == 0 && self.works == earlier.works
    }

    /// Drops the oldest announcements where there are too many: of guests whose hooks were lost.
    pub(super) fn tidy(&mut self) {
        while self.announced.len() > MOST_ANNOUNCED {
            let oldest = self.announced.iter().min_by_key(|(_, one)| one.until);
            let Some(vmid) = oldest.map(|(vmid, _)| *vmid) else {
                return;
            };
            self.announced.remove(&vmid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_began_after_the_arrival_covers_it() {
        let mut memory = Memory::default();
        let gone = BTreeSet::new();
        memory.succeeded(MonotonicTime(10), gone.clone(), ReadScope::Node);
        assert!(memory.covers(MonotonicTime(9), MonotonicTime(20), &gone, ReadScope::Node));
        assert!(memory.covers(
            MonotonicTime(9),
            MonotonicTime(20),
            &gone,
            ReadScope::LastGood
        ));
        assert!(
            !memory.covers(
                MonotonicTime(9),
                MonotonicTime(20),
                &gone,
                ReadScope::Cluster
            ),
            "a guest that comes in may be filed elsewhere"
        );
        assert!(
            !memory.covers(MonotonicTime(11), MonotonicTime(20), &gone, ReadScope::Node),
            "it may have missed what happened since"
        );
        assert!(
            !memory.covers(
                MonotonicTime(9),
                MonotonicTime(20),
                &[101].into(),
                ReadScope::Node
            ),
            "another guest counted as gone"
        );
        assert!(
            !memory.covers(MonotonicTime(3), MonotonicTime(8), &gone, ReadScope::Node),
            "it cannot have begun later than now"
        );
        memory.begins();
        assert!(!memory.covers(MonotonicTime(9), MonotonicTime(20), &gone, ReadScope::Node));
    }

    #[test]
    fn what_is_seen_while_somebody_works_does_not_count() {
        let mut memory = Memory::default();
        let before = memory.clone();
        assert!(memory.is_as_at(&before));
        memory.begins();
        let meanwhile = memory.clone();
        assert!(!memory.is_as_at(&before), "it has begun since");
        assert!(!memory.is_as_at(&meanwhile), "it is at work");
        memory.begins();
        assert!(!memory.is_as_at(&meanwhile), "the first one has died");
        memory.ends();
        assert!(!memory.is_as_at(&before) && !memory.is_as_at(&meanwhile));
        assert!(memory.is_as_at(&memory.clone()));
    }

    #[test]
    fn a_guest_counts_as_stopping_for_a_while() {
        let mut memory = Memory::default();
        let (now, vmid) = (MonotonicTime(5), Vmid::new(101).unwrap());
        memory.stops(vmid, &[7].into(), now);
        assert_eq!(memory.stopping(now), [101].into());
        assert_eq!(memory.stopping(now.after(STOPPING)), [].into());
        memory.settled(vmid);
        assert_eq!(memory.stopping(now), [].into());
    }

    #[test]
    fn it_does_so_once_in_its_life() {
        let mut memory = Memory::default();
        let (start, vmid) = (MonotonicTime(5), Vmid::new(101).unwrap());
        let at = |seconds| start.after(Duration::from_secs(seconds));
        memory.stops(vmid, &[7, 8].into(), start);
        memory.stops(vmid, &[8, 9].into(), at(3));
        assert_eq!(memory.stopping(at(4)), [101].into());
        assert_eq!(memory.stopping(at(6)), [].into(), "not put off");
        for life in [[7], [8], [9]] {
            memory.stops(vmid, &life.into(), at(6));
            assert_eq!(memory.stopping(at(6)), [].into(), "{life:?}");
        }
        memory.stops(vmid, &[10].into(), at(9));
        assert_eq!(memory.stopping(at(9)), [101].into(), "it runs anew");
        memory.forget();
        memory.stops(vmid, &[10].into(), at(10));
        assert_eq!(
            memory.stopping(at(10)),
            [].into(),
            "`apply` does not undo it"
        );
        memory.settled(vmid);
        memory.stops(vmid, &[10].into(), at(11));
        assert_eq!(memory.stopping(at(11)), [101].into(), "its hooks say so");
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let mut memory = Memory::default();
        for (vmid, moment) in (100..2000).zip(0..) {
            memory.stops(
                Vmid::new(vmid).unwrap(),
                &[vmid].into(),
                MonotonicTime(moment),
            );
        }
        memory.tidy();
        assert_eq!(memory.announced.len(), MOST_ANNOUNCED);
        assert!(memory.announced.contains_key(&1999));
    }
}
