//! A session as span.cfg describes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::diagnostic::Place;
use super::selector::{Output, Selector};
use crate::filter::Filter;
use crate::model::{Direction, SessionName, Switch, VlanSet};

/// Where a guest's frames are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// On the bridge, after the guest's firewall.
    Bridge,
    /// At the guest's own device, before the firewall.
    Guest,
}

/// What becomes of a guest's mirrors when it is about to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreStop {
    /// They go then.
    Clear,
    /// They go with its port: the sensor sees the shutdown too.
    Keep,
}

/// Which engine may mirror a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineChoice {
    /// What fits.
    Auto,
    /// Open vSwitch's mirrors.
    Ovs,
    /// nftables' `dup`.
    Nft,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// What is meant.
    pub value: T,
    /// Where it is said.
    pub place: Place,
}

/// One SPAN session as the file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its name.
    pub name: SessionName,
    /// Where its section begins.
    pub place: Place,
    /// Whose frames.
    pub sources: Vec<At<Selector>>,
    /// Whose not.
    pub exclude: Vec<At<Selector>>,
    /// Where to.
    pub outputs: Vec<At<Output>>,
    /// The outputs that may be cut off from their network.
    pub capture_only: Vec<At<Output>>,
    /// Which of a source's frames.
    pub direction: Direction,
    /// Where they are taken.
    pub point: Point,
    /// Only these VLANs; all when empty.
    pub vlans: VlanSet,
    /// Only frames that match.
    pub filter: Option<Filter>,
    /// Bytes kept of each frame.
    pub snaplen: Option<u16>,
    /// One frame in so many; 1 is every frame.
    pub sample: u32,
    /// Which engine may mirror it.
    pub engine: EngineChoice,
    /// A frame between two sources arrives once.
    pub dedup: Switch,
    /// Wire-sized frames with valid checksums.
    pub wire: Switch,
    /// What a guest's pre-stop does.
    pub pre_stop: PreStop,
    /// Switched off by hand?
    pub enabled: Switch,
    /// When it ends by itself.
    pub expires: Option<Timestamp>,
    /// The administrator's note; shared, since `[defaults]` gives it to every session.
    pub comment: Option<Arc<str>>,
    /// Where each of its keys has its value, `[defaults]` included.
    pub keys: BTreeMap<String, Place>,
}

impl Session {
    pub(super) fn empty(name: SessionName, place: Place) -> Self {
        Self {
            name,
            place,
            sources: Vec::new(),
            exclude: Vec::new(),
            outputs: Vec::new(),
            capture_only: Vec::new(),
            direction: Direction::Both,
            point: Point::Bridge,
            vlans: VlanSet::default(),
            filter: None,
            snaplen: None,
            sample: 1,
            engine: EngineChoice::Auto,
            dedup: Switch::Yes,
            wire: Switch::Yes,
            pre_stop: PreStop::Clear,
            enabled: Switch::Yes,
            expires: None,
            comment: None,
            keys: BTreeMap::new(),
        }
    }

    /// What it asks for that Open vSwitch's mirrors do not have: the key in span.cfg.
    pub fn needs_nft(&self) -> Option<&'static str> {
        if self.filter.is_some() {
            Some("filter")
        } else {
            (self.sample > 1).then_some("sample")
        }
    }

    /// Why it needs the nft engine, in span.cfg's words, if it does whatever the node is like.
    pub fn asks_for_nft(&self) -> Option<&'static str> {
        match self.engine {
            EngineChoice::Nft => Some("engine = nft"),
            EngineChoice::Auto => self.needs_nft(),
            EngineChoice::Ovs => None,
        }
    }

    /// Does the administrator confirm that the output may be cut off from its network?
    pub fn confirms(&self, output: &Output) -> bool {
        self.capture_only.iter().any(|at| at.value == *output)
    }

    /// Is it over at this time, in seconds since 1970?
    pub fn has_expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|end| end.as_second() <= now)
    }
}
