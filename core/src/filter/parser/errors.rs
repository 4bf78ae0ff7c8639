//! What is said of a token that does not fit, and what might have been meant.
//!
//! This exists to keep the grammar readable: nothing here decides whether a text is accepted.

use super::super::error::FilterError;
use super::super::lexer::{Key, Kind, Token, WORDS, keyword};
use super::super::operand;
use super::super::operand::{OperandError, Shape, is_address, shown};
use super::super::tree::{MAX_DEPTH, Protocol, Side};
use super::cursor::{Parser, span};
use super::qualifier::InheritedQualifier;

/// pcap-filter(7): `vlan` moves what comes after it, so alternatives of VLANs do not work that way.
pub(super) const VLAN_HINT: &str =
    "each `vlan` looks one tag deeper; to choose VLANs use the session's key `vlan = 10, 20`";

/// Words that tcpdump knows and this language does not.
const FOREIGN: [&str; 27] = [
    "ah",
    "aarp",
    "atalk",
    "byte",
    "carp",
    "decnet",
    "esp",
    "gateway",
    "geneve",
    "greater",
    "ifindex",
    "igmp",
    "igrp",
    "inbound",
    "iso",
    "len",
    "length",
    "less",
    "llc",
    "mpls",
    "outbound",
    "pim",
    "pppoed",
    "pppoes",
    "protochain",
    "rarp",
    "vrrp",
];

pub(super) fn too_deep() -> OperandError {
    OperandError::new(format!("the filter nests more than {MAX_DEPTH} deep"))
}

pub(super) fn proto_without_ether() -> OperandError {
    OperandError::new("`proto` goes with `ether` only")
        .hint("write the name of the protocol: `tcp`, `udp`, `sctp`, `icmp` or `icmp6`")
}

