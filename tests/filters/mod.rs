//! What the tests of filters share: frames, expressions, tcpdump as the oracle, and rules without a kernel.
//!
//! Frames and expressions take their values from the same few, or hardly any would ever match.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod expressions;
pub mod frames;
pub mod interpreter;
pub mod oracle;

/// Hand-picked expressions.
pub fn corpus() -> Vec<String> {
    let lines = include_str!("corpus.txt").lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(expand)
        .collect()
}

/// Writes out lists: `{host 10.0.0.N or:1-9}` is `host 10.0.0.1 or host 10.0.0.2 …`.
fn expand(line: &str) -> String {
    let Some((before, rest)) = line.split_once('{') else {
        return line.to_owned();
    };
    let (list, after) = rest.split_once('}').expect("a closing brace");
    let (pattern, range) = list.rsplit_once(':').expect("a range behind a colon");
    let (low, high) = range.split_once('-').expect("a range");
    let (pattern, word) = pattern.rsplit_once(' ').expect("a word between");
    let (low, high): (u32, u32) = (low.parse().unwrap(), high.parse().unwrap());
    let items: Vec<_> = (low..=high)
        .map(|number| pattern.replace('N', &number.to_string()))
        .collect();
    format!(
        "{before}{}{}",
        items.join(&format!(" {word} ")),
        expand(after)
    )
}
