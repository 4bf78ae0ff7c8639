//! What each engine's objects are as data, and their difference.

pub mod nft;
pub mod port;

use serde::Serialize;

/// What was mirrored (`Mirror.statistics`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Statistics {
    /// Frames.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}
