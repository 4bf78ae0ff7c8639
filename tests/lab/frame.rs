//! Ethernet frames: building those that guests send, reading those that sensors get.
//!
//! Frames carry a token in their payload, by which a test knows its own ones again.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// IEEE 802.1Q tag protocol identifier.
const TPID: u16 = 0x8100;
/// IEEE 802.1ad (Q-in-Q) service tag protocol identifier.
const TPID_SERVICE: u16 = 0x88a8;
/// EtherType for local experiments (IEEE 802): nothing on the way takes an interest in it.
const EXPERIMENTAL: u16 = 0x88b5;
const IPV4: u16 = 0x0800;
const UDP: u8 = 17;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody.
    pub const BROADCAST: Mac = Mac([0xff; 6]);
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Mac, String> {
        let bad = || format!("not a MAC address: {text}");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            *byte = parts
                .next()
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(bad)?;
        }
        if parts.next().is_none() {
            Ok(Mac(bytes))
        } else {
            Err(bad())
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02X}:{b:02X}:{c:02X}:{d:02X}:{e:02X}:{g:02X}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An Ethernet frame, without its frame check sequence.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Vec<u8>,
    /// False where the kernel left the transport checksum to a network card that is not there.
    checksum_done: bool,
}

impl Frame {
    /// An untagged frame with an experimental EtherType and no payload yet.
    pub fn new(src: Mac, dst: Mac) -> Frame {
        let bytes = [&dst.0[..], &src.0, &EXPERIMENTAL.to_be_bytes()].concat();
        Frame {
            bytes,
            checksum_done: true,
        }
    }

    /// A frame as it stands.
    ///
    /// # Panics
    /// If there is not even an Ethernet header.
    pub fn from_bytes(bytes: Vec<u8>) -> Frame {
        assert!(
            bytes.len() >= 14,
            "{} bytes are not an Ethernet frame",
            bytes.len()
        );
        Frame {
            bytes,
            checksum_done: true,
        }
    }

    /// Puts an 802.1Q tag in front of the tags that there are.
    pub fn tagged(mut self, vid: u16) -> Frame {
        self.insert_tag(TPID, vid);
        self
    }

    /// Replaces the EtherType.
    pub fn ethertype_is(mut self, ethertype: u16) -> Frame {
        let at = self.payload_at() - 2;
        self.bytes[at..at + 2].copy_from_slice(&ethertype.to_be_bytes());
        self
    }

    /// Replaces the payload.
    pub fn carrying(mut self, payload: impl AsRef<[u8]>) -> Frame {
        self.bytes.truncate(self.payload_at());
        self.bytes.extend_from_slice(payload.as_ref());
        self
    }

    /// Replaces the payload by a UDP datagram in an IPv4 packet, checksums filled in.
    pub fn udp(
        self,
        src: (Ipv4Addr, u16),
        dst: (Ipv4Addr, u16),
        payload: impl AsRef<[u8]>,
    ) -> Frame {
        let packet = ipv4_udp(src, dst, payload.as_ref());
        self.ethertype_is(IPV4).carrying(packet)
    }

    /// Appends zeros until the whole frame has `len` bytes.
    pub fn padded_to(mut self, len: usize) -> Frame {
        self.bytes.resize(self.bytes.len().max(len), 0);
        self
    }

    /// The frame as on the wire.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes on the wire, tags included.
    #[allow(clippy::len_without_is_empty)] // A frame is never empty.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The sender's address.
    pub fn src(&self) -> Mac {
        Mac(self.bytes[6..12].try_into().expect("six bytes"))
    }

    /// The receiver's address.
    pub fn dst(&self) -> Mac {
        Mac(self.bytes[..6].try_into().expect("six bytes"))
    }

    /// The VLAN ids of all tags, outermost first.
    pub fn vlans(&self) -> Vec<u16> {
        let tags = (self.payload_at() - 14) / 4;
        (0..tags)
            .map(|tag| self.u16_at(14 + 4 * tag) & 0x0fff)
            .collect()
    }

    /// The VLAN id of the outermost tag.
    pub fn vlan(&self) -> Option<u16> {
        self.vlans().first().copied()
    }

    /// The EtherType behind the tags.
    pub fn ethertype(&self) -> u16 {
        self.u16_at(self.payload_at() - 2)
    }

    /// What follows the EtherType.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.payload_at()..]
    }

    /// Whether the payload contains `token`.
    pub fn contains(&self, token: &str) -> bool {
        self.payload()
            .windows(token.len())
            .any(|window| window == token.as_bytes())
    }

    /// Whether the transport checksum stands in the frame, rather than being left to a network card.
    pub fn checksum_done(&self) -> bool {
        self.checksum_done
    }

    pub(super) fn insert_tag(&mut self, tpid: u16, tci: u16) {
        let tag = [tpid.to_be_bytes(), tci.to_be_bytes()].concat();
        self.bytes.splice(12..12, tag);
    }

    pub(super) fn without_checksum(mut self) -> Frame {
        self.checksum_done = false;
        self
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn payload_at(&self) -> usize {
        let mut at = 12;
        while matches!(self.u16_at(at), TPID | TPID_SERVICE) && self.bytes.len() >= at + 6 {
            at += 4;
        }
        at + 2
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}", self.src(), self.dst())?;
        for vid in self.vlans() {
            write!(f, ", vlan {vid}")?;
        }
        write!(f, ", {:#06x}, {} bytes", self.ethertype(), self.len())?;
        let printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        let words = self
            .payload()
            .split(|byte| !printable(byte))
            .filter(|word| word.len() >= 4);
        for word in words.take(4) {
            write!(
                f,
                ", {:?}",
                String::from_utf8_lossy(&word[..word.len().min(60)])
            )?;
        }
        Ok(())
    }
}

/// RFC 791 and RFC 768.
fn ipv4_udp(src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let udp_len = u16::try_from(8 + payload.len()).expect("the payload fits a datagram");
    let mut udp = [src.1, dst.1, udp_len, 0].map(u16::to_be_bytes).concat();
    udp.extend_from_slice(payload);
    let pseudo = [
        &src.0.octets()[..],
        &dst.0.octets(),
        &[0, UDP],
        &udp_len.to_be_bytes(),
        &udp,
    ]
    .concat();
    // Zero would mean "no checksum".
    let sum = match checksum(&pseudo) {
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());

    let mut ip = vec![0x45, 0];
    ip.extend((20 + udp_len).to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
    ip.extend(src.0.octets());
    ip.extend(dst.0.octets());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip.extend(udp);
    ip
}

/// The Internet checksum (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to sixteen bits")
}
