//! Sensors: is anybody there to receive, and does anything keep copies from them.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Facts, Node};
use super::findings::{Findings, Id, Severity, listed, plural};
use super::remedy::NicRemedy;
use crate::config::selector::Output;
use crate::config::{EngineChoice, Session};
use crate::model::{GuestKind, NicId, SessionName, Vmid};
use crate::pve::guest::{Guest, Nic};
use crate::state::OvsState;
use crate::state::port_map::PortMap;

/// An output that is a guest's NIC, and whose.
struct Sensor<'a> {
    nic: NicId,
    of: BTreeSet<&'a SessionName>,
    /// Does a session of them leave out the nft engine?
    ovs_only: Vec<&'a SessionName>,
    /// Does every one of them say that it may lose its network?
    confirmed: bool,
}

/// Judges sensors.
pub fn judge(facts: &Facts<'_>, node: &Node<'_>, mender: &NicRemedy<'_>, found: &mut Findings) {
    let sensors = sensors(node.running());
    let count = sensors.len();
    for sensor in sensors {
        plugged(facts, node, mender, &sensor, found);
        let Some(guest) = node.cluster.guest(sensor.nic.vmid) else {
            continue;
        };
        if let Some(nic) = guest.nics.get(&sensor.nic.index) {
            configured(node, guest, nic, &sensor, mender, found);
        }
    }
    const FAULTS: [Id; 8] = [
        Id::SensorOff,
        Id::SensorElsewhere,
        Id::SensorFirewall,
        Id::SensorAddress,
        Id::SensorOnlyNic,
        Id::SensorUnplugged,
        Id::SensorRate,
        Id::SourceElsewhere,
    ];
    if count > 0 && found.none_of(&FAULTS) {
        found.ok(
            Id::Sensors,
            "nothing keeps copies from the sensors",
            format!(
                "{count} {} of guests {} outputs: configs and ports",
                plural(count, "NIC", "NICs"),
                plural(count, "that is", "that are")
            ),
        );
    }
}

fn sensors<'a>(sessions: impl Iterator<Item = &'a Session>) -> Vec<Sensor<'a>> {
    let mut found: BTreeMap<NicId, Sensor<'a>> = BTreeMap::new();
    for session in sessions {
        for output in &session.outputs {
            let Output::Nic(nic) = output.value else {
                continue;
            };
            let sensor = found.entry(nic).or_insert_with(|| Sensor {
                nic,
                of: BTreeSet::new(),
                ovs_only: Vec::new(),
                confirmed: true,
            });
            sensor.confirmed &= session.confirms(&output.value);
            sensor.of.insert(&session.name);
            if session.engine == EngineChoice::Ovs {
                sensor.ovs_only.push(&session.name);
            }
        }
    }
    found.into_values().collect()
}

