//! What the service's children do: reconcile, survey, count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use super::faults::{Fault, FaultId};
use super::task_reports::{
    Count, Counts, Device, Output, ReconcileReport, Session, Source, Surveyed,
};
use crate::config::active::{Cause, InForce};
use crate::engine::nft;
use crate::engine::ovs;
use crate::engine::ovs::CommitState;
use crate::reconcile;
use crate::reconcile::inputs::Detail;
use crate::reconcile::lock;
use crate::reconcile::observe::{Look, look};
use crate::reconcile::{Context, Done, Error, PveAccess, Trigger};
use crate::sys;
use crate::sys::Progress;
use crate::sys::clock::MonotonicTime;
use crate::sys::clock::now;
use pve_span_core::engine::nft::spec::Passing;
use pve_span_core::engine::nft::{Side, names};
use pve_span_core::health::{NOT_ACTED, faults_and_notes, health, leftovers};
use pve_span_core::model::OutputKey;
use pve_span_core::model::{IfName, SessionName, Vmid};
use pve_span_core::state::{Desired, SessionState, Wanted};

/// How long a child may take, whatever hangs.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How long ovs-vswitchd may take to act on a change before that is a fault.
const PATIENCE: Duration = Duration::from_secs(2);

fn context(root: &Path, pve: PveAccess, report: &File) -> Context {
    let mut context = Context::new(root, "watch", Instant::now() + DEADLINE, PATIENCE);
    context.pve = pve;
    // What waits for this child's report hears of it.
    if let Ok(report) = report.try_clone() {
        context.progress = Progress::through(report);
    }
    context
}

/// Brings the node into its desired state.
pub fn reconcile(
    root: &Path,
    arrival: MonotonicTime,
    pve: PveAccess,
    report: &File,
) -> ReconcileReport {
    let context = context(root, pve, report);
    let mut told = match reconcile::reconcile(&context, &Trigger::Watch, arrival) {
        Ok(Some(done)) => reconciled(&done),
        // A hook has just done it.
        Ok(None) => ReconcileReport::default(),
        // Said by the survey, for as long as it is so.
        Err(Error::NotInForce(_)) => ReconcileReport::default(),
        Err(error) => ReconcileReport {
            faults: vec![Fault::from(&error)],
            ..ReconcileReport::default()
        },
    };
    let settles_in = lock::peek(root).settles_in(MonotonicTime::now());
    told.settles_in = settles_in.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
    told
}

fn reconciled(done: &Done) -> ReconcileReport {
    let mut faults: Vec<Fault> = done.faults.iter().map(Fault::from).collect();
    if done.applied == CommitState::NotYet {
        faults.push(Fault::new(FaultId::NotActed, NOT_ACTED));
    }
    let sessions = done.actions.iter().map(|action| &action.mirror.of.session);
    let sessions: BTreeSet<&SessionName> = sessions.collect();
    let actions = done.actions.iter();
    let actions: Vec<_> = actions
        .map(|action| (&action.mirror, &action.change))
        .collect();
    let ports = done.ports.iter();
    let ports: Vec<_> = ports
        .map(|port| (port.device(), port.comes_first()))
        .collect();
    ReconcileReport {
        changed: done.in_words(),
        made: serde_json::json!([actions, ports, done.tidy]),
        sessions: sessions.into_iter().map(ToString::to_string).collect(),
        faults,
        settles_in: None,
    }
}

/// How often a node is looked at again that is being changed by somebody else.
const LOOKS: usize = 3;

/// How long the pause between these looks is.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks at everything, and changes nothing.
pub fn survey(root: &Path, pve: PveAccess, report: &File) -> Surveyed {
    let context = context(root, pve, report);
    let mut last = None;
    for round in 0..LOOKS {
        if round > 0 {
            std::thread::sleep(PAUSE);
        }
        let gone = lock::peek(root).stopping(MonotonicTime::now());
        let gone: BTreeSet<Vmid> = gone.into_iter().filter_map(Vmid::new).collect();
        match look(&context, Detail::All, &gone) {
            Ok(look) => {
                let surveyed = surveyed(&look);
                if !surveyed.pending {
                    return surveyed;
                }
                last = Some(surveyed);
            }
            Err(error) => {
                return Surveyed {
                    faults: vec![Fault::from(&error)],
                    ..Surveyed::default()
                };
            }
        }
    }
    last.unwrap_or_default()
}

