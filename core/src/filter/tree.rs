//! The syntax tree of a filter.
//!
//! This exists so that an engine can be asked to do what an expression *means*: abbreviations are
//! spelled out, numbers are parsed, and what tcpdump would refuse cannot be written down. It knows
//! nothing of how the text was read, nor of nftables.

use core::net::{Ipv4Addr, Ipv6Addr};

/// How deep parentheses, `not` and changes between `and` and `or` may nest.
pub const MAX_DEPTH: usize = 64;

/// How many primitives a filter may have.
pub const MAX_PRIMITIVES: usize = 512;

/// How many `vlan` primitives a filter may have, each looking one tag deeper.
pub const MAX_TAGS: u8 = 8;

/// A boolean expression over [`Test`]s.
///
/// What [`parse`](super::parse) returns is canonical: no `All` directly in an `All`, no `Any` in an
/// `Any`, no `Not` in a `Not`, at least two members in each list, and never nested deeper than
/// [`MAX_DEPTH`](super::MAX_DEPTH), so recursion over it is safe. Members stand in the order of
/// the text, which [`Test::tags`] depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// `and`: every member holds.
    All(Vec<Expr>),
    /// `or`: at least one member holds.
    Any(Vec<Expr>),
    /// `not`.
    Not(Box<Expr>),
    /// One test of a frame.
    Test(Test),
}

impl Expr {
    /// Both hold.
    pub(super) fn and(self, other: Self) -> Self {
        let mut members = match self {
            Self::All(members) => members,
            single => vec![single],
        };
        match other {
            Self::All(more) => members.extend(more),
            single => members.push(single),
        }
        Self::All(members)
    }

    /// At least one holds.
    pub(super) fn or(self, other: Self) -> Self {
        let mut members = match self {
            Self::Any(members) => members,
            single => vec![single],
        };
        match other {
            Self::Any(more) => members.extend(more),
            single => members.push(single),
        }
        Self::Any(members)
    }

    /// Does not hold.
    pub(super) fn negate(self) -> Self {
        match self {
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }
}

/// One primitive, and how far into the frame it looks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Test {
    /// How many VLAN tags stand between the MAC addresses and what the primitive reads: the
    /// number of `vlan` primitives to its left in the text, whatever parentheses and operators lie
    /// between (pcap-filter(7), "vlan": it "changes the decoding offsets for the remainder of the
    /// expression"). So in `vlan 10 or tcp` the `tcp` sees tagged frames only, and a second `vlan`
    /// tests the inner tag.
    ///
    /// The EtherType is at byte 12 + 4 × tags, the network header at byte 14 + 4 × tags.
    /// [`Primitive::EtherHost`], [`Primitive::Broadcast`] and [`Primitive::Multicast`] read
    /// MAC addresses, which do not move. At most [`MAX_TAGS`](super::MAX_TAGS).
    pub tags: u8,
    /// What is tested there.
    pub primitive: Primitive,
}

/// A test of one property of a frame, with the meaning that pcap-filter(7) gives it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Primitive {
    /// The frame carries this protocol.
    Protocol(Protocol),
    /// An IPv4 address is in a network (`host`, `net`).
    Ipv4 {
        /// In which packets to look for the address.
        scope: Ipv4Scope,
        /// Which of the two addresses.
        side: Side,
        /// The network; a host is a network of one address.
        net: Ipv4Net,
    },
    /// An IPv6 address is in a network (`host`, `net`).
    Ipv6 {
        /// Which of the two addresses.
        side: Side,
        /// The network; a host is a network of one address.
        net: Ipv6Net,
    },
    /// A port is in a range (`port`, `portrange`), over IPv4 and IPv6 alike; never true of an IPv4
    /// fragment other than the first, nor behind IPv6 extension headers.
    Port {
        /// The transport protocol; `None` is any of them.
        transport: Option<Transport>,
        /// Which of the two ports.
        side: Side,
        /// The ports; a single one is a range of one.
        ports: PortRange,
    },
    /// A MAC address (`ether host`).
    EtherHost {
        /// Which of the two addresses.
        side: Side,
        /// The address.
        address: EtherAddr,
    },
    /// The EtherType (`ether proto`); at least 0x0600, and not one of AppleTalk's.
    EtherType(u16),
    /// A VLAN tag is here (EtherType 0x8100, 0x88a8 or 0x9100), with this VLAN id if one is given.
    Vlan(Option<VlanTag>),
    /// The destination MAC address is ff:ff:ff:ff:ff:ff.
    Broadcast,
    /// The lowest bit of the destination MAC address' first byte is set; true of broadcasts too.
    Multicast,
    /// `ip multicast`: IPv4 with a destination of 224.0.0.0 or above (so 255.255.255.255 too).
    IpMulticast,
    /// `ip6 multicast`: IPv6 with a destination in ff00::/8.
    Ip6Multicast,
}

