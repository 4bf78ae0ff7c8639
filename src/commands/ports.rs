//! `pve-span ports`: each NIC of each guest here, how it is plugged, and what it is part of.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use super::context::asked_context;
use super::format::{Format, notice};
use crate::reconcile::Error;
use crate::reconcile::inputs::Detail;
use crate::reconcile::observe::{Look, look};
use crate::sys::output;
use crate::sys::output::{Printer, Row};
use pve_span_core::model::{GuestKind, IfName, NicId, VlanSet, port_owner};
use pve_span_core::state::SessionState;
use pve_span_core::state::port_map::{BridgeKind, PluggedNic, Port, PortMap};

#[derive(Serialize)]
struct Report<'a> {
    notice: Option<&'a str>,
    ports: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    guest: u32,
    name: Option<&'a str>,
    nic: NicId,
    #[serde(rename = "type")]
    guest_kind: Option<GuestKind>,
    device: Option<&'a IfName>,
    port: Option<&'a IfName>,
    bridge: Option<&'a IfName>,
    kind: Option<BridgeKind>,
    tag: Option<u16>,
    trunks: VlanSet,
    firewall_bridge: Option<&'a IfName>,
    source_of: Vec<&'a str>,
    output_of: Vec<&'a str>,
}

/// Exit codes: 0 told, 2 cannot tell.
///
/// # Errors
/// The kernel or Open vSwitch does not answer.
pub fn run(root: &Path, format: Format) -> Result<u8, Error> {
    let look = look(&asked_context(root, "ports"), Detail::All, &BTreeSet::new())?;
    notice(&look);
    let map = PortMap::new(&look.observed);
    let mut entries: Vec<Entry<'_>> = map
        .nics()
        .map(|(port, nic)| plugged(port, nic, &look))
        .collect();
    entries.extend(
        map.unplugged
            .iter()
            .map(|(nic, device)| unplugged(*nic, device, &look)),
    );
    entries.sort_by_key(|entry| entry.nic);
    let is_nic = |device: &IfName| port_owner(device.as_str()).is_some();
    let is_missing = map.perhaps_on_ovs.iter().flatten().any(is_nic);
    let silent = look.observed.ovs.unanswered().filter(|_| is_missing);
    if let Some(why) = silent {
        log::error!("cannot reach Open vSwitch, so its ports are missing here: {why}");
    }
    let mut out = Printer::new();
    if format == Format::Json {
        out.json(&Report {
            notice: look.in_force.notice(),
            ports: entries,
        });
    } else if entries.is_empty() {
        out.line("no guest NIC is plugged in on this node");
    } else {
        let rows: Vec<Row> = entries.iter().map(row).collect();
        out.table(
            &[
                "GUEST", "NIC", "DEVICE", "PORT", "BRIDGE", "KIND", "VLAN", "FWBR", "PART OF",
            ],
            &rows,
        );
    }
    Ok(if silent.is_some() { 2 } else { 0 })
}

fn plugged<'a>(port: &'a Port, nic: &'a PluggedNic, look: &'a Look) -> Entry<'a> {
    let mut entry = entry(nic.id, look);
    // A VLAN-aware Linux bridge keeps its VLANs to itself: there the config tells.
    let config = look
        .cluster
        .guest(nic.id.vmid)
        .and_then(|guest| guest.nics.get(&nic.id.index));
    let configured = config.filter(|_| port.bridge_kind == BridgeKind::Linux);
    entry.guest_kind = nic.kind.or(entry.guest_kind);
    entry.device = nic.device.as_ref();
    entry.port = Some(&port.name);
    entry.bridge = Some(&port.bridge);
    entry.kind = Some(port.bridge_kind);
    entry.tag = port.tag.or_else(|| configured.and_then(|nic| nic.tag));
    entry.trunks = configured
        .filter(|_| port.trunks.is_empty())
        .map_or_else(|| port.trunks.clone(), |nic| nic.trunks.clone());
    entry.firewall_bridge = nic.firewall_bridge.as_ref();
    entry.source_of = sessions(look, |state| {
        state.present.iter().any(|source| {
            source.port == port.name || (source.nic.is_none() && source.port == port.bridge)
        }) && !state
            .outputs
            .iter()
            .any(|output| output.output == nic.id.to_string())
    });
    entry
}

fn unplugged<'a>(nic: NicId, device: &'a IfName, look: &'a Look) -> Entry<'a> {
    let takes = |state: &SessionState| state.unplugged.iter().any(|source| source.nic == nic);
    Entry {
        device: Some(device),
        source_of: sessions(look, takes),
        ..entry(nic, look)
    }
}

fn entry(nic: NicId, look: &Look) -> Entry<'_> {
    let guest = look.cluster.guest(nic.vmid);
    let spelled = nic.to_string();
    Entry {
        guest: nic.vmid.get(),
        name: guest.and_then(|guest| guest.name.as_deref()),
        nic,
        guest_kind: guest.map(|guest| guest.kind),
        device: None,
        port: None,
        bridge: None,
        kind: None,
        tag: None,
        trunks: VlanSet::default(),
        firewall_bridge: None,
        source_of: Vec::new(),
        output_of: sessions(look, |state| {
            state.outputs.iter().any(|output| output.output == spelled)
        }),
    }
}

fn sessions(look: &Look, belongs: impl Fn(&SessionState) -> bool) -> Vec<&str> {
    look.desired
        .sessions
        .iter()
        .filter(|state| belongs(state))
        .map(|state| state.name.as_str())
        .collect()
}

fn row(entry: &Entry<'_>) -> Row {
    let name = |name: Option<&IfName>| name.map_or_else(|| "?".to_owned(), ToString::to_string);
    let vlan = match entry.tag {
        Some(tag) => tag.to_string(),
        None if entry.port.is_none() => "?".to_owned(),
        None if entry.trunks.is_empty() => "-".to_owned(),
        None => format!("trunk {}", entry.trunks),
    };
    let kind = match entry.kind {
        Some(BridgeKind::Ovs) => "ovs",
        Some(BridgeKind::Linux) => "linux",
        Some(BridgeKind::None) => "-",
        None => "?",
    };
    let mut part_of: Vec<String> = entry
        .source_of
        .iter()
        .map(|session| format!("source of {session}"))
        .collect();
    part_of.extend(
        entry
            .output_of
            .iter()
            .map(|session| format!("output of {session}")),
    );
    let cells = vec![
        entry.name.map_or_else(
            || entry.guest.to_string(),
            |name| format!("{} {name}", entry.guest),
        ),
        format!("net{}", entry.nic.index),
        name(entry.device),
        name(entry.port),
        name(entry.bridge),
        kind.to_owned(),
        vlan,
        match (entry.port, entry.firewall_bridge) {
            (None, _) => "?",
            (Some(_), None) => "no",
            (Some(_), Some(_)) => "yes",
        }
        .to_owned(),
        if part_of.is_empty() {
            "-".to_owned()
        } else {
            part_of.join(", ")
        },
    ];
    Row {
        cells,
        look: output::Look::Plain,
        look_at: None,
        notes: Vec::new(),
    }
}
