//! The one reconcile that every trigger runs: look, plan, act, look again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::core::annotations::Annotations;
use crate::core::cluster::Cluster;
use crate::core::interest::{Interest, needs_detail};
use crate::core::model::{IfName, NodeName, SessionName, Vmid};
use crate::core::plan::{Action, Change, Plan, plan};
use crate::core::ports::PortMap;
use crate::core::resolve::resolve;
use crate::core::state::{Assumptions, Desired, Link, MirrorKey, Observed, Ovs, OvsState};
use crate::inforce::{self, InForce};
use crate::lock::{Lock, Moment};
use crate::ovs::{self, Applied, Client, Goal, Ports};
use crate::pve::{Pve, Questions, Whose};
use crate::{linux, lock};

/// How often a plan is made anew because Open vSwitch's configuration changed meanwhile.
const TRIES: usize = 8;

/// What is said when a commit has not been acted on in time.
pub const NOT_YET: &str = "committed to Open vSwitch's database, but ovs-vswitchd has not acted on it yet; \
    is it running? (systemctl status openvswitch-switch)";

/// Where and until when.
#[derive(Debug, Clone)]
pub struct Context {
    /// The prefix of every path.
    pub root: PathBuf,
    /// When everything has to be over.
    pub deadline: Instant,
    /// How long to wait for ovs-vswitchd after a commit.
    pub patience: Duration,
    /// What is written into Open vSwitch's database log.
    pub comment: String,
    /// Where an incoming guest's config may still be filed.
    pub migrated_from: Option<NodeName>,
}

/// What makes a reconcile impossible or unfinished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lock.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The kernel's devices.
    #[error(transparent)]
    Links(#[from] linux::Error),
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
    /// It kept changing.
    #[error(
        "Open vSwitch's configuration kept changing, and nothing was changed after {TRIES} tries"
    )]
    Conflicts,
    /// The transaction is in the database, but what is there now is not what was wanted.
    #[error("committed, but not in force: {0}")]
    NotVerified(String),
}

/// One look at the node.
#[derive(Debug)]
pub struct Look {
    /// Which annotations it goes by.
    pub in_force: InForce,
    /// What /etc/pve tells.
    pub cluster: Cluster,
    /// What is there.
    pub observed: Observed,
    /// What shall be there.
    pub desired: Desired,
    /// What has to change.
    pub plan: Plan,
    client: Option<Client>,
}

/// Whose configs a look reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Only what decides about mirrors.
    Mirrors,
    /// Everything that is worth telling.
    All,
}

/// Looks and plans; changes nothing.
///
/// # Errors
/// The kernel cannot be asked. A failing Open vSwitch or an unknown file is part of the look.
pub fn look(context: &Context, detail: Detail, gone: &BTreeSet<Vmid>) -> Result<Look, Error> {
    let in_force = inforce::load(&context.root);
    let nobody = Annotations::default();
    let annotations = in_force.annotations().unwrap_or(&nobody);
    let interest = match detail {
        Detail::All => Interest::Everything,
        Detail::Mirrors => Interest::of(annotations),
    };
    let (observed, client) = observe(context, &interest)?;
    tell_observed(&observed);
    let questions = Questions::of(annotations);
    let here = || {
        PortMap::new(&observed)
            .nics()
            .map(|(_, nic)| nic.id.vmid)
            .collect()
    };
    let (questions, whose) = match detail {
        Detail::All => (Questions::ALL, Whose::AllAnd(here())),
        Detail::Mirrors if questions.tags => (questions, Whose::Of(here())),
        Detail::Mirrors => (questions, Whose::Of(BTreeSet::new())),
    };
    let cluster =
        Pve::new(&context.root).cluster(questions, &whose, context.migrated_from.as_ref());
    let assume = Assumptions {
        gone: gone.clone(),
        now: now(),
    };
    let (desired, plan) = if in_force.annotations().is_some() {
        let desired = resolve(annotations, &cluster, &observed, &assume);
        let plan = plan(&desired, &observed);
        (desired, plan)
    } else {
        (Desired::default(), Plan::default())
    };
    Ok(Look {
        in_force,
        cluster,
        observed,
        desired,
        plan,
        client,
    })
}

