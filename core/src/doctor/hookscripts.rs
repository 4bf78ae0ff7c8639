//! Hookscripts: is each there that a guest refers to, can it be called here, and may its storage keep it.
//!
//! Proxmox VE does not start a guest whose hookscript is missing, so this is what matters most.

use std::collections::BTreeSet;

use super::facts::{Facts, Node, Script, VolumeFact, VolumeState};
use super::findings::{Findings, Id, Severity, listed, plural, shell_word};
use crate::model::Vmid;
use crate::pve::storage::{Storages, Volume};

/// Judges hookscripts and their storages.
pub fn judge(facts: &Facts<'_>, found: &mut Findings) {
    for volume in &facts.volumes {
        place(facts, volume, found);
    }
    match &facts.storages {
        Ok(storages) => contents(facts, storages, found),
        // Without /etc/pve at all, that has been told.
        Err(why) if facts.node.is_ok() && found.none_of(&[Id::PveUnmounted]) => found.add(
            Severity::Warning,
            Id::StorageUnclear,
            "cannot tell where hookscripts are: the storages are not known",
            why.to_string(),
            "pvesm status",
        ),
        Err(_) => {}
    }
    programs(facts, found);
}

/// Is the guest filed under this node, as far as anybody knows?
fn may_be_here(vmid: Vmid, node: Option<&Node<'_>>) -> bool {
    node.is_none_or(|node| node.cluster.is_here(vmid) != Some(false))
}

/// What follows from a hookscript that cannot be called.
fn who(guests: &[Vmid], node: Option<&Node<'_>>) -> String {
    let is_any_here = guests.iter().any(|vmid| may_be_here(*vmid, node));
    let guests_word = plural(guests.len(), "guest", "guests");
    let start = plural(guests.len(), "does", "do");
    if !is_any_here {
        format!(
            "{guests_word} {} could not start here, nor be migrated here",
            listed(guests)
        )
    } else {
        format!("{guests_word} {} {start} not start here", listed(guests))
    }
}

fn place(facts: &Facts<'_>, fact: &VolumeFact, found: &mut Findings) {
    let VolumeFact {
        volume,
        guests,
        state,
    } = fact;
    let node = facts.node.as_ref().ok();
    let parsed = volume.parse::<Volume>().ok();
    let ours = parsed.as_ref().is_some_and(Volume::is_ours);
    if guests.is_empty() {
        return unused(facts, volume, state, found);
    }
    let who = who(guests, node);
    // Somebody else's script, of guests that are elsewhere, is that node's affair until they migrate.
    let severity = if ours || guests.iter().any(|vmid| may_be_here(*vmid, node)) {
        Severity::Error
    } else {
        Severity::Warning
    };
    let seen = |what: &str| {
        let config = node
            .zip(guests.first())
            .map_or_else(String::new, |(node, vmid)| {
                format!("{}: hookscript: {volume}; ", node.config_of(*vmid))
            });
        format!("{config}{what}")
    };
    match state {
        VolumeState::NoPlace(why) => found.add(
            severity,
            Id::StorageUnknown,
            format!("{who}: there is no place for the hookscript {volume}"),
            seen(why),
            without(node, guests),
        ),
        VolumeState::NotHere(why) => found.add(
            severity,
            Id::StorageUnknown,
            format!("{who}: this node does not have the storage of the hookscript {volume}"),
            seen(why),
            "pvesm set STORAGE --nodes … with this node among them; or keep the snippet on local",
        ),
        VolumeState::Missing { path, link } => found.add(
            severity,
            Id::SnippetMissing,
            format!("{who}: the hookscript {volume} is missing"),
            seen(&match link {
                Some(target) => format!("{path} is a link to {target}, which is not there"),
                None => format!("there is no {path}"),
            }),
            missing_remedy(facts, guests, path, ours),
        ),
        VolumeState::NotAFile(path) => found.add(
            severity,
            Id::SnippetMissing,
            format!("{who}: the hookscript {volume} is not a file"),
            seen(&format!("{path} is a folder, a pipe or a device")),
            missing_remedy(facts, guests, path, ours),
        ),
        VolumeState::NotExecutable(path) => found.add(
            severity,
            Id::SnippetNotExecutable,
            format!("{who}: the hookscript {volume} may not be executed"),
            seen(&format!("{path} has no x bit")),
            format!("chmod 755 {}", shell_word(path)),
        ),
        VolumeState::Broken { path, why } => found.add(
            severity,
            Id::SnippetBroken,
            format!("{who}: the hookscript {volume} cannot run"),
            seen(&format!("{path}: {why}")),
            if ours {
                put(facts, path)
            } else {
                without(node, guests)
            },
        ),
        VolumeState::Unclear { path, why } => found.add(
            Severity::Warning,
            Id::SnippetUnclear,
            format!(
                "cannot tell whether the hookscript {volume} can be called: {who} if it cannot"
            ),
            seen(&format!("{path}: {why}")),
            "pvesm status shows whether its storage is there",
        ),
        VolumeState::Fine { path, is } => fine(facts, fact, path, is, ours, found),
    }
}

