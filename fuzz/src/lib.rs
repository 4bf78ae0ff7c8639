//! What has to hold of any input: a module for each target, its `check` fails when something does not.
//!
//! The targets feed it what libFuzzer makes up, and `tests/fuzz_corpus.rs`, which takes this file in by its path,
//! what is in `corpus/`. So whatever was found once is looked at by every `cargo test`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod cluster_files;
pub mod filter;
pub mod frames;
pub mod guest_config;
pub mod meaning;
pub mod mirrors_conf;
pub mod netlink;
pub mod node;
pub mod ovsdb;
pub mod span_cfg;

/// A text for a terminal: with tabs and line feeds at most, and nothing that turns the direction of writing.
#[track_caller]
pub fn assert_printable(text: &str) {
    let hostile = |c: char| {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        turns || (c.is_control() && !matches!(c, '\t' | '\n'))
    };
    assert!(!text.contains(hostile), "not for a terminal: {text:?}");
}
