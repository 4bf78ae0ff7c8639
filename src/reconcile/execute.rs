//! Carries out a look's plan: outputs' devices, Open vSwitch's mirrors and nftables' table.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::clear::cleared;
use super::context::Context;
use super::done::Done;
use super::error::{Error, TRIES};
use super::observe::{Look, observe_outputs, resolved, see};
use crate::config::active::InForce;
use crate::engine::nft;
use crate::engine::ovs;
use crate::engine::ovs::flows::{StaleFlows, hand_over};
use crate::engine::ovs::{Client, CommitState, Goal, WaitResult};
use crate::engine::port::{backup, setup};
use crate::sys;
use crate::sys::error::with_causes;
use pve_span_core::engine::Engine;
use pve_span_core::engine::nft::NftState;
use pve_span_core::model::{SessionName, Vmid};
use pve_span_core::plan::{Action, PortChange, plan};
use pve_span_core::state::OvsState;

/// How long the pause before the second try is; each one after that is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The revalidations that somebody sees to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowScope {
    /// Those of its own changes, and abandoned ones.
    Own,
    /// All that there are.
    All,
}

/// What has been done so far.
#[derive(Default)]
pub struct Round {
    pub actions: Vec<Action>,
    pub ports: Vec<PortChange>,
    pub tidy: Option<&'static str>,
    /// Has a device been set up or down since the last look?
    pub raised: bool,
    waiting: Option<(Client, Goal)>,
    pub waited: Option<WaitResult>,
    /// Was a transaction sent of which nobody knows when ovs-vswitchd has acted on it?
    is_uncertain: bool,
}

