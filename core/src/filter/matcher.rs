//! Does a filter take a frame? Read off the syntax tree, byte by byte.
//!
//! This exists so that `verify` can say which frames a sensor should get without asking the rules that are being
//! verified. The meaning is that of `tcpdump -O`: reading goes in the order of the text, only as far as it matters, and
//! what asks for a byte that the frame does not have rejects the frame, `not` or no `not`.

use super::tree::{
    Expr, Ipv4Net, Ipv4Scope, Ipv6Net, PortRange, Primitive, Protocol, Side, Test, Transport,
};

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;
const IPV6: u16 = 0x86dd;
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const FRAGMENT_HEADER: u8 = 44;

/// Does the expression take the frame, which begins with its destination MAC address and has its tags in place?
pub(super) fn takes(expr: &Expr, frame: &[u8]) -> bool {
    expression(expr, frame).unwrap_or(false)
}

/// An answer, or none if the frame ends before what is asked.
type Answer = Option<bool>;

fn expression(expr: &Expr, frame: &[u8]) -> Answer {
    match expr {
        Expr::All(members) => {
            for member in members {
                if !expression(member, frame)? {
                    return Some(false);
                }
            }
            Some(true)
        }
        Expr::Any(members) => {
            for member in members {
                if expression(member, frame)? {
                    return Some(true);
                }
            }
            Some(false)
        }
        Expr::Not(inner) => Some(!expression(inner, frame)?),
        Expr::Test(test) => primitive(test, frame),
    }
}

/// One of a packet's two ends.
#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

impl End {
    /// What stands first where the source does.
    fn offset(self, source: usize, destination: usize) -> usize {
        match self {
            Self::Source => source,
            Self::Destination => destination,
        }
    }
}

/// A test of two ends, the source first.
fn sides(side: Side, test: impl Fn(End) -> Answer) -> Answer {
    match side {
        Side::Source => test(End::Source),
        Side::Destination => test(End::Destination),
        Side::Either => Some(test(End::Source)? || test(End::Destination)?),
        Side::Both => Some(test(End::Source)? && test(End::Destination)?),
    }
}

fn primitive(test: &Test, frame: &[u8]) -> Answer {
    let at = At {
        frame,
        network: 14 + 4 * usize::from(test.tags),
    };
    match &test.primitive {
        Primitive::Protocol(protocol) => at.protocol(*protocol),
        Primitive::Ipv4 { scope, side, net } => at.ipv4_address(*scope, *side, net),
        Primitive::Ipv6 { side, net } => {
            Some(at.carries(&[IPV6])? && sides(*side, |end| at.ipv6_address(end, net))?)
        }
        Primitive::Port {
            transport,
            side,
            ports,
        } => at.port(*transport, *side, *ports),
        Primitive::EtherHost { side, address } => sides(*side, |end| {
            let from = end.offset(6, 0);
            Some(frame.get(from..from + 6)? == address.0)
        }),
        Primitive::EtherType(number) => at.carries(&[*number]),
        Primitive::Vlan(tag) => Some(at.carries(&TAGS)? && at.vid(tag.map(|tag| tag.get()))?),
        Primitive::Broadcast => Some(frame.get(..6)? == [0xff; 6]),
        Primitive::Multicast => Some(frame.first()? & 1 == 1),
        Primitive::IpMulticast => Some(at.carries(&[IPV4])? && at.byte(16)? >= 224),
        Primitive::Ip6Multicast => Some(at.carries(&[IPV6])? && at.byte(24)? == 0xff),
    }
}

/// A frame, and where its network header is said to begin.
struct At<'a> {
    frame: &'a [u8],
    network: usize,
}