fn plugged(
    facts: &Facts<'_>,
    node: &Node<'_>,
    mender: &NicRemedy<'_>,
    sensor: &Sensor<'_>,
    found: &mut Findings,
) {
    let (nic, map) = (sensor.nic, &mender.map);
    let sessions = listed(&sensor.of);
    let Some(port) = map.of_nic(nic) else {
        // Where Open vSwitch does not answer, nobody can tell.
        let is_known = !matches!(facts.ovs, OvsState::Failed(_)) && !runs(map, nic.vmid);
        // A NIC that it does not have is span.cfg's fault, and told as that.
        let guest = node.cluster.guest(nic.vmid);
        let has_it = guest.is_none_or(|guest| guest.nics.contains_key(&nic.index));
        if is_known && has_it && node.cluster.is_here(nic.vmid) == Some(true) {
            let start = match node.cluster.guest(nic.vmid).map(|guest| guest.kind) {
                Some(GuestKind::Lxc) => format!("pct start {}", nic.vmid),
                _ => format!("qm start {}", nic.vmid),
            };
            found.add(
                Severity::Warning,
                Id::SensorOff,
                format!(
                    "the sensor {} does not run: what session {sessions} mirrors gets nowhere",
                    node.guest(nic.vmid)
                ),
                format!("{nic} has no port on any bridge of this node"),
                start,
            );
        }
        return;
    };
    let Some(firewall) = mender.firewall_bridge(nic) else {
        return;
    };
    let evidence = format!(
        "{} is a port of {firewall}; {}: firewall=1",
        port.nic
            .as_ref()
            .and_then(|plugged| plugged.device.as_ref())
            .map_or_else(|| nic.to_string(), ToString::to_string),
        node.config_of(nic.vmid)
    );
    let remedy = mender
        .set(nic)
        .unwrap_or_else(|| "the NIC's firewall checkbox in the web interface".to_owned());
    if sensor.ovs_only.is_empty() {
        found.add(
            Severity::Note,
            Id::SensorFirewall,
            format!(
                "the sensor's {nic} is behind its firewall bridge: engine nft delivers past it, Open vSwitch could not"
            ),
            evidence,
            remedy,
        );
    } else {
        found.add(
            Severity::Error,
            Id::SensorFirewall,
            format!(
                "the sensor's {nic} is behind its firewall bridge, which drops copies, and session {} leaves engine nft out, \
                 which would deliver past it",
                listed(&sensor.ovs_only)
            ),
            evidence,
            format!("{remedy}; or leave `engine = ovs` out of span.cfg"),
        );
    }
}

/// Has a guest a device here?
fn runs(map: &PortMap, vmid: Vmid) -> bool {
    let plugged = map.nics().map(|(_, nic)| nic.id);
    let mut devices = plugged.chain(map.unplugged.keys().copied());
    devices.any(|nic| nic.vmid == vmid)
}

fn configured(
    node: &Node<'_>,
    guest: &Guest,
    nic: &Nic,
    sensor: &Sensor<'_>,
    mender: &NicRemedy<'_>,
    found: &mut Findings,
) {
    let id = sensor.nic;
    let config = node.config_of(guest.vmid);
    let set = node.set(guest.vmid);
    let mend = || mender.set(id).unwrap_or_default();
    let address = guest.addresses.get(&id.index);
    if let Some(address) = address.filter(|_| !sensor.confirmed) {
        let (key, remedy) = match guest.kind {
            GuestKind::Qemu => (
                format!("ipconfig{}", id.index),
                format!("{set} --delete ipconfig{}", id.index),
            ),
            GuestKind::Lxc => (format!("net{}", id.index), mend()),
        };
        found.add(
            Severity::Error,
            Id::SensorAddress,
            format!(
                "the sensor's {id} has an address in its config, so it is refused as an output: it would be cut off from the network"
            ),
            format!("{config}: {key}: {address}"),
            remedy,
        );
    }
    if guest.nics.len() == 1 && !sensor.confirmed {
        let (next, bridge) = (id.index.next(), nic.bridge.as_deref().unwrap_or("vmbr0"));
        found.add(
            Severity::Error,
            Id::SensorOnlyNic,
            format!(
                "the sensor {} has no other NIC than {id}, so it is refused as an output: nobody could reach the guest any more",
                node.guest(guest.vmid)
            ),
            format!("{config}: only net{}", id.index),
            match guest.kind {
                GuestKind::Qemu => format!("{set} --net{next} virtio,bridge={bridge}"),
                GuestKind::Lxc => format!("{set} --net{next} name=eth{next},bridge={bridge}"),
            },
        );
    }
    if nic.link_down {
        found.add(
            Severity::Error,
            Id::SensorUnplugged,
            format!("the sensor's {id} is unplugged (link_down=1): the guest sees no frame"),
            format!("{config}: net{}: link_down=1", id.index),
            mend(),
        );
    }
    if let Some(rate) = &nic.rate {
        found.add(
            Severity::Warning,
            Id::SensorRate,
            format!("the sensor's {id} is limited to {rate} MB/s: copies beyond that are dropped"),
            format!("{config}: net{}: rate={rate}", id.index),
            mend(),
        );
    }
}
