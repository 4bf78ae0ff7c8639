//! `.vmlist`, `.members` and `user.cfg` → who is where and in which pool.
//!
//! Each of the three may be missing or unreadable on its own; that is "unknown" and is the caller's
//! to express. This module only says what a text means, or why it means nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::guest::Guest;
use crate::model::{GuestKind, IfName, Invalid, NicId, NodeName, Vmid};

/// Why something is not known. Unknown is never the same as empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unknown(pub String);

/// Something read from /etc/pve, or why it could not be.
pub type Known<T> = Result<T, Unknown>;

/// What /etc/pve tells about nodes and guests, as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// This node.
    pub this: Known<NodeName>,
    /// All nodes of the cluster, as far as known; none on a node alone.
    pub nodes: Vec<NodeName>,
    /// Where the guests are filed.
    pub placements: Known<Placements>,
    /// The pools.
    pub pools: Known<Pools>,
    /// The guests whose config was looked at.
    pub guests: BTreeMap<Vmid, Known<Guest>>,
    /// Lines of their configs that were kept opaque.
    pub warnings: Vec<String>,
}

impl Cluster {
    /// Nothing is known, for the same reason.
    pub fn unknown(reason: &str) -> Self {
        let unknown = || Unknown(reason.to_owned());
        Self {
            this: Err(unknown()),
            nodes: Vec::new(),
            placements: Err(unknown()),
            pools: Err(unknown()),
            guests: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    /// A guest whose config was read.
    pub fn guest(&self, vmid: Vmid) -> Option<&Guest> {
        self.guests.get(&vmid).and_then(|guest| guest.as_ref().ok())
    }

    /// Why a NIC's device is in no bridge, where its config says that it shall be in none.
    pub fn out_of_bridges(&self, nic: NicId) -> Option<OutOfBridges> {
        let config = self.guest(nic.vmid)?.nics.get(&nic.index)?;
        if config.bridge.is_none() {
            Some(OutOfBridges::NoBridge)
        } else if config.link_down {
            Some(OutOfBridges::LinkDown)
        } else {
            None
        }
    }

    /// Is the guest's config filed under this node? Nothing if that is unknown.
    pub fn is_here(&self, vmid: Vmid) -> Option<bool> {
        let (this, placements) = (self.this.as_ref().ok()?, self.placements.as_ref().ok()?);
        Some(
            placements
                .get(&vmid)
                .is_some_and(|placement| placement.node == *this),
        )
    }
}

/// Why a NIC's device is in no bridge, by its config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfBridges {
    /// `link_down=1`: Proxmox VE leaves a container's device out of its bridge.
    LinkDown,
    /// There is no `bridge=`.
    NoBridge,
}

impl OutOfBridges {
    /// In words, for this device.
    pub fn told(self, device: &IfName) -> String {
        match self {
            Self::LinkDown => format!(
                "its config has `link_down=1`, so Proxmox VE leaves {device} out of its bridge"
            ),
            Self::NoBridge => format!("its config has no `bridge=`, so {device} is in no bridge"),
        }
    }
}

/// Where a guest's config is filed (`.vmlist`). The guest itself may be elsewhere for a moment:
/// during a live migration its port is already on the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The node whose folder holds the config.
    pub node: NodeName,
    /// VM or container.
    pub kind: GuestKind,
    /// Grows with each write of the config.
    pub version: u64,
}

/// Every guest of the cluster.
pub type Placements = BTreeMap<Vmid, Placement>;

#[derive(Deserialize)]
struct VmList {
    #[serde(default)]
    ids: BTreeMap<String, VmListEntry>,
}

#[derive(Deserialize)]
struct VmListEntry {
    node: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    version: u64,
}

/// Reads `.vmlist`. Entries of a guest type that does not exist today are skipped.
///
/// # Errors
/// The text is not the JSON that pmxcfs writes.
pub fn parse_vmlist(text: &str) -> Result<Placements, Invalid> {
    let list: VmList = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    let mut placements = Placements::new();
    for (vmid, entry) in list.ids {
        let kind = match entry.kind.as_str() {
            "qemu" => GuestKind::Qemu,
            "lxc" => GuestKind::Lxc,
            _ => continue,
        };
        placements.insert(
            vmid.parse()?,
            Placement {
                node: entry.node.parse()?,
                kind,
                version: entry.version,
            },
        );
    }
    Ok(placements)
}

fn not_json(error: &serde_json::Error) -> Invalid {
    let text = error.to_string();
    // A value of another kind than expected is repeated, however long it is.
    if text.len() > 200 {
        let (line, column) = (error.line(), error.column());
        return Invalid(format!("unexpected value at line {line} column {column}"));
    }
    Invalid(text)
}

