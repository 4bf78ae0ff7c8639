//! What was seen of a node, as data. `src/commands/doctor/inspect` fills it.

use serde::{Deserialize, Serialize};

use crate::config::diagnostic::Diagnostic;
use crate::config::{Annotations, Session};
use crate::engine::nft::Side;
use crate::model::{GuestKind, IfName, NodeName, Vmid};
use crate::plan::Plan;
use crate::pve::chained_hook::Chained;
use crate::pve::cluster::{Cluster, Known};
use crate::pve::storage::Storages;
use crate::state::{Desired, Observed, OvsState, SessionPhase};

/// Everything that was seen.
pub struct Facts<'a> {
    /// What /etc/pve and a look at the node tell, or why nothing can be told.
    pub node: Known<Node<'a>>,
    /// Does /etc/pve answer at all?
    pub pve: Answer,
    /// Open vSwitch.
    pub ovs: &'a OvsState,
    /// What of it matters only here; nothing where it does not answer.
    pub ovs_more: Option<OvsMore>,
    /// The kernel, nft(8) and the service.
    pub host: &'a Host,
    /// The hookscripts that guests refer to, and ours on the usual storage.
    pub volumes: Vec<VolumeFact>,
    /// /etc/pve/storage.cfg.
    pub storages: Known<Storages>,
    /// The records of chained hookscripts.
    pub chains: Vec<ChainRecord>,
    /// The programs that the snippet finds, looking for pve-span.
    pub programs: Vec<String>,
    /// Where the package keeps the snippet, if it is installed.
    pub packaged: Option<String>,
    /// Commands that wipe everybody's mirrors.
    pub clearing: Vec<MirrorWipe>,
    /// What others have that copies or diverts frames of devices that matter.
    pub diversions: Vec<Diversion>,
    /// Network cards that may switch frames past the host (`hw-tc-offload`).
    pub offloading: Vec<IfName>,
}

/// A plain answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is so.
    Yes,
    /// It is not.
    No,
}

/// What a look tells.
pub struct Node<'a> {
    /// span.cfg.
    pub file: File,
    /// What is in force.
    pub annotations: Option<&'a Annotations>,
    /// What /etc/pve tells.
    pub cluster: &'a Cluster,
    /// What is there.
    pub observed: &'a Observed,
    /// What shall be there.
    pub desired: &'a Desired,
    /// What has to change.
    pub plan: &'a Plan,
    /// Does it matter what Open vSwitch says? It may be a leftover.
    pub needs_ovs: Answer,
}

impl<'a> Node<'a> {
    /// The sessions that run.
    pub fn running(&self) -> impl Iterator<Item = &'a Session> + use<'a> {
        let states = self.desired.sessions.iter();
        let annotations = self.annotations;
        states
            .filter(|state| state.phase == SessionPhase::Running)
            .filter_map(move |state| annotations?.sessions.get(&state.name))
    }

    /// A guest as people know it: `101 (web1)`.
    pub fn guest(&self, vmid: Vmid) -> String {
        match self
            .cluster
            .guest(vmid)
            .and_then(|guest| guest.name.as_deref())
        {
            Some(name) => format!("{vmid} ({name})"),
            None => vmid.to_string(),
        }
    }

    /// Where a guest's config is.
    pub fn config_of(&self, vmid: Vmid) -> String {
        let placements = self.cluster.placements.as_ref().ok();
        match placements.and_then(|all| all.get(&vmid)) {
            Some(placement) => {
                let folder = match placement.kind {
                    GuestKind::Qemu => "qemu-server",
                    GuestKind::Lxc => "lxc",
                };
                format!("/etc/pve/nodes/{}/{folder}/{vmid}.conf", placement.node)
            }
            None => format!("the config of guest {vmid}"),
        }
    }

    /// The command that moves it to another node.
    pub fn migrate(&self, vmid: Vmid, to: &NodeName) -> String {
        match self.cluster.guest(vmid).map(|guest| guest.kind) {
            Some(GuestKind::Lxc) => format!("pct migrate {vmid} {to} --restart"),
            _ => format!("qm migrate {vmid} {to} --online"),
        }
    }

    /// The command that changes its config: `qm set 101`.
    pub fn set(&self, vmid: Vmid) -> String {
        match self.cluster.guest(vmid).map(|guest| guest.kind) {
            Some(GuestKind::Lxc) => format!("pct set {vmid}"),
            _ => format!("qm set {vmid}"),
        }
    }
}

