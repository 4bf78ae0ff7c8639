//! Which of this node's ports a session takes, before anybody asks whether they can be mirrored.

use std::collections::{BTreeMap, BTreeSet};

use super::index::Index;
use super::matching::{Matcher, Subject, Truth, whole_bridges};
use super::{phase, sensors};
use crate::core::annotations::{Annotations, Session};
use crate::core::cluster::Cluster;
use crate::core::loops::{Circles, Feeds, Knot};
use crate::core::model::{IfName, SessionName, Vmid};
use crate::core::ports::{Port, PortMap};
use crate::core::selector::Selector;
use crate::core::state::{Assumptions, SessionPhase, SourceState};

/// What a session takes on this node.
#[derive(Default)]
pub struct Choice<'a> {
    pub ports: BTreeMap<&'a IfName, &'a Port>,
    pub undecided: BTreeMap<&'a IfName, &'a Port>,
    /// Whole bridges.
    pub bridges: BTreeMap<&'a IfName, Whole>,
    pub notes: Vec<String>,
}

/// How a whole bridge is taken. That the file decides this, and not who is running, keeps one guest's
/// stop from touching the others' part of a mirror.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// By the bridge: whatever is plugged in, now and later.
    Everything,
    /// Port by port, since something may have to be left out.
    ByPort,
}

impl Choice<'_> {
    pub fn present(&self) -> Vec<SourceState> {
        let bridges = self.bridges.keys().map(|bridge| SourceState {
            nic: None,
            port: (*bridge).clone(),
            bridge: (*bridge).clone(),
        });
        let ports = self
            .ports
            .values()
            .filter(|port| !self.bridges.contains_key(&port.bridge))
            .map(|port| SourceState {
                nic: port.nic.as_ref().map(|nic| nic.id),
                port: port.name.clone(),
                bridge: port.bridge.clone(),
            });
        bridges.chain(ports).collect()
    }
}

pub fn choose<'a>(
    session: &'a Session,
    map: &'a PortMap,
    index: &Index<'a>,
    matcher: &Matcher<'_>,
    reserved: &BTreeMap<IfName, &SessionName>,
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
    for port in index.ports(session).into_values() {
        let subject = Subject::from(port);
        let by_name = session
            .sources
            .iter()
            .any(|source| names(&source.value, subject));
        let truth = matcher.takes(session, subject);
        let is_whole = choice.bridges.contains_key(&port.bridge);
        let sensor = subject
            .nic
            .filter(|nic| own_sensors.contains(&nic.vmid) && !is_whole);
        if let Some(other) = reserved.get(&port.name).filter(|_| !by_name) {
            if let (Truth::Yes, Some(nic)) = (
                truth,
                subject.nic.filter(|_| *other != &session.name && !is_whole),
            ) {
                choice
                    .notes
                    .push(format!("{nic} is left out: it is an output of {other}"));
            }
            continue;
        }
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
    for source in &session.sources {
        let missing = match &source.value {
            Selector::Bridge(bridge) if !map.bridges.contains_key(bridge) => "bridge",
            Selector::Port(port) if !map.ports.contains_key(port) => "port",
            _ => continue,
        };
        choice.notes.push(format!(
            "there is no such {missing} on this node: {}",
            source.value
        ));
    }
    if !choice.undecided.is_empty() {
        let ports: Vec<String> = choice.undecided.keys().map(ToString::to_string).collect();
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
///
/// A loop that there may be, as nobody can tell what a session takes, changes nothing.
pub fn drop_loops<'a>(
    annotations: &'a Annotations,
    choices: &mut BTreeMap<&'a SessionName, Choice<'_>>,
    assume: &Assumptions,
) {
    let running = annotations
        .sessions
        .values()
        .filter(|session| phase(session, assume) == SessionPhase::Running);
    let running: Vec<&Session> = running.collect();
    let (certain, possible) = {
        let decided = |choice: &Choice<'_>| guests(choice.ports.values());
        let all =
            |choice: &Choice<'_>| guests(choice.ports.values().chain(choice.undecided.values()));
        (
            circles(&running, choices, decided),
            circles(&running, choices, all),
        )
    };
    for session in running {
        let Some(choice) = choices.get_mut(&session.name) else {
            continue;
        };
        let own = sensors(std::iter::once(session));
        let (in_certain, in_possible) =
            (certain.sensors(own.iter().copied()), possible.sensors(own));
        for (name, port) in std::mem::take(&mut choice.ports) {
            let nic = port.nic.as_ref().map(|nic| nic.id);
            let by_name = session
                .sources
                .iter()
                .any(|source| names(&source.value, Subject::from(port)));
            let back = |circles: &Circles<'_>, own| {
                nic.filter(|_| !by_name)
                    .and_then(|nic| circles.back(nic.vmid, own).copied())
            };
            match (
                nic,
                back(&certain, &in_certain),
                back(&possible, &in_possible),
            ) {
                (Some(nic), Some(sensor), _) => {
                    choice.notes.push(format!(
                        "{nic} is left out: guest {sensor} feeds it in turn, a loop"
                    ));
                }
                (Some(nic), None, Some(sensor)) => {
                    choice.notes.push(format!(
                        "cannot tell whether {nic} closes a loop with guest {sensor}; what is mirrored stays so"
                    ));
                    choice.undecided.insert(name, port);
                }
                _ => {
                    choice.ports.insert(name, port);
                }
            }
        }
    }
}

/// The circles of who feeds whom, by what `taken` says of each session.
fn circles<'a>(
    running: &[&'a Session],
    choices: &BTreeMap<&'a SessionName, Choice<'_>>,
    taken: impl Fn(&Choice<'_>) -> BTreeSet<Vmid>,
) -> Circles<'a> {
    let mut feeds = Feeds::new();
    for session in running {
        for guest in choices.get(&session.name).map(&taken).unwrap_or_default() {
            feeds
                .entry(Knot::Guest(guest))
                .or_default()
                .insert(Knot::Session(&session.name));
        }
        let sensors = sensors(std::iter::once(*session));
        feeds
            .entry(Knot::Session(&session.name))
            .or_default()
            .extend(sensors.into_iter().map(Knot::Guest));
    }
    Circles::of(&feeds)
}

fn guests<'p>(ports: impl Iterator<Item = &'p &'p Port>) -> BTreeSet<Vmid> {
    ports
        .filter_map(|port| port.nic.as_ref())
        .map(|nic| nic.id.vmid)
        .collect()
}
