//! The words everything else is built from: guests, NICs, interface names, VLANs, directions, and
//! how Proxmox VE names a guest's ports.
//!
//! Only types with an invariant live here; what they mean together is `state`'s and `resolve`'s.

pub mod session_names;

mod names;

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use names::{IfName, Invalid, NodeName, SessionName, excerpt, is_control, printable};

/// One output of one session: what mirrors and copies belong to, and what the marks on them say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct OutputKey {
    /// The session.
    pub session: SessionName,
    /// The output, as span.cfg writes it.
    pub output: String,
}

impl OutputKey {
    /// An output of a session.
    pub fn new(session: &SessionName, output: &(impl ToString + ?Sized)) -> Self {
        Self {
            session: session.clone(),
            output: output.to_string(),
        }
    }
}

/// The most names that a message lists before it says how many more there are.
pub const MAX_LISTED: usize = 5;

/// A few of a list, and how many more there are.
pub fn some<T: ToString>(list: &[T]) -> String {
    let shown: Vec<String> = list.iter().take(MAX_LISTED).map(T::to_string).collect();
    let shown = shown.join(", ");
    match list.len().checked_sub(MAX_LISTED) {
        Some(more) if more > 0 => format!("{shown} and {more} more"),
        _ => shown,
    }
}

/// A guest's number, 1 to 999999999 (Proxmox VE's `pve-vmid` format; it hands out 100 and up).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Vmid(u32);

impl Vmid {
    /// The largest number that Proxmox VE accepts.
    pub const MAX: u32 = 999_999_999;

    /// A guest number, if it is within Proxmox VE's bounds.
    pub fn new(number: u32) -> Option<Self> {
        (1..=Self::MAX).contains(&number).then_some(Self(number))
    }

    /// The bare number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vmid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Vmid {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        decimal(text).and_then(Self::new).ok_or_else(|| {
            Invalid(format!(
                "`{}` is not a guest number (1 to {})",
                excerpt(text),
                Self::MAX
            ))
        })
    }
}

