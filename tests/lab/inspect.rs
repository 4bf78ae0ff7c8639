//! Looks at frames as an intrusion detection system does: sizes, checksums, and the TCP streams in them.
//!
//! Checksums are computed, whatever the capture says about them: one that was left to a network card is wrong for
//! whoever reads the bytes.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::frame::{Frame, checksum};
use super::stream::Stream;
use super::tap::TapFrame;

const IPV4: u16 = 0x0800;
const TCP: u8 = 6;
const SYN: u8 = 2;

/// From where to where.
type Flow = (SocketAddrV4, SocketAddrV4);

/// A TCP segment: its sequence number, and what it carries.
struct Segment<'a> {
    sequence: u32,
    flags: u8,
    payload: &'a [u8],
}

/// What was found in some frames.
#[derive(Default)]
pub struct Inspection<'a> {
    /// How many there are.
    pub frames: usize,
    /// The length of the longest one.
    pub longest: usize,
    /// How many are longer than MTU, Ethernet header and VLAN tags.
    pub oversize: usize,
    /// How many still have to be cut into segments, says their header.
    pub gso: usize,
    /// How many have a wrong IPv4 header checksum.
    pub bad_ip: usize,
    /// How many have a wrong TCP checksum.
    pub bad_tcp: usize,
    /// How many TCP frames were there before, byte by byte. One sent anew has another IPv4 identification.
    pub doubled: usize,
    flows: BTreeMap<Flow, Vec<Segment<'a>>>,
}

impl fmt::Debug for Inspection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} frames, the longest of {} bytes; {} oversize, {} to be segmented, {} bad IPv4 and {} bad TCP \
             checksums, {} doubled",
            self.frames,
            self.longest,
            self.oversize,
            self.gso,
            self.bad_ip,
            self.bad_tcp,
            self.doubled
        )
    }
}

impl<'a> Inspection<'a> {
    /// Inspects what arrived at a tap.
    pub fn of_tap(frames: &'a [TapFrame], mtu: usize) -> Inspection<'a> {
        let mut inspection = Inspection::of(frames.iter().map(|frame| &frame.frame), mtu);
        inspection.gso = frames.iter().filter(|frame| frame.is_gso()).count();
        inspection
    }

    /// Inspects frames, captured anyhow.
    pub fn of(frames: impl IntoIterator<Item = &'a Frame>, mtu: usize) -> Inspection<'a> {
        let mut inspection = Inspection::default();
        let mut seen: HashSet<&[u8]> = HashSet::new();
        for frame in frames {
            inspection.frames += 1;
            inspection.longest = inspection.longest.max(frame.len());
            let header = 14 + 4 * frame.vlans().len();
            inspection.oversize += usize::from(frame.len() > mtu + header);
            if inspection.add_packet(frame) && !seen.insert(frame.bytes()) {
                inspection.doubled += 1;
            }
        }
        inspection
    }

    /// Whether no reader of the frames would stumble over one.
    pub fn is_wire_true(&self) -> bool {
        self.oversize + self.gso + self.bad_ip + self.bad_tcp + self.doubled == 0
    }

    /// Checks that all that the guests said to each other is there; otherwise says what is missing.
    pub fn has_all_of(&self, stream: &Stream) -> Result<(), String> {
        let ways = [
            (stream.client, stream.server, &stream.there),
            (stream.server, stream.client, &stream.back),
        ];
        for (from, to, sent) in ways {
            let got = self.reassemble(from, to)?;
            let same = got.iter().zip(sent).take_while(|(a, b)| a == b).count();
            if same < sent.len() || got.len() > sent.len() {
                return Err(format!(
                    "{from} sent {} bytes to {to}; {} are there, the first {same} of them right",
                    sent.len(),
                    got.len()
                ));
            }
        }
        Ok(())
    }

    /// The bytes of one direction, from frames in any order, overlapping ones too. (For less than 2 GiB.)
    pub fn reassemble(&self, from: SocketAddrV4, to: SocketAddrV4) -> Result<Vec<u8>, String> {
        let segments = self.flows.get(&(from, to)).map_or(&[][..], Vec::as_slice);
        let first = segments.iter().find(|segment| segment.flags & SYN != 0);
        let first = first.ok_or_else(|| format!("no SYN from {from} to {to}"))?;
        // The SYN itself takes one number (RFC 9293, 3.4).
        let start = first.sequence.wrapping_add(1);
        let mut parts: Vec<(usize, &[u8])> = segments
            .iter()
            .filter(|segment| !segment.payload.is_empty())
            .map(|segment| {
                (
                    segment.sequence.wrapping_sub(start) as usize,
                    segment.payload,
                )
            })
            .collect();
        parts.sort_by_key(|(at, _)| *at);
        let mut bytes: Vec<u8> = Vec::new();
        for (at, part) in parts {
            let gap = format!("from {from} to {to} there is nothing at {}", bytes.len());
            let known = bytes.get(at..).ok_or(gap)?;
            let overlap = known.len().min(part.len());
            if known[..overlap] != part[..overlap] {
                return Err(format!(
                    "from {from} to {to} two versions are there of {at}"
                ));
            }
            bytes.extend_from_slice(&part[overlap..]);
        }
        Ok(bytes)
    }

    /// Takes note of a frame; says whether it is TCP.
    fn add_packet(&mut self, frame: &'a Frame) -> bool {
        let packet = frame.payload();
        if frame.ethertype() != IPV4 || packet.len() < 20 {
            return false;
        }
        let header = usize::from(packet[0] & 0x0f) * 4;
        let total = usize::from(u16_at(packet, 2));
        if total < header || packet.len() < total {
            self.bad_ip += 1;
            return false;
        }
        // Behind the packet there may be padding.
        let (header, segment) = packet[..total].split_at(header);
        self.bad_ip += usize::from(checksum(header) != 0);
        if header[9] != TCP || segment.len() < 20 {
            return false;
        }
        let (src, dst) = (ipv4_at(header, 12), ipv4_at(header, 16));
        // The pseudo header of RFC 9293, 3.1.
        let length = u16::try_from(segment.len()).expect("it is part of `total`");
        let pseudo = [&header[12..20], &[0, TCP], &length.to_be_bytes(), segment].concat();
        self.bad_tcp += usize::from(checksum(&pseudo) != 0);
        let data = usize::from(segment[12] >> 4) * 4;
        let flow = (
            SocketAddrV4::new(src, u16_at(segment, 0)),
            SocketAddrV4::new(dst, u16_at(segment, 2)),
        );
        self.flows.entry(flow).or_default().push(Segment {
            sequence: u32::from(u16_at(segment, 4)) << 16 | u32::from(u16_at(segment, 6)),
            flags: segment[13],
            payload: segment.get(data..).unwrap_or_default(),
        });
        true
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn ipv4_at(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}
