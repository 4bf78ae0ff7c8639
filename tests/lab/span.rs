//! Calling pve-span: as an administrator types it, and as Proxmox VE calls the hookscript.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::node::Node;
use super::run::try_run;

/// The binary under test: `PVE_SPAN_BIN` if that is set; else the one that cargo built for this test or benchmark;
/// else (an example) the one beside the example's folder, which `cargo build` puts there.
///
/// # Panics
/// If there is none.
pub fn binary() -> PathBuf {
    let chosen = std::env::var_os("PVE_SPAN_BIN").map(PathBuf::from);
    let built = || option_env!("CARGO_BIN_EXE_pve-span").map(PathBuf::from);
    let beside = || {
        Some(
            std::env::current_exe()
                .ok()?
                .parent()?
                .parent()?
                .join("pve-span"),
        )
    };
    let path = chosen.or_else(built).or_else(beside).unwrap_or_default();
    assert!(
        path.is_file(),
        "there is no pve-span at {:?}: build it first (cargo build), or set PVE_SPAN_BIN",
        path.display()
    );
    path
}

impl Node {
    /// Runs `pve-span <args> --root <root>` on the node.
    #[track_caller]
    pub fn pve_span(&self, args: &[&str]) -> Output {
        try_run(self.pve_span_command(args), "")
    }

    /// The same, not started yet: for the service, for more environment, for measuring.
    pub fn pve_span_command(&self, args: &[&str]) -> Command {
        let mut command = self.command(binary());
        command.args(args).arg("--root").arg(self.root());
        command
    }

    /// Calls the hookscript as Proxmox VE does: `<file> <vmid> <phase>`, with `--root` appended.
    #[track_caller]
    pub fn hook(&self, vmid: u32, phase: &str) -> Output {
        try_run(self.hook_command(vmid, phase), "")
    }

    /// Calls the hookscript as the target of a live migration does.
    #[track_caller]
    pub fn hook_migrated_from(&self, source: &str, vmid: u32, phase: &str) -> Output {
        let mut command = self.hook_command(vmid, phase);
        command.env("PVE_MIGRATED_FROM", source);
        try_run(command, "")
    }

    /// The same, not started yet.
    pub fn hook_command(&self, vmid: u32, phase: &str) -> Command {
        let snippet = self.path("var/lib/vz/snippets/pve-span");
        // Two threads may get here at once; either link will do.
        if let Err(error) = symlink(binary(), &snippet) {
            assert!(
                snippet.exists(),
                "cannot link {}: {error}",
                snippet.display()
            );
        }
        let mut command = self.command(snippet);
        command
            .args([&vmid.to_string(), phase])
            .arg("--root")
            .arg(self.root());
        command
    }
}
