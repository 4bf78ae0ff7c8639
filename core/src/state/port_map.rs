//! Which port of which bridge is whose: read off what exists, never guessed from a config.
//!
//! Proxmox VE plugs a NIC in four ways (a device on an Open vSwitch or Linux bridge, with or
//! without a firewall bridge between), and the firewall checkbox does not tell which: only the
//! ports that exist do.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Link, Observed, OvsPort, OvsState};
use crate::config::selector::Selector;
use crate::model::firewall_bridge_of;
use crate::model::{GuestKind, IfName, NicId, PortRole, VlanSet, port_owner};

/// What switches a bridge's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BridgeKind {
    /// Open vSwitch.
    Ovs,
    /// The kernel's bridge.
    Linux,
    /// None: a device of its own.
    None,
}

/// A port: what is plugged into a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name on the bridge.
    pub name: IfName,
    /// The bridge; its own name if it is in none.
    pub bridge: IfName,
    /// The bridge's kind.
    pub bridge_kind: BridgeKind,
    /// The guest's NIC behind it, if it is one's.
    pub nic: Option<PluggedNic>,
    /// Access VLAN.
    pub tag: Option<u16>,
    /// The VLAN of frames without a tag, where others have theirs.
    pub native: Option<u16>,
    /// Trunk VLANs.
    pub trunks: VlanSet,
    /// `internal`, `patch`, `veth` …; empty for hardware.
    pub kind: String,
}

/// The NIC behind a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluggedNic {
    /// Which one.
    pub id: NicId,
    /// VM or container, if the device shows it.
    pub kind: Option<GuestKind>,
    /// The guest's own device.
    pub device: Option<IfName>,
    /// The firewall bridge between device and port, if there is one.
    pub firewall_bridge: Option<IfName>,
}

/// All ports of this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortMap {
    /// By name. A device that is in an Open vSwitch bridge and in a Linux bridge stands here as a port of the former.
    pub ports: BTreeMap<IfName, Port>,
    /// Such devices as ports of their Linux bridge: an internal port of Open vSwitch that leads into it, say.
    pub enslaved: BTreeMap<IfName, Port>,
    /// The ports of guests' NICs.
    by_nic: BTreeMap<NicId, IfName>,
    /// NICs whose device exists, but is not plugged into any bridge.
    pub unplugged: BTreeMap<NicId, IfName>,
    /// All bridges but the firewall bridges.
    pub bridges: BTreeMap<IfName, BridgeKind>,
    /// While Open vSwitch does not answer: the devices that may be on one of its bridges.
    pub perhaps_on_ovs: Option<BTreeSet<IfName>>,
    /// Devices' other names, with the names that they go by.
    altnames: BTreeMap<IfName, IfName>,
    /// The devices of Open vSwitch bonds.
    pub members: BTreeMap<IfName, Vec<IfName>>,
}

impl PortMap {
    /// Reads the map off what was observed.
    pub fn new(observed: &Observed) -> Self {
        let mut map = Self::default();
        let mut devices = devices(observed);
        map.altnames = altnames(observed);
        map.add_ovs(observed, &devices);
        map.add_linux(observed, &devices);
        map.by_nic = map
            .nics()
            .map(|(port, nic)| (nic.id, port.name.clone()))
            .collect();
        let silent = observed.ovs.unanswered();
        map.perhaps_on_ovs = silent.map(|_| map.not_on_linux(observed));
        devices.retain(|nic, _| !map.by_nic.contains_key(nic));
        map.unplugged = devices
            .into_iter()
            .map(|(nic, (device, _))| (nic, device))
            .collect();
        map
    }