fn surveyed(look: &Look) -> Surveyed {
    // That Open vSwitch does not answer is said by the reconcile, and by each session that needs it.
    let notice = look.in_force.notice();
    let cause = look.in_force.cause().into_iter().zip(notice);
    let faults = cause.map(|(cause, why)| Fault::new(FaultId::NotInForce(cause), why));
    let leftovers = leftovers(&look.desired, &look.plan);
    let sessions = look.desired.sessions.iter().chain(&leftovers);
    let annotations = look.in_force.annotations();
    let ends = annotations
        .iter()
        .flat_map(|annotations| annotations.sessions.values())
        .filter_map(|session| session.expires.map(|end| end.as_second()));
    let now = now();
    Surveyed {
        notice: notice.map(str::to_owned),
        faults: faults.collect(),
        mounted: Some(!matches!(
            look.in_force.cause(),
            Some(Cause::Hangs | Cause::NotMounted)
        )),
        is_known: !matches!(look.in_force, InForce::Unknown { .. }),
        pending: !look.plan.is_done() || !look.observed.stale.is_empty(),
        sessions: sessions
            .map(|state| (state.name.to_string(), session(state, look)))
            .collect(),
        expires: ends.filter(|end| *end > now).min(),
    }
}

fn session(state: &SessionState, look: &Look) -> Session {
    let (health, mut reasons) = health(state, &look.desired, &look.observed, &look.plan);
    reasons.extend(faults_and_notes(state));
    let outputs = state.outputs.iter().map(|output| {
        (
            output.output.clone(),
            counted(&state.name, &output.output, look),
        )
    });
    Session {
        health,
        reasons,
        present: state.present.len(),
        configured: state.total,
        outputs: outputs.collect(),
    }
}

/// What there is to count for an output of a session.
fn counted(session: &SessionName, output: &str, look: &Look) -> Output {
    let desired = &look.desired;
    let index = |device: &IfName| look.observed.links.get(device).map(|link| link.index);
    // Which of a device's frames should arrive, as the node sees them: received from it, sent through it.
    let mut wanted: BTreeMap<IfName, (bool, bool)> = BTreeMap::new();
    let mut is_all = true;
    let key = OutputKey::new(session, output);
    let device = desired.device_of(&key);
    let copies = desired.copies.get(&key);
    // A frame that several sessions take to one output is counted for one of them. Where others take what their sources
    // send, that is any frame that is delivered to ours.
    let others = others(&key, desired);
    let is_own = |passing| passing == Passing::From || !others.send;
    if let Some(copies) = copies {
        is_all &= copies.frames.is_everything();
        for (name, source) in &copies.sources {
            let wanted = wanted.entry(name.clone()).or_default();
            let hooks = source.hooks();
            for (side, _) in hooks.filter(|(_, passing)| is_own(*passing)) {
                match side {
                    Side::Ingress => wanted.0 = true,
                    Side::Egress => wanted.1 = true,
                }
            }
        }
    }
    let mirrors = desired
        .mirrors
        .iter()
        .filter(|(key, _)| key.of.session == *session && key.of.output == output);
    let mut ovs = false;
    for (_, mirror) in mirrors {
        ovs = true;
        is_all &= mirror.config.vlans.is_empty();
        for (port, taken) in &mirror.config.ports {
            let is_internal = port.as_str().starts_with("fwln");
            let wanted = wanted.entry(port.clone()).or_default();
            let (sent, delivered) = (taken.sent(), taken.delivered() && is_own(Passing::To));
            // An internal port is the other way round.
            wanted.0 |= if is_internal { delivered } else { sent };
            wanted.1 |= if is_internal { sent } else { delivered };
        }
    }
    let sources = wanted
        .into_iter()
        .filter(|(name, which)| {
            is_all && !others.devices.contains(name) && *which != (false, false)
        })
        .filter_map(|(name, (received, sent))| {
            Some(Source {
                index: index(&name)?,
                received,
                sent,
            })
        });
    Output {
        ovs,
        counter: copies.map(|_| names::counter(&key)),
        sources: sources.collect(),
        device: device.and_then(|device| {
            Some(Device {
                index: index(device)?,
                name: device.as_str().to_owned(),
            })
        }),
    }
}

