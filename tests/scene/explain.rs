//! Calling `explain`, and what it says.
//!
//! Much of it is pinned whole, in `tests/explain/`; `UPDATE_EXPLAIN=1 cargo test --test explain --test explain_why` writes
//! it anew, and the diff shows what changed.

use serde_json::Value;

use super::super::lab::Node;
use super::run;

const FIRST_STEP: &str = "pve-span: warning: there is no /etc/pve/span.cfg: run `pve-span init`, which writes a first one\n";

/// Exit code, stdout and stderr of `explain`.
pub fn explain(node: &Node, args: &[&str]) -> (i32, String, String) {
    run(node, &[&["explain"], args].concat())
}

/// What it says, without a word on stderr (but what to do where there is no span.cfg) and with exit code 0, and without what was counted: Open vSwitch counts when
/// it likes.
#[track_caller]
pub fn explained(node: &Node, args: &[&str]) -> String {
    let (code, out, err) = explain(node, args);
    let is_first = !node.path("etc/pve/span.cfg").exists();
    let expected = if is_first { FIRST_STEP } else { "" };
    assert_eq!((code, err.as_str()), (0, expected), "{out}");
    let uncounted = |line: &str| {
        let counted = line.starts_with("  in force; ");
        format!("{}\n", if counted { "  in force" } else { line })
    };
    out.lines().map(uncounted).collect()
}

pub fn json(node: &Node, args: &[&str]) -> (i32, Value) {
    let (code, out, _) = explain(node, &[args, &["--json"]].concat());
    (code, serde_json::from_str(&out).unwrap())
}

/// The ways that it tells of: the lines with arrows.
pub fn ways(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.contains(" → ")).collect()
}

/// Is that what the file has?
#[track_caller]
pub fn pinned(name: &str, said: &str) {
    let path = format!("{}/tests/explain/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_EXPLAIN").is_some() {
        std::fs::write(&path, said).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(said, wanted, "{path}");
}
