//! Cuts a filter expression into tokens.
//!
//! This exists so that the parser can point at words instead of bytes. It never fails: what it does
//! not know becomes [`Kind::Unknown`], and the parser says what was expected instead. It does not
//! look at what a word means beyond telling tcpdump's own words from operands.

use super::tree::Protocol;

/// A word of the language that is not an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Src,
    Dst,
    Host,
    Net,
    Mask,
    Port,
    PortRange,
    Proto,
    Ether,
    Vlan,
    Broadcast,
    Multicast,
    Protocol(Protocol),
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Open,
    Close,
    And,
    Or,
    Not,
    Slash,
    Key(Key),
    /// An operand, or a word that means nothing.
    Text,
    /// `\name`, tcpdump's way to write a protocol's name as an operand.
    Escaped,
    /// A character with no place in the language.
    Unknown,
    /// The end of the expression; always the last token, and the only one without text.
    End,
}

/// A token and where it stands, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

/// Every word that [`keyword`] knows, for "did you mean".
pub(super) const WORDS: [&str; 24] = [
    "and",
    "or",
    "not",
    "host",
    "net",
    "port",
    "portrange",
    "src",
    "dst",
    "tcp",
    "udp",
    "sctp",
    "icmp",
    "icmp6",
    "ip",
    "ip6",
    "arp",
    "ether",
    "vlan",
    "broadcast",
    "multicast",
    "proto",
    "mask",
    "link",
];

/// The meaning of a word, if it is one of the language's.
pub(super) fn keyword(word: &str) -> Option<Kind> {
    let key = match word {
        "and" => return Some(Kind::And),
        "or" => return Some(Kind::Or),
        "not" => return Some(Kind::Not),
        "src" => Key::Src,
        "dst" => Key::Dst,
        "host" => Key::Host,
        "net" => Key::Net,
        "mask" => Key::Mask,
        "port" => Key::Port,
        "portrange" => Key::PortRange,
        "proto" => Key::Proto,
        "ether" | "link" => Key::Ether,
        "vlan" => Key::Vlan,
        "broadcast" => Key::Broadcast,
        "multicast" => Key::Multicast,
        "ip" => Key::Protocol(Protocol::Ip),
        "ip6" => Key::Protocol(Protocol::Ip6),
        "arp" => Key::Protocol(Protocol::Arp),
        "tcp" => Key::Protocol(Protocol::Tcp),
        "udp" => Key::Protocol(Protocol::Udp),
        "sctp" => Key::Protocol(Protocol::Sctp),
        "icmp" => Key::Protocol(Protocol::Icmp),
        "icmp6" => Key::Protocol(Protocol::Icmp6),
        _ => return None,
    };
    Some(Kind::Key(key))
}

/// Cuts `text` into tokens; the last one is [`Kind::End`], just behind the last visible character.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..) {
        let Some(first) = rest.chars().next() else {
            break;
        };
        if matches!(first, ' ' | '\t' | '\r' | '\n') {
            at += 1;
            continue;
        }
        let (kind, length) = token(rest, first);
        tokens.push(Token {
            kind,
            start: at,
            end: at + length,
        });
        at += length;
    }
    let end = tokens.last().map_or(0, |token| token.end);
    tokens.push(Token {
        kind: Kind::End,
        start: end,
        end,
    });
    tokens
}

/// The token at the start of `rest`, which begins with `first`, and its length in bytes.
fn token(rest: &str, first: char) -> (Kind, usize) {
    match first {
        '(' => (Kind::Open, 1),
        ')' => (Kind::Close, 1),
        '/' => (Kind::Slash, 1),
        '&' if rest.starts_with("&&") => (Kind::And, 2),
        '|' if rest.starts_with("||") => (Kind::Or, 2),
        '!' if rest.starts_with("!=") => (Kind::Unknown, 2),
        '!' => (Kind::Not, 1),
        '\\' => (Kind::Escaped, 1 + word_length(rest.get(1..).unwrap_or(""))),
        _ => match word_length(rest) {
            0 => (Kind::Unknown, first.len_utf8()),
            length => {
                let word = rest.get(..length).unwrap_or(rest);
                (keyword(word).unwrap_or(Kind::Text), length)
            }
        },
    }
}

/// How many bytes at the start of `rest` can stand in a word, a number or an address.
fn word_length(rest: &str) -> usize {
    rest.bytes()
        .take_while(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(byte))
        .count()
}
