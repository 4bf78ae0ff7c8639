//! What is remembered of the frames of one sensor: who they are and when they passed, not what is in them.

use crate::sys::capture::{Frame, mtu};
use pve_span_core::model::Switch;
use pve_span_core::verify::capture_points::{ExpectedCopy, Group};
use pve_span_core::verify::identity::FrameHasher;
use pve_span_core::verify::tally::{Arrival, Event, Window};
use pve_span_core::verify::{checksum, frame_length, outer_vlan};

/// What was seen of a group.
#[derive(Default)]
pub struct Heard {
    /// Frames at sources.
    pub events: Vec<Event>,
    /// Frames at the sensor.
    pub arrivals: Vec<Arrival>,
    /// By part and subject: frames that are copied where another source sends them.
    pub elsewhere: Vec<Vec<u64>>,
    /// Frames at the sensor that are too long.
    pub oversize: u64,
    /// Frames at the sensor with a bad checksum.
    pub bad_checksum: u64,
    /// The MTU of the sensor's device.
    pub mtu: Option<usize>,
}

impl Heard {
    /// Nothing yet.
    pub fn of(group: &Group) -> Self {
        let parts = group.parts.iter();
        Self {
            elsewhere: parts.map(|part| vec![0; part.subjects.len()]).collect(),
            mtu: mtu(&group.sensor.spot.device),
            ..Self::default()
        }
    }

    /// A frame that leaves for the sensor; how much there is to remember.
    pub fn arrival(
        &mut self,
        group: &Group,
        frame: &Frame<'_>,
        identities: FrameHasher,
        window: Window,
    ) -> usize {
        let before = self.arrivals.len();
        if group
            .sensor
            .vlan
            .is_some_and(|vlan| outer_vlan(frame.bytes) != vlan)
        {
            return 0;
        }
        if group.sensor.wire == Switch::Yes && window.has(frame.time) {
            let length = frame_length(frame.bytes);
            self.oversize += u64::from(self.mtu.is_some_and(|mtu| length > mtu));
            let is_cut = group.sensor.snaplen.is_some();
            self.bad_checksum += u64::from(!is_cut && checksum::is_bad(frame.bytes));
        }
        let time = frame.time;
        identities.units(frame.bytes, frame.segments, |unit| {
            self.arrivals.push(Arrival {
                identity: unit.identity,
                time,
                stream: unit.stream,
            });
        });
        self.arrivals.len() - before
    }

    /// A frame at a source; how much there is to remember.
    pub fn event(
        &mut self,
        group: &Group,
        at: usize,
        frame: &Frame<'_>,
        identities: FrameHasher,
        window: Window,
    ) -> usize {
        let before = self.events.len();
        let Some(point) = group.points.get(at) else {
            return 0;
        };
        match point.takes.expects(frame.bytes) {
            ExpectedCopy::Nothing => {}
            ExpectedCopy::Elsewhere => {
                let part = self.elsewhere.get_mut(point.part);
                let count = part.and_then(|part| part.get_mut(point.subject));
                if let Some(count) = count.filter(|_| window.has(frame.time)) {
                    *count += 1;
                }
            }
            ExpectedCopy::Copy => {
                let (time, point) = (frame.time, u32::try_from(at).unwrap_or(u32::MAX));
                identities.units(frame.bytes, frame.segments, |unit| {
                    self.events.push(Event {
                        identity: unit.identity,
                        time,
                        point,
                        stream: unit.stream,
                    });
                });
            }
        }
        self.events.len() - before
    }
}
