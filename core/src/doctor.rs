//! What may be wrong with a node, judged: each finding with how bad it is, what was seen where, and what to do.
//!
//! All that was seen comes in as data ([`Facts`]); what could not be seen is a finding, too. Nothing here is about one
//! session's choice of engine or sources, which `plan` and `status` tell.

mod chained_hooks;
mod config;
mod diversions;
mod facts;
mod findings;
mod foreign_scripts;
mod hookscripts;
mod kernel;
mod macs;
mod mtu;
mod offload;
mod ovs;
mod remedy;
mod sensors;
mod service;
mod sources;

pub use facts::{
    Answer, Chain, ChainRecord, Diversion, DivertedBy, Facts, Feature, File, Host, MirrorWipe,
    Node, Original, OvsMore, Program, Script, Service, VolumeFact, VolumeState,
};
pub use findings::{Finding, Id, Severity};
pub use foreign_scripts::clearing_lines;

use findings::Findings;

/// Judges everything. The worst comes first.
pub fn examine(facts: &Facts<'_>) -> Vec<Finding> {
    let mut found = Findings::default();
    config::judge(facts, &mut found);
    kernel::judge(facts, &mut found);
    ovs::judge(facts, &mut found);
    service::judge(facts, &mut found);
    hookscripts::judge(facts, &mut found);
    chained_hooks::judge(facts, &mut found);
    if let Ok(node) = &facts.node {
        sources::judge(facts, node, &mut found);
        diversions::judge(facts, node, &mut found);
        let mender = remedy::NicRemedy::new(node, mtu::raised(node));
        macs::judge(node, &mender.map, &mut found);
        sensors::judge(facts, node, &mender, &mut found);
        mtu::judge(node, &mender, &mut found);
    }
    foreign_scripts::judge(facts, &mut found);
    offload::judge(facts, &mut found);
    found.sorted()
}

#[cfg(test)]
mod tests;
