//! What the kernel would do with the rules, without it.

use pve_span_core::engine::nft::frames::{Branch, To};
use pve_span_core::engine::nft::{Match, Test};

/// Whether the chains take the frame.
pub fn takes(chains: &[Vec<Branch>], frame: &[u8]) -> bool {
    let mut at = 0;
    let mut steps = 0;
    'chain: loop {
        steps += 1;
        assert!(steps <= 16, "more chains than the kernel follows");
        for branch in &chains[at] {
            if branch.matches.iter().all(|test| holds(test, frame)) {
                match branch.to {
                    To::Taken => return true,
                    To::Chain(next) => {
                        at = next;
                        continue 'chain;
                    }
                }
            }
        }
        return false;
    }
}

fn holds(test: &Match, frame: &[u8]) -> bool {
    let Match::Bits {
        field,
        test,
        ranges,
    } = test
    else {
        panic!("a filter does not sample");
    };
    assert!(!ranges.is_empty() && ranges.windows(2).all(|two| two[0].1 < two[1].0));
    let end = field.offset + field.length;
    let Some(bytes) = frame.get((field.offset / 8) as usize..end.div_ceil(8) as usize) else {
        return false;
    };
    let mut value = bytes
        .iter()
        .fold(0_u128, |value, byte| value << 8 | u128::from(*byte));
    value >>= (8 - end % 8) % 8;
    if field.length < 128 {
        value &= (1 << field.length) - 1;
    }
    value &= field.mask.unwrap_or(u128::MAX);
    let inside = ranges
        .iter()
        .any(|(low, high)| (*low..=*high).contains(&value));
    inside == (*test == Test::In)
}
