//! Filters: what is understood survives being written down, its rules stay within their bounds, and take the frames
//! that the expression means.
//!
//! An input is an expression; behind a NUL, a byte that says how many VLANs are selected, these, and a frame.

use std::collections::BTreeMap;

use pve_span_core::engine::nft::Match;
use pve_span_core::engine::nft::frames::{
    Branch, MAX_DEPTH, MAX_RANGES, MAX_RULES, MAX_VISITS, To, TooLarge, lower,
};
use pve_span_core::filter;
use pve_span_core::filter::{Filter, MAX_LENGTH};
use pve_span_core::model::VlanSet;

use super::meaning;

// The rules without a kernel, as the tests of filters have them.
#[path = "../../tests/filters/interpreter.rs"]
mod interpreter;

/// Checks one input.
pub fn check(data: &[u8]) {
    let (text, rest) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[] as &[u8]),
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let read = match filter::parse(text) {
        Ok(read) => read,
        Err(error) => {
            super::assert_printable(&error.message);
            super::assert_printable(error.hint.as_deref().unwrap_or_default());
            assert!(error.message.len() < 1024, "{} bytes", error.message.len());
            let end = error.offset + error.width;
            assert!(error.width >= 1 && text.is_char_boundary(error.offset));
            assert!(text.is_char_boundary(end) || error.offset == text.trim_end().len());
            return;
        }
    };
    let normal = read.to_string();
    assert!(normal.len() <= MAX_LENGTH);
    assert_eq!(filter::parse(&normal).as_ref(), Ok(&read), "{normal}");

    let (vlans, frame) = selection(rest);
    // What `verify` goes by.
    assert_eq!(
        read.takes(&frame),
        meaning::takes(read.expr(), &frame),
        "{frame:02x?}"
    );
    rules(&read, &vlans, &frame);
}

/// Up to three VLANs, and a frame, which has an Ethernet header at least.
fn selection(rest: &[u8]) -> (VlanSet, Vec<u8>) {
    let (count, rest) = rest.split_first().unwrap_or((&0, &[]));
    let (vlans, frame) = rest.split_at(rest.len().min(usize::from(count % 4) * 2));
    let vlans = vlans
        .chunks_exact(2)
        .map(|id| u16::from_be_bytes([id[0], id[1]]) & 0xfff);
    let mut frame = frame.to_vec();
    frame.resize(frame.len().max(14), 0);
    (vlans.collect(), frame)
}

fn rules(read: &Filter, vlans: &VlanSet, frame: &[u8]) {
    let chains = match lower(Some(read), vlans) {
        Ok(chains) => chains,
        Err(error) => return is_meant(error),
    };
    assert!(chains.iter().map(Vec::len).sum::<usize>() <= MAX_RULES);
    let matches = chains.iter().flatten().flat_map(|branch| &branch.matches);
    let ranges = matches.map(|test| match test {
        Match::Bits { ranges, .. } => ranges.len(),
        Match::Sample(_) => panic!("a filter does not sample"),
    });
    assert!(ranges.sum::<usize>() <= MAX_RANGES);
    let (depth, visits) = ways(&chains, 0, &mut BTreeMap::new(), 0);
    assert!(
        depth <= MAX_DEPTH && visits <= MAX_VISITS,
        "{depth}, {visits}"
    );
    // A plan that differs from itself would be carried out again and again.
    assert_eq!(lower(Some(read), vlans).as_ref(), Ok(&chains));

    let meant = meaning::is_selected(frame, vlans) && meaning::takes(read.expr(), frame);
    assert_eq!(interpreter::takes(&chains, frame), meant, "{frame:02x?}");
}

/// Its text names the bound.
fn is_meant(error: TooLarge) {
    let text = error.to_string();
    assert!(text.contains("make several sessions of it"), "{text}");
}

/// How many chains the longest way visits, and all ways together; none of them comes back to where it was.
fn ways(
    chains: &[Vec<Branch>],
    from: usize,
    known: &mut BTreeMap<usize, (usize, usize)>,
    steps: usize,
) -> (usize, usize) {
    assert!(steps <= MAX_DEPTH, "more steps than allowed");
    if let Some(known) = known.get(&from) {
        return *known;
    }
    let (mut depth, mut visits) = (1, 1_usize);
    for branch in &chains[from] {
        if let To::Chain(to) = branch.to {
            let (deeper, more) = ways(chains, to, known, steps + 1);
            depth = depth.max(deeper + 1);
            visits = visits.saturating_add(more);
        }
    }
    known.insert(from, (depth, visits));
    (depth, visits)
}
