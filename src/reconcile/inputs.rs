//! What /etc/pve says, as far as it was asked: read before the lock is taken, and never under it.
//!
//! The cluster filesystem may hang, and with it whoever reads there, whatever else that process holds. So a look at the
//! node is in two parts. Only this one reads in /etc/pve; all else works with what it has read.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::active;
use crate::config::active::InForce;
use crate::pve::{ClusterQueries, Pve};
use crate::reconcile::context::{Context, PveAccess};
use pve_span_core::config::Annotations;
use pve_span_core::config::selector::Output;
use pve_span_core::model::{GuestKind, Vmid};
use pve_span_core::pve::cluster::Cluster;
use pve_span_core::resolve::scope::Interest;
use pve_span_core::state::port_map::PortMap;
use pve_span_core::state::{Desired, Observed, OvsState};

/// What is said of an /etc/pve that hangs.
pub const PVE_HANGS: &str =
    "/etc/pve does not answer: does pmxcfs hang? (systemctl status pve-cluster)";

/// Whose configs a look reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Only what decides about mirrors.
    Mirrors,
    /// The same, wherever in the cluster it is filed: nobody has said where an incoming guest's config is.
    Anywhere,
    /// Everything that is worth telling.
    All,
}

/// May more be read than has been?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FurtherReads {
    /// It may.
    Yes,
    /// It may not: it is not asked for, /etc/pve does not answer, or the lock is held.
    No,
}

/// What /etc/pve says.
#[derive(Debug)]
pub struct ClusterInput {
    /// Which annotations are gone by.
    pub in_force: InForce,
    /// What is known of nodes and guests.
    pub cluster: Cluster,
    /// How much of it is asked for.
    pub detail: Detail,
    /// May more be read?
    pub more: FurtherReads,
    /// Has it been asked where guests are filed, because that mattered?
    pub asked_where: bool,
}

/// Files in /etc/pve.
#[derive(Debug, Default)]
pub struct FilesToRead {
    /// These guests' configs.
    guests: BTreeSet<Vmid>,
    /// The list of where guests are filed.
    placements: bool,
}

impl FilesToRead {
    /// None?
    pub fn is_nothing(&self) -> bool {
        self.guests.is_empty() && !self.placements
    }
}

impl ClusterInput {
    /// Reads span.cfg and what the cluster knows of its nodes; or takes the last good copy.
    pub fn take(context: &Context, detail: Detail) -> Self {
        context.progress.enter();
        let in_force = match context.pve {
            PveAccess::Answers => active::load(&context.root),
            PveAccess::Hangs(_) => active::by_last_good(&context.root, PVE_HANGS),
        };
        Self::by(in_force, context, detail)
    }

    /// The same by other annotations than the file's.
    pub fn by(in_force: InForce, context: &Context, detail: Detail) -> Self {
        let is_wanted = in_force.annotations().is_some() || detail == Detail::All;
        if context.pve != PveAccess::Answers || !is_wanted {
            let why = match context.pve {
                PveAccess::Answers => "not read",
                PveAccess::Hangs(_) => "/etc/pve does not answer",
            };
            context.progress.leave();
            return Self::without_cluster(in_force, detail, why);
        }
        context.progress.enter();
        let pve = Pve::new(&context.root);
        let questions = questions(&in_force, detail);
        let more = if pve.is_mounted() {
            FurtherReads::Yes
        } else {
            FurtherReads::No
        };
        let cluster = pve.nodes(questions);
        context.progress.leave();
        Self {
            in_force,
            cluster,
            detail,
            more,
            asked_where: false,
        }
    }

    /// By these annotations alone: nothing is read.
    pub fn without_cluster(in_force: InForce, detail: Detail, why: &str) -> Self {
        Self {
            in_force,
            cluster: Cluster::unknown(why),
            detail,
            more: FurtherReads::No,
            asked_where: false,
        }
    }

