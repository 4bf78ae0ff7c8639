//! Which ports and guests a session can take at all, found without asking each of them: on a large node
//! most sessions take few of many.
//!
//! A superset of what [`Matcher`](super::matcher::Matcher) takes, and of what it cannot tell.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Session;
use crate::config::selector::Selector;
use crate::model::{IfName, Vmid};
use crate::pve::cluster::Cluster;
use crate::state::port_map::{BridgeKind, Port, PortMap};

use super::matcher::whole_bridges;

/// Guests by number and by tag, ports by guest and by bridge.
pub struct Index<'a> {
    map: &'a PortMap,
    cluster: &'a Cluster,
    ports_of: BTreeMap<Vmid, Vec<&'a Port>>,
    on_bridge: BTreeMap<&'a IfName, Vec<&'a Port>>,
    /// Guests with a port or a config.
    known: BTreeSet<Vmid>,
    tagged: BTreeMap<&'a str, Vec<Vmid>>,
    /// Guests with a port, whose config nobody has read.
    untold: Vec<Vmid>,
}

impl<'a> Index<'a> {
    /// Goes through everything once.
    pub fn new(map: &'a PortMap, cluster: &'a Cluster) -> Self {
        let mut ports_of: BTreeMap<Vmid, Vec<&Port>> = BTreeMap::new();
        let mut on_bridge: BTreeMap<&IfName, Vec<&Port>> = BTreeMap::new();
        for port in map.all() {
            on_bridge.entry(&port.bridge).or_default().push(port);
        }
        for (port, nic) in map.nics() {
            ports_of.entry(nic.id.vmid).or_default().push(port);
        }
        let mut known: BTreeSet<Vmid> = ports_of.keys().copied().collect();
        known.extend(map.unplugged.keys().map(|nic| nic.vmid));
        let untold = known
            .iter()
            .copied()
            .filter(|vmid| cluster.guest(*vmid).is_none())
            .collect();
        let mut tagged: BTreeMap<&str, Vec<Vmid>> = BTreeMap::new();
        for guest in cluster.guests.values().flatten() {
            known.insert(guest.vmid);
            for tag in &guest.tags {
                tagged.entry(tag).or_default().push(guest.vmid);
            }
        }
        Self {
            map,
            cluster,
            ports_of,
            on_bridge,
            known,
            tagged,
            untold,
        }
    }

    /// The guests that a session may take.
    pub fn guests(&self, session: &Session) -> BTreeSet<Vmid> {
        let mut found = BTreeSet::new();
        for source in &session.sources {
            match &source.value {
                Selector::Guests { low, high, .. } => found.extend(self.known.range(low..=high)),
                Selector::Tag(tag, _) => {
                    found.extend(self.tagged.get(tag.as_str()).into_iter().flatten());
                    found.extend(&self.untold);
                }
                Selector::Pool(pool) => match &self.cluster.pools {
                    Ok(pools) => found.extend(pools.members(pool)),
                    Err(_) => found.extend(&self.known),
                },
                Selector::Node(..) | Selector::All(_) => found.extend(&self.known),
                Selector::Bridge(_) | Selector::Port(_) => {}
            }
        }
        found
    }

    /// The ports that a session may take, by name. Of a device that is in two bridges, the port of the bridge that the
    /// session takes as a whole counts.
    pub fn ports(&self, session: &Session) -> BTreeMap<&'a IfName, &'a Port> {
        let guests = self.guests(session);
        let of_guests = guests
            .iter()
            .filter_map(|vmid| self.ports_of.get(vmid))
            .flatten()
            .copied();
        let named = session
            .sources
            .iter()
            .flat_map(|source| match &source.value {
                Selector::Bridge(bridge) => self
                    .on_bridge
                    .get(bridge)
                    .map(Vec::as_slice)
                    .unwrap_or_default()
                    .to_vec(),
                Selector::Port(port) => self.map.ports.get(port).into_iter().collect(),
                _ => Vec::new(),
            });
        let rank = |port: &Port| {
            let is_whole = whole_bridges(session).any(|bridge| *bridge == port.bridge);
            (is_whole, port.bridge_kind == BridgeKind::Ovs)
        };
        let mut found: BTreeMap<&IfName, &Port> = BTreeMap::new();
        for port in of_guests.chain(named) {
            let known = found.entry(&port.name).or_insert(port);
            if port.bridge != known.bridge && rank(port) > rank(known) {
                *known = port;
            }
        }
        found
    }
}
