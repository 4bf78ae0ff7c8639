use super::sensors::Monitor;
use super::*;
use crate::config;
use crate::model::GuestKind;
use crate::pve::cluster::{Known, Placement, Unknown, parse_pools};
use crate::pve::guest;

/// A cluster of guests by their configs: number, node, kind, text.
fn cluster(guests: &[(u32, &str, GuestKind, &str)]) -> Cluster {
    let mut cluster = Cluster::unknown("not read");
    cluster.this = Ok("pve1".parse().unwrap());
    cluster.nodes = vec!["pve1".parse().unwrap(), "pve2".parse().unwrap()];
    cluster.pools = parse_pools("user:x\npool:prod/dmz::101:\n").map_err(|e| Unknown(e.0));
    let mut placements = BTreeMap::new();
    for (vmid, node, kind, text) in guests {
        let (vmid, node) = (Vmid::new(*vmid).unwrap(), node.parse().unwrap());
        let (kind, version) = (*kind, 1);
        placements.insert(
            vmid,
            Placement {
                node,
                kind,
                version,
            },
        );
        let guest: Known<Guest> = Ok(guest::parse(vmid, kind, text).0);
        cluster.guests.insert(vmid, guest);
    }
    cluster.placements = Ok(placements);
    cluster
}

const VM: GuestKind = GuestKind::Qemu;
const CT: GuestKind = GuestKind::Lxc;

fn sensors(guests: &[(u32, &str, GuestKind, &str)]) -> Vec<String> {
    let cluster = cluster(guests);
    let offer = offer(&cluster, &PortMap::default());
    let told = |sensor: &Sensor| match &sensor.monitor {
        Monitor::Nic(nic) => format!("{}: {nic}", sensor.by),
        Monitor::None(why) => format!("{}: {}: {why}", sensor.by, sensor.vmid),
    };
    offer.sensors.iter().map(told).collect()
}

/// What is left of the text when the sessions' lines count.
pub fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn a_sensor_is_known_by_a_whole_word_of_its_name_or_tags() {
    let named = |name: &str| !sensors(&[(200, "pve1", VM, &format!("name: {name}\n"))]).is_empty();
    for name in [
        "security-onion",
        "SecurityOnion",
        "so-sensor-1",
        "zeek01",
        "my-ids",
        "ntopng",
        "ntop",
        "malcolm",
        "span2",
        "suricata.example.org",
        "NIDS",
        "bro",
        "arkime",
        "mirror",
    ] {
        assert!(named(name), "{name}");
    }
    for name in [
        "kids",
        "broker",
        "embroidery",
        "spanish",
        "so",
        "solaris",
        "censor",
        "idsmith",
        "1",
    ] {
        assert!(!named(name), "{name}");
    }
    assert_eq!(
        sensors(&[(
            200,
            "pve1",
            VM,
            "name: x\ntags: web;ids\nnet0: virtio,bridge=a\nnet1: virtio,bridge=b\n"
        )]),
        ["its tag `ids`: 200/net1"]
    );
}

#[test]
fn the_monitor_port_is_the_nic_that_carries_nothing_else() {
    let vm = |nics: &str| sensors(&[(200, "pve1", VM, &format!("name: ids\n{nics}"))]).remove(0);
    assert_eq!(
        vm(
            "net0: virtio,bridge=a,firewall=1\nnet1: virtio,bridge=a,tag=5\nnet2: virtio,bridge=b\n"
        ),
        "its name: 200/net2"
    );
    assert_eq!(
        vm("net0: virtio,bridge=a\nnet1: virtio,bridge=b\nnet2: virtio,bridge=b\n"),
        "its name: 200/net1"
    );
    assert_eq!(
        vm("net0: virtio,bridge=a\nnet1: virtio,bridge=b,firewall=1\n"),
        "its name: 200: each of its NICs is the first, has a firewall, a VLAN tag or an address, or no bridge"
    );
    assert_eq!(
        vm("net0: virtio,bridge=a\nnet1: virtio,bridge=b\nipconfig1: gw=10.0.0.1,ip=10.0.0.9/24\n"),
        "its name: 200: each of its NICs is the first, has a firewall, a VLAN tag or an address, or no bridge"
    );
    assert_eq!(
        vm("net0: virtio,bridge=vmbr2\n"),
        "its name: 200: it has no second NIC for it; give it one: qm set 200 --net1 virtio,bridge=vmbr2,firewall=0"
    );
    assert_eq!(
        vm("net0: virtio\nnet1: virtio,bridge=b,firewall=1\n"),
        "its name: 200: each of its NICs is the first, has a firewall, a VLAN tag or an address, or no bridge"
    );
    let ct = "hostname: zeek\nnet0: name=eth0,bridge=a,ip=dhcp\nnet1: name=eth1,bridge=a,ip=manual\n\
              net2: name=eth2,bridge=a,ip6=auto\n";
    assert_eq!(sensors(&[(300, "pve1", CT, ct)]), ["its name: 300/net1"]);
    assert_eq!(
        sensors(&[(
            300,
            "pve1",
            CT,
            "hostname: zeek\nnet1: name=eth1,bridge=vm br\n"
        )]),
        [
            "its name: 300: it has no second NIC for it; give it one: pct set 300 --net2 name=eth2,bridge=vmbr0,firewall=0"
        ]
    );
}

