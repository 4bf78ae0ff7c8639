//! What each primitive reads, in which order: the programs that libpcap makes of them (gencode.c), as diagrams.
//!
//! `tcpdump -O -d EXPRESSION` shows them. What is read matters as much as what is asked: a frame that is too short for
//! a read is rejected, even if nothing hangs on the value (`net 0.0.0.0/0` wants the addresses to be there).

use super::diagram::{ABORT, Diagram, FALSE, Id, TRUE};
use super::fields::{End, Missing, Part, Read};
use super::limits::TooLarge;
use crate::filter::{
    EtherAddr, Expr, Ipv4Net, Ipv4Scope, Ipv6Net, PortRange, Primitive, Protocol, Side, Test,
    Transport, VlanTag,
};
use crate::model::VlanSet;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;
const IPV6: u16 = 0x86dd;
/// What `vlan` takes for a tag.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// What a switch takes for a tag.
const SWITCHED_TAGS: [u16; 2] = [0x8100, 0x88a8];
const FRAGMENT_HEADER: u8 = 44;

type Decision = Result<Id, TooLarge>;

/// The decision that an expression is.
pub(super) fn expression(diagram: &mut Diagram, expr: &Expr) -> Decision {
    match expr {
        Expr::All(members) => all(diagram, members, Diagram::and),
        Expr::Any(members) => all(diagram, members, Diagram::or),
        Expr::Not(inner) => {
            let inner = expression(diagram, inner)?;
            diagram.not(inner)
        }
        Expr::Test(test) => primitive(diagram, test),
    }
}

/// Combines the members in their order, neighbours first: that gives the same as going from left to right, but
/// a list of hundreds is not copied for each of them.
fn all(
    diagram: &mut Diagram,
    members: &[Expr],
    combine: fn(&mut Diagram, Id, Id) -> Decision,
) -> Decision {
    let mut decisions = Vec::with_capacity(members.len());
    for member in members {
        decisions.push(expression(diagram, member)?);
    }
    while decisions.len() > 1 {
        let mut pairs = Vec::with_capacity(decisions.len().div_ceil(2));
        for pair in decisions.chunks(2) {
            pairs.push(match *pair {
                [one, other] => combine(diagram, one, other)?,
                [one] => one,
                _ => continue,
            });
        }
        decisions = pairs;
    }
    Ok(decisions.first().copied().unwrap_or(TRUE))
}

/// Is the outer tag's VLAN id one of these, frames without a tag having 0?
pub(super) fn outer_tag(diagram: &mut Diagram, vlans: &VlanSet) -> Decision {
    let ranges = vlans.ranges();
    let ranges = ranges.map(|(low, high)| (low.into(), high.into()));
    let tagged = diagram.within(Read::new(0, Part::Vid), ranges, TRUE, FALSE, ABORT)?;
    let untagged = if vlans.contains(0) { TRUE } else { FALSE };
    let types = SWITCHED_TAGS.map(|tag| (tag.into(), tag.into()));
    diagram.within(Read::new(0, Part::Type), types, tagged, untagged, ABORT)
}

fn primitive(diagram: &mut Diagram, test: &Test) -> Decision {
    let mut at = Place {
        diagram,
        tags: test.tags,
    };
    match &test.primitive {
        Primitive::Protocol(protocol) => at.protocol(*protocol),
        Primitive::Ipv4 { scope, side, net } => at.ipv4_address(*scope, *side, net),
        Primitive::Ipv6 { side, net } => {
            let inner = at.sides(*side, |at, end| at.ipv6_address(end, net))?;
            at.carries(&[IPV6], inner)
        }
        Primitive::Port {
            transport,
            side,
            ports,
        } => at.port(*transport, *side, *ports),
        Primitive::EtherHost { side, address } => at.ether_host(*side, *address),
        Primitive::EtherType(number) => at.carries(&[*number], TRUE),
        Primitive::Vlan(tag) => at.vlan(*tag),
        Primitive::Broadcast => at.ether_host(Side::Destination, EtherAddr([0xff; 6])),
        Primitive::Multicast => at.is(Part::Group, 1, TRUE),
        Primitive::IpMulticast => {
            let inner = at.between(Part::Ipv4Top, 224, 255, TRUE)?;
            at.carries(&[IPV4], inner)
        }
        Primitive::Ip6Multicast => {
            let inner = at.is(Part::Ipv6Top, 255, TRUE)?;
            at.carries(&[IPV6], inner)
        }
    }
}

/// A place in the frame to read from: behind so many tags.
struct Place<'a> {
    diagram: &'a mut Diagram,
    tags: u8,
}

