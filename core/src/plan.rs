//! `plan(&Desired, &Observed)` → [`Plan`]: what has to change, as data.
//!
//! The plan's text is the dry run, the log and the tests' expectation. It names no object that does
//! not carry our mark, whatever is observed.

mod change;
mod display;
mod nft;
mod output_reservation;
mod ovs;
mod ports;

use super::state::{Desired, Observed, OvsState};
use crate::model::OutputKey;
pub use change::{Action, Change, MAX_MIRRORS, Plan, PortChange, Problem, ProblemKind, Remark};
pub use display::changes;

/// Compares what shall be with what is.
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    if let OvsState::Present(ovs) = &observed.ovs {
        ovs::plan(desired, ovs, &mut plan);
    }
    let kept = nft::plan(desired, observed, &mut plan);
    ports::plan(desired, observed, &kept, &mut plan);
    plan.remarks.extend(losses(desired, &plan));
    plan
}

/// The outputs that are made ready although something else may need them, as span.cfg confirms.
fn losses(desired: &Desired, plan: &Plan) -> Vec<Remark> {
    let is_new = |key: &OutputKey| {
        let created = plan
            .actions
            .iter()
            .any(|action| action.change == Change::Create && action.mirror.of == *key);
        let prepared = plan.ports.iter().any(|change| {
            matches!(change, PortChange::Prepare { outputs, .. } if outputs.contains(&key.output))
        });
        created || prepared
    };
    let new = desired.confirmed.iter().filter(|key| is_new(key));
    new.map(|key| Remark {
        session: key.session.clone(),
        output: key.output.clone(),
        text: format!("{} loses its network: it becomes capture-only", key.output),
    })
    .collect()
}
