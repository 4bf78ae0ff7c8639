//! The service as systemd and an administrator have it: readiness, signals, the watchdog, what it says and what it does
//! not, and how it takes being held up.

#![allow(clippy::unwrap_used)]

mod fuse;
mod lab;
mod scene;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use fuse::Hung;
use lab::{Node, PATIENCE, Watch, is_alive, wait_until};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{chroot, fchdir};
use pve_span::daemon::state::State;
use pve_span_core::health::Health;
use scene::watched::{
    DMZ, LINUX, OVS, Place, assert_mirrored, assert_no_faults, events, followed, let_go, mentions,
    ours, quiet, watched,
};
use scene::{apply, run};

/// Asks for pings more often than every 400 ms.
const WATCHDOG: (&str, &str) = ("WATCHDOG_USEC", "400000");
const PING: &str = "WATCHDOG=1";

/// Waits for so many more pings: for time to pass as the service itself sees it.
#[track_caller]
fn wait_for_pings(watch: &Watch, more: usize) {
    let before = watch.noticed(PING);
    wait_until("pings of the watchdog", || {
        watch.noticed(PING) >= before + more
    });
}

/// Those of our processes that live, of whatever is on the node.
fn our_processes(node: &Node) -> Vec<u32> {
    let mut pids = node.pids();
    pids.retain(|pid| {
        let exe = std::fs::read_link(format!("/proc/{pid}/exe"));
        exe.is_ok_and(|exe| exe == lab::binary().canonicalize().unwrap()) && is_alive(*pid)
    });
    pids
}

/// Runs `work` while every file below the service's /etc/pve hangs, once it has asked for one.
fn while_etc_pve_hangs<R: Send>(
    node: &Node,
    watch: &Watch,
    work: impl FnOnce(&mut Hung) -> R + Send,
) -> R {
    let hang = || {
        // A thread's own view of the file system, so that it can be the service's.
        unshare(CloneFlags::CLONE_FS).unwrap();
        let namespace = File::open(format!("/proc/{}/ns/mnt", watch.pid())).unwrap();
        // Its root is not the namespace's own where all of this runs in a chroot.
        let root = File::open(format!("/proc/{}/root", watch.pid())).unwrap();
        setns(namespace, CloneFlags::CLONE_NEWNS).unwrap();
        fchdir(&root).unwrap();
        chroot(".").unwrap();
        let mut hung = fuse::mount_hung(&node.path("etc/pve"));
        wait_until("the service asks for a file", || hung.requests() > 0);
        work(&mut hung)
    };
    thread::scope(|scope| scope.spawn(hang).join()).unwrap_or_else(|panic| {
        std::panic::resume_unwind(panic);
    })
}

#[test]
fn it_is_ready_when_everything_is_mirrored() {
    for place in Place::all() {
        let node = place.three_guests();
        node.span_cfg(DMZ);
        let watch = node.watch();
        assert!(mentions(&ours(&node), "tap101i0"), "{}", ours(&node));
        assert_mirrored(&node, "ready", "101/net0", "102/net0");
        assert_eq!(watch.noticed("READY=1"), 1);
        assert_eq!(watch.threads(), 1);
        assert_no_faults(&watch);
        assert_eq!(run(&node, &["status"]).0, 0);
        wait_until("it knows that all is well", || {
            let state = State::load(node.root()).unwrap_or_default();
            let dmz = state.sessions.get("dmz");
            state.pid == watch.pid() && dmz.is_some_and(|dmz| dmz.health == Health::Active)
        });
    }
}

#[test]
fn its_status_line_follows_what_happens() {
    for place in [OVS, LINUX] {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        wait_until("a status line", || watch.status_line().is_some());
        let good = watch.status_line().unwrap();
        node.stop_guest(200);
        wait_until("the status line changes", || {
            watch.status_line().as_ref() != Some(&good)
        });
        node.start_guest(200);
        wait_until("the status line is as before", || {
            watch.status_line().as_ref() == Some(&good)
        });
    }
}

