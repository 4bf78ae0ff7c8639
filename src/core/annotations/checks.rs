//! What is wrong with sessions that are well-formed one by one: outputs that feed themselves,
//! contradictions, and what this version does not have.
//!
//! Only what the file alone decides is refused here. What depends on tags, pools or this node's
//! ports is `resolve`'s: whoever may tag a guest must not be able to invalidate the file.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::diagnostic::{Diagnostic, Severity};
use crate::core::model::{Direction, SessionName, Vmid};
use crate::core::selector::{Output, Selector};

use super::{At, EngineChoice, Session};

/// Checks all sessions; what this version lacks is also noted in the session itself.
pub fn check(file: &str, sessions: &mut BTreeMap<SessionName, Session>) -> Vec<Diagnostic> {
    let mut found = Found {
        file,
        diagnostics: Vec::new(),
    };
    for session in sessions.values() {
        found.repeated_outputs(session);
        found.contradictions(session);
    }
    found.two_engines(sessions);
    found.loops(sessions);
    for session in sessions.values_mut() {
        found.unsupported(session);
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

    fn contradictions(&mut self, session: &Session) {
        for output in &session.outputs {
            if let Output::Port(port) = &output.value {
                if session
                    .sources
                    .iter()
                    .any(|source| source.value == Selector::Port(port.clone()))
                {
                    let message =
                        format!("port:{port} is a source of the session that it is an output of");
                    self.say(Severity::Error, output, message, None);
                }
                if session
                    .sources
                    .iter()
                    .any(|source| source.value == Selector::Bridge(port.clone()))
                {
                    self.say(
                        Severity::Error,
                        output,
                        format!("{port} is a bridge: it cannot be an output"),
                        None,
                    );
                }
            }
            if let Output::Vlan(vlan) = output.value {
                if session.vlans.iter().any(|taken| taken == vlan) {
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
        for nft in forced(EngineChoice::Nft) {
            for output in &nft.outputs {
                let other = forced(EngineChoice::Ovs)
                    .find(|ovs| ovs.outputs.iter().any(|o| o.value == output.value));
                if let Some(ovs) = other {
                    let message = format!(
                        "{} is an output of two engines: ovs in [{}], nft in [{}]",
                        output.value, ovs.name, nft.name
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
        let mut feeds: BTreeMap<Vmid, BTreeSet<Vmid>> = BTreeMap::new();
        let edges = || {
            sessions.values().flat_map(|session| {
                session
                    .sources
                    .iter()
                    .filter_map(move |source| named(session, source))
                    .flat_map(move |(source, from)| {
                        sensors(session).map(move |to| (session, source, from, to))
                    })
            })
        };
        for (_, _, from, to) in edges() {
            feeds.entry(from).or_default().insert(to);
        }
        let mut reported = BTreeSet::new();
        for (session, source, from, to) in edges() {
            let message = if from == to {
                format!(
                    "guest {to} is the sensor of [{}] and cannot be its source",
                    session.name
                )
            } else if reaches(&feeds, to, from) {
                format!(
                    "a loop: [{}] feeds guest {to} from guest {from}, and other sessions feed {from} from {to}",
                    session.name
                )
            } else {
                continue;
            };
            if reported.insert((session.name.clone(), from)) {
                self.say(
                    Severity::Error,
                    source,
                    message,
                    Some("take it out of `source`"),
                );
            }
        }
    }

    fn unsupported(&mut self, session: &mut Session) {
        let mut lacks = Vec::new();
        if session.filter.is_some() {
            lacks.push("filter");
        }
        if session.sample > 1 {
            lacks.push("sample");
        }
        if session.engine == EngineChoice::Nft {
            lacks.push("engine");
        }
        for key in lacks {
            let at = At {
                value: (),
                place: session.keys.get(key).unwrap_or(&session.place).clone(),
            };
            if session.engine == EngineChoice::Ovs {
                let message = format!("the ovs engine has no `{key}`");
                self.say(
                    Severity::Error,
                    &at,
                    message,
                    Some("leave out `engine = ovs` or this line"),
                );
                continue;
            }
            let what = if key == "engine" { "engine = nft" } else { key };
            let reason = format!("`{what}` needs the nft engine, which this version does not have");
            let message = format!("session {} is refused: {reason}", session.name);
            self.say(
                Severity::Unsupported,
                &at,
                message,
                Some("what it mirrors now stays as it is"),
            );
            session.unsupported.push(reason);
        }
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
pub fn unsupported_output(output: &Output) -> Option<&'static str> {
    match output {
        Output::Vxlan(..) | Output::Gre(..) | Output::Erspan(..) => {
            Some("tunnels are not available in this version")
        }
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

/// Does a path lead from one guest to another?
pub(crate) fn reaches(feeds: &BTreeMap<Vmid, BTreeSet<Vmid>>, from: Vmid, to: Vmid) -> bool {
    let mut seen = BTreeSet::new();
    let mut todo = vec![from];
    while let Some(at) = todo.pop() {
        for next in feeds.get(&at).into_iter().flatten() {
            if *next == to {
                return true;
            }
            if seen.insert(*next) {
                todo.push(*next);
            }
        }
    }
    false
}