    /// Takes in a device that is in no bridge, if it is there: a source or output of its own. Guests' devices
    /// are none.
    pub fn add_alone(&mut self, name: &IfName, observed: &Observed) {
        let Some(link) = observed.links.get(name) else {
            return;
        };
        let is_taken = self.ports.contains_key(name)
            || self.bridges.contains_key(name)
            || self.may_be_on_ovs(name);
        let is_in_firewall_bridge = link.master.as_ref().is_some_and(is_firewall_bridge);
        if is_taken
            || is_in_firewall_bridge
            || port_owner(name.as_str()).is_some()
            || is_firewall_bridge(name)
        {
            return;
        }
        let port = Port {
            name: name.clone(),
            bridge: name.clone(),
            bridge_kind: BridgeKind::None,
            nic: None,
            tag: None,
            native: None,
            trunks: VlanSet::default(),
            kind: link.kind.clone().unwrap_or_default(),
        };
        self.ports.insert(name.clone(), port);
    }

    /// All ports: a device that is in two bridges is a port of each.
    pub fn all(&self) -> impl Iterator<Item = &Port> {
        self.ports.values().chain(self.enslaved.values())
    }

    /// The ports that a device is.
    pub fn of_device(&self, name: &IfName) -> impl Iterator<Item = &Port> {
        let ports = self.ports.get(name).into_iter();
        ports.chain(self.enslaved.get(name))
    }

    /// The ports that belong to guests.
    pub fn nics(&self) -> impl Iterator<Item = (&Port, &PluggedNic)> {
        self.ports
            .values()
            .filter_map(|port| port.nic.as_ref().map(|nic| (port, nic)))
    }

    /// The port of a guest's NIC.
    pub fn of_nic(&self, nic: NicId) -> Option<&Port> {
        self.by_nic.get(&nic).and_then(|name| self.ports.get(name))
    }

    /// May the device be on a bridge of an Open vSwitch that does not answer?
    pub fn may_be_on_ovs(&self, name: &IfName) -> bool {
        let devices = self.perhaps_on_ovs.as_ref();
        devices.is_some_and(|devices| devices.contains(name))
    }

    /// Why there is no port of this name.
    pub fn why_no_port(&self, name: &IfName) -> String {
        let other = self.other_name(name);
        other.unwrap_or_else(|| format!("there is no port {name} on this node"))
    }

    /// What to write instead of a name that is a bridge's, or another name of a device.
    pub fn other_name(&self, name: &IfName) -> Option<String> {
        if self.bridges.contains_key(name) {
            return Some(format!("{name} is a bridge: write bridge:{name}"));
        }
        let device = self.altnames.get(name)?;
        Some(format!(
            "{name} is another name of {device}: write port:{device}"
        ))
    }

    /// What to write instead of a source that is no port or bridge here.
    pub fn instead_of(&self, source: &Selector) -> Option<String> {
        match source {
            Selector::Port(port) if !self.ports.contains_key(port) => {
                self.other_name(port).or_else(|| why_no_source(port))
            }
            Selector::Bridge(bridge) => why_no_source(bridge),
            _ => None,
        }
    }

    /// What to write instead of an Open vSwitch bond, which has no device of its own.
    pub fn why_no_device(&self, port: &IfName) -> Option<String> {
        let members = self.members.get(port)?;
        let members: Vec<String> = members.iter().map(|name| format!("port:{name}")).collect();
        Some(format!(
            "{port} is an Open vSwitch bond, which has no device: write {}",
            members.join(", ")
        ))
    }

    fn add_ovs(&mut self, observed: &Observed, devices: &Devices) {
        let OvsState::Present(ovs) = &observed.ovs else {
            return;
        };
        for (bridge, row) in &ovs.bridges {
            self.bridges.insert(bridge.clone(), BridgeKind::Ovs);
            for (name, port) in &row.ports {
                if !is_alive(observed, bridge, name, port) {
                    continue;
                }
                if !port.members.is_empty() {
                    let mut members = port.members.clone();
                    members.sort();
                    self.members.insert(name.clone(), members);
                }
                let nic = owner(name, PortRole::OvsFirewall, devices, observed);
                let port = Port {
                    name: name.clone(),
                    bridge: bridge.clone(),
                    bridge_kind: BridgeKind::Ovs,
                    nic,
                    tag: port.tag.filter(|_| port.trunks.is_empty()),
                    native: port.tag.filter(|_| !port.trunks.is_empty()),
                    trunks: port.trunks.clone(),
                    kind: port.kind.clone(),
                };
                self.ports.insert(name.clone(), port);
            }
        }
    }

