//! Hookscripts at their places, and other files in which commands that wipe mirrors are found.
//!
//! A snippets folder may be on a storage that hangs, so each storage is looked at by a child of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::pve::Pve;
use crate::sys::error::with_causes;
use crate::sys::files;
use crate::sys::isolated;
use crate::sys::program::is_program;
use pve_span_core::doctor::{
    ChainRecord, MirrorWipe, Script, VolumeFact, VolumeState, clearing_lines,
};
use pve_span_core::model::{Vmid, excerpt, printable};
use pve_span_core::pve::chained_hook::FOLDER;
use pve_span_core::pve::cluster::Cluster;
use pve_span_core::pve::storage::{StorageId, Storages, Volume};

/// The snippet that this version comes with.
const WRAPPER: &str = include_str!("../../../../hookscripts/pve-span");

/// What every version of it says of itself.
const MARK: &str = "Hookscript for Proxmox VE that calls pve-span";

/// Where the package keeps it, below the root directory.
const PACKAGED: &str = "usr/share/pve-span/hookscript";

/// Where the snippet looks for pve-span, below the root directory.
const PROGRAMS: [&str; 4] = [
    "usr/bin/pve-span",
    "usr/local/bin/pve-span",
    "usr/sbin/pve-span",
    "usr/local/sbin/pve-span",
];

/// How long a storage may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The most that are looked at: storages, scripts on one, and other files.
const MOST_STORAGES: usize = 5;
const MOST_SCRIPTS: usize = 100;
const MOST_FILES: usize = 200;

/// What was seen.
#[derive(Default)]
pub struct HookscriptFacts {
    /// Hookscripts by volume.
    pub volumes: Vec<VolumeFact>,
    /// Records of chained ones.
    pub chains: Vec<ChainRecord>,
    /// Commands that wipe mirrors.
    pub clearing: Vec<MirrorWipe>,
}

/// A script at its place, as a child has seen it.
#[derive(Serialize, Deserialize)]
struct Seen {
    state: VolumeState,
    clearing: Vec<MirrorWipe>,
}

/// Looks at all hookscripts that guests refer to, and at ours on the usual storage.
pub fn look(
    root: &Path,
    cluster: &Cluster,
    storages: Option<&Storages>,
    pve: &Pve,
) -> HookscriptFacts {
    let mut referring: BTreeMap<String, Vec<Vmid>> = BTreeMap::new();
    for guest in cluster.guests.values().flatten() {
        if let Some(volume) = &guest.hookscript {
            referring
                .entry(volume.clone())
                .or_default()
                .push(guest.vmid);
        }
    }
    // Where a snippet on another storage is in use, the usual place is nobody's concern.
    let is_ours = |volume: &String| {
        volume
            .parse::<Volume>()
            .is_ok_and(|volume| volume.is_ours())
    };
    if !referring.keys().any(is_ours) {
        referring
            .entry(Volume::ours(StorageId::local()).to_id())
            .or_default();
    }
    let mut scripts = HookscriptFacts::default();
    let mut places: BTreeMap<StorageId, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for (text, guests) in referring {
        let state = match place(&text, cluster, storages) {
            Ok((volume, path)) => {
                let path = root.join(path.trim_start_matches('/'));
                let on_storage = places.entry(volume.storage().clone()).or_default();
                on_storage.insert(text.clone(), path.clone());
                unclear(&path, "not looked at: there are too many")
            }
            Err(Some(state)) => state,
            // Without storage.cfg nobody knows, and that is told once.
            Err(None) => continue,
        };
        scripts.volumes.push(VolumeFact {
            volume: text,
            guests,
            state,
        });
    }
    for on_storage in places.into_values().take(MOST_STORAGES) {
        scripts.take(root, &on_storage);
    }
    scripts.chained(root, pve);
    scripts.clearing.extend(clearing_files(root));
    scripts
}

