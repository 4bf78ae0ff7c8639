//! What each engine's objects are as data, and their difference.

pub mod nft;
pub mod port;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engine {
    /// nftables.
    Nft,
    /// Open vSwitch's own mirrors, on this bridge.
    Ovs(IfName),
}

impl Serialize for Engine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = match self {
            Self::Nft => EngineKind::Nft,
            Self::Ovs(_) => EngineKind::Ovs,
        };
        let mut fields = serializer.serialize_struct("Engine", 2)?;
        fields.serialize_field("engine", &kind)?;
        fields.serialize_field("bridge", &self.bridge())?;
        fields.end()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_reads_the_engine_and_its_bridge() {
        let json = |engine: Engine| serde_json::to_string(&engine).unwrap();
        let ovs = Engine::Ovs("vmbr2".parse().unwrap());
        assert_eq!(json(ovs), r#"{"engine":"ovs","bridge":"vmbr2"}"#);
        assert_eq!(json(Engine::Nft), r#"{"engine":"nft","bridge":null}"#);
    }
}