impl Place<'_> {
    fn between(&mut self, part: Part, low: u128, high: u128, then: Id) -> Decision {
        let read = Read::new(self.tags, part);
        self.diagram.within(read, [(low, high)], then, FALSE, ABORT)
    }

    fn is(&mut self, part: Part, value: u128, then: Id) -> Decision {
        self.between(part, value, value, then)
    }

    /// The EtherType is one of these, and then `inner`.
    fn carries(&mut self, types: &[u16], inner: Id) -> Decision {
        let read = Read::new(self.tags, Part::Type);
        let types = types.iter().map(|number| (*number).into());
        self.diagram.within(
            read,
            types.map(|number| (number, number)),
            inner,
            FALSE,
            ABORT,
        )
    }

    /// A test of two ends, the source first.
    fn sides(&mut self, side: Side, mut test: impl FnMut(&mut Self, End) -> Decision) -> Decision {
        match side {
            Side::Source => test(self, End::Source),
            Side::Destination => test(self, End::Destination),
            Side::Either => {
                let (source, destination) =
                    (test(self, End::Source)?, test(self, End::Destination)?);
                self.diagram.or(source, destination)
            }
            Side::Both => {
                let (source, destination) =
                    (test(self, End::Source)?, test(self, End::Destination)?);
                self.diagram.and(source, destination)
            }
        }
    }

    fn protocol(&mut self, protocol: Protocol) -> Decision {
        match protocol {
            Protocol::Ip => self.carries(&[IPV4], TRUE),
            Protocol::Ip6 => self.carries(&[IPV6], TRUE),
            Protocol::Arp => self.carries(&[ARP], TRUE),
            Protocol::Tcp => self.over_both(6),
            Protocol::Udp => self.over_both(17),
            Protocol::Sctp => self.over_both(132),
            Protocol::Icmp => self.over_ipv4(1),
            Protocol::Icmp6 => self.over_ipv6(58),
        }
    }

    fn over_both(&mut self, number: u8) -> Decision {
        let (ipv4, ipv6) = (self.over_ipv4(number)?, self.over_ipv6(number)?);
        self.diagram.or(ipv4, ipv6)
    }

    fn over_ipv4(&mut self, number: u8) -> Decision {
        let inner = self.is(Part::Protocol, number.into(), TRUE)?;
        self.carries(&[IPV4], inner)
    }

    /// Directly, or behind one fragment header.
    fn over_ipv6(&mut self, number: u8) -> Decision {
        let direct = self.is(Part::NextHeader, number.into(), TRUE)?;
        let behind = self.is(Part::FragmentNext, number.into(), TRUE)?;
        let behind = self.is(Part::NextHeader, FRAGMENT_HEADER.into(), behind)?;
        let inner = self.diagram.or(direct, behind)?;
        self.carries(&[IPV6], inner)
    }

    fn ipv4_address(&mut self, scope: Ipv4Scope, side: Side, net: &Ipv4Net) -> Decision {
        let (address, mask) = (net.address().to_bits(), net.mask().to_bits());
        let (odd, high) = match net.prefix_length() {
            Some(_) => (None, address | !mask),
            None => (Some(mask), address),
        };
        let test = |part: fn(End, Option<u32>) -> Part| {
            move |at: &mut Self, end| at.between(part(end, odd), address.into(), high.into(), TRUE)
        };
        let ip = self.sides(side, test(Part::Ipv4))?;
        let ip = self.carries(&[IPV4], ip)?;
        let arp = self.sides(side, test(Part::Arp))?;
        match scope {
            Ipv4Scope::Ip => Ok(ip),
            Ipv4Scope::Arp => self.carries(&[ARP], arp),
            Ipv4Scope::Any => {
                let arp = self.carries(&[ARP, RARP], arp)?;
                self.diagram.or(ip, arp)
            }
        }
    }

    /// libpcap compares word by word and stops at the first that differs: a frame that ends within the
    /// address is rejected only when all words before its end agree.
    fn ipv6_address(&mut self, end: End, net: &Ipv6Net) -> Decision {
        let low = net.address().to_bits();
        let ones = u128::MAX
            .checked_shr(net.prefix_length().into())
            .unwrap_or(0);
        let mut decision = ABORT;
        for missing in Missing::ALL.into_iter().rev() {
            let read = Read::new(self.tags, Part::Ipv6(end, missing));
            let there = |address: u128| address.checked_shr(32 * u32::from(missing.0)).unwrap_or(0);
            let inside = if missing.0 == 0 { TRUE } else { ABORT };
            let range = [(there(low), there(low | ones))];
            decision = self.diagram.within(read, range, inside, FALSE, decision)?;
        }
        Ok(decision)
    }

    fn port(&mut self, transport: Option<Transport>, side: Side, ports: PortRange) -> Decision {
        let protocols: &[(u128, u128)] = match transport {
            None => &[(6, 6), (17, 17), (132, 132)],
            Some(Transport::Tcp) => &[(6, 6)],
            Some(Transport::Udp) => &[(17, 17)],
            Some(Transport::Sctp) => &[(132, 132)],
        };
        let (low, high) = (ports.first().into(), ports.last().into());
        let ipv6 = self.sides(side, |at, end| {
            at.between(Part::Port6(end), low, high, TRUE)
        })?;
        let ipv6 = self.one_of(Part::NextHeader, protocols, ipv6)?;
        let ipv6 = self.carries(&[IPV6], ipv6)?;

        let mut lengths = Vec::with_capacity(16);
        for words in 0..16 {
            let here = self.sides(side, |at, end| {
                at.between(Part::Port4(words, end), low, high, TRUE)
            })?;
            lengths.push((words.into(), here));
        }
        let read = Read::new(self.tags, Part::Ihl);
        let ipv4 = self.diagram.question(read, &lengths, ABORT)?;
        let ipv4 = self.is(Part::Fragment, 0, ipv4)?;
        let ipv4 = self.one_of(Part::Protocol, protocols, ipv4)?;
        let ipv4 = self.carries(&[IPV4], ipv4)?;
        self.diagram.or(ipv6, ipv4)
    }

    fn one_of(&mut self, part: Part, ranges: &[(u128, u128)], then: Id) -> Decision {
        let read = Read::new(self.tags, part);
        self.diagram
            .within(read, ranges.iter().copied(), then, FALSE, ABORT)
    }

    fn ether_host(&mut self, side: Side, address: EtherAddr) -> Decision {
        let value = address
            .0
            .iter()
            .fold(0, |value, byte| value << 8 | u128::from(*byte));
        self.sides(side, |at, end| at.is(Part::Ether(end), value, TRUE))
    }

    fn vlan(&mut self, tag: Option<VlanTag>) -> Decision {
        let inner = match tag {
            Some(tag) => self.is(Part::Vid, tag.get().into(), TRUE)?,
            None => TRUE,
        };
        self.carries(&TAGS, inner)
    }
}
