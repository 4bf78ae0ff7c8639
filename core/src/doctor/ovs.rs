//! Open vSwitch: does it answer, does it act, and has it room.

use std::collections::BTreeMap;

use super::facts::{Answer, Facts, Node, OvsMore};
use super::findings::{Findings, Id, Severity, listed};
use crate::config::EngineChoice;
use crate::model::{IfName, Vmid};
use crate::plan::{Change, MAX_MIRRORS};
use crate::state::port_map::PortMap;
use crate::state::{Mirror, Ovs, OvsBridge, OvsState};

/// Judges Open vSwitch.
pub fn judge(facts: &Facts<'_>, found: &mut Findings) {
    let node = facts.node.as_ref().ok();
    match facts.ovs {
        OvsState::Absent(why) => absent(node, why, found),
        OvsState::Failed(why) => {
            // What it lacks is why it cannot be read.
            let more = facts.ovs_more.as_ref();
            let lacking =
                more.filter(|more| more.lacks.as_ref().is_ok_and(|lacks| !lacks.is_empty()));
            match lacking {
                Some(more) => {
                    is_whole(more, found);
                }
                None => down(node, why, found),
            }
        }
        OvsState::Present(ovs) => present(facts, ovs, found),
    }
    if let Some(node) = node {
        bridges(facts, node, found);
    }
}

const RESTART: &str =
    "systemctl status openvswitch-switch, then systemctl restart openvswitch-switch";

fn absent(node: Option<&Node<'_>>, why: &str, found: &mut Findings) {
    let asking = node.into_iter().flat_map(Node::running);
    let asking = asking.filter(|session| session.engine == EngineChoice::Ovs);
    let asking = listed(asking.map(|session| &session.name));
    if asking.is_empty() {
        found.ok(Id::Ovs, "no Open vSwitch here, and none needed", why);
    } else {
        found.add(
            Severity::Error,
            Id::OvsAbsent,
            format!("no Open vSwitch here, and `engine = ovs` asks for it: nothing of {asking} is mirrored"),
            why,
            "leave `engine = ovs` out (pve-span edit); or apt install openvswitch-switch",
        );
    }
}

fn down(node: Option<&Node<'_>>, why: &str, found: &mut Findings) {
    let is_needed =
        node.is_none_or(|node| node.needs_ovs == Answer::Yes && node.running().next().is_some());
    found.add(
        if is_needed {
            Severity::Error
        } else {
            Severity::Warning
        },
        Id::OvsDown,
        "Open vSwitch does not answer: its bridges are unknown here, and its mirrors stay as they are",
        why,
        RESTART,
    );
}

fn present(facts: &Facts<'_>, ovs: &Ovs, found: &mut Findings) {
    let more = facts.ovs_more.as_ref();
    let whole = more.is_none_or(|more| is_whole(more, found));
    behind(more, ovs, found);
    if whole && found.none_of(&[Id::OvsBehind]) {
        let version = more.and_then(|more| more.version.as_deref());
        let schema = more.and_then(|more| more.schema.as_deref());
        found.ok(
            Id::Ovs,
            format!(
                "Open vSwitch {} answers",
                version.unwrap_or("of unknown version")
            ),
            format!(
                "run/openvswitch/db.sock, schema {}, bridges: {}",
                schema.unwrap_or("unknown"),
                match ovs.bridges.len() {
                    0 => "none".to_owned(),
                    _ => listed(ovs.bridges.keys()),
                }
            ),
        );
    }
    for (name, bridge) in &ovs.bridges {
        budget(name, bridge, facts.node.as_ref().ok(), found);
    }
}

/// Does the schema have what is needed?
fn is_whole(more: &OvsMore, found: &mut Findings) -> bool {
    match &more.lacks {
        Ok(lacks) if lacks.is_empty() => true,
        Ok(lacks) => {
            found.add(
                Severity::Error,
                Id::OvsSchema,
                "this Open vSwitch's database has no mirrors as pve-span needs them: engine ovs cannot work",
                format!(
                    "schema {} lacks {}",
                    more.schema.as_deref().unwrap_or("unknown"),
                    listed(lacks)
                ),
                "apt install openvswitch-switch (3.1 or newer), then ovs-vsctl --version",
            );
            false
        }
        Err(why) => {
            found.add(
                Severity::Warning,
                Id::OvsSchema,
                "cannot tell whether this Open vSwitch's database has what pve-span needs",
                why.to_string(),
                "ovsdb-client get-schema Open_vSwitch",
            );
            false
        }
    }
}

