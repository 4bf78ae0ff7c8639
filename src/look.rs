//! One look at the node: what span.cfg wants, what is there, and the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::apply::Error;
use crate::core::annotations::Annotations;
use crate::core::cluster::Cluster;
use crate::core::interest::{Interest, needs_detail};
use crate::core::model::{IfName, NodeName, Vmid};
use crate::core::nft::NftState;
use crate::core::plan::{Plan, plan};
use crate::core::ports::PortMap;
use crate::core::resolve::resolve;
use crate::core::state::{Assumptions, Desired, Link, Observed, Ovs, OvsState};
use crate::inforce::{self, InForce};
use crate::ovs::{self, Client, Ports};
use crate::pve::{Pve, Questions, Whose};
use crate::{linux, saved};

/// Where and until when.
#[derive(Debug, Clone)]
pub struct Context {
    /// The prefix of every path.
    pub root: PathBuf,
    /// When everything has to be over.
    pub deadline: Instant,
    /// How long to wait for ovs-vswitchd after a commit.
    pub patience: Duration,
    /// Who looks: `hook 101 post-start`, `apply`, `watch`. It is told in Open vSwitch's database log and in the events.
    pub by: String,
    /// Where an incoming guest's config may still be filed.
    pub migrated_from: Option<NodeName>,
}

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
}

/// Whose configs a look reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Only what decides about mirrors.
    Mirrors,
    /// The same, wherever in the cluster it is filed: nobody has said where an incoming guest's config is.
    Anywhere,
    /// Everything that is worth telling.
    All,
}

/// Looks and plans; changes nothing.
///
/// # Errors
/// The kernel cannot be asked. A failing Open vSwitch or an unknown file is part of the look.
pub fn look(context: &Context, detail: Detail, gone: &BTreeSet<Vmid>) -> Result<Look, Error> {
    look_by(inforce::load(&context.root), context, detail, gone)
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
    let nobody = Annotations::default();
    let annotations = in_force.annotations().unwrap_or(&nobody);
    let interest = match detail {
        Detail::All => Interest::Everything,
        Detail::Mirrors | Detail::Anywhere => Interest::of(annotations),
    };
    let (mut observed, client) = observe(context, &interest)?;
    if annotations
        .sessions
        .values()
        .any(|session| !session.vlans.is_empty())
    {
        add_vlans(&mut observed.links)?;
    }
    observed.nft = linux::nft::read::observe();
    observed.stale = ovs::flows::owed(&context.root, &observed.ovs);
    tell_observed(&observed);
    let questions = Questions::of(annotations);
    let here = || {
        PortMap::new(&observed)
            .nics()
            .map(|(_, nic)| nic.id.vmid)
            .collect()
    };
    let questions = match detail {
        Detail::All => Questions::ALL,
        Detail::Mirrors => questions,
        Detail::Anywhere => Questions {
            nodes: true,
            ..questions
        },
    };
    let whose = match detail {
        Detail::All => Whose::AllAnd(here()),
        Detail::Mirrors | Detail::Anywhere if questions.tags => Whose::Of(here()),
        Detail::Mirrors | Detail::Anywhere => Whose::Of(BTreeSet::new()),
    };
    let mut cluster = if in_force.annotations().is_none() && detail != Detail::All {
        Cluster::unknown("not read")
    } else {
        Pve::new(&context.root).cluster(questions, &whose, context.migrated_from.as_ref())
    };
    let assume = Assumptions {
        gone: gone.clone(),
        now: now(),
    };
    let mut desired = Desired::default();
    if in_force.annotations().is_some() {
        desired = resolve(annotations, &cluster, &observed, &assume);
        // The files that a look rarely needs are read when it does.
        let unread = desired.unread(&cluster);
        let asks_where = desired.asks_where() && cluster.placements.is_err();
        if detail != Detail::All && (asks_where || !unread.is_empty()) {
            let pve = Pve::new(&context.root);
            if asks_where {
                cluster.placements = pve.placements();
            }
            pve.add_guests(&mut cluster, &unread, context.migrated_from.as_ref());
            desired = resolve(annotations, &cluster, &observed, &assume);
        }
    }
    observe_outputs(&context.root, &desired, &mut observed);
    let plan = if in_force.annotations().is_some() {
        plan(&desired, &observed)
    } else {
        Plan::default()
    };
    Ok(Look {
        in_force,
        cluster,
        observed,
        desired,
        plan,
        client,
    })
}

