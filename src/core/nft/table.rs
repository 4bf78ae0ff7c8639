//! What shall be copied → the chains that do it.

use std::collections::{BTreeMap, BTreeSet};

use super::frames::{Branch, Lowered, MAX_TABLE_RULES, To, TooLarge};
use super::names::{self, Label, Part};
use super::{Act, Chain, Field, Hook, Match, Rule, Side, Test, Then};
use crate::core::annotations::Switch;
use crate::core::copies::{Copies, CopyKey, CopySource, Exclusive, Mac, Passing, Vlans};
use crate::core::model::{IfName, VlanSet};
use crate::core::state::Desired;

/// The source MAC address: bytes 6 to 11 of a frame.
const SOURCE_MAC: Field = Field {
    offset: 48,
    length: 48,
    mask: None,
};

/// The table as it shall be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// Its chains by name.
    pub chains: BTreeMap<String, Chain>,
    /// Its named counters.
    pub counters: BTreeSet<String>,
    /// What does not fit.
    pub too_large: Vec<(CopyKey, TooLarge)>,
}

/// What the table that is there tells of MAC addresses, for when configs cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// Of the sources behind devices.
    pub macs: BTreeMap<IfName, u64>,
    /// Of sources whose rules stay, whatever is wanted.
    pub staying: BTreeMap<(String, Label), BTreeSet<u64>>,
}

impl Memory {
    fn mac(&self, device: &IfName, source: &CopySource) -> Option<u64> {
        match source.mac {
            Mac::Known(mac) => Some(mac),
            Mac::None => None,
            Mac::Unknown => self.macs.get(device).copied(),
        }
    }

    /// What a source's rule shall tell. Where nothing depends on it, what it tells already: who looks at little does not
    /// know the address then, and who looks at everything must not want another rule for it.
    fn told(&self, desired: &Desired, device: &IfName, source: &CopySource) -> Option<u64> {
        if desired.asks_for_macs() {
            self.mac(device, source)
        } else {
            self.macs.get(device).copied()
        }
    }
}

/// Makes the table of what is desired; `is_idle` tells whether there is nothing to copy.
pub fn table(
    desired: &Desired,
    memory: &Memory,
    is_idle: impl Fn(&CopyKey, &Copies) -> bool,
) -> Table {
    let mut table = Table::default();
    // A session that takes frames twice comes before those that end a base chain with their copy.
    let mut all: Vec<(&CopyKey, &Copies)> = desired.copies.iter().collect();
    all.sort_by_key(|(_, copies)| copies.frames.dedup == Switch::Yes);
    let mut lowered = Lowered::default();
    let mut rules = 0;
    for (key, copies) in all {
        if is_idle(key, copies) {
            continue;
        }
        match entries(key, copies, &mut lowered) {
            // A session that does not fit leaves room for smaller ones behind it.
            Ok(entries) if rules + entries.rules(copies) > MAX_TABLE_RULES => {
                table.too_large.push((key.clone(), TooLarge::Table));
            }
            Ok(entries) => {
                rules += entries.rules(copies);
                table.add(key, copies, entries, (desired, memory));
            }
            Err(error) => table.too_large.push((key.clone(), error)),
        }
    }
    for (device, output) in &desired.outputs {
        if output.exclusive == Exclusive::Us {
            let hook = Hook {
                device: device.clone(),
                side: Side::Ingress,
            };
            let rule = Rule {
                matches: Vec::new(),
                action: Act::Drop,
                purpose: "what the sensor sends".into(),
            };
            let chain = Chain {
                hook: Some(hook),
                rules: vec![rule],
            };
            table.chains.insert(names::drop(device), chain);
        }
    }
    table
}

/// Where a session's choice of frames begins, and its chains.
#[derive(Default)]
struct Entries {
    all: Option<String>,
    tagged: Option<String>,
    native: Option<String>,
    chains: BTreeMap<String, Chain>,
}

fn entries<'d>(
    key: &CopyKey,
    copies: &'d Copies,
    lowered: &mut Lowered<'d>,
) -> Result<Entries, TooLarge> {
    let mut entries = Entries::default();
    let filter = copies.frames.filter.as_ref();
    let uses = |vlans| copies.sources.values().any(|source| source.vlans == vlans);
    let frames = &copies.frames;
    let every = VlanSet::default();
    if uses(Vlans::All) {
        entries.all = match filter {
            None => Some(names::own(key, Part::Copy)),
            Some(_) => Some(entries.add(key, &lowered.get(filter, &every)?, Part::Frames)),
        };
    }
    if uses(Vlans::Tagged) && !frames.vlans.is_empty() {
        let chains = lowered.get(filter, &frames.vlans)?;
        entries.tagged = Some(entries.add(key, &chains, Part::Tagged));
    }
    if uses(Vlans::Native) && !frames.vlans.is_empty() {
        let vlans = frames.vlans.iter().chain([0]).collect();
        let chains = lowered.get(filter, &vlans)?;
        entries.native = Some(entries.add(key, &chains, Part::Native));
    }
    Ok(entries)
}

