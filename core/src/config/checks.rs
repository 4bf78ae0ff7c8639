//! What is wrong with sessions that are well-formed one by one: outputs that feed themselves,
//! contradictions, and what this version does not have.
//!
//! Only what the file alone decides is refused here. What depends on tags, pools or this node's
//! ports is `resolve`'s: whoever may tag a guest must not be able to invalidate the file.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::cycles::{Cycles, FeedGraph, Vertex};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::selector::{Output, Selector};
use crate::engine::nft::frames::LoweredFilters;
use crate::model::{Direction, SessionName, Switch, Vmid};

use super::session::{At, EngineChoice, Session};

/// What is said of outputs that only a tunnel could reach.
pub const NO_TUNNELS: &str = "tunnels are not available in this version";

/// Checks all sessions.
pub fn check(file: &str, sessions: &BTreeMap<SessionName, Session>) -> Vec<Diagnostic> {
    let mut found = Found {
        file,
        diagnostics: Vec::new(),
    };
    for session in sessions.values() {
        found.repeated_outputs(session);
        found.confirmed(session);
        found.contradictions(session);
    }
    found.two_engines(sessions);
    found.loops(sessions);
    let mut lowered = LoweredFilters::default();
    for session in sessions.values() {
        found.engines(session, &mut lowered);
        found.tunnels(session);
    }
    found.diagnostics
}

struct Found<'a> {
    file: &'a str,
    diagnostics: Vec<Diagnostic>,
}