/// Where a volume is, or what can be said instead.
fn place(
    text: &str,
    cluster: &Cluster,
    storages: Option<&Storages>,
) -> Result<(Volume, String), Option<VolumeState>> {
    let no_place = |why: String| Some(VolumeState::NoPlace(why));
    let volume: Volume = text
        .parse()
        .map_err(|error: pve_span_core::model::Invalid| no_place(error.0))?;
    let storages = storages.ok_or(None)?;
    let path = storages.path(&volume).map_err(|error| no_place(error.0))?;
    let id = volume.storage();
    if let Some(storage) = storages.get(id) {
        if storage.disabled {
            let why = format!("/etc/pve/storage.cfg: the storage {id} is disabled");
            return Err(Some(VolumeState::NotHere(why)));
        }
        if cluster.this.as_ref().is_ok_and(|this| !storage.is_on(this)) {
            let why = format!("/etc/pve/storage.cfg: {id}: `nodes` does not name this node");
            return Err(Some(VolumeState::NotHere(why)));
        }
    }
    Ok((volume, path))
}

fn unclear(path: &Path, why: &str) -> VolumeState {
    VolumeState::Unclear {
        path: path.display().to_string(),
        why: why.to_owned(),
    }
}

impl HookscriptFacts {
    /// Looks at the scripts of one storage, in a child.
    fn take(&mut self, root: &Path, places: &BTreeMap<String, PathBuf>) {
        let seen = isolated(PATIENCE, || {
            let places = places.iter().take(MOST_SCRIPTS);
            let seen = places.map(|(volume, path)| (volume.clone(), see(root, path)));
            seen.collect::<BTreeMap<String, Seen>>()
        });
        let why = match seen {
            Ok(mut seen) => {
                for fact in &mut self.volumes {
                    if let Some(seen) = seen.remove(&fact.volume) {
                        fact.state = seen.state;
                        self.clearing.extend(seen.clearing);
                    }
                }
                return;
            }
            Err(error) => format!("{}: does its storage hang?", with_causes(&error)),
        };
        for fact in &mut self.volumes {
            if let Some(path) = places.get(&fact.volume) {
                fact.state = unclear(path, &why);
            }
        }
    }

    /// Looks at records of chained hookscripts, and at the scripts.
    fn chained(&mut self, root: &Path, pve: &Pve) {
        let guests = pve.guests_with_chained().unwrap_or_default();
        for guest in guests {
            let file = pve.path(&format!("{FOLDER}/{guest}")).display().to_string();
            let record = match pve.chained(guest) {
                Ok(Some(record)) => Ok(record),
                Ok(None) => continue,
                Err(why) => Err(why),
            };
            let path = record
                .as_ref()
                .ok()
                .map(|record| root.join(record.path().trim_start_matches('/')));
            let seen = path.map(|path| {
                isolated(PATIENCE, || see(root, &path)).unwrap_or_else(|error| Seen {
                    state: unclear(&path, &with_causes(&error)),
                    clearing: Vec::new(),
                })
            });
            let state = seen.map(|seen| {
                self.clearing.extend(seen.clearing);
                seen.state
            });
            self.chains.push(ChainRecord {
                file,
                guest,
                record,
                state,
            });
        }
    }
}

/// What is at a place.
fn see(root: &Path, path: &Path) -> Seen {
    let clearing = match files::read_bytes(path) {
        Ok(bytes) if bytes.starts_with(b"#!") => clearing_in(path, &bytes),
        _ => Vec::new(),
    };
    Seen {
        state: state_of(root, path),
        clearing,
    }
}

