//! How sessions do, and not only how they are configured: degraded, stalled, and what the sensor has no room for.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::time::Duration;

use lab::{Node, Watch, wait_until};
use pve_span::daemon::state::State;
use scene::linux::{linux_guests, sensor_on, vm_on};
use scene::watched::{DMZ, LINUX, OVS};
use scene::{run, stdout};

/// How often frames are counted here: every half second is enough for nftables.
const SOON: &[&str] = &["--count-every", "0.5"];

fn watched(node: &Node, span_cfg: &str) -> Watch {
    node.span_cfg(span_cfg);
    let watch = node.watch_with(SOON, |_| {});
    wait_for_state(node, "active");
    watch
}

fn health(node: &Node) -> String {
    let state = State::load(node.root()).unwrap_or_default();
    let record = state.sessions.get("dmz");
    record.map_or(String::new(), |record| record.health.word().to_owned())
}

#[track_caller]
fn wait_for_state(node: &Node, wanted: &str) {
    wait_until(&format!("the session is {wanted}"), || {
        health(node) == wanted
    });
}

/// Frames from 101 to 102 until the session is as wanted.
#[track_caller]
fn talk_until(node: &Node, wanted: &str) {
    let (sender, frame) = (
        node.sender("101/net0"),
        node.frame("101/net0", "102/net0", "talk"),
    );
    wait_until(&format!("the session is {wanted}"), || {
        sender.send(&frame);
        health(node) == wanted
    });
}

#[test]
fn a_session_whose_frames_somebody_else_takes_first_is_stalled() {
    let node = LINUX.three_guests();
    let watch = watched(&node, DMZ);
    node.nft(
        "add table netdev theirs\n\
         add chain netdev theirs in { type filter hook ingress device \"tap101i0\" priority -1000; policy drop; }",
    );
    talk_until(&node, "stalled");
    watch.wait_until_it_says("dmz is stalled: its sources have moved ");
    let (code, out, _) = run(&node, &["status"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("stalled"), "{out}");
    assert!(
        out.contains("and none was mirrored to 200/net1") && out.contains("stalled since 20"),
        "{out}"
    );
    let json = stdout(&node.pve_span(&["status", "--json"]));
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(status["sessions"][0]["state"], "stalled");
    assert!(status["sessions"][0]["since"].is_i64(), "{json}");

    node.nft("delete table netdev theirs");
    talk_until(&node, "active");
    watch.wait_until_it_says("dmz is active again, after it was stalled");
    assert_eq!(watch.times("dmz is stalled"), 1, "{}", watch.stderr());
    let (code, out, _) = run(&node, &["status", "--events"]);
    assert_eq!(code, 0);
    let order = [
        "dmz: mirrors 101/net0",
        "dmz is stalled",
        "dmz is active again",
    ];
    let places: Vec<_> = order.iter().map(|what| out.find(what)).collect();
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{out}"
    );
}

