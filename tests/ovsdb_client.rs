//! The OVSDB client against a real ovsdb-server, and against peers that behave as no server should.

#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;
mod scene;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pve_span::engine::ovs::{Client, Error};
use scene::three_guests;
use serde_json::{Value, json};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// A peer that reads one request and then does what it is told; the client's result comes back.
fn against<T: Send>(
    peer: impl FnOnce(&mut UnixStream) + Send,
    deadline: Duration,
    client: impl FnOnce(&mut Client) -> T + Send,
) -> T {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("db.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            read_message(&mut stream);
            peer(&mut stream);
        });
        let mut connected = Client::connect(&path, Instant::now() + deadline).unwrap();
        client(&mut connected)
    })
}

/// One request, whole.
fn read_message(stream: &mut UnixStream) -> Value {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
        if let Ok(message) = serde_json::from_slice(&bytes) {
            return message;
        }
    }
}

fn call(client: &mut Client) -> Result<Value, Error> {
    client.call("list_dbs", &json!([]))
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_real_server_runs_every_operation_in_one_transaction() {
    let node = three_guests();
    let mut client = Client::connect(&node.path("run/openvswitch/db.sock"), soon()).unwrap();
    let all = json!([]);
    let operations = [
        json!({"op": "wait", "table": "Bridge", "timeout": 0, "where": [["name", "==", "vmbr2"]], "columns": ["name"],
            "until": "==", "rows": [{"name": "vmbr2"}]}),
        json!({"op": "insert", "table": "Mirror", "uuid-name": "m", "row": {"name": "one"}}),
        json!({"op": "mutate", "table": "Bridge", "where": all, "mutations": [["mirrors", "insert", ["set", [["named-uuid", "m"]]]]]}),
        json!({"op": "update", "table": "Mirror", "where": [["name", "==", "one"]], "row": {"select_all": true}}),
        json!({"op": "select", "table": "Mirror", "where": all, "columns": ["name", "select_all"]}),
        json!({"op": "comment", "comment": "pve-span: a test"}),
    ];
    let results = client.transact(operations.to_vec()).unwrap();
    assert_eq!(
        results[4]["rows"],
        json!([{"name": "one", "select_all": true}])
    );

    let gone = [
        json!({"op": "update", "table": "Bridge", "where": all, "row": {"mirrors": ["set", []]}}),
        json!({"op": "delete", "table": "Mirror", "where": all}),
    ];
    assert_eq!(client.transact(gone.to_vec()).unwrap()[1]["count"], 1);
}

#[test]
fn a_real_server_tells_of_changes_to_what_is_monitored() {
    let node = three_guests();
    let mut client = Client::connect(&node.path("run/openvswitch/db.sock"), soon()).unwrap();
    let initial = client.monitor("Bridge", &["name"]).unwrap();
    assert!(initial.to_string().contains("vmbr2"), "{initial}");
    node.ovs_bridge("vmbr3");
    let update = client.notification().unwrap();
    assert_eq!(update["method"], "update2");
    assert!(update.to_string().contains("vmbr3"), "{update}");
    // Notifications that arrive before a reply are kept.
    node.ovs_bridge("vmbr4");
    client.call("list_dbs", &json!([])).unwrap();
    assert!(client.notification().unwrap().to_string().contains("vmbr4"));
}

#[test]
fn a_real_server_s_refusals_are_told_apart() {
    let node = three_guests();
    let mut client = Client::connect(&node.path("run/openvswitch/db.sock"), soon()).unwrap();
    let refused = |client: &mut Client, operation: Value| {
        client.transact(vec![operation]).unwrap_err().to_string()
    };
    let bad_value = json!({"op": "insert", "table": "Mirror", "row": {"name": "x", "snaplen": 3}});
    assert_eq!(
        refused(&mut client, bad_value),
        "ovsdb-server refused the transaction: constraint violation (3 is not in the valid range 14 to 65535 (inclusive))"
    );
    let unknown = json!({"op": "select", "table": "Mirrors", "where": []});
    assert!(refused(&mut client, unknown).starts_with("ovsdb-server refused the transaction: "));
    let stale = json!({"op": "wait", "table": "Bridge", "timeout": 0, "where": [], "columns": ["name"], "until": "==", "rows": []});
    assert!(matches!(client.transact(vec![stale]), Err(Error::Conflict)));
    // Found out at the commit: one element more than there were operations.
    let bridge = |uuid: &str| json!({"op": "insert", "table": "Bridge", "row": {"name": "twice"}, "uuid-name": uuid});
    let hold = json!({"op": "mutate", "table": "Open_vSwitch", "where": [],
        "mutations": [["bridges", "insert", ["set", [["named-uuid", "a"], ["named-uuid", "b"]]]]]});
    let twice = client
        .transact(vec![bridge("a"), bridge("b"), hold])
        .unwrap_err();
    assert!(
        matches!(&twice, Error::Operation { error, .. } if error == "constraint violation"),
        "{twice}"
    );
    assert!(
        client
            .call("no_such_method", &json!([]))
            .unwrap_err()
            .to_string()
            .starts_with("ovsdb-server refused the request: ")
    );
}

#[test]
fn echo_requests_are_answered_while_waiting() {
    let reply = against(
        |stream| {
            stream
                .write_all(br#"{"method":"echo","params":["are you there"],"id":"echo"}"#)
                .unwrap();
            let answer = read_message(stream);
            assert_eq!(
                answer,
                json!({"id": "echo", "result": ["are you there"], "error": null})
            );
            stream
                .write_all(br#"{"id":1,"result":["Open_vSwitch"],"error":null}"#)
                .unwrap();
        },
        LONG,
        call,
    );
    assert_eq!(reply.unwrap(), json!(["Open_vSwitch"]));
}

#[test]
fn many_messages_in_one_read_and_one_message_over_many() {
    let replies = against(
        |stream| {
            let first = r#"{"id":null,"method":"update2","params":[1]}{"id":99,"result":0,"error":null}{"id":1,"result":"one","error":null}{"id":2,"re"#;
            stream.write_all(first.as_bytes()).unwrap();
            read_message(stream);
            for byte in br#"sult":"two \"}{","error":null}"# {
                stream.write_all(&[*byte]).unwrap();
            }
        },
        LONG,
        |client| {
            (
                call(client).unwrap(),
                call(client).unwrap(),
                client.notification().unwrap()["params"].clone(),
            )
        },
    );
    assert_eq!(replies, (json!("one"), json!("two \"}{"), json!([1])));
}

#[test]
fn a_peer_that_says_nothing_or_only_a_part_runs_into_the_deadline() {
    for part in ["", r#"{"id":1,"result":["#] {
        let error = against(
            |stream| {
                stream.write_all(part.as_bytes()).unwrap();
                // Until the client has gone.
                let _ = stream.read(&mut [0; 1]);
            },
            Duration::from_millis(50),
            call,
        );
        assert!(
            matches!(
                error,
                Err(Error::Timeout {
                    doing: "list_dbs",
                    ..
                })
            ),
            "{error:?}"
        );
    }
}

#[test]
fn a_peer_that_goes_or_talks_nonsense_is_told_apart() {
    let told = |text: &'static [u8]| {
        let error = against(move |stream| stream.write_all(text).unwrap(), LONG, call).unwrap_err();
        pve_span::sys::error::with_causes(&error)
    };
    assert_eq!(
        told(b""),
        "lost the connection to ovsdb-server (list_dbs): unexpected end of file"
    );
    assert_eq!(
        told(b"HTTP/1.1 400"),
        "ovsdb-server's answer is not understood: expected a JSON object"
    );
    assert!(told(b"{\"id\":1,,}").starts_with("ovsdb-server's answer is not understood: "));
    assert_eq!(
        told(br#"{"id":1,"result":null,"error":"unknown\u001b[2J"}"#),
        "ovsdb-server refused the request: unknown\\u{1b}[2J"
    );
    let short = against(
        |stream| {
            stream
                .write_all(br#"{"id":1,"result":[],"error":null}"#)
                .unwrap()
        },
        LONG,
        |client| client.transact(vec![json!({"op": "comment", "comment": "x"})]),
    );
    assert_eq!(
        short.unwrap_err().to_string(),
        "ovsdb-server's answer is not understood: a transaction's result is too short"
    );
}

#[test]
fn deeply_nested_and_endless_answers_do_not_end_the_process() {
    let nested = against(
        |stream| {
            let mut text = b"{\"id\":1,\"result\":".to_vec();
            text.extend(std::iter::repeat_n(b'[', 200_000));
            text.extend(std::iter::repeat_n(b']', 200_000));
            text.extend(b",\"error\":null}");
            let _ = stream.write_all(&text);
        },
        LONG,
        call,
    );
    assert!(matches!(nested, Err(Error::Protocol(_))), "{nested:?}");
}
