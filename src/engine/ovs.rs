//! The `ovs` engine: observes and changes Open vSwitch's mirrors through OVSDB (RFC 7047).
//!
//! It changes rows that carry our mark and the `mirrors` column of their bridges, the latter only by
//! `mutate`; everything else in the database is read only.

mod capabilities;
mod counters;
mod filters;
pub mod flows;
mod framing;
pub mod monitor;
mod observe;
mod openflow;
mod operations;
mod rpc;
mod value;

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

pub use capabilities::more;
pub use counters::{CounterReading, asked, statistics};
pub use filters::filters;
pub use framing::{Framing, FramingError};
pub use observe::{MARK_OUTPUT, MARK_SESSION, PortSelection, read};
pub use openflow::Error as FlowsError;
pub use rpc::{Client, Error, SOCKET};
use rpc::{PendingRequest, Transaction};

use crate::sys::error::with_causes;
use pve_span_core::plan::Plan;
use pve_span_core::state::{Ovs, OvsState};

/// What an Open vSwitch that is not running leaves, below the root directory.
const TRACES: [&str; 3] = [
    "run/openvswitch",
    "etc/openvswitch/conf.db",
    "var/lib/openvswitch/conf.db",
];

/// How far a transaction got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitState {
    /// ovs-vswitchd has acted on it.
    Yes,
    /// It is in the database; ovs-vswitchd has not acted on it in time.
    NotYet,
}

/// Connects and reads; a missing or failing Open vSwitch is a state, not an error.
pub fn observe(
    root: &Path,
    which: &PortSelection,
    deadline: Instant,
) -> (OvsState, Option<Client>) {
    let read = Client::connect(&root.join(SOCKET), deadline).and_then(|mut client| {
        let ovs = observe::read(&mut client, which)?;
        Ok((ovs, client))
    });
    match read {
        Ok((ovs, client)) => (OvsState::Present(ovs), Some(client)),
        Err(error @ Error::NoSocket { .. }) if !is_installed(root) => {
            (OvsState::Absent(error.to_string()), None)
        }
        Err(error @ Error::NoSocket { .. }) => {
            let text = format!("{error}; if it was removed for good: apt purge openvswitch-switch");
            (OvsState::Failed(text), None)
        }
        Err(error) => (OvsState::Failed(with_causes(&error)), None),
    }
}

/// Has there ever been an Open vSwitch here? One that is stopped keeps its database, with our mirrors in it.
fn is_installed(root: &Path) -> bool {
    TRACES.iter().any(|trace| root.join(trace).exists())
}

/// Carries the plan out in one transaction, and reads back; what is there now and what to wait for come back.
///
/// # Errors
/// Nothing was done: the database could not be reached, refused, or has changed ([`Error::Conflict`]). Or nobody
/// knows: the answer did not arrive ([`Error::Uncertain`]).
pub fn commit(
    client: &mut Client,
    plan: &Plan,
    ovs: &Ovs,
    comment: &str,
) -> Result<(Result<Ovs, Error>, Goal), Error> {
    let mut operations = operations::operations(plan, ovs)?;
    operations.push(json!({"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}));
    operations.push(
        json!({"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"]}),
    );
    operations.push(json!({"op": "comment", "comment": comment}));
    let transaction = client.begin(operations)?;
    let (results, asked, following) = sent(client, transaction).map_err(|error| match error {
        Error::Operation { .. } | Error::Request(_) | Error::Conflict => error,
        _ => Error::Uncertain(Box::new(error)),
    })?;
    let next_cfg = results
        .iter()
        .find_map(|result| result.get("rows")?.get(0)?.get("next_cfg")?.as_i64());
    let unread = || {
        Error::Uncertain(Box::new(Error::Protocol(
            "next_cfg cannot be read back".into(),
        )))
    };
    let next_cfg = next_cfg.ok_or_else(unread)?;
    let now = observe::answer_back(client, asked, ovs);
    Ok((
        now,
        Goal {
            next_cfg,
            following,
        },
    ))
}

/// Asks what is there and how far ovs-vswitchd is, while the transaction is on its way: the server takes the
/// questions in order.
fn sent(
    client: &mut Client,
    transaction: Transaction,
) -> Result<(Vec<Value>, Transaction, PendingRequest), Error> {
    let asked = observe::ask_back(client)?;
    let following = client.follow("Open_vSwitch", &["cur_cfg"])?;
    Ok((client.results(transaction)?, asked, following))
}

/// Which state of the configuration ovs-vswitchd has to reach (`next_cfg`), and who tells.
#[derive(Debug)]
pub struct Goal {
    next_cfg: i64,
    following: PendingRequest,
}

/// How it went to wait for ovs-vswitchd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitResult {
    /// It has acted.
    Reached,
    /// It has not.
    InVain {
        /// How far it was all the time (`cur_cfg`), as far as is known.
        stuck_at: Option<i64>,
    },
}

impl From<WaitResult> for CommitState {
    fn from(waited: WaitResult) -> Self {
        match waited {
            WaitResult::Reached => Self::Yes,
            WaitResult::InVain { .. } => Self::NotYet,
        }
    }
}

/// Waits until ovs-vswitchd has acted on a commit, for as long as there is patience; not at all if it is still where
/// another one has left it after waiting in vain (`stuck_at`).
pub fn wait(
    mut client: Client,
    goal: Goal,
    patience: Instant,
    stuck_at: Option<i64>,
) -> WaitResult {
    client.set_deadline(patience);
    let Ok(initial) = client.reply(goal.following) else {
        // Committed is committed; that nobody can tell how far it got is not worse than that it did not.
        return WaitResult::InVain { stuck_at: None };
    };
    let mut seen = highest(&initial, 0);
    while seen.is_none_or(|cur_cfg| cur_cfg < goal.next_cfg) {
        if seen.is_some() && seen == stuck_at {
            return WaitResult::InVain { stuck_at };
        }
        let Ok(update) = client.notification() else {
            return WaitResult::InVain { stuck_at: seen };
        };
        seen = seen.max(update.get("params").and_then(|params| highest(params, 0)));
    }
    WaitResult::Reached
}

/// The `cur_cfg` anywhere in an update (`{table: {row: {"initial": {column: value}}}}`).
fn highest(value: &Value, depth: usize) -> Option<i64> {
    if let Some(cur_cfg) = value.get("cur_cfg").and_then(Value::as_i64) {
        return Some(cur_cfg);
    }
    let deeper = |inner: &Value| {
        if depth < 6 {
            highest(inner, depth + 1)
        } else {
            None
        }
    };
    match value {
        Value::Object(map) => map.values().filter_map(deeper).max(),
        Value::Array(items) => items.iter().filter_map(deeper).max(),
        _ => None,
    }
}
