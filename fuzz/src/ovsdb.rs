//! Whatever ovsdb-server may send: it does not matter in which pieces it arrives, every conversation ends, what we
//! say stays JSON, and only rows that carry our mark are changed.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use pve_span::engine::ovs::monitor::{Heard, Monitor};
use pve_span::engine::ovs::{
    Client, Framing, FramingError, MARK_SESSION, PortSelection, asked, commit, read, wait,
};
use pve_span::sys::error::with_causes;
use pve_span_core::config;
use pve_span_core::config::Annotations;
use pve_span_core::state::{Observed, Ovs, OvsState};
use serde_json::Value;

/// What fits into a socket, with what is answered to it.
const MOST: usize = 4096;

/// Checks one input: a stream of bytes.
pub fn check(data: &[u8]) {
    framing(data);
    if data.len() <= MOST {
        let names = ["tap101i0", "tap200i0"];
        let named = names.into_iter().map(|name| name.parse().unwrap());
        for which in [
            PortSelection::All,
            PortSelection::AllInDetail,
            PortSelection::Named(named.collect()),
        ] {
            conversation(data, &which);
        }
        announcements(data);
        figures(data);
    }
}

fn framing(data: &[u8]) {
    let (messages, end) = received([data]);
    assert!(data.starts_with(&messages.concat()));
    for message in &messages {
        let text = message.trim_ascii();
        assert!(text.starts_with(b"{") && text.ends_with(b"}"));
        if let Ok(value) = serde_json::from_slice::<Value>(message) {
            assert!(value.is_object());
        }
    }
    let as_whole = (messages, end);
    assert_eq!(as_whole, received(data.chunks(1)));
    // Pieces of lengths that the input itself decides.
    let mut rest = data;
    let pieces = std::iter::from_fn(|| {
        let length = usize::from(*rest.first()?) % 61 + 1;
        let (piece, behind) = rest.split_at(length.min(rest.len()));
        rest = behind;
        Some(piece)
    });
    assert_eq!(as_whole, received(pieces));
}

/// The messages in a stream that arrives in these pieces, and how it ends.
fn received<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Vec<u8>>, Option<FramingError>) {
    let mut framing = Framing::default();
    let mut messages = Vec::new();
    for piece in pieces {
        framing.push(piece);
        loop {
            match framing.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

static SPAN_CFG: LazyLock<Annotations> = LazyLock::new(|| {
    let text = "[dmz]\nsource = 101, 102/net0, tag:web\noutput = 200/net0\ncapture-only = 200/net0\n\
        [rspan]\nsource = bridge:vmbr1\noutput = vlan:999\nvlan = 10\n";
    let annotations = config::parse("span.cfg", text);
    assert!(annotations.is_valid(), "{:?}", annotations.diagnostics);
    annotations
});

/// Reads, changes, reads back and waits, as a reconcile does, with a server that has said all of it before.
fn conversation(data: &[u8], which: &PortSelection) {
    let (ours, mut servers) = UnixStream::pair().unwrap();
    servers.write_all(data).unwrap();
    servers.shutdown(Shutdown::Write).unwrap();
    // Nothing waits for it: the stream has an end.
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut client = Client::over(ours, deadline);
    match read(&mut client, which) {
        Err(error) => {
            super::assert_printable(&with_causes(&error));
            drop(client);
        }
        Ok(ovs) => reconcile(client, &ovs, deadline),
    }
    let mut said = Vec::new();
    servers.read_to_end(&mut said).unwrap();
    is_allowed(&said);
}

/// The service hears whatever arrives, until the end, and answers echoes only.
fn announcements(data: &[u8]) {
    let (ours, mut servers) = UnixStream::pair().unwrap();
    servers.write_all(data).unwrap();
    servers.shutdown(Shutdown::Write).unwrap();
    let mut monitor = Monitor::over(ours).unwrap();
    assert_eq!(monitor.drain(), Heard::End);
    drop(monitor);
    let mut said = Vec::new();
    servers.read_to_end(&mut said).unwrap();
    let (messages, end) = received([&said[..]]);
    assert_eq!((messages.concat().len(), end), (said.len(), None));
    for (number, message) in messages.iter().enumerate() {
        let message: Value = serde_json::from_slice(message).unwrap();
        let is_request = number == 0 && message["method"] == "monitor_cond";
        assert!(is_request || message["error"].is_null() && message.get("method").is_none());
    }
}

/// What mirrors have counted, over a connection like any other.
fn figures(data: &[u8]) {
    let (ours, mut servers) = UnixStream::pair().unwrap();
    servers.write_all(data).unwrap();
    servers.shutdown(Shutdown::Write).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    match asked(&mut Client::over(ours, deadline)) {
        Err(error) => super::assert_printable(&with_causes(&error)),
        Ok(figures) => assert!(figures.interval >= Duration::from_secs(5)),
    }
}

fn reconcile(mut client: Client, ovs: &Ovs, deadline: Instant) {
    let observed = Observed {
        ovs: OvsState::Present(ovs.clone()),
        ..super::node::OBSERVED.clone()
    };
    let plan = super::node::planned(&SPAN_CFG, &observed);
    for action in &plan.actions {
        if let (Some(row), Some(bridge)) = (&action.row, action.mirror.engine.bridge()) {
            let mark = ovs.bridges[bridge].mirrors[row].mark.as_ref();
            let session = mark.map(|mark| &mark.session);
            assert_eq!(session, Some(&action.mirror.of.session), "{action}");
        }
    }
    match commit(&mut client, &plan, ovs, "fuzz") {
        Err(error) => super::assert_printable(&with_causes(&error)),
        Ok((now, goal)) => {
            if let Err(error) = now {
                super::assert_printable(&with_causes(&error));
            }
            wait(client, goal, deadline, None);
        }
    }
}

/// What we say is JSON, and changes mirrors with our mark, `Bridge.mirrors` by mutation and `next_cfg`, nothing else.
fn is_allowed(said: &[u8]) {
    let (messages, end) = received([said]);
    assert_eq!((messages.concat().len(), end), (said.len(), None));
    for message in &messages {
        let message: Value = serde_json::from_slice(message).unwrap();
        if message["method"] != "transact" {
            continue;
        }
        for operation in &message["params"].as_array().unwrap()[1..] {
            let word = |key: &str| operation[key].as_str().unwrap_or_default();
            match (word("op"), word("table")) {
                ("select" | "wait", _) | ("comment", "") | ("insert", "Mirror") => {}
                ("update" | "mutate", "Mirror") => {
                    let marked = operation["where"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(|condition| {
                            condition[0] == "external_ids"
                                && condition[2].to_string().contains(MARK_SESSION)
                        });
                    assert!(marked, "{operation}");
                }
                ("mutate", "Bridge") => assert_eq!(mutated(operation), ["mirrors"].into()),
                ("mutate", "Open_vSwitch") => assert_eq!(mutated(operation), ["next_cfg"].into()),
                _ => panic!("{operation}"),
            }
        }
    }
}

fn mutated(operation: &Value) -> BTreeSet<&str> {
    let mutations = operation["mutations"].as_array().unwrap();
    mutations
        .iter()
        .map(|mutation| mutation[0].as_str().unwrap())
        .collect()
}
