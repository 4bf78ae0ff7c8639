//! Which guests' NICs the sessions take as sources, in the whole cluster and by the guests' configs: whose hookscripts
//! matter, and what another node would have to mirror.
//!
//! What a node mirrors is decided by the ports that are there (`resolve`); this is about guests wherever they are, whether
//! they run or not.

use std::collections::{BTreeMap, BTreeSet};

use super::availability::is_refused;
use super::matcher::{Matcher, Subject, Truth};
use super::selection::outputs_of;
use super::session::{phase, sensors};
use crate::config::selector::Selector;
use crate::config::{Annotations, Session};
use crate::model::{NicId, NicIndex, SessionName, Vmid};
use crate::pve::cluster::{Cluster, Known, Placement, Unknown};
use crate::pve::guest::Guest;
use crate::state::{Assumptions, SessionPhase};

/// What a session takes, by guests' configs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configured {
    /// The NICs that it takes for certain.
    pub nics: BTreeSet<NicId>,
    /// The guests of whom nobody can tell.
    pub unknown: BTreeSet<Vmid>,
}

/// What each of the sessions that run takes. Templates have no NICs.
///
/// # Errors
/// Nobody can tell which guests there are.
pub fn configured(
    annotations: &Annotations,
    running: &[&Session],
    cluster: &Cluster,
) -> Known<BTreeMap<SessionName, Configured>> {
    let placements = cluster.placements.as_ref().map_err(Clone::clone)?;
    // They carry copies only, so no group takes them.
    let outputs: BTreeSet<NicId> = running
        .iter()
        .flat_map(|session| outputs_of(session).map(move |nic| (session, nic)))
        .filter(|(session, nic)| !is_refused(session, *nic, cluster.guest(nic.vmid)))
        .map(|(_, nic)| nic)
        .collect();
    let every_sensor = sensors(annotations.sessions.values());
    let own = |session: &&Session| sensors(std::iter::once(*session));
    let mut found: Vec<(&Session, BTreeSet<Vmid>, Configured)> = running
        .iter()
        .map(|session| (*session, own(session), Configured::default()))
        .collect();
    let mut there = cluster.clone();
    for (vmid, Placement { node, .. }) in placements {
        // `node:` asks where the guest is, which is where its port would be.
        there.this = Ok(node.clone());
        let matcher = Matcher {
            cluster: &there,
            sensors: &every_sensor,
        };
        for (session, own, configured) in &mut found {
            if !own.contains(vmid) {
                take(&matcher, session, *vmid, &outputs, configured);
            }
        }
    }
    let found = found.into_iter();
    Ok(found
        .map(|(session, _, configured)| (session.name.clone(), configured))
        .collect())
}

/// Guests as sessions see them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources {
    /// Those with a NIC that a session takes.
    pub taken: BTreeSet<Vmid>,
    /// Those of whom nobody can tell, and why.
    pub unknown: BTreeMap<Vmid, String>,
    /// Those behind an output.
    pub sensors: BTreeSet<Vmid>,
}

/// Goes through the sessions that are in force now.
///
/// # Errors
/// Nobody can tell which guests there are.
pub fn sources(annotations: &Annotations, cluster: &Cluster, now: i64) -> Known<Sources> {
    let assume = Assumptions {
        gone: BTreeSet::new(),
        now,
    };
    let running: Vec<&Session> = annotations
        .sessions
        .values()
        .filter(|session| phase(session, &assume) == SessionPhase::Running)
        .collect();
    let mut found = Sources {
        sensors: sensors(running.iter().copied()),
        ..Sources::default()
    };
    let all = configured(annotations, &running, cluster)?;
    let nics = all.values().flat_map(|configured| &configured.nics);
    found.taken = nics.map(|nic| nic.vmid).collect();
    let unknown = all.values().flat_map(|configured| &configured.unknown);
    for vmid in unknown.filter(|vmid| !found.taken.contains(vmid)) {
        let why = match (cluster.guests.get(vmid), &cluster.pools) {
            (Some(Err(Unknown(why))), _) | (_, Err(Unknown(why))) => why.clone(),
            _ => "its config was not read".into(),
        };
        found.unknown.insert(*vmid, why);
    }
    Ok(found)
}

/// Notes what the session takes of a guest. A template never runs.
fn take(
    matcher: &Matcher<'_>,
    session: &Session,
    vmid: Vmid,
    outputs: &BTreeSet<NicId>,
    found: &mut Configured,
) {
    let Some(guest) = matcher.cluster.guest(vmid) else {
        if may_take(matcher, session, vmid) {
            found.unknown.insert(vmid);
        }
        return;
    };
    if guest.template {
        return;
    }
    for (nic, bridge) in nics(guest).filter(|(nic, _)| !outputs.contains(nic)) {
        match matcher.takes(session, subject(nic, bridge)) {
            Truth::Yes => {
                found.nics.insert(nic);
            }
            Truth::Unknown => {
                found.unknown.insert(vmid);
            }
            Truth::No => {}
        }
    }
}

/// May the session take a guest whose config cannot be read, whatever NICs it has?
fn may_take(matcher: &Matcher<'_>, session: &Session, vmid: Vmid) -> bool {
    let indices = (0..=NicIndex::MAX).filter_map(NicIndex::new);
    let mut possible = indices.map(|index| subject(NicId { vmid, index }, ""));
    let mut sources = session.sources.iter();
    sources.any(|source| matches!(source.value, Selector::Bridge(_)))
        || possible.any(|subject| matcher.takes(session, subject) != Truth::No)
}

