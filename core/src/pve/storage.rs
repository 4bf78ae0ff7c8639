//! `storage.cfg` text → storages: where a snippet is, which nodes have it, and whether snippets are allowed there.
//!
//! The grammar and the defaults are Proxmox VE's own (`PVE::SectionConfig`, `PVE::Storage::Plugin::parse_config`). Only
//! what decides about snippets is kept; which files are really there is others' to say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::model::{Invalid, NodeName, excerpt, is_control, printable};

/// The name of the hookscript's file in any snippets folder.
pub const SNIPPET: &str = "pve-span";

/// The most storages that are kept: nobody has as many.
const MOST: usize = 1000;

/// The name of a storage: a letter, then letters, digits, `-`, `_` and `.`, at the end a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct StorageId(String);

impl StorageId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `local`, which every node has.
    pub fn local() -> Self {
        Self("local".to_owned())
    }
}

impl FromStr for StorageId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fits = (2..=100).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid(format!(
                "`{}` is not the name of a storage",
                excerpt(text)
            )))
        }
    }
}

impl fmt::Display for StorageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A snippet by Proxmox VE's name for it: `local:snippets/pve-span`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Volume {
    storage: StorageId,
    file: String,
}

impl Volume {
    /// Our snippet on a storage.
    pub fn ours(storage: StorageId) -> Self {
        Self {
            storage,
            file: SNIPPET.to_owned(),
        }
    }

    /// The storage.
    pub fn storage(&self) -> &StorageId {
        &self.storage
    }

    /// The file's name within the snippets folder.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Is it our hookscript, on whatever storage?
    pub fn is_ours(&self) -> bool {
        self.file == SNIPPET
    }

    /// For programs; `Display` is for people.
    pub fn to_id(&self) -> String {
        format!("{}:snippets/{}", self.storage, self.file)
    }
}

impl FromStr for Volume {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let no_volume = || {
            Invalid(format!(
                "`{}` is not a snippet (local:snippets/pve-span)",
                excerpt(text)
            ))
        };
        let (storage, name) = text.split_once(':').ok_or_else(no_volume)?;
        let file = name.strip_prefix("snippets/").ok_or_else(no_volume)?;
        let fits = !file.is_empty()
            && file.len() <= 255
            && !matches!(file, "." | "..")
            && !file.contains('/')
            && !file.chars().any(is_control);
        if !fits {
            return Err(no_volume());
        }
        Ok(Self {
            storage: storage.parse().map_err(|_| no_volume())?,
            file: file.to_owned(),
        })
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&printable(&self.to_id()))
    }
}

impl Serialize for Volume {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_id())
    }
}

/// A storage, as far as snippets are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Its type's word: `dir`, `nfs`, …
    pub kind: String,
    /// The folder that snippets are in; none where the type keeps no files.
    pub snippets: Option<String>,
    /// What may be kept there: `iso`, `snippets`, …
    pub content: BTreeSet<String>,
    /// The nodes that have it; all without.
    pub nodes: Option<BTreeSet<NodeName>>,
    /// Is it switched off?
    pub disabled: bool,
    /// Is it one and the same on all nodes?
    pub shared: bool,
}

impl Storage {
    /// Are snippets among what may be kept there?
    pub fn allows_snippets(&self) -> bool {
        self.content.contains("snippets")
    }

    /// Does the node have it?
    pub fn is_on(&self, node: &NodeName) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.contains(node))
    }

    /// What `pvesm set` has to be given so that snippets are allowed, too: `iso,snippets,vztmpl`.
    pub fn content_with_snippets(&self) -> String {
        let with: BTreeSet<&str> = self
            .content
            .iter()
            .map(String::as_str)
            .filter(|content| *content != "none")
            .chain(["snippets"])
            .collect();
        with.into_iter().collect::<Vec<_>>().join(",")
    }
}

/// The cluster's storages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storages(BTreeMap<StorageId, Storage>);

/// What Proxmox VE takes for granted where storage.cfg is missing.
impl Default for Storages {
    fn default() -> Self {
        parse("")
    }
}

impl Storages {
    /// A storage by its name.
    pub fn get(&self, id: &StorageId) -> Option<&Storage> {
        self.0.get(id)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&StorageId, &Storage)> {
        self.0.iter()
    }

    /// Where a snippet is, on every node that has its storage.
    ///
    /// # Errors
    /// There is no such storage, or it keeps no files.
    pub fn path(&self, volume: &Volume) -> Result<String, Invalid> {
        let id = volume.storage();
        let storage = self
            .get(id)
            .ok_or_else(|| Invalid(format!("there is no storage `{id}`")))?;
        let folder = storage.snippets.as_ref().ok_or_else(|| {
            Invalid(format!(
                "the storage `{id}` ({}) keeps no snippets",
                excerpt(&storage.kind)
            ))
        })?;
        Ok(format!("{folder}/{}", volume.file()))
    }
}

