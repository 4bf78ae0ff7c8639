//! A plan → the operations of one guarded transaction.
//!
//! Guards (`wait` with timeout 0: compare-and-swap) cover what the plan rests on: a bridge's set of
//! mirrors, the ports that it names (a vanished one would be dropped without a word), and that a row
//! still carries our mark. If one of them fails, nothing is done and the caller reads again.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::observe::{MARK_OUTPUT, MARK_SESSION};
use super::rpc::Error;
use super::value::{to_map, to_optional, to_set, to_uuid};
use pve_span_core::model::IfName;
use pve_span_core::model::Taken;
use pve_span_core::plan::{Action, Change, Plan};
use pve_span_core::state::{MirrorKey, MirrorOutput, Ovs, OvsBridge, OvsPort, RowId};

/// The operations that carry the plan out.
///
/// # Errors
/// The plan names something that was not observed: read again ([`Error::Conflict`]).
pub fn operations(plan: &Plan, ovs: &Ovs) -> Result<Vec<Value>, Error> {
    let mut lowering = OperationsBuilder {
        ovs,
        guards: BTreeMap::new(),
        changes: Vec::new(),
    };
    let mut created: BTreeMap<&MirrorKey, Vec<&Change>> = BTreeMap::new();
    let mut changed: BTreeMap<&RowId, (&MirrorKey, Vec<&Change>)> = BTreeMap::new();
    for action in plan
        .actions
        .iter()
        .filter(|action| action.mirror.engine.bridge().is_some())
    {
        match (&action.row, &action.change) {
            (Some(row), Change::Remove { .. }) => lowering.remove(action, row)?,
            (Some(row), change) => changed
                .entry(row)
                .or_insert_with(|| (&action.mirror, Vec::new()))
                .1
                .push(change),
            (None, change) => created.entry(&action.mirror).or_default().push(change),
        }
    }
    for (row, (key, changes)) in changed {
        lowering.change(row, key, &changes)?;
    }
    for (number, (key, changes)) in created.into_iter().enumerate() {
        lowering.create(&format!("mirror{number}"), key, &changes)?;
    }
    let mut operations: Vec<Value> = lowering.guards.into_values().collect();
    operations.extend(lowering.changes);
    Ok(operations)
}

struct OperationsBuilder<'a> {
    ovs: &'a Ovs,
    /// By what they guard, so that each stands once.
    guards: BTreeMap<RowId, Value>,
    changes: Vec<Value>,
}

