//! What is true of a NIC with `firewall=1` that has no firewall bridge: `point` makes no difference there, and `bridge` is
//! not behind the guest's firewall.

use super::selection::Choice;
use crate::model::{NicId, some};
use crate::pve::cluster::Cluster;
use crate::state::port_map::{BridgeKind, Port};

/// Where its frames are taken, seen from the guest's firewall; nothing if `point` tells.
pub fn without_bridge(nic: NicId, port: &Port, cluster: &Cluster) -> Option<&'static str> {
    let plugged = port.nic.as_ref()?;
    let config = cluster.guest(nic.vmid)?.nics.get(&nic.index)?;
    if !config.firewall || plugged.firewall_bridge.is_some() {
        return None;
    }
    match port.bridge_kind {
        BridgeKind::Linux => Some(
            "`firewall=1`, but no firewall bridge (so it is with Proxmox VE's nftables firewall): what the guest sends is copied \
             before its firewall, and what it gets after it",
        ),
        BridgeKind::Ovs => Some(
            "`firewall=1`, but no firewall bridge: on Open vSwitch, no firewall of Proxmox VE filters it without one",
        ),
        BridgeKind::None => None,
    }
}

/// The same for all NICs that a session takes.
pub fn notes(choice: &Choice<'_>, cluster: &Cluster) -> Vec<String> {
    let mut notes: Vec<(&str, Vec<NicId>)> = Vec::new();
    for port in choice.ports.values() {
        let Some(nic) = port.nic.as_ref().map(|nic| nic.id) else {
            continue;
        };
        let Some(told) = without_bridge(nic, port, cluster) else {
            continue;
        };
        match notes.iter_mut().find(|(known, _)| *known == told) {
            Some((_, nics)) => nics.push(nic),
            None => notes.push((told, vec![nic])),
        }
    }
    notes
        .into_iter()
        .map(|(told, mut nics)| {
            nics.sort();
            format!("{}: {told}", some(&nics))
        })
        .collect()
}
