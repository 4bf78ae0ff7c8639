//! The one reconcile that every trigger runs: look, plan, act, look again.

pub mod events;
pub mod inputs;
pub mod lock;
pub mod observe;

mod acquire;
mod clear;
mod error;
mod execute;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::config::active;
use crate::config::active::InForce;
use crate::engine::ovs;
use crate::engine::ovs::flows::{Owed, Tried};
use crate::engine::ovs::{Applied, Waited};
use crate::reconcile::lock::{Lock, Reach};
use crate::reconcile::observe::{Context, Look, resolved, see};
use crate::sys::clock::Moment;
use crate::sys::error::with_causes;
use pve_span_core::engine::nft::NftState;
use pve_span_core::model::{IfName, SessionName, Vmid};
use pve_span_core::plan::{Action, PortChange, changes, plan};

use acquire::{Occasion, hold, vmids};
use clear::{cleared, nothing_asked};
use execute::{FlowScope, Round};

pub use clear::{clear, ours};
pub use error::Error;

/// How often a plan is made anew because Open vSwitch's configuration changed meanwhile.
const TRIES: u32 = 8;

/// How long the pause before the second try is; each one after that is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// What a reconcile did.
#[derive(Debug)]
pub struct Done {
    /// The last look: what is there now, and why not more.
    pub look: Look,
    /// What was changed of mirrors.
    pub actions: Vec<Action>,
    /// What was changed of outputs' devices.
    pub ports: Vec<PortChange>,
    /// What else was put in order.
    pub tidy: Option<&'static str>,
    /// What could not be done.
    pub faults: Vec<Error>,
    /// Has ovs-vswitchd acted on it?
    pub applied: Applied,
    /// How it went to wait for ovs-vswitchd, if that was needed.
    pub waited: Option<Waited>,
    /// The bridges whose flows are to be revalidated.
    flows: Owed,
}

impl Done {
    /// Says on stderr what could not be done.
    pub fn tell_faults(&self) {
        for fault in &self.faults {
            log::error!("{}", with_causes(fault));
        }
    }

    /// All that was done, in words.
    pub fn in_words(&self) -> Vec<String> {
        let ports = self.ports.iter().map(ToString::to_string);
        let tidy = self.tidy.map(str::to_owned);
        changes(&self.actions)
            .into_iter()
            .chain(ports)
            .chain(tidy)
            .collect()
    }

