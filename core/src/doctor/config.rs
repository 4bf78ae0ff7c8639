//! /etc/pve and span.cfg: what is in force, and what becomes of it here.

use super::facts::{Answer, Facts, File, Node};
use super::findings::{Findings, Id, Severity, listed, plural};
use crate::config::Session;
use crate::config::diagnostic;
use crate::config::diagnostic::Diagnostic;
use crate::health::{Health, faults, health};
use crate::model::MAX_LISTED;
use crate::resolve::cluster_sources::configured;
use crate::state::{OvsState, SessionPhase};

/// Judges what is in force.
pub fn judge(facts: &Facts<'_>, found: &mut Findings) {
    if facts.pve == Answer::No {
        return found.add(
            Severity::Error,
            Id::PveHangs,
            "/etc/pve does not answer: guests, span.cfg and hookscripts cannot be looked at, and mirrors stay as they are",
            "reading /etc/pve/.version took longer than a few seconds",
            "systemctl status pve-cluster, then systemctl restart pve-cluster",
        );
    }
    let node = match &facts.node {
        Ok(node) => node,
        Err(why) => {
            return found.add(
                Severity::Warning,
                Id::CannotTell,
                "sessions, guests and sensors were not looked at",
                why.to_string(),
                "pve-span status -vv tells how far a look gets",
            );
        }
    };
    in_force(node, found);
    configs(node, found);
    if node.annotations.is_some() {
        sessions(facts, node, found);
    }
}

fn in_force(node: &Node<'_>, found: &mut Findings) {
    let check = "pve-span check";
    match &node.file {
        File::Missing => found.add(
            Severity::Note,
            Id::CfgMissing,
            "there are no sessions yet",
            "there is no /etc/pve/span.cfg",
            "pve-span init",
        ),
        File::InForce(diagnostics) => {
            diagnosed(diagnostics, found);
            let sessions = node.annotations.map_or(0, |all| all.sessions.len());
            let what = format!(
                "span.cfg is in force: {sessions} {}",
                plural(sessions, "session", "sessions")
            );
            found.ok(Id::Cfg, what, "/etc/pve/span.cfg");
        }
        File::LastGood(why, diagnostics) => {
            diagnosed(diagnostics, found);
            let remedy = if is_mounted(node) { check } else { MOUNT };
            unmounted(node, found);
            found.add(
                Severity::Error,
                Id::LastGoodCopy,
                "what is in force is not the file, but its last good copy: edits have no effect",
                why,
                remedy,
            );
        }
        File::Nothing(why, diagnostics) => {
            diagnosed(diagnostics, found);
            let remedy = if is_mounted(node) { check } else { MOUNT };
            unmounted(node, found);
            found.add(
                Severity::Error,
                Id::NothingInForce,
                "nobody knows what shall be mirrored: everything stays as it is",
                why,
                remedy,
            );
        }
    }
}

const MOUNT: &str = "systemctl status pve-cluster, then systemctl restart pve-cluster";

fn is_mounted(node: &Node<'_>) -> bool {
    node.cluster.this.is_ok() || node.cluster.placements.is_ok()
}

fn unmounted(node: &Node<'_>, found: &mut Findings) {
    if !is_mounted(node) {
        found.add(
            Severity::Error,
            Id::PveUnmounted,
            "the cluster filesystem is not mounted: no guest's config can be read, and none can be changed",
            "there is no /etc/pve/.version",
            MOUNT,
        );
    }
}

fn diagnosed(diagnostics: &[Diagnostic], found: &mut Findings) {
    let kinds = [
        (
            diagnostic::Severity::Error,
            Severity::Error,
            Id::CfgFaults,
            ("error", "errors"),
            "it is not taken at all",
        ),
        (
            diagnostic::Severity::Unsupported,
            Severity::Warning,
            Id::CfgUnsupported,
            (
                "thing that is not supported",
                "things that are not supported",
            ),
            "the sessions that ask for it are refused",
        ),
        (
            diagnostic::Severity::Warning,
            Severity::Warning,
            Id::CfgWarnings,
            ("warning", "warnings"),
            "it probably does not do what is meant",
        ),
    ];
    for (severity, as_severity, id, (one, more), so) in kinds {
        let mut of = diagnostics
            .iter()
            .filter(|fault| fault.severity == severity);
        let Some(first) = of.next() else { continue };
        let count = of.count() + 1;
        let place = first
            .place
            .as_ref()
            .map_or_else(String::new, |place| format!(", line {}", place.line));
        let evidence = format!("{}{place}: {}", first.file, first.message);
        found.add(
            as_severity,
            id,
            format!("span.cfg has {count} {}: {so}", plural(count, one, more)),
            if count > 1 {
                format!("{evidence} (and {} more)", count - 1)
            } else {
                evidence
            },
            "pve-span check",
        );
    }
}

