//! A decision diagram: questions about a frame, and where each answer leads.
//!
//! An ordered, reduced diagram as Bryant's (Graph-Based Algorithms for Boolean Function Manipulation, 1986), with three
//! differences. A question has as many answers as its field has values, held as ranges. The frame may end before the
//! field, which is an answer of its own. And there is a third outcome besides true and false: the frame is rejected,
//! since libpcap's programs give up where they read beyond the end, so that `not` does not turn it round, and what stands
//! further right is not asked any more.
//!
//! Which lengths a frame can still have is known on each way: who has read the ports need not ask whether
//! there are addresses. Without that, the diagrams would be full of ways that no frame goes.

use std::collections::HashMap;
use std::rc::Rc;

use super::fields::Read;
use super::limits::{MAX_QUESTIONS, TooLarge};

/// A question or an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(u32);

/// The frame is not what was asked for.
pub(super) const FALSE: Id = Id(0);
/// The frame is what was asked for.
pub(super) const TRUE: Id = Id(1);
/// The frame ended too early.
pub(super) const ABORT: Id = Id(2);
/// No frame comes here.
pub(super) const NEVER: Id = Id(3);

/// The outcomes before the first question.
const OUTCOMES: usize = 4;

/// The most answers that are combined. Some 90 ms and 40 MB.
pub(super) const MAX_WORK: usize = 650_000;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Node {
    /// What is read.
    pub(super) read: Read,
    /// Where its values lead: up to that one, included, in ascending order; the last is the highest. Neighbours differ.
    pub(super) values: Rc<[(u128, Id)]>,
    /// Where frames go that end before it; [`NEVER`] when none can come here.
    pub(super) short: Id,
}

/// What is known of a frame's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Length {
    /// It has so many bytes.
    least: u32,
    /// It has fewer than so many.
    below: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operator {
    And,
    Or,
}

/// All questions, each once.
#[derive(Debug, Default)]
pub(super) struct Diagram {
    nodes: Vec<Node>,
    /// For each question, how many are asked on the longest way from it on, itself included.
    depths: Vec<usize>,
    /// For each question, the lengths that it and those behind it ask for: bit n stands for n bytes.
    lengths: Vec<u128>,
    ids: HashMap<Node, Id>,
    combined: HashMap<(Operator, Id, Id, Length), Id>,
    work: usize,
}

impl Diagram {
    /// The question behind an id; nothing for an outcome.
    pub(super) fn node(&self, id: Id) -> Option<&Node> {
        self.nodes.get((id.0 as usize).checked_sub(OUTCOMES)?)
    }

    /// Is the field within these ranges (ascending and apart)? Frames that end before it are rejected.
    pub(super) fn within(
        &mut self,
        read: Read,
        ranges: impl IntoIterator<Item = (u128, u128)>,
        inside: Id,
        outside: Id,
        short: Id,
    ) -> Result<Id, TooLarge> {
        let mut values = Vec::new();
        for (low, high) in ranges {
            if let Some(before) = low.checked_sub(1) {
                values.push((before, outside));
            }
            values.push((high, inside));
        }
        values.push((read.highest(), outside));
        self.question(read, &values, short)
    }

    /// The question with these answers (each up to a value, ascending, the last the highest), or where all of them lead if
    /// that is one place.
    pub(super) fn question(
        &mut self,
        read: Read,
        values: &[(u128, Id)],
        short: Id,
    ) -> Result<Id, TooLarge> {
        let mut merged: Vec<(u128, Id)> = Vec::with_capacity(values.len());
        let mut from = Some(0);
        for &(high, to) in values {
            // A range that ended where the next would have begun.
            if from.is_none_or(|from| high < from) {
                continue;
            }
            from = high.checked_add(1);
            match merged.last_mut() {
                Some(last) if last.1 == to => last.0 = high,
                _ => merged.push((high, to)),
            }
        }
        self.work += merged.len();
        if self.work > MAX_WORK {
            return Err(TooLarge::Work(MAX_WORK));
        }
        if let [(_, only)] = merged.as_slice() {
            if short == *only || short == NEVER {
                return Ok(*only);
            }
        }
        let lengths = merged
            .iter()
            .fold(self.lengths(short) | bit(read.end()), |bits, (_, to)| {
                bits | self.lengths(*to)
            });
        let node = Node {
            read,
            values: merged.into(),
            short,
        };
        if let Some(id) = self.ids.get(&node) {
            return Ok(*id);
        }
        let id = u32::try_from(self.nodes.len() + OUTCOMES)
            .map(Id)
            .map_err(|_| TooLarge::Work(MAX_WORK))?;
        let further = questions_behind(self, &node);
        if further >= MAX_QUESTIONS {
            return Err(TooLarge::Questions);
        }
        self.depths.push(further + 1);
        self.nodes.push(node.clone());
        self.lengths.push(lengths);
        self.ids.insert(node, id);
        Ok(id)
    }

    /// Both, the left one first.
    pub(super) fn and(&mut self, left: Id, right: Id) -> Result<Id, TooLarge> {
        self.combine(Operator::And, left, right, Length::ANY)
    }

    /// At least one, the left one first.
    pub(super) fn or(&mut self, left: Id, right: Id) -> Result<Id, TooLarge> {
        self.combine(Operator::Or, left, right, Length::ANY)
    }

