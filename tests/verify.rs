//! `pve-span verify` says yes when every frame arrives once, as on a wire.

#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;
mod scene;
mod verifying;

use std::time::Duration;

use lab::Node;
use scene::apply;
use scene::linux::{
    linux_guests, linux_qemu_guests, linux_three_guests, mixed_bridges, ovs_qemu_guests, sensor_on,
    vm_on,
};
use serde_json::Value;
use verifying::{
    BAD, DMZ, OVERSIZE, PENDING, assert_proven, faults, reasons, session_for, session_while,
    sources, talk, while_watching,
};

#[test]
fn live_traffic_proves_a_session_on_either_bridge() {
    let linux = linux_three_guests();
    let ovs = scene::three_guests();
    for node in [&linux, &ovs] {
        apply(node, DMZ);
        assert_proven(session_while(node, &[], talk(node, "101/net0", "102/net0")));
        apply(
            node,
            "[dmz]\nsource = 101\ndirection = from\noutput = 200/net1\nengine = nft\n",
        );
        assert_proven(session_while(
            node,
            &["dmz"],
            talk(node, "101/net0", "102/net0"),
        ));
    }
    apply(&linux, "[dmz]\nsource = bridge:vmbr0\noutput = 200/net1\n");
    assert_proven(session_while(
        &linux,
        &[],
        talk(&linux, "101/net0", "102/net0"),
    ));
    apply(&ovs, "[dmz]\nsource = bridge:vmbr2\noutput = 200/net1\n");
    assert_proven(session_while(&ovs, &[], talk(&ovs, "101/net0", "102/net0")));
    apply(
        &ovs,
        "[dmz]\nsource = 101, 102\noutput = 200/net1\nsnaplen = 64\n",
    );
    assert_proven(session_while(&ovs, &[], talk(&ovs, "101/net0", "102/net0")));
}

#[test]
fn marked_frames_reach_guests_on_all_kinds_of_ports() {
    let node = mixed_bridges();
    let session = "[dmz]\nsource = 101-104, 300\ndirection = to\noutput = 200/net1\n";
    for more in ["", "point = guest\n", "engine = nft\n"] {
        apply(&node, &format!("{session}{more}"));
        let (code, session) = session_while(&node, &["--inject"], || {});
        let names = sources(&session).into_iter().map(|(name, ..)| name);
        let all = ["101", "102", "103", "104", "300"].map(|guest| format!("to {guest}/net0"));
        assert_eq!(names.collect::<Vec<_>>(), all);
        // A bridge that does not know a guest yet sends its frames to others too.
        assert!(
            sources(&session)
                .iter()
                .all(|(_, watched, _)| *watched >= 11)
        );
        assert_proven((code, session));
    }
}

#[test]
fn marked_frames_have_the_vlan_that_is_needed() {
    let node = scene::guests(&[
        scene::vm(101, ",tag=10"),
        scene::vm(102, ",trunks=10;20"),
        scene::sensor(200),
    ]);
    for engine in ["ovs", "nft"] {
        let session =
            "[dmz]\nsource = 101, 102\ndirection = to\noutput = 200/net1\nvlan = 10\nengine = ";
        apply(&node, &format!("{session}{engine}\n"));
        assert_proven(session_while(&node, &["--inject"], || {}));
    }
    apply(
        &node,
        "[dmz]\nsource = 101, 102\noutput = vlan:999\ndirection = to\n",
    );
    let (code, session) = session_while(&node, &["--inject"], || {});
    assert_eq!(code, 0, "{session:#}");
}

#[test]
fn where_the_frames_have_to_be_between_sources_only_marked_ones_prove_the_rest() {
    let node = linux_three_guests();
    apply(&node, "[dmz]\nsource = 101, 102\noutput = 200/net1\n");
    let (code, session) = session_while(&node, &[], talk(&node, "101/net0", "102/net0"));
    let elsewhere = |nic: &str| {
        format!(
            "all that was seen to {nic} in 1 s came from other sources, and is mirrored where they send it: \
             send some with --inject, or wait longer (--time)"
        )
    };
    let both = vec![elsewhere("101/net0"), elsewhere("102/net0")];
    assert_eq!(
        (code, reasons(&session), faults(&session)),
        (0, both, String::new())
    );
    let talk = talk(&node, "101/net0", "102/net0");
    assert_proven(session_while(&node, &["--inject"], talk));
}