#[test]
fn an_abstract_notification_socket_is_served_too() {
    let node = LINUX.three_guests();
    let name = format!("pve-span-lab-{}", node.netns());
    // It belongs to a network namespace, as the service does.
    let socket = node.inside(|| {
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        UnixDatagram::bind_addr(&address).unwrap()
    });
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let _watch = node.watch_unready(&[], |command| {
        command.env("NOTIFY_SOCKET", format!("@{name}"));
    });
    let mut text = String::new();
    while !text.lines().any(|line| line == "READY=1") {
        let mut buffer = [0; 4096];
        let len = socket.recv(&mut buffer).unwrap();
        text += &format!("{}\n", String::from_utf8_lossy(&buffer[..len]));
    }
}

#[test]
fn what_systemd_had_no_room_for_is_said_again() {
    let node = LINUX.three_guests();
    node.span_cfg(DMZ);
    let path = node.path("run/full");
    let systemd = UnixDatagram::bind(&path).unwrap();
    let others = UnixDatagram::unbound().unwrap();
    others.set_nonblocking(true).unwrap();
    while others.send_to(b"STATUS=others", &path).is_ok() {}
    let _watch = node.watch_unready(&[], |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    wait_until("it has looked at everything", || {
        State::load(node.root()).is_some_and(|state| !state.sessions.is_empty())
    });
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    while !text.lines().any(|line| line == "READY=1") {
        let mut buffer = [0; 4096];
        let len = systemd.recv(&mut buffer).unwrap();
        text += &format!("{}\n", String::from_utf8_lossy(&buffer[..len]));
    }
}

#[test]
fn without_systemd_it_runs_all_the_same() {
    let node = OVS.three_guests();
    node.span_cfg(DMZ);
    let watch = node.watch_unready(&[], |command| {
        command.env_remove("NOTIFY_SOCKET");
    });
    followed(&node, "by hand", "101/net0", "102/net0", Instant::now());
    assert_no_faults(&watch);
    watch.terminate();
}

#[test]
fn the_watchdog_is_fed_where_it_is_meant_for_us() {
    let node = OVS.three_guests();
    node.span_cfg(DMZ);
    let watchdog = |pid: &str| {
        let script = format!("export WATCHDOG_USEC={} {pid}; exec \"$@\"", WATCHDOG.1);
        let mut shell = node.command("sh");
        shell.args(["-c", &script, "sh"]).arg(lab::binary());
        shell.args(["watch", "--root"]).arg(node.root());
        node.watch_with(&[], |command| *command = shell)
    };
    for ours in ["WATCHDOG_PID=$$", ""] {
        wait_for_pings(&watchdog(ours), 8);
    }
    let other = watchdog("WATCHDOG_PID=1");
    other.hup();
    wait_until("it is ready again", || other.noticed("READY=1") == 2);
    assert_eq!(other.noticed(PING), 0);
}

#[test]
fn a_second_service_says_so_and_ends() {
    let node = OVS.three_guests();
    let watch = watched(&node, DMZ);
    wait_until("it has told who it is", || {
        node.path("run/pve-span/state.json").exists()
    });
    let output = node.pve_span(&["watch"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(
        said,
        format!(
            "pve-span: error: another `pve-span watch` runs here already (pid {}); to run one by hand, end that one \
             first (systemctl stop pve-span)\n",
            watch.pid()
        )
    );
    drop(watch);
    assert_mirrored(&node, "afterwards", "101/net0", "102/net0");
}

#[test]
fn sighup_makes_it_look_again() {
    for place in [OVS, LINUX] {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        for round in 1..=3 {
            watch.hup();
            wait_until("it is ready again", || {
                watch.noticed("READY=1") == round + 1
            });
            assert_eq!(watch.noticed("RELOADING=1"), round);
        }
        node.span_cfg("[dmz]\nsource = 101, 102\noutput = 200/net1\n");
        watch.hup();
        wait_until("what the file says now", || {
            mentions(&ours(&node), "tap102i0")
        });
        assert_no_faults(&watch);
    }
}

#[test]
fn sigterm_ends_it_and_leaves_every_mirror_in_place() {
    for place in Place::all() {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        let settings = scene::settings(&node, "tap200i1");
        let took = watch.terminate();
        say(&format!("SIGTERM: gone after {} ms", took.as_millis()));
        assert_eq!(our_processes(&node), Vec::<u32>::new());
        assert_mirrored(&node, "without it", "101/net0", "102/net0");
        assert_eq!(scene::settings(&node, "tap200i1"), settings);
        // Whoever comes next finds nothing to do.
        let before = events(&node);
        let again = watched(&node, DMZ);
        assert_eq!(again.stderr(), "");
        let changes = events(&node).len() - before.len();
        assert_eq!(changes, 0, "{:#?}", events(&node));
    }
}

#[allow(clippy::print_stderr)]
fn say(text: &str) {
    eprintln!("{text}");
}

#[test]
fn it_says_so_when_it_stops() {
    let node = LINUX.three_guests();
    let watch = watched(&node, DMZ);
    watch.signal(nix::sys::signal::Signal::SIGTERM);
    wait_until("it says so", || watch.noticed("STOPPING=1") == 1);
}

#[test]
fn killed_it_leaves_no_process_behind() {
    for place in [OVS, LINUX] {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        watch.kill();
        wait_until("its children end", || our_processes(&node).is_empty());
        assert_mirrored(&node, "without it", "101/net0", "102/net0");
    }
}

#[test]
fn while_nothing_happens_it_says_nothing_and_changes_nothing() {
    for place in Place::all() {
        let node = place.three_guests();
        node.span_cfg(DMZ);
        let watch = node.watch_with(&[], |command| {
            command.env(WATCHDOG.0, WATCHDOG.1);
        });
        quiet(&node);
        let before = (watch.stderr(), events(&node));
        // A few seconds of its life, its looks at /etc/pve among them.
        wait_for_pings(&watch, 15);
        // What is written anew without a change is no news.
        node.edit(101, |guest| guest);
        node.span_cfg(DMZ);
        wait_for_pings(&watch, 15);
        assert_eq!((watch.stderr(), events(&node)), before);
        assert_eq!(watch.threads(), 1);
    }
}

#[test]
fn it_says_each_change_once() {
    for place in [OVS, LINUX] {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        let before = watch.stderr();
        node.unplug("101/net0");
        quiet(&node);
        node.plug("101/net0");
        followed(&node, "replug", "101/net0", "102/net0", Instant::now());
        let told = watch.stderr();
        let new = &told[before.len()..];
        let lines: Vec<&str> = new.lines().collect();
        let mirrors = lines
            .iter()
            .filter(|line| line.contains("dmz: mirrors 101/net0 to 200/net1"));
        assert_eq!(mirrors.count(), 1, "{lines:#?}");
        assert!(lines.len() <= 2, "{lines:#?}");
    }
}

#[test]
fn a_fault_that_lasts_is_told_once_and_ends_by_itself() {
    let node = LINUX.three_guests();
    let folder = node.path("var/bin");
    std::fs::create_dir(&folder).unwrap();
    let (nft, calls) = (folder.join("nft"), node.path("var/calls"));
    let write = |then: &str| {
        let script = format!("#!/bin/sh\necho called >>{}\n{then}\n", calls.display());
        let new = folder.join("new");
        std::fs::write(&new, script).unwrap();
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::rename(&new, &nft).unwrap();
    };
    write("echo 'Error: out of order' >&2; exit 1");
    let calls = || std::fs::read_to_string(&calls).map_or(0, |text| text.lines().count());
    node.span_cfg(DMZ);
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", folder.display());
    let watch = node.watch_with(&[], |command| {
        command.env("PATH", path);
    });
    watch.wait_until_it_says("out of order");
    for _ in 0..4 {
        let before = calls();
        watch.hup();
        wait_until("it tries again", || calls() > before);
    }
    assert_eq!(watch.faults("out of order"), 1, "{}", watch.stderr());
    assert_eq!(run(&node, &["status"]).0, 1);
    // Nobody asks for it.
    write("exec /usr/sbin/nft \"$@\"");
    followed(&node, "mended", "101/net0", "102/net0", Instant::now());
    wait_until("status is healthy", || run(&node, &["status"]).0 == 0);
}

#[test]
fn a_missing_ovsdb_server_is_told_once() {
    // In order, and so that its socket stays.
    for end in [Node::stop_ovsdb, Node::kill_ovsdb] {
        let node = OVS.three_guests();
        let watch = watched(&node, DMZ);
        end(&node);
        for _ in 0..4 {
            let ready = watch.noticed("READY=1");
            watch.hup();
            wait_until("it has looked again", || watch.noticed("READY=1") > ready);
        }
        // The session's own trouble is told once it has lasted.
        watch.wait_until_it_says("dmz is degraded");
        let told = watch.stderr();
        let is_fault = |line: &&str| line.contains("error: ") || line.contains("warning: ");
        let faults: Vec<&str> = told.lines().filter(is_fault).collect();
        let distinct: BTreeSet<&&str> = faults.iter().collect();
        assert_eq!(faults.len(), distinct.len(), "{faults:#?}");
        node.start_ovsdb();
        quiet(&node);
        assert_mirrored(&node, "back", "101/net0", "102/net0");
    }
}

#[test]
fn a_hanging_etc_pve_holds_neither_the_watchdog_nor_the_end() {
    for place in Place::all() {
        let node = place.three_guests();
        node.span_cfg(DMZ);
        let watch = node.watch_with(&[], |command| {
            command.env(WATCHDOG.0, WATCHDOG.1);
        });
        while_etc_pve_hangs(&node, &watch, |_| {
            wait_for_pings(&watch, 10);
            node.unplug("102/net0");
            node.plug("102/net0");
            wait_for_pings(&watch, 10);
        });
        // It answers again, and so does the service.
        node.unplug("101/net0");
        node.plug("101/net0");
        followed(&node, "it hung", "101/net0", "102/net0", Instant::now());
        let pid = watch.pid();
        // Ended within the other mount namespace, hence not with `terminate`, which takes it.
        while_etc_pve_hangs(&node, &watch, |_| {
            let since = Instant::now();
            watch.signal(nix::sys::signal::Signal::SIGTERM);
            wait_until("it ends", || !is_alive(pid));
            let took = since.elapsed();
            say(&format!(
                "SIGTERM, /etc/pve hangs: gone after {} ms",
                took.as_millis()
            ));
        });
        assert_eq!(watch.terminated(), Some(0));
        // Until then nothing could end who waited for an answer.
        wait_until("its children end too", || our_processes(&node).is_empty());
        assert_mirrored(&node, "after it", "101/net0", "102/net0");
    }
}

#[test]
fn it_goes_on_by_what_it_knows_while_etc_pve_hangs() {
    for place in [OVS, LINUX] {
        let node = place.three_guests();
        let watch = watched(&node, DMZ);
        while_etc_pve_hangs(&node, &watch, |_| {
            watch.wait_until_it_says("/etc/pve does not answer");
            // What somebody else clears is put back.
            node.nft("flush ruleset\n");
            if node.path("run/openvswitch/db.sock").exists() {
                node.ovs_vsctl(&["clear", "bridge", "vmbr2", "mirrors"]);
            }
            wait_until("it is mirrored again", || {
                mentions(&ours(&node), "tap101i0")
            });
            assert_mirrored(&node, "put back", "101/net0", "102/net0");
            node.crash_guest(101);
            let_go(&node, "tap101i0");
            node.start_guest(101);
            followed(&node, "hangs", "101/net0", "102/net0", Instant::now());
            let deadline = Instant::now() + PATIENCE;
            drop(pve_span::reconcile::lock::Lock::acquire(node.root(), deadline).unwrap());
            // The sentinel, and a reconcile and a survey that were at it when it began.
            wait_until("few of its children hang", || watch.children().len() <= 3);
            // The way out is open.
            let (code, out, err) = run(&node, &["clear", "--all"]);
            assert_eq!((code, out.is_empty()), (0, false), "{out}{err}");
            assert!(!mentions(&ours(&node), "tap101i0"));
        });
        watch.wait_until_it_says("over after");
        node.span_cfg("[dmz]\nsource = 102\noutput = 200/net1\n");
        let_go(&node, "tap101i0");
        followed(&node, "answers", "102/net0", "101/net0", Instant::now());
        wait_until("its children have ended", || watch.children().len() <= 1);
    }
}

#[test]
fn it_follows_a_new_etc_pve_while_its_children_hang_in_the_old_one() {
    let node = LINUX.three_guests();
    let watch = watched(&node, DMZ);
    while_etc_pve_hangs(&node, &watch, |hung| {
        watch.wait_until_it_says("/etc/pve does not answer");
        hung.move_away(&node.path("mnt/old"));
        watch.wait_until_it_says("over after");
        node.span_cfg("[dmz]\nsource = 102\noutput = 200/net1\n");
        let_go(&node, "tap101i0");
    });
}

#[test]
fn killed_while_etc_pve_hangs_it_leaves_no_process_behind() {
    let node = LINUX.three_guests();
    let watch = watched(&node, DMZ);
    let pid = watch.pid();
    while_etc_pve_hangs(&node, &watch, |_| {
        watch.signal(nix::sys::signal::Signal::SIGKILL);
        wait_until("it ends", || !is_alive(pid));
    });
    // Nothing can end who waits for an answer; now all have one.
    wait_until("its children end too", || our_processes(&node).is_empty());
}

#[test]
fn a_hung_ovsdb_server_holds_neither_the_watchdog_nor_the_end() {
    let node = OVS.three_guests();
    node.span_cfg(DMZ);
    let watch = node.watch_with(&[], |command| {
        command.env(WATCHDOG.0, WATCHDOG.1);
    });
    node.pause_ovsdb();
    node.span_cfg("[dmz]\nsource = 101, 102\noutput = 200/net1\n");
    wait_for_pings(&watch, 20);
    let took = watch.terminate();
    say(&format!(
        "SIGTERM, ovsdb-server hangs: gone after {} ms",
        took.as_millis()
    ));
    wait_until("its children too", || our_processes(&node).is_empty());
    node.resume_ovsdb();
    apply(&node, DMZ);
    assert_mirrored(&node, "after it", "101/net0", "102/net0");
}

#[test]
fn a_lock_that_somebody_holds_is_waited_for_without_a_standstill() {
    for place in [OVS, LINUX] {
        let node = place.three_guests();
        node.span_cfg(DMZ);
        let watch = node.watch_with(&[], |command| {
            command.env(WATCHDOG.0, WATCHDOG.1);
        });
        quiet(&node);
        let deadline = Instant::now() + Duration::from_secs(10);
        let held = pve_span::reconcile::lock::Lock::acquire(node.root(), deadline).unwrap();
        node.unplug("101/net0");
        node.plug("101/net0");
        wait_for_pings(&watch, 10);
        drop(held);
        followed(
            &node,
            "the lock is free",
            "101/net0",
            "102/net0",
            Instant::now(),
        );
    }
}

#[test]
fn started_while_etc_pve_is_not_mounted_it_goes_by_the_last_good_copy() {
    for place in Place::all() {
        let node = place.three_guests();
        apply(&node, DMZ);
        node.unmount_pve();
        let watch = node.watch();
        assert_mirrored(&node, "unmounted", "101/net0", "102/net0");
        watch.wait_until_it_says("is not mounted");
        node.unplug("101/net0");
        node.plug("101/net0");
        followed(&node, "unmounted", "101/net0", "102/net0", Instant::now());
        assert_eq!(watch.faults("is not mounted"), 1, "{}", watch.stderr());
        node.mount_pve();
        node.span_cfg("[dmz]\nsource = 101, 102\noutput = 200/net1\n");
        wait_until("the file is in force", || {
            mentions(&ours(&node), "tap102i0")
        });
    }
}

#[test]
fn started_for_the_first_time_while_etc_pve_is_not_mounted_it_waits_for_it() {
    for place in Place::all() {
        let node = place.three_guests();
        node.span_cfg(DMZ);
        node.unmount_pve();
        let watch = node.watch();
        assert_eq!(ours(&node), "");
        watch.wait_until_it_says("is not mounted");
        node.mount_pve();
        followed(&node, "mounted", "101/net0", "102/net0", Instant::now());
        assert_eq!(watch.faults("is not mounted"), 1, "{}", watch.stderr());
    }
}

#[test]
fn started_before_open_vswitch_it_is_ready_and_waits_for_it() {
    let node = OVS.three_guests();
    node.span_cfg(DMZ);
    node.kill_vswitchd();
    node.stop_ovsdb();
    let _watch = node.watch();
    node.start_ovsdb();
    node.start_vswitchd();
    followed(
        &node,
        "Open vSwitch has started",
        "101/net0",
        "102/net0",
        Instant::now(),
    );
}

#[test]
fn a_node_without_anything_to_do_is_watched_in_silence() {
    for place in [OVS, LINUX] {
        let node = place.three_guests();
        let watch = node.watch();
        let hup = |ready: usize| {
            watch.hup();
            wait_until("it has looked again", || watch.noticed("READY=1") == ready);
        };
        hup(2);
        node.stop_guest(101);
        node.start_guest(101);
        hup(3);
        assert_eq!(watch.stderr(), "");
        assert_eq!(events(&node), [] as [&str; 0]);
        assert!(!Path::exists(&node.path("run/pve-span/outputs.json")));
    }
}
