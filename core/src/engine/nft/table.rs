//! What shall be copied → the chains that do it.

use crate::engine::nft::spec::Spec;
use crate::engine::nft::spec::asks_for_macs;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::frames::{Branch, LoweredFilters, MAX_TABLE_RULES, To, TooLarge};
use super::names;
use super::names::{Label, Part};
use super::{Act, Chain, CopyVerdict, Field, Hook, Match, Rule, Side, Test};
use crate::engine::nft::spec::{Copies, CopySource, Exclusive, Frames, Mac, Passing, Vlans};
use crate::filter::Filter;
use crate::model::OutputKey;
use crate::model::Switch;
use crate::model::{IfName, VlanSet};

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
    pub too_large: Vec<(OutputKey, TooLarge)>,
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
    fn told(&self, asks: bool, device: &IfName, source: &CopySource) -> Option<u64> {
        if asks {
            self.mac(device, source)
        } else {
            self.macs.get(device).copied()
        }
    }
}

/// Makes the table of what is desired; `is_idle` tells whether there is nothing to copy.
pub fn table(
    wanted: Spec<'_>,
    memory: &Memory,
    is_idle: impl Fn(&OutputKey, &Copies) -> bool,
) -> Table {
    bounded(wanted, memory, is_idle, MAX_TABLE_RULES)
}

