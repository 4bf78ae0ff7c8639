//! The ways of mirroring that are compared, each on a node of its own: containers 300 and 301 with network stacks on
//! one bridge, and the sensor 200/net1. All that 300 sends and receives is mirrored.

use super::lab::{Guest, Node};

/// The guest that is mirrored.
pub const SOURCE: &str = "300/net0";
/// The guest that it talks to.
pub const PEER: &str = "301/net0";
/// The port of the source.
pub const SOURCE_DEVICE: &str = "veth300i0";
/// The port of its peer.
pub const PEER_DEVICE: &str = "veth301i0";
/// The port of the sensor.
pub const SENSOR_DEVICE: &str = "tap200i1";

/// The two kinds of bridges.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bridge {
    /// The kernel's.
    Linux,
    /// Open vSwitch's, userspace datapath.
    Ovs,
}

impl Bridge {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Bridge::Linux => "Linux bridge",
            Bridge::Ovs => "Open vSwitch",
        }
    }
}

/// A way of mirroring.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// None: the baseline.
    Unmirrored,
    /// By `pve-span apply`, with this engine.
    PveSpan(Engine, Wire),
    /// The recipe of the guides: tc filters that take everything, and mirred.
    Tc,
}

/// What pve-span mirrors with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// nftables' `dup`.
    Nft,
    /// A mirror of Open vSwitch.
    Ovs,
}

/// Does the kernel cut frames as for a wire before they reach the sensor?
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// `wire = yes`, as it is without the line.
    Yes,
    /// `wire = no`
    No,
}

/// What is compared, each bridge's baseline first.
pub const COMPARED: [(Bridge, Way); 7] = [
    (Bridge::Linux, Way::Unmirrored),
    (Bridge::Linux, Way::PveSpan(Engine::Nft, Wire::No)),
    (Bridge::Linux, Way::PveSpan(Engine::Nft, Wire::Yes)),
    (Bridge::Linux, Way::Tc),
    (Bridge::Ovs, Way::Unmirrored),
    (Bridge::Ovs, Way::PveSpan(Engine::Ovs, Wire::No)),
    (Bridge::Ovs, Way::PveSpan(Engine::Ovs, Wire::Yes)),
];

impl Way {
    /// In a few words.
    pub fn name(self) -> &'static str {
        match self {
            Way::Unmirrored => "unmirrored",
            Way::PveSpan(Engine::Nft, Wire::No) => "pve-span, nft, wire = no",
            Way::PveSpan(Engine::Nft, Wire::Yes) => "pve-span, nft, wire = yes",
            Way::PveSpan(Engine::Ovs, Wire::No) => "pve-span, ovs, wire = no",
            Way::PveSpan(Engine::Ovs, Wire::Yes) => "pve-span, ovs, wire = yes",
            Way::Tc => "tc mirred",
        }
    }

    fn set_up(self, node: &Node) -> Result<(), String> {
        match self {
            Way::Unmirrored => Ok(()),
            Way::PveSpan(engine, wire) => {
                let engine = match engine {
                    Engine::Nft => "nft",
                    Engine::Ovs => "ovs",
                };
                let wire = match wire {
                    Wire::Yes => "yes",
                    Wire::No => "no",
                };
                apply(
                    node,
                    &format!(
                        "[throughput]\nsource = 300\noutput = 200/net1\nengine = {engine}\nwire = {wire}\n"
                    ),
                )
            }
            Way::Tc => {
                tc(node);
                Ok(())
            }
        }
    }
}

/// A node that mirrors in this way, its guests acquainted with each other.
pub fn build(bridge: Bridge, way: Way) -> Result<Node, String> {
    let (node, name) = node_with(bridge);
    let container = |vmid| {
        let line = format!("name=eth0,bridge={name},type=veth");
        Guest::ct(vmid).net(0, &line).lxc()
    };
    let sensor = Guest::vm(200).net(0, "virtio");
    let sensor = sensor.net(1, &format!("virtio,bridge={name}"));
    node.add_all([&container(300), &container(301), &sensor]);
    node.start_guests([300, 301, 200]);
    node.introduce(SOURCE, PEER);
    way.set_up(&node)?;
    Ok(node)
}

/// A node with one bridge of this kind, and the bridge's name.
pub fn node_with(bridge: Bridge) -> (Node, &'static str) {
    match bridge {
        Bridge::Linux => {
            let node = Node::without_ovs();
            node.linux_bridge("vmbr0");
            (node, "vmbr0")
        }
        Bridge::Ovs => {
            let node = Node::start();
            node.ovs_takes_offloads();
            node.ovs_bridge("vmbr2");
            (node, "vmbr2")
        }
    }
}

/// Writes the file and applies it.
pub fn apply(node: &Node, span_cfg: &str) -> Result<(), String> {
    node.span_cfg(span_cfg);
    let output = node.pve_span(&["apply"]);
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    if node.ovs_pids().1.is_some() {
        node.settle();
    }
    Ok(())
}

fn tc(node: &Node) {
    let mut lines = vec![format!("qdisc add dev {SOURCE_DEVICE} clsact")];
    lines.extend(["ingress", "egress"].map(|way| {
        format!(
            "filter add dev {SOURCE_DEVICE} {way} protocol all u32 match u32 0 0 \
             action mirred egress mirror dev {SENSOR_DEVICE}"
        )
    }));
    node.tc(&lines);
}