/// The cluster's nodes (`.members`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// This node.
    pub this: NodeName,
    /// All nodes; none on a node without a cluster.
    pub nodes: Vec<NodeName>,
    /// Those of them that are known to be off.
    pub offline: BTreeSet<NodeName>,
    /// May anybody write in /etc/pve?
    pub quorum: Quorum,
}

/// Does the cluster have a majority of its nodes? Without one /etc/pve is read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quorum {
    /// It does, or the node is alone.
    There,
    /// It does not.
    Lost,
}

#[derive(Deserialize)]
struct MembersFile {
    nodename: String,
    #[serde(default)]
    nodelist: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    cluster: Option<ClusterFile>,
}

#[derive(Deserialize)]
struct ClusterFile {
    /// 0 or 1; whatever else it may be says nothing.
    #[serde(default)]
    quorate: serde_json::Value,
}

/// Reads `.members`.
///
/// # Errors
/// The text is not the JSON that pmxcfs writes.
pub fn parse_members(text: &str) -> Result<Members, Invalid> {
    let file: MembersFile = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    let quorate = file.cluster.and_then(|cluster| cluster.quorate.as_u64());
    let mut members = Members {
        this: file.nodename.parse()?,
        nodes: Vec::new(),
        offline: BTreeSet::new(),
        quorum: if quorate == Some(0) {
            Quorum::Lost
        } else {
            Quorum::There
        },
    };
    for (name, entry) in &file.nodelist {
        let name: NodeName = name.parse()?;
        // Whatever else it may be says nothing.
        if entry.get("online").and_then(serde_json::Value::as_u64) == Some(0) {
            members.offline.insert(name.clone());
        }
        members.nodes.push(name);
    }
    Ok(members)
}

/// The deepest pool that is one: far deeper than anybody nests them.
const MOST_LEVELS: usize = 16;

/// The cluster's pools. They nest by `/`: a guest in `prod/dmz` is also within `prod`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pools {
    names: BTreeSet<String>,
    /// Who is in a pool or in one below it, for these and for what is above them.
    within: BTreeMap<String, BTreeSet<Vmid>>,
}

impl Pools {
    /// Is there such a pool?
    pub fn exists(&self, pool: &str) -> bool {
        self.names.contains(pool)
    }

    /// The guests in the pool or in one below it.
    pub fn members(&self, pool: &str) -> impl Iterator<Item = Vmid> + '_ {
        self.within.get(pool).into_iter().flatten().copied()
    }

    /// Is the guest in the pool or in one below it?
    pub fn contains(&self, pool: &str, vmid: Vmid) -> bool {
        self.within
            .get(pool)
            .is_some_and(|guests| guests.contains(&vmid))
    }

    /// The names of all pools.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    fn add(&mut self, pool: &str, guests: &[Vmid]) {
        // Each level is kept by its whole name, which would be any amount of memory for a name without end.
        if pool.matches('/').nth(MOST_LEVELS - 1).is_some() {
            return;
        }
        self.names.insert(pool.to_owned());
        let above = pool.match_indices('/').filter_map(|(at, _)| pool.get(..at));
        for name in above.chain([pool]) {
            self.within
                .entry(name.to_owned())
                .or_default()
                .extend(guests);
        }
    }
}

