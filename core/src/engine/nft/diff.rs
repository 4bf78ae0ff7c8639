//! The table as it shall be and as it is → the commands of one transaction, with nothing but the difference.
//!
//! A base chain's rules belong to different sessions, so they come and go one by one; a session's own
//! chains are rewritten as a whole. What belongs to a session that is held, or to a device of which nobody
//! can tell, stays.

use crate::engine::nft::spec::Spec;
use std::collections::{BTreeMap, BTreeSet};

use super::names;
use super::names::{ChainName, Label, Part, Role, Told};
use super::table::{Memory, Table};
use super::{Act, Chain, Command, Hook, Rule, Seen, SeenChain, SeenRule};
use crate::engine::nft::spec::Copies;
use crate::engine::nft::spec::Held;
use crate::model::IfName;
use crate::model::OutputKey;

/// What is not touched.
pub struct Preserved<'a> {
    held: &'a Held,
    /// The outputs among it, as the table has them.
    held_outputs: BTreeSet<(&'a str, Label)>,
    /// Those of them that something is copied to.
    shared: BTreeSet<Label>,
    /// What is copied, or shall be, whatever is held.
    wanted: BTreeSet<(&'a str, Label)>,
    undecided: BTreeMap<(&'a str, Label), &'a BTreeSet<IfName>>,
    /// Of which rules stay.
    may_stay: BTreeSet<(String, Label)>,
    /// What the table tells of MAC addresses.
    pub memory: Memory,
    /// Outputs that a held session uses, by interface index.
    used: BTreeSet<u32>,
}

impl<'a> Preserved<'a> {
    /// What the desired state leaves as it is.
    pub fn of(wanted: Spec<'a>, seen: &Seen) -> Self {
        let undecided = wanted
            .copies
            .iter()
            .filter(|(_, copies)| !copies.undecided.is_empty());
        let by_key = |(key, copies): (&'a OutputKey, &'a Copies)| {
            (
                (key.session.as_str(), Label::of(&key.output)),
                &copies.undecided,
            )
        };
        let by_name = |key: &'a OutputKey| (key.session.as_str(), Label::of(&key.output));
        let held = || wanted.held.outputs.iter();
        let is_copied = |key: &&OutputKey| seen.chains.contains_key(&names::own(key, Part::Copy));
        let copied = wanted.copies.keys().filter(|key| !wanted.held.holds(key));
        let mut kept = Self {
            held: wanted.held,
            held_outputs: held().map(by_name).collect(),
            shared: held()
                .filter(is_copied)
                .map(|key| Label::of(&key.output))
                .collect(),
            wanted: copied.map(by_name).collect(),
            undecided: undecided.map(by_key).collect(),
            may_stay: BTreeSet::new(),
            memory: Memory::default(),
            used: BTreeSet::new(),
        };
        let copying = seen.chains.iter().filter(|(name, _)| {
            matches!(names::read(name), ChainName::Own { session, role: Role::Copies, label } if kept.holds(session, &label))
        });
        kept.used = copying
            .flat_map(|(_, chain)| &chain.rules)
            .filter_map(|rule| rule.copies_to)
            .collect();
        (kept.may_stay, kept.memory) = kept.recall(seen);
        kept
    }

    /// What the table tells of sources and their MAC addresses.
    fn recall(&self, seen: &Seen) -> (BTreeSet<(String, Label)>, Memory) {
        let (mut may_stay, mut memory) = (BTreeSet::new(), Memory::default());
        for (name, chain) in &seen.chains {
            let (ChainName::Base { label }, Some(hook)) = (names::read(name), &chain.hook) else {
                continue;
            };
            for rule in &chain.rules {
                let Some(told) = names::read_purpose(&rule.comment) else {
                    continue;
                };
                let key = || (told.session.to_owned(), label.clone());
                if let Some(mac) = told.mac {
                    memory.macs.insert(hook.device.clone(), mac);
                }
                if self.rule(&label, Some(&hook.device), rule) {
                    may_stay.insert(key());
                    memory.staying.entry(key()).or_default().extend(told.mac);
                }
            }
        }
        (may_stay, memory)
    }

    /// Has something of this session and output to stay, whatever is wanted?
    pub fn may_stay(&self, session: &str, label: Label) -> bool {
        self.may_stay.contains(&(session.to_owned(), label))
    }

    /// Is what a session copies to an output left alone? Sessions with the same output leave out what the others have copied, so
    /// one that is over stays as long as the others cannot be changed.
    pub fn holds(&self, session: &str, label: &Label) -> bool {
        self.held
            .sessions
            .iter()
            .any(|held| held.as_str() == session)
            || self.held_outputs.contains(&(session, label.clone()))
            || self.stays_for_others(session, label)
    }

    /// Does it stay for the sake of others only?
    pub fn stays_for_others(&self, session: &str, label: &Label) -> bool {
        let key = (session, label.clone());
        self.shared.contains(label)
            && !self.held_outputs.contains(&key)
            && !self.wanted.contains(&key)
    }

    /// Does a session that is left alone copy there?
    pub fn uses(&self, index: u32) -> bool {
        self.used.contains(&index)
    }

    /// Does a rule of a base chain stay, whatever is wanted?
    fn rule(&self, label: &Label, device: Option<&IfName>, rule: &SeenRule) -> bool {
        let Some(Told { session, .. }) = names::read_purpose(&rule.comment) else {
            return false;
        };
        let undecided = || self.undecided.get(&(session, label.clone()));
        self.holds(session, label)
            || undecided()
                .zip(device)
                .is_some_and(|(devices, device)| devices.contains(device))
    }

    /// Does a chain that nobody wants stay as it is?
    fn chain(
        &self,
        name: &str,
        chain: &SeenChain,
        index_of: &dyn Fn(&IfName) -> Option<u32>,
    ) -> bool {
        match names::read(name) {
            ChainName::Own { session, label, .. } => {
                self.holds(session, &label) || self.may_stay(session, label)
            }
            ChainName::Drop => {
                let index = chain.hook.as_ref().and_then(|hook| index_of(&hook.device));
                // A device that this look did not ask for may be one that a session left alone copies to.
                index.map_or(!self.used.is_empty(), |index| self.uses(index))
            }
            ChainName::Base { .. } | ChainName::Unknown => false,
        }
    }
}

/// What makes the one of the other; empty if they are the same.
pub fn diff(
    wanted: &Table,
    seen: &Seen,
    kept: &Preserved<'_>,
    index_of: &dyn Fn(&IfName) -> Option<u32>,
) -> Vec<Command> {
    let mut steps = Steps::default();
    for (name, chain) in &wanted.chains {
        steps.wanted(name, chain, seen.chains.get(name), kept);
    }
    let mut stays = !wanted.chains.is_empty();
    for (name, chain) in seen
        .chains
        .iter()
        .filter(|(name, _)| !wanted.chains.contains_key(*name))
    {
        if kept.chain(name, chain, index_of) || steps.unwanted(name, chain, kept) {
            stays = true;
        }
    }
    if !stays {
        return if seen.exists {
            vec![Command::DeleteTable]
        } else {
            Vec::new()
        };
    }
    for counter in wanted
        .counters
        .iter()
        .filter(|counter| !seen.counters.contains_key(*counter))
    {
        steps.counters.push(Command::AddCounter(counter.clone()));
    }
    for counter in seen
        .counters
        .keys()
        .filter(|counter| !wanted.counters.contains(*counter))
    {
        if !names::counted(counter).is_some_and(|(session, label)| kept.holds(session, &label)) {
            steps.last.push(Command::DeleteCounter(counter.clone()));
        }
    }
    steps.in_order(seen.exists)
}

/// The commands by when they have to come: what is referred to exists before, and goes after.
#[derive(Default)]
struct Steps {
    counters: Vec<Command>,
    anew: Vec<Command>,
    chains: Vec<Command>,
    emptied: Vec<Command>,
    rules: Vec<Command>,
    gone: Vec<Command>,
    last: Vec<Command>,
}

impl Steps {
    fn wanted(
        &mut self,
        name: &str,
        chain: &Chain,
        seen: Option<&SeenChain>,
        kept: &Preserved<'_>,
    ) {
        let add = |rule: &Rule| Command::AddRule(name.to_owned(), rule.clone());
        let seen = match seen {
            Some(seen) if seen.hook == chain.hook => seen,
            other => {
                if other.is_some() {
                    // Its hook has gone with a device, or is somebody else's idea.
                    self.anew.push(Command::FlushChain(name.to_owned()));
                    self.anew.push(Command::DeleteChain(name.to_owned()));
                }
                self.chains
                    .push(Command::AddChain(name.to_owned(), chain.hook.clone()));
                self.rules.extend(chain.rules.iter().map(add));
                return;
            }
        };
        if let (ChainName::Base { label }, Some(Hook { device, .. })) =
            (names::read(name), &chain.hook)
        {
            let own = seen
                .rules
                .iter()
                .filter(|rule| !kept.rule(&label, Some(device), rule));
            self.in_place(name, &chain.rules, &own.collect::<Vec<_>>());
            return;
        }
        if !same(&chain.rules, &seen.rules) {
            self.emptied.push(Command::FlushChain(name.to_owned()));
            self.rules.extend(chain.rules.iter().map(add));
        }
    }

    /// Makes the rules of a base chain the wanted ones. Rules can only be added behind the others, so where one has to come
    /// before another that is there, those behind it are added anew.
    fn in_place(&mut self, name: &str, wanted: &[Rule], seen: &[&SeenRule]) {
        let comments: Vec<String> = wanted.iter().map(Rule::comment).collect();
        let mut staying = 0;
        for rule in seen {
            if comments.get(staying) == Some(&rule.comment) {
                staying += 1;
            } else {
                self.emptied
                    .push(Command::DeleteRule(name.to_owned(), rule.handle));
            }
        }
        let missing = wanted.iter().skip(staying);
        self.rules
            .extend(missing.map(|rule| Command::AddRule(name.to_owned(), rule.clone())));
    }

    /// Takes a chain away as far as it may go; tells whether something of it stays.
    fn unwanted(&mut self, name: &str, chain: &SeenChain, kept: &Preserved<'_>) -> bool {
        if let ChainName::Base { label } = names::read(name) {
            let device = chain.hook.as_ref().map(|hook| &hook.device);
            let (stay, go): (Vec<&SeenRule>, Vec<&SeenRule>) = chain
                .rules
                .iter()
                .partition(|rule| kept.rule(&label, device, rule));
            if !stay.is_empty() {
                let delete = |rule: &SeenRule| Command::DeleteRule(name.to_owned(), rule.handle);
                self.emptied.extend(go.into_iter().map(delete));
                return true;
            }
        }
        self.emptied.push(Command::FlushChain(name.to_owned()));
        self.gone.push(Command::DeleteChain(name.to_owned()));
        false
    }

    fn in_order(self, exists: bool) -> Vec<Command> {
        let Self {
            counters,
            anew,
            mut chains,
            emptied,
            rules,
            gone,
            last,
        } = self;
        // Chains that others jump to come before the base chains, so that no hook is there before what it needs.
        chains.sort_by_key(|command| matches!(command, Command::AddChain(_, Some(_))));
        let all = [counters, anew, chains, emptied, rules, gone, last].concat();
        let table = (!exists && !all.is_empty()).then_some(Command::AddTable);
        table.into_iter().chain(all).collect()
    }
}

/// Are these the rules that were meant?
pub fn same(wanted: &[Rule], seen: &[SeenRule]) -> bool {
    let index = |rule: &Rule| match rule.action {
        Act::Copy { index, .. } => Some(index),
        _ => None,
    };
    wanted.len() == seen.len()
        && wanted.iter().zip(seen).all(|(wanted, seen)| {
            seen.comment == wanted.comment() && seen.copies_to == index(wanted)
        })
}
