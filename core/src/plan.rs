//! `plan(&Desired, &Observed)` → [`Plan`]: what has to change, as data.
//!
//! The plan's text is the dry run, the log and the tests' expectation. It names no object that does
//! not carry our mark, whatever is observed.

mod display;
mod nft;
mod output_reservation;
mod ovs;
mod ports;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::engine::nft::Command;
use super::engine::nft::spec::CopyKey;
use super::model::{IfName, NicId, SessionName, VlanSet};
use super::state::{Desired, Fault, MirrorKey, MirrorOutput, NO_SOURCE, Observed, OvsState, RowId};
use crate::model::Taken;
pub use display::changes;
pub use ports::PortChange;

/// The most mirrors that a bridge can have (Open vSwitch, `MAX_MIRRORS` in ofproto/ofproto-dpif-mirror.h).
pub const MAX_MIRRORS: usize = 32;

/// What has to change on this node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Plan {
    /// Changes of mirrors, in the order in which they are carried out.
    pub actions: Vec<Action>,
    /// Changes of outputs' devices.
    pub ports: Vec<PortChange>,
    /// What else of ours is put in order.
    pub tidy: Option<&'static str>,
    /// How nftables' part is done.
    #[serde(skip)]
    pub commands: Vec<Command>,
    /// What cannot be done, and why.
    pub problems: Vec<Problem>,
    /// How many mirrors find no room, by bridge.
    #[serde(skip)]
    pub refused: BTreeMap<IfName, usize>,
    /// What is worth knowing and stops nothing.
    pub remarks: Vec<Remark>,
}

/// Why a session is not as it shall be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Whose.
    pub session: SessionName,
    /// What, and what to do.
    pub text: String,
}

/// What is worth knowing of an output and stops nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Remark {
    /// Whose output.
    pub session: SessionName,
    /// The output, as span.cfg writes it.
    pub output: String,
    /// What.
    pub text: String,
}

/// One change of one mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Action {
    /// Which mirror.
    #[serde(flatten)]
    pub mirror: MirrorKey,
    /// Its row; nothing if this plan creates it.
    pub row: Option<RowId>,
    /// What happens to it.
    #[serde(flatten)]
    pub change: Change,
}

/// What happens to a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum Change {
    /// It is removed.
    Remove {
        /// Why.
        why: &'static str,
    },
    /// It is created, as yet without sources.
    Create,
    /// Its output becomes another one.
    SetOutput {
        /// So far.
        from: MirrorOutput,
        /// From now on.
        to: MirrorOutput,
    },
    /// It takes everything on the bridge, or no longer.
    SetAll {
        /// From now on.
        all: bool,
    },
    /// It takes other VLANs.
    SetVlans {
        /// From now on; all when empty.
        to: VlanSet,
    },
    /// It takes other frames.
    SetFrames {
        /// From now on, in words.
        to: String,
    },
    /// Something of it was changed by somebody else, or is out of date.
    Renew,
    /// It keeps another length of each frame.
    SetSnaplen {
        /// From now on, in bytes; everything without.
        to: Option<u16>,
    },
    /// A source joins, leaves, or changes direction.
    SetSource {
        /// The port.
        port: IfName,
        /// Whose it is.
        nic: Option<NicId>,
        /// So far.
        from: Option<Taken>,
        /// From now on.
        to: Option<Taken>,
    },
}

impl Plan {
    /// Is everything as it shall be?
    pub fn is_done(&self) -> bool {
        self.actions.is_empty() && self.ports.is_empty() && self.commands.is_empty()
    }

    /// The sessions that change.
    pub fn sessions(&self) -> BTreeSet<&SessionName> {
        self.actions
            .iter()
            .map(|action| &action.mirror.session)
            .collect()
    }
}

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
    let is_new = |key: &CopyKey| {
        let created = plan.actions.iter().any(|action| {
            action.change == Change::Create
                && action.mirror.session == key.session
                && action.mirror.output == key.output
        });
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

/// Why a mirror of ours goes.
fn why_removed(desired: &Desired, session: &SessionName, output: &str) -> &'static str {
    if let Some(why) = desired.why {
        return why;
    }
    let Some(state) = desired.sessions.iter().find(|state| state.name == *session) else {
        return "span.cfg does not list the session";
    };
    if let Some(over) = state.phase.over() {
        return over;
    }
    match state.outputs.iter().find(|state| state.output == output) {
        None => "span.cfg does not list the output",
        Some(state) if matches!(state.fault, Some(Fault::Refused(_))) => "its output is refused",
        Some(state) if state.fault.is_some() || state.elsewhere.is_some() => {
            "its output is not here"
        }
        Some(state) if !state.lacks.is_empty() => "its sources cannot be mirrored there",
        Some(_) if state.present.is_empty() => NO_SOURCE,
        Some(_) => "its sources are mirrored there in another way",
    }
}
