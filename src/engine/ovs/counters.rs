//! What our mirrors have counted, and nothing else: cheap enough to be asked for again and again.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::observe::{MARK_OUTPUT, MARK_SESSION, rows};
use super::rpc::{Client, Error, SOCKET};
use super::value::{map_get, number};
use pve_span_core::engine::Statistics;

/// How often ovs-vswitchd tells new figures (`other_config:stats-update-interval`, ovs-vswitchd.conf.db(5)).
const USUAL_INTERVAL: Duration = Duration::from_secs(5);

/// What was counted.
#[derive(Debug)]
pub struct CounterReading {
    /// By session and output, as span.cfg writes them; over all bridges.
    pub mirrors: BTreeMap<(String, String), Statistics>,
    /// How old they may be.
    pub interval: Duration,
}

/// Asks for them.
///
/// # Errors
/// The database does not answer.
pub fn statistics(root: &Path, deadline: Instant) -> Result<CounterReading, Error> {
    asked(&mut Client::connect(&root.join(SOCKET), deadline)?)
}

/// Asks for them over a connection.
///
/// # Errors
/// The database does not answer.
pub fn asked(client: &mut Client) -> Result<CounterReading, Error> {
    let select = |table: &str, columns: &[&str]| json!({"op": "select", "table": table, "where": [], "columns": columns});
    let results = client.transact(vec![
        select("Mirror", &["external_ids", "statistics"]),
        select("Open_vSwitch", &["other_config"]),
    ])?;
    let mut figures = CounterReading {
        mirrors: BTreeMap::new(),
        interval: USUAL_INTERVAL,
    };
    if let Some(mirrors) = results.first() {
        for row in rows(mirrors)? {
            if let Some((key, counted)) = counted(row) {
                let sum: &mut Statistics = figures.mirrors.entry(key).or_default();
                sum.frames = sum.frames.saturating_add(counted.frames);
                sum.bytes = sum.bytes.saturating_add(counted.bytes);
            }
        }
    }
    if let Some(roots) = results.get(1) {
        let interval = rows(roots)?.iter().find_map(|root| {
            let other = root.get("other_config")?;
            map_get(other, "stats-update-interval")?
                .as_str()?
                .parse()
                .ok()
        });
        figures.interval = interval
            .map_or(USUAL_INTERVAL, Duration::from_millis)
            .max(USUAL_INTERVAL);
    }
    Ok(figures)
}

fn counted(row: &Value) -> Option<((String, String), Statistics)> {
    let ids = row.get("external_ids")?;
    let session = map_get(ids, MARK_SESSION)?.as_str()?;
    let output = map_get(ids, MARK_OUTPUT).and_then(Value::as_str);
    let statistics = row.get("statistics")?;
    let counter = |key| map_get(statistics, key).and_then(number::<u64>);
    let counted = Statistics {
        frames: counter("tx_packets")?,
        bytes: counter("tx_bytes")?,
    };
    Some((
        (session.to_owned(), output.unwrap_or_default().to_owned()),
        counted,
    ))
}
