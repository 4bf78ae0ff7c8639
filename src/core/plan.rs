//! `plan(&Desired, &Observed)` → [`Plan`]: what has to change, as data.
//!
//! The plan's text is the dry run, the log and the tests' expectation. It names no object that does
//! not carry our mark, whatever is observed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::model::{IfName, NicId, SessionName, VlanSet, port_owner, printable};
use super::state::{
    Desired, Mirror, MirrorConfig, MirrorKey, MirrorOutput, Observed, OvsBridge, OvsState, RowId,
    SessionPhase, Taken, Wanted,
};

/// The most mirrors that a bridge can have (Open vSwitch, `MAX_MIRRORS` in ofproto/ofproto-dpif-mirror.h).
pub const MAX_MIRRORS: usize = 32;

/// What has to change on this node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Plan {
    /// In the order in which they are carried out.
    pub actions: Vec<Action>,
    /// What cannot be done, and why.
    pub problems: Vec<Problem>,
    /// What is worth knowing and stops nothing.
    pub remarks: Vec<Problem>,
}

/// Why a session is not as it shall be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Whose.
    pub session: SessionName,
    /// What, and what to do.
    pub text: String,
}

/// One change of one mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Action {
    /// Which mirror.
    #[serde(flatten)]
    pub mirror: MirrorKey,
    /// Its row; nothing if this plan creates it.
    pub row: Option<RowId>,
    /// What happens to it.
    #[serde(flatten)]
    pub change: Change,
}

/// What happens to a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum Change {
    /// It is removed.
    Remove {
        /// Why.
        why: &'static str,
    },
    /// It is created, as yet without sources.
    Create,
    /// Its output becomes another one.
    SetOutput {
        /// So far.
        from: MirrorOutput,
        /// From now on.
        to: MirrorOutput,
    },
    /// It takes everything on the bridge, or no longer.
    SetAll {
        /// From now on.
        all: bool,
    },
    /// It takes other VLANs.
    SetVlans {
        /// From now on; all when empty.
        to: VlanSet,
    },
    /// It keeps another length of each frame.
    SetSnaplen {
        /// From now on, in bytes; everything without.
        to: Option<u16>,
    },
    /// A source joins, leaves, or changes direction.
    SetSource {
        /// The port.
        port: IfName,
        /// Whose it is.
        nic: Option<NicId>,
        /// So far.
        from: Option<Taken>,
        /// From now on.
        to: Option<Taken>,
    },
}

impl Plan {
    /// Is everything as it shall be?
    pub fn is_done(&self) -> bool {
        self.actions.is_empty()
    }

    /// The sessions that change.
    pub fn sessions(&self) -> BTreeSet<&SessionName> {
        self.actions
            .iter()
            .map(|action| &action.mirror.session)
            .collect()
    }
}

/// Compares what shall be with what is.
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let OvsState::Present(ovs) = &observed.ovs else {
        return plan;
    };
    let mut used: BTreeSet<&RowId> = BTreeSet::new();
    for (name, bridge) in &ovs.bridges {
        let mut rest: BTreeMap<&MirrorKey, &Wanted> = desired
            .mirrors
            .iter()
            .filter(|(key, _)| key.bridge == *name)
            .collect();
        let mut count = bridge.mirrors.len();
        for (row, mirror) in &bridge.mirrors {
            let Some(mark) = &mirror.mark else { continue };
            if desired.held.contains(&mark.session) {
                continue;
            }
            let key = MirrorKey {
                bridge: name.clone(),
                session: mark.session.clone(),
                output: mark.output.clone(),
            };
            // A row of ours that somebody has put into a second bridge serves the first one only.
            let is_first = used.insert(row);
            let wanted = rest
                .get(&key)
                .copied()
                .filter(|wanted| is_first && stays(wanted, mirror));
            let Some(wanted) = wanted else {
                let why = if is_first {
                    why_removed(desired, &key)
                } else {
                    "its row is another bridge's too"
                };
                plan.actions.push(Action {
                    mirror: key,
                    row: Some(row.clone()),
                    change: Change::Remove { why },
                });
                count -= 1;
                continue;
            };
            rest.remove(&key);
            for change in changes(&mirror.config, wanted) {
                plan.actions.push(Action {
                    mirror: key.clone(),
                    row: Some(row.clone()),
                    change,
                });
            }
        }
        for (key, wanted) in rest
            .into_iter()
            .filter(|(_, wanted)| takes_something(&wanted.config))
        {
            if count >= MAX_MIRRORS {
                plan.problems.push(Problem {
                    session: key.session.clone(),
                    text: full(key, bridge),
                });
                continue;
            }
            count += 1;
            plan.actions.push(Action {
                mirror: key.clone(),
                row: None,
                change: Change::Create,
            });
            for change in changes(&MirrorConfig::default(), wanted) {
                plan.actions.push(Action {
                    mirror: key.clone(),
                    row: None,
                    change,
                });
            }
        }
        plan.remarks.extend(shared_outputs(desired, name, bridge));
    }
    // Removing first keeps a full bridge below its limit.
    plan.actions
        .sort_by_key(|action| !matches!(action.change, Change::Remove { .. }));
    plan
}

