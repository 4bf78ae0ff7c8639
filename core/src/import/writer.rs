//! Drafts as span.cfg has them: where they come from as comments, and as comments whole where they are refused.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::draft::{Draft, Origin};
use crate::model::{Direction, printable};

/// Sources on a line are as many as fit; a value of span.cfg cannot go on in the next one.
const MOST_ORIGINS: usize = 20;

/// A text, and in which of its lines each draft begins, counted from 1.
pub struct Rendered {
    pub text: String,
    pub begins: Vec<usize>,
}

/// The sessions, and behind them what no session does.
pub fn text(drafts: &[Draft], origins: &[Origin]) -> String {
    let mut text = render(drafts, origins).text;
    let told: BTreeSet<usize> = drafts
        .iter()
        .flat_map(|draft| draft.origins.clone())
        .collect();
    let untold = origins.iter().enumerate();
    for (_, origin) in untold.filter(|(number, _)| !told.contains(number)) {
        let _ = writeln!(text, "\n# Not taken over: {}", origin.label);
        left_out(&mut text, origin);
    }
    text
}

pub fn render(drafts: &[Draft], origins: &[Origin]) -> Rendered {
    let mut rendered = Rendered {
        text: String::new(),
        begins: Vec::new(),
    };
    let mut lines = 0;
    for draft in drafts {
        let one = one(draft, origins);
        rendered.begins.push(lines + 1);
        lines += one.matches('\n').count();
        rendered.text.push_str(&one);
    }
    rendered
}

fn one(draft: &Draft, origins: &[Origin]) -> String {
    let mut text = String::from("\n");
    let of = draft.origins.iter().filter_map(|index| origins.get(*index));
    for origin in of.clone().take(MOST_ORIGINS) {
        let _ = writeln!(text, "# From {}", origin.label);
        left_out(&mut text, origin);
    }
    if draft.origins.len() > MOST_ORIGINS {
        let more = draft.origins.len() - MOST_ORIGINS;
        let _ = writeln!(text, "# and {more} more");
    }
    if let Some(session) = &draft.covered {
        let _ = writeln!(text, "# It is in span.cfg already: [{session}]");
        return text;
    }
    for note in &draft.notes {
        let _ = writeln!(text, "# Note: {}", printable(note));
    }
    if let Some(why) = &draft.refused {
        let _ = writeln!(text, "# Refused: {}", printable(why));
    }
    let mark = if draft.refused.is_some() { "#" } else { "" };
    let mut line = |line: String| {
        let _ = writeln!(text, "{mark}{line}");
    };
    line(format!("[{}]", draft.name));
    let list = |items: Vec<String>| items.join(", ");
    let sources = draft.sources.iter().map(ToString::to_string);
    line(format!("source = {}", list(sources.collect())));
    let has_direction = draft.overrides.iter().any(|(key, _)| *key == "direction");
    if draft.direction() != Direction::Both && !has_direction {
        line(format!("direction = {}", draft.direction()));
    }
    if !draft.vlans.is_empty() {
        line(format!("vlan = {}", draft.vlans));
    }
    if let Some(bytes) = draft.snaplen {
        line(format!("snaplen = {bytes}"));
    }
    let outputs = draft.outputs.iter().map(ToString::to_string);
    line(format!("output = {}", list(outputs.collect())));
    for (key, value) in &draft.overrides {
        line(format!("{key} = {value}"));
    }
    text
}

fn left_out(text: &mut String, origin: &Origin) {
    let needless = origin.needless.into_iter();
    for what in origin.left_out.iter().map(String::as_str).chain(needless) {
        let _ = writeln!(text, "#   {}", printable(what));
    }
}

/// A text behind another one; and how many lines come before it.
pub fn append(existing: &str, text: &str) -> (String, usize) {
    let mut whole = existing.to_owned();
    if !whole.is_empty() && !whole.ends_with('\n') {
        whole.push('\n');
    }
    let before = whole.matches('\n').count();
    whole.push_str(text);
    (whole, before)
}
