//! The node's network devices: bridges, cables, and what exists now.

use std::collections::BTreeSet;
use std::path::Path;

use super::node::Node;
use super::run::{run, try_run};

impl Node {
    /// Runs lines of `ip -batch` on the node.
    #[track_caller]
    pub fn ip<S: AsRef<str>>(&self, lines: &[S]) {
        self.batch("ip", self.netns(), lines);
    }

    /// Runs lines of `ip -batch` where the guests' ends are.
    #[track_caller]
    pub fn ip_wire<S: AsRef<str>>(&self, lines: &[S]) {
        self.batch("ip", self.wire_netns(), lines);
    }

    #[track_caller]
    pub(super) fn batch<S: AsRef<str>>(&self, program: &str, netns: &str, lines: &[S]) {
        if lines.is_empty() {
            return;
        }
        let mut command = self.marked_command(program);
        command.args(["-n", netns, "-batch", "-"]);
        let mut input = String::new();
        for line in lines {
            input.push_str(line.as_ref());
            input.push('\n');
        }
        run(command, &input);
    }

    /// Runs lines of nft(8) on the node, as one transaction.
    #[track_caller]
    pub fn nft(&self, lines: &str) {
        let mut command = self.command("nft");
        command.args(["-f", "-"]);
        run(command, lines);
    }

    /// The node's nftables, as `nft list ruleset` shows them.
    #[track_caller]
    pub fn nft_list(&self) -> String {
        let mut command = self.command("nft");
        command.args(["list", "ruleset"]);
        run(command, "")
    }

    /// Runs lines of `tc -batch` on the node.
    #[track_caller]
    pub fn tc<S: AsRef<str>>(&self, lines: &[S]) {
        self.batch("tc", self.netns(), lines);
    }

    /// Runs ethtool(8) on the node: `ethtool(&["-K", "tap200i1", "tso", "off"])`.
    #[track_caller]
    pub fn ethtool(&self, args: &[&str]) -> String {
        let mut command = self.command("ethtool");
        command.args(args);
        run(command, "")
    }

    /// The names of the devices on the node.
    pub fn devices(&self) -> BTreeSet<String> {
        self.inside(|| list("/sys/class/net"))
    }

    /// How many frames to this device the kernel has thrown away, because its queue was full.
    pub fn dropped(&self, device: &str) -> u64 {
        self.statistic(device, "tx_dropped")
    }

    /// One of the kernel's counters of a device on the node, by its name in /sys; 0 without the device.
    pub fn statistic(&self, device: &str, name: &str) -> u64 {
        let path = format!("/sys/class/net/{device}/statistics/{name}");
        let text = self.inside(|| std::fs::read_to_string(&path));
        text.map_or(0, |text| {
            text.trim().parse().expect("a counter is a number")
        })
    }

    /// Whether the node has this device.
    pub fn has_device(&self, name: &str) -> bool {
        self.devices().contains(name)
    }

    /// The names of the Linux bridges on the node.
    pub(super) fn linux_bridges(&self) -> BTreeSet<String> {
        self.inside(|| {
            let mut names = list("/sys/class/net");
            names.retain(|name| Path::new(&format!("/sys/class/net/{name}/bridge")).exists());
            names
        })
    }

    /// The ports of a Linux bridge.
    pub fn bridge_ports(&self, bridge: &str) -> BTreeSet<String> {
        self.inside(|| list(&format!("/sys/class/net/{bridge}/brif")))
    }

    /// Makes a Linux bridge as ifupdown2 does for Proxmox VE (`bridge-stp off`, `bridge-fd 0`).
    pub fn linux_bridge(&self, name: &str) {
        self.ip(&[
            format!("link add {name} type bridge stp_state 0 forward_delay 0"),
            format!("link set {name} up"),
        ]);
    }

    /// Makes a VLAN-aware Linux bridge; an error is the kernel saying that it has none.
    pub fn linux_bridge_vlan_aware(&self, name: &str) -> Result<(), String> {
        let mut command = self.marked_command("ip");
        command.args(["-n", self.netns(), "link", "add", name]);
        command.args([
            "type",
            "bridge",
            "forward_delay",
            "0",
            "vlan_filtering",
            "1",
        ]);
        let output = try_run(command, "");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        self.ip(&[format!("link set {name} up")]);
        Ok(())
    }

    /// Makes the extra bridge that Proxmox VE uses for `tag=` on a Linux bridge that is not VLAN-aware, and returns
    /// its name: `vmbr0v20`. Its uplinks (`eno1.20`) come along where the kernel has 802.1Q devices.
    pub fn linux_bridge_vlan(&self, bridge: &str, tag: u16) -> String {
        let name = format!("{bridge}v{tag}");
        if self.has_device(&name) {
            return name;
        }
        self.linux_bridge(&name);
        let uplinks = self.bridge_ports(bridge);
        for uplink in uplinks.iter().filter(|port| {
            port.starts_with("en") || port.starts_with("eth") || port.starts_with("bond")
        }) {
            let mut command = self.marked_command("ip");
            let device = format!("{uplink}.{tag}");
            command.args([
                "-n",
                self.netns(),
                "link",
                "add",
                "link",
                uplink,
                "name",
                &device,
            ]);
            command.args(["type", "vlan", "id", &tag.to_string()]);
            if try_run(command, "").status.success() {
                self.ip(&[format!("link set {device} master {name} up")]);
            }
        }
        name
    }

    /// Makes a physical interface and plugs it into `bridge`; returns the other end of its cable, a name that
    /// [`Node::send`] and [`Node::capture`] take.
    pub fn physical(&self, name: &str, bridge: &str) -> String {
        let cable = self.physical_unplugged(name);
        if self.linux_bridges().contains(bridge) {
            self.ip(&[format!("link set {name} master {bridge}")]);
        } else {
            self.vsctl(["add-port", bridge, name]);
        }
        cable
    }

    /// The same, in no bridge.
    pub fn physical_unplugged(&self, name: &str) -> String {
        let cable = format!("w{name}");
        self.ip(&[
            format!(
                "link add {name} type veth peer name {cable} netns {}",
                self.wire_netns()
            ),
            format!("link set {name} up"),
        ]);
        self.ip_wire(&[format!("link set {cable} up")]);
        cable
    }
}

fn list(dir: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter(|entry| entry.path().is_dir());
    names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
