//! Man pages: one for each command, and man(1) has nothing to say about them.

use std::fs;
use std::process::Command;

use clap::CommandFactory as _;
use pve_span::cli::Cli;

use crate::built::deb;
use crate::lab;

/// The pages' folder, unpacked.
fn pages() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("dpkg-deb");
    command.arg("--extract").arg(deb()).arg(folder.path());
    lab::run(command, "");
    folder
}

/// A page as text.
fn text(folder: &tempfile::TempDir, page: &str) -> String {
    text_of(folder, page, 8)
}

fn text_of(folder: &tempfile::TempDir, page: &str, section: u8) -> String {
    let path = folder
        .path()
        .join(format!("usr/share/man/man{section}/{page}.{section}.gz"));
    let mut command = Command::new("man");
    command
        .args(["--warnings", "--encoding=UTF-8", "--local-file"])
        .arg(&path)
        .envs([
            ("LC_ALL", "C.UTF-8"),
            ("MANWIDTH", "100"),
            ("MAN_KEEP_STDERR", "1"),
            ("MANROFFSEQ", ""),
        ]);
    let output = command.output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && complaints.is_empty(),
        "{page}: {complaints}"
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_command_has_its_page_and_each_page_says_what_exit_codes_mean() {
    let folder = pages();
    let command = Cli::command();
    let shown = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let mut names: Vec<String> = shown
        .map(|command| format!("pve-span-{}", command.get_name()))
        .collect();
    names.push("pve-span".to_owned());
    for name in &names {
        let page = text(&folder, name);
        for heading in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "EXAMPLES",
            "EXIT STATUS",
            "SEE ALSO",
        ] {
            let has_it = page.lines().any(|line| line == heading);
            assert!(
                has_it,
                "{name}(8) has no {heading}; exit codes are in the table of docs/commands.md:\n{page}"
            );
        }
    }
    for name in &names {
        let page = text(&folder, name);
        let (_, below) = page.split_once("NAME\n").unwrap();
        let lines: Vec<&str> = below.lines().take_while(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), 1, "{name}(8): {lines:?}");
        assert!(
            !lines[0].contains(": 0"),
            "exit codes have a place of their own: {}",
            lines[0]
        );
    }
    let mut found: Vec<String> = fs::read_dir(folder.path().join("usr/share/man/man8"))
        .unwrap()
        .map(|page| {
            page.unwrap()
                .file_name()
                .to_string_lossy()
                .replace(".8.gz", "")
        })
        .collect();
    found.sort();
    names.sort();
    assert_eq!(found, names);
}

#[test]
fn exit_codes_are_those_of_the_table() {
    let page = text(&pages(), "pve-span-check");
    let (_, status) = page.split_once("EXIT STATUS\n").unwrap();
    let status: Vec<&str> = status
        .split("\nSEE ALSO")
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(
        status.join(" "),
        "0 valid 1 faults, or not supported 2 cannot be read 64 a wrong call 74 output cannot be written"
    );
}

#[test]
fn the_first_page_names_files_and_the_other_pages() {
    let page = text(&pages(), "pve-span");
    for words in [
        "FILES\n",
        "/etc/pve/span.cfg\n",
        "/var/lib/vz/snippets/pve-span\n",
        "pve-span-check(8)",
        "qm(1)",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
}

#[test]
fn span_cfg_5_says_what_the_page_of_the_documentation_says() {
    let page = text_of(&pages(), "span.cfg", 5);
    assert!(page.starts_with("SPAN.CFG(5)"), "{page}");
    let words = |text: &str| -> String { text.chars().filter(|c| c.is_alphanumeric()).collect() };
    let all = words(&page);
    for key in pve_span_core::config::KEYS {
        assert!(
            page.lines().any(|line| line.trim_start().starts_with(key)),
            "{key}: {page}"
        );
    }
    // Each heading, and each paragraph's first words; links' targets are not shown.
    let source = include_str!("../../docs/span.cfg.md");
    let prose = source
        .split("\n\n")
        .filter(|block| !block.starts_with(['|', '`', '#']));
    let mut count = 0;
    for block in prose {
        let begin = block.split(['[', '|']).next().unwrap();
        let expected = words(begin);
        count += 1;
        assert!(all.contains(&expected), "{begin}\n{page}");
    }
    assert!(count > 15, "only {count} paragraphs");
    for heading in source.lines().filter_map(|line| line.strip_prefix("## ")) {
        assert!(page.contains(&heading.to_uppercase()), "{heading}");
    }
}
