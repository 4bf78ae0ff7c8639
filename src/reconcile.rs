//! The one reconcile that every trigger runs: look, plan, act, look again.

pub mod events;
pub mod inputs;
pub mod lock;
pub mod observe;

mod acquire;
mod clear;
mod context;
mod done;
mod error;
mod execute;

use std::collections::BTreeSet;

use crate::config::active;
use crate::engine::ovs::{CommitState, WaitResult};
use crate::reconcile::lock::ReadScope;
use crate::sys::clock::MonotonicTime;
use crate::sys::error::with_causes;
use pve_span_core::model::SessionName;

use acquire::{LockPurpose, hold, vmids};
use execute::{FlowScope, act};

pub use clear::ours;
pub use context::{Context, PveAccess, Trigger};
pub use done::Done;
pub use error::Error;

/// Brings the node into its desired state. Nothing comes back if another reconcile has just done so.
///
/// # Errors
/// See [`Error`]; what was there is still there, except for [`Error::NotVerified`].
pub fn reconcile(
    context: &Context,
    trigger: &Trigger,
    arrival: MonotonicTime,
) -> Result<Option<Done>, Error> {
    reconcile_and(context, trigger, arrival, Done::revalidate_flows)
}

/// The same for a caller who sees to it that conversations that exist already follow ([`Done::revalidate_flows_unlocked`]).
///
/// # Errors
/// As [`reconcile`].
pub fn reconcile_first(
    context: &Context,
    trigger: &Trigger,
    arrival: MonotonicTime,
) -> Result<Option<Done>, Error> {
    reconcile_and(context, trigger, arrival, |_, _| {})
}

/// Removes mirrors of ours: those of some sessions, or all of them.
///
/// # Errors
/// See [`Error`].
pub fn clear(context: &Context, sessions: Option<&BTreeSet<SessionName>>) -> Result<Done, Error> {
    let occasion = match sessions {
        None => LockPurpose::ClearAll,
        Some(_) => LockPurpose::Clear,
    };
    // Nobody else clears what is to be cleared.
    let mut held = hold(context, occasion)?.ok_or(Error::Conflicts)?;
    held.lock.memory.begins();
    held.lock.store();
    let mut done = act(
        context,
        held.look,
        &BTreeSet::new(),
        Some(sessions),
        FlowScope::All,
        None,
    )?;
    done.revalidate_flows(context);
    done.record(context);
    held.lock.memory.ends();
    held.lock.store();
    Ok(done)
}

fn reconcile_and(
    context: &Context,
    trigger: &Trigger,
    arrival: MonotonicTime,
    revalidate_flows: impl FnOnce(&mut Done, &Context),
) -> Result<Option<Done>, Error> {
    let Some(held) = hold(context, LockPurpose::Reconcile(trigger, arrival))? else {
        return Ok(None);
    };
    let (mut lock, began, gone) = (held.lock, held.began, held.gone);
    // Written before the work: who dies in the middle leaves the announcement and no claim of success.
    lock.memory.begins();
    lock.store();
    // An administrator waits for ovs-vswitchd also where others have waited in vain, and does what others are still at.
    let (flow_scope, stuck_at) = match trigger {
        Trigger::Command => (FlowScope::All, None),
        _ => (FlowScope::Own, lock.memory.stuck_at),
    };
    let mut done = act(
        context,
        held.look,
        &vmids(&gone),
        None,
        flow_scope,
        stuck_at,
    )?;
    revalidate_flows(&mut done, context);
    done.record(context);
    if let Err(error) = active::keep(&context.root, &done.look.in_force) {
        log::warn!(
            "{}; mirroring goes on, without a last good copy",
            with_causes(&error)
        );
    }
    lock.memory.is_ovs_silent = done.look.is_ovs_silent;
    match done.waited {
        None => {}
        Some(WaitResult::Reached) => lock.memory.stuck_at = None,
        Some(WaitResult::InVain { stuck_at }) => lock.memory.stuck_at = stuck_at,
    }
    if done.applied == CommitState::Yes && done.faults.is_empty() {
        // Who has found all that were looked for need not have looked farther.
        let found_all = done.look.cluster.guests.values().all(Result::is_ok);
        let reach = match held.reach {
            ReadScope::Node if found_all => ReadScope::Cluster,
            reach => reach,
        };
        lock.memory.succeeded(began, gone, reach);
    }
    lock.memory.ends();
    lock.store();
    Ok(Some(done))
}
