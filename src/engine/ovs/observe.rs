//! Open vSwitch's database → [`Ovs`]: bridges, ports and mirrors, in one read.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::rpc::{Client, Error, Transaction};
use super::value::{map_get, number, optional, row_id, set, to_uuid};
use pve_span_core::engine::Statistics;
use pve_span_core::model::Taken;
use pve_span_core::model::{IfName, OutputKey, SessionName, VlanSet};
use pve_span_core::state::{Mirror, MirrorConfig, MirrorOutput, Ovs, OvsBridge, OvsPort, RowId};

/// Whose a mirror is: `external_ids:pve-span=<session>`.
pub const MARK_SESSION: &str = "pve-span";
/// Which of the session's outputs it serves.
pub const MARK_OUTPUT: &str = "pve-span-output";

/// What is read of each table: nothing newer than Open vSwitch 3.1.
pub(super) const ROOT: (&str, &[&str]) = ("Open_vSwitch", &["next_cfg", "cur_cfg"]);
pub(super) const BRIDGE: (&str, &[&str]) = ("Bridge", &["_uuid", "name", "ports", "mirrors"]);
const HOLDER: (&str, &[&str]) = ("Bridge", &["_uuid", "mirrors"]);
pub(super) const PORT: (&str, &[&str]) =
    ("Port", &["_uuid", "name", "tag", "trunks", "interfaces"]);
pub(super) const INTERFACE: (&str, &[&str]) = ("Interface", &["_uuid", "type", "ofport", "error"]);
/// What is read of interfaces besides, to know bonds' members and patch ports' other ends.
const INTERFACE_IN_DETAIL: (&str, &[&str]) = (
    "Interface",
    &["_uuid", "type", "ofport", "error", "name", "options"],
);
pub(super) const MIRROR: (&str, &[&str]) = (
    "Mirror",
    &[
        "_uuid",
        "name",
        "select_all",
        "select_src_port",
        "select_dst_port",
        "select_vlan",
        "output_port",
        "output_vlan",
        "snaplen",
        "statistics",
        "external_ids",
    ],
);

/// Which ports are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortSelection {
    /// All.
    All,
    /// All, with bonds' members and patch ports' other ends.
    AllInDetail,
    /// Those of these names, and those that our mirrors refer to.
    Named(BTreeSet<IfName>),
}

/// Reads what mirrors depend on, at one point in time.
///
/// # Errors
/// The database does not answer, or its answer is not what the schema promises.
pub fn read(client: &mut Client, which: &PortSelection) -> Result<Ovs, Error> {
    let asked = ask(client, which)?;
    answer(client, asked, which)
}

/// Sends the question of [`read`].
///
/// # Errors
/// The database does not answer.
pub fn ask(client: &mut Client, which: &PortSelection) -> Result<Transaction, Error> {
    let conditions: Vec<Value> = match which {
        PortSelection::All | PortSelection::AllInDetail => vec![json!([])],
        PortSelection::Named(names) => names
            .iter()
            .map(|name| json!([["name", "==", name.as_str()]]))
            .collect(),
    };
    let all = json!([]);
    let mut selects = vec![
        select(ROOT, &all),
        select(MIRROR, &all),
        select(BRIDGE, &all),
    ];
    let interface = match which {
        PortSelection::AllInDetail => INTERFACE_IN_DETAIL,
        PortSelection::All | PortSelection::Named(_) => INTERFACE,
    };
    for condition in &conditions {
        selects.extend([select(PORT, condition), select(interface, condition)]);
    }
    client.begin(selects)
}

/// Takes the answer to [`ask`].
///
/// # Errors
/// As [`read`].
pub fn answer(
    client: &mut Client,
    asked: Transaction,
    which: &PortSelection,
) -> Result<Ovs, Error> {
    let results = client.results(asked)?;
    let (tables, of_ports) = results.split_at_checked(3).ok_or_else(missing)?;
    let [roots, mirrors, bridges] = tables else {
        return Err(missing());
    };
    let mut ports = PortRows::default();
    for pair in of_ports.chunks(2) {
        let [port_rows, interfaces] = pair else {
            return Err(missing());
        };
        ports.add(rows(port_rows)?, rows(interfaces)?)?;
    }
    if matches!(which, PortSelection::Named(_)) {
        ports.complete(client, rows(mirrors)?)?;
    }
    let mirror_rows = mirrors_by_row(rows(mirrors)?, &ports)?;
    let mut found = Ovs {
        bridges: BTreeMap::new(),
        caught_up: caught_up(rows(roots)?),
    };
    for row in rows(bridges)? {
        let Ok(name) = text(row, "name").parse::<IfName>() else {
            continue;
        };
        let bridge = OvsBridge {
            row: column_id(row, "_uuid")?,
            ports: references(row, "ports")
                .filter_map(|id| ports.0.remove(&id))
                .collect(),
            // A row may be in several bridges.
            mirrors: references(row, "mirrors")
                .filter_map(|id| Some((id.clone(), mirror_rows.get(&id)?.clone())))
                .collect(),
        };
        found.bridges.insert(name, bridge);
    }
    Ok(found)
}

