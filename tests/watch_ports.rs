//! Ports that come, go and change under the service, without a hook.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::time::Instant;

use scene::linux::{mixed_guests, rate_edit, sensor_on, vm_on};
use scene::watched::{
    DMZ, LINUX, MIXED, OVS, Place, assert_mirrored, assert_no_faults, events, followed, let_go,
    ours, quiet, watched,
};

#[test]
fn a_nic_that_is_hotplugged_is_mirrored_and_one_that_is_pulled_is_not() {
    for place in Place::all() {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        assert_mirrored(&node, "before", "101/net0", "102/net0");
        let second = format!("virtio=BC:24:11:2A:F1:65,bridge={}", place.sources);
        for round in ["hotplug", "hotplug again"] {
            node.edit(101, |guest| guest.net(1, &second));
            node.plug("101/net1");
            followed(&node, round, "101/net1", "102/net0", Instant::now());
            node.unplug("101/net1");
            let_go(&node, "tap101i1");
        }
        quiet(&node);
        assert_mirrored(&node, "after", "101/net0", "102/net0");
        assert_no_faults(&watch);
    }
}

#[test]
fn a_guest_that_is_plugged_behind_a_firewall_bridge_is_mirrored() {
    for place in Place::all() {
        let node = place.guests(&[place.vm(102, ""), place.sensor(200, "")]);
        let watch = watched(&node, DMZ);
        node.add(&place.vm(101, ",firewall=1"));
        node.start_guest(101);
        followed(
            &node,
            "start behind a firewall bridge",
            "101/net0",
            "102/net0",
            Instant::now(),
        );
        assert_no_faults(&watch);
    }
}

#[test]
fn a_changed_vlan_tag_is_followed() {
    for place in Place::all() {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        for tag in [",tag=20", ",tag=30", ""] {
            for vmid in [102, 101] {
                node.add(&place.vm(vmid, tag));
                node.replug(&format!("{vmid}/net0"));
            }
            followed(&node, "tag", "101/net0", "102/net0", Instant::now());
        }
        assert_no_faults(&watch);
    }
}

#[test]
fn the_firewall_checkbox_is_followed_both_ways() {
    for place in Place::all() {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        for (what, more) in [
            ("firewall on", ",firewall=1"),
            ("firewall off", ""),
            ("firewall on again", ",firewall=1"),
        ] {
            let old = node.bridge_port("101/net0");
            node.add(&place.vm(101, more));
            node.replug("101/net0");
            followed(&node, what, "101/net0", "102/net0", Instant::now());
            // What is mirrored is the bridge's port, and there is no second one.
            let_go(&node, &old);
        }
        assert_no_faults(&watch);
    }
}

#[test]
fn a_source_that_moves_between_an_ovs_bridge_and_a_linux_bridge_changes_the_engine() {
    for sensor in ["bridge=vmbr2", "bridge=vmbr0"] {
        let node = mixed_guests(&[
            vm_on(101, "bridge=vmbr2"),
            vm_on(102, "bridge=vmbr2"),
            sensor_on(200, sensor),
        ]);
        let watch = watched(&node, DMZ);
        assert_mirrored(&node, "before", "101/net0", "102/net0");
        for bridge in ["vmbr0", "vmbr2", "vmbr0"] {
            for vmid in [102, 101] {
                node.add(&vm_on(vmid, &format!("bridge={bridge}")));
                node.replug(&format!("{vmid}/net0"));
            }
            followed(
                &node,
                &format!("to {bridge}"),
                "101/net0",
                "102/net0",
                Instant::now(),
            );
            let is_row = ours(&node).contains("dmz tap200i1: from tap101i0");
            let expected = sensor == "bridge=vmbr2" && bridge == "vmbr2";
            assert_eq!(is_row, expected, "{sensor}, {bridge}: {}", ours(&node));
        }
        assert_no_faults(&watch);
    }
}