impl Look {
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

/// The time, in seconds since 1970.
pub fn now() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// The most devices that are asked for one by one; a list of all is cheaper than more of them.
const FEW: usize = 48;

/// How long Open vSwitch may take to answer a look; it takes milliseconds.
const OVS_PATIENCE: Duration = Duration::from_secs(3);

/// Until when Open vSwitch is waited for: if it hangs, there has to be time left for what nftables does, and for others
/// who wait for the lock.
fn share(deadline: Instant) -> Instant {
    let now = Instant::now();
    let left = deadline.saturating_duration_since(now);
    now + OVS_PATIENCE.min(left / 2)
}

/// Looks at the kernel and at Open vSwitch, as far as it matters.
fn observe(context: &Context, interest: &Interest) -> Result<(Observed, Option<Client>), Error> {
    let asked = |which: &Ports| {
        let deadline = share(context.deadline);
        let (ovs, mut client) = ovs::observe(&context.root, which, deadline);
        if let Some(client) = &mut client {
            client.set_deadline(context.deadline);
        }
        (ovs, client)
    };
    if let Interest::Only(scope) = interest {
        let mut few: BTreeSet<IfName> = linux::names()?
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
            let which = Ports::Named(few.iter().chain(&scope.ports).cloned().collect());
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
            let links = linux::links_named(&few)?;
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
    let (ovs, client) = asked(&Ports::All);
    let links = match (&ovs, interest) {
        (OvsState::Present(present), Interest::EveryGuest(sensors)) => {
            links_of_guests(present, sensors)?
        }
        _ => linux::links()?,
    };
    Ok((seen(links, ovs), client))
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
    let vlans = linux::port_vlans()?;
    let is_aware = |link: &&mut Link| {
        link.master
            .as_ref()
            .is_some_and(|master| aware.contains(master))
    };
    for link in links.values_mut().filter(is_aware) {
        match vlans.get(&link.index) {
            Some(linux::PortVlan::Access(vlan)) => link.access_vlan = Some(*vlan),
            Some(linux::PortVlan::Native(vlan)) => link.native_vlan = Some(*vlan),
            None => {}
        }
    }
    Ok(())
}

/// Looks at the devices that are outputs or sources in no bridge, or have been.
pub fn observe_outputs(root: &Path, desired: &Desired, observed: &mut Observed) {
    observed.ports.clear();
    observed.unclear.clear();
    let listening = desired.listening.keys();
    let mut devices: BTreeSet<IfName> = desired.outputs.keys().chain(listening).cloned().collect();
    match saved::load(root) {
        Ok(saved) => observed.saved = saved,
        Err(error) => {
            let why = ovs::chain(&error);
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
    for device in devices {
        match linux::port::read(&device) {
            Ok(settings) => {
                observed.ports.insert(device, settings);
            }
            Err(linux::port::Error::Gone { .. }) => {}
            Err(error) => {
                observed.unclear.insert(device, ovs::chain(&error));
            }
        }
    }
}

/// The devices that say something about guests: all by name, and those with more whose name does not tell.
fn links_of_guests(ovs: &Ovs, sensors: &BTreeSet<Vmid>) -> Result<BTreeMap<IfName, Link>, Error> {
    let names: BTreeSet<IfName> = linux::names()?.into_iter().collect();
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
        return Ok(linux::links()?);
    }
    let mut links = linux::links_named(&detailed)?;
    for name in names.difference(&detailed) {
        links.entry(name.clone()).or_default();
    }
    Ok(links)
}
