//! Words of span.cfg that name nothing in this cluster: guests, NICs, pools and nodes that are not there.
//!
//! Warnings only: a guest may be created tomorrow. What is unknown is not reported as missing.

use crate::config::diagnostic::{Diagnostic, Severity, did_you_mean};
use crate::config::selector::{Output, Selector};
use crate::config::{Annotations, At};
use crate::model::{NicIndex, Vmid};
use crate::pve::cluster::{Cluster, Known};
use crate::pve::guest::Guest;

/// Looks every name up.
pub fn check(file: &str, annotations: &Annotations, cluster: &Cluster) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut say = |at: &At<()>, (message, hint): (String, Option<String>)| {
        let (file, place) = (file.to_owned(), Some(at.place.clone()));
        found.push(Diagnostic {
            file,
            place,
            severity: Severity::Warning,
            message,
            hint,
        });
    };
    for session in annotations.sessions.values() {
        for selector in session.sources.iter().chain(&session.exclude) {
            let at = At {
                value: (),
                place: selector.place.clone(),
            };
            if let Some(fault) = selector_fault(&selector.value, cluster) {
                say(&at, fault);
            }
        }
        for output in &session.outputs {
            let at = At {
                value: (),
                place: output.place.clone(),
            };
            if let Output::Nic(nic) = output.value {
                if let Some(fault) = guest_fault(nic.vmid, Some(nic.index), cluster) {
                    say(&at, (fault, None));
                }
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

fn selector_fault(selector: &Selector, cluster: &Cluster) -> Option<(String, Option<String>)> {
    match selector {
        Selector::Guests { low, high, nic } if low == high => {
            guest_fault(*low, *nic, cluster).map(|fault| (fault, None))
        }
        Selector::Pool(pool) => {
            let pools = cluster
                .pools
                .as_ref()
                .ok()
                .filter(|pools| !pools.exists(pool))?;
            Some((
                format!("there is no pool `{pool}`"),
                did_you_mean(pool, pools.names()),
            ))
        }
        Selector::Node(node, _) => {
            let (placements, this) = (
                cluster.placements.as_ref().ok()?,
                cluster.this.as_ref().ok()?,
            );
            let nodes = || {
                placements
                    .values()
                    .map(|placement| &placement.node)
                    .chain([this])
                    .chain(&cluster.nodes)
            };
            let known = nodes().any(|known| known == node);
            (!known).then(|| {
                (
                    format!("there is no node `{node}`"),
                    did_you_mean(node.as_str(), nodes().map(|n| n.as_str())),
                )
            })
        }
        Selector::Tag(tag, _) => {
            let guests = cluster.guests.values();
            let has = |guest: &Known<Guest>| {
                guest
                    .as_ref()
                    .map_or(true, |guest| guest.tags.contains(tag))
            };
            let known = cluster.placements.is_ok() && !cluster.guests.is_empty();
            let message = || format!("no guest has the tag `{tag}` yet");
            (known && !guests.clone().any(has)).then(|| {
                let tags = guests
                    .flatten()
                    .flat_map(|guest| guest.tags.iter().map(String::as_str));
                (message(), did_you_mean(tag, tags))
            })
        }
        _ => None,
    }
}

fn guest_fault(vmid: Vmid, nic: Option<NicIndex>, cluster: &Cluster) -> Option<String> {
    if !cluster.placements.as_ref().ok()?.contains_key(&vmid) {
        return Some(format!("there is no guest {vmid}"));
    }
    let (guest, nic) = (cluster.guest(vmid)?, nic?);
    (!guest.nics.contains_key(&nic)).then(|| format!("guest {vmid} has no net{nic}"))
}
