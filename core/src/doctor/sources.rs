//! Guests that are sources: do they call pve-span, where are they, and what of them can nobody see.

use std::collections::BTreeSet;

use super::facts::{Facts, Node, Script, VolumeState};
use super::findings::{Findings, Id, Severity, listed, plural};
use crate::config::Session;
use crate::config::selector::Output;
use crate::model::{NicId, NodeName, Vmid};
use crate::pve::guest::Guest;
use crate::pve::storage::Volume;
use crate::resolve::cluster_sources::configured;

/// Judges sources.
pub fn judge(facts: &Facts<'_>, node: &Node<'_>, found: &mut Findings) {
    let Some(annotations) = node.annotations else {
        return;
    };
    let running = || node.running();
    let sessions: Vec<&Session> = running().collect();
    let taken = configured(annotations, &sessions, node.cluster).unwrap_or_default();
    let nics = running()
        .filter_map(|session| taken.get(&session.name))
        .flat_map(|configured| &configured.nics);
    let mut here: BTreeSet<Vmid> = nics
        .map(|nic| nic.vmid)
        .filter(|vmid| node.cluster.is_here(*vmid) == Some(true))
        .collect();
    passthrough(node, &here, found);
    let sensors = running().flat_map(|session| &session.outputs);
    here.extend(sensors.filter_map(|output| match output.value {
        Output::Nic(nic) if node.cluster.is_here(nic.vmid) == Some(true) => Some(nic.vmid),
        _ => None,
    }));
    attached(facts, node, &here, found);
    for session in running() {
        let Some(configured) = taken.get(&session.name) else {
            continue;
        };
        let without = without_sensor(node, session, &configured.nics);
        for output in &session.outputs {
            if let Output::Nic(sensor) = output.value {
                elsewhere(node, session.name.as_str(), sensor, &without, found);
            }
        }
    }
}

/// Does a guest's hookscript call pve-span: ours, or somebody's own that does?
fn calls_us(facts: &Facts<'_>, volume: &str) -> bool {
    let is_caller = facts.volumes.iter().any(|fact| {
        let is = match &fact.state {
            VolumeState::Fine { is, .. } => is,
            _ => return false,
        };
        fact.volume == volume && matches!(is, Script::Caller | Script::Wrapper | Script::Program)
    });
    is_caller
        || volume
            .parse::<Volume>()
            .is_ok_and(|volume| volume.is_ours())
}

fn attached(facts: &Facts<'_>, node: &Node<'_>, here: &BTreeSet<Vmid>, found: &mut Findings) {
    let guests: Vec<&Guest> = here
        .iter()
        .filter_map(|vmid| node.cluster.guest(*vmid))
        .collect();
    let without: Vec<Vmid> = guests
        .iter()
        .filter(|guest| guest.hookscript.is_none())
        .map(|guest| guest.vmid)
        .collect();
    let foreign: Vec<(Vmid, &str)> = guests
        .iter()
        .filter_map(|guest| Some((guest.vmid, guest.hookscript.as_deref()?)))
        .filter(|(_, volume)| !calls_us(facts, volume))
        .collect();
    let service_runs = facts
        .host
        .service
        .as_ref()
        .is_some_and(|service| service.silent.is_none());
    let (severity, so) = if service_runs {
        (
            Severity::Note,
            "the service mirrors such guests all the same, a moment later, and their task logs do not tell",
        )
    } else {
        (
            Severity::Warning,
            "no service runs either, so after a start nothing is mirrored until pve-span apply",
        )
    };
    // Of more, a command would be a page long.
    let words = |vmids: &[Vmid]| match vmids.len() {
        0..=50 => vmids
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" "),
        _ => "--all-sources".to_owned(),
    };
    if let Some(first) = without.first() {
        found.add(
            severity,
            Id::SourceUnattached,
            format!(
                "{} {} {} not call pve-span: {so}",
                plural(without.len(), "guest", "guests"),
                listed(&without),
                plural(without.len(), "does", "do"),
            ),
            format!("{} has no `hookscript`", node.config_of(*first)),
            format!("pve-span attach {}", words(&without)),
        );
    }
    if let Some((first, volume)) = foreign.first() {
        let vmids: Vec<Vmid> = foreign.iter().map(|(vmid, _)| *vmid).collect();
        found.add(
            severity,
            Id::HookscriptForeign,
            format!(
                "{} {} {} another hookscript than pve-span's: {so}",
                plural(vmids.len(), "guest", "guests"),
                listed(&vmids),
                plural(vmids.len(), "has", "have"),
            ),
            format!("{}: hookscript: {volume}", node.config_of(*first)),
            format!("pve-span attach {} --chain", words(&vmids)),
        );
    }
    if without.is_empty() && foreign.is_empty() && !guests.is_empty() {
        found.ok(
            Id::SourceUnattached,
            "all sources and sensors of this node call pve-span",
            format!("guests {}", listed(here)),
        );
    }
}

