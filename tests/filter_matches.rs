//! What the tree of a filter says of a frame is what tcpdump says: `verify` judges by it which frames a sensor should get.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod filters;

use filters::frames::{frames, is_whole};
use filters::oracle::{Program, keeps, pcap};
use filters::{corpus, expressions};
use proptest::prelude::*;
use pve_span_core::filter;

/// The first frame that tcpdump and the tree do not agree about.
fn difference(expression: &str, frames: &[Vec<u8>], program: Program) -> Option<String> {
    let filter =
        filter::parse(expression).unwrap_or_else(|error| panic!("`{expression}`: {error}"));
    let kept = keeps(&pcap(frames), frames.len(), expression, program);
    let (frame, kept) = frames
        .iter()
        .zip(kept)
        .find(|(frame, kept)| filter.takes(frame) != *kept)?;
    Some(format!(
        "`{expression}`: tcpdump says {kept} of {frame:02x?}"
    ))
}

#[test]
fn the_corpus_takes_what_tcpdump_takes() {
    for (number, expression) in corpus().iter().enumerate() {
        let mut frames = frames(number as u64, 400);
        assert_eq!(
            difference(expression, &frames, Program::AsWritten),
            None,
            "as written"
        );
        frames.retain(|frame| is_whole(frame));
        assert_eq!(
            difference(expression, &frames, Program::Optimized),
            None,
            "optimized"
        );
    }
}

proptest! {
    #[test]
    fn any_expression_takes_what_tcpdump_takes(
        expression in expressions::expression(),
        seed in any::<u64>(),
    ) {
        let found = difference(&expression, &frames(seed, 400), Program::AsWritten);
        prop_assert!(found.is_none(), "{}", found.unwrap_or_default());
    }
}

#[test]
fn what_is_not_even_a_header_is_not_taken() {
    for expression in [
        "tcp",
        "not tcp",
        "ether host 1:2:3:4:5:6",
        "vlan 3",
        "multicast",
    ] {
        let filter = filter::parse(expression).unwrap();
        for length in 0..14 {
            assert!(length > 0 && expression == "multicast" || !filter.takes(&vec![1; length]));
        }
    }
}
