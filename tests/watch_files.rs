//! Files that change under the service: span.cfg, guest configs, pools; and /etc/pve as a whole.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::time::Instant;

use lab::{Node, wait_until};
use scene::settings;
use scene::watched::{
    DMZ, OVS, Place, assert_mirrored, assert_no_faults, events, followed, let_go, mentions, ours,
    quiet, watched,
};

const BOTH: &str = "[dmz]\nsource = 101, 102\noutput = 200/net1\n";

#[track_caller]
fn taken(node: &Node, device: &str) {
    wait_until(&format!("{device} is mirrored"), || {
        mentions(&ours(node), device)
    });
}

#[test]
fn a_tag_added_and_taken_away_is_followed() {
    for place in Place::all() {
        let node = place.three_guests();
        let watch = watched(&node, "[web]\nsource = tag:web\noutput = 200/net1\n");
        for _ in 0..2 {
            node.edit(101, |guest| guest.tags("prod;web"));
            followed(&node, "tag", "101/net0", "102/net0", Instant::now());
            node.edit(101, |guest| guest.tags("prod"));
            let_go(&node, "tap101i0");
        }
        quiet(&node);
        assert_no_faults(&watch);
    }
}

#[test]
fn a_config_that_is_written_in_place_is_followed() {
    let node = OVS.three_guests();
    let watch = watched(&node, "[web]\nsource = tag:web\noutput = 200/net1\n");
    let conf = node.path("etc/pve/nodes/pve1/qemu-server/101.conf");
    let before = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(&conf, format!("{before}tags: web\n")).unwrap();
    // What tells of it is the list alone, as when another node has written.
    node.edit(102, |guest| guest);
    let list = node.path("etc/pve/.vmlist");
    let text = std::fs::read_to_string(&list).unwrap();
    let line = text.lines().find(|line| line.contains("\"101\"")).unwrap();
    let newer = line.replace("\"version\": ", "\"version\": 9");
    assert_ne!(line, newer);
    std::fs::write(&list, text.replace(line, &newer)).unwrap();
    followed(&node, "in place", "101/net0", "102/net0", Instant::now());
    assert_no_faults(&watch);
}

#[test]
fn a_pool_that_changes_is_followed() {
    for place in Place::all() {
        let node = place.three_guests();
        let watch = watched(&node, "[prod]\nsource = pool:prod\noutput = 200/net1\n");
        node.user_cfg("user:root@pam:1:0:::root@example.invalid:::\npool:prod:Production:101:::\n");
        followed(&node, "pool", "101/net0", "102/net0", Instant::now());
        node.user_cfg("user:root@pam:1:0:::root@example.invalid:::\npool:prod:Production::::\n");
        let_go(&node, "tap101i0");
        quiet(&node);
        assert_no_faults(&watch);
    }
}

#[test]
fn an_edited_file_is_followed() {
    for place in Place::all() {
        let node = place.guests(&[
            place.vm(101, ""),
            place.vm(102, ""),
            place.sensor(200, ""),
            place.sensor(201, ""),
        ]);
        let before = settings(&node, "tap200i1");
        let watch = watched(&node, DMZ);
        assert_mirrored(&node, "before", "101/net0", "102/net0");
        node.span_cfg(BOTH);
        taken(&node, "tap102i0");
        quiet(&node);
        assert_mirrored(&node, "both", "101/net0", "102/net0");
        // Another output: the old one is given back.
        node.span_cfg(&BOTH.replace("200/net1", "201/net1"));
        let since = Instant::now();
        let after = node.arrives("101/net0", "102/net0", "201/net1", since);
        scene::watched::say_after("another output", after);
        let_go(&node, "tap200i1");
        quiet(&node);
        assert_eq!(settings(&node, "tap200i1"), before);
        // And none at all.
        node.span_cfg("# nothing\n");
        wait_until("nothing of ours is left", || ours(&node).is_empty());
        quiet(&node);
        assert!(!node.path("run/pve-span/outputs.json").exists());
        node.span_cfg(DMZ);
        followed(&node, "edited", "101/net0", "102/net0", Instant::now());
        assert_no_faults(&watch);
    }
}

#[test]
fn an_edit_that_keeps_length_and_time_is_followed() {
    let node = OVS.three_guests();
    let _watch = watched(&node, DMZ);
    let path = node.path("etc/pve/span.cfg");
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    node.span_cfg(&DMZ.replace("101", "102"));
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(time).unwrap();
    let_go(&node, "tap101i0");
    taken(&node, "tap102i0");
}

