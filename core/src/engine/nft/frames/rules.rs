//! A decision diagram → chains of rules.
//!
//! Each question is a rule for each place that its answers lead to. What is left to decide afterwards stands in a chain
//! of its own, or, to keep the way through the chains short, in the same one: directly in the rule where it
//! is one rule only, and behind the question's other rules where those let nothing through that is not meant.
//!
//! A rule that reads beyond the end of a frame does not match, whatever it asks. So a frame that ends before a
//! field falls through all rules of its question, down to what stands behind them.

use std::collections::HashMap;
use std::rc::Rc;

use super::super::{Match, Test};
use super::diagram::{Diagram, FALSE, Id, NEVER, Node, TRUE};
use super::limits::{MAX_DEPTH, MAX_RANGES, MAX_RULES, MAX_VISITS, TooLarge};

/// A set in a rule up to this size may as well stand in two.
const SMALL: usize = 8;

/// A rule: frames that all matches hold of go to `to`; the others go on to the next rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// What a frame has to be like; nothing means any frame.
    pub matches: Vec<Match>,
    /// Where it goes then, for good.
    pub to: To,
}

/// Where a rule leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// Another of the chains, by its index. One without rules takes nothing.
    Chain(usize),
    /// The frame is taken.
    Taken,
}

/// A rule, before the chains have numbers.
#[derive(Debug, Clone)]
struct Draft {
    matches: Vec<Rc<Match>>,
    to: Goal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Taken,
    /// A chain without rules.
    NotTaken,
    /// The chain that decides this question.
    Question(Id),
}

type Drafts = Rc<Vec<Draft>>;

/// Values of a question that lead to the same place.
#[derive(Debug)]
struct Group {
    to: Id,
    ranges: Vec<(u128, u128)>,
}

/// The chains of a settled diagram, the entry first.
pub(super) fn chains(diagram: &Diagram, root: Id) -> Result<Vec<Vec<Branch>>, TooLarge> {
    let mut writer = Writer {
        diagram,
        parents: HashMap::new(),
        written: HashMap::new(),
    };
    writer.count_parents(root);
    let mut numbers: HashMap<Option<Id>, usize> = HashMap::new();
    // What each chain decides; nothing for the one without rules.
    let mut contents = vec![Some(root)];
    let mut chains: Vec<Vec<Branch>> = Vec::new();
    let (mut rules, mut ranges) = (0, 0);
    while let Some(content) = contents.get(chains.len()) {
        let drafts = match content {
            Some(id) => writer.rules(*id)?,
            None => Drafts::default(),
        };
        rules += drafts.len();
        if rules > MAX_RULES {
            return Err(TooLarge::Rules);
        }
        let mut chain = Vec::with_capacity(drafts.len());
        for draft in drafts.iter() {
            let mut chain_of = |content| {
                To::Chain(*numbers.entry(content).or_insert_with(|| {
                    contents.push(content);
                    contents.len() - 1
                }))
            };
            let to = match draft.to {
                Goal::Taken => To::Taken,
                Goal::NotTaken => chain_of(None),
                Goal::Question(id) => chain_of(Some(id)),
            };
            ranges += draft.matches.iter().map(|test| size(test)).sum::<usize>();
            if ranges > MAX_RANGES {
                return Err(TooLarge::Ranges);
            }
            let matches = draft.matches.iter().map(|test| Match::clone(test));
            chain.push(Branch {
                matches: matches.collect(),
                to,
            });
        }
        chains.push(chain);
    }
    check_ways(&chains)?;
    Ok(chains)
}

/// The longest way and the number of them.
fn check_ways(chains: &[Vec<Branch>]) -> Result<(), TooLarge> {
    let mut known = vec![None; chains.len()];
    let (depth, visits) = ways(chains, 0, &mut known);
    if depth > MAX_DEPTH {
        return Err(TooLarge::Depth(depth));
    }
    if visits > MAX_VISITS {
        return Err(TooLarge::Visits);
    }
    Ok(())
}

/// How many chains the longest way from this one on visits, itself included, and how many all of them do.
pub(super) fn ways(
    chains: &[Vec<Branch>],
    from: usize,
    known: &mut [Option<(usize, usize)>],
) -> (usize, usize) {
    if let Some(Some(known)) = known.get(from) {
        return *known;
    }
    let (mut deepest, mut visits) = (0, 1_usize);
    for branch in chains.get(from).into_iter().flatten() {
        if let To::Chain(to) = branch.to {
            let (depth, more) = ways(chains, to, known);
            deepest = deepest.max(depth);
            visits = visits.saturating_add(more);
        }
    }
    let result = (deepest + 1, visits);
    if let Some(place) = known.get_mut(from) {
        *place = Some(result);
    }
    result
}

