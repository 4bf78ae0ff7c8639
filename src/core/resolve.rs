//! Sessions, cluster and this node's ports → [`Desired`].
//!
//! A source is whatever port exists here, wherever its config is filed. Whatever cannot be served
//! is said in the session's state; it never takes another session or output down with it.

mod matching;
mod outputs;
pub mod references;

use std::collections::{BTreeMap, BTreeSet};

use super::annotations::{Annotations, EngineChoice, Point, Session, Switch, reaches};
use super::cluster::Cluster;
use super::model::{IfName, NicId, SessionName, Vmid};
use super::ports::{BridgeKind, Port, PortMap};
use super::selector::{Output, Selector};
use super::state::{
    Assumptions, Desired, MirrorConfig, MirrorKey, MirrorOutput, Observed, OutputState,
    SessionPhase, SessionState, SourceState, Taken, UnpluggedSource, Wanted,
};
use matching::{Matcher, Subject, Truth, whole_bridges};
use outputs::{Outputs, Place};

/// Works out what this node shall do.
pub fn resolve(
    annotations: &Annotations,
    cluster: &Cluster,
    observed: &Observed,
    assume: &Assumptions,
) -> Desired {
    let mut map = PortMap::new(observed);
    map.ports.retain(|_, port| {
        port.nic
            .as_ref()
            .is_none_or(|nic| !assume.gone.contains(&nic.id.vmid))
    });
    map.unplugged
        .retain(|nic, _| !assume.gone.contains(&nic.vmid));

    let sensors = sensors(annotations.sessions.values());
    let matcher = Matcher {
        cluster,
        sensors: &sensors,
    };
    let outputs = Outputs {
        map: &map,
        observed,
        cluster,
    };
    let reserved = reserved_ports(annotations, &map);

    let mut choices: BTreeMap<&SessionName, Choice<'_>> = BTreeMap::new();
    for (name, session) in &annotations.sessions {
        choices.insert(name, choose(session, &map, &matcher, &reserved));
    }
    drop_loops(annotations, &mut choices, assume);

    let mut desired = Desired::default();
    for (name, session) in &annotations.sessions {
        let phase = phase(session, assume);
        let choice = choices.remove(name).unwrap_or_default();
        let total = total(session, &matcher, &choice);
        let mut state = SessionState {
            name: name.clone(),
            phase,
            present: choice.present(),
            unplugged: unplugged(session, &outputs, &matcher),
            total,
            outputs: Vec::new(),
            notes: choice.notes.clone(),
        };
        match state.phase {
            SessionPhase::Running => place(session, &choice, &outputs, &mut state, &mut desired),
            SessionPhase::Refused(_) => {
                desired.held.insert(name.clone());
            }
            SessionPhase::Disabled | SessionPhase::Expired => {}
        }
        desired.sessions.push(state);
    }
    desired
}

fn phase(session: &Session, assume: &Assumptions) -> SessionPhase {
    if session.enabled == Switch::No {
        SessionPhase::Disabled
    } else if session.has_expired(assume.now) {
        SessionPhase::Expired
    } else if session.unsupported.is_empty() {
        SessionPhase::Running
    } else {
        SessionPhase::Refused(session.unsupported.join("; "))
    }
}

/// The guests behind outputs.
fn sensors<'a>(sessions: impl Iterator<Item = &'a Session>) -> BTreeSet<Vmid> {
    sessions
        .flat_map(|session| &session.outputs)
        .filter_map(|output| match output.value {
            Output::Nic(nic) => Some(nic.vmid),
            _ => None,
        })
        .collect()
}

/// The ports that are an output of any session: they carry copies only, so no group takes them.
fn reserved_ports(annotations: &Annotations, map: &PortMap) -> BTreeSet<IfName> {
    let outputs = annotations
        .sessions
        .values()
        .flat_map(|session| &session.outputs);
    outputs
        .filter_map(|output| match &output.value {
            Output::Nic(nic) => map.of_nic(*nic).map(|port| port.name.clone()),
            Output::Port(port) => Some(port.clone()),
            _ => None,
        })
        .collect()
}

/// What a session takes on this node.
#[derive(Default)]
struct Choice<'a> {
    ports: BTreeMap<&'a IfName, &'a Port>,
    undecided: BTreeMap<&'a IfName, &'a Port>,
    /// Whole bridges.
    bridges: BTreeMap<&'a IfName, Whole>,
    notes: Vec<String>,
}