/// What other sessions take to the same output.
#[derive(Default)]
struct Others<'a> {
    /// Their sources' devices.
    devices: BTreeSet<&'a IfName>,
    /// Is anything of it taken where it is sent?
    send: bool,
}

fn others<'a>(key: &OutputKey, desired: &'a Desired) -> Others<'a> {
    let device = desired.device_of(key);
    let is_other = |session: &SessionName, output: &str| {
        let other = OutputKey::new(session, output);
        let goes_there =
            other.output == key.output || device.is_some() && desired.device_of(&other) == device;
        other != *key && goes_there
    };
    let copied = desired
        .copies
        .iter()
        .filter(|(other, _)| is_other(&other.session, &other.output))
        .flat_map(|(_, copies)| &copies.sources)
        .map(|(name, source)| (name, source.taken));
    let mut others = Others::default();
    for (name, taken) in copied {
        others.devices.insert(name);
        others.send |= taken.sent();
    }
    let mirrored = desired
        .mirrors
        .iter()
        .filter(|(other, _)| is_other(&other.of.session, &other.of.output));
    for (_, Wanted { config, .. }) in mirrored {
        others.devices.extend(config.ports.keys());
        others.send |= config.all || config.ports.values().any(|taken| taken.sent());
    }
    others
}

/// Counts what there is to count.
pub fn count(root: &Path, sessions: &BTreeMap<String, Session>) -> Counts {
    let outputs = || {
        sessions
            .values()
            .flat_map(|session| session.outputs.values())
    };
    let mirrors = if outputs().any(|output| output.ovs) {
        ovs::statistics(root, Instant::now() + PATIENCE).ok()
    } else {
        None
    };
    let copied = if outputs().any(|output| output.counter.is_some()) {
        nft::read::counters()
    } else {
        BTreeMap::new()
    };
    let devices = sys::counters().unwrap_or_default();
    let mut counts = Counts {
        outputs: Vec::new(),
        ovs_interval: mirrors.as_ref().map_or(0, |figures| {
            u64::try_from(figures.interval.as_millis()).unwrap_or(u64::MAX)
        }),
    };
    for (name, session) in sessions {
        for (output, what) in &session.outputs {
            let by_ovs = mirrors
                .as_ref()
                .and_then(|figures| figures.mirrors.get(&(name.clone(), output.clone())));
            let by_nft = what
                .counter
                .as_ref()
                .and_then(|counter| copied.get(counter));
            let all: Vec<_> = by_ovs.into_iter().chain(by_nft).collect();
            let sum = |number: fn(&pve_span_core::engine::Statistics) -> u64| {
                let sum = all.iter().map(|one| number(one)).sum();
                (!all.is_empty()).then_some(sum)
            };
            // Where nobody could be asked, nobody can tell either whether anything is missing.
            let is_told =
                (!what.ovs || mirrors.is_some()) && (what.counter.is_none() || by_nft.is_some());
            let moved = what
                .sources
                .iter()
                .filter(|_| is_told)
                .filter_map(|source| {
                    let counted = devices.get(&source.index)?;
                    let received = if source.received { counted.received } else { 0 };
                    let sent = if source.sent { counted.sent } else { 0 };
                    Some((source.index, received.saturating_add(sent)))
                });
            let device = what
                .device
                .as_ref()
                .and_then(|device| devices.get(&device.index));
            counts.outputs.push(Count {
                session: name.clone(),
                output: output.clone(),
                frames: sum(|counted| counted.frames),
                bytes: sum(|counted| counted.bytes),
                dropped: device.map(|counted| counted.send_dropped),
                moved: moved.collect(),
            });
        }
    }
    counts
}
