//! A guest as its config file has it: what `qm set` and `pct set` would have written.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::frame::Mac;

/// The two kinds of guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A QEMU virtual machine.
    Vm,
    /// An LXC container.
    Ct,
}

impl Kind {
    /// The word in `.vmlist`.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Vm => "qemu",
            Kind::Ct => "lxc",
        }
    }

    /// The folder below `nodes/<node>/`.
    pub fn folder(self) -> &'static str {
        match self {
            Kind::Vm => "qemu-server",
            Kind::Ct => "lxc",
        }
    }

    /// The prefix of its devices on the node.
    pub fn device(self) -> &'static str {
        match self {
            Kind::Vm => "tap",
            Kind::Ct => "veth",
        }
    }
}

/// What is behind a guest's NICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// The end of a cable in the wire's namespace, for frames made by hand. (A veth pair, also for a VM.)
    Wire,
    /// A network stack: a VM's behind a tap opened as QEMU does, a container's at the other end of its veth pair.
    Stack,
    /// A program that only reads such a tap: a sensor.
    Reader,
}

/// A guest's configuration.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The guest's id.
    pub vmid: u32,
    /// VM or container.
    pub kind: Kind,
    inside: Inside,
    keys: BTreeMap<String, String>,
    notes: String,
    sections: String,
}

impl Guest {
    /// A virtual machine.
    pub fn vm(vmid: u32) -> Guest {
        let keys = [
            ("cores", "1"),
            ("memory", "512"),
            ("ostype", "l26"),
            ("scsihw", "virtio-scsi-single"),
        ];
        Guest::with_keys(vmid, Kind::Vm, &keys)
    }

    /// A container.
    pub fn ct(vmid: u32) -> Guest {
        let keys = [
            ("arch", "amd64"),
            ("memory", "512"),
            ("ostype", "debian"),
            ("unprivileged", "1"),
        ];
        Guest::with_keys(vmid, Kind::Ct, &keys)
    }

    fn with_keys(vmid: u32, kind: Kind, keys: &[(&str, &str)]) -> Guest {
        let keys = keys
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Guest {
            vmid,
            kind,
            inside: Inside::Wire,
            keys,
            notes: String::new(),
            sections: String::new(),
        }
    }

    /// As QEMU runs it: real taps with offloads, and a network stack behind them that has an address on each NIC
    /// ([`super::Node::ip_of`]).
    ///
    /// # Panics
    /// If it is a container.
    #[track_caller]
    pub fn qemu(mut self) -> Guest {
        assert_eq!(self.kind, Kind::Vm, "QEMU runs virtual machines");
        self.inside = Inside::Stack;
        self
    }

    /// As LXC runs it: its ends of the veth pairs in a network namespace of its own, with addresses as above.
    ///
    /// # Panics
    /// If it is a virtual machine.
    #[track_caller]
    pub fn lxc(mut self) -> Guest {
        assert_eq!(self.kind, Kind::Ct, "LXC runs containers");
        self.inside = Inside::Stack;
        self
    }

    /// QEMU's taps, and nothing behind them that would answer: [`super::Node::capture_tap`] reads them.
    ///
    /// # Panics
    /// If it is a container.
    #[track_caller]
    pub fn qemu_reader(mut self) -> Guest {
        assert_eq!(self.kind, Kind::Vm, "QEMU runs virtual machines");
        self.inside = Inside::Reader;
        self
    }

    /// `name:` of a VM, `hostname:` of a container.
    pub fn name(self, name: &str) -> Guest {
        let key = match self.kind {
            Kind::Vm => "name",
            Kind::Ct => "hostname",
        };
        self.set(key, name)
    }

    /// `tags:`, as Proxmox VE joins them: `prod;web`.
    pub fn tags(self, tags: &str) -> Guest {
        self.set("tags", tags)
    }

    /// `net<n>:`. Without a MAC address in it, the device gets [`Nic::default_mac`].
    pub fn net(self, n: u32, line: &str) -> Guest {
        self.set(&format!("net{n}"), line)
    }

