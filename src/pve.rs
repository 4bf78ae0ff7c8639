//! The only door to /etc/pve: where things are in Proxmox VE's cluster filesystem, and what it means
//! when they are not.
//!
//! Nothing here is ever written, but span.cfg by `config::span_file` and the records of chained hookscripts by `chained_hook`. What cannot
//! be read is handed on as unknown, with the reason.

pub mod chained_hook;
pub mod cluster_lock;
pub mod programs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pve_span_core::config::Annotations;

use crate::sys::error::with_causes;
use crate::sys::files;
use pve_span_core::config::selector::Selector;
use pve_span_core::model::{GuestKind, NodeName, Vmid};
use pve_span_core::pve::chained_hook::{self as record, Chained};
use pve_span_core::pve::cluster;
use pve_span_core::pve::cluster::{
    Cluster, Known, Members, Placement, Placements, Pools, Quorum, Unknown,
};
use pve_span_core::pve::guest;
use pve_span_core::pve::guest::Guest;
use pve_span_core::pve::storage;
use pve_span_core::pve::storage::Storages;

/// The annotations file, below /etc/pve.
pub const SPAN_CFG: &str = "span.cfg";

/// The storages, below /etc/pve.
const STORAGE_CFG: &str = "storage.cfg";

/// /etc/pve below some root directory.
#[derive(Debug, Clone)]
pub struct Pve {
    folder: PathBuf,
}

/// Whose configs are read: each one costs a round trip through FUSE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestsToRead {
    /// These guests'.
    Of(BTreeSet<Vmid>),
    /// Every guest's of the cluster, and these, whether they are filed or not.
    AllAnd(BTreeSet<Vmid>),
}

/// What the annotations ask about the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterQueries {
    /// Do tags matter?
    pub tags: bool,
    /// Do pools matter?
    pub pools: bool,
    /// Does it matter which node this is, and who is filed where?
    pub nodes: bool,
}

impl ClusterQueries {
    /// Everything matters.
    pub const ALL: Self = Self {
        tags: true,
        pools: true,
        nodes: true,
    };

    /// Nothing does.
    pub const NONE: Self = Self {
        tags: false,
        pools: false,
        nodes: false,
    };

    /// Looks through all selectors.
    pub fn of(annotations: &Annotations) -> Self {
        let selectors = || {
            let sessions = annotations.sessions.values();
            sessions
                .flat_map(|session| session.sources.iter().chain(&session.exclude))
                .map(|at| &at.value)
        };
        Self {
            tags: selectors().any(|selector| matches!(selector, Selector::Tag(..))),
            pools: selectors().any(|selector| matches!(selector, Selector::Pool(_))),
            nodes: selectors().any(|selector| matches!(selector, Selector::Node(..))),
        }
    }
}

impl Pve {
    /// The tree below `root`.
    pub fn new(root: &Path) -> Self {
        Self {
            folder: root.join("etc/pve"),
        }
    }

    /// A path in the tree.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Is the cluster filesystem mounted? Without it /etc/pve is an empty folder, which says nothing
    /// about guests.
    pub fn is_mounted(&self) -> bool {
        not_under_the_lock();
        self.path(".version").exists()
    }

    /// That it is not, in words.
    pub fn not_mounted(&self) -> String {
        format!(
            "{} is not mounted (no .version in it); see systemctl status pve-cluster",
            self.path("").display()
        )
    }

    /// Can /etc/pve be written, as far as the cluster says?
    pub fn quorum(&self) -> Option<Quorum> {
        self.members().ok().map(|members| members.quorum)
    }

    /// What the cluster knows; `migrated_from` is where an incoming guest's config may still be.
    pub fn cluster(
        &self,
        questions: ClusterQueries,
        whose: &GuestsToRead,
        migrated_from: Option<&NodeName>,
    ) -> Cluster {
        let mut cluster = self.nodes(questions);
        if !self.is_mounted() {
            return cluster;
        }
        let wanted: BTreeSet<Vmid> = match whose {
            GuestsToRead::Of(guests) => guests.clone(),
            GuestsToRead::AllAnd(more) => {
                let filed = cluster.placements.iter().flat_map(|all| all.keys());
                filed.chain(more).copied().collect()
            }
        };
        self.add_guests(&mut cluster, &wanted, migrated_from, || {});
        cluster
    }

    /// What the cluster knows, without guests' configs.
    pub fn nodes(&self, questions: ClusterQueries) -> Cluster {
        if let Err(Unknown(why)) = self.expect_mounted() {
            return Cluster::unknown(&why);
        }
        let not_read = || Unknown("not read".into());
        let members = if questions.nodes {
            self.members()
        } else {
            Err(not_read())
        };
        let placements = if questions.nodes || questions.tags {
            self.placements()
        } else {
            Err(not_read())
        };
        let this = members
            .as_ref()
            .map(|members| members.this.clone())
            .map_err(Clone::clone);
        Cluster {
            guests: BTreeMap::new(),
            warnings: Vec::new(),
            this: this.or_else(|why| self.local().ok_or(why)),
            nodes: members.map(|members| members.nodes).unwrap_or_default(),
            placements,
            pools: if questions.pools {
                self.pools()
            } else {
                Err(not_read())
            },
        }
    }

    /// Reads more guests' configs into what is known already; `next` is called before each of them.
    pub fn add_guests(
        &self,
        cluster: &mut Cluster,
        guests: &BTreeSet<Vmid>,
        migrated_from: Option<&NodeName>,
        next: impl Fn(),
    ) {
        for vmid in guests {
            next();
            let placements = cluster.placements.as_ref().ok();
            let placement = placements.and_then(|all| all.get(vmid)).cloned();
            let guest = self.guest(
                *vmid,
                placement.as_ref(),
                migrated_from,
                &mut cluster.warnings,
            );
            cluster.guests.insert(*vmid, guest);
        }
    }

