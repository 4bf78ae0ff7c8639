//! What breaks around us: hung and dead daemons, hung files, full bridges, ports that vanish.

#![allow(clippy::unwrap_used, clippy::panic)]

mod fuse;
mod lab;
mod scene;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use lab::{Node, wait_until};
use nix::sched::{CloneFlags, unshare};
use pve_span::engine::ovs;
use pve_span::reconcile::lock::Lock;
use pve_span::sys;
use pve_span_core::plan::{MAX_MIRRORS, plan};
use pve_span_core::state::{Assumptions, Observed, OvsState};
use scene::{apply, guests, hook, mirrors, sensor, stderr, their_mirror, three_guests, told, vm};

const SPAN_CFG: &str = "[dmz]\nsource = 101\noutput = 200/net1\n";
const MIRRORED: &str = "dmz tap200i1: from tap101i0, to tap101i0";

/// The hook, with a short deadline; it exits with 0 (and within the laboratory's own bound, or this panics).
#[track_caller]
fn hurried_hook(node: &Node, vmid: u32, phase: &str) -> (String, String) {
    let mut command = node.hook_command(vmid, phase);
    command.args(["--deadline", "3"]);
    let output = lab::try_run(command, "");
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    (scene::stdout(&output), stderr(node, &output))
}

#[test]
fn a_hung_ovsdb_server_does_not_hold_the_hook() {
    let node = three_guests();
    apply(&node, SPAN_CFG);
    node.pause_ovsdb();
    let (_, err) = hurried_hook(&node, 101, "pre-stop");
    assert!(err.contains("cannot reach Open vSwitch, existing mirrors are kept: ovsdb-server did not answer within"), "{err}");
    node.resume_ovsdb();
    assert_eq!(mirrors(&node), [MIRRORED]);
    hook(&node, 101, "pre-stop");
    assert_eq!(mirrors(&node), [] as [&str; 0]);
}

#[test]
fn many_hooks_on_a_hung_ovsdb_server_all_end() {
    let node = three_guests();
    apply(&node, SPAN_CFG);
    node.pause_ovsdb();
    let spawn = |_| {
        let mut command = node.hook_command(101, "post-start");
        command
            .args(["--deadline", "0.5"])
            .stderr(std::process::Stdio::null());
        command.spawn().unwrap()
    };
    let children: Vec<_> = (0..100).map(spawn).collect();
    for mut child in children {
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    node.resume_ovsdb();
    assert_eq!(mirrors(&node), [MIRRORED]);
}

#[test]
fn a_hung_file_does_not_hold_the_hook() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    // The cluster filesystem takes the request and never answers: nothing can interrupt the reader.
    // The mount is in a mount namespace of its own, and goes with the thread that made it.
    let hang = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let hung = fuse::mount_hung(&node.path("etc/pve"));
        let told = hurried_hook(&node, 101, "post-start");
        (told, hung.requests())
    };
    let ((out, err), requests) = std::thread::scope(|scope| scope.spawn(hang).join().unwrap());
    assert_eq!(out, "");
    assert_eq!(
        err,
        "pve-span: error: guest 101: /etc/pve does not answer: does pmxcfs hang? (systemctl status pve-cluster); \
         there is no last good copy, so nothing is changed\n\
         pve-span: error: guest 101: cannot tell whether another hookscript is to be called after pve-span, so none is: its record was not read in time\n"
    );
    assert!(requests > 0, "the hook has asked it something");
    // As soon as the one that hung has ended, it is asked again.
    wait_until("it is mirrored", || {
        hook(&node, 101, "post-start");
        mirrors(&node) == [MIRRORED]
    });
}

#[test]
fn a_lock_that_is_never_released_does_not_hold_the_hook() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    let held = pve_span::reconcile::lock::Lock::acquire(
        node.root(),
        Instant::now() + Duration::from_secs(5),
    )
    .unwrap();
    let (_, err) = hurried_hook(&node, 101, "post-start");
    assert!(
        err.starts_with(
            "pve-span: error: guest 101: another pve-span has held /run/pve-span.lock for more than"
        ),
        "{err}"
    );
    drop(held);
    hook(&node, 101, "post-start");
    assert_eq!(mirrors(&node), [MIRRORED]);
}

