//! Devices' settings: outputs are exclusive and wire-true while they are outputs, sources in no bridge take in every frame
//! while they are sources, and each is as it was before afterwards.

mod display;

use std::collections::BTreeSet;

use super::change::{Plan, PortChange, Problem, ProblemKind};
use crate::engine::nft::diff::Preserved;
use crate::engine::nft::spec::{Exclusive, OutputPort, Raise, SourcePort};
use crate::engine::nft::{NftState, Seen, names};
use crate::engine::port::{BridgeFlags, LinkChange, PortSettings};
use crate::model::{IfName, Switch};
use crate::state::port_map::{firewall_pair, is_firewall_bridge};
use crate::state::{Desired, MirrorOutput, Observed, OvsState};

/// Which of a device's settings are ours for as long as it is what it is.
#[derive(Clone, Copy, Default)]
struct OwnedSettings {
    flags: bool,
    offloads: bool,
    link: bool,
}

/// Compares devices' settings.
pub fn plan(desired: &Desired, observed: &Observed, kept: &Preserved<'_>, plan: &mut Plan) {
    let seen = match &observed.nft {
        NftState::Present(seen) => Some(seen),
        NftState::Failed(_) => None,
    };
    for (device, output) in &desired.outputs {
        if let Some(why) = observed.unclear.get(device) {
            plan.problems.extend(output.of.iter().map(|key| Problem {
                session: key.session.clone(),
                kind: ProblemKind::Device,
                text: format!("{} cannot be made ready: {why}", key.output),
            }));
        }
        let Some((is, saved)) = seen_of(device, output.index, observed) else {
            continue;
        };
        let change = prepare(device, output, is, saved, seen);
        let ours = OwnedSettings {
            flags: output.exclusive == Exclusive::Us,
            offloads: output.wire == Switch::Yes,
            link: false,
        };
        add(device, is, saved, ours, change, plan);
    }
    let sources = desired.listening.iter();
    for (device, source) in sources.filter(|(device, _)| !desired.outputs.contains_key(*device)) {
        if let Some(why) = observed.unclear.get(device) {
            plan.problems
                .extend(source.of.iter().map(|session| Problem {
                    session: session.clone(),
                    kind: ProblemKind::Device,
                    text: format!("port:{device} cannot be made ready: {why}"),
                }));
        }
        let Some((is, saved)) = seen_of(device, source.index, observed) else {
            continue;
        };
        // While Open vSwitch does not answer, the device may be a port of it.
        let may_change = !matches!(observed.ovs, OvsState::Failed(_));
        let change = listen(device, source, is, saved).filter(|_| may_change);
        let ours = OwnedSettings {
            link: true,
            ..OwnedSettings::default()
        };
        add(device, is, saved, ours, change, plan);
    }
    put_back_former(desired, observed, kept, plan);
    // What was noted has been lost, but our rule tells that there was something: then what the kernel begins with.
    let dropping = seen.into_iter().flat_map(Seen::dropping);
    for device in dropping.filter(|device| {
        !desired.outputs.contains_key(*device) && !observed.saved.contains_key(*device)
    }) {
        let is = observed.ports.get(device);
        let is = is.filter(|is| {
            let flags = is.flags.as_ref();
            flags.is_some_and(|flags| *flags == flags.made_exclusive())
        });
        let before = is.map(|is| PortSettings {
            index: is.index,
            flags: Some(BridgeFlags::default()),
            ..PortSettings::default()
        });
        let Some((is, before)) = is.zip(before) else {
            continue;
        };
        if is_over(device, (is, &before), desired, observed, kept) {
            plan.ports.extend(give_back(device, None, is, &before));
        }
    }
}

/// What a device is like, and was like before it was changed; nothing if it is not the one that is meant.
fn seen_of<'o>(
    device: &IfName,
    index: u32,
    observed: &'o Observed,
) -> Option<(&'o PortSettings, Option<&'o PortSettings>)> {
    let is = observed.ports.get(device).filter(|is| is.index == index)?;
    let saved = observed.saved.get(device);
    Some((is, saved.filter(|saved| saved.index == index)))
}

/// Plans a change, and what goes back because it is no longer asked for: `wire = no` from now on, say.
fn add(
    device: &IfName,
    is: &PortSettings,
    saved: Option<&PortSettings>,
    ours: OwnedSettings,
    change: Option<PortChange>,
    plan: &mut Plan,
) {
    let saved = match &change {
        Some(PortChange::Prepare { before, .. } | PortChange::Listen { before, .. }) => {
            Some(before)
        }
        _ => saved,
    };
    let back = saved.and_then(|saved| give_back(device, Some(ours), is, saved));
    plan.ports.extend(change);
    plan.ports.extend(back);
}

/// Devices that are nothing to us any more.
fn put_back_former(desired: &Desired, observed: &Observed, kept: &Preserved<'_>, plan: &mut Plan) {
    let is_former = |device: &IfName| {
        !desired.outputs.contains_key(device)
            && !desired.listening.contains_key(device)
            && !observed.unclear.contains_key(device)
    };
    let former = observed.saved.iter();
    for (device, saved) in former.filter(|(device, _)| is_former(device)) {
        match seen_of(device, saved.index, observed) {
            None => plan.ports.push(PortChange::Forget {
                device: device.clone(),
            }),
            Some((is, _)) if is_over(device, (is, saved), desired, observed, kept) => {
                plan.ports.extend(give_back(device, None, is, saved));
            }
            Some(_) => {}
        }
    }
}

