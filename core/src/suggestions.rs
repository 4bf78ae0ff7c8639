//! What `init` offers: bridges, likely sensors, tags and pools, read off the node and the cluster.
//!
//! Guesses only, for an administrator to choose from. Nothing here decides where frames go.

mod offer;
mod sensors;
mod writer;

use std::collections::{BTreeMap, BTreeSet};

pub use offer::Suggestions;
pub use writer::text;

use offer::{Bridge, Count, Others};
use sensors::Sensor;

use super::config::selector::Selector;
use super::model::{IfName, Vmid};
use super::pve::cluster::Cluster;
use super::pve::guest::Guest;
use super::state::port_map::{BridgeKind, PortMap};

/// Looks through what was seen.
pub fn offer(cluster: &Cluster, map: &PortMap) -> Suggestions {
    let guests = || {
        let known = cluster
            .guests
            .values()
            .filter_map(|guest| guest.as_ref().ok());
        known.filter(|guest| !guest.template)
    };
    let sensors: Vec<Sensor> = guests()
        .filter_map(|guest| Sensor::of(guest, cluster, map))
        .collect();
    let is_sensor: BTreeSet<Vmid> = sensors.iter().map(|sensor| sensor.vmid).collect();
    let others: Sources<'_> = guests()
        .filter(|guest| !is_sensor.contains(&guest.vmid))
        .map(|guest| (guest.vmid, guest))
        .collect();
    Suggestions {
        node: cluster.this.as_ref().ok().map(ToString::to_string),
        others: if cluster.nodes.len() > 1 {
            Others::Some
        } else {
            Others::None
        },
        bridges: bridges(cluster, map, &is_sensor),
        sensors,
        tags: tags(&others, cluster),
        pools: pools(&others, cluster),
        unseen: unseen(cluster),
    }
}

/// Guests that are no sensors.
type Sources<'a> = BTreeMap<Vmid, &'a Guest>;

fn tags(guests: &Sources<'_>, cluster: &Cluster) -> Vec<(String, Count)> {
    let mut by_tag: BTreeMap<&String, Count> = BTreeMap::new();
    for (vmid, guest) in guests {
        for tag in &guest.tags {
            by_tag.entry(tag).or_default().add(*vmid, cluster);
        }
    }
    let is_selector = |tag: &str| format!("tag:{tag}").parse::<Selector>().is_ok();
    let tags = by_tag.into_iter().filter(|(tag, _)| is_selector(tag));
    by_size(tags.map(|(tag, count)| (tag.clone(), count)).collect())
}

fn pools(guests: &Sources<'_>, cluster: &Cluster) -> Vec<(String, Count)> {
    let Ok(known) = &cluster.pools else {
        return Vec::new();
    };
    let mut pools = Vec::new();
    for pool in known.names() {
        let mut count = Count::default();
        let members = known.members(pool).filter(|vmid| guests.contains_key(vmid));
        members.for_each(|vmid| count.add(vmid, cluster));
        if format!("pool:{pool}").parse::<Selector>().is_ok() {
            pools.push((pool.to_owned(), count));
        }
    }
    by_size(pools)
}

/// Those with most guests first: the text shows a few only.
fn by_size(mut list: Vec<(String, Count)>) -> Vec<(String, Count)> {
    list.retain(|(_, count)| count.all > 0);
    list.sort_by(|(a, few), (b, many)| (many.here, many.all, a).cmp(&(few.here, few.all, b)));
    list
}

fn bridges(cluster: &Cluster, map: &PortMap, sensors: &BTreeSet<Vmid>) -> Vec<Bridge> {
    let mut plugged: BTreeMap<&str, BTreeSet<Vmid>> = BTreeMap::new();
    let known = cluster
        .guests
        .values()
        .filter_map(|guest| guest.as_ref().ok());
    for guest in known.filter(|guest| !guest.template) {
        if cluster.is_here(guest.vmid) != Some(true) {
            continue;
        }
        for bridge in guest.nics.values().filter_map(|nic| nic.bridge.as_deref()) {
            plugged.entry(bridge).or_default().insert(guest.vmid);
        }
    }
    let bridge = |(name, kind): (&IfName, &BridgeKind)| {
        let guests = plugged.get(name.as_str());
        let sources = guests.map_or(0, |guests| guests.difference(sensors).count());
        Bridge {
            name: name.clone(),
            kind: *kind,
            guests: guests.map_or(0, BTreeSet::len),
            sources,
        }
    };
    let bridges = map.bridges.iter();
    bridges
        .filter(|(name, _)| !is_of_one_vlan(name, map))
        .map(bridge)
        .collect()
}

/// Is it `vmbr0v20`, which Proxmox VE makes out of `vmbr0` for a NIC with `tag=20`?
fn is_of_one_vlan(name: &IfName, map: &PortMap) -> bool {
    let parts = name.as_str().rsplit_once('v');
    parts.is_some_and(|(base, vlan)| {
        super::model::decimal::<u16>(vlan).is_some() && map.bridges.contains_key(base)
    })
}

fn unseen(cluster: &Cluster) -> Vec<String> {
    let mut unseen = Vec::new();
    if let Err(why) = &cluster.placements {
        unseen.push(format!("guests: {why}"));
    }
    if let Err(why) = &cluster.pools {
        unseen.push(format!("pools: {why}"));
    }
    let unread = cluster.guests.values().filter(|guest| guest.is_err());
    match unread.count() {
        0 => {}
        1 => unseen.push("one guest, whose config cannot be read".into()),
        more => unseen.push(format!("{more} guests, whose configs cannot be read")),
    }
    unseen
}

#[cfg(test)]
mod tests;
