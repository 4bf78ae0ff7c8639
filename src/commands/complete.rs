//! `pve-span complete`: what can stand at the cursor, for the shells' completion scripts.
//!
//! Somebody waits for it with a key just pressed: it reads little, waits a second at most for /etc/pve, and says nothing
//! of what goes wrong.

use std::path::Path;
use std::time::Duration;

use crate::cli::complete::{Candidate, Cursor, Wanted, at_cursor};
use crate::config::active;
use crate::pve::{ClusterQueries, GuestsToRead, Pve};
use crate::reconcile::lock::LockFile;
use crate::sys::isolated;
use crate::sys::output::Printer;
use pve_span_core::config::Session;
use pve_span_core::model::{GuestKind, NicId, NicIndex, Vmid, printable};
use pve_span_core::pve::cluster::Placement;
use pve_span_core::pve::storage::StorageId;

/// How long /etc/pve may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Prints what is wanted (`words`, `files` or `folders`), and then the words, each with a tab and what it means. The exit code is 0.
pub fn run(root: &Path, words: &[String]) -> u8 {
    let cursor = at_cursor(words);
    let root = cursor.root.as_deref().unwrap_or(root);
    let mut out = Printer::new();
    let candidates = match &cursor.wanted {
        Wanted::Anything => return 0,
        Wanted::File => {
            out.line("files");
            return 0;
        }
        Wanted::Folder => {
            out.line("folders");
            return 0;
        }
        Wanted::OneOf(all) => all.clone(),
        Wanted::Guest | Wanted::Nic | Wanted::Session | Wanted::Storage => {
            let look_up = || {
                let candidates = names(root, &cursor).into_iter();
                candidates
                    .map(|one| (one.word, one.about))
                    .collect::<Vec<_>>()
            };
            // A pmxcfs that hangs holds the child; one that is known to hang is not asked.
            let hangs = LockFile::existing(root).is_some_and(|file| file.hung().is_some());
            let found = (!hangs).then(|| isolated(PATIENCE, look_up).unwrap_or_default());
            let pairs = found.unwrap_or_default().into_iter();
            pairs
                .map(|(word, about)| Candidate { word, about })
                .collect()
        }
    };
    out.line("words");
    let fits = |one: &&Candidate| one.word.starts_with(&cursor.begun);
    let is_new = |one: &&Candidate| !cursor.named.contains(&one.word);
    for Candidate { word, about } in candidates.iter().filter(fits).filter(is_new) {
        out.line(&format!("{}{word}\t{about}", cursor.before));
    }
    0
}

fn names(root: &Path, cursor: &Cursor) -> Vec<Candidate> {
    match cursor.wanted {
        Wanted::Guest => guests(root),
        Wanted::Nic => {
            let mut all = guests(root);
            let begun = cursor.begun.as_str();
            let guest = begun.split_once('/').map_or(begun, |(guest, _)| guest);
            all.extend(guest.parse().into_iter().flat_map(|vmid| nics(root, vmid)));
            all
        }
        Wanted::Session => sessions(root),
        Wanted::Storage => storages(root),
        Wanted::Anything | Wanted::OneOf(_) | Wanted::File | Wanted::Folder => Vec::new(),
    }
}

fn guests(root: &Path) -> Vec<Candidate> {
    let placements = Pve::new(root).placements().unwrap_or_default();
    let candidate = |(vmid, placement): (&Vmid, &Placement)| Candidate {
        word: vmid.to_string(),
        about: match placement.kind {
            GuestKind::Qemu => format!("VM on {}", placement.node),
            GuestKind::Lxc => format!("container on {}", placement.node),
        },
    };
    placements.iter().map(candidate).collect()
}

fn nics(root: &Path, vmid: Vmid) -> Vec<Candidate> {
    let nothing = ClusterQueries {
        tags: false,
        pools: false,
        nodes: true,
    };
    let cluster = Pve::new(root).cluster(nothing, &GuestsToRead::Of([vmid].into()), None);
    let nics = cluster.guest(vmid).map(|guest| &guest.nics).into_iter();
    let candidate = |index: &NicIndex| Candidate {
        word: NicId {
            vmid,
            index: *index,
        }
        .to_string(),
        about: String::new(),
    };
    nics.flat_map(|nics| nics.keys()).map(candidate).collect()
}

fn sessions(root: &Path) -> Vec<Candidate> {
    let in_force = active::load(root);
    let sessions = in_force.annotations().map(|all| &all.sessions).into_iter();
    let candidate = |session: &Session| Candidate {
        word: session.name.to_string(),
        about: session
            .comment
            .as_deref()
            .map(printable)
            .unwrap_or_default(),
    };
    sessions
        .flat_map(|sessions| sessions.values())
        .map(candidate)
        .collect()
}

fn storages(root: &Path) -> Vec<Candidate> {
    let storages = Pve::new(root).storages().ok().into_iter();
    storages
        .flat_map(|storages| {
            let candidate = |(id, _): (&StorageId, _)| Candidate {
                word: id.as_str().to_owned(),
                about: String::new(),
            };
            storages.iter().map(candidate).collect::<Vec<_>>()
        })
        .collect()
}
