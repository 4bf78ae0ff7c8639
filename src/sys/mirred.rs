//! Filters of traffic control that copy or divert a device's frames (tc-mirred(8)). pve-span has none: these are others',
//! and `doctor` names them.

use netlink_sys::protocols::NETLINK_ROUTE;

use super::Error;
use super::netlink_attributes::Attributes;
use super::netlink_socket::{Netlink, RequestKind};

/// Where on its device a filter hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The ingress hook (`ingress` or `clsact`).
    Ingress,
    /// The egress hook (`clsact`).
    Egress,
    /// A queueing discipline, by the upper half of its handle.
    Root(u16),
}

/// What it does with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// `mirror`.
    Copies,
    /// `redirect`.
    Diverts,
}

/// A filter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mirred {
    /// Where it hangs.
    pub place: Place,
    /// Its `pref`.
    pub preference: u16,
    /// Its kind: `matchall`, `u32` …
    pub kind: String,
    /// What it does.
    pub action: Action,
    /// The interface index of the other device.
    pub to: u32,
}

/// `RTM_GETTFILTER` (linux/rtnetlink.h).
const GET_FILTER: u16 = 46;

/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)`, `… TC_H_MIN_EGRESS`, and the discipline that a device sends by
/// (linux/pkt_sched.h).
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
const ROOT: u32 = 0;

/// The filters of a device.
///
/// # Errors
/// The kernel does not answer.
pub fn mirred(index: u32) -> Result<Vec<Mirred>, Error> {
    let failed = |source| Error::Socket {
        doing: "listing tc filters",
        source,
    };
    let mut socket = Netlink::open(NETLINK_ROUTE).map_err(failed)?;
    let mut found = Vec::new();
    for parent in [INGRESS, EGRESS, ROOT] {
        // struct tcmsg: family and padding, interface, handle, parent, info.
        let mut body = vec![0; 4];
        for number in [index, 0, parent, 0] {
            body.extend(number.to_ne_bytes());
        }
        socket
            .ask(GET_FILTER, RequestKind::List, &body, |_, answer| {
                found.extend(filters(parent, answer).unwrap_or_default());
            })
            .map_err(failed)?;
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// What a filter's message says of mirred.
fn filters(asked: u32, answer: &[u8]) -> Option<Vec<Mirred>> {
    const KIND: u16 = 1;
    const OPTIONS: u16 = 2;
    let number = |at: usize| Some(u32::from_ne_bytes(*answer.get(at..)?.first_chunk()?));
    let place = match asked {
        INGRESS => Place::Ingress,
        EGRESS => Place::Egress,
        _ => Place::Root(u16::try_from(number(12)? >> 16).ok()?),
    };
    let preference = u16::try_from(number(16)? >> 16).ok()?;
    let attributes = Attributes(answer.get(20..)?);
    let kind = attributes.text(KIND)?;
    let mut actions = Vec::new();
    collect(attributes.nested(OPTIONS)?, 4, &mut actions);
    let mirred = actions.into_iter().map(|(action, to)| Mirred {
        place,
        preference,
        kind: kind.clone(),
        action,
        to,
    });
    Some(mirred.collect())
}

/// Each kind of filter has its actions at a place of its own. An action has its kind and options (`TCA_ACT_KIND`,
/// `TCA_ACT_OPTIONS`), and mirred's options a struct tc_mirred (linux/tc_act/tc_mirred.h).
fn collect(attributes: Attributes<'_>, depth: usize, found: &mut Vec<(Action, u32)>) {
    const KIND: u16 = 1;
    const OPTIONS: u16 = 2;
    const PARMS: u16 = 2;
    if attributes.text(KIND).as_deref() == Some("mirred") {
        let parms = attributes.nested(OPTIONS).and_then(|it| it.get(PARMS));
        found.extend(parms.and_then(parameters));
    } else if depth > 0 {
        for (_, value) in attributes.iter() {
            collect(Attributes(value), depth - 1, found);
        }
    }
}

/// Behind five numbers that each action has.
fn parameters(parms: &[u8]) -> Option<(Action, u32)> {
    let number = |at: usize| Some(u32::from_ne_bytes(*parms.get(at..)?.first_chunk()?));
    let action = match number(20)? {
        // TCA_EGRESS_REDIR, TCA_INGRESS_REDIR.
        1 | 3 => Action::Diverts,
        // TCA_EGRESS_MIRROR, TCA_INGRESS_MIRROR.
        2 | 4 => Action::Copies,
        _ => return None,
    };
    Some((action, number(24)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_answer_ends(bytes: Vec<u8>) {
            let _ = filters(ROOT, &bytes);
        }
    }
}
