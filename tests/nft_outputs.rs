//! The output's side of nftables' copies: exclusive while it is an output, as it was before afterwards; and what
//! Proxmox VE, administrators and kernels do meanwhile.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use lab::{Frame, Mac, Node};
use scene::linux::{
    ct_on, linux_guests, linux_three_guests, mixed_guests, rate_edit, sensor_on, start, vm_on,
};
use scene::{apply, counts, hook, mirrors, run, settings, their_mirror, told};

const DMZ: &str = "[dmz]\nsource = 101\noutput = 200/net1\n";

/// Is 101 mirrored, each frame once?
#[track_caller]
fn assert_mirrored(node: &Node, token: &str) {
    let mut sensor = node.capture("200/net1");
    node.exchange("101/net0", "102/net0", &format!("{token}-there"));
    node.exchange("102/net0", "101/net0", &format!("{token}-back"));
    sensor.wait_for(|frame| frame.contains(&format!("{token}-back")));
    let arrived = counts(
        &mut sensor,
        &[&format!("{token}-there"), &format!("{token}-back")],
    );
    assert_eq!(arrived, [1, 1], "{token}");
}

#[test]
fn an_output_gets_copies_only_and_what_the_sensor_sends_goes_nowhere() {
    for sensor_nic in ["bridge=vmbr0", "bridge=vmbr0,firewall=1", "bridge=vmbr2"] {
        let guests = [
            vm_on(101, "bridge=vmbr0"),
            vm_on(102, "bridge=vmbr0"),
            vm_on(103, "bridge=vmbr2"),
            sensor_on(200, sensor_nic),
        ];
        let node = mixed_guests(&guests);
        // The bridge knows where the sensor is.
        node.exchange(
            "200/net1",
            if sensor_nic == "bridge=vmbr2" {
                "103/net0"
            } else {
                "102/net0"
            },
            "hello",
        );
        let before = settings(&node, "tap200i1");
        apply(&node, DMZ);
        assert_mirrored(&node, "first");
        let mut sensor = node.capture("200/net1");
        let others: &[&str] = if sensor_nic == "bridge=vmbr2" {
            &["103/net0"]
        } else {
            &["102/net0"]
        };
        let mut guests: Vec<_> = others.iter().map(|nic| node.capture(nic)).collect();
        let neighbour = others[0];
        let everybody: Mac = "ff:ff:ff:ff:ff:ff".parse().unwrap();
        let nobody: Mac = "02:00:00:00:00:77".parse().unwrap();
        let multicast: Mac = "01:00:5e:01:02:03".parse().unwrap();
        for (token, to) in [
            ("broadcast", everybody),
            ("unknown", nobody),
            ("multicast", multicast),
            ("addressed", node.mac("200/net1")),
        ] {
            node.send(
                neighbour,
                &Frame::new(node.mac(neighbour), to).carrying(token),
            );
        }
        for to in [everybody, node.mac(neighbour)] {
            node.send(
                "200/net1",
                &Frame::new(node.mac("200/net1"), to).carrying("from-the-sensor"),
            );
        }
        node.settle();
        assert_mirrored(&node, "behind-it");
        node.send(
            neighbour,
            &Frame::new(node.mac(neighbour), node.mac("101/net0")).carrying("last"),
        );
        let stray = ["broadcast", "unknown", "multicast", "addressed"];
        // A broadcast on the source's own bridge is delivered to the source, and copied.
        let on_source_bridge = sensor_nic != "bridge=vmbr2";
        let expected = if on_source_bridge {
            [1, 1, 1, 0]
        } else {
            [0, 0, 0, 0]
        };
        let arrived = counts(&mut sensor, &stray);
        if on_source_bridge {
            assert_eq!(
                arrived[0], expected[0],
                "{sensor_nic}: copied where it was delivered, not flooded"
            );
            assert!(
                arrived[1..3].iter().all(|count| *count <= 1) && arrived[3] <= 1,
                "{sensor_nic}: {arrived:?}"
            );
        } else {
            assert_eq!(arrived, expected, "{sensor_nic}");
        }
        for guest in &mut guests {
            assert_eq!(guest.count("from-the-sensor"), 0, "{sensor_nic}");
        }
        apply(&node, "# nothing\n");
        assert_eq!(settings(&node, "tap200i1"), before, "{sensor_nic}");
        assert_eq!(node.nft_list(), "", "{sensor_nic}");
        assert_eq!(mirrors(&node), [] as [&str; 0], "{sensor_nic}");
        assert!(!node.path("run/pve-span/outputs.json").exists());
    }
}

