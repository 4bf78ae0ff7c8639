//! What was seen at the sources against what was seen at the sensor: matched by identity, counted by session.
//!
//! A frame may pass several sources on its way and still shall arrive once; the same bytes may be sent again and again. So
//! of each identity it is counted how often it should have arrived, and how often it did.

use super::capture_points::{Group, Takes};
use super::identity::Stream;
use super::streams::{Left, UnmatchedCounts, unmatched};
use crate::engine::nft::spec::Passing;
use crate::model::Switch;

/// A frame at a source.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// Which frame.
    pub identity: u64,
    /// When, in nanoseconds.
    pub time: u64,
    /// At which of the group's points.
    pub point: u32,
    /// What of a TCP stream it carries.
    pub stream: Option<Stream>,
}

/// A frame at the sensor.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Which frame.
    pub identity: u64,
    /// When, in nanoseconds.
    pub time: u64,
    /// What of a TCP stream it carries.
    pub stream: Option<Stream>,
}

/// From when until when frames are judged. What is seen before and after helps to judge them.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// From then on, in nanoseconds.
    pub from: u64,
    /// Until then.
    pub until: u64,
}

impl Window {
    /// Is it judged?
    pub fn has(&self, time: u64) -> bool {
        (self.from..=self.until).contains(&time)
    }
}

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Frames that should have arrived.
    pub watched: u64,
    /// Those that did.
    pub arrived: u64,
}

/// What became of one session's frames for the sensor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutputTally {
    /// All its frames.
    pub all: Counts,
    /// By subject.
    pub subjects: Vec<Counts>,
    /// Frames that arrived too often.
    pub doubled: u64,
    /// How long copies took, in nanoseconds, ascending.
    pub latencies: Vec<u64>,
}

/// What became of what was sent to one sensor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// By part.
    pub parts: Vec<OutputTally>,
    /// Frames that no source has sent or got.
    pub foreign: u64,
}

/// Counts all that was captured for a group. The order of events and arrivals does not matter; they are sorted in place.
pub fn tally(
    group: &Group,
    events: &mut [Event],
    arrivals: &mut [Arrival],
    window: Window,
) -> Tally {
    events.sort_unstable_by_key(|event| (event.identity, event.time));
    arrivals.sort_unstable_by_key(|arrival| (arrival.identity, arrival.time));
    let counting = TallyContext { group, window };
    let (sent, arrived) = {
        let (mut sent, mut arrived) = (Vec::new(), Vec::new());
        each(events, arrivals, |same| {
            counting.leave(&same, &mut sent, &mut arrived);
        });
        unmatched(&sent, &arrived)
    };
    let part = |part: &super::capture_points::Part| OutputTally {
        subjects: vec![Counts::default(); part.subjects.len()],
        ..OutputTally::default()
    };
    let mut tally = Tally {
        parts: group.parts.iter().map(part).collect(),
        foreign: 0,
    };
    each(events, arrivals, |same| {
        counting.count(&same, (&sent, &arrived), &mut tally);
    });
    for part in &mut tally.parts {
        part.latencies.sort_unstable();
    }
    tally
}

/// All that was seen of one identity.
struct Sightings<'a> {
    identity: u64,
    events: &'a [Event],
    arrivals: &'a [Arrival],
}

fn each<'a>(events: &'a [Event], arrivals: &'a [Arrival], mut take: impl FnMut(Sightings<'a>)) {
    let mut events = events.chunk_by(|a, b| a.identity == b.identity).peekable();
    let mut arrivals = arrivals
        .chunk_by(|a, b| a.identity == b.identity)
        .peekable();
    loop {
        let of_events = events.peek().and_then(|chunk| chunk.first());
        let of_arrivals = arrivals.peek().and_then(|chunk| chunk.first());
        let next = of_events.map(|event| event.identity).into_iter();
        let next = next
            .chain(of_arrivals.map(|arrival| arrival.identity))
            .min();
        let Some(identity) = next else { return };
        let same = Sightings {
            identity,
            events: events
                .next_if(|chunk| chunk[0].identity == identity)
                .unwrap_or_default(),
            arrivals: arrivals
                .next_if(|chunk| chunk[0].identity == identity)
                .unwrap_or_default(),
        };
        take(same);
    }
}

