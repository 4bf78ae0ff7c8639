//! Outputs' devices: exclusive and wire-true while they are outputs, and as they were before afterwards.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::{Plan, Problem};
use crate::core::annotations::Switch;
use crate::core::copies::{Exclusive, OutputPort};
use crate::core::model::IfName;
use crate::core::nft::diff::Kept;
use crate::core::nft::{NftState, Seen, names};
use crate::core::port_settings::{BridgeFlags, PortSettings};
use crate::core::state::{Desired, MirrorOutput, Observed, OvsState};

/// A change of an output's device.
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
        /// Is it still an output, of another kind?
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
            | Self::Restore { device, .. }
            | Self::Forget { device } => device,
        }
    }
}

/// Compares devices' settings.
pub fn plan(desired: &Desired, observed: &Observed, kept: &Kept<'_>, plan: &mut Plan) {
    let seen = match &observed.nft {
        NftState::Present(seen) => Some(seen),
        NftState::Failed(_) => None,
    };
    for (device, output) in &desired.outputs {
        if let Some(why) = observed.unclear.get(device) {
            plan.problems.extend(output.of.iter().map(|key| Problem {
                session: key.session.clone(),
                text: format!("{} cannot be made ready: {why}", key.output),
            }));
        }
        let Some(is) = observed
            .ports
            .get(device)
            .filter(|is| is.index == output.index)
        else {
            continue;
        };
        let saved = observed
            .saved
            .get(device)
            .filter(|saved| saved.index == is.index);
        let change = prepare(device, output, is, saved, seen);
        let saved = match &change {
            Some(PortChange::Prepare { before, .. }) => Some(before),
            _ => saved,
        };
        let back = saved.and_then(|saved| give_back(device, output, is, saved));
        plan.ports.extend(change);
        plan.ports.extend(back);
    }
    let former = observed
        .saved
        .iter()
        .filter(|(device, _)| !desired.outputs.contains_key(*device));
    for (device, saved) in former.filter(|(device, _)| !observed.unclear.contains_key(*device)) {
        match observed
            .ports
            .get(device)
            .filter(|is| is.index == saved.index)
        {
            None => plan.ports.push(PortChange::Forget {
                device: device.clone(),
            }),
            Some(is) if is_over(device, is, desired, observed, kept) => {
                plan.ports.push(restore(device, is, saved));
            }
            Some(_) => {}
        }
    }
    // What was noted has been lost, but our rule tells that there was something: then what the kernel begins with.
    let dropping = seen.into_iter().flat_map(Seen::dropping);
    for device in dropping.filter(|device| {
        !desired.outputs.contains_key(*device) && !observed.saved.contains_key(*device)
    }) {
        let is = observed.ports.get(device);
        let is = is.filter(|is| is.flags == Some(BridgeFlags::exclusive()));
        if let Some(is) = is.filter(|is| is_over(device, is, desired, observed, kept)) {
            let before = PortSettings {
                index: is.index,
                flags: Some(BridgeFlags::default()),
                offloads: BTreeSet::new(),
            };
            plan.ports.push(restore(device, is, &before));
        }
    }
}

/// Is a former output certainly one no more? One that is on Open vSwitch, perhaps, only if that can be asked.
fn is_over(
    device: &IfName,
    is: &PortSettings,
    desired: &Desired,
    observed: &Observed,
    kept: &Kept<'_>,
) -> bool {
    let ovs_can_tell = !matches!(observed.ovs, OvsState::Failed(_)) || is.flags.is_some();
    ovs_can_tell
        && matches!(observed.nft, NftState::Present(_))
        && !kept.uses(is.index)
        && !is_held(device, desired, observed)
}

fn restore(device: &IfName, is: &PortSettings, saved: &PortSettings) -> PortChange {
    PortChange::Restore {
        device: device.clone(),
        index: is.index,
        flags: saved
            .flags
            .clone()
            .filter(|_| is.flags.is_some() && is.flags != saved.flags),
        offloads: saved.offloads.difference(&is.offloads).cloned().collect(),
        remains: None,
    }
}

