//! A running session laid out over the bridges: one wanted mirror a bridge and output, and the reason for
//! whatever does not reach an output.

use std::collections::{BTreeMap, BTreeSet};

use super::choice::{Choice, Whole};
use super::outputs::{Outputs, Place};
use crate::core::annotations::{EngineChoice, Point, Session};
use crate::core::model::IfName;
use crate::core::ports::{BridgeKind, Port, PortMap};
use crate::core::state::{
    Desired, MirrorConfig, MirrorKey, MirrorOutput, OutputState, SessionState, Taken, Wanted,
};

/// Lays a running session out over the bridges.
pub fn place(
    session: &Session,
    choice: &Choice<'_>,
    outputs: &Outputs<'_>,
    state: &mut SessionState,
    desired: &mut Desired,
) {
    let mut reached: BTreeSet<IfName> = BTreeSet::new();
    let mut reasons: BTreeMap<IfName, String> = BTreeMap::new();
    for output in &session.outputs {
        let spelled = output.value.to_string();
        let (engine, fault) = match outputs.place(&output.value) {
            Err(fault) => (None, Some(fault)),
            Ok(place) => {
                if let Place::Port(Port { tag: Some(tag), .. }) = place {
                    let note = format!(
                        "{spelled} is in VLAN {tag}: frames arrive without their 802.1Q tags"
                    );
                    state.notes.push(note);
                }
                let bridges: BTreeSet<&IfName> = match place {
                    Place::Port(port) => [&port.bridge].into(),
                    Place::Vlan(_) => source_bridges(choice, outputs.map),
                };
                for bridge in &bridges {
                    let wanted = on_bridge(
                        session,
                        choice,
                        outputs.map,
                        bridge,
                        &place,
                        &mut reasons,
                        &mut reached,
                    );
                    if let Some(wanted) = wanted {
                        let key = MirrorKey {
                            bridge: (*bridge).clone(),
                            session: session.name.clone(),
                            output: spelled.clone(),
                        };
                        desired.mirrors.insert(key, wanted);
                    }
                }
                for (port, bridge) in sources(choice) {
                    if !bridges.contains(bridge) {
                        reasons
                            .entry(port.clone())
                            .or_insert_with(|| not_on(bridge, &bridges, &spelled, outputs.map));
                    }
                }
                (Some(engine(session, &place, &bridges)), None)
            }
        };
        state.outputs.push(OutputState {
            output: spelled,
            engine,
            fault,
        });
    }
    for source in &mut state.present {
        if !reached.contains(&source.port) {
            source.refused = reasons.get(&source.port).cloned();
        }
    }
}

/// The engine and why: so far there is one, and it mirrors within a bridge.
fn engine(session: &Session, place: &Place<'_>, bridges: &BTreeSet<&IfName>) -> String {
    let why = match (session.engine, place) {
        (EngineChoice::Ovs, _) => "as asked",
        (_, Place::Vlan(_)) => "RSPAN",
        (_, Place::Port(_)) => "same bridge",
    };
    let names: Vec<&str> = bridges.iter().map(|bridge| bridge.as_str()).collect();
    let place = if names.is_empty() {
        String::new()
    } else {
        format!(", {}", names.join(" and "))
    };
    format!("ovs: {why}{place}")
}

fn sources<'c>(choice: &'c Choice<'_>) -> impl Iterator<Item = (&'c IfName, &'c IfName)> {
    let bridges = choice.bridges.keys().map(|bridge| (*bridge, *bridge));
    bridges.chain(choice.ports.values().map(|port| (&port.name, &port.bridge)))
}

fn source_bridges<'c>(choice: &'c Choice<'_>, map: &PortMap) -> BTreeSet<&'c IfName> {
    let undecided = choice.undecided.values().map(|port| &port.bridge);
    let bridges = sources(choice).map(|(_, bridge)| bridge).chain(undecided);
    bridges
        .filter(|bridge| map.bridges.get(*bridge) == Some(&BridgeKind::Ovs))
        .collect()
}

fn not_on(bridge: &IfName, bridges: &BTreeSet<&IfName>, output: &str, map: &PortMap) -> String {
    let lacks = "needs the nft engine, which this version does not have";
    if map.bridges.get(bridge) == Some(&BridgeKind::Linux) {
        return format!("it is on the Linux bridge {bridge}, which {lacks}");
    }
    let there: Vec<&str> = bridges.iter().map(|bridge| bridge.as_str()).collect();
    format!(
        "it is on {bridge} and output {output} on {}: mirroring across bridges {lacks}",
        there.join(", ")
    )
}

/// One bridge's part of a session; nothing when there is nothing to take.
fn on_bridge(
    session: &Session,
    choice: &Choice<'_>,
    map: &PortMap,
    bridge: &IfName,
    place: &Place<'_>,
    reasons: &mut BTreeMap<IfName, String>,
    reached: &mut BTreeSet<IfName>,
) -> Option<Wanted> {
    let output = match place {
        Place::Port(port) => MirrorOutput::Port(port.name.clone()),
        Place::Vlan(vlan) => MirrorOutput::Vlan(*vlan),
    };
    let mut config = MirrorConfig {
        vlans: session.vlans.clone(),
        snaplen: session.snaplen,
        output,
        ..MirrorConfig::default()
    };
    let is_output = |port: &IfName| matches!(place, Place::Port(output) if output.name == *port);
    let whole = choice.bridges.get(bridge);
    if whole == Some(&Whole::Everything) {
        config.all = true;
    } else {
        let taken = Taken::new(
            session.direction.takes_sent(),
            session.direction.takes_delivered(),
        );
        for (name, port) in choice
            .ports
            .iter()
            .filter(|(name, port)| port.bridge == *bridge && !is_output(name))
        {
            let firewall = port
                .nic
                .as_ref()
                .and_then(|nic| nic.firewall_bridge.as_ref());
            if let (Point::Guest, Some(firewall)) = (session.point, firewall) {
                let reason = format!(
                    "`point = guest` behind the firewall bridge {firewall} needs the nft engine, which this version does not have"
                );
                reasons.insert((*name).clone(), reason);
                continue;
            }
            // A whole bridge is every frame, so both directions of what is left of it.
            let taken = if whole.is_some() {
                Some(Taken::Both)
            } else {
                taken
            };
            if let Some(taken) = taken {
                config.ports.insert((*name).clone(), taken);
                reached.insert((*name).clone());
            }
        }
    }
    if whole.is_some() && map.bridges.contains_key(bridge) {
        reached.insert(bridge.clone());
    }
    let undecided: BTreeSet<IfName> = if config.all {
        BTreeSet::new()
    } else {
        let here = choice
            .undecided
            .iter()
            .filter(|(name, port)| port.bridge == *bridge && !is_output(name));
        here.map(|(name, _)| (*name).clone()).collect()
    };
    let nothing = !config.all && config.ports.is_empty() && undecided.is_empty();
    (!nothing).then_some(Wanted { config, undecided })
}
