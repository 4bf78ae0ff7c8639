//! Hooks and commands while the cluster filesystem takes requests and never answers.

#![allow(clippy::unwrap_used)]

mod fuse;
mod lab;
mod scene;

use std::time::{Duration, Instant};

use fuse::Hung;
use lab::{Node, wait_until};
use nix::sched::{CloneFlags, unshare};
use pve_span::reconcile::lock::Lock;
use scene::linux::{ct_on, mixed_guests, sensor_on, vm_on};
use scene::{apply, hook, mirrors, run, settings, stderr};

const DMZ: &str = "[dmz]\nsource = 101, 103\noutput = 200/net1\n";

/// How what goes by the last good copy says so.
const LAST_GOOD: &str = "pve-span: warning: /etc/pve does not answer: does pmxcfs hang? (systemctl status pve-cluster); \
    the last good copy, /var/lib/pve-span/span.cfg, stays in force\n";

/// Runs `work` while every read in /etc/pve hangs.
fn while_it_hangs<R: Send>(node: &Node, work: impl FnOnce(&mut Hung) -> R + Send) -> R {
    let hang = || {
        // The mount goes with the thread that has made it.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let mut hung = fuse::mount_hung(&node.path("etc/pve"));
        work(&mut hung)
    };
    std::thread::scope(|scope| match scope.spawn(hang).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Mounts another /etc/pve with the same files, as a pve-cluster that is started anew does.
fn remount(node: &Node) {
    let (folder, aside) = (node.path("etc/pve"), node.path("mnt/new"));
    let script = r#"mkdir -p "$2" && mount -t tmpfs new "$2" && cp -a "$1/." "$2" && mount --move "$2" "$1""#;
    let mut command = std::process::Command::new("sh");
    command.args(["-euc", script, "sh"]).args([&folder, &aside]);
    lab::run(command, "");
}

/// Nobody holds the lock, whatever hangs.
#[track_caller]
fn assert_lock_is_free(node: &Node) {
    let deadline = Instant::now() + Duration::from_secs(20);
    drop(Lock::acquire(node.root(), deadline).unwrap());
}

/// 101 beside the sensor on Open vSwitch, 103 on a Linux bridge: both engines.
fn node() -> Node {
    let nic = "bridge=vmbr2";
    mixed_guests(&[
        vm_on(101, nic),
        ct_on(103, "bridge=vmbr0"),
        sensor_on(200, nic),
    ])
}

#[test]
fn all_mirrors_can_be_cleared() {
    let node = node();
    let before = settings(&node, "tap200i1");
    apply(&node, DMZ);
    let (code, out, err) = while_it_hangs(&node, |_| run(&node, &["clear", "--all"]));
    assert_eq!(
        err,
        "pve-span: warning: /etc/pve/ does not answer: does pmxcfs hang? (systemctl status pve-cluster); \
         nobody can tell whether span.cfg brings them back\n"
    );
    assert_eq!((code, out.lines().count()), (0, 2), "{out}");
    assert_eq!(mirrors(&node), [""; 0]);
    assert!(!node.nft_list().contains("pve-span"), "{}", node.nft_list());
    assert_eq!(settings(&node, "tap200i1"), before);
}

#[test]
fn what_cannot_do_without_it_says_so() {
    let node = node();
    apply(&node, DMZ);
    while_it_hangs(&node, |_| {
        for (call, expected) in [("check", 2), ("init", 1)] {
            assert_eq!(
                run(&node, &[call]),
                (
                    expected,
                    String::new(),
                    "pve-span: error: /etc/pve/ does not answer: does pmxcfs hang? (systemctl status pve-cluster)\n"
                        .to_owned()
                ),
                "{call}"
            );
        }
    });
}

#[test]
fn other_commands_go_by_the_last_good_copy_and_say_so() {
    let node = node();
    apply(&node, DMZ);
    let before = (mirrors(&node), node.nft_list());
    while_it_hangs(&node, |_| {
        for call in ["plan", "status", "ports", "apply"] {
            let (_, out, err) = run(&node, &[call]);
            assert!(err.starts_with(LAST_GOOD), "{call}: {err}");
            assert!(!out.is_empty(), "{call}");
        }
        assert_eq!(run(&node, &["apply"]).1, "nothing to do\n");
        assert_eq!(mirrors(&node), before.0);
        // One session as well as all of them. Nothing new begins while nobody can tell what the sensor's NIC is for.
        let (code, out, err) = run(&node, &["clear", "dmz"]);
        assert_eq!((code, mirrors(&node)), (0, vec![]), "{out}{err}");
        let (_, out, err) = run(&node, &["apply"]);
        assert!(
            err.contains("cannot tell whether guest 200 needs 200/net1"),
            "{out}{err}"
        );
        assert_eq!(mirrors(&node), [""; 0]);
    });
    // What was made without guests' configs lacks their MAC addresses.
    run(&node, &["apply"]);
    assert_eq!((mirrors(&node), node.nft_list()), before);
}

/// As [`node`], and 102, whom a tag takes.
fn tagged_node() -> Node {
    let nic = "bridge=vmbr2";
    mixed_guests(&[
        vm_on(101, nic),
        vm_on(102, nic).tags("web"),
        ct_on(103, "bridge=vmbr0"),
        sensor_on(200, nic),
    ])
}

#[test]
fn hooks_follow_guests_by_the_last_good_copy() {
    let node = tagged_node();
    let web = "[web]\nsource = tag:web\noutput = 200/net1\n";
    apply(&node, &format!("{DMZ}{web}"));
    let before = mirrors(&node);
    assert!(before.iter().any(|mirror| mirror.contains("tap102i0")));
    while_it_hangs(&node, |hung| {
        node.crash_guest(101);
        let (out, err) = hook(&node, 101, "post-stop");
        assert!(out.contains("dmz: no longer mirrors"), "{out}{err}");
        assert!(err.contains(LAST_GOOD), "{err}");
        assert!(hung.requests() > 0, "the hook has asked it something");
        assert_lock_is_free(&node);
        // Nobody can tell whether 102 still has its tag: existing mirrors are kept.
        assert!(
            mirrors(&node)
                .iter()
                .any(|mirror| mirror.contains("tap102i0"))
        );
        node.start_guest(101);
        hook(&node, 101, "post-start");
        assert_eq!(mirrors(&node), before);
        hook(&node, 103, "pre-stop");
        assert!(
            !node.nft_list().contains("veth103i0"),
            "{}",
            node.nft_list()
        );
        hook(&node, 103, "post-start");
        assert!(node.nft_list().contains("veth103i0"), "{}", node.nft_list());
        let (code, ..) = run(&node, &["clear", "--all"]);
        assert_eq!((code, mirrors(&node)), (0, vec![]));
        // What has been given back is new, and begins when the sensor's config can be read.
        let (_, err) = hook(&node, 103, "post-start");
        assert!(
            err.contains("cannot tell whether guest 200 needs 200/net1"),
            "{err}"
        );
    });
    // As soon as those that hung have ended, nothing is left of it.
    wait_until("it is asked again", || {
        hook(&node, 101, "post-start").1.is_empty()
    });
    assert_eq!(mirrors(&node), before);
}

#[test]
fn many_guests_that_start_do_not_wait_for_it_one_after_the_other() {
    let node = node();
    apply(&node, DMZ);
    while_it_hangs(&node, |hung| {
        hook(&node, 101, "pre-start");
        let requests = hung.requests();
        assert!(requests > 0, "it has been asked something");
        // That one hangs; whoever comes after it does not even ask.
        for vmid in [101, 103, 200].into_iter().cycle().take(20) {
            let (_, err) = hook(&node, vmid, "pre-start");
            assert!(
                err.contains("cannot tell whether another hookscript"),
                "{err}"
            );
            let (_, err) = hook(&node, vmid, "post-start");
            assert!(err.contains(LAST_GOOD), "{err}");
        }
        assert_eq!(hung.requests(), requests);
        assert!(run(&node, &["plan"]).2.starts_with(LAST_GOOD));
        assert_eq!(hung.requests(), requests);
    });
    wait_until("it is asked again", || {
        let output = lab::try_run(node.hook_command(101, "pre-start"), "");
        stderr(&node, &output).is_empty()
    });
}

#[test]
fn one_that_is_not_supervised_and_hangs_is_not_waited_for_either() {
    let node = node();
    apply(&node, DMZ);
    let before = mirrors(&node);
    while_it_hangs(&node, |hung| {
        // Its turn to read, and there it stays: as a command whose parent was killed.
        let path = node.path("etc/pve/.version");
        let root = node.root().to_owned();
        let reader = std::thread::spawn(move || {
            let file = pve_span::reconcile::lock::LockFile::open(&root).unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            file.take_turn(deadline, || {}).unwrap();
            file.while_reading(|| path.exists())
        });
        wait_until("it reads", || hung.requests() > 0);
        node.crash_guest(101);
        let mut command = node.pve_span_command(&["hook", "101", "post-stop"]);
        command.args(["--deadline", "60"]);
        let output = lab::try_run(command, "");
        assert_eq!(stderr(&node, &output), LAST_GOOD);
        assert_ne!(mirrors(&node), before);
        assert_eq!(hung.requests(), 1, "the hook has not asked it anything");
        drop(reader);
    });
}

#[test]
fn one_that_hangs_in_an_etc_pve_of_old_says_nothing_about_the_new_one() {
    let node = node();
    apply(&node, DMZ);
    while_it_hangs(&node, |hung| {
        node.crash_guest(101);
        let (_, err) = hook(&node, 101, "post-stop");
        assert!(err.starts_with(LAST_GOOD), "{err}");
        hung.move_away(&node.path("mnt/old"));
        remount(&node);
        let answers = hung.requests();
        node.start_guest(101);
        assert_eq!(hook(&node, 101, "post-start").1, "");
        assert_eq!(hung.requests(), answers, "the other one still hangs");
        node.span_cfg("# nothing\n");
        assert_eq!(run(&node, &["apply"]).0, 0);
        assert_eq!(mirrors(&node), [""; 0]);
    });
}

#[test]
fn completion_offers_nothing_then_and_comes_back() {
    let node = node();
    node.span_cfg(DMZ);
    let root = node.root().display().to_string();
    let offered = |words: &[&str]| {
        let mut command = node.command(lab::binary().to_str().unwrap());
        command
            .args(["complete", "--", "--root", &root])
            .args(words);
        let output = lab::try_run(command, "");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(offered(&["clear", ""]).contains("dmz"));
    while_it_hangs(&node, |_| {
        for command in ["attach", "clear"] {
            assert_eq!(offered(&[command, ""]), "words\n", "{command}");
        }
        // What needs no file is there.
        assert!(offered(&["doctor", "--"]).contains("--json"));
    });
}
