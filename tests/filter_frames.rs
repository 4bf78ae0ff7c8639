//! The rules that a filter becomes take the frames that tcpdump would have taken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod filters;

use filters::frames::{frames, is_whole};
use filters::interpreter::takes;
use filters::oracle::{Program, keeps, pcap};
use filters::{corpus, expressions};
use proptest::prelude::*;
use pve_span::core::filter;
use pve_span::core::model::VlanSet;
use pve_span::core::nft::frames::{Branch, TooLarge, lower};

fn chains(expression: &str) -> Result<Vec<Vec<Branch>>, TooLarge> {
    let filter =
        filter::parse(expression).unwrap_or_else(|error| panic!("`{expression}`: {error}"));
    lower(Some(&filter), &VlanSet::default())
}

/// The first frame that tcpdump and the rules do not agree about.
fn difference(expression: &str, chains: &[Vec<Branch>], seed: u64) -> Option<String> {
    let frames = frames(seed, 400);
    let file = pcap(&frames);
    let written = keeps(&file, frames.len(), expression, Program::AsWritten);
    let optimized = keeps(&file, frames.len(), expression, Program::Optimized);
    frames.iter().enumerate().find_map(|(number, frame)| {
        let ours = takes(chains, frame);
        let right = ours == written[number] && (ours == optimized[number] || !is_whole(frame));
        (!right).then(|| {
            let bytes: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
            format!(
                "`{expression}`: we say {ours}, tcpdump {}, its optimized program {}: {bytes}\n{chains:#?}",
                written[number], optimized[number]
            )
        })
    })
}

#[test]
fn the_rules_of_the_corpus_take_what_tcpdump_takes() {
    for (number, expression) in corpus().iter().enumerate() {
        let chains = chains(expression).unwrap_or_else(|error| panic!("`{expression}`: {error}"));
        let found = difference(expression, &chains, number as u64);
        assert!(found.is_none(), "{}", found.unwrap_or_default());
    }
}

proptest! {
    #[test]
    fn the_rules_of_any_expression_take_what_tcpdump_takes(
        expression in expressions::expression(),
        seed in any::<u64>(),
    ) {
        if let Ok(chains) = chains(&expression) {
            let found = difference(&expression, &chains, seed);
            prop_assert!(found.is_none(), "{}", found.unwrap_or_default());
        }
    }
}