/// What was seen, for those who ask for more.
fn tell_observed(observed: &Observed) {
    match &observed.ovs {
        OvsState::Present(ovs) => {
            for (name, bridge) in &ovs.bridges {
                let (ports, mirrors) = (bridge.ports.len(), bridge.mirrors.len());
                log::info!(
                    "Open vSwitch bridge {name}: looked at {ports} ports and {mirrors} mirrors"
                );
            }
        }
        OvsState::Absent(why) | OvsState::Failed(why) => log::info!("{why}"),
    }
    log::debug!("looked at {} network devices", observed.links.len());
}

/// The time, in seconds since 1970.
pub fn now() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// The most devices that are asked for one by one; a list of all is cheaper than more of them.
const FEW: usize = 48;

/// Looks at the kernel and at Open vSwitch, as far as it matters.
fn observe(context: &Context, interest: &Interest) -> Result<(Observed, Option<Client>), Error> {
    let asked = |which: &Ports| ovs::observe(&context.root, which, context.deadline);
    if let Interest::Only(scope) = interest {
        let mut few: BTreeSet<IfName> = linux::names()?
            .into_iter()
            .filter(|name| scope.covers(name.as_str()))
            .collect();
        if few.len() <= FEW {
            few.extend(
                scope
                    .ports
                    .iter()
                    .filter(|name| name.can_be_device())
                    .cloned(),
            );
            let which = Ports::Named(few.iter().chain(&scope.ports).cloned().collect());
            let (ovs, client) = asked(&which);
            if let OvsState::Present(present) = &ovs {
                few.extend(
                    present
                        .bridges
                        .keys()
                        .filter(|name| name.can_be_device())
                        .cloned(),
                );
            }
            let links = linux::links_named(&few)?;
            let all_seen = match &ovs {
                OvsState::Present(present) => {
                    let mut devices = present.bridges.keys().filter(|name| name.can_be_device());
                    devices.all(|bridge| links.contains_key(bridge))
                }
                OvsState::Absent(_) | OvsState::Failed(_) => true,
            };
            // An Open vSwitch whose devices are not to be seen here can only be asked for everything.
            if all_seen {
                return Ok((Observed { links, ovs }, client));
            }
        }
    }
    let (ovs, client) = asked(&Ports::All);
    let links = match (&ovs, interest) {
        (OvsState::Present(present), Interest::EveryGuest) => links_of_guests(present)?,
        _ => linux::links()?,
    };
    Ok((Observed { links, ovs }, client))
}

/// The devices that say something about guests: all by name, and those with more whose name does not tell.
fn links_of_guests(ovs: &Ovs) -> Result<BTreeMap<IfName, Link>, Error> {
    let names: BTreeSet<IfName> = linux::names()?.into_iter().collect();
    let is_ovs_port = |name: &str| {
        ovs.bridges
            .values()
            .any(|bridge| bridge.ports.contains_key(name))
    };
    let exists = |name: &str| names.contains(name);
    let detailed = names
        .iter()
        .filter(|name| needs_detail(name.as_str(), is_ovs_port, exists));
    let detailed: BTreeSet<IfName> = detailed.cloned().collect();
    if detailed.len() > FEW {
        return Ok(linux::links()?);
    }
    let mut links = linux::links_named(&detailed)?;
    for name in names.difference(&detailed) {
        links.entry(name.clone()).or_default();
    }
    Ok(links)
}

/// What a reconcile did.
#[derive(Debug)]
pub struct Done {
    /// The last look: what is there now, and why not more.
    pub look: Look,
    /// What was changed.
    pub actions: Vec<Action>,
    /// Has ovs-vswitchd acted on it?
    pub applied: Applied,
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
    let mut lock = Lock::acquire(&context.root, context.deadline)?;
    let began = Moment::now();
    match trigger {
        Trigger::Command => lock.memory.forget(),
        Trigger::Settled(vmid) => lock.memory.settled(*vmid),
        Trigger::Stopping(vmid) => lock.memory.stops(*vmid, began),
    }
    let gone = lock.memory.stopping(began);
    if *trigger != Trigger::Command && lock.memory.covers(arrival, began, &gone) {
        return Ok(None);
    }
    // Written before the work: who dies in the middle leaves the announcement and no claim of success.
    lock.memory.failed();
    lock.store();
    let vmids = gone.iter().copied().filter_map(Vmid::new).collect();
    let detail = if *trigger == Trigger::Command {
        Detail::All
    } else {
        Detail::Mirrors
    };
    let done = act(context, detail, &vmids, None)?;
    if let Err(error) = inforce::keep(&context.root, &done.look.in_force) {
        log::warn!(
            "{}; mirroring goes on, without a last good copy",
            ovs::chain(&error)
        );
    }
    if done.applied == Applied::Yes {
        lock.memory.succeeded(began, gone);
        lock.store();
    }
    Ok(Some(done))
}

