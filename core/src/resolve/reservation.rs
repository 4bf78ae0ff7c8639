//! Which ports are outputs, and so carry copies only: no group takes them. One that is refused carries what it always did.
//!
//! Whether a guest's NIC is free is told by its guest's config alone. Ports of the node depend on each other: two may be free one
//! by one, and together cut something off. The names of their sessions decide which of them is one, not who was there
//! first: what a node does must not depend on its past.

use std::collections::{BTreeMap, BTreeSet};

use super::need::Need;
use super::outputs::{Outputs, Place, Target};
use super::session::phase;
use crate::config::Session;
use crate::config::selector::Output;
use crate::model::{IfName, SessionName};
use crate::state::{Assumptions, Fault, SessionPhase};

/// An output that is here.
#[derive(Clone, Copy)]
struct Placed<'a> {
    session: &'a Session,
    output: &'a Output,
    target: Target<'a>,
}

/// Finds out which outputs are served, and whose; what keeps ports from being one beside others is noted in `outputs`.
pub fn reserve<'a>(
    outputs: &mut Outputs<'a>,
    assume: &Assumptions,
) -> BTreeMap<IfName, &'a SessionName> {
    let sessions = outputs.annotations.sessions.values();
    let running = sessions.filter(|session| phase(session, assume) == SessionPhase::Running);
    let all =
        running.flat_map(|session| session.outputs.iter().map(move |at| (session, &at.value)));
    let placed = all.filter_map(|(session, output)| match outputs.place(output) {
        Ok(Place::Port(target)) if target.is_reserved_by(session) => Some(Placed {
            session,
            output,
            target,
        }),
        _ => None,
    });
    let (ports, nics): (Vec<_>, Vec<_>) =
        placed.partition(|placed| matches!(placed.output, Output::Port(_)));
    let mut reserved = BTreeMap::new();
    for nic in nics {
        add(nic, outputs, &mut reserved);
    }
    let nics = outputs.reserved.clone();
    let mut served: Vec<Placed<'a>> = Vec::new();
    let mut refused: BTreeSet<&IfName> = BTreeSet::new();
    for port in ports {
        let name = port.target.device;
        // All sessions that name it think alike of it, but for `capture-only`.
        let is_known = outputs.reserved.contains(name)
            || refused.contains(name) && !port.session.confirms(port.output);
        if is_known {
            continue;
        }
        outputs.conflicts.remove(name);
        match compatibility(outputs, port, &served, &nics) {
            Compatibility::WithAll => {
                add(port, outputs, &mut reserved);
                served.push(port);
            }
            Compatibility::Refused => drop(refused.insert(name)),
            Compatibility::ConflictsWith(other) => {
                refused.insert(name);
                let need = Need::Conflict(name.clone(), other);
                outputs.conflicts.insert(name.clone(), Some(need));
            }
            Compatibility::Unknown => {
                outputs.conflicts.insert(name.clone(), None);
                add(port, outputs, &mut reserved);
                served.push(port);
            }
        }
    }
    reserved
}

/// Is it served, or may be?
fn is_served(outputs: &Outputs<'_>, placed: Placed<'_>) -> bool {
    let served = outputs.serve(placed.session, placed.output);
    matches!(served, Ok(_) | Err(Fault::Unknown(_)))
}

/// Adds an output that is served. Of one that may be, nobody can tell whether a group takes it.
fn add<'a>(
    placed: Placed<'a>,
    outputs: &mut Outputs<'_>,
    reserved: &mut BTreeMap<IfName, &'a SessionName>,
) {
    match outputs.serve(placed.session, placed.output) {
        Ok(_) => {
            for port in placed.target.ports() {
                outputs.reserved.insert(port.clone());
                outputs.undetermined.remove(&port);
                reserved.insert(port, &placed.session.name);
            }
        }
        Err(Fault::Unknown(_)) => {
            let ports = placed.target.ports();
            let unclear = ports.filter(|port| !outputs.reserved.contains(port));
            let unclear: Vec<IfName> = unclear.collect();
            outputs.undetermined.extend(unclear);
        }
        Err(_) => {}
    }
}

/// Can a port be an output beside others?
enum Compatibility {
    /// Beside all that there are.
    WithAll,
    /// Not even alone.
    Refused,
    /// Not beside this one.
    ConflictsWith(IfName),
    /// Not if one is served of which nobody can tell.
    Unknown,
}

fn compatibility(
    outputs: &mut Outputs<'_>,
    port: Placed<'_>,
    served: &[Placed<'_>],
    nics: &BTreeSet<IfName>,
) -> Compatibility {
    let is_certain = |placed: &&Placed<'_>| !outputs.undetermined.contains(placed.target.device);
    let certain: Vec<Placed<'_>> = served.iter().filter(is_certain).copied().collect();
    let mut is_served_beside = |placed: Placed<'_>, others: BTreeSet<IfName>| {
        let before = std::mem::replace(&mut outputs.reserved, others);
        let is = is_served(outputs, placed);
        outputs.reserved = before;
        is
    };
    let with = |others: &[Placed<'_>]| -> BTreeSet<IfName> {
        let others = others.iter().flat_map(|other| other.target.ports());
        nics.iter().cloned().chain(others).collect()
    };
    if !is_served_beside(port, with(&[])) {
        return Compatibility::Refused;
    }
    // The first of them beside which it is none, or which would be none beside it.
    let mut conflict = |among: &[Placed<'_>]| {
        let mut until = with(&[]);
        let all: BTreeSet<IfName> = with(among).into_iter().chain(port.target.ports()).collect();
        let other = among.iter().find(|other| {
            until.extend(other.target.ports());
            !is_served_beside(port, until.clone()) || !is_served_beside(**other, all.clone())
        });
        other.map(|other| other.target.device.clone())
    };
    match (conflict(&certain), conflict(served)) {
        (Some(other), _) => Compatibility::ConflictsWith(other),
        (None, Some(_)) => Compatibility::Unknown,
        (None, None) => Compatibility::WithAll,
    }
}