#[test]
fn large_pieces_are_proven_as_the_frames_that_they_become() {
    let node = linux_qemu_guests("bridge=vmbr0");
    apply(&node, DMZ);
    let stream = || drop(node.stream("101/net0", "102/net0", 2 << 20));
    assert_proven(session_while(&node, &[], stream));
    node.ethtool(&[
        "-K", "tap200i1", "tso", "on", "gso", "on", "tx", "on", "sg", "on",
    ]);
    let (code, session) = session_while(&node, &[], stream);
    assert_eq!(
        (code, faults(&session)),
        (1, "oversize bad_checksum".into())
    );
    assert_eq!(reasons(&session), [PENDING, OVERSIZE, BAD]);
    // Whoever wants them so gets them so.
    apply(&node, &format!("{DMZ}wire = no\n"));
    assert_proven(session_while(&node, &[], stream));
}

#[test]
fn large_pieces_are_proven_with_open_vswitch_too() {
    let node = ovs_qemu_guests();
    // Small ones and a pause: what does not fit ovs-vswitchd's own socket is not switched, and so not mirrored.
    let stream = || {
        node.stream("101/net0", "102/net0", 64 << 10);
        std::thread::sleep(Duration::from_millis(10));
    };
    for engine in ["ovs", "nft"] {
        apply(&node, &format!("{DMZ}engine = {engine}\n"));
        let (code, session) = session_while(&node, &[], stream);
        // Its userspace datapath leaves the TCP options out when it says how a piece is to be cut: where it hands one on to
        // the guest, the segments of the copy are longer than the MTU by that much, which is told.
        if faults(&session) == "oversize" {
            assert_eq!((code, reasons(&session)), (1, vec![OVERSIZE.to_owned()]));
        } else {
            assert_proven((code, session));
        }
    }
}

#[test]
fn under_load_no_frame_is_missing_or_doubled() {
    let node = linux_guests(&[
        vm_on(101, "bridge=vmbr0"),
        vm_on(102, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr0"),
    ]);
    node.introduce("101/net0", "102/net0");
    apply(
        &node,
        "[dmz]\nsource = 101\ndirection = from\noutput = 200/net1\n",
    );
    let load = node.load("101/net0", "102/net0", "load", 10_000);
    load.wait_for(100);
    let (code, session) =
        session_while(&node, &[], || std::thread::sleep(Duration::from_millis(5)));
    load.finish();
    let watched = session["outputs"][0]["watched"].as_u64();
    assert!(watched > Some(500), "{session:#}");
    assert_proven((code, session));
}

#[test]
fn of_a_sample_the_share_is_judged() {
    let node = linux_three_guests();
    apply(&node, &format!("{DMZ}sample = 1/3\n"));
    let (code, session) = session_while(&node, &[], talk(&node, "101/net0", "102/net0"));
    assert_eq!(
        (code, &session["outputs"][0]["missing"]),
        (0, &Value::Null),
        "{session:#}"
    );
    node.nft("flush chain netdev pve-span copy/dmz/200/net1");
    let (code, session) = session_while(&node, &[], talk(&node, "101/net0", "102/net0"));
    let reason = reasons(&session).remove(1);
    assert!(
        code == 1 && reason.contains(" and 0 arrived, not about "),
        "{session:#}"
    );
}

/// The page's example, latencies left out.
#[test]
fn the_documentation_shows_what_is_printed() {
    let node = linux_three_guests();
    apply(&node, "[dmz-ids]\nsource = 101\noutput = 200/net1\n");
    let (code, stdout, _) = while_watching(&node, &["--inject", "--time", "1"], || {});
    let page = include_str!("../docs/verify.md");
    let shown = page
        .split("```console\n# pve-span verify --inject --time 1\n")
        .nth(1)
        .unwrap();
    let shown = shown.split("```").next().unwrap();
    let plain = |text: &str| {
        let lines = text.lines().map(|line| match line.split_once(" µs") {
            Some((before, _)) => {
                before.trim_end_matches(|c: char| c.is_ascii_digit() || ".< ".contains(c))
            }
            None => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!((code, plain(&stdout)), (0, plain(shown)));
}

#[test]
fn the_kernels_datapath_mirrors_no_other_way() {
    for firewall in ["", ",firewall=1"] {
        let Some(node) = lab::or_skip(Node::start_with_kernel_datapath()) else {
            return;
        };
        node.ovs_bridge("vmbr2");
        let guests = [
            vm_on(101, "bridge=vmbr2").qemu(),
            vm_on(102, &format!("bridge=vmbr2{firewall}")).qemu(),
            sensor_on(200, "bridge=vmbr2").qemu_reader(),
        ];
        node.add_all(&guests);
        node.start_guests([101, 102, 200]);
        let stream = || {
            node.stream("101/net0", "102/net0", 1 << 20);
            std::thread::sleep(Duration::from_millis(20));
        };
        let session = "[dmz]\nsource = 101, 102\noutput = 200/net1\nengine = ";
        for engine in ["ovs", "nft"] {
            apply(&node, &format!("{session}{engine}\n"));
            // In an emulated machine a connection alone may take a second.
            assert_proven(session_for("6", &node, &["--inject"], stream));
        }
    }
}
