//! Rules joined to sessions: those with the same output are one session for each direction, and sessions that differ in
//! their output alone are one.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{Draft, Origin, Rule, guest_of};
use crate::config::selector::{Output, Selector};
use crate::model::{Taken, VlanSet};

/// The most sources of a session; more are several sessions, since a list in span.cfg has an end.
const MOST_SOURCES: usize = 500;

/// What rules of one session have in common.
type Frames = (VlanSet, Option<u16>);

#[derive(Default)]
struct Source {
    sent: bool,
    delivered: bool,
    origins: BTreeSet<usize>,
}

/// Joins the rules. The origins are told of sources that cannot be any.
pub fn merge(rules: &[Rule], origins: &mut [Origin]) -> Vec<Draft> {
    let mut outputs: BTreeMap<(&Output, Frames), BTreeMap<&Selector, Source>> = BTreeMap::new();
    for rule in rules {
        if let (Output::Nic(sensor), Some(guest)) = (&rule.output, guest_of(&rule.source)) {
            if sensor.vmid == guest {
                if let Some(origin) = origins.get_mut(rule.origin) {
                    origin.left_out.push(format!(
                        "without its source {}: guest {guest} is the sensor, and would be fed with what it gets",
                        rule.source
                    ));
                }
                continue;
            }
        }
        let frames = (rule.vlans.clone(), rule.snaplen);
        let sources = outputs.entry((&rule.output, frames)).or_default();
        let source = sources.entry(&rule.source).or_default();
        source.sent |= rule.taken.sent();
        source.delivered |= rule.taken.delivered();
        source.origins.insert(rule.origin);
    }
    join(outputs)
}

fn join(outputs: BTreeMap<(&Output, Frames), BTreeMap<&Selector, Source>>) -> Vec<Draft> {
    type Key<'a> = (Vec<&'a Selector>, Taken, Frames);
    let mut sessions: BTreeMap<Key<'_>, (Vec<Output>, BTreeSet<usize>)> = BTreeMap::new();
    for ((output, frames), sources) in outputs {
        for taken in [Taken::Both, Taken::Sent, Taken::Delivered] {
            let of: Vec<(&Selector, &Source)> = sources
                .iter()
                .filter(|(_, source)| Taken::new(source.sent, source.delivered) == Some(taken))
                .map(|(selector, source)| (*selector, source))
                .collect();
            for part in of.chunks(MOST_SOURCES) {
                let selectors = part.iter().map(|(selector, _)| *selector).collect();
                let session = sessions.entry((selectors, taken, frames.clone()));
                let (outputs, origins) = session.or_default();
                outputs.push(output.clone());
                origins.extend(part.iter().flat_map(|(_, source)| &source.origins));
            }
        }
    }
    let draft = |((sources, taken, (vlans, snaplen)), (outputs, origins)): (Key<'_>, _)| Draft {
        name: String::new(),
        sources: sources.into_iter().cloned().collect(),
        taken,
        outputs,
        vlans,
        snaplen,
        origins: BTreeSet::into_iter(origins).collect(),
        overrides: Vec::new(),
        notes: Vec::new(),
        refused: None,
        covered: None,
    };
    let mut drafts: Vec<Draft> = sessions.into_iter().map(draft).collect();
    // As they stood: the old mirrors' order is the administrator's.
    let order = |draft: &Draft| {
        (
            draft.origins.clone(),
            draft.taken != Taken::Both,
            draft.taken,
        )
    };
    drafts.sort_by_cached_key(order);
    drafts
}
