//! The hookscript: a guest's phase → what to do, within a deadline, and never a reason for Proxmox VE
//! to stop a guest.
//!
//! Proxmox VE waits for a hookscript without a timeout, holding the guest's lock, and a failing
//! pre-start keeps the guest from starting. So the work is done by a child process, and this one
//! leaves with 0 when it is time.

mod chained_hook;

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::engine::ovs::CommitState;
use crate::reconcile;
use crate::reconcile::lock::Lock;
use crate::reconcile::{Context, Done, PveAccess, Trigger};
use crate::sys::clock::MonotonicTime;
use crate::sys::error::with_causes;
use crate::sys::output::Printer;
use crate::sys::process::Ended;
use crate::sys::{ChildAttempt, Deadlines, Progress, supervise};
use pve_span_core::health::{NOT_ACTED, Reason, ReasonId, faults};
use pve_span_core::model::{MAX_LISTED, NicId, NodeName, Vmid, printable};
use pve_span_core::state::SessionPhase;

pub use chained_hook::Caller;
use chained_hook::{IsLastPhase, Next};

/// When the hook is over, in seconds, unless `--deadline` says otherwise.
pub const DEADLINE: f64 = 5.0;

/// The longest deadline that makes sense, in seconds.
const LONGEST: f64 = 3600.0;

/// How long ovs-vswitchd may take to act on a change before the hook says so and goes on.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which part of the time /etc/pve may take to answer; it takes microseconds. The rest is for going on without it.
const PVE_SHARE: f64 = 0.3;

/// Reacts to a phase, and sees to it that the hookscript that the guest had before is called. Whatever happens, it comes
/// back, unless it has become that hookscript.
pub fn run(root: &Path, vmid: &str, phase: &str, deadline: f64, caller: &Caller) {
    let Ok(number) = vmid.parse::<Vmid>() else {
        log::warn!("`{}` is not a guest number, nothing done", printable(vmid));
        return;
    };
    let next = react(root, number, phase, deadline, caller);
    caller.continue_with(number, next);
}

fn react(root: &Path, vmid: Vmid, phase: &str, deadline: f64, caller: &Caller) -> Next {
    let (arrival, began) = (MonotonicTime::now(), Instant::now());
    let seconds = if deadline.is_finite() {
        deadline.clamp(0.05, LONGEST)
    } else {
        DEADLINE
    };
    let deadline = began + Duration::from_secs_f64(seconds);
    // The child gives up a little earlier, with a message of its own.
    let child_deadline = began + Duration::from_secs_f64(seconds * 0.9);
    let trigger = match phase {
        "pre-start" => {
            log::debug!("guest {vmid}: pre-start, nothing to do");
            None
        }
        "post-start" | "post-stop" => Some(Trigger::Settled(vmid)),
        "pre-stop" => Some(Trigger::Stopping(vmid)),
        _ => {
            let phase = printable(phase);
            log::warn!("guest {vmid}: unknown phase `{phase}`, nothing done");
            None
        }
    };
    if trigger.is_none() && *caller == Caller::Other {
        return Next::Nobody;
    }
    let patience = Deadlines {
        deadline,
        hung: Duration::from_secs_f64(seconds * PVE_SHARE),
    };
    let by = format!("hook {vmid} {phase}");
    let supervised = supervise(patience, |attempt, answer: File| {
        let mut context = Context::new(root, &by, child_deadline, PATIENCE);
        context.migrated_from = migrated_from();
        // Who becomes another hookscript has no child that is not that one's.
        let mut may_leave = !matches!(caller, Caller::ProxmoxVe(_));
        match attempt {
            // First: whatever hangs later, this is told.
            ChildAttempt::First if *caller != Caller::Other => {
                may_leave |= chained_hook::answer(root, vmid, &answer) == IsLastPhase::Yes;
            }
            ChildAttempt::First => {}
            ChildAttempt::Instead(hung) => context.pve = PveAccess::Hangs(Some(hung)),
        }
        context.progress = Progress::through(answer);
        match &trigger {
            Some(trigger) => work(&context, trigger, vmid, arrival, may_leave),
            None => remember(&context),
        }
    });
    let (ended, answer) = match supervised {
        Ok(supervised) => supervised,
        Err(error) => {
            log::error!("guest {vmid}: {phase}: cannot start a process: {error}");
            return Next::unanswered(vmid, caller);
        }
    };
    match ended {
        Some(Ended::Exited(0)) => {}
        Some(Ended::Exited(code)) => {
            log::error!("guest {vmid}: {phase} failed (exit code {code})");
        }
        Some(Ended::Killed(signal)) => log::error!("guest {vmid}: {phase} was ended by {signal}"),
        None => log::error!(
            "guest {vmid}: {phase} was not done within {seconds} s, and the guest does not wait for it any longer; \
             `pve-span apply` makes up for it"
        ),
    }
    Next::of(vmid, &answer, caller)
}

