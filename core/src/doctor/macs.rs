//! MAC addresses that two running guests share: a clone that kept its address, say.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::Node;
use super::findings::{Findings, Id, Severity, listed, shell_word};
use crate::model::{NicId, Vmid};
use crate::pve::guest::Nic;
use crate::state::port_map::{Port, PortMap};

/// Judges the addresses of NICs that have a port here.
pub fn judge(node: &Node<'_>, map: &PortMap, found: &mut Findings) {
    let mut by_mac: BTreeMap<u64, Vec<(NicId, &Port, &Nic)>> = BTreeMap::new();
    for (port, plugged) in map.nics() {
        let guest = node.cluster.guest(plugged.id.vmid);
        let nic = guest.and_then(|guest| guest.nics.get(&plugged.id.index));
        if let Some((nic, mac)) = nic.and_then(|nic| Some((nic, nic.mac_number()?))) {
            by_mac.entry(mac).or_default().push((plugged.id, port, nic));
        }
    }
    for mut shared in by_mac.into_values() {
        shared.sort_by_key(|(id, ..)| *id);
        let guests: BTreeSet<Vmid> = shared.iter().map(|(id, ..)| id.vmid).collect();
        let (Some(last), true) = (shared.last(), guests.len() > 1) else {
            continue;
        };
        let bridges: BTreeSet<_> = shared.iter().map(|(_, port, _)| &port.bridge).collect();
        let (severity, so) = if bridges.len() < shared.len() {
            (
                Severity::Warning,
                "their bridge delivers one guest's frames to the other, and a sensor cannot tell them apart",
            )
        } else {
            (
                Severity::Note,
                "they are on bridges of their own, but a sensor that gets both cannot tell them apart",
            )
        };
        let (id, _, nic) = last;
        let mac = nic.mac.as_deref().unwrap_or_default();
        let nics = shared.iter().map(|(id, ..)| id);
        let configs = shared
            .iter()
            .map(|(id, ..)| format!("{}: net{}", node.config_of(id.vmid), id.index));
        found.add(
            severity,
            Id::MacShared,
            format!("{} have the same MAC address {mac}: {so}", listed(nics)),
            listed(configs),
            format!(
                "{} --net{} {} (Proxmox VE makes a new address)",
                node.set(id.vmid),
                id.index,
                shell_word(&without_mac(nic, mac))
            ),
        );
    }
}

/// A NIC's value, the address left out: `virtio=BC:24:11:2A:00:01,bridge=vmbr0` is `virtio,bridge=vmbr0` then.
fn without_mac(nic: &Nic, mac: &str) -> String {
    let parts = nic
        .text
        .split(',')
        .filter_map(|part| match part.split_once('=') {
            Some(("macaddr" | "hwaddr", _)) => None,
            Some((model, value)) if value.trim() == mac => Some(model),
            _ => Some(part),
        });
    parts.collect::<Vec<_>>().join(",")
}
