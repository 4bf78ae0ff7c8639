//! tests/run.sh counts tests: cargo calls one that has skipped itself passed.

use std::fs;
use std::path::Path;
use std::process::Command;

/// A crate without dependencies, with these tests, and tests/run.sh in its place.
fn a_crate(tests: &str) -> tempfile::TempDir {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put(
        "Cargo.toml",
        "[package]\nname = \"counted\"\nversion = \"1.0.0\"\nedition = \"2024\"\n",
    );
    put(
        "Cargo.lock",
        "version = 4\n\n[[package]]\nname = \"counted\"\nversion = \"1.0.0\"\n",
    );
    put("src/lib.rs", "");
    let skip = root.join("tests/lab/skip.rs");
    put(
        "tests/one.rs",
        &format!("#[path = {skip:?}]\nmod skip;\nuse skip::or_skip;\n{tests}"),
    );
    put(
        "tests/two.rs",
        &format!("#[path = {skip:?}]\nmod skip;\n{FINE}\n{LACKS}"),
    );
    fs::copy(
        root.join("tests/run.sh"),
        folder.path().join("tests/run.sh"),
    )
    .unwrap();
    folder
}

const FINE: &str = "#[test] fn fine() {}";
const LACKS: &str = "#[test] fn lacks() { assert!(skip::or_skip(Err::<(), _>(\"no bonds\nhere\".to_owned())).is_none()); }";

/// Runs the script, and returns its exit code and last line.
fn run(folder: &Path) -> (Option<i32>, String) {
    let mut command = Command::new("sh");
    command
        .args([&folder.join("tests/run.sh"), Path::new("most")])
        .env("CARGO_TARGET_DIR", folder.join("target"));
    for (name, _) in std::env::vars() {
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_BIN_") {
            command.env_remove(name);
        }
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = said.lines().last().unwrap_or_default().to_owned();
    (output.status.code(), last)
}

#[test]
fn what_was_skipped_is_counted_with_the_reasons() {
    let folder = a_crate(&format!(
        "{FINE}\n{LACKS}\n\
         #[test] fn other() {{ or_skip(Err::<(), _>(\"no VLANs\".to_owned())); }}\n\
         #[test] fn has_all() {{ or_skip(Ok(())).unwrap(); }}\n\
         #[test] #[ignore] fn slow() {{}}"
    ));
    let expected = "3 passed, 0 failed, 4 skipped (2: no bonds here; 1: no VLANs; 1: #[ignore])";
    assert_eq!(run(folder.path()), (Some(0), expected.to_owned()));
}

#[test]
fn a_test_that_fails_fails_the_run() {
    let folder = a_crate(&format!("{FINE}\n#[test] fn wrong() {{ panic!() }}"));
    let (code, last) = run(folder.path());
    assert_eq!(code, Some(101));
    assert_eq!(
        last, "2 passed, 1 failed, 1 skipped (1: no bonds here)",
        "and the others run"
    );
}

#[test]
fn what_does_not_compile_is_not_counted_and_fails() {
    let folder = a_crate("no Rust");
    let (code, last) = run(folder.path());
    assert_eq!((code, last.as_str()), (Some(101), ""));
}