/// How a whole bridge is taken. That the file decides this, and not who is running, keeps one guest's
/// stop from touching the others' part of a mirror.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    /// By the bridge: whatever is plugged in, now and later.
    Everything,
    /// Port by port, since something may have to be left out.
    ByPort,
}

impl Choice<'_> {
    fn present(&self) -> Vec<SourceState> {
        let bridges = self.bridges.keys().map(|bridge| SourceState {
            nic: None,
            port: (*bridge).clone(),
            bridge: (*bridge).clone(),
            refused: None,
        });
        let ports = self
            .ports
            .values()
            .filter(|port| !self.bridges.contains_key(&port.bridge))
            .map(|port| SourceState {
                nic: port.nic.as_ref().map(|nic| nic.id),
                port: port.name.clone(),
                bridge: port.bridge.clone(),
                refused: None,
            });
        bridges.chain(ports).collect()
    }
}

fn choose<'a>(
    session: &'a Session,
    map: &'a PortMap,
    matcher: &Matcher<'_>,
    reserved: &BTreeSet<IfName>,
) -> Choice<'a> {
    let mut choice = Choice::default();
    let own_sensors = sensors(std::iter::once(session));
    for bridge in whole_bridges(session).filter(|bridge| map.bridges.contains_key(*bridge)) {
        let whole = if session.exclude.is_empty() {
            Whole::Everything
        } else {
            Whole::ByPort
        };
        choice.bridges.insert(bridge, whole);
    }
    for port in map.ports.values() {
        let subject = Subject::from(port);
        let by_name = session
            .sources
            .iter()
            .any(|source| names(&source.value, subject));
        if reserved.contains(&port.name) && !by_name {
            continue;
        }
        let truth = matcher.takes(session, subject);
        let is_whole = choice.bridges.contains_key(&port.bridge);
        let sensor = subject
            .nic
            .filter(|nic| own_sensors.contains(&nic.vmid) && !is_whole);
        match (truth, sensor) {
            (Truth::Yes, Some(nic)) => {
                choice.notes.push(format!(
                    "{nic} is left out: guest {} is the sensor of this session",
                    nic.vmid
                ));
            }
            (Truth::Yes, None) => {
                choice.ports.insert(&port.name, port);
            }
            (Truth::Unknown, None) => {
                choice.undecided.insert(&port.name, port);
            }
            _ => {}
        }
    }
    if !choice.undecided.is_empty() {
        let ports: Vec<&str> = choice.undecided.keys().map(|port| port.as_str()).collect();
        let why = unknown_reason(session, matcher.cluster, &choice);
        choice.notes.push(format!(
            "cannot tell whether it takes {}: {why}; what is mirrored stays so",
            ports.join(", ")
        ));
    }
    choice
}

/// Does the selector name this very port or guest, rather than a group that it is in?
fn names(selector: &Selector, subject: Subject<'_>) -> bool {
    match selector {
        Selector::Guests { low, high, nic } => subject.nic.is_some_and(|id| {
            low == high && id.vmid == *low && nic.is_none_or(|nic| nic == id.index)
        }),
        Selector::Port(port) => subject.port == Some(port.as_str()),
        _ => false,
    }
}

fn unknown_reason(session: &Session, cluster: &Cluster, choice: &Choice<'_>) -> String {
    let selectors = || {
        session
            .sources
            .iter()
            .chain(&session.exclude)
            .map(|at| &at.value)
    };
    if let Err(why) = &cluster.pools {
        if selectors().any(|selector| matches!(selector, Selector::Pool(_))) {
            return why.to_string();
        }
    }
    if let Err(why) = &cluster.this {
        if selectors().any(|selector| matches!(selector, Selector::Node(..))) {
            return why.to_string();
        }
    }
    let nics = choice
        .undecided
        .values()
        .filter_map(|port| port.nic.as_ref());
    let mut reasons = nics.map(|nic| match cluster.guests.get(&nic.id.vmid) {
        Some(Err(why)) => why.to_string(),
        _ => match &cluster.placements {
            Err(why) => why.to_string(),
            Ok(_) => format!("there is no config of guest {}", nic.id.vmid),
        },
    });
    reasons.next().unwrap_or_else(|| "not known".into())
}

