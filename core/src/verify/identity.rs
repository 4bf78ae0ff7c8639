//! What makes two captured frames the same one, although the node may have changed it on the way.
//!
//! The node pushes and pops VLAN tags, finishes checksums, and cuts a large piece of a guest with segmentation offload into
//! the frames that a network card would have made of it. So an identity is a hash of what remains: without tags and
//! checksums, and a large piece counts as its segments.

use std::hash::{DefaultHasher, Hasher};

use super::packet::{Packet, SCTP, TCP, UDP, tags, u16_at, u32_at};

/// How a captured piece is still to be cut: bytes of payload a segment. Of TCP or of UDP, as its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments(pub usize);

/// A frame as it would be on a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireFrame {
    /// The same for the same frame.
    pub identity: u64,
    /// What of a TCP stream it carries.
    pub stream: Option<Stream>,
}

/// A part of a TCP stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// The same for the same addresses and ports.
    pub flow: u64,
    /// The sequence number of the first byte.
    pub from: u32,
    /// How many bytes.
    pub length: u32,
}

/// How identities are made.
#[derive(Debug, Clone, Copy)]
pub struct FrameHasher {
    /// Of a run's own, so that no guest can make two frames with one identity.
    pub secret: u64,
    /// How many bytes there are of each frame, tags included, if not all.
    pub snaplen: Option<usize>,
}

/// FIN and PSH stand in the last segment only, CWR in the first only.
const FIN: u8 = 1;
const PSH: u8 = 8;
const CWR: u8 = 0x80;

impl FrameHasher {
    /// The frames that a captured piece is or becomes.
    pub fn units(&self, frame: &[u8], segments: Option<Segments>, mut each: impl FnMut(WireFrame)) {
        if let Some(snaplen) = self.snaplen {
            // Two tags may come or go; the rest has to be there at both ends.
            let kept = snaplen.saturating_sub(8).max(12) + 4 * tags(frame);
            let kept = frame.get(..kept).unwrap_or(frame);
            each(self.whole(kept));
            return;
        }
        match segments.filter(|segments| segments.0 > 0) {
            Some(Segments(size)) => self.cut(frame, size, &mut each),
            None => each(self.whole(frame)),
        }
    }

    fn whole(&self, frame: &[u8]) -> WireFrame {
        let Some(packet) = Packet::of(frame) else {
            return WireFrame {
                identity: self.hash(&[head(frame), behind_tags(frame)]),
                stream: None,
            };
        };
        let payload = match packet.tcp_payload(frame) {
            Some(at) => at,
            None => (packet.transport + 8).min(frame.len()),
        };
        let end = packet.end.min(frame.len()).max(payload);
        self.segment(frame, &packet, payload, (payload, end), Place::ONLY)
    }

    fn cut(&self, frame: &[u8], size: usize, each: &mut impl FnMut(WireFrame)) {
        let Some(packet) = Packet::of(frame) else {
            return each(self.whole(frame));
        };
        let begin = match packet.protocol {
            TCP => packet.tcp_payload(frame),
            UDP => Some(packet.transport + 8),
            _ => None,
        };
        let end = packet.end.min(frame.len());
        let Some(begin) = begin.filter(|begin| *begin < end) else {
            return each(self.whole(frame));
        };
        let count = (end - begin).div_ceil(size);
        for number in 0..count {
            let from = begin + number * size;
            let part = (from, (from + size).min(end));
            let is_last = number + 1 == count;
            each(self.segment(frame, &packet, begin, part, Place { number, is_last }));
        }
    }

    /// One segment: the headers as they will be, and its part of the payload.
    fn segment(
        &self,
        frame: &[u8],
        packet: &Packet,
        payload: usize,
        (from, to): (usize, usize),
        place: Place,
    ) -> WireFrame {
        let mut headers = frame
            .get(packet.network..payload)
            .unwrap_or_default()
            .to_vec();
        let transport = packet.transport - packet.network;
        let length = payload - packet.network + (to - from);
        network(&mut headers, packet, length, place);
        let mut stream = None;
        match packet.protocol {
            _ if packet.fragment => {}
            TCP => {
                let sequence = tcp(&mut headers, transport, from - payload, place);
                if to > from {
                    let ports = frame.get(packet.transport..packet.transport + 4);
                    stream = Some(Stream {
                        flow: self.hash(&[packet.addresses(frame), ports.unwrap_or_default()]),
                        from: sequence,
                        length: u32::try_from(to - from).unwrap_or(0),
                    });
                }
            }
            UDP => {
                set(
                    &mut headers,
                    transport + 4,
                    length.saturating_sub(transport),
                );
                set(&mut headers, transport + 6, 0);
            }
            SCTP => {
                // The checksum is the third word of the header, of which these are eight bytes: it comes first in the rest.
                let rest = frame.get(from + 4..to).unwrap_or_default();
                let identity = self.hash(&[head(frame), &headers, rest]);
                return WireFrame { identity, stream };
            }
            _ => {}
        }
        let payload = frame.get(from..to).unwrap_or_default();
        WireFrame {
            identity: self.hash(&[head(frame), &headers, payload]),
            stream,
        }
    }

    fn hash(&self, parts: &[&[u8]]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.secret);
        for part in parts {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        hasher.finish()
    }
}

/// Which of a piece's segments.
#[derive(Clone, Copy)]
struct Place {
    number: usize,
    is_last: bool,
}

impl Place {
    const ONLY: Self = Self {
        number: 0,
        is_last: true,
    };
}

/// The IP header of a segment, without checksum.
fn network(headers: &mut [u8], packet: &Packet, length: usize, place: Place) {
    if packet.version == 6 {
        return set(headers, 4, length.saturating_sub(40));
    }
    set(headers, 2, length);
    set(headers, 10, 0);
    let number = u16::try_from(place.number).unwrap_or(u16::MAX);
    let id = match packet.protocol {
        // Counted on where the piece is cut, by whoever does it.
        TCP => 0,
        _ => u16_at(headers, 4).unwrap_or(0).wrapping_add(number),
    };
    set(headers, 4, id.into());
}

/// The TCP header of a segment so many bytes into the piece, without checksum; its sequence number comes back.
fn tcp(headers: &mut [u8], at: usize, skipped: usize, place: Place) -> u32 {
    let first = u32_at(headers, at + 4).unwrap_or(0);
    let sequence = first.wrapping_add(u32::try_from(skipped).unwrap_or(0));
    if let Some(field) = headers.get_mut(at + 4..at + 8) {
        field.copy_from_slice(&sequence.to_be_bytes());
    }
    if let Some(flags) = headers.get_mut(at + 13) {
        let gone = if place.is_last { 0 } else { FIN };
        *flags &= !(PSH | CWR | gone);
    }
    set(headers, at + 16, 0);
    sequence
}

fn set(bytes: &mut [u8], at: usize, value: usize) {
    let value = u16::try_from(value).unwrap_or(0);
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// The MAC addresses.
fn head(frame: &[u8]) -> &[u8] {
    frame.get(..12).unwrap_or(frame)
}

/// From the EtherType on.
fn behind_tags(frame: &[u8]) -> &[u8] {
    frame.get(12 + 4 * tags(frame)..).unwrap_or_default()
}

#[cfg(test)]
mod tests;