#[test]
fn a_session_whose_ovs_vswitchd_hangs_is_stalled() {
    let node = OVS.three_guests();
    let watch = watched(&node, DMZ);
    node.exchange("101/net0", "102/net0", "there");
    let (_, vswitchd) = node.ovs_pids();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(vswitchd.unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    talk_until(&node, "stalled");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    talk_until(&node, "active");
    drop(watch);
}

#[test]
fn a_source_that_loses_its_carrier_is_degraded_until_it_has_one_again() {
    let node = LINUX.three_guests();
    let cable = node.physical_unplugged("eno2");
    node.ip(&["link set eno2 down"]);
    let watch = watched(&node, "[dmz]\nsource = port:eno2\noutput = 200/net1\n");
    node.ip_wire(&[format!("link set {cable} down")]);
    wait_for_state(&node, "degraded");
    watch.wait_until_it_says("dmz is degraded: port:eno2 has no carrier");
    let (_, metrics, _) = run(&node, &["status", "--json"]);
    assert!(
        metrics.contains("\"no-carrier\"") || metrics.contains("has no carrier"),
        "{metrics}"
    );
    node.ip_wire(&[format!("link set {cable} up")]);
    wait_for_state(&node, "active");
    watch.wait_until_it_says("dmz is active again, after it was degraded");
}

#[test]
fn frames_that_are_left_out_on_purpose_are_no_stall() {
    let node = LINUX.three_guests();
    let watch = watched(
        &node,
        "[dmz]\nsource = 101\noutput = 200/net1\nfilter = tcp port 4711\n",
    );
    let (sender, frame) = (
        node.sender("101/net0"),
        node.frame("101/net0", "102/net0", "talk"),
    );
    let written = || State::load(node.root()).unwrap().written;
    let since = written();
    wait_until("several counts are over", || {
        sender.send(&frame);
        written() > since + 3
    });
    assert_eq!(health(&node), "active");
    assert_eq!(watch.times("stalled"), 0);
}

#[test]
fn a_guest_that_merely_is_off_is_no_alarm_and_a_sensor_that_is_off_is() {
    for place in [OVS, LINUX] {
        let node = place.three_guests();
        let watch = watched(&node, "[dmz]\nsource = 101, 102\noutput = 200/net1\n");
        node.stop_guest(102);
        let sources = || State::load(node.root()).unwrap().sessions["dmz"].present;
        wait_until("it is noticed", || sources() == 1);
        assert_eq!(health(&node), "active");
        node.stop_guest(101);
        wait_for_state(&node, "idle");
        assert_eq!(watch.times("degraded"), 0, "{}", watch.stderr());
        assert_eq!(run(&node, &["status"]).0, 0);

        node.start_guest(101);
        wait_for_state(&node, "active");
        node.stop_guest(200);
        watch.wait_until_it_says("dmz is degraded: nothing is mirrored to 200/net1: ");
        let (code, out, _) = run(&node, &["status"]);
        assert_eq!(code, 1);
        assert!(out.contains("degraded since 20"), "{out}");
        let blind = || State::load(node.root()).unwrap().sessions["dmz"].blind;
        let so_far = blind();
        wait_until("blind time adds up", || blind() > so_far);
        node.start_guest(200);
        watch.wait_until_it_says("dmz is active again, after it was degraded for ");
        wait_until("it is in the line for systemd", || {
            let status = watch.status_line().unwrap_or_default();
            status.starts_with("sessions: 1 active; 1 sources here")
        });
    }
}

#[test]
fn what_the_sensor_has_no_room_for_is_shown() {
    let node = linux_guests(&[
        vm_on(101, "bridge=vmbr0"),
        vm_on(102, "bridge=vmbr0"),
        sensor_on(200, "bridge=vmbr0").qemu(),
    ]);
    let _watch = watched(&node, DMZ);
    // A queue of one frame, and a program behind it that has to be woken up for each.
    node.ip(&["link set tap200i1 txqueuelen 1"]);
    let (sender, frame) = (
        node.sender("101/net0"),
        node.frame("101/net0", "102/net0", "flood").padded_to(1500),
    );
    let dropped = || {
        let state = State::load(node.root()).unwrap();
        state.sessions["dmz"].outputs["200/net1"]
            .dropped
            .unwrap_or(0)
    };
    wait_until("the sensor's port drops frames", || {
        (0..1000).for_each(|_| sender.send(&frame));
        dropped() > 0
    });
    let (code, out, _) = run(&node, &["status"]);
    assert_eq!(code, 0, "{out}");
    assert!(
        out.contains("note: 200/net1 had no room for ")
            && out.contains("the sensor does not keep up"),
        "{out}"
    );
}

#[test]
fn since_when_a_session_is_not_well_survives_the_services_restart() {
    let node = LINUX.three_guests();
    let watch = watched(&node, DMZ);
    node.stop_guest(200);
    wait_for_state(&node, "degraded");
    let since = || State::load(node.root()).unwrap().sessions["dmz"].since;
    let before = since();
    // The clock has seconds.
    wait_until("a second has passed", || {
        State::load(node.root()).unwrap().written > before + 1
    });
    watch.kill();
    let watch = node.watch_with(SOON, |_| {});
    watch.wait_until_it_says("dmz is degraded");
    assert_eq!(since(), before);
    assert!(watch.terminate() < Duration::from_secs(20));
    let (_, _, err) = run(&node, &["status"]);
    assert!(
        err.contains("the service has not been heard of since 20"),
        "{err}"
    );
}
