//! Mirrors' filters, which Open vSwitch has from 3.4 on: read only by those who take a mirror over.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::observe::rows;
use super::rpc::{Client, Error};
use super::value::{optional, row_id};
use crate::core::state::RowId;

/// The filter of each mirror that has one; none where the schema has no such column.
///
/// # Errors
/// The database cannot be asked, or its answer is not what the schema promises.
pub fn filters(client: &mut Client) -> Result<BTreeMap<RowId, String>, Error> {
    // Without `columns` it is all that there are: to name one that is not there is an error.
    let select = json!({"op": "select", "table": "Mirror", "where": []});
    let results = client.transact(vec![select])?;
    let missing = || Error::Protocol("a select's result is missing".into());
    let filter = |row: &Value| {
        let id = row.get("_uuid").and_then(row_id)?;
        let filter = row.get("filter").and_then(optional)?.as_str()?;
        (!filter.is_empty()).then(|| (id, filter.to_owned()))
    };
    let rows = rows(results.first().ok_or_else(missing)?)?;
    Ok(rows.iter().filter_map(filter).collect())
}
