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

/// What the selection of VLANs says of a frame, in the words of IEEE 802.1Q rather than of a diagram.
fn is_selected(frame: &[u8], vlans: &[u16]) -> bool {
    match frame[12..14] {
        [0x81, 0x00] | [0x88, 0xa8] => frame
            .get(14..16)
            .is_some_and(|tag| vlans.contains(&(u16::from_be_bytes([tag[0], tag[1]]) & 0xfff))),
        _ => vlans.contains(&0),
    }
}

#[test]
fn a_selection_of_vlans_looks_at_the_outer_tag_and_counts_no_tag_as_0() {
    let selections: [&[u16]; 6] = [
        &[0],
        &[10],
        &[0, 10],
        &[10, 20, 21],
        &[4095],
        &[0, 20, 30, 4095],
    ];
    let filters = [
        None,
        Some("tcp"),
        Some("vlan and tcp"),
        Some("not port 22"),
        Some("vlan 10 or host 10.0.0.1"),
        Some("vlan and vlan 20"),
    ];
    let frames = frames(0, 3000);
    let file = pcap(&frames);
    for expression in filters {
        let kept = match expression {
            Some(expression) => keeps(&file, frames.len(), expression, Program::AsWritten),
            None => vec![true; frames.len()],
        };
        let filter = expression.map(|expression| filter::parse(expression).unwrap());
        for vlans in selections {
            let chains = lower(filter.as_ref(), &vlans.iter().copied().collect()).unwrap();
            for (frame, kept) in frames.iter().zip(&kept) {
                assert_eq!(
                    takes(&chains, frame),
                    *kept && is_selected(frame, vlans),
                    "{expression:?}, VLANs {vlans:?}: {frame:02x?}"
                );
            }
        }
    }
}