    /// Any other key.
    pub fn set(mut self, key: &str, value: &str) -> Guest {
        self.keys.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Takes a key away.
    pub fn unset(mut self, key: &str) -> Guest {
        self.keys.remove(key);
        self
    }

    /// The notes, as they stand in the file behind `#` (the caller encodes them).
    pub fn notes(mut self, text: &str) -> Guest {
        self.notes = text.to_owned();
        self
    }

    /// Whatever follows the current configuration: `[PENDING]`, snapshots.
    pub fn sections(mut self, text: &str) -> Guest {
        self.sections = text.to_owned();
        self
    }

    /// The config file, keys in Proxmox VE's order.
    pub fn to_conf(&self) -> String {
        let mut conf = String::new();
        for line in self.notes.lines() {
            let _ = writeln!(conf, "#{line}");
        }
        for (key, value) in &self.keys {
            let _ = writeln!(conf, "{key}: {value}");
        }
        if !self.sections.is_empty() {
            let _ = write!(conf, "\n{}", self.sections);
        }
        conf
    }

    /// The NICs that have a bridge, in order of their numbers.
    pub fn nics(&self) -> Vec<Nic> {
        let nic = |(key, line): (&String, &String)| {
            let n = key.strip_prefix("net")?.parse().ok()?;
            let inside = self.inside;
            Some(Nic {
                inside,
                ..Nic::parse(self.vmid, self.kind, n, line)?
            })
        };
        let mut nics: Vec<Nic> = self.keys.iter().filter_map(nic).collect();
        nics.sort_by_key(|nic| nic.n);
        nics
    }
}

/// A NIC as its `net<n>:` line has it, and the names of its devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// The guest's id.
    pub vmid: u32,
    /// The kind of guest.
    pub kind: Kind,
    /// The NIC's number.
    pub n: u32,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The bridge that it is plugged into.
    pub bridge: String,
    /// Whether the line says `firewall=1`.
    pub firewall: bool,
    /// `tag=`
    pub tag: Option<u16>,
    /// `trunks=`, as written: `20;30-40`.
    pub trunks: Option<String>,
    /// What is behind it.
    pub inside: Inside,
}

impl Nic {
    /// Whether its device is a tap, and goes with the process that holds it open.
    pub fn is_tap(&self) -> bool {
        self.kind == Kind::Vm && self.inside != Inside::Wire
    }

    fn parse(vmid: u32, kind: Kind, n: u32, line: &str) -> Option<Nic> {
        let pairs: Vec<(&str, &str)> = line
            .split(',')
            .filter_map(|part| part.split_once('='))
            .collect();
        let value = |key: &str| pairs.iter().find(|pair| pair.0 == key).map(|pair| pair.1);
        // The model of a VM's NIC is a key too: virtio=BC:24:…, model=virtio,macaddr=BC:24:…
        let mac = value("macaddr")
            .or_else(|| value("hwaddr"))
            .or_else(|| pairs.first().map(|pair| pair.1));
        Some(Nic {
            vmid,
            kind,
            n,
            mac: mac
                .and_then(|text| text.parse().ok())
                .unwrap_or_else(|| Nic::default_mac(vmid, n)),
            bridge: value("bridge")?.to_owned(),
            firewall: value("firewall") == Some("1"),
            tag: value("tag").and_then(|tag| tag.parse().ok()),
            trunks: value("trunks").map(str::to_owned),
            inside: Inside::Wire,
        })
    }

    /// The MAC address of a NIC whose line names none: Proxmox VE's prefix, then guest and number.
    pub fn default_mac(vmid: u32, n: u32) -> Mac {
        let [_, high, middle, low] = vmid.to_be_bytes();
        Mac([
            0xbc,
            0x24,
            0x10 | (high & 0x0f),
            middle,
            low,
            n.to_be_bytes()[3],
        ])
    }

    /// `101/net0`
    pub fn id(&self) -> String {
        format!("{}/net{}", self.vmid, self.n)
    }

    /// The device on the node: `tap101i0`, `veth300i0`.
    pub fn device(&self) -> String {
        format!("{}{}i{}", self.kind.device(), self.vmid, self.n)
    }

    /// The guest's end of it, in the wire's namespace: `g101i0`.
    pub fn guest_end(&self) -> String {
        guest_end(self.vmid, self.n)
    }

    /// The firewall bridge: `fwbr101i0`.
    pub fn firewall_bridge(&self) -> String {
        format!("fwbr{}i{}", self.vmid, self.n)
    }

    /// The firewall bridge's port on Open vSwitch, at both ends of it: `fwln101o0`.
    pub fn firewall_port_ovs(&self) -> String {
        format!("fwln{}o{}", self.vmid, self.n)
    }

    /// The firewall bridge's own end of the pair to a Linux bridge: `fwln101i0`.
    pub fn firewall_link(&self) -> String {
        format!("fwln{}i{}", self.vmid, self.n)
    }

    /// The Linux bridge's end of that pair: `fwpr101p0`.
    pub fn firewall_port(&self) -> String {
        format!("fwpr{}p{}", self.vmid, self.n)
    }
}

/// What a word in a test means: the device in the wire's namespace of `101/net0`, or a device's own name.
pub(super) fn wire_device(word: &str) -> String {
    match split_nic(word) {
        Some((vmid, n)) => guest_end(vmid, n),
        None => word.to_owned(),
    }
}

/// `101/net0` → (101, 0)
pub(super) fn split_nic(word: &str) -> Option<(u32, u32)> {
    let (vmid, n) = word.split_once("/net")?;
    Some((vmid.parse().ok()?, n.parse().ok()?))
}

fn guest_end(vmid: u32, n: u32) -> String {
    format!("g{vmid}i{n}")
}
