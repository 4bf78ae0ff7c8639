//! Sessions, cluster and this node's ports → [`Desired`].
//!
//! A source is whatever port exists here, wherever its config is filed. Whatever cannot be served
//! is said in the session's state; it never takes another session or output down with it.

pub mod scope;

pub mod availability;
pub mod cluster_sources;
pub(crate) mod engine_choice;
pub mod firewall;
mod index;
mod layout;
mod matcher;
mod need;
mod nft;
pub mod node_checks;
mod offload;
mod output_notes;
mod outputs;
mod reachability;
pub mod reasons;
pub mod references;
mod reservation;
pub(crate) mod selection;
mod session;

use std::collections::{BTreeMap, BTreeSet};

use super::config::selector::Selector;
use super::config::{Annotations, PreStop, Session};
use super::model::{IfName, NicId, SessionName, Vmid, port_owner};
use super::pve::cluster::Cluster;
use super::state::port_map::PortMap;
use super::state::{
    Assumptions, Desired, DownRole, LinkState, Observed, PortDown, SessionPhase, SessionState,
    SourceState, UnpluggedSource,
};
use index::Index;
use layout::place;
use matcher::{Matcher, Subject, Truth, Verdict, whole_bridges};
use outputs::Outputs;
use reservation::reserve;
use selection::{Choice, Decision, OnWhole, choose, decide, drop_loops};
use session::{named_ports, phase, sensors};

/// Works out what this node shall do.
pub fn resolve(
    annotations: &Annotations,
    cluster: &Cluster,
    observed: &Observed,
    assume: &Assumptions,
) -> Desired {
    let sensors = sensors(annotations.sessions.values());
    let matcher = Matcher {
        cluster,
        sensors: &sensors,
    };
    // A session sees a guest that is about to stop, or does not: as it asks.
    let without = ports(annotations, observed, &assume.gone);
    let keeps = |session: &Session| session.pre_stop == PreStop::Keep && !assume.gone.is_empty();
    let is_kept = annotations.sessions.values().any(keeps);
    let with = is_kept.then(|| ports(annotations, observed, &BTreeSet::new()));
    let view = |map| View::new(map, annotations, observed, cluster, assume);
    let (without, with) = (view(&without), with.as_ref().map(view));
    let of = |session: &Session| with.as_ref().filter(|_| keeps(session)).unwrap_or(&without);
    let mut choices = choices(annotations, &matcher, assume, of);

    let knows_all = knows_all_guests(cluster);
    let mut desired = Desired::default();
    for (name, session) in &annotations.sessions {
        let phase = phase(session, assume);
        let View {
            outputs,
            reserved,
            index,
        } = of(session);
        let choice = choices.remove(name).unwrap_or_default();
        let (known, absent) = total(session, index, &matcher, &choice);
        let is_running = phase == SessionPhase::Running;
        let mut state = SessionState {
            name: name.clone(),
            phase,
            present: choice.present(),
            unplugged: unplugged(session, outputs, &matcher),
            down: if is_running {
                down(&choice, outputs)
            } else {
                Vec::new()
            },
            total: known + absent,
            left_out: choice.left_out(),
            has_no_source: known == 0 && choice.unknown.is_empty() && knows_all,
            outputs: Vec::new(),
            unknown: choice.unknown.clone(),
            notes: choice.notes.clone(),
        };
        if is_running {
            state.notes.extend(firewall::notes(&choice, cluster));
            place(
                session,
                &choice,
                outputs,
                reserved,
                &mut state,
                &mut desired,
            );
        }
        if is_running && choice.waits_for_ovs() {
            desired.waiting.insert(name.clone());
        }
        desired.sessions.push(state);
    }
    desired
}

/// Are the configs of all guests known that are filed on this node?
fn knows_all_guests(cluster: &Cluster) -> bool {
    let (Ok(placements), Ok(this)) = (&cluster.placements, &cluster.this) else {
        return false;
    };
    let mut here = placements.iter().filter(|(_, placed)| placed.node == *this);
    here.all(|(vmid, _)| cluster.guest(*vmid).is_some())
}

/// The ports that are looked at: all, and the devices by themselves that sessions name, without those of guests that
/// count as gone.
fn ports(annotations: &Annotations, observed: &Observed, gone: &BTreeSet<Vmid>) -> PortMap {
    let mut map = PortMap::new(observed);
    for name in annotations.sessions.values().flat_map(named_ports) {
        map.add_alone(name, observed);
    }
    for ports in [&mut map.ports, &mut map.enslaved] {
        ports.retain(|_, port| {
            port.nic
                .as_ref()
                .is_none_or(|nic| !gone.contains(&nic.id.vmid))
        });
    }
    map.unplugged.retain(|nic, _| !gone.contains(&nic.vmid));
    if let Some(devices) = &mut map.perhaps_on_ovs {
        let is_gone = |nic: NicId| gone.contains(&nic.vmid);
        devices.retain(|name| port_owner(name.as_str()).is_none_or(|(nic, _)| !is_gone(nic)));
    }
    map
}

