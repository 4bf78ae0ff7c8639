//! What is there and what shall be there: [`Observed`] and [`Desired`].
//!
//! Plain data. Engines fill the one, `resolve` the other, `plan` compares them.

pub mod port_map;

use crate::engine::nft::spec::Held;
use crate::engine::nft::spec::Spec;
use crate::engine::nft::spec::asks_for_macs;
use crate::engine::{Engine, Statistics};
use crate::model::Taken;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::engine::nft::NftState;
use super::engine::nft::spec::{Copies, Mac, OutputPort, SourcePort};
use super::engine::port::PortSettings;
use super::model::{IfName, NicId, NodeName, OutputKey, SessionName, VlanSet, Vmid};
use super::pve::cluster::Cluster;

/// This node as it is right now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// The kernel's network devices.
    pub links: BTreeMap<IfName, Link>,
    /// Open vSwitch.
    pub ovs: OvsState,
    /// Our table in nftables.
    pub nft: NftState,
    /// What the devices are like that are outputs or have been; one that is not there any more is not listed.
    pub ports: BTreeMap<IfName, PortSettings>,
    /// Why nobody can tell what some of them are like, or were.
    pub unclear: BTreeMap<IfName, String>,
    /// What outputs were like before we changed them.
    pub saved: BTreeMap<IfName, PortSettings>,
    /// Open vSwitch bridges whose datapath flows are older than their mirrors, and nobody is mending that.
    pub stale: BTreeSet<IfName>,
}

/// A network device (rtnetlink, `RTM_NEWLINK`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// The interface index.
    pub index: u32,
    /// `IFLA_INFO_KIND`: `bridge`, `veth`, `tun`, `bond` …; nothing for hardware.
    pub kind: Option<String>,
    /// The device that it is enslaved to: its Linux bridge.
    pub master: Option<IfName>,
    /// The device that it is on top of (`IFLA_LINK`): that of a VLAN or macvlan device.
    pub parent: Option<IfName>,
    /// A veth's other end, if that is on this node too.
    pub peer: Option<IfName>,
    /// Is it a VLAN-aware bridge (`IFLA_BR_VLAN_FILTERING`)?
    pub vlan_aware: bool,
    /// Can frames come in by it?
    pub state: LinkState,
    /// On a VLAN-aware bridge, the one VLAN that it is in, untagged, if it is in no other.
    pub access_vlan: Option<u16>,
    /// On a VLAN-aware bridge, the VLAN of its frames without a tag, if it is in others too (`PVID`).
    pub native_vlan: Option<u16>,
    /// The largest packet that it takes, in bytes, without Ethernet's header (`IFLA_MTU`).
    pub mtu: Option<u32>,
    /// The node's own addresses on it, link-local ones too.
    pub addresses: Vec<core::net::IpAddr>,
    /// Its other names (`IFLA_ALT_IFNAME`).
    pub altnames: Vec<IfName>,
    /// Does it lead back to the node itself (`IFF_LOOPBACK`)?
    pub loopback: bool,
    /// Does a route go out by it? Looked for where an output is a port.
    pub routed: bool,
}

/// Can frames come in by a device (netdevice(7), `IFF_UP` and `IFF_LOWER_UP`)?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// They can.
    #[default]
    Up,
    /// It is up, and nothing is connected.
    NoCarrier,
    /// It is not up.
    Down,
}

/// What is known of Open vSwitch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OvsState {
    /// Nothing listens: not installed, or stopped. The text says what was looked for.
    Absent(String),
    /// Something is there and does not answer properly; the text says what happened.
    Failed(String),
    /// Its database was read.
    Present(Ovs),
}

impl OvsState {
    /// Why nobody can tell what it holds, if it is there and does not answer.
    pub fn unanswered(&self) -> Option<&str> {
        match self {
            Self::Failed(why) => Some(why),
            Self::Absent(_) | Self::Present(_) => None,
        }
    }
}

impl Default for OvsState {
    fn default() -> Self {
        Self::Absent("not looked for".into())
    }
}

/// Open vSwitch's database, as far as mirrors go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ovs {
    /// Its bridges.
    pub bridges: BTreeMap<IfName, OvsBridge>,
    /// Has ovs-vswitchd acted on everything that was committed (`cur_cfg` = `next_cfg`)?
    pub caught_up: bool,
}

/// The identity of a database row (RFC 7047 §5.1 `<uuid>`); opaque here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
pub struct RowId(pub String);

