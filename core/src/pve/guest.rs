//! Guest config text → [`Guest`]: what a mirror has to know of a VM or container.
//!
//! The grammar is Proxmox VE's own (`PVE::QemuServer::parse_vm_config`, `PVE::LXC::Config`): only
//! what stands before the first section is the current config, and a line that cannot be read is a
//! warning, never a failure. Everything else in the file stays opaque.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::model::{GuestKind, IfName, NicIndex, VlanSet, Vmid, decimal, excerpt};

/// A guest as its current config describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Guest {
    /// Its number.
    pub vmid: Vmid,
    /// VM or container.
    pub kind: GuestKind,
    /// `name:` of a VM, `hostname:` of a container.
    pub name: Option<String>,
    /// Its tags, in lower case as Proxmox VE compares them.
    pub tags: BTreeSet<String>,
    /// A template never runs.
    pub template: bool,
    /// Its hookscript, a volume: `local:snippets/pve-span`.
    pub hookscript: Option<String>,
    /// Its NICs.
    pub nics: BTreeMap<NicIndex, Nic>,
    /// The IP configuration that a NIC gets from outside: a VM's `ipconfig0:` (cloud-init), a container's `ip=`, as written.
    pub addresses: BTreeMap<NicIndex, String>,
    /// The keys of devices of the node that it has for itself: `hostpci0`.
    pub passthrough: BTreeSet<String>,
}

/// A NIC as the config describes it; what it is plugged into right now is `state::port_map`'s to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nic {
    /// The model's word (`virtio`, `e1000e`, …), or `veth`; opaque.
    pub model: String,
    /// The MAC address as written, if one is.
    pub mac: Option<String>,
    /// The bridge; without one a VM's NIC is user-mode NAT and has no port.
    pub bridge: Option<String>,
    /// The firewall checkbox. It does not say that there is a firewall bridge.
    pub firewall: bool,
    /// The access VLAN.
    pub tag: Option<u16>,
    /// The VLANs of a trunk.
    pub trunks: VlanSet,
    /// The limit in MB/s, as written.
    pub rate: Option<String>,
    /// `mtu=`; 1 stands for the bridge's.
    pub mtu: Option<u32>,
    /// Is its cable unplugged (`link_down=1`)?
    pub link_down: bool,
    /// The whole value, as written.
    pub text: String,
}

impl Nic {
    /// The value without some of its properties, for `qm set` and `pct set`.
    pub fn without(&self, keys: &[&str]) -> String {
        let parts = self.text.split(',').filter(|part| {
            let key = part.split('=').next().unwrap_or_default().trim();
            !keys.contains(&key)
        });
        parts.collect::<Vec<_>>().join(",")
    }
}

impl Nic {
    /// Its MAC address as a number in network byte order: `BC:24:11:2A:00:01` is 0xbc24112a0001.
    pub fn mac_number(&self) -> Option<u64> {
        let mac = self.mac.as_deref()?;
        let mut bytes = mac.split(':').map(|byte| u8::from_str_radix(byte, 16));
        let number = bytes.by_ref().take(6).try_fold(0_u64, |number, byte| {
            byte.ok().map(|byte| number << 8 | u64::from(byte))
        });
        number.filter(|_| mac.split(':').count() == 6)
    }
}

/// A line that was kept opaque, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The line, counted from 1.
    pub line: usize,
    /// What could not be read.
    pub message: String,
}

/// The models that Proxmox VE knows (`PVE::QemuServer`, `$nic_model_list`).
const MODELS: [&str; 14] = [
    "e1000",
    "e1000-82540em",
    "e1000-82544gc",
    "e1000-82545em",
    "e1000e",
    "i82551",
    "i82557b",
    "i82559er",
    "ne2k_isa",
    "ne2k_pci",
    "pcnet",
    "rtl8139",
    "virtio",
    "vmxnet3",
];

/// The most lines of a config that are warned of: nobody reads more.
const MOST_WARNINGS: usize = 100;

