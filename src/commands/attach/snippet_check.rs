//! Is the snippet wherever a guest with it may start? Proxmox VE starts no guest whose hookscript is missing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::run::Stopped;
use crate::pve::programs;
use crate::sys::error::with_causes;
use crate::sys::files;
use pve_span_core::attach::Call;
use pve_span_core::model::{NodeName, printable};
use pve_span_core::pve::cluster::Members;
use pve_span_core::pve::storage::{Storage, Storages, Volume};

/// Where the package puts it.
const OURS: &str = "/var/lib/vz/snippets/pve-span";

/// What has to be known to tell.
pub struct Question<'a> {
    /// The prefix of every path.
    pub root: &'a Path,
    /// The snippet.
    pub volume: &'a Volume,
    /// The cluster's storages.
    pub storages: &'a Storages,
    /// This node.
    pub this: &'a NodeName,
    /// All of them.
    pub members: &'a Members,
    /// How long another node may take to answer.
    pub patience: Duration,
}

impl Question<'_> {
    /// What is worth knowing.
    ///
    /// # Errors
    /// A guest would not start somewhere, or nobody can tell: where, and what to do.
    pub fn check(&self) -> Result<Vec<String>, Stopped> {
        let id = self.volume.storage();
        let path = self.storages.path(self.volume);
        let path = path.map_err(|error| vec![error.to_string()])?;
        let Some(storage) = self.storages.get(id).filter(|storage| !storage.disabled) else {
            return Err(vec![format!(
                "the storage {id} is disabled: pvesm set {id} --disable 0"
            )]);
        };
        let mut warnings = Vec::new();
        if !storage.allows_snippets() {
            warnings.push(format!(
                "the storage {id} does not allow snippets; do: {}",
                self.remedy(storage)
            ));
        }
        let (mut faults, mut is_found) = (Vec::new(), false);
        for node in self.nodes(storage) {
            if storage.shared && is_found {
                break;
            }
            let looked = if node == self.this {
                let looked = self.look_here(&path);
                warnings.extend(looked.is_ok().then(|| self.doubt(&path)).flatten());
                looked
            } else if self.members.offline.contains(node) {
                warnings.push(format!(
                    "{node} is off, so nobody can tell whether it has {}: before a guest starts there, {}",
                    self.volume,
                    install(&path)
                ));
                continue;
            } else {
                self.look_at(node, storage, &path)
            };
            match looked {
                Ok(()) => is_found = true,
                Err(fault) => faults.push(fault),
            }
        }
        // On a shared storage, whoever has it has it for all.
        if faults.is_empty() || storage.shared && is_found {
            Ok(warnings)
        } else {
            // They may be the reason.
            warnings.iter().for_each(|warning| log::warn!("{warning}"));
            Err(faults)
        }
    }

    /// The nodes that have the storage: a guest may start on any of them. This one first, it costs least.
    fn nodes(&self, storage: &Storage) -> Vec<&NodeName> {
        let others = self.members.nodes.iter().filter(|node| *node != self.this);
        std::iter::once(self.this)
            .chain(others)
            .filter(|node| storage.is_on(node))
            .collect()
    }

    fn remedy(&self, storage: &Storage) -> String {
        let id = self.volume.storage();
        let content = printable(&storage.content_with_snippets());
        format!("pvesm set {id} --content {content}")
    }

    fn look_here(&self, path: &str) -> Result<(), String> {
        let this = self.this;
        let file = self.root.join(path.trim_start_matches('/'));
        let shown = printable(path);
        match file.metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(format!(
                "{shown} is missing on this node, {this}: {}",
                install(path)
            )),
            Err(error) => Err(format!("cannot look at {shown} on this node: {error}")),
            Ok(found) if !found.is_file() => {
                Err(format!("{shown} on this node, {this}, is not a file"))
            }
            Ok(found) if found.permissions().mode() & 0o111 == 0 => Err(format!(
                "{shown} on this node, {this}, is not executable: chmod 755 {shown}"
            )),
            Ok(_) => Ok(()),
        }
    }

    /// A file of that name that has nothing to do with pve-span mirrors nothing.
    fn doubt(&self, path: &str) -> Option<String> {
        let file = self.root.join(path.trim_start_matches('/'));
        // The program itself is larger than what is read.
        let text = files::read_bytes(&file).ok()?;
        let speaks_of_us = text.windows(8).any(|part| part == b"pve-span");
        (!speaks_of_us).then(|| {
            format!(
                "{0} on this node, {1}, does not call pve-span; if it is not meant to be there, move it away and {2}",
                printable(path),
                self.this,
                install(path)
            )
        })
    }

    fn look_at(&self, node: &NodeName, storage: &Storage, path: &str) -> Result<(), String> {
        let cannot_tell = format!("cannot tell whether {node} has {}", self.volume);
        if !storage.allows_snippets() {
            return Err(format!(
                "{cannot_tell}: Proxmox VE lists no snippets where they are not allowed"
            ));
        }
        let listing = Call::snippets(node, self.volume);
        match programs::volumes(&listing, self.patience) {
            Ok(volumes) if volumes.contains(&self.volume.to_id()) => Ok(()),
            Ok(_) => Err(format!(
                "{} is missing on {node}: {}",
                self.volume,
                install(path)
            )),
            Err(error) => Err(format!("{cannot_tell}: {}", with_causes(&error))),
        }
    }
}

/// What to do where it is missing. Only `local` has it from the package.
fn install(path: &str) -> String {
    if path == OURS {
        return format!(
            "install the package pve-span there (where it is installed, /usr/share/pve-span/put-snippet puts it there again), \
             or copy hookscripts/pve-span to {path} and chmod 755 it"
        );
    }
    format!(
        "install -D -m 755 /usr/share/pve-span/hookscript {}",
        printable(path)
    )
}