/// When a frame was seen at a source.
#[derive(Clone, Copy)]
enum Span {
    /// In the window.
    Window,
    /// In it or before.
    UntilItsEnd,
    /// At any time.
    Ever,
}

struct TallyContext<'a> {
    group: &'a Group,
    window: Window,
}

/// How often a frame was seen at one session's sources.
#[derive(Default, Clone, Copy)]
struct Sums {
    sent_ovs: u64,
    delivered_ovs: u64,
    sent_nft: u64,
    delivered_nft: u64,
}

impl Sums {
    /// How often it should arrive.
    fn expected(&self, dedup: Switch) -> u64 {
        let sent = self.sent_ovs + self.sent_nft;
        match dedup {
            Switch::Yes if sent > 0 => sent,
            // From outside: Open vSwitch copies it once, nftables wherever it is delivered.
            Switch::Yes => self.delivered_ovs + self.delivered_nft,
            Switch::No => {
                let by_ovs = match self.sent_ovs {
                    0 => self.delivered_ovs,
                    sent => sent,
                };
                by_ovs + self.sent_nft + self.delivered_nft
            }
        }
    }
}

impl TallyContext<'_> {
    /// How often the frame should arrive for a part, by what was seen in a span of time.
    fn expected(&self, same: &Sightings<'_>, part: usize, span: Span) -> u64 {
        let mut sums = Sums::default();
        // Deliveries to several sources are one frame, if Open vSwitch copies it.
        let mut deliveries: Vec<(u32, u64)> = Vec::new();
        for event in same.events {
            let Some(point) = self.point(event).filter(|point| point.part == part) else {
                continue;
            };
            let counts = match span {
                Span::Window => self.window.has(event.time),
                Span::UntilItsEnd => event.time <= self.window.until,
                Span::Ever => true,
            };
            if !counts {
                continue;
            }
            match (&point.takes, point.passing) {
                (Takes::Mirrored { .. }, Passing::From) => sums.sent_ovs += 1,
                (Takes::Copied { .. }, Passing::From) => sums.sent_nft += 1,
                (Takes::Copied { .. }, Passing::To) => sums.delivered_nft += 1,
                (Takes::Mirrored { .. }, Passing::To) => {
                    match deliveries.iter_mut().find(|(at, _)| *at == event.point) {
                        Some((_, times)) => *times += 1,
                        None => deliveries.push((event.point, 1)),
                    }
                }
            }
        }
        sums.delivered_ovs = deliveries
            .iter()
            .map(|(_, times)| *times)
            .max()
            .unwrap_or(0);
        let dedup = self.group.parts.get(part).map(|part| part.dedup);
        sums.expected(dedup.unwrap_or(Switch::Yes))
    }

    fn point(&self, event: &Event) -> Option<&super::capture_points::Point> {
        self.group.points.get(usize::try_from(event.point).ok()?)
    }

    /// The least and the most copies that there should be: sessions that share an output may share a copy.
    fn bounds(&self, same: &Sightings<'_>) -> (u64, u64) {
        let mut bounds = (0, 0);
        for (part, shape) in self.group.parts.iter().enumerate() {
            let expected = self.expected(same, part, Span::Ever);
            if shape.sample == 1 {
                bounds.0 = expected.max(bounds.0);
            }
            bounds.1 += expected;
        }
        bounds
    }

    /// What of TCP has no like at the other end.
    fn leave(&self, same: &Sightings<'_>, sent: &mut Vec<Left>, arrived: &mut Vec<Left>) {
        let there = same.arrivals.len() as u64;
        let (least, most) = self.bounds(same);
        let left = |stream, times| Left {
            stream,
            times,
            label: same.identity,
        };
        if let (Some(stream), true) = (
            same.events.first().and_then(|event| event.stream),
            least > there,
        ) {
            sent.push(left(stream, least - there));
        }
        if let (Some(stream), true) = (
            same.arrivals.first().and_then(|arrival| arrival.stream),
            there > most,
        ) {
            arrived.push(left(stream, there - most));
        }
    }

    /// Takes one identity into account.
    fn count(
        &self,
        same: &Sightings<'_>,
        left: (&UnmatchedCounts, &UnmatchedCounts),
        tally: &mut Tally,
    ) {
        let (sent, arrived) = (left.0.get(&same.identity), left.1.get(&same.identity));
        let there = same.arrivals.len() as u64;
        let in_window = same.arrivals.iter().filter(|one| self.window.has(one.time));
        let in_window = in_window.count() as u64;
        let (_, most) = self.bounds(same);
        let surplus = in_window.saturating_sub(most);
        let surplus = arrived.map_or(surplus, |times| surplus.min(*times));
        if most == 0 {
            tally.foreign += surplus;
            return;
        }
        for (number, part) in tally.parts.iter_mut().enumerate() {
            let ever = self.expected(same, number, Span::Ever);
            if ever == 0 {
                continue;
            }
            part.doubled += surplus;
            let watched = self.expected(same, number, Span::Window);
            let is_sample = self
                .group
                .parts
                .get(number)
                .is_some_and(|part| part.sample > 1);
            let missing = if is_sample {
                watched.saturating_sub(in_window)
            } else {
                // Of the same bytes, sent again and again, copies from before the window must not stand for those in it.
                let due = self.expected(same, number, Span::UntilItsEnd);
                due.saturating_sub(there).min(watched)
            };
            let missing = sent.map_or(missing, |times| missing.min(*times));
            part.all.watched += watched;
            part.all.arrived += watched - missing;
            if ever == there {
                self.latencies(same, number, part);
            }
            for event in same.events.iter().filter(|one| self.window.has(one.time)) {
                let point = self.point(event).filter(|point| point.part == number);
                let Some(counts) = point.and_then(|point| part.subjects.get_mut(point.subject))
                else {
                    continue;
                };
                counts.watched += 1;
                counts.arrived += 1;
            }
            self.blame(same, number, missing, part);
        }
    }

    /// What is missing is missing at each of the places where it was seen.
    fn blame(&self, same: &Sightings<'_>, number: usize, missing: u64, part: &mut OutputTally) {
        let mut blamed: Vec<(u32, u64)> = Vec::new();
        for event in same.events.iter().filter(|one| self.window.has(one.time)) {
            let point = self.point(event).filter(|point| point.part == number);
            let Some(point) = point.filter(|_| missing > 0) else {
                continue;
            };
            let at = blamed.iter().position(|(at, _)| *at == event.point);
            let at = at.unwrap_or_else(|| {
                blamed.push((event.point, 0));
                blamed.len() - 1
            });
            let (Some((_, times)), Some(counts)) =
                (blamed.get_mut(at), part.subjects.get_mut(point.subject))
            else {
                continue;
            };
            if *times < missing {
                *times += 1;
                counts.arrived -= 1;
            }
        }
    }

    /// From when a frame was seen until its copy was: in their order, the first place counts.
    fn latencies(&self, same: &Sightings<'_>, number: usize, part: &mut OutputTally) {
        let of_part = |passing: Passing| {
            let seen = same.events.iter().filter(move |event| {
                let point = self.point(event);
                point.is_some_and(|point| point.part == number && point.passing == passing)
            });
            seen.map(|event| event.time).collect::<Vec<u64>>()
        };
        let mut seen = of_part(Passing::From);
        if seen.is_empty() {
            seen = of_part(Passing::To);
        }
        if seen.len() < same.arrivals.len() {
            return;
        }
        for (seen, arrived) in seen.iter().zip(same.arrivals) {
            if self.window.has(*seen) {
                part.latencies.push(arrived.time.saturating_sub(*seen));
            }
        }
    }
}

#[cfg(test)]
mod tests;