    /// The devices that the kernel shows on no Linux bridge. All devices of a NIC are known whose port is on one.
    fn not_on_linux(&self, observed: &Observed) -> BTreeSet<IfName> {
        let is_enslaved = |link: &Link| {
            let master = link
                .master
                .as_ref()
                .and_then(|name| observed.links.get(name));
            master.is_some_and(|master| master.kind.as_deref() == Some("bridge"))
        };
        let is_known = |name: &IfName, link: &Link| match port_owner(name.as_str()) {
            Some((_, PortRole::LinuxFirewall)) if is_enslaved(link) => true,
            Some((nic, _)) => self.by_nic.contains_key(&nic),
            None => {
                is_enslaved(link) || self.bridges.contains_key(name) || is_firewall_bridge(name)
            }
        };
        let links = observed.links.iter();
        links
            .filter(|(name, link)| !is_known(name, link))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn add_linux(&mut self, observed: &Observed, devices: &Devices) {
        let is_bridge = |name: &IfName| {
            observed
                .links
                .get(name)
                .is_some_and(|link| link.kind.as_deref() == Some("bridge"))
        };
        for name in observed
            .links
            .keys()
            .filter(|name| is_bridge(name) && !is_firewall_bridge(name))
        {
            self.bridges.insert(name.clone(), BridgeKind::Linux);
        }
        for (name, link) in &observed.links {
            let Some(bridge) = link.master.as_ref().filter(|master| is_bridge(master)) else {
                continue;
            };
            if is_firewall_bridge(bridge) {
                continue;
            }
            let port = Port {
                name: name.clone(),
                bridge: bridge.clone(),
                bridge_kind: BridgeKind::Linux,
                nic: owner(name, PortRole::LinuxFirewall, devices, observed),
                tag: vlan_suffix(bridge, observed).or(link.access_vlan),
                native: link.native_vlan,
                trunks: VlanSet::default(),
                kind: link.kind.clone().unwrap_or_default(),
            };
            let is_on_ovs = self.ports.contains_key(name);
            let ports = if is_on_ovs {
                &mut self.enslaved
            } else {
                &mut self.ports
            };
            ports.insert(name.clone(), port);
        }
    }
}

/// A crashed guest leaves its port in the database, without a device.
///
/// Where the kernel shows the bridge's own device, it shows the ports' devices too. Where it does not
/// (Open vSwitch in another network namespace), ovs-vswitchd is believed. So it is where it could not open a device that
/// is a port of a Linux bridge: a device has one master.
fn is_alive(observed: &Observed, bridge: &IfName, name: &IfName, port: &OvsPort) -> bool {
    let link = observed.links.get(name);
    let master = link.and_then(|link| observed.links.get(link.master.as_ref()?));
    let is_linux = |master: &Link| master.kind.as_deref() == Some("bridge");
    if port.failed && port.kind != "internal" && master.is_some_and(is_linux) {
        return false;
    }
    let has_device = matches!(port.kind.as_str(), "" | "system" | "internal");
    if has_device && observed.links.contains_key(bridge) {
        observed.links.contains_key(name) || port.interfaces > 1
    } else {
        !port.failed || observed.links.contains_key(name)
    }
}

fn altnames(observed: &Observed) -> BTreeMap<IfName, IfName> {
    let links = observed.links.iter();
    let named = links.flat_map(|(name, link)| {
        let others = link.altnames.iter();
        others.map(move |other| (other.clone(), name.clone()))
    });
    named.collect()
}

type Devices = BTreeMap<NicId, (IfName, GuestKind)>;

/// The guests' own devices.
fn devices(observed: &Observed) -> Devices {
    let names = observed.links.keys();
    names
        .filter_map(|name| match port_owner(name.as_str())? {
            (nic, PortRole::Device(kind)) => Some((nic, (name.clone(), kind))),
            _ => None,
        })
        .collect()
}

/// The NIC behind a port on a bridge where firewall bridges meet it as `firewall`; nothing for
/// other ports, and for what a crash or a re-plugging left behind.
fn owner(
    name: &IfName,
    firewall: PortRole,
    devices: &Devices,
    observed: &Observed,
) -> Option<PluggedNic> {
    let (id, role) = port_owner(name.as_str())?;
    let firewall_bridge = id.firewall_bridge().parse::<IfName>().ok()?;
    let behind_firewall = |device: &IfName| {
        observed
            .links
            .get(device)
            .and_then(|link| link.master.as_ref())
            == Some(&firewall_bridge)
    };
    match role {
        PortRole::Device(kind) => (!behind_firewall(name)).then(|| PluggedNic {
            id,
            kind: Some(kind),
            device: Some(name.clone()),
            firewall_bridge: None,
        }),
        _ if role == firewall => {
            let device = devices.get(&id);
            // Where the kernel shows the port, it also shows the guest's device behind it, if the guest runs.
            let shown = observed.links.contains_key(name);
            let live = device.map_or(!shown, |(device, _)| behind_firewall(device));
            live.then(|| PluggedNic {
                id,
                kind: device.map(|(_, kind)| *kind),
                device: device.map(|(device, _)| device.clone()),
                firewall_bridge: Some(firewall_bridge.clone()),
            })
        }
        _ => None,
    }
}

/// That a guest runs without this NIC's device.
pub fn without_device(nic: NicId) -> String {
    format!(
        "guest {} runs here, but its net{} has no device",
        nic.vmid, nic.index
    )
}

/// Why a guest's device is in no bridge that can be seen.
pub fn why_in_no_bridge(device: &IfName, observed: &Observed) -> String {
    let link = observed.links.get(device);
    let firewall = link.and_then(|link| link.master.as_ref());
    let firewall = firewall.filter(|master| is_firewall_bridge(master));
    match (&observed.ovs, firewall) {
        (OvsState::Failed(why), Some(firewall)) => {
            format!(
                "{device} is in {firewall}, and where that leads only Open vSwitch knows: {why}"
            )
        }
        (OvsState::Absent(why) | OvsState::Failed(why), _) => {
            format!("{device} is in no Linux bridge, and {why}")
        }
        (OvsState::Present(_), _) => format!("{device} is not plugged into any bridge"),
    }
}

/// What to write instead of a firewall bridge, or of its end on the guest's side: both come and go with the guest.
fn why_no_source(name: &IfName) -> Option<String> {
    let end = name.as_str().strip_prefix("fwln");
    let bridge = end.map(|rest| format!("fwbr{rest}"));
    let nic = firewall_bridge_of(bridge.as_deref().unwrap_or(name.as_str()))?;
    Some(format!(
        "{name} is the firewall bridge of {nic}, or a part of it: write {nic}, and `point = guest` for its frames before the firewall"
    ))
}

/// Is it one that Proxmox VE has made for a NIC's firewall?
pub fn is_firewall_bridge(name: &IfName) -> bool {
    firewall_bridge_of(name.as_str()).is_some()
}

/// The end in a firewall bridge of the veth pair that joins it to a Linux bridge; to Open vSwitch it is joined by an internal port
/// instead, `fwln101o0`.
pub fn firewall_pair(firewall_bridge: &IfName) -> Option<IfName> {
    let nic = firewall_bridge.as_str().strip_prefix("fwbr")?;
    format!("fwln{nic}").parse().ok()
}

/// The 20 of `vmbr0v20`, the bridge that Proxmox VE makes for `tag=20` on a VLAN-unaware bridge.
fn vlan_suffix(bridge: &IfName, observed: &Observed) -> Option<u16> {
    let (base, tag) = bridge.as_str().rsplit_once('v')?;
    let tag = crate::model::decimal(tag)?;
    observed.links.contains_key(base).then_some(tag)
}

#[cfg(test)]
mod tests;
