//! What is told to Prometheus, by Prometheus's own word: the metrics, the alerts, and what the dashboard asks for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use pve_span::daemon::metrics;
use pve_span::daemon::state::{OutputRecord, SessionRecord, State, Totals};
use pve_span_core::health::Health;
use serde_json::Value;

fn in_repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(in_repository(path)).unwrap()
}

/// Every metric has a sample, each state a session, and one session a name that only a mark in a database can have.
fn rich() -> State {
    let names = [
        "audit",
        "dmz-ids",
        "web",
        "flows",
        "off",
        "a \"mark\"\\\nof ours",
    ];
    let output = OutputRecord {
        frames: Some(12_345_678_901),
        bytes: Some(u64::MAX),
        device: Some("tap200i1".into()),
        dropped: Some(17),
    };
    let session = |health| SessionRecord {
        health,
        since: 1_800_000_000,
        reasons: vec!["a reason".into()],
        ids: Vec::new(),
        present: 2,
        configured: 3,
        blind: 1.0 / 3.0,
        outputs: [
            ("200/net1".to_owned(), output.clone()),
            ("vlan:999".to_owned(), OutputRecord::default()),
        ]
        .into(),
    };
    State {
        version: "1.2.3~rc1+g0".into(),
        pid: 1,
        started: 1_800_000_000,
        written: 1_800_000_100,
        notice: None,
        sessions: names
            .iter()
            .zip(Health::ALL)
            .map(|(name, health)| ((*name).to_owned(), session(health)))
            .collect::<BTreeMap<_, _>>(),
        totals: Totals {
            reconciles: 3,
            failures: 1,
            last_reconcile: Some(1_800_000_090),
            last_change: Some(1_800_000_080),
        },
    }
}

/// Runs promtool; what it said, if it found nothing.
#[track_caller]
fn promtool(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is in Debian's package prometheus");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn promtool_has_nothing_to_say_about_the_metrics() {
    assert_eq!(promtool(&["check", "metrics"], &metrics::text(&rich())), "");
    assert_eq!(promtool(&["check", "metrics"], &metrics::stopped()), "");
    let bare = metrics::text(&State::default());
    assert_eq!(promtool(&["check", "metrics"], &bare), "");
}

#[test]
fn alerts_fire_when_they_should() {
    promtool(&["check", "rules", "pve-config/prometheus-alerts.yml"], "");
    promtool(&["test", "rules", "tests/prometheus-alerts.test.yml"], "");
}

/// The metrics of ours that there are.
fn exported() -> BTreeSet<String> {
    let text = metrics::text(&rich());
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    families
        .filter_map(|rest| rest.split(' ').next())
        .map(str::to_owned)
        .collect()
}

/// The metrics of ours that a text names.
fn named(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("pve_span_"))
        .map(str::to_owned)
        .collect()
}

fn texts_under<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let (true, Some(text)) = (name == key, value.as_str()) {
                    found.push(text);
                }
                texts_under(value, key, found);
            }
        }
        Value::Array(values) => values
            .iter()
            .for_each(|value| texts_under(value, key, found)),
        _ => {}
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&read("pve-config/grafana-dashboard.json")).unwrap()
}

#[test]
fn the_dashboard_asks_for_all_metrics_and_no_others() {
    let dashboard = dashboard();
    let mut queries = Vec::new();
    texts_under(&dashboard, "expr", &mut queries);
    texts_under(&dashboard, "query", &mut queries);
    assert!(queries.len() > 12);
    assert_eq!(named(&queries.join(" ")), exported());
}

#[test]
fn promtool_understands_each_query_of_the_dashboard() {
    let dashboard = dashboard();
    let mut queries = Vec::new();
    texts_under(&dashboard, "expr", &mut queries);
    let rules: Vec<Value> = queries
        .iter()
        .enumerate()
        .map(|(number, query)| {
            let query = query.replace("$__rate_interval", "5m");
            serde_json::json!({"record": format!("query:{number}"), "expr": query})
        })
        .collect();
    // JSON is YAML.
    let rules = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    std::fs::write(&file, rules.to_string()).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "");
}

#[test]
fn the_dashboard_can_be_imported_anywhere() {
    let dashboard = dashboard();
    assert!(
        dashboard["schemaVersion"].as_u64().unwrap() >= 38,
        "Grafana 10"
    );
    assert!(dashboard.get("id").is_none());
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels
        .iter()
        .map(|panel| panel["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{target}");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&Value> = variables.iter().map(|variable| &variable["name"]).collect();
    assert_eq!(names, ["datasource", "instance", "session"]);
}

#[test]
fn the_alerts_and_the_page_name_metrics_that_there_are() {
    let alerts = named(&read("pve-config/prometheus-alerts.yml"));
    assert!(
        alerts.is_subset(&exported()),
        "{:?}",
        alerts.difference(&exported())
    );
    assert_eq!(named(&read("docs/metrics.md")), exported());
}

#[test]
fn the_page_tells_of_every_alert() {
    let (alerts, page) = (
        read("pve-config/prometheus-alerts.yml"),
        read("docs/metrics.md"),
    );
    let names = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let missing: Vec<&str> = names
        .filter(|name| !page.contains(&format!("`{name}`")))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}
