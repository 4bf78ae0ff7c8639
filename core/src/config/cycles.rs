//! Which guests feed each other in a circle.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{SessionName, Vmid};

/// Who feeds whom: from a source's guest to its sessions, and from a session to its sensors.
pub type FeedGraph<'a> = BTreeMap<Vertex<'a>, BTreeSet<Vertex<'a>>>;

/// What frames pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vertex<'a> {
    /// A guest, as source and as sensor.
    Guest(Vmid),
    /// A session.
    Session(&'a SessionName),
}

/// The circles of a graph: what can be reached from each other has the same number.
#[derive(Debug, Default)]
pub struct Cycles<'a>(BTreeMap<Vertex<'a>, usize>);

impl<'a> Cycles<'a> {
    /// Finds them (strongly connected components by Kosaraju's algorithm), in time that grows with the
    /// number of edges.
    pub fn of(feeds: &FeedGraph<'a>) -> Self {
        let mut backwards: FeedGraph<'a> = FeedGraph::new();
        for (from, to) in feeds {
            for to in to {
                backwards.entry(*to).or_default().insert(*from);
            }
        }
        let mut seen = BTreeSet::new();
        let mut finished = Vec::new();
        for start in feeds.keys().chain(backwards.keys()) {
            walk(feeds, *start, &mut seen, &mut |knot| finished.push(knot));
        }
        let mut seen = BTreeSet::new();
        let mut circles = BTreeMap::new();
        for (number, start) in finished.iter().rev().enumerate() {
            walk(&backwards, *start, &mut seen, &mut |knot| {
                circles.insert(knot, number);
            });
        }
        Self(circles)
    }

    /// The guest among `sensors` that feeds `source` in turn, over whatever lies between.
    pub fn back<'s>(&self, source: Vmid, sensors: &'s Sensors) -> Option<&'s Vmid> {
        sensors.0.get(self.0.get(&Vertex::Guest(source))?)
    }

    /// Prepares a session's sensors for [`Circles::back`].
    pub fn sensors(&self, sensors: impl IntoIterator<Item = Vmid>) -> Sensors {
        let circle = |guest| Some((*self.0.get(&Vertex::Guest(guest))?, guest));
        Sensors(sensors.into_iter().filter_map(circle).collect())
    }
}

/// Sensors by the circle that they are in.
pub struct Sensors(BTreeMap<usize, Vmid>);

/// Depth first, without recursion; `leave` is told each knot after all that it leads to.
fn walk<'a>(
    graph: &FeedGraph<'a>,
    start: Vertex<'a>,
    seen: &mut BTreeSet<Vertex<'a>>,
    leave: &mut impl FnMut(Vertex<'a>),
) {
    let next = |knot| {
        graph
            .get(&knot)
            .into_iter()
            .flatten()
            .copied()
            .collect::<Vec<_>>()
    };
    if !seen.insert(start) {
        return;
    }
    let mut path = vec![(start, next(start))];
    while let Some((knot, todo)) = path.last_mut() {
        match todo.pop() {
            Some(to) if seen.insert(to) => path.push((to, next(to))),
            Some(_) => {}
            None => {
                leave(*knot);
                path.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vmid(number: u32) -> Vmid {
        Vmid::new(number).unwrap()
    }

    fn closing(edges: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let mut feeds = FeedGraph::new();
        for (from, to) in edges {
            let (from, to) = (Vertex::Guest(vmid(*from)), Vertex::Guest(vmid(*to)));
            feeds.entry(from).or_default().insert(to);
        }
        let circles = Cycles::of(&feeds);
        edges
            .iter()
            .copied()
            .filter(|(from, to)| {
                circles
                    .back(vmid(*from), &circles.sensors([vmid(*to)]))
                    .is_some()
            })
            .collect()
    }

    #[test]
    fn edges_of_a_circle_are_found_and_those_that_lead_to_it_are_not() {
        assert_eq!(
            closing(&[(1, 2), (2, 3), (3, 1), (4, 1), (3, 5)]),
            [(1, 2), (2, 3), (3, 1)]
        );
        assert_eq!(closing(&[(1, 2), (1, 3), (2, 3)]), []);
        assert_eq!(closing(&[(1, 1), (1, 2)]), [(1, 1)]);
        assert_eq!(
            closing(&[(1, 2), (2, 1), (3, 4), (4, 3), (2, 3)]),
            [(1, 2), (2, 1), (3, 4), (4, 3)]
        );
    }

    #[test]
    fn a_long_chain_does_not_exhaust_the_stack() {
        let edges: Vec<(u32, u32)> = (1..200_000).map(|number| (number, number + 1)).collect();
        assert_eq!(closing(&edges), []);
    }
}
