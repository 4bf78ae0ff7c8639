//! The one reconcile that every trigger runs: look, plan, act, look again.

mod hold;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::core::model::{IfName, SessionName, Vmid};
use crate::core::nft::NftState;
use crate::core::nft::names::{self, Named};
use crate::core::plan::{Action, PortChange, plan};
use crate::core::state::{Desired, Observed, OvsState, SessionPhase};
use crate::inforce::{self, InForce};
use crate::linux::nft;
use crate::lock::{Moment, Reach};
use crate::look::{Context, Look, observe_outputs, resolved, see};
use crate::ovs::{self, Applied, Client, Goal, Waited};
use crate::pve::{Pve, SPAN_CFG};
use crate::{events, linux, lock, outputs, report};

use hold::{Occasion, hold, vmids};

/// How often a plan is made anew because Open vSwitch's configuration changed meanwhile.
const TRIES: u32 = 8;

/// How long the pause before the second try is; each one after that is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// What is said when a commit has not been acted on in time.
pub const NOT_YET: &str = "committed to Open vSwitch's database, but ovs-vswitchd has not acted on it yet; \
    is it running? (systemctl status openvswitch-switch)";

/// What makes a reconcile impossible or unfinished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lock.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The kernel's devices.
    #[error(transparent)]
    Links(#[from] linux::Error),
    /// What happened lately cannot be read.
    #[error(transparent)]
    Events(#[from] crate::files::Error),
    /// Frames cannot be watched.
    #[error(transparent)]
    Capture(linux::capture::Error),
    /// They cannot be waited for.
    #[error("waiting for frames")]
    Watch(#[source] std::io::Error),
    /// There is no such session.
    #[error("there is no session `{name}`{}", .hint.as_ref().map(|hint| format!(", {hint}")).unwrap_or_default())]
    NoSession {
        /// As it was asked for.
        name: String,
        /// What may have been meant.
        hint: Option<String>,
    },
    /// Another user called a command.
    #[error("only root can do this: run as root")]
    NotRoot,
    /// The cluster filesystem hangs.
    #[error("{path} does not answer: does pmxcfs hang? (systemctl status pve-cluster)")]
    PveHangs {
        /// Where it is mounted.
        path: PathBuf,
    },
    /// Nobody can tell what is wanted.
    #[error("{0}")]
    NotInForce(String),
    /// Open vSwitch cannot be asked, and something has to be done there.
    #[error("Open vSwitch cannot be asked, its mirrors stay as they are: {0}")]
    Ovs(String),
    /// The transaction was refused; nothing was done.
    #[error("nothing was changed")]
    Refused(#[source] ovs::Error),
    /// The transaction was sent, and nobody knows what became of it.
    #[error(
        "it is not certain whether the change was made; the next hook or `pve-span apply` makes sure"
    )]
    Uncertain(#[source] ovs::Error),
    /// Mirrors are as they shall be, and flows of a bridge go on as before.
    #[error(
        "what was changed holds for new conversations only: those that pass {bridge} already go on as before until the next \
         hook or `pve-span apply`"
    )]
    Flows {
        /// The bridge.
        bridge: IfName,
        /// Why.
        source: ovs::FlowsError,
    },
    /// nftables' part was not done; the rest was.
    #[error("nftables' part was not done{}", .missing.as_ref().map(|what| format!(": {what}")).unwrap_or_default())]
    Nft {
        /// What the kernel lacks, if that is why.
        missing: Option<String>,
        /// What nft said.
        source: nft::run::Error,
    },
    /// nftables cannot be asked.
    #[error("nftables cannot be asked, what is copied stays as it is: {0}")]
    NoNft(String),
    /// An output's device is not as it has to be.
    #[error(transparent)]
    Output(outputs::Error),
    /// It kept changing.
    #[error("what there is kept changing, and nothing was changed after up to {TRIES} tries")]
    Conflicts,
    /// The transaction is in the database, but what is there now is not what was wanted.
    #[error("committed, but not in force: {0}")]
    NotVerified(String),
}

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
}

impl Done {
    /// Says on stderr what could not be done.
    pub fn tell_faults(&self) {
        for fault in &self.faults {
            log::error!("{}", ovs::chain(fault));
        }
    }