/// Groups (tags, pools, ranges) must not close a loop over several sessions: whoever may tag a guest
/// could otherwise make sensors feed each other. Loops by number are refused with the file.
fn drop_loops(
    annotations: &Annotations,
    choices: &mut BTreeMap<&SessionName, Choice<'_>>,
    assume: &Assumptions,
) {
    let mut feeds: BTreeMap<Vmid, BTreeSet<Vmid>> = BTreeMap::new();
    for (name, session) in &annotations.sessions {
        let Some(choice) = choices
            .get(name)
            .filter(|_| phase(session, assume) == SessionPhase::Running)
        else {
            continue;
        };
        for nic in choice.ports.values().filter_map(|port| port.nic.as_ref()) {
            feeds
                .entry(nic.id.vmid)
                .or_default()
                .extend(sensors(std::iter::once(session)));
        }
    }
    for (name, session) in &annotations.sessions {
        let Some(choice) = choices.get_mut(name) else {
            continue;
        };
        let own = sensors(std::iter::once(session));
        let mut notes = Vec::new();
        choice.ports.retain(|_, port| {
            let Some(nic) = &port.nic else { return true };
            let by_name = session
                .sources
                .iter()
                .any(|source| names(&source.value, Subject::from(*port)));
            let looped = own
                .iter()
                .find(|sensor| reaches(&feeds, **sensor, nic.id.vmid));
            match looped {
                Some(sensor) if !by_name => {
                    notes.push(format!(
                        "{} is left out: guest {sensor} feeds it in turn, a loop",
                        nic.id
                    ));
                    false
                }
                _ => true,
            }
        });
        choice.notes.extend(notes);
    }
}

/// The NICs that the session takes and that are in no bridge.
fn unplugged(
    session: &Session,
    outputs: &Outputs<'_>,
    matcher: &Matcher<'_>,
) -> Vec<UnpluggedSource> {
    let own = sensors(std::iter::once(session));
    let taken = outputs.map.unplugged.iter().filter(|(nic, _)| {
        let subject = Subject {
            nic: Some(**nic),
            port: None,
            bridge: "",
        };
        !own.contains(&nic.vmid) && matcher.takes(session, subject) == Truth::Yes
    });
    taken
        .map(|(nic, device)| UnpluggedSource {
            nic: *nic,
            why: outputs.why_unplugged(device).to_string(),
        })
        .collect()
}

/// How many sources the session has here, those that are off included.
fn total(session: &Session, matcher: &Matcher<'_>, choice: &Choice<'_>) -> usize {
    let cluster = matcher.cluster;
    let present: BTreeSet<_> = choice
        .present()
        .into_iter()
        .map(|source| source.nic.ok_or(source.port))
        .collect();
    let configured = cluster
        .guests
        .values()
        .flatten()
        .filter(|guest| !guest.template && cluster.is_here(guest.vmid) == Some(true));
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
    present.len() + off.count() + absent.count()
}

/// Lays a running session out over the bridges.
fn place(
    session: &Session,
    choice: &Choice<'_>,
    outputs: &Outputs<'_>,
    state: &mut SessionState,
    desired: &mut Desired,
) {
    let mut reached: BTreeSet<IfName> = BTreeSet::new();
    let mut reasons: BTreeMap<IfName, String> = BTreeMap::new();
    for output in &session.outputs {
        let spelled = output.value.to_string();
        let (engine, fault) = match outputs.place(&output.value) {
            Err(fault) => (None, Some(fault)),
            Ok(place) => {
                let bridges: BTreeSet<&IfName> = match place {
                    Place::Port(port) => [&port.bridge].into(),
                    Place::Vlan(_) => source_bridges(choice, outputs.map),
                };
                for bridge in &bridges {
                    let wanted = on_bridge(
                        session,
                        choice,
                        outputs.map,
                        bridge,
                        &place,
                        &mut reasons,
                        &mut reached,
                    );
                    if let Some(wanted) = wanted {
                        let key = MirrorKey {
                            bridge: (*bridge).clone(),
                            session: session.name.clone(),
                            output: spelled.clone(),
                        };
                        desired.mirrors.insert(key, wanted);
                    }
                }
                for (port, bridge) in sources(choice) {
                    if !bridges.contains(bridge) {
                        reasons
                            .entry(port.clone())
                            .or_insert_with(|| not_on(bridge, &bridges, &spelled, outputs.map));
                    }
                }
                (Some(engine(session, &place, &bridges)), None)
            }
        };
        state.outputs.push(OutputState {
            output: spelled,
            engine,
            fault,
        });
    }
    for source in &mut state.present {
        if !reached.contains(&source.port) {
            source.refused = reasons.get(&source.port).cloned();
        }
    }
}