#[test]
fn what_was_off_before_stays_off_afterwards() {
    let node = linux_three_guests();
    node.ethtool(&["-K", "tap200i1", "gso", "off"]);
    let flags = ["link", "set", "dev", "tap200i1", "learning", "off"];
    assert!(
        node.command("bridge")
            .args(flags)
            .status()
            .unwrap()
            .success()
    );
    let before = settings(&node, "tap200i1");
    apply(&node, DMZ);
    assert_ne!(settings(&node, "tap200i1"), before);
    // Another session takes over the output: nothing is put back in between.
    let during = settings(&node, "tap200i1");
    apply(&node, "[other]\nsource = 102\noutput = 200/net1\n");
    assert_eq!(settings(&node, "tap200i1"), during);
    // Without `wire` the offloads come back, the rest stays.
    apply(
        &node,
        "[other]\nsource = 102\noutput = 200/net1\nwire = no\n",
    );
    let ethtool = |node: &Node| {
        told(
            &node
                .command("ethtool")
                .args(["-k", "tap200i1"])
                .output()
                .unwrap(),
        )
    };
    assert!(before.contains(&ethtool(&node)));
    let output = node.pve_span(&["clear", "--all"]);
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(settings(&node, "tap200i1"), before);
}

#[test]
fn clearing_one_session_leaves_the_other_and_its_output() {
    let node = linux_three_guests();
    node.add(&sensor_on(201, "bridge=vmbr0"));
    node.start_guest(201);
    let before = [settings(&node, "tap200i1"), settings(&node, "tap201i1")];
    apply(
        &node,
        "[one]\nsource = 101\noutput = 200/net1\n[two]\nsource = 101\noutput = 201/net1\n[three]\nsource = 102\noutput = 200/net1\n",
    );
    let during = [settings(&node, "tap200i1"), settings(&node, "tap201i1")];
    let cleared = |name: &str| {
        let (code, out, err) = run(&node, &["clear", name]);
        assert_eq!(code, 0, "{out}{err}");
        [settings(&node, "tap200i1"), settings(&node, "tap201i1")]
    };
    assert_eq!(cleared("one"), during);
    assert_eq!(cleared("two"), [&during[0], &before[1]].map(String::clone));
    let mut sensor = node.capture("200/net1");
    node.exchange("101/net0", "102/net0", "still");
    assert_eq!(sensor.count("still"), 1, "by the session that is left");
    assert_eq!(cleared("three"), before);
    assert_eq!(node.nft_list(), "");
}

#[test]
fn a_physical_port_in_a_bridge_or_in_none_is_an_output() {
    let node = linux_three_guests();
    let _uplink = node.physical("eno1", "vmbr0");
    let bridged = node.physical("eno2", "vmbr0");
    let alone = node.physical_unplugged("eno3");
    node.introduce("101/net0", "102/net0");
    apply(
        &node,
        "[tap]\nsource = 101\noutput = port:eno2, port:eno3\ncapture-only = port:eno2\n",
    );
    let mut appliances = [node.capture(&bridged), node.capture(&alone)];
    node.exchange("101/net0", "102/net0", "there");
    node.exchange("102/net0", "101/net0", "back");
    for appliance in &mut appliances {
        appliance.wait_for(|frame| frame.contains("back"));
        assert_eq!(counts(appliance, &["there", "back"]), [1, 1]);
    }
    // What the appliance sends goes nowhere.
    let mut guest = node.capture("101/net0");
    let host: Mac = "02:00:00:00:00:99".parse().unwrap();
    node.send(
        &bridged,
        &Frame::new(host, node.mac("101/net0")).carrying("from-the-appliance"),
    );
    node.exchange("102/net0", "101/net0", "behind-it");
    assert_eq!(guest.count("from-the-appliance"), 0);
}

