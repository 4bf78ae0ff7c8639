//! `.vmlist`, `.members` and `user.cfg`: a file that was caught half written is not taken for the whole, and pools
//! contain what the pools below them contain. storage.cfg and the records of chained hookscripts: whatever they say,
//! paths are paths.

use std::collections::BTreeMap;

use pve_span_core::model::{GuestKind, Invalid, Vmid};
use pve_span_core::pve::chained_hook;
use pve_span_core::pve::cluster::{Pools, Quorum, parse_members, parse_pools, parse_vmlist};
use pve_span_core::pve::storage;
use pve_span_core::pve::storage::{StorageId, Volume};

/// Checks one input, as each of the files.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    vmlist(text);
    members(text);
    pools(text);
    storages(text);
    record(text);
}

fn storages(text: &str) {
    let storages = storage::parse(text);
    assert!(storages.get(&StorageId::local()).is_some());
    for (id, storage) in storages.iter() {
        let path = storages.path(&Volume::ours(id.clone()));
        assert_eq!(path.is_ok(), storage.snippets.is_some());
        match path {
            Ok(path) => {
                super::assert_printable(&path);
                assert!(
                    path.starts_with('/') && path.ends_with("/pve-span"),
                    "{path:?}"
                );
            }
            Err(error) => can_be_shown(&error),
        }
    }
}

fn record(text: &str) {
    match chained_hook::parse(text) {
        Ok(chained) => {
            let again = Vmid::new(101)
                .map(|vmid| chained.to_text(vmid))
                .unwrap_or_default();
            assert_eq!(
                chained_hook::parse(&again).as_ref(),
                Ok(&chained),
                "{again}"
            );
            super::assert_printable(chained.path());
            super::assert_printable(&chained.volume().to_id());
        }
        Err(error) => can_be_shown(&error),
    }
}

fn vmlist(text: &str) {
    let placements = match parse_vmlist(text) {
        Ok(placements) => placements,
        Err(error) => return can_be_shown(&error),
    };
    cut_off(text, |part| parse_vmlist(part).is_err());
    let entry = |(vmid, placement): (&Vmid, &pve_span_core::pve::cluster::Placement)| {
        let kind = match placement.kind {
            GuestKind::Qemu => "qemu",
            GuestKind::Lxc => "lxc",
        };
        let entry = serde_json::json!({"node": placement.node.as_str(), "type": kind, "version": placement.version});
        (vmid.to_string(), entry)
    };
    let ids: serde_json::Map<_, _> = placements.iter().map(entry).collect();
    let again = serde_json::json!({"version": 1, "ids": ids}).to_string();
    assert_eq!(parse_vmlist(&again).as_ref(), Ok(&placements), "{again}");
}

fn members(text: &str) {
    let members = match parse_members(text) {
        Ok(members) => members,
        Err(error) => return can_be_shown(&error),
    };
    cut_off(text, |part| parse_members(part).is_err());
    let list: BTreeMap<_, _> = members
        .nodes
        .iter()
        .map(|node| {
            let online = u8::from(!members.offline.contains(node));
            (node.as_str(), serde_json::json!({"online": online}))
        })
        .collect();
    let quorate = u8::from(members.quorum == Quorum::There);
    let again = serde_json::json!({
        "nodename": members.this.as_str(),
        "cluster": {"quorate": quorate},
        "nodelist": list,
    })
    .to_string();
    assert_eq!(parse_members(&again).as_ref(), Ok(&members), "{again}");
}

fn can_be_shown(error: &Invalid) {
    super::assert_printable(&error.0);
    assert!(error.0.len() < 1024, "{} bytes", error.0.len());
}

/// The text's beginnings, as a reader may catch them.
fn beginnings(text: &str) -> impl Iterator<Item = &str> {
    let text = text.trim_end();
    // All of a short text, some of a long one.
    let step = text.len() / 64 + 1;
    (0..text.len())
        .step_by(step)
        .filter_map(|end| text.get(..end))
}

fn cut_off(text: &str, is_refused: impl Fn(&str) -> bool) {
    for part in beginnings(text) {
        assert!(is_refused(part), "half of a file is taken: {part:?}");
    }
}

fn pools(text: &str) {
    let pools = match parse_pools(text) {
        Ok(pools) => pools,
        Err(error) => return can_be_shown(&error),
    };
    for name in pools.names() {
        assert!(pools.exists(name));
        for guest in pools.members(name) {
            assert!(pools.contains(name, guest));
            for (at, _) in name.match_indices('/') {
                assert!(pools.contains(&name[..at], guest), "{name:?}, {guest}");
            }
        }
    }
    for part in beginnings(text) {
        if let Ok(fewer) = parse_pools(part) {
            says_nothing_else(&fewer, &pools);
        }
    }
    let crlf = text.replace('\n', "\r\n");
    assert_eq!(parse_pools(&crlf).as_ref(), Ok(&pools));
}

/// Whoever is in a pool by the beginning of a file is in it by the whole.
fn says_nothing_else(part: &Pools, whole: &Pools) {
    for name in part.names() {
        assert!(whole.exists(name), "{name:?}");
        for guest in part.members(name) {
            assert!(whole.contains(name, guest), "{name:?}, {guest}");
        }
    }
}