fn passthrough(node: &Node<'_>, here: &BTreeSet<Vmid>, found: &mut Findings) {
    let guests = here.iter().filter_map(|vmid| node.cluster.guest(*vmid));
    for guest in guests.filter(|guest| !guest.passthrough.is_empty()) {
        found.add(
            Severity::Note,
            Id::Passthrough,
            format!(
                "guest {} has devices of the node for itself: if one of them is a network card, no mirror on this node sees its frames",
                node.guest(guest.vmid)
            ),
            format!("{}: {}", node.config_of(guest.vmid), listed(&guest.passthrough)),
            "give it a NIC on a bridge instead, or mirror on the physical switch",
        );
    }
}

/// The sources on whose node none of the session's sensors is.
fn without_sensor(node: &Node<'_>, session: &Session, nics: &BTreeSet<NicId>) -> BTreeSet<NicId> {
    let placements = node.cluster.placements.as_ref().ok();
    let node_of = |vmid: Vmid| Some(&placements?.get(&vmid)?.node);
    let sensors = session
        .outputs
        .iter()
        .filter_map(|output| match output.value {
            Output::Nic(sensor) => node_of(sensor.vmid),
            _ => None,
        });
    let sensors: BTreeSet<&NodeName> = sensors.collect();
    let is_served = |nic: &NicId| node_of(nic.vmid).is_some_and(|at| sensors.contains(at));
    nics.iter().copied().filter(|nic| !is_served(nic)).collect()
}

/// Sources on one node do not get to a sensor on another one yet.
fn elsewhere(
    node: &Node<'_>,
    session: &str,
    sensor: NicId,
    nics: &BTreeSet<NicId>,
    found: &mut Findings,
) {
    let (Ok(placements), Ok(this)) = (&node.cluster.placements, &node.cluster.this) else {
        return;
    };
    let node_of = |vmid: Vmid| placements.get(&vmid).map(|placement| &placement.node);
    let Some(sensors) = node_of(sensor.vmid) else {
        return;
    };
    let other: Vec<&NicId> = nics
        .iter()
        .filter(|nic| node_of(nic.vmid).is_some_and(|at| at != sensors))
        .collect();
    let here: Vec<&&NicId> = other
        .iter()
        .filter(|nic| node_of(nic.vmid) == Some(this))
        .collect();
    if sensors == this {
        if let Some(first) = other.first() {
            found.add(
                Severity::Warning,
                Id::SourceElsewhere,
                format!(
                    "session {session}: {} {} on another node than the sensor, and not mirrored to {sensor} (tunnels are not there yet)",
                    listed(&other),
                    plural(other.len(), "is", "are"),
                ),
                format!("{}; the sensor is here, on {sensors}", node.config_of(first.vmid)),
                format!("a sensor on each node; or {}", node.migrate(first.vmid, sensors)),
            );
        }
    } else if let Some(first) = here.first() {
        found.add(
            Severity::Warning,
            Id::SensorElsewhere,
            format!(
                "session {session}: the sensor {sensor} is on node {sensors}, and {} of this node {} not mirrored to it (tunnels are not there yet)",
                listed(&here),
                plural(here.len(), "is", "are"),
            ),
            format!("{}; {}", node.config_of(sensor.vmid), node.config_of(first.vmid)),
            format!("a sensor on each node; or, on {sensors}: {}", node.migrate(sensor.vmid, this)),
        );
    }
}