/// Removes mirrors of ours: those of some sessions, or all of them.
///
/// # Errors
/// See [`Error`].
pub fn clear(context: &Context, sessions: Option<&BTreeSet<SessionName>>) -> Result<Done, Error> {
    let mut lock = Lock::acquire(&context.root, context.deadline)?;
    lock.memory.failed();
    lock.store();
    act(context, Detail::Mirrors, &BTreeSet::new(), Some(sessions))
}

/// The plan that removes mirrors of ours, whatever the annotations say.
fn clearing(observed: &Observed, sessions: Option<&BTreeSet<SessionName>>) -> Plan {
    let mut plan = Plan::default();
    let OvsState::Present(ovs) = &observed.ovs else {
        return plan;
    };
    for (name, bridge) in &ovs.bridges {
        for (row, mirror) in &bridge.mirrors {
            let Some(mark) = &mirror.mark else { continue };
            if sessions.is_some_and(|sessions| !sessions.contains(&mark.session)) {
                continue;
            }
            let mirror = MirrorKey {
                bridge: name.clone(),
                session: mark.session.clone(),
                output: mark.output.clone(),
            };
            plan.actions.push(Action {
                mirror,
                row: Some(row.clone()),
                change: Change::Remove { why: "cleared" },
            });
        }
    }
    plan
}

/// Looks, acts and looks again, until there is nothing left to do.
fn act(
    context: &Context,
    detail: Detail,
    gone: &BTreeSet<Vmid>,
    clear: Option<Option<&BTreeSet<SessionName>>>,
) -> Result<Done, Error> {
    let mut actions: Vec<Action> = Vec::new();
    let mut waiting: Option<(Client, Goal)> = None;
    for _ in 0..TRIES {
        let mut look = look(context, detail, gone).map_err(|error| after(&actions, error))?;
        if let Some(sessions) = clear {
            look.plan = clearing(&look.observed, sessions);
        } else if let InForce::Unknown { why } = &look.in_force {
            return Err(after(&actions, Error::NotInForce(why.clone())));
        }
        let (ovs, mut client) = match (&look.observed.ovs, look.client.take()) {
            (OvsState::Present(ovs), Some(client)) => (ovs, client),
            // Where there have never been sessions there is nothing to lose either.
            (OvsState::Failed(why), _)
                if clear.is_some() || look.in_force.annotations().is_some() =>
            {
                return Err(after(&actions, Error::Ovs(why.clone())));
            }
            _ => {
                return Ok(Done {
                    look,
                    actions,
                    applied: Applied::Yes,
                });
            }
        };
        if !look.plan.is_done() {
            let (now, goal) = match ovs::commit(&mut client, &look.plan, ovs, &context.comment) {
                Ok(committed) => committed,
                Err(ovs::Error::Conflict) => continue,
                Err(error @ ovs::Error::Uncertain(_)) => return Err(Error::Uncertain(error)),
                Err(error) => return Err(after(&actions, Error::Refused(error))),
            };
            actions.append(&mut look.plan.actions);
            let now = now.map_err(|error| Error::NotVerified(ovs::chain(&error)))?;
            waiting = Some((client, goal));
            look.observed.ovs = OvsState::Present(now);
            look.plan = match clear {
                Some(sessions) => clearing(&look.observed, sessions),
                None => plan(&look.desired, &look.observed),
            };
        }
        if look.plan.is_done() {
            let patience = context.deadline.min(Instant::now() + context.patience);
            let applied = waiting.map_or(Applied::Yes, |(client, goal)| {
                ovs::wait(client, goal, patience)
            });
            return Ok(Done {
                look,
                actions,
                applied,
            });
        }
        // A port that went meanwhile leaves something to do: that is another round, not a failure.
        log::debug!(
            "not as planned after the commit, looking again:\n{}",
            look.plan
        );
    }
    Err(if actions.is_empty() {
        Error::Conflicts
    } else {
        Error::NotVerified("it changes again and again".into())
    })
}

/// An error of a later round: what the earlier ones committed is there.
fn after(actions: &[Action], error: Error) -> Error {
    if actions.is_empty() {
        error
    } else {
        Error::NotVerified(ovs::chain(&error))
    }
}
