//! The NICs that sessions take anywhere in the cluster, by guests' configs, running or not: for telling whose hookscript
//! is missing and what another node would have to mirror. What is mirrored here is decided by ports, not by this.

use std::collections::{BTreeMap, BTreeSet};

use super::matching::{Matcher, Subject, Truth};
use super::sensors;
use crate::core::annotations::{Annotations, Session};
use crate::core::cluster::Cluster;
use crate::core::model::{NicId, NodeName, SessionName};
use crate::core::selector::Output;

/// Whose NICs each session takes for certain, each seen from the node that its guest is filed under. Templates have none.
pub fn configured(
    annotations: &Annotations,
    cluster: &Cluster,
) -> BTreeMap<SessionName, BTreeSet<NicId>> {
    let mut taken: BTreeMap<SessionName, BTreeSet<NicId>> = BTreeMap::new();
    let outputs = annotations
        .sessions
        .values()
        .flat_map(|session| &session.outputs);
    // They carry copies only, so no group takes them.
    let outputs: BTreeSet<NicId> = outputs
        .filter_map(|output| match output.value {
            Output::Nic(nic) => Some(nic),
            _ => None,
        })
        .collect();
    let all_sensors = sensors(annotations.sessions.values());
    let mut there = cluster.clone();
    for (node, guests) in by_node(cluster) {
        there.this = Ok(node);
        let matcher = Matcher {
            cluster: &there,
            sensors: &all_sensors,
        };
        for session in annotations.sessions.values() {
            let own = sensors(std::iter::once(session));
            let nics = guests.iter().filter(|(nic, bridge)| {
                let is_output = own.contains(&nic.vmid) || outputs.contains(nic);
                !is_output && takes(&matcher, session, *nic, bridge)
            });
            let nics = nics.map(|(nic, _)| *nic);
            taken.entry(session.name.clone()).or_default().extend(nics);
        }
    }
    taken
}

fn takes(matcher: &Matcher<'_>, session: &Session, nic: NicId, bridge: &str) -> bool {
    let subject = Subject {
        nic: Some(nic),
        port: None,
        bridge,
    };
    matcher.takes(session, subject) == Truth::Yes
}

/// The NICs with a bridge, and that, by node.
fn by_node(cluster: &Cluster) -> BTreeMap<NodeName, Vec<(NicId, String)>> {
    let mut nodes: BTreeMap<NodeName, Vec<(NicId, String)>> = BTreeMap::new();
    let Ok(placements) = &cluster.placements else {
        return nodes;
    };
    for guest in cluster
        .guests
        .values()
        .flatten()
        .filter(|guest| !guest.template)
    {
        let Some(placement) = placements.get(&guest.vmid) else {
            continue;
        };
        let nics = guest.nics.iter().filter_map(|(index, nic)| {
            let id = NicId {
                vmid: guest.vmid,
                index: *index,
            };
            Some((id, nic.bridge.clone()?))
        });
        nodes
            .entry(placement.node.clone())
            .or_default()
            .extend(nics);
    }
    nodes
}
