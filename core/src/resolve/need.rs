//! What else needs an output, which would be cut off, and what to do instead.

use core::net::IpAddr;
use std::fmt;

use crate::config::Session;
use crate::config::selector::Output;
use crate::model::{IfName, NicId};

/// What else needs an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// Its guest has no other NIC.
    OnlyNic(NicId),
    /// It is net0 of several.
    FirstNic(NicId),
    /// The guest gets an address for it: the key, and what it says.
    Configured(NicId, String, String),
    /// It is a bridge.
    Bridge(IfName),
    /// It is the firewall bridge of a guest.
    FirewallBridge(IfName),
    /// It leads back to the node itself.
    Loopback(IfName),
    /// The node has an address on it.
    Address(IfName, IpAddr),
    /// It is a part of another device: a bond, a VRF.
    Part(IfName, &'static str, IfName),
    /// Another device is on top of it.
    Below(IfName, IfName),
    /// A bridge on which the node has an address has no other way out that provably carries.
    OnlyWay(IfName, IfName, IpAddr),
    /// It may be the way of a bridge on which the node has an address.
    Way(IfName, IfName, IpAddr),
    /// It may be the only way out of a bridge for the guests there, this NIC among them.
    GuestsWay(IfName, IfName, NicId),
    /// It has a link-local address.
    LinkLocal(IfName, IpAddr),
    /// The node has a route that goes out by it.
    Route(IfName),
    /// It is free by itself, and not beside another port that is an output.
    Conflict(IfName, IfName),
}

impl Need {
    /// May the administrator say that it is meant so? Not where the node itself would be cut off.
    pub fn can_be_confirmed(&self) -> bool {
        match self {
            Self::OnlyNic(_)
            | Self::FirstNic(_)
            | Self::Configured(..)
            | Self::Way(..)
            | Self::GuestsWay(..)
            | Self::LinkLocal(..)
            | Self::Route(_) => true,
            Self::Bridge(_)
            | Self::FirewallBridge(_)
            | Self::Loopback(_)
            | Self::Address(..)
            | Self::Part(..)
            | Self::Below(..)
            | Self::OnlyWay(..)
            | Self::Conflict(..) => false,
        }
    }

    /// Does `capture-only` of the session say that it is meant so?
    pub fn is_confirmed_by(&self, session: &Session, output: &Output) -> bool {
        self.can_be_confirmed() && session.confirms(output)
    }

    /// What to do instead.
    pub fn remedy(&self, output: &Output) -> String {
        let other = match self {
            Self::OnlyNic(nic) | Self::FirstNic(nic) | Self::Configured(nic, ..) => {
                format!("give guest {} a NIC for copies alone", nic.vmid)
            }
            Self::Bridge(bridge) => format!("as a source it is written bridge:{bridge}"),
            Self::LinkLocal(device, _) => {
                // sysctl(8) takes a dot for a separator, and a slash for a name's dot.
                let key = device.as_str().replace('.', "/");
                format!("switch IPv6 off there (sysctl net.ipv6.conf.{key}.disable_ipv6=1)")
            }
            Self::Part(_, _, whole) => {
                format!("take it out of {whole}, or use another port")
            }
            Self::Below(_, above) => format!("delete {above}, or use another port"),
            Self::FirewallBridge(_)
            | Self::Loopback(_)
            | Self::Address(..)
            | Self::OnlyWay(..)
            | Self::Way(..)
            | Self::GuestsWay(..)
            | Self::Route(_)
            | Self::Conflict(..) => "use another port".to_owned(),
        };
        if self.can_be_confirmed() {
            format!("{other}; if it may lose its network: `capture-only = {output}`")
        } else {
            other
        }
    }

    pub(super) fn told(&self, output: &Output) -> String {
        format!("{self}: {}", self.remedy(output))
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlyNic(nic) => write!(
                f,
                "{nic} is the only NIC of guest {}, and an output is cut off from the network",
                nic.vmid
            ),
            Self::FirstNic(nic) => write!(
                f,
                "{nic} is the first NIC of guest {}, where one usually reaches it, and an output is cut off from the network",
                nic.vmid
            ),
            Self::Configured(nic, key, value) => write!(
                f,
                "{nic} has an address ({key}: {value}), and an output is cut off from the network"
            ),
            Self::Bridge(bridge) => {
                write!(
                    f,
                    "{bridge} is a bridge, and frames can only go out of a port"
                )
            }
            Self::FirewallBridge(bridge) => {
                write!(f, "{bridge} is a guest's firewall bridge")
            }
            Self::Loopback(device) => write!(
                f,
                "{device} is a loopback device: a mirror into it would cut the node off from itself"
            ),
            Self::Address(device, address) => write!(
                f,
                "{device} carries this node's address {address}: a mirror into it would cut the node off"
            ),
            Self::Part(device, kind, whole) => {
                write!(f, "{device} is part of the {kind} {whole}")
            }
            Self::Below(device, above) => write!(
                f,
                "{above} is built on {device}, and would be cut off by a mirror into it"
            ),
            Self::OnlyWay(device, bridge, address) => write!(
                f,
                "{device} may be the only way out of {bridge}, over which this node has the address {address}: a mirror into it \
                 would cut the node off"
            ),
            Self::Way(device, bridge, address) => write!(
                f,
                "{device} may be the way out of {bridge} that is in use, and this node has the address {address} there"
            ),
            Self::GuestsWay(device, bridge, nic) => write!(
                f,
                "{device} may be the only way out of {bridge} for the guests there ({nic}, for one), and would be cut off by a \
                 mirror into it"
            ),
            Self::LinkLocal(device, address) => write!(
                f,
                "{device} has the link-local address {address}, which a mirror into it would cut off"
            ),
            Self::Conflict(device, other) => write!(
                f,
                "{device} cannot be an output beside {other}, which is one already: together they may be the only way out of a \
                 bridge"
            ),
            Self::Route(device) => write!(
                f,
                "a route of this node goes out by {device}, and a mirror into it would cut that off"
            ),
        }
    }
}
