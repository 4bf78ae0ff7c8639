//! Which part of nf_tables a node lacks, found out by trying: nft(8)'s check mode takes a table as far as the
//! kernel and gives it up there. Nothing is changed.

use std::time::Instant;

use super::run::{Error, Program};

/// What is tried, each with what came before it, and what is missing if it is the first to fail.
const PROBES: [(&str, &str); 6] = [
    (
        "add table netdev pve-span-probe",
        "this kernel has no nf_tables for network devices (CONFIG_NF_TABLES, CONFIG_NF_TABLES_NETDEV)",
    ),
    (
        "add chain netdev pve-span-probe in { type filter hook ingress device \"lo\" priority 0; }",
        "this kernel has no ingress hook for nftables (CONFIG_NETFILTER_INGRESS)",
    ),
    (
        "add chain netdev pve-span-probe out { type filter hook egress device \"lo\" priority 0; }",
        "this kernel has no egress hook for nftables (CONFIG_NETFILTER_EGRESS, Linux 5.16 or newer)",
    ),
    (
        "add rule netdev pve-span-probe in dup to \"lo\"",
        "this kernel has no `dup` for nftables (CONFIG_NFT_DUP_NETDEV)",
    ),
    (
        "add rule netdev pve-span-probe in numgen inc mod 2 == 0",
        "this kernel has no `numgen` for nftables (CONFIG_NFT_NUMGEN)",
    ),
    (
        "add counter netdev pve-span-probe frames\nadd rule netdev pve-span-probe in counter name \"frames\"",
        "this kernel has no named counters for nftables (CONFIG_NFT_COUNTER, CONFIG_NFT_OBJREF)",
    ),
];

/// Which of them each needs, besides itself.
const BASE: usize = 2;

impl Program {
    /// After a refusal: what this node lacks, as a sentence. Nothing if it lacks nothing that can be told.
    pub fn diagnose(&self, deadline: Instant) -> Option<String> {
        for (at, (probe, missing)) in PROBES.iter().enumerate() {
            let before = PROBES.iter().take(at.min(BASE));
            let mut text: String = before.map(|(probe, _)| format!("{probe}\n")).collect();
            text.push_str(probe);
            text.push('\n');
            match self.run(&["-c", "-f", "-"], text.as_bytes(), deadline) {
                Ok(()) => {}
                Err(Error::Refused { message }) => return Some(explain(&message, missing)),
                Err(_) => return None,
            }
        }
        None
    }
}

/// Not each refusal is the kernel's.
fn explain(message: &str, missing: &str) -> String {
    if message.contains("not permitted") {
        "not permitted to change nftables: this needs root (CAP_NET_ADMIN)".into()
    } else if message.contains("syntax error") {
        "this nft is too old: nftables 1.0.1 or newer is needed".into()
    } else {
        missing.into()
    }
}

/// The same, with the node's nft(8).
pub fn diagnose(deadline: Instant) -> Option<String> {
    match Program::find() {
        Ok(program) => program.diagnose(deadline),
        Err(error) => Some(error.to_string()),
    }
}