#[test]
fn without_ovsdb_server_nothing_is_lost_and_it_is_said() {
    let node = three_guests();
    apply(&node, SPAN_CFG);
    node.stop_ovsdb();
    let (_, err) = hook(&node, 101, "post-start");
    let expected =
        "there is no /run/openvswitch/db.sock: Open vSwitch is not installed or not running";
    assert!(err.contains(expected), "{err}");
    // Its database keeps our mirrors: nobody may say that there is nothing, or that it is done.
    node.span_cfg("# nothing any more\n");
    for (args, code) in [
        (vec!["status"], 2),
        (vec!["ports"], 2),
        (vec!["plan"], 1),
        (vec!["apply"], 1),
        (vec!["clear", "--all"], 1),
        (vec!["clear", "dmz"], 1),
    ] {
        let output = node.pve_span(&args);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{args:?}: {}",
            told(&output)
        );
        assert!(
            stderr(&node, &output).contains(expected),
            "{args:?}: {}",
            told(&output)
        );
    }
    node.start_ovsdb();
    assert_eq!(mirrors(&node), [MIRRORED]);
}

#[test]
fn a_socket_that_nobody_listens_to_is_said() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    node.stop_ovsdb();
    let socket = node.path("run/openvswitch/db.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let output = node.pve_span(&["status"]);
    assert_eq!(output.status.code(), Some(2), "cannot tell");
    assert_eq!(
        stderr(&node, &output),
        "pve-span: error: cannot reach Open vSwitch, existing mirrors are kept: cannot connect to /run/openvswitch/db.sock: \
         is ovsdb-server running? (systemctl status openvswitch-switch): Connection refused (os error 111)\n"
    );
    std::fs::remove_file(socket).unwrap();
    node.start_ovsdb();
}

