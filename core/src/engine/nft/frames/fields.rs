//! The fields of a frame that filters read, and the order in which rules ask for them.
//!
//! The order decides how large the rules get. What has few outcomes and decides much comes first: MAC addresses, the
//! EtherType, the protocol. Ports behind IPv4 come last, since there are sixteen places where they can be,
//! depending on the length of the header; everything behind that question would be there sixteen times. Within
//! that, what lies further back comes later, so that a frame which ends before one field ends before the rest too.

use super::super::Field;

/// A field at its place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Read {
    stage: Stage,
    tags: u8,
    part: Part,
}

/// The larger steps of the order: a question about an inner tag comes before any about what is in the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    Ethernet,
    Tags,
    Packet,
}

/// What is read; the variants stand in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Part {
    /// The destination MAC address' group bit.
    Group,
    /// A MAC address.
    Ether(End),
    /// The EtherType.
    Type,
    /// The VLAN id of the tag that the EtherType announced.
    Vid,
    /// IPv4's protocol.
    Protocol,
    /// IPv4's fragment offset.
    Fragment,
    /// IPv6's next header.
    NextHeader,
    /// An IPv4 address, under a mask if that is no prefix.
    Ipv4(End, Option<u32>),
    /// The first byte of IPv4's destination.
    Ipv4Top,
    /// A protocol address in ARP and RARP, likewise.
    Arp(End, Option<u32>),
    /// The beginning of an IPv6 address, in words of 32 bits less than four: so the whole comes first.
    Ipv6(End, Missing),
    /// The first byte of IPv6's destination.
    Ipv6Top,
    /// The length of the IPv4 header, in words of 32 bits.
    Ihl,
    /// A port behind an IPv4 header of that length.
    Port4(u8, End),
    /// The next header in the IPv6 fragment header.
    FragmentNext,
    /// A port behind an IPv6 header.
    Port6(End),
}

/// Which of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum End {
    Source,
    Destination,
}

/// How many of an IPv6 address' four words are left away at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Missing(pub(super) u8);

impl Read {
    /// The field behind so many VLAN tags.
    pub(super) fn new(tags: u8, part: Part) -> Self {
        let (stage, tags) = match part {
            // Tags stand behind the MAC addresses.
            Part::Group | Part::Ether(_) => (Stage::Ethernet, 0),
            Part::Type | Part::Vid => (Stage::Tags, tags),
            _ => (Stage::Packet, tags),
        };
        Self { stage, tags, part }
    }

    /// Its first byte, how many bits into that, and how many bits it has.
    fn place(self) -> (u32, u32, u32) {
        let packet = 14 + 4 * u32::from(self.tags);
        match self.part {
            Part::Group => (0, 7, 1),
            Part::Ether(End::Destination) => (0, 0, 48),
            Part::Ether(End::Source) => (6, 0, 48),
            Part::Type => (packet - 2, 0, 16),
            Part::Vid => (packet, 4, 12),
            Part::Ihl => (packet, 4, 4),
            Part::Fragment => (packet + 6, 3, 13),
            Part::Protocol => (packet + 9, 0, 8),
            Part::Ipv4(End::Source, _) => (packet + 12, 0, 32),
            Part::Ipv4(End::Destination, _) => (packet + 16, 0, 32),
            Part::Ipv4Top => (packet + 16, 0, 8),
            Part::Port4(words, end) => (packet + 4 * u32::from(words) + port(end), 0, 16),
            Part::Arp(End::Source, _) => (packet + 14, 0, 32),
            Part::Arp(End::Destination, _) => (packet + 24, 0, 32),
            Part::NextHeader => (packet + 6, 0, 8),
            Part::Ipv6(End::Source, missing) => (packet + 8, 0, missing.left()),
            Part::Ipv6(End::Destination, missing) => (packet + 24, 0, missing.left()),
            Part::Ipv6Top => (packet + 24, 0, 8),
            Part::FragmentNext => (packet + 40, 0, 8),
            Part::Port6(end) => (packet + 40 + port(end), 0, 16),
        }
    }

    /// How long a frame is that has it, in bytes; below 128.
    pub(super) fn end(self) -> u32 {
        let (byte, bit, length) = self.place();
        byte + (bit + length).div_ceil(8)
    }

    /// The highest value that it can have.
    pub(super) fn highest(self) -> u128 {
        let (_, _, length) = self.place();
        u128::MAX.checked_shr(128 - length).unwrap_or(0)
    }

    /// It, for a rule.
    pub(super) fn field(self) -> Field {
        let (byte, bit, length) = self.place();
        let mask = match self.part {
            Part::Ipv4(_, mask) | Part::Arp(_, mask) => mask.map(u128::from),
            _ => None,
        };
        Field {
            offset: 8 * byte + bit,
            length,
            mask,
        }
    }

    /// A value that nearly all frames have, if there is one; that it is asked for first costs nothing.
    pub(super) fn usual(self) -> Option<u128> {
        (self.part == Part::Ihl).then_some(5)
    }
}

impl Missing {
    /// The words of an address, the whole one first.
    pub(super) const ALL: [Self; 4] = [Self(0), Self(1), Self(2), Self(3)];

    /// The bits that are there.
    fn left(self) -> u32 {
        128 - 32 * u32::from(self.0)
    }
}

fn port(end: End) -> u32 {
    match end {
        End::Source => 0,
        End::Destination => 2,
    }
}
