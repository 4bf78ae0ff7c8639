//! Which guests look like sensors, and which of their NICs like the monitor port.

use super::super::model::{GuestKind, NicId, NicIndex, NodeName, Vmid};
use super::super::pve::cluster::Cluster;
use super::super::pve::guest::{Guest, Nic};
use super::super::resolve::availability::need_of_nic;
use super::super::state::port_map::PortMap;

/// What sensors are called: products, and what they are for. Whole words only.
const WORDS: [&str; 16] = [
    "arkime",
    "bro",
    "ids",
    "ips",
    "malcolm",
    "mirror",
    "nids",
    "nsm",
    "ntop",
    "ntopng",
    "securityonion",
    "sensor",
    "snort",
    "span",
    "suricata",
    "zeek",
];

/// A guest that looks like a sensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sensor {
    pub vmid: Vmid,
    pub kind: GuestKind,
    pub name: Option<String>,
    /// What gave it away: `its name`, `the tag ids`.
    pub by: String,
    /// The node that it is filed under, if that is another one.
    pub elsewhere: Option<NodeName>,
    pub monitor: Monitor,
}

/// Which of a sensor's NICs is the monitor port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Monitor {
    /// This one looks like it.
    Nic(NicId),
    /// None does; why, and what to do.
    None(String),
}

impl Sensor {
    /// The guest as a sensor, if it looks like one.
    pub fn of(guest: &Guest, cluster: &Cluster, map: &PortMap) -> Option<Self> {
        let by = reason(guest)?;
        let placement = cluster.placements.as_ref().ok()?.get(&guest.vmid)?;
        let is_here = cluster.is_here(guest.vmid) == Some(true);
        Some(Self {
            vmid: guest.vmid,
            kind: guest.kind,
            name: guest.name.clone(),
            by,
            elsewhere: (!is_here).then(|| placement.node.clone()),
            monitor: monitor(guest, map),
        })
    }
}

fn reason(guest: &Guest) -> Option<String> {
    if guest.name.as_deref().is_some_and(names_sensor) {
        return Some("its name".into());
    }
    let tag = guest.tags.iter().find(|tag| names_sensor(tag))?;
    Some(format!("its tag `{}`", super::super::model::excerpt(tag)))
}

/// Is one of a name's words a sensor's? `so-…` is Security Onion's own habit.
fn names_sensor(name: &str) -> bool {
    let name = name.to_lowercase();
    let words: Vec<&str> = name
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| word.trim_end_matches(|c: char| c.is_ascii_digit()))
        .collect();
    let is_security_onion = words.windows(2).any(|pair| pair == ["security", "onion"]);
    let is_so = name.starts_with("so-") && words.len() > 1;
    is_security_onion || is_so || words.iter().any(|word| WORDS.contains(word))
}

/// The NIC that carries nothing else: one that may be an output, without firewall bridge or VLAN tag.
fn monitor(guest: &Guest, map: &PortMap) -> Monitor {
    let vmid = guest.vmid;
    let id = |index: NicIndex| NicId { vmid, index };
    if guest.nics.len() < 2 {
        return Monitor::None(format!(
            "it has no second NIC for it; give it one: {}",
            add_nic(guest)
        ));
    }
    let has_firewall = |index: NicIndex, nic: &Nic| {
        let plugged = map.of_nic(id(index)).and_then(|port| port.nic.as_ref());
        plugged.map_or(nic.firewall, |nic| nic.firewall_bridge.is_some())
    };
    let fits = |index: NicIndex, nic: &Nic| {
        nic.bridge.is_some()
            && nic.tag.is_none()
            && !has_firewall(index, nic)
            && need_of_nic(guest, id(index)) == Some(Ok(()))
    };
    let mut nics = guest.nics.iter();
    match nics.find(|(index, nic)| fits(**index, nic)) {
        Some((index, _)) => Monitor::Nic(id(*index)),
        None => Monitor::None(
            "each of its NICs is the first, has a firewall, a VLAN tag or an address, or no bridge"
                .into(),
        ),
    }
}

fn add_nic(guest: &Guest) -> String {
    let free = |index: &u8| NicIndex::new(*index).is_some_and(|n| !guest.nics.contains_key(&n));
    let next = (1..=NicIndex::MAX).find(free).unwrap_or(1);
    let bridge = guest.nics.values().find_map(|nic| nic.bridge.as_deref());
    let bridge = bridge.filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
    let bridge = bridge.unwrap_or("vmbr0");
    match guest.kind {
        GuestKind::Qemu => format!(
            "qm set {} --net{next} virtio,bridge={bridge},firewall=0",
            guest.vmid
        ),
        GuestKind::Lxc => format!(
            "pct set {} --net{next} name=eth{next},bridge={bridge},firewall=0",
            guest.vmid
        ),
    }
}
