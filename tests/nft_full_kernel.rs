//! What takes more of the kernel than namespaces bring: VLAN-aware bridges, 802.1Q devices and bonds. A Proxmox VE node
//! has them all; where the kernel lacks one, the test says so and does nothing.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use lab::{Capture, Frame, Mac, Node, or_skip};
use scene::linux::{sensor_on, start, vm_on};
use scene::{apply, counts, run, told};

const HOST: &str = "02:00:00:00:00:99";

/// A VLAN-aware bridge vmbr1 with its uplink eno1: 101 and 102 in VLAN 20, 103 and 104 without `tag=`, the sensor 200.
fn vlan_aware() -> Result<(Node, String), String> {
    let node = Node::without_ovs();
    node.linux_bridge_vlan_aware("vmbr1")
        .map_err(|why| format!("this kernel has no VLAN-aware bridges ({why})"))?;
    let cable = node.physical("eno1", "vmbr1");
    said(&node, "bridge vlan add dev eno1 vid 2-4094");
    start(
        &node,
        &[
            vm_on(101, "bridge=vmbr1,tag=20"),
            vm_on(102, "bridge=vmbr1,tag=20"),
            vm_on(103, "bridge=vmbr1"),
            vm_on(104, "bridge=vmbr1"),
            sensor_on(200, "bridge=vmbr1"),
        ],
    );
    Ok((node, cable))
}

/// Runs a line on the node; what it said.
#[track_caller]
fn said(node: &Node, line: &str) -> String {
    let mut words = line.split(' ');
    let mut command = node.command(words.next().unwrap());
    let output = command.args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", told(&output));
    told(&output)
}

/// All that can be seen of a port's settings.
fn settings(node: &Node, device: &str) -> String {
    said(node, &format!("bridge -d link show dev {device}"))
        + &said(node, &format!("bridge vlan show dev {device}"))
        + &said(node, &format!("ethtool -k {device}"))
}

fn host() -> Mac {
    HOST.parse().unwrap()
}

/// Sends there and back between two NICs, with a tag if there is one; how often each arrived at the sensor.
fn there_and_back(
    node: &Node,
    sensor: &mut Capture,
    pair: [&str; 2],
    vlan: Option<u16>,
) -> Vec<usize> {
    sensor.clear();
    for (from, to, token) in [(pair[0], pair[1], "there"), (pair[1], pair[0], "back")] {
        let tag = |frame: Frame| vlan.map_or(frame.clone(), |vlan| frame.tagged(vlan));
        let mut arrives = node.capture(to);
        node.send(from, &tag(node.frame(from, to, token)));
        arrives.wait_for(|frame| frame.contains(token));
        node.send(from, &tag(node.frame(from, to, "behind-it")));
        arrives.wait_for(|frame| frame.contains("behind-it"));
    }
    counts(sensor, &["there", "back"])
}