impl Entries {
    /// The rules that it brings: its own, those of what is left out and copied, and one at each hook.
    fn rules(&self, copies: &Copies) -> usize {
        let own: usize = self.chains.values().map(|chain| chain.rules.len()).sum();
        let sources = copies.sources.values();
        own + 4 + sources.map(|source| source.hooks().count()).sum::<usize>()
    }

    /// Adds the chains of a choice of frames; where they begin comes back.
    fn add(&mut self, key: &CopyKey, chains: &[Vec<Branch>], part: fn(usize) -> Part) -> String {
        let purpose = format!("{} frames", key.session.as_str());
        for (number, branches) in chains.iter().enumerate() {
            let rule = |branch: &Branch| Rule {
                matches: branch.matches.clone(),
                action: Act::Goto(match branch.to {
                    To::Chain(number) => names::own(key, part(number)),
                    To::Taken => names::own(key, Part::Copy),
                }),
                purpose: purpose.clone(),
            };
            let chain = Chain {
                hook: None,
                rules: branches.iter().map(rule).collect(),
            };
            self.chains.insert(names::own(key, part(number)), chain);
        }
        names::own(key, part(0))
    }
}

impl Table {
    fn add(
        &mut self,
        key: &CopyKey,
        copies: &Copies,
        entries: Entries,
        (desired, memory): (&Desired, &Memory),
    ) {
        let counter = names::counter(key);
        self.chains
            .insert(names::own(key, Part::Copy), copying(key, copies, &counter));
        self.counters.insert(counter);
        self.chains.extend(entries.chains);
        let known = sent(key, copies, &desired.copies, memory);
        let mut targets = BTreeMap::new();
        for (vlans, entry, part) in [
            (Vlans::All, entries.all, Part::To),
            (Vlans::Tagged, entries.tagged, Part::ToTagged),
            (Vlans::Native, entries.native, Part::ToNative),
        ] {
            let Some(entry) = entry else { continue };
            let mut to = entry.clone();
            if copies.frames.dedup == Switch::Yes && copies.delivers() {
                to = names::own(key, part);
                self.chains
                    .insert(to.clone(), not_sent(key, &known, entry.clone()));
            }
            targets.insert((Passing::From, vlans), entry);
            targets.insert((Passing::To, vlans), to);
        }
        for (device, source) in &copies.sources {
            let mac = memory.told(desired, device, source);
            for (side, passing) in source.hooks() {
                if let Some(target) = targets.get(&(passing, source.vlans)) {
                    let mac = mac.filter(|_| passing == Passing::From);
                    let subject = match source.nic {
                        Some(nic) => nic.to_string(),
                        None => names::word(device.as_str()),
                    };
                    let purpose = names::purpose(&key.session, passing, &subject, mac);
                    self.base(
                        key,
                        Hook {
                            device: device.clone(),
                            side,
                        },
                        purpose,
                        target,
                    );
                }
            }
        }
    }

    fn base(&mut self, key: &CopyKey, hook: Hook, purpose: String, target: &str) {
        let name = names::base(&hook.device, hook.side, &key.output);
        let chain = self.chains.entry(name).or_default();
        chain.hook = Some(hook);
        chain.rules.push(Rule {
            matches: Vec::new(),
            action: Act::Jump(target.to_owned()),
            purpose,
        });
    }
}

fn copying(key: &CopyKey, copies: &Copies, counter: &str) -> Chain {
    let sample = Some(copies.frames.sample).filter(|frames| *frames > 1);
    let then = match copies.frames.dedup {
        Switch::Yes => Then::Accept,
        Switch::No => Then::Continue,
    };
    let rule = Rule {
        matches: sample.map(Match::Sample).into_iter().collect(),
        action: Act::Copy {
            counter: counter.to_owned(),
            device: copies.device.clone(),
            index: copies.index,
            then,
        },
        purpose: format!("{} to {}", key.session.as_str(), Label::of(&key.output)),
    };
    Chain {
        hook: None,
        rules: vec![rule],
    }
}

