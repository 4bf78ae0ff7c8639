//! Reads in /etc/pve, and then takes the lock: in this order, so that who hangs there holds nothing that others need.
//!
//! What has been seen before the lock is had counts if it was free and nobody has worked since before that; else the node is
//! looked at again, by what has been read. Who reads has the turn to read until then, so nobody goes by a reading that is older
//! than the one before. Where /etc/pve hangs, nothing is read there and no turn is needed.

use std::collections::BTreeSet;

use super::context::{Context, PveAccess, Trigger};
use super::error::Error;
use crate::config::active::InForce;
use crate::pve::{Pve, SPAN_CFG};
use crate::reconcile::inputs::{ClusterInput, Detail};
use crate::reconcile::lock::readers::Turn;
use crate::reconcile::lock::{Life, Lock, LockFile, Memory, ReadScope};
use crate::reconcile::observe::{Look, OVS_SHORT_PATIENCE, resolved, see};
use crate::sys;
use crate::sys::clock::MonotonicTime;
use pve_span_core::model::{PortRole, Vmid, port_owner};
use pve_span_core::state::Observed;

/// How often it is read again because a guest has come meanwhile. After that, one that has come is left unknown: its own
/// hook or event is about to follow.
const READINGS: usize = 3;

/// What the lock is taken for.
#[derive(Debug, Clone, Copy)]
pub enum LockPurpose<'a> {
    /// A reconcile, and when whoever asks for it did so.
    Reconcile(&'a Trigger, MonotonicTime),
    /// Mirrors of some sessions go.
    Clear,
    /// All of them go, whatever /etc/pve says.
    ClearAll,
}

/// A look, and the lock.
#[derive(Debug)]
pub struct Held {
    /// Nobody else changes anything until it is dropped.
    pub lock: Lock,
    /// What is there and what shall be there.
    pub look: Look,
    /// Since when what is seen and read may have changed.
    pub began: MonotonicTime,
    /// The guests that count as gone.
    pub gone: BTreeSet<u32>,
    /// How far was looked.
    pub reach: ReadScope,
}

/// Reads, looks, and takes the lock. Nothing comes back if somebody else has just done what is to be done.
///
/// # Errors
/// The lock is not had, or the kernel does not answer.
pub fn hold(context: &Context, occasion: LockPurpose<'_>) -> Result<Option<Held>, Error> {
    let file = LockFile::open(&context.root)?;
    if let LockPurpose::ClearAll = occasion {
        return blind(context, occasion, file);
    }
    if let PveAccess::Hangs(_) = context.pve {
        return blind(context, occasion, file);
    }
    // Waiting for others is no hanging.
    match file.take_turn(context.deadline, || context.progress.leave())? {
        Turn::Ours => in_turn(context, occasion, file),
        Turn::Hung(pid) => {
            let pve = PveAccess::Hangs(Some(pid));
            let context = Context {
                pve,
                ..context.clone()
            };
            blind(&context, occasion, file)
        }
    }
}

/// Nothing in /etc/pve is touched: all of it can be done under the lock.
fn blind(
    context: &Context,
    occasion: LockPurpose<'_>,
    file: LockFile,
) -> Result<Option<Held>, Error> {
    context.progress.leave();
    let mut lock = file.lock(context.deadline)?;
    let began = MonotonicTime::now();
    if let PveAccess::Hangs(Some(pid)) = context.pve {
        lock.memory.hung = Some(pid);
    }
    let context = occasion.hurried(context, &lock.memory);
    let mut reading = match occasion {
        LockPurpose::ClearAll => {
            ClusterInput::without_cluster(not_configured(&context), Detail::Mirrors, "not read")
        }
        _ => ClusterInput::take(&context, occasion.detail()),
    };
    reading.close();
    let seen = see(&context, &reading)?;
    let gone = occasion.note(&mut lock.memory, &seen.observed, began)?;
    let reach = ReadScope::LastGood;
    if occasion.is_done(&lock.memory, began, &gone, reach) {
        lock.store();
        return Ok(None);
    }
    // It lacks nothing, as nothing can be read.
    let look = resolved(reading, seen, &context, &vmids(&gone)).map_err(|_| Error::Conflicts)?;
    Ok(Some(Held {
        lock,
        look: *look,
        began,
        gone,
        reach,
    }))
}