/// Reads a guest's config. It cannot fail: what is not understood comes back as warnings.
pub fn parse(vmid: Vmid, kind: GuestKind, text: &str) -> (Guest, Vec<Warning>) {
    let mut guest = Guest {
        vmid,
        kind,
        name: None,
        tags: BTreeSet::new(),
        template: false,
        hookscript: None,
        nics: BTreeMap::new(),
        addresses: BTreeMap::new(),
        passthrough: BTreeSet::new(),
    };
    let mut warnings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if is_section(line) {
            break;
        }
        if line.trim_start().is_empty() || line.starts_with('#') {
            continue;
        }
        let read = read_line(&mut guest, line);
        if let (Err(message), true) = (read, warnings.len() < MOST_WARNINGS) {
            let line = number + 1;
            warnings.push(Warning { line, message });
        }
    }
    (guest, warnings)
}

/// `[PENDING]`, `[pve:pending]`, `[special:…]`, `[<snapshot>]`: the current config ends here.
fn is_section(line: &str) -> bool {
    line.len() > 2 && line.starts_with('[') && line.ends_with(']')
}

fn read_line(guest: &mut Guest, line: &str) -> Result<(), String> {
    if guest.kind == GuestKind::Lxc && is_raw_lxc(line) {
        return Ok(());
    }
    let (key, value) = line
        .split_once(':')
        .filter(|(key, _)| is_key(key))
        .ok_or_else(|| format!("not a `key: value` line: `{}`", excerpt(line)))?;
    let value = value.trim();
    match (key, guest.kind) {
        ("name", GuestKind::Qemu) | ("hostname", GuestKind::Lxc) => {
            guest.name = Some(value.to_owned())
        }
        ("tags", _) => guest.tags = tags(value),
        ("hookscript", _) => guest.hookscript = Some(value.to_owned()),
        ("template", _) => {
            guest.template = boolean(value).ok_or_else(|| not_boolean(key, value))?
        }
        _ if key
            .strip_prefix("net")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) =>
        {
            let index = NicIndex::from_key(key).ok_or_else(|| {
                let key = excerpt(key);
                format!("`{key}` is not a NIC: net0 to net{}", NicIndex::MAX)
            })?;
            let (nic, doubt) = match guest.kind {
                GuestKind::Qemu => vm_nic(value),
                GuestKind::Lxc => ct_nic(value),
            };
            if let (Some(address), GuestKind::Lxc) = (address(value), guest.kind) {
                guest.addresses.insert(index, address);
            }
            let twice = guest.nics.insert(index, nic).is_some();
            let doubt =
                doubt.or_else(|| twice.then(|| "stands twice, the last one counts".to_owned()));
            return doubt.map_or(Ok(()), |doubt| Err(format!("`{key}`: {doubt}")));
        }
        (_, GuestKind::Qemu) => {
            if let Some(index) = key.strip_prefix("ipconfig").and_then(decimal) {
                let address = NicIndex::new(index).zip(address(value));
                guest.addresses.extend(address);
            } else if key.starts_with("hostpci") {
                guest.passthrough.insert(key.to_owned());
            }
        }
        _ => {}
    }
    Ok(())
}

/// The addresses among a NIC's properties, `ip=10.0.0.7/24,ip6=auto`; `manual` is none.
fn address(value: &str) -> Option<String> {
    let parts = value.split(',').map(str::trim);
    let parts = parts.filter(|part| {
        part.split_once('=').is_some_and(|(key, address)| {
            matches!(key, "ip" | "ip6") && !matches!(address, "" | "manual")
        })
    });
    let parts: Vec<&str> = parts.collect();
    (!parts.is_empty()).then(|| parts.join(","))
}

/// `lxc.cgroup2.devices.allow: …` or `lxc.mount.entry = …`.
fn is_raw_lxc(line: &str) -> bool {
    line.trim_start().starts_with("lxc.") && line.contains(['=', ':'])
}

fn is_key(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Some(true),
        "0" | "off" | "no" | "false" => Some(false),
        _ => None,
    }
}

fn not_boolean(key: &str, value: &str) -> String {
    format!("`{key}` is neither yes nor no: `{}`", excerpt(value))
}

