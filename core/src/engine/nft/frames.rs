//! Which frames are taken: a filter and a selection of VLANs → chains of rules over the frame's raw bytes.
//!
//! This exists so that the kernel can decide what tcpdump would have decided, to the last corner: options in
//! the IPv4 header, fragments, tags within tags, and frames that end too early. nft(8)'s own words for fields cannot
//! be used for that: they bring tests of their own along, and some never match where frames leave.
//!
//! ```text
//! filter ──► decision diagram (diagram) of reads (fields, reads) ──► chains (rules)
//! ```
//!
//! A diagram rather than the expression itself, because rules cannot be nested: a chain only goes on or is left
//! for another one, and the kernel follows sixteen such steps at most. In the diagram each path reads each
//! field once, in one order, and values with the same consequence are one rule, however many there are.
//!
//! Nothing is done with the chains here, nor is anything known of who jumps to them.

mod diagram;
mod fields;
mod reads;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::rc::Rc;

use super::Match;
use crate::filter::Filter;
use crate::model::VlanSet;

/// The most rules that one filter may need. A table holds them once for each session, and nft(8) loads some 20,000 a second.
pub const MAX_RULES: usize = 1000;

/// The most ranges of values in all its rules together.
pub const MAX_RANGES: usize = 50_000;

/// The longest way through the chains. The kernel refuses more than 16 (`NFT_JUMP_STACK_SIZE`; goto counts as jump
/// does), and three are left for others: the base chain, one between it and these, and the one that copies.
pub const MAX_DEPTH: usize = 13;

/// How many chains all the ways through them visit, counted once for each way. That is what the kernel does for each hook
/// when rules change (`nft_chain_validate`), and newer ones bound it for a network namespace as a whole
/// (`nf_tables_jumps_max_netns`).
pub const MAX_VISITS: usize = 2000;

/// A rule: frames that all matches hold of go to `to`; the others go on to the next rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// What a frame has to be like; nothing means any frame.
    pub matches: Vec<Match>,
    /// Where it goes then, for good.
    pub to: To,
}

/// The most rules that the whole table may need. A reconcile has ten seconds to load them, and a hook five to read them, to
/// change a few, and to read them again; also where others want the processor.
pub const MAX_TABLE_RULES: usize = 15_000;

/// Where a rule leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// Another of the chains, by its index. One without rules takes nothing.
    Chain(usize),
    /// The frame is taken.
    Taken,
}

/// The filter is right, but the kernel should not be asked to do all that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// More rules than [`MAX_RULES`].
    #[error(
        "the filter needs more than {MAX_RULES} nftables rules: join hosts that want the same ports in one \
         parenthesis, or make several sessions of it"
    )]
    Rules,
    /// More ranges than [`MAX_RANGES`].
    #[error(
        "the filter needs more than {MAX_RANGES} values in nftables rules: name networks or ranges of ports \
         instead of single ones, or make several sessions of it"
    )]
    Ranges,
    /// A longer way than [`MAX_DEPTH`].
    #[error(
        "the filter asks {0} questions one after the other, and the kernel allows {MAX_DEPTH}: use fewer \
         different masks and `vlan`, or make several sessions of it"
    )]
    Depth(usize),
    /// More ways than [`MAX_VISITS`] allows.
    #[error(
        "the filter's rules branch in more than {MAX_VISITS} ways: join hosts that want the same ports in one \
         parenthesis, or make several sessions of it"
    )]
    Visits,
    /// A frame may be asked more than so many questions, in however few chains.
    #[error(
        "the filter asks more than {} questions of one frame: use fewer different masks and `vlan`, or make several \
         sessions of it",
        diagram::MAX_QUESTIONS
    )]
    Questions,
    /// The sessions before it have used up what a node's table may have.
    #[error(
        "not copied: this node's nftables table has no room for the session; all sessions together may need {MAX_TABLE_RULES} \
         rules, and sessions have their turn in the order of their names; join sessions, shorten filters, or name fewer sources"
    )]
    Table,
    /// It was given up before its size was known.
    #[error(
        "the filter combines its conditions in too many ways (given up after {0} steps): join hosts that want \
         the same ports in one parenthesis, or make several sessions of it"
    )]
    Work(usize),
}

/// What was lowered already: `[defaults]` may give one filter to a thousand sessions.
#[derive(Debug, Default)]
pub struct Lowered<'a>(HashMap<(Option<&'a Filter>, VlanSet), Result<Chains, TooLarge>>);

/// Chains, as [`lower`] makes them.
type Chains = Rc<Vec<Vec<Branch>>>;

impl<'a> Lowered<'a> {
    /// As [`lower`], once for each choice of frames.
    ///
    /// # Errors
    /// As [`lower`].
    pub fn get(&mut self, filter: Option<&'a Filter>, vlans: &VlanSet) -> Result<Chains, TooLarge> {
        self.0
            .entry((filter, vlans.clone()))
            .or_insert_with(|| lower(filter, vlans).map(Rc::new))
            .clone()
    }
}

/// The chains that decide which frames are taken; the first is the entry. Falling off the end of any of them means
/// that the frame is not taken.
///
/// A frame is taken when `filter` holds, with tcpdump's meaning, and its outer tag (TPID 0x8100 or 0x88a8, IEEE 802.1Q
/// and 802.1ad) is one of `vlans`; none of them stands for all, 0 for frames without a tag or with VID 0.
///
/// The meaning is that of the program that libpcap makes before it optimizes it (`tcpdump -O`): what is read is read in the
/// order of the text and only while it matters, and reading beyond the end of the frame rejects it, `not` or no `not`.
/// For frames with whole headers the optimized program says the same, where the optimizer has no fault.
///
/// # Errors
///
/// When the chains would be beyond [`MAX_RULES`], [`MAX_RANGES`], [`MAX_DEPTH`] or [`MAX_VISITS`]. Hostile filters are
/// given up in time.
pub fn lower(filter: Option<&Filter>, vlans: &VlanSet) -> Result<Vec<Vec<Branch>>, TooLarge> {
    let mut diagram = diagram::Diagram::default();
    let decision = match filter {
        Some(filter) => reads::expression(&mut diagram, filter.expr())?,
        None => diagram::TRUE,
    };
    let selection = if vlans.is_empty() {
        diagram::TRUE
    } else {
        reads::outer_tag(&mut diagram, vlans)?
    };
    let decision = diagram.and(selection, decision)?;
    let decision = diagram.settle(decision)?;
    rules::chains(&diagram, decision)
}
