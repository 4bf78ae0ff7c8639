//! Which of this node's ports a session takes, before anybody asks whether they can be mirrored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::index::Index;
use super::matcher::{Matcher, Subject, Truth, Verdict, whole_bridges};
use super::session::{phase, sensors};
use crate::config::cycles::{Cycles, FeedGraph, Vertex};
use crate::config::selector::{Output, Selector};
use crate::config::{Annotations, Session};
use crate::model::{IfName, NicId, SessionName, Vmid, port_owner};
use crate::state::port_map::{BridgeKind, Port, PortMap};
use crate::state::{Assumptions, SessionPhase, SourceState};

/// What a session takes on this node.
#[derive(Default)]
pub struct Choice<'a> {
    pub ports: BTreeMap<&'a IfName, &'a Port>,
    pub undecided: BTreeMap<&'a IfName, &'a Port>,
    /// Whole bridges.
    pub bridges: BTreeMap<&'a IfName, WholeBridgeMode>,
    /// Ports of whole bridges that are no source.
    left_out_ports: BTreeSet<&'a IfName>,
    /// What would close a loop with these sensors, or may, and is left out or undecided for it.
    pub loops: BTreeMap<&'a IfName, Vmid>,
    /// Devices of which only Open vSwitch could tell whether they are sources, and it does not answer.
    pub perhaps_on_ovs: BTreeSet<IfName>,
    /// Bridges and ports that it names and that only such an Open vSwitch could have.
    pub sought: BTreeSet<IfName>,
    /// What nobody can tell.
    pub unknown: Vec<String>,
    pub notes: Vec<String>,
}

/// How a whole bridge is taken. That the file decides this, and not who is running, keeps one guest's
/// stop from touching the others' part of a mirror.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum WholeBridgeMode {
    /// By the bridge: whatever is plugged in, now and later.
    Everything,
    /// Port by port, since something may have to be left out.
    ByPort,
}

impl Choice<'_> {
    /// Is there a part of it of which only Open vSwitch could tell, which does not answer?
    pub fn waits_for_ovs(&self) -> bool {
        !self.sought.is_empty() || !self.perhaps_on_ovs.is_empty()
    }

    /// The ports of whole bridges that are left out.
    pub fn left_out(&self) -> BTreeSet<IfName> {
        let loops = self
            .loops
            .keys()
            .filter(|name| !self.ports.contains_key(*name));
        self.left_out_ports
            .iter()
            .chain(loops)
            .map(|name| (*name).clone())
            .collect()
    }

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
    (reserved, undetermined): (&BTreeMap<IfName, &'a SessionName>, &BTreeSet<IfName>),
) -> Choice<'a> {
    let mut choice = Choice::default();
    for bridge in whole_bridges(session).filter(|bridge| map.bridges.contains_key(*bridge)) {
        let whole = if session.exclude.is_empty() {
            WholeBridgeMode::Everything
        } else {
            WholeBridgeMode::ByPort
        };
        choice.bridges.insert(bridge, whole);
    }
    for port in index.ports(session).into_values() {
        let subject = Subject::from(port);
        let is_whole = choice.bridges.contains_key(&port.bridge);
        let reserved = reserved.get(&port.name).copied();
        let decision = decide(session, subject, matcher, reserved, is_whole.into());
        if is_whole && !matches!(decision, Decision::Words(Verdict::Taken(_))) {
            choice.left_out_ports.insert(&port.name);
        }
        // Open vSwitch mirrors a whole bridge without asking which ports it has.
        let is_all = choice.bridges.get(&port.bridge) == Some(&WholeBridgeMode::Everything)
            && port.bridge_kind == BridgeKind::Ovs
            && session.asks_for_nft().is_none();
        match decision {
            Decision::Words(Verdict::Taken(_)) if is_all || !undetermined.contains(&port.name) => {
                choice.ports.insert(&port.name, port);
            }
            Decision::Words(Verdict::Taken(_) | Verdict::Unknown(_)) => {
                choice.undecided.insert(&port.name, port);
            }
            Decision::Output(other, Verdict::Taken(_)) => {
                let output = match subject.nic {
                    Some(nic) => Output::Nic(nic),
                    None => Output::Port(port.name.clone()),
                };
                // Its own, and sensors on a whole bridge, are no news.
                let is_own = session.outputs.iter().any(|own| own.value == output);
                if !is_own && (subject.nic.is_none() || !is_whole) {
                    choice
                        .notes
                        .push(format!("{output} is left out: it is an output of {other}"));
                }
            }
            Decision::OwnSensor(Verdict::Taken(_)) => {
                choice.notes.extend(
                    subject
                        .nic
                        .map(|nic| format!("{nic} is left out: {}", own_sensor(nic.vmid))),
                );
            }
            _ => {}
        }
    }
    choice.perhaps_on_ovs = perhaps_on_ovs(session, map, matcher);
    for source in &session.sources {
        let (kind, name) = match &source.value {
            Selector::Bridge(bridge) if !map.bridges.contains_key(bridge) => ("bridge", bridge),
            Selector::Port(port) if !map.ports.contains_key(port) => ("port", port),
            _ => continue,
        };
        if let Some(other) = map.instead_of(&source.value) {
            choice.notes.push(other);
        } else if map.perhaps_on_ovs.is_none() {
            choice.notes.push(format!(
                "there is no such {kind} on this node: {}",
                source.value
            ));
        } else {
            choice.sought.insert(name.clone());
            choice.unknown.push(format!(
                "cannot tell what the {kind} {name} is: Open vSwitch does not answer; existing mirrors are kept"
            ));
        }
    }
    if !choice.undecided.is_empty() {
        let ports: Vec<String> = choice.undecided.keys().map(ToString::to_string).collect();
        let why = unknown_reason(session, matcher, &choice);
        choice.unknown.push(format!(
            "cannot tell whether it takes {}: {why}; existing mirrors are kept",
            ports.join(", ")
        ));
    }
    choice
}

