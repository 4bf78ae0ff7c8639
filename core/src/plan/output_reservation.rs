//! One mirror is enough to keep an output port free of everything but copies, however many sessions have nftables copy
//! to it: Open vSwitch allows few mirrors a bridge.
//!
//! Whose mirror that is depends on the file and on what is there, never on which guests run: so a guest that stops
//! moves nothing of others (law 3).

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::engine::Engine;
use crate::engine::nft::spec::Exclusive;
use crate::model::IfName;
use crate::state::{
    Desired, Mirror, MirrorConfig, MirrorKey, MirrorOutput, OutputReservation, OvsBridge, Wanted,
};

/// The mirrors that a bridge shall have: those with sources, and one for each output port that is only to be kept free.
pub fn shared<'a>(
    desired: &'a Desired,
    name: &IfName,
    bridge: &OvsBridge,
) -> BTreeMap<MirrorKey, Cow<'a, Wanted>> {
    let mut mirrors = BTreeMap::new();
    let mut idle: BTreeMap<&IfName, BTreeMap<&MirrorKey, &Wanted>> = BTreeMap::new();
    for (key, wanted) in &desired.mirrors {
        if key.engine.bridge() != Some(name) {
            continue;
        }
        let port = match &wanted.config.output {
            MirrorOutput::Port(port) if only_reserves(wanted) => port,
            _ => {
                mirrors.insert(key.clone(), Cow::Borrowed(wanted));
                continue;
            }
        };
        idle.entry(port).or_default().insert(key, wanted);
        if !wanted.undecided.is_empty() {
            // It stays for those that are in it.
            let undecided = Wanted {
                reserves: OutputReservation::No,
                ..wanted.clone()
            };
            mirrors.insert(key.clone(), Cow::Owned(undecided));
        }
    }
    for (port, group) in idle {
        let Some(first) = group.keys().next() else {
            continue;
        };
        let holder =
            holder(desired, name, bridge, port, &mirrors).unwrap_or_else(|| (*first).clone());
        let is_needed = group
            .values()
            .any(|wanted| wanted.reserves == OutputReservation::Yes);
        let reserves = if is_needed {
            OutputReservation::Yes
        } else {
            OutputReservation::IfThere
        };
        let own = group.get(&holder).map(|wanted| wanted.config.clone());
        let there = rows(bridge, &holder).find(|row| !takes_something(&row.config));
        let there = there.map(|row| (row.config.vlans.clone(), row.config.snaplen));
        let mirror = mirrors.entry(holder).or_insert_with(|| {
            let config = own.unwrap_or_else(|| MirrorConfig {
                output: MirrorOutput::Port(port.clone()),
                ..MirrorConfig::default()
            });
            Cow::Owned(Wanted {
                config,
                reserves,
                undecided: [].into(),
            })
        });
        if mirror.reserves != OutputReservation::Yes && mirror.reserves != reserves {
            mirror.to_mut().reserves = reserves;
        }
        // As long as it takes nothing it does not matter of what.
        if let Some((vlans, snaplen)) = there.filter(|_| !takes_something(&mirror.config)) {
            let config = &mut mirror.to_mut().config;
            (config.vlans, config.snaplen) = (vlans, snaplen);
        }
    }
    mirrors
}

fn only_reserves(wanted: &Wanted) -> bool {
    wanted.reserves != OutputReservation::No && !takes_something(&wanted.config)
}

/// Of the sessions with this output, the first whose mirror does that already and nothing else, or else the first whose
/// mirror stays anyway since nobody can tell what belongs to it, or else the first.
fn holder(
    desired: &Desired,
    name: &IfName,
    bridge: &OvsBridge,
    port: &IfName,
    mirrors: &BTreeMap<MirrorKey, Cow<'_, Wanted>>,
) -> Option<MirrorKey> {
    let output = desired.outputs.get(port)?;
    if output.exclusive != Exclusive::Ovs {
        return None;
    }
    let of = output.of.iter();
    let keys: Vec<MirrorKey> = of
        .filter(|key| !desired.held.holds(key))
        .map(|key| MirrorKey {
            engine: Engine::Ovs(name.clone()),
            of: key.clone(),
        })
        .collect();
    let does_so = |key: &&MirrorKey| {
        let wanted = mirrors.get(*key);
        !wanted.is_some_and(|wanted| takes_something(&wanted.config))
            && rows(bridge, key).any(|row| !takes_something(&row.config))
    };
    let stays_anyway = |key: &&MirrorKey| {
        let wanted = mirrors.get(*key);
        wanted.is_some_and(|wanted| rows(bridge, key).any(|row| holds_undecided(wanted, row)))
    };
    let found = keys.iter().find(does_so);
    let found = found.or_else(|| keys.iter().find(stays_anyway));
    found.or(keys.first()).cloned()
}

/// The mirrors that are there and carry this mark.
fn rows<'a>(bridge: &'a OvsBridge, key: &'a MirrorKey) -> impl Iterator<Item = &'a Mirror> {
    bridge
        .mirrors
        .values()
        .filter(|row| row.mark.as_ref() == Some(&key.of))
}

pub(super) fn takes_something(config: &MirrorConfig) -> bool {
    config.all || !config.ports.is_empty()
}

/// Are there ports in a mirror of which nobody can tell whether they belong to it?
pub(super) fn holds_undecided(wanted: &Wanted, mirror: &Mirror) -> bool {
    let mut undecided = wanted.undecided.iter();
    undecided.any(|port| mirror.config.ports.contains_key(port))
}
