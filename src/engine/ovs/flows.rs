//! Conversations that exist already follow a change of mirrors.
//!
//! ovs-vswitchd does not look at its datapath flows again when a mirror goes, and before 3.4 at no change of mirrors at
//! all: a conversation goes on with the copies that it had, or without, for as long as it lasts. So each commit is
//! followed by a revalidation. It is owed from before the commit until it was done, on file, since whoever commits may
//! die in between. What a reboot undoes needs no note: the file is under `/run`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::openflow::{Error, Switch};
use crate::sys::clock::MonotonicTime;
use crate::sys::error::with_causes;
use crate::sys::files;
use pve_span_core::model::IfName;
use pve_span_core::plan::{Action, Plan};
use pve_span_core::state::OvsState;

/// The bridges whose flows are owed a revalidation, and since when, below the root directory.
const OWED: &str = "run/pve-span/flows.json";

/// The revalidations that are owed to bridges.
pub type StaleFlows = BTreeMap<IfName, Revalidation>;

/// A revalidation that is owed. One that was tried in vain is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Revalidation {
    /// Since when.
    since: MonotonicTime,
    /// The process that is to do it.
    by: u32,
}

/// How long a commit and its revalidation take at most: as long as `apply` waits for both.
const AT_MOST: Duration = Duration::from_secs(10);

impl Revalidation {
    fn ours() -> Self {
        Self {
            since: MonotonicTime::now(),
            by: std::process::id(),
        }
    }

    /// Is it this process that has to do it?
    pub fn is_ours(self) -> bool {
        self.by == std::process::id()
    }

    /// Will nobody do it who does not look for it? The process that was to do it has ended, or has had its time.
    pub fn is_abandoned(self) -> bool {
        let process = format!("/proc/{}", self.by);
        self.since.elapsed() > AT_MOST || !Path::new(&process).exists()
    }
}

/// The revalidations that nobody will do who does not look for them.
pub fn abandoned(root: &Path) -> StaleFlows {
    let mut owed = noted(root).unwrap_or_default();
    owed.retain(|_, revalidation| revalidation.is_abandoned());
    owed
}

/// The bridges whose flows may be older than their mirrors.
pub fn owed(root: &Path, ovs: &OvsState) -> StaleFlows {
    let OvsState::Present(ovs) = ovs else {
        return StaleFlows::new();
    };
    let mut owed = noted(root).unwrap_or_else(|| {
        // Nobody has told since the node was started, or an earlier version has changed mirrors.
        let with_ours = ovs.bridges.iter().filter(|(_, bridge)| {
            let mut mirrors = bridge.mirrors.values();
            mirrors.any(|mirror| mirror.mark.is_some())
        });
        let with_ours = with_ours.map(|(name, _)| (name.clone(), Revalidation::default()));
        with_ours.collect()
    });
    // Flows of a bridge that is no more are none either.
    owed.retain(|bridge, _| ovs.bridges.contains_key(bridge));
    owed
}

/// What is on file, if that can be understood.
fn noted(root: &Path) -> Option<StaleFlows> {
    let text = files::read_text(&root.join(OWED)).ok()?;
    serde_json::from_str(&text).ok()
}

/// Notes, before they are changed, the bridges whose mirrors a plan changes; all that are owed come back.
pub fn note_stale(root: &Path, plan: &Plan, earlier: &StaleFlows) -> StaleFlows {
    let bridge = |action: &Action| action.mirror.engine.bridge().cloned();
    let changed = plan.actions.iter().filter_map(bridge);
    let mut owed = earlier.clone();
    owed.extend(changed.map(|bridge| (bridge, Revalidation::ours())));
    note(root, &owed);
    owed
}

/// What has become of revalidations, and of when they were.
#[derive(Debug)]
pub struct RevalidationResults(Vec<(IfName, Revalidation, Result<(), Error>)>);

impl RevalidationResults {
    /// Those that were not done, and why.
    pub fn failures(self) -> Vec<(IfName, Error)> {
        let tried = self.0.into_iter();
        tried
            .filter_map(|(bridge, _, done)| Some((bridge, done.err()?)))
            .collect()
    }
}

