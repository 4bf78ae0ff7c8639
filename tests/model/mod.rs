//! Generated nodes, and what Open vSwitch would make of a plan: the laws' model.

mod nft;
mod ovs;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

pub use ovs::{apply_plan, by_name_only, foreign, restricted};
use proptest::prelude::*;
use pve_span_core::config;
use pve_span_core::config::Annotations;
use pve_span_core::engine::port::{BridgeFlags, PortSettings, PortState, Switch};
use pve_span_core::model::Taken;
use pve_span_core::model::{GuestKind, IfName, OutputKey, SessionName, Vmid};
use pve_span_core::pve::cluster::{Cluster, Placement, parse_pools};
use pve_span_core::pve::guest;
use pve_span_core::state::{
    Link, Mirror, MirrorConfig, MirrorOutput, Observed, Ovs, OvsBridge, OvsPort, OvsState, RowId,
};

/// A node: guests on two Open vSwitch bridges and a Linux bridge, a file, and mirrors that are there already.
#[derive(Debug, Clone)]
pub struct Node {
    guests: Vec<GuestOf>,
    sessions: Vec<SessionOf>,
    mirrors: Vec<MirrorOf>,
}

#[derive(Debug, Clone)]
struct GuestOf {
    vmid: u32,
    tags: Vec<&'static str>,
    nics: Vec<(&'static str, bool, Option<u16>)>,
}

#[derive(Debug, Clone)]
struct SessionOf {
    name: String,
    sources: Vec<String>,
    exclude: Vec<String>,
    outputs: Vec<String>,
    rest: Vec<&'static str>,
}

#[derive(Debug, Clone)]
struct MirrorOf {
    bridge: &'static str,
    mark: Option<(String, String)>,
    ports: Vec<(usize, Taken)>,
    output: Option<usize>,
    all: bool,
    snaplen: Option<u16>,
}

const SELECTORS: [&str; 17] = [
    "101",
    "102/net0",
    "103-106",
    "tag:web",
    "tag:db/net0",
    "pool:prod",
    "pool:prod/dmz",
    "all",
    "node:pve1",
    "node:pve2",
    "bridge:vmbr1",
    "port:eno1",
    "107",
    "108/net1",
    "104-109/net0",
    "tag:none",
    "port:eno3",
];
const OUTPUTS: [&str; 6] = [
    "108/net1",
    "109/net0",
    "107/net0",
    "port:eno2",
    "vlan:999",
    "109/net1",
];
const REST: [&str; 16] = [
    "direction = from",
    "direction = to",
    "vlan = 10, 20-22",
    "snaplen = 100",
    "enabled = no",
    "engine = ovs",
    "filter = tcp",
    "engine = nft",
    "sample = 1/10",
    "dedup = no",
    "wire = no",
    "pre-stop = keep",
    "point = guest",
    "expires = 1970-01-01T00:00Z",
    "capture-only = 109/net0, 107/net0",
    "capture-only = 108/net1, 109/net1, 109/net0, 107/net0",
];

/// Any node.
pub fn node() -> impl Strategy<Value = Node> {
    let guests = (101_u32..110)
        .prop_map(|vmid| vmid)
        .prop_flat_map(|vmid| guest(Just(vmid)));
    (
        prop::collection::vec(guests, 0..10),
        prop::collection::vec(session(), 0..5),
        prop::collection::vec(mirror(), 0..5),
    )
        .prop_map(|(guests, sessions, mirrors)| {
            let mut seen = BTreeSet::new();
            let guests = guests
                .into_iter()
                .filter(|guest| seen.insert(guest.vmid))
                .collect();
            let mut names = BTreeSet::new();
            let sessions = sessions
                .into_iter()
                .filter(|session| names.insert(session.name.clone()))
                .collect();
            Node {
                guests,
                sessions,
                mirrors,
            }
        })
}

fn guest(vmid: impl Strategy<Value = u32>) -> impl Strategy<Value = GuestOf> {
    let bridges = prop::sample::select(vec!["vmbr1", "vmbr1", "vmbr2", "vmbr0"]);
    let tags = prop::sample::subsequence(vec!["web", "db", "noisy"], 0..3);
    (
        vmid,
        tags,
        prop::collection::vec(
            (
                bridges,
                any::<bool>(),
                prop::sample::select(vec![None, None, Some(999), Some(10)]),
            ),
            1..3,
        ),
    )
        .prop_map(|(vmid, tags, nics)| GuestOf { vmid, tags, nics })
}

fn session() -> impl Strategy<Value = SessionOf> {
    let some = |words: &[&str], range: std::ops::Range<usize>| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        prop::sample::subsequence(words, range)
    };
    let rest = prop::sample::subsequence(REST.to_vec(), 0..3);
    (
        "[a-e]",
        some(&SELECTORS, 1..4),
        some(&["105", "tag:noisy", "101/net0"], 0..2),
        some(&OUTPUTS, 1..3),
        rest,
    )
        .prop_map(|(name, sources, exclude, outputs, rest)| {
            let mut keys = BTreeSet::new();
            let rest = rest
                .into_iter()
                .filter(|line| keys.insert(line.split(' ').next()))
                .collect();
            SessionOf {
                name,
                sources,
                exclude,
                outputs,
                rest,
            }
        })
}