#[test]
fn a_sensor_that_went_and_came_back_is_bound_anew() {
    let node = linux_three_guests();
    node.introduce("101/net0", "102/net0");
    apply(&node, DMZ);
    node.crash_guest(200);
    node.start_guest(200);
    let (out, err) = hook(&node, 200, "post-start");
    assert_eq!(
        out, "pve-span: dmz: 200/net1 (nft): output tap200i1\n",
        "{err}"
    );
    assert_mirrored(&node, "anew");
    // While it is away the originals go on, and nothing is left of it.
    node.stop_guest(200);
    node.exchange("101/net0", "102/net0", "alone");
    let (out, err) = hook(&node, 200, "post-stop");
    assert_eq!(
        out, "pve-span: dmz: no longer mirrors to 200/net1 (nft): its output is not here\n",
        "{err}"
    );
    assert_eq!(node.nft_list(), "");
    assert!(!node.path("run/pve-span/outputs.json").exists());
}

#[test]
fn a_source_that_vanished_leaves_nothing_and_one_that_came_back_is_taken_again() {
    let node = linux_guests(&[
        vm_on(101, "bridge=vmbr0,firewall=1"),
        vm_on(102, "bridge=vmbr0"),
        ct_on(103, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr0"),
    ]);
    node.introduce("101/net0", "102/net0");
    let session = "[dmz]\nsource = 101, 103\noutput = 200/net1\n";
    apply(&node, session);
    assert_mirrored(&node, "first");
    node.stop_guest(101);
    node.start_guest(101);
    node.introduce("101/net0", "102/net0");
    // The same name, another device: whatever the kernel made of the chains, the hook puts it right.
    hook(&node, 101, "post-start");
    assert_mirrored(&node, "second");
    node.crash_guest(103);
    hook(&node, 103, "post-stop");
    let left = node.nft_list();
    assert!(
        !left.contains("veth103i0") && left.contains("fwpr101p0"),
        "{left}"
    );
    node.stop_guest(101);
    hook(&node, 101, "post-stop");
    assert!(!node.nft_list().contains("101"), "{}", node.nft_list());
}

#[test]
fn a_guest_that_is_about_to_stop_is_no_longer_copied() {
    let node = linux_three_guests();
    apply(&node, "[dmz]\nsource = 101, 102\noutput = 200/net1\n");
    let (out, _) = hook(&node, 101, "pre-stop");
    assert_eq!(
        out,
        "pve-span: dmz: no longer mirrors 101/net0 to 200/net1 (nft)\n"
    );
    let (out, _) = hook(&node, 101, "post-start");
    assert_eq!(out, "pve-span: dmz: mirrors 101/net0 to 200/net1 (nft)\n");
}

#[test]
fn a_rate_limit_is_edited_with_the_mirror_up() {
    let node = linux_three_guests();
    node.introduce("101/net0", "102/net0");
    apply(&node, DMZ);
    for (number, rate) in [Some(5_000_000), Some(1_000_000), None, Some(2_000_000)]
        .into_iter()
        .enumerate()
    {
        rate_edit(&node, "tap101i0", rate);
        assert_mirrored(&node, &format!("rate-{number}"));
    }
    assert_eq!(run(&node, &["plan"]).0, 0, "nothing has to be put right");
    // A limited NIC that becomes a source.
    apply(&node, "# none\n");
    apply(&node, DMZ);
    assert_mirrored(&node, "limited");
}

#[test]
fn the_firewall_checkbox_replugs_the_port_and_the_next_reconcile_follows() {
    let node = linux_three_guests();
    node.introduce("101/net0", "102/net0");
    apply(&node, DMZ);
    for (token, firewall) in [("on", "bridge=vmbr0,firewall=1"), ("off", "bridge=vmbr0")] {
        node.edit(101, |guest| {
            guest.set("net0", &format!("virtio={},{firewall}", node_mac()))
        });
        node.replug("101/net0");
        let (out, _) = hook(&node, 102, "post-start");
        assert!(
            out.starts_with("pve-span: dmz: mirrors 101/net0 to 200/net1 (nft)"),
            "{out}"
        );
        node.introduce("101/net0", "102/net0");
        assert_mirrored(&node, token);
    }
    // The sensor's, too: past its firewall bridge.
    let sensor = "virtio=BC:24:11:2A:01:C8,bridge=vmbr0,firewall=1";
    node.edit(200, |guest| guest.set("net1", sensor));
    node.replug("200/net1");
    hook(&node, 102, "post-start");
    assert_mirrored(&node, "sensor");
}

fn node_mac() -> &'static str {
    "BC:24:11:2A:00:65"
}