impl Round {
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.ports.is_empty() && self.tidy.is_none()
    }

    /// An error of a later round: what the earlier ones committed is there.
    pub fn after(&self, error: Error) -> Error {
        match error {
            error if self.is_empty() => error,
            error @ Error::Uncertain(_) => error,
            error => Error::NotVerified(with_causes(&error)),
        }
    }

    /// Carries a look's plan out and looks again. An output is made ready before anything is sent to it, and put
    /// back after. What one part refuses does not keep the others from being done.
    pub fn carry_out(
        &mut self,
        context: &Context,
        look: &mut Look,
        faults: &mut Vec<Error>,
    ) -> Result<(), Error> {
        let changes = std::mem::take(&mut look.plan.ports);
        let (before, after): (Vec<PortChange>, Vec<PortChange>) =
            changes.into_iter().partition(PortChange::comes_first);
        self.outputs(context, look, before, faults);
        match self.mirrors(context, look) {
            Ok(()) => {}
            Err(Error::Conflicts) => return Err(Error::Conflicts),
            Err(error) => faults.push(error),
        }
        let mut is_loaded = true;
        if !look.plan.commands.is_empty() {
            match load(&look.plan.commands, context.deadline) {
                Ok(()) => {
                    let (nft, rest) = look
                        .plan
                        .actions
                        .drain(..)
                        .partition(|action| action.mirror.engine == Engine::Nft);
                    look.plan.actions = rest;
                    self.actions.extend::<Vec<Action>>(nft);
                    self.tidy = self.tidy.or(look.plan.tidy);
                }
                // Between the look and the change something has come or gone; or the kernel cannot.
                Err(error) => {
                    is_loaded = false;
                    faults.push(error);
                }
            }
            look.observed.nft = nft::read::observe();
        }
        // As long as copies may still go there, an output stays one.
        if is_loaded {
            self.outputs(context, look, after, faults);
        }
        observe_outputs(
            backup::load(&context.root),
            &look.desired,
            &mut look.observed,
        );
        look.plan = plan(&look.desired, &look.observed);
        if !faults.is_empty() && self.has_moved(context, look) {
            faults.clear();
            return Err(Error::Conflicts);
        }
        Ok(())
    }

    /// Is a refusal no wonder, since a device has gone or come back meanwhile?
    fn has_moved(&self, context: &Context, look: &Look) -> bool {
        let desired = &look.desired;
        let mut named: BTreeSet<_> = desired.outputs.keys().cloned().collect();
        for copies in desired.copies.values() {
            named.extend(copies.sources.keys().chain([&copies.device]).cloned());
        }
        let Ok(now) = sys::links_named(&named) else {
            return false;
        };
        let is_same = |device, index| now.get(device).is_some_and(|link| link.index == index);
        let copied = desired.copies.values().all(|copies| {
            is_same(&copies.device, copies.index)
                && copies.sources.keys().all(|device| now.contains_key(device))
        });
        let outputs = desired
            .outputs
            .iter()
            .all(|(device, output)| is_same(device, output.index));
        !(copied && outputs) && Instant::now() < context.deadline
    }

    fn outputs(
        &mut self,
        context: &Context,
        look: &mut Look,
        changes: Vec<PortChange>,
        faults: &mut Vec<Error>,
    ) {
        for change in changes {
            match setup::carry_out(&context.root, &change, &mut look.observed.saved) {
                Ok(()) if matches!(change, PortChange::Forget { .. }) => {}
                Ok(()) => {
                    self.raised |= change.moves_link();
                    self.ports.push(change);
                }
                Err(error) => faults.push(Error::Output(error)),
            }
        }
    }

    /// Waits until ovs-vswitchd has acted on what was committed. What it has to do for conversations that exist already can
    /// begin then.
    pub fn wait(
        &mut self,
        context: &Context,
        look: &Look,
        flow_scope: FlowScope,
        stuck_at: Option<i64>,
    ) -> (CommitState, StaleFlows) {
        // What others have just changed they see to themselves; who asks for all that is there to be in force waits for nobody,
        // unless there is something that ovs-vswitchd has not even taken yet.
        let has_caught_up = matches!(&look.observed.ovs, OvsState::Present(ovs) if ovs.caught_up);
        let takes_all = flow_scope == FlowScope::All && has_caught_up;
        let mut owed = look.owed.clone();
        owed.retain(|_, revalidation| {
            takes_all || revalidation.is_ours() || revalidation.is_abandoned()
        });
        let applied = match (self.waiting.take(), &look.observed.ovs) {
            _ if self.is_uncertain => CommitState::NotYet,
            (Some((client, goal)), _) => {
                let patience = context.deadline.min(Instant::now() + context.patience);
                let waited = ovs::wait(client, goal, patience, stuck_at);
                self.waited = Some(waited);
                waited.into()
            }
            // An earlier commit has left it behind, and was waited for then.
            (None, OvsState::Present(_)) if !owed.is_empty() && !has_caught_up => {
                CommitState::NotYet
            }
            (None, _) => CommitState::Yes,
        };
        if applied == CommitState::NotYet && !owed.is_empty() {
            // For the next one.
            hand_over(&context.root, &owed);
            owed.clear();
        }
        (applied, owed)
    }

    /// Open vSwitch's part.
    fn mirrors(&mut self, context: &Context, look: &mut Look) -> Result<(), Error> {
        let is_ovs = |action: &Action| matches!(action.mirror.engine, Engine::Ovs(_));
        let (OvsState::Present(ovs), Some(mut client)) = (&look.observed.ovs, look.client.take())
        else {
            return Ok(());
        };
        if !look.plan.actions.iter().any(is_ovs) {
            return Ok(());
        }
        look.owed = ovs::flows::note_stale(&context.root, &look.plan, &look.owed);
        let comment = format!("pve-span: {}", context.by);
        let (now, goal) = match ovs::commit(&mut client, &look.plan, ovs, &comment) {
            Ok(committed) => committed,
            Err(ovs::Error::Conflict) => return Err(Error::Conflicts),
            Err(error @ ovs::Error::Uncertain(_)) => {
                self.is_uncertain = true;
                return Err(Error::Uncertain(error));
            }
            Err(error) => return Err(Error::Refused(error)),
        };
        let (ovs, rest) = look.plan.actions.drain(..).partition(is_ovs);
        look.plan.actions = rest;
        self.actions.extend::<Vec<Action>>(ovs);
        let now = now.map_err(|error| {
            self.is_uncertain = true;
            Error::NotVerified(with_causes(&error))
        })?;
        self.waiting = Some((client, goal));
        look.observed.ovs = OvsState::Present(now);
        Ok(())
    }
}

/// nftables' part, in one transaction.
fn load(commands: &[pve_span_core::engine::nft::Command], deadline: Instant) -> Result<(), Error> {
    let commands =
        nft::json::commands(commands).map_err(|error| Error::NoNft(error.to_string()))?;
    let json = serde_json::to_vec(&commands).map_err(|error| Error::NoNft(error.to_string()))?;
    nft::run::load(&json, deadline).map_err(|source| {
        let is_refusal = matches!(source, nft::run::Error::Refused { .. });
        let missing = is_refusal
            .then(|| nft::diagnose::diagnose(deadline))
            .flatten();
        Error::Nft { missing, source }
    })
}

/// Acts on a look and looks again, until there is nothing left to do. The lock is held, so nothing in /etc/pve is touched:
/// a guest that comes meanwhile stays unknown, and is the next reconcile's.
pub(super) fn act(
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
