//! What a port is like, as far as it has to be changed while it is an output or a source: what its bridge sends there on
//! its own, what the kernel leaves unfinished in the frames that it hands over, and which frames it takes in.
//!
//! Plain data; how a port is read and changed is `linux::port`'s.

use core::net::IpAddr;
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

/// Whether a port of a Linux bridge takes part (linux/if_bridge.h, `BR_STATE_…`).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum PortState {
    /// Not at all.
    Disabled,
    /// It hears other bridges only.
    Listening,
    /// It learns addresses, and passes nothing on.
    Learning,
    /// It does.
    #[default]
    Forwarding,
    /// Not at all, as STP says.
    Blocking,
}

/// What a Linux bridge sends to a port on its own (bridge(8), "bridge link set"; linux/if_link.h, `IFLA_BRPORT_*`). The
/// default is the kernel's.
///
/// Learning is left as it is: nothing from an output gets as far as the bridge, and a port that neither learns nor is
/// flooded to would no longer count where a VLAN-aware bridge decides whether its uplink has to be promiscuous
/// (net/bridge/br_if.c, `br_manage_promisc`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct BridgeFlags {
    /// Frames to addresses that nobody knows go there (`IFLA_BRPORT_UNICAST_FLOOD`).
    pub flood: Switch,
    /// Multicast that nobody has asked for goes there (`IFLA_BRPORT_MCAST_FLOOD`).
    pub mcast_flood: Switch,
    /// Broadcast goes there (`IFLA_BRPORT_BCAST_FLOOD`).
    pub bcast_flood: Switch,
    /// Whether the port takes part at all (`IFLA_BRPORT_STATE`): the flags above do not hold for what the node itself
    /// sends to everybody (net/bridge/br_forward.c, `br_flood`). Nothing where the bridge runs STP: then it is not ours to
    /// say.
    pub state: Option<PortState>,
}

impl Default for BridgeFlags {
    fn default() -> Self {
        Self {
            flood: Switch::On,
            mcast_flood: Switch::On,
            bcast_flood: Switch::On,
            state: Some(PortState::default()),
        }
    }
}

impl BridgeFlags {
    /// Nothing goes there but what is addressed there by hand.
    pub fn exclusive() -> Self {
        Self {
            flood: Switch::Off,
            mcast_flood: Switch::Off,
            bcast_flood: Switch::Off,
            state: Some(PortState::Disabled),
        }
    }

    /// What these become for an output.
    pub fn made_exclusive(&self) -> Self {
        Self {
            state: self.state.map(|_| PortState::Disabled),
            ..Self::exclusive()
        }
    }

    /// Does everything go there? So it is where a port has just been plugged.
    pub fn flood_all(&self) -> bool {
        self.flood.is_on() && self.mcast_flood.is_on() && self.bcast_flood.is_on()
    }

    /// What makes these `before` again; nothing if they are.
    pub fn back_to(&self, before: &Self) -> Option<Self> {
        let back = Self {
            state: before.state.filter(|_| self.state.is_some()),
            ..before.clone()
        };
        let now = Self {
            state: self.state.filter(|_| back.state.is_some()),
            ..self.clone()
        };
        (now != back).then_some(back)
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
    /// Has somebody asked for frames that are addressed to others (`ip link set … promisc on`)? Of what is saved: nothing
    /// if it was not changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promiscuous: Option<Switch>,
    /// Is it up? Of what is saved: nothing if it was not changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<Switch>,
    /// Is it up and connected (`IFF_RUNNING`)? This is not saved.
    #[serde(skip)]
    pub running: Switch,
}

impl PortSettings {
    /// The bridge's flags, to be put back one day. The kernel itself keeps a port disabled whose device nobody has opened:
    /// that must not stay so when somebody has.
    pub fn flags_to_save(&self) -> Option<BridgeFlags> {
        let mut flags = self.flags.clone()?;
        if flags.state == Some(PortState::Disabled) && !self.running.is_on() {
            flags.state = Some(PortState::Forwarding);
        }
        Some(flags)
    }
}

/// What of a device's link is changed; nothing of what stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct LinkChange {
    /// `ip link set … promisc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promiscuous: Option<Switch>,
    /// `ip link set … up` or `down`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<Switch>,
}

impl LinkChange {
    /// Does everything stay?
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
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

/// Made by the kernel itself on every device that has IPv6, so it does not tell that anybody uses the device.
pub fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
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