fn tags(value: &str) -> BTreeSet<String> {
    value
        .split(|c: char| matches!(c, ';' | ',' | '\0') || c.is_whitespace())
        .filter(|tag| !tag.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// `virtio=MAC,…`, `model=virtio,macaddr=MAC,…` or bare `virtio,…`.
fn vm_nic(value: &str) -> (Nic, Option<String>) {
    let (mut nic, rest, mut doubt) = common(value);
    for (key, value) in rest {
        match (key, value) {
            ("model", Some(model)) => nic.model = model.to_owned(),
            (model, value)
                if nic.model.is_empty()
                    && (MODELS.contains(&model) || value.is_none() || is_mac(value)) =>
            {
                nic.model = model.to_owned();
                nic.mac = value.map(str::to_owned);
            }
            _ => {}
        }
    }
    if nic.model.is_empty() {
        doubt = doubt.or_else(|| Some("names no NIC model".to_owned()));
    } else if !MODELS.contains(&nic.model.as_str()) {
        doubt = doubt.or_else(|| Some(format!("unknown NIC model `{}`", excerpt(&nic.model))));
    }
    (nic, doubt)
}

/// `name=eth0,bridge=vmbr0,hwaddr=MAC,…`.
fn ct_nic(value: &str) -> (Nic, Option<String>) {
    let (mut nic, rest, doubt) = common(value);
    nic.model = "veth".to_owned();
    if let Some((_, Some(kind))) = rest.iter().find(|(key, _)| *key == "type") {
        nic.model = (*kind).to_owned();
    }
    (nic, doubt)
}

type Properties<'a> = Vec<(&'a str, Option<&'a str>)>;

/// The keys that VMs and containers share; the others come back in their order.
fn common(value: &str) -> (Nic, Properties<'_>, Option<String>) {
    let mut nic = Nic {
        model: String::new(),
        mac: None,
        bridge: None,
        firewall: false,
        tag: None,
        trunks: VlanSet::default(),
        rate: None,
        mtu: None,
        link_down: false,
        text: value.to_owned(),
    };
    let mut rest = Vec::new();
    let mut doubt = None;
    for part in value
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let Some((key, value)) = part.split_once('=') else {
            rest.push((part, None));
            continue;
        };
        let fault = match key {
            "bridge" => {
                nic.bridge = Some(value.to_owned());
                value.parse::<IfName>().err().map(|error| error.to_string())
            }
            "macaddr" | "hwaddr" => {
                nic.mac = Some(value.to_owned());
                None
            }
            "firewall" => {
                nic.firewall = boolean(value).unwrap_or(false);
                boolean(value).is_none().then(|| not_boolean(key, value))
            }
            "rate" => {
                nic.rate = Some(value.to_owned());
                None
            }
            "mtu" => {
                nic.mtu = decimal(value);
                None
            }
            "link_down" => {
                nic.link_down = boolean(value).unwrap_or(false);
                boolean(value).is_none().then(|| not_boolean(key, value))
            }
            "tag" => {
                nic.tag = decimal(value).filter(|tag| *tag <= VlanSet::MAX);
                nic.tag
                    .is_none()
                    .then(|| format!("`tag` is not a VLAN: `{}`", excerpt(value)))
            }
            "trunks" => {
                let trunks = trunks(value);
                let fault = trunks
                    .is_none()
                    .then(|| format!("`trunks` is not a list of VLANs: `{}`", excerpt(value)));
                nic.trunks = trunks.unwrap_or_default();
                fault
            }
            _ => {
                rest.push((key, Some(value)));
                None
            }
        };
        doubt = doubt.or(fault);
    }
    (nic, rest, doubt)
}

fn is_mac(value: Option<&str>) -> bool {
    value.is_some_and(|mac| {
        mac.split(':').count() == 6
            && mac
                .split(':')
                .all(|byte| byte.len() == 2 && byte.bytes().all(|b| b.is_ascii_hexdigit()))
    })
}

/// `20;30-40`.
fn trunks(value: &str) -> Option<VlanSet> {
    let mut ranges = Vec::new();
    for part in value
        .split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high): (u16, u16) = (decimal(low.trim())?, decimal(high.trim())?);
        if low > high || high > VlanSet::MAX {
            return None;
        }
        ranges.push(low..=high);
    }
    Some(ranges.into_iter().collect())
}

#[cfg(test)]
mod tests;