#[test]
fn committed_but_not_yet_applied_is_told_apart() {
    let node = three_guests();
    node.kill_vswitchd();
    node.span_cfg(SPAN_CFG);
    let output = node.pve_span(&["apply"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        scene::stdout(&output),
        "dmz: mirrors 101/net0 to 200/net1 (ovs, vmbr2)\n\
         output 200/net1 (tap200i1): offloads off, for frames as on a wire\n"
    );
    assert_eq!(
        stderr(&node, &output),
        "pve-span: warning: committed to Open vSwitch's database, but ovs-vswitchd has not acted on it yet; \
         is it running? (systemctl status openvswitch-switch)\n"
    );
    assert_eq!(mirrors(&node), [MIRRORED]);
    let status = node.pve_span(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(
        told(&status).contains("ovs-vswitchd has not acted on it yet"),
        "{}",
        told(&status)
    );
    node.start_vswitchd();
    wait_until("it is all done", || {
        node.pve_span(&["apply"]).status.success()
    });
    let output = node.pve_span(&["status"]);
    assert!(output.status.success(), "{}", told(&output));
}

#[test]
fn ovs_vswitchd_is_waited_for_once_and_not_by_everybody() {
    let node = three_guests();
    apply(&node, SPAN_CFG);
    node.kill_vswitchd();
    let memory = || pve_span::reconcile::lock::peek(node.root());
    hook(&node, 101, "pre-stop");
    let stuck_at = memory().stuck_at;
    assert!(stuck_at.is_some());
    let (_, err) = hook(&node, 101, "post-start");
    assert!(
        err.contains("ovs-vswitchd has not acted on it yet"),
        "{err}"
    );
    assert_eq!(memory().stuck_at, stuck_at);
    // With all the patience of the world the next one does not wait.
    let commit = |text: &str, patience: Duration, stuck_at: Option<i64>| {
        let (observed, mut client) = observed(&node);
        let plan = wanted(&node, text, &observed);
        let OvsState::Present(ovs) = &observed.ovs else {
            panic!("{observed:?}")
        };
        let (_, goal) = ovs::commit(&mut client, &plan, ovs, "test").unwrap();
        ovs::wait(client, goal, Instant::now() + patience, stuck_at)
    };
    let an_age = Duration::from_secs(1_000_000);
    let waited = commit("# nothing\n", an_age, stuck_at);
    assert_eq!(waited, ovs::WaitResult::InVain { stuck_at });
    node.start_vswitchd();
    assert_eq!(commit(SPAN_CFG, an_age, stuck_at), ovs::WaitResult::Reached);
    hook(&node, 101, "pre-stop");
    assert_eq!(memory().stuck_at, None);
}

#[test]
fn an_ovsdb_server_that_hangs_is_waited_for_once_and_not_by_everybody() {
    let node = three_guests();
    apply(&node, SPAN_CFG);
    let memory = || pve_span::reconcile::lock::peek(node.root());
    node.pause_ovsdb();
    let (_, err) = hook(&node, 101, "pre-stop");
    assert!(err.contains("cannot reach Open vSwitch"), "{err}");
    assert!(memory().is_ovs_silent);
    let (_, err) = hook(&node, 101, "pre-stop");
    assert!(err.contains("cannot reach Open vSwitch"), "{err}");
    assert!(memory().is_ovs_silent);
    node.resume_ovsdb();
    wait_until("it is asked, and answers", || {
        hook(&node, 101, "post-start");
        !memory().is_ovs_silent
    });
    assert_eq!(mirrors(&node), [MIRRORED]);
}

#[test]
fn a_full_bridge_is_said_before_the_database_sees_it() {
    let node = three_guests();
    let names: Vec<String> = (1..MAX_MIRRORS)
        .map(|number| format!("name=theirs{number}"))
        .collect();
    for name in &names {
        their_mirror(&node, &[name]);
    }
    node.span_cfg("[a]\nsource = 101\noutput = 200/net1\n[b]\nsource = 102\noutput = 200/net1\n");
    let output = node.pve_span(&["apply"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(mirrors(&node), ["a tap200i1: from tap101i0, to tap101i0"]);
    assert_eq!(
        stderr(&node, &output),
        "pve-span: error: b: no mirror to 200/net1 on vmbr2: Open vSwitch allows 32 mirrors a bridge, and it has that many \
         (31 of them not pve-span's); use fewer sessions or outputs on this bridge\n"
    );
    let plan = node.pve_span(&["plan"]);
    assert_eq!(plan.status.code(), Some(1), "{}", told(&plan));
    // Making room needs no second try.
    node.span_cfg("[b]\nsource = 102\noutput = 200/net1\n");
    let output = node.pve_span(&["apply"]);
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(mirrors(&node), ["b tap200i1: from tap102i0, to tap102i0"]);
}

#[test]
fn somebody_elses_mirror_to_the_same_port_is_said_and_left_alone() {
    let node = three_guests();
    their_mirror(
        &node,
        &["name=theirs", "select_all=true", "output_port=@tap200i1"],
    );
    node.span_cfg(SPAN_CFG);
    let output = node.pve_span(&["apply"]);
    assert!(output.status.success());
    assert_eq!(
        told(&output),
        "dmz: mirrors 101/net0 to 200/net1 (ovs, vmbr2)\n\
         output 200/net1 (tap200i1): offloads off, for frames as on a wire\n\
         dmz: note: 200/net1 is also the output of mirror `theirs`, which is not pve-span's: its frames arrive there too, and it \
         is left alone\n"
    );
    assert!(told(&node.pve_span(&["status"])).contains("also the output of mirror `theirs`"));
}

/// What the engine does between its read and its write, step by step.
fn observed(node: &Node) -> (Observed, ovs::Client) {
    let (ovs, client) = ovs::observe(
        node.root(),
        &ovs::PortSelection::All,
        Instant::now() + Duration::from_secs(20),
    );
    (
        Observed {
            links: node.inside(|| sys::links().unwrap()),
            ovs,
            ..Observed::default()
        },
        client.unwrap(),
    )
}

fn wanted(node: &Node, text: &str, observed: &Observed) -> pve_span_core::plan::Plan {
    // No config is asked for, so nobody can tell whether the output is free.
    let output = "output = 200/net1\n";
    let text = text.replace(output, &format!("{output}capture-only = 200/net1\n"));
    let annotations = pve_span_core::config::parse("span.cfg", &text);
    assert!(
        annotations.is_valid(),
        "{:?} {}",
        annotations.diagnostics,
        node.netns()
    );
    let cluster = pve_span_core::pve::cluster::Cluster::unknown("not asked");
    let desired =
        pve_span_core::resolve::resolve(&annotations, &cluster, observed, &Assumptions::default());
    plan(&desired, observed)
}

#[test]
fn a_port_that_vanishes_between_read_and_write_is_a_conflict_and_nothing_is_done() {
    let node = three_guests();
    let (observed, mut client) = observed(&node);
    let plan = wanted(
        &node,
        "[dmz]\nsource = 101, 102\noutput = 200/net1\n",
        &observed,
    );
    let OvsState::Present(ovs) = &observed.ovs else {
        panic!("{observed:?}")
    };
    for nic in ["102/net0", "200/net1"] {
        node.unplug(nic);
        let refused = ovs::commit(&mut client, &plan, ovs, "test");
        assert!(matches!(refused, Err(ovs::Error::Conflict)), "{refused:?}");
        assert_eq!(mirrors(&node), [] as [&str; 0]);
        node.plug(nic);
    }
    // A reconcile reads again and succeeds.
    apply(&node, "[dmz]\nsource = 101, 102\noutput = 200/net1\n");
}

#[test]
fn a_mirror_that_somebody_adds_or_takes_over_meanwhile_is_a_conflict() {
    let node = three_guests();
    let (before, mut client) = observed(&node);
    let create = wanted(&node, SPAN_CFG, &before);
    their_mirror(&node, &["name=theirs"]);
    let OvsState::Present(ovs) = &before.ovs else {
        panic!("{before:?}")
    };
    assert!(matches!(
        ovs::commit(&mut client, &create, ovs, "test"),
        Err(ovs::Error::Conflict)
    ));

    apply(&node, SPAN_CFG);
    let (before, mut client) = observed(&node);
    let remove = wanted(&node, "# nothing\n", &before);
    assert!(!remove.is_done());
    let row = node.ovs_vsctl(&[
        "--bare",
        "--columns=_uuid",
        "find",
        "Mirror",
        "external_ids:pve-span=dmz",
    ]);
    node.ovs_vsctl(&["remove", "Mirror", row.trim(), "external_ids", "pve-span"]);
    let OvsState::Present(ovs) = &before.ovs else {
        panic!("{before:?}")
    };
    assert!(matches!(
        ovs::commit(&mut client, &remove, ovs, "test"),
        Err(ovs::Error::Conflict)
    ));
    assert_eq!(
        node.ovs_vsctl(&["--bare", "--columns=name", "list", "Mirror"])
            .lines()
            .filter(|line| !line.is_empty())
            .count(),
        2
    );
}

#[test]
fn mirrors_of_many_sessions_change_in_one_transaction() {
    let all: BTreeSet<u32> = (101..=110).collect();
    let mut cast: Vec<_> = all.iter().map(|vmid| vm(*vmid, "")).collect();
    cast.push(sensor(200));
    let node = guests(&cast);
    let sessions: Vec<String> = all
        .iter()
        .map(|vmid| format!("[s{vmid}]\nsource = {vmid}\noutput = 200/net1\n"))
        .collect();
    let before: i64 = node
        .ovs_vsctl(&["get", "Open_vSwitch", ".", "next_cfg"])
        .trim()
        .parse()
        .unwrap();
    apply(&node, &sessions.concat());
    let after: i64 = node
        .ovs_vsctl(&["get", "Open_vSwitch", ".", "next_cfg"])
        .trim()
        .parse()
        .unwrap();
    assert_eq!(after - before, 1);
    assert_eq!(mirrors(&node).len(), 10);
}

/// What becomes of an answer that does not arrive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    KeptBack,
    CutOff,
}

/// Stands before the database's socket, and lets no answer through to a transaction that changes something.
fn lose_answers(node: &Node, how: Lost) {
    let (path, real) = (
        node.path("run/openvswitch/db.sock"),
        node.path("run/openvswitch/db.real"),
    );
    std::fs::rename(&path, &real).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    // Its threads end with the connections; the listener's with the test.
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let mut server = UnixStream::connect(&real).unwrap();
            let (mut to_client, mut from_server) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            let changed = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&changed);
            std::thread::spawn(move || {
                let mut bytes = [0; 65536];
                while let Ok(count @ 1..) = from_server.read(&mut bytes) {
                    if seen.load(Ordering::SeqCst) {
                        if how == Lost::CutOff {
                            let _ = to_client.shutdown(Shutdown::Both);
                        }
                    } else if to_client.write_all(&bytes[..count]).is_err() {
                        return;
                    }
                }
            });
            std::thread::spawn(move || {
                let mut bytes = [0; 65536];
                while let Ok(count @ 1..) = client.read(&mut bytes) {
                    if String::from_utf8_lossy(&bytes[..count]).contains("+=") {
                        changed.store(true, Ordering::SeqCst);
                    }
                    if server.write_all(&bytes[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

#[test]
fn a_change_whose_answer_is_lost_is_not_said_to_be_undone() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    lose_answers(&node, Lost::KeptBack);
    let (out, err) = hurried_hook(&node, 101, "post-start");
    assert_eq!(out, "");
    let expected = "guest 101: it is not certain whether the change was made; the next hook or `pve-span apply` makes sure: the \
                    answer to the change did not arrive: ovsdb-server did not answer within";
    assert!(err.contains(expected), "{err}");
    let path = node.path("run/openvswitch/db.sock");
    std::fs::rename(node.path("run/openvswitch/db.real"), path).unwrap();
    hook(&node, 101, "post-start");
    assert_eq!(mirrors(&node), [MIRRORED]);
}

#[test]
fn flows_are_owed_a_revalidation_until_the_mirror_has_certainly_been_taken() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    lose_answers(&node, Lost::CutOff);
    let (_, err) = hurried_hook(&node, 101, "post-start");
    assert!(
        err.contains("it is not certain whether the change was made"),
        "{err}"
    );
    let owed = || std::fs::read_to_string(node.path("run/pve-span/flows.json")).unwrap();
    assert!(owed().starts_with("{\"vmbr2\":"), "{}", owed());
    let path = node.path("run/openvswitch/db.sock");
    std::fs::rename(node.path("run/openvswitch/db.real"), path).unwrap();
    hook(&node, 101, "post-start");
    assert_eq!(mirrors(&node), [MIRRORED]);
    wait_until("it is done", || owed() == "{}\n");
}

/// Stands before the database's socket, and keeps back what the server answers to a look until it is told to let go. It
/// says when there is such an answer.
fn keep_back_looks(node: &Node) -> (Receiver<()>, Sender<()>) {
    let (path, real) = (
        node.path("run/openvswitch/db.sock"),
        node.path("run/openvswitch/db.real"),
    );
    std::fs::rename(&path, &real).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    let (says, kept) = channel();
    let (go, goes) = channel();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        // Whoever comes later goes by the real one.
        std::fs::rename(&real, &path).unwrap();
        let mut server = UnixStream::connect(&path).unwrap();
        let (mut to_client, mut from_server) =
            (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut client, &mut server));
        let mut bytes = [0; 65536];
        let mut is_kept = false;
        while let Ok(count @ 1..) = from_server.read(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..count]);
            if !is_kept && text.contains("rows") {
                is_kept = true;
                says.send(()).unwrap();
                let _ = goes.recv();
            }
            if to_client.write_all(&bytes[..count]).is_err() {
                return;
            }
        }
    });
    (kept, go)
}

#[test]
fn what_is_seen_while_somebody_works_is_looked_at_again() {
    let node = three_guests();
    apply(&node, SPAN_CFG);
    assert_eq!(mirrors(&node), [MIRRORED]);
    // Another one is at work: it has the lock, and has said so.
    let soon = Instant::now() + Duration::from_secs(5);
    let mut lock = Lock::acquire(node.root(), soon).unwrap();
    lock.memory.begins();
    lock.store();
    let (kept, go) = keep_back_looks(&node);
    std::thread::scope(|scope| {
        let looks = scope.spawn(|| hurried_hook(&node, 101, "post-start"));
        kept.recv().unwrap();
        // The hook has seen the mirror. The other one takes it away, and ends before the hook asks for the lock.
        node.ovs_vsctl(&["clear", "Bridge", "vmbr2", "mirrors"]);
        drop(lock);
        go.send(()).unwrap();
        looks.join().unwrap();
    });
    assert_eq!(mirrors(&node), [MIRRORED]);
}

/// Changes the mirrors of vmbr2 as fast as Open vSwitch's database takes it, without end.
fn rival(node: &Node, changes: &AtomicU64, stop: &AtomicBool) {
    let socket = node.path("run/openvswitch/db.sock");
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut client = ovs::Client::connect(&socket, deadline).unwrap();
    let of_bridge = serde_json::json!([["name", "==", "vmbr2"]]);
    let change = |mutation: serde_json::Value| serde_json::json!({"op": "mutate", "table": "Bridge", "where": of_bridge, "mutations": [mutation]});
    while !stop.load(Ordering::Acquire) {
        let row = serde_json::json!({"op": "insert", "table": "Mirror", "row": {"name": "theirs"}, "uuid-name": "m"});
        let join = change(serde_json::json!([
            "mirrors",
            "insert",
            ["named-uuid", "m"]
        ]));
        let made = client.transact(vec![row, join]).unwrap();
        let id = made[0].get("uuid").unwrap().clone();
        let leave = change(serde_json::json!(["mirrors", "delete", id]));
        client.transact(vec![leave]).unwrap();
        changes.fetch_add(1, Ordering::AcqRel);
    }
}

#[test]
fn who_is_in_the_way_for_a_while_is_waited_for() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    let (changes, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let output = std::thread::scope(|scope| {
        scope.spawn(|| rival(&node, &changes, &stop));
        let mut command = node.pve_span_command(&["apply"]);
        command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let child = command.spawn().unwrap();
        // It has begun when the lock is its own; and then it is disturbed for so long that eight tries in a row are in vain.
        let owner = format!("\"pid\":{}", child.id());
        let lock = node.path("run/pve-span.lock");
        wait_until("it has the lock", || {
            std::fs::read_to_string(&lock).is_ok_and(|text| text.contains(&owner))
        });
        let many = changes.load(Ordering::Acquire) + 200;
        wait_until("it was disturbed for a while", || {
            changes.load(Ordering::Acquire) >= many
        });
        stop.store(true, Ordering::Release);
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(mirrors(&node).len(), 1);
}
