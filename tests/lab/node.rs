//! The node itself: its namespaces, its directory, and running things inside.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::guest::{Guest, Nic, split_nic};
use super::ovs::{Datapath, Ovs};
use super::pve::Tree;
use super::qemu::Processes;
use super::reaper::Reaper;
use super::run::{require, run, search_path};

/// What each node needs; `ovs` has its own list.
const PROGRAMS: [(&str, &str); 8] = [
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("tc", "iproute2"),
    ("nft", "nftables"),
    ("ethtool", "ethtool"),
    ("flock", "util-linux"),
    ("setsid", "util-linux"),
    ("grep", "grep"),
];

/// Marks the processes of a node, for its guardian.
const MARK: &str = "PVE_SPAN_LAB";

/// A miniature Proxmox VE node. Everything goes away when it is dropped, or when the process ends in any way.
///
/// All methods take `&self`, so that several threads may plug guests and call hooks at once.
pub struct Node {
    pub(super) ovs: Mutex<Ovs>,
    pub(super) tree: Mutex<Tree>,
    pub(super) guests: Mutex<BTreeMap<u32, Guest>>,
    pub(super) processes: Mutex<Processes>,
    pub(super) nftables_firewall: Mutex<bool>,
    // The last to go: the daemons above are its guests.
    pub(super) reaper: Reaper,
}

impl Node {
    /// A node named `pve1` without guests, its Open vSwitch up and answering.
    pub fn start() -> Node {
        let node = Node::without_ovs();
        node.first_start_of_ovs(Datapath::Userspace);
        node
    }

    /// The same without Open vSwitch.
    pub fn without_ovs() -> Node {
        require(&PROGRAMS);
        let reaper = Reaper::new();
        let root = reaper.dir.clone();
        for dir in ["run", "var/lib/pve-span", "var/lib/vz/snippets"] {
            std::fs::create_dir_all(root.join(dir))
                .expect("the guardian has made the root directory");
        }
        let node = Node {
            ovs: Mutex::default(),
            tree: Mutex::new(Tree::new(&root, "pve1")),
            guests: Mutex::default(),
            processes: Mutex::default(),
            nftables_firewall: Mutex::default(),
            reaper,
        };
        node.inside(silence);
        node.inside_wire(silence);
        node.ip(&["link set lo up"]);
        node
    }

    /// The prefix of all of the node's paths: what `--root` takes.
    pub fn root(&self) -> &Path {
        &self.reaper.dir
    }

    /// A path on the node: `path("etc/pve/span.cfg")`.
    pub fn path(&self, below_root: &str) -> PathBuf {
        self.root().join(below_root)
    }

    /// The node's network namespace, as in `ip netns list`.
    pub fn netns(&self) -> &str {
        &self.reaper.node
    }

    /// The network namespace of the guests' ends and the cables.
    pub fn wire_netns(&self) -> &str {
        &self.reaper.wire
    }

    /// A command that runs on the node, with the node's /sys.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.command_in(self.netns(), program.as_ref())
    }

    /// A command that runs where the guests' ends are.
    pub fn wire_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.command_in(self.wire_netns(), program.as_ref())
    }

    fn command_in(&self, netns: &str, program: &std::ffi::OsStr) -> Command {
        let mut command = self.marked_command("ip");
        command.args(["netns", "exec", netns]).arg(program);
        command
    }

    /// A command in our own namespace that nevertheless ends with the node.
    pub(super) fn marked_command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("PATH", search_path()).env(MARK, self.root());
        command
    }

    /// Runs `work` on a thread inside the node's network namespace, with the node's /sys: for calling the library
    /// directly, and for starting programs without the cost of `ip netns exec`.
    pub fn inside<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        on_thread_in(named_netns(self.netns()), move || {
            own_sysfs();
            work()
        })
    }

    /// Runs `work` on a thread inside the wire's network namespace.
    pub fn inside_wire<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        on_thread_in(named_netns(self.wire_netns()), work)
    }

    /// The processes on the node: its daemons, and whatever was started there and still runs.
    pub fn pids(&self) -> Vec<u32> {
        let list = |netns: &str| {
            let mut command = self.marked_command("ip");
            command.args(["netns", "pids", netns]);
            run(command, "")
        };
        let text = list(self.netns()) + &list(self.wire_netns());
        text.lines()
            .filter_map(|line| line.trim().parse().ok())
            .collect()
    }

    /// Leaves the node up for good, and returns the command that takes it away. (It ends every process on the
    /// node, a shell included.) What QEMU would hold open goes with this process all the same.
    pub fn keep(self) -> String {
        let Node { ovs, reaper, .. } = self;
        std::mem::forget(ovs);
        reaper.keep()
    }

    /// The NIC that `101/net0` means.
    ///
    /// # Panics
    /// If there is no such guest, or it has no such NIC with a bridge.
    #[track_caller]
    pub fn nic(&self, id: &str) -> Nic {
        let (vmid, n) = split_nic(id).unwrap_or_else(|| panic!("not a NIC: {id}"));
        let nics = self.nics_of(vmid);
        let nic = nics.into_iter().find(|nic| nic.n == n);
        nic.unwrap_or_else(|| panic!("guest {vmid} has no net{n} with a bridge"))
    }

    #[track_caller]
    pub(super) fn nics_of(&self, vmid: u32) -> Vec<Nic> {
        let guests = self.guests.lock().unwrap();
        guests
            .get(&vmid)
            .unwrap_or_else(|| panic!("there is no guest {vmid}: add it first"))
            .nics()
    }
}

/// Without it, each new device would send neighbour discovery and each new bridge reports of the groups that it joins,
/// stray frames in every capture.
pub(super) fn silence() {
    let reports = "/proc/sys/net/ipv4/igmp_link_local_mcast_reports";
    std::fs::write(reports, "0").unwrap_or_else(|error| panic!("cannot write {reports}: {error}"));
    for scope in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
        if Path::new(&path).exists() {
            std::fs::write(&path, "1")
                .unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
        }
    }
}

/// A namespace as in `ip netns list`.
pub(super) fn named_netns(name: &str) -> File {
    let path = format!("/run/netns/{name}");
    File::open(&path).unwrap_or_else(|error| panic!("cannot open {path}: {error}"))
}

/// A throw-away thread, since the namespace is the thread's and dies with it.
pub(super) fn on_thread_in<R: Send>(netns: File, work: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(netns, CloneFlags::CLONE_NEWNET).expect("cannot enter a network namespace");
            work()
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Gives this thread a /sys that shows its network namespace's devices, as `ip netns exec` does.
fn own_sysfs() {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).expect("cannot make a mount namespace");
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)
        .expect("cannot make / a slave mount");
    umount2("/sys", MntFlags::MNT_DETACH).expect("cannot unmount /sys");
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).expect("cannot mount /sys");
}
