//! The core does no I/O: it mentions nothing that could.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

/// What a pure module has no use for.
const FORBIDDEN: [&str; 13] = [
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::time",
    "std::io",
    "std::os",
    "std::thread",
    "libc",
    "nix::",
    "crate::ovs",
    "crate::linux",
    "SystemTime",
];

#[test]
fn the_core_mentions_no_io_and_no_engine() {
    let mut found = Vec::new();
    let mut files = 0;
    visit(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/core")),
        &mut |path, text| {
            files += 1;
            // `use std::{fs, …}` would slip through a search for `std::fs`.
            let flat = text.replace("std::{", "std::{ ");
            for (number, line) in flat.lines().enumerate() {
                let grouped = line.contains("std::{ ")
                    && ["fs", "net", "process", "env", "time", "io"]
                        .iter()
                        .any(|word| {
                            line.split(|c: char| !c.is_alphanumeric())
                                .any(|part| part == *word)
                        });
                if grouped || FORBIDDEN.iter().any(|word| line.contains(word)) {
                    found.push(format!("{}:{}: {line}", path.display(), number + 1));
                }
            }
        },
    );
    assert!(files > 10, "only {files} files found");
    assert_eq!(found, Vec::<String>::new());
}

fn visit(folder: &Path, check: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, check);
        } else {
            check(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}
