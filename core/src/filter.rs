//! Filter expressions: the text of `filter = …` in span.cfg → a syntax tree.
//!
//! This exists so that an administrator can say which frames a sensor wants in the words of
//! tcpdump, with tcpdump's meaning (pcap-filter(7)). The language is the useful subset:
//!
//! ```text
//! [ip|ip6|arp] [src|dst|src or dst|src and dst] host|net ADDRESS
//! [tcp|udp|sctp] [src|dst|src or dst|src and dst] port|portrange NUMBER
//! ip ip6 arp tcp udp sctp icmp icmp6
//! ether [src|dst|…] host MAC        ether proto NUMBER|\name        vlan [ID]
//! broadcast   multicast   ip multicast   ip6 multicast              (the first two also with ether)
//! and &&   or ||   not !   ( )
//! ```
//!
//! Three traits of tcpdump that surprise:
//! - `not` binds tightest; `and` and `or` are **equal** and go from left to right, so `a or b and c` is
//!   `(a or b) and c`.
//! - An operand without qualifiers takes those of the one before it: `tcp port 80 or 443`.
//!   A protocol, `vlan` or `broadcast` ends that; a closing parenthesis brings back what held before
//!   it was opened.
//! - `vlan` changes where everything to its *right* in the text looks, see [`Test::tags`]: `vlan 10 or
//!   vlan 20` asks for tag 20 *inside* another tag.
//!
//! Names of hosts, networks and services are not looked up: a rule must not depend on who answers.
//!
//! Lowering the tree to an engine's rules is not done here, and nothing is read but the text, and a frame that is
//! handed in.

use core::fmt;

mod display;
mod error;
mod lexer;
mod matcher;
mod operand;
mod parser;
#[cfg(test)]
mod tests;
mod tree;

pub use error::FilterError;
pub use tree::{
    EtherAddr, Expr, Ipv4Net, Ipv4Scope, Ipv6Net, MAX_DEPTH, MAX_PRIMITIVES, MAX_TAGS, PortRange,
    Primitive, Protocol, Side, Test, Transport, VlanTag,
};

/// The longest text that is read, in bytes. No normal form of a parsed filter is longer.
pub const MAX_LENGTH: usize = 64 * 1024;

/// A filter that has been read.
///
/// Displayed (and serialized) in a normal form: abbreviations spelled out, parentheses wherever `and`
/// and `or` meet. The normal form parses back to an equal filter, and means the same to tcpdump.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    expr: Expr,
}

impl Filter {
    /// The syntax tree.
    pub fn expr(&self) -> &Expr {
        &self.expr
    }

    /// Does it take the frame (from the destination MAC address on, tags in place), with tcpdump's meaning?
    pub fn takes(&self, frame: &[u8]) -> bool {
        matcher::takes(&self.expr, frame)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.expr)
    }
}

impl serde::Serialize for Filter {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads a filter expression.
///
/// # Errors
///
/// The first fault in the text. Hostile text costs time linear in its length and a bounded stack:
/// see [`MAX_LENGTH`], [`MAX_DEPTH`], [`MAX_PRIMITIVES`] and [`MAX_TAGS`].
pub fn parse(text: &str) -> Result<Filter, FilterError> {
    if text.len() > MAX_LENGTH {
        let offset = (0..=MAX_LENGTH)
            .rev()
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(0);
        return Err(FilterError {
            offset,
            width: text.len() - offset,
            message: format!("the filter expression is longer than {MAX_LENGTH} bytes"),
            hint: None,
        });
    }
    parser::parse(text).map(|expr| Filter { expr })
}
