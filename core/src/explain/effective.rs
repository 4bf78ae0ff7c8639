//! Is what shall be mirrored mirrored now? Read off the mirrors and chains that are there.

use serde::Serialize;

use super::index::ExplainContext;
use crate::engine::Engine;
use crate::engine::nft::NftState;
use crate::engine::nft::names::Label;
use crate::engine::nft::spec::{CopySource, Passing};
use crate::health::{NOT_ACTED, REMEDY, not_in_force};
use crate::model::OutputKey;
use crate::model::{GuestKind, IfName, NicId, SessionName, port_owner};
use crate::plan::Change;
use crate::state::{Mirror, MirrorKey, OvsState};

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
        match self {
            Self::Yes => "in force".into(),
            Self::No => not_in_force(),
            Self::Impossible(why) => format!("not in force: {why}"),
            Self::Differs => format!("in force, but not all as span.cfg has it: {REMEDY}"),
            Self::Committed => NOT_ACTED.into(),
            Self::Unknown(why) => format!("cannot tell whether it is in force: {why}"),
        }
    }
}

impl ExplainContext<'_> {
    pub(super) fn ovs_in_force(&self, key: &MirrorKey, port: &IfName) -> InForce {
        let ovs = match &self.view.observed.ovs {
            OvsState::Present(ovs) => ovs,
            OvsState::Absent(why) | OvsState::Failed(why) => return InForce::Unknown(why.clone()),
        };
        let bridge = key.engine.bridge();
        let marked = bridge.and_then(|bridge| self.index.marked.get(&(bridge, &key.of)));
        if !marked
            .into_iter()
            .flatten()
            .any(|mirror| takes(mirror, port))
        {
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
        key: &OutputKey,
        device: &IfName,
        copied: &CopySource,
    ) -> InForce {
        if let NftState::Failed(why) = &self.view.observed.nft {
            return InForce::Unknown(why.clone());
        }
        let output = Label::of(&key.output);
        let mut hooks = copied.hooks();
        let is_there =
            hooks.all(|(_, passing)| self.has_rule(&key.session, device, &output, passing));
        let key = MirrorKey {
            engine: Engine::Nft,
            of: key.clone(),
        };
        if !is_there {
            self.not_in_force(&key)
        } else if self.is_pending(&key) {
            InForce::Differs
        } else {
            InForce::Yes
        }
    }

    /// What no change is planned for has a problem.
    fn not_in_force(&self, key: &MirrorKey) -> InForce {
        let problem = self.index.problems.get(&key.of.session);
        match problem.filter(|_| !self.index.changed.contains(key)) {
            Some(problem) => InForce::Impossible((*problem).to_owned()),
            None => InForce::No,
        }
    }

    /// Does anything of the mirror, or of its output's device, change with the next `apply`?
    fn is_pending(&self, key: &MirrorKey) -> bool {
        self.index.changed.contains(key) || self.index.prepared.contains(&key.of)
    }

    /// Does the session still mirror a NIC that it does not take any more?
    pub(super) fn is_still_mirrored(&self, session: &SessionName, nic: NicId) -> bool {
        let is_nics =
            |port: &IfName| port_owner(port.as_str()).is_some_and(|(owner, _)| owner == nic);
        let actions = self.index.actions.get(session).into_iter().flatten();
        let mut actions = actions.map(|action| (action, &action.change));
        actions.any(|(action, change)| match (change, &action.row) {
            (Change::SetSource { port, to: None, .. }, _) => is_nics(port),
            (Change::Remove { .. }, Some(row)) => {
                let mirror = self.index.rows.get(row);
                mirror.is_some_and(|mirror| mirror.config.ports.keys().any(is_nics))
            }
            (Change::Remove { .. }, None) => {
                let output = Label::of(&action.mirror.of.output);
                let passing = [Passing::From, Passing::To];
                let has_rule = |port: &IfName| {
                    passing
                        .iter()
                        .any(|passing| self.has_rule(session, port, &output, *passing))
                };
                devices(nic).any(|port| has_rule(&port))
            }
            _ => false,
        })
    }

    fn has_rule(
        &self,
        session: &SessionName,
        device: &IfName,
        output: &Label,
        passing: Passing,
    ) -> bool {
        let rule = (device, output.clone(), session.as_str(), passing);
        self.index.rules.contains(&rule)
    }
}

/// The devices of a NIC that frames may be copied at, whether they are there or not.
fn devices(nic: NicId) -> impl Iterator<Item = IfName> {
    let names = [
        nic.device(GuestKind::Qemu),
        nic.device(GuestKind::Lxc),
        nic.ovs_firewall_port(),
        nic.linux_firewall_port(),
    ];
    names.into_iter().filter_map(|name| name.parse().ok())
}

fn takes(mirror: &Mirror, port: &IfName) -> bool {
    mirror.config.all || mirror.config.ports.contains_key(port)
}
