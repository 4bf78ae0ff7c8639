//! What the `nft` engine's table holds: chains, rules and counters, as data.
//!
//! One table, `netdev pve-span`, is ours and nobody else's. This module only says what its parts are;
//! it knows neither nft(8)'s JSON nor netlink, and changes nothing.
//!
//! ```text
//! chain in/tap101i0/200/net1    hook ingress "tap101i0"      rule a session: jump from/…, frames/… or copy/…
//! chain to/dmz/200/net1         source MAC is a mirrored NIC's → return (it has been mirrored where it was sent)
//! chain frames/dmz/200/net1/0…  the filter, a decision in each chain
//! chain copy/dmz/200/net1       counter, dup to the output, accept
//! chain drop/tap200i1           hook ingress "tap200i1"      what the sensor sends
//! ```

pub mod spec;

pub mod diff;
pub mod frames;
pub mod names;
pub mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::engine::Statistics;
use crate::model::IfName;

/// The name of our table, in the netdev family.
pub const TABLE: &str = "pve-span";

/// Which of a device's hooks (nft(8), "NETDEV").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// What the node receives from the device.
    Ingress,
    /// What the node sends through the device.
    Egress,
}

/// Where a base chain hangs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hook {
    /// The device.
    pub device: IfName,
    /// Which of its hooks.
    pub side: Side,
}

/// A chain as it shall be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// Where it hangs; nothing for chains that others jump to.
    pub hook: Option<Hook>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// A rule: when all matches hold, it acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What a frame has to be like.
    pub matches: Vec<Match>,
    /// What happens then.
    pub action: Act,
    /// What the rule is for, in words; without the digest.
    pub purpose: String,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Goes on in another chain and comes back.
    Jump(String),
    /// Goes on in another chain, at whose end the chain that jumped here goes on.
    Goto(String),
    /// Goes back to the chain that jumped here.
    Return,
    /// Ends this base chain; the frame goes its way.
    Accept,
    /// Ends the frame.
    Drop,
    /// Counts the frame and sends a copy out of a device.
    Copy {
        /// The named counter.
        counter: String,
        /// The device.
        device: IfName,
        /// Its interface index, by which the kernel knows it.
        index: u32,
        /// Whether the base chain ends with it.
        then: CopyVerdict,
    },
}

/// What follows a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyVerdict {
    /// No other session copies the frame to the same output.
    Accept,
    /// The next session has its turn.
    Continue,
}

/// A test of a frame.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// Bits of the frame are within ranges; a frame that ends before them does not match, also not [`Test::NotIn`].
    Bits {
        /// Which.
        field: Field,
        /// How they are compared.
        test: Test,
        /// With what: inclusive ranges, ascending and apart, at least one. Compared as numbers in network byte order.
        ranges: Vec<(u128, u128)>,
    },
    /// One frame in so many.
    Sample(u32),
}

/// How bits are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Test {
    /// In one of the ranges.
    In,
    /// In none of them.
    NotIn,
}

/// Bits of a frame, counted from its destination MAC address on, as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field {
    /// The first bit.
    pub offset: u32,
    /// How many bits, at most 128.
    pub length: u32,
    /// Only these of them, if not all.
    pub mask: Option<u128>,
}

/// A change of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The table, if it is not there.
    AddTable,
    /// The table and everything in it.
    DeleteTable,
    /// A named counter.
    AddCounter(String),
    /// A named counter that nothing refers to any more.
    DeleteCounter(String),
    /// A chain, with its hook if it has one.
    AddChain(String, Option<Hook>),
    /// All rules of a chain.
    FlushChain(String),
    /// A chain that nothing refers to any more.
    DeleteChain(String),
    /// A rule, behind those that are there.
    AddRule(String, Rule),
    /// A rule, by its handle.
    DeleteRule(String, u64),
}

/// What is known of our table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NftState {
    /// The kernel was asked.
    Present(Seen),
    /// It does not answer, or does not answer properly; the text says why.
    Failed(String),
}

impl NftState {
    /// Is a chain of this name certainly there?
    pub fn has_chain(&self, name: &str) -> bool {
        match self {
            Self::Present(seen) => seen.chains.contains_key(name),
            Self::Failed(_) => false,
        }
    }
}

impl Default for NftState {
    fn default() -> Self {
        Self::Present(Seen::default())
    }
}

/// Our table as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Is there one?
    pub exists: bool,
    /// Its chains by name.
    pub chains: BTreeMap<String, SeenChain>,
    /// Its named counters, with what they have counted.
    pub counters: BTreeMap<String, Statistics>,
    /// Sets, maps and whatever else is in it that we never put there by name.
    pub strangers: BTreeSet<String>,
}

/// A chain as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenChain {
    /// Its hook; nothing also for a base chain whose device has gone, on kernels that say so.
    pub hook: Option<Hook>,
    /// Its rules, in order.
    pub rules: Vec<SeenRule>,
}

/// A rule as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenRule {
    /// The kernel's number for it.
    pub handle: u64,
    /// Its comment; empty without.
    pub comment: String,
    /// The interface index that it copies to, if it copies.
    pub copies_to: Option<u32>,
}

impl Rule {
    /// The comment that the rule carries: what it is for, and a digest of all that it does, by which it is
    /// recognised. At most 127 bytes, as nft(8) allows.
    pub fn comment(&self) -> String {
        const MOST: usize = 127 - 18;
        let mut purpose = self.purpose.as_str();
        while purpose.len() > MOST {
            purpose = purpose
                .char_indices()
                .next_back()
                .map_or("", |(at, _)| purpose.get(..at).unwrap_or_default());
        }
        format!("{purpose} #{:016x}", digest(&self.to_string()))
    }
}

/// FNV-1a, 64 bits (draft-eastlake-fnv): the same in every version of everything.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl fmt::Display for Rule {
    /// All that the rule is, in nft(8)'s words as far as there are any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for test in &self.matches {
            write!(f, "{test} ")?;
        }
        match &self.action {
            Act::Jump(chain) => write!(f, "jump {chain}"),
            Act::Goto(chain) => write!(f, "goto {chain}"),
            Act::Return => f.write_str("return"),
            Act::Accept => f.write_str("accept"),
            Act::Drop => f.write_str("drop"),
            Act::Copy {
                counter,
                device,
                index,
                then,
            } => {
                let then = match then {
                    CopyVerdict::Accept => " accept",
                    CopyVerdict::Continue => "",
                };
                write!(f, "counter name {counter} dup to {device}#{index}{then}")
            }
        }?;
        write!(f, " comment {}", self.purpose)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bits {
                field,
                test,
                ranges,
            } => {
                write!(f, "@ll,{},{}", field.offset, field.length)?;
                if let Some(mask) = field.mask {
                    write!(f, " & {mask:#x}")?;
                }
                if *test == Test::NotIn {
                    f.write_str(" !=")?;
                }
                f.write_str(" {")?;
                for (low, high) in ranges {
                    write!(f, " {low:#x}-{high:#x}")?;
                }
                f.write_str(" }")
            }
            Self::Sample(frames) => write!(f, "numgen inc mod {frames} == 0"),
        }
    }
}