    fn read(&self, name: &str) -> Known<String> {
        not_under_the_lock();
        files::read_text(&self.path(name)).map_err(|error| Unknown(with_causes(&error)))
    }

    /// The nodes of the cluster, and which of them are off.
    ///
    /// # Errors
    /// `.members` cannot be read.
    pub fn members(&self) -> Known<Members> {
        let text = self.read(".members")?;
        cluster::parse_members(&text)
            .map_err(|error| self.not_understood(".members", &error.to_string()))
    }

    /// The cluster's storages; those of every fresh node where there is no storage.cfg.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn storages(&self) -> Known<Storages> {
        self.expect_mounted()?;
        match files::read_text(&self.path(STORAGE_CFG)) {
            Ok(text) => Ok(storage::parse(&text)),
            Err(error) if error.is_missing() => Ok(Storages::default()),
            Err(error) => Err(Unknown(with_causes(&error))),
        }
    }

    /// The hookscript that is called after ours for a guest, if one is.
    ///
    /// # Errors
    /// The record cannot be read or understood.
    pub fn chained(&self, vmid: Vmid) -> Known<Option<Chained>> {
        let name = format!("{}/{vmid}", record::FOLDER);
        match files::read_text(&self.path(&name)) {
            Ok(text) => record::parse(&text)
                .map(Some)
                .map_err(|error| self.not_understood(&name, &error.to_string())),
            Err(error) if error.is_missing() => self.expect_mounted().map(|()| None),
            Err(error) => Err(Unknown(with_causes(&error))),
        }
    }

    /// The guests that have a record of a chained hookscript, whether it is in force or stale.
    ///
    /// # Errors
    /// The folder is there and cannot be read.
    pub fn guests_with_chained(&self) -> Known<BTreeSet<Vmid>> {
        self.expect_mounted()?;
        let folder = self.path(record::FOLDER);
        let failed =
            |error: &std::io::Error| Unknown(format!("cannot read {}: {error}", folder.display()));
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(BTreeSet::new());
            }
            Err(error) => return Err(failed(&error)),
        };
        let mut guests = BTreeSet::new();
        for entry in entries {
            let entry = entry.map_err(|error| failed(&error))?;
            guests.extend(
                entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<Vmid>().ok()),
            );
        }
        Ok(guests)
    }

    fn expect_mounted(&self) -> Known<()> {
        if self.is_mounted() {
            Ok(())
        } else {
            Err(Unknown(format!("{} is not mounted", self.folder.display())))
        }
    }

    /// On which node each guest is.
    ///
    /// # Errors
    /// `.vmlist` cannot be read.
    pub fn placements(&self) -> Known<Placements> {
        let text = self.read(".vmlist")?;
        cluster::parse_vmlist(&text)
            .map_err(|error| self.not_understood(".vmlist", &error.to_string()))
    }

    fn pools(&self) -> Known<Pools> {
        let text = self.read("user.cfg")?;
        cluster::parse_pools(&text)
            .map_err(|error| self.not_understood("user.cfg", &error.to_string()))
    }

    fn not_understood(&self, name: &str, error: &str) -> Unknown {
        Unknown(format!(
            "{} is not understood: {error}",
            self.path(name).display()
        ))
    }

    /// The node's name by the link `local` → `nodes/<name>`.
    fn local(&self) -> Option<NodeName> {
        std::fs::read_link(self.path("local"))
            .ok()?
            .file_name()?
            .to_str()?
            .parse()
            .ok()
    }

    /// A guest's config, wherever it is filed: `.vmlist` may be a moment older than the file's move.
    fn guest(
        &self,
        vmid: Vmid,
        placement: Option<&Placement>,
        migrated_from: Option<&NodeName>,
        told: &mut Vec<String>,
    ) -> Known<Guest> {
        not_under_the_lock();
        let mut places: Vec<(String, GuestKind)> = Vec::new();
        if let Some(Placement { node, kind, .. }) = placement {
            places.push((format!("nodes/{node}"), *kind));
        }
        for kind in [GuestKind::Qemu, GuestKind::Lxc] {
            places.push(("local".into(), kind));
            places.extend(migrated_from.map(|node| (format!("nodes/{node}"), kind)));
        }
        let mut missing = Unknown(format!("there is no config of guest {vmid}"));
        for (node, kind) in places {
            let folder = match kind {
                GuestKind::Qemu => "qemu-server",
                GuestKind::Lxc => "lxc",
            };
            match files::read_bytes(&self.path(&format!("{node}/{folder}/{vmid}.conf"))) {
                Ok(bytes) if bytes.is_empty() => {
                    missing = Unknown(format!("the config of guest {vmid} is empty"))
                }
                Ok(bytes) => {
                    let (guest, warnings) =
                        guest::parse(vmid, kind, &String::from_utf8_lossy(&bytes));
                    let place = |line| {
                        format!(
                            "{}:{line}",
                            self.path(&format!("{node}/{folder}/{vmid}.conf")).display()
                        )
                    };
                    told.extend(
                        warnings
                            .into_iter()
                            .map(|warning| format!("{}: {}", place(warning.line), warning.message)),
                    );
                    return Ok(guest);
                }
                Err(error) if error.is_missing() => {}
                Err(error) => missing = Unknown(with_causes(&error)),
            }
        }
        Err(missing)
    }
}

/// Whoever reads here may hang, and would keep the lock from everybody else.
fn not_under_the_lock() {
    debug_assert!(
        !crate::sys::lock_held::is_held(),
        "/etc/pve is read while the lock is held"
    );
}
