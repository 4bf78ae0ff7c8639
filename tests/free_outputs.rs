//! An output is cut off from everything but copies, so one that something else may need is refused by all commands, the
//! service and the hook alike; and what needs it goes on working.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use lab::{Frame, Guest, Mac, Node};
use scene::editing::{edit, file, writes};
use scene::linux::{linux_guests, sensor_on, start, vm_on};
use scene::{apply, guests, hook, mirrors, run, sensor, settings, vm};

const NOTHING: &str = "# nothing yet\n";

/// Everybody refuses it for this reason, and says where it stands and what to do instead. Nothing is mirrored.
#[track_caller]
fn refused(node: &Node, output: &str, why: &str) {
    let text = format!("[x]\nsource = 101\noutput = {output}\n");
    node.span_cfg(NOTHING);
    let (code, out, err) = edit(node, &writes(&text));
    assert!(code == 1 && out.contains(why), "edit: {out}{err}");
    assert_eq!(file(node), NOTHING);
    node.span_cfg(&text);
    let (code, out, err) = run(node, &["check"]);
    let told = format!("/etc/pve/span.cfg:3:10: error: output {output} is refused: {why}");
    assert!(code == 1 && out.contains(&told), "check: {out}{err}");
    let told = format!("x: nothing is mirrored to {output}: {why}");
    let (code, out, err) = run(node, &["plan"]);
    assert!(code != 2 && out.contains(&told), "plan: {code} {out}{err}");
    let (code, out, err) = run(node, &["apply"]);
    assert!(code == 1 && err.contains(&told), "apply: {out}{err}");
    let (out, err) = hook(node, 101, "post-start");
    assert!(out.is_empty() && err.contains(&told), "hook: {out}{err}");
    assert_eq!(node.nft_list(), "");
    assert!(!node.path("run/pve-span/outputs.json").exists());
}

/// The same, and `capture-only` is named as what allows it.
#[track_caller]
fn refused_unless_confirmed(node: &Node, output: &str, why: &str) {
    refused(node, output, why);
    let (_, out, _) = run(node, &["check"]);
    let key = format!("if it may lose its network: `capture-only = {output}`");
    assert!(out.contains(&key), "{out}");
}

/// The same, and `capture-only` does not help.
#[track_caller]
fn refused_always(node: &Node, output: &str, why: &str) {
    refused(node, output, why);
    let confirmed = format!("[x]\nsource = 101\noutput = {output}\ncapture-only = {output}\n");
    node.span_cfg(&confirmed);
    let (code, out, err) = run(node, &["check"]);
    assert!(code == 1 && out.contains(why), "{out}{err}");
    assert!(!out.contains("if it may lose"), "{out}");
    let (code, _, err) = run(node, &["apply"]);
    assert!(code == 1 && err.contains(why), "{err}");
    assert_eq!(node.nft_list(), "");
}

