//! Guests that migrate to this node and away from it, under the service. The source node of a migration calls no hook at
//! all, and the target's come while the config is still filed elsewhere.

mod lab;
mod scene;

use std::time::Instant;

use lab::{Node, Watch};
use scene::watched::{
    DMZ, Place, assert_mirrored, assert_no_faults, events, followed, let_go, mentions, quiet,
    watched,
};

/// Guest 101 is mirrored by its tag; 102 has none.
fn one_by_tag(place: Place) -> (Node, Watch) {
    let node = place.guests(&[
        place.vm(101, "").tags("web"),
        place.vm(102, ""),
        place.sensor(200, ""),
    ]);
    let watch = watched(&node, "[web]\nsource = tag:web\noutput = 200/net1\n");
    (node, watch)
}

#[test]
fn an_incoming_guest_is_mirrored_before_and_after_its_config_moves() {
    for place in Place::all() {
        let node = place.guests(&[place.vm(102, ""), place.sensor(200, "")]);
        for session in [
            "[web]\nsource = tag:web\noutput = 200/net1\n",
            "[number]\nsource = 103\noutput = 200/net1\n",
            "[here]\nsource = node:pve1\nexclude = 102\noutput = 200/net1\n",
        ] {
            node.add(&place.vm(103, "").tags("web"));
            node.file_under("pve2", 103);
            let watch = watched(&node, session);
            node.start_guest(103);
            followed(&node, "incoming", "103/net0", "102/net0", Instant::now());
            let before = (watch.stderr(), events(&node));
            node.file_under("pve1", 103);
            // Once the service has seen this guest's other news it has seen the move.
            node.edit(102, |guest| guest.tags("web2"));
            quiet(&node);
            assert_mirrored(&node, "moved", "103/net0", "102/net0");
            assert_eq!((watch.stderr(), events(&node)), before, "nothing changed");
            node.stop_guest(103);
            let_go(&node, "tap103i0");
            assert_no_faults(&watch);
        }
    }
}

#[test]
fn an_outgoing_guest_is_let_go_when_its_port_goes_whenever_its_config_moves() {
    for place in Place::all() {
        let (node, watch) = one_by_tag(place);
        assert_mirrored(&node, "before", "101/net0", "102/net0");
        // The config first, as Proxmox VE does it: the port is still here, and so are its frames.
        node.file_under("pve2", 101);
        quiet(&node);
        assert_mirrored(&node, "moving", "101/net0", "102/net0");
        node.stop_guest(101);
        let_go(&node, "tap101i0");
        quiet(&node);
        // And back again; then the port first.
        node.start_guest(101);
        followed(&node, "back", "101/net0", "102/net0", Instant::now());
        node.file_under("pve1", 101);
        node.stop_guest(101);
        node.file_under("pve3", 101);
        let_go(&node, "tap101i0");
        quiet(&node);
        assert_no_faults(&watch);
    }
}

#[test]
fn a_sensor_that_migrates_is_fed_where_it_is() {
    for place in Place::all() {
        let node = place.guests(&[place.vm(101, ""), place.vm(102, "")]);
        node.add(&place.sensor(200, ""));
        node.file_under("pve2", 200);
        let _watch = watched(&node, DMZ);
        node.start_guest(200);
        followed(
            &node,
            "sensor comes",
            "101/net0",
            "102/net0",
            Instant::now(),
        );
        node.file_under("pve1", 200);
        quiet(&node);
        assert_mirrored(&node, "sensor is here", "101/net0", "102/net0");
        node.stop_guest(200);
        node.file_under("pve2", 200);
        let_go(&node, "tap200i1");
        quiet(&node);
        assert!(!node.path("run/pve-span/outputs.json").exists());
        assert!(!mentions(&scene::watched::ours(&node), "tap101i0"));
    }
}

#[test]
fn a_tag_of_a_guest_on_another_node_changes_nothing_here() {
    for place in Place::all() {
        let (node, watch) = one_by_tag(place);
        node.add(&place.vm(900, ""));
        node.file_under("pve2", 900);
        let before = watch.stderr();
        node.edit(900, |guest| guest.tags("web"));
        // This one is here, and comes later.
        node.edit(102, |guest| guest.tags("web"));
        lab::wait_until("102 is mirrored", || {
            mentions(&scene::watched::ours(&node), "tap102i0")
        });
        quiet(&node);
        let told = watch.stderr();
        assert!(!mentions(&told[before.len()..], "900"), "{told}");
        assert_no_faults(&watch);
    }
}
