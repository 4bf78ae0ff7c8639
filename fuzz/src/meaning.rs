//! What a filter means, said a second time and as plainly as possible: pcap-filter(7), read field by field in the order
//! in which libpcap's programs do it. Whoever reads beyond the end of the frame rejects it.

use pve_span_core::filter::{
    Expr, Ipv4Net, Ipv4Scope, Ipv6Net, Primitive, Protocol, Side, Test, Transport,
};
use pve_span_core::model::VlanSet;

/// The frame ends before what is read.
struct Short;

type Answer = Result<bool, Short>;

const IPV4: u64 = 0x0800;
const ARP: u64 = 0x0806;
const RARP: u64 = 0x8035;
const IPV6: u64 = 0x86dd;

/// Is the frame what the expression asks for?
pub fn takes(expr: &Expr, frame: &[u8]) -> bool {
    holds(expr, frame).unwrap_or(false)
}

/// Is its outer tag one of these VLANs, no tag being 0, and all of them if there are none?
pub fn is_selected(frame: &[u8], vlans: &VlanSet) -> bool {
    let id = match read(frame, 12, 2) {
        Ok(0x8100 | 0x88a8) => read(frame, 14, 2).map(|tag| tag & 0xfff),
        other => other.map(|_| 0),
    };
    vlans.is_empty() || id.is_ok_and(|id| vlans.iter().any(|vlan| u64::from(vlan) == id))
}

fn holds(expr: &Expr, frame: &[u8]) -> Answer {
    match expr {
        Expr::All(members) => {
            for member in members {
                if !holds(member, frame)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Expr::Any(members) => {
            for member in members {
                if holds(member, frame)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Expr::Not(inner) => Ok(!holds(inner, frame)?),
        Expr::Test(test) => primitive(test, frame),
    }
}

/// A number of up to eight bytes.
fn read(frame: &[u8], at: usize, length: usize) -> Result<u64, Short> {
    let bytes = frame.get(at..at + length).ok_or(Short)?;
    Ok(bytes
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn primitive(test: &Test, frame: &[u8]) -> Answer {
    let packet = 14 + 4 * usize::from(test.tags);
    let kind = || read(frame, packet - 2, 2);
    let within = |at: usize, length: usize| read(frame, packet + at, length);
    match &test.primitive {
        Primitive::Protocol(Protocol::Ip) => Ok(kind()? == IPV4),
        Primitive::Protocol(Protocol::Ip6) => Ok(kind()? == IPV6),
        Primitive::Protocol(Protocol::Arp) => Ok(kind()? == ARP),
        Primitive::Protocol(Protocol::Icmp) => Ok(kind()? == IPV4 && within(9, 1)? == 1),
        Primitive::Protocol(protocol) => {
            let number = match protocol {
                Protocol::Tcp => 6,
                Protocol::Udp => 17,
                Protocol::Sctp => 132,
                _ => 58,
            };
            match kind()? {
                IPV4 => Ok(number != 58 && within(9, 1)? == number),
                IPV6 => Ok(match within(6, 1)? {
                    // A fragment header says what is behind it.
                    44 => within(40, 1)? == number,
                    next => next == number,
                }),
                _ => Ok(false),
            }
        }
        Primitive::Ipv4 { scope, side, net } => {
            let (source, destination) = match (kind()?, scope) {
                (IPV4, Ipv4Scope::Any | Ipv4Scope::Ip) => (12, 16),
                (ARP, Ipv4Scope::Any | Ipv4Scope::Arp) | (RARP, Ipv4Scope::Any) => (14, 24),
                _ => return Ok(false),
            };
            either(*side, source, destination, |at| {
                Ok(in_ipv4(net, within(at, 4)?))
            })
        }
        Primitive::Ipv6 { side, net } => {
            if kind()? != IPV6 {
                return Ok(false);
            }
            either(*side, 8, 24, |at| {
                in_ipv6(net, |word| within(at + 4 * word, 4))
            })
        }
        Primitive::Port {
            transport,
            side,
            ports,
        } => {
            let carried = |protocol: u64| match transport {
                None => matches!(protocol, 6 | 17 | 132),
                Some(Transport::Tcp) => protocol == 6,
                Some(Transport::Udp) => protocol == 17,
                Some(Transport::Sctp) => protocol == 132,
            };
            let behind = match kind()? {
                IPV6 if carried(within(6, 1)?) => 40,
                IPV4 if carried(within(9, 1)?) && within(6, 2)? & 0x1fff == 0 => {
                    4 * usize::try_from(within(0, 1)? & 0xf).unwrap()
                }
                _ => return Ok(false),
            };
            let asked = u64::from(ports.first())..=u64::from(ports.last());
            either(*side, behind, behind + 2, |at| {
                Ok(asked.contains(&within(at, 2)?))
            })
        }
        Primitive::EtherHost { side, address } => {
            let asked = address
                .0
                .iter()
                .fold(0, |value, byte| value << 8 | u64::from(*byte));
            either(*side, 6, 0, |at| Ok(read(frame, at, 6)? == asked))
        }
        Primitive::EtherType(number) => Ok(kind()? == u64::from(*number)),
        Primitive::Vlan(tag) => {
            let is_tag = matches!(kind()?, 0x8100 | 0x88a8 | 0x9100);
            match tag {
                Some(tag) if is_tag => Ok(within(0, 2)? & 0xfff == u64::from(tag.get())),
                _ => Ok(is_tag),
            }
        }
        Primitive::Broadcast => Ok(read(frame, 0, 6)? == 0xffff_ffff_ffff),
        Primitive::Multicast => Ok(read(frame, 0, 1)? & 1 == 1),
        Primitive::IpMulticast => Ok(kind()? == IPV4 && within(16, 1)? >= 224),
        Primitive::Ip6Multicast => Ok(kind()? == IPV6 && within(24, 1)? == 255),
    }
}

/// One of two places, both, or either; the source is looked at first.
fn either(side: Side, source: usize, destination: usize, test: impl Fn(usize) -> Answer) -> Answer {
    match side {
        Side::Source => test(source),
        Side::Destination => test(destination),
        Side::Either => Ok(test(source)? || test(destination)?),
        Side::Both => Ok(test(source)? && test(destination)?),
    }
}

fn in_ipv4(net: &Ipv4Net, address: u64) -> bool {
    address & u64::from(net.mask().to_bits()) == u64::from(net.address().to_bits())
}

/// Word by word, and no further than to the first that differs.
fn in_ipv6(net: &Ipv6Net, word: impl Fn(usize) -> Result<u64, Short>) -> Answer {
    for index in 0..4_u8 {
        let ones = net.prefix_length().saturating_sub(32 * index).min(32);
        let mask = !(u64::from(u32::MAX) >> ones);
        let asked = net.address().to_bits() >> (96 - 32 * u32::from(index)) & 0xffff_ffff;
        if u128::from(word(usize::from(index))? & mask) != asked {
            return Ok(false);
        }
    }
    Ok(true)
}
