//! How to take old mirrors over without a gap, with the commands as they are to be typed.
//!
//! Open vSwitch mirrors a frame to one output once, however many mirrors select it: so the new ones come first, and
//! the old ones go when those are there.

use std::path::Path;

use super::foreign_tools;
use crate::reconcile::observe::Look;
use crate::sys::logging;
use pve_span_core::model::{IfName, excerpt, printable};
use pve_span_core::state::{Mirror, OvsState, RowId};

/// An old mirror in Open vSwitch.
pub struct Old {
    /// Which origin it is.
    pub origin: usize,
    bridge: IfName,
    row: RowId,
    name: String,
}

impl Old {
    pub fn new(origin: usize, bridge: &IfName, row: &RowId, mirror: &Mirror) -> Self {
        Self {
            origin,
            bridge: bridge.clone(),
            row: row.clone(),
            name: mirror.name.clone(),
        }
    }

    /// The command that takes it away, and nothing else.
    pub fn remove(&self) -> String {
        format!(
            "ovs-vsctl -- --id=@m get Mirror {} -- remove Bridge {} mirrors @m",
            word(&self.row.0),
            word(self.bridge.as_str())
        )
    }
}

/// The mirrors of these names, as many as there are now.
pub fn of_names(look: &Look, names: &[String]) -> Vec<Old> {
    let OvsState::Present(ovs) = &look.observed.ovs else {
        return Vec::new();
    };
    let mut old = Vec::new();
    for (bridge, row) in &ovs.bridges {
        for (id, mirror) in row
            .mirrors
            .iter()
            .filter(|(_, mirror)| mirror.mark.is_none())
        {
            if let Some(origin) = names.iter().position(|name| *name == mirror.name) {
                old.push(Old::new(origin, bridge, id, mirror));
            }
        }
    }
    old
}

/// What comes first.
pub enum Step<'a> {
    /// The sessions are not in span.cfg yet; they come from this file, or from Open vSwitch.
    Write(Option<&'a Path>),
    /// They are.
    Apply,
}

/// Says a line on stderr.
pub fn say(text: &str) {
    logging::say(&format!("{text}\n"));
}

/// Says what to do, in order.
pub fn guide(
    root: &Path,
    first: &Step<'_>,
    remarks: &[String],
    (old, others): &(Vec<&Old>, Vec<&Old>),
) {
    let mut number = 0;
    let mut step = |what: &str, commands: &[String]| {
        number += 1;
        say(&format!("{number}. {what}"));
        for command in commands {
            say(&format!("     {command}"));
        }
    };
    say("\nTo take the old mirrors over without a gap:");
    if let Step::Write(file) = first {
        let from = file.map_or(String::new(), |file| {
            format!(" --mirrors-conf {}", word(&file.display().to_string()))
        });
        let command = format!("pve-span import{from} --write");
        step("Append these sessions to span.cfg:", &[command]);
    }
    step(
        "Bring them into force, beside the old mirrors:",
        &["pve-span apply".into()],
    );
    step("See that each is active:", &["pve-span status".into()]);
    let made_by = foreign_tools::makers(root);
    if made_by.is_empty() {
        step(
            "Switch off what makes the old mirrors (hookscripts, units, cron, /etc/network/interfaces): it makes them anew.",
            &[],
        );
    } else {
        step(
            "Switch off what makes the old mirrors, or it makes them anew. These look like it:",
            &made_by,
        );
    }
    if old.is_empty() && others.is_empty() {
        step(
            "None of the old mirrors is in Open vSwitch now: there is nothing to remove.",
            &[],
        );
    } else if !old.is_empty() {
        let commands: Vec<String> = old
            .iter()
            .map(|old| format!("{}   # {}", old.remove(), excerpt(&old.name)))
            .collect();
        step("Remove the old mirrors, each by itself:", &commands);
    }
    for old in others {
        let (name, bridge) = (excerpt(&old.name), &old.bridge);
        say(&format!(
            "Note: mirror {name} of {bridge} is not among them: not all that it does is taken over"
        ));
    }
    for remark in remarks {
        say(&format!("Note: {}", printable(remark)));
    }
}

/// A word as a shell takes it, fit for a terminal.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./+:@".contains(c);
    let text = printable(text);
    if !text.is_empty() && text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