/// A `Bridge` row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OvsBridge {
    /// The row.
    pub row: RowId,
    /// Its ports.
    pub ports: BTreeMap<IfName, OvsPort>,
    /// Its mirrors, everybody's.
    pub mirrors: BTreeMap<RowId, Mirror>,
}

/// A `Port` row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OvsPort {
    /// The row.
    pub row: RowId,
    /// The access VLAN.
    pub tag: Option<u16>,
    /// The VLANs of a trunk.
    pub trunks: VlanSet,
    /// The interface's `type`: empty for a system device, `internal`, `patch`, `vxlan` …
    pub kind: String,
    /// Did ovs-vswitchd fail to open the device?
    pub failed: bool,
    /// How many interfaces it has; a bond has more than one, and none of its name.
    pub interfaces: usize,
    /// Its interfaces that have other names than the port, a bond's, where these were asked for.
    pub members: Vec<IfName>,
    /// A patch port's other end (`options:peer`), where this was asked for.
    pub peer: Option<IfName>,
}

/// A `Mirror` row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mirror {
    /// Its name.
    pub name: String,
    /// Our mark, in `external_ids` (`pve-span`, `pve-span-output`); a mirror without one is not ours.
    pub mark: Option<OutputKey>,
    /// What it does.
    pub config: MirrorConfig,
    /// Mirrored so far, if ovs-vswitchd counts.
    pub statistics: Option<Statistics>,
}

/// The columns of a `Mirror` row that decide what is mirrored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MirrorConfig {
    /// `select_all`.
    pub all: bool,
    /// `select_src_port` and `select_dst_port`, by port.
    pub ports: BTreeMap<IfName, Taken>,
    /// `select_vlan`; all when empty.
    pub vlans: VlanSet,
    /// `snaplen`, in bytes.
    pub snaplen: Option<u16>,
    /// `output_port` or `output_vlan`.
    pub output: MirrorOutput,
}

/// Where a mirror's frames go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MirrorOutput {
    /// Nowhere: the port is gone, and Open vSwitch ignores the mirror.
    #[default]
    None,
    /// `output_port`.
    Port(IfName),
    /// `output_vlan`.
    Vlan(u16),
}

impl fmt::Display for MirrorOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("nothing"),
            Self::Port(port) => port.fmt(f),
            Self::Vlan(vlan) => write!(f, "VLAN {vlan}"),
        }
    }
}

/// Which mirror: there is one for each session, output and bridge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct MirrorKey {
    /// What mirrors.
    #[serde(flatten)]
    pub engine: Engine,
    /// For which session, to which of its outputs.
    #[serde(flatten)]
    pub of: OutputKey,
}

/// What this node shall do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// The mirrors of Open vSwitch that shall be there, with what they shall do.
    pub mirrors: BTreeMap<MirrorKey, Wanted>,
    /// What nftables shall copy.
    pub copies: BTreeMap<OutputKey, Copies>,
    /// The devices that are outputs.
    pub outputs: BTreeMap<IfName, OutputPort>,
    /// The outputs that only `capture-only` allows: they lose their network.
    pub confirmed: BTreeSet<OutputKey>,
    /// The ports in no bridge that are sources.
    pub listening: BTreeMap<IfName, SourcePort>,
    /// What stays as it is, whatever it is.
    pub held: Held,
    /// Sessions of which a part cannot be told while Open vSwitch does not answer.
    pub waiting: BTreeSet<SessionName>,
    /// Why the rest goes, where that is not what span.cfg says.
    pub why: Option<&'static str>,
    /// What became of each session.
    pub sessions: Vec<SessionState>,
}

