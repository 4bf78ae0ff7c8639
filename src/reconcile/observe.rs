//! One look at the node: what span.cfg wants, what is there, and the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::config::active::InForce;
use crate::engine::ovs;
use crate::engine::ovs::flows::StaleFlows;
use crate::engine::ovs::{Client, PortSelection};
use crate::engine::port::backup::{self, PortBackups};
use crate::engine::{nft, port};
use crate::reconcile::context::Context;
use crate::reconcile::error::Error;
use crate::reconcile::inputs::{ClusterInput, Detail, FilesToRead, FurtherReads};
use crate::reconcile::lock::{LockFile, readers};
use crate::sys;
use crate::sys::clock;
use crate::sys::error::with_causes;
use pve_span_core::config::Annotations;
use pve_span_core::config::selector::Output;
use pve_span_core::engine::nft::NftState;
use pve_span_core::model::{IfName, Vmid};
use pve_span_core::plan::{Plan, plan};
use pve_span_core::pve::cluster::Cluster;
use pve_span_core::resolve::resolve;
use pve_span_core::resolve::scope::{Interest, needs_detail};
use pve_span_core::state::port_map::firewall_pair;
use pve_span_core::state::{Assumptions, Desired, Link, Observed, Ovs, OvsState};

/// One look at the node.
#[derive(Debug)]
pub struct Look {
    /// Which annotations it goes by.
    pub in_force: InForce,
    /// What /etc/pve tells.
    pub cluster: Cluster,
    /// What is there.
    pub observed: Observed,
    /// What shall be there.
    pub desired: Desired,
    /// What has to change.
    pub plan: Plan,
    /// The connection to Open vSwitch.
    pub client: Option<Client>,
    /// Which of its bridges are owed a revalidation of their flows.
    pub owed: StaleFlows,
    /// How much it has looked at.
    detail: Detail,
    more: FurtherReads,
    asked_where: bool,
    /// Was Open vSwitch waited for in vain?
    pub is_ovs_silent: bool,
}

/// Looks and plans; changes nothing.
///
/// # Errors
/// The kernel does not answer. A failing Open vSwitch or an unknown file is part of the look.
pub fn look(context: &Context, detail: Detail, gone: &BTreeSet<Vmid>) -> Result<Look, Error> {
    look_from(|| ClusterInput::take(context, detail), context, gone)
}

/// The same by other annotations than the file's: what would change if they were in force.
///
/// # Errors
/// As [`look`].
pub fn look_by(
    in_force: InForce,
    context: &Context,
    detail: Detail,
    gone: &BTreeSet<Vmid>,
) -> Result<Look, Error> {
    look_from(
        || ClusterInput::by(in_force, context, detail),
        context,
        gone,
    )
}

fn look_from(
    read: impl FnOnce() -> ClusterInput,
    context: &Context,
    gone: &BTreeSet<Vmid>,
) -> Result<Look, Error> {
    let file = LockFile::existing(&context.root);
    let mut reading = readers::marked(file.as_ref(), read);
    let mut seen = see(context, &reading)?;
    loop {
        match resolved(reading, seen, context, gone) {
            Ok(look) => return Ok(*look),
            Err(unread) => {
                (reading, seen) = readers::marked(file.as_ref(), || unread.read(context));
            }
        }
    }
}

/// What is there.
pub struct Seen {
    /// It.
    pub observed: Observed,
    client: Option<Client>,
    owed: StaleFlows,
    is_ovs_silent: bool,
}

/// A look that lacks something which has to be read for it.
pub struct IncompleteObservation {
    reading: ClusterInput,
    seen: Seen,
    more: FilesToRead,
}

impl IncompleteObservation {
    /// Reads it.
    pub fn read(mut self: Box<Self>, context: &Context) -> (ClusterInput, Seen) {
        self.reading.add(context, &self.more);
        (self.reading, self.seen)
    }

    /// Leaves it unknown.
    pub fn leave(mut self: Box<Self>) -> (ClusterInput, Seen) {
        self.reading.close();
        (self.reading, self.seen)
    }
}