impl At<'_> {
    fn byte(&self, offset: usize) -> Option<u8> {
        self.frame.get(self.network + offset).copied()
    }

    fn u16(&self, offset: usize) -> Option<u16> {
        let bytes = self.frame.get(self.network + offset..)?.first_chunk()?;
        Some(u16::from_be_bytes(*bytes))
    }

    fn u32(&self, offset: usize) -> Option<u32> {
        let bytes = self.frame.get(self.network + offset..)?.first_chunk()?;
        Some(u32::from_be_bytes(*bytes))
    }

    fn carries(&self, types: &[u16]) -> Answer {
        let bytes = self.frame.get(self.network - 2..)?.first_chunk()?;
        Some(types.contains(&u16::from_be_bytes(*bytes)))
    }

    fn vid(&self, vid: Option<u16>) -> Answer {
        match vid {
            Some(vid) => Some(self.u16(0)? & 0x0fff == vid),
            None => Some(true),
        }
    }

    fn protocol(&self, protocol: Protocol) -> Answer {
        let both = |number| Some(self.over_ipv4(number)? || self.over_ipv6(number)?);
        match protocol {
            Protocol::Ip => self.carries(&[IPV4]),
            Protocol::Ip6 => self.carries(&[IPV6]),
            Protocol::Arp => self.carries(&[ARP]),
            Protocol::Tcp => both(6),
            Protocol::Udp => both(17),
            Protocol::Sctp => both(132),
            Protocol::Icmp => self.over_ipv4(1),
            Protocol::Icmp6 => self.over_ipv6(58),
        }
    }

    fn over_ipv4(&self, number: u8) -> Answer {
        Some(self.carries(&[IPV4])? && self.byte(9)? == number)
    }

    /// Directly, or behind one fragment header.
    fn over_ipv6(&self, number: u8) -> Answer {
        if !self.carries(&[IPV6])? {
            return Some(false);
        }
        let next = self.byte(6)?;
        Some(next == number || (next == FRAGMENT_HEADER && self.byte(40)? == number))
    }

    fn ipv4_address(&self, scope: Ipv4Scope, side: Side, net: &Ipv4Net) -> Answer {
        let (address, mask) = (net.address().to_bits(), net.mask().to_bits());
        let of_ip = |end: End| Some(self.u32(end.offset(12, 16))? & mask == address);
        let of_arp = |end: End| Some(self.u32(end.offset(14, 24))? & mask == address);
        let ip = || Some(self.carries(&[IPV4])? && sides(side, of_ip)?);
        let arp = |types: &[u16]| Some(self.carries(types)? && sides(side, of_arp)?);
        match scope {
            Ipv4Scope::Ip => ip(),
            Ipv4Scope::Arp => arp(&[ARP]),
            Ipv4Scope::Any => Some(ip()? || arp(&[ARP, RARP])?),
        }
    }

    /// Word by word, up to the first that differs.
    fn ipv6_address(&self, end: End, net: &Ipv6Net) -> Answer {
        let address = net.address().to_bits();
        let ones = u128::MAX
            .checked_shr(net.prefix_length().into())
            .unwrap_or(0);
        for word in 0..4_u32 {
            let there = |bits: u128| (bits >> (96 - 32 * word)) & 0xffff_ffff;
            let offset = end.offset(8, 24) + 4 * word as usize;
            if u128::from(self.u32(offset)?) & !there(ones) & 0xffff_ffff != there(address) {
                return Some(false);
            }
        }
        Some(true)
    }

    fn port(&self, transport: Option<Transport>, side: Side, ports: PortRange) -> Answer {
        let is_meant = |number: u8| match transport {
            None => [6, 17, 132].contains(&number),
            Some(Transport::Tcp) => number == 6,
            Some(Transport::Udp) => number == 17,
            Some(Transport::Sctp) => number == 132,
        };
        let within = |at: usize| {
            let port = self.u16(at)?;
            Some((ports.first()..=ports.last()).contains(&port))
        };
        if self.carries(&[IPV6])? {
            let here = |end: End| within(end.offset(40, 42));
            return Some(is_meant(self.byte(6)?) && sides(side, here)?);
        }
        if !self.carries(&[IPV4])? || !is_meant(self.byte(9)?) || self.u16(6)? & 0x1fff != 0 {
            return Some(false);
        }
        let behind = 4 * usize::from(self.byte(0)? & 0x0f);
        sides(side, |end| within(behind + end.offset(0, 2)))
    }
}
