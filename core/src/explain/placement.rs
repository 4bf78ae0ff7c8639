//! Where a guest is, and how a NIC of its is plugged, or why it is not.

use std::collections::BTreeSet;

use serde::Serialize;

use super::index::ExplainContext;
use crate::model::{GuestKind, NicId, NodeName, Vmid, excerpt, some};
use crate::resolve::firewall::without_bridge;
use crate::state::port_map::{PortMap, why_in_no_bridge, without_device};

/// Where a guest is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "node")]
pub enum GuestState {
    /// It has a device on this node.
    Here,
    /// Its config is filed here, and it has no device.
    Off,
    /// It has a device here, while its config is filed under this other node.
    Arriving(NodeName),
    /// It has no device here, and its config is filed under this other node.
    Elsewhere(NodeName),
    /// It is a template.
    Template,
    /// Where its config is filed cannot be told, and it has no device here.
    Unknown,
}

/// How a NIC is plugged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "why")]
pub enum NicState {
    /// It has a port of a bridge.
    Plugged,
    /// It has a device, and that is in no bridge that can be seen.
    Unplugged(String),
    /// Its config names no bridge.
    NoBridge(String),
    /// Its guest runs here, and it has no device.
    NoDevice(String),
    /// Its guest does not run here.
    NotHere(String),
}

/// The NICs of a guest that have a device here.
pub(super) fn devices(map: &PortMap, vmid: Vmid) -> impl Iterator<Item = NicId> + '_ {
    let plugged = map.nics().map(|(_, nic)| nic.id);
    let unplugged = map.unplugged.keys().copied();
    plugged.chain(unplugged).filter(move |nic| nic.vmid == vmid)
}