fn state_of(root: &Path, path: &Path) -> VolumeState {
    let shown = || printable(&path.display().to_string());
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            let link = fs::read_link(path).ok();
            return VolumeState::Missing {
                path: shown(),
                link: link.map(|target| excerpt(&target.display().to_string())),
            };
        }
        Err(error) => return unclear(path, &error.to_string()),
    };
    if !metadata.is_file() {
        return VolumeState::NotAFile(shown());
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return VolumeState::NotExecutable(shown());
    }
    let bytes = match files::read_bytes(path) {
        Ok(bytes) => bytes,
        // The program itself.
        Err(files::Error::TooLarge { .. }) => return fine(shown(), program(root, path)),
        Err(error) => return unclear(path, &with_causes(&error)),
    };
    let broken = |why: String| VolumeState::Broken { path: shown(), why };
    if bytes.starts_with(b"\x7fELF") {
        return fine(shown(), program(root, path));
    }
    match interpreter(&bytes) {
        Some(interpreter) if !is_program(Path::new(&interpreter)) => {
            return broken(format!(
                "its first line asks for {}, which is not there{}",
                excerpt(&interpreter),
                if interpreter.ends_with('\r') {
                    " (its lines end as on Windows: sed -i 's/\\r$//' mends that)"
                } else {
                    ""
                }
            ));
        }
        // Proxmox VE calls it with exec of Perl, which is execvp(3): a script without such a line is /bin/sh's.
        None if bytes.contains(&0) => {
            return broken("it is neither a program nor a script".into());
        }
        _ => {}
    }
    let is = if bytes == WRAPPER.as_bytes() {
        Script::Wrapper
    } else {
        let text = String::from_utf8_lossy(&bytes);
        let is_call = |line: &str| !line.trim_start().starts_with('#') && line.contains("pve-span");
        if text.contains(MARK) {
            Script::OtherWrapper
        } else if text.lines().any(is_call) {
            Script::Caller
        } else {
            Script::Other
        }
    };
    fine(shown(), is)
}

fn fine(path: String, is: Script) -> VolumeState {
    VolumeState::Fine { path, is }
}

/// The `/bin/sh` of `#!/bin/sh -e`. To the kernel a carriage return is a part of it.
fn interpreter(bytes: &[u8]) -> Option<String> {
    let line = bytes
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let line = String::from_utf8_lossy(line);
    let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
    words.next().map(str::to_owned)
}

/// Is a program pve-span, this one or the one that is installed?
fn program(root: &Path, path: &Path) -> Script {
    let installed = PROGRAMS.iter().map(|program| root.join(program));
    let known = installed.chain(std::env::current_exe());
    let is_same = |known: PathBuf| match (fs::metadata(&known), fs::metadata(path)) {
        (Ok(a), Ok(b)) if (a.dev(), a.ino()) == (b.dev(), b.ino()) => true,
        (Ok(a), Ok(b)) => {
            a.len() == b.len()
                && matches!((fs::read(known), fs::read(path)), (Ok(a), Ok(b)) if a == b)
        }
        _ => false,
    };
    if known.into_iter().any(is_same) {
        Script::Program
    } else {
        Script::Other
    }
}

/// The programs that the snippet would find.
pub fn programs(root: &Path) -> Vec<String> {
    let paths = PROGRAMS.iter().map(|program| root.join(program));
    paths
        .filter(|path| is_program(path))
        .map(|path| path.display().to_string())
        .collect()
}

/// The snippet that the package brings, to be put where it is missing.
pub fn packaged(root: &Path) -> Option<String> {
    let path = root.join(PACKAGED);
    is_program(&path).then(|| path.display().to_string())
}

/// Commands that wipe mirrors, where they are run without anybody's asking: with the network, and by cron.
pub fn clearing_files(root: &Path) -> Vec<MirrorWipe> {
    let mut paths: BTreeSet<PathBuf> = ["etc/network/interfaces", "etc/crontab"]
        .iter()
        .map(|file| root.join(file))
        .collect();
    for folder in [
        "etc/network/interfaces.d",
        "etc/network/if-up.d",
        "etc/cron.d",
        "etc/cron.hourly",
        "etc/cron.daily",
        "var/spool/cron/crontabs",
    ] {
        let entries = fs::read_dir(root.join(folder)).into_iter().flatten();
        paths.extend(entries.flatten().take(MOST_FILES).map(|entry| entry.path()));
    }
    let mut found = Vec::new();
    for path in paths.into_iter().take(MOST_FILES) {
        if let Ok(bytes) = files::read_bytes(&path) {
            found.extend(clearing_in(&path, &bytes));
        }
    }
    found
}

fn clearing_in(path: &Path, bytes: &[u8]) -> Vec<MirrorWipe> {
    let text = String::from_utf8_lossy(bytes);
    let lines = clearing_lines(&text).into_iter();
    lines
        .map(|(line, text)| MirrorWipe {
            file: printable(&path.display().to_string()),
            line,
            text,
        })
        .collect()
}
