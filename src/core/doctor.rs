//! What may be wrong with a node, judged: each finding with how bad it is, what was seen where, and what to do.
//!
//! All that was seen comes in as data ([`Facts`]); what could not be seen is a finding, too. Nothing here is about one
//! session's choice of engine or sources, which `plan` and `status` tell.

mod chained;
mod diversions;
mod facts;
mod file;
mod findings;
mod kernel;
mod macs;
mod mend;
mod mtu;
mod offload;
mod outputs;
mod ovs;
mod scripts;
mod service;
mod snippets;
mod sources;

pub use facts::{
    Answer, Chain, ChainRecord, Clearing, Diversion, DivertedBy, Facts, Feature, File, Host, Node,
    Original, OvsMore, Program, Script, Service, VolumeFact, VolumeState,
};
pub use findings::{Finding, Id, Severity};
pub use scripts::clearing_lines;

use findings::Findings;

/// Judges everything. The worst comes first.
pub fn examine(facts: &Facts<'_>) -> Vec<Finding> {
    let mut found = Findings::default();
    file::judge(facts, &mut found);
    kernel::judge(facts, &mut found);
    ovs::judge(facts, &mut found);
    service::judge(facts, &mut found);
    snippets::judge(facts, &mut found);
    chained::judge(facts, &mut found);
    if let Ok(node) = &facts.node {
        sources::judge(facts, node, &mut found);
        diversions::judge(facts, node, &mut found);
        let mender = mend::Mender::new(node);
        macs::judge(node, &mender.map, &mut found);
        outputs::judge(facts, node, &mender, &mut found);
        mtu::judge(node, &mender, &mut found);
    }
    scripts::judge(facts, &mut found);
    offload::judge(facts, &mut found);
    found.sorted()
}

#[cfg(test)]
mod tests;
