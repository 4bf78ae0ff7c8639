//! What an operand is taken for.
//!
//! This exists because in tcpdump's language qualifiers outlive their operand: `tcp port 80 or 443`.

use super::super::operand::{Network, OperandError};
use super::super::tree::{Ipv4Scope, Primitive, Side, Transport};

/// Qualifiers: what an operand is taken for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Qualifier {
    Address {
        family: Family,
        side: Side,
        word: AddressWord,
    },
    Port {
        transport: Option<Transport>,
        side: Side,
        range: Range,
    },
    EtherHost {
        side: Side,
    },
    EtherType,
}

/// To which family an address is bound by its qualifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    Ip,
    Ip6,
    Arp,
}

/// The word in front of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressWord {
    Host,
    Net,
    /// None, as in `src 10.0.0.1`; it means `host`.
    Missing,
}

/// The word in front of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    Port,
    PortRange,
}

/// What an operand without qualifiers of its own is taken for.
#[derive(Clone, Copy, Debug)]
pub(super) enum InheritedQualifier {
    /// Nothing stands to the left: an address is a host.
    Start,
    /// What stands to the left takes no operand.
    Nothing,
    /// As [`Carry::Nothing`], behind a `vlan`.
    Vlan,
    /// The qualifiers to the left still hold.
    Earlier(Qualifier),
    /// The qualifiers were just given: only operands can follow.
    Given(Qualifier),
}

impl Qualifier {
    /// What operand the qualifiers want, and their last words.
    pub(super) fn wanted(self) -> (&'static str, &'static str) {
        match self {
            Qualifier::Address { side, word, .. } => match (word, side) {
                (AddressWord::Host, _) => ("an IP address", "host"),
                (AddressWord::Net, _) => ("a network", "net"),
                (AddressWord::Missing, Side::Source) => {
                    ("`host`, `net`, `port` or an address", "src")
                }
                (AddressWord::Missing, Side::Both) => {
                    ("`host`, `net`, `port` or an address", "src and dst")
                }
                (AddressWord::Missing, Side::Either) => {
                    ("`host`, `net`, `port` or an address", "src or dst")
                }
                (AddressWord::Missing, Side::Destination) => {
                    ("`host`, `net`, `port` or an address", "dst")
                }
            },
            Qualifier::Port { range, .. } => match range {
                Range::Port => ("a port number", "port"),
                Range::PortRange => ("a range such as `1-1023`", "portrange"),
            },
            Qualifier::EtherHost { .. } => ("a MAC address", "ether host"),
            Qualifier::EtherType => ("a number", "ether proto"),
        }
    }
}

/// The network as a primitive, if the qualifiers allow its family.
pub(super) fn of_family(
    network: Network,
    family: Family,
    side: Side,
) -> Result<Primitive, OperandError> {
    match (network, family) {
        (Network::V4(net), Family::Any) => Ok((Ipv4Scope::Any, net)),
        (Network::V4(net), Family::Ip) => Ok((Ipv4Scope::Ip, net)),
        (Network::V4(net), Family::Arp) => Ok((Ipv4Scope::Arp, net)),
        (Network::V4(_), Family::Ip6) => {
            Err(OperandError::new("`ip6` does not go with an IPv4 address")
                .hint("leave it out, or write `ip`"))
        }
        (Network::V6(net), Family::Any | Family::Ip6) => {
            return Ok(Primitive::Ipv6 { side, net });
        }
        (Network::V6(_), Family::Ip) => {
            Err(OperandError::new("`ip` does not go with an IPv6 address")
                .hint("leave it out, or write `ip6`"))
        }
        (Network::V6(_), Family::Arp) => {
            Err(OperandError::new("`arp` does not go with an IPv6 address")
                .hint("IPv6 has no ARP: neighbour discovery is `icmp6`"))
        }
    }
    .map(|(scope, net)| Primitive::Ipv4 { scope, side, net })
}
