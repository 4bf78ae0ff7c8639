//! Tests that cannot run on this machine say so, and are counted as skipped instead of as passed.
//!
//! The standard library is all that this needs: tests/package also compiles it into a crate of its own.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Names the file that skipped tests are written to, a line each: the test, a tab, the reason. tests/run.sh sets it.
const FILE: &str = "PVE_SPAN_SKIPPED";

/// What a test needs and not every kernel has. Without it the test says why it does nothing, past the output that is
/// only shown of tests that fail.
pub fn or_skip<T>(made: Result<T, String>) -> Option<T> {
    made.map_err(|why| {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        let _ = writeln!(std::io::stderr(), "{test} is skipped: {why}");
        if let Some(file) = std::env::var_os(FILE) {
            let program = std::env::args().next().unwrap_or_default();
            let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
            let mut file = OpenOptions::new().append(true).open(file).unwrap();
            // In one piece, as other tests write to the same file.
            file.write_all(format!("{program} {test}\t{why}\n").as_bytes())
                .unwrap();
        }
    })
    .ok()
}
