//! `pve-span plan`: what `apply` would change, and which engine serves what.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use super::context::asked_context;
use super::format::{Format, line_per_session, notice};
use crate::config::active::InForce;
use crate::reconcile::Error;
use crate::reconcile::inputs::Detail;
use crate::reconcile::observe::{Look, look};
use crate::sys::output::Printer;
use pve_span_core::plan::Plan;
use pve_span_core::state::SessionState;

#[derive(Serialize)]
struct Report<'a> {
    notice: Option<&'a str>,
    #[serde(flatten)]
    plan: &'a Plan,
    sessions: &'a [SessionState],
}

/// Exit codes: 0 nothing to do, 1 failed, 2 changes pending.
///
/// # Errors
/// It cannot be told what has to change.
pub fn run(root: &Path, format: Format) -> Result<u8, Error> {
    let look = look(&asked_context(root, "plan"), Detail::All, &BTreeSet::new())?;
    let mut out = Printer::new();
    if let InForce::Unknown { why, .. } = &look.in_force {
        return Err(Error::NotInForce(why.clone()));
    }
    notice(&look);
    let silent = look.waits_for_ovs();
    if let Some(why) = silent {
        log::error!("{}", Error::Ovs(why.to_owned()));
    }
    if format == Format::Json {
        let (notice, sessions) = (look.in_force.notice(), look.desired.sessions.as_slice());
        out.json(&Report {
            notice,
            plan: &look.plan,
            sessions,
        });
    }
    if format == Format::Text {
        tell(&mut out, &look);
    }
    let is_known = look.plan.problems.is_empty() && silent.is_none();
    Ok(match (look.plan.is_done(), is_known) {
        (false, _) => 2,
        (true, true) => 0,
        (true, false) => 1,
    })
}

/// The plan for people.
pub(super) fn tell(out: &mut Printer, look: &Look) {
    for state in &look.desired.sessions {
        for output in &state.outputs {
            let (name, spelled) = (&state.name, &output.output);
            match (&output.engine, &output.elsewhere) {
                (Some(engine), _) => out.line(&format!("{name} → {spelled}: engine {engine}")),
                (None, Some(node)) => out.line(&format!("{name} → {spelled}: on node {node}")),
                (None, None) => {}
            }
        }
    }
    line_per_session(out, &look.desired.sessions);
    let text = look.plan.to_string();
    text.lines().for_each(|line| out.line(line));
    if look.plan.is_done() && look.waits_for_ovs().is_none() {
        out.line("nothing to do");
    } else if look.plan.is_done() {
        out.line("nothing to do but what waits for Open vSwitch");
    }
}