/// The devices that the session may take, if they are where only Open vSwitch could tell.
fn perhaps_on_ovs(session: &Session, map: &PortMap, matcher: &Matcher<'_>) -> BTreeSet<IfName> {
    let by_bridge = || whole_bridges(session).any(|bridge| !map.bridges.contains_key(bridge));
    let by_nic = |nic: NicId| {
        matcher.cluster.out_of_bridges(nic).is_none()
            && matcher.takes(session, Subject::unplugged(nic)) != Truth::No
    };
    let is_named = |name: &IfName| {
        let mut sources = session.sources.iter();
        sources.any(|source| source.value.names_port(name))
    };
    let may_take = |name: &&IfName| {
        is_named(name)
            || port_owner(name.as_str()).is_some_and(|(nic, _)| by_nic(nic))
            || by_bridge()
    };
    let devices = map.perhaps_on_ovs.iter().flatten();
    devices.filter(may_take).cloned().collect()
}

/// What a session makes of a port: its words, and what stands above them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'a> {
    /// What its words say.
    Words(Verdict<'a>),
    /// Its words take it, or may, but it is an output, of this session: it carries copies only.
    Output(&'a SessionName, Verdict<'a>),
    /// Its words take it, or may, but its guest is the session's own sensor.
    OwnSensor(Verdict<'a>),
}

/// Is the port on a bridge that the session takes as a whole?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnWhole {
    /// It is.
    Yes,
    /// It is not.
    No,
}

impl From<bool> for OnWhole {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// The one place where it is decided whether a session takes a port, loops apart. `reserved` is whose output it is.
pub fn decide<'a>(
    session: &'a Session,
    subject: Subject<'_>,
    matcher: &Matcher<'_>,
    reserved: Option<&'a SessionName>,
    on_whole: OnWhole,
) -> Decision<'a> {
    let verdict = matcher.verdict(session, subject);
    if verdict.truth() == Truth::No {
        return Decision::Words(verdict);
    }
    let by_name = || {
        let mut words = session.sources.iter();
        words.any(|source| names(&source.value, subject))
    };
    if let Some(other) = reserved.filter(|_| !by_name()) {
        return Decision::Output(other, verdict);
    }
    let is_own = |nic: &NicId| outputs_of(session).any(|output| output.vmid == nic.vmid);
    if on_whole == OnWhole::No && subject.nic.as_ref().is_some_and(is_own) {
        return Decision::OwnSensor(verdict);
    }
    Decision::Words(verdict)
}

/// The NICs that are the session's outputs.
pub fn outputs_of(session: &Session) -> impl Iterator<Item = NicId> + '_ {
    session
        .outputs
        .iter()
        .filter_map(|output| match output.value {
            Output::Nic(nic) => Some(nic),
            _ => None,
        })
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

/// Why nobody can tell of the first port whether it is a source.
fn unknown_reason(session: &Session, matcher: &Matcher<'_>, choice: &Choice<'_>) -> String {
    let first = choice.undecided.values().next();
    let subject = first.map(|port| Subject::from(*port));
    match subject.map(|subject| (matcher.verdict(session, subject), subject.nic)) {
        Some((Verdict::Unknown(word), nic)) => matcher.why_unknown(&word.value, nic),
        _ => OUTPUT_UNKNOWN.into(),
    }
}

/// Why nobody can tell of a port that the words take.
pub const OUTPUT_UNKNOWN: &str = "whether it is an output is not known";

/// Why a NIC is not taken whose guest is the sensor.
pub fn own_sensor(guest: Vmid) -> String {
    format!("guest {guest} is the session's own sensor")
}

/// Why a source is not taken that gets, one way or another, what this sensor gets.
pub fn closes_loop(source: impl fmt::Display, sensor: Vmid) -> String {
    format!("guest {sensor} feeds {source} in turn, a loop")
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
            let back = |circles: &Cycles<'_>, own| {
                nic.filter(|_| !by_name)
                    .and_then(|nic| circles.back(nic.vmid, own).copied())
            };
            match (
                nic,
                back(&certain, &in_certain),
                back(&possible, &in_possible),
            ) {
                (Some(nic), Some(sensor), _) => {
                    choice.loops.insert(name, sensor);
                    choice
                        .notes
                        .push(format!("{nic} is left out: {}", closes_loop("it", sensor)));
                }
                (Some(nic), None, Some(sensor)) => {
                    choice.loops.insert(name, sensor);
                    choice.unknown.push(format!(
                        "cannot tell whether {}; existing mirrors are kept",
                        closes_loop(nic, sensor)
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
) -> Cycles<'a> {
    let mut feeds = FeedGraph::new();
    for session in running {
        for guest in choices.get(&session.name).map(&taken).unwrap_or_default() {
            feeds
                .entry(Vertex::Guest(guest))
                .or_default()
                .insert(Vertex::Session(&session.name));
        }
        let sensors = sensors(std::iter::once(*session));
        feeds
            .entry(Vertex::Session(&session.name))
            .or_default()
            .extend(sensors.into_iter().map(Vertex::Guest));
    }
    Cycles::of(&feeds)
}

fn guests<'p>(ports: impl Iterator<Item = &'p &'p Port>) -> BTreeSet<Vmid> {
    ports
        .filter_map(|port| port.nic.as_ref())
        .map(|nic| nic.id.vmid)
        .collect()
}