/// Reads the pools of `user.cfg` (`pool:<name>:<comment>:<vmid,…>:<storages>:`); other lines are
/// users, groups and permissions and are not looked at.
///
/// # Errors
/// The file is empty or ends within a pool: it was caught while it was being written.
pub fn parse_pools(text: &str) -> Result<Pools, Invalid> {
    if text.trim().is_empty() {
        return Err(Invalid("it is empty".into()));
    }
    let mut pools = Pools::default();
    for line in text.lines() {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let ["pool", name, _comment, guests, rest @ ..] = fields.as_slice() else {
            if fields.first() == Some(&"pool") {
                return Err(Invalid("a pool's line is cut off".into()));
            }
            continue;
        };
        if rest.is_empty() {
            return Err(Invalid("a pool's line is cut off".into()));
        }
        let guests = guests
            .split([',', ';', ' '])
            .filter_map(|vmid| vmid.parse().ok());
        pools.add(name, &guests.collect::<Vec<_>>());
    }
    Ok(pools)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vmid(number: u32) -> Vmid {
        Vmid::new(number).unwrap()
    }

    #[test]
    fn vmlist_of_a_cluster_and_of_a_node_without_guests() {
        let placements =
            parse_vmlist(include_str!("../../../tests/samples/three-nodes-vmlist")).unwrap();
        assert_eq!(placements.len(), 1);
        assert_eq!(placements[&vmid(101)].node.as_str(), "pve1");
        assert_eq!(placements[&vmid(101)].version, 3);
        assert_eq!(
            parse_vmlist(include_str!("../../../tests/samples/vmlist"))
                .unwrap()
                .len(),
            0
        );
    }

    #[test]
    fn members_of_a_cluster_and_of_a_node_alone() {
        let members =
            parse_members(include_str!("../../../tests/samples/three-nodes-members")).unwrap();
        assert_eq!(members.this.as_str(), "pve1");
        assert_eq!(members.nodes.len(), 3);
        assert_eq!(members.offline.len(), 0);
        let one_off =
            r#"{"nodename": "a", "nodelist": {"a": {"online": 1}, "b": {"online": 0}, "c": {}}}"#;
        let offline = parse_members(one_off).unwrap().offline;
        assert!(offline.iter().map(NodeName::as_str).eq(["b"]));
        let alone = parse_members(include_str!("../../../tests/samples/members")).unwrap();
        assert_eq!((alone.this.as_str(), alone.nodes.len()), ("pve1", 0));
        assert_eq!(
            (members.quorum, alone.quorum),
            (Quorum::There, Quorum::There)
        );
        let lost = include_str!("../../../tests/samples/three-nodes-members")
            .replace("\"quorate\": 1", "\"quorate\": 0");
        assert_eq!(parse_members(&lost).unwrap().quorum, Quorum::Lost);
    }

    #[test]
    fn truncated_files_are_errors_not_empty() {
        assert!(parse_vmlist("{\n\"version\": 4,\n\"ids\": {\n\"101\": {").is_err());
        assert!(parse_vmlist("").is_err());
        assert!(parse_members("{ \"nodename\": \"../x\" }").is_err());
    }

    #[test]
    fn a_guest_number_that_is_none_cannot_write_on_the_terminal() {
        let vmlist = r#"{"ids": {"\u001b[2J": {"node": "pve1", "type": "qemu"}}}"#;
        assert_eq!(
            parse_vmlist(vmlist).unwrap_err().to_string(),
            "`\\u{1b}[2J` is not a guest number (1 to 999999999)"
        );
    }

    #[test]
    fn pools_nest_and_do_not_leak_by_prefix() {
        let pools = parse_pools(include_str!("../../../tests/samples/user.cfg")).unwrap();
        assert!(pools.contains("prod", vmid(101)));
        assert!(pools.contains("prod", vmid(103)), "prod/dmz is within prod");
        assert!(pools.contains("prod/dmz", vmid(103)));
        assert!(!pools.contains("prod/dmz", vmid(101)));
        assert!(!pools.contains("pro", vmid(101)));
        assert!(pools.exists("lab") && !pools.exists("la"));
    }

    #[test]
    fn a_value_of_another_kind_is_not_repeated_at_length() {
        let vmlist =
            |version: &str| format!("{{\"ids\": {{\"101\": {{\"version\": \"{version}\"}}}}}}");
        let message = |version: &str| parse_vmlist(&vmlist(version)).unwrap_err().to_string();
        assert_eq!(
            message("1"),
            "invalid type: string \"1\", expected u64 at line 1 column 31"
        );
        assert_eq!(
            message(&"1".repeat(200)),
            "unexpected value at line 1 column 230"
        );
    }

    #[test]
    fn a_pool_without_end_is_none() {
        let levels = |count: usize| vec!["a"; count].join("/");
        let text = format!("pool:{}::101::\n", levels(MOST_LEVELS));
        let pools = parse_pools(&text).unwrap();
        assert!(pools.contains("a/a", vmid(101)) && pools.exists(&levels(MOST_LEVELS)));
        let text = format!("pool:{}::101::\npool:b::102::\n", levels(500_000));
        let pools = parse_pools(&text).unwrap();
        assert!(pools.names().eq(["b"]) && !pools.contains("a", vmid(101)));
    }

    #[test]
    fn a_user_cfg_that_is_empty_or_cut_off_is_not_known() {
        assert!(parse_pools("").is_err());
        assert!(
            parse_pools("user:root@pam:1:0:::::\n").is_ok_and(|pools| pools.names().count() == 0)
        );
        assert!(parse_pools("pool:prod::101:\npool:lab::10").is_err());
        assert!(parse_pools("pool:prod::101:\npool:l").is_err());
    }
}