fn migrated_from() -> Option<NodeName> {
    std::env::var("PVE_MIGRATED_FROM").ok()?.parse().ok()
}

/// Where there is nothing else to do, whoever comes next learns at least that /etc/pve hangs.
fn remember(context: &Context) -> i32 {
    if let PveAccess::Hangs(Some(pid)) = context.pve {
        match Lock::acquire(&context.root, Instant::now()) {
            Ok(mut lock) => {
                lock.memory.hung = Some(pid);
                lock.store();
            }
            Err(error) => log::debug!("{}", with_causes(&error)),
        }
    }
    0
}

fn work(
    context: &Context,
    trigger: &Trigger,
    vmid: Vmid,
    arrival: MonotonicTime,
    may_leave: bool,
) -> i32 {
    match reconcile::reconcile_first(context, trigger, arrival) {
        Ok(None) => log::debug!("guest {vmid}: another reconcile has just done it"),
        Ok(Some(mut done)) => {
            tell(&done, trigger, vmid);
            done.faults.clear();
            // The guest need not wait for conversations that exist already. Who reads the journal hears of it if they do not
            // follow, and so does who asks for the status.
            if may_leave && done.has_flows() {
                context.progress.done();
            }
            if let Err(error) = done.revalidate_flows_unlocked(context) {
                log::warn!("guest {vmid}: {}", with_causes(&error));
            }
            for fault in &done.faults {
                log::error!("guest {vmid}: {}", with_causes(fault));
            }
        }
        Err(error) => log::error!("guest {vmid}: {}", with_causes(&error)),
    }
    0
}

/// One line a changed session on stdout, faults on stderr.
fn tell(done: &Done, trigger: &Trigger, vmid: Vmid) {
    let mut out = Printer::new();
    for line in pve_span_core::plan::changes(&done.actions) {
        out.line(&format!("pve-span: {line}"));
        log::info!("guest {vmid}: {line}");
    }
    for change in &done.ports {
        log::info!("guest {vmid}: {change}");
    }
    if done.applied == CommitState::NotYet {
        log::warn!("{NOT_ACTED}");
    }
    if let Some(notice) = done.look.in_force.notice() {
        log::warn!("{notice}");
    }
    for fault in &done.faults {
        log::error!("guest {vmid}: {}", with_causes(fault));
    }
    let problems = &done.look.plan.problems;
    for problem in problems.iter().take(MAX_LISTED) {
        log::error!("{problem}");
    }
    if problems.len() > MAX_LISTED {
        let more = problems.len() - MAX_LISTED;
        log::error!("{more} more like these: pve-span plan lists them all");
    }
    let still_here = *trigger == Trigger::Settled(vmid);
    for line in concerning(done, vmid).into_iter().filter(|_| still_here) {
        log::warn!("{line}");
    }
}

/// What keeps this guest's frames from a sensor, or its sensor from its frames.
fn concerning(done: &Done, vmid: Vmid) -> Vec<String> {
    let mut lines = Vec::new();
    for state in &done.look.desired.sessions {
        let is_source = state
            .present
            .iter()
            .any(|source| source.nic.is_some_and(|nic| nic.vmid == vmid));
        if state.phase != SessionPhase::Running {
            continue;
        }
        let is_own = |nic: &NicId| nic.vmid == vmid;
        let is_sensor = |output: &str| output.parse().is_ok_and(|nic| is_own(&nic));
        let concerns = |fault: &Reason| match &fault.id {
            // A sensor that stops is not told that it is off.
            ReasonId::Absent(_) | ReasonId::OutputUnknown(_) | ReasonId::Nowhere => is_source,
            ReasonId::Refused(output) => is_source || is_sensor(output),
            ReasonId::Lack(_, nic, _) => nic.as_ref().is_some_and(is_own),
            ReasonId::Unplugged(nic) => is_own(nic),
            _ => false,
        };
        let own = faults(state).into_iter().filter(concerns);
        lines.extend(own.map(|fault| format!("{}: {fault}", state.name)));
    }
    lines
}