impl<'a> OperationsBuilder<'a> {
    fn bridge(&mut self, key: &MirrorKey) -> Result<&'a OvsBridge, Error> {
        let found = key
            .engine
            .bridge()
            .and_then(|name| Some((name, self.ovs.bridges.get(name)?)));
        let (name, bridge) = found.ok_or(Error::Conflict)?;
        let mirrors = to_set(bridge.mirrors.keys().map(to_uuid));
        self.guard(
            "Bridge",
            &bridge.row,
            &by_id(&bridge.row),
            &json!({"name": name.as_str(), "mirrors": mirrors}),
        );
        Ok(bridge)
    }

    fn port(&mut self, bridge: &'a OvsBridge, name: &IfName) -> Result<&'a OvsPort, Error> {
        let port = bridge.ports.get(name).ok_or(Error::Conflict)?;
        self.guard(
            "Port",
            &port.row,
            &by_id(&port.row),
            &json!({"name": name.as_str()}),
        );
        Ok(port)
    }

    /// Fails the transaction unless exactly this row is there with these columns.
    fn guard(&mut self, table: &str, id: &RowId, condition: &Value, row: &Value) {
        let columns: Vec<&String> = row
            .as_object()
            .map(|row| row.keys().collect())
            .unwrap_or_default();
        let wait = json!({"op": "wait", "table": table, "timeout": 0, "where": condition,
            "columns": columns, "until": "==", "rows": [row]});
        self.guards.insert(id.clone(), wait);
    }

    /// A condition that only our own row meets.
    fn own(&mut self, bridge: &OvsBridge, id: &RowId, key: &MirrorKey) -> Result<Value, Error> {
        let mirror = bridge.mirrors.get(id).ok_or(Error::Conflict)?;
        let mark = to_map(&[(MARK_SESSION, key.of.session.as_str())]);
        let condition = json!([
            ["_uuid", "==", to_uuid(id)],
            ["external_ids", "includes", mark]
        ]);
        self.guard("Mirror", id, &condition, &json!({"name": mirror.name}));
        Ok(condition)
    }

    fn remove(&mut self, action: &Action, row: &RowId) -> Result<(), Error> {
        let bridge = self.bridge(&action.mirror)?;
        self.own(bridge, row, &action.mirror)?;
        self.mutate_mirrors(bridge, "delete", &to_uuid(row));
        Ok(())
    }

    fn create(
        &mut self,
        uuid_name: &str,
        key: &MirrorKey,
        changes: &[&Change],
    ) -> Result<(), Error> {
        let bridge = self.bridge(key)?;
        let mut row = self.columns(bridge, changes)?;
        row.insert(
            "name".into(),
            json!(format!(
                "pve-span/{}/{}",
                key.of.session.as_str(),
                key.of.output
            )),
        );
        let mark = to_map(&[
            (MARK_SESSION, key.of.session.as_str()),
            (MARK_OUTPUT, &key.of.output),
        ]);
        row.insert("external_ids".into(), mark);
        for (column, direction) in COLUMNS {
            let ports = self.ports(bridge, changes, |from, to| {
                !from.is_some_and(direction) && to.is_some_and(direction)
            })?;
            row.insert(column.into(), to_set(ports));
        }
        self.changes
            .push(json!({"op": "insert", "table": "Mirror", "row": row, "uuid-name": uuid_name}));
        self.mutate_mirrors(bridge, "insert", &json!(["named-uuid", uuid_name]));
        Ok(())
    }

    fn change(&mut self, id: &RowId, key: &MirrorKey, changes: &[&Change]) -> Result<(), Error> {
        let bridge = self.bridge(key)?;
        let condition = self.own(bridge, id, key)?;
        let row = self.columns(bridge, changes)?;
        if !row.is_empty() {
            self.changes
                .push(json!({"op": "update", "table": "Mirror", "where": condition, "row": row}));
        }
        let mut mutations = Vec::new();
        for (column, takes) in COLUMNS {
            let leave = self.leaving(changes, takes);
            if !leave.is_empty() {
                mutations.push(json!([column, "delete", to_set(leave)]));
            }
            let join = self.ports(bridge, changes, |from, to| {
                !from.is_some_and(takes) && to.is_some_and(takes)
            })?;
            if !join.is_empty() {
                mutations.push(json!([column, "insert", to_set(join)]));
            }
        }
        if !mutations.is_empty() {
            let mutate = json!({"op": "mutate", "table": "Mirror", "where": condition, "mutations": mutations});
            self.changes.push(mutate);
        }
        Ok(())
    }

    /// The ports that a column loses. They need no guard, and may be anywhere: somebody may have put a
    /// port of another bridge in.
    fn leaving(&self, changes: &[&Change], takes: fn(Taken) -> bool) -> Vec<Value> {
        let left = changes.iter().filter_map(|change| match change {
            Change::SetSource { port, from, to, .. }
                if from.is_some_and(takes) && !to.is_some_and(takes) =>
            {
                Some(port)
            }
            _ => None,
        });
        let row = |name: &IfName| {
            self.ovs
                .bridges
                .values()
                .find_map(|bridge| bridge.ports.get(name))
        };
        left.filter_map(row)
            .map(|port| to_uuid(&port.row))
            .collect()
    }

    fn mutate_mirrors(&mut self, bridge: &OvsBridge, mutator: &str, mirror: &Value) {
        self.changes.push(
            json!({"op": "mutate", "table": "Bridge", "where": by_id(&bridge.row),
            "mutations": [["mirrors", mutator, to_set([mirror.clone()])]]}),
        );
    }

    /// The columns that are written as a whole.
    fn columns(
        &mut self,
        bridge: &'a OvsBridge,
        changes: &[&Change],
    ) -> Result<Map<String, Value>, Error> {
        let mut row = Map::new();
        for change in changes {
            match change {
                Change::SetOutput { to, .. } => {
                    let port = match to {
                        MirrorOutput::Port(name) => Some(to_uuid(&self.port(bridge, name)?.row)),
                        _ => None,
                    };
                    let vlan = match to {
                        MirrorOutput::Vlan(vlan) => Some(json!(vlan)),
                        _ => None,
                    };
                    row.insert("output_port".into(), to_optional(port));
                    row.insert("output_vlan".into(), to_optional(vlan));
                }
                Change::SetAll { all } => {
                    row.insert("select_all".into(), json!(all));
                }
                Change::SetVlans { to } => {
                    row.insert(
                        "select_vlan".into(),
                        to_set(to.iter().map(|vlan| json!(vlan))),
                    );
                }
                Change::SetSnaplen { to } => {
                    row.insert("snaplen".into(), to_optional(to.map(|bytes| json!(bytes))));
                }
                // A frame filter is nothing that Open vSwitch's mirrors have.
                Change::Create
                | Change::Remove { .. }
                | Change::SetSource { .. }
                | Change::SetFrames { .. }
                | Change::Renew => {}
            }
        }
        Ok(row)
    }

    /// The ports whose change is of the kind asked for.
    fn ports(
        &mut self,
        bridge: &'a OvsBridge,
        changes: &[&Change],
        asked: impl Fn(Option<Taken>, Option<Taken>) -> bool,
    ) -> Result<Vec<Value>, Error> {
        let mut names: BTreeSet<&IfName> = BTreeSet::new();
        for change in changes {
            if let Change::SetSource { port, from, to, .. } = change {
                if asked(*from, *to) {
                    names.insert(port);
                }
            }
        }
        names
            .into_iter()
            .map(|name| Ok(to_uuid(&self.port(bridge, name)?.row)))
            .collect()
    }
}

type SelectColumn = (&'static str, fn(Taken) -> bool);

/// The columns that select by port, and which of a port's frames each of them takes.
const COLUMNS: [SelectColumn; 2] = [
    ("select_src_port", Taken::sent),
    ("select_dst_port", Taken::delivered),
];

fn by_id(row: &RowId) -> Value {
    json!([["_uuid", "==", to_uuid(row)]])
}