#[test]
fn a_template_is_no_sensor_and_no_source() {
    let text = "name: ids\ntemplate: 1\ntags: web\nnet0: virtio,bridge=a\nnet1: virtio,bridge=a\n";
    let cluster = cluster(&[(200, "pve1", VM, text)]);
    let offer = offer(&cluster, &PortMap::default());
    assert_eq!((offer.sensors, offer.tags), (vec![], vec![]));
}

#[test]
fn the_text_is_comments_and_every_session_in_it_is_valid() {
    let sensor =
        "name: security-onion\nnet0: virtio,bridge=vmbr0\nnet1: virtio,bridge=vmbr2\ntags: ids\n";
    let far = "name: zeek\nnet0: virtio,bridge=vmbr0\nnet1: virtio,bridge=vmbr2\n";
    let cluster = cluster(&[
        (
            101,
            "pve1",
            VM,
            "name: web1\ntags: web;prod\nnet0: virtio,bridge=vmbr2\n",
        ),
        (
            102,
            "pve2",
            VM,
            "name: web2\ntags: web\nnet0: virtio,bridge=vmbr2\n",
        ),
        (200, "pve1", VM, sensor),
        (201, "pve2", VM, far),
    ]);
    let mut map = PortMap::default();
    for (name, kind) in [
        ("vmbr0", BridgeKind::Linux),
        ("vmbr0v20", BridgeKind::Linux),
        ("vmbr2", BridgeKind::Ovs),
    ] {
        map.bridges.insert(name.parse().unwrap(), kind);
    }
    let text = text(&offer(&cluster, &map));
    assert!(
        text.lines()
            .all(|line| line.is_empty() || line.starts_with('#')),
        "{text}"
    );
    assert!(
        text.lines().all(|line| line.chars().count() <= 120),
        "{text}"
    );
    let parsed = config::parse("span.cfg", &text);
    assert_eq!((parsed.sessions.len(), parsed.diagnostics), (0, vec![]));
    let seen = text
        .split("cluster:\n")
        .nth(1)
        .unwrap()
        .split("#\n")
        .next()
        .unwrap();
    assert_eq!(
        seen,
        "#   Bridge vmbr0: Linux bridge, 1 guest\n\
         #   Bridge vmbr2: Open vSwitch, 2 guests\n\
         #   Sensor 200 security-onion (VM, by its name): monitor port: 200/net1, it seems\n\
         #   Sensor 201 zeek (VM, by its name): it is on pve2, and sensors on other nodes cannot be served yet\n\
         #   Tags: web (2 guests, 1 here), prod (1 guest)\n\
         #   Pools: prod/dmz (1 guest)\n"
    );
    let active = config::parse("span.cfg", &uncommented(&text));
    assert_eq!(active.diagnostics, []);
    let sessions: Vec<String> = active
        .sessions
        .values()
        .map(|session| {
            format!(
                "{}: {} to {}",
                session.name, session.sources[0].value, session.outputs[0].value
            )
        })
        .collect();
    assert_eq!(
        sessions,
        [
            "everything: node:pve1 to 200/net1",
            "pool-prod-dmz: pool:prod/dmz to 200/net1",
            "prod: tag:prod to 200/net1",
            "vmbr2: bridge:vmbr2 to 200/net1",
            "web: tag:web to 200/net1",
        ]
    );
    assert_eq!(config::parse("", &uncommented(&text)).diagnostics, []);
}

#[test]
fn what_guests_are_called_stays_within_its_comment() {
    let name = "ids\r[evil]\u{1b}[2J\u{85}\u{2028}\u{202e}# x ".to_owned() + &"y".repeat(1000);
    let text_of = format!(
        "name: {name}\ntags: we\u{1b}b;a\u{85}b;{}\nnet0: virtio,bridge=a\nnet1: virtio,bridge=a\n",
        "z".repeat(900)
    );
    let cluster = cluster(&[
        (200, "pve1", VM, &text_of),
        (101, "pve1", VM, "tags: we\u{1b}b;-x;tag:y\n"),
    ]);
    let mut map = PortMap::default();
    for bridge in ["vm\u{202e}br", "[x]", "#"] {
        map.bridges
            .insert(bridge.parse().unwrap(), BridgeKind::Linux);
    }
    let text = text(&offer(&cluster, &map));
    assert!(
        text.lines()
            .all(|line| line.is_empty() || line.starts_with('#')),
        "{text}"
    );
    assert!(
        !text
            .chars()
            .any(|c| c != '\n' && crate::model::is_control(c)),
        "{text:?}"
    );
    assert_eq!(config::parse("", &text).diagnostics, []);
    assert_eq!(config::parse("", &uncommented(&text)).diagnostics, []);
}

#[test]
fn without_a_sensor_it_says_what_one_needs() {
    let text = text(&offer(&cluster(&[]), &PortMap::default()));
    assert!(
        text.contains("No guest of this node looks like a sensor"),
        "{text}"
    );
    assert!(config::parse("", &uncommented(&text)).sessions.is_empty());
}
