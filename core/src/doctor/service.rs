//! The service: does it run, does it come back, and is it this version.

use super::facts::Facts;
use super::findings::{Findings, Id, Severity};

/// Judges the service.
pub fn judge(facts: &Facts<'_>, found: &mut Findings) {
    let host = facts.host;
    let has_sessions = facts
        .node
        .as_ref()
        .is_ok_and(|node| node.running().next().is_some());
    let severity = if has_sessions {
        Severity::Warning
    } else {
        Severity::Note
    };
    const STATE: &str = "/run/pve-span/state.json";
    match &host.service {
        Some(service) if service.silent.is_none() => {
            if service.version == host.version {
                found.ok(
                    Id::Service,
                    format!("the service runs, version {}", service.version),
                    format!("{STATE}: process {}", service.pid),
                );
            } else {
                found.add(
                    Severity::Warning,
                    Id::ServiceVersion,
                    format!(
                        "the service that runs is of version {}, and pve-span is {}",
                        service.version, host.version
                    ),
                    format!("{STATE}: process {}", service.pid),
                    "systemctl restart pve-span",
                );
            }
        }
        other => {
            let evidence = match other {
                Some(service) => format!(
                    "{STATE}: process {} wrote it last, {} s ago",
                    service.pid,
                    service.silent.unwrap_or_default()
                ),
                None => format!("there is no {STATE}"),
            };
            let enabled = match &host.enabled {
                Ok(word) => format!("; {ASKED}: {word}"),
                Err(_) => String::new(),
            };
            found.add(
                severity,
                Id::ServiceStopped,
                "the service does not run: between hooks nobody follows what happens to ports, bridges and span.cfg",
                evidence + &enabled,
                start(facts),
            );
        }
    }
    enabled(facts, severity, found);
}

const ASKED: &str = "systemctl is-enabled pve-span.service";

/// What starts it: a unit that is not there cannot be enabled.
fn start(facts: &Facts<'_>) -> &'static str {
    match &facts.host.enabled {
        Ok(word) if word == "not-found" => "apt install pve-span",
        _ => "systemctl enable --now pve-span",
    }
}

fn enabled(facts: &Facts<'_>, severity: Severity, found: &mut Findings) {
    match &facts.host.enabled {
        Ok(word) if matches!(word.as_str(), "enabled" | "enabled-runtime" | "static" | "alias") => {
            found.ok(Id::Service, "the service starts with the node", format!("{ASKED}: {word}"));
        }
        // Told with it already.
        Ok(_) if !found.none_of(&[Id::ServiceStopped]) => {}
        Ok(word) => found.add(
            severity,
            Id::ServiceDisabled,
            "the service does not start with the node: after its next boot nobody follows what happens between hooks",
            format!("{ASKED}: {word}"),
            start(facts),
        ),
        Err(why) => found.add(
            Severity::Warning,
            Id::ServiceUnclear,
            "cannot tell whether the service starts with the node",
            why.to_string(),
            ASKED,
        ),
    }
}
