//! The documentation is true: every command line of it runs, every span.cfg in it is applied, and every message that it
//! explains is one that pve-span says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod docs {
    pub mod node;
    pub mod page;
}
mod lab;
mod proxmox;
mod scene;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::Output;
use std::time::Instant;

use clap::Parser;
use clap::error::ErrorKind;
use docs::node::DocNode;
use docs::page::{Block, Page, pages};
use lab::PATIENCE;
use pve_span::cli::Cli;
use pve_span::cli::hook_call::with_hook;
use pve_span_core::config::{KEYS, parse};
use scene::told;

/// What ends with something else than 0 when all is well, by its beginning.
const OTHER_CODES: [(&str, &[i32]); 4] = [
    // Changes are pending.
    ("pve-span plan", &[0, 2]),
    // The node of these tests lacks things that a real one has, a systemd among them.
    ("pve-span doctor", &[0, 1, 2]),
    // Nobody talks there.
    ("timeout 5 tcpdump", &[0, 124]),
    // No journal.
    ("journalctl", &[0, 1]),
];

/// Command lines that run somewhere else, by their beginnings, and where.
const ELSEWHERE: [(&str, &str); 8] = [
    (
        "make ",
        "this test is part of `make test`; tests/package runs what the Makefile has for packages",
    ),
    ("cargo ", "needs what only a developer has"),
    ("rustup ", "needs what only a developer has"),
    ("tests/vm/run ", "`make test-vm` runs its tests with it"),
    ("apt ", "tests/package, in Debian 12 and 13"),
    ("gpg ", "tests/package, with a key without passphrase"),
    ("ansible-playbook ", "tests/package"),
    ("/usr/share/pve-span/put-snippet", "tests/package"),
];

