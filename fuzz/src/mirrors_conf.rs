//! proxmox-ovs-mirror's mirrors.conf: faults can be shown, and what comes out is a valid span.cfg, alone and behind
//! another one.

use pve_span_core::config;
use pve_span_core::import::{append, merge, mirrors_conf, name_sessions, text};

/// What is in span.cfg already: names, a loop to be closed, and defaults.
const EXISTING: &str =
    "[defaults]\ndirection = to\nengine = ovs\n[eno1]\nsource = 100\noutput = 101/net1\n";

/// Checks one input.
pub fn check(data: &[u8]) {
    let Ok(conf) = std::str::from_utf8(data) else {
        return;
    };
    let mut read = mirrors_conf::parse("mirrors.conf", conf);
    assert!(read.rules.len() == read.origins.len() && read.rules.len() == read.names.len());
    assert!(read.diagnostics.len() <= 1000);
    let lines = conf.lines().count();
    for diagnostic in &read.diagnostics {
        let shown = diagnostic.to_string();
        super::assert_printable(&shown);
        assert!(shown.len() < 8192, "{} bytes", shown.len());
        let place = diagnostic.place.as_ref().unwrap();
        assert!((1..=lines).contains(&place.line));
        assert!(
            place
                .text
                .get(place.offset..place.offset + place.width)
                .is_some()
        );
    }
    let mut drafts = merge(&read.rules, &mut read.origins);
    name_sessions(&mut drafts, &read.origins, EXISTING);
    let sessions = text(&drafts, &read.origins);
    super::assert_printable(&sessions);
    let alone = config::parse("span.cfg", &format!("#\n{sessions}"));
    assert!(alone.is_valid(), "{sessions}");
    let behind = config::parse("span.cfg", &append(EXISTING, &sessions).0);
    assert!(behind.is_valid(), "{sessions}");
    assert_eq!(behind.sessions.len(), alone.sessions.len() + 1);
}