/// `capture-only` is taken, and told.
#[track_caller]
fn confirmed(node: &Node, output: &str) {
    node.span_cfg(&format!(
        "[x]\nsource = 101\noutput = {output}\ncapture-only = {output}\n"
    ));
    let (code, out, err) = run(node, &["check"]);
    assert_eq!(code, 0, "{out}{err}");
    let told = format!("x: note: {output} loses its network: it becomes capture-only\n");
    let (code, out, err) = run(node, &["plan"]);
    assert!(code == 2 && out.contains(&told), "{out}{err}");
    let (code, out, err) = run(node, &["apply"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = run(node, &["plan"]);
    assert!(code == 0 && !out.contains("loses"), "{out}{err}");
    node.span_cfg(NOTHING);
    let (code, _, err) = run(node, &["apply"]);
    assert_eq!(code, 0, "{err}");
}

/// The node itself gets through to that address of the wire.
#[track_caller]
fn node_reaches(node: &Node, address: &str) {
    let listener = node.inside_wire(|| TcpListener::bind(format!("{address}:0")).unwrap());
    connects(node, listener.local_addr().unwrap());
}

/// Open vSwitch's userspace datapath passes unfinished checksums on as they are.
#[track_caller]
fn whole_checksums(node: &Node, on_the_wire: &str) {
    node.ethtool(&["-K", "vmbr2", "tx", "off"]);
    let mut far = node.wire_command("ethtool");
    far.args(["-K", on_the_wire, "tx", "off"]);
    lab::run(far, "");
}

#[track_caller]
fn connects(node: &Node, to: SocketAddr) {
    let connected = node.inside(|| TcpStream::connect_timeout(&to, Duration::from_secs(10)));
    assert!(connected.is_ok(), "{to}: {connected:?}");
}

/// Guests 101 and the sensor 200 on a bridge of their own, without Open vSwitch.
fn linux_node() -> Node {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    node.linux_bridge("vmbr9");
    start(
        &node,
        &[
            vm_on(101, "bridge=vmbr9"),
            vm_on(102, "bridge=vmbr9"),
            sensor_on(200, "bridge=vmbr9"),
        ],
    );
    node
}

#[test]
fn the_node_keeps_its_loopback_device() {
    let node = linux_node();
    refused_always(
        &node,
        "port:lo",
        "lo is a loopback device: a mirror into it would cut the node off from itself",
    );
    let listener = node.inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    connects(&node, listener.local_addr().unwrap());
}

#[test]
fn the_node_keeps_the_members_of_an_open_vswitch_bond() {
    let node = guests(&[vm(101, ""), vm(102, ""), sensor(200)]);
    node.physical_unplugged("eno1");
    node.physical_unplugged("eno2");
    node.ovs_vsctl(&["add-bond", "vmbr2", "bond0", "eno1", "eno2"]);
    node.ip_wire(&[
        "link add switch type bridge forward_delay 0",
        "link set weno1 master switch",
        "link set weno2 master switch",
        "link set switch up",
        "addr add 10.99.0.2/24 dev switch",
    ]);
    node.ip(&["addr add 10.99.0.1/24 dev vmbr2"]);
    whole_checksums(&node, "switch");
    for member in ["eno1", "eno2"] {
        refused_always(
            &node,
            &format!("port:{member}"),
            &format!("{member} is part of the Open vSwitch bond bond0"),
        );
    }
    refused_always(
        &node,
        "port:bond0",
        "bond0 may be the only way out of vmbr2, over which this node has the address 10.99.0.1",
    );
    assert_eq!(mirrors(&node), [] as [&str; 0]);
    node_reaches(&node, "10.99.0.2");
}

#[test]
fn the_node_keeps_its_uplink_beside_what_is_no_second_one() {
    let node = linux_node();
    node.physical("eno1", "vmbr0");
    node.ip(&["addr add 10.99.0.1/24 dev vmbr0"]);
    node.ip_wire(&["addr add 10.99.0.2/24 dev weno1"]);
    let why = "eno1 may be the only way out of vmbr0, over which this node has the address 10.99.0.1: a mirror into it would cut the \
               node off";
    let rivals: [(&str, &[&str]); 5] = [
        (
            "down",
            &[
                "link add eno2 type vxlan id 7 dstport 4790 local 127.0.0.1",
                "link set eno2 master vmbr0",
            ],
        ),
        (
            "without carrier",
            &[
                "link add eno2 type veth peer name far2",
                "link set eno2 master vmbr0 up",
            ],
        ),
        (
            "left over from a firewall bridge",
            &[
                "link add fwpr999p0 type veth peer name fwln999i0",
                "link set fwln999i0 up",
                "link set fwpr999p0 master vmbr0 up",
            ],
        ),
        (
            "a veth",
            &[
                "link add eno2 type veth peer name far2",
                "link set far2 up",
                "link set eno2 master vmbr0 up",
            ],
        ),
        (
            "a tap",
            &["tuntap add eno2 mode tap", "link set eno2 master vmbr0 up"],
        ),
    ];
    for (what, made) in rivals {
        node.ip(made);
        refused_always(&node, "port:eno1", why);
        node_reaches(&node, "10.99.0.2");
        let device = if what.starts_with("left") {
            "fwpr999p0"
        } else {
            "eno2"
        };
        node.ip(&[format!("link del {device}")]);
    }
    // One that is up and leads out of the node may lead elsewhere: nobody but the administrator can tell.
    node.ip(&[
        "link add eno2 type vxlan id 7 dstport 4790 local 127.0.0.1",
        "link set eno2 master vmbr0 up",
    ]);
    refused_unless_confirmed(
        &node,
        "port:eno1",
        "eno1 may be the way out of vmbr0 that is in use, and this node has the address 10.99.0.1 there",
    );
    node_reaches(&node, "10.99.0.2");
    confirmed(&node, "port:eno1");
    node_reaches(&node, "10.99.0.2");
}

#[test]
fn a_port_keeps_its_link_local_address_and_its_routes() {
    let node = linux_node();
    node.physical_unplugged("eno3");
    node.physical_unplugged("eno4");
    let ipv6 = |device: &str| {
        std::fs::write(
            format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"),
            "0",
        )
        .unwrap();
    };
    node.inside(|| ipv6("eno3"));
    node.inside_wire(|| ipv6("weno3"));
    node.ip(&["addr flush dev eno3", "addr add fe80::1/64 dev eno3 nodad"]);
    node.ip_wire(&[
        "addr flush dev weno3",
        "addr add fe80::2/64 dev weno3 nodad",
    ]);
    node.ip(&["route add 10.66.0.0/16 dev eno4"]);
    refused_unless_confirmed(
        &node,
        "port:eno3",
        "eno3 has the link-local address fe80::1, which a mirror into it would cut off",
    );
    let scope = |device: &'static str| {
        move || -> u32 {
            let path = format!("/sys/class/net/{device}/ifindex");
            std::fs::read_to_string(path)
                .unwrap()
                .trim()
                .parse()
                .unwrap()
        }
    };
    let (here, there) = (
        node.inside(scope("eno3")),
        node.wire_command("cat")
            .arg("/sys/class/net/weno3/ifindex")
            .output()
            .unwrap(),
    );
    let there: u32 = String::from_utf8(there.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let address = |port, scope| {
        SocketAddr::V6(std::net::SocketAddrV6::new(
            "fe80::2".parse().unwrap(),
            port,
            0,
            scope,
        ))
    };
    let listener = node.inside_wire(|| TcpListener::bind(address(0, there)).unwrap());
    connects(&node, address(listener.local_addr().unwrap().port(), here));
    refused_unless_confirmed(
        &node,
        "port:eno4",
        "a route of this node goes out by eno4, and a mirror into it would cut that off",
    );
    confirmed(&node, "port:eno3");
    confirmed(&node, "port:eno4");
    // Routes of other devices do not matter, and one in another table does.
    node.ip(&[
        "route del 10.66.0.0/16 dev eno4",
        "route add 10.67.0.0/16 dev eno3",
    ]);
    apply(&node, "[x]\nsource = 101\noutput = port:eno4\n");
    apply(&node, NOTHING);
    node.ip(&["route add 10.66.0.0/16 dev eno4 table 77"]);
    refused_unless_confirmed(&node, "port:eno4", "a route of this node goes out by eno4");
}

#[test]
fn the_node_keeps_its_way_through_joined_bridges() {
    let node = linux_node();
    node.linux_bridge("vmbr1");
    node.physical("eno5", "vmbr1");
    node.ip(&[
        "link add join0 type veth peer name join1",
        "link set join0 master vmbr0 up",
        "link set join1 master vmbr1 up",
        "addr add 10.99.0.1/24 dev vmbr0",
    ]);
    node.ip_wire(&["addr add 10.99.0.2/24 dev weno5"]);
    for port in ["eno5", "join1"] {
        refused_always(
            &node,
            &format!("port:{port}"),
            &format!(
                "{port} may be the only way out of vmbr1, over which this node has the address 10.99.0.1"
            ),
        );
        node_reaches(&node, "10.99.0.2");
    }
    // A pair that ends on the node, for a sensor there, is nobody's way.
    node.ip(&[
        "link add span0 type veth peer name span1",
        "link set span1 up",
        "link set span0 master vmbr0 up",
    ]);
    apply(&node, "[x]\nsource = 101\noutput = port:span0\n");
    node_reaches(&node, "10.99.0.2");
}

#[test]
fn guests_keep_the_only_way_out_of_their_bridge() {
    let node = linux_node();
    node.linux_bridge("vmbr1");
    node.physical("eno1", "vmbr0");
    node.physical("eno2", "vmbr9");
    node.physical("eno3", "vmbr1");
    node.ip(&["addr add 10.99.0.1/24 dev vmbr0"]);
    let why = "eno2 may be the only way out of vmbr9 for the guests there (101/net0, for one), and would be cut off by a mirror into it";
    refused_unless_confirmed(&node, "port:eno2", why);
    let mut outside = node.capture("weno2");
    let host = Mac([2, 0, 0, 0, 0, 0x99]);
    let frame = Frame::new(node.mac("102/net0"), host);
    node.send("102/net0", &frame.carrying("gets-out"));
    outside.wait_for(|frame| frame.contains("gets-out"));
    confirmed(&node, "port:eno2");
    // Where the sensor alone is, nobody loses anything; nor where no guest is, or where another port leads out.
    node.ip(&["link set tap200i1 master vmbr1"]);
    apply(&node, "[x]\nsource = 101\noutput = 200/net1, port:eno3\n");
    apply(&node, NOTHING);
    node.ip(&[
        "link add eno4 type vxlan id 7 dstport 4790 local 127.0.0.1",
        "link set eno4 master vmbr9 up",
    ]);
    apply(&node, "[x]\nsource = 101\noutput = port:eno2\n");
    // What is mirrored stays so while that one has no cable, and no new one begins.
    node.ip(&["link set eno4 down"]);
    let (code, out, err) = run(&node, &["plan"]);
    assert_eq!(code, 0, "{out}{err}");
    apply(&node, NOTHING);
    refused_unless_confirmed(&node, "port:eno2", why);
    // Behind a pair, they lose it too.
    node.ip(&[
        "link del eno4",
        "link set eno2 nomaster",
        "link set tap200i1 master vmbr9",
        "link add join0 type veth peer name join1",
        "link set join0 master vmbr1 up",
        "link set join1 master vmbr9 up",
    ]);
    for port in ["eno3", "join0", "join1"] {
        let why = format!("{port} may be the only way out of vmbr9 for the guests there");
        refused_unless_confirmed(&node, &format!("port:{port}"), &why);
    }
    // A pair that ends on the node is nobody's way.
    node.ip(&[
        "link add span0 type veth peer name span1",
        "link set span1 up",
        "link set span0 master vmbr9 up",
    ]);
    apply(&node, "[x]\nsource = 101\noutput = port:span0\n");
}

#[test]
fn a_port_inside_a_firewall_bridge_is_neither_an_output_nor_a_source() {
    let node = linux_guests(&[
        vm_on(101, "bridge=vmbr0,firewall=1"),
        vm_on(102, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr0"),
    ]);
    refused_always(
        &node,
        "port:fwln101i0",
        "fwln101i0 is part of the firewall bridge fwbr101i0",
    );
    refused_always(
        &node,
        "port:fwbr101i0",
        "fwbr101i0 is a guest's firewall bridge",
    );
    for source in ["port:fwln101i0", "bridge:fwbr101i0"] {
        node.span_cfg(&format!("[x]\nsource = {source}\noutput = 200/net1\n"));
        let (_, out, err) = run(&node, &["apply"]);
        assert!(!node.nft_list().contains("101i0"), "{out}{err}");
        for command in ["check", "plan"] {
            let (code, out, err) = run(&node, &[command]);
            assert!(
                code == 0 && out.contains("write 101/net0, and `point = guest`"),
                "{out}{err}"
            );
        }
    }
}

#[test]
fn a_port_of_a_session_with_sources_on_other_nodes_alone_is_a_warning() {
    let node = linux_node();
    let text = "[x]\nsource = node:pve2\noutput = port:lo\n";
    node.span_cfg(text);
    let (code, out, err) = run(&node, &["check"]);
    let told =
        "span.cfg:3:10: warning: on this node, output port:lo is refused: lo is a loopback device";
    assert!(code == 0 && out.contains(told), "{code} {out}{err}");
    assert_eq!(run(&node, &["apply"]).0, 0);
    let (code, out, err) = run(&node, &["status"]);
    assert!(code == 0 && out.contains("idle"), "{code} {out}{err}");
    let (code, out, err) = edit(&node, &writes("[x]\nsource = 101\noutput = port:lo\n"));
    assert!(
        code == 1 && out.contains("error: output port:lo"),
        "{out}{err}"
    );
}

#[test]
fn the_node_keeps_its_way_through_patch_ports() {
    let node = guests(&[vm(101, ""), vm(102, ""), sensor(200)]);
    node.ovs_bridge("vmbr3");
    node.physical("eno6", "vmbr3");
    for (bridge, port, peer) in [("vmbr2", "to3", "to2"), ("vmbr3", "to2", "to3")] {
        node.ovs_vsctl(&[
            "add-port",
            bridge,
            port,
            "--",
            "set",
            "Interface",
            port,
            "type=patch",
            &format!("options:peer={peer}"),
        ]);
    }
    node.ip(&["addr add 10.99.0.1/24 dev vmbr2"]);
    node.ip_wire(&["addr add 10.99.0.2/24 dev weno6"]);
    whole_checksums(&node, "weno6");
    for (port, bridge) in [("eno6", "vmbr3"), ("to3", "vmbr2")] {
        refused_always(
            &node,
            &format!("port:{port}"),
            &format!(
                "{port} may be the only way out of {bridge}, over which this node has the address 10.99.0.1"
            ),
        );
        assert_eq!(mirrors(&node), [] as [&str; 0]);
        node_reaches(&node, "10.99.0.2");
    }
}

/// 101 to 104, with what makes a NIC no monitor port, and the sensor 200.
fn guests_with_addresses() -> Node {
    linux_guests(&[
        vm_on(101, "bridge=vmbr0"),
        vm_on(102, "bridge=vmbr0"),
        vm_on(103, "bridge=vmbr0")
            .net(1, "virtio=BC:24:11:2B:00:03,bridge=vmbr0")
            .set("ipconfig1", "ip=10.0.0.3/24"),
        Guest::ct(104)
            .net(
                0,
                "name=eth0,hwaddr=BC:24:11:2C:00:04,bridge=vmbr0,ip=manual,type=veth",
            )
            .net(
                1,
                "name=eth1,hwaddr=BC:24:11:2D:00:04,bridge=vmbr0,ip6=auto,type=veth",
            ),
        sensor_on(200, "bridge=vmbr0").net(2, "virtio=BC:24:11:2D:00:C8,bridge=vmbr0"),
    ])
}

#[test]
fn a_guest_keeps_the_nic_that_it_may_need() {
    let node = guests_with_addresses();
    for (output, why) in [
        (
            "102/net0",
            "102/net0 is the only NIC of guest 102, and an output is cut off from the network",
        ),
        (
            "103/net0",
            "103/net0 is the first NIC of guest 103, where one usually reaches it, and an output is cut off from the network",
        ),
        (
            "103/net1",
            "103/net1 has an address (ipconfig1: ip=10.0.0.3/24), and an output is cut off from the network",
        ),
        (
            "104/net1",
            "104/net1 has an address (net1: ip6=auto), and an output is cut off from the network",
        ),
        ("104/net0", "104/net0 is the first NIC of guest 104"),
    ] {
        refused_unless_confirmed(&node, output, why);
        node.introduce("101/net0", output);
        let mut guest = node.capture(output);
        node.exchange("101/net0", output, "still-there");
        assert_eq!(guest.count("still-there"), 1, "{output}");
        confirmed(&node, output);
    }
    apply(&node, "[x]\nsource = 101\noutput = 200/net1, 200/net2\n");
}

#[test]
fn who_runs_on_another_node_is_found_too() {
    let node = guests_with_addresses();
    node.stop_guest(102);
    node.file_under("pve2", 102);
    node.span_cfg("[x]\nsource = 101\noutput = 102/net0\n");
    let (code, out, _) = run(&node, &["check"]);
    assert!(
        code == 1 && out.contains("the only NIC of guest 102"),
        "{out}"
    );
}

#[test]
fn the_other_outputs_and_sessions_are_served() {
    let node = guests_with_addresses();
    node.introduce("101/net0", "103/net0");
    node.span_cfg(
        "[x]\nsource = 101\noutput = 102/net0, 200/net1\n[y]\nsource = 103/net0\noutput = 200/net2\n",
    );
    let watch = node.watch();
    watch.wait_until_it_says("is the only NIC of guest 102");
    let (mut one, mut two) = (node.capture("200/net1"), node.capture("200/net2"));
    let mut guest = node.capture("102/net0");
    node.exchange("101/net0", "103/net0", "there");
    assert_eq!((one.count("there"), two.count("there")), (1, 1));
    let (code, out, _) = run(&node, &["status"]);
    assert!(
        code == 1 && out.contains("the only NIC of guest 102"),
        "{out}"
    );
    node.introduce("101/net0", "102/net0");
    node.exchange("101/net0", "102/net0", "not-cut-off");
    assert_eq!(guest.count("not-cut-off"), 1);
}

/// How many frames with this token get to the sensor, of one that comes in by a cable and goes to 101.
#[track_caller]
fn copies_of_what_comes_in(node: &Node, cable: &str, token: &str) -> usize {
    let mut sensor = node.capture("200/net1");
    let mut guest = node.capture("101/net0");
    let from: Mac = "02:00:00:00:00:99".parse().unwrap();
    for token in [token, "behind-it"] {
        node.send(
            cable,
            &Frame::new(from, node.mac("101/net0")).carrying(token),
        );
        guest.wait_for(|frame| frame.contains(token));
    }
    sensor.wait_for(|frame| frame.contains("behind-it"));
    sensor.count(token)
}

#[test]
fn a_refused_output_carries_what_it_always_did_and_other_sessions_have_that() {
    let node = linux_guests(&[vm_on(101, "bridge=vmbr0"), sensor_on(200, "bridge=vmbr0")]);
    let cable = node.physical("eno1", "vmbr0");
    node.ip(&["addr add 10.77.0.1/24 dev vmbr0"]);
    let all = "[b]\nsource = bridge:vmbr0\noutput = 200/net1\n";
    apply(&node, all);
    // It is meant for another node, and this one needs its port of that name.
    for other in ["node:pve2", "tag:none", "bridge:vmbr7", "port:eno5"] {
        node.span_cfg(&format!("[a]\nsource = {other}\noutput = port:eno1\n{all}"));
        let (code, out, err) = run(&node, &["check"]);
        let told = "warning: on this node, output port:eno1 is refused";
        assert!(code == 0 && out.contains(told), "{other}: {out}{err}");
        let (code, out, err) = run(&node, &["apply"]);
        assert_eq!(
            (code, out.as_str()),
            (0, "nothing to do\n"),
            "{other}: {err}"
        );
        let (code, out, _) = run(&node, &["status"]);
        assert_eq!(code, 0, "{other}: {out}");
        assert_eq!(
            copies_of_what_comes_in(&node, &cable, "arriving"),
            1,
            "{other}"
        );
    }
    apply(&node, "[b]\nsource = port:eno1\noutput = 200/net1\n");
    node.span_cfg(
        "[a]\nsource = node:pve2\noutput = port:eno1\n[b]\nsource = port:eno1\noutput = 200/net1\n",
    );
    assert_eq!(run(&node, &["plan"]).0, 0);
    assert_eq!(run(&node, &["status"]).0, 0);
}

#[test]
fn a_guest_s_nic_that_is_refused_is_still_a_source() {
    let (linux, ovs) = (
        linux_guests(&[
            vm_on(101, "bridge=vmbr0"),
            vm_on(102, "bridge=vmbr0"),
            vm_on(103, "bridge=vmbr0"),
            sensor_on(200, "bridge=vmbr0"),
        ]),
        guests(&[vm(101, ""), vm(102, ""), vm(103, ""), sensor(200)]),
    );
    for (node, bridge) in [(&linux, "vmbr0"), (&ovs, "vmbr2")] {
        for source in [
            "102-103".to_owned(),
            format!("bridge:{bridge}\nexclude = 103"),
        ] {
            node.span_cfg(&format!(
                "[a]\nsource = 101\noutput = 102/net0\n[b]\nsource = {source}\noutput = 200/net1\n"
            ));
            let (code, _, err) = run(node, &["apply"]);
            assert!(
                code == 1 && err.contains("is the only NIC of guest 102"),
                "{err}"
            );
            assert!(!err.contains("b: "), "{err}");
            node.introduce("101/net0", "102/net0");
            let mut sensor = node.capture("200/net1");
            node.exchange("102/net0", "101/net0", "sent");
            node.exchange("101/net0", "102/net0", "got");
            assert_eq!(
                (sensor.count("sent"), sensor.count("got")),
                (1, 1),
                "{source}"
            );
        }
    }
}

/// A sensor on vmbr9, and vmbr0 with two uplinks of which each is free beside the other.
fn two_uplinks() -> Node {
    let node = linux_node();
    for (device, id, port) in [("eno1", 7, 4790), ("eno2", 8, 4791)] {
        node.ip(&[
            format!("link add {device} type vxlan id {id} dstport {port} local 127.0.0.1"),
            format!("link set {device} master vmbr0 up"),
        ]);
    }
    node
}

const BESIDE: &str = "eno2 cannot be an output beside eno1, which is one already: together they may be the only way out of a bridge";

#[test]
fn of_two_outputs_that_cannot_be_both_the_first_session_has_its_own_whoever_was_there() {
    let node = two_uplinks();
    node.ip(&["addr add 10.77.0.1/24 dev vmbr0"]);
    let session = |name: &str, port: &str, more: &str| {
        format!("[{name}]\nsource = 101\noutput = port:{port}\n{more}\n")
    };
    let confirmed =
        |name: &str, port: &str| session(name, port, &format!("capture-only = port:{port}"));
    node.span_cfg(
        "[x]\nsource = 101\noutput = port:eno1, port:eno2\ncapture-only = port:eno1, port:eno2\n",
    );
    let (code, out, err) = run(&node, &["check"]);
    let told = format!("span.cfg:3:21: error: output port:eno2 is refused: {BESIDE}");
    assert!(code == 1 && out.contains(&told), "{out}{err}");
    assert_eq!(out.matches(" error: ").count(), 1, "{out}");
    let (code, _, err) = run(&node, &["apply"]);
    assert!(code == 1 && err.contains(BESIDE), "{err}");
    assert!(node.nft_list().contains("drop/eno1") && !node.nft_list().contains("drop/eno2"));
    let (_, plan, _) = run(&node, &["plan"]);
    assert!(plan.ends_with("nothing to do\n"), "{plan}");
    // One that is refused for itself takes nothing from the other.
    apply(&node, &confirmed("z", "eno2"));
    node.span_cfg(&(session("a", "eno1", "") + &confirmed("z", "eno2")));
    let (code, out, err) = run(&node, &["apply"]);
    assert_eq!((code, out.as_str()), (1, "nothing to do\n"), "{err}");
    // And the names decide, neither who was there nor the order in the file.
    node.span_cfg(&(confirmed("z", "eno2") + &confirmed("a", "eno1")));
    let (code, out, err) = run(&node, &["check"]);
    let told = format!("span.cfg:3:10: error: output port:eno2 is refused: {BESIDE}");
    assert!(code == 1 && out.contains(&told), "{out}{err}");
    assert_eq!(run(&node, &["apply"]).0, 1);
    assert!(node.nft_list().contains("drop/eno1") && !node.nft_list().contains("drop/eno2"));
    let (_, plan, _) = run(&node, &["plan"]);
    assert!(plan.ends_with("nothing to do\n"), "{plan}");
}

#[test]
fn an_output_that_is_free_is_not_ended_by_another_that_may_lose_its_network() {
    let node = two_uplinks();
    node.add(&vm_on(103, "bridge=vmbr0"));
    node.start_guest(103);
    let first = "[a]\nsource = 101\noutput = port:eno2\n";
    apply(&node, first);
    let told = BESIDE
        .replace("eno1", "eno3")
        .replace("eno2", "eno1")
        .replace("eno3", "eno2");
    node.span_cfg(&format!(
        "{first}[b]\nsource = 101\noutput = port:eno1\ncapture-only = port:eno1\n"
    ));
    let (code, out, err) = run(&node, &["apply"]);
    assert!(
        code == 1 && out == "nothing to do\n" && err.contains(&told),
        "{out}{err}"
    );
}

#[test]
fn a_sensor_and_a_port_on_a_bridge_for_copies_are_outputs_in_any_order() {
    let node = linux_node();
    let cable = node.physical("eno2", "vmbr9");
    node.stop_guest(101);
    node.stop_guest(102);
    node.linux_bridge("vmbr1");
    node.add(&vm_on(103, "bridge=vmbr1"));
    node.add(&vm_on(104, "bridge=vmbr1"));
    node.start_guests([103, 104]);
    for outputs in ["port:eno2, 200/net1", "200/net1, port:eno2"] {
        let both = format!("[m]\nsource = 103\noutput = {outputs}\n");
        // Nobody else takes what is an output.
        let text = format!(
            "{both}[z]\nsource = bridge:vmbr9\noutput = 104/net0\ncapture-only = 104/net0\n"
        );
        apply(&node, &text);
        assert_eq!(run(&node, &["plan"]).0, 0);
        let (_, status, _) = run(&node, &["status"]);
        assert!(
            status.contains("note: port:eno2 is left out: it is an output of m"),
            "{status}"
        );
        let (mut sensor, mut appliance) = (node.capture("200/net1"), node.capture(&cable));
        let frame = Frame::new(node.mac("103/net0"), Mac::BROADCAST).carrying("copied");
        node.send("103/net0", &frame);
        sensor.wait_for(|frame| frame.contains("copied"));
        appliance.wait_for(|frame| frame.contains("copied"));
        apply(&node, NOTHING);
    }
}

#[test]
fn an_output_that_was_cut_off_before_is_given_back() {
    let node = guests_with_addresses();
    let before = settings(&node, "tap102i0");
    // As a version did that refused nothing.
    apply(
        &node,
        "[x]\nsource = 101\noutput = 102/net0, 200/net1\ncapture-only = 102/net0\n",
    );
    assert_ne!(settings(&node, "tap102i0"), before);
    node.span_cfg("[x]\nsource = 101\noutput = 102/net0, 200/net1\n");
    let (out, err) = hook(&node, 101, "post-start");
    assert_eq!(
        out,
        "pve-span: x: no longer mirrors to 102/net0 (nft): its output is refused\n"
    );
    assert!(
        err.contains("102/net0 is the only NIC of guest 102"),
        "{err}"
    );
    assert_eq!(settings(&node, "tap102i0"), before);
    assert!(!node.nft_list().contains("tap102i0"));
    assert!(node.nft_list().contains("tap200i1"));
}

#[test]
fn while_a_config_cannot_be_read_nothing_begins_and_nothing_ends() {
    let node = guests_with_addresses();
    let config = node.path("etc/pve/nodes/pve1/qemu-server/200.conf");
    let text = std::fs::read(&config).unwrap();
    let session = "[x]\nsource = 101\noutput = 200/net1\n[idle]\nsource = 999\noutput = 200/net2\n";
    // Nothing of it is there, so nothing begins.
    std::fs::write(&config, "").unwrap();
    node.span_cfg(session);
    let (out, err) = hook(&node, 101, "post-start");
    assert_eq!(out, "");
    assert!(
        err.contains("cannot tell whether guest 200 needs 200/net1 for its network: the config of guest 200 is empty"),
        "{err}"
    );
    assert_eq!(node.nft_list(), "");
    std::fs::write(&config, &text).unwrap();
    apply(&node, session);
    let before = (settings(&node, "tap200i1"), settings(&node, "tap200i2"));
    // It is all there, so it stays, and follows its sources.
    std::fs::write(&config, "").unwrap();
    assert_eq!(hook(&node, 102, "post-start").0, "");
    node.stop_guest(101);
    hook(&node, 101, "post-stop");
    node.start_guest(101);
    hook(&node, 101, "post-start");
    node.introduce("101/net0", "102/net0");
    let mut sensor = node.capture("200/net1");
    node.exchange("101/net0", "102/net0", "there");
    assert_eq!(sensor.count("there"), 1);
    let after = (settings(&node, "tap200i1"), settings(&node, "tap200i2"));
    assert_eq!(before, after);
}

#[test]
fn a_port_by_another_name_is_answered_with_what_to_write() {
    let node = guests(&[vm(101, ""), sensor(200)]);
    node.linux_bridge("vmbr0");
    node.physical_unplugged("nic0");
    node.ip(&["link property add dev nic0 altname enp3s0"]);
    node.physical_unplugged("eno1");
    node.physical_unplugged("eno2");
    node.ovs_vsctl(&["add-bond", "vmbr2", "bond0", "eno1", "eno2"]);
    let told = |source: &str, more: &str| {
        node.span_cfg(&format!(
            "[x]\nsource = {source}\noutput = 200/net1\n{more}"
        ));
        let (_, out, err) = run(&node, &["apply"]);
        let (_, checked, _) = run(&node, &["check"]);
        (format!("{out}{err}"), checked)
    };
    for (source, what) in [
        ("port:vmbr0", "vmbr0 is a bridge: write bridge:vmbr0"),
        (
            "port:enp3s0",
            "enp3s0 is another name of nic0: write port:nic0",
        ),
    ] {
        let (applied, checked) = told(source, "");
        assert!(applied.contains(what), "{applied}");
        assert!(checked.contains(&format!("warning: {what}")), "{checked}");
    }
    let (applied, _) = told("port:bond0", "engine = nft\n");
    let what = "bond0 is an Open vSwitch bond, which has no device: write port:eno1, port:eno2";
    assert!(applied.contains(what), "{applied}");
    apply(
        &node,
        "[x]\nsource = port:eno1, port:eno2, port:nic0\noutput = 200/net1\n",
    );
    node.span_cfg("[x]\nsource = 101\noutput = port:enp3s0\n");
    let (_, _, err) = run(&node, &["apply"]);
    assert!(
        err.contains("enp3s0 is another name of nic0: write port:nic0"),
        "{err}"
    );
}