/// Follows a page, and nothing may be wrong.
#[track_caller]
fn follow(page: &Page, node: &DocNode) {
    let faults = faults(page, node);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Runs a page's commands and applies its span.cfg's, in the order in which they stand there.
fn faults(page: &Page, node: &DocNode) -> Vec<String> {
    let mut faults = Vec::new();
    for block in &page.blocks {
        match block.info.as_str() {
            "sh sensor" => faults.extend(node.in_sensor(block)),
            "sh" | "console" => {
                let commands = block.commands();
                let ours = commands
                    .iter()
                    .filter(|(_, command)| !runs_elsewhere(command));
                let ends = ours.filter_map(|(line, command)| {
                    let why = fault(node, command)?;
                    Some(format!("{}:{line}: `{command}` {why}", page.name))
                });
                faults.extend(ends);
            }
            "ini" if is_span_cfg(block) => {
                let (code, said) = node.apply(&block.text);
                if code != 0 {
                    faults.push(format!("{}:{}: not served:\n{said}", page.name, block.line));
                }
            }
            _ => {}
        }
    }
    faults
}

fn runs_elsewhere(command: &str) -> bool {
    ELSEWHERE
        .iter()
        .any(|(begin, _)| command.starts_with(begin))
}

/// What is wrong with a command line: how it ended, and what it said.
fn fault(node: &DocNode, command: &str) -> Option<String> {
    let other = OTHER_CODES
        .iter()
        .find(|(begin, _)| command.starts_with(begin));
    let codes = other.map_or(&[0][..], |(_, codes)| codes);
    let mut output = node.run(command);
    let fits = |output: &Output| {
        let usage = String::from_utf8_lossy(&output.stderr).contains("Usage:");
        !usage
            && output
                .status
                .code()
                .is_some_and(|code| codes.contains(&code))
    };
    let since = Instant::now();
    // The service takes an edit a moment later.
    while !fits(&output) && command.starts_with("pve-span status") && since.elapsed() < PATIENCE {
        output = node.run(command);
    }
    let code = output.status.code();
    (!fits(&output)).then(|| format!("ended with {code:?}:\n{}", told(&output)))
}

/// The other INI files in these pages are systemd's.
fn is_span_cfg(block: &Block) -> bool {
    !block.text.starts_with("# systemctl edit")
}

fn page(name: &str) -> Page {
    let mut all = pages();
    let at = all.iter().position(|page| page.name == name);
    all.swap_remove(at.unwrap_or_else(|| panic!("there is no {name}")))
}

#[test]
fn the_readme_s_commands_run() {
    let node = DocNode::new();
    let _service = node.service();
    follow(&page("README.md"), &node);
}

#[test]
fn the_recipes_run_and_are_served() {
    follow(&page("docs/recipes.md"), &DocNode::mirroring());
}

#[test]
fn troubleshooting_s_commands_run() {
    follow(&page("docs/troubleshooting.md"), &DocNode::mirroring());
}

#[test]
fn all_other_pages_commands_run() {
    let own = ["README.md", "docs/recipes.md", "docs/troubleshooting.md"];
    let others = pages().into_iter();
    let others = others.filter(|page| !own.contains(&page.name.as_str()));
    let faults: Vec<String> = others
        .flat_map(|page| faults(&page, &DocNode::mirroring()))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A block that nobody knows would be one that nobody runs.
#[test]
fn blocks_are_of_kinds_that_are_looked_at() {
    let known = ["sh", "sh sensor", "console", "ini", "text", "yaml"];
    let mut faults = Vec::new();
    for page in pages() {
        let indented = page.prose();
        let indented = indented.iter().filter(|(_, line)| line.starts_with("    "));
        faults.extend(indented.map(|(n, _)| format!("{}:{n}: a block without fences", page.name)));
        for block in &page.blocks {
            if !known.contains(&block.info.as_str()) {
                faults.push(format!("{}:{}: `{}`", page.name, block.line, block.info));
            }
            let prompts = block.text.lines().filter(|line| line.starts_with("$ "));
            let shown = block.info == "console" && block.commands().is_empty();
            if prompts.count() > 0 || (shown && !block.text.starts_with("To take the old mirrors"))
            {
                faults.push(format!("{}:{}: no command in it", page.name, block.line));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn commands_in_running_text_are_commands_that_there_are() {
    let mut faults = Vec::new();
    for page in pages() {
        for (line, code) in page.inline() {
            let is_call = code.starts_with("pve-span ")
                && !code.contains(['…', '|', '<', '>', '*', ';'])
                && code != "pve-span VMID PHASE";
            if !is_call {
                continue;
            }
            let words = code.split_whitespace().map(OsString::from).collect();
            if let Err(error) = Cli::try_parse_from(with_hook(words)) {
                // PORT and the like stand for something, and a command may be named without its guests.
                let names = [
                    ErrorKind::MissingRequiredArgument,
                    ErrorKind::ValueValidation,
                ]
                .contains(&error.kind());
                if error.use_stderr() && !names {
                    faults.push(format!("{}:{line}: `{code}`: {error}", page.name));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn links_between_pages_lead_somewhere() {
    let all = pages();
    let mut faults = Vec::new();
    for page in &all {
        for (line, target) in page.links() {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let folder = Path::new(&page.name).parent().unwrap();
            let name = if file.is_empty() {
                page.name.clone()
            } else {
                docs::page::normal(&folder.join(file))
            };
            let exists = docs::page::root().join(&name).exists();
            let known = all.iter().find(|page| page.name == name);
            let anchored =
                anchor.is_empty() || known.is_some_and(|page| page.anchors().contains(anchor));
            if !exists || !anchored {
                faults.push(format!("{}:{line}: {target} leads nowhere", page.name));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Several queues put frames into another order, which looks like loss to a program that does not deal out flows.
#[test]
fn several_queues_are_advised_only_where_it_says_for_which_programs() {
    let mut faults = Vec::new();
    for page in pages() {
        let mut heading = String::new();
        for (index, line) in page.text.lines().enumerate() {
            if line.starts_with('#') {
                heading = line.to_owned();
            }
            let is_told = heading == "## A sensor that one core is not enough for";
            if line.contains("queues=4") && !is_told {
                faults.push(format!("{}:{}: {line}", page.name, index + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn troubleshooting_explains_messages_that_pve_span_says() {
    let said = docs::page::sources();
    let page = page("docs/troubleshooting.md");
    let second = page
        .headings()
        .into_iter()
        .skip_while(|(_, text)| text != "What pve-span says")
        .skip(1);
    let mut faults = Vec::new();
    let mut count = 0;
    for (line, heading) in second {
        count += 1;
        let message = heading.trim_matches('`');
        for part in message
            .split('…')
            .map(str::trim)
            .filter(|part| part.len() > 3)
        {
            if !said.contains(&docs::page::squeezed(part)) {
                faults.push(format!("{}:{line}: nothing says `{part}`", page.name));
            }
        }
    }
    assert!(count > 20, "only {count} messages");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The rows of the first table below a heading, cell by cell.
fn table(page: &Page, first_cell: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    let mut lines = page
        .text
        .lines()
        .skip_while(|line| !line.starts_with(&format!("| {first_cell} |")));
    lines.by_ref().take(2).count();
    lines
        .take_while(|line| line.starts_with('|'))
        .map(cells)
        .collect()
}

#[test]
fn the_reference_has_every_key_and_the_default_that_the_parser_has() {
    let page = page("docs/span.cfg.md");
    let rows = table(&page, "key");
    let names: BTreeSet<String> = rows
        .iter()
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    let keys: BTreeSet<String> = KEYS.iter().map(|key| (*key).to_owned()).collect();
    assert_eq!(names, keys);
    let parsed = |more: &str| {
        let text = format!("[x]\nsource = 101\noutput = 200/net1\n{more}");
        let annotations = parse("span.cfg", &text);
        assert!(
            annotations.is_valid(),
            "{more}: {:?}",
            annotations.diagnostics
        );
        let mut session = annotations.sessions.into_values().next().unwrap();
        session.exclude.clear();
        session.keys.clear();
        format!("{session:?}")
    };
    let bare = parsed("");
    for row in &rows {
        let key = row[0].trim_matches('`');
        if ["source", "output"].contains(&key) {
            continue;
        }
        for value in literals(&row[1]) {
            parsed(&format!("{key} = {value}\n"));
        }
        if let Some(default) = literals(&row[2]).first() {
            assert_eq!(
                parsed(&format!("{key} = {default}\n")),
                bare,
                "the default of {key}"
            );
        }
    }
}

/// What stands in backquotes.
fn literals(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_reference_s_selectors_and_outputs_are_the_parser_s() {
    let page = page("docs/span.cfg.md");
    for (table_of, key, other) in [
        ("selector", "source", "output = 200/net1"),
        ("output", "output", "source = 101"),
    ] {
        let rows = table(&page, table_of);
        assert!(rows.len() > 3, "{table_of}");
        for value in rows.iter().flat_map(|row| literals(&row[0])) {
            let text = format!("[x]\n{key} = {value}\n{other}\n");
            let read = parse("span.cfg", &text);
            let understood = read
                .diagnostics
                .iter()
                .all(|found| !found.message.contains("is not"));
            assert!(understood, "{key} = {value}: {:?}", read.diagnostics);
        }
    }
}