fn mirror() -> impl Strategy<Value = MirrorOf> {
    let taken = prop::sample::select(vec![Taken::Both, Taken::Sent, Taken::Delivered]);
    (
        prop::sample::select(vec!["vmbr1", "vmbr2"]),
        prop::option::weighted(
            0.6,
            (
                "[a-g]",
                prop::sample::select(OUTPUTS.to_vec()).prop_map(str::to_owned),
            ),
        ),
        prop::collection::vec((any::<usize>(), taken), 0..4),
        prop::option::of(any::<usize>()),
        prop::bool::weighted(0.1),
        prop::option::weighted(0.2, 14_u16..100),
    )
        .prop_map(|(bridge, mark, ports, output, all, snaplen)| MirrorOf {
            bridge,
            mark,
            ports,
            output,
            all,
            snaplen,
        })
}

impl Node {
    /// The annotations file.
    pub fn text(&self) -> String {
        let mut text = String::from("# generated\n");
        for session in &self.sessions {
            let _ = writeln!(
                text,
                "[{}]\nsource = {}\noutput = {}",
                session.name,
                session.sources.join(", "),
                session.outputs.join(", ")
            );
            if !session.exclude.is_empty() {
                let _ = writeln!(text, "exclude = {}", session.exclude.join(", "));
            }
            for line in &session.rest {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }

    /// What it says; a file with errors says nothing.
    pub fn annotations(&self) -> Annotations {
        let annotations = config::parse("span.cfg", &self.text());
        if annotations.is_valid() {
            annotations
        } else {
            Annotations {
                sessions: BTreeMap::new(),
                ..annotations
            }
        }
    }

    /// Is the guest an output of a session?
    pub fn is_sensor(&self, vmid: u32) -> bool {
        let vmid = format!("{vmid}/");
        self.sessions
            .iter()
            .flat_map(|session| &session.outputs)
            .any(|output| output.starts_with(&vmid))
    }

    /// The same node, told in another order.
    pub fn shuffled(&self, seed: u64) -> Self {
        let mut other = self.clone();
        let turn = |len: usize| {
            if len == 0 {
                0
            } else {
                usize::try_from(seed % 97).unwrap() % len
            }
        };
        let by = turn(other.sessions.len());
        other.sessions.rotate_left(by);
        other.guests.reverse();
        for session in &mut other.sessions {
            session.sources.reverse();
            session.exclude.reverse();
            session.rest.reverse();
            let by = turn(session.outputs.len());
            session.outputs.rotate_left(by);
        }
        other
    }

    /// What /etc/pve would tell.
    pub fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::unknown("");
        let this: pve_span_core::model::NodeName = "pve1".parse().unwrap();
        let placement = || Placement {
            node: this.clone(),
            kind: GuestKind::Qemu,
            version: 1,
        };
        cluster.placements = Ok(self
            .guests
            .iter()
            .map(|guest| (Vmid::new(guest.vmid).unwrap(), placement()))
            .collect());
        cluster.this = Ok(this.clone());
        cluster.pools =
            Ok(parse_pools("pool:prod::101,104::\npool:prod/dmz::102,108::\n").unwrap());
        for guest in &self.guests {
            let mut text = format!("tags: {}\n", guest.tags.join(";"));
            for (index, (bridge, ..)) in guest.nics.iter().enumerate() {
                let _ = writeln!(
                    text,
                    "net{index}: virtio=BC:24:11:00:{:02X}:{index:02X},bridge={bridge}",
                    guest.vmid
                );
            }
            let vmid = Vmid::new(guest.vmid).unwrap();
            cluster
                .guests
                .insert(vmid, Ok(guest::parse(vmid, GuestKind::Qemu, &text).0));
        }
        cluster
    }

    /// What the kernel and Open vSwitch would tell.
    pub fn observed(&self) -> Observed {
        let mut observed = Observed::default();
        let mut bridges: BTreeMap<IfName, OvsBridge> = BTreeMap::new();
        for name in ["vmbr1", "vmbr2"] {
            link(&mut observed, name, Some("openvswitch"), None);
            let row = RowId(format!("bridge {name}"));
            bridges.insert(
                if_name(name),
                OvsBridge {
                    row,
                    ..OvsBridge::default()
                },
            );
        }
        link(&mut observed, "vmbr0", Some("bridge"), None);
        for (bridge, port) in [("vmbr1", "eno1"), ("vmbr2", "eno2")] {
            link(&mut observed, port, None, None);
            plug(&mut bridges, bridge, port, "", None);
        }
        link(&mut observed, "eno3", None, None);
        for guest in &self.guests {
            for (index, (bridge, firewall, tag)) in guest.nics.iter().enumerate() {
                let tap = format!("tap{}i{index}", guest.vmid);
                let (fwbr, fwln, fwpr) = (
                    format!("fwbr{}i{index}", guest.vmid),
                    format!("fwln{}o{index}", guest.vmid),
                    format!("fwpr{}p{index}", guest.vmid),
                );
                let is_linux = *bridge == "vmbr0";
                let master = if *firewall {
                    Some(fwbr.as_str())
                } else {
                    is_linux.then_some("vmbr0")
                };
                link(&mut observed, &tap, Some("tun"), master);
                if *firewall {
                    link(&mut observed, &fwbr, Some("bridge"), None);
                }
                match (*firewall, is_linux) {
                    (true, true) => link(&mut observed, &fwpr, Some("veth"), Some("vmbr0")),
                    (true, false) => {
                        link(&mut observed, &fwln, Some("openvswitch"), Some(&fwbr));
                        plug(&mut bridges, bridge, &fwln, "internal", *tag);
                    }
                    (false, false) => plug(&mut bridges, bridge, &tap, "", *tag),
                    (false, true) => {}
                }
            }
        }
        let devices = observed.links.iter();
        observed.ports = devices
            .map(|(name, link)| (name.clone(), settings(link)))
            .collect();
        for (number, mirror) in self.mirrors.iter().enumerate() {
            let bridge = bridges.get_mut(mirror.bridge).unwrap();
            let name = |index: &usize| {
                bridge
                    .ports
                    .keys()
                    .nth(index % bridge.ports.len())
                    .unwrap()
                    .clone()
            };
            let row = Mirror {
                name: format!("mirror{number}"),
                mark: mirror.mark.as_ref().map(|(session, output)| OutputKey {
                    session: SessionName::from_mark(session),
                    output: output.clone(),
                }),
                config: MirrorConfig {
                    all: mirror.all,
                    ports: mirror
                        .ports
                        .iter()
                        .map(|(index, taken)| (name(index), *taken))
                        .collect(),
                    snaplen: mirror.snaplen,
                    output: mirror
                        .output
                        .as_ref()
                        .map(|index| MirrorOutput::Port(name(index)))
                        .unwrap_or_default(),
                    ..MirrorConfig::default()
                },
                statistics: None,
            };
            bridge
                .mirrors
                .insert(RowId(format!("mirror {number}")), row);
        }
        observed.ovs = OvsState::Present(Ovs {
            bridges,
            caught_up: true,
        });
        observed
    }
}

/// A device as it is when pve-span has not changed it, though perhaps somebody else.
fn settings(link: &Link) -> PortSettings {
    let is = |bit: u32| Switch::from(link.index & bit != 0);
    let states = [
        Some(PortState::Forwarding),
        Some(PortState::Blocking),
        Some(PortState::Learning),
        None,
    ];
    let flags = BridgeFlags {
        mcast_flood: is(2),
        state: states[(link.index >> 2) as usize % states.len()],
        ..BridgeFlags::default()
    };
    PortSettings {
        index: link.index,
        flags: link.master.as_ref().map(|_| flags),
        offloads: ["tx-checksum-ip-generic".to_owned()].into(),
        promiscuous: Some(is(16)),
        up: Some(is(32)),
        running: Switch::On,
    }
}

fn if_name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn link(observed: &mut Observed, name: &str, kind: Option<&str>, master: Option<&str>) {
    // The same whatever comes before it.
    let index = name.bytes().fold(7_u32, |index, byte| {
        index.wrapping_mul(31).wrapping_add(u32::from(byte)) | 1
    });
    let link = Link {
        index,
        kind: kind.map(str::to_owned),
        master: master.map(if_name),
        ..Link::default()
    };
    observed.links.insert(if_name(name), link);
}

fn plug(
    bridges: &mut BTreeMap<IfName, OvsBridge>,
    bridge: &str,
    name: &str,
    kind: &str,
    tag: Option<u16>,
) {
    let port = OvsPort {
        row: RowId(format!("port {name}")),
        kind: kind.to_owned(),
        tag,
        interfaces: 1,
        ..OvsPort::default()
    };
    bridges
        .get_mut(bridge)
        .unwrap()
        .ports
        .insert(if_name(name), port);
}