impl Desired {
    /// What of it is nftables' part.
    pub fn nft(&self) -> Spec<'_> {
        Spec {
            copies: &self.copies,
            outputs: &self.outputs,
            held: &self.held,
        }
    }

    /// Does anything depend on the sources' MAC addresses?
    pub fn asks_for_macs(&self) -> bool {
        asks_for_macs(&self.copies)
    }

    /// The device that a session's frames leave through for one of its outputs.
    pub fn device_of(&self, key: &OutputKey) -> Option<&IfName> {
        let copied = self.copies.get(key).map(|copies| &copies.device);
        let mut mirrors = self.mirrors.iter().filter(|(mirror, _)| mirror.of == *key);
        copied.or_else(|| {
            mirrors.find_map(|(_, wanted)| match &wanted.config.output {
                MirrorOutput::Port(port) => Some(port),
                MirrorOutput::Vlan(_) | MirrorOutput::None => None,
            })
        })
    }

    /// The guests of which a config would tell more: what is copied already, and why a device is in no bridge.
    pub fn unread(&self, cluster: &Cluster) -> BTreeSet<Vmid> {
        let unplugged = self.sessions.iter().flat_map(|state| &state.unplugged);
        let mut unread: BTreeSet<Vmid> = unplugged.map(|source| source.nic.vmid).collect();
        unread.retain(|vmid| !cluster.guests.contains_key(vmid));
        unread.extend(self.without_macs());
        unread
    }

    /// Is there an output whose guest is not here, and nobody has told on which node it is?
    pub fn asks_where(&self) -> bool {
        let mut outputs = self.sessions.iter().flat_map(|state| &state.outputs);
        outputs.any(|output| matches!(output.fault, Some(Fault::Unknown(_))))
    }

    /// The guests whose MAC addresses are needed, to tell what has been copied already, and not known yet.
    fn without_macs(&self) -> BTreeSet<Vmid> {
        if !self.asks_for_macs() {
            return BTreeSet::new();
        }
        let sources = self
            .copies
            .values()
            .flat_map(|copies| copies.sources.values());
        sources
            .filter(|source| source.mac == Mac::Unknown && source.taken.sent())
            .filter_map(|source| source.nic)
            .map(|nic| nic.vmid)
            .collect()
    }
}

/// A mirror as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What it shall do.
    pub config: MirrorConfig,
    /// Is it there also without sources, to keep everything but copies from its output?
    pub reserves: OutputReservation,
    /// Ports of which nobody can tell now whether they belong to it (a config that cannot be read):
    /// they stay in if they are in, and out if they are out.
    pub undecided: BTreeSet<IfName>,
}

/// Is a mirror there for its output's sake?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputReservation {
    /// It is: nftables copies to its output.
    Yes,
    /// If it is there, it stays: nobody can tell whether nftables copies to its output.
    IfThere,
    /// It is not.
    No,
}

/// What a session comes to on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionState {
    /// The session.
    pub name: SessionName,
    /// Does it run at all?
    pub phase: SessionPhase,
    /// Its sources that are here.
    pub present: Vec<SourceState>,
    /// NICs that it takes and that are in no bridge.
    pub unplugged: Vec<UnpluggedSource>,
    /// Sources that are here and get no frames, and outputs that pass none on.
    pub down: Vec<PortDown>,
    /// How many sources it has on this node, running or not, as far as the configs tell.
    pub total: usize,
    /// Has it certainly no source here, neither now nor when guests that are off run?
    #[serde(skip)]
    pub has_no_source: bool,
    /// Ports of bridges that it takes as a whole, and that it leaves out all the same: by its words, as outputs, for a loop.
    #[serde(skip)]
    pub left_out: BTreeSet<IfName>,
    /// Its outputs.
    pub outputs: Vec<OutputState>,
    /// What nobody can tell of it; so long existing mirrors are kept.
    pub unknown: Vec<String>,
    /// What an administrator should know.
    pub notes: Vec<String>,
}

impl SessionState {
    /// What an administrator should know of it and of its outputs.
    pub fn all_notes(&self) -> impl Iterator<Item = &str> {
        let outputs = self.outputs.iter().flat_map(|output| &output.notes);
        self.notes.iter().chain(outputs).map(String::as_str)
    }

    /// Why nothing of its sources here is mirrored, where all of its outputs are on other nodes.
    pub fn nowhere(&self) -> Option<String> {
        let is_over = self.phase != SessionPhase::Running;
        if is_over || self.present.is_empty() || self.outputs.is_empty() {
            return None;
        }
        let elsewhere = self.outputs.iter().map(|output| {
            let node = output.elsewhere.as_ref()?;
            Some(format!("{} is on node {node}", output.output))
        });
        let elsewhere: Option<Vec<String>> = elsewhere.collect();
        Some(format!(
            "its sources on this node are not mirrored: {}, and copies do not cross between nodes in this version",
            elsewhere?.join(", ")
        ))
    }
}

/// Does a session run?
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "is")]
pub enum SessionPhase {
    /// It does.
    Running,
    /// `enabled = no`.
    Disabled,
    /// Its time is over.
    Expired,
}

impl SessionPhase {
    /// That it is over, in words.
    pub fn over(&self) -> Option<&'static str> {
        match self {
            Self::Running => None,
            Self::Disabled => Some("the session is switched off"),
            Self::Expired => Some("the session has expired"),
        }
    }
}

/// Why nothing is mirrored of a session whose guests are off or on other nodes.
pub const NO_SOURCE: &str = "none of its sources is here";

