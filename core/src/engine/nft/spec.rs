//! What the `nft` engine shall copy on this node: sources, output and choice of frames, before it is
//! made into chains.
//!
//! Plain data: `resolve` fills it, [`table`](super::table) turns it into what the kernel holds.

use std::collections::{BTreeMap, BTreeSet};

use super::Side;
use crate::filter::Filter;
use crate::model::Switch;
use crate::model::Taken;
use crate::model::{IfName, NicId, OutputKey, SessionName, VlanSet};

/// What goes to one output of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// The device that copies leave through.
    pub device: IfName,
    /// Its interface index.
    pub index: u32,
    /// Where frames are taken, by device.
    pub sources: BTreeMap<IfName, CopySource>,
    /// Devices of which nobody can tell now whether they belong to it: what they have stays as it is.
    pub undecided: BTreeSet<IfName>,
    /// Which frames.
    pub frames: Frames,
}

/// A device whose frames are copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySource {
    /// The guest's NIC behind it, if it is one's.
    pub nic: Option<NicId>,
    /// Which of the source's frames.
    pub taken: Taken,
    /// Which way round the device is.
    pub facing: DeviceEnd,
    /// Which of its VLANs.
    pub vlans: Vlans,
    /// The MAC address that it sends from.
    pub mac: Mac,
}

/// A source's MAC address, as a number in network byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mac {
    /// Its config says this one.
    Known(u64),
    /// It has none that anybody wrote down.
    None,
    /// Nobody can tell now.
    Unknown,
}

/// Which way frames pass a device, seen from what is behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceEnd {
    /// The node receives what the source sends: a guest's device, a physical one.
    Source,
    /// The node sends what the source sends: an internal port of Open vSwitch, a bridge's own device.
    Node,
}

/// How a source's VLANs are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vlans {
    /// They need not be: every frame is in one that is wanted.
    All,
    /// By the frames' tags.
    Tagged,
    /// By the frames' tags, and those without one are in a VLAN that is wanted.
    Native,
}

/// Which of the sources' frames are copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frames {
    /// Only these VLANs, by the frames' tags; all when empty.
    pub vlans: VlanSet,
    /// Only these.
    pub filter: Option<Filter>,
    /// One in so many.
    pub sample: u32,
    /// A frame between two sources is copied once.
    pub dedup: Switch,
}

impl Frames {
    /// Is no frame left out?
    pub fn is_everything(&self) -> bool {
        self.vlans.is_empty() && self.filter.is_none() && self.sample == 1
    }
}

impl Copies {
    /// Is anything taken where it is delivered?
    pub fn delivers(&self) -> bool {
        self.sources.values().any(|source| source.taken.delivered())
    }
}

impl CopySource {
    /// The hooks that its frames pass, and what passes there.
    pub fn hooks(&self) -> impl Iterator<Item = (Side, Passing)> + use<> {
        let (sent, delivered) = match self.facing {
            DeviceEnd::Source => (Side::Ingress, Side::Egress),
            DeviceEnd::Node => (Side::Egress, Side::Ingress),
        };
        let sent = self.taken.sent().then_some((sent, Passing::From));
        let delivered = self.taken.delivered().then_some((delivered, Passing::To));
        sent.into_iter().chain(delivered)
    }
}

/// What passes a hook, seen from the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Passing {
    /// What it sends.
    From,
    /// What is delivered to it.
    To,
}

impl Passing {
    /// The word in rules' comments.
    pub fn word(self) -> &'static str {
        match self {
            Self::From => "from",
            Self::To => "to",
        }
    }
}

/// An output's device on this node, for as long as it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPort {
    /// Its interface index.
    pub index: u32,
    /// The outputs that it serves, as span.cfg writes them.
    pub of: BTreeSet<OutputKey>,
    /// Who keeps everything but copies from it.
    pub exclusive: Exclusive,
    /// Is the kernel to finish frames before they leave through it?
    pub wire: Switch,
}

impl OutputPort {
    /// One that serves no output yet.
    pub fn new(index: u32, exclusive: Exclusive, wire: Switch) -> Self {
        Self {
            index,
            of: BTreeSet::new(),
            exclusive,
            wire,
        }
    }
}

/// A port in no bridge, for as long as it is a source: nobody else asks for frames that are addressed to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePort {
    /// Its interface index.
    pub index: u32,
    /// The sessions that it is a source of.
    pub of: BTreeSet<SessionName>,
    /// Is it to be set up? What a bond or another device has taken over is not ours to set up.
    pub raise: Raise,
}

/// Is a source's port to be set up?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raise {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// Who sees to it that an output carries nothing but copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exclusive {
    /// Open vSwitch: it reserves a mirror's output port.
    Ovs,
    /// We do: bridge port flags, and a rule that drops what comes in.
    Us,
}

/// What is left alone, because nobody can tell what it shall be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    /// Whole sessions.
    pub sessions: BTreeSet<SessionName>,
    /// Single outputs of sessions.
    pub outputs: BTreeSet<OutputKey>,
}

impl Held {
    /// Is what a session mirrors to an output left alone?
    pub fn holds(&self, key: &OutputKey) -> bool {
        self.sessions.contains(&key.session) || self.outputs.contains(key)
    }

    /// Is there nothing to be left alone?
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.outputs.is_empty()
    }
}

/// All that shall be in our table.
#[derive(Clone, Copy)]
pub struct Spec<'a> {
    /// What is copied.
    pub copies: &'a BTreeMap<OutputKey, Copies>,
    /// The outputs' devices.
    pub outputs: &'a BTreeMap<IfName, OutputPort>,
    /// What is left alone.
    pub held: &'a Held,
}

/// Does anything depend on the sources' MAC addresses?
pub fn asks_for_macs(all: &BTreeMap<OutputKey, Copies>) -> bool {
    all.values()
        .any(|copies| copies.frames.dedup == Switch::Yes && copies.delivers())
}
