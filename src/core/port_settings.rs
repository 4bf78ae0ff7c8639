//! What an output's port is like, as far as it has to be changed for a sensor: what its bridge sends there on its own,
//! and what the kernel leaves unfinished in the frames that it hands over.
//!
//! Plain data; how a port is read and changed is `linux::port`'s.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// On or off.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// On; what the kernel starts a bridge port with (net/bridge/br_if.c, `new_nbp`).
    #[default]
    On,
    /// Off.
    Off,
}

impl Switch {
    /// Is it on?
    pub fn is_on(self) -> bool {
        self == Self::On
    }
}

impl From<bool> for Switch {
    fn from(is_on: bool) -> Self {
        if is_on { Self::On } else { Self::Off }
    }
}

/// What a Linux bridge sends to a port on its own (bridge(8), "bridge link set"; linux/if_link.h, `IFLA_BRPORT_*`). The
/// default is the kernel's.
///
/// Learning is left as it is: nothing from an output gets as far as the bridge, and a port that neither learns nor is
/// flooded to would no longer count where a VLAN-aware bridge decides whether its uplink has to be promiscuous
/// (net/bridge/br_if.c, `br_manage_promisc`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BridgeFlags {
    /// Frames to addresses that nobody knows go there (`IFLA_BRPORT_UNICAST_FLOOD`).
    pub flood: Switch,
    /// Multicast that nobody has asked for goes there (`IFLA_BRPORT_MCAST_FLOOD`).
    pub mcast_flood: Switch,
    /// Broadcast goes there (`IFLA_BRPORT_BCAST_FLOOD`).
    pub bcast_flood: Switch,
    /// The port takes part at all (`IFLA_BRPORT_STATE`, not `BR_STATE_DISABLED`): the flags above do not hold for
    /// what the node itself sends to everybody (net/bridge/br_forward.c, `br_flood`). Off also where it is not ours to
    /// say, because the bridge runs STP.
    pub forwarding: Switch,
}

impl BridgeFlags {
    /// Nothing goes there but what is addressed there by hand.
    pub fn exclusive() -> Self {
        Self {
            flood: Switch::Off,
            mcast_flood: Switch::Off,
            bcast_flood: Switch::Off,
            forwarding: Switch::Off,
        }
    }

    /// To be put back one day: a port that is out of action because nobody has opened its device must not stay so.
    pub fn to_put_back(&self) -> Self {
        Self {
            forwarding: Switch::On,
            ..self.clone()
        }
    }
}

/// A port's settings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct PortSettings {
    /// The device's interface index: one that comes back under its name has another.
    pub index: u32,
    /// What its Linux bridge does with it; nothing if it is no port of one.
    #[serde(default)]
    pub flags: Option<BridgeFlags>,
    /// Those of [`is_unfinished`]'s offloads that are asked for and can be switched off, by ethtool(8)'s names.
    #[serde(default)]
    pub offloads: BTreeSet<String>,
}

/// Does an offload of this name (ethtool(8), `ethtool -k`; net/ethtool/common.c, `netdev_features_strings`) let a frame
/// reach the device unfinished: without checksum, larger than the MTU, or in pieces?
pub fn is_unfinished(offload: &str) -> bool {
    let Some(what) = offload.strip_prefix("tx-") else {
        return false;
    };
    what.starts_with("checksum-")
        || what.starts_with("scatter-gather")
        || what.starts_with("gso-")
        || what.ends_with("segmentation")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offload_that_leaves_a_frame_unfinished_is_known_by_its_name() {
        for name in [
            "tx-checksum-ip-generic",
            "tx-checksum-sctp",
            "tx-scatter-gather",
            "tx-scatter-gather-fraglist",
            "tx-generic-segmentation",
            "tx-tcp-segmentation",
            "tx-tcp-ecn-segmentation",
            "tx-udp_tnl-csum-segmentation",
            "tx-gso-list",
            "tx-gso-partial",
        ] {
            assert!(is_unfinished(name), "{name}");
        }
        for name in [
            "rx-checksum",
            "rx-gro",
            "rx-udp-gro-forwarding",
            "tx-nocache-copy",
            "tx-vlan-hw-insert",
            "tx-lockless",
            "highdma",
            "",
        ] {
            assert!(!is_unfinished(name), "{name}");
        }
    }
}
