//! What the nft engine needs: the kernel's hooks, and nft(8).

use super::facts::{Chain, Facts, Node, Program};
use super::findings::{Findings, Id, Severity, listed};
use crate::engine::nft::spec::Exclusive;
use crate::engine::nft::{NftState, Side};
use crate::state::OvsState;

/// Judges kernel and nft(8).
pub fn judge(facts: &Facts<'_>, found: &mut Findings) {
    let needed = needed(facts);
    versions(facts, found);
    nft(facts, &needed, found);
    // Without nft(8), or with one that is too old or hangs, nothing can be tried.
    if facts.host.nft.is_ok() && found.none_of(&[Id::NftMissing, Id::NftOld]) {
        kernel(facts, &needed, found);
    }
    if let Ok(node) = &facts.node {
        table(node, found);
        before(facts, node, found);
    }
}

/// Who needs the engine, in words; nothing if nobody does now.
fn needed(facts: &Facts<'_>) -> Option<String> {
    let node = facts.node.as_ref().ok()?;
    let copied = node.desired.copies.keys().map(|key| &key.session);
    let outputs = node.desired.outputs.values();
    let exclusive = outputs
        .filter(|output| output.exclusive == Exclusive::Us)
        .flat_map(|output| output.of.iter().map(|key| &key.session));
    let asked = node
        .running()
        .filter(|session| session.asks_for_nft().is_some())
        .map(|session| &session.name);
    // Without Open vSwitch there is no other engine.
    let alone = matches!(facts.ovs, OvsState::Absent(_));
    let all = node
        .running()
        .filter(|_| alone)
        .map(|session| &session.name);
    let mut sessions: Vec<_> = copied.chain(exclusive).chain(asked).chain(all).collect();
    sessions.sort();
    sessions.dedup();
    let what = if sessions.len() == 1 {
        "session"
    } else {
        "sessions"
    };
    (!sessions.is_empty()).then(|| format!("{what} {}", listed(sessions)))
}

/// How bad it is that the engine cannot work, and what follows.
fn harm(needed: &Option<String>) -> (Severity, String) {
    match needed {
        Some(who) => (Severity::Error, format!("{who} cannot be mirrored")),
        None => (
            Severity::Note,
            "no session needs it now, but without it only guests and sensors on one Open vSwitch bridge can be mirrored".to_owned(),
        ),
    }
}

fn versions(facts: &Facts<'_>, found: &mut Findings) {
    let host = facts.host;
    let kernel = host.kernel.as_deref().unwrap_or("unknown");
    let nft = match &host.nft {
        Ok(Some(program)) => number(&program.version).unwrap_or("unknown"),
        _ => "unknown",
    };
    let ovs = facts
        .ovs_more
        .as_ref()
        .and_then(|ovs| ovs.version.as_deref());
    found.ok(
        Id::Versions,
        format!("pve-span {}, Linux {kernel}", host.version),
        format!("nftables {nft}, Open vSwitch {}", ovs.unwrap_or("none")),
    );
}

fn kernel(facts: &Facts<'_>, needed: &Option<String>, found: &mut Findings) {
    let host = facts.host;
    let release = host.kernel.as_deref().unwrap_or("unknown");
    let features = match &host.features {
        Ok(features) => features,
        Err(why) => {
            return found.add(
                Severity::Warning,
                Id::KernelUnclear,
                "cannot tell whether this kernel has what the nft engine needs",
                why.to_string(),
                "nft list hooks; and run pve-span doctor as root on the node itself, not in a container",
            );
        }
    };
    let missing: Vec<&str> = features
        .iter()
        .filter_map(|feature| feature.missing.as_deref())
        .collect();
    if missing.is_empty() {
        let names: Vec<&str> = features
            .iter()
            .map(|feature| feature.name.as_str())
            .collect();
        return found.ok(
            Id::Kernel,
            "the kernel has all that the nft engine needs",
            format!(
                "tried in a network namespace of its own on Linux {release}: {}",
                names.join(", ")
            ),
        );
    }
    let said = features.iter().find_map(|feature| feature.said.as_deref());
    let said = said.map_or_else(String::new, |said| format!("; nft says: {said}"));
    let (severity, so) = harm(needed);
    found.add(
        severity,
        Id::KernelLacks,
        format!("{}: {so}", missing.join("; ")),
        format!("tried in a network namespace of its own on Linux {release}{said}"),
        "boot a kernel of Proxmox VE's or Debian's, 5.16 or newer (proxmox-boot-tool kernel list); or keep guests and sensor on one Open vSwitch bridge",
    );
}