/// Asks what a commit has left: mirrors, and which bridges hold them. Ports are not read again.
///
/// # Errors
/// The database does not answer.
pub fn ask_back(client: &mut Client) -> Result<Transaction, Error> {
    let all = json!([]);
    client.begin(vec![
        select(ROOT, &all),
        select(MIRROR, &all),
        select(HOLDER, &all),
    ])
}

/// Takes the answer to [`ask_back`]: what was there before, with the mirrors as they are now.
///
/// # Errors
/// As [`read`].
pub fn answer_back(client: &mut Client, asked: Transaction, before: &Ovs) -> Result<Ovs, Error> {
    let results = client.results(asked)?;
    let [roots, mirrors, bridges] = results.as_slice() else {
        return Err(missing());
    };
    let known = before.bridges.values().flat_map(|bridge| &bridge.ports);
    let mut ports = PortRows(
        known
            .map(|(name, port)| (port.row.clone(), (name.clone(), port.clone())))
            .collect(),
    );
    ports.complete(client, rows(mirrors)?)?;
    let mirror_rows = mirrors_by_row(rows(mirrors)?, &ports)?;
    let mut now = before.clone();
    now.caught_up = caught_up(rows(roots)?);
    let mut held: BTreeMap<RowId, Vec<RowId>> = BTreeMap::new();
    for row in rows(bridges)? {
        held.insert(
            column_id(row, "_uuid")?,
            references(row, "mirrors").collect(),
        );
    }
    for bridge in now.bridges.values_mut() {
        let mirrors = held.remove(&bridge.row).unwrap_or_default().into_iter();
        bridge.mirrors = mirrors
            .filter_map(|id| Some((id.clone(), mirror_rows.get(&id)?.clone())))
            .collect();
    }
    Ok(now)
}

fn references(row: &Value, column: &str) -> impl Iterator<Item = RowId> {
    let values = row.get(column).map(set).unwrap_or_default();
    values.iter().filter_map(row_id)
}

fn mirrors_by_row(rows: &[Value], ports: &PortRows) -> Result<BTreeMap<RowId, Mirror>, Error> {
    rows.iter()
        .map(|row| Ok((column_id(row, "_uuid")?, mirror(row, &ports.0))))
        .collect()
}

pub(super) fn select((table, columns): (&str, &[&str]), condition: &Value) -> Value {
    json!({"op": "select", "table": table, "where": condition, "columns": columns})
}

fn missing() -> Error {
    Error::Protocol("a select's result is missing".into())
}

/// The ports that were read, by row.
#[derive(Default)]
struct PortRows(BTreeMap<RowId, (IfName, OvsPort)>);

impl PortRows {
    fn add(&mut self, ports: &[Value], interfaces: &[Value]) -> Result<(), Error> {
        let mut interface_rows = BTreeMap::new();
        for row in interfaces {
            interface_rows.insert(column_id(row, "_uuid")?, row);
        }
        for row in ports {
            let id = column_id(row, "_uuid")?;
            // A name that no device can have is nobody's source; its port is left alone.
            if let Ok(name) = text(row, "name").parse::<IfName>() {
                self.0
                    .insert(id.clone(), (name, port(id, row, &interface_rows)));
            }
        }
        Ok(())
    }

    /// Reads the ports that mirrors of ours refer to and that are not known.
    fn complete(&mut self, client: &mut Client, mirrors: &[Value]) -> Result<(), Error> {
        let unknown = self.unknown(mirrors);
        if unknown.is_empty() {
            return Ok(());
        }
        let selects = unknown
            .iter()
            .map(|id| select(PORT, &json!([["_uuid", "==", to_uuid(id)]])));
        for result in client.transact(selects.collect())? {
            self.add(rows(&result)?, &[])?;
        }
        Ok(())
    }

    /// The ports that mirrors of ours refer to and that were not read.
    fn unknown(&self, mirrors: &[Value]) -> BTreeSet<RowId> {
        let ours = mirrors.iter().filter(|row| {
            row.get("external_ids")
                .and_then(|map| map_get(map, MARK_SESSION))
                .is_some()
        });
        let columns = ["select_src_port", "select_dst_port", "output_port"];
        let references = ours.flat_map(|row| {
            columns
                .iter()
                .filter_map(|column| row.get(column))
                .flat_map(set)
        });
        references
            .filter_map(row_id)
            .filter(|id| !self.0.contains_key(id))
            .collect()
    }
}

