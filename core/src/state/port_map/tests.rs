use super::*;
use crate::state::{Link, Ovs, OvsBridge, OvsPort};

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

/// A node from `device kind master` and `bridge port tag` triples.
fn node(links: &[(&str, &str, &str)], ovs: &[(&str, &str, Option<u16>)]) -> Observed {
    let link = |kind: &str, master: &str| Link {
        kind: (!kind.is_empty()).then(|| kind.to_owned()),
        master: (!master.is_empty()).then(|| name(master)),
        ..Link::default()
    };
    let mut bridges: BTreeMap<IfName, OvsBridge> = BTreeMap::new();
    for (bridge, port, tag) in ovs {
        let failed = !links.iter().any(|(link, ..)| link == port);
        let row = OvsPort {
            tag: *tag,
            failed,
            ..OvsPort::default()
        };
        bridges
            .entry(name(bridge))
            .or_default()
            .ports
            .insert(name(port), row);
    }
    Observed {
        links: links
            .iter()
            .map(|(device, kind, master)| (name(device), link(kind, master)))
            .collect(),
        ovs: OvsState::Present(Ovs {
            bridges,
            caught_up: true,
        }),
        ..Observed::default()
    }
}

/// NIC, device, port, bridge, kind, firewall bridge, VLAN.
fn table(observed: &Observed) -> Vec<String> {
    let or_dash = |name: Option<&IfName>| name.map_or("-".to_owned(), ToString::to_string);
    PortMap::new(observed)
        .nics()
        .map(|(port, nic)| {
            let (device, firewall) = (
                or_dash(nic.device.as_ref()),
                or_dash(nic.firewall_bridge.as_ref()),
            );
            let tag = port.tag.map_or("-".to_owned(), |tag| tag.to_string());
            format!(
                "{} {device} {} {} {:?} {firewall} {tag}",
                nic.id, port.name, port.bridge, port.bridge_kind
            )
        })
        .collect()
}

#[test]
fn a_nic_is_found_however_it_is_plugged() {
    let observed = node(
        &[
            ("tap101i0", "tun", ""),
            ("tap102i0", "tun", "fwbr102i0"),
            ("fwbr102i0", "bridge", ""),
            ("fwln102o0", "openvswitch", "fwbr102i0"),
            ("vmbr0", "bridge", ""),
            ("veth300i0", "veth", "vmbr0"),
            ("veth301i1", "veth", "fwbr301i1"),
            ("fwbr301i1", "bridge", ""),
            ("fwln301i1", "veth", "fwbr301i1"),
            ("fwpr301p1", "veth", "vmbr0"),
            ("vmbr0v20", "bridge", ""),
            ("tap103i0", "tun", "vmbr0v20"),
            ("tap104i0", "tun", ""),
        ],
        &[
            ("vmbr2", "tap101i0", Some(10)),
            ("vmbr2", "fwln102o0", None),
        ],
    );
    assert_eq!(
        table(&observed),
        [
            "102/net0 tap102i0 fwln102o0 vmbr2 Ovs fwbr102i0 -",
            "301/net1 veth301i1 fwpr301p1 vmbr0 Linux fwbr301i1 -",
            "101/net0 tap101i0 tap101i0 vmbr2 Ovs - 10",
            "103/net0 tap103i0 tap103i0 vmbr0v20 Linux - 20",
            "300/net0 veth300i0 veth300i0 vmbr0 Linux - -",
        ]
    );
    let map = PortMap::new(&observed);
    assert_eq!(map.unplugged.len(), 1, "tap104i0 hangs nowhere");
    assert_eq!(
        map.bridges.keys().map(IfName::as_str).collect::<Vec<_>>(),
        ["vmbr0", "vmbr0v20", "vmbr2"]
    );
}

#[test]
fn a_port_whose_device_is_gone_does_not_count() {
    assert_eq!(
        table(&node(&[], &[("vmbr2", "tap101i0", None)])),
        Vec::<String>::new()
    );
}

#[test]
fn a_firewall_port_that_a_crash_left_behind_does_not_count() {
    let links = [
        ("fwbr101i0", "bridge", ""),
        ("fwln101o0", "openvswitch", "fwbr101i0"),
    ];
    assert_eq!(
        table(&node(&links, &[("vmbr2", "fwln101o0", None)])),
        Vec::<String>::new()
    );
}

#[test]
fn of_two_ports_of_a_nic_the_live_one_counts() {
    let both = [("vmbr2", "tap101i0", None), ("vmbr2", "fwln101o0", None)];
    let behind = [
        ("fwbr101i0", "bridge", ""),
        ("fwln101o0", "openvswitch", "fwbr101i0"),
    ];
    let toggled_off = node(
        &[&[("tap101i0", "tun", "ovs-system")], &behind[..]].concat(),
        &both,
    );
    assert_eq!(
        table(&toggled_off),
        ["101/net0 tap101i0 tap101i0 vmbr2 Ovs - -"]
    );
    let toggled_on = node(
        &[&[("tap101i0", "tun", "fwbr101i0")], &behind[..]].concat(),
        &both,
    );
    assert_eq!(
        table(&toggled_on),
        ["101/net0 tap101i0 fwln101o0 vmbr2 Ovs fwbr101i0 -"]
    );
}

#[test]
fn a_device_is_a_port_of_each_bridge_that_it_is_in() {
    let links = [
        ("vmbr2", "openvswitch", ""),
        ("vnet1", "bridge", ""),
        ("ln_vnet1", "openvswitch", "vnet1"),
        ("tap101i0", "tun", "vnet1"),
    ];
    let observed = node(&links, &[("vmbr2", "ln_vnet1", Some(20))]);
    let map = PortMap::new(&observed);
    let mut ports: Vec<String> = map
        .all()
        .map(|port| format!("{} {} {:?}", port.name, port.bridge, port.bridge_kind))
        .collect();
    ports.sort();
    assert_eq!(
        ports,
        [
            "ln_vnet1 vmbr2 Ovs",
            "ln_vnet1 vnet1 Linux",
            "tap101i0 vnet1 Linux"
        ]
    );
}

#[test]
fn a_device_that_open_vswitch_cannot_open_is_a_port_of_its_linux_bridge_only() {
    let links = [
        ("vmbr2", "openvswitch", ""),
        ("vmbr0", "bridge", ""),
        ("tap101i0", "tun", "vmbr0"),
    ];
    let mut observed = node(&links, &[("vmbr2", "tap101i0", None)]);
    let OvsState::Present(ovs) = &mut observed.ovs else {
        unreachable!()
    };
    let bridge = ovs.bridges.get_mut(&name("vmbr2")).unwrap();
    bridge.ports.get_mut(&name("tap101i0")).unwrap().failed = true;
    assert_eq!(
        table(&observed),
        ["101/net0 tap101i0 tap101i0 vmbr0 Linux - -"]
    );
}
