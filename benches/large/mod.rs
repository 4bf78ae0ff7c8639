//! The pure core on a large node: 10,000 guests on ten Open vSwitch bridges, 200 sessions, nothing mirrored yet.
//!
//! Far more guests than a node runs, so that the time says something about the core. All of them are here: guests
//! that are filed on other nodes would have no ports and cost less.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use pve_span_core::config;
use pve_span_core::config::Annotations;
use pve_span_core::model::{GuestKind, IfName, NodeName, Vmid};
use pve_span_core::plan::{Change, plan};
use pve_span_core::pve::cluster::{Cluster, Placement, parse_pools};
use pve_span_core::pve::guest;
use pve_span_core::resolve::resolve;
use pve_span_core::state::{Assumptions, Link, Observed, Ovs, OvsBridge, OvsPort, OvsState, RowId};

const GUESTS: u32 = 10_000;
const SESSIONS: u32 = 200;

const BRIDGES: u32 = 10;
const FIRST_GUEST: u32 = 1_000;
const FIRST_SENSOR: u32 = 20_000;

/// How long resolving and planning takes, once a run.
pub fn times(runs: usize) -> Vec<Duration> {
    let (annotations, cluster, observed) = (annotations(), cluster(), observed());
    let assume = Assumptions::default();
    let mut times = Vec::new();
    for _ in 0..runs {
        let began = Instant::now();
        let desired = resolve(
            black_box(&annotations),
            black_box(&cluster),
            black_box(&observed),
            &assume,
        );
        let plan = plan(&desired, black_box(&observed));
        times.push(began.elapsed());
        let created = plan
            .actions
            .iter()
            .filter(|action| action.change == Change::Create)
            .count();
        assert_eq!(created, SESSIONS as usize, "every session has its mirror");
    }
    times
}

/// The guests of a session: all on the bridge of its sensor.
fn guests_of(session: u32) -> impl Iterator<Item = u32> {
    (FIRST_GUEST..FIRST_GUEST + GUESTS).filter(move |vmid| vmid % SESSIONS == session)
}

fn bridge_of(number: u32) -> String {
    format!("vmbr{}", number % BRIDGES)
}

/// Five of each ten sessions choose by tag, two by pool, two by numbers; one takes a bridge but for one guest.
fn annotations() -> Annotations {
    let mut text = String::new();
    for session in 0..SESSIONS {
        let source = match (session / BRIDGES) % 10 {
            0..5 => format!("tag:team{session}"),
            5 | 6 => format!("pool:pool{session}"),
            7 | 8 => {
                let nics: Vec<String> = guests_of(session)
                    .map(|vmid| format!("{vmid}/net0"))
                    .collect();
                nics.join(", ")
            }
            _ => format!(
                "bridge:{}\nexclude = {}",
                bridge_of(session),
                FIRST_GUEST + session
            ),
        };
        let sensor = FIRST_SENSOR + session;
        let _ = writeln!(
            text,
            "[session-{session}]\nsource = {source}\noutput = {sensor}/net1"
        );
    }
    let annotations = config::parse("span.cfg", &text);
    assert!(annotations.is_valid(), "{:?}", annotations.diagnostics);
    annotations
}

fn cluster() -> Cluster {
    let this: NodeName = "pve1".parse().expect("a node's name");
    let mut cluster = Cluster::unknown("");
    let mut placements = BTreeMap::new();
    for vmid in FIRST_GUEST..FIRST_GUEST + GUESTS {
        let (session, bridge) = (vmid % SESSIONS, bridge_of(vmid));
        let text = format!(
            "cores: 2\nmemory: 4096\nname: guest{vmid}\nnet0: virtio=BC:24:11:00:00:01,bridge={bridge}\ntags: prod;team{session}\n"
        );
        file(vmid, &text, &this, &mut placements, &mut cluster);
    }
    for session in 0..SESSIONS {
        let text = format!(
            "name: sensor{session}\nnet0: virtio=BC:24:11:00:00:03\nnet1: virtio=BC:24:11:00:00:02,bridge={}\n",
            bridge_of(session)
        );
        file(
            FIRST_SENSOR + session,
            &text,
            &this,
            &mut placements,
            &mut cluster,
        );
    }
    let pools: String = (0..SESSIONS)
        .map(|session| {
            let vmids: Vec<String> = guests_of(session).map(|vmid| vmid.to_string()).collect();
            format!("pool:pool{session}::{}::\n", vmids.join(","))
        })
        .collect();
    cluster.placements = Ok(placements);
    cluster.pools = Ok(parse_pools(&pools).expect("the pools are whole"));
    cluster.this = Ok(this);
    cluster
}

fn file(
    vmid: u32,
    text: &str,
    this: &NodeName,
    placements: &mut BTreeMap<Vmid, Placement>,
    cluster: &mut Cluster,
) {
    let vmid = Vmid::new(vmid).expect("a guest's number");
    let placement = Placement {
        node: this.clone(),
        kind: GuestKind::Qemu,
        version: 1,
    };
    placements.insert(vmid, placement);
    cluster
        .guests
        .insert(vmid, Ok(guest::parse(vmid, GuestKind::Qemu, text).0));
}

fn observed() -> Observed {
    let mut observed = Observed::default();
    let mut bridges: BTreeMap<IfName, OvsBridge> = BTreeMap::new();
    for number in 0..BRIDGES {
        let name = link(&mut observed, &bridge_of(number), "openvswitch");
        let row = RowId(format!("bridge {name}"));
        bridges.insert(
            name,
            OvsBridge {
                row,
                ..OvsBridge::default()
            },
        );
    }
    let guests = (FIRST_GUEST..FIRST_GUEST + GUESTS).map(|vmid| (vmid, 0));
    let sensors = (FIRST_SENSOR..FIRST_SENSOR + SESSIONS).map(|vmid| (vmid, 1));
    for (vmid, nic) in guests.chain(sensors) {
        let name = link(&mut observed, &format!("tap{vmid}i{nic}"), "tun");
        let port = OvsPort {
            row: RowId(format!("port {name}")),
            interfaces: 1,
            ..OvsPort::default()
        };
        let bridge = bridges.get_mut(bridge_of(vmid).as_str());
        bridge.expect("made above").ports.insert(name, port);
    }
    observed.ovs = OvsState::Present(Ovs {
        bridges,
        caught_up: true,
    });
    observed
}

fn link(observed: &mut Observed, name: &str, kind: &str) -> IfName {
    let name: IfName = name.parse().expect("a device's name");
    let link = Link {
        index: u32::try_from(observed.links.len()).expect("a few thousand") + 1,
        kind: Some(kind.to_owned()),
        ..Link::default()
    };
    observed.links.insert(name.clone(), link);
    name
}