pub(super) fn caught_up(roots: &[Value]) -> bool {
    roots.iter().all(|root| {
        let counter = |column| root.get(column).and_then(Value::as_i64).unwrap_or(0);
        counter("cur_cfg") >= counter("next_cfg")
    })
}

pub(super) fn rows(result: &Value) -> Result<&[Value], Error> {
    let rows = result.get("rows").and_then(Value::as_array);
    rows.map(Vec::as_slice)
        .ok_or_else(|| Error::Protocol("a select's result has no rows".into()))
}

fn column_id(row: &Value, column: &str) -> Result<RowId, Error> {
    row.get(column)
        .and_then(row_id)
        .ok_or_else(|| Error::Protocol(format!("a row has no {column}")))
}

fn text<'v>(row: &'v Value, column: &str) -> &'v str {
    row.get(column).and_then(Value::as_str).unwrap_or_default()
}

fn vlans(row: &Value, column: &str) -> VlanSet {
    row.get(column)
        .map(set)
        .unwrap_or_default()
        .iter()
        .filter_map(number::<u16>)
        .collect()
}

fn port(id: RowId, row: &Value, interfaces: &BTreeMap<RowId, &Value>) -> OvsPort {
    let own = || {
        let references = row.get("interfaces").map(set).unwrap_or_default();
        references
            .iter()
            .filter_map(row_id)
            .filter_map(|id| interfaces.get(&id).copied())
    };
    let failed = |interface: &Value| {
        let ofport = interface
            .get("ofport")
            .and_then(optional)
            .and_then(Value::as_i64);
        ofport == Some(-1) || interface.get("error").and_then(optional).is_some()
    };
    let name = text(row, "name");
    let names = own().map(|interface| text(interface, "name"));
    let members = names.filter(|member| !member.is_empty() && *member != name);
    let peer = |interface: &Value| {
        let peer = interface
            .get("options")
            .and_then(|map| map_get(map, "peer"))?;
        peer.as_str()?.parse().ok()
    };
    OvsPort {
        row: id,
        tag: row.get("tag").and_then(optional).and_then(number),
        trunks: vlans(row, "trunks"),
        kind: own()
            .next()
            .map(|interface| text(interface, "type").to_owned())
            .unwrap_or_default(),
        failed: own().all(failed),
        interfaces: row.get("interfaces").map(set).unwrap_or_default().len(),
        members: members.filter_map(|member| member.parse().ok()).collect(),
        peer: own().find_map(peer),
    }
}

fn mirror(row: &Value, ports: &BTreeMap<RowId, (IfName, OvsPort)>) -> Mirror {
    let name_of = |value: &Value| {
        row_id(value)
            .and_then(|id| ports.get(&id))
            .map(|(name, _)| name.clone())
    };
    let names = |column| {
        row.get(column)
            .map(set)
            .unwrap_or_default()
            .iter()
            .filter_map(name_of)
    };
    let mut taken: BTreeMap<IfName, (bool, bool)> = BTreeMap::new();
    for name in names("select_src_port") {
        taken.entry(name).or_default().0 = true;
    }
    for name in names("select_dst_port") {
        taken.entry(name).or_default().1 = true;
    }
    let output_port = row
        .get("output_port")
        .and_then(optional)
        .and_then(name_of)
        .map(MirrorOutput::Port);
    let output_vlan = row
        .get("output_vlan")
        .and_then(optional)
        .and_then(number)
        .map(MirrorOutput::Vlan);
    let external = |key| {
        row.get("external_ids")
            .and_then(|map| map_get(map, key))
            .and_then(Value::as_str)
    };
    let mark = external(MARK_SESSION).map(|session| OutputKey {
        session: SessionName::from_mark(session),
        output: external(MARK_OUTPUT).unwrap_or_default().to_owned(),
    });
    let counter = |key| {
        row.get("statistics")
            .and_then(|map| map_get(map, key))
            .and_then(number::<u64>)
    };
    Mirror {
        name: text(row, "name").to_owned(),
        mark,
        config: MirrorConfig {
            all: row
                .get("select_all")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            ports: taken
                .into_iter()
                .filter_map(|(name, (src, dst))| Some((name, Taken::new(src, dst)?)))
                .collect(),
            vlans: vlans(row, "select_vlan"),
            snaplen: row.get("snaplen").and_then(optional).and_then(number),
            output: output_port.or(output_vlan).unwrap_or_default(),
        },
        statistics: counter("tx_packets")
            .zip(counter("tx_bytes"))
            .map(|(frames, bytes)| Statistics { frames, bytes }),
    }
}