#[test]
fn a_rate_limit_is_edited_and_nobody_has_to_do_anything() {
    for place in Place::all() {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        let before = (ours(&node), watch.stderr());
        for (number, rate) in [Some(5_000_000), Some(1_000_000), None, Some(2_000_000)]
            .into_iter()
            .enumerate()
        {
            rate_edit(&node, "tap101i0", rate);
            assert_mirrored(&node, &format!("rate-{number}"), "101/net0", "102/net0");
            quiet(&node);
        }
        let without_counts = |text: &str| {
            let lines = text.lines().filter(|line| !line.contains("packets"));
            lines.collect::<Vec<_>>().join("\n")
        };
        assert_eq!(without_counts(&ours(&node)), without_counts(&before.0));
        assert_eq!(watch.stderr(), before.1, "nothing to be said");
    }
}

#[test]
fn a_limited_source_that_is_plugged_anew_is_mirrored_and_its_limit_can_be_edited() {
    for place in [OVS, LINUX] {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        for number in 0..3 {
            node.stop_guest(101);
            node.start_guest(101);
            rate_edit(&node, "tap101i0", Some(3_000_000));
            followed(
                &node,
                &format!("limited-{number}"),
                "101/net0",
                "102/net0",
                Instant::now(),
            );
        }
        assert_no_faults(&watch);
    }
}

#[test]
fn a_port_that_is_taken_out_and_put_back_by_hand_is_mirrored_again() {
    for place in [OVS, MIXED] {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        for number in 0..3 {
            node.ovs_vsctl(&["del-port", "tap101i0"]);
            node.ovs_vsctl(&["add-port", "vmbr2", "tap101i0"]);
            followed(
                &node,
                &format!("by hand {number}"),
                "101/net0",
                "102/net0",
                Instant::now(),
            );
            // In one transaction: the port has another row, and nothing else shows it.
            node.ovs_vsctl(&[
                "del-port", "tap101i0", "--", "add-port", "vmbr2", "tap101i0",
            ]);
            followed(
                &node,
                &format!("at once {number}"),
                "101/net0",
                "102/net0",
                Instant::now(),
            );
        }
        assert_no_faults(&watch);
    }
    let node = LINUX.three_guests();
    let watch = watched(&node, DMZ);
    node.ip(&["link set tap101i0 nomaster"]);
    node.ip(&["link set tap101i0 master vmbr0"]);
    followed(&node, "by hand", "101/net0", "102/net0", Instant::now());
    assert_no_faults(&watch);
}

#[test]
fn a_physical_port_that_is_plugged_later_becomes_the_output() {
    for place in Place::all() {
        let node = place.three_guests();
        let session = "[tap]\nsource = 101\noutput = port:eno2\ncapture-only = port:eno2\n";
        node.span_cfg(session);
        let _watch = node.watch();
        let _uplink = node.physical("eno1", place.sensor);
        let cable = node.physical("eno2", place.sensor);
        let since = Instant::now();
        let after = node.arrives("101/net0", "102/net0", &cable, since);
        scene::watched::say_after("a physical output", after);
        quiet(&node);
        scene::watched::assert_mirrored_at(&node, &cable, "tap", "101/net0", "102/net0");
    }
}

#[test]
fn a_whole_bridge_is_mirrored_with_whatever_is_plugged_into_it_later() {
    for place in Place::all() {
        let node = place.guests(&[place.vm(102, ""), place.sensor(200, "")]);
        let session = format!(
            "[all]\nsource = bridge:{}\noutput = 200/net1\n",
            place.sources
        );
        let watch = watched(&node, &session);
        node.add(&place.vm(101, ""));
        node.start_guest(101);
        followed(
            &node,
            "onto a whole bridge",
            "101/net0",
            "102/net0",
            Instant::now(),
        );
        node.add(&place.vm(101, ",firewall=1"));
        node.replug("101/net0");
        followed(&node, "firewall", "101/net0", "102/net0", Instant::now());
        assert_no_faults(&watch);
    }
}

#[test]
fn what_was_changed_is_on_record() {
    for place in [OVS, LINUX] {
        let node = place.three_guests();
        let _watch = watched(&node, DMZ);
        node.unplug("101/net0");
        let_go(&node, "tap101i0");
        quiet(&node);
        let before = events(&node).len();
        node.plug("101/net0");
        followed(&node, "replug", "101/net0", "102/net0", Instant::now());
        let told = events(&node);
        let mirrored = told[before..]
            .iter()
            .filter(|event| event.starts_with("watch: dmz: ") && event.contains("101/net0"));
        assert_eq!(mirrored.count(), 1, "{told:#?}");
    }
}
