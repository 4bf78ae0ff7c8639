//! Whatever the fuzzers have found still holds: each file of `fuzz/corpus` goes through the checks of its target.

#![allow(clippy::unwrap_used)]

#[path = "../fuzz/src/lib.rs"]
mod checks;

use std::fs;
use std::path::Path;

/// Feeds the corpus of a target to its check. A check that fails does so behind the name of the file.
fn each_file_of(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut files: Vec<_> = fs::read_dir(folder.join(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has no corpus");
    for file in files {
        let data = fs::read(&file).unwrap();
        let outcome = std::panic::catch_unwind(|| check(&data));
        assert!(outcome.is_ok(), "{} fails, see above", file.display());
    }
}

#[test]
fn guest_configs() {
    each_file_of("guest_config", checks::guest_config::check);
}

#[test]
fn span_cfg() {
    each_file_of("span_cfg", checks::span_cfg::check);
}

#[test]
fn filters() {
    each_file_of("filter", checks::filter::check);
}

#[test]
fn cluster_files() {
    each_file_of("cluster_files", checks::cluster_files::check);
}

#[test]
fn mirrors_conf() {
    each_file_of("mirrors_conf", checks::mirrors_conf::check);
}

#[test]
fn ovsdb_s_stream() {
    each_file_of("ovsdb", checks::ovsdb::check);
}

#[test]
fn the_kernel_s_answers() {
    each_file_of("netlink", checks::netlink::check);
}

#[test]
fn frames() {
    each_file_of("frames", checks::frames::check);
}
