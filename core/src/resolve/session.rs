//! What a session is by itself, whatever is here: whether it runs, and what it names.

use std::collections::BTreeSet;

use crate::config::Session;
use crate::config::selector::{Output, Selector};
use crate::model::{IfName, Switch, Vmid};
use crate::state::{Assumptions, SessionPhase};

pub(super) fn phase(session: &Session, assume: &Assumptions) -> SessionPhase {
    if session.enabled == Switch::No {
        SessionPhase::Disabled
    } else if session.has_expired(assume.now) {
        SessionPhase::Expired
    } else {
        SessionPhase::Running
    }
}

/// The ports that a session names, as sources or as outputs.
pub(super) fn named_ports(session: &Session) -> impl Iterator<Item = &IfName> {
    let sources = session
        .sources
        .iter()
        .filter_map(|source| match &source.value {
            Selector::Port(port) => Some(port),
            _ => None,
        });
    let outputs = session
        .outputs
        .iter()
        .filter_map(|output| match &output.value {
            Output::Port(port) => Some(port),
            _ => None,
        });
    sources.chain(outputs)
}

/// The guests behind outputs.
pub(super) fn sensors<'a>(sessions: impl Iterator<Item = &'a Session>) -> BTreeSet<Vmid> {
    sessions
        .flat_map(|session| &session.outputs)
        .filter_map(|output| match output.value {
            Output::Nic(nic) => Some(nic.vmid),
            _ => None,
        })
        .collect()
}