/// The oldest nftables that knows `egress` (its release notes), and the ones that pve-span's tests run with.
const OLDEST: [u32; 3] = [1, 0, 1];
const TESTED: &str = "tested with 1.0.6 and 1.1.3";

fn nft(facts: &Facts<'_>, needed: &Option<String>, found: &mut Findings) {
    let (severity, so) = harm(needed);
    let unclear = |found: &mut Findings, why: &str| {
        found.add(
            Severity::Warning,
            Id::NftUnclear,
            "cannot tell which version of nft is installed",
            why,
            "nft --version",
        );
    };
    let Program { path, version } = match &facts.host.nft {
        Ok(Some(program)) => program,
        Ok(None) => {
            return found.add(
                severity,
                Id::NftMissing,
                format!("the program nft is not there: {so}"),
                "not found along PATH, nor in /usr/sbin or /sbin",
                "apt install nftables",
            );
        }
        Err(why) => return unclear(found, &why.to_string()),
    };
    match number(version).and_then(parts) {
        None => unclear(found, &format!("{path} --version says `{version}`")),
        Some(parts) if parts < OLDEST => found.add(
            severity,
            Id::NftOld,
            format!("nft is too old, it does not know the egress hook: {so}"),
            format!("{path} --version says `{version}`; 1.0.1 is the oldest that does"),
            "apt install nftables",
        ),
        Some(_) => found.ok(
            Id::Nft,
            format!("nft is {}", number(version).unwrap_or_default()),
            format!("{path}; {TESTED}"),
        ),
    }
}

/// The `1.0.6` of `nftables v1.0.6 (Lester Gooch #5)`.
fn number(version: &str) -> Option<&str> {
    let word = version.split_whitespace().nth(1)?;
    word.strip_prefix('v').or(Some(word))
}

fn parts(number: &str) -> Option<[u32; 3]> {
    let mut parts = number.splitn(3, '.').map(|part| {
        let digits: &str = part
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap_or_default();
        digits.parse().ok()
    });
    let (major, minor) = (parts.next()??, parts.next()??);
    Some([major, minor, parts.next().flatten().unwrap_or(0)])
}

fn table(node: &Node<'_>, found: &mut Findings) {
    if let NftState::Failed(why) = &node.observed.nft {
        found.add(
            Severity::Warning,
            Id::TableUnreadable,
            "cannot tell what nftables copies: its part stays as it is",
            why,
            "nft list table netdev pve-span",
        );
    }
}

/// Chains of others that see our sources' frames before us. What they drop is never mirrored.
fn before(facts: &Facts<'_>, node: &Node<'_>, found: &mut Findings) {
    let copies = node.desired.copies.values();
    let hooks: Vec<(&str, Side)> = copies
        .flat_map(|copies| &copies.sources)
        .flat_map(|(device, source)| {
            source
                .hooks()
                .map(|(side, _)| (device.as_str(), side))
                .collect::<Vec<_>>()
        })
        .collect();
    let ours = |chain: &&Chain| hooks.contains(&(chain.device.as_str(), chain.side));
    for chain in facts.host.chains.iter().filter(ours) {
        let side = match chain.side {
            Side::Ingress => "ingress",
            Side::Egress => "egress",
        };
        found.add(
            Severity::Note,
            Id::ChainBefore,
            format!(
                "somebody else's nftables chain sees {}'s frames before they are mirrored: what it drops does not get to the sensor",
                chain.device
            ),
            format!(
                "table {}, chain {}: hook {side}, priority {} (ours: -500)",
                chain.table, chain.name, chain.priority
            ),
            format!("nft list chain {} {}", chain.table, chain.name),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_nft_are_compared_as_numbers() {
        let of = |text: &str| number(text).and_then(parts);
        assert_eq!(of("nftables v1.0.6 (Lester Gooch #5)"), Some([1, 0, 6]));
        assert_eq!(of("nftables v1.1 (x)"), Some([1, 1, 0]));
        assert_eq!(of("nftables v1.0.6-rc1"), Some([1, 0, 6]));
        assert_eq!(of("what?"), None);
        assert!(of("nftables v0.9.8 (E.D.S.)") < Some(OLDEST));
        assert!(of("nftables v1.0.10") > Some([1, 0, 9]));
    }
}