/// It is our turn to read.
fn in_turn(
    context: &Context,
    occasion: LockPurpose<'_>,
    mut file: LockFile,
) -> Result<Option<Held>, Error> {
    let began = MonotonicTime::now();
    let before = file.peek();
    let reach = occasion.reach();
    if let Some(gone) = occasion.known(&before, began) {
        if occasion.is_done(&before, began, &gone, reach) {
            return Ok(None);
        }
    }
    let context = &occasion.hurried(context, &before);
    let mut reading = file.while_reading(|| ClusterInput::take(context, occasion.detail()));
    for left in (0..READINGS).rev() {
        let memory = file.peek();
        let mut seen = see(context, &reading)?;
        let gone = occasion.note(&mut before.clone(), &seen.observed, began)?;
        let look = loop {
            match resolved(reading, seen, context, &vmids(&gone)) {
                Ok(look) => break look,
                Err(unread) => (reading, seen) = file.while_reading(|| unread.read(context)),
            }
        };
        let mut lock = file.lock(context.deadline)?;
        let now = MonotonicTime::now();
        let as_before = lock.at_once && lock.memory.is_as_at(&memory);
        if as_before && occasion.note(&mut lock.memory, &look.observed, now)? == gone {
            return Ok(occasion.held(lock, *look, began, gone));
        }
        reading = look.into_reading();
        let again = see(context, &reading)?;
        let gone = occasion.note(&mut lock.memory, &again.observed, now)?;
        if occasion.is_done(&lock.memory, now, &gone, reach) {
            lock.store();
            return Ok(None);
        }
        let unread = match resolved(reading, again, context, &vmids(&gone)) {
            Ok(look) => return Ok(occasion.held(lock, *look, began, gone)),
            Err(unread) => unread,
        };
        if left == 0 {
            let (reading, seen) = unread.leave();
            let look =
                resolved(reading, seen, context, &vmids(&gone)).map_err(|_| Error::Conflicts)?;
            return Ok(occasion.held(lock, *look, began, gone));
        }
        file = lock.release()?;
        (reading, _) = file.while_reading(|| unread.read(context));
    }
    Err(Error::Conflicts)
}

impl LockPurpose<'_> {
    /// How much is looked at.
    fn detail(self) -> Detail {
        match self {
            Self::Reconcile(Trigger::Command, _) => Detail::All,
            Self::Reconcile(Trigger::Watch, _) => Detail::Anywhere,
            Self::Reconcile(Trigger::Settled(_) | Trigger::Stopping(_), _)
            | Self::Clear
            | Self::ClearAll => Detail::Mirrors,
        }
    }

    fn reach(self) -> ReadScope {
        match self.detail() {
            Detail::All | Detail::Anywhere => ReadScope::Cluster,
            Detail::Mirrors => ReadScope::Node,
        }
    }

    /// Who has just been waited for in vain is not waited for as long again by hooks. The service finds out when it answers
    /// again, however slowly.
    fn hurried(self, context: &Context, memory: &Memory) -> Context {
        let mut context = context.clone();
        let is_hurried = matches!(
            self,
            Self::Reconcile(Trigger::Settled(_) | Trigger::Stopping(_), _)
        );
        if memory.is_ovs_silent && is_hurried {
            context.ovs_patience = OVS_SHORT_PATIENCE;
        }
        context
    }

    /// Notes what the trigger says of guests; those that count as gone come back.
    fn note(
        self,
        memory: &mut Memory,
        observed: &Observed,
        now: MonotonicTime,
    ) -> Result<BTreeSet<u32>, Error> {
        let Self::Reconcile(trigger, _) = self else {
            return Ok(BTreeSet::new());
        };
        match trigger {
            Trigger::Command => memory.forget(),
            Trigger::Settled(vmid) => memory.settled(*vmid),
            Trigger::Stopping(vmid) => memory.stops(*vmid, &life(*vmid, observed)?, now),
            Trigger::Watch => {}
        }
        Ok(memory.stopping(now))
    }

    /// The guests that count as gone, where that can be told without a look.
    fn known(self, memory: &Memory, now: MonotonicTime) -> Option<BTreeSet<u32>> {
        match self {
            Self::Reconcile(Trigger::Stopping(_), _) => None,
            _ => self
                .note(&mut memory.clone(), &Observed::default(), now)
                .ok(),
        }
    }

    /// Has somebody else done it? What an administrator asks for is always done.
    fn is_done(
        self,
        memory: &Memory,
        now: MonotonicTime,
        gone: &BTreeSet<u32>,
        reach: ReadScope,
    ) -> bool {
        match self {
            Self::Reconcile(Trigger::Command, _) | Self::Clear | Self::ClearAll => false,
            Self::Reconcile(_, arrival) => memory.covers(arrival, now, gone, reach),
        }
    }

    fn held(
        self,
        mut lock: Lock,
        look: Look,
        began: MonotonicTime,
        gone: BTreeSet<u32>,
    ) -> Option<Held> {
        lock.end_turn();
        lock.memory.hung = None;
        Some(Held {
            lock,
            look,
            began,
            gone,
            reach: self.reach(),
        })
    }
}

/// The guests by their numbers.
pub fn vmids(gone: &BTreeSet<u32>) -> BTreeSet<Vmid> {
    gone.iter().copied().filter_map(Vmid::new).collect()
}

/// Which run of a guest this is.
fn life(vmid: Vmid, observed: &Observed) -> Result<Life, Error> {
    let is_its = |name: &str| {
        port_owner(name)
            .is_some_and(|(nic, role)| nic.vmid == vmid && matches!(role, PortRole::Device(_)))
    };
    let links = &observed.links;
    let its = links.iter().filter(|(name, _)| is_its(name.as_str()));
    let its: BTreeSet<_> = its.map(|(name, link)| (name.clone(), link.index)).collect();
    if its.iter().all(|(_, index)| *index != 0) {
        return Ok(its.into_iter().map(|(_, index)| index).collect());
    }
    // Of these, a look knows no more than that they are there.
    let names = its.into_iter().map(|(name, _)| name).collect();
    let links = sys::links_named(&names)?;
    Ok(links.values().map(|link| link.index).collect())
}

fn not_configured(context: &Context) -> InForce {
    let path = Pve::new(&context.root).path(SPAN_CFG);
    InForce::NotConfigured { path }
}
