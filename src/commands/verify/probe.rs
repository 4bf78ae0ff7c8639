//! Sends marked frames to sources: out of the source's own device, or where Open vSwitch has to deliver them, through its
//! bridge.
//!
//! One source after the other with a moment between, so that what all of them lead to at one sensor fits its queue.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::sys::capture::{Sender, mtu};
use crate::sys::error::with_causes;
use pve_span_core::model::{IfName, SessionName};
use pve_span_core::verify::capture_points::{ExpectedCopy, Group, Way};
use pve_span_core::verify::probe_frames;

/// Between two sources.
const PAUSE: Duration = Duration::from_millis(2);

/// The MTU that is taken where none is known.
const USUAL: usize = 1500;

/// A source that marked frames are sent to.
pub struct Target {
    /// By group, part and subject.
    at: (usize, usize, usize),
    device: IfName,
    frames: Vec<Vec<u8>>,
}

/// What there is to send, and what was sent.
#[derive(Default)]
pub struct ProbeSender {
    targets: Vec<Target>,
    next: usize,
    senders: BTreeMap<IfName, Sender>,
    /// How many frames were sent, by group, part and subject.
    pub sent: BTreeMap<(usize, usize, usize), u64>,
    /// Why none are, likewise.
    pub refused: BTreeMap<(usize, usize, usize), String>,
}

impl ProbeSender {
    /// For the sources of the sessions that are asked for, not of others that share an output with them.
    pub fn of(groups: &[Group], run: u64, is_asked: impl Fn(&SessionName) -> bool) -> Self {
        let mut injector = Self::default();
        for (number, group) in groups.iter().enumerate() {
            let parts = group.parts.iter().enumerate();
            for (part, shape) in parts.filter(|(_, part)| is_asked(&part.key.session)) {
                for (subject, source) in shape.subjects.iter().enumerate() {
                    let at = (number, part, subject);
                    match &source.way {
                        Way::None(why) => {
                            injector.refused.insert(at, why.clone());
                        }
                        Way::Device { device, mac, vlan } | Way::Bridge { device, mac, vlan } => {
                            let session = shape.key.session.as_str();
                            let frames = frames(group, device, (*mac, *vlan), run, session);
                            injector.add(group, at, device, frames);
                        }
                    }
                }
            }
        }
        injector
    }

    fn add(
        &mut self,
        group: &Group,
        at: (usize, usize, usize),
        device: &IfName,
        frames: Vec<Vec<u8>>,
    ) {
        let (_, part, subject) = at;
        let mut points = group.points.iter();
        let takes = points.any(|point| {
            let own = point.part == part && point.subject == subject;
            own && frames.first().is_some_and(|frame| {
                // Where it is delivered, a port's own tag has gone.
                let bare = untagged(frame);
                [frame.as_slice(), &bare]
                    .iter()
                    .any(|frame| point.takes.expects(frame) == ExpectedCopy::Copy)
            })
        });
        if !takes {
            let why = "the session's filter or vlan does not take them (EtherType 0x88b5)";
            self.refused.insert(at, why.to_owned());
            return;
        }
        self.targets.push(Target {
            at,
            device: device.clone(),
            frames,
        });
    }

    /// Is there something left to send?
    pub fn is_busy(&self) -> bool {
        self.next < self.targets.len()
    }

    /// How long to wait before the next.
    pub fn pause(&self) -> Option<Duration> {
        self.is_busy().then_some(PAUSE)
    }

    /// Sends to the next source.
    pub fn next(&mut self) {
        let Some(target) = self.targets.get(self.next) else {
            return;
        };
        self.next += 1;
        if !self.senders.contains_key(&target.device) {
            match Sender::open(&target.device) {
                Ok(sender) => {
                    self.senders.insert(target.device.clone(), sender);
                }
                Err(error) => {
                    self.refused.insert(target.at, with_causes(&error));
                    return;
                }
            }
        }
        let Some(sender) = self.senders.get(&target.device) else {
            return;
        };
        for frame in &target.frames {
            match sender.send(frame) {
                Ok(()) => *self.sent.entry(target.at).or_default() += 1,
                Err(error) => {
                    self.refused.insert(target.at, with_causes(&error));
                }
            }
        }
    }
}

/// Small ones, and one as large as may be.
fn frames(
    group: &Group,
    device: &IfName,
    (mac, vlan): (u64, Option<u16>),
    run: u64,
    session: &str,
) -> Vec<Vec<u8>> {
    let of = |device| mtu(device).unwrap_or(USUAL);
    let largest = of(device).min(of(&group.sensor.spot.device)).min(9000);
    let numbers = 0..=probe_frames::SMALL;
    let length = |number| {
        if number == probe_frames::SMALL {
            largest
        } else {
            0
        }
    };
    // Each of its own: what one session sends is not taken for what another one does.
    numbers
        .map(|number| {
            let frame = probe_frames::frame(mac, run, number, session, length(number));
            probe_frames::tagged(frame, vlan)
        })
        .collect()
}

fn untagged(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame.get(12..14) == Some(&[0x81, 0x00]) {
        frame.drain(12..16);
    }
    frame
}
