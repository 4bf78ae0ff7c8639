//! One man page: what clap_mangen makes of a command, and behind it what clap cannot know.

use std::io;

use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};
use pve_span::cli::examples;

use super::markdown;

const FILES: [(&str, &str); 7] = [
    (
        "/etc/pve/span.cfg",
        "The sessions: whose traffic goes to which sensor. On every node of a cluster by itself.",
    ),
    (
        "/var/lib/vz/snippets/pve-span",
        "The hookscript, local:snippets/pve-span for Proxmox VE. It calls pve-span, and lets the guest go on where there is none.",
    ),
    (
        "/var/lib/pve-span/span.cfg",
        "The last good copy of span.cfg, in force while the file itself cannot be used.",
    ),
    (
        "/run/pve-span/",
        "What outputs' devices were like before, what happened lately, how sessions do.",
    ),
    ("/run/pve-span.lock", "One reconcile at a time."),
    (
        "/var/lib/prometheus/node-exporter/pve-span.prom",
        "Metrics, where that folder exists.",
    ),
    (
        "/usr/share/doc/pve-span/",
        "Every key of span.cfg, the service, metrics, security; examples/span.cfg to begin with.",
    ),
];

/// Pages of others that help.
const OTHERS: [(&str, &str); 6] = [
    ("span.cfg", "5"),
    ("qm", "1"),
    ("pct", "1"),
    ("nft", "8"),
    ("ovs-vsctl", "8"),
    ("journalctl", "1"),
];

/// The manual that the pages are part of.
const MANUAL: &str = "Port mirroring for Proxmox VE";

/// The page's name: `pve-span-check`.
pub fn name(command: &clap::Command) -> String {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned()
}

/// The names of all pages: of a command, and of those below it that are not hidden.
pub fn names(command: &clap::Command) -> Vec<String> {
    let below = command.get_subcommands().filter(|c| !c.is_hide_set());
    std::iter::once(name(command))
        .chain(below.flat_map(names))
        .collect()
}

/// The page of a command; `table` is docs/commands.md.
pub fn page(command: &clap::Command, pages: &[String], table: &str) -> io::Result<Vec<u8>> {
    let command = &command
        .clone()
        .subcommand_help_heading("COMMANDS")
        .disable_version_flag(true);
    let version = env!("CARGO_PKG_VERSION");
    let man = Man::new(command.clone())
        .title(name(command).to_uppercase())
        .section("8")
        .source(format!("pve-span {version}"))
        .manual(MANUAL);
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if command.get_subcommands().any(|c| !c.is_hide_set()) {
        man.render_subcommands_section(&mut out)?;
    }
    let mut roff = Roff::new();
    call_examples(&mut roff, command);
    exit_status(&mut roff, command, table);
    if command.has_subcommands() {
        files(&mut roff);
    }
    see_also(&mut roff, &name(command), pages);
    roff.to_writer(&mut out)?;
    Ok(out)
}

