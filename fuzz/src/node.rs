//! A small node for what is read to be used on.

use std::fmt::Write;
use std::sync::LazyLock;

use pve_span_core::config::Annotations;
use pve_span_core::health::faults_and_notes;
use pve_span_core::model::{GuestKind, IfName};
use pve_span_core::plan::{Plan, plan};
use pve_span_core::pve::cluster::{Cluster, parse_members, parse_pools, parse_vmlist};
use pve_span_core::pve::guest;
use pve_span_core::resolve::resolve;
use pve_span_core::state::{Assumptions, Link, Observed, Ovs, OvsBridge, OvsPort, OvsState, RowId};

/// Guests 101, 102 and 200 with two NICs each: on vmbr1 and vmbr2 of Open vSwitch, 200's second on the Linux bridge
/// vmbr0.
pub static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    let guests = [
        (
            101,
            "tags: web\nnet0: virtio=BC:24:11:00:00:01,bridge=vmbr1\nnet1: virtio=BC:24:11:00:00:02,bridge=vmbr2\n",
        ),
        (
            102,
            "tags: db\nnet0: virtio=BC:24:11:00:00:03,bridge=vmbr1\nnet1: virtio=BC:24:11:00:00:04,bridge=vmbr2\n",
        ),
        (
            200,
            "net0: virtio=BC:24:11:00:00:05,bridge=vmbr1\nnet1: virtio=BC:24:11:00:00:06,bridge=vmbr0\n",
        ),
    ];
    let members =
        parse_members(r#"{"nodename": "pve1", "nodelist": {"pve1": {}, "pve2": {}}}"#).unwrap();
    let vmlist = r#"{"ids": {"101": {"node": "pve1", "type": "qemu"}, "102": {"node": "pve1", "type": "qemu"},
        "200": {"node": "pve1", "type": "qemu"}, "300": {"node": "pve2", "type": "lxc"}}}"#;
    Cluster {
        this: Ok(members.this),
        nodes: members.nodes,
        placements: Ok(parse_vmlist(vmlist).unwrap()),
        pools: Ok(parse_pools("pool:prod::101,102:::\npool:prod/dmz::102:::\n").unwrap()),
        guests: guests
            .into_iter()
            .map(|(vmid, config)| {
                let vmid = pve_span_core::model::Vmid::new(vmid).unwrap();
                (vmid, Ok(guest::parse(vmid, GuestKind::Qemu, config).0))
            })
            .collect(),
        warnings: Vec::new(),
    }
});

/// Where they are plugged in.
pub static OBSERVED: LazyLock<Observed> = LazyLock::new(|| {
    let name = |text: &str| text.parse::<IfName>().unwrap();
    let mut observed = Observed::default();
    let mut ovs = Ovs::default();
    let bridges = [
        ("vmbr1", ["tap101i0", "tap102i0", "tap200i0", "eno1"]),
        ("vmbr2", ["tap101i1", "tap102i1", "eno2", "eno3"]),
    ];
    for (bridge, ports) in bridges {
        let row = RowId(bridge.to_owned());
        let mut found = OvsBridge {
            row,
            ..OvsBridge::default()
        };
        for port in ports {
            let row = RowId(port.to_owned());
            let interfaces = 1;
            found.ports.insert(
                name(port),
                OvsPort {
                    row,
                    interfaces,
                    ..OvsPort::default()
                },
            );
            observed.links.insert(name(port), Link::default());
        }
        let kind = Some("openvswitch".to_owned());
        observed.links.insert(
            name(bridge),
            Link {
                kind,
                ..Link::default()
            },
        );
        ovs.bridges.insert(name(bridge), found);
    }
    let linux = [
        ("vmbr0", "bridge", None),
        ("tap200i1", "tun", Some("vmbr0")),
        ("eno0", "", Some("vmbr0")),
    ];
    for (device, kind, master) in linux {
        let (kind, master) = (
            Some(kind.to_owned()).filter(|kind| !kind.is_empty()),
            master.map(name),
        );
        observed.links.insert(
            name(device),
            Link {
                kind,
                master,
                ..Link::default()
            },
        );
    }
    for (number, link) in observed.links.values_mut().enumerate() {
        link.index = u32::try_from(number).unwrap() + 1;
    }
    observed.ovs = OvsState::Present(ovs);
    observed
});

/// What a file comes to on a node, with everything said about it fit for a terminal.
pub fn planned(annotations: &Annotations, observed: &Observed) -> Plan {
    let assume = Assumptions {
        now: 1_800_000_000,
        ..Assumptions::default()
    };
    let desired = resolve(annotations, &CLUSTER, observed, &assume);
    let plan = plan(&desired, observed);
    let mut text = plan.to_string();
    for state in &desired.sessions {
        for line in faults_and_notes(state) {
            writeln!(text, "{}: {line}", state.name).unwrap();
        }
    }
    super::assert_printable(&text);
    plan
}
