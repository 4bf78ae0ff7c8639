//! Which of a source's frames its sensor should get, judged by their bytes.

use std::collections::BTreeSet;

use crate::engine::nft::spec::{Copies, CopySource, Frames, Mac, Passing, Vlans};
use crate::filter::Filter;
use crate::model::OutputKey;
use crate::model::Switch;
use crate::model::VlanSet;
use crate::state::{Desired, OvsPort};
use crate::verify::packet::{source, tags, u16_at, vlan};

/// What a frame at a source leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedCopy {
    /// A copy at the sensor.
    Copy,
    /// None: another source has sent it, and it is copied there.
    Elsewhere,
    /// None: the session does not ask for it.
    Nothing,
}

/// Which frames are taken.
#[derive(Debug, Clone)]
pub enum Takes {
    /// By nftables.
    Copied {
        /// Of these VLANs, by the outer tag; none stands for all.
        vlans: VlanSet,
        /// Only these.
        filter: Option<Filter>,
        /// Not what comes from these MAC addresses.
        not_from: BTreeSet<u64>,
    },
    /// By a mirror of Open vSwitch.
    Mirrored {
        /// The port's own VLAN.
        tag: Option<u16>,
        /// The VLANs that it carries with tags; none stands for all.
        trunks: VlanSet,
        /// Of these; none stands for all.
        vlans: VlanSet,
        /// The VLAN that the copies go to.
        rspan: Option<u16>,
    },
}

/// What a switch keeps to itself (IEEE 802.1D, table 7-10): Open vSwitch puts none of it into an RSPAN VLAN.
const RESERVED: [u8; 5] = [0x01, 0x80, 0xc2, 0, 0];

impl Takes {
    pub(super) fn copied(
        source: &CopySource,
        frames: &Frames,
        passing: Passing,
        known: &BTreeSet<u64>,
    ) -> Self {
        let mut vlans = match source.vlans {
            Vlans::All => VlanSet::default(),
            Vlans::Tagged | Vlans::Native => frames.vlans.clone(),
        };
        if source.vlans == Vlans::Native {
            vlans = vlans.iter().chain([0]).collect();
        }
        let not_from = match (passing, frames.dedup) {
            (Passing::To, Switch::Yes) => known.clone(),
            _ => BTreeSet::new(),
        };
        Self::Copied {
            vlans,
            filter: frames.filter.clone(),
            not_from,
        }
    }

    /// By nftables, where nothing but VLANs and the filter decides.
    pub(super) fn of_vlans(vlans: VlanSet, frames: &Frames) -> Self {
        Self::Copied {
            vlans,
            filter: frames.filter.clone(),
            not_from: BTreeSet::new(),
        }
    }

    pub(super) fn mirrored(port: &OvsPort, vlans: &VlanSet, rspan: Option<u16>) -> Self {
        Self::Mirrored {
            tag: port.tag,
            trunks: port.trunks.clone(),
            vlans: vlans.clone(),
            rspan,
        }
    }

    /// Can it take no frame at all?
    pub(super) fn is_nothing(&self) -> bool {
        match self {
            Self::Copied { .. } => false,
            Self::Mirrored {
                tag,
                trunks,
                vlans,
                rspan,
            } => {
                let access = tag.filter(|_| trunks.is_empty());
                access.is_some_and(|tag| {
                    *rspan == Some(tag) || (!vlans.is_empty() && !vlans.contains(tag))
                })
            }
        }
    }

    /// What a frame leads to.
    pub fn expects(&self, frame: &[u8]) -> ExpectedCopy {
        match self {
            Self::Copied {
                vlans,
                filter,
                not_from,
            } => {
                let chosen = (vlans.is_empty() || vlans.contains(vlan(frame)))
                    && filter.as_ref().is_none_or(|filter| filter.takes(frame));
                match chosen {
                    false => ExpectedCopy::Nothing,
                    true if source(frame).is_some_and(|mac| not_from.contains(&mac)) => {
                        ExpectedCopy::Elsewhere
                    }
                    true => ExpectedCopy::Copy,
                }
            }
            Self::Mirrored {
                tag,
                trunks,
                vlans,
                rspan,
            } => {
                let kept = rspan.is_some()
                    && frame.get(..5) == Some(&RESERVED)
                    && frame.get(5).is_some_and(|last| *last < 0x10);
                let vlan = within(*tag, trunks, frame)
                    .filter(|vlan| !kept && *rspan != Some(*vlan))
                    .filter(|vlan| vlans.is_empty() || vlans.contains(*vlan));
                match vlan {
                    Some(_) => ExpectedCopy::Copy,
                    None => ExpectedCopy::Nothing,
                }
            }
        }
    }
}

/// The VLAN of a frame on a port; none if the port does not carry it, and its bridge drops it.
fn within(tag: Option<u16>, trunks: &VlanSet, frame: &[u8]) -> Option<u16> {
    let vid = match tags(frame) {
        0 => 0,
        _ => u16_at(frame, 14)? & 0x0fff,
    };
    match (tag, trunks.is_empty()) {
        (Some(tag), true) => (vid == 0).then_some(tag),
        (Some(tag), false) if vid == 0 => Some(tag),
        (_, true) => Some(vid),
        (_, false) => (trunks.contains(vid) || tag == Some(vid)).then_some(vid),
    }
}

/// The MAC addresses of which nothing is copied where it is delivered, since it was copied where it was sent: those of the
/// session's sources, and of sessions that copy the same frames, or all, to the same output.
pub(super) fn known(key: &OutputKey, copies: &Copies, desired: &Desired) -> BTreeSet<u64> {
    let same = desired.copies.iter().filter(|(other, theirs)| {
        *other == key
            || (other.output == key.output
                && theirs.frames.dedup == Switch::Yes
                && (theirs.frames == copies.frames || theirs.frames.is_everything()))
    });
    let sources = same.flat_map(|(_, copies)| copies.sources.values());
    let macs = sources
        .filter(|source| source.taken.sent())
        .filter_map(|source| match source.mac {
            Mac::Known(mac) => Some(mac),
            Mac::None | Mac::Unknown => None,
        });
    macs.collect()
}

/// The tag that a frame needs to be taken.
pub(super) fn vlan_for(vlans: Vlans, wanted: &VlanSet) -> Option<u16> {
    match vlans {
        Vlans::Tagged if !wanted.contains(0) => wanted.iter().next(),
        Vlans::All | Vlans::Native | Vlans::Tagged => None,
    }
}