/// A source that is here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SourceState {
    /// The guest's NIC, if it is one's.
    pub nic: Option<NicId>,
    /// The port, or the bridge for a `bridge:` source.
    pub port: IfName,
    /// The bridge.
    pub bridge: IfName,
}

/// A source whose device is there, and in no bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnpluggedSource {
    /// Whose.
    pub nic: NicId,
    /// What is the matter.
    pub why: String,
}

/// A source or an output through whose device nothing passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortDown {
    /// As span.cfg writes it.
    pub port: String,
    /// The device, where that has another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<IfName>,
    /// What it is.
    pub role: DownRole,
    /// What is the matter.
    pub state: LinkState,
}

/// What a session has a port for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DownRole {
    /// Frames come in by it.
    Source,
    /// Copies leave by it.
    Output,
    /// The sensor's own, by which it gets the copies.
    Sensor,
    /// The same, and its guest's config has `link_down=1`.
    Unplugged,
}

impl fmt::Display for PortDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = match &self.device {
            Some(device) => format!("{} ({device})", self.port),
            None => self.port.clone(),
        };
        let so = match self.role {
            DownRole::Source => "so no frame passes",
            DownRole::Output => "so no copy leaves",
            DownRole::Sensor | DownRole::Unplugged => "so no copy arrives",
        };
        match (self.state, self.role) {
            (_, DownRole::Unplugged) => {
                write!(f, "{port} is unplugged, {so}: its config has `link_down=1`")
            }
            (LinkState::Up, _) => write!(f, "{port} is up"),
            (LinkState::NoCarrier, DownRole::Sensor) => write!(
                f,
                "{port} has no carrier, {so}: is the interface up inside the guest?"
            ),
            (LinkState::NoCarrier, _) => write!(
                f,
                "{port} has no carrier, {so}: check its cable and the other end"
            ),
            (LinkState::Down, _) => write!(f, "{port} is down, {so}"),
        }
    }
}

/// One of a session's outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutputState {
    /// As span.cfg writes it.
    pub output: String,
    /// The engines and why they were chosen.
    pub engine: Option<Engines>,
    /// Why nothing can be delivered there, if nothing can.
    pub fault: Option<Fault>,
    /// The other node that its guest is on: that node mirrors its own sources to it, and this one has nothing to do.
    pub elsewhere: Option<NodeName>,
    /// Sources that are here and not delivered there.
    pub lacks: Vec<UndeliveredSource>,
    /// What an administrator should know of it.
    pub notes: Vec<String>,
}

/// The engines that serve an output, each with why it does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Engines {
    /// Open vSwitch.
    pub ovs: Option<String>,
    /// nftables.
    pub nft: Option<String>,
}

impl fmt::Display for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.ovs, &self.nft) {
            (Some(ovs), Some(nft)) => write!(f, "ovs: {ovs}; nft: {nft}"),
            (Some(ovs), None) => write!(f, "ovs: {ovs}"),
            (None, Some(nft)) => write!(f, "nft: {nft}"),
            (None, None) => Ok(()),
        }
    }
}

impl Serialize for Engines {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl OutputState {
    /// Why nothing of this node is delivered there, if nothing is.
    pub fn not_here(&self) -> Option<String> {
        let elsewhere = self
            .elsewhere
            .as_ref()
            .map(|node| format!("its guest is on node {node}, and gets what that node mirrors"));
        self.fault.as_ref().map(Fault::to_string).or(elsewhere)
    }
}

/// A source that is not delivered to an output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UndeliveredSource {
    /// The guest's NIC, if it is one's.
    pub nic: Option<NicId>,
    /// The port, or the bridge for a `bridge:` source.
    pub port: IfName,
    /// What is in the way.
    pub why: String,
}

impl fmt::Display for UndeliveredSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nic {
            Some(nic) => nic.fmt(f),
            None => self.port.fmt(f),
        }
    }
}

/// Why nothing can be delivered to an output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "is", content = "why")]
pub enum Fault {
    /// It is not there now: its guest is off.
    Absent(String),
    /// It is there or never will be, and cannot be served; something has to be changed.
    Refused(String),
    /// Nobody can tell where it is, or whether it is free.
    Unknown(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(why) | Self::Refused(why) | Self::Unknown(why) => f.write_str(why),
        }
    }
}

/// What the trigger knows that cannot be observed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assumptions {
    /// Guests that are about to stop: they count as gone.
    pub gone: BTreeSet<Vmid>,
    /// The time, in seconds since 1970.
    pub now: i64,
}