/// The ports as a session sees them.
struct View<'a> {
    outputs: Outputs<'a>,
    reserved: BTreeMap<IfName, &'a SessionName>,
    index: Index<'a>,
}

impl<'a> View<'a> {
    fn new(
        map: &'a PortMap,
        annotations: &'a Annotations,
        observed: &'a Observed,
        cluster: &'a Cluster,
        assume: &Assumptions,
    ) -> Self {
        let mut outputs = Outputs {
            map,
            observed,
            cluster,
            annotations,
            reserved: BTreeSet::new(),
            undetermined: BTreeSet::new(),
            conflicts: BTreeMap::new(),
        };
        let reserved = reserve(&mut outputs, assume);
        Self {
            outputs,
            reserved,
            index: Index::new(map, cluster),
        }
    }
}

/// What each session takes, of what it sees.
fn choices<'a: 'v, 'v>(
    annotations: &'a Annotations,
    matcher: &Matcher<'_>,
    assume: &Assumptions,
    of: impl Fn(&Session) -> &'v View<'a>,
) -> BTreeMap<&'a SessionName, Choice<'a>> {
    let mut choices: BTreeMap<&SessionName, Choice<'a>> = BTreeMap::new();
    for (name, session) in &annotations.sessions {
        let view = of(session);
        let map = view.outputs.map;
        let outputs = (&view.reserved, &view.outputs.undetermined);
        let choice = choose(session, map, &view.index, matcher, outputs);
        choices.insert(name, choice);
    }
    drop_loops(annotations, &mut choices, assume);
    choices
}

/// The NICs that the session takes and that are in no bridge, although their configs say so.
fn unplugged(
    session: &Session,
    outputs: &Outputs<'_>,
    matcher: &Matcher<'_>,
) -> Vec<UnpluggedSource> {
    let taken = outputs.map.unplugged.iter().filter(|(nic, _)| {
        let subject = Subject::unplugged(**nic);
        let decision = decide(session, subject, matcher, None, OnWhole::No);
        matches!(decision, Decision::Words(Verdict::Taken(_)))
            && outputs.cluster.out_of_bridges(**nic).is_none()
    });
    taken
        .map(|(nic, device)| UnpluggedSource {
            nic: *nic,
            why: outputs.why_unplugged(*nic, device).to_string(),
        })
        .collect()
}

/// The sources of nodes' own devices by which no frame comes in. A bridge without carrier is one without a guest that runs.
fn down(choice: &Choice<'_>, outputs: &Outputs<'_>) -> Vec<PortDown> {
    let of = |source: SourceState| {
        let link = outputs.observed.links.get(&source.port);
        let is_whole = choice.bridges.contains_key(&source.port);
        let is_linux = link.is_some_and(|link| link.kind.as_deref() == Some("bridge"));
        let state = outputs.link_state(&source.port)?;
        let is_down = match state {
            LinkState::Up => false,
            LinkState::NoCarrier => !is_whole,
            LinkState::Down => !is_whole || is_linux,
        };
        let word = if is_whole { "bridge" } else { "port" };
        (source.nic.is_none() && is_down).then(|| PortDown {
            port: format!("{word}:{}", source.port),
            device: None,
            role: DownRole::Source,
            state,
        })
    };
    choice.present().into_iter().filter_map(of).collect()
}

/// How many sources the session has here, those that are off included; and how many bridges and ports it names that are not
/// here.
fn total(
    session: &Session,
    index: &Index<'_>,
    matcher: &Matcher<'_>,
    choice: &Choice<'_>,
) -> (usize, usize) {
    let cluster = matcher.cluster;
    let present: BTreeSet<_> = choice
        .present()
        .into_iter()
        .map(|source| source.nic.ok_or(source.port))
        .collect();
    let candidates = index.guests(session);
    let configured = candidates.iter().filter_map(|vmid| cluster.guest(*vmid));
    let configured =
        configured.filter(|guest| !guest.template && cluster.is_here(guest.vmid) == Some(true));
    let nics = configured.flat_map(|guest| {
        guest.nics.iter().filter_map(|(index, nic)| {
            let bridge = nic.bridge.as_deref()?;
            Some((
                NicId {
                    vmid: guest.vmid,
                    index: *index,
                },
                bridge,
            ))
        })
    });
    let own = sensors(std::iter::once(session));
    let off = nics.filter(|(nic, bridge)| {
        let subject = Subject {
            nic: Some(*nic),
            port: None,
            bridge,
        };
        let whole = whole_bridges(session).any(|whole| whole.as_str() == *bridge);
        !whole
            && !own.contains(&nic.vmid)
            && !present.contains(&Ok(*nic))
            && matcher.takes(session, subject) == Truth::Yes
    });
    let absent = session.sources.iter().filter(|source| match &source.value {
        Selector::Bridge(name) | Selector::Port(name) => !present.contains(&Err(name.clone())),
        _ => false,
    });
    (present.len() + off.count(), absent.count())
}
