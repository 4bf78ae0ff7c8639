use super::super::capture_points::{DeviceSide, Part, Point, Sensor, Subject, Way};
use super::*;
use crate::engine::nft::Side;
use crate::model::OutputKey;
use crate::model::{SessionName, VlanSet};

/// Who copies.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Ovs,
    Nft,
}

/// A group of one session that takes 101 and 102, both ways: points 0 and 1 are what they send, 2 and 3 what they get.
fn group(by: By, dedup: Switch) -> Group {
    let spot = |device: &str, side| DeviceSide {
        device: device.parse().unwrap(),
        side,
    };
    let takes = match by {
        By::Ovs => Takes::Mirrored {
            tag: None,
            trunks: VlanSet::default(),
            vlans: VlanSet::default(),
            rspan: None,
        },
        By::Nft => Takes::Copied {
            vlans: VlanSet::default(),
            filter: None,
            not_from: [].into(),
        },
    };
    let shape = [
        ("tap101i0", Passing::From),
        ("tap102i0", Passing::From),
        ("tap101i0", Passing::To),
        ("tap102i0", Passing::To),
    ];
    let points = shape
        .iter()
        .enumerate()
        .map(|(at, (device, passing))| Point {
            part: 0,
            subject: at,
            spot: spot(device, Side::Ingress),
            passing: *passing,
            takes: takes.clone(),
        });
    let subjects = shape.iter().map(|(device, passing)| Subject {
        name: (*device).to_owned(),
        passing: *passing,
        whole: false,
        way: Way::None(String::new()),
    });
    Group {
        sensor: Sensor {
            spot: spot("tap200i1", Side::Egress),
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
            dedup,
            subjects: subjects.collect(),
            blind: Vec::new(),
        }],
        points: points.collect(),
    }
}

const WINDOW: Window = Window {
    from: 100,
    until: 200,
};

/// Watched, arrived, doubled, foreign; of frames 7 at these points, and so many arrivals, all in the window.
fn judged(group: &Group, points: &[u32], arrivals: usize) -> (u64, u64, u64, u64) {
    let events: Vec<(u32, u64)> = points.iter().map(|point| (*point, 150)).collect();
    at_times(group, &events, &vec![151; arrivals])
}

fn at_times(group: &Group, events: &[(u32, u64)], arrivals: &[u64]) -> (u64, u64, u64, u64) {
    let event = |(point, time): &(u32, u64)| Event {
        identity: 7,
        time: *time,
        point: *point,
        stream: None,
    };
    let arrival = |time: &u64| Arrival {
        identity: 7,
        time: *time,
        stream: None,
    };
    let mut events: Vec<Event> = events.iter().map(event).collect();
    let mut arrivals: Vec<Arrival> = arrivals.iter().map(arrival).collect();
    let tally = tally(group, &mut events, &mut arrivals, WINDOW);
    let part = &tally.parts[0];
    (
        part.all.watched,
        part.all.arrived,
        part.doubled,
        tally.foreign,
    )
}

#[test]
fn a_frame_between_two_sources_arrives_once() {
    let ovs = group(By::Ovs, Switch::Yes);
    assert_eq!(judged(&ovs, &[0, 3], 1), (1, 1, 0, 0));
    assert_eq!(judged(&ovs, &[0, 3], 0), (1, 0, 0, 0));
    assert_eq!(judged(&ovs, &[0, 3], 2), (1, 1, 1, 0));
    // Sent three times, it arrives three times.
    assert_eq!(judged(&ovs, &[0, 0, 0, 3, 3, 3], 3), (3, 3, 0, 0));
    // A broadcast from outside: Open vSwitch copies it once, nftables where it is delivered.
    assert_eq!(judged(&ovs, &[2, 3], 1), (1, 1, 0, 0));
    let nft = group(By::Nft, Switch::Yes);
    assert_eq!(judged(&nft, &[2, 3], 2), (2, 2, 0, 0));
    assert_eq!(judged(&nft, &[0], 1), (1, 1, 0, 0));
    // From an address that no config names it is copied twice, and once was promised.
    assert_eq!(judged(&nft, &[0, 3], 2), (1, 1, 1, 0));
    let twice = group(By::Nft, Switch::No);
    assert_eq!(judged(&twice, &[0, 3], 2), (2, 2, 0, 0));
    assert_eq!(judged(&twice, &[0, 3], 1), (2, 1, 0, 0));
}

#[test]
fn what_no_source_sent_is_foreign() {
    assert_eq!(judged(&group(By::Nft, Switch::Yes), &[], 3), (0, 0, 0, 3));
}

#[test]
fn before_and_after_the_window_nothing_is_judged() {
    let nft = group(By::Nft, Switch::Yes);
    // Copies of what was sent before anybody watched; a copy on its way when nobody watches any more.
    assert_eq!(at_times(&nft, &[], &[50, 250]), (0, 0, 0, 0));
    assert_eq!(at_times(&nft, &[(0, 99), (0, 201)], &[]), (0, 0, 0, 0));
    // But they help to judge: a copy may be late, or early by the clock.
    assert_eq!(at_times(&nft, &[(0, 199)], &[260]), (1, 1, 0, 0));
    assert_eq!(at_times(&nft, &[(0, 100)], &[99]), (1, 1, 0, 0));
    // The same bytes again and again: what arrived before does not stand for what is missing.
    let again = [(0, 50), (0, 60), (0, 150), (0, 160)];
    assert_eq!(at_times(&nft, &again, &[51, 61, 151]), (2, 1, 0, 0));
    let mut sampled = nft;
    sampled.parts[0].sample = 3;
    assert_eq!(at_times(&sampled, &again, &[51, 61, 151]), (2, 1, 0, 0));
}

#[test]
fn what_is_missing_is_missing_where_it_was_seen() {
    let ovs = group(By::Ovs, Switch::Yes);
    let event = |identity, point| Event {
        identity,
        time: 150,
        point,
        stream: None,
    };
    let arrival = Arrival {
        identity: 1,
        time: 190,
        stream: None,
    };
    let mut events = vec![event(1, 0), event(1, 3), event(2, 1)];
    let tally = tally(&ovs, &mut events, &mut [arrival], WINDOW);
    let counts: Vec<(u64, u64)> = tally.parts[0]
        .subjects
        .iter()
        .map(|counts| (counts.watched, counts.arrived))
        .collect();
    assert_eq!(counts, [(1, 1), (1, 0), (0, 0), (1, 1)]);
    assert_eq!(tally.parts[0].latencies, [40]);
}

#[test]
fn sessions_that_share_an_output_share_copies_or_not() {
    let mut both = group(By::Nft, Switch::Yes);
    both.parts.push(both.parts[0].clone());
    both.points.push(Point {
        part: 1,
        ..both.points[0].clone()
    });
    assert_eq!(judged(&both, &[0, 4], 1), (1, 1, 0, 0));
    assert_eq!(judged(&both, &[0, 4], 2), (1, 1, 0, 0));
    assert_eq!(judged(&both, &[0, 4], 3), (1, 1, 1, 0));
    assert_eq!(judged(&both, &[0, 4], 0), (1, 0, 0, 0));
}