impl Found<'_> {
    fn say<T>(&mut self, severity: Severity, at: &At<T>, message: String, hint: Option<&str>) {
        let (file, place) = (self.file.to_owned(), Some(at.place.clone()));
        self.diagnostics.push(Diagnostic {
            file,
            place,
            severity,
            message,
            hint: hint.map(str::to_owned),
        });
    }

    fn repeated_outputs(&mut self, session: &Session) {
        let mut seen = BTreeSet::new();
        for output in &session.outputs {
            if !seen.insert(&output.value) {
                self.say(
                    Severity::Error,
                    output,
                    format!("output {} stands twice", output.value),
                    None,
                );
            }
        }
    }

    /// What is confirmed has to be an output, and one that can be cut off.
    fn confirmed(&mut self, session: &Session) {
        for confirmed in &session.capture_only {
            let (severity, message) = match &confirmed.value {
                Output::Nic(_) | Output::Port(_) => {
                    let outputs = &session.outputs;
                    if outputs.iter().any(|at| at.value == confirmed.value) {
                        continue;
                    }
                    let message =
                        format!("{} is not an output of [{}]", confirmed.value, session.name);
                    (Severity::Warning, message)
                }
                Output::Vlan(_) | Output::Vxlan(..) | Output::Gre(..) | Output::Erspan(..) => {
                    let message = format!(
                        "{} has no network to lose: `capture-only` takes guests' NICs and ports",
                        confirmed.value
                    );
                    (Severity::Error, message)
                }
            };
            self.say(severity, confirmed, message, None);
        }
    }

    fn contradictions(&mut self, session: &Session) {
        let sources: BTreeSet<&Selector> =
            session.sources.iter().map(|source| &source.value).collect();
        for output in &session.outputs {
            if let Output::Port(port) = &output.value {
                if sources.contains(&Selector::Port(port.clone())) {
                    let message =
                        format!("port:{port} is a source of the session that it is an output of");
                    self.say(Severity::Error, output, message, None);
                }
                if sources.contains(&Selector::Bridge(port.clone())) {
                    self.say(
                        Severity::Error,
                        output,
                        format!("{port} is a bridge: it cannot be an output"),
                        None,
                    );
                }
            }
            if let Output::Vlan(vlan) = output.value {
                if session.vlans.contains(vlan) {
                    let message = format!(
                        "VLAN {vlan} is both mirrored and the output: it would feed itself"
                    );
                    self.say(Severity::Error, output, message, None);
                }
            }
        }
        for source in &session.sources {
            if matches!(source.value, Selector::Bridge(_)) && session.direction != Direction::Both {
                let message = format!(
                    "{} takes every frame once, whatever the direction",
                    source.value
                );
                self.say(Severity::Warning, source, message, None);
            }
        }
    }

    fn two_engines(&mut self, sessions: &BTreeMap<SessionName, Session>) {
        let forced = |engine| {
            sessions
                .values()
                .filter(move |session| session.engine == engine)
        };
        let mut ovs: BTreeMap<&Output, &SessionName> = BTreeMap::new();
        for session in forced(EngineChoice::Ovs) {
            ovs.extend(
                session
                    .outputs
                    .iter()
                    .map(|output| (&output.value, &session.name)),
            );
        }
        for nft in forced(EngineChoice::Nft) {
            for output in &nft.outputs {
                if let Some(ovs) = ovs.get(&output.value) {
                    let message = format!(
                        "{} is an output of two engines: ovs in [{ovs}], nft in [{}]",
                        output.value, nft.name
                    );
                    self.say(
                        Severity::Error,
                        output,
                        message,
                        Some("use one engine for both sessions"),
                    );
                }
            }
        }
    }

    /// A sensor that is, by its number, a source of what feeds it: in one session or around several.
    fn loops(&mut self, sessions: &BTreeMap<SessionName, Session>) {
        let mut feeds = FeedGraph::new();
        for (name, session) in sessions
            .iter()
            .filter(|(_, session)| session.enabled == Switch::Yes)
        {
            for (_, from) in session
                .sources
                .iter()
                .filter_map(|source| named(session, source))
            {
                feeds
                    .entry(Vertex::Guest(from))
                    .or_default()
                    .insert(Vertex::Session(name));
            }
            feeds
                .entry(Vertex::Session(name))
                .or_default()
                .extend(sensors(session).map(Vertex::Guest));
        }
        let circles = Cycles::of(&feeds);
        for session in sessions.values() {
            let own: BTreeSet<Vmid> = sensors(session).collect();
            let in_circles = circles.sensors(own.iter().copied());
            for (source, from) in session
                .sources
                .iter()
                .filter_map(|source| named(session, source))
            {
                let name = &session.name;
                let message = if own.contains(&from) {
                    format!("guest {from} is the sensor of [{name}] and cannot be its source")
                } else if let Some(to) = circles.back(from, &in_circles) {
                    format!(
                        "a loop: [{name}] feeds guest {to} from guest {from}, and other sessions feed {from} from {to}"
                    )
                } else {
                    continue;
                };
                self.say(
                    Severity::Error,
                    source,
                    message,
                    Some("take it out of `source`"),
                );
            }
        }
    }

    /// What a session asks for has to be in one engine, and in the one that it names.
    fn engines<'s>(&mut self, session: &'s Session, lowered: &mut LoweredFilters<'s>) {
        let at = |key: &str| At {
            value: (),
            place: session.keys.get(key).unwrap_or(&session.place).clone(),
        };
        for key in ["filter", "sample"] {
            let is_used = if key == "filter" {
                session.filter.is_some()
            } else {
                session.sample > 1
            };
            if is_used && session.engine == EngineChoice::Ovs {
                let message = format!("the ovs engine has no `{key}`");
                let hint = Some("leave out `engine = ovs` or this line");
                self.say(Severity::Error, &at(key), message, hint);
            }
        }
        if session.engine == EngineChoice::Ovs && session.dedup == Switch::No {
            let message =
                "`dedup = no` has no effect: Open vSwitch delivers every frame once".into();
            self.say(Severity::Warning, &at("dedup"), message, None);
        }
        let Some(nft) = session.asks_for_nft() else {
            return;
        };
        if session.snaplen.is_some() {
            self.say(
                Severity::Unsupported,
                &at("snaplen"),
                format!("`snaplen` is refused: the nft engine, which `{nft}` needs, does not cut frames"),
                Some("Open vSwitch's mirrors do (`engine = ovs`), and so does the sensor's own capture (tcpdump -s)"),
            );
        }
        for output in &session.outputs {
            if let Output::Vlan(_) = output.value {
                let message = format!(
                    "output {} is refused: RSPAN is for the ovs engine, and `{nft}` needs the nft engine",
                    output.value
                );
                self.say(Severity::Unsupported, output, message, None);
            }
        }
        if let Err(error) = lowered.get(session.filter.as_ref(), &session.vlans) {
            self.say(Severity::Error, &at("filter"), error.to_string(), None);
        }
    }

    fn tunnels(&mut self, session: &Session) {
        for output in &session.outputs {
            if let Some(reason) = unsupported_output(&output.value) {
                self.say(
                    Severity::Unsupported,
                    output,
                    format!("output {} is refused: {reason}", output.value),
                    None,
                );
            }
        }
    }
}

/// Why this version cannot send frames there, whatever the node.
fn unsupported_output(output: &Output) -> Option<&'static str> {
    match output {
        Output::Vxlan(..) | Output::Gre(..) | Output::Erspan(..) => Some(NO_TUNNELS),
        Output::Nic(_) | Output::Port(_) | Output::Vlan(_) => None,
    }
}

/// The guest that a source names by its number, unless `exclude` takes it out again.
fn named<'a>(session: &Session, source: &'a At<Selector>) -> Option<(&'a At<Selector>, Vmid)> {
    let Selector::Guests { low, high, .. } = source.value else {
        return None;
    };
    let excluded = session.exclude.iter().any(|exclude| {
        exclude.value.names_guest(low)
            && matches!(exclude.value, Selector::Guests { nic: None, .. })
            || exclude.value == source.value
    });
    (low == high && !excluded).then_some((source, low))
}

fn sensors(session: &Session) -> impl Iterator<Item = Vmid> + '_ {
    session
        .outputs
        .iter()
        .filter_map(|output| match output.value {
            Output::Nic(nic) => Some(nic.vmid),
            _ => None,
        })
}
