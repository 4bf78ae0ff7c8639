//! nftables' copies: what has to change, told in the same words as Open vSwitch's mirrors.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{Action, Change, Plan, Problem, ProblemKind, why_removed};
use crate::engine::Engine;
use crate::engine::nft::diff::{Preserved, diff, same};
use crate::engine::nft::names;
use crate::engine::nft::names::{ChainName, Label, Part, Role, Told};
use crate::engine::nft::spec::{Copies, Exclusive, Passing};
use crate::engine::nft::table::{Table, table};
use crate::engine::nft::{NftState, Seen};
use crate::model::OutputKey;
use crate::model::Switch;
use crate::model::Taken;
use crate::model::{IfName, NicId, SessionName, port_owner};
use crate::state::{Desired, MirrorKey, MirrorOutput, Observed};

/// Compares the table; tells what of it is left alone.
pub fn plan<'a>(desired: &'a Desired, observed: &Observed, plan: &mut Plan) -> Preserved<'a> {
    let nothing = Seen::default();
    let seen = match &observed.nft {
        NftState::Present(seen) => seen,
        NftState::Failed(why) => {
            for key in desired.copies.keys() {
                plan.problems.push(Problem {
                    session: key.session.clone(),
                    kind: ProblemKind::Unreadable,
                    text: format!("nothing is copied to {}: {why}", key.output),
                });
            }
            return Preserved::of(desired.nft(), &nothing);
        }
    };
    let kept = Preserved::of(desired.nft(), seen);
    let is_idle = |key: &OutputKey, copies: &Copies| {
        copies.sources.is_empty() && !kept.may_stay(key.session.as_str(), Label::of(&key.output))
    };
    let wanted = table(desired.nft(), &kept.memory, is_idle);
    for (key, error) in &wanted.too_large {
        plan.problems.push(Problem {
            session: key.session.clone(),
            kind: ProblemKind::TooLarge,
            text: error.to_string(),
        });
    }
    for name in seen.chains.keys() {
        let ChainName::Own {
            session,
            label,
            role: Role::Copies,
        } = names::read(name)
        else {
            continue;
        };
        if kept.stays_for_others(session, &label) {
            plan.problems.push(Problem {
                session: SessionName::from_mark(session),
                kind: ProblemKind::Shared,
                text: format!(
                    "still copied to {}, although it is over: other sessions' copies there leave out what it copies, and cannot be \
                     changed before Open vSwitch answers",
                    label.output()
                ),
            });
        }
    }
    let index_of = |device: &IfName| {
        let link = observed.links.get(device).map(|link| link.index);
        observed.ports.get(device).map(|port| port.index).or(link)
    };
    plan.commands = diff(&wanted, seen, &kept, &index_of);
    if plan.commands.is_empty() {
        return kept;
    }
    let before = plan.actions.len();
    let was = ObservedCopies::read(seen);
    let different = different(&wanted, seen);
    let too_large: BTreeSet<&OutputKey> = wanted.too_large.iter().map(|(key, _)| key).collect();
    let unfit: BTreeSet<(&str, Label)> = too_large
        .iter()
        .map(|key| (key.session.as_str(), Label::of(&key.output)))
        .collect();
    let busy = || {
        desired
            .copies
            .iter()
            .filter(|(key, copies)| !is_idle(key, copies) && !too_large.contains(key))
    };
    let listed: BTreeSet<(&str, Label)> = busy()
        .map(|(key, _)| (key.session.as_str(), Label::of(&key.output)))
        .collect();
    for key in was.copies.keys() {
        if !listed.contains(key) && !kept.holds(key.0, &key.1) {
            plan.actions
                .push(removal(desired, key, unfit.contains(key)));
        }
    }
    for (key, copies) in busy() {
        let label = (key.session.as_str(), Label::of(&key.output));
        let changes = changes(
            key,
            copies,
            was.copies.get(&label),
            (&wanted, seen),
            &different,
            observed,
        );
        let action = |change| Action {
            mirror: mirror(key.clone()),
            row: None,
            change,
        };
        plan.actions.extend(changes.into_iter().map(action));
    }
    let outputs = || {
        desired
            .outputs
            .iter()
            .filter(|(_, output)| output.exclusive == Exclusive::Us)
    };
    let drops = outputs().all(|(device, _)| seen.chains.contains_key(&names::drop(device)));
    if plan.actions.len() == before && drops {
        plan.tidy = Some("table netdev pve-span: put in order");
    }
    kept
}

fn mirror(of: OutputKey) -> MirrorKey {
    MirrorKey {
        engine: Engine::Nft,
        of,
    }
}

/// What the table does now.
#[derive(Default)]
struct ObservedCopies<'a> {
    copies: BTreeMap<(&'a str, Label), ObservedOutputCopies>,
}

#[derive(Default)]
struct ObservedOutputCopies {
    to: Option<u32>,
    sources: BTreeMap<IfName, BTreeSet<Passing>>,
}

impl<'a> ObservedCopies<'a> {
    fn read(seen: &'a Seen) -> Self {
        let mut was = Self::default();
        for (name, chain) in &seen.chains {
            match (names::read(name), &chain.hook) {
                (
                    ChainName::Own {
                        session,
                        label,
                        role: Role::Copies,
                    },
                    _,
                ) => {
                    was.copies.entry((session, label)).or_default().to =
                        chain.rules.iter().find_map(|rule| rule.copies_to);
                }
                (ChainName::Base { label }, Some(hook)) => {
                    let told = chain
                        .rules
                        .iter()
                        .filter_map(|rule| names::read_purpose(&rule.comment));
                    for Told {
                        session, passing, ..
                    } in told
                    {
                        let copies = was.copies.entry((session, label.clone())).or_default();
                        copies
                            .sources
                            .entry(hook.device.clone())
                            .or_default()
                            .insert(passing);
                    }
                }
                _ => {}
            }
        }
        was
    }
}

