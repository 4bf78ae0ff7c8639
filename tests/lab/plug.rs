//! Starting and stopping guests: devices, and plugging them in the order and under the names that Proxmox VE uses
//! (`PVE::Network`: `tap_plug`, `tap_unplug`, `cleanup_firewall_bridge`).
//!
//! One guest or five hundred take the same few calls: the lines for `ip -batch` and the one ovs-vsctl command are
//! collected first, then run.

use std::collections::BTreeSet;
use std::path::Path;

use super::guest::{Inside, Nic};
use super::node::Node;
use super::run::{try_run, wait_until};

/// What plugging NICs takes, in this order.
#[derive(Default)]
struct Batch {
    ip: Vec<String>,
    bridge_vlans: Vec<String>,
    ovs: Vec<String>,
    /// What needs the internal ports that Open vSwitch has made.
    ip_after_ovs: Vec<String>,
}

impl Node {
    /// Starts a guest: makes its devices and plugs them.
    #[track_caller]
    pub fn start_guest(&self, vmid: u32) {
        self.start_guests([vmid]);
    }

    /// Starts many guests in a few calls: `start_guests(1000..1500)`.
    #[track_caller]
    pub fn start_guests(&self, vmids: impl IntoIterator<Item = u32>) {
        let nics: Vec<Nic> = vmids
            .into_iter()
            .flat_map(|vmid| self.nics_of(vmid))
            .collect();
        self.make_devices(&nics);
        self.plug_all(&nics);
    }

    /// Stops a guest: unplugs its NICs and takes the devices away.
    #[track_caller]
    pub fn stop_guest(&self, vmid: u32) {
        self.stop_guests([vmid]);
    }

    /// Stops many guests in a few calls.
    #[track_caller]
    pub fn stop_guests(&self, vmids: impl IntoIterator<Item = u32>) {
        let nics: Vec<Nic> = vmids
            .into_iter()
            .flat_map(|vmid| self.nics_of(vmid))
            .collect();
        self.unplug_all(&nics);
        self.remove_devices(&nics);
    }

    /// Ends a guest as a crash does: its devices go, and nobody unplugs anything.
    #[track_caller]
    pub fn crash_guest(&self, vmid: u32) {
        self.remove_devices(&self.nics_of(vmid));
    }

    /// Hot-plugs `101/net0`.
    #[track_caller]
    pub fn plug(&self, nic: &str) {
        let nics = [self.nic(nic)];
        self.make_devices(&nics);
        self.plug_all(&nics);
    }

    /// Makes the device of `101/net0` and leaves it unplugged, as QEMU does a moment before Proxmox VE plugs it.
    #[track_caller]
    pub fn make_device(&self, nic: &str) {
        self.make_devices(&[self.nic(nic)]);
    }

    /// Hot-unplugs `101/net0`; the device goes too.
    #[track_caller]
    pub fn unplug(&self, nic: &str) {
        let nics = [self.nic(nic)];
        self.unplug_all(&nics);
        self.remove_devices(&nics);
    }

    /// What a live edit of a NIC's bridge, tag, trunks or firewall does: the device stays and is plugged anew, by
    /// what the config says now. Without a hook.
    #[track_caller]
    pub fn replug(&self, nic: &str) {
        let nics = [self.nic(nic)];
        self.unplug_all(&nics);
        self.plug_all(&nics);
    }

    /// From now on the node runs the nftables firewall (proxmox-firewall): on a Linux bridge there are no firewall
    /// bridges then, whatever `firewall=1` says.
    pub fn use_nftables_firewall(&self) {
        *self.nftables_firewall.lock().unwrap() = true;
    }

    /// The device that the bridge knows `101/net0` by at the moment: the guest's own or the firewall's.
    #[track_caller]
    pub fn bridge_port(&self, nic: &str) -> String {
        let nic = self.nic(nic);
        let devices = self.devices();
        let firewall = [nic.firewall_port_ovs(), nic.firewall_port()];
        firewall
            .into_iter()
            .find(|port| devices.contains(port))
            .unwrap_or_else(|| nic.device())
    }

