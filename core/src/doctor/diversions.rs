//! Others who copy or divert the frames of devices that matter here: filters of tc, rules of nftables, mirrors of Open
//! vSwitch. They stay as they are; somebody should know of them.

use std::collections::BTreeSet;

use super::facts::{Diversion, DivertedBy, Facts, Node, Original};
use super::findings::{Findings, Id, Severity, listed, shell_word};
use crate::model::{IfName, SessionName};
use crate::state::{Mirror, MirrorOutput, OvsState, RowId};

/// Judges them.
pub fn judge(facts: &Facts<'_>, node: &Node<'_>, found: &mut Findings) {
    for diversion in &facts.diversions {
        diverted(node, diversion, found);
    }
    let OvsState::Present(ovs) = &node.observed.ovs else {
        return;
    };
    for (bridge, seen) in &ovs.bridges {
        let sources = sources(node, |name| seen.ports.contains_key(name));
        let foreign = seen.mirrors.iter();
        for (row, mirror) in foreign.filter(|(_, mirror)| mirror.mark.is_none()) {
            mirrored(node, bridge, row, mirror, &sources, found);
        }
    }
}

/// The devices of sources that are taken here.
fn sources<'a>(node: &Node<'a>, is_meant: impl Fn(&IfName) -> bool) -> BTreeSet<&'a IfName> {
    let copied = node.desired.copies.values();
    let copied = copied.flat_map(|copies| copies.sources.keys());
    let mirrored = node.desired.mirrors.values();
    let mirrored = mirrored.flat_map(|wanted| wanted.config.ports.keys());
    copied
        .chain(mirrored)
        .filter(|name| is_meant(name))
        .collect()
}

/// The sessions whose copies leave through a device.
fn sessions_to<'a>(node: &Node<'a>, device: &IfName) -> BTreeSet<&'a SessionName> {
    let copied = node.desired.copies.iter();
    let copied = copied
        .filter(|(_, copies)| copies.device == *device)
        .map(|(key, _)| &key.session);
    let to = MirrorOutput::Port(device.clone());
    let mirrored = node.desired.mirrors.iter();
    let mirrored = mirrored
        .filter(|(_, wanted)| wanted.config.output == to)
        .map(|(key, _)| &key.of.session);
    copied.chain(mirrored).collect()
}

fn diverted(node: &Node<'_>, diversion: &Diversion, found: &mut Findings) {
    let device = &diversion.device;
    let to = match &diversion.to {
        Some(to) => to.to_string(),
        None => "a device that is not known".to_owned(),
    };
    let sessions = diversion.to.as_ref().map(|to| sessions_to(node, to));
    let sessions = sessions.filter(|sessions| !sessions.is_empty());
    let so = match (sessions, diversion.original) {
        (Some(sessions), _) => format!(
            "the sensor of {} gets frames there that pve-span did not send, or gets them twice",
            listed(sessions)
        ),
        (None, Original::GoesOn) => "span.cfg says nothing of these copies".to_owned(),
        (None, Original::Ends) => "these frames do not go their own way".to_owned(),
    };
    let (id, what) = match diversion.by {
        DivertedBy::Tc => (Id::TcMirred, "a filter of tc"),
        DivertedBy::Nft => (Id::MirrorForeign, "somebody else's nftables rule"),
    };
    let does = match diversion.original {
        Original::GoesOn => "copies",
        Original::Ends => "diverts",
    };
    found.add(
        Severity::Warning,
        id,
        format!(
            "{what} {does} frames of {device} ({}) to {to}: {so}",
            diversion.place
        ),
        &diversion.seen,
        &diversion.remedy,
    );
}

fn mirrored(
    node: &Node<'_>,
    bridge: &IfName,
    row: &RowId,
    mirror: &Mirror,
    sources: &BTreeSet<&IfName>,
    found: &mut Findings,
) {
    let config = &mirror.config;
    let taken = sources
        .iter()
        .filter(|name| config.all || config.ports.contains_key(**name));
    let taken: Vec<&&IfName> = taken.collect();
    if taken.is_empty() || config.output == MirrorOutput::None {
        return;
    }
    let copied = |to: &IfName| {
        let mut copies = node.desired.copies.values();
        copies.any(|copies| copies.device == *to)
    };
    // Of its own mirrors Open vSwitch delivers a frame once.
    let (severity, so) = match &config.output {
        MirrorOutput::Port(to) if copied(to) => {
            (Severity::Warning, "the sensor there gets frames twice")
        }
        _ => (
            Severity::Note,
            "it stays as it is, and what it sends is not pve-span's",
        ),
    };
    let name = match mirror.name.as_str() {
        "" => &row.0,
        name => name,
    };
    found.add(
        severity,
        Id::MirrorForeign,
        format!(
            "somebody else's mirror on {bridge} takes {} too, and sends it to {}: {so}",
            listed(&taken),
            config.output
        ),
        format!("ovs-vsctl list mirror {}", shell_word(name)),
        format!(
            "ovs-vsctl -- --id=@m get mirror {} -- remove bridge {bridge} mirrors @m; or take it over: pve-span import",
            shell_word(name)
        ),
    );
}