    /// Was there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.ports.is_empty() && self.tidy.is_none()
    }

    /// Has conversations that exist already follow the change. It takes ovs-vswitchd a moment, as it looks at all of its ports
    /// first. The lock has to be held.
    fn follow(&mut self, context: &Context) {
        if let Some(tried) = self.revalidate(context) {
            self.settle(context, tried);
        }
    }

    /// The same where somebody waits who need not wait for that: without the lock, which others may want meanwhile.
    ///
    /// # Errors
    /// The lock is not had to strike it off, so the next one does it again.
    pub fn follow_later(&mut self, context: &Context) -> Result<(), Error> {
        let Some(tried) = self.revalidate(context) else {
            return Ok(());
        };
        match Lock::acquire(&context.root, context.deadline) {
            Ok(_lock) => self.settle(context, tried),
            Err(error) => {
                self.failed(tried.failures());
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Is there anything to follow?
    pub fn has_flows(&self) -> bool {
        !self.flows.is_empty()
    }

    fn revalidate(&mut self, context: &Context) -> Option<Tried> {
        let owed = std::mem::take(&mut self.flows);
        let deadline = context.deadline.min(Instant::now() + context.patience);
        (!owed.is_empty()).then(|| ovs::flows::revalidate(&context.root, &owed, deadline))
    }

    fn settle(&mut self, context: &Context, tried: Tried) {
        self.failed(ovs::flows::settle(&context.root, tried));
    }

    fn failed(&mut self, failed: Vec<(IfName, ovs::FlowsError)>) {
        for (bridge, source) in failed {
            self.look.observed.stale.insert(bridge.clone());
            self.faults.push(Error::Flows { bridge, source });
        }
    }

    /// Puts on record what was changed.
    fn record(&self, context: &Context) {
        events::record(&context.root, &context.by, &self.in_words());
    }
}

/// Who asks for a reconcile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// An administrator: what is, is.
    Command,
    /// A guest has started or stopped.
    Settled(Vmid),
    /// A guest is about to stop.
    Stopping(Vmid),
    /// Something has changed, says the service.
    Watch,
}

/// Brings the node into its desired state. Nothing comes back if another reconcile has just done so.
///
/// # Errors
/// See [`Error`]; what was there is still there, except for [`Error::NotVerified`].
pub fn reconcile(
    context: &Context,
    trigger: &Trigger,
    arrival: Moment,
) -> Result<Option<Done>, Error> {
    reconcile_and(context, trigger, arrival, Done::follow)
}

/// The same for a caller who sees to it that conversations that exist already follow ([`Done::follow_later`]).
///
/// # Errors
/// As [`reconcile`].
pub fn reconcile_first(
    context: &Context,
    trigger: &Trigger,
    arrival: Moment,
) -> Result<Option<Done>, Error> {
    reconcile_and(context, trigger, arrival, |_, _| {})
}

fn reconcile_and(
    context: &Context,
    trigger: &Trigger,
    arrival: Moment,
    follow: impl FnOnce(&mut Done, &Context),
) -> Result<Option<Done>, Error> {
    let Some(held) = hold(context, Occasion::Reconcile(trigger, arrival))? else {
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
    follow(&mut done, context);
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
        Some(Waited::Reached) => lock.memory.stuck_at = None,
        Some(Waited::InVain { stuck_at }) => lock.memory.stuck_at = stuck_at,
    }
    if done.applied == Applied::Yes && done.faults.is_empty() {
        // Who has found all that were looked for need not have looked farther.
        let found_all = done.look.cluster.guests.values().all(Result::is_ok);
        let reach = match held.reach {
            Reach::Node if found_all => Reach::Cluster,
            reach => reach,
        };
        lock.memory.succeeded(began, gone, reach);
    }
    lock.memory.ends();
    lock.store();
    Ok(Some(done))
}

/// Acts on a look and looks again, until there is nothing left to do. The lock is held, so nothing in /etc/pve is touched:
/// a guest that comes meanwhile stays unknown, and is the next reconcile's.
fn act(
    context: &Context,
    mut look: Look,
    gone: &BTreeSet<Vmid>,
    clear: Option<Option<&BTreeSet<SessionName>>>,
    flow_scope: FlowScope,
    stuck_at: Option<i64>,
) -> Result<Done, Error> {
    let mut done = Round::default();
    for round in 0..TRIES {
        if round > 0 {
            if !pause(round, context.deadline) {
                break;
            }
            look = look_again(look, context, gone).map_err(|error| done.after(error))?;
        }
        if let Some(sessions) = clear {
            cleared(&mut look, sessions);
            look.plan = plan(&look.desired, &look.observed);
        } else if let InForce::Unknown { why, .. } = &look.in_force {
            return Err(done.after(Error::NotInForce(why.clone())));
        }
        let has_sessions = clear.is_some() || look.in_force.annotations().is_some();
        let mut faults = Vec::new();
        if !look.plan.is_done() {
            match done.carry_out(context, &mut look, &mut faults) {
                Ok(()) => {}
                Err(Error::Conflicts) => continue,
                Err(error) => return Err(done.after(error)),
            }
        }
        // Whether what was set up has a carrier is told by another look.
        if std::mem::take(&mut done.raised) && faults.is_empty() {
            continue;
        }
        // Where there have never been sessions there is nothing to lose either.
        let silent = match clear {
            Some(_) => look.observed.ovs.unanswered(),
            None => look.waits_for_ovs(),
        };
        if let Some(why) = silent.filter(|_| has_sessions) {
            faults.push(Error::Ovs(why.to_owned()));
        }
        if let (NftState::Failed(why), true) = (&look.observed.nft, has_sessions) {
            faults.push(Error::NoNft(why.clone()));
        }
        if look.plan.is_done() || !faults.is_empty() {
            let (applied, flows) = done.wait(context, &look, flow_scope, stuck_at);
            return Ok(Done {
                look,
                actions: done.actions,
                ports: done.ports,
                tidy: done.tidy,
                faults,
                applied,
                waited: done.waited,
                flows,
            });
        }
        // A port that went meanwhile leaves something to do: that is another round, not a failure.
        log::debug!(
            "not as planned after the commit, looking again:\n{}",
            look.plan
        );
    }
    Err(if done.is_empty() {
        Error::Conflicts
    } else {
        Error::NotVerified("it changes again and again".into())
    })
}

/// Looks at the node again, by what has been read.
fn look_again(look: Look, context: &Context, gone: &BTreeSet<Vmid>) -> Result<Look, Error> {
    let mut reading = look.into_reading();
    reading.close();
    let seen = see(context, &reading)?;
    let look = resolved(reading, seen, context, gone).map_err(|_| Error::Conflicts)?;
    Ok(*look)
}

/// Leaves those time who change the same things, before the try of this number. Is there still time for it?
fn pause(number: u32, deadline: Instant) -> bool {
    let pause = FIRST_PAUSE.saturating_mul(1 << number.saturating_sub(1).min(16));
    let left = deadline.saturating_duration_since(Instant::now());
    if left <= pause {
        return false;
    }
    std::thread::sleep(pause);
    true
}
