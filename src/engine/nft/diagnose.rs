//! Which part of nf_tables a node lacks, found out by trying: nft(8)'s check mode takes a table as far as the
//! kernel and gives it up there. Nothing is changed.

use std::time::Instant;

use super::run::{Error, Program};
use pve_span_core::doctor::Feature;

/// What is tried, each with what came before it, what is missing if it is the first to fail, and what it is in a word.
const PROBES: [(&str, &str, &str); 6] = [
    (
        "add table netdev pve-span-probe",
        "this kernel has no nf_tables for network devices (CONFIG_NF_TABLES, CONFIG_NF_TABLES_NETDEV)",
        "netdev family",
    ),
    (
        "add chain netdev pve-span-probe in { type filter hook ingress device \"lo\" priority 0; }",
        "this kernel has no ingress hook for nftables (CONFIG_NETFILTER_INGRESS)",
        "ingress hook",
    ),
    (
        "add chain netdev pve-span-probe out { type filter hook egress device \"lo\" priority 0; }",
        "this kernel has no egress hook for nftables (CONFIG_NETFILTER_EGRESS, Linux 5.16 or newer)",
        "egress hook",
    ),
    (
        "add rule netdev pve-span-probe in dup to \"lo\"",
        "this kernel has no `dup` for nftables (CONFIG_NFT_DUP_NETDEV)",
        "dup",
    ),
    (
        "add rule netdev pve-span-probe in numgen inc mod 2 == 0",
        "this kernel has no `numgen` for nftables (CONFIG_NFT_NUMGEN)",
        "numgen",
    ),
    (
        "add counter netdev pve-span-probe frames\nadd rule netdev pve-span-probe in counter name \"frames\"",
        "this kernel has no named counters for nftables (CONFIG_NFT_COUNTER, CONFIG_NFT_OBJREF)",
        "named counters",
    ),
];

/// Which of them each needs, besides itself.
const BASE: usize = 2;

impl Program {
    /// After a refusal: what this node lacks, as a sentence. Nothing if it lacks nothing that can be told.
    pub fn diagnose(&self, deadline: Instant) -> Option<String> {
        for (at, (_, missing, _)) in PROBES.iter().enumerate() {
            match self.run(&["-c", "-f", "-"], text(at).as_bytes(), deadline) {
                Ok(()) => {}
                Err(Error::Refused { message }) => return Some(explain(&message, missing)),
                Err(_) => return None,
            }
        }
        None
    }

    /// Each part of nf_tables that copies need, and what is missing of it, if it is: really loaded. To be called in a
    /// network namespace that nobody else uses.
    ///
    /// # Errors
    /// nft(8) cannot be run, or is not allowed to.
    pub fn features(&self, deadline: Instant) -> Result<Vec<Feature>, Error> {
        let mut features = Vec::new();
        for (at, (_, missing, name)) in PROBES.iter().enumerate() {
            let (missing, said) = match self.run(&["-f", "-"], text(at).as_bytes(), deadline) {
                Ok(()) => (None, None),
                Err(Error::Refused { message }) if message.contains("not permitted") => {
                    return Err(Error::Refused { message });
                }
                Err(Error::Refused { message }) => {
                    (Some(explain(&message, missing)), Some(message))
                }
                Err(error) => return Err(error),
            };
            let is_missing = missing.is_some();
            features.push(Feature {
                name: (*name).to_owned(),
                missing,
                said,
            });
            // Without table and chains, the rest says nothing.
            if is_missing && at < BASE {
                break;
            }
            if !is_missing {
                self.run(&["-f", "-"], REMOVED.as_bytes(), deadline)?;
            }
        }
        Ok(features)
    }
}

/// What is loaded is taken away again before the next.
const REMOVED: &str = "delete table netdev pve-span-probe\n";

/// A probe with what it needs.
fn text(at: usize) -> String {
    let before = PROBES.iter().take(at.min(BASE));
    let probe = PROBES.get(at).into_iter();
    before
        .chain(probe)
        .map(|(probe, ..)| format!("{probe}\n"))
        .collect()
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
