//! Proof that a session mirrors: which frames its sensor should get, and whether it got them.
//!
//! This exists because a configuration that reads well proves nothing: frames are watched where a source's are taken and
//! where the copies leave for the sensor, and matched one by one. Capturing is done elsewhere; here is what follows from
//! what was captured.
//!
//! ```text
//! Desired, Observed ─► watching: which devices, and what is taken there
//! a frame at a source ─► watching: is it taken?  ─► identity ─► events   ┐
//! a frame at a sensor ─► checksum, length        ─► identity ─► arrivals ┴► tally ─► verdict
//! ```

pub mod capture_points;
pub mod checksum;
pub mod identity;
mod packet;
pub mod probe_frames;
mod streams;
pub mod tally;
pub mod verdict;

pub use packet::vlan as outer_vlan;

/// How many bytes of a frame count against an MTU: without Ethernet header and VLAN tags.
pub fn frame_length(frame: &[u8]) -> usize {
    frame.len().saturating_sub(14 + 4 * packet::tags(frame))
}
