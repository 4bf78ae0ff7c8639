//! What the service's children tell it, as JSON through a pipe.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::faults::Fault;
use pve_span_core::health::{Health, Reason};

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ReconcileReport {
    /// What was changed, in words.
    pub changed: Vec<String>,
    /// The same as data, without rows and indexes: what is made again has others each time.
    pub made: serde_json::Value,
    /// The sessions whose mirrors were changed.
    pub sessions: Vec<String>,
    /// What could not be done, and why.
    pub faults: Vec<Fault>,
    /// In how many milliseconds a guest that is announced as stopping no longer counts as stopped.
    pub settles_in: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Surveyed {
    /// Why span.cfg is not what is gone by.
    pub notice: Option<String>,
    /// The same, or why nothing could be found out.
    pub faults: Vec<Fault>,
    /// Can sessions be told of?
    pub is_known: bool,
    /// Was /etc/pve mounted? Nothing if nobody has looked.
    pub mounted: Option<bool>,
    /// Is there something that a reconcile would change?
    pub pending: bool,
    pub sessions: BTreeMap<String, Session>,
    /// When the next session ends, in seconds since 1970.
    pub expires: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    pub health: Health,
    pub reasons: Vec<Reason>,
    pub present: usize,
    /// Sources that there would be if all guests ran.
    pub configured: usize,
    pub outputs: BTreeMap<String, Output>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Output {
    /// The device that mirrored frames leave through.
    pub device: Option<Device>,
    /// Does Open vSwitch mirror to it?
    pub ovs: bool,
    /// The name of nftables' counter, if nftables copies to it.
    pub counter: Option<String>,
    /// The devices of sources all of whose frames should arrive there, and of no other session's.
    pub sources: Vec<Source>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub name: String,
    pub index: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    pub index: u32,
    /// Do frames count that the node receives from it?
    pub received: bool,
    /// Do frames count that the node sends through it?
    pub sent: bool,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Counts {
    pub outputs: Vec<Count>,
    /// How old Open vSwitch's figures may be, in milliseconds.
    pub ovs_interval: u64,
}

/// What has been counted of one output of a session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Count {
    pub session: String,
    pub output: String,
    /// Frames mirrored, if anybody counts.
    pub frames: Option<u64>,
    pub bytes: Option<u64>,
    /// Frames that its device had no room for.
    pub dropped: Option<u64>,
    /// Frames that its sources moved, by interface index.
    pub moved: BTreeMap<u32, u64>,
}
