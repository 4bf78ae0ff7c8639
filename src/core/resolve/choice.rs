//! Which of this node's ports a session takes, before anybody asks whether they can be mirrored.

use std::collections::BTreeMap;

use super::index::Index;
use super::matching::{Matcher, Subject, Truth, whole_bridges};
use super::{phase, sensors};
use crate::core::annotations::{Annotations, Session};
use crate::core::cluster::Cluster;
use crate::core::loops::{Circles, Feeds, Knot};
use crate::core::model::{IfName, SessionName};
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
pub fn drop_loops(
    annotations: &Annotations,
    choices: &mut BTreeMap<&SessionName, Choice<'_>>,
    assume: &Assumptions,
) {
    let mut feeds = Feeds::new();
    for (name, session) in &annotations.sessions {
        let Some(choice) = choices
            .get(name)
            .filter(|_| phase(session, assume) == SessionPhase::Running)
        else {
            continue;
        };
        for nic in choice.ports.values().filter_map(|port| port.nic.as_ref()) {
            feeds
                .entry(Knot::Guest(nic.id.vmid))
                .or_default()
                .insert(Knot::Session(name));
        }
        let sensors = sensors(std::iter::once(session));
        feeds
            .entry(Knot::Session(name))
            .or_default()
            .extend(sensors.into_iter().map(Knot::Guest));
    }
    let circles = Circles::of(&feeds);
    for (name, session) in &annotations.sessions {
        let Some(choice) = choices.get_mut(name) else {
            continue;
        };
        let own = circles.sensors(sensors(std::iter::once(session)));
        let mut notes = Vec::new();
        choice.ports.retain(|_, port| {
            let Some(nic) = &port.nic else { return true };
            let by_name = session
                .sources
                .iter()
                .any(|source| names(&source.value, Subject::from(*port)));
            let looped = circles.back(nic.id.vmid, &own);
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