fn removal(desired: &Desired, (session, label): &(&str, Label), is_unfit: bool) -> Action {
    let key = OutputKey {
        session: SessionName::from_mark(session),
        output: label.output(),
    };
    let why = if is_unfit {
        "it does not fit into this node's nftables table"
    } else {
        why_removed(desired, &key)
    };
    Action {
        mirror: mirror(key),
        row: None,
        change: Change::Remove { why },
    }
}

fn changes(
    key: &OutputKey,
    copies: &Copies,
    was: Option<&ObservedOutputCopies>,
    (wanted, seen): (&Table, &Seen),
    different: &[ChainName<'_>],
    observed: &Observed,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let to = MirrorOutput::Port(copies.device.clone());
    let words = chosen(copies);
    let nothing = ObservedOutputCopies::default();
    let is_new = was.is_none_or(|was| was.to.is_none());
    let was = was.unwrap_or(&nothing);
    if is_new {
        changes.push(Change::Create);
        changes.push(Change::SetOutput {
            from: MirrorOutput::None,
            to,
        });
        changes.extend(words.clone().map(|to| Change::SetFrames { to }));
    } else if was.to != Some(copies.index) {
        let device = observed
            .links
            .iter()
            .find(|(_, link)| Some(link.index) == was.to);
        let from = device.map_or(MirrorOutput::None, |(name, _)| {
            MirrorOutput::Port(name.clone())
        });
        changes.push(Change::SetOutput { from, to });
    }
    let devices: BTreeSet<&IfName> = was.sources.keys().chain(copies.sources.keys()).collect();
    for device in devices
        .into_iter()
        .filter(|device| !copies.undecided.contains(*device))
    {
        let from = was.sources.get(device);
        let from = from.and_then(|passing| {
            Taken::new(
                passing.contains(&Passing::From),
                passing.contains(&Passing::To),
            )
        });
        let source = copies.sources.get(device);
        let shall = source.map(|source| source.taken);
        if from != shall {
            let nic: Option<NicId> = match source {
                Some(source) => source.nic,
                None => port_owner(device.as_str()).map(|(nic, _)| nic),
            };
            changes.push(Change::SetSource {
                port: device.clone(),
                nic,
                from,
                to: shall,
            });
        }
    }
    let rewritten = |part| {
        let name = names::own(key, part);
        let rules = wanted
            .chains
            .get(&name)
            .map(|chain| chain.rules.as_slice())
            .unwrap_or_default();
        !seen
            .chains
            .get(&name)
            .is_some_and(|chain| same(rules, &chain.rules))
    };
    if !is_new && changes.is_empty() {
        let own = [
            Part::Copy,
            Part::Frames(0),
            Part::Tagged(0),
            Part::Native(0),
        ]
        .into_iter();
        let is_own = |part: &Part| {
            let name = names::own(key, *part);
            wanted.chains.contains_key(&name) || seen.chains.contains_key(&name)
        };
        if own.filter(is_own).any(rewritten) {
            let to = words.unwrap_or_else(|| "every frame".into());
            changes.push(Change::SetFrames { to });
        } else if touches(key, different) {
            changes.push(Change::Renew);
        }
    }
    changes
}

/// The chains that are not as they shall be, but for the rules of those at a hook: sources tell of these.
fn different<'a>(wanted: &'a Table, seen: &'a Seen) -> Vec<ChainName<'a>> {
    let all: BTreeSet<&String> = wanted.chains.keys().chain(seen.chains.keys()).collect();
    let differs = |name: &String, read: &ChainName<'_>| {
        let (Some(wanted), Some(seen)) = (wanted.chains.get(name), seen.chains.get(name)) else {
            return true;
        };
        let rules_differ = match read {
            ChainName::Base { .. } => wanted.rules.len() != seen.rules.len(),
            _ => !same(&wanted.rules, &seen.rules),
        };
        seen.hook != wanted.hook || rules_differ
    };
    all.into_iter()
        .map(|name| (name, names::read(name)))
        .filter(|(name, read)| differs(name, read))
        .map(|(_, read)| read)
        .collect()
}

/// Is anything else of the session's own different? That another source's MAC address has become known is not worth a
/// word of each session.
fn touches(key: &OutputKey, different: &[ChainName<'_>]) -> bool {
    let label = Label::of(&key.output);
    different.iter().any(|named| match named {
        ChainName::Own {
            session,
            label: other,
            role,
        } => *role != Role::Once && *session == key.session.as_str() && *other == label,
        _ => false,
    })
}

/// Which frames, in words; nothing if all.
fn chosen(copies: &Copies) -> Option<String> {
    let frames = &copies.frames;
    let mut words = Vec::new();
    if !frames.vlans.is_empty() {
        words.push(format!("VLAN {} only", frames.vlans));
    }
    if let Some(filter) = &frames.filter {
        words.push(format!("only `{filter}`"));
    }
    if frames.sample > 1 {
        words.push(format!("one frame in {}", frames.sample));
    }
    if frames.dedup == Switch::No {
        words.push("frames between two sources twice".into());
    }
    (!words.is_empty()).then(|| words.join(", "))
}