struct Writer<'a> {
    diagram: &'a Diagram,
    /// How many answers lead to a question.
    parents: HashMap<Id, usize>,
    written: HashMap<Id, Drafts>,
}

impl Writer<'_> {
    fn count_parents(&mut self, id: Id) {
        let seen = self.parents.entry(id).or_insert(0);
        *seen += 1;
        if *seen > 1 {
            return;
        }
        if let Some(node) = self.diagram.node(id) {
            for group in groups(node) {
                self.count_parents(group.to);
            }
            self.count_parents(node.short);
        }
    }

    /// The rules that decide it.
    fn rules(&mut self, id: Id) -> Result<Drafts, TooLarge> {
        if let Some(drafts) = self.written.get(&id) {
            return Ok(Rc::clone(drafts));
        }
        let drafts = match self.diagram.node(id) {
            Some(node) => self.question(node)?,
            None if id == TRUE => vec![Draft {
                matches: Vec::new(),
                to: Goal::Taken,
            }],
            None => Vec::new(),
        };
        if drafts.len() > MAX_RULES {
            return Err(TooLarge::Rules);
        }
        let drafts = Rc::new(drafts);
        self.written.insert(id, Rc::clone(&drafts));
        Ok(drafts)
    }

    fn question(&mut self, node: &Node) -> Result<Vec<Draft>, TooLarge> {
        let mut groups = groups(node);
        // The rest is what takes most words.
        let rest = groups
            .iter()
            .enumerate()
            .max_by_key(|(_, group)| (group.ranges.len(), group.width()))
            .map_or(0, |(index, _)| index);
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let rest = groups.swap_remove(rest);
        let usual = node.read.usual();
        groups.sort_by_key(|group| {
            let unusual = usual.is_none_or(|value| !group.has(value));
            (unusual, group.ranges.first().copied())
        });
        if node.short != FALSE && node.short != NEVER {
            return self.with_short(node, &groups, &rest);
        }
        let apart = self.apart(node, &groups, &rest)?;
        // Frames that end before the field get to the rest's rules too, and those must do the right thing with them.
        let short = self.diagram.when_short(rest.to, node.read.end());
        let falls_through = node.short == NEVER || short == Some(node.short);
        // A usual value should not be kept waiting, so it goes first and to a chain of its own.
        if rest.to != FALSE && falls_through && usual.is_none() {
            let mut in_line = self.leaving(node, &groups)?;
            in_line.extend(self.here_or_there(rest.to)?);
            if self.cost(&in_line) <= self.cost(&apart) {
                return Ok(in_line);
            }
        }
        Ok(apart)
    }

    /// How many rules there are with these, those in chains of their own included.
    fn cost(&self, drafts: &[Draft]) -> usize {
        let further = drafts.iter().map(|draft| match draft.to {
            Goal::Question(to) if !self.is_shared(to) => {
                self.written.get(&to).map_or(0, |to| to.len())
            }
            _ => 0,
        });
        drafts.len() + further.sum::<usize>()
    }

    fn is_shared(&self, id: Id) -> bool {
        self.parents.get(&id).is_some_and(|parents| *parents > 1)
    }

    /// A rule for each group that has it for itself, so that what a rule lets through is let through by all.
    fn apart(
        &mut self,
        node: &Node,
        groups: &[Group],
        rest: &Group,
    ) -> Result<Vec<Draft>, TooLarge> {
        let mut drafts = Vec::new();
        for group in groups {
            let expand = node.read.usual().is_some_and(|value| !group.has(value));
            let most = if expand { 2 } else { 1 };
            drafts.extend(self.guarded(group.test(node), group.to, most)?);
        }
        drafts.extend(self.guarded(rest.test_apart_from(node, groups), rest.to, 1)?);
        Ok(drafts)
    }

    /// A rule for each group after which none of its frames is left here.
    fn leaving(&mut self, node: &Node, groups: &[Group]) -> Result<Vec<Draft>, TooLarge> {
        let mut drafts = Vec::with_capacity(groups.len());
        for group in groups {
            drafts.push(Draft {
                matches: vec![group.test(node)],
                to: self.goal(group.to)?,
            });
        }
        Ok(drafts)
    }

    /// Frames that end before the field have something left to decide too: it stands last, where only they get.
    fn with_short(
        &mut self,
        node: &Node,
        groups: &[Group],
        rest: &Group,
    ) -> Result<Vec<Draft>, TooLarge> {
        let mut drafts = self.leaving(node, groups)?;
        drafts.push(Draft {
            matches: vec![rest.test_apart_from(node, groups)],
            to: self.goal(rest.to)?,
        });
        drafts.extend(self.here_or_there(node.short)?);
        Ok(drafts)
    }

    /// What decides the frames of one test.
    fn guarded(&mut self, test: Rc<Match>, to: Id, most: usize) -> Result<Vec<Draft>, TooLarge> {
        let inner = self.rules(to)?;
        let shared = self.is_shared(to);
        let large = || {
            let sizes = inner.iter().flat_map(|draft| &draft.matches);
            sizes.map(|test| size(test)).sum::<usize>() > SMALL
        };
        if inner.len() > most || (shared && large()) {
            return Ok(vec![Draft {
                matches: vec![test],
                to: Goal::Question(to),
            }]);
        }
        let drafts = inner.iter().map(|draft| {
            let mut matches = vec![Rc::clone(&test)];
            matches.extend(draft.matches.iter().cloned());
            Draft {
                matches,
                to: draft.to,
            }
        });
        Ok(drafts.collect())
    }

    /// The rules of a question at the end of another's, or the way to them if they are wanted elsewhere too.
    fn here_or_there(&mut self, to: Id) -> Result<Vec<Draft>, TooLarge> {
        let inner = self.rules(to)?;
        let shared = self.is_shared(to);
        if shared && inner.len() > 2 {
            return Ok(vec![Draft {
                matches: Vec::new(),
                to: Goal::Question(to),
            }]);
        }
        Ok(inner.to_vec())
    }

    /// Where all frames of a question go.
    fn goal(&mut self, to: Id) -> Result<Goal, TooLarge> {
        let rules = self.rules(to)?;
        Ok(match rules.as_slice() {
            [] => Goal::NotTaken,
            [only] if only.matches.is_empty() => only.to,
            _ => Goal::Question(to),
        })
    }
}

