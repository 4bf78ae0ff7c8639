//! What on this node may make mirrors anew: scripts, units and tables of cron that speak of them, and guests whose
//! hookscript is one of these.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::pve::{ClusterQueries, GuestsToRead, Pve};
use crate::sys::files;
use pve_span_core::model::{GuestKind, excerpt, printable};

/// Where administrators put such things, below the root directory.
const FOLDERS: [&str; 10] = [
    "etc/cron.d",
    "etc/cron.hourly",
    "etc/network/if-up.d",
    "etc/network/interfaces.d",
    "etc/systemd/system",
    "usr/local/bin",
    "usr/local/sbin",
    "usr/local/lib",
    SNIPPETS,
    "var/spool/cron/crontabs",
];
const SNIPPETS: &str = "var/lib/vz/snippets";
const FILES: [&str; 3] = ["etc/crontab", "etc/network/interfaces", "etc/rc.local"];

/// The most files of a folder that are looked into, and the largest.
const MOST_FILES: usize = 500;
const LARGEST: u64 = 256 * 1024;

/// What looks like it, a line each, with what to do.
pub fn makers(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut scripts = BTreeSet::new();
    for path in candidates(root) {
        if !speaks_of_mirrors(&path) {
            continue;
        }
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let shown = printable(&path.display().to_string());
        let is_unit = path
            .extension()
            .is_some_and(|end| end == "service" || end == "timer");
        lines.push(match is_unit {
            true => format!("{shown}: systemctl disable --now {}", excerpt(&name)),
            false => shown,
        });
        if path.starts_with(root.join(SNIPPETS)) {
            scripts.insert(name);
        }
    }
    lines.extend(guests(root, &scripts));
    lines
}

fn candidates(root: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = FILES.iter().map(|file| root.join(file)).collect();
    for folder in FOLDERS {
        let entries = fs::read_dir(root.join(folder)).into_iter().flatten();
        let mut paths: Vec<PathBuf> = entries
            .flatten()
            .take(MOST_FILES)
            .map(|entry| entry.path())
            .collect();
        paths.sort();
        found.extend(paths);
    }
    found
}

fn speaks_of_mirrors(path: &Path) -> bool {
    let is_ours = path
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("pve-span"));
    let is_small = fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() <= LARGEST);
    if is_ours || !is_small {
        return false;
    }
    // What is not text is a program, and none of these.
    let Ok(text) = files::read_text(path) else {
        return false;
    };
    let text = text.to_lowercase();
    // `ovs_extra` of interfaces(5) is handed on to ovs-vsctl.
    let speaks = text.contains("ovs-vsctl") || text.contains("ovs_extra");
    let makes = speaks && text.contains("mirror");
    makes || text.contains("configure-ovs-mirrors") || text.contains("ovs-mirror-hook")
}

/// Guests that call one of these scripts. `qm set` replaces it by ours.
fn guests(root: &Path, scripts: &BTreeSet<String>) -> Vec<String> {
    let pve = Pve::new(root);
    let cluster = pve.cluster(
        ClusterQueries::ALL,
        &GuestsToRead::AllAnd(BTreeSet::new()),
        None,
    );
    let mut lines = Vec::new();
    for guest in cluster.guests.values().flatten() {
        let Some(volume) = &guest.hookscript else {
            continue;
        };
        let script = volume.rsplit(['/', ':']).next().unwrap_or_default();
        if !scripts.contains(script) && script != "ovs-mirror-hook.sh" {
            continue;
        }
        let tool = match guest.kind {
            GuestKind::Qemu => "qm",
            GuestKind::Lxc => "pct",
        };
        let (vmid, volume) = (guest.vmid, excerpt(volume));
        let place = match cluster.placements.as_ref().map(|all| all.get(&vmid)) {
            Ok(Some(placement)) if cluster.is_here(vmid) == Some(false) => {
                format!(", on {}", placement.node)
            }
            _ => String::new(),
        };
        lines.push(format!(
            "{tool} set {vmid} --hookscript local:snippets/pve-span   # instead of {volume}{place}"
        ));
    }
    lines
}
