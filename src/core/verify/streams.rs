//! TCP that was cut in another way: what is left over at both ends, matched byte by byte.
//!
//! Who cuts a large piece may choose other boundaries than its header asks for (Open vSwitch's userspace datapath forgets the
//! TCP options). Then no segment has its like at the other end, but each byte of a stream still has.

use std::collections::{BTreeMap, HashMap};

use super::identity::Stream;

/// Some bytes of a stream, so many times, and whose they are.
#[derive(Debug, Clone, Copy)]
pub struct Left {
    /// Which bytes.
    pub stream: Stream,
    /// How often.
    pub times: u64,
    /// The caller's word for it.
    pub label: u64,
}

/// What remains: how often something of it has no like at the other end, by label.
pub type Remains = HashMap<u64, u64>;

/// What remains of what was sent, and of what arrived. What is not told of is matched.
pub fn unmatched(sent: &[Left], arrived: &[Left]) -> (Remains, Remains) {
    let mut flows: BTreeMap<u64, (Vec<Left>, Vec<Left>)> = BTreeMap::new();
    for left in sent {
        flows.entry(left.stream.flow).or_default().0.push(*left);
    }
    for left in arrived {
        flows.entry(left.stream.flow).or_default().1.push(*left);
    }
    let (mut of_sent, mut of_arrived) = (Remains::new(), Remains::new());
    for (sent, arrived) in flows.values() {
        let base = sent.first().or(arrived.first());
        let base = base.map_or(0, |left| left.stream.from);
        let (known, there) = (Coverage::of(sent, base), Coverage::of(arrived, base));
        let remains = |lefts: &[Left], mine: &Coverage, theirs: &Coverage| {
            let times = |left: &Left| left.times.min(mine.beyond(theirs, left, base));
            let remains = lefts.iter().map(|left| (left.label, times(left)));
            remains.collect::<Vec<_>>()
        };
        of_sent.extend(remains(sent, &known, &there));
        of_arrived.extend(remains(arrived, &there, &known));
    }
    (of_sent, of_arrived)
}

/// How often each byte is there: from each place on, so many times.
struct Coverage(BTreeMap<i64, i64>);

impl Coverage {
    fn of(lefts: &[Left], base: u32) -> Self {
        let mut changes: BTreeMap<i64, i64> = BTreeMap::new();
        for left in lefts {
            let (from, to) = range(left, base);
            let times = i64::try_from(left.times).unwrap_or(i64::MAX);
            *changes.entry(from).or_default() += times;
            *changes.entry(to).or_default() -= times;
        }
        let mut times = 0;
        for change in changes.values_mut() {
            times += *change;
            *change = times;
        }
        Self(changes)
    }

    fn at(&self, place: i64) -> i64 {
        let before = self.0.range(..=place).next_back();
        before.map_or(0, |(_, times)| *times)
    }

    /// How often a byte of it is there more often than in the other one, at most.
    fn beyond(&self, other: &Self, left: &Left, base: u32) -> u64 {
        let (from, to) = range(left, base);
        let own = self.0.range(from..to).map(|(place, _)| *place);
        let theirs = other.0.range(from..to).map(|(place, _)| *place);
        let places = [from].into_iter().chain(own).chain(theirs);
        let beyond = places.map(|place| self.at(place) - other.at(place)).max();
        u64::try_from(beyond.unwrap_or(0)).unwrap_or(0)
    }
}

/// Its bytes, counted from one of the flow's: sequence numbers begin anew at 2³², and half of that is more than a window.
fn range(left: &Left, base: u32) -> (i64, i64) {
    let distance = left.stream.from.wrapping_sub(base);
    let from = i64::from(i32::from_ne_bytes(distance.to_ne_bytes()));
    (from, from + i64::from(left.stream.length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(flow: u64, from: u32, length: u32, label: u64) -> Left {
        let stream = Stream { flow, from, length };
        Left {
            stream,
            times: 1,
            label,
        }
    }

    #[test]
    fn what_is_cut_elsewhere_is_the_same_bytes() {
        let begin = u32::MAX - 1500;
        let sent = [
            left(1, begin, 1448, 10),
            left(1, begin.wrapping_add(1448), 1448, 11),
            left(2, 5, 100, 12),
        ];
        let arrived = [
            left(1, begin, 1460, 20),
            left(1, begin.wrapping_add(1460), 1436, 21),
        ];
        let told = |sent: &[Left], arrived: &[Left]| {
            let (sent, arrived) = unmatched(sent, arrived);
            let sorted = |remains: Remains| {
                let remains: BTreeMap<u64, u64> = remains.into_iter().collect();
                remains
                    .into_iter()
                    .filter(|(_, times)| *times > 0)
                    .collect::<Vec<_>>()
            };
            (sorted(sent), sorted(arrived))
        };
        assert_eq!(told(&sent, &arrived), (vec![(12, 1)], vec![]));
        // A part that is missing, one that is there twice, and one that was sent twice and is there once.
        assert_eq!(told(&sent, &arrived[..1]), (vec![(11, 1), (12, 1)], vec![]));
        let twice = [arrived[0], arrived[1], arrived[1]];
        assert_eq!(told(&sent[..2], &twice), (vec![], vec![(21, 1)]));
        let again = Left {
            times: 2,
            ..sent[0]
        };
        assert_eq!(told(&[again, sent[1]], &arrived), (vec![(10, 1)], vec![]));
        assert_eq!(told(&[], &arrived), (vec![], vec![(20, 1), (21, 1)]));
    }
}