/// Looks at what is there, as far as it matters.
///
/// # Errors
/// The kernel does not answer.
pub fn see(context: &Context, reading: &ClusterInput) -> Result<Seen, Error> {
    let (began, patience) = (Instant::now(), share(context));
    let (mut observed, client) = observe(context, &reading.interest())?;
    add_routes(&mut observed.links, reading.annotations())?;
    let is_ovs_silent = matches!(observed.ovs, OvsState::Failed(_)) && began.elapsed() >= patience;
    let sessions = &reading.annotations().sessions;
    if sessions.values().any(|session| !session.vlans.is_empty()) {
        add_vlans(&mut observed.links)?;
    }
    observed.nft = nft::read::observe();
    let owed = ovs::flows::owed(&context.root, &observed.ovs);
    let abandoned = owed
        .iter()
        .filter(|(_, revalidation)| revalidation.is_abandoned());
    observed.stale = abandoned.map(|(bridge, _)| bridge.clone()).collect();
    tell_observed(&observed);
    Ok(Seen {
        observed,
        client,
        owed,
        is_ovs_silent,
    })
}

/// What shall be there by what was read and seen, and the difference. Nothing in /etc/pve is touched.
///
/// # Errors
/// More has to be read for it.
pub fn resolved(
    reading: ClusterInput,
    mut seen: Seen,
    context: &Context,
    gone: &BTreeSet<Vmid>,
) -> Result<Box<Look>, Box<IncompleteObservation>> {
    let lacks = |reading, seen, more| {
        Err(Box::new(IncompleteObservation {
            reading,
            seen,
            more,
        }))
    };
    let more = reading.more_with(&seen.observed);
    if !more.is_nothing() {
        return lacks(reading, seen, more);
    }
    let assume = Assumptions {
        gone: gone.clone(),
        now: clock::now(),
    };
    // What is reserved for copies now stays so while nobody can tell where it is, or whether it is free.
    let saved = backup::load(&context.root);
    if let Ok(saved) = &saved {
        seen.observed.saved.clone_from(saved);
    }
    let mut desired = Desired::default();
    if let Some(annotations) = reading.in_force.annotations() {
        desired = resolve(annotations, &reading.cluster, &seen.observed, &assume);
        // The files that a look rarely needs are read when it does.
        let more = reading.more_for(&desired);
        if !more.is_nothing() {
            return lacks(reading, seen, more);
        }
    }
    let Seen {
        mut observed,
        client,
        owed,
        is_ovs_silent,
    } = seen;
    observe_outputs(saved, &desired, &mut observed);
    let plan = if reading.in_force.annotations().is_some() {
        plan(&desired, &observed)
    } else {
        Plan::default()
    };
    Ok(Box::new(Look {
        in_force: reading.in_force,
        cluster: reading.cluster,
        detail: reading.detail,
        more: reading.more,
        asked_where: reading.asked_where,
        observed,
        desired,
        plan,
        client,
        owed,
        is_ovs_silent,
    }))
}

impl Look {
    /// What it went by.
    pub fn into_reading(self) -> ClusterInput {
        ClusterInput {
            in_force: self.in_force,
            cluster: self.cluster,
            detail: self.detail,
            more: self.more,
            asked_where: self.asked_where,
        }
    }

    /// Why Open vSwitch does not answer, if that matters: where every session is served without it, it may be a leftover.
    pub fn waits_for_ovs(&self) -> Option<&str> {
        let is_needed = self.desired.sessions.is_empty() || !self.desired.waiting.is_empty();
        self.observed.ovs.unanswered().filter(|_| is_needed)
    }
}

/// What was seen, for those who ask for more.
fn tell_observed(observed: &Observed) {
    match &observed.ovs {
        OvsState::Present(ovs) => {
            for (name, bridge) in &ovs.bridges {
                let (ports, mirrors) = (bridge.ports.len(), bridge.mirrors.len());
                log::info!(
                    "Open vSwitch bridge {name}: looked at {ports} ports and {mirrors} mirrors"
                );
            }
        }
        OvsState::Absent(why) | OvsState::Failed(why) => log::info!("{why}"),
    }
    log::debug!("looked at {} network devices", observed.links.len());
}