/// The command that puts our snippet at a place.
fn put(facts: &Facts<'_>, path: &str) -> String {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let (folder, path) = (shell_word(folder), shell_word(path));
    if let Some(packaged) = &facts.packaged {
        format!(
            "mkdir -p {folder} && install -m 755 {} {path}",
            shell_word(packaged)
        )
    } else if let Some(program) = facts.programs.first() {
        format!(
            "mkdir -p {folder} && ln -sfn {} {path}",
            shell_word(program)
        )
    } else {
        "apt install pve-span".to_owned()
    }
}

fn missing_remedy(facts: &Facts<'_>, guests: &[Vmid], path: &str, ours: bool) -> String {
    if ours {
        put(facts, path)
    } else {
        let without = without(facts.node.as_ref().ok(), guests);
        format!("put the script back; or, for each guest: {without}")
    }
}

fn without(node: Option<&Node<'_>>, guests: &[Vmid]) -> String {
    let set = guests.first().map(|vmid| match node {
        Some(node) => node.set(*vmid),
        None => format!("qm set {vmid}"),
    });
    format!("{} --delete hookscript", set.unwrap_or_default())
}

/// Is a script ours that has been changed or is not what the package has?
fn fine(
    facts: &Facts<'_>,
    fact: &VolumeFact,
    path: &str,
    is: &Script,
    ours: bool,
    found: &mut Findings,
) {
    let guests = &fact.guests;
    let refer = plural(guests.len(), "refers", "refer");
    let guests_word = plural(guests.len(), "guest", "guests");
    if ours && matches!(is, Script::Other | Script::OtherWrapper) {
        let (what, so) = match is {
            Script::OtherWrapper => (
                "another version's snippet",
                "it may not do what this version documents",
            ),
            _ => (
                "not pve-span's, but somebody's own script",
                "it may do anything, and may keep guests from starting",
            ),
        };
        return found.add(
            Severity::Warning,
            Id::SnippetChanged,
            format!("the hookscript {} is {what}: {so}", fact.volume),
            format!(
                "{path} is not what pve-span {} comes with",
                facts.host.version
            ),
            format!(
                "look at it, move it away if it is still wanted, then {}",
                put(facts, path)
            ),
        );
    }
    if *is == Script::Wrapper && facts.programs.is_empty() {
        return found.add(
            Severity::Warning,
            Id::ProgramMissing,
            format!(
                "the hookscript {} finds no pve-span here: {guests_word} {} {}, but no hook mirrors anything",
                fact.volume,
                listed(guests),
                plural(guests.len(), "starts", "start"),
            ),
            "there is no pve-span in /usr/bin, /usr/local/bin, /usr/sbin or /usr/local/sbin",
            "apt install pve-span",
        );
    }
    let what = match is {
        Script::Program => "pve-span itself",
        Script::Wrapper => "the package's snippet",
        Script::Caller => "a script that calls pve-span",
        Script::OtherWrapper | Script::Other => "not pve-span's",
    };
    found.ok(
        Id::Snippet,
        format!("the hookscript {} can be called", fact.volume),
        format!(
            "{path}, {what}; {guests_word} {} {refer} to it",
            listed(guests)
        ),
    );
}