    /// Was there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.ports.is_empty() && self.tidy.is_none()
    }

    /// Puts on record what was changed.
    fn record(&self, context: &Context) {
        events::record(&context.root, &context.by, &report::done(self));
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
    let Some(held) = hold(context, Occasion::Reconcile(trigger, arrival))? else {
        return Ok(None);
    };
    let (mut lock, began, gone) = (held.lock, held.began, held.gone);
    // Written before the work: who dies in the middle leaves the announcement and no claim of success.
    lock.memory.begins();
    lock.store();
    // An administrator waits for ovs-vswitchd also where others have waited in vain.
    let stuck_at = lock
        .memory
        .stuck_at
        .filter(|_| *trigger != Trigger::Command);
    let done = act(context, held.look, &vmids(&gone), None, stuck_at)?;
    done.record(context);
    if let Err(error) = inforce::keep(&context.root, &done.look.in_force) {
        log::warn!(
            "{}; mirroring goes on, without a last good copy",
            ovs::chain(&error)
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

/// Removes mirrors of ours: those of some sessions, or all of them.
///
/// # Errors
/// See [`Error`].
pub fn clear(context: &Context, sessions: Option<&BTreeSet<SessionName>>) -> Result<Done, Error> {
    let occasion = match sessions {
        None => Occasion::ClearAll,
        Some(_) => Occasion::Clear,
    };
    // Nobody else clears what is to be cleared.
    let mut held = hold(context, occasion)?.ok_or(Error::Conflicts)?;
    held.lock.memory.begins();
    held.lock.store();
    let done = act(context, held.look, &BTreeSet::new(), Some(sessions), None)?;
    done.record(context);
    held.lock.memory.ends();
    held.lock.store();
    Ok(done)
}

fn nothing_asked(context: &Context) -> InForce {
    let path = Pve::new(&context.root).path(SPAN_CFG);
    InForce::NotConfigured { path }
}

/// What shall be there when mirrors of ours are cleared, whatever the annotations say. Sessions that stay go on as the
/// annotations say, since what they deliver may have depended on the others; or as they are, where nobody can tell.
fn cleared(look: &mut Look, sessions: Option<&BTreeSet<SessionName>>) {
    let Some(chosen) = sessions else {
        look.desired = Desired::default();
        look.desired.why = Some("cleared");
        return;
    };
    let mut stay = ours(&look.observed);
    stay.retain(|session| !chosen.contains(session));
    let desired = &mut look.desired;
    desired.why = Some("cleared");
    desired.mirrors.retain(|key, _| stay.contains(&key.session));
    desired.copies.retain(|key, _| stay.contains(&key.session));
    // An output that was made ready for a session that has no sources now stays so, and no other one is made ready.
    let saved = &look.observed.saved;
    let idle: BTreeSet<&SessionName> = desired
        .sessions
        .iter()
        .filter(|state| state.present.is_empty())
        .map(|state| &state.name)
        .collect();
    for source in desired.listening.values_mut() {
        source.of.retain(|session| stay.contains(session));
    }
    desired.listening.retain(|_, source| !source.of.is_empty());
    desired.outputs.retain(|device, output| {
        output.of.retain(|key| !chosen.contains(&key.session));
        let is_used = output.of.iter().any(|key| stay.contains(&key.session));
        is_used
            || (saved.contains_key(device)
                && output.of.iter().any(|key| idle.contains(&key.session)))
    });
    let runs = |session: &SessionName| {
        let mut states = desired.sessions.iter();
        states.any(|state| state.name == *session && state.phase == SessionPhase::Running)
    };
    let unlisted = stay.into_iter().filter(|session| !runs(session));
    let unlisted: Vec<SessionName> = unlisted.collect();
    desired.held.sessions.extend(unlisted);
}

/// The sessions that something on this node is of.
pub fn ours(observed: &Observed) -> BTreeSet<SessionName> {
    let mut sessions = BTreeSet::new();
    if let OvsState::Present(ovs) = &observed.ovs {
        let mirrors = ovs
            .bridges
            .values()
            .flat_map(|bridge| bridge.mirrors.values());
        sessions.extend(mirrors.filter_map(|mirror| Some(mirror.mark.as_ref()?.session.clone())));
    }
    if let NftState::Present(seen) = &observed.nft {
        let own = seen
            .chains
            .keys()
            .filter_map(|name| match names::read(name) {
                Named::Own { session, .. } => Some(SessionName::from_mark(session)),
                _ => None,
            });
        sessions.extend(own);
    }
    sessions
}

/// Acts on a look and looks again, until there is nothing left to do. The lock is held, so nothing in /etc/pve is touched:
/// a guest that comes meanwhile stays unknown, and is the next reconcile's.
fn act(
    context: &Context,
    mut look: Look,
    gone: &BTreeSet<Vmid>,
    clear: Option<Option<&BTreeSet<SessionName>>>,
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
            let applied = done.follow(context, &mut look.observed, &mut faults, stuck_at);
            return Ok(Done {
                look,
                actions: done.actions,
                ports: done.ports,
                tidy: done.tidy,
                faults,
                applied,
                waited: done.waited,
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

/// What has been done so far.
#[derive(Default)]
struct Round {
    actions: Vec<Action>,
    ports: Vec<PortChange>,
    tidy: Option<&'static str>,
    /// Has a device been set up or down since the last look?
    raised: bool,
    waiting: Option<(Client, Goal)>,
    waited: Option<Waited>,
    /// Was a transaction sent of which nobody knows when ovs-vswitchd has acted on it?
    is_uncertain: bool,
}

impl Round {
    fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.ports.is_empty() && self.tidy.is_none()
    }

    /// An error of a later round: what the earlier ones committed is there.
    fn after(&self, error: Error) -> Error {
        match error {
            error if self.is_empty() => error,
            error @ Error::Uncertain(_) => error,
            error => Error::NotVerified(ovs::chain(&error)),
        }
    }

    /// Carries a look's plan out and looks again. An output is made ready before anything is sent to it, and put
    /// back after. What one part refuses does not keep the others from being done.
    fn carry_out(
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
                        .partition(|action| action.mirror.bridge.is_none());
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
        observe_outputs(&context.root, &look.desired, &mut look.observed);
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
        let Ok(now) = linux::links_named(&named) else {
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
            match outputs::carry_out(&context.root, &change, &mut look.observed.saved) {
                Ok(()) if matches!(change, PortChange::Forget { .. }) => {}
                Ok(()) => {
                    self.raised |= change.moves_link();
                    self.ports.push(change);
                }
                Err(error) => faults.push(Error::Output(error)),
            }
        }
    }

    /// Sees to it that ovs-vswitchd acts on what was committed, for conversations that exist already too.
    fn follow(
        &mut self,
        context: &Context,
        observed: &mut Observed,
        faults: &mut Vec<Error>,
        stuck_at: Option<i64>,
    ) -> Applied {
        if self.is_uncertain {
            // What flows are owed stays on file for the next one.
            return Applied::NotYet;
        }
        let patience = context.deadline.min(Instant::now() + context.patience);
        let applied = match (self.waiting.take(), &observed.ovs) {
            (Some((client, goal)), _) => {
                let waited = ovs::wait(client, goal, patience, stuck_at);
                self.waited = Some(waited);
                waited.into()
            }
            // An earlier commit has left it behind, and was waited for then.
            (None, OvsState::Present(ovs)) if !observed.stale.is_empty() && !ovs.caught_up => {
                Applied::NotYet
            }
            (None, _) => Applied::Yes,
        };
        if applied == Applied::Yes && !observed.stale.is_empty() {
            let failed = ovs::flows::pay(&context.root, &observed.stale, patience);
            observed.stale = failed.iter().map(|(bridge, _)| bridge.clone()).collect();
            let failed = failed.into_iter();
            faults.extend(failed.map(|(bridge, source)| Error::Flows { bridge, source }));
        }
        applied
    }

    /// Open vSwitch's part.
    fn mirrors(&mut self, context: &Context, look: &mut Look) -> Result<(), Error> {
        let is_ovs = |action: &Action| action.mirror.bridge.is_some();
        let (OvsState::Present(ovs), Some(mut client)) = (&look.observed.ovs, look.client.take())
        else {
            return Ok(());
        };
        if !look.plan.actions.iter().any(is_ovs) {
            return Ok(());
        }
        look.observed.stale = ovs::flows::owe(&context.root, &look.plan, &look.observed.stale);
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
            Error::NotVerified(ovs::chain(&error))
        })?;
        self.waiting = Some((client, goal));
        look.observed.ovs = OvsState::Present(now);
        Ok(())
    }
}

/// nftables' part, in one transaction.
fn load(commands: &[crate::core::nft::Command], deadline: Instant) -> Result<(), Error> {
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