    /// The contrary.
    pub(super) fn not(&mut self, id: Id) -> Result<Id, TooLarge> {
        let swap = |id| match id {
            TRUE => FALSE,
            FALSE => TRUE,
            other => other,
        };
        self.replace(id, swap, &mut HashMap::new())
    }

    /// The final form: a rejected frame is one that is not taken.
    pub(super) fn settle(&mut self, id: Id) -> Result<Id, TooLarge> {
        let settle = |id| if id == ABORT { FALSE } else { id };
        self.replace(id, settle, &mut HashMap::new())
    }

    /// The outcome for frames that have fewer than so many bytes; nothing if there are several.
    pub(super) fn when_short(&self, id: Id, below: u32) -> Option<Id> {
        match self.node(id) {
            None => Some(id),
            Some(node) if node.read.end() >= below => self.when_short(node.short, below),
            Some(_) => None,
        }
    }

    /// The same questions with other outcomes.
    fn replace(
        &mut self,
        id: Id,
        outcome: fn(Id) -> Id,
        done: &mut HashMap<Id, Id>,
    ) -> Result<Id, TooLarge> {
        let Some(node) = self.node(id).cloned() else {
            return Ok(outcome(id));
        };
        if let Some(id) = done.get(&id) {
            return Ok(*id);
        }
        let mut values = Vec::with_capacity(node.values.len());
        for &(high, to) in node.values.iter() {
            values.push((high, self.replace(to, outcome, done)?));
        }
        let short = self.replace(node.short, outcome, done)?;
        let new = self.question(node.read, &values, short)?;
        done.insert(id, new);
        Ok(new)
    }

    fn combine(
        &mut self,
        operator: Operator,
        left: Id,
        right: Id,
        length: Length,
    ) -> Result<Id, TooLarge> {
        match (operator, left) {
            (_, ABORT | NEVER) | (Operator::And, FALSE) | (Operator::Or, TRUE) => return Ok(left),
            _ => {}
        }
        if right == NEVER {
            return Ok(NEVER);
        }
        let (first, second) = (self.node(left), self.node(right));
        let read = match (first, second) {
            (None, None) => return Ok(right),
            (Some(node), None) | (None, Some(node)) => node.read,
            (Some(one), Some(other)) => one.read.min(other.read),
        };
        let length = length.as_far_as(self.lengths(left) | self.lengths(right));
        let key = (operator, left, right, length);
        if let Some(id) = self.combined.get(&key) {
            return Ok(*id);
        }
        let end = read.end();
        let asks = |node: Option<&Node>| node.filter(|node| node.read == read).cloned();
        let (first, second) = (asks(first), asks(second));
        let short = if end <= length.least {
            NEVER
        } else {
            let left = first.as_ref().map_or(left, |node| node.short);
            let right = second.as_ref().map_or(right, |node| node.short);
            let shorter = Length {
                below: length.below.min(end),
                ..length
            };
            self.combine(operator, left, right, shorter)?
        };
        let id = if end >= length.below {
            short
        } else {
            let longer = Length {
                least: length.least.max(end),
                ..length
            };
            let all = |id| [(read.highest(), id)];
            let (all_left, all_right) = (all(left), all(right));
            let lefts = first.as_ref().map_or(&all_left[..], |node| &node.values);
            let rights = second.as_ref().map_or(&all_right[..], |node| &node.values);
            let mut values = Vec::with_capacity(lefts.len().max(rights.len()));
            let (mut lefts, mut rights) = (lefts.iter().peekable(), rights.iter().peekable());
            while let (Some(&&(one, a)), Some(&&(other, b))) = (lefts.peek(), rights.peek()) {
                let high = one.min(other);
                values.push((high, self.combine(operator, a, b, longer)?));
                lefts.next_if(|_| one == high);
                rights.next_if(|_| other == high);
            }
            self.question(read, &values, short)?
        };
        self.combined.insert(key, id);
        Ok(id)
    }

    fn lengths(&self, id: Id) -> u128 {
        (id.0 as usize)
            .checked_sub(OUTCOMES)
            .and_then(|index| self.lengths.get(index).copied())
            .unwrap_or(0)
    }
}

impl Length {
    /// Every frame has a whole Ethernet header.
    const ANY: Self = Self {
        least: 14,
        below: 128,
    };

    /// As much of it as makes a difference where these lengths are asked for, so that what is the same is found again.
    fn as_far_as(self, asked: u128) -> Self {
        let at_most_least = asked & (bit(self.least) | (bit(self.least) - 1));
        let at_least_below = asked.checked_shr(self.below).unwrap_or(0);
        Self {
            least: 127_u32.saturating_sub(at_most_least.leading_zeros()),
            below: match at_least_below {
                0 => 128,
                bits => self.below + bits.trailing_zeros(),
            },
        }
    }
}

/// How many questions are asked behind this one.
fn questions_behind(diagram: &Diagram, node: &Node) -> usize {
    let depth = |id: Id| {
        let index = (id.0 as usize).checked_sub(OUTCOMES);
        let depth = index.and_then(|index| diagram.depths.get(index).copied());
        depth.unwrap_or(0)
    };
    let values = node.values.iter().map(|(_, to)| depth(*to));
    values.max().unwrap_or(0).max(depth(node.short))
}

fn bit(length: u32) -> u128 {
    1_u128.checked_shl(length).unwrap_or(0)
}
