//! The rules that a filter becomes take the frames that tcpdump would have taken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod filters;

use filters::frames::{frames, is_whole};
use filters::interpreter::takes;
use filters::oracle::{Program, keeps, pcap};
use filters::{corpus, expressions};
use proptest::prelude::*;
use pve_span_core::engine::nft::frames::{Branch, TooLarge, lower};
use pve_span_core::filter;
use pve_span_core::model::VlanSet;

fn chains(expression: &str) -> Result<Vec<Vec<Branch>>, TooLarge> {
    let filter =
        filter::parse(expression).unwrap_or_else(|error| panic!("`{expression}`: {error}"));
    lower(Some(&filter), &VlanSet::default())
}

/// The first frame that tcpdump and the rules do not agree about.
fn difference(
    expression: &str,
    chains: &[Vec<Branch>],
    frames: &[Vec<u8>],
    program: Program,
) -> Option<String> {
    let kept = keeps(&pcap(frames), frames.len(), expression, program);
    let (frame, kept) = frames
        .iter()
        .zip(kept)
        .find(|(frame, kept)| takes(chains, frame) != *kept)?;
    Some(format!(
        "`{expression}`: tcpdump says {kept} of {frame:02x?}\n{chains:#?}"
    ))
}

#[test]
fn the_rules_of_the_corpus_take_what_tcpdump_takes() {
    for (number, expression) in corpus().iter().enumerate() {
        let chains = chains(expression).unwrap_or_else(|error| panic!("`{expression}`: {error}"));
        let mut frames = frames(number as u64, 400);
        let found = difference(expression, &chains, &frames, Program::AsWritten);
        assert!(found.is_none(), "{}", found.unwrap_or_default());
        // With the optimizer, what is read first may differ, which whole frames do not show.
        frames.retain(|frame| is_whole(frame));
        let found = difference(expression, &chains, &frames, Program::Optimized);
        assert!(found.is_none(), "{}", found.unwrap_or_default());
    }
}

proptest! {
    // Not with the optimizer: that of libpcap 1.10.3 has faults. It says of `ip6 dst net ::/48 and ip6 dst net ::/48` that
    // it rejects all packets.
    #[test]
    fn the_rules_of_any_expression_take_what_tcpdump_takes(
        expression in expressions::expression(),
        seed in any::<u64>(),
    ) {
        if let Ok(chains) = chains(&expression) {
            let found = difference(&expression, &chains, &frames(seed, 400), Program::AsWritten);
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

/// `pattern` with the numbers from 1 on in place of its N's, with `or` between.
fn list(pattern: &str, count: usize) -> String {
    let items: Vec<_> = (1..=count)
        .map(|number| pattern.replace('N', &number.to_string()))
        .collect();
    items.join(" or ")
}

/// For a look at the worst cases: `cargo test --release --test filter_frames worst -- --ignored --nocapture`.
#[test]
#[ignore = "prints times, asserts nothing"]
#[allow(clippy::print_stdout)]
fn worst_cases() {
    let odd = |count: u32| {
        let nets: Vec<_> = (0..count)
            .map(|number| {
                let mask = 0x8000_0001_u32 | number.wrapping_mul(0x0123_4567) & 0x7fff_fffe;
                let mask = std::net::Ipv4Addr::from(mask);
                format!("net 0.0.0.1 mask {mask}")
            })
            .collect();
        nets.join(" or ")
    };
    let cases = [
        ("512 ports", list("port N", 512)),
        (
            "512 even ports",
            (1..=512)
                .map(|number| format!("port {}", 2 * number))
                .collect::<Vec<_>>()
                .join(" or "),
        ),
        ("512 hosts", list("net 10.N.0.0/16 or host 11.0.0.N", 255)),
        ("512 v6", list("host 2001:db8::N", 512)),
        ("pairs", list("(host 10.0.0.N and port N)", 255)),
        ("five", list("(host 10.0.0.N and port N)", 5)),
        (
            "and pairs",
            list("(host 10.0.0.N or port N)", 250).replace(" or (", " and ("),
        ),
        (
            "v6 pairs",
            list("(src host 2001:db8::N and dst host 2001:db8:1::N)", 250),
        ),
        (
            "v6 or pairs",
            list("(host 2001:db8::N and host 2001:db8:1::N)", 250),
        ),
        ("tagged", list("(vlan N and port N)", 8)),
        (
            "tagged lists",
            list("(vlan N and host 10.0.0.1 and port 80)", 8),
        ),
        ("8 odd", odd(8)),
        ("512 odd", odd(500)),
        (
            "parity",
            list("(src port N or dst port N and host 10.0.0.N)", 160),
        ),
        (
            "macs",
            list("(ether src bc:24:11:0:0:N and dst host 10.0.0.N)", 99),
        ),
    ];
    for (name, text) in cases {
        let begun = std::time::Instant::now();
        let outcome = match chains(&text) {
            Ok(chains) => format!("{} rules", chains.iter().flatten().count()),
            Err(error) => error.to_string(),
        };
        println!("{name}: {:?}: {outcome}", begun.elapsed());
    }
}