/// Has ovs-vswitchd revalidate the flows of bridges whose mirrors it has taken.
pub fn revalidate(root: &Path, owed: &StaleFlows, deadline: Instant) -> RevalidationResults {
    // All are greeted before the first one's answer is waited for.
    let greet = |bridge| Switch::connect(root, bridge, deadline);
    let greeted = owed
        .iter()
        .map(|(bridge, revalidation)| (bridge, revalidation, greet(bridge)));
    let greeted: Vec<_> = greeted.collect();
    let tried = greeted.into_iter().map(|(bridge, revalidation, switch)| {
        let done = switch.and_then(Switch::revalidate);
        (bridge.clone(), *revalidation, done)
    });
    RevalidationResults(tried.collect())
}

/// Notes that nobody is at these any more. The lock has to be held.
pub fn hand_over(root: &Path, owed: &StaleFlows) {
    let mut noted = noted(root).unwrap_or_default();
    noted.extend(
        owed.keys()
            .map(|bridge| (bridge.clone(), Revalidation::default())),
    );
    note(root, &noted);
}

/// Strikes off what was done, unless more is owed since. What was not comes back, with the reason, unless somebody else has done
/// it or is at it. The lock has to be held.
pub fn record_revalidated(root: &Path, tried: RevalidationResults) -> Vec<(IfName, Error)> {
    let noted = noted(root);
    let is_lost = noted.is_none();
    let mut owed = noted.unwrap_or_default();
    let mut failed = Vec::new();
    for (bridge, revalidation, done) in tried.0 {
        let is_ours = is_lost || owed.get(&bridge) == Some(&revalidation);
        match done {
            _ if !is_ours => {}
            Ok(()) => drop(owed.remove(&bridge)),
            Err(error) => {
                owed.insert(bridge.clone(), Revalidation::default());
                failed.push((bridge, error));
            }
        }
    }
    note(root, &owed);
    failed
}

fn note(root: &Path, owed: &StaleFlows) {
    let text = serde_json::to_string(owed).unwrap_or_default() + "\n";
    if let Err(error) = files::replace_private(&root.join(OWED), &text) {
        // Then who dies before the revalidation leaves it undone.
        log::warn!("{}", with_causes(&error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_since_it_was_asked_for_stays_owed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let bridge: IfName = "vmbr2".parse().unwrap();
        let (asked, changed) = (Revalidation::default(), Revalidation::ours());
        let done = |revalidation| RevalidationResults(vec![(bridge.clone(), revalidation, Ok(()))]);
        note(root, &[(bridge.clone(), changed)].into());
        let failed = |revalidation| {
            RevalidationResults(vec![(bridge.clone(), revalidation, Err(Error::NoVersion))])
        };
        for old in [done(asked), failed(asked)] {
            assert!(record_revalidated(root, old).is_empty());
            assert_eq!(noted(root).unwrap()[&bridge], changed);
        }
        assert!(!changed.is_abandoned() && abandoned(root).is_empty());
        assert_eq!(record_revalidated(root, failed(changed)).len(), 1);
        assert_eq!(noted(root).unwrap()[&bridge], Revalidation::default());
        assert!(Revalidation::default().is_abandoned() && !abandoned(root).is_empty());
        assert!(record_revalidated(root, done(Revalidation::default())).is_empty());
        assert_eq!(noted(root), Some(StaleFlows::new()));
        assert!(
            record_revalidated(root, failed(changed)).is_empty(),
            "somebody has done it"
        );
        std::fs::remove_file(root.join(OWED)).unwrap();
        assert_eq!(record_revalidated(root, failed(changed)).len(), 1);
    }

    #[test]
    fn a_revalidation_is_abandoned_with_its_process() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let of = |by| Revalidation {
            since: MonotonicTime::now(),
            by,
        };
        let revalidation = of(child.id());
        assert!(!revalidation.is_abandoned());
        child.wait().unwrap();
        assert!(revalidation.is_abandoned() && !revalidation.is_ours());
        assert!(of(0).is_abandoned());
    }
}