/// The same with at most so many rules. Sessions have their turn in the order of their names, up to the first that finds no
/// room: so a guest that starts or stops moves the end, and never another session.
fn bounded(
    wanted: Spec<'_>,
    memory: &Memory,
    is_idle: impl Fn(&OutputKey, &Copies) -> bool,
    most: usize,
) -> Table {
    let mut table = Table::default();
    let mut lowered = LoweredFilters::default();
    let mut fitting = Vec::new();
    let mut room = Some(most);
    for (key, copies) in wanted.copies {
        if is_idle(key, copies) {
            continue;
        }
        let Some(left) = room else {
            table.too_large.push((key.clone(), TooLarge::Table));
            continue;
        };
        match entries(key, copies, &mut lowered) {
            Ok(entries) => {
                room = left.checked_sub(entries.rules(copies));
                if room.is_some() {
                    fitting.push((key, copies, entries));
                } else {
                    table.too_large.push((key.clone(), TooLarge::Table));
                }
            }
            Err(error) => table.too_large.push((key.clone(), error)),
        }
    }
    // A session that takes frames twice comes before those that end a base chain with their copy.
    fitting.sort_by_key(|(_, copies, _)| copies.frames.dedup == Switch::Yes);
    let sent = SentMacs::new(wanted.copies, memory);
    let asks = asks_for_macs(wanted.copies);
    for (key, copies, entries) in fitting {
        let macs = sent.before(key, copies);
        table.add(key, copies, entries, &macs, (asks, memory));
    }
    for (device, output) in wanted.outputs {
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
    key: &OutputKey,
    copies: &'d Copies,
    lowered: &mut LoweredFilters<'d>,
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
    /// The rules that it brings: its own, those of what is left out and copied, and one at each hook. Hooks are counted in steps
    /// of about an eighth of them, so that few of the guests that start and stop change which sessions fit.
    fn rules(&self, copies: &Copies) -> usize {
        let own: usize = self.chains.values().map(|chain| chain.rules.len()).sum();
        let sources = copies.sources.values();
        let hooks: usize = sources.map(|source| source.hooks().count()).sum();
        let step = (hooks.next_power_of_two() / 8).max(1);
        own + 4 + hooks.next_multiple_of(step)
    }

    /// Adds the chains of a choice of frames; where they begin comes back.
    fn add(&mut self, key: &OutputKey, chains: &[Vec<Branch>], part: fn(usize) -> Part) -> String {
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
        key: &OutputKey,
        copies: &Copies,
        entries: Entries,
        known: &BTreeSet<u64>,
        (asks, memory): (bool, &Memory),
    ) {
        let counter = names::counter(key);
        self.chains
            .insert(names::own(key, Part::Copy), copying(key, copies, &counter));
        self.counters.insert(counter);
        self.chains.extend(entries.chains);
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
                    .insert(to.clone(), not_sent(key, known, entry.clone()));
            }
            targets.insert((Passing::From, vlans), entry);
            targets.insert((Passing::To, vlans), to);
        }
        for (device, source) in &copies.sources {
            let mac = memory.told(asks, device, source);
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

    fn base(&mut self, key: &OutputKey, hook: Hook, purpose: String, target: &str) {
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

fn copying(key: &OutputKey, copies: &Copies, counter: &str) -> Chain {
    let sample = Some(copies.frames.sample).filter(|frames| *frames > 1);
    let then = match copies.frames.dedup {
        Switch::Yes => CopyVerdict::Accept,
        Switch::No => CopyVerdict::Continue,
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

/// Which frames of which output, of sessions that take them once.
type Choice<'a> = (&'a str, &'a VlanSet, Option<&'a Filter>, u32);

/// The MAC addresses of sources whose frames were copied when they sent them.
struct SentMacs<'a> {
    memory: &'a Memory,
    /// Of the sessions that make the same choice.
    shared: HashMap<Choice<'a>, BTreeSet<u64>>,
}

impl<'a> SentMacs<'a> {
    fn new(all: &'a BTreeMap<OutputKey, Copies>, memory: &'a Memory) -> Self {
        let mut sent = Self {
            memory,
            shared: HashMap::new(),
        };
        for (key, copies) in all {
            if copies.frames.dedup == Switch::Yes {
                let macs = sent.own(key, copies);
                let shared = sent.shared.entry(choice(key, &copies.frames)).or_default();
                shared.extend(macs);
            }
        }
        sent
    }

    /// Those of a session, of those that choose the same frames for the same output, and of those that choose all.
    fn before(&self, key: &OutputKey, copies: &Copies) -> BTreeSet<u64> {
        let all: Choice<'_> = (&key.output, &VlanSet::default(), None, 1);
        let same = match copies.frames.dedup {
            Switch::Yes => self.shared.get(&choice(key, &copies.frames)),
            Switch::No => None,
        };
        let shared = same.into_iter().chain(self.shared.get(&all)).flatten();
        let mut macs = self.own(key, copies);
        macs.extend(shared);
        macs
    }

    fn own(&self, key: &OutputKey, copies: &Copies) -> BTreeSet<u64> {
        let sources = copies.sources.iter();
        let sent = sources.filter(|(_, source)| source.taken.sent());
        let known = sent.filter_map(|(device, source)| self.memory.mac(device, source));
        let label = (key.session.as_str().to_owned(), Label::of(&key.output));
        let staying = self.memory.staying.get(&label).into_iter().flatten();
        known.chain(staying.copied()).collect()
    }
}

fn choice<'a>(key: &'a OutputKey, frames: &'a Frames) -> Choice<'a> {
    (
        &key.output,
        &frames.vlans,
        frames.filter.as_ref(),
        frames.sample,
    )
}

/// Leaves out what a source of its own has sent.
fn not_sent(key: &OutputKey, macs: &BTreeSet<u64>, entry: String) -> Chain {
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
    use crate::engine::nft::spec::DeviceEnd;
    use crate::filter;
    use crate::model::Taken;
    use crate::state::Desired;

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
                        facing: DeviceEnd::Source,
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
        let key = |number: usize| OutputKey {
            session: format!("s{number:04}").parse().unwrap(),
            output: "200/net1".into(),
        };
        Desired {
            copies: (0..sessions).map(|it| (key(it), copies(it))).collect(),
            ..Desired::default()
        }
    }

    fn made(desired: &Desired, most: usize) -> Table {
        let is_idle = |_: &OutputKey, copies: &Copies| copies.sources.is_empty();
        bounded(desired.nft(), &Memory::default(), is_idle, most)
    }

    fn beyond(table: &Table) -> Vec<&str> {
        let beyond = table.too_large.iter();
        beyond
            .inspect(|(_, why)| assert_eq!(*why, TooLarge::Table))
            .map(|(key, _)| key.session.as_str())
            .collect()
    }

    #[test]
    fn what_a_node_can_load_is_bounded_and_the_rest_is_named() {
        assert!(beyond(&made(&desired(50, 60), MAX_TABLE_RULES)).is_empty());
        assert!(beyond(&made(&desired(300, 1), MAX_TABLE_RULES)).is_empty());
        let desired = desired(10, 6);
        let table = made(&desired, 150);
        let rules: usize = table.chains.values().map(|chain| chain.rules.len()).sum();
        assert!((75..=150).contains(&rules), "{rules}");
        // The first ones are served, whole; the others are named, and nothing of them is there.
        let served = 10 - beyond(&table).len();
        assert!((2..9).contains(&served), "{served}");
        let names: Vec<String> = (served..10).map(|number| format!("s{number:04}")).collect();
        assert_eq!(beyond(&table), names);
        for (number, key) in desired.copies.keys().enumerate() {
            let is_there = table.counters.contains(&names::counter(key));
            assert_eq!(is_there, number < served, "{number}");
        }
    }

    #[test]
    fn a_small_session_behind_the_first_that_does_not_fit_waits_too() {
        let mut desired = desired(3, 6);
        let mut sizes = [1, 6, 1].into_iter();
        for copies in desired.copies.values_mut() {
            let size = sizes.next().unwrap();
            copies.sources = std::mem::take(&mut copies.sources)
                .into_iter()
                .take(size)
                .collect();
        }
        let whole = made(&desired, MAX_TABLE_RULES);
        let rules: usize = whole.chains.values().map(|chain| chain.rules.len()).sum();
        assert_eq!(beyond(&made(&desired, rules / 2)), ["s0001", "s0002"]);
    }

    #[test]
    fn a_guest_that_stops_seldom_changes_what_fits() {
        let fits = |sources| beyond(&made(&desired(400, sources), MAX_TABLE_RULES)).len();
        assert_eq!(fits(60), fits(57));
        assert!(fits(60) > fits(30));
    }
}