#[test]
fn a_broken_file_changes_nothing_is_told_once_and_is_followed_again_when_mended() {
    for place in Place::all() {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        let before = ours(&node);
        node.span_cfg("[dmz]\nsouce = 101\noutput = 200/net1\n");
        watch.wait_until_it_says("stays in force");
        assert_mirrored(&node, "broken", "101/net0", "102/net0");
        // What happens meanwhile is followed by the last good copy.
        node.unplug("101/net0");
        node.plug("101/net0");
        followed(
            &node,
            "by the last good copy",
            "101/net0",
            "102/net0",
            Instant::now(),
        );
        assert_eq!(watch.faults("stays in force"), 1, "{}", watch.stderr());
        assert_eq!(
            mentions(&before, "tap101i0"),
            mentions(&ours(&node), "tap101i0")
        );
        node.span_cfg(BOTH);
        taken(&node, "tap102i0");
        quiet(&node);
        // The next fault is news again.
        node.span_cfg("[dmz\n");
        wait_until("it is told again", || watch.faults("stays in force") == 2);
    }
}

#[test]
fn an_unmounted_etc_pve_changes_nothing_and_is_followed_again_when_mounted() {
    for place in Place::all() {
        let node = place.three_guests();
        let watch = watched(&node, BOTH);
        node.unmount_pve();
        watch.wait_until_it_says("is not mounted");
        assert_mirrored(&node, "unmounted", "101/net0", "102/net0");
        node.unplug("101/net0");
        node.plug("101/net0");
        // Its MAC address stands in a config that is away; without it a frame between two sources cannot be told to have
        // been copied already.
        let after = node.arrives("101/net0", "102/net0", "200/net1", Instant::now());
        scene::watched::say_after("while unmounted", after);
        assert_eq!(watch.faults("is not mounted"), 1, "{}", watch.stderr());
        node.mount_pve();
        watch.wait_until_it_says("over after");
        quiet(&node);
        assert_mirrored(&node, "mounted", "101/net0", "102/net0");
        // Written while it was away.
        node.unmount_pve();
        node.span_cfg(DMZ);
        wait_until("it is told again", || watch.faults("is not mounted") == 2);
        assert!(mentions(&ours(&node), "tap102i0"), "{}", ours(&node));
        node.mount_pve();
        let_go(&node, "tap102i0");
        quiet(&node);
        assert_mirrored(&node, "mounted again", "101/net0", "102/net0");
    }
}

#[test]
fn a_missing_file_changes_nothing_once_there_was_a_good_one() {
    let node = OVS.three_guests();
    let watch = watched(&node, DMZ);
    std::fs::remove_file(node.path("etc/pve/span.cfg")).unwrap();
    node.unplug("101/net0");
    node.plug("101/net0");
    let since = Instant::now();
    let after = node.arrives("101/net0", "102/net0", "200/net1", since);
    scene::watched::say_after("without a file", after);
    assert_mirrored(&node, "without", "101/net0", "102/net0");
    node.span_cfg("# nothing\n");
    let_go(&node, "tap101i0");
    drop(watch);
}

#[test]
fn a_session_whose_time_is_over_ends_by_itself() {
    for place in Place::all() {
        let node = place.three_guests();
        let before = settings(&node, "tap200i1");
        let end = jiff::Timestamp::now().as_second() + 5;
        let end = jiff::Timestamp::from_second(end).unwrap();
        let watch = watched(&node, &format!("{DMZ}expires = {end}\n"));
        if jiff::Timestamp::now() < end {
            wait_until("101 is mirrored, or it is too late", || {
                mentions(&ours(&node), "tap101i0") || jiff::Timestamp::now() >= end
            });
        }
        wait_until("nothing of ours is left", || ours(&node).is_empty());
        assert!(jiff::Timestamp::now() >= end, "not before its time");
        wait_until("the port is as before", || {
            settings(&node, "tap200i1") == before
        });
        quiet(&node);
        assert!(
            events(&node)
                .iter()
                .any(|event| event.starts_with("watch: dmz: ")),
            "{:#?}",
            events(&node)
        );
        assert_no_faults(&watch);
    }
}

#[test]
fn a_file_that_comes_only_after_the_start_is_followed() {
    for place in Place::all() {
        let node = place.three_guests();
        let watch = node.watch();
        node.span_cfg(DMZ);
        followed(&node, "first file", "101/net0", "102/net0", Instant::now());
        assert_no_faults(&watch);
    }
}
