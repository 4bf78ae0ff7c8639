//! `pve-span doctor`: what may be wrong with this node, how it was seen, and what to do.

pub mod inspect;

use std::path::Path;

use serde::Serialize;

use super::format::Format;
use crate::sys::output::Printer;
use pve_span_core::doctor::{Finding, Severity};

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// What is not as it should be.
    Findings,
    /// Everything that was looked at.
    All,
}

#[derive(Serialize)]
struct Report<'a> {
    worst: Severity,
    findings: &'a [Finding],
}

/// Exit codes: 0 nothing worse than a note, 1 warnings, 2 errors.
pub fn run(root: &Path, extent: Verbosity, format: Format) -> u8 {
    let findings = inspect::run(root);
    let worst = findings
        .first()
        .map_or(Severity::Ok, |finding| finding.severity);
    let mut out = Printer::new();
    if format == Format::Json {
        out.json(&Report {
            worst,
            findings: &findings,
        });
    } else {
        for finding in &findings {
            if finding.severity != Severity::Ok || extent == Verbosity::All {
                tell(&mut out, finding);
            }
        }
        out.line(&summary(&findings));
    }
    match worst {
        Severity::Ok | Severity::Note => 0,
        Severity::Warning => 1,
        Severity::Error => 2,
    }
}

fn tell(out: &mut Printer, finding: &Finding) {
    let (severity, id) = (finding.severity.word(), finding.id.word());
    out.line(&format!("{severity}: {} [{id}]", finding.what));
    out.note(&format!("seen: {}", finding.evidence));
    if let Some(remedy) = &finding.remedy {
        out.note(&format!("do: {remedy}"));
    }
}

fn summary(findings: &[Finding]) -> String {
    let count = |severity| {
        findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    };
    let kinds = [
        (Severity::Error, "error", "errors"),
        (Severity::Warning, "warning", "warnings"),
        (Severity::Note, "note", "notes"),
    ];
    let parts = kinds.iter().filter_map(|(severity, one, more)| {
        let count = count(*severity);
        (count > 0).then(|| format!("{count} {}", if count == 1 { one } else { more }))
    });
    let parts: Vec<String> = parts.collect();
    let passed = count(Severity::Ok);
    let fine = format!(
        "{passed} {} passed",
        if passed == 1 { "check" } else { "checks" }
    );
    if parts.is_empty() {
        format!("nothing is wrong: {fine}")
    } else {
        format!("{}; {fine}", parts.join(", "))
    }
}