/// Configs that cannot be read, or not whole.
fn configs(node: &Node<'_>, found: &mut Findings) {
    let unread = node.cluster.guests.iter().filter_map(|(vmid, guest)| {
        // A template's or a new guest's config may have gone since the list was read.
        let why = guest.as_ref().err()?;
        Some(format!("{vmid}: {why}"))
    });
    let unread: Vec<String> = unread.collect();
    if let (Some(first), true) = (unread.first(), is_mounted(node)) {
        found.add(
            Severity::Warning,
            Id::GuestConfig,
            format!(
                "{} cannot be read: what sessions take by tag or MAC address cannot be told there, and stays as it is",
                match unread.len() {
                    1 => "a guest's config".to_owned(),
                    count => format!("{count} guests' configs"),
                }
            ),
            first,
            "systemctl status pve-cluster",
        );
    }
    if let Some(first) = node.cluster.warnings.first() {
        let count = node.cluster.warnings.len();
        found.add(
            Severity::Note,
            Id::GuestConfig,
            format!(
                "{count} {} of guests' configs cannot be understood: what they say has no effect",
                plural(count, "line", "lines")
            ),
            first,
            "qm config and pct config show what Proxmox VE makes of them",
        );
    }
}

fn sessions(facts: &Facts<'_>, node: &Node<'_>, found: &mut Findings) {
    let running: Vec<&Session> = node.running().collect();
    let taken = node
        .annotations
        .and_then(|annotations| configured(annotations, &running, node.cluster).ok());
    for state in &node.desired.sessions {
        let name = &state.name;
        let over = match state.phase {
            SessionPhase::Running => None,
            SessionPhase::Disabled => Some(("is switched off", "enabled = no")),
            SessionPhase::Expired => Some(("has expired", "expires")),
        };
        if let Some((what, key)) = over {
            found.add(
                Severity::Note,
                Id::SessionOver,
                format!("session {name} {what}"),
                format!("/etc/pve/span.cfg, [{name}], `{key}`"),
                "pve-span edit: change that key, or delete the session",
            );
            continue;
        }
        // Where nobody can tell, nobody says so.
        let is_empty = taken.as_ref().is_some_and(|all| {
            let of = all.get(name);
            of.is_none_or(|taken| taken.nics.is_empty() && taken.unknown.is_empty())
        });
        if state.total == 0 && is_empty && state.all_notes().next().is_none() {
            found.add(
                Severity::Warning,
                Id::SessionEmpty,
                format!("session {name} takes nothing: none of its sources is a guest anywhere, or a port or bridge here"),
                format!("/etc/pve/span.cfg, [{name}], `source`"),
                "pve-span edit; pve-span ports lists what there is on this node",
            );
        }
        let (health, mut reasons) = health(state, node.desired, node.observed, node.plan);
        reasons.extend(faults(state));
        if health == Health::Degraded {
            let count = reasons.len();
            let first = reasons.iter().take(MAX_LISTED).map(ToString::to_string);
            let first: Vec<String> = first.collect();
            let more = if count > MAX_LISTED {
                format!("; and {} more", count - MAX_LISTED)
            } else {
                String::new()
            };
            found.add(
                Severity::Warning,
                Id::SessionDegraded,
                format!(
                    "session {name} is degraded: something that it should mirror is not mirrored"
                ),
                first.join("; ") + &more,
                "pve-span status",
            );
        }
    }
    pending(facts, node, found);
}

fn pending(facts: &Facts<'_>, node: &Node<'_>, found: &mut Findings) {
    let changes = node.plan.actions.len() + node.plan.ports.len();
    if node.plan.is_done() {
        // An Open vSwitch that does not answer may hold anything.
        if !matches!(facts.ovs, OvsState::Failed(_)) {
            found.ok(Id::PlanPending, "nothing is pending", "pve-span plan");
        }
        return;
    }
    let service_runs = facts
        .host
        .service
        .as_ref()
        .is_some_and(|service| service.silent.is_none());
    let why = if service_runs {
        "although the service runs, which should have made them: see journalctl -u pve-span"
    } else {
        "and no service runs that would make them"
    };
    let whose = listed(node.plan.sessions());
    let of = if whose.is_empty() {
        String::new()
    } else {
        format!(" (of {whose})")
    };
    found.add(
        Severity::Warning,
        Id::PlanPending,
        format!("changes are pending, {why}"),
        format!(
            "pve-span plan has {} {}{of}",
            changes.max(1),
            plural(changes.max(1), "change", "changes")
        ),
        "pve-span apply",
    );
}