    /// Reads these files too.
    pub fn add(&mut self, context: &Context, files: &FilesToRead) {
        let pve = Pve::new(&context.root);
        context.progress.enter();
        if files.placements {
            self.cluster.placements = pve.placements();
            self.asked_where = true;
        }
        let from = context.migrated_from.as_ref();
        let next = || context.progress.beat();
        pve.add_guests(&mut self.cluster, &files.guests, from, next);
        context.progress.leave();
    }

    /// The sessions.
    pub fn annotations(&self) -> &Annotations {
        self.in_force.annotations().unwrap_or(&NOBODY)
    }

    /// Which ports matter.
    pub fn interest(&self) -> Interest {
        match self.detail {
            Detail::All => Interest::Everything,
            Detail::Mirrors | Detail::Anywhere => Interest::of(self.annotations()),
        }
    }

    /// What else is to be read, now that it is known who is here.
    pub fn more_with(&self, observed: &Observed) -> FilesToRead {
        let here = || {
            let map = PortMap::new(observed);
            let here: BTreeSet<Vmid> = map.nics().map(|(_, nic)| nic.id.vmid).collect();
            here
        };
        let guests = match self.detail {
            _ if self.more == FurtherReads::No => BTreeSet::new(),
            Detail::All => {
                let filed = self.cluster.placements.iter().flat_map(|all| all.keys());
                filed.copied().chain(here()).collect()
            }
            Detail::Mirrors | Detail::Anywhere if ClusterQueries::of(self.annotations()).tags => {
                here()
            }
            Detail::Mirrors | Detail::Anywhere => sensors_here(self.annotations(), observed),
        };
        let guests = self.unread(guests);
        FilesToRead {
            guests,
            placements: false,
        }
    }

    /// What else is to be read, now that it is known what shall be there.
    pub fn more_for(&self, desired: &Desired) -> FilesToRead {
        if self.more == FurtherReads::No || self.detail == Detail::All {
            return FilesToRead::default();
        }
        let is_unknown = self.cluster.placements.is_err() && !self.asked_where;
        FilesToRead {
            guests: self.unread(desired.unread(&self.cluster)),
            placements: desired.asks_where() && is_unknown,
        }
    }

    fn unread(&self, mut guests: BTreeSet<Vmid>) -> BTreeSet<Vmid> {
        guests.retain(|vmid| !self.cluster.guests.contains_key(vmid));
        guests
    }

    /// Goes on without what has not been read.
    pub fn close(&mut self) {
        self.more = FurtherReads::No;
    }
}

static NOBODY: Annotations = Annotations {
    sessions: BTreeMap::new(),
    diagnostics: Vec::new(),
};

fn questions(in_force: &InForce, detail: Detail) -> ClusterQueries {
    let questions = in_force
        .annotations()
        .map_or(ClusterQueries::NONE, ClusterQueries::of);
    match detail {
        Detail::All => ClusterQueries::ALL,
        Detail::Mirrors => questions,
        Detail::Anywhere => ClusterQueries {
            nodes: true,
            ..questions
        },
    }
}

/// The guests whose NIC is an output that has its port here: their configs tell whether it is free.
fn sensors_here(annotations: &Annotations, observed: &Observed) -> BTreeSet<Vmid> {
    let has_device = |name: &str| {
        observed.links.contains_key(name)
            || matches!(&observed.ovs, OvsState::Present(ovs) if ovs.bridges.values().any(|bridge| bridge.ports.contains_key(name)))
    };
    let sessions = annotations.sessions.values();
    let outputs = sessions.flat_map(|session| &session.outputs);
    let nics = outputs.filter_map(|output| match output.value {
        Output::Nic(nic) => Some(nic),
        _ => None,
    });
    let here = nics.filter(|nic| {
        let mut names = [
            nic.device(GuestKind::Qemu),
            nic.device(GuestKind::Lxc),
            nic.ovs_firewall_port(),
        ]
        .into_iter();
        names.any(|name| has_device(&name))
    });
    here.map(|nic| nic.vmid).collect()
}
