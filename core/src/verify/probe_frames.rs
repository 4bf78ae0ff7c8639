//! Frames of our own, that no guest takes an interest in: EtherType 0x88B5, which IEEE 802 keeps for local experiments.

/// IEEE Std 802 Local Experimental EtherType 1.
pub const ETHER_TYPE: u16 = 0x88b5;

/// What each of them begins with.
pub const MAGIC: &[u8] = b"pve-span verify";

/// How many small ones are sent to a source; one large one follows.
pub const SMALL: u32 = 10;

/// The shortest frame that a network card sends without padding, without its check sequence.
const SHORTEST: usize = 60;

/// A marked frame to `mac`, of `length` bytes of payload at least, from an address that belongs to nobody.
pub fn frame(mac: u64, run: u64, number: u32, session: &str, length: usize) -> Vec<u8> {
    let mut frame = mac.to_be_bytes()[2..].to_vec();
    let mut from = run.to_be_bytes();
    // Locally administered, and one station's.
    from[2] = from[2] & 0xfc | 0x02;
    frame.extend(&from[2..]);
    frame.extend(ETHER_TYPE.to_be_bytes());
    frame.extend(MAGIC);
    frame.extend(run.to_be_bytes());
    frame.extend(number.to_be_bytes());
    frame.extend(session.as_bytes());
    frame.resize(frame.len().max(14 + length).max(SHORTEST), 0);
    frame
}

/// The frame with an 802.1Q tag.
pub fn tagged(mut frame: Vec<u8>, vlan: Option<u16>) -> Vec<u8> {
    if let Some(vlan) = vlan {
        let [high, low] = vlan.to_be_bytes();
        frame.splice(12..12, [0x81, 0x00, high & 0x0f, low]);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_frame_goes_to_the_guest_and_comes_from_nobody() {
        let frame = frame(0xbc24_1100_0001, u64::MAX, 3, "dmz", 0);
        assert_eq!(frame[..6], [0xbc, 0x24, 0x11, 0, 0, 1]);
        assert_eq!(frame[6..12], [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(frame[12..14], [0x88, 0xb5]);
        assert_eq!(frame.len(), 60);
        let tagged = tagged(frame, Some(0x123));
        assert_eq!(tagged[12..18], [0x81, 0, 0x01, 0x23, 0x88, 0xb5]);
        assert_eq!(super::frame(1, 2, 3, "dmz", 1500).len(), 1514);
    }
}
