//! Is what shall be mirrored mirrored now? Read off the mirrors and chains that are there.

use serde::Serialize;

use super::Ground;
use crate::core::copies::{CopyKey, CopySource};
use crate::core::model::{IfName, NicId, SessionName, port_owner};
use crate::core::nft::NftState;
use crate::core::nft::names::{self, Label, Named};
use crate::core::plan::Change;
use crate::core::state::{Mirror, MirrorKey, OvsState};

/// Is it so now?
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "why")]
pub enum InForce {
    /// It is.
    Yes,
    /// It is not yet.
    No,
    /// It is not, and cannot be brought about.
    Impossible(String),
    /// It is mirrored, but something of it is not as span.cfg has it.
    Differs,
    /// Open vSwitch's database has it, and ovs-vswitchd has not acted on it.
    Committed,
    /// Nobody can tell.
    Unknown(String),
}

impl InForce {
    /// In words.
    pub fn words(&self) -> String {
        const REMEDY: &str = "see pve-span plan, then pve-span apply";
        match self {
            Self::Yes => "in force".into(),
            Self::No => format!("not in force yet: {REMEDY}"),
            Self::Impossible(why) => format!("not in force: {why}"),
            Self::Differs => format!("in force, but not all as span.cfg has it: {REMEDY}"),
            Self::Committed => {
                "committed to Open vSwitch's database, but ovs-vswitchd has not acted on it yet"
                    .into()
            }
            Self::Unknown(why) => format!("cannot tell whether it is in force: {why}"),
        }
    }
}

impl Ground<'_> {
    pub(super) fn ovs_in_force(&self, key: &MirrorKey, port: &IfName) -> InForce {
        let ovs = match &self.view.observed.ovs {
            OvsState::Present(ovs) => ovs,
            OvsState::Absent(why) | OvsState::Failed(why) => return InForce::Unknown(why.clone()),
        };
        let bridge = key.bridge.as_ref().and_then(|name| ovs.bridges.get(name));
        let mut mirrors = bridge
            .into_iter()
            .flat_map(|bridge| bridge.mirrors.values());
        if !mirrors.any(|mirror| is_of(mirror, &key.session, &key.output) && takes(mirror, port)) {
            self.not_in_force(key)
        } else if self.is_pending(key) {
            InForce::Differs
        } else if ovs.caught_up {
            InForce::Yes
        } else {
            InForce::Committed
        }
    }

    pub(super) fn nft_in_force(
        &self,
        key: &CopyKey,
        device: &IfName,
        copied: &CopySource,
    ) -> InForce {
        if let NftState::Failed(why) = &self.view.observed.nft {
            return InForce::Unknown(why.clone());
        }
        let output = Label::of(&key.output);
        let wanted = copied.hooks().count();
        let is_there = self.rules(&key.session, device, &output) >= wanted;
        let key = MirrorKey {
            bridge: None,
            session: key.session.clone(),
            output: key.output.clone(),
        };
        if !is_there {
            return self.not_in_force(&key);
        }
        if self.is_pending(&key) {
            InForce::Differs
        } else {
            InForce::Yes
        }
    }

    /// What no change is planned for has a problem.
    fn not_in_force(&self, key: &MirrorKey) -> InForce {
        let mut problems = self.view.plan.problems.iter();
        let problem = problems.find(|problem| problem.session == key.session);
        match problem.filter(|_| !self.changes(key)) {
            Some(problem) => InForce::Impossible(problem.text.clone()),
            None => InForce::No,
        }
    }

    /// Does anything of the mirror, or of its output's device, change with the next `apply`?
    fn is_pending(&self, key: &MirrorKey) -> bool {
        let mut devices = self.view.plan.ports.iter();
        self.changes(key)
            || devices.any(|change| {
                let output = self.view.desired.outputs.get(change.device());
                output.is_some_and(|output| {
                    let mut of = output.of.iter();
                    of.any(|of| of.session == key.session && of.output == key.output)
                })
            })
    }

    fn changes(&self, key: &MirrorKey) -> bool {
        let mut changes = self.view.plan.actions.iter();
        changes.any(|action| action.mirror == *key)
    }

    /// Does the session still mirror a NIC that it does not take any more?
    pub(super) fn is_still_mirrored(&self, session: &SessionName, nic: NicId) -> bool {
        let is_nics =
            |port: &IfName| port_owner(port.as_str()).is_some_and(|(owner, _)| owner == nic);
        let actions = self.view.plan.actions.iter();
        let mut actions = actions.filter(|action| action.mirror.session == *session);
        actions.any(|action| match &action.change {
            Change::SetSource { port, to: None, .. } => is_nics(port),
            Change::Remove { .. } if action.row.is_none() => {
                let devices = self.view.observed.links.keys();
                let mut devices = devices.filter(|device| is_nics(device));
                let output = Label::of(&action.mirror.output);
                devices.any(|device| self.rules(session, device, &output) > 0)
            }
            Change::Remove { .. } => {
                let OvsState::Present(ovs) = &self.view.observed.ovs else {
                    return false;
                };
                let rows = ovs.bridges.values().flat_map(|bridge| &bridge.mirrors);
                let mut rows = rows.filter(|(row, _)| action.row.as_ref() == Some(row));
                rows.any(|(_, mirror)| mirror.config.ports.keys().any(is_nics))
            }
            _ => false,
        })
    }

    /// How many of a device's hooks have a rule of the session, for an output.
    fn rules(&self, session: &SessionName, device: &IfName, output: &Label) -> usize {
        let NftState::Present(seen) = &self.view.observed.nft else {
            return 0;
        };
        let chains = seen.chains.iter().filter(|(name, chain)| {
            let is_at = chain
                .hook
                .as_ref()
                .is_some_and(|hook| hook.device == *device);
            is_at && matches!(names::read(name), Named::Base { label } if *output == label)
        });
        let has_rule = |chain: &crate::core::nft::SeenChain| {
            let mut told = chain
                .rules
                .iter()
                .filter_map(|rule| names::read_purpose(&rule.comment));
            told.any(|told| told.session == session.as_str())
        };
        chains.filter(|(_, chain)| has_rule(chain)).count()
    }
}

fn is_of(mirror: &Mirror, session: &SessionName, output: &str) -> bool {
    let mark = mirror.mark.as_ref();
    mark.is_some_and(|mark| mark.session == *session && mark.output == output)
}

fn takes(mirror: &Mirror, port: &IfName) -> bool {
    mirror.config.all || mirror.config.ports.contains_key(port)
}