impl ExplainContext<'_> {
    pub(super) fn kind(&self, vmid: Vmid) -> Option<GuestKind> {
        let config = self.view.cluster.guest(vmid);
        config.map(|config| config.kind).or_else(|| {
            let mut plugged = self.map.nics().filter(|(_, nic)| nic.id.vmid == vmid);
            plugged.find_map(|(_, nic)| nic.kind)
        })
    }

    pub(super) fn guest_state(&self, vmid: Vmid) -> GuestState {
        let is_here = devices(&self.map, vmid).next().is_some();
        let cluster = self.view.cluster;
        let placement = cluster.placements.as_ref().ok().map(|all| all.get(&vmid));
        let this = cluster.this.as_ref().ok();
        let other = |node: &NodeName| this.is_some_and(|this| this != node);
        match (is_here, placement) {
            (true, Some(Some(filed))) if other(&filed.node) => {
                GuestState::Arriving(filed.node.clone())
            }
            (true, _) => GuestState::Here,
            (false, Some(Some(filed))) if other(&filed.node) => {
                GuestState::Elsewhere(filed.node.clone())
            }
            (false, _) if cluster.guest(vmid).is_some_and(|config| config.template) => {
                GuestState::Template
            }
            (false, Some(Some(_))) if this.is_some() => GuestState::Off,
            (false, _) => GuestState::Unknown,
        }
    }

    pub(super) fn guest_notes(&self, vmid: Vmid, state: &GuestState) -> Vec<String> {
        let mut notes = Vec::new();
        match state {
            GuestState::Here => {}
            GuestState::Off => notes.push("not running on this node".to_owned()),
            GuestState::Arriving(node) => notes.push(format!(
                "it has a port here, while its config is filed under node {node}: a migration, under way or broken off"
            )),
            GuestState::Elsewhere(node) => notes.push(format!(
                "on node {node}: `pve-span explain {vmid}` there tells what becomes of its frames"
            )),
            GuestState::Template => notes.push("a template, which never runs".to_owned()),
            GuestState::Unknown => {
                notes.push("not running on this node; where it is cannot be told".to_owned());
            }
        }
        match self.view.cluster.guests.get(&vmid) {
            Some(Err(why)) => notes.push(format!("its config cannot be read: {why}")),
            Some(Ok(config)) if config.nics.is_empty() => notes.push("it has no NIC".to_owned()),
            Some(Ok(_)) => {}
            None => {
                let why = self.view.cluster.placements.as_ref().err();
                let why = why.map(|why| format!("its config cannot be read: {why}"));
                notes.push(why.unwrap_or_else(|| "it has no config".to_owned()));
            }
        }
        notes
    }

    pub(super) fn nic_state(&self, nic: NicId, guest: &GuestState) -> NicState {
        if self.map.of_nic(nic).is_some() {
            return NicState::Plugged;
        }
        if let Some(device) = self.map.unplugged.get(&nic) {
            let by_config = self.view.cluster.out_of_bridges(nic);
            return NicState::Unplugged(by_config.map_or_else(
                || why_in_no_bridge(device, self.view.observed),
                |why| why.told(device),
            ));
        }
        let config = self.view.cluster.guest(nic.vmid);
        let config = config.and_then(|config| Some((config.kind, config.nics.get(&nic.index)?)));
        match (config, guest) {
            (Some((GuestKind::Qemu, config)), _) if config.bridge.is_none() => NicState::NoBridge(
                "no `bridge=` in its config: user-mode NAT, whose frames pass no port of the node"
                    .into(),
            ),
            (Some((GuestKind::Lxc, config)), _) if config.bridge.is_none() => NicState::NoBridge(
                "no `bridge=` in its config: its frames pass no port of a bridge".into(),
            ),
            (_, GuestState::Here | GuestState::Arriving(_)) => {
                NicState::NoDevice(without_device(nic))
            }
            (_, GuestState::Elsewhere(node)) => NicState::NotHere(format!("it is on node {node}")),
            (_, GuestState::Template) => NicState::NotHere("a template never runs".into()),
            (_, GuestState::Off | GuestState::Unknown) => {
                NicState::NotHere("it does not run here".into())
            }
        }
    }

    /// Where a NIC will be plugged, by its config.
    fn configured(&self, nic: NicId) -> Option<String> {
        let config = self.view.cluster.guest(nic.vmid)?.nics.get(&nic.index)?;
        let bridge = excerpt(config.bridge.as_deref()?);
        let tag = config.tag.map(|tag| format!(", VLAN {tag}"));
        let tag = tag.unwrap_or_default();
        Some(format!("configured for {bridge}{tag}"))
    }

    pub(super) fn nic_notes(&self, nic: NicId, state: &NicState) -> Vec<String> {
        let mut notes = Vec::new();
        match state {
            NicState::Plugged => {}
            NicState::NotHere(_) => notes.extend(self.configured(nic)),
            NicState::Unplugged(why) | NicState::NoBridge(why) | NicState::NoDevice(why) => {
                notes.push(why.clone());
            }
        }
        let port = self.map.of_nic(nic);
        let device = port.and_then(|port| port.nic.as_ref()?.device.as_ref().or(Some(&port.name)));
        let output = device.and_then(|device| self.view.desired.outputs.get(device));
        if let Some(output) = output {
            let sessions: BTreeSet<&str> = output.of.iter().map(|of| of.session.as_str()).collect();
            let sessions: Vec<&str> = sessions.into_iter().collect();
            notes.push(format!(
                "an output, of {}: only copies are delivered to it, and what it sends is dropped",
                some(&sessions)
            ));
        }
        // Somebody else's mirrors may go there, too.
        let as_output = nic.to_string();
        let remarks = self.view.plan.remarks.iter();
        let remarks = remarks.filter(|remark| remark.output == as_output);
        let remarks: BTreeSet<&String> = remarks.map(|remark| &remark.text).collect();
        notes.extend(remarks.into_iter().cloned());
        let guest = self.view.cluster.guest(nic.vmid);
        let config = guest.and_then(|guest| guest.nics.get(&nic.index));
        let firewall = port.and_then(|port| without_bridge(nic, port, self.view.cluster));
        notes.extend(firewall.map(str::to_owned));
        if config.is_some_and(|config| config.link_down) {
            notes.push(
                "`link_down=1`: its cable is out, so no frames pass until that is taken away"
                    .into(),
            );
        }
        notes
    }
}
