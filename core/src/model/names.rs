//! Names that come from outside, each checked once: interfaces, sessions, nodes. And how hostile ones are
//! printed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// A word that is not what it should be; the text says what it should have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// The name of a network interface, port or bridge: no blank, `/`, `:` or control character, as in
/// Linux's `dev_valid_name`. A device's has at most 15 bytes; an Open vSwitch patch port's may have more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct IfName(String);

impl IfName {
    /// Is it short enough for a network device (`IFNAMSIZ`)?
    pub fn can_be_device(&self) -> bool {
        self.0.len() <= 15
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IfName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let reason = if text.is_empty() {
            "is empty"
        } else if text.len() > 255 {
            "is longer than 255 bytes"
        } else if text == "." || text == ".." {
            "is reserved"
        } else if text
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | ','))
        {
            "has a blank, `/`, `:`, `,` or control character"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(Invalid(format!(
            "`{}` is not an interface name: it {reason}",
            excerpt(text)
        )))
    }
}

/// For people; [`IfName::as_str`] is for the kernel and Open vSwitch.
impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&printable(&self.0))
    }
}

impl<'de> Deserialize<'de> for IfName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl std::borrow::Borrow<str> for IfName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Does it do something to a terminal? Control characters, those of Latin-1 too, and those that turn text round.
pub fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text fit for a terminal: control characters are written as escapes.
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if is_control(c) {
                c.escape_default().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect()
}

/// A word as a message repeats it: fit for a terminal, and no longer than anybody reads.
pub fn excerpt(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => printable(text.get(..end).unwrap_or_default()) + "…",
        None => printable(text),
    }
}

/// The name of a session: `[a-z0-9-]`, 1 to 32 of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SessionName(String);

impl SessionName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name found in a mark, whatever it is: what carries our mark is ours.
    pub fn from_mark(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl FromStr for SessionName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fits = (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid(format!(
                "`{}` is not a session name: 1 to 32 of a-z, 0-9 and `-`",
                excerpt(text)
            )))
        }
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&printable(&self.0))
    }
}

impl std::borrow::Borrow<str> for SessionName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The name of a cluster node: a host name label (RFC 1123 §2.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct NodeName(String);

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fits = (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid(format!("`{}` is not a node name", excerpt(text))))
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_escaped() {
        assert_eq!(excerpt(&"ü".repeat(60)), "ü".repeat(60));
        assert_eq!(excerpt(&"ü".repeat(61)), "ü".repeat(60) + "…");
        assert_eq!(printable("a\u{1b}[31mb\u{202e}"), "a\\u{1b}[31mb\\u{202e}");
        let turning: IfName = "vmbr1\u{202e}".parse().unwrap();
        assert_eq!(turning.to_string(), "vmbr1\\u{202e}");
        assert_eq!(turning.as_str(), "vmbr1\u{202e}");
        assert!("a b".parse::<IfName>().is_err());
        assert!("x".repeat(256).parse::<IfName>().is_err());
        assert!("../../etc".parse::<NodeName>().is_err());
    }

    #[test]
    fn a_message_does_not_repeat_a_whole_file() {
        let long = "/".repeat(1 << 20);
        let messages = [
            long.parse::<IfName>().unwrap_err(),
            long.parse::<SessionName>().unwrap_err(),
            long.parse::<NodeName>().unwrap_err(),
            long.parse::<crate::model::Vmid>().unwrap_err(),
            long.parse::<crate::config::selector::Selector>()
                .unwrap_err(),
            long.parse::<crate::config::selector::Output>().unwrap_err(),
        ];
        for message in messages {
            assert!(message.0.len() < 300, "{message}");
        }
    }
}
