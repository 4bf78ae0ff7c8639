//! What was planned and observed, found by session, mirror and device without going through all of it again and again.

use std::collections::{BTreeMap, BTreeSet};

use super::view::View;
use crate::config::selector::Output;
use crate::engine::nft::NftState;
use crate::engine::nft::names;
use crate::engine::nft::names::{ChainName, Label};
use crate::engine::nft::spec::Passing;
use crate::model::OutputKey;
use crate::model::{IfName, NicId, SessionName, Vmid};
use crate::plan::Action;
use crate::resolve::reasons::Reason;
use crate::state::port_map::PortMap;
use crate::state::{Mirror, MirrorKey, OvsState, RowId, SessionState};

/// A rule of ours: the device, the output, the session, and what of the session's source passes there.
pub(super) type Rule<'a> = (&'a IfName, Label, &'a str, Passing);

/// Everything that is looked up.
#[derive(Default)]
pub(super) struct Index<'a> {
    /// What became of each session.
    pub states: BTreeMap<&'a SessionName, &'a SessionState>,
    /// What changes of each session.
    pub actions: BTreeMap<&'a SessionName, Vec<&'a Action>>,
    /// The mirrors that change.
    pub changed: BTreeSet<&'a MirrorKey>,
    /// The outputs whose device changes.
    pub prepared: BTreeSet<&'a OutputKey>,
    /// The first thing that cannot be done for each session.
    pub problems: BTreeMap<&'a SessionName, &'a str>,
    /// The sessions whose sensor each guest is.
    pub sensor_of: BTreeMap<Vmid, BTreeSet<&'a SessionName>>,
    /// Open vSwitch's mirrors that carry our mark, by bridge.
    pub marked: BTreeMap<(&'a IfName, &'a OutputKey), Vec<&'a Mirror>>,
    /// The same by row.
    pub rows: BTreeMap<&'a RowId, &'a Mirror>,
    /// nftables' rules that copy.
    pub rules: BTreeSet<Rule<'a>>,
}

impl<'a> Index<'a> {
    /// Goes through everything once.
    pub fn new(view: &View<'a>) -> Self {
        let mut index = Self::default();
        for state in &view.desired.sessions {
            index.states.insert(&state.name, state);
        }
        for action in &view.plan.actions {
            let of_session = index.actions.entry(&action.mirror.of.session).or_default();
            of_session.push(action);
            index.changed.insert(&action.mirror);
        }
        for change in &view.plan.ports {
            let output = view.desired.outputs.get(change.device());
            index
                .prepared
                .extend(output.into_iter().flat_map(|output| &output.of));
        }
        for problem in &view.plan.problems {
            let first = index.problems.entry(&problem.session);
            first.or_insert(&problem.text);
        }
        for session in view.annotations.sessions.values() {
            for output in &session.outputs {
                if let Output::Nic(nic) = output.value {
                    let of = index.sensor_of.entry(nic.vmid).or_default();
                    of.insert(&session.name);
                }
            }
        }
        index.add_mirrors(view);
        index.add_rules(view);
        index
    }

    fn add_mirrors(&mut self, view: &View<'a>) {
        let OvsState::Present(ovs) = &view.observed.ovs else {
            return;
        };
        for (name, bridge) in &ovs.bridges {
            for (row, mirror) in &bridge.mirrors {
                let Some(mark) = &mirror.mark else { continue };
                self.marked.entry((name, mark)).or_default().push(mirror);
                self.rows.insert(row, mirror);
            }
        }
    }

    fn add_rules(&mut self, view: &View<'a>) {
        let NftState::Present(seen) = &view.observed.nft else {
            return;
        };
        for (name, chain) in &seen.chains {
            let (ChainName::Base { label }, Some(hook)) = (names::read(name), &chain.hook) else {
                continue;
            };
            let told = chain
                .rules
                .iter()
                .filter_map(|rule| names::read_purpose(&rule.comment));
            let rules = told.map(|told| (&hook.device, label.clone(), told.session, told.passing));
            self.rules.extend(rules);
        }
    }
}

/// What an explanation is read off.
pub(super) struct ExplainContext<'a> {
    pub view: &'a View<'a>,
    pub map: PortMap,
    pub reasons: BTreeMap<NicId, Vec<Reason>>,
    pub index: Index<'a>,
}

impl ExplainContext<'_> {
    pub fn laid_out(&self, session: &SessionName) -> Option<&SessionState> {
        self.index.states.get(session).copied()
    }
}
