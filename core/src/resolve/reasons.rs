//! Why a session takes a NIC or does not: what [`resolve`](super::resolve) decided, told instead of done.
//!
//! Nothing is decided here. Every answer is read off the same choices that mirrors are made from, so that what is told
//! cannot drift from what is done.

use std::collections::BTreeMap;

use super::availability::is_refused;
use super::engine_choice::{ChosenEngine, From as Source, engine};
use super::matcher;
use super::matcher::{Matcher, Subject, Verdict, whole_bridges};
use super::outputs::{Outputs, Place, Target};
use super::selection::{Choice, Decision, OUTPUT_UNKNOWN, decide, outputs_of};
use super::session::{phase, sensors};
use super::{choices, ports};
use crate::config::selector::{Output, Selector};
use crate::config::{Annotations, Session};
use crate::model::{IfName, NicId, SessionName, Vmid};
use crate::pve::cluster::Cluster;
use crate::state::port_map::{Port, PortMap};
use crate::state::{Assumptions, Observed, SessionPhase};

/// A word of span.cfg, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// What it says.
    pub selector: Selector,
    /// The line, counted from 1.
    pub line: usize,
}

impl From<&matcher::Word> for Word {
    fn from(word: &matcher::Word) -> Self {
        Self {
            selector: word.value.clone(),
            line: word.place.line,
        }
    }
}

/// What a session makes of a NIC, whether the session runs or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is a source by this word; one that has no port here would be.
    Taken(Word),
    /// Nobody can tell what the word means for it, and why.
    Undecided(Word, String),
    /// Nobody can tell whether it closes a loop with this sensor.
    PerhapsLoop(Vmid),
    /// It would close a loop: this sensor feeds it in turn.
    Loop(Vmid),
    /// It would be a source by the one word, and the other leaves it out.
    Excluded {
        /// Of `source`.
        source: Word,
        /// Of `exclude`.
        by: Word,
    },
    /// The word takes every guest but sensors, and it is one's.
    Sensor(Word),
    /// Its guest is the session's own sensor.
    OwnSensor,
    /// It is an output of this session, and carries copies only.
    Output(SessionName),
    /// No word takes it.
    NoWord,
}

/// What a session makes of a NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The session.
    pub session: SessionName,
    /// What it makes of it.
    pub standing: Standing,
    /// Why nftables copies it and Open vSwitch does not mirror it, by output, where that is so.
    pub nft: BTreeMap<String, String>,
}

/// The reasons of every session, in their order, for each of some NICs.
pub fn reasons(
    annotations: &Annotations,
    cluster: &Cluster,
    observed: &Observed,
    assume: &Assumptions,
    nics: &[NicId],
) -> BTreeMap<NicId, Vec<Reason>> {
    let map = ports(annotations, observed, &assume.gone);
    let sensors = sensors(annotations.sessions.values());
    let matcher = Matcher {
        cluster,
        sensors: &sensors,
    };
    let seen = super::View::new(&map, annotations, observed, cluster, assume);
    let choices = choices(annotations, &matcher, assume, |_| &seen);
    let running = annotations
        .sessions
        .values()
        .filter(|session| phase(session, assume) == SessionPhase::Running);
    let will_be = running.flat_map(|session| {
        let served =
            outputs_of(session).filter(|nic| !is_refused(session, *nic, cluster.guest(nic.vmid)));
        served.map(|nic| (nic, &session.name))
    });
    let view = View {
        will_be_output: will_be.collect(),
        map: &map,
        matcher: &matcher,
        reserved: &seen.reserved,
        outputs: &seen.outputs,
    };
    let of = |nic: NicId| {
        let sessions = annotations.sessions.values();
        sessions
            .filter_map(|session| Some(view.reason(session, choices.get(&session.name)?, nic)))
            .collect()
    };
    nics.iter().map(|nic| (*nic, of(*nic))).collect()
}

/// What is looked at.
struct View<'a> {
    map: &'a PortMap,
    matcher: &'a Matcher<'a>,
    reserved: &'a BTreeMap<IfName, &'a SessionName>,
    /// Of which running session a NIC is an output, wherever it is.
    will_be_output: BTreeMap<NicId, &'a SessionName>,
    outputs: &'a Outputs<'a>,
}

