//! Names for sessions that are made out of other people's names: valid, and not taken yet.

use std::collections::BTreeSet;

use super::SessionName;

/// The longest name of a session, in bytes.
const LONGEST: usize = 32;

/// A session's name that is as near to `wanted` as can be, and from now on taken.
pub fn fresh(wanted: &str, taken: &mut BTreeSet<String>) -> String {
    let name = tidy(wanted);
    let mut candidate = name.clone();
    let mut number = 2_u32;
    // `[defaults]` is not a session.
    while candidate == "defaults" || taken.contains(&candidate) {
        let suffix = format!("-{number}");
        let room = LONGEST - suffix.len();
        let head = name.get(..room.min(name.len())).unwrap_or("session");
        candidate = format!("{}{suffix}", head.trim_end_matches('-'));
        number += 1;
    }
    taken.insert(candidate.clone());
    candidate
}

/// Would [`fresh`] give a name without a number behind it?
pub fn is_free(wanted: &str, taken: &BTreeSet<String>) -> bool {
    !taken.contains(&tidy(wanted))
}

/// Lower case, everything that may not stand in a name made a `-`, and cut off.
fn tidy(wanted: &str) -> String {
    let mut name = String::new();
    for c in wanted.chars().map(|c| c.to_ascii_lowercase()) {
        if name.len() == LONGEST {
            break;
        }
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            name.push(c);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_end_matches('-');
    if name.parse::<SessionName>().is_ok() {
        name.to_owned()
    } else {
        "session".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(wanted: &[&str]) -> Vec<String> {
        let mut taken = BTreeSet::new();
        wanted.iter().map(|name| fresh(name, &mut taken)).collect()
    }

    #[test]
    fn any_name_becomes_a_valid_one() {
        assert_eq!(
            all(&[
                "Span_To.IDS",
                "--x--",
                "prod/dmz",
                "ü\n[x]",
                "",
                "鏡像",
                "defaults"
            ]),
            [
                "span-to-ids",
                "x",
                "prod-dmz",
                "x-2",
                "session",
                "session-2",
                "defaults-2"
            ]
        );
    }

    #[test]
    fn names_stay_short_and_differ() {
        let long = "a".repeat(40);
        let names = all(&[&long, &long, &format!("{}-x", "a".repeat(29)), &long]);
        assert_eq!(names[0], "a".repeat(32));
        assert_eq!(names[1], format!("{}-2", "a".repeat(30)));
        for name in &names {
            assert!(name.parse::<SessionName>().is_ok(), "{name}");
        }
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }
}
