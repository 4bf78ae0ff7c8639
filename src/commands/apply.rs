//! `pve-span apply`: one reconcile of this node, told in words.

use std::path::Path;

use serde::Serialize;

use super::context::asked_context;
use super::format::{Format, notice};
use crate::config::active::InForce;
use crate::engine::ovs::CommitState;
use crate::reconcile::{Done, Error, Trigger, reconcile};
use crate::sys::clock::MonotonicTime;
use crate::sys::output::Printer;
use pve_span_core::health::{NOT_ACTED, faults_and_notes};
use pve_span_core::plan::{Action, PortChange, Problem, Remark};
use pve_span_core::state::{Fault, SessionState};

#[derive(Serialize)]
struct Report<'a> {
    notice: Option<&'a str>,
    actions: &'a [Action],
    ports: &'a [PortChange],
    applied: bool,
    problems: &'a [Problem],
    remarks: &'a [Remark],
    sessions: &'a [SessionState],
}

/// Exit codes: 0 done and verified, 1 not.
///
/// # Errors
/// Nothing was done, or it is not certain that what was done is in force.
pub fn run(root: &Path, format: Format) -> Result<u8, Error> {
    let Some(done) = reconcile(
        &asked_context(root, "apply"),
        &Trigger::Command,
        MonotonicTime::now(),
    )?
    else {
        return Ok(0);
    };
    notice(&done.look);
    print(&done, format);
    Ok(u8::from(!is_whole(&done)))
}

pub(super) fn print(done: &Done, format: Format) {
    let (mut out, look) = (Printer::new(), &done.look);
    if format == Format::Json {
        out.json(&Report {
            notice: look.in_force.notice(),
            actions: &done.actions,
            ports: &done.ports,
            applied: done.applied == CommitState::Yes,
            problems: &look.plan.problems,
            remarks: &look.plan.remarks,
            sessions: &look.desired.sessions,
        });
    } else {
        done.in_words().iter().for_each(|line| out.line(line));
        for remark in &look.plan.remarks {
            out.line(&remark.to_string());
        }
        if done.is_empty() && done.faults.is_empty() {
            out.line("nothing to do");
        }
    }
    done.log_faults();
    if done.applied == CommitState::NotYet {
        log::warn!("{NOT_ACTED}");
    }
    for problem in &look.plan.problems {
        log::error!("{problem}");
    }
    for state in &look.desired.sessions {
        for fault in faults_and_notes(state) {
            log::warn!("{}: {fault}", state.name);
        }
    }
}

/// Is everything that span.cfg asks for done, as far as guests are running?
fn is_whole(done: &Done) -> bool {
    let refused = |state: &SessionState| {
        !state.unplugged.is_empty()
            || state
                .outputs
                .iter()
                .any(|output| matches!(output.fault, Some(Fault::Refused(_))))
            || state.outputs.iter().any(|output| !output.lacks.is_empty())
    };
    let by_the_file = !matches!(done.look.in_force, InForce::LastGood { .. });
    by_the_file
        && done.applied == CommitState::Yes
        && done.faults.is_empty()
        && done.look.plan.problems.is_empty()
        && !done.look.desired.sessions.iter().any(refused)
}
