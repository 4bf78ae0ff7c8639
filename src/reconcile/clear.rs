//! Takes mirrors of ours away, whatever span.cfg says of them.

use std::collections::BTreeSet;

use super::observe::Look;
use pve_span_core::engine::nft::NftState;
use pve_span_core::engine::nft::names;
use pve_span_core::engine::nft::names::ChainName;
use pve_span_core::model::{IfName, OutputKey, SessionName};
use pve_span_core::state::{Desired, Observed, OvsState, SessionPhase};

/// What shall be there when mirrors of ours are cleared, whatever the annotations say. Sessions that stay go on as the
/// annotations say, since what they deliver may have depended on the others; or as they are, where nobody can tell.
pub fn cleared(look: &mut Look, sessions: Option<&BTreeSet<SessionName>>) {
    let Some(chosen) = sessions else {
        look.desired = Desired::default();
        look.desired.why = Some("cleared");
        return;
    };
    let mut stay = ours(&look.observed);
    stay.retain(|session| !chosen.contains(session));
    let desired = &mut look.desired;
    desired.why = Some("cleared");
    desired
        .mirrors
        .retain(|key, _| stay.contains(&key.of.session));
    desired.copies.retain(|key, _| stay.contains(&key.session));
    // An output that was made ready for a session that has no sources now stays so, and no other one is made ready.
    let saved = &look.observed.saved;
    let idle: BTreeSet<&SessionName> = desired
        .sessions
        .iter()
        .filter(|state| state.present.is_empty())
        .map(|state| &state.name)
        .collect();
    for source in desired.listening.values_mut() {
        source.of.retain(|session| stay.contains(session));
    }
    desired.listening.retain(|_, source| !source.of.is_empty());
    let held = &mut desired.held;
    held.sessions.retain(|session| !chosen.contains(session));
    held.outputs.retain(|key| !chosen.contains(&key.session));
    let drops = |device: &IfName| look.observed.nft.has_chain(&names::drop(device));
    desired.outputs.retain(|device, output| {
        output.of.retain(|key| !chosen.contains(&key.session));
        let any = |is: &dyn Fn(&OutputKey) -> bool| output.of.iter().any(is);
        any(&|key| stay.contains(&key.session) || held.holds(key))
            || (saved.contains_key(device) || drops(device))
                && any(&|key| idle.contains(&key.session))
    });
    let runs = |session: &SessionName| {
        let mut states = desired.sessions.iter();
        states.any(|state| state.name == *session && state.phase == SessionPhase::Running)
    };
    let unlisted = stay.into_iter().filter(|session| !runs(session));
    let unlisted: Vec<SessionName> = unlisted.collect();
    desired.held.sessions.extend(unlisted);
}

/// The sessions that something on this node is of.
pub fn ours(observed: &Observed) -> BTreeSet<SessionName> {
    let mut sessions = BTreeSet::new();
    if let OvsState::Present(ovs) = &observed.ovs {
        let mirrors = ovs
            .bridges
            .values()
            .flat_map(|bridge| bridge.mirrors.values());
        sessions.extend(mirrors.filter_map(|mirror| Some(mirror.mark.as_ref()?.session.clone())));
    }
    if let NftState::Present(seen) = &observed.nft {
        let own = seen
            .chains
            .keys()
            .filter_map(|name| match names::read(name) {
                ChainName::Own { session, .. } => Some(SessionName::from_mark(session)),
                _ => None,
            });
        sessions.extend(own);
    }
    sessions
}