/// The most devices that are asked for one by one; a list of all is cheaper than more of them.
const FEW: usize = 48;

/// The same where it has just let somebody else wait in vain.
pub const OVS_SHORT_PATIENCE: Duration = Duration::from_millis(250);

/// How long Open vSwitch is waited for: if it hangs, there has to be time left for what nftables does, and for others
/// who wait for the lock.
fn share(context: &Context) -> Duration {
    let left = context.deadline.saturating_duration_since(Instant::now());
    context.ovs_patience.min(left / 2)
}

/// Looks at all devices, at Open vSwitch and at our table, for what a text that is to become span.cfg names.
///
/// # Errors
/// The kernel does not answer.
pub fn observe_for(context: &Context, annotations: &Annotations) -> Result<Observed, Error> {
    let (mut observed, _) = observe(context, &Interest::Everything)?;
    add_routes(&mut observed.links, annotations)?;
    observed.nft = nft::read::observe();
    Ok(observed)
}

/// Looks at the kernel and at Open vSwitch, as far as it matters.
fn observe(context: &Context, interest: &Interest) -> Result<(Observed, Option<Client>), Error> {
    let asked = |which: &PortSelection| {
        let deadline = Instant::now() + share(context);
        let (ovs, mut client) = ovs::observe(&context.root, which, deadline);
        if let Some(client) = &mut client {
            client.set_deadline(context.deadline);
        }
        (ovs, client)
    };
    if let Interest::Only(scope) = interest {
        let mut few: BTreeSet<IfName> = sys::names()?
            .into_iter()
            .filter(|name| scope.covers(name.as_str()))
            .collect();
        if few.len() <= FEW {
            few.extend(
                scope
                    .ports
                    .iter()
                    .filter(|name| name.can_be_device())
                    .cloned(),
            );
            let which = PortSelection::Named(few.iter().chain(&scope.ports).cloned().collect());
            let (ovs, client) = asked(&which);
            if let OvsState::Present(present) = &ovs {
                few.extend(
                    present
                        .bridges
                        .keys()
                        .filter(|name| name.can_be_device())
                        .cloned(),
                );
            }
            let links = sys::links_named(&few)?;
            let all_seen = match &ovs {
                OvsState::Present(present) => {
                    let mut devices = present.bridges.keys().filter(|name| name.can_be_device());
                    devices.all(|bridge| links.contains_key(bridge))
                }
                OvsState::Absent(_) | OvsState::Failed(_) => true,
            };
            // An Open vSwitch whose devices are not to be seen here can only be asked for everything.
            if all_seen {
                return Ok((seen(links, ovs), client));
            }
        }
    }
    let (ovs, client) = asked(match interest {
        Interest::Everything => &PortSelection::AllInDetail,
        Interest::EveryGuest(_) | Interest::Only(_) => &PortSelection::All,
    });
    let links = match (&ovs, interest) {
        (OvsState::Present(present), Interest::EveryGuest(sensors)) => {
            links_of_guests(present, sensors)?
        }
        _ => sys::links()?,
    };
    Ok((seen(links, ovs), client))
}

/// Which of the ports that are outputs have routes: asked for these alone, since a router may have very many.
fn add_routes(links: &mut BTreeMap<IfName, Link>, annotations: &Annotations) -> Result<(), Error> {
    let sessions = annotations.sessions.values();
    let outputs = sessions.flat_map(|session| &session.outputs);
    let ports: BTreeSet<&IfName> = outputs
        .filter_map(|output| match &output.value {
            Output::Port(port) => Some(port),
            _ => None,
        })
        .collect();
    for port in ports {
        if let Some(link) = links.get_mut(port) {
            link.routed = sys::is_routed(link.index)?;
        }
    }
    Ok(())
}