    fn make_devices(&self, nics: &[Nic]) {
        let devices = self.devices();
        let (mut node, mut wire) = (Vec::new(), Vec::new());
        for nic in nics.iter().filter(|nic| !devices.contains(&nic.device())) {
            let (device, end) = (nic.device(), nic.guest_end());
            if nic.is_tap() {
                self.open_tap(nic);
            } else {
                let netns = match nic.inside {
                    Inside::Wire => self.wire_netns().to_owned(),
                    Inside::Stack | Inside::Reader => self.container_netns(nic),
                };
                node.push(format!(
                    "link add {device} type veth peer name {end} address {} netns {netns}",
                    nic.mac
                ));
            }
            if nic.inside == Inside::Wire {
                wire.push(format!("link set {end} up"));
            }
            node.push(format!("link set {device} promisc on up"));
        }
        self.ip(&node);
        self.ip_wire(&wire);
        for nic in nics.iter().filter(|nic| !devices.contains(&nic.device())) {
            if nic.inside == Inside::Reader {
                self.lengthen_queue(&nic.device());
            }
            self.give_address(nic);
        }
    }

    /// A reader's thread may have to wait for a busy machine; what it is there to count must not get lost then. Not
    /// every kernel takes a queue of any length.
    fn lengthen_queue(&self, device: &str) {
        let takes = |length: &&str| {
            let mut command = self.marked_command("ip");
            command.args(["-n", self.netns(), "link", "set", device]);
            command.args(["txqueuelen", length]);
            try_run(command, "").status.success()
        };
        let taken = ["200000", "32767"].into_iter().find(takes);
        assert!(taken.is_some(), "{device} takes no longer queue");
    }

    fn remove_devices(&self, nics: &[Nic]) {
        let devices = self.devices();
        let existing = nics.iter().filter(|nic| devices.contains(&nic.device()));
        let lines: Vec<String> = existing
            .filter(|nic| !nic.is_tap())
            .map(|nic| format!("link delete {}", nic.device()))
            .collect();
        self.ip(&lines);
        self.end_processes(nics);
    }

    fn plug_all(&self, nics: &[Nic]) {
        self.remove_leftovers(nics);
        let linux = self.linux_bridges();
        let mut batch = Batch::default();
        for nic in nics {
            if linux.contains(&nic.bridge) {
                self.plug_into_linux(nic, &mut batch);
            } else {
                plug_into_ovs(nic, &mut batch);
            }
        }
        self.ip(&batch.ip);
        self.batch("bridge", self.netns(), &batch.bridge_vlans);
        if !batch.ovs.is_empty() {
            self.vsctl(batch.ovs);
        }
        self.ip(&batch.ip_after_ovs);
        self.wait_for_ports(nics);
    }

    /// A bridge serves a port when it has heard that the link is up, which may take the kernel a while.
    #[track_caller]
    fn wait_for_ports(&self, nics: &[Nic]) {
        let of_nic = |nic: &Nic| {
            let link = [nic.firewall_link(), nic.firewall_port()];
            [nic.device(), nic.firewall_port_ovs()]
                .into_iter()
                .chain(link)
        };
        let ports: Vec<String> = nics.iter().flat_map(of_nic).collect();
        self.inside(|| {
            let is_waiting = |port: &String| {
                let read = |file: &str| {
                    std::fs::read_to_string(format!("/sys/class/net/{port}/brport/{file}"))
                };
                // A sensor's port is taken out of action again by pve-span, and perhaps before we look.
                let is_output = || read("unicast_flood").is_ok_and(|flag| flag.trim() == "0");
                read("state").is_ok_and(|state| state.trim() != "3") && !is_output()
            };
            wait_until("bridges serve their ports", || {
                !ports.iter().any(is_waiting)
            });
        });
    }

    fn unplug_all(&self, nics: &[Nic]) {
        // An OVS port's master is the kernel's datapath, which does not let go of it this way; with ours it has none.
        let bridged = |device: &String| {
            self.inside(|| Path::new(&format!("/sys/class/net/{device}/brport")).exists())
        };
        let lines: Vec<String> = nics
            .iter()
            .map(Nic::device)
            .filter(bridged)
            .map(|device| format!("link set {device} nomaster"))
            .collect();
        self.ip(&lines);
        self.remove_leftovers(nics);
    }

    /// `ovs-vsctl del-port` for the device, then `cleanup_firewall_bridge`.
    fn remove_leftovers(&self, nics: &[Nic]) {
        let devices = self.devices();
        let mut ports = Vec::new();
        let mut lines = Vec::new();
        for nic in nics {
            ports.push(nic.device());
            if devices.contains(&nic.firewall_port_ovs()) {
                ports.push(nic.firewall_port_ovs());
            }
            let links = [nic.firewall_link(), nic.firewall_bridge()];
            lines.extend(
                links
                    .into_iter()
                    .filter(|link| devices.contains(link))
                    .map(|link| format!("link delete {link}")),
            );
        }
        if self.has_ovs() && !ports.is_empty() {
            let commands = ports
                .iter()
                .flat_map(|port| ["--", "--if-exists", "del-port", port]);
            self.vsctl(commands.collect::<Vec<_>>());
        }
        self.ip(&lines);
    }