/// A question's values by where they lead.
fn groups(node: &Node) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut index: HashMap<Id, usize> = HashMap::new();
    let mut low = 0;
    for &(high, to) in node.values.iter() {
        let at = *index.entry(to).or_insert(groups.len());
        match groups.get_mut(at) {
            Some(group) => group.ranges.push((low, high)),
            None => groups.push(Group {
                to,
                ranges: vec![(low, high)],
            }),
        }
        low = high.saturating_add(1);
    }
    groups
}

impl Group {
    fn has(&self, value: u128) -> bool {
        let mut ranges = self.ranges.iter();
        ranges.any(|(low, high)| (*low..=*high).contains(&value))
    }

    fn width(&self) -> u128 {
        let widths = self.ranges.iter().map(|(low, high)| high - low);
        widths.fold(0, u128::saturating_add)
    }

    /// The field has one of the values.
    fn test(&self, node: &Node) -> Rc<Match> {
        bits(node, Test::In, self.ranges.clone())
    }

    /// The same, said in the fewest words if `others` are all others.
    fn test_apart_from(&self, node: &Node, others: &[Group]) -> Rc<Match> {
        let mut ranges: Vec<_> = others
            .iter()
            .flat_map(|group| group.ranges.iter().copied())
            .collect();
        ranges.sort_unstable();
        let mut joined: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (low, high) in ranges {
            match joined.last_mut() {
                Some(last) if last.1.checked_add(1) == Some(low) => last.1 = high,
                _ => joined.push((low, high)),
            }
        }
        if joined.is_empty() || self.ranges.len() <= joined.len() {
            self.test(node)
        } else {
            bits(node, Test::NotIn, joined)
        }
    }
}

fn bits(node: &Node, test: Test, ranges: Vec<(u128, u128)>) -> Rc<Match> {
    Rc::new(Match::Bits {
        field: node.read.field(),
        test,
        ranges,
    })
}

fn size(test: &Match) -> usize {
    match test {
        Match::Bits { ranges, .. } => ranges.len(),
        Match::Sample(_) => 1,
    }
}
