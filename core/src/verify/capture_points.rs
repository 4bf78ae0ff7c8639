//! What has to be watched to prove sessions: where each source's frames are taken, which of them, and where the copies
//! leave for the sensor.
//!
//! It follows from what span.cfg asks for, not from what is in force: a mirror that is not there is what `verify` is for.

mod expected;
mod nft;
mod ovs;
mod watching;
mod whole_bridges;

use std::collections::BTreeMap;

use crate::config::Session;
use crate::engine::nft::Side;
use crate::engine::nft::spec::{Frames, Passing};
use crate::model::OutputKey;
use crate::model::Switch;
use crate::model::{IfName, NicId, SessionName};
use crate::state::port_map::{Port, PortMap};
use crate::state::{Desired, Observed};
pub use expected::{ExpectedCopy, Takes};

/// A device, and which way frames pass it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceSide {
    /// The device.
    pub device: IfName,
    /// What the node receives from it, or what it sends through it.
    pub side: Side,
}

/// All that is sent to one sensor, by whichever sessions.
#[derive(Debug, Clone)]
pub struct Group {
    /// Where the copies leave.
    pub sensor: Sensor,
    /// What is sent there.
    pub parts: Vec<Part>,
    /// Where frames are taken.
    pub points: Vec<Point>,
}

/// Where copies leave for the sensor.
#[derive(Debug, Clone)]
pub struct Sensor {
    /// The device.
    pub spot: DeviceSide,
    /// Only frames of this VLAN are copies (RSPAN).
    pub vlan: Option<u16>,
    /// Shall frames be as on a wire?
    pub wire: Switch,
    /// How many bytes there are of each frame, if not all.
    pub snaplen: Option<u16>,
}

/// One session's output.
#[derive(Debug, Clone)]
pub struct Part {
    /// Which.
    pub key: OutputKey,
    /// One frame in so many; 1 is every frame.
    pub sample: u32,
    /// Does a frame between two sources arrive once?
    pub dedup: Switch,
    /// What has to be proven: a source and a direction each.
    pub subjects: Vec<Subject>,
    /// What cannot be watched, and why.
    pub blind: Vec<String>,
}

/// A source, and which of its frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// `101/net0`, a port, or `bridge:vmbr1`.
    pub name: String,
    /// From it or to it; all of a bridge's count as from.
    pub passing: Passing,
    /// Is it a bridge as a whole?
    pub whole: bool,
    /// How marked frames get there.
    pub way: Way,
}

/// How frames can be sent to a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Out of its device.
    Device {
        /// The device.
        device: IfName,
        /// To whom.
        mac: u64,
        /// With this tag.
        vlan: Option<u16>,
    },
    /// Through its Open vSwitch bridge, from the bridge's own device.
    Bridge {
        /// The bridge.
        device: IfName,
        /// To whom.
        mac: u64,
        /// With this tag.
        vlan: Option<u16>,
    },
    /// They cannot, and why.
    None(String),
}

/// A place where frames of a subject are taken.
#[derive(Debug, Clone)]
pub struct Point {
    /// Of which part.
    pub part: usize,
    /// Which of its subjects.
    pub subject: usize,
    /// Where.
    pub spot: DeviceSide,
    /// From the source or to it.
    pub passing: Passing,
    /// Which frames.
    pub takes: Takes,
}

/// What is watched, by the device where copies leave.
#[derive(Debug, Clone, Default)]
pub struct CapturePlan {
    /// The groups.
    pub groups: Vec<Group>,
    /// What cannot be proven, by session, and why.
    pub blind: BTreeMap<SessionName, Vec<String>>,
}

/// What is known of the node.
struct Node<'a> {
    sessions: &'a BTreeMap<SessionName, Session>,
    desired: &'a Desired,
    observed: &'a Observed,
    map: PortMap,
    mac: &'a dyn Fn(NicId) -> Option<u64>,
}

impl CapturePlan {
    /// The group of a sensor, made if there is none.
    fn group(&mut self, sensor: &Sensor) -> &mut Group {
        let found = self
            .groups
            .iter()
            .position(|group| group.sensor.spot == sensor.spot && group.sensor.vlan == sensor.vlan);
        let at = found.unwrap_or_else(|| {
            self.groups.push(Group {
                sensor: sensor.clone(),
                parts: Vec::new(),
                points: Vec::new(),
            });
            self.groups.len() - 1
        });
        let group = &mut self.groups[at];
        let shorter = [group.sensor.snaplen, sensor.snaplen];
        group.sensor.snaplen = shorter.into_iter().flatten().min();
        group
    }
}

impl Group {
    /// The part of a session and output, made if there is none.
    fn part(&mut self, key: &OutputKey, frames: Option<&Frames>) -> usize {
        let found = self.parts.iter().position(|part| part.key == *key);
        let at = found.unwrap_or_else(|| {
            self.parts.push(Part {
                key: key.clone(),
                sample: 1,
                dedup: Switch::Yes,
                subjects: Vec::new(),
                blind: Vec::new(),
            });
            self.parts.len() - 1
        });
        if let (Some(frames), Some(part)) = (frames, self.parts.get_mut(at)) {
            part.sample = frames.sample;
            part.dedup = frames.dedup;
        }
        at
    }

    fn add(
        &mut self,
        part: usize,
        subject: Subject,
        spot: DeviceSide,
        takes: Takes,
        passing: Passing,
    ) {
        let Some(subjects) = self.parts.get_mut(part).map(|part| &mut part.subjects) else {
            return;
        };
        let same =
            |known: &Subject| (&known.name, known.passing) == (&subject.name, subject.passing);
        let at = subjects.iter().position(same).unwrap_or_else(|| {
            subjects.push(subject);
            subjects.len() - 1
        });
        self.points.push(Point {
            part,
            subject: at,
            spot,
            passing,
            takes,
        });
    }
}

impl Node<'_> {
    fn sensor(&self, device: &IfName, side: Side) -> Sensor {
        let output = self.desired.outputs.get(device);
        Sensor {
            spot: DeviceSide {
                device: device.clone(),
                side,
            },
            vlan: None,
            wire: output.map_or(Switch::No, |output| output.wire),
            snaplen: None,
        }
    }

    /// The port that a device is, or is behind.
    fn port_at(&self, device: &IfName) -> Option<&Port> {
        let behind = || {
            let mut nics = self.map.nics();
            nics.find(|(_, nic)| nic.device.as_ref() == Some(device))
                .map(|(port, _)| port)
        };
        self.map.ports.get(device).or_else(behind)
    }
}

impl Subject {
    /// Can marked frames get there?
    pub fn can_be_sent_to(&self) -> bool {
        !matches!(self.way, Way::None(_))
    }
}

fn not_a_guest(name: &str) -> Way {
    Way::None(format!("{name} is not a guest's NIC"))
}

fn only_it_can(name: &str) -> Way {
    Way::None(format!("only the guest itself can send from {name}"))
}

/// Only to one: a marked frame to a group would be everybody's.
pub(super) fn is_one_station(mac: &u64) -> bool {
    mac >> 40 & 1 == 0
}

pub(super) fn no_mac(name: &str) -> Way {
    Way::None(format!("the MAC address of {name} is not known"))
}
