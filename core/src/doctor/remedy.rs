//! The command that mends a sensor's NIC. It sets the whole line, so it leaves out all that is wrong with the NIC: of
//! two findings, the second one's command would bring back what the first one's took away.

use std::collections::BTreeMap;

use super::facts::Node;
use super::findings::shell_word;
use crate::model::{GuestKind, IfName, NicId};
use crate::state::port_map::PortMap;

/// Knows what is wrong with sensors' NICs.
pub struct NicRemedy<'a> {
    node: &'a Node<'a>,
    pub map: PortMap,
    /// The MTU that a NIC's config has to have, where it has too small a one.
    raised: BTreeMap<NicId, u32>,
}

impl<'a> NicRemedy<'a> {
    pub fn new(node: &'a Node<'a>, raised: BTreeMap<NicId, u32>) -> Self {
        Self {
            node,
            map: PortMap::new(node.observed),
            raised,
        }
    }

    /// The firewall bridge that a NIC is behind.
    pub fn firewall_bridge(&self, nic: NicId) -> Option<&IfName> {
        let plugged = self.map.of_nic(nic)?.nic.as_ref()?;
        plugged.firewall_bridge.as_ref()
    }

    /// The command; nothing where the NIC's config is not known.
    pub fn set(&self, id: NicId) -> Option<String> {
        let guest = self.node.cluster.guest(id.vmid)?;
        let nic = guest.nics.get(&id.index)?;
        let mut keys = vec!["link_down", "rate"];
        if self.firewall_bridge(id).is_some() {
            keys.push("firewall");
        }
        if guest.kind == GuestKind::Lxc && guest.addresses.contains_key(&id.index) {
            keys.extend(["ip", "ip6", "gw", "gw6"]);
        }
        let raised = self.raised.get(&id).map(|mtu| format!(",mtu={mtu}"));
        keys.extend(raised.as_ref().map(|_| "mtu"));
        let value = nic.without(&keys) + &raised.unwrap_or_default();
        let (set, index) = (self.node.set(id.vmid), id.index);
        Some(format!("{set} --net{index} {}", shell_word(&value)))
    }
}