    fn plug_into_linux(&self, nic: &Nic, batch: &mut Batch) {
        let vlan_aware = self.inside(|| {
            let path = format!("/sys/class/net/{}/bridge/vlan_filtering", nic.bridge);
            std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
        });
        let bridge = match nic.tag {
            Some(tag) if !vlan_aware => self.linux_bridge_vlan(&nic.bridge, tag),
            _ => nic.bridge.clone(),
        };
        let port = if nic.firewall && !*self.nftables_firewall.lock().unwrap() {
            let (fwbr, link, port) = (
                nic.firewall_bridge(),
                nic.firewall_link(),
                nic.firewall_port(),
            );
            make_firewall_bridge(&fwbr, batch);
            batch
                .ip
                .push(format!("link add {link} type veth peer name {port}"));
            batch.ip.push(format!("link set {link} master {fwbr} up"));
            batch.ip.push(format!("link set {port} master {bridge} up"));
            batch
                .ip
                .push(format!("link set {} master {fwbr}", nic.device()));
            port
        } else {
            batch
                .ip
                .push(format!("link set {} master {bridge}", nic.device()));
            nic.device()
        };
        if vlan_aware {
            batch
                .bridge_vlans
                .push(format!("vlan del dev {port} vid 1-4094"));
            let trunks = nic
                .trunks
                .as_deref()
                .or_else(|| nic.tag.is_none().then_some("2-4094"));
            for vids in trunks.into_iter().flat_map(|trunks| trunks.split(';')) {
                batch
                    .bridge_vlans
                    .push(format!("vlan add dev {port} vid {vids}"));
            }
            batch.bridge_vlans.push(format!(
                "vlan add dev {port} vid {} pvid untagged",
                nic.tag.unwrap_or(1)
            ));
        }
    }

    /// Puts Open vSwitch's internal ports, made anew, back up and into their firewall bridges.
    pub(super) fn mend_internal_ports(&self) {
        let devices = self.devices();
        let bridges: BTreeSet<String> =
            self.vsctl(["list-br"]).lines().map(str::to_owned).collect();
        let mut lines: Vec<String> = bridges
            .iter()
            .map(|bridge| format!("link set {bridge} up"))
            .collect();
        for port in &devices {
            let Some((vmid, n)) = port
                .strip_prefix("fwln")
                .and_then(|rest| rest.split_once('o'))
            else {
                continue;
            };
            let fwbr = format!("fwbr{vmid}i{n}");
            if devices.contains(&fwbr) {
                lines.push(format!("link set {port} master {fwbr} up"));
            }
        }
        self.ip(&lines);
    }
}

fn plug_into_ovs(nic: &Nic, batch: &mut Batch) {
    let device = nic.device();
    let port = if nic.firewall {
        let (fwbr, port) = (nic.firewall_bridge(), nic.firewall_port_ovs());
        make_firewall_bridge(&fwbr, batch);
        batch.ip.push(format!("link set {device} master {fwbr}"));
        batch
            .ip_after_ovs
            .push(format!("link set {port} master {fwbr} up"));
        port
    } else {
        device
    };
    batch
        .ovs
        .extend(["--", "add-port", &nic.bridge, &port].map(str::to_owned));
    batch.ovs.extend(nic.tag.map(|tag| format!("tag={tag}")));
    batch.ovs.extend(
        nic.trunks
            .as_ref()
            .map(|trunks| format!("trunks={}", trunks.replace(';', ","))),
    );
    if nic.tag.is_some() && nic.trunks.is_some() {
        batch.ovs.push("vlan_mode=native-untagged".to_owned());
    }
    if nic.firewall {
        batch
            .ovs
            .extend(["--", "set", "Interface", &port, "type=internal"].map(str::to_owned));
    }
}

fn make_firewall_bridge(fwbr: &str, batch: &mut Batch) {
    batch.ip.push(format!(
        "link add {fwbr} type bridge stp_state 0 forward_delay 0"
    ));
    batch.ip.push(format!("link set {fwbr} up"));
}
