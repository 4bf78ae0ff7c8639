//! What others have that copies or diverts frames: filters of tc (mirred) at the ports of guests, sources and outputs, and
//! rules of nftables (`dup`, `fwd`) at sources and outputs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::host;
use crate::reconcile::observe::Look;
use crate::sys::mirred::{Action, Place, mirred};
use crate::sys::program::find;
use pve_span_core::doctor::{Diversion, DivertedBy, Original};
use pve_span_core::engine::nft::TABLE;
use pve_span_core::model::{IfName, excerpt};
use pve_span_core::state::MirrorOutput;
use pve_span_core::state::port_map::PortMap;

/// The most tables that are read, and findings that are kept.
const MOST: usize = 100;

/// Looks. What cannot be read is left out: it is somebody else's, and doctor's own findings say what nft cannot do.
pub fn look(look: &Look) -> Vec<Diversion> {
    let (mut ends, mut ports) = (ends(look), BTreeSet::new());
    let map = PortMap::new(&look.observed);
    for port in map.all() {
        ports.insert(&port.name);
        let nic = port.nic.as_ref();
        ports.extend(nic.and_then(|nic| nic.device.as_ref()));
    }
    ports.append(&mut ends.clone());
    let mut found: Vec<Diversion> = ports
        .into_iter()
        .flat_map(|device| filters(look, device))
        .collect();
    // A device may have come under another name since.
    ends.retain(|name| look.observed.links.contains_key(*name));
    found.extend(rules().into_iter().filter(|it| ends.contains(&it.device)));
    found.truncate(MOST);
    found
}

/// The devices of sources and outputs.
fn ends(look: &Look) -> BTreeSet<&IfName> {
    let desired = &look.desired;
    let mut ends: BTreeSet<&IfName> = desired.outputs.keys().collect();
    for copies in desired.copies.values() {
        ends.extend(copies.sources.keys());
    }
    for wanted in desired.mirrors.values() {
        ends.extend(wanted.config.ports.keys());
        if let MirrorOutput::Port(port) = &wanted.config.output {
            ends.insert(port);
        }
    }
    ends
}

fn filters(look: &Look, device: &IfName) -> Vec<Diversion> {
    let Some(link) = look.observed.links.get(device) else {
        return Vec::new();
    };
    let named = |index: u32| {
        let mut links = look.observed.links.iter();
        links
            .find(|(_, link)| link.index == index)
            .map(|(name, _)| name.clone())
    };
    let found = mirred(link.index).unwrap_or_else(|error| {
        log::debug!("{device}: {error}");
        Vec::new()
    });
    let found = found.into_iter().map(|filter| {
        let place = match filter.place {
            Place::Ingress => "ingress".to_owned(),
            Place::Egress => "egress".to_owned(),
            Place::Root(handle) => format!("parent {handle:x}:"),
        };
        let (original, does) = match filter.action {
            Action::Copies => (Original::GoesOn, "mirror"),
            Action::Diverts => (Original::Ends, "redirect"),
        };
        let (preference, kind) = (filter.preference, excerpt(&filter.kind));
        Diversion {
            by: DivertedBy::Tc,
            device: device.clone(),
            original,
            to: named(filter.to),
            seen: format!(
                "tc filter show dev {device} {place}: pref {preference} {kind}, action mirred {does}"
            ),
            remedy: format!("tc filter del dev {device} {place} pref {preference}"),
            place,
        }
    });
    found.collect()
}

/// The rules of all tables of the netdev family but ours.
fn rules() -> Vec<Diversion> {
    let Some(nft) = find("nft") else {
        return Vec::new();
    };
    let Ok((0, tables)) = host::ask(&nft, &["list", "tables", "netdev"]) else {
        return Vec::new();
    };
    let names = tables
        .lines()
        .filter_map(|line| line.trim().strip_prefix("table netdev "));
    names
        .filter(|name| *name != TABLE)
        .take(MOST)
        .flat_map(|name| table(&nft, name))
        .collect()
}

fn table(nft: &Path, name: &str) -> Vec<Diversion> {
    match host::ask(nft, &["-a", "-s", "list", "table", "netdev", name]) {
        Ok((0, said)) => diverting(name, &said),
        _ => Vec::new(),
    }
}

