//! What of Open vSwitch's database matters to `doctor` alone: versions, the schema, offloads, and whether ovs-vswitchd
//! lives. Nothing is changed.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::observe::{BRIDGE, INTERFACE, MIRROR, PORT, ROOT, caught_up, rows, select};
use super::rpc::{Client, Error, SOCKET};
use super::value::{map_get, optional};
use crate::sys::error::with_causes;
use pve_span_core::doctor::OvsMore;
use pve_span_core::model::excerpt;
use pve_span_core::pve::cluster::Unknown;

/// The pidfile of ovs-vswitchd, below the root directory.
const PIDFILE: &str = "run/openvswitch/ovs-vswitchd.pid";

/// How long ovs-vswitchd may take to act on what was committed a moment ago.
const PATIENCE: Duration = Duration::from_secs(2);

/// The types of interfaces that Open vSwitch drives past the kernel.
const DPDK: [&str; 3] = ["dpdk", "dpdkvhostuser", "dpdkvhostuserclient"];

/// The most names that are kept.
const MOST: usize = 100;

/// Asks; nothing if the database does not answer.
pub fn more(root: &Path, deadline: Instant) -> Option<OvsMore> {
    let mut client = Client::connect(&root.join(SOCKET), deadline).ok()?;
    let schema = client.call("get_schema", &json!(["Open_vSwitch"]));
    let text = |value: &Value, key: &str| {
        value
            .get(key)
            .and_then(optional)
            .and_then(Value::as_str)
            .map(excerpt)
    };
    let (version, lacks) = match &schema {
        Ok(schema) => (text(schema, "version"), Ok(lacks(schema))),
        Err(error) => (None, Err(Unknown(with_causes(error)))),
    };
    let root_row = one(
        &mut client,
        ("Open_vSwitch", &["ovs_version", "other_config"]),
    );
    let offload = root_row
        .as_ref()
        .and_then(|row| map_get(row.get("other_config")?, "hw-offload"))
        .and_then(Value::as_str)
        .filter(|value| *value != "false");
    Some(OvsMore {
        version: root_row.as_ref().and_then(|row| text(row, "ovs_version")),
        schema: version,
        lacks,
        behind: behind(root, &mut client),
        hw_offload: offload.map(excerpt),
        dpdk: dpdk(&mut client).unwrap_or_default(),
    })
}

/// The first row of a table.
fn one(client: &mut Client, table: (&str, &[&str])) -> Option<Value> {
    let results = client.transact(vec![select(table, &json!([]))]).ok()?;
    rows(results.first()?).ok()?.first().cloned()
}

/// What is read and written, and not in the schema (RFC 7047 §3.2): `Mirror.snaplen`.
fn lacks(schema: &Value) -> Vec<String> {
    let needed = [ROOT, BRIDGE, PORT, INTERFACE, MIRROR];
    let columns = needed
        .iter()
        .flat_map(|(table, columns)| columns.iter().map(move |column| (*table, *column)));
    columns
        .filter(|(table, column)| {
            let there = schema
                .get("tables")
                .and_then(|tables| tables.get(table)?.get("columns")?.get(column));
            // `_uuid` is in every table, and in no schema.
            *column != "_uuid" && there.is_none()
        })
        .map(|(table, column)| format!("{table}.{column}"))
        .collect()
}

/// Why nobody acts on what is in the database, if that is so.
fn behind(root: &Path, client: &mut Client) -> Option<String> {
    let pid = crate::sys::files::read_text(&root.join(PIDFILE)).ok();
    if let Some(pid) = pid.and_then(|pid| pid.trim().parse::<u32>().ok()) {
        if !Path::new(&format!("/proc/{pid}")).exists() {
            return Some(format!(
                "/{PIDFILE} names process {pid}, which is not there"
            ));
        }
    }
    let until = Instant::now() + PATIENCE;
    loop {
        let asked = client.transact(vec![select(ROOT, &json!([]))]);
        match asked.as_ref().map(|results| results.first().map(rows)) {
            Ok(Some(Ok(roots))) if !caught_up(roots) => {
                let counter = |column| roots.first().and_then(|row| row.get(column)?.as_i64());
                if Instant::now() >= until {
                    return Some(format!(
                        "cur_cfg is {} and next_cfg {}, for {} seconds",
                        counter("cur_cfg").unwrap_or_default(),
                        counter("next_cfg").unwrap_or_default(),
                        PATIENCE.as_secs()
                    ));
                }
            }
            _ => return None,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn dpdk(client: &mut Client) -> Result<Vec<String>, Error> {
    let selects = DPDK.iter().map(|kind| {
        let condition = json!([["type", "==", kind]]);
        select(("Interface", &["name"]), &condition)
    });
    let results = client.transact(selects.collect())?;
    let mut names = Vec::new();
    for result in &results {
        let found = rows(result)?
            .iter()
            .filter_map(|row| row.get("name")?.as_str());
        names.extend(found.map(excerpt));
    }
    names.truncate(MOST);
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_schema_lacks_is_named() {
        let mut tables = serde_json::Map::new();
        for (table, columns) in [ROOT, BRIDGE, PORT, INTERFACE, MIRROR] {
            let columns: serde_json::Map<String, Value> = columns
                .iter()
                .filter(|column| !matches!(**column, "_uuid" | "snaplen"))
                .map(|column| ((*column).to_owned(), json!({})))
                .collect();
            tables.insert(table.to_owned(), json!({"columns": columns}));
        }
        assert_eq!(lacks(&json!({"tables": tables})), ["Mirror.snaplen"]);
        tables.remove("Mirror");
        let count = MIRROR.1.len() - 1;
        assert_eq!(lacks(&json!({"tables": tables})).len(), count);
    }
}
