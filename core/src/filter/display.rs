//! The normal form of a filter as text.
//!
//! This exists so that a plan can show what was understood, in words that tcpdump understands too.
//! Whatever is printed here parses back to the same tree.

use core::fmt;

use super::tree::{
    EtherAddr, Expr, Ipv4Net, Ipv4Scope, Ipv6Net, PortRange, Primitive, Protocol, Side, Transport,
};

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(members) => list(f, members, " and "),
            Self::Any(members) => list(f, members, " or "),
            Self::Not(inner) => {
                f.write_str("not ")?;
                member(f, inner)
            }
            Self::Test(test) => write!(f, "{}", test.primitive),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, members: &[Expr], operator: &str) -> fmt::Result {
    for (index, expr) in members.iter().enumerate() {
        if index > 0 {
            f.write_str(operator)?;
        }
        member(f, expr)?;
    }
    Ok(())
}

/// An expression as a part of another: `and` and `or` are equal, so a list stands in parentheses.
fn member(f: &mut fmt::Formatter<'_>, expr: &Expr) -> fmt::Result {
    match expr {
        Expr::All(_) | Expr::Any(_) => write!(f, "({expr})"),
        Expr::Not(_) | Expr::Test(_) => write!(f, "{expr}"),
    }
}

impl fmt::Display for Primitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(protocol) => write!(f, "{protocol}"),
            Self::Ipv4 { scope, side, net } => {
                write!(f, "{}{}{net}", scope.prefix(), side.prefix())
            }
            Self::Ipv6 { side, net } => write!(f, "{}{net}", side.prefix()),
            Self::Port {
                transport,
                side,
                ports,
            } => {
                if let Some(transport) = transport {
                    write!(f, "{transport} ")?;
                }
                write!(f, "{}{ports}", side.prefix())
            }
            Self::EtherHost { side, address } => write!(f, "ether {}host {address}", side.prefix()),
            Self::EtherType(number) => write!(f, "ether proto 0x{number:04x}"),
            Self::Vlan(None) => f.write_str("vlan"),
            Self::Vlan(Some(tag)) => write!(f, "vlan {}", tag.get()),
            Self::Broadcast => f.write_str("broadcast"),
            Self::Multicast => f.write_str("multicast"),
            Self::IpMulticast => f.write_str("ip multicast"),
            Self::Ip6Multicast => f.write_str("ip6 multicast"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Arp => "arp",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Icmp => "icmp",
            Self::Icmp6 => "icmp6",
        })
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl Ipv4Scope {
    /// The words in front of others, with a space behind them; or nothing at all.
    fn prefix(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Ip => "ip ",
            Self::Arp => "arp ",
        }
    }
}

impl Side {
    /// The words in front of others, with a space behind them; or nothing at all.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Either => "",
            Self::Source => "src ",
            Self::Destination => "dst ",
            Self::Both => "src and dst ",
        }
    }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix_length() {
            Some(32) => write!(f, "host {}", self.address()),
            Some(length) => write!(f, "net {}/{length}", self.address()),
            None => write!(f, "net {} mask {}", self.address(), self.mask()),
        }
    }
}

impl fmt::Display for Ipv6Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix_length() {
            128 => write!(f, "host {}", self.address()),
            length => write!(f, "net {}/{length}", self.address()),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first() == self.last() {
            write!(f, "port {}", self.first())
        } else {
            write!(f, "portrange {}-{}", self.first(), self.last())
        }
    }
}

impl fmt::Display for EtherAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
