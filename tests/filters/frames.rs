//! Frames of all kinds, whole and cut off.

use std::collections::BTreeSet;

pub const MACS: [[u8; 6]; 6] = [
    [0xbc, 0x24, 0x11, 0, 0, 1],
    [0xbc, 0x24, 0x11, 0, 0, 2],
    [0xbc, 0x24, 0x11, 0, 1, 1],
    [0xff; 6],
    [0x01, 0x00, 0x5e, 0, 0, 5],
    [0x33, 0x33, 0, 0, 0, 1],
];
pub const IPV4: [[u8; 4]; 8] = [
    [10, 0, 0, 1],
    [10, 0, 0, 2],
    [10, 1, 2, 3],
    [10, 7, 0, 9],
    [192, 168, 1, 1],
    [224, 0, 0, 5],
    [255, 255, 255, 255],
    [0, 0, 0, 0],
];
pub const IPV6: [&str; 7] = [
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8:1::1",
    "2001:db8:0:1::",
    "fe80::1",
    "ff02::1",
    "::",
];
pub const PORTS: [u16; 8] = [22, 53, 80, 443, 8080, 1, 0, 65535];
pub const VIDS: [u16; 5] = [0, 10, 20, 30, 4095];
const TPIDS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const PROTOCOLS: [u8; 8] = [6, 6, 17, 17, 132, 1, 58, 44];

/// A sequence of numbers that only depends on where it begins (Marsaglia's xorshift64*).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.next() & 0xff).unwrap()
    }

    /// Once in so many times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// So many different frames, or some fewer.
pub fn frames(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut dice = Dice::new(seed);
    let frames: BTreeSet<_> = (0..count).map(|_| frame(&mut dice)).collect();
    frames.into_iter().collect()
}

/// A frame; one of four ends too early.
fn frame(dice: &mut Dice) -> Vec<u8> {
    let mut frame = whole(dice);
    if dice.once_in(4) {
        let length = 14 + dice.below(frame.len() - 13);
        frame.truncate(length);
    }
    frame
}

fn whole(dice: &mut Dice) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(dice.pick(&MACS));
    frame.extend(dice.pick(&MACS[..3]));
    for _ in 0..dice.pick(&[0, 0, 0, 0, 1, 1, 2, 3]) {
        frame.extend(dice.pick(&TPIDS).to_be_bytes());
        let priority = u16::from(dice.byte() & 0xf0) << 8;
        frame.extend((priority | dice.pick(&VIDS)).to_be_bytes());
    }
    match dice.below(12) {
        0..6 => ipv4(dice, &mut frame),
        6..9 => ipv6(dice, &mut frame),
        9 => arp(dice, &mut frame, 0x0806),
        10 => arp(dice, &mut frame, 0x8035),
        _ => {
            let kind = dice.pick(&[0x88cc_u16, 0x88b5, 0x0027, 0x1234]);
            frame.extend(kind.to_be_bytes());
        }
    }
    // What is read in the wrong place has values that somebody asks for too.
    for _ in 0..dice.pick(&[4, 40]) {
        frame.extend(dice.pick(&PORTS).to_be_bytes());
    }
    frame
}

fn ipv4(dice: &mut Dice, frame: &mut Vec<u8>) {
    let ihl = if dice.once_in(2) {
        dice.pick(&[0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
    } else {
        5
    };
    let fragment: u16 = dice.pick(&[0, 0, 0x4000, 0x2000, 0x2001, 0x1fff, 0x0100, 0xe000]);
    frame.extend(0x0800_u16.to_be_bytes());
    frame.extend([0x40 | ihl, dice.byte()]);
    frame.extend(dice.pick(&PORTS).to_be_bytes());
    frame.extend(dice.pick(&PORTS).to_be_bytes());
    frame.extend(fragment.to_be_bytes());
    frame.extend([64, dice.pick(&PROTOCOLS)]);
    frame.extend(dice.pick(&PORTS).to_be_bytes());
    frame.extend(dice.pick(&IPV4));
    frame.extend(dice.pick(&IPV4));
    for _ in 5..ihl {
        frame.extend(dice.pick(&PORTS).to_be_bytes());
        frame.extend(dice.pick(&PORTS).to_be_bytes());
    }
}

fn ipv6(dice: &mut Dice, frame: &mut Vec<u8>) {
    let address = |dice: &mut Dice| dice.pick(&IPV6).parse::<std::net::Ipv6Addr>().unwrap();
    frame.extend(0x86dd_u16.to_be_bytes());
    frame.extend([0x60, 0, 0, 0, 0, dice.byte()]);
    let next = dice.pick(&[6, 17, 132, 58, 44, 44, 44, 0, 60]);
    frame.extend([next, 64]);
    frame.extend(address(dice).octets());
    frame.extend(address(dice).octets());
    if [44, 0, 60].contains(&next) {
        frame.extend([dice.pick(&PROTOCOLS), 0, 0, 0, 0, 0, 0, dice.byte()]);
    }
}

fn arp(dice: &mut Dice, frame: &mut Vec<u8>, kind: u16) {
    frame.extend(kind.to_be_bytes());
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(dice.pick(&MACS));
    frame.extend(dice.pick(&IPV4));
    frame.extend(dice.pick(&MACS));
    frame.extend(dice.pick(&IPV4));
}

/// Whether every header in it is whole: 15 words of IPv4 header and the ports behind, or an IPv6 header and what may
/// stand behind it.
pub fn is_whole(frame: &[u8]) -> bool {
    // Nothing is read further back: eight tags are not in any expression that asks this.
    frame.len() >= 14 + 3 * 4 + 64
}

/// Whether the kernel lets it through: it drops frames with a tag and not four more bytes behind (`skb_vlan_untag`).
pub fn arrives(frame: &[u8]) -> bool {
    let mut at = 12;
    while let Some([0x81, 0x00] | [0x88, 0xa8]) = frame.get(at..at + 2) {
        at += 4;
        if frame.len() < at + 4 {
            return false;
        }
    }
    true
}