/// Why a mirror of ours goes.
fn why_removed(desired: &Desired, key: &MirrorKey) -> &'static str {
    let Some(state) = desired
        .sessions
        .iter()
        .find(|state| state.name == key.session)
    else {
        return "span.cfg does not list the session";
    };
    match state.phase {
        SessionPhase::Disabled => return "the session is switched off",
        SessionPhase::Expired => return "the session has expired",
        SessionPhase::Running | SessionPhase::Refused(_) => {}
    }
    match state
        .outputs
        .iter()
        .find(|output| output.output == key.output)
    {
        None => "span.cfg does not list the output",
        Some(output) if output.fault.is_some() => "its output is not here",
        Some(_) => "none of its sources is here",
    }
}

fn takes_something(config: &MirrorConfig) -> bool {
    config.all || !config.ports.is_empty()
}

/// Does a mirror still take something: wanted sources, or undecided ones that are in it?
fn stays(wanted: &Wanted, mirror: &Mirror) -> bool {
    takes_something(&wanted.config)
        || wanted
            .undecided
            .iter()
            .any(|port| mirror.config.ports.contains_key(port))
}

fn changes(is: &MirrorConfig, wanted: &Wanted) -> Vec<Change> {
    let shall = &wanted.config;
    let mut changes = Vec::new();
    if is.output != shall.output {
        changes.push(Change::SetOutput {
            from: is.output.clone(),
            to: shall.output.clone(),
        });
    }
    if is.all != shall.all {
        changes.push(Change::SetAll { all: shall.all });
    }
    if is.vlans != shall.vlans {
        changes.push(Change::SetVlans {
            to: shall.vlans.clone(),
        });
    }
    if is.snaplen != shall.snaplen {
        changes.push(Change::SetSnaplen { to: shall.snaplen });
    }
    let ports: BTreeSet<&IfName> = is.ports.keys().chain(shall.ports.keys()).collect();
    for port in ports
        .into_iter()
        .filter(|port| !wanted.undecided.contains(*port))
    {
        let (from, to) = (is.ports.get(port).copied(), shall.ports.get(port).copied());
        if from != to {
            changes.push(Change::SetSource {
                port: port.clone(),
                nic: port_owner(port.as_str()).map(|(nic, _)| nic),
                from,
                to,
            });
        }
    }
    changes
}

fn full(key: &MirrorKey, bridge: &OvsBridge) -> String {
    let foreign = bridge
        .mirrors
        .values()
        .filter(|mirror| mirror.mark.is_none())
        .count();
    format!(
        "no mirror to {} on {}: Open vSwitch allows {MAX_MIRRORS} mirrors a bridge, and it has that many ({foreign} of them not \
         pve-span's); use fewer sessions or outputs on this bridge",
        key.output, key.bridge
    )
}

/// Other people's mirrors with the same output port: harmless, but the sensor sees their frames too.
fn shared_outputs(desired: &Desired, name: &IfName, bridge: &OvsBridge) -> Vec<Problem> {
    let foreign = || {
        bridge
            .mirrors
            .values()
            .filter(|mirror| mirror.mark.is_none())
    };
    let wanted = desired
        .mirrors
        .iter()
        .filter(|(key, _)| key.bridge == *name);
    wanted
        .filter(|(_, wanted)| matches!(wanted.config.output, MirrorOutput::Port(_)))
        .filter_map(|(key, wanted)| {
            let other = foreign().find(|mirror| mirror.config.output == wanted.config.output)?;
            let text = format!(
                "{} is also the output of mirror `{}`, which is not pve-span's: its frames arrive there too, and it is left alone",
                key.output,
                printable(&other.name)
            );
            Some(Problem { session: key.session.clone(), text })
        })
        .collect()
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MirrorKey {
            bridge,
            session,
            output,
        } = &self.mirror;
        write!(
            f,
            "{bridge} {session} → {}: {}",
            printable(output),
            self.change
        )
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remove { why } => write!(f, "remove mirror ({why})"),
            Self::Create => f.write_str("create mirror"),
            Self::SetOutput {
                from: MirrorOutput::None,
                to,
            } => write!(f, "output {to}"),
            Self::SetOutput { from, to } => write!(f, "output {to} instead of {from}"),
            Self::SetAll { all: true } => f.write_str("everything on the bridge"),
            Self::SetAll { all: false } => f.write_str("no longer everything on the bridge"),
            Self::SetVlans { to } if to.is_empty() => f.write_str("every VLAN"),
            Self::SetVlans { to } => write!(f, "VLAN {to} only"),
            Self::SetSnaplen { to: Some(bytes) } => {
                write!(f, "the first {bytes} bytes of each frame")
            }
            Self::SetSnaplen { to: None } => f.write_str("whole frames"),
            Self::SetSource {
                port,
                nic,
                from,
                to,
            } => {
                let sign = match (from, to) {
                    (None, _) => "+",
                    (_, None) => "-",
                    _ => "~",
                };
                write!(f, "{sign} source ")?;
                match nic {
                    Some(nic) => write!(f, "{nic} ({port})")?,
                    None => write!(f, "{port}")?,
                }
                match (from, to) {
                    (Some(from), Some(to)) => write!(f, ", {to} instead of {from}"),
                    (None, Some(to)) => write!(f, ", {to}"),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for action in &self.actions {
            writeln!(f, "{action}")?;
        }
        for problem in &self.problems {
            writeln!(f, "{}: {}", problem.session, problem.text)?;
        }
        for remark in &self.remarks {
            writeln!(f, "{}: note: {}", remark.session, remark.text)?;
        }
        Ok(())
    }
}