/// The engine and why: so far there is one, and it mirrors within a bridge.
fn engine(session: &Session, place: &Place<'_>, bridges: &BTreeSet<&IfName>) -> String {
    let why = match (session.engine, place) {
        (EngineChoice::Ovs, _) => "as asked",
        (_, Place::Vlan(_)) => "RSPAN",
        (_, Place::Port(_)) => "same bridge",
    };
    let names: Vec<&str> = bridges.iter().map(|bridge| bridge.as_str()).collect();
    let place = if names.is_empty() {
        String::new()
    } else {
        format!(", {}", names.join(" and "))
    };
    format!("ovs: {why}{place}")
}

fn sources<'c>(choice: &'c Choice<'_>) -> impl Iterator<Item = (&'c IfName, &'c IfName)> {
    let bridges = choice.bridges.keys().map(|bridge| (*bridge, *bridge));
    bridges.chain(choice.ports.values().map(|port| (&port.name, &port.bridge)))
}

fn source_bridges<'c>(choice: &'c Choice<'_>, map: &PortMap) -> BTreeSet<&'c IfName> {
    let undecided = choice.undecided.values().map(|port| &port.bridge);
    let bridges = sources(choice).map(|(_, bridge)| bridge).chain(undecided);
    bridges
        .filter(|bridge| map.bridges.get(*bridge) == Some(&BridgeKind::Ovs))
        .collect()
}

fn not_on(bridge: &IfName, bridges: &BTreeSet<&IfName>, output: &str, map: &PortMap) -> String {
    let lacks = "needs the nft engine, which this version does not have";
    if map.bridges.get(bridge) == Some(&BridgeKind::Linux) {
        return format!("it is on the Linux bridge {bridge}, which {lacks}");
    }
    let there: Vec<&str> = bridges.iter().map(|bridge| bridge.as_str()).collect();
    format!(
        "it is on {bridge} and output {output} on {}: mirroring across bridges {lacks}",
        there.join(", ")
    )
}

/// One bridge's part of a session; nothing when there is nothing to take.
fn on_bridge(
    session: &Session,
    choice: &Choice<'_>,
    map: &PortMap,
    bridge: &IfName,
    place: &Place<'_>,
    reasons: &mut BTreeMap<IfName, String>,
    reached: &mut BTreeSet<IfName>,
) -> Option<Wanted> {
    let output = match place {
        Place::Port(port) => MirrorOutput::Port(port.name.clone()),
        Place::Vlan(vlan) => MirrorOutput::Vlan(*vlan),
    };
    let mut config = MirrorConfig {
        vlans: session.vlans.clone(),
        snaplen: session.snaplen,
        output,
        ..MirrorConfig::default()
    };
    let is_output = |port: &IfName| matches!(place, Place::Port(output) if output.name == *port);
    let whole = choice.bridges.get(bridge);
    if whole == Some(&Whole::Everything) {
        config.all = true;
    } else {
        let taken = Taken::new(
            session.direction.takes_sent(),
            session.direction.takes_delivered(),
        );
        for (name, port) in choice
            .ports
            .iter()
            .filter(|(name, port)| port.bridge == *bridge && !is_output(name))
        {
            let firewall = port
                .nic
                .as_ref()
                .and_then(|nic| nic.firewall_bridge.as_ref());
            if let (Point::Guest, Some(firewall)) = (session.point, firewall) {
                let reason = format!(
                    "`point = guest` behind the firewall bridge {firewall} needs the nft engine, which this version does not have"
                );
                reasons.insert((*name).clone(), reason);
                continue;
            }
            // A whole bridge is every frame, so both directions of what is left of it.
            let taken = if whole.is_some() {
                Some(Taken::Both)
            } else {
                taken
            };
            if let Some(taken) = taken {
                config.ports.insert((*name).clone(), taken);
                reached.insert((*name).clone());
            }
        }
    }
    if whole.is_some() && map.bridges.contains_key(bridge) {
        reached.insert(bridge.clone());
    }
    let undecided: BTreeSet<IfName> = if config.all {
        BTreeSet::new()
    } else {
        let here = choice
            .undecided
            .iter()
            .filter(|(name, port)| port.bridge == *bridge && !is_output(name));
        here.map(|(name, _)| (*name).clone()).collect()
    };
    let nothing = !config.all && config.ports.is_empty() && undecided.is_empty();
    (!nothing).then_some(Wanted { config, undecided })
}

#[cfg(test)]
mod tests;