impl Parser<'_> {
    fn found(&self, token: Token) -> String {
        match token.kind {
            Kind::End => "the expression ends".to_owned(),
            _ => format!("found {}", shown(self.word(token))),
        }
    }

    pub(super) fn expected(&self, what: &str, after: &str, token: Token) -> OperandError {
        OperandError::new(format!(
            "expected {what} after `{after}`, {}",
            self.found(token)
        ))
    }

    /// A token that cannot begin anything here.
    pub(super) fn unexpected(&self, token: Token, carry: InheritedQualifier) -> FilterError {
        let complaint = match carry {
            InheritedQualifier::Given(qualifier) => {
                let (what, after) = qualifier.wanted();
                let complaint = self.expected(what, after, token);
                match (token.kind, after) {
                    (Kind::Key(Key::Src | Key::Dst), "host" | "net" | "port" | "portrange") => {
                        let hint = format!("turn it round: `{} {after}`", self.word(token));
                        complaint.hint(hint)
                    }
                    (
                        Kind::Key(Key::Protocol(Protocol::Ip | Protocol::Ip6 | Protocol::Arp)),
                        "ether proto",
                    ) => complaint.hint(format!("write `{after} \\{}`", self.word(token))),
                    (Kind::Key(Key::Protocol(protocol)), "src" | "dst" | "src and dst") => {
                        complaint.hint(format!("turn it round: `{protocol} {after}`"))
                    }
                    _ => complaint,
                }
            }
            _ => OperandError::new(format!("expected a primitive, {}", self.found(token))),
        };
        let hint = complaint.hint.or_else(|| self.strange(token));
        self.fault(token, OperandError { hint, ..complaint })
    }

    /// A token where an operator or the end should be.
    pub(super) fn not_joined(&self, token: Token, operators: &str) -> FilterError {
        let word = self.word(token);
        let message = format!("expected {operators}, {}", self.found(token));
        let before = self.next.checked_sub(1).and_then(|at| self.tokens.get(at));
        let hint = match (before.map(|before| before.kind), token.kind) {
            (Some(Kind::Key(Key::Protocol(protocol))), Kind::Text) => {
                missing_word(protocol, word).or_else(|| closest(word))
            }
            (_, Kind::Text) => closest(word),
            _ => self.strange(token),
        };
        self.fault(token, OperandError { message, hint })
    }

    /// What is said of characters that have no place in the language.
    fn strange(&self, token: Token) -> Option<String> {
        if token.kind != Kind::Unknown {
            return None;
        }
        let hint = match self.word(token) {
            "&" => "write `and` or `&&`",
            "|" => "write `or` or `||`",
            "," | ";" => "write `or` between alternatives",
            "\"" | "'" => "the expression is written without quotes",
            "[" | "]" | "=" | "!=" | "<" | ">" => {
                "tests of single bytes such as `tcp[13] & 2 != 0` are not supported"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// Two words that do not go together, the first and the last of a head.
    pub(super) fn mismatch(&self, first: Token, last: Token) -> FilterError {
        let (one, other) = (self.word(first), self.word(last));
        let complaint = OperandError::new(format!("`{one}` does not go with `{other}`"));
        let complaint = match (first.kind, last.kind) {
            (Kind::Key(Key::Protocol(_)), Kind::Key(Key::Broadcast | Key::Multicast)) => {
                complaint.hint(format!("write `{one} and {other}`"))
            }
            (
                Kind::Key(Key::Protocol(Protocol::Icmp | Protocol::Icmp6 | Protocol::Arp)),
                Kind::Key(Key::Port | Key::PortRange),
            ) => complaint.hint(format!("{one} has no ports")),
            (Kind::Key(Key::Protocol(_)), _) => {
                let rest = self.text.get(first.end..last.end).unwrap_or(other);
                complaint.hint(format!("write `{one} and {} …`", rest.trim()))
            }
            (Kind::Key(Key::Ether), Kind::Key(Key::Net | Key::Port | Key::PortRange)) => {
                complaint.hint(format!("leave `{one}` out"))
            }
            _ => complaint,
        };
        self.fault(span(first, last), complaint)
    }

    /// `tcp dst 80`, which lacks `port`.
    pub(super) fn no_port_word(&self, protocol: Protocol, side: Side, word: Token) -> FilterError {
        let side = side.prefix();
        let after = format!("{protocol} {side}");
        let after = after.trim_end();
        if matches!(protocol, Protocol::Icmp | Protocol::Icmp6) {
            let complaint = OperandError::new(format!("`{protocol}` takes no `src` or `dst`"));
            return self.fault(
                word,
                complaint.hint(format!("write `{protocol} and {side}…`")),
            );
        }
        let complaint = self.expected("`port` or `portrange`", after, word);
        let text = self.word(word);
        let hint = match (word.kind, operand::shape(text)) {
            (Kind::Text, Shape::Number) => Some(format!("did you mean `{after} port {text}`?")),
            (Kind::Text, Shape::Dotted | Shape::V6) => {
                Some(format!("did you mean `{protocol} and {side}host {text}`?"))
            }
            (Kind::Text, _) => closest(text),
            _ => None,
        };
        self.fault(word, OperandError { hint, ..complaint })
    }

    /// A word that would need qualifiers, or that means nothing.
    pub(super) fn unqualified(&self, token: Token, carry: InheritedQualifier) -> OperandError {
        let word = self.word(token);
        let lacks = OperandError::new(format!("nothing says what {} is", shown(word)));
        match operand::shape(word) {
            Shape::Number if matches!(carry, InheritedQualifier::Vlan) => lacks.hint(VLAN_HINT),
            Shape::Number => lacks.hint(format!("did you mean `port {word}`?")),
            Shape::Mac(mac) => lacks.hint(format!("did you mean `ether host {mac}`?")),
            Shape::Dotted | Shape::V6 if is_address(word) && self.peek().kind != Kind::Slash => {
                lacks.hint(format!("did you mean `host {word}`?"))
            }
            Shape::Dotted | Shape::V6 => lacks.hint("a network is `net` and its address"),
            Shape::Name if FOREIGN.contains(&word) => {
                OperandError::new(format!("tcpdump's `{word}` is not supported"))
            }
            Shape::Name => OperandError {
                hint: closest(word),
                ..OperandError::new(format!("unknown word {}", shown(word)))
            },
        }
    }
}

/// `tcp 80` or `arp 10.0.0.1`: a protocol and an operand, but not what the operand is.
fn missing_word(protocol: Protocol, word: &str) -> Option<String> {
    let ports = matches!(protocol, Protocol::Tcp | Protocol::Udp | Protocol::Sctp);
    let addresses = matches!(protocol, Protocol::Ip | Protocol::Ip6 | Protocol::Arp);
    match operand::shape(word) {
        Shape::Number if ports => Some(format!("did you mean `{protocol} port {word}`?")),
        Shape::Dotted | Shape::V6 if addresses => {
            Some(format!("did you mean `{protocol} host {word}`?"))
        }
        Shape::Dotted | Shape::V6 => Some(format!("did you mean `{protocol} and host {word}`?")),
        _ => None,
    }
}

/// A word of the language that resembles this one.
pub(super) fn closest(word: &str) -> Option<String> {
    if !(2..=12).contains(&word.len()) {
        return None;
    }
    let lower = word.to_ascii_lowercase();
    if lower != word && keyword(&lower).is_some() {
        return Some(format!("tcpdump's words are in lower case: `{lower}`"));
    }
    let allowed = if word.len() > 3 { 2 } else { 1 };
    WORDS
        .iter()
        .map(|known| (strsim::osa_distance(&lower, known), *known))
        .filter(|(distance, known)| *distance <= allowed && *distance < known.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| format!("did you mean `{known}`?"))
}
