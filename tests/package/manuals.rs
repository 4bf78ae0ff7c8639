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
    let path = folder
        .path()
        .join(format!("usr/share/man/man8/{page}.8.gz"));
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