/// The MAC addresses of sources whose frames were copied when they sent them: those of this session, of those that choose
/// the same frames for the same output, and of those that choose all.
fn sent(
    key: &CopyKey,
    copies: &Copies,
    all: &BTreeMap<CopyKey, Copies>,
    memory: &Memory,
) -> BTreeSet<u64> {
    let same = all.iter().filter(|(other, theirs)| {
        *other == key
            || (other.output == key.output
                && theirs.frames.dedup == Switch::Yes
                && (theirs.frames == copies.frames || theirs.frames.is_everything()))
    });
    let mut macs = BTreeSet::new();
    for (key, copies) in same {
        let sources = copies
            .sources
            .iter()
            .filter(|(_, source)| source.taken.sent());
        macs.extend(sources.filter_map(|(device, source)| memory.mac(device, source)));
        let label = (key.session.as_str().to_owned(), Label::of(&key.output));
        macs.extend(memory.staying.get(&label).into_iter().flatten());
    }
    macs
}

/// Leaves out what a source of its own has sent.
fn not_sent(key: &CopyKey, macs: &BTreeSet<u64>, entry: String) -> Chain {
    let purpose = format!("{} once", key.session.as_str());
    let goes_on = Rule {
        matches: Vec::new(),
        action: Act::Goto(entry),
        purpose: purpose.clone(),
    };
    if macs.is_empty() {
        return Chain {
            hook: None,
            rules: vec![goes_on],
        };
    }
    let sent = Rule {
        matches: vec![Match::Bits {
            field: SOURCE_MAC,
            test: Test::In,
            ranges: ranges(macs),
        }],
        action: Act::Return,
        purpose,
    };
    Chain {
        hook: None,
        rules: vec![sent, goes_on],
    }
}

/// Values as ranges that do not touch, as nft wants its sets.
fn ranges(values: &BTreeSet<u64>) -> Vec<(u128, u128)> {
    let mut ranges: Vec<(u128, u128)> = Vec::new();
    for value in values.iter().map(|value| u128::from(*value)) {
        match ranges.last_mut() {
            Some((_, high)) if *high + 1 == value => *high = value,
            _ => ranges.push((value, value)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::copies::{Facing, Frames};
    use crate::core::filter;
    use crate::core::state::Taken;

    /// Sessions of a filter each, with sources that they all share.
    fn desired(sessions: usize, sources: usize) -> Desired {
        let copies = |number: usize| Copies {
            device: "tap200i1".parse().unwrap(),
            index: 9,
            sources: (0..sources)
                .map(|number| {
                    let source = CopySource {
                        nic: None,
                        taken: Taken::Both,
                        facing: Facing::Source,
                        vlans: Vlans::All,
                        mac: Mac::None,
                    };
                    (format!("tap{}i0", 1000 + number).parse().unwrap(), source)
                })
                .collect(),
            undecided: BTreeSet::new(),
            frames: Frames {
                vlans: VlanSet::default(),
                filter: Some(filter::parse(&format!("tcp port {}", number + 1)).unwrap()),
                sample: 1,
                dedup: Switch::No,
            },
        };
        let key = |number: usize| CopyKey {
            session: format!("s{number:04}").parse().unwrap(),
            output: "200/net1".into(),
        };
        Desired {
            copies: (0..sessions).map(|it| (key(it), copies(it))).collect(),
            ..Desired::default()
        }
    }

    fn made(desired: &Desired) -> Table {
        table(desired, &Memory::default(), |_, copies| {
            copies.sources.is_empty()
        })
    }

    #[test]
    fn what_a_node_can_load_is_bounded_and_the_rest_is_named() {
        assert_eq!(made(&desired(20, 60)).too_large.len(), 0);
        assert_eq!(made(&desired(500, 1)).too_large.len(), 0);
        let desired = desired(400, 60);
        let table = made(&desired);
        let rules: usize = table.chains.values().map(|chain| chain.rules.len()).sum();
        assert!(
            (MAX_TABLE_RULES / 2..=MAX_TABLE_RULES).contains(&rules),
            "{rules}"
        );
        let refused = table.too_large.len();
        assert!((50..200).contains(&refused), "{refused}");
        let named = table
            .too_large
            .iter()
            .all(|(_, why)| *why == TooLarge::Table);
        assert!(named);
        // The first ones are served, whole.
        let (first, last) = (&desired.copies.keys().next(), table.too_large.last());
        assert!(table.counters.contains(&names::counter(first.unwrap())));
        assert!(!table.counters.contains(&names::counter(&last.unwrap().0)));
        assert_eq!(table.counters.len(), 400 - refused);
    }
}