/// How span.cfg is used.
#[derive(Debug, Clone)]
pub enum File {
    /// There has never been one.
    Missing,
    /// It is in force.
    InForce(Vec<Diagnostic>),
    /// The last good copy is, and why.
    LastGood(String, Vec<Diagnostic>),
    /// Nothing is, and why.
    Nothing(String, Vec<Diagnostic>),
}

/// The host, without /etc/pve.
#[derive(Debug, Clone)]
pub struct Host {
    /// This pve-span's version.
    pub version: String,
    /// The kernel's release, as `uname -r` has it.
    pub kernel: Option<String>,
    /// What nftables needs, each with whether it is there; tried, unless that was not possible.
    pub features: Known<Vec<Feature>>,
    /// nft(8): where it is and what it says of itself; nothing if there is none.
    pub nft: Known<Option<Program>>,
    /// Others' base chains of nftables that have their turn before ours.
    pub chains: Vec<Chain>,
    /// What the service last wrote.
    pub service: Option<Service>,
    /// What `systemctl is-enabled` says.
    pub enabled: Known<String>,
}

/// A part of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// In a word or two.
    pub name: String,
    /// What is missing, and what of the kernel's configuration would bring it.
    pub missing: Option<String>,
    /// What nft(8) said then.
    pub said: Option<String>,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it is.
    pub path: String,
    /// What it says of itself.
    pub version: String,
}

/// A base chain of nftables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// `netdev filter`.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The device.
    pub device: String,
    /// Which of its hooks.
    pub side: Side,
    /// When it has its turn; ours have theirs at -500.
    pub priority: i64,
}

/// Something of others' that copies or diverts a device's frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diversion {
    /// What it is.
    pub by: DivertedBy,
    /// The device.
    pub device: IfName,
    /// Where on it: `ingress`, `egress`, `parent 1:`.
    pub place: String,
    /// Do the frames go on as well?
    pub original: Original,
    /// The device that they go to; nothing if that cannot be told.
    pub to: Option<IfName>,
    /// What was seen.
    pub seen: String,
    /// The command that ends it.
    pub remedy: String,
}

/// Who copies or diverts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DivertedBy {
    /// A filter of tc(8).
    Tc,
    /// A rule of nft(8).
    Nft,
}

/// What becomes of a frame that was copied or diverted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Original {
    /// It goes its way.
    GoesOn,
    /// It does not.
    Ends,
}

/// What the service says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// For how long it has said nothing, in seconds; nothing if it runs.
    pub silent: Option<i64>,
}

/// More of Open vSwitch's database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OvsMore {
    /// The program's version.
    pub version: Option<String>,
    /// The schema's version.
    pub schema: Option<String>,
    /// What we need of the schema and is not there: `Mirror.snaplen`; or why it cannot be told.
    pub lacks: Known<Vec<String>>,
    /// Has ovs-vswitchd acted on everything, if it was given time?
    pub behind: Option<String>,
    /// `other_config:hw-offload`.
    pub hw_offload: Option<String>,
    /// The interfaces that it drives itself, past the kernel.
    pub dpdk: Vec<String>,
}

/// A hookscript that guests refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFact {
    /// As the guests' configs have it.
    pub volume: String,
    /// Who refers to it, anywhere in the cluster.
    pub guests: Vec<Vmid>,
    /// Where it is and what it is like.
    pub state: VolumeState,
}

/// What is at a hookscript's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeState {
    /// Nobody knows its place; why.
    NoPlace(String),
    /// Its storage is not for this node.
    NotHere(String),
    /// Nothing, or a link to nothing.
    Missing {
        /// Its place.
        path: String,
        /// What the link points to, if it is one.
        link: Option<String>,
    },
    /// A folder, a pipe, a device.
    NotAFile(String),
    /// A file that may not be run.
    NotExecutable(String),
    /// It cannot run.
    Broken {
        /// Its place.
        path: String,
        /// Why not.
        why: String,
    },
    /// It cannot be looked at.
    Unclear {
        /// Its place.
        path: String,
        /// Why not.
        why: String,
    },
    /// It can be called.
    Fine {
        /// Its place.
        path: String,
        /// What it is.
        is: Script,
    },
}

/// What a script is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Script {
    /// The program itself, perhaps by a link.
    Program,
    /// The package's snippet.
    Wrapper,
    /// The snippet of another version.
    OtherWrapper,
    /// Somebody's own, that calls pve-span.
    Caller,
    /// Something else.
    Other,
}

/// A record of a chained hookscript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainRecord {
    /// The record's file.
    pub file: String,
    /// Whose.
    pub guest: Vmid,
    /// What it says.
    pub record: Known<Chained>,
    /// What is at the script's place.
    pub state: Option<VolumeState>,
}

/// A line that wipes mirrors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorWipe {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
}