/// The usual place, to which nobody refers.
fn unused(facts: &Facts<'_>, volume: &str, state: &VolumeState, found: &mut Findings) {
    match state {
        VolumeState::Fine { path, .. } => found.ok(
            Id::Snippet,
            format!("the snippet {volume} is there, and no guest refers to it"),
            path,
        ),
        VolumeState::Missing { path, .. } => {
            let has_sessions = facts
                .node
                .as_ref()
                .is_ok_and(|node| node.annotations.is_some_and(|all| !all.sessions.is_empty()));
            if has_sessions {
                found.add(
                    Severity::Note,
                    Id::SnippetAbsent,
                    "there is no snippet here, and no guest refers to one: only the service and pve-span apply do anything",
                    format!("there is no {path}"),
                    put(facts, path),
                );
            }
        }
        VolumeState::NotAFile(path) | VolumeState::NotExecutable(path) => found.add(
            Severity::Warning,
            Id::SnippetNotExecutable,
            format!("the snippet {volume} could not be called: a guest that referred to it would not start"),
            format!("{path} is not a file that may be executed"),
            format!("chmod 755 {}", shell_word(path)),
        ),
        VolumeState::Broken { path, why } | VolumeState::Unclear { path, why } => found.add(
            Severity::Warning,
            Id::SnippetUnclear,
            format!("the snippet {volume} may not be callable: a guest that referred to it might not start"),
            format!("{path}: {why}"),
            put(facts, path),
        ),
        VolumeState::NoPlace(_) | VolumeState::NotHere(_) => {}
    }
}

/// Storages that guests' hookscripts are on, or that ours would be on, and that do not allow snippets.
fn contents(facts: &Facts<'_>, storages: &Storages, found: &mut Findings) {
    let volumes = facts.volumes.iter();
    let used: BTreeSet<_> = volumes
        .filter(|fact| !fact.guests.is_empty())
        .filter_map(|fact| fact.volume.parse::<Volume>().ok())
        .map(|volume| volume.storage().clone())
        .collect();
    for id in &used {
        let Some(storage) = storages.get(id) else {
            continue;
        };
        if storage.allows_snippets() {
            found.ok(
                Id::StorageContent,
                format!("the storage {id} allows snippets"),
                "/etc/pve/storage.cfg",
            );
        } else {
            forbidden(
                id.as_str(),
                &storage.content_with_snippets(),
                "hookscripts are on it",
                Severity::Warning,
                found,
            );
        }
    }
    let anywhere = storages.iter().any(|(_, storage)| {
        storage.allows_snippets() && !storage.disabled && storage.snippets.is_some()
    });
    let wants_one = facts
        .node
        .as_ref()
        .is_ok_and(|node| node.running().next().is_some());
    if used.is_empty() && !anywhere && wants_one {
        let content = storages
            .iter()
            .find(|(id, _)| id.as_str() == "local")
            .map(|(_, local)| local.content_with_snippets());
        forbidden(
            "local",
            &content.unwrap_or_default(),
            "nor does any other",
            Severity::Note,
            found,
        );
    }
}

fn forbidden(id: &str, content: &str, why: &str, severity: Severity, found: &mut Findings) {
    found.add(
        severity,
        Id::StorageContent,
        format!("the storage {id} does not allow snippets, and {why}: Proxmox VE does not list them there, and may refuse them"),
        format!("/etc/pve/storage.cfg, {id}: `content` lacks `snippets`"),
        format!("pvesm set {id} --content {content}"),
    );
}

fn programs(facts: &Facts<'_>, found: &mut Findings) {
    if let Some(program) = facts.programs.first() {
        found.ok(Id::Snippet, "the snippet finds pve-span", program);
    }
}