impl View<'_> {
    fn reason(&self, session: &Session, choice: &Choice<'_>, nic: NicId) -> Reason {
        let port = self.map.of_nic(nic);
        let standing = match port {
            Some(port) => self.of_port(session, choice, port, nic),
            None => self.of_absent(session, nic),
        };
        let is_left = matches!(standing, Standing::NoWord | Standing::Excluded { .. });
        let copied = port.filter(|_| !is_left);
        Reason {
            session: session.name.clone(),
            standing,
            nft: copied.map_or_else(BTreeMap::new, |port| self.nft(session, port)),
        }
    }

    fn of_port(&self, session: &Session, choice: &Choice<'_>, port: &Port, nic: NicId) -> Standing {
        let is_taken = choice.ports.contains_key(&port.name);
        match choice.loops.get(&port.name) {
            Some(sensor) if choice.undecided.contains_key(&port.name) => {
                return Standing::PerhapsLoop(*sensor);
            }
            Some(sensor) if !is_taken => return Standing::Loop(*sensor),
            _ => {}
        }
        let on_whole = choice.bridges.contains_key(&port.bridge);
        let reserved = self.reserved.get(&port.name).copied();
        let subject = Subject::from(port);
        let decision = decide(session, subject, self.matcher, reserved, on_whole.into());
        match decision {
            Decision::Words(Verdict::Taken(word)) if choice.undecided.contains_key(&port.name) => {
                Standing::Undecided(word.into(), OUTPUT_UNKNOWN.to_owned())
            }
            decision => self.told(decision, nic),
        }
    }

    /// A NIC whose device is in no bridge, or not here at all: then by what its config says of it.
    fn of_absent(&self, session: &Session, nic: NicId) -> Standing {
        let mut subject = Subject::unplugged(nic);
        let mut reserved = None;
        if !self.map.unplugged.contains_key(&nic) {
            let guest = self.matcher.cluster.guest(nic.vmid);
            let config = guest.and_then(|guest| guest.nics.get(&nic.index));
            subject.bridge = config
                .and_then(|config| config.bridge.as_deref())
                .unwrap_or_default();
            reserved = self.will_be_output.get(&nic).copied();
        }
        let on_whole = whole_bridges(session).any(|bridge| bridge.as_str() == subject.bridge);
        self.told(
            decide(session, subject, self.matcher, reserved, on_whole.into()),
            nic,
        )
    }

    fn told(&self, decision: Decision<'_>, nic: NicId) -> Standing {
        match decision {
            Decision::Output(of, _) => Standing::Output(of.clone()),
            Decision::OwnSensor(_) => Standing::OwnSensor,
            Decision::Words(Verdict::Taken(word)) => Standing::Taken(word.into()),
            Decision::Words(Verdict::Unknown(word)) => Standing::Undecided(
                word.into(),
                self.matcher.why_unknown(&word.value, Some(nic)),
            ),
            Decision::Words(Verdict::Excluded { source, by }) => Standing::Excluded {
                source: source.into(),
                by: by.into(),
            },
            Decision::Words(Verdict::Sensor(word)) => Standing::Sensor(word.into()),
            Decision::Words(Verdict::Nothing) => Standing::NoWord,
        }
    }

    /// Why nftables copies it, by output. A port of a whole bridge is taken for the bridge's reason.
    fn nft(&self, session: &Session, port: &Port) -> BTreeMap<String, String> {
        let whole = whole_bridges(session).find(|bridge| **bridge == port.bridge);
        let reason = |target: &Target<'_>, output: &Output| {
            let bridge = whole.map(|bridge| Source {
                bridge,
                kind: port.bridge_kind,
                firewall: None,
            });
            let sources = bridge.into_iter().chain([Source::from(port)]);
            sources
                .filter_map(|source| engine(session, output, target, &source).ok())
                .find_map(|engine| match engine {
                    ChosenEngine::Nft(reason) => Some(reason.to_string()),
                    ChosenEngine::Ovs => None,
                })
        };
        let outputs = session.outputs.iter().map(|output| &output.value);
        outputs
            .filter_map(|output| match self.outputs.serve(session, output) {
                Ok((Place::Port(target), _)) => {
                    Some((output.to_string(), reason(&target, output)?))
                }
                _ => None,
            })
            .collect()
    }
}