/// A chain as nft(8) lists it.
#[derive(Default)]
struct Chain<'a> {
    hook: Option<(&'a str, Vec<&'a str>)>,
    rules: Vec<&'a str>,
}

/// Reads nft(8)'s own notation, as its JSON has no devices (nftables 1.0.6). A rule of a chain that others jump to is told
/// for each device that its table hooks.
fn diverting(table: &str, said: &str) -> Vec<Diversion> {
    let mut chains: BTreeMap<&str, Chain<'_>> = BTreeMap::new();
    let mut name = None;
    for line in said.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("chain ") {
            name = rest.split_once(" {").map(|(name, _)| name);
        } else if line == "}" {
            name = None;
        } else if let Some(chain) = name.map(|name| chains.entry(name).or_default()) {
            match line.strip_prefix("type filter hook ") {
                Some(rest) => {
                    let hook = rest.split(' ').next().unwrap_or_default();
                    let devices = rest.split(" priority ").next().unwrap_or_default();
                    chain.hook = Some((hook, devices.split('"').skip(1).step_by(2).collect()));
                }
                None => chain.rules.push(line),
            }
        }
    }
    let hooked: Vec<(&str, &str)> = chains
        .values()
        .filter_map(|chain| chain.hook.as_ref())
        .flat_map(|(hook, devices)| devices.iter().map(|device| (*hook, *device)))
        .collect();
    let mut found = Vec::new();
    for (name, chain) in &chains {
        let own = chain.hook.as_ref();
        let own: Option<Vec<(&str, &str)>> = own.map(|(hook, devices)| {
            let devices = devices.iter();
            devices.map(|device| (*hook, *device)).collect()
        });
        for rule in &chain.rules {
            for (hook, device) in own.as_ref().unwrap_or(&hooked) {
                found.extend(diverting_rule(table, name, rule, hook, device));
            }
        }
    }
    found
}

/// `counter dup to "tap200i1" # handle 2`.
fn diverting_rule(
    table: &str,
    chain: &str,
    rule: &str,
    hook: &str,
    device: &str,
) -> Option<Diversion> {
    let (rule, handle) = rule.rsplit_once(" # handle ")?;
    let padded = format!(" {rule}");
    let (original, to) = match padded.split_once(" dup to ") {
        Some((_, to)) => (Original::GoesOn, to),
        None => (Original::Ends, padded.split_once(" fwd to ")?.1),
    };
    let to = to.strip_prefix('"').and_then(|to| to.split('"').next());
    Some(Diversion {
        by: DivertedBy::Nft,
        device: device.parse().ok()?,
        place: excerpt(hook),
        original,
        to: to.and_then(|to| to.parse().ok()),
        seen: format!("table netdev {table}, chain {chain}: {rule}"),
        remedy: format!("nft delete rule netdev {table} {chain} handle {handle}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_copy_or_divert_are_read() {
        let said = "table netdev theirs { # handle 1\n\tchain early { # handle 1\n\t\ttype filter hook ingress device \"a0\" priority filter; \
                    policy accept;\n\t\tcounter dup to \"b0\" # handle 2\n\t\tip saddr 1.2.3.4 fwd to \"c0\" # handle 3\n\t\tdrop # handle 4\n\t}\n\
                    \tchain two { # handle 5\n\t\ttype filter hook egress devices = { \"a1\", \"a2\" } priority 0; policy accept;\n\t\tjump three # handle 6\n\t}\n\
                    \tchain three { # handle 7\n\t\tdup to meta mark map { 1 : \"x\" } # handle 8\n\t}\n}\n";
        let found: Vec<String> = diverting("theirs", said)
            .iter()
            .map(|it| {
                let to = it.to.as_ref().map_or("?", |to| to.as_str());
                format!(
                    "{} {} {:?} {to} | {}",
                    it.device, it.place, it.original, it.remedy
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                "a0 ingress GoesOn b0 | nft delete rule netdev theirs early handle 2",
                "a0 ingress Ends c0 | nft delete rule netdev theirs early handle 3",
                "a0 ingress GoesOn ? | nft delete rule netdev theirs three handle 8",
                "a1 egress GoesOn ? | nft delete rule netdev theirs three handle 8",
                "a2 egress GoesOn ? | nft delete rule netdev theirs three handle 8",
            ]
        );
    }
}