fn behind(more: Option<&OvsMore>, ovs: &Ovs, found: &mut Findings) {
    let why = more.and_then(|more| more.behind.clone());
    let why = why.or_else(|| {
        (!ovs.caught_up && more.is_none()).then(|| "cur_cfg is behind next_cfg".to_owned())
    });
    if let Some(why) = why {
        found.add(
            Severity::Error,
            Id::OvsBehind,
            "ovs-vswitchd does not act on what the database says: new mirrors have no effect",
            why,
            RESTART,
        );
    }
}

/// From so many on, it is said.
const NEAR: usize = MAX_MIRRORS - 4;

fn budget(name: &IfName, bridge: &OvsBridge, node: Option<&Node<'_>>, found: &mut Findings) {
    let now = bridge.mirrors.len();
    let foreign = bridge
        .mirrors
        .values()
        .filter(|mirror| mirror.mark.is_none())
        .count();
    let actions = node.into_iter().flat_map(|node| &node.plan.actions);
    let mut after = now;
    for action in actions.filter(|action| action.mirror.engine.bridge() == Some(name)) {
        match action.change {
            Change::Create => after += 1,
            Change::Remove { .. } => after = after.saturating_sub(1),
            _ => {}
        }
    }
    // Who finds no room is a problem of the plan, and no action of it.
    let refused = node.and_then(|node| node.plan.refused.get(name));
    after += refused.copied().unwrap_or_default();
    let evidence = format!(
        "{now} of {MAX_MIRRORS} mirrors, {foreign} of them not pve-span's; {after} with what is planned"
    );
    // Where nftables copies, one mirror an output port is left: who has none but those has nothing to gain by it.
    let takes = |mirror: &Mirror| mirror.config.all || !mirror.config.ports.is_empty();
    let mut ours = bridge
        .mirrors
        .values()
        .filter(|mirror| mirror.mark.is_some())
        .peekable();
    let remedy = if ours.peek().is_some() && !ours.any(takes) {
        "use fewer outputs on this bridge; ovs-vsctl list mirror shows whose mirrors they are"
    } else {
        "use fewer sessions or outputs on this bridge, or `engine = nft`, which needs one mirror for each output port; \
         ovs-vsctl list mirror shows whose they are"
    };
    if after > MAX_MIRRORS {
        found.add(
            Severity::Error,
            Id::MirrorBudget,
            format!("{name} has no room for all of its mirrors: Open vSwitch allows {MAX_MIRRORS} a bridge"),
            evidence,
            remedy,
        );
    } else if now.max(after) >= NEAR {
        found.add(
            Severity::Warning,
            Id::MirrorBudget,
            format!("{name} is nearly full of mirrors: Open vSwitch allows {MAX_MIRRORS} a bridge"),
            evidence,
            remedy,
        );
    } else {
        found.ok(
            Id::MirrorBudget,
            format!("{name} has room for mirrors"),
            evidence,
        );
    }
}

/// Bridges that configs of guests here name, and that are not here.
fn bridges(facts: &Facts<'_>, node: &Node<'_>, found: &mut Findings) {
    if matches!(facts.ovs, OvsState::Failed(_)) {
        return;
    }
    let map = PortMap::new(node.observed);
    let mut missing: BTreeMap<&str, Vec<Vmid>> = BTreeMap::new();
    for guest in node.cluster.guests.values().flatten() {
        if guest.template || node.cluster.is_here(guest.vmid) != Some(true) {
            continue;
        }
        for bridge in guest.nics.values().filter_map(|nic| nic.bridge.as_deref()) {
            let is_there =
                map.bridges.contains_key(bridge) || node.observed.links.contains_key(bridge);
            if !is_there {
                missing.entry(bridge).or_default().push(guest.vmid);
            }
        }
    }
    for (bridge, mut guests) in missing {
        guests.dedup();
        let why = match facts.ovs {
            OvsState::Absent(_) => "no Linux bridge has this name, and there is no Open vSwitch",
            _ => "neither a Linux bridge nor one of Open vSwitch's has this name",
        };
        let first = guests.first().map(|vmid| node.config_of(*vmid));
        found.add(
            Severity::Warning,
            Id::BridgeMissing,
            format!(
                "{} cannot start here, there is no bridge {bridge}",
                match guests.len() {
                    1 => format!("guest {}", listed(&guests)),
                    _ => format!("guests {}", listed(&guests)),
                }
            ),
            format!("{}: bridge={bridge}; {why}", first.unwrap_or_default()),
            "ifreload -a; or change the guest's bridge",
        );
    }
}
