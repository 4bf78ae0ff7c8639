//! Records of hookscripts that are called through ours: each has to belong to a guest that calls ours.

use super::facts::{ChainRecord, Facts, VolumeState};
use super::findings::{Findings, Id, Severity, shell_word};
use crate::pve::storage::Volume;

/// Judges the records.
pub fn judge(facts: &Facts<'_>, found: &mut Findings) {
    for record in &facts.chains {
        judge_one(facts, record, found);
    }
}

/// A record of a chained hookscript is of use only while its guest calls ours.
fn judge_one(facts: &Facts<'_>, record: &ChainRecord, found: &mut Findings) {
    let Ok(node) = &facts.node else { return };
    let vmid = record.guest;
    let chained = match &record.record {
        Ok(chained) => chained,
        Err(why) => {
            return found.add(
                Severity::Warning,
                Id::ChainStale,
                format!(
                    "nobody can tell which hookscript guest {vmid} shall have besides pve-span's"
                ),
                why.to_string(),
                format!("pve-span detach {vmid}, or rm {}", shell_word(&record.file)),
            );
        }
    };
    let stale = |found: &mut Findings, what: String, evidence: String| {
        found.add(
            Severity::Warning,
            Id::ChainStale,
            what,
            evidence,
            format!("rm {}", shell_word(&record.file)),
        );
    };
    let is_filed = node
        .cluster
        .placements
        .as_ref()
        .is_ok_and(|all| all.contains_key(&vmid));
    let Some(guest) = node.cluster.guest(vmid) else {
        if !is_filed && node.cluster.placements.is_ok() {
            stale(
                found,
                format!("a record of a chained hookscript is left of guest {vmid}, which is gone"),
                format!("{}: {}", record.file, chained.volume()),
            );
        }
        return;
    };
    let calls_ours = guest.hookscript.as_deref().is_some_and(|volume| {
        volume
            .parse::<Volume>()
            .is_ok_and(|volume| volume.is_ours())
    });
    if !calls_ours {
        return stale(
            found,
            format!(
                "a record of a chained hookscript is left of guest {vmid}, which does not call pve-span"
            ),
            format!(
                "{}: {}; {}: hookscript: {}",
                record.file,
                chained.volume(),
                node.config_of(vmid),
                guest.hookscript.as_deref().unwrap_or("none")
            ),
        );
    }
    let is_here = node.cluster.is_here(vmid) == Some(true);
    match &record.state {
        Some(VolumeState::Fine { .. }) | None => {}
        Some(_) => found.add(
            if is_here {
                Severity::Error
            } else {
                Severity::Warning
            },
            Id::ChainStale,
            format!(
                "the hookscript {} that guest {vmid} had before pve-span's cannot be called here",
                chained.volume()
            ),
            format!(
                "{}; {} is no file that may be executed",
                record.file,
                chained.path()
            ),
            format!(
                "put the script back; or rm {} to do without it",
                record.file
            ),
        ),
    }
}