/// Is a bridge port fed by a Linux bridge: its own, or the one that its firewall bridge is joined to by a veth pair?
fn is_fed_by_linux(device: &IfName, observed: &Observed) -> bool {
    let links = &observed.links;
    let Some(master) = links.get(device).and_then(|link| link.master.as_ref()) else {
        return false;
    };
    !is_firewall_bridge(master)
        || firewall_pair(master).is_some_and(|pair| {
            let pair = links.get(&pair);
            pair.is_some_and(|link| link.master.as_ref() == Some(master))
        })
}

/// Is a former output or source certainly one no more? One that Open vSwitch perhaps sends copies to, itself or by way of a
/// firewall bridge, only if that can be asked.
fn is_over(
    device: &IfName,
    (is, saved): (&PortSettings, &PortSettings),
    desired: &Desired,
    observed: &Observed,
    kept: &Preserved<'_>,
) -> bool {
    let is_on_linux = is.flags.is_some() && is_fed_by_linux(device, observed);
    let ovs_can_tell = !matches!(observed.ovs, OvsState::Failed(_)) || is_on_linux;
    // Nobody has noted whose source it was.
    let was_source = saved.promiscuous.is_some() || saved.up.is_some();
    ovs_can_tell
        && matches!(observed.nft, NftState::Present(_))
        && !kept.uses(is.index)
        && (desired.held.is_empty() || !was_source)
        && !is_held(device, desired, observed)
}

fn prepare(
    device: &IfName,
    output: &OutputPort,
    is: &PortSettings,
    saved: Option<&PortSettings>,
    seen: Option<&Seen>,
) -> Option<PortChange> {
    let exclusive = output.exclusive == Exclusive::Us;
    let flags = is
        .flags
        .as_ref()
        .filter(|flags| exclusive && **flags != flags.made_exclusive())
        .map(BridgeFlags::made_exclusive);
    let offloads = if output.wire == Switch::Yes {
        is.offloads.clone()
    } else {
        BTreeSet::new()
    };
    let drops =
        exclusive && seen.is_some_and(|seen| !seen.chains.contains_key(&names::drop(device)));
    if flags.is_none() && offloads.is_empty() && !drops {
        return None;
    }
    let mut before = before(is, saved);
    if flags.is_some() {
        before.flags = flags_before(is, before.flags);
    }
    before.offloads.extend(offloads.iter().cloned());
    Some(PortChange::Prepare {
        device: device.clone(),
        index: is.index,
        outputs: output.of.iter().map(|key| key.output.clone()).collect(),
        flags,
        offloads,
        drops,
        before,
    })
}

/// What the bridge did with a port before us. A port that gets everything is another one than ours, or its bridge is: it has
/// been plugged anew. A state may change without anybody's doing.
fn flags_before(is: &PortSettings, saved: Option<BridgeFlags>) -> Option<BridgeFlags> {
    let now = is.flags_to_save()?;
    match saved {
        Some(saved) if !now.flood_all() => Some(BridgeFlags {
            state: saved.state.or(now.state),
            ..saved
        }),
        _ => Some(now),
    }
}

fn listen(
    device: &IfName,
    source: &SourcePort,
    is: &PortSettings,
    saved: Option<&PortSettings>,
) -> Option<PortChange> {
    use crate::engine::port::Switch::{Off, On};
    let raise = source.raise == Raise::Yes;
    let link = LinkChange {
        promiscuous: is.promiscuous.filter(|is| *is == Off).map(|_| On),
        up: is.up.filter(|is| raise && *is == Off).map(|_| On),
    };
    if link.is_nothing() {
        return None;
    }
    let mut before = before(is, saved);
    before.promiscuous = before.promiscuous.or(link.promiscuous.map(|_| Off));
    before.up = before.up.or(link.up.map(|_| Off));
    Some(PortChange::Listen {
        device: device.clone(),
        index: is.index,
        sessions: source.of.clone(),
        link,
        before,
    })
}

/// What is to be put back so far.
fn before(is: &PortSettings, saved: Option<&PortSettings>) -> PortSettings {
    saved.cloned().unwrap_or(PortSettings {
        index: is.index,
        ..PortSettings::default()
    })
}

/// Puts back what is not ours any more: everything, or all but `ours`.
fn give_back(
    device: &IfName,
    ours: Option<OwnedSettings>,
    is: &PortSettings,
    saved: &PortSettings,
) -> Option<PortChange> {
    let still = ours.unwrap_or_default();
    let mut remains = saved.clone();
    let (mut flags, mut offloads) = (None, BTreeSet::new());
    let mut link = LinkChange::default();
    if !still.flags {
        let before = remains.flags.take();
        flags = is
            .flags
            .as_ref()
            .zip(before)
            .and_then(|(is, before)| is.back_to(&before));
    }
    if !still.offloads {
        let before = std::mem::take(&mut remains.offloads);
        offloads = before.difference(&is.offloads).cloned().collect();
    }
    if !still.link {
        link = LinkChange {
            promiscuous: remains
                .promiscuous
                .take()
                .filter(|was| is.promiscuous != Some(*was)),
            up: remains.up.take().filter(|was| is.up != Some(*was)),
        };
    }
    (ours.is_none() || remains != *saved).then(|| PortChange::Restore {
        device: device.clone(),
        index: is.index,
        flags,
        offloads,
        link,
        remains: ours.map(|_| remains),
    })
}

/// Does a session that is left alone mirror there with Open vSwitch?
fn is_held(device: &IfName, desired: &Desired, observed: &Observed) -> bool {
    let OvsState::Present(ovs) = &observed.ovs else {
        return false;
    };
    let mirrors = ovs
        .bridges
        .values()
        .flat_map(|bridge| bridge.mirrors.values());
    let mut held = mirrors.filter(|mirror| {
        mirror
            .mark
            .as_ref()
            .is_some_and(|mark| desired.held.holds(mark))
    });
    held.any(|mirror| mirror.config.output == MirrorOutput::Port(device.clone()))
}