/// A decimal number in its one spelling: digits only, no sign, no leading zero.
pub(crate) fn decimal<T: FromStr>(text: &str) -> Option<T> {
    let canonical = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

/// The number of a NIC within its guest: the `0` of `net0` (0 to 31, as in Proxmox VE).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct NicIndex(u8);

impl NicIndex {
    /// net0.
    pub const FIRST: Self = Self(0);
    /// The largest index: Proxmox VE allows 32 NICs a guest.
    pub const MAX: u8 = 31;

    /// An index, if it is within Proxmox VE's bounds.
    pub fn new(index: u8) -> Option<Self> {
        (index <= Self::MAX).then_some(Self(index))
    }

    /// The index after this one, within Proxmox VE's bounds or not.
    pub fn next(self) -> u8 {
        self.0.saturating_add(1)
    }

    /// Reads `net0`.
    pub fn from_key(key: &str) -> Option<Self> {
        key.strip_prefix("net")
            .and_then(decimal)
            .and_then(Self::new)
    }
}

impl fmt::Display for NicIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One NIC of one guest, written `101/net0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NicId {
    /// The guest.
    pub vmid: Vmid,
    /// Which of its NICs.
    pub index: NicIndex,
}

impl fmt::Display for NicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/net{}", self.vmid, self.index)
    }
}

impl FromStr for NicId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parts = text.split_once('/');
        let nic = parts.and_then(|(vmid, nic)| {
            Some(Self {
                vmid: vmid.parse().ok()?,
                index: NicIndex::from_key(nic)?,
            })
        });
        nic.ok_or_else(|| Invalid(format!("`{}` is not a NIC (101/net0)", excerpt(text))))
    }
}

impl Serialize for NicId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NicId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// VM or container: they differ in the device's prefix and the config's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestKind {
    /// A virtual machine (`qemu-server/`, `tap…`).
    Qemu,
    /// A container (`lxc/`, `veth…`).
    Lxc,
}

/// What a port of Proxmox VE's naming is to its NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortRole {
    /// `tap101i0` or `veth101i0`: the guest's own device.
    Device(GuestKind),
    /// `fwln101o0`: the firewall bridge's internal port on an Open vSwitch bridge.
    OvsFirewall,
    /// `fwpr101p0`: the firewall bridge's end on a Linux bridge.
    LinuxFirewall,
}

impl NicId {
    /// `tap101i0` or `veth101i0`.
    pub fn device(self, kind: GuestKind) -> String {
        let prefix = match kind {
            GuestKind::Qemu => "tap",
            GuestKind::Lxc => "veth",
        };
        format!("{prefix}{}i{}", self.vmid, self.index)
    }

    /// `fwbr101i0`, the firewall bridge.
    pub fn firewall_bridge(self) -> String {
        format!("fwbr{}i{}", self.vmid, self.index)
    }

    /// `fwln101o0`, where the firewall bridge meets an Open vSwitch bridge.
    pub fn ovs_firewall_port(self) -> String {
        format!("fwln{}o{}", self.vmid, self.index)
    }

    /// `fwpr101p0`, where the firewall bridge meets a Linux bridge.
    pub fn linux_firewall_port(self) -> String {
        format!("fwpr{}p{}", self.vmid, self.index)
    }
}

/// Whose port a name is, by Proxmox VE's naming; nothing for any other name.
///
/// Exact: `tap10i1` is guest 10's and never guest 101's, `tap0101i0` is nobody's.
pub fn port_owner(name: &str) -> Option<(NicId, PortRole)> {
    const PREFIXES: [(&str, char, PortRole); 4] = [
        ("tap", 'i', PortRole::Device(GuestKind::Qemu)),
        ("veth", 'i', PortRole::Device(GuestKind::Lxc)),
        ("fwln", 'o', PortRole::OvsFirewall),
        ("fwpr", 'p', PortRole::LinuxFirewall),
    ];
    PREFIXES.iter().find_map(|(prefix, separator, role)| {
        let (vmid, index) = name.strip_prefix(prefix)?.split_once(*separator)?;
        let vmid = decimal(vmid).and_then(Vmid::new)?;
        let index = decimal(index).and_then(NicIndex::new)?;
        Some((NicId { vmid, index }, *role))
    })
}

/// Which of a source's frames, seen from the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// What it sends and what is delivered to it.
    Both,
    /// What it sends.
    From,
    /// What is delivered to it.
    To,
}

impl Direction {
    /// In span.cfg.
    pub fn word(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::From => "from",
            Self::To => "to",
        }
    }

    /// Does it take what the source sends?
    pub fn takes_sent(self) -> bool {
        self != Self::To
    }

    /// Does it take what is delivered to the source?
    pub fn takes_delivered(self) -> bool {
        self != Self::From
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A set of VLAN identifiers, 0 to 4095; 0 stands for untagged frames (IEEE 802.1Q's null VLAN).
///
/// Kept as ranges that neither overlap nor touch, in ascending order: a trunk with all VLANs is one of them, not 4094
/// numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct VlanSet(Vec<(u16, u16)>);

impl VlanSet {
    /// The largest number that fits a tag's 12 bits.
    pub const MAX: u16 = 4095;

    /// The identifiers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().flat_map(|(low, high)| *low..=*high)
    }

    /// The identifiers in ascending order, as ranges as large as possible.
    pub fn ranges(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        self.0.iter().copied()
    }

    /// Is it one of them?
    pub fn contains(&self, vlan: u16) -> bool {
        self.0
            .iter()
            .any(|(low, high)| (*low..=*high).contains(&vlan))
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<u16> for VlanSet {
    fn from_iter<I: IntoIterator<Item = u16>>(vlans: I) -> Self {
        vlans.into_iter().map(|vlan| vlan..=vlan).collect()
    }
}

impl FromIterator<RangeInclusive<u16>> for VlanSet {
    /// What is above [`VlanSet::MAX`] is left out.
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u16>>>(ranges: I) -> Self {
        let bounds = |range: RangeInclusive<u16>| (*range.start(), *range.end().min(&Self::MAX));
        let ranges = ranges.into_iter().map(bounds);
        let mut ranges: Vec<(u16, u16)> = ranges.filter(|(low, high)| low <= high).collect();
        ranges.sort_unstable();
        ranges.dedup_by(|(low, high), (_, before)| {
            let joins = *low <= *before + 1;
            if joins {
                *before = (*before).max(*high);
            }
            joins
        });
        ranges.shrink_to_fit();
        Self(ranges)
    }
}

impl fmt::Display for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (low, high)) in self.ranges().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if low == high {
                write!(f, "{comma}{low}")?;
            } else {
                write!(f, "{comma}{low}-{high}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for VlanSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// A yes or a no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// On.
    Yes,
    /// Off.
    No,
}

/// Which of a port's frames are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Taken {
    /// Those that arrive at the bridge from the port: `select_src_port`.
    Sent,
    /// Those that leave the bridge through it: `select_dst_port`.
    Delivered,
    /// Both.
    Both,
}

impl Taken {
    /// From two answers; nothing when both are no.
    pub fn new(sent: bool, delivered: bool) -> Option<Self> {
        match (sent, delivered) {
            (true, true) => Some(Self::Both),
            (true, false) => Some(Self::Sent),
            (false, true) => Some(Self::Delivered),
            (false, false) => None,
        }
    }

    /// Are frames from the port taken?
    pub fn sent(self) -> bool {
        self != Self::Delivered
    }

    /// Are frames to the port taken?
    pub fn delivered(self) -> bool {
        self != Self::Sent
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sent => "from",
            Self::Delivered => "to",
            Self::Both => "both",
        })
    }
}

/// The NIC of `fwbr101i0`.
pub fn firewall_bridge_of(name: &str) -> Option<NicId> {
    let (nic, _) = port_owner(&format!("tap{}", name.strip_prefix("fwbr")?))?;
    Some(nic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_names_belong_to_exactly_one_nic() {
        let owner = |name: &str| port_owner(name).map(|(nic, role)| (nic.to_string(), role));
        assert_eq!(
            owner("tap101i0"),
            Some(("101/net0".into(), PortRole::Device(GuestKind::Qemu)))
        );
        assert_eq!(
            owner("tap10i1"),
            Some(("10/net1".into(), PortRole::Device(GuestKind::Qemu)))
        );
        assert_eq!(
            owner("veth300i1"),
            Some(("300/net1".into(), PortRole::Device(GuestKind::Lxc)))
        );
        assert_eq!(
            owner("fwln101o0"),
            Some(("101/net0".into(), PortRole::OvsFirewall))
        );
        assert_eq!(
            owner("fwpr101p0"),
            Some(("101/net0".into(), PortRole::LinuxFirewall))
        );
        for stranger in [
            "tap0101i0",
            "tap101i",
            "tapi0",
            "tap101i032",
            "fwln101i0",
            "vethAB12",
            "eno1",
            "tap+1i0",
        ] {
            assert_eq!(owner(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn names_are_what_proxmox_ve_calls_them() {
        let nic = NicId {
            vmid: Vmid(101),
            index: NicIndex(0),
        };
        assert_eq!(nic.device(GuestKind::Qemu), "tap101i0");
        assert_eq!(nic.device(GuestKind::Lxc), "veth101i0");
        assert_eq!(nic.firewall_bridge(), "fwbr101i0");
        assert_eq!(nic.ovs_firewall_port(), "fwln101o0");
        assert_eq!(nic.linux_firewall_port(), "fwpr101p0");
    }

    #[test]
    fn vlan_sets_are_the_same_however_they_are_said() {
        let said: VlanSet = [20..=29, 4090..=u16::MAX, 10..=10, 25..=30, 31..=31]
            .into_iter()
            .collect();
        let counted: VlanSet = (20..=31).chain([10]).chain(4090..5000).collect();
        assert_eq!(said, counted);
        assert_eq!(said.to_string(), "10,20-31,4090-4095");
        assert!(
            said.iter()
                .eq([10].into_iter().chain(20..=31).chain(4090..=4095))
        );
        assert!(said.contains(31) && !said.contains(32) && !said.is_empty());
    }

    #[test]
    fn vlan_sets_print_as_ranges() {
        let set: VlanSet = [10, 20, 21, 22, 4095, 0].into_iter().collect();
        assert_eq!(set.to_string(), "0,10,20-22,4095");
    }
}