fn prepare(
    device: &IfName,
    output: &OutputPort,
    is: &PortSettings,
    saved: Option<&PortSettings>,
    seen: Option<&Seen>,
) -> Option<PortChange> {
    let exclusive = output.exclusive == Exclusive::Us;
    let flags = is
        .flags
        .as_ref()
        .filter(|flags| exclusive && **flags != BridgeFlags::exclusive())
        .map(|_| BridgeFlags::exclusive());
    let offloads = if output.wire == Switch::Yes {
        is.offloads.clone()
    } else {
        BTreeSet::new()
    };
    let drops =
        exclusive && seen.is_some_and(|seen| !seen.chains.contains_key(&names::drop(device)));
    if flags.is_none() && offloads.is_empty() && !drops {
        return None;
    }
    let mut before = saved.cloned().unwrap_or(PortSettings {
        index: is.index,
        ..PortSettings::default()
    });
    if flags.is_some() && before.flags.is_none() {
        before.flags = is.flags.as_ref().map(BridgeFlags::to_put_back);
    }
    before.offloads.extend(offloads.iter().cloned());
    Some(PortChange::Prepare {
        device: device.clone(),
        index: is.index,
        outputs: output.of.iter().map(|key| key.output.clone()).collect(),
        flags,
        offloads,
        drops,
        before,
    })
}

/// What an output that stays one no longer needs: `wire = no` from now on, say.
fn give_back(
    device: &IfName,
    output: &OutputPort,
    is: &PortSettings,
    saved: &PortSettings,
) -> Option<PortChange> {
    let no_wire = output.wire == Switch::No && !saved.offloads.is_empty();
    let not_ours = output.exclusive == Exclusive::Ovs && saved.flags.is_some();
    if !no_wire && !not_ours {
        return None;
    }
    let mut remains = saved.clone();
    let mut offloads = BTreeSet::new();
    if no_wire {
        offloads = saved.offloads.difference(&is.offloads).cloned().collect();
        remains.offloads.clear();
    }
    let mut flags = None;
    if not_ours {
        flags = saved
            .flags
            .clone()
            .filter(|_| is.flags.is_some() && is.flags != saved.flags);
        remains.flags = None;
    }
    Some(PortChange::Restore {
        device: device.clone(),
        index: is.index,
        flags,
        offloads,
        remains: Some(remains),
    })
}

/// Does a session that is left alone mirror there with Open vSwitch?
fn is_held(device: &IfName, desired: &Desired, observed: &Observed) -> bool {
    let OvsState::Present(ovs) = &observed.ovs else {
        return false;
    };
    let mirrors = ovs
        .bridges
        .values()
        .flat_map(|bridge| bridge.mirrors.values());
    let mut held = mirrors.filter(|mirror| {
        mirror
            .mark
            .as_ref()
            .is_some_and(|mark| desired.held.contains(&mark.session))
    });
    held.any(|mirror| mirror.config.output == MirrorOutput::Port(device.clone()))
}

impl fmt::Display for PortChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prepare {
                device,
                outputs,
                flags,
                offloads,
                drops,
                ..
            } => {
                let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
                let mut what = Vec::new();
                if flags.is_some() {
                    what.push("nothing but copies goes there");
                }
                if *drops {
                    what.push("what it sends is dropped");
                }
                if !offloads.is_empty() {
                    what.push("offloads off, for frames as on a wire");
                }
                write!(
                    f,
                    "output {} ({device}): {}",
                    outputs.join(", "),
                    what.join(", ")
                )
            }
            Self::Restore {
                device,
                remains: None,
                ..
            } => write!(f, "{device}: as before it was an output"),
            Self::Restore { device, .. } => write!(
                f,
                "{device}: offloads and flags as before, as they are no longer asked for"
            ),
            Self::Forget { device } => write!(f, "{device}: gone, nothing to put back"),
        }
    }
}
