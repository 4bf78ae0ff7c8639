//! The node's own Open vSwitch: a real ovsdb-server and a real ovs-vswitchd with the userspace datapath, or with the
//! kernel's where that is asked for and there.
//!
//! The userspace datapath needs no kernel module, so this runs wherever namespaces do. One difference to the
//! kernel's shows: internal ports live in ovs-vswitchd, and go when it is killed. [`Node::start_vswitchd`] puts
//! them back into their firewall bridges, where on a Proxmox VE node they would have stayed.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use super::daemon::Daemon;
use super::node::Node;
use super::run::{require, run};

const PROGRAMS: [(&str, &str); 5] = [
    ("ovsdb-server", "openvswitch-switch"),
    ("ovs-vswitchd", "openvswitch-switch"),
    ("ovs-vsctl", "openvswitch-switch"),
    ("ovs-appctl", "openvswitch-common"),
    ("ovsdb-tool", "openvswitch-common"),
];
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// The columns of a mirror that only a hand changes.
const MIRROR: &str = "_uuid,name,select_all,select_src_port,select_dst_port,select_vlan,output_port,output_vlan,snaplen,external_ids";

/// What switches the frames.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Datapath {
    /// ovs-vswitchd itself: `datapath_type=netdev`.
    #[default]
    Userspace,
    /// The kernel's module openvswitch, as on a Proxmox VE node: `datapath_type=system`.
    Kernel,
}

/// Which of the two daemons run, and what switches.
#[derive(Default)]
pub(super) struct Ovs {
    datapath: Datapath,
    database: Option<Daemon>,
    switch: Option<Daemon>,
    starts: u32,
}

impl Node {
    /// A node whose Open vSwitch uses the kernel's datapath; an error is why there is none here.
    pub fn start_with_kernel_datapath() -> Result<Node, String> {
        let node = Node::without_ovs();
        node.first_start_of_ovs(Datapath::Kernel);
        // Whether it is there shows only when something needs it.
        node.vsctl(["add-br", "probe"]);
        if !node.has_device("probe") {
            return Err("this kernel has no Open vSwitch datapath (module openvswitch)".to_owned());
        }
        node.vsctl(["del-br", "probe"]);
        Ok(node)
    }

    /// Installs Open vSwitch on a node that was started without it.
    pub fn install_ovs(&self) {
        self.first_start_of_ovs(Datapath::Userspace);
    }

    pub(super) fn first_start_of_ovs(&self, datapath: Datapath) {
        require(&PROGRAMS);
        self.ovs.lock().unwrap().datapath = datapath;
        for dir in ["run/openvswitch", "etc/openvswitch", "var/log/openvswitch"] {
            std::fs::create_dir_all(self.path(dir))
                .expect("the guardian has made the root directory");
        }
        let mut create = self.marked_command("ovsdb-tool");
        create
            .arg("create")
            .arg(self.path("etc/openvswitch/conf.db"))
            .arg(SCHEMA);
        run(create, "");
        self.start_ovsdb();
        // What ovs-ctl leaves there on a real node.
        self.vsctl([
            "--no-wait",
            "--",
            "init",
            "--",
            "set",
            "Open_vSwitch",
            ".",
            "external_ids:hostname=pve1",
            // How often it goes through its flows anyway, in milliseconds, at most: so long [`Node::settle`] takes.
            "other_config:max-revalidator=100",
        ]);
        self.start_vswitchd();
    }

    /// Starts ovsdb-server on the database as it was left, and waits until it takes connections.
    pub fn start_ovsdb(&self) {
        let mut ovs = self.ovs.lock().unwrap();
        assert!(ovs.database.is_none(), "ovsdb-server runs already");
        let socket = self.path("run/openvswitch/db.sock");
        let mut command = self.ovs_command("ovsdb-server");
        command
            .arg(self.path("etc/openvswitch/conf.db"))
            .arg(format!("--remote=punix:{}", socket.display()))
            .arg(format!(
                "--unixctl={}",
                self.path("run/openvswitch/ovsdb-server.ctl").display()
            ));
        let mut daemon = Daemon::start(command, &self.path("var/log/openvswitch/ovsdb-server.log"));
        daemon.wait_until_ready(|| UnixStream::connect(&socket).is_ok());
        ovs.database = Some(daemon);
    }