#[test]
fn what_others_have_in_nftables_stays_and_what_they_flush_comes_back() {
    let node = linux_three_guests();
    node.introduce("101/net0", "102/net0");
    let theirs = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t\ttcp dport 22 accept\n\t}\n}\n\
                  table netdev other {\n\tchain there {\n\t\ttype filter hook ingress device \"tap101i0\" priority filter; policy accept;\n\t\tcounter packets 0 bytes 0\n\t}\n}\n";
    node.nft(theirs);
    let before = node.nft_list();
    apply(&node, DMZ);
    assert_mirrored(&node, "first");
    apply(&node, "# none\n");
    let without_counts = |text: &str| {
        text.lines()
            .filter(|line| !line.contains("packets"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(without_counts(&node.nft_list()), without_counts(&before));
    apply(&node, DMZ);
    node.nft("flush ruleset\n");
    let (code, plan, _) = run(&node, &["plan"]);
    assert_eq!(code, 2, "{plan}");
    let (code, status, _) = run(&node, &["status"]);
    assert_eq!(code, 1, "{status}");
    let (out, _) = hook(&node, 102, "post-start");
    assert_eq!(out, "pve-span: dmz: mirrors 101/net0 to 200/net1 (nft)\n");
    assert_mirrored(&node, "back");
    // Somebody meddles with ours.
    for meddling in [
        "flush chain netdev pve-span copy/dmz/200/net1",
        "add rule netdev pve-span copy/dmz/200/net1 dup to \"tap102i0\"",
        "add chain netdev pve-span mine",
        "flush chain netdev pve-span drop/tap200i1",
        "add rule netdev pve-span in/tap101i0/200/net1 drop",
    ] {
        node.nft(&format!("{meddling}\n"));
        let (code, plan, _) = run(&node, &["plan"]);
        assert_eq!(code, 2, "{meddling}: {plan}");
        assert!(
            plan.contains("in order") || plan.contains("every frame") || plan.contains("output"),
            "{meddling}: {plan}"
        );
        hook(&node, 102, "post-start");
        assert_eq!(run(&node, &["plan"]).0, 0, "{meddling}");
    }
    assert_mirrored(&node, "mended");
}

#[test]
fn a_kernel_or_a_node_without_what_it_takes_is_found_out_and_said() {
    let node = linux_three_guests();
    let folder = tempfile::tempdir().unwrap();
    let wrapper = folder.path().join("nft");
    let script = "#!/bin/sh\ntext=$(cat)\ncase $text in *egress*) echo 'internal:0:0-0: Error: Could not process rule: Operation not supported' >&2; exit 1;; esac\nprintf '%s' \"$text\" | /usr/sbin/nft \"$@\"\n";
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(
        &wrapper,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    node.span_cfg(DMZ);
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", folder.path().display());
    let output = node
        .pve_span_command(&["apply"])
        .env("PATH", &path)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = told(&output);
    assert!(
        said.contains("this kernel has no egress hook for nftables"),
        "{said}"
    );
    assert!(!node.nft_list().contains("tap101i0"), "all or nothing");
    let status = node.pve_span(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    // The next one, on a node that has it all.
    apply(&node, DMZ);
    assert_mirrored(&node, "now");
}

#[test]
fn counters_survive_a_change_of_the_session() {
    let node = linux_three_guests();
    node.introduce("101/net0", "102/net0");
    apply(&node, DMZ);
    assert_mirrored(&node, "first");
    let frames = || {
        let status = node.pve_span(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        status["sessions"][0]["outputs"][0]["frames"]
            .as_u64()
            .unwrap()
    };
    let before = frames();
    assert!(before >= 2);
    apply(
        &node,
        "[dmz]\nsource = 101, 102\noutput = 200/net1\nfilter = not arp\n",
    );
    assert_mirrored(&node, "second");
    assert!(frames() >= before + 4, "{} after {before}", frames());
    let (_, table, _) = run(&node, &["status"]);
    assert!(table.contains("RATE"), "{table}");
}

#[test]
fn while_open_vswitch_cannot_be_asked_linux_bridges_go_on_and_nothing_is_lost() {
    let node = mixed_guests(&[
        vm_on(101, "bridge=vmbr0"),
        vm_on(102, "bridge=vmbr0"),
        vm_on(103, "bridge=vmbr2"),
        vm_on(104, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr0"),
    ]);
    node.stop_guest(104);
    node.introduce("101/net0", "102/net0");
    apply(&node, "[dmz]\nsource = 101, 103, 104\noutput = 200/net1\n");
    let before = node.nft_list();
    node.stop_ovsdb();
    node.start_guest(104);
    let (out, err) = hook(&node, 104, "post-start");
    assert_eq!(out, "pve-span: dmz: mirrors 104/net0 to 200/net1 (nft)\n");
    assert!(err.contains("cannot reach Open vSwitch"), "{err}");
    let after = node.nft_list();
    let is_kept = |line: &&str| line.contains("103") && !line.contains("packets");
    let kept: Vec<&str> = before.lines().filter(is_kept).collect();
    assert!(
        kept.len() >= 2 && kept.iter().all(|line| after.contains(line)),
        "{kept:?}\n{after}"
    );
    assert_mirrored(&node, "still");
    // It comes back, and there is nothing to do.
    node.start_ovsdb();
    node.settle();
    let (out, err) = hook(&node, 104, "post-start");
    assert_eq!((out.as_str(), err.as_str()), ("", ""));
    assert_eq!(run(&node, &["plan"]).0, 0);
}

#[test]
fn a_devices_name_may_be_anything_that_the_kernel_takes() {
    let node = linux_three_guests();
    let odd = [r#"e"1"#, "e@2", "e$3;x", "e'4{}"];
    for name in odd {
        node.ip(&[format!(
            "link add {name} type veth peer name w{} netns {}",
            &name[..2].replace('"', "q"),
            node.wire_netns()
        )]);
        node.ip(&[format!("link set {name} up")]);
    }
    let sources: Vec<String> = odd[..3].iter().map(|name| format!("port:{name}")).collect();
    apply(
        &node,
        &format!(
            "[odd]\nsource = {}\noutput = 200/net1, port:{}\n",
            sources.join(", "),
            odd[3]
        ),
    );
    assert_eq!(run(&node, &["plan"]).0, 0);
    // Whatever nft makes of the devices' names, comments end where they seem to.
    let list = node.nft_list();
    let comments = list
        .lines()
        .filter_map(|line| line.split_once(" comment \""));
    assert!(
        comments.clone().count() >= 6
            && comments
                .clone()
                .all(|(_, comment)| comment.matches('"').count() == 1)
    );
}

#[test]
fn clearing_a_session_does_not_make_its_sensor_anybodys_source() {
    let node = linux_three_guests();
    node.add(&sensor_on(201, "bridge=vmbr0"));
    node.start_guest(201);
    apply(
        &node,
        "[all]\nsource = all\noutput = 200/net1\n[one]\nsource = 101\noutput = 201/net1\n",
    );
    let (code, out, err) = run(&node, &["clear", "one"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        out,
        "one: no longer mirrors to 201/net1 (nft): cleared\ntap201i1: as before it was an output\n"
    );
    assert!(!node.nft_list().contains("tap201i1"));
}

#[test]
fn what_open_vswitch_left_behind_does_not_matter_where_it_is_not_needed() {
    let node = linux_three_guests();
    std::fs::create_dir_all(node.path("etc/openvswitch")).unwrap();
    std::fs::write(node.path("etc/openvswitch/conf.db"), "left").unwrap();
    let before = settings(&node, "tap200i1");
    node.introduce("101/net0", "102/net0");
    apply(&node, DMZ);
    assert_mirrored(&node, "first");
    let (code, status, err) = run(&node, &["status"]);
    assert_eq!((code, err.as_str()), (0, ""), "{status}");
    let (_, err) = hook(&node, 102, "post-start");
    assert_eq!(err, "");
    node.span_cfg("[other]\nsource = 101\noutput = 200/net2\n");
    run(&node, &["apply"]);
    assert_eq!(settings(&node, "tap200i1"), before, "put back");
}

#[test]
fn a_note_of_the_outputs_that_is_damaged_is_said_and_one_that_is_lost_is_made_up_for() {
    let node = linux_three_guests();
    let before = settings(&node, "tap200i1");
    apply(&node, DMZ);
    let note = node.path("run/pve-span/outputs.json");
    let good = std::fs::read(&note).unwrap();
    std::fs::write(&note, "{").unwrap();
    let (code, out, _) = run(&node, &["status"]);
    assert!(
        code == 1 && out.contains("200/net1 cannot be made ready"),
        "{out}"
    );
    assert_eq!(run(&node, &["apply"]).0, 1);
    std::fs::write(&note, good).unwrap();
    assert_eq!(run(&node, &["apply"]).0, 0);
    // Without it the bridge serves the port again.
    std::fs::remove_file(&note).unwrap();
    apply(&node, "# none\n");
    let link = |text: &str| text.lines().take(2).collect::<Vec<_>>().join("\n");
    assert_eq!(link(&settings(&node, "tap200i1")), link(&before));
}

#[test]
fn while_a_config_cannot_be_read_its_guests_frames_still_arrive_once_and_others_come_and_go() {
    let node = linux_guests(&[
        vm_on(101, "bridge=vmbr0"),
        vm_on(102, "bridge=vmbr0"),
        vm_on(103, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr0"),
    ]);
    node.introduce("101/net0", "102/net0");
    apply(&node, "[dmz]\nsource = 101-103\noutput = 200/net1\n");
    let config = node.path("etc/pve/nodes/pve1/qemu-server/101.conf");
    let text = std::fs::read(&config).unwrap();
    std::fs::remove_file(&config).unwrap();
    let (out, _) = hook(&node, 103, "pre-stop");
    assert_eq!(
        out,
        "pve-span: dmz: no longer mirrors 103/net0 to 200/net1 (nft)\n"
    );
    assert_mirrored(&node, "unreadable");
    std::fs::write(&config, text).unwrap();
    let (out, _) = hook(&node, 102, "post-start");
    assert_eq!(out, "", "nothing has changed");
}

#[test]
fn what_a_session_delivers_does_not_depend_on_who_was_first() {
    let twice = "[twice]\nsource = 101, 102\ndedup = no\noutput = 200/net1\n";
    let once = "[once]\nsource = 101, 102\noutput = 200/net1\n";
    for first in [twice, once] {
        let node = linux_three_guests();
        node.introduce("101/net0", "102/net0");
        apply(&node, first);
        apply(&node, &format!("{twice}{once}"));
        let mut sensor = node.capture("200/net1");
        node.exchange("101/net0", "102/net0", "there");
        assert_eq!(
            sensor.count("there"),
            3,
            "twice by the one, once by the other"
        );
    }
}

#[test]
fn a_guest_that_starts_is_no_news_for_sessions_that_do_not_take_it() {
    let node = linux_guests(&[
        vm_on(101, "bridge=vmbr0"),
        vm_on(102, "bridge=vmbr0"),
        vm_on(103, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr0"),
    ]);
    node.stop_guest(103);
    apply(
        &node,
        "[one]\nsource = 101, 102\noutput = 200/net1\n[two]\nsource = 103\noutput = 200/net1\n",
    );
    node.start_guest(103);
    let (out, _) = hook(&node, 103, "post-start");
    assert_eq!(out, "pve-span: two: mirrors 103/net0 to 200/net1 (nft)\n");
    assert_eq!(run(&node, &["plan"]).0, 0);
}

#[test]
fn what_a_hook_makes_is_what_the_other_commands_want_whatever_they_know_besides() {
    for session in [
        "[all]\nsource = bridge:vmbr0\noutput = 200/net1\n",
        "[twice]\nsource = 101, 102\ndedup = no\noutput = 200/net1\n",
        "[sent]\nsource = 101, 102\ndirection = from\noutput = 200/net1\n",
        DMZ,
    ] {
        let node = linux_three_guests();
        node.span_cfg(session);
        hook(&node, 101, "post-start");
        let (code, plan, _) = run(&node, &["plan"]);
        assert_eq!(code, 0, "{session}{plan}");
        // And the other way round.
        node.nft("flush ruleset\n");
        apply(&node, session);
        assert_eq!(hook(&node, 101, "post-start").0, "", "{session}");
        assert_eq!(run(&node, &["plan"]).0, 0, "{session}");
    }
}

#[test]
fn an_output_comes_back_in_the_state_that_its_bridge_port_was_in() {
    let node = linux_three_guests();
    let bridge = |args: &str| {
        let mut command = node.command("bridge");
        command.args(["link", "set", "dev", "tap200i1"]);
        assert!(command.args(args.split(' ')).status().unwrap().success());
    };
    // Blocking is STP's alone: without it the kernel has such a port forward at once.
    for (state, flood) in [
        ("learning", "off"),
        ("listening", "on"),
        ("disabled", "off"),
        ("forwarding", "on"),
    ] {
        bridge(&format!("state {state} mcast_flood {flood}"));
        let before = settings(&node, "tap200i1");
        assert!(before.contains(&format!("state {state}")), "{before}");
        apply(&node, DMZ);
        let now = settings(&node, "tap200i1");
        assert!(now.contains("state disabled"), "{now}");
        // A change of the device has the kernel take a disabled port into action again.
        node.ip(&["link set tap200i1 mtu 1400", "link set tap200i1 mtu 1500"]);
        apply(&node, DMZ);
        apply(&node, "# nothing\n");
        assert_eq!(settings(&node, "tap200i1"), before, "{state}");
    }
}

#[test]
fn a_port_that_stp_blocks_stays_with_stp() {
    let node = linux_three_guests();
    // vmbr0 has two ways to a switch with a better priority, so STP blocks the second one.
    let cables = ["eno1", "eno2"].map(|name| node.physical(name, "vmbr0"));
    let stp = "type bridge stp_state 1 forward_delay 200 hello_time 100";
    node.ip(&[format!("link set vmbr0 {stp}")]);
    node.ip_wire(&[
        format!("link add switch {stp} priority 1"),
        "link set switch up".to_owned(),
        format!("link set {} master switch", cables[0]),
        format!("link set {} master switch", cables[1]),
    ]);
    let state = |device: &str, state: &str| {
        let words = format!("state {state} ");
        settings(&node, device).contains(&words)
    };
    lab::wait_until("STP blocks one of them", || {
        state("eno1", "forwarding") && state("eno2", "blocking")
    });
    let before = settings(&node, "eno2");
    let session = "[dmz]\nsource = 101\noutput = port:eno2\ncapture-only = port:eno2\n";
    apply(&node, session);
    assert!(state("eno2", "blocking"), "{}", settings(&node, "eno2"));
    node.introduce("101/net0", "102/net0");
    let mut copies = node.capture(&cables[1]);
    node.exchange("101/net0", "102/net0", "there");
    copies.wait_for(|frame| frame.contains("there"));
    assert_eq!(run(&node, &["plan"]).0, 0);
    apply(&node, "# nothing\n");
    assert_eq!(settings(&node, "eno2"), before);
}

#[test]
fn an_output_that_moves_to_another_bridge_comes_back_as_that_bridge_had_it() {
    let node = linux_three_guests();
    node.linux_bridge("vmbr1");
    let mut command = node.command("bridge");
    command.args(["link", "set", "dev", "tap200i1", "mcast_flood", "off"]);
    assert!(command.status().unwrap().success());
    apply(&node, DMZ);
    node.ip(&["link set tap200i1 master vmbr1"]);
    let before = settings(&node, "tap200i1");
    assert!(before.contains("mcast_flood on"), "{before}");
    apply(&node, DMZ);
    apply(&node, "# nothing\n");
    let flags = |text: &str| text.lines().next().map(str::to_owned);
    assert_eq!(flags(&settings(&node, "tap200i1")), flags(&before));
}

/// A row as they were before: a session's own, without sources.
fn own_row(node: &Node, session: &str) {
    let ids = [
        format!("external_ids:pve-span={session}"),
        "external_ids:pve-span-output=200/net1".to_owned(),
    ];
    let name = format!("name=pve-span/{session}/200/net1");
    their_mirror(node, &[&name, "output_port=@tap200i1", &ids[0], &ids[1]]);
}

#[test]
fn many_sessions_with_one_output_need_one_of_the_bridges_mirrors() {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    start(
        &node,
        &[
            vm_on(101, "bridge=vmbr2"),
            vm_on(102, "bridge=vmbr2"),
            sensor_on(200, "bridge=vmbr2"),
        ],
    );
    let session = |number: u32, source: u32| {
        format!("[s{number:02}]\nsource = {source}\nengine = nft\noutput = 200/net1\n")
    };
    let forty: String = (0..40)
        .map(|number| session(number, 101 + number % 2))
        .collect();
    // As it was before: 32 rows, and eight sessions without.
    for number in 5..37 {
        own_row(&node, &format!("s{number:02}"));
    }
    node.introduce("101/net0", "102/net0");
    let load = node.load("101/net0", "102/net0", "load", 500);
    node.span_cfg(&forty);
    let (code, out, err) = run(&node, &["apply"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(
        mirrors(&node),
        ["s05 tap200i1: from , to "],
        "one of those that were there"
    );
    assert_eq!(run(&node, &["plan"]).0, 0);
    let (code, out, _) = run(&node, &["status"]);
    assert_eq!((code, out.matches("degraded").count()), (0, 0), "{out}");
    // Whoever goes, the port stays reserved for the others: by one that is there, and for as long as there is one.
    let (code, out, err) = run(&node, &["clear", "s05"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(mirrors(&node), ["s00 tap200i1: from , to "]);
    apply(&node, &forty);
    assert_eq!(
        mirrors(&node),
        ["s00 tap200i1: from , to "],
        "and not back again"
    );
    node.span_cfg(&session(1, 102));
    assert_eq!(run(&node, &["apply"]).0, 0);
    assert_eq!(mirrors(&node), ["s01 tap200i1: from , to "]);
    let (sent, tally) = load.finish();
    assert_eq!(tally.lost(0..sent), [], "{tally:?}");
    assert_eq!(tally.doubled(), [0; 0], "{tally:?}");
    apply(&node, "# nothing\n");
    assert_eq!(mirrors(&node), [] as [&str; 0]);
}

#[test]
fn a_mirror_with_sources_keeps_its_output_free_for_others_too() {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    node.linux_bridge("vmbr0");
    start(
        &node,
        &[
            vm_on(101, "bridge=vmbr2"),
            vm_on(102, "bridge=vmbr0"),
            sensor_on(200, "bridge=vmbr2"),
        ],
    );
    // 102 is on a Linux bridge, so nftables copies it, and Open vSwitch mirrors 101.
    apply(
        &node,
        "[a]\nsource = 101\noutput = 200/net1\n[b]\nsource = 102\noutput = 200/net1\n",
    );
    assert_eq!(mirrors(&node), ["a tap200i1: from tap101i0, to tap101i0"]);
    // Its source goes, and it stays for the other one's sake.
    node.stop_guest(101);
    hook(&node, 101, "post-stop");
    assert_eq!(mirrors(&node), ["a tap200i1: from , to "]);
    assert_eq!(run(&node, &["plan"]).0, 0);
    node.stop_guest(102);
    hook(&node, 102, "post-stop");
    assert_eq!(mirrors(&node), [] as [&str; 0]);
}
