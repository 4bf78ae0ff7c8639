//! Where the headers of a frame are. A frame that does not keep to its own lengths has none.

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMP6: u8 = 58;
pub const SCTP: u8 = 132;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// The tags that switches push and pop (IEEE 802.1Q, 802.1ad).
const TAGS: [u16; 2] = [0x8100, 0x88a8];

/// The most tags that are looked past.
const MOST_TAGS: usize = 8;

/// IPv6 extension headers that are looked past: hop-by-hop options, routing, destination options (RFC 8200, 4).
const EXTENSIONS: [u8; 3] = [0, ROUTING, 60];
const ROUTING: u8 = 43;

/// Two bytes in network byte order.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Four bytes in network byte order.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// How many VLAN tags a frame has.
pub fn tags(frame: &[u8]) -> usize {
    (0..MOST_TAGS)
        .take_while(|tag| u16_at(frame, 12 + 4 * tag).is_some_and(|kind| TAGS.contains(&kind)))
        .count()
}

/// The VLAN of the outer tag; 0 without one.
pub fn vlan(frame: &[u8]) -> u16 {
    match tags(frame) {
        0 => 0,
        _ => u16_at(frame, 14).unwrap_or(0) & 0x0fff,
    }
}

/// The source MAC address as a number.
pub fn source(frame: &[u8]) -> Option<u64> {
    let bytes = frame.get(6..12)?;
    Some(
        bytes
            .iter()
            .fold(0, |mac, byte| mac << 8 | u64::from(*byte)),
    )
}

/// An IP packet in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// 4 or 6.
    pub version: u8,
    /// Where its header begins.
    pub network: usize,
    /// Where its payload begins.
    pub transport: usize,
    /// What its payload is.
    pub protocol: u8,
    /// Where it ends, by its own word.
    pub end: usize,
    /// Is it a part of one?
    pub fragment: bool,
    /// Does it go on to another address than the one that it shows (a routing header with segments left)?
    pub is_routed: bool,
}

impl Packet {
    /// The packet in a frame, if there is one.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let network = 14 + 4 * tags(frame);
        let first = frame.get(network)? >> 4;
        match (u16_at(frame, network - 2)?, first) {
            (IPV4, 4) => Self::ipv4(frame, network),
            (IPV6, 6) => Self::ipv6(frame, network),
            _ => None,
        }
    }

    fn ipv4(frame: &[u8], network: usize) -> Option<Self> {
        let header = 4 * usize::from(frame.get(network)? & 0x0f);
        let total = usize::from(u16_at(frame, network + 2)?);
        let fragment = u16_at(frame, network + 6)? & 0x3fff != 0;
        let protocol = *frame.get(network + 9)?;
        // A piece that is still to be cut may be larger than the field can say (0, "BIG TCP").
        let end = if total == 0 {
            frame.len()
        } else {
            network + total
        };
        (header >= 20 && end >= network + header).then_some(Self {
            version: 4,
            network,
            transport: network + header,
            protocol,
            end,
            fragment,
            is_routed: false,
        })
    }

    fn ipv6(frame: &[u8], network: usize) -> Option<Self> {
        let length = usize::from(u16_at(frame, network + 4)?);
        let mut transport = network + 40;
        let end = if length == 0 {
            frame.len()
        } else {
            transport + length
        };
        let mut protocol = *frame.get(network + 6)?;
        let mut is_routed = false;
        for _ in 0..4 {
            if !EXTENSIONS.contains(&protocol) {
                break;
            }
            let next = *frame.get(transport)?;
            is_routed |= protocol == ROUTING && *frame.get(transport + 3)? > 0;
            transport += 8 + 8 * usize::from(*frame.get(transport + 1)?);
            protocol = next;
        }
        (end >= transport).then_some(Self {
            version: 6,
            network,
            transport,
            protocol,
            end,
            fragment: protocol == 44,
            is_routed,
        })
    }

    /// Both addresses.
    pub fn addresses<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        let range = match self.version {
            4 => self.network + 12..self.network + 20,
            _ => self.network + 8..self.network + 40,
        };
        frame.get(range).unwrap_or_default()
    }

    /// Where a TCP segment's bytes begin.
    pub fn tcp_payload(&self, frame: &[u8]) -> Option<usize> {
        let words = frame.get(self.transport + 12)? >> 4;
        let at = self.transport + 4 * usize::from(words);
        (self.protocol == TCP && !self.fragment && words >= 5 && at <= self.end.min(frame.len()))
            .then_some(at)
    }
}
