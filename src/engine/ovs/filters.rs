//! Mirrors' filters, which Open vSwitch has from 3.4 on: read only by those who take a mirror over.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::observe::rows;
use super::rpc::{Client, Error};
use super::value::{optional, row_id};
use pve_span_core::state::RowId;

/// The filter of each mirror that has one; none where the schema has no such column.
///
/// # Errors
/// The database does not answer, or its answer is not what the schema promises.
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use super::*;

    /// Asks a server that answers with these rows.
    fn of(rows: &Value) -> BTreeMap<RowId, String> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let answer = json!({"id": 1, "error": null, "result": [{"rows": rows}]});
        let server = std::thread::spawn(move || {
            let mut asked = [0; 4096];
            let count = theirs.read(&mut asked).unwrap();
            let asked: Value = serde_json::from_slice(&asked[..count]).unwrap();
            let mut answer = answer;
            answer["id"] = asked["id"].clone();
            theirs.write_all(answer.to_string().as_bytes()).unwrap();
        });
        let mut client = Client::over(ours, Instant::now() + Duration::from_secs(20));
        let found = filters(&mut client).unwrap();
        server.join().unwrap();
        found
    }

    #[test]
    fn filters_are_read_where_there_are_any() {
        let row = |id: &str| json!(["uuid", id]);
        let found = of(&json!([
            {"_uuid": row("a"), "name": "old schema"},
            {"_uuid": row("b"), "filter": ["set", []]},
            {"_uuid": row("c"), "filter": "icmp"},
        ]));
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|(id, filter)| (id.0.as_str(), filter.as_str()))
            .collect();
        assert_eq!(found, [("c", "icmp")]);
    }
}