    /// Ends ovsdb-server in order, as `systemctl stop` does.
    pub fn stop_ovsdb(&self) {
        self.end_ovsdb(Signal::SIGTERM);
    }

    /// Kills ovsdb-server as a crash would; its socket stays, and nobody listens to it.
    pub fn kill_ovsdb(&self) {
        self.end_ovsdb(Signal::SIGKILL);
    }

    fn end_ovsdb(&self, signal: Signal) {
        let database = self.ovs.lock().unwrap().database.take();
        database.expect("ovsdb-server runs").end(signal);
    }

    /// Makes ovsdb-server hang: connections are taken, nothing is answered.
    pub fn pause_ovsdb(&self) {
        self.ovs
            .lock()
            .unwrap()
            .database
            .as_ref()
            .expect("ovsdb-server runs")
            .signal(Signal::SIGSTOP);
    }

    /// Ends the hanging.
    pub fn resume_ovsdb(&self) {
        self.ovs
            .lock()
            .unwrap()
            .database
            .as_ref()
            .expect("ovsdb-server runs")
            .signal(Signal::SIGCONT);
    }

    /// Starts ovs-vswitchd and waits until it has built what the database says.
    pub fn start_vswitchd(&self) {
        let starts = {
            let mut ovs = self.ovs.lock().unwrap();
            assert!(ovs.switch.is_none(), "ovs-vswitchd runs already");
            let mut command = self.ovs_command("ovs-vswitchd");
            command
                .arg(format!(
                    "unix:{}",
                    self.path("run/openvswitch/db.sock").display()
                ))
                .arg(format!("--unixctl={}", self.vswitchd_ctl().display()));
            if ovs.datapath == Datapath::Userspace {
                // Not the kernel's, even where there is one.
                command.arg("--disable-system");
            }
            ovs.switch = Some(Daemon::start(
                command,
                &self.path("var/log/openvswitch/ovs-vswitchd.log"),
            ));
            ovs.starts += 1;
            ovs.starts
        };
        // Only a change makes ovs-vsctl wait for ovs-vswitchd.
        self.vsctl([
            "set".to_owned(),
            "Open_vSwitch".to_owned(),
            ".".to_owned(),
            format!("external_ids:starts={starts}"),
        ]);
        self.mend_internal_ports();
    }

    /// Kills ovs-vswitchd as a crash would; the database stays.
    pub fn kill_vswitchd(&self) {
        self.ovs
            .lock()
            .unwrap()
            .switch
            .take()
            .expect("ovs-vswitchd runs")
            .end(Signal::SIGKILL);
    }

    /// The process ids of ovsdb-server and ovs-vswitchd, where they run.
    pub fn ovs_pids(&self) -> (Option<u32>, Option<u32>) {
        let ovs = self.ovs.lock().unwrap();
        (
            ovs.database.as_ref().map(Daemon::pid),
            ovs.switch.as_ref().map(Daemon::pid),
        )
    }

    /// Runs ovs-vsctl on the node's database and returns what it prints. Like the real one it waits until
    /// ovs-vswitchd has followed, unless that does not run.
    ///
    /// # Panics
    /// With its standard error if it fails.
    #[track_caller]
    pub fn ovs_vsctl(&self, args: &[&str]) -> String {
        self.vsctl(args)
    }

    #[track_caller]
    pub(super) fn vsctl<S: AsRef<std::ffi::OsStr>>(&self, args: impl AsRef<[S]>) -> String {
        run(self.vsctl_command(args.as_ref()), "")
    }

