//! What a plan consists of: changes of mirrors and of devices, and what cannot be done.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::engine::nft::Command;
use crate::engine::port::{BridgeFlags, LinkChange, PortSettings};
use crate::model::{IfName, NicId, OutputKey, SessionName, Taken, VlanSet};
use crate::state::{Desired, Fault, MirrorKey, MirrorOutput, NO_SOURCE, RowId};

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

impl Plan {
    /// Is everything as it shall be?
    pub fn is_done(&self) -> bool {
        self.actions.is_empty() && self.ports.is_empty() && self.commands.is_empty()
    }

    /// The sessions that change.
    pub fn sessions(&self) -> BTreeSet<&SessionName> {
        self.actions
            .iter()
            .map(|action| &action.mirror.of.session)
            .collect()
    }
}

/// Why a session is not as it shall be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Whose.
    pub session: SessionName,
    /// What kind of problem it is.
    #[serde(skip)]
    pub kind: ProblemKind,
    /// What, and what to do.
    pub text: String,
}

/// What kind of problem a session has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ProblemKind {
    /// A device cannot be made ready.
    Device,
    /// nftables cannot be read.
    Unreadable,
    /// It does not fit into nftables' table.
    TooLarge,
    /// Its bridge has as many mirrors as it can.
    MirrorLimit,
    /// It is over, and stays for the sake of others.
    Shared,
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

/// A change of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum PortChange {
    /// It becomes, or becomes again, what an output has to be.
    Prepare {
        /// The device.
        device: IfName,
        /// Its interface index.
        index: u32,
        /// The outputs that it serves.
        outputs: BTreeSet<String>,
        /// The bridge port flags that it gets.
        flags: Option<BridgeFlags>,
        /// The offloads that are switched off.
        offloads: BTreeSet<String>,
        /// Whether a rule that drops what it sends is still to be added.
        drops: bool,
        /// What has to be put back one day.
        before: PortSettings,
    },
    /// It becomes, or becomes again, what a source in no bridge has to be.
    Listen {
        /// The device.
        device: IfName,
        /// Its interface index.
        index: u32,
        /// The sessions that it is a source of.
        sessions: BTreeSet<SessionName>,
        /// What changes.
        #[serde(flatten)]
        link: LinkChange,
        /// What has to be put back one day.
        before: PortSettings,
    },
    /// It becomes what it was before.
    Restore {
        /// The device.
        device: IfName,
        /// Its interface index.
        index: u32,
        /// The bridge port flags that it gets back.
        flags: Option<BridgeFlags>,
        /// The offloads that are switched on again.
        offloads: BTreeSet<String>,
        /// What else it gets back.
        #[serde(flatten)]
        link: LinkChange,
        /// Is it still an output or a source, of another kind?
        remains: Option<PortSettings>,
    },
    /// It has gone, and with it all that was to be put back.
    Forget {
        /// The device.
        device: IfName,
    },
}

impl PortChange {
    /// Its device.
    pub fn device(&self) -> &IfName {
        match self {
            Self::Prepare { device, .. }
            | Self::Listen { device, .. }
            | Self::Restore { device, .. }
            | Self::Forget { device } => device,
        }
    }

    /// Is it made before anything is copied, rather than after?
    pub fn comes_first(&self) -> bool {
        matches!(self, Self::Prepare { .. } | Self::Listen { .. })
    }

    /// Does it set the device up or down?
    pub fn moves_link(&self) -> bool {
        match self {
            Self::Listen { link, .. } | Self::Restore { link, .. } => link.up.is_some(),
            Self::Prepare { .. } | Self::Forget { .. } => false,
        }
    }
}

/// Why a mirror of ours goes.
pub(super) fn why_removed(desired: &Desired, key: &OutputKey) -> &'static str {
    if let Some(why) = desired.why {
        return why;
    }
    let Some(state) = desired
        .sessions
        .iter()
        .find(|state| state.name == key.session)
    else {
        return "span.cfg does not list the session";
    };
    if let Some(over) = state.phase.over() {
        return over;
    }
    match state
        .outputs
        .iter()
        .find(|state| state.output == key.output)
    {
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