/// The NICs that have a port when the guest runs, and the bridge of each.
fn nics(guest: &Guest) -> impl Iterator<Item = (NicId, &str)> {
    guest.nics.iter().filter_map(|(index, nic)| {
        let id = NicId {
            vmid: guest.vmid,
            index: *index,
        };
        Some((id, nic.bridge.as_deref()?))
    })
}

fn subject(nic: NicId, bridge: &str) -> Subject<'_> {
    Subject {
        nic: Some(nic),
        port: None,
        bridge,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::model::GuestKind;
    use crate::pve::cluster::{parse_pools, parse_vmlist};
    use crate::pve::guest;

    fn vmid(number: u32) -> Vmid {
        Vmid::new(number).unwrap()
    }

    fn cluster(guests: &[(u32, &str, &str)]) -> Cluster {
        let mut cluster = Cluster::unknown("not read");
        let ids: Vec<String> = guests
            .iter()
            .map(|(vmid, node, _)| format!(r#""{vmid}": {{"node": "{node}", "type": "qemu"}}"#))
            .collect();
        cluster.placements =
            Ok(parse_vmlist(&format!(r#"{{"ids": {{{}}}}}"#, ids.join(","))).unwrap());
        for (number, _, text) in guests {
            let known = if *text == "?" {
                Err(Unknown("it is empty".into()))
            } else {
                Ok(guest::parse(vmid(*number), GuestKind::Qemu, text).0)
            };
            cluster.guests.insert(vmid(*number), known);
        }
        cluster.pools = Ok(parse_pools("pool:prod::105:::\n").unwrap());
        cluster
    }

    /// Who is taken, who is unknown, who is a sensor.
    fn found(span_cfg: &str) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
        let cluster = cluster(&[
            (101, "pve1", "net0: virtio,bridge=vmbr0\ntags: web"),
            (102, "pve2", "net0: virtio,bridge=vmbr1"),
            (103, "pve2", "net0: virtio,bridge=vmbr1\ntemplate: 1"),
            (104, "pve3", "net0: virtio\ntags: web"),
            (105, "pve3", "?"),
            (
                200,
                "pve1",
                "net0: virtio,bridge=vmbr0\nnet1: virtio,bridge=vmbr1",
            ),
        ]);
        let annotations = config::parse("span.cfg", span_cfg);
        assert!(annotations.is_valid(), "{:?}", annotations.diagnostics);
        let found = sources(&annotations, &cluster, 0).unwrap();
        let numbers = |guests: Vec<&Vmid>| guests.into_iter().map(|vmid| vmid.get()).collect();
        (
            numbers(found.taken.iter().collect()),
            numbers(found.unknown.keys().collect()),
            numbers(found.sensors.iter().collect()),
        )
    }

    #[test]
    fn sources_are_found_wherever_they_are() {
        let session = |source: &str| found(&format!("[a]\nsource = {source}\noutput = 200/net1\n"));
        assert_eq!(session("all"), (vec![101, 102], vec![105], vec![200]));
        assert_eq!(session("101, 102/net1"), (vec![101], vec![], vec![200]));
        assert_eq!(
            session("tag:web"),
            (vec![101], vec![105], vec![200]),
            "104 has no bridge"
        );
        assert_eq!(session("node:pve2"), (vec![102], vec![], vec![200]));
        assert_eq!(
            session("bridge:vmbr1"),
            (vec![102], vec![105], vec![200]),
            "its own sensor is not one"
        );
        assert_eq!(session("pool:prod"), (vec![], vec![105], vec![200]));
        assert_eq!(
            session("all\nexclude = 102, 105"),
            (vec![101], vec![], vec![200])
        );
    }

    #[test]
    fn each_session_s_nics_are_told_and_those_of_outputs_left_out() {
        let cluster = cluster(&[
            (
                101,
                "pve1",
                "net0: virtio,bridge=vmbr0\nnet1: virtio,bridge=vmbr1",
            ),
            (105, "pve2", "?"),
            (
                200,
                "pve2",
                "net0: virtio,bridge=vmbr0\nnet1: virtio,bridge=vmbr1",
            ),
        ]);
        let text = "[a]\nsource = bridge:vmbr1\noutput = 200/net1\n[b]\nsource = 200\noutput = port:eno2\n";
        let annotations = config::parse("span.cfg", text);
        let running: Vec<&Session> = annotations.sessions.values().collect();
        let nic = |number, index| NicId {
            vmid: vmid(number),
            index: NicIndex::new(index).unwrap(),
        };
        let takes = |nics: &[NicId], unknown: &[Vmid]| Configured {
            nics: nics.iter().copied().collect(),
            unknown: unknown.iter().copied().collect(),
        };
        let told = configured(&annotations, &running, &cluster).unwrap();
        assert_eq!(
            told.into_values().collect::<Vec<_>>(),
            [
                takes(&[nic(101, 1)], &[vmid(105)]),
                takes(&[nic(200, 0)], &[])
            ]
        );
    }

    #[test]
    fn sessions_that_are_over_take_nobody() {
        let off = "[a]\nsource = all\noutput = 200/net1\nenabled = no\n";
        assert_eq!(found(off), (vec![], vec![], vec![]));
    }

    #[test]
    fn a_sensor_of_one_session_may_be_another_s_source() {
        let text = "[a]\nsource = 101\noutput = 200/net1\n[b]\nsource = 200\noutput = port:eno2\n";
        assert_eq!(found(text), (vec![101, 200], vec![], vec![200]));
    }
}
