//! Are a frame's checksums right, for whoever reads its bytes? (RFC 1071; the pseudo headers of RFC 9293 and RFC 8200.)
//!
//! What a capture says about a checksum that was left to a network card does not count: the sensor has none.

use super::packet::{ICMP, ICMP6, Packet, TCP, UDP, u16_at};

/// Does a checksum of the frame not fit? What was cut off, is a fragment or has no checksum is not judged, nor is what has
/// the sum for an address that it does not show yet.
pub fn is_bad(frame: &[u8]) -> bool {
    let Some(packet) = Packet::of(frame) else {
        return false;
    };
    if packet.version == 4 {
        let header = frame.get(packet.network..packet.transport);
        if header.is_some_and(|header| fold(sum(header)) != 0xffff) {
            return true;
        }
    }
    let Some(mut payload) = frame.get(packet.transport..packet.end) else {
        return false;
    };
    if packet.protocol == UDP {
        // What follows the datagram in its packet is not in the sum (UDP options, RFC 9868).
        let length = u16_at(payload, 4).map_or(0, usize::from);
        payload = payload.get(..length.max(8)).unwrap_or(payload);
    }
    let pseudo = || {
        let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        sum(packet.addresses(frame)) + u64::from(packet.protocol) + length
    };
    let seed = match (packet.protocol, packet.version) {
        _ if packet.fragment || packet.is_routed => return false,
        // No checksum: RFC 768, and RFC 6936 for tunnels over IPv6.
        (UDP, _) if u16_at(payload, 6) == Some(0) => return false,
        (TCP | UDP, _) | (ICMP6, 6) => pseudo(),
        (ICMP, 4) => 0,
        _ => return false,
    };
    fold(seed + sum(payload)) != 0xffff
}

fn sum(bytes: &[u8]) -> u64 {
    let pairs = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u64::from(u16::from_be_bytes([high, low])),
        [high] => u64::from(high) << 8,
        _ => 0,
    });
    pairs.sum()
}

fn fold(mut sum: u64) -> u64 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10.0.0.1:1000 → 10.0.0.2:2000, `hello`, its checksums computed by tcpdump's `-vv` as right.
    fn udp() -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0]);
        frame.extend([0x45, 0, 0, 33, 0, 0, 0x40, 0, 64, 17, 0x26, 0xca]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([3, 0xe8, 7, 0xd0, 0, 13, 0, 0]);
        frame.extend(b"hello");
        let words = sum(&frame[26..34]) + 17 + 13 + sum(&frame[34..]);
        let right = !u16::try_from(fold(words)).unwrap();
        frame[40..42].copy_from_slice(&right.to_be_bytes());
        frame
    }

    #[test]
    fn a_flipped_bit_shows_wherever_it_is() {
        let good = udp();
        assert!(!is_bad(&good));
        for at in 22..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let no_checksum = bad[40..42] == [0, 0];
            // The lengths say where to look, which is judged in other words.
            if ![38, 39].contains(&at) && !no_checksum {
                assert!(is_bad(&bad), "{at}");
            }
        }
    }

    #[test]
    fn what_cannot_be_told_is_not_bad() {
        let good = udp();
        assert!(!is_bad(&good[..40]), "cut off");
        let mut none = good.clone();
        none[40..42].fill(0);
        assert!(!is_bad(&none), "no checksum");
        let mut padded = good;
        padded.resize(60, 7);
        assert!(!is_bad(&padded), "padding");
        assert!(!is_bad(&[]) && !is_bad(&[8; 14]));
    }

    #[test]
    fn what_follows_a_datagram_is_not_in_its_sum() {
        let mut options = udp();
        options.extend([1, 1, 0]);
        let length = u16::try_from(options.len() - 14).unwrap();
        options[16..18].copy_from_slice(&length.to_be_bytes());
        options[24..26].fill(0);
        let header = !u16::try_from(fold(sum(&options[14..34]))).unwrap();
        options[24..26].copy_from_slice(&header.to_be_bytes());
        assert!(!is_bad(&options));
        options[44] ^= 1;
        assert!(is_bad(&options));
    }

    #[test]
    fn tunnels_over_ipv6_need_no_checksum_and_segments_left_ask_for_another_address() {
        let packet = |next: u8, payload: &[u8]| {
            let mut frame = vec![2; 12];
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0]);
            frame.extend([u8::try_from(payload.len()).unwrap(), next, 64]);
            frame.extend([1; 32]);
            frame.extend(payload);
            frame
        };
        let datagram = |sum: u8| [3, 0xe8, 0x12, 0xb5, 0, 9, 0, sum, 7];
        assert!(!is_bad(&packet(UDP, &datagram(0))));
        assert!(is_bad(&packet(UDP, &datagram(1))));
        let routed = |left: u8| {
            let mut header = vec![UDP, 2, 4, left];
            header.extend([0; 20]);
            header.extend(datagram(1));
            packet(43, &header)
        };
        assert!(!is_bad(&routed(1)));
        assert!(is_bad(&routed(0)));
    }
}