    fn vsctl_command<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Command {
        let mut command = self.marked_command("ovs-vsctl");
        command
            .arg(format!(
                "--db=unix:{}",
                self.path("run/openvswitch/db.sock").display()
            ))
            .arg("--timeout=20");
        if self.ovs.lock().unwrap().switch.is_none() {
            command.arg("--no-wait");
        }
        command.args(args);
        command
    }

    /// Runs ovs-appctl on the node's ovs-vswitchd and returns what it prints.
    #[track_caller]
    pub fn ovs_appctl(&self, args: &[&str]) -> String {
        let mut command = self.marked_command("ovs-appctl");
        command
            .arg("--timeout=20")
            .arg("-t")
            .arg(self.vswitchd_ctl())
            .args(args);
        run(command, "")
    }

    /// Returns when Open vSwitch's flow cache has followed what it was asked for: it answers for a change, and for a
    /// revalidation, before that is over. What was changed behind its back it does not look for: see
    /// [`Node::forget_flows`].
    pub fn settle(&self) {
        let is_running = self.ovs.lock().unwrap().switch.is_some();
        if is_running && !self.ovs_appctl(&["ofproto/list"]).trim().is_empty() {
            // The first one may be the end of a round that began before.
            for _ in 0..2 {
                self.ovs_appctl(&["revalidator/wait"]);
            }
        }
    }

    /// Makes Open vSwitch treat the next frame of every flow by today's configuration: after a change of mirrors by hand,
    /// which it does not follow by itself, as it does not follow one by ovs-vsctl.
    pub fn forget_flows(&self) {
        if self.ovs.lock().unwrap().switch.is_some() {
            self.ovs_appctl(&["dpctl/del-flows"]);
        }
    }

    /// From now on the userspace datapath takes frames as the kernel's does, unsegmented and without checksums too.
    /// Without it, TCP between guests made with [`super::Guest::qemu`] does not get through: it treats the
    /// unfinished checksums as finished. To be called before there are bridges, since ovs-vswitchd starts anew.
    pub fn ovs_takes_offloads(&self) {
        self.vsctl([
            "set",
            "Open_vSwitch",
            ".",
            "other_config:userspace-tso-enable=true",
        ]);
        self.kill_vswitchd();
        self.start_vswitchd();
    }

    /// Makes an OVS bridge as ifupdown2 does for Proxmox VE.
    pub fn ovs_bridge(&self, name: &str) {
        let datapath = match self.ovs.lock().unwrap().datapath {
            Datapath::Userspace => "datapath_type=netdev",
            Datapath::Kernel => "datapath_type=system",
        };
        self.vsctl([
            "--may-exist",
            "add-br",
            name,
            "--",
            "set",
            "Bridge",
            name,
            datapath,
        ]);
        if self.ovs_pids().1.is_some() {
            self.ip(&[format!("link set {name} up")]);
        }
    }

    /// Every mirror of every bridge with every column but its statistics, and who holds it: for comparing before
    /// and after, byte for byte.
    pub fn mirrors_raw(&self) -> String {
        let columns = format!("--columns={MIRROR}");
        self.vsctl([
            "--format=json",
            &columns,
            "list",
            "Mirror",
            "--",
            "--columns=name,mirrors",
            "list",
            "Bridge",
        ])
    }

    pub(super) fn has_ovs(&self) -> bool {
        self.ovs.lock().unwrap().database.is_some()
    }

    fn ovs_command(&self, program: &str) -> Command {
        let mut command = self.command(program);
        let run_dir = self.path("run/openvswitch");
        command
            .env("OVS_RUNDIR", &run_dir)
            .env("OVS_DBDIR", self.path("etc/openvswitch"))
            .env("OVS_LOGDIR", self.path("var/log/openvswitch"))
            .current_dir(run_dir);
        command
    }

    fn vswitchd_ctl(&self) -> PathBuf {
        self.path("run/openvswitch/ovs-vswitchd.ctl")
    }
}
