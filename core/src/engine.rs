//! What each engine's objects are as data, and their difference.

pub mod nft;
pub mod port;

use serde::Serialize;

use super::model::IfName;

/// An engine, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Open vSwitch.
    Ovs,
    /// nftables.
    Nft,
}

impl EngineKind {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ovs => "ovs",
            Self::Nft => "nft",
        }
    }
}

/// What mirrors, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase", tag = "engine", content = "bridge")]
pub enum Engine {
    /// nftables.
    Nft,
    /// Open vSwitch's own mirrors, on this bridge.
    Ovs(IfName),
}

impl Engine {
    /// The Open vSwitch bridge that the mirror is on.
    pub fn bridge(&self) -> Option<&IfName> {
        match self {
            Self::Ovs(bridge) => Some(bridge),
            Self::Nft => None,
        }
    }
}

/// What was mirrored (`Mirror.statistics`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Statistics {
    /// Frames.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}
