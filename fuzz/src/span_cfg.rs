//! span.cfg: every fault points into the file and can be shown, and what is valid survives being written down.

use pve_span_core::config;
use pve_span_core::config::diagnostic::{Diagnostic, Place, Severity};
use pve_span_core::config::{Annotations, Session};
use pve_span_core::filter;

/// Checks one input.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let annotations = config::parse("span.cfg", text);
    let lines: Vec<&str> = text
        .strip_prefix('\u{feff}')
        .unwrap_or(text)
        .lines()
        .map(str::trim_end)
        .collect();

    assert!(annotations.diagnostics.len() <= 1000);
    assert!(
        annotations
            .diagnostics
            .is_sorted_by_key(|diagnostic| &diagnostic.place)
    );
    for diagnostic in &annotations.diagnostics {
        can_be_shown(diagnostic, &lines);
    }
    let errors = annotations
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Error);
    assert_eq!(annotations.is_valid(), errors.count() == 0);

    // Neither a comment behind it nor the ends of its lines mean anything.
    if !text.trim().is_empty() {
        let same = format!("{text}\n; the end").replace('\n', "\r\n");
        assert_eq!(annotations, config::parse("span.cfg", &same));
    }
    if annotations.is_valid() {
        for session in annotations.sessions.values() {
            is_sound(session, &lines);
        }
        on_a_node(&annotations);
    }
}

fn can_be_shown(diagnostic: &Diagnostic, lines: &[&str]) {
    let text = diagnostic.to_string();
    super::assert_printable(&text);
    // As is the line, a word in a message is cut to what somebody reads.
    assert!(diagnostic.message.len() < 1024, "{text}");
    assert!(text.len() < 8192, "{} bytes", text.len());
    let json = serde_json::to_value(diagnostic).unwrap();
    let Some(place) = &diagnostic.place else {
        return assert!(json["line"].is_null() && json["column"].is_null());
    };
    is_within(place, lines);
    let column = usize::try_from(json["column"].as_u64().unwrap()).unwrap();
    assert!(
        (1..=place.text.chars().count() + 1).contains(&column),
        "{text}"
    );
    let head = format!("span.cfg:{}:{column}: ", place.line);
    assert!(text.starts_with(&head), "{text}");
    // Carets stand below the line, and there is at least one.
    let carets = text.lines().nth(2).unwrap();
    assert!(carets.contains('^'), "{text}");
}

fn is_within(place: &Place, lines: &[&str]) {
    let Place {
        line,
        text,
        offset,
        width,
    } = place;
    let there = line.checked_sub(1).and_then(|index| lines.get(index));
    assert_eq!(there, Some(&&**text), "line {line} is another one");
    // One behind the last character is where something is missing.
    let end = offset + width;
    assert!(text.is_char_boundary(*offset), "{place:?}");
    assert!(
        text.is_char_boundary(end) || end == text.len() + 1,
        "{place:?}"
    );
}

fn is_sound(session: &Session, lines: &[&str]) {
    assert!(!session.sources.is_empty() && !session.outputs.is_empty());
    assert!(session.sample >= 1);
    is_within(&session.place, lines);
    for place in session.keys.values() {
        is_within(place, lines);
    }
    for source in session.sources.iter().chain(&session.exclude) {
        is_within(&source.place, lines);
        assert_eq!(source.value.to_string().parse().as_ref(), Ok(&source.value));
    }
    for output in session.outputs.iter().chain(&session.capture_only) {
        is_within(&output.place, lines);
        assert_eq!(output.value.to_string().parse().as_ref(), Ok(&output.value));
    }
    if let Some(read) = &session.filter {
        assert_eq!(filter::parse(&read.to_string()).as_ref(), Ok(read));
    }
}

fn on_a_node(annotations: &Annotations) {
    let plan = super::node::planned(annotations, &super::node::OBSERVED);
    assert!(
        plan.actions.iter().all(|action| action.row.is_none()),
        "a row that is not there"
    );
}