/// A protocol that a frame can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// IPv4, EtherType 0x0800.
    Ip,
    /// IPv6, EtherType 0x86dd.
    Ip6,
    /// ARP, EtherType 0x0806.
    Arp,
    /// IP protocol 6, over IPv4 or IPv6, there also behind a fragment header.
    Tcp,
    /// IP protocol 17, as for TCP.
    Udp,
    /// IP protocol 132, as for TCP.
    Sctp,
    /// IP protocol 1, over IPv4 only.
    Icmp,
    /// IP protocol 58, over IPv6 only, also behind a fragment header.
    Icmp6,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// IP protocol 6.
    Tcp,
    /// IP protocol 17.
    Udp,
    /// IP protocol 132.
    Sctp,
}

/// Where an IPv4 address is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ipv4Scope {
    /// In IPv4 headers, and as the protocol addresses in ARP and RARP (EtherType 0x8035).
    Any,
    /// In IPv4 headers only (`ip host`).
    Ip,
    /// As the protocol addresses of ARP only (`arp host`): source is the sender, destination the
    /// target.
    Arp,
}

/// Which of a packet's two addresses or ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The source's or the destination's; what no qualifier means.
    Either,
    /// The source's.
    Source,
    /// The destination's.
    Destination,
    /// The source's and the destination's.
    Both,
}

/// An IPv4 network: an address and a mask, which need not be a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ipv4Net {
    address: Ipv4Addr,
    mask: Ipv4Addr,
}

impl Ipv4Net {
    /// The network, unless `address` has bits set outside `mask`.
    pub fn new(address: Ipv4Addr, mask: Ipv4Addr) -> Option<Self> {
        (address & mask == address).then_some(Self { address, mask })
    }

    /// The address; no bit is set outside the mask.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The mask.
    pub fn mask(&self) -> Ipv4Addr {
        self.mask
    }

    /// The length of the prefix in bits, if the mask is one.
    pub fn prefix_length(&self) -> Option<u32> {
        let bits = self.mask.to_bits();
        (bits.leading_ones() == bits.count_ones()).then_some(bits.count_ones())
    }
}

/// An IPv6 network: an address and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ipv6Net {
    address: Ipv6Addr,
    prefix_length: u8,
}

impl Ipv6Net {
    /// The network, unless `prefix_length` is above 128 or `address` has bits set behind it.
    pub fn new(address: Ipv6Addr, prefix_length: u8) -> Option<Self> {
        let host_bits = 128_u32.checked_sub(u32::from(prefix_length))?;
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        (address.to_bits() & mask == address.to_bits()).then_some(Self {
            address,
            prefix_length,
        })
    }

    /// The address; no bit is set behind the prefix.
    pub fn address(&self) -> Ipv6Addr {
        self.address
    }

    /// The length of the prefix in bits.
    pub fn prefix_length(&self) -> u8 {
        self.prefix_length
    }
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports between the two, which may be given in either order.
    pub fn new(one: u16, other: u16) -> Self {
        Self {
            first: one.min(other),
            last: one.max(other),
        }
    }

    /// The lowest port.
    pub fn first(&self) -> u16 {
        self.first
    }

    /// The highest port.
    pub fn last(&self) -> u16 {
        self.last
    }
}

/// A MAC address, in the order of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EtherAddr(pub [u8; 6]);

/// A VLAN id, 0 to 4095.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VlanTag(u16);

impl VlanTag {
    /// The highest id that fits in a tag (IEEE 802.1Q: 12 bits).
    pub const MAX: u16 = 4095;

    /// The id, if it fits in a tag.
    pub fn new(id: u16) -> Option<Self> {
        (id <= Self::MAX).then_some(Self(id))
    }

    /// The id as a number.
    pub fn get(self) -> u16 {
        self.0
    }
}
