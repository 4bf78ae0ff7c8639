//! Scripts of others that wipe everybody's mirrors, as guides to mirroring have them.

use super::facts::{Facts, MirrorWipe};
use super::findings::{Findings, Id, Severity};
use crate::model::excerpt;

/// The most lines of a file that are told.
const MOST: usize = 3;

/// Judges what was found in scripts.
pub fn judge(facts: &Facts<'_>, found: &mut Findings) {
    let files = facts.clearing.chunk_by(|a, b| a.file == b.file);
    for lines in files {
        let Some(MirrorWipe { file, line, text }) = lines.first() else {
            continue;
        };
        let more = match lines.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        found.add(
            Severity::Warning,
            Id::ClearsMirrors,
            format!("{file} sets or clears all mirrors of a bridge, other people's and pve-span's with them: each run of it blinds sensors"),
            format!("line {line}: {text}{more}"),
            "ovs-vsctl -- --id=@m create mirror … -- add bridge BRIDGE mirrors @m adds one, \
             ovs-vsctl -- --id=@m get mirror NAME -- remove bridge BRIDGE mirrors @m removes one; or let pve-span do it (pve-span import)",
        );
    }
    if facts.clearing.is_empty() {
        found.ok(
            Id::Scripts,
            "no script wipes mirrors",
            "hookscripts of guests, /etc/network/interfaces, cron: neither `clear bridge … mirrors` nor `set bridge … mirrors=`",
        );
    }
}

/// The lines of a text that wipe all mirrors of a bridge: `clear bridge vmbr0 mirrors`, `set bridge vmbr0 mirrors=@m`
/// (ovs-vsctl(8), "Database Command Syntax": tables and columns in any case, and cut short).
pub fn clearing_lines(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.trim_start().starts_with('#') {
            continue;
        }
        let mut whole = line.to_owned();
        while whole.ends_with('\\') {
            whole.pop();
            let Some((_, next)) = lines.next() else { break };
            whole.push(' ');
            whole.push_str(next);
        }
        if found.len() < MOST && wipes(&whole) {
            found.push((number + 1, excerpt(line.trim())));
        }
    }
    found
}

fn wipes(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    // Quotes and what separates commands are nothing to a word's meaning here.
    let words: Vec<&str> = line
        .split(|c: char| {
            c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ';' | '&' | '|' | '(' | ')' | '`')
        })
        .filter(|word| !word.is_empty())
        .collect();
    words.iter().enumerate().any(|(at, word)| {
        let behind = words.get(at + 1..).unwrap_or_default();
        let own = behind.iter().take_while(|word| **word != "--");
        let mut own = own.skip_while(|word| word.starts_with("--"));
        let is_bridge = own
            .next()
            .is_some_and(|table| matches!(*table, "bridge" | "br"));
        match *word {
            "clear" => is_bridge && own.skip(1).any(|column| is_mirrors(column)),
            "set" => {
                is_bridge
                    && own.skip(1).any(|setting| {
                        let column = setting.split_once('=').map(|(column, _)| column);
                        column.is_some_and(is_mirrors)
                    })
            }
            _ => false,
        }
    })
}

/// The column, or the beginning of its name.
fn is_mirrors(column: &str) -> bool {
    let column = column.trim_end_matches(',');
    column.len() >= 2 && "mirrors".starts_with(column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wipes_mirrors_is_seen_and_what_adds_to_them_is_not() {
        for line in [
            "ovs-vsctl clear bridge vmbr0 mirrors",
            "  post-up ovs-vsctl clear Bridge vmbr0 mirrors || true",
            "/usr/bin/ovs-vsctl -- --id=@p get port tap101i0 -- --id=@m create mirror name=span -- set bridge vmbr0 mirrors=@m",
            "system(\"ovs-vsctl\", \"set\", \"bridge\", $br, \"mirrors=@m\");",
            "\"ovs-vsctl --if-exists clear --if-exists bridge $BR mirrors\"",
            "(ovs-vsctl clear br vmbr0 mirror)",
        ] {
            assert_eq!(clearing_lines(line).len(), 1, "{line}");
        }
        for line in [
            "# ovs-vsctl clear bridge vmbr0 mirrors",
            "ovs-vsctl remove bridge vmbr0 mirrors span0",
            "ovs-vsctl -- --id=@m create mirror name=x -- add bridge vmbr0 mirrors @m",
            "ovs-vsctl set bridge vmbr0 rstp_enable=true # mirrors=",
            "ovs-vsctl clear bridge vmbr0 netflow -- list mirror",
            "set bridge",
            "echo mirrors are clear",
        ] {
            let expected = usize::from(line.contains("# mirrors="));
            assert_eq!(clearing_lines(line).len(), expected, "{line}");
        }
    }

    #[test]
    fn a_command_over_several_lines_is_one() {
        let text = "#!/bin/sh\novs-vsctl \\\n  -- --id=@m create mirror name=x \\\n  -- set bridge vmbr0 mirrors=@m\n";
        assert_eq!(clearing_lines(text), [(2, "ovs-vsctl \\".to_owned())]);
        assert_eq!(
            clearing_lines(&"clear bridge a mirrors\n".repeat(9)).len(),
            MOST
        );
        assert_eq!(clearing_lines("clear \\"), []);
        // A file of nothing else is gone through once.
        assert_eq!(clearing_lines(&"\\\n".repeat(1 << 19)), []);
    }
}
