//! What `pve-span doctor` looks at. Nothing is changed, and nothing that hangs holds it: whatever could (files on
//! storages, /etc/pve, programs) is looked at by a child or until a deadline, and what could not be seen in time is told.

mod diversions;
mod hookscripts;
mod host;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::active::InForce;
use crate::engine::ovs;
use crate::engine::ovs::PortSelection;
use crate::engine::port;
use crate::pve::{Pve, SPAN_CFG};
use crate::reconcile::Context;
use crate::reconcile::inputs::Detail;
use crate::reconcile::observe::{Look, look};
use crate::sys::error::with_causes;
use crate::sys::files;
use crate::sys::isolated;
use pve_span_core::config;
use pve_span_core::config::Annotations;
use pve_span_core::config::diagnostic::Diagnostic;
use pve_span_core::doctor::{Answer, Facts, File, Finding, Host, Node, examine};
use pve_span_core::model::IfName;
use pve_span_core::pve::cluster::{Cluster, Unknown};
use pve_span_core::resolve::references;
use pve_span_core::state::port_map::{BridgeKind, PortMap};

/// How long /etc/pve may take to answer a first question.
const PVE: Duration = Duration::from_secs(4);

/// How long all may take that is behind it.
const ALL: Duration = Duration::from_secs(25);

/// How long Open vSwitch may take.
const OVS: Duration = Duration::from_secs(3);

/// The most ports that are asked what their hardware does.
const MOST_PORTS: usize = 64;

/// Looks at everything and judges it.
pub fn run(root: &Path) -> Vec<Finding> {
    let host = host::look(root);
    let answers = isolated(PVE, || {
        let _ = files::read_bytes(&Pve::new(root).path(".version"));
    });
    let (answer, why) = match answers {
        Ok(()) => match isolated(ALL, || everything(root, &host)) {
            Ok(findings) => return findings,
            Err(error) => (Answer::Yes, with_causes(&error)),
        },
        Err(error) => (Answer::No, with_causes(&error)),
    };
    without_pve(root, &host, answer, why)
}

/// What can be told without /etc/pve.
fn without_pve(root: &Path, host: &Host, pve: Answer, why: String) -> Vec<Finding> {
    let (seen, _) = ovs::observe(root, &PortSelection::All, Instant::now() + OVS);
    let unknown = Unknown(why);
    examine(&Facts {
        node: Err(unknown.clone()),
        pve,
        ovs: &seen,
        ovs_more: ovs::more(root, Instant::now() + OVS),
        host,
        volumes: Vec::new(),
        storages: Err(unknown),
        chains: Vec::new(),
        programs: hookscripts::programs(root),
        packaged: hookscripts::packaged(root),
        clearing: hookscripts::clearing_files(root),
        diversions: Vec::new(),
        offloading: Vec::new(),
    })
}

fn everything(root: &Path, host: &Host) -> Vec<Finding> {
    let now = Instant::now();
    let context = Context::new(root, "doctor", now + ALL / 2, Duration::ZERO);
    let look = match look(&context, Detail::All, &BTreeSet::new()) {
        Ok(look) => look,
        Err(error) => return without_pve(root, host, Answer::Yes, with_causes(&error)),
    };
    let pve = Pve::new(root);
    let storages = pve.storages();
    let scripts = hookscripts::look(root, &look.cluster, storages.as_ref().ok(), &pve);
    examine(&Facts {
        node: Ok(Node {
            file: file(&pve, &look.in_force, &look.cluster),
            annotations: look.in_force.annotations(),
            cluster: &look.cluster,
            observed: &look.observed,
            desired: &look.desired,
            plan: &look.plan,
            needs_ovs: if look.waits_for_ovs().is_some() {
                Answer::Yes
            } else {
                Answer::No
            },
        }),
        pve: Answer::Yes,
        ovs: &look.observed.ovs,
        ovs_more: ovs::more(root, Instant::now() + OVS),
        host,
        volumes: scripts.volumes,
        storages,
        chains: scripts.chains,
        programs: hookscripts::programs(root),
        packaged: hookscripts::packaged(root),
        clearing: scripts.clearing,
        diversions: diversions::look(&look),
        offloading: offloading(&look),
    })
}

/// What there is to say about span.cfg as it stands, whatever is in force.
fn file(pve: &Pve, in_force: &InForce, cluster: &Cluster) -> File {
    let path = pve.path(SPAN_CFG);
    let told = || -> Vec<Diagnostic> {
        let Ok(text) = files::read_text(&path) else {
            return Vec::new();
        };
        let name = path.display().to_string();
        let mut read: Annotations = config::parse(&name, &text);
        if read.is_valid() && pve.is_mounted() {
            let unknown = references::check(&name, &read, cluster);
            read.diagnostics.extend(unknown);
            read.diagnostics.sort_by(|a, b| a.place.cmp(&b.place));
        }
        read.diagnostics
    };
    match in_force {
        InForce::File { .. } => File::InForce(told()),
        InForce::LastGood { why, .. } => File::LastGood(why.clone(), told()),
        InForce::NotConfigured { .. } => File::Missing,
        InForce::Unknown { why, .. } => File::Nothing(why.clone(), told()),
    }
}

/// The physical ports of bridges with sources whose network card may switch frames itself.
fn offloading(look: &Look) -> Vec<IfName> {
    let map = PortMap::new(&look.observed);
    let present = || {
        look.desired
            .sessions
            .iter()
            .flat_map(|state| &state.present)
    };
    let bridges: BTreeSet<&IfName> = present().map(|source| &source.bridge).collect();
    let sources: BTreeSet<&IfName> = present().map(|source| &source.port).collect();
    let physical = |name: &IfName| {
        let link = look.observed.links.get(name);
        link.is_some_and(|link| link.kind.as_deref().is_none_or(|kind| kind == "bond"))
    };
    let ports = map.all().filter(|port| {
        port.nic.is_none()
            && (bridges.contains(&port.bridge) || port.bridge_kind == BridgeKind::None)
    });
    let ports = ports.map(|port| &port.name).chain(sources.iter().copied());
    let ports: BTreeSet<&IfName> = ports.filter(|name| physical(name)).collect();
    ports
        .into_iter()
        .take(MOST_PORTS)
        .filter(|name| port::switches_in_hardware(name).unwrap_or(false))
        .cloned()
        .collect()
}