/// Why an output is refused.
#[track_caller]
fn assert_refused(node: &Node, span_cfg: &str, why: &str) {
    node.span_cfg(span_cfg);
    let (code, out, err) = run(node, &["apply"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains(why), "{err}");
}

#[test]
fn on_a_vlan_aware_bridge_access_ports_and_trunks_are_mirrored_by_vlan() {
    let Some((node, _cable)) = or_skip(vlan_aware()) else {
        return;
    };
    let access = ["101/net0", "102/net0"];
    let trunk = ["103/net0", "104/net0"];
    let mut sensor = node.capture("200/net1");
    for (vlans, expected) in [
        ("", [[1, 1], [1, 1], [1, 1], [1, 1]]),
        ("vlan = 20\n", [[1, 1], [1, 1], [0, 0], [0, 0]]),
        ("vlan = 21\n", [[0, 0], [0, 0], [1, 1], [0, 0]]),
        ("vlan = 0\n", [[0, 0], [0, 0], [0, 0], [1, 1]]),
        ("vlan = 0, 20-30\n", [[1, 1], [1, 1], [1, 1], [1, 1]]),
    ] {
        apply(
            &node,
            &format!("[dmz]\nsource = 101, 103\n{vlans}output = 200/net1\n"),
        );
        let arrived = [
            there_and_back(&node, &mut sensor, access, None),
            there_and_back(&node, &mut sensor, trunk, Some(20)),
            there_and_back(&node, &mut sensor, trunk, Some(21)),
            there_and_back(&node, &mut sensor, trunk, None),
        ];
        assert_eq!(arrived, expected, "{vlans}");
    }
    // What the bridge itself puts a tag on is known by it too, and has it.
    for (vlan, expected) in [(20, 1), (21, 0)] {
        apply(
            &node,
            &format!("[dmz]\nsource = 103\nvlan = {vlan}\ndirection = to\noutput = 200/net1\n"),
        );
        sensor.clear();
        let arrived = node.exchange("101/net0", "103/net0", "from-access");
        assert_eq!(arrived.vlans(), [20]);
        let mut copies = sensor.frames();
        copies.retain(|frame| frame.contains("from-access"));
        assert_eq!(copies.len(), expected, "{vlan}");
        assert!(copies.iter().all(|frame| frame.vlans() == [20]));
    }
}

#[test]
fn a_sensor_on_a_vlan_aware_bridge_gets_copies_only_and_its_port_is_put_back_exactly() {
    for nic in [
        "bridge=vmbr1",
        "bridge=vmbr1,tag=20",
        "bridge=vmbr1,firewall=1",
    ] {
        let Some((node, _cable)) = or_skip(vlan_aware()) else {
            return;
        };
        node.ip(&["link add link vmbr1 name vmbr1.20 type vlan id 20"]);
        said(&node, "bridge vlan add dev vmbr1 vid 20 self");
        node.ip(&["link set vmbr1.20 up", "addr add 10.77.0.1/24 dev vmbr1.20"]);
        node.add(&sensor_on(201, nic));
        node.start_guest(201);
        let before = settings(&node, "tap201i1");
        apply(
            &node,
            "[dmz]\nsource = 103\ndirection = from\noutput = 201/net1\n",
        );
        assert_ne!(settings(&node, "tap201i1"), before);
        let mut sensor = node.capture("201/net1");
        let mut guest = node.capture("102/net0");
        for (token, to) in [
            ("everybody", Mac::BROADCAST),
            ("nobody", "02:00:00:00:00:77".parse().unwrap()),
            ("many", "01:00:5e:01:02:03".parse().unwrap()),
        ] {
            let frame = Frame::new(node.mac("101/net0"), to).carrying(token);
            node.send("101/net0", &frame);
        }
        // What the node itself sends to everybody, and what the sensor does.
        node.inside(|| {
            let socket = std::net::UdpSocket::bind("10.77.0.1:0").unwrap();
            socket.send_to(b"x", "10.77.0.9:9").unwrap();
        });
        guest.wait_for(|frame| frame.ethertype() == 0x0806);
        let out = Frame::new(node.mac("201/net1"), Mac::BROADCAST).carrying("from-the-sensor");
        node.send("201/net1", &out);
        node.send("201/net1", &out.tagged(20));
        node.exchange("103/net0", "104/net0", "copied");
        node.exchange("101/net0", "102/net0", "behind-it");
        sensor.wait_for(|frame| frame.contains("copied"));
        let arrived = counts(&mut sensor, &["copied", "everybody", "nobody", "many"]);
        assert_eq!(arrived, [1, 0, 0, 0], "{nic}");
        let arps = sensor.frames().into_iter();
        assert_eq!(arps.filter(|frame| frame.ethertype() == 0x0806).count(), 0);
        assert_eq!(guest.count("from-the-sensor"), 0, "{nic}");
        apply(&node, "# nothing\n");
        assert_eq!(settings(&node, "tap201i1"), before, "{nic}");
        assert_eq!(node.nft_list(), "");
    }
}

#[test]
fn a_whole_vlan_aware_bridge_is_every_frame_once() {
    let Some((node, cable)) = or_skip(vlan_aware()) else {
        return;
    };
    for (vlans, expected) in [
        ("", [1, 1, 1, 1, 1, 1]),
        ("vlan = 20\n", [1, 1, 1, 0, 1, 0]),
    ] {
        apply(
            &node,
            &format!("[all]\nsource = bridge:vmbr1\n{vlans}output = 200/net1\n"),
        );
        node.introduce("101/net0", "102/net0");
        let mut sensor = node.capture("200/net1");
        let mut guest = node.capture("101/net0");
        let mut far = node.capture(&cable);
        let to = |nic: &str| Frame::new(host(), node.mac(nic));
        node.exchange("101/net0", "102/net0", "inside-20");
        node.send(&cable, &to("101/net0").carrying("arriving-20").tagged(20));
        guest.wait_for(|frame| frame.contains("arriving-20"));
        let out = Frame::new(node.mac("101/net0"), host()).carrying("leaving-20");
        node.send("101/net0", &out);
        let left = far.wait_for(|frame| frame.contains("leaving-20"));
        assert_eq!(left.vlans(), [20]);
        there_and_back_silently(&node, "inside-30", 30);
        let all = Frame::new(host(), Mac::BROADCAST);
        node.send(&cable, &all.clone().carrying("everybody-20").tagged(20));
        guest.wait_for(|frame| frame.contains("everybody-20"));
        let mut untagged = node.capture("104/net0");
        node.send(&cable, &all.carrying("everybody-untagged"));
        untagged.wait_for(|frame| frame.contains("everybody-untagged"));
        node.exchange("101/net0", "102/net0", "last");
        sensor.wait_for(|frame| frame.contains("last"));
        let tokens = [
            "inside-20",
            "arriving-20",
            "leaving-20",
            "inside-30",
            "everybody-20",
            "everybody-untagged",
        ];
        assert_eq!(counts(&mut sensor, &tokens), expected, "{vlans}");
    }
}

/// A tagged frame from 103 to 104.
fn there_and_back_silently(node: &Node, token: &str, vlan: u16) {
    let mut arrives = node.capture("104/net0");
    for token in [token, "behind-it"] {
        let frame = node.frame("103/net0", "104/net0", token);
        node.send("103/net0", &frame.tagged(vlan));
        arrives.wait_for(|frame| frame.contains(token));
    }
}

/// The Linux bridge vmbr0 with its uplink eno1: 101 and 102 in VLAN 20, so on vmbr0v20 with its uplink eno1.20; 103 and
/// the sensor 200 on vmbr0.
fn vlan_devices() -> Result<(Node, String), String> {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    let cable = node.physical("eno1", "vmbr0");
    start(
        &node,
        &[
            vm_on(101, "bridge=vmbr0,tag=20"),
            vm_on(102, "bridge=vmbr0,tag=20"),
            vm_on(103, "bridge=vmbr0"),
            sensor_on(200, "bridge=vmbr0"),
        ],
    );
    if node.has_device("eno1.20") {
        Ok((node, cable))
    } else {
        Err("this kernel has no 802.1Q devices (module 8021q)".to_owned())
    }
}

#[test]
fn an_uplink_and_its_vlan_device_are_mirrored_with_and_without_the_tag() {
    let Some((node, cable)) = or_skip(vlan_devices()) else {
        return;
    };
    let in_vlan: [&[u16]; 2] = [&[20], &[]];
    for (source, vlans, tags) in [
        ("port:eno1", "", in_vlan[0]),
        ("port:eno1", "vlan = 20\n", in_vlan[0]),
        ("port:eno1.20", "", in_vlan[1]),
        ("port:eno1.20", "vlan = 20\n", in_vlan[1]),
    ] {
        for offload in ["on", "off"] {
            said(
                &node,
                &format!("ethtool -K eno1 txvlan {offload} rxvlan {offload}"),
            );
            apply(
                &node,
                &format!("[up]\nsource = {source}\n{vlans}output = 200/net1\n"),
            );
            let mut sensor = node.capture("200/net1");
            let mut guest = node.capture("101/net0");
            let mut far = node.capture(&cable);
            for token in ["arriving", "behind-it"] {
                let arriving = Frame::new(host(), node.mac("101/net0")).carrying(token);
                node.send(&cable, &arriving.tagged(20));
                guest.wait_for(|frame| frame.contains(token));
                let leaving = format!("leaving-{token}");
                let frame = Frame::new(node.mac("101/net0"), host()).carrying(&leaving);
                node.send("101/net0", &frame);
                let left = far.wait_for(|frame| frame.contains(&leaving));
                assert_eq!(left.vlans(), [20]);
            }
            let case = format!("{source} {vlans} {offload}");
            for token in ["arriving", "leaving-arriving"] {
                let mut copies = sensor.frames();
                copies.retain(|frame| frame.payload().starts_with(token.as_bytes()));
                let seen: Vec<Vec<u16>> = copies.iter().map(Frame::vlans).collect();
                assert_eq!(seen, [tags], "{case} {token}");
            }
        }
    }
}

#[test]
fn copies_into_a_vlan_device_leave_with_its_tag_and_the_device_below_is_refused() {
    let Some((node, cable)) = or_skip(vlan_devices()) else {
        return;
    };
    assert_refused(
        &node,
        "[tap]\nsource = 101\noutput = port:eno1\n",
        "eno1.20 is built on eno1, and would be cut off by a mirror into it",
    );
    let before = settings(&node, "eno1.20");
    apply(
        &node,
        "[tap]\nsource = 103\noutput = port:eno1.20\ncapture-only = port:eno1.20\n",
    );
    let mut far = node.capture(&cable);
    let mut guest = node.capture("103/net0");
    for token in ["arriving", "behind-it"] {
        let arriving = Frame::new(host(), node.mac("103/net0")).carrying(token);
        node.send(&cable, &arriving);
        guest.wait_for(|frame| frame.contains(token));
    }
    let mut copies = far.frames();
    copies.retain(|frame| frame.contains("arriving"));
    let seen: Vec<Vec<u16>> = copies.iter().map(Frame::vlans).collect();
    assert_eq!(seen, [[20]]);
    // What comes out of the cable in that VLAN goes nowhere, and the rest still arrives.
    let mut others = node.capture("101/net0");
    let everybody = Frame::new(host(), Mac::BROADCAST);
    node.send(&cable, &everybody.clone().carrying("in-vlan").tagged(20));
    node.send(&cable, &everybody.carrying("beside"));
    guest.wait_for(|frame| frame.contains("beside"));
    node.exchange("102/net0", "101/net0", "last");
    assert_eq!(others.count("in-vlan"), 0);
    apply(&node, "# nothing\n");
    assert_eq!(settings(&node, "eno1.20"), before);
}

/// The Linux bridge vmbr0 with the uplink bond0 of eno1 and eno2; 101, 102 and the sensor 200. Nothing at the other ends of the
/// cables speaks LACP, so `802.3ad` has eno1 alone active, as `active-backup` does.
fn bonded(mode: &str) -> Result<(Node, [String; 2]), String> {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    let mut bond = node.command("ip");
    bond.args(["link", "add", "bond0", "type", "bond"]);
    bond.args(["mode", mode, "miimon", "10"]);
    if !bond.output().unwrap().status.success() {
        return Err("this kernel has no bonds (module bonding)".to_owned());
    }
    let cables = ["eno1", "eno2"].map(|name| node.physical_unplugged(name));
    for slave in ["eno1", "eno2"] {
        node.ip(&[
            format!("link set {slave} down"),
            format!("link set {slave} master bond0"),
            format!("link set {slave} up"),
        ]);
    }
    node.ip(&["link set bond0 master vmbr0 up"]);
    let forwards = || said(&node, "bridge link show dev bond0").contains("forwarding");
    lab::wait_until("the bridge has taken the bond", forwards);
    start(
        &node,
        &[
            vm_on(101, "bridge=vmbr0"),
            vm_on(102, "bridge=vmbr0"),
            sensor_on(200, "bridge=vmbr0"),
        ],
    );
    // A bond that has just begun takes some frames for nobody's.
    let mut guest = node.capture("101/net0");
    let probe = Frame::new(host(), node.mac("101/net0")).carrying("probe");
    lab::wait_until("the bond takes frames in", || {
        node.send(&cables[0], &probe);
        guest.count("probe") > 0
    });
    let mut far = cables.each_ref().map(|cable| node.capture(cable));
    let probe = Frame::new(node.mac("101/net0"), host()).carrying("probe");
    lab::wait_until("the bond sends frames", || {
        node.send("101/net0", &probe);
        far.iter_mut().any(|cable| cable.count("probe") > 0)
    });
    Ok((node, cables))
}

const MODES: [&str; 7] = [
    "active-backup",
    "balance-rr",
    "balance-xor",
    "broadcast",
    "802.3ad",
    "balance-tlb",
    "balance-alb",
];

#[test]
fn a_bond_of_any_mode_is_a_source_and_an_output_and_its_parts_are_sources_only() {
    for mode in MODES {
        let Some((node, cables)) = or_skip(bonded(mode)) else {
            return;
        };
        for source in ["port:bond0", "port:eno1", "port:eno2", "bridge:vmbr0"] {
            apply(
                &node,
                &format!("[up]\nsource = {source}\noutput = 200/net1\n"),
            );
            let mut sensor = node.capture("200/net1");
            let mut guest = node.capture("101/net0");
            let mut far = cables.each_ref().map(|cable| node.capture(cable));
            for number in 0..4 {
                let token = format!("arriving-{number}-");
                let arriving = Frame::new(host(), node.mac("101/net0"));
                node.send(&cables[0], &arriving.carrying(&token));
                guest.wait_for(|frame| frame.contains(&token));
                let token = format!("leaving-{number}-");
                let leaving = Frame::new(node.mac("101/net0"), host());
                node.send("101/net0", &leaving.carrying(&token));
                lab::wait_until("it has left", || {
                    far.iter_mut().any(|cable| cable.count(&token) > 0)
                });
            }
            let other = ["102/net0", "101/net0"];
            node.exchange(other[0], other[1], "behind-it");
            let left = far.each_mut().map(|cable| cable.count("leaving-"));
            // A part of the bond has what goes over its own cable.
            let expected = match source {
                "port:eno1" => [4, left[0]],
                "port:eno2" => [0, left[1]],
                _ => [4, 4],
            };
            let arrived = counts(&mut sensor, &["arriving-", "leaving-"]);
            assert_eq!(arrived, expected, "{mode} {source}, {left:?} left");
        }
        assert_refused(
            &node,
            "[tap]\nsource = 101\noutput = port:eno2\n",
            "eno2 is part of the bond bond0",
        );
        let before = settings(&node, "bond0");
        apply(
            &node,
            "[tap]\nsource = 101\noutput = port:bond0\ncapture-only = port:bond0\n",
        );
        node.introduce("101/net0", "102/net0");
        let mut appliance = cables.each_ref().map(|cable| node.capture(cable));
        node.exchange("101/net0", "102/net0", "there");
        node.exchange("102/net0", "101/net0", "back");
        let mut arrived = |token: &str| -> Vec<usize> {
            appliance
                .iter_mut()
                .map(|cable| cable.count(token))
                .collect()
        };
        for token in ["there", "back"] {
            lab::wait_until("the copy has left", || {
                arrived(token).iter().sum::<usize>() > 0
            });
        }
        node.exchange("101/net0", "102/net0", "behind-it");
        for token in ["there", "back"] {
            let copies = arrived(token);
            // Which cable it takes is the bond's business; `broadcast` takes both.
            if mode == "broadcast" {
                assert_eq!(copies, [1, 1], "{token}");
            } else {
                assert_eq!(copies.iter().sum::<usize>(), 1, "{mode} {token}");
            }
        }
        apply(&node, "# nothing\n");
        assert_eq!(settings(&node, "bond0"), before, "{mode}");
    }
}