/// Reads storage.cfg. It cannot fail: Proxmox VE, too, passes over what it does not understand.
pub fn parse(text: &str) -> Storages {
    let mut storages = BTreeMap::new();
    let mut lines = text.lines().filter(|line| !is_comment(line));
    while let Some(line) = lines.next() {
        let Some((kind, id)) = header(line) else {
            continue;
        };
        // Only an empty line ends a section.
        let section = lines.by_ref().take_while(|line| !line.is_empty());
        let keys: BTreeMap<&str, &str> = section.filter_map(key).collect();
        let kind = kind.to_ascii_lowercase();
        match id.parse::<StorageId>() {
            Ok(id) if id == StorageId::local() && !is_usual_local(&kind, &keys) => {
                storages.remove(&id);
            }
            Ok(id) if storages.len() < MOST => {
                let storage = storage(kind, &id, &keys);
                storages.insert(id, storage);
            }
            _ => {}
        }
    }
    let local = storages
        .entry(StorageId::local())
        .or_insert_with(usual_local);
    // Every node has it, whatever the file says.
    local.nodes = None;
    Storages(storages)
}

/// Where Proxmox VE keeps `local`.
const VZ: &str = "/var/lib/vz";

fn is_usual_local(kind: &str, keys: &BTreeMap<&str, &str>) -> bool {
    kind == "dir" && keys.get("path").is_none_or(|path| *path == VZ)
}

/// What `local` is where storage.cfg says nothing of it, or something else than a folder at its place.
fn usual_local() -> Storage {
    let content = ["backup", "images", "iso", "rootdir", "snippets", "vztmpl"];
    Storage {
        kind: "dir".to_owned(),
        snippets: Some(format!("{VZ}/snippets")),
        content: content.map(str::to_owned).into(),
        nodes: None,
        disabled: false,
        shared: false,
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// `dir: local`
fn header(line: &str) -> Option<(&str, &str)> {
    let (kind, id) = line.split_once(':')?;
    let id = id.trim();
    let is_word = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
    (is_word(kind) && is_word(id)).then_some((kind, id))
}

/// An indented line: a key and its value, or a key alone.
fn key(line: &str) -> Option<(&str, &str)> {
    let rest = line.trim_start();
    if rest.len() == line.len() || rest.is_empty() {
        return None;
    }
    let (key, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    Some((key, value.trim()))
}

/// The words of a list (`PVE::Tools::split_list`).
fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(|c: char| matches!(c, ',' | ';' | '\0') || c.is_whitespace())
        .filter(|word| !word.is_empty())
}

fn storage(kind: String, id: &StorageId, keys: &BTreeMap<&str, &str>) -> Storage {
    let is_set = |key: &str| {
        keys.get(key)
            .is_some_and(|value| matches!(*value, "" | "1" | "on" | "yes" | "true"))
    };
    let content = keys.get("content").copied().filter(|list| !list.is_empty());
    let nodes = keys.get("nodes").map(|list| {
        words(list)
            .filter_map(|name| name.parse().ok())
            .collect::<BTreeSet<NodeName>>()
    });
    let shared = ["nfs", "cifs", "cephfs", "glusterfs"].contains(&kind.as_str());
    Storage {
        snippets: snippets(&kind, id, keys),
        content: words(content.unwrap_or_else(|| usual_content(&kind)))
            .map(str::to_owned)
            .collect(),
        nodes: nodes.filter(|nodes| !nodes.is_empty()),
        disabled: is_set("disable"),
        shared: shared || is_set("shared"),
        kind,
    }
}

/// What a storage without `content` keeps.
fn usual_content(kind: &str) -> &'static str {
    match kind {
        "dir" | "btrfs" => "images,rootdir",
        "nfs" | "cifs" | "glusterfs" => "images",
        "cephfs" => "backup",
        _ => "",
    }
}

/// The folder of snippets: below `path`, or below where Proxmox VE mounts it.
fn snippets(kind: &str, id: &StorageId, keys: &BTreeMap<&str, &str>) -> Option<String> {
    let path = keys.get("path").copied().filter(|path| {
        path.starts_with('/') && path.len() <= 1024 && !path.chars().any(is_control)
    });
    let path = match kind {
        "dir" | "btrfs" if id.as_str() == "local" => path.unwrap_or(VZ).to_owned(),
        "dir" | "btrfs" => path?.to_owned(),
        "nfs" | "cifs" | "cephfs" | "glusterfs" => {
            path.map_or_else(|| format!("/mnt/pve/{id}"), str::to_owned)
        }
        _ => return None,
    };
    let overrides = keys.get("content-dirs").copied().unwrap_or_default();
    let elsewhere = words(overrides)
        .find_map(|word| word.strip_prefix("snippets="))
        .filter(|folder| folder.len() <= 1024 && !folder.chars().any(is_control));
    let folder = elsewhere.unwrap_or("snippets").trim_matches('/');
    Some(format!("{}/{folder}", path.trim_end_matches('/')))
}

#[cfg(test)]
mod tests;
