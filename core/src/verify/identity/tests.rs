use super::*;

const ALL: FrameHasher = FrameHasher {
    secret: 7,
    snaplen: None,
};

/// A TCP frame over IPv4, its checksums left at 0.
fn tcp(id: u16, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(40 + payload.len()).unwrap();
    let mut frame = vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 8, 0, 0x45, 0];
    frame.extend(total.to_be_bytes());
    frame.extend(id.to_be_bytes());
    frame.extend([0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0, 80, 1, 0]);
    frame.extend(sequence.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    frame.extend(payload);
    frame
}

fn units(frame: &[u8], segments: Option<usize>) -> Vec<WireFrame> {
    let mut found = Vec::new();
    ALL.units(frame, segments.map(Segments), |unit| found.push(unit));
    found
}

fn identity(frame: &[u8]) -> u64 {
    units(frame, None)[0].identity
}

#[test]
fn a_large_piece_is_the_frames_that_a_network_card_makes_of_it() {
    let payload: Vec<u8> = (0..250).collect();
    let begin = u32::MAX - 99;
    let whole = tcp(5, begin, 0x19, &payload);
    let cut = units(&whole, Some(100));
    let made = [
        tcp(5, begin, 0x10, &payload[..100]),
        tcp(6, 0, 0x10, &payload[100..200]),
        tcp(7, 100, 0x19, &payload[200..]),
    ];
    let made: Vec<WireFrame> = made.iter().flat_map(|frame| units(frame, None)).collect();
    assert_eq!(cut, made);
    let ranges: Vec<(u32, u32)> = cut
        .iter()
        .filter_map(|unit| unit.stream.map(|stream| (stream.from, stream.length)))
        .collect();
    assert_eq!(ranges, [(begin, 100), (0, 100), (100, 50)]);
    // What is cut to other sizes, or carries other bytes, is another frame.
    assert_ne!(units(&whole, Some(99))[0], made[0]);
    let mut other = payload;
    other[0] ^= 1;
    assert_ne!(
        identity(&tcp(5, begin, 0x10, &other[..100])),
        made[0].identity
    );
}

#[test]
fn tags_checksums_and_padding_make_no_difference() {
    let plain = tcp(5, 6, 0x10, b"");
    let mut changed = plain.clone();
    changed[24..26].fill(9);
    changed[50..52].fill(9);
    changed.resize(60, 0);
    changed.splice(12..12, [0x81, 0, 0, 10]);
    assert_eq!(identity(&plain), identity(&changed));
    changed.splice(12..12, [0x88, 0xa8, 0, 20]);
    assert_eq!(identity(&plain), identity(&changed));
    changed[0] ^= 2;
    assert_ne!(identity(&plain), identity(&changed));
}

#[test]
fn of_a_frame_that_was_cut_off_the_beginning_counts() {
    let cut = FrameHasher {
        snaplen: Some(64),
        ..ALL
    };
    let one = |frame: &[u8]| {
        let mut found = Vec::new();
        cut.units(frame, None, |unit| found.push(unit.identity));
        found
    };
    let frame = tcp(5, 6, 0x10, &[7; 200]);
    let mut tagged = frame.clone();
    tagged.splice(12..12, [0x81, 0, 0, 10]);
    assert_eq!(one(&frame), one(&frame[..64]));
    assert_eq!(one(&frame), one(&tagged[..64]));
    assert_ne!(one(&frame), one(&tcp(5, 7, 0x10, &[7; 200])));
}

#[test]
fn another_run_has_other_identities_and_hostile_frames_do_no_harm() {
    let other = FrameHasher { secret: 8, ..ALL };
    let frame = tcp(5, 6, 0x10, b"x");
    let mut found = Vec::new();
    other.units(&frame, None, |unit| found.push(unit.identity));
    assert_ne!(found, [identity(&frame)]);
    for length in 0..frame.len() {
        for at in 12..frame.len() {
            for value in [0, 0x4f, 0x60, 0xff] {
                let mut frame = frame.clone();
                frame[at] = value;
                units(&frame[..length], None);
                units(&frame[..length], Some(1));
            }
        }
    }
}
