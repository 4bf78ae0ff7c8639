//! TCP that was cut in another way: what is left over at both ends, matched byte by byte.
//!
//! Who cuts a large piece may choose other boundaries than its header asks for (Open vSwitch's userspace datapath forgets the
//! TCP options). Then no segment has its like at the other end, but each byte of a stream still has.

use std::collections::BTreeMap;

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

/// The labels of what was sent and is covered by what arrived, and of what arrived and was sent.
pub fn covered(sent: &[Left], arrived: &[Left]) -> (Vec<u64>, Vec<u64>) {
    let mut flows: BTreeMap<u64, (Vec<Left>, Vec<Left>)> = BTreeMap::new();
    for left in sent {
        flows.entry(left.stream.flow).or_default().0.push(*left);
    }
    for left in arrived {
        // Without anything that was sent there is nothing to cover.
        if let Some(flow) = flows.get_mut(&left.stream.flow) {
            flow.1.push(*left);
        }
    }
    let (mut found_sent, mut found_arrived) = (Vec::new(), Vec::new());
    for (sent, arrived) in flows.values() {
        let base = sent.first().map_or(0, |left| left.stream.from);
        let known = Coverage::of(sent, base);
        let there = Coverage::of(arrived, base);
        let labels = |lefts: &[Left], mine: &Coverage, theirs: &Coverage| {
            let whole = lefts
                .iter()
                .filter(|left| mine.is_within(theirs, left, base));
            whole.map(|left| left.label).collect::<Vec<_>>()
        };
        found_sent.extend(labels(sent, &known, &there));
        found_arrived.extend(labels(arrived, &there, &known));
    }
    (found_sent, found_arrived)
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

    /// Is every byte of it there as often in the other one?
    fn is_within(&self, other: &Self, left: &Left, base: u32) -> bool {
        let (from, to) = range(left, base);
        let own = self.0.range(from..to).map(|(place, _)| *place);
        let theirs = other.0.range(from..to).map(|(place, _)| *place);
        [from]
            .into_iter()
            .chain(own)
            .chain(theirs)
            .all(|place| other.at(place) >= self.at(place))
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
        assert_eq!(covered(&sent, &arrived), (vec![10, 11], vec![20, 21]));
        // A part that is missing, and a part that is there twice.
        assert_eq!(covered(&sent, &arrived[..1]), (vec![10], vec![20]));
        let twice = [arrived[0], arrived[1], arrived[1]];
        assert_eq!(covered(&sent, &twice), (vec![10, 11], vec![]));
        assert_eq!(covered(&[], &arrived), (vec![], vec![]));
    }
}