fn seen(links: BTreeMap<IfName, Link>, ovs: OvsState) -> Observed {
    Observed {
        links,
        ovs,
        ..Observed::default()
    }
}

/// Which VLANs ports of VLAN-aware bridges are in.
fn add_vlans(links: &mut BTreeMap<IfName, Link>) -> Result<(), Error> {
    let aware: BTreeSet<IfName> = links
        .iter()
        .filter(|(_, link)| link.vlan_aware)
        .map(|(name, _)| name.clone())
        .collect();
    if aware.is_empty() {
        return Ok(());
    }
    let vlans = sys::port_vlans()?;
    let is_aware = |link: &&mut Link| {
        link.master
            .as_ref()
            .is_some_and(|master| aware.contains(master))
    };
    for link in links.values_mut().filter(is_aware) {
        match vlans.get(&link.index) {
            Some(sys::PortVlan::Access(vlan)) => link.access_vlan = Some(*vlan),
            Some(sys::PortVlan::Native(vlan)) => link.native_vlan = Some(*vlan),
            None => {}
        }
    }
    Ok(())
}

/// Looks at the devices that are outputs or sources in no bridge, or have been.
pub fn observe_outputs(
    saved: Result<PortBackups, backup::Error>,
    desired: &Desired,
    observed: &mut Observed,
) {
    observed.ports.clear();
    observed.unclear.clear();
    let listening = desired.listening.keys();
    let mut devices: BTreeSet<IfName> = desired.outputs.keys().chain(listening).cloned().collect();
    match saved {
        Ok(saved) => observed.saved = saved,
        Err(error) => {
            let why = with_causes(&error);
            log::warn!("{why}");
            let unclear = devices.into_iter().map(|device| (device, why.clone()));
            observed.unclear = unclear.collect();
            return;
        }
    }
    devices.extend(observed.saved.keys().cloned());
    if let NftState::Present(seen) = &observed.nft {
        devices.extend(seen.dropping().cloned());
    }
    if observed.ovs.unanswered().is_some() {
        add_masters(&devices, observed);
    }
    for device in devices {
        match port::read(&device) {
            Ok(settings) => {
                observed.ports.insert(device, settings);
            }
            Err(port::Error::Gone { .. }) => {}
            Err(error) => {
                observed.unclear.insert(device, with_causes(&error));
            }
        }
    }
}

/// Adds the bridges of devices, and what joins firewall bridges to Linux bridges, where the look has left these out: they tell
/// whether an Open vSwitch that does not answer may send copies there.
fn add_masters(devices: &BTreeSet<IfName>, observed: &mut Observed) {
    for _ in 0..2 {
        let masters = devices.iter().filter_map(|device| {
            let master = observed.links.get(device)?.master.as_ref()?;
            firewall_pair(master)
        });
        let mut missing: BTreeSet<IfName> = devices.iter().cloned().chain(masters).collect();
        missing.retain(|device| !observed.links.contains_key(device));
        // What cannot be seen stays as it is.
        for (name, link) in sys::links_named(&missing).unwrap_or_default() {
            observed.links.entry(name).or_insert(link);
        }
    }
}

/// The devices that say something about guests: all by name, and those with more whose name does not tell.
fn links_of_guests(ovs: &Ovs, sensors: &BTreeSet<Vmid>) -> Result<BTreeMap<IfName, Link>, Error> {
    let names: BTreeSet<IfName> = sys::names()?.into_iter().collect();
    let is_ovs_port = |name: &str| {
        ovs.bridges
            .values()
            .any(|bridge| bridge.ports.contains_key(name))
    };
    let exists = |name: &str| names.contains(name);
    let detailed = names
        .iter()
        .filter(|name| needs_detail(name.as_str(), sensors, is_ovs_port, exists));
    let detailed: BTreeSet<IfName> = detailed.cloned().collect();
    if detailed.len() > FEW {
        return Ok(sys::links()?);
    }
    let mut links = sys::links_named(&detailed)?;
    for name in names.difference(&detailed) {
        links.entry(name.clone()).or_default();
    }
    Ok(links)
}
