//! What there is to choose from.

use super::sensors::Sensor;
use crate::model::{IfName, Vmid};
use crate::pve::cluster::Cluster;
use crate::state::port_map::BridgeKind;

/// What there is to choose from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestions {
    /// This node, if it is known.
    pub(crate) node: Option<String>,
    /// Is the node one of several?
    pub(crate) others: Others,
    pub(crate) bridges: Vec<Bridge>,
    /// Guests that look like sensors, of all nodes.
    pub(crate) sensors: Vec<Sensor>,
    /// Tags, and how many guests have them: here, and in all.
    pub(crate) tags: Vec<(String, Count)>,
    /// Pools likewise.
    pub(crate) pools: Vec<(String, Count)>,
    /// What could not be seen, and why.
    pub unseen: Vec<String>,
}

/// A bridge of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub name: IfName,
    pub kind: BridgeKind,
    /// How many guests of this node have a NIC there.
    pub guests: usize,
    /// How many of them are no sensors.
    pub sources: usize,
}

/// Are there other nodes?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// The cluster has more nodes.
    Some,
    /// The node is alone.
    None,
}

/// How many guests, sensors left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Count {
    /// On this node.
    pub here: usize,
    /// In the cluster.
    pub all: usize,
}

impl Count {
    pub(super) fn add(&mut self, vmid: Vmid, cluster: &Cluster) {
        self.all += 1;
        self.here += usize::from(cluster.is_here(vmid) == Some(true));
    }
}
