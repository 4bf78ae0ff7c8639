//! Calling pve-span: as a line for hyperfine(1), and to see that it does what its time is taken of.

use std::path::Path;
use std::process::Output;

use super::lab::{Node, binary, try_run};

/// `pve-span <words>` on the node, as a command line without a shell's words.
pub fn line(node: &Node, words: &str) -> String {
    line_of(&binary(), node, words)
}

/// The same of another binary.
pub fn line_of(binary: &Path, node: &Node, words: &str) -> String {
    let (binary, root) = (binary.display(), node.root().display());
    format!("{binary} {words} --root {root}")
}

/// Fast and wrong is not worth measuring: the hook must say this; with an empty text, nothing.
pub fn check(node: &Node, vmid: u32, phase: &str, says: &str) -> Result<(), String> {
    said(phase, says, &try_run(node.hook_command(vmid, phase), ""))
}

/// The same of a command.
// Each benchmark uses a part of it.
#[allow(dead_code)]
pub fn check_command(node: &Node, command: &str, says: &str) -> Result<(), String> {
    said(command, says, &node.pve_span(&[command]))
}

fn said(what: &str, says: &str, output: &Output) -> Result<(), String> {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let as_expected = if says.is_empty() {
        out.is_empty()
    } else {
        out.contains(says)
    };
    if as_expected && err.is_empty() && output.status.success() {
        Ok(())
    } else {
        Err(format!(
            "{what} should have said `{says}`, and said: {out}{err}"
        ))
    }
}
