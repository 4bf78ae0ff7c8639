//! Conversations that exist already follow a change of mirrors.
//!
//! ovs-vswitchd does not look at its datapath flows again when a mirror goes, and before 3.4 at no change of mirrors at
//! all: a conversation goes on with the copies that it had, or without, for as long as it lasts. So each commit is
//! followed by a revalidation. It is owed from before the commit until it was done, on file, since whoever commits may
//! die in between. What a reboot undoes needs no note: the file is under `/run`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use super::openflow::{Error, Switch};
use crate::core::model::IfName;
use crate::core::plan::{Action, Plan};
use crate::core::state::OvsState;
use crate::files;

/// The bridges whose flows are owed a revalidation, below the root directory.
const OWED: &str = "run/pve-span/flows.json";

/// The bridges whose flows may be older than their mirrors.
pub fn owed(root: &Path, ovs: &OvsState) -> BTreeSet<IfName> {
    let OvsState::Present(ovs) = ovs else {
        return BTreeSet::new();
    };
    let mut owed = noted(root).unwrap_or_else(|| {
        // Nobody has told since the node was started, or an earlier version has changed mirrors.
        let with_ours = ovs.bridges.iter().filter(|(_, bridge)| {
            let mut mirrors = bridge.mirrors.values();
            mirrors.any(|mirror| mirror.mark.is_some())
        });
        with_ours.map(|(name, _)| name.clone()).collect()
    });
    // Flows of a bridge that is no more are none either.
    owed.retain(|bridge| ovs.bridges.contains_key(bridge));
    owed
}

/// What is on file, if that can be understood.
fn noted(root: &Path) -> Option<BTreeSet<IfName>> {
    let text = files::read_text(&root.join(OWED)).ok()?;
    serde_json::from_str(&text).ok()
}

/// Notes, before they are changed, the bridges whose mirrors a plan changes; all that are owed come back.
pub fn owe(root: &Path, plan: &Plan, earlier: &BTreeSet<IfName>) -> BTreeSet<IfName> {
    let bridge = |action: &Action| action.mirror.bridge.clone();
    let changed = plan.actions.iter().filter_map(bridge);
    let owed: BTreeSet<IfName> = changed.chain(earlier.iter().cloned()).collect();
    if noted(root).as_ref() != Some(&owed) {
        note(root, &owed);
    }
    owed
}

/// Has ovs-vswitchd revalidate the flows of bridges whose mirrors it has taken. Those that remain owed come back, with
/// the reason.
pub fn pay(root: &Path, owed: &BTreeSet<IfName>, deadline: Instant) -> Vec<(IfName, Error)> {
    let mut failed = Vec::new();
    // All are greeted before the first one's answer is waited for.
    let switches: Vec<_> = owed
        .iter()
        .map(|bridge| (bridge, Switch::connect(root, bridge, deadline)))
        .collect();
    for (bridge, switch) in switches {
        if let Err(error) = switch.and_then(Switch::revalidate) {
            failed.push((bridge.clone(), error));
        }
    }
    note(
        root,
        &failed.iter().map(|(bridge, _)| bridge.clone()).collect(),
    );
    failed
}

fn note(root: &Path, owed: &BTreeSet<IfName>) {
    let text = serde_json::to_string(owed).unwrap_or_default() + "\n";
    if let Err(error) = files::replace_private(&root.join(OWED), &text) {
        // Then who dies before the revalidation leaves it undone.
        log::warn!("{}", super::chain(&error));
    }
}
