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
mod limits;
mod reads;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::rc::Rc;

use crate::filter::Filter;
use crate::model::VlanSet;

pub use limits::{MAX_DEPTH, MAX_RANGES, MAX_RULES, MAX_TABLE_RULES, MAX_VISITS, TooLarge};
pub use rules::{Branch, To};

/// What was lowered already: `[defaults]` may give one filter to a thousand sessions.
#[derive(Debug, Default)]
pub struct LoweredFilters<'a>(HashMap<(Option<&'a Filter>, VlanSet), Result<Chains, TooLarge>>);

/// Chains, as [`lower`] makes them.
type Chains = Rc<Vec<Vec<Branch>>>;

impl<'a> LoweredFilters<'a> {
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
