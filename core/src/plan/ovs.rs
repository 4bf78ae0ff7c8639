//! Open vSwitch's mirrors: what has to change.
//!
//! No action names a row that does not carry our mark, whatever is observed.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{Action, Change, MAX_MIRRORS, Plan, Problem, ProblemKind, Remark, why_removed};
use super::output_reservation::{holds_undecided, shared, takes_something};
use crate::engine::Engine;
use crate::model::{IfName, port_owner, printable};
use crate::state::{
    Desired, Mirror, MirrorConfig, MirrorKey, MirrorOutput, OutputReservation, Ovs, OvsBridge,
    RowId, Wanted,
};

/// Compares mirrors.
pub fn plan(desired: &Desired, ovs: &Ovs, plan: &mut Plan) {
    let mut used: BTreeSet<&RowId> = BTreeSet::new();
    for (name, bridge) in &ovs.bridges {
        let mirrors = shared(desired, name, bridge);
        let mut rest: BTreeMap<&MirrorKey, &Wanted> = mirrors
            .iter()
            .map(|(key, wanted)| (key, wanted.as_ref()))
            .collect();
        let mut count = bridge.mirrors.len();
        for (row, mirror) in &bridge.mirrors {
            let Some(mark) = &mirror.mark else { continue };
            if desired.held.holds(mark) {
                continue;
            }
            let key = MirrorKey {
                engine: Engine::Ovs(name.clone()),
                of: mark.clone(),
            };
            // A row of ours that somebody has put into a second bridge serves the first one only.
            let is_first = used.insert(row);
            let wanted = rest
                .get(&key)
                .copied()
                .filter(|wanted| is_first && stays(wanted, mirror));
            let Some(wanted) = wanted else {
                let why = if !is_first {
                    "its row is another bridge's too"
                } else if desired.mirrors.contains_key(&key) && !mirrors.contains_key(&key) {
                    "another mirror keeps its output free"
                } else {
                    why_removed(desired, &key.of)
                };
                plan.actions.push(Action {
                    mirror: key,
                    row: Some(row.clone()),
                    change: Change::Remove { why },
                });
                count -= 1;
                continue;
            };
            rest.remove(&key);
            for change in changes(&mirror.config, wanted) {
                plan.actions.push(Action {
                    mirror: key.clone(),
                    row: Some(row.clone()),
                    change,
                });
            }
        }
        for (key, wanted) in rest.into_iter().filter(|(_, wanted)| is_needed(wanted)) {
            if count >= MAX_MIRRORS {
                plan.problems.push(Problem {
                    session: key.of.session.clone(),
                    kind: ProblemKind::MirrorLimit,
                    text: full(key, name, bridge),
                });
                *plan.refused.entry(name.clone()).or_default() += 1;
                continue;
            }
            count += 1;
            plan.actions.push(Action {
                mirror: key.clone(),
                row: None,
                change: Change::Create,
            });
            for change in changes(&MirrorConfig::default(), wanted) {
                plan.actions.push(Action {
                    mirror: key.clone(),
                    row: None,
                    change,
                });
            }
        }
        plan.remarks.extend(shared_outputs(desired, name, bridge));
    }
    // Removing first keeps a full bridge below its limit.
    plan.actions
        .sort_by_key(|action| !matches!(action.change, Change::Remove { .. }));
}

/// Is the mirror needed, even if it is not there yet?
fn is_needed(wanted: &Wanted) -> bool {
    takes_something(&wanted.config) || wanted.reserves == OutputReservation::Yes
}

/// Does a mirror still have something to do: wanted sources, or undecided ones that are in it?
fn stays(wanted: &Wanted, mirror: &Mirror) -> bool {
    is_needed(wanted)
        || wanted.reserves == OutputReservation::IfThere
        || holds_undecided(wanted, mirror)
}

fn changes(is: &MirrorConfig, wanted: &Wanted) -> Vec<Change> {
    let shall = &wanted.config;
    let mut changes = Vec::new();
    if is.output != shall.output {
        changes.push(Change::SetOutput {
            from: is.output.clone(),
            to: shall.output.clone(),
        });
    }
    if is.all != shall.all {
        changes.push(Change::SetAll { all: shall.all });
    }
    if is.vlans != shall.vlans {
        changes.push(Change::SetVlans {
            to: shall.vlans.clone(),
        });
    }
    if is.snaplen != shall.snaplen {
        changes.push(Change::SetSnaplen { to: shall.snaplen });
    }
    let ports: BTreeSet<&IfName> = is.ports.keys().chain(shall.ports.keys()).collect();
    for port in ports
        .into_iter()
        .filter(|port| !wanted.undecided.contains(*port))
    {
        let (from, to) = (is.ports.get(port).copied(), shall.ports.get(port).copied());
        if from != to {
            changes.push(Change::SetSource {
                port: port.clone(),
                nic: port_owner(port.as_str()).map(|(nic, _)| nic),
                from,
                to,
            });
        }
    }
    changes
}

fn full(key: &MirrorKey, name: &IfName, bridge: &OvsBridge) -> String {
    let foreign = bridge
        .mirrors
        .values()
        .filter(|mirror| mirror.mark.is_none())
        .count();
    format!(
        "no mirror to {} on {}: Open vSwitch allows {MAX_MIRRORS} mirrors a bridge, and it has that many ({foreign} of them not \
         pve-span's); use fewer sessions or outputs on this bridge",
        key.of.output, name
    )
}

/// Other people's mirrors with the same output port: harmless, but the sensor sees their frames too.
fn shared_outputs(desired: &Desired, name: &IfName, bridge: &OvsBridge) -> Vec<Remark> {
    let foreign = || {
        bridge
            .mirrors
            .values()
            .filter(|mirror| mirror.mark.is_none())
    };
    let wanted = desired
        .mirrors
        .iter()
        .filter(|(key, _)| key.engine.bridge() == Some(name));
    wanted
        .filter(|(_, wanted)| matches!(wanted.config.output, MirrorOutput::Port(_)))
        .filter_map(|(key, wanted)| {
            let other = foreign().find(|mirror| mirror.config.output == wanted.config.output)?;
            let text = format!(
                "{} is also the output of mirror `{}`, which is not pve-span's: its frames arrive there too, and it is left alone",
                key.of.output,
                printable(&other.name)
            );
            let (session, output) = (key.of.session.clone(), key.of.output.clone());
            Some(Remark { session, output, text })
        })
        .collect()
}
