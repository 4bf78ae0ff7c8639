//! What Open vSwitch would make of a plan, and what a narrower look would see.

use std::collections::{BTreeMap, BTreeSet};

use super::nft;

use pve_span_core::model::{IfName, Vmid};
use pve_span_core::plan::{Change, Plan};
use pve_span_core::resolve::scope::{Scope, needs_detail};
use pve_span_core::state::{Link, Mirror, MirrorKey, MirrorOutput, Observed, OvsState, RowId};

/// The mirrors that are not ours.
pub fn foreign(observed: &Observed) -> Vec<(IfName, RowId, Mirror)> {
    let OvsState::Present(ovs) = &observed.ovs else {
        unreachable!()
    };
    let all = ovs.bridges.iter().flat_map(|(name, bridge)| {
        bridge
            .mirrors
            .iter()
            .map(move |(row, mirror)| (name, row, mirror))
    });
    all.filter(|(.., mirror)| mirror.mark.is_none())
        .map(|(name, row, mirror)| (name.clone(), row.clone(), mirror.clone()))
        .collect()
}

/// What Open vSwitch's database holds after the plan's transaction.
pub fn apply_plan(plan: &Plan, observed: &mut Observed) {
    let OvsState::Present(ovs) = &mut observed.ovs else {
        unreachable!()
    };
    let mut created: BTreeMap<MirrorKey, RowId> = BTreeMap::new();
    for action in &plan.actions {
        let key = &action.mirror;
        // What nftables does is in the commands.
        let Some(name) = key.engine.bridge() else {
            continue;
        };
        let bridge = ovs
            .bridges
            .get_mut(name)
            .expect("a plan names bridges that are there");
        let row = match (&action.row, &action.change) {
            (Some(row), _) => row.clone(),
            (None, Change::Create) => {
                let row = RowId(format!("new {name} {} {}", key.of.session, key.of.output));
                let mark = key.of.clone();
                bridge.mirrors.insert(
                    row.clone(),
                    Mirror {
                        mark: Some(mark),
                        ..Mirror::default()
                    },
                );
                created.insert(key.clone(), row.clone());
                row
            }
            (None, _) => created[key].clone(),
        };
        if let Change::Remove { .. } = action.change {
            bridge
                .mirrors
                .remove(&row)
                .expect("a plan removes rows that are there");
            continue;
        }
        let config = &mut bridge
            .mirrors
            .get_mut(&row)
            .expect("a plan changes rows that are there")
            .config;
        match &action.change {
            Change::SetOutput { to, .. } => config.output = to.clone(),
            Change::SetAll { all } => config.all = *all,
            Change::SetVlans { to } => config.vlans = to.clone(),
            Change::SetSnaplen { to } => config.snaplen = *to,
            Change::SetSource { port, to, .. } => match to {
                Some(taken) => {
                    assert!(
                        bridge.ports.contains_key(port),
                        "a source that is not on the bridge"
                    );
                    config.ports.insert(port.clone(), *taken);
                }
                None => {
                    config.ports.remove(port);
                }
            },
            Change::Create | Change::Remove { .. } | Change::SetFrames { .. } | Change::Renew => {}
        }
    }
    nft::apply(&plan.commands, observed);
    nft::apply_ports(&plan.ports, observed);
}

/// What a look that is narrowed to some ports would have observed.
pub fn restricted(observed: &Observed, scope: &Scope) -> Observed {
    let mut few = observed.clone();
    let OvsState::Present(ovs) = &mut few.ovs else {
        unreachable!()
    };
    for bridge in ovs.bridges.values_mut() {
        let ours = bridge
            .mirrors
            .values()
            .filter(|mirror| mirror.mark.is_some());
        let referred: BTreeSet<IfName> = ours
            .flat_map(|mirror| {
                let output = match &mirror.config.output {
                    MirrorOutput::Port(port) => Some(port.clone()),
                    _ => None,
                };
                mirror.config.ports.keys().cloned().chain(output)
            })
            .collect();
        bridge
            .ports
            .retain(|name, _| scope.covers(name.as_str()) || referred.contains(name));
        let known: BTreeSet<IfName> = bridge.ports.keys().cloned().collect();
        // A port that was not read has no name where somebody else's mirror refers to it.
        for mirror in bridge
            .mirrors
            .values_mut()
            .filter(|mirror| mirror.mark.is_none())
        {
            mirror.config.ports.retain(|name, _| known.contains(name));
            if matches!(&mirror.config.output, MirrorOutput::Port(port) if !known.contains(port)) {
                mirror.config.output = MirrorOutput::None;
            }
        }
    }
    let bridges: BTreeSet<IfName> = ovs.bridges.keys().cloned().collect();
    let covered = |name: &IfName| scope.covers(name.as_str()) || bridges.contains(name);
    let masters: BTreeSet<IfName> = observed
        .links
        .iter()
        .filter(|(name, _)| covered(name))
        .filter_map(|(_, link)| link.master.clone())
        .collect();
    few.links
        .retain(|name, _| covered(name) || masters.contains(name));
    few
}

/// What a look that knows most devices by name only would have observed.
pub fn by_name_only(observed: &Observed, sensors: &BTreeSet<Vmid>) -> Observed {
    let mut few = observed.clone();
    let OvsState::Present(ovs) = &observed.ovs else {
        unreachable!()
    };
    let is_ovs_port = |name: &str| {
        ovs.bridges
            .values()
            .any(|bridge| bridge.ports.contains_key(name))
    };
    let exists = |name: &str| observed.links.contains_key(name);
    let detailed = |name: &IfName| needs_detail(name.as_str(), sensors, is_ovs_port, exists);
    let masters: BTreeSet<&IfName> = observed
        .links
        .iter()
        .filter(|(name, _)| detailed(name))
        .filter_map(|(_, link)| link.master.as_ref())
        .collect();
    for (name, link) in &mut few.links {
        if !detailed(name) && !masters.contains(name) {
            *link = Link::default();
        }
    }
    few
}
