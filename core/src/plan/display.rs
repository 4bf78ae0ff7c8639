//! A plan in words: the dry run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::change::{Action, Change, Plan, Problem, Remark};
use crate::engine::Engine;
use crate::model::Taken;
use crate::model::{MAX_LISTED, printable};
use crate::state::{MirrorKey, MirrorOutput};

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MirrorKey { engine, of } = &self.mirror;
        match engine {
            Engine::Ovs(bridge) => write!(f, "{bridge}")?,
            Engine::Nft => f.write_str("nft")?,
        }
        write!(
            f,
            " {} → {}: {}",
            of.session,
            printable(&of.output),
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
            Self::SetFrames { to } => f.write_str(to),
            Self::Renew => f.write_str("put in order"),
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

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.session, self.text)
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: note: {}", self.session, self.text)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for action in &self.actions {
            writeln!(f, "{action}")?;
        }
        for change in &self.ports {
            writeln!(f, "{change}")?;
        }
        if let Some(tidy) = self.tidy {
            writeln!(f, "{tidy}")?;
        }
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        for remark in &self.remarks {
            writeln!(f, "{remark}")?;
        }
        Ok(())
    }
}

/// The changes in words, one line a session.
pub fn changes(actions: &[Action]) -> Vec<String> {
    let mut mirrors: BTreeMap<&MirrorKey, Vec<&Change>> = BTreeMap::new();
    for action in actions {
        mirrors
            .entry(&action.mirror)
            .or_default()
            .push(&action.change);
    }
    let sessions: BTreeSet<_> = mirrors.keys().map(|key| &key.of.session).collect();
    let of = |session| {
        mirrors
            .iter()
            .filter(move |(key, _)| &key.of.session == session)
    };
    let told = |session| {
        of(session)
            .map(|(key, changes)| mirror_in_words(key, changes))
            .collect::<Vec<_>>()
            .join("; ")
    };
    sessions
        .into_iter()
        .map(|session| format!("{session}: {}", told(session)))
        .collect()
}

fn mirror_in_words(key: &MirrorKey, changes: &[&Change]) -> String {
    let output = printable(&key.of.output);
    let place = match &key.engine {
        Engine::Ovs(bridge) => format!("{output} (ovs, {bridge})"),
        Engine::Nft => format!("{output} (nft)"),
    };
    let sources = |kind: fn(Option<Taken>, Option<Taken>) -> bool| {
        let chosen = changes.iter().filter_map(move |change| match change {
            Change::SetSource {
                port,
                nic,
                from,
                to,
            } if kind(*from, *to) => {
                let direction = to.or(*from).filter(|taken| *taken != Taken::Both);
                let direction = direction
                    .map(|taken| format!(" ({taken})"))
                    .unwrap_or_default();
                Some(format!(
                    "{}{direction}",
                    nic.map_or_else(|| port.to_string(), |nic| nic.to_string())
                ))
            }
            _ => None,
        });
        let chosen: Vec<String> = chosen.collect();
        // Two more than the list are not worth a word of their own.
        let shown = if chosen.len() > MAX_LISTED + 2 {
            MAX_LISTED
        } else {
            chosen.len()
        };
        let more = chosen.len() - shown;
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        format!(
            "{}{more}",
            chosen
                .iter()
                .take(shown)
                .cloned()
                .collect::<Vec<_>>()
                .join(", ")
        )
    };
    let mut parts = Vec::new();
    if let Some(why) = changes.iter().find_map(|change| match change {
        Change::Remove { why } => Some(*why),
        _ => None,
    }) {
        parts.push(format!("no longer mirrors to {place}: {why}"));
    }
    let (join, leave, turn) = (
        sources(|from, to| from.is_none() && to.is_some()),
        sources(|_, to| to.is_none()),
        sources(|from, to| from.is_some() && to.is_some()),
    );
    if !join.is_empty() {
        parts.push(format!("mirrors {join} to {place}"));
    }
    if !leave.is_empty() {
        parts.push(format!("no longer mirrors {leave} to {place}"));
    }
    if !turn.is_empty() {
        parts.push(format!("changes {turn} to {place}"));
    }
    let created = changes
        .iter()
        .any(|change| matches!(change, Change::Create));
    let takes_all = changes
        .iter()
        .any(|change| matches!(change, Change::SetAll { all: true }));
    // Nothing is mirrored by it: it keeps its output for what nftables copies.
    let reserves = created && join.is_empty() && !takes_all;
    for change in changes {
        match change {
            Change::SetAll { all: true } => {
                let bridge = key.engine.bridge();
                let bridge = bridge.map_or("the bridge".to_owned(), ToString::to_string);
                parts.push(format!("mirrors everything on {bridge} to {place}"));
            }
            Change::SetOutput { .. } if !created => parts.push(format!("{place}: {change}")),
            Change::Renew => parts.push(format!("{place}: {change}")),
            Change::SetFrames { .. }
            | Change::SetVlans { .. }
            | Change::SetSnaplen { .. }
            | Change::SetAll { all: false }
                if !reserves =>
            {
                let is_told = !parts.is_empty();
                parts.push(if is_told {
                    change.to_string()
                } else {
                    format!("{place}: {change}")
                });
            }
            _ => {}
        }
    }
    if parts.is_empty() && reserves {
        parts.push(format!("reserves {place} for copies"));
    }
    parts.join(", ")
}