/// span.cfg(5); `text` is docs/span.cfg.md.
///
/// # Errors
/// Something in it is not understood.
pub fn span_cfg(text: &str) -> io::Result<Vec<u8>> {
    let mut roff = Roff::new();
    let source = format!("pve-span {}", env!("CARGO_PKG_VERSION"));
    roff.control("TH", ["SPAN.CFG", "5", "\"\"", source.as_str(), MANUAL]);
    roff.control("SH", ["NAME"]);
    roff.text([roman(
        "span.cfg - whose traffic pve-span mirrors, and where to",
    )]);
    markdown::body(&mut roff, text)?;
    roff.control("SH", ["FILES"]);
    for (path, what) in [
        (
            "/etc/pve/span.cfg",
            "The file, on every node of a cluster by itself.",
        ),
        ("/var/lib/pve-span/span.cfg", "The last good copy."),
        ("/usr/share/doc/pve-span/examples/span.cfg", "An example."),
        (
            "/usr/share/doc/pve-span/span.cfg.md",
            "This text; the pages that it refers to are beside it.",
        ),
    ] {
        roff.control("TP", []);
        roff.text([italic(path)]);
        roff.text([roman(what)]);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([
        bold("pve-span"),
        roman("(8), "),
        bold("pve-span-check"),
        roman("(8), "),
        bold("pve-span-edit"),
        roman("(8), "),
        bold("pcap-filter"),
        roman("(7)"),
    ]);
    let mut out = Vec::new();
    roff.to_writer(&mut out)?;
    Ok(out)
}

/// Calls to begin with, those of `--help`.
fn call_examples(roff: &mut Roff, command: &clap::Command) {
    let text = command.get_after_long_help().map(ToString::to_string);
    let text = text.unwrap_or_default();
    let calls = examples::calls(&text);
    if calls.is_empty() {
        return;
    }
    roff.control("SH", ["EXAMPLES"]);
    for (call, what) in calls {
        roff.control("TP", []);
        roff.text([bold(call)]);
        roff.text([roman(what)]);
    }
}

fn exit_status(roff: &mut Roff, command: &clap::Command, table: &str) {
    let called = command.get_bin_name().unwrap_or_else(|| command.get_name());
    if command.has_subcommands() {
        roff.control("SH", ["EXIT STATUS"]);
        roff.text([roman(
            "Each command has its own; its page tells. As a hookscript pve-span exits with 0, always, so that no guest is kept from starting.",
        )]);
        return;
    }
    let calls = exit_codes(called, table);
    if calls.is_empty() {
        return;
    }
    roff.control("SH", ["EXIT STATUS"]);
    for (call, codes) in &calls {
        if calls.len() > 1 {
            roff.control("PP", []);
            roff.text([bold(call.as_str()), roman(":")]);
        }
        for (code, meaning) in codes {
            roff.control("TP", []);
            roff.text([bold(code.as_str())]);
            roff.text([roman(meaning.as_str())]);
        }
    }
}

/// A call as the table shows it, and what its exit codes mean.
type Call = (String, Vec<(String, String)>);

/// What docs/commands.md says of a command: a row for each way to call it, a column for each exit code.
pub fn exit_codes(called: &str, table: &str) -> Vec<Call> {
    let mut heads: Vec<String> = Vec::new();
    let mut calls = Vec::new();
    for line in table.lines() {
        if !line.starts_with("| ") {
            continue;
        }
        let cells: Vec<String> = markdown::cells(line)
            .iter()
            .map(|cell| markdown::plain(cell))
            .collect();
        if cells.first().is_some_and(|cell| cell == "command") {
            heads = cells;
            continue;
        }
        let Some(call) = cells.first() else { continue };
        let is_it = call
            .strip_prefix(called)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'));
        if !is_it {
            continue;
        }
        let codes = heads.iter().zip(&cells).skip(2);
        let codes = codes.filter(|(_, meaning)| !meaning.is_empty());
        let codes = codes.map(|(head, meaning)| (head.replace("exit ", ""), meaning.clone()));
        calls.push((call.clone(), codes.collect()));
    }
    calls
}

fn files(roff: &mut Roff) {
    roff.control("SH", ["FILES"]);
    for (path, what) in FILES {
        roff.control("TP", []);
        roff.text([italic(path)]);
        roff.text([roman(what)]);
    }
}

fn see_also(roff: &mut Roff, own: &str, pages: &[String]) {
    roff.control("SH", ["SEE ALSO"]);
    let ours = pages.iter().map(|page| (page.as_str(), "8"));
    let all: Vec<(&str, &str)> = ours
        .filter(|(page, _)| *page != own)
        .chain(OTHERS)
        .collect();
    let mut line = Vec::new();
    for (index, (page, section)) in all.iter().enumerate() {
        line.push(bold(*page));
        let comma = if index + 1 < all.len() { ", " } else { "" };
        line.push(roman(format!("({section}){comma}")));
    }
    roff.text(line);
}
