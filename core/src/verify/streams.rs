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
pub type UnmatchedCounts = HashMap<u64, u64>;

/// What remains of what was sent, and of what arrived. What is not told of is matched.
pub fn unmatched(sent: &[Left], arrived: &[Left]) -> (UnmatchedCounts, UnmatchedCounts) {
    let mut flows: BTreeMap<u64, (Vec<Left>, Vec<Left>)> = BTreeMap::new();
    for left in sent {
        flows.entry(left.stream.flow).or_default().0.push(*left);
    }
    for left in arrived {
        flows.entry(left.stream.flow).or_default().1.push(*left);
    }
    let (mut of_sent, mut of_arrived) = (UnmatchedCounts::new(), UnmatchedCounts::new());
    for (sent, arrived) in flows.values() {
        let base = sent.first().or(arrived.first());
        let base = base.map_or(0, |left| left.stream.from);
        of_sent.extend(Surplus::of(sent, arrived, base).remains(sent, base));
        of_arrived.extend(Surplus::of(arrived, sent, base).remains(arrived, base));
    }
    (of_sent, of_arrived)
}

/// How often each byte is there more often at the one end than at the other.
///
/// A guest decides how many pieces of a stream overlap, so a piece's most is looked up in a tree of maxima, not by going
/// over all the others.
struct Surplus {
    /// Where it changes, ascending.
    places: Vec<i64>,
    /// From the middle on how often from each place on; before, at each number the larger of the two at twice the number.
    most: Vec<i64>,
}

impl Surplus {
    fn of(mine: &[Left], theirs: &[Left], base: u32) -> Self {
        let mut changes: BTreeMap<i64, i64> = BTreeMap::new();
        let signed = [(mine, 1), (theirs, -1)];
        for (left, sign) in signed
            .iter()
            .flat_map(|(lefts, sign)| lefts.iter().map(move |left| (left, *sign)))
        {
            let (from, to) = range(left, base);
            let times = sign * i64::try_from(left.times).unwrap_or(i64::MAX);
            *changes.entry(from).or_default() += times;
            *changes.entry(to).or_default() -= times;
        }
        let places: Vec<i64> = changes.keys().copied().collect();
        let mut most = vec![0; places.len()];
        most.extend(changes.values().scan(0, |times, change| {
            *times += change;
            Some(*times)
        }));
        for at in (1..places.len()).rev() {
            most[at] = most[2 * at].max(most[2 * at + 1]);
        }
        Self { places, most }
    }

    /// How often something of each has no like, by label.
    fn remains(&self, lefts: &[Left], base: u32) -> Vec<(u64, u64)> {
        let times = |left: &Left| left.times.min(self.within(range(left, base)));
        lefts.iter().map(|left| (left.label, times(left))).collect()
    }

    /// The most in a range, which begins at a place.
    fn within(&self, (from, to): (i64, i64)) -> u64 {
        let at = |place| self.places.len() + self.places.partition_point(|known| *known < place);
        let (mut low, mut high, mut most) = (at(from), at(to), 0);
        while low < high {
            if low % 2 == 1 {
                most = most.max(self.most[low]);
                low += 1;
            }
            if high % 2 == 1 {
                high -= 1;
                most = most.max(self.most[high]);
            }
            (low, high) = (low / 2, high / 2);
        }
        u64::try_from(most).unwrap_or(0)
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
            let sorted = |remains: UnmatchedCounts| {
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

    #[test]
    fn pieces_that_overlap_are_many_and_judged_all_the_same() {
        // Each byte is in many of 40,000 pieces; of one in ten there is one too few.
        let count = 40_000;
        let sent: Vec<Left> = (0..count).map(|n| left(1, n, 1448, n.into())).collect();
        let arrived: Vec<Left> = sent
            .iter()
            .filter(|left| left.label % 10 != 0)
            .copied()
            .collect();
        let (of_sent, of_arrived) = unmatched(&sent, &arrived);
        assert_eq!(of_sent[&20_000], 1);
        assert!(of_arrived.values().all(|times| *times == 0));
    }

    #[test]
    fn a_piece_s_surplus_is_that_of_its_worst_byte() {
        let mut seed = 7_u32;
        let mut next = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % below
        };
        for _ in 0..300 {
            let mut some = |first: u64| {
                let many = next(6);
                (0..many)
                    .map(|n| left(1, next(40), 1 + next(12), first + u64::from(n)))
                    .collect::<Vec<_>>()
            };
            let (sent, arrived) = (some(0), some(100));
            let times = |lefts: &[Left], byte: u32| {
                let has = |left: &&Left| {
                    (left.stream.from..left.stream.from + left.stream.length).contains(&byte)
                };
                i64::try_from(lefts.iter().filter(has).count()).unwrap()
            };
            let worst = |left: &Left| {
                let bytes = left.stream.from..left.stream.from + left.stream.length;
                let beyond = bytes.map(|byte| times(&sent, byte) - times(&arrived, byte));
                u64::try_from(beyond.max().unwrap()).unwrap_or(0).min(1)
            };
            let (remains, _) = unmatched(&sent, &arrived);
            for left in &sent {
                assert_eq!(remains[&left.label], worst(left), "{sent:?} {arrived:?}");
            }
        }
    }
}
