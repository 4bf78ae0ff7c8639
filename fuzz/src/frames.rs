//! Frames as `verify` sees them: tags that come and go change nothing, a large piece is its segments and nothing else, and
//! whatever was seen where and when, the counts fit each other.

use pve_span_core::engine::nft::Side;
use pve_span_core::engine::nft::spec::Passing;
use pve_span_core::model::OutputKey;
use pve_span_core::model::Switch;
use pve_span_core::model::{SessionName, VlanSet};
use pve_span_core::verify::capture_points::{
    DeviceSide, Group, Part, Point, Sensor, Subject, Takes, Way,
};
use pve_span_core::verify::identity::{FrameHasher, Segments, WireFrame};
use pve_span_core::verify::tally::{Arrival, Event, Window, tally};
use pve_span_core::verify::{checksum, frame_length, outer_vlan};

/// Checks one input: how the piece is to be cut, how much of it was kept, how often it is seen, and the piece.
pub fn check(data: &[u8]) {
    let Some(([size, kept, seen, lost], frame)) = data.split_first_chunk() else {
        return;
    };
    let segments = (*size > 0).then_some(Segments(usize::from(*size)));
    let units = units(frame, segments, None);
    assert!(!units.is_empty() && units.len() <= frame.len().max(1));
    assert!(frame_length(frame) <= frame.len());
    assert!(outer_vlan(frame) < 4096);
    checksum::is_bad(frame);
    if frame.len() >= 14 && frame[12..].chunks(4).take_while(|tag| is_tag(tag)).count() < 8 {
        let mut tagged = frame.to_vec();
        tagged.splice(12..12, [0x81, 0, 0x20, 10]);
        assert_eq!(self::units(&tagged, segments, None), units);
        assert_eq!(outer_vlan(&tagged), 10);
        assert_eq!(frame_length(&tagged), frame_length(frame));
        assert_eq!(checksum::is_bad(&tagged), checksum::is_bad(frame));
    }
    streams(&units);
    let snaplen = Some(usize::from(*kept).max(14));
    assert_eq!(self::units(frame, segments, snaplen).len(), 1);
    counts(&units, *seen, *lost);
}

fn is_tag(bytes: &[u8]) -> bool {
    matches!(bytes, [0x81, 0, ..] | [0x88, 0xa8, ..])
}

fn units(frame: &[u8], segments: Option<Segments>, snaplen: Option<usize>) -> Vec<WireFrame> {
    let mut units = Vec::new();
    let identities = FrameHasher { secret: 7, snaplen };
    identities.units(frame, segments, |unit| units.push(unit));
    units
}

/// Segments of one piece follow each other in one stream.
fn streams(units: &[WireFrame]) {
    for pair in units.windows(2) {
        if let (Some(a), Some(b)) = (pair[0].stream, pair[1].stream) {
            assert_eq!(a.flow, b.flow);
            assert_eq!(a.from.wrapping_add(a.length), b.from);
        }
    }
}

/// Two sources, one sensor; of the frames `lost` bits do not arrive. What is lost is missing, and nothing else is wrong.
fn counts(units: &[WireFrame], seen: u8, lost: u8) {
    let units = &units[..units.len().min(64)];
    let spot = |device: &str| DeviceSide {
        device: device.parse().unwrap(),
        side: Side::Ingress,
    };
    let point = |subject| Point {
        part: 0,
        subject,
        spot: spot("tap101i0"),
        passing: [Passing::From, Passing::To][subject],
        takes: Takes::Mirrored {
            tag: None,
            trunks: VlanSet::default(),
            vlans: VlanSet::default(),
            rspan: None,
        },
    };
    let subject = |name: &str| Subject {
        name: name.into(),
        passing: Passing::From,
        whole: false,
        way: Way::None(String::new()),
    };
    let group = Group {
        sensor: Sensor {
            spot: spot("tap200i1"),
            vlan: None,
            wire: Switch::Yes,
            snaplen: None,
        },
        parts: vec![Part {
            key: OutputKey {
                session: SessionName::from_mark("dmz"),
                output: "200/net1".into(),
            },
            sample: 1,
            dedup: Switch::Yes,
            subjects: vec![subject("a"), subject("b")],
            blind: Vec::new(),
        }],
        points: vec![point(0), point(1)],
    };
    let (mut events, mut arrivals) = (Vec::new(), Vec::new());
    let mut gone = 0;
    for (number, unit) in units.iter().enumerate() {
        let time = 10 + number as u64;
        for at in 0..u32::from(seen % 3) {
            events.push(Event {
                identity: unit.identity,
                time,
                point: at,
                stream: unit.stream,
            });
        }
        let is_lost = lost >> (number % 8) & 1 == 1;
        if is_lost {
            gone += 1;
        } else {
            arrivals.push(Arrival {
                identity: unit.identity,
                time: time + 1,
                stream: unit.stream,
            });
        }
    }
    let window = Window {
        from: 0,
        until: 1000,
    };
    let told = tally(&group, &mut events, &mut arrivals, window);
    let part = &told.parts[0];
    let due = if seen % 3 == 0 { 0 } else { units.len() as u64 };
    assert_eq!(part.all.watched, due);
    assert!(part.all.arrived <= part.all.watched);
    assert!(part.subjects.iter().all(|one| one.arrived <= one.watched));
    assert_eq!(part.doubled, 0);
    if due > 0 {
        assert_eq!(
            (part.all.watched - part.all.arrived, told.foreign),
            (gone, 0)
        );
    } else {
        assert_eq!(told.foreign, units.len() as u64 - gone);
    }
}
