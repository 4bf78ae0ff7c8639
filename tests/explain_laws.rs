//! What `explain` tells is what is done: a law over generated nodes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, unused_imports)]
mod model;

use std::cell::Cell;

use model::{Node, apply_plan, node};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use pve_span_core::config::Annotations;
use pve_span_core::engine::EngineKind;
use pve_span_core::explain;
use pve_span_core::explain::{InForce, Nic, Part, Subject, View, explain};
use pve_span_core::model::{NicId, SessionName};
use pve_span_core::plan::{Plan, plan};
use pve_span_core::pve::cluster::Cluster;
use pve_span_core::resolve::resolve;
use pve_span_core::state::port_map::{Port, PortMap};
use pve_span_core::state::{Assumptions, Desired, Observed, SessionPhase, SessionState};

/// A node, and what is made of it.
struct Made {
    annotations: Annotations,
    cluster: Cluster,
    observed: Observed,
    desired: Desired,
    plan: Plan,
    map: PortMap,
}

impl Made {
    fn of(node: &Node) -> Self {
        Self::with(node, node.cluster(), node.observed())
    }

    fn with(node: &Node, cluster: Cluster, observed: Observed) -> Self {
        let annotations = node.annotations();
        let desired = resolve(&annotations, &cluster, &observed, &Assumptions::default());
        Self {
            plan: plan(&desired, &observed),
            map: PortMap::new(&observed),
            annotations,
            cluster,
            observed,
            desired,
        }
    }

    /// Everything that is plugged, explained.
    fn explained(&self) -> Vec<(NicId, Nic)> {
        let view = View {
            annotations: &self.annotations,
            cluster: &self.cluster,
            observed: &self.observed,
            desired: &self.desired,
            plan: &self.plan,
            now: 0,
        };
        let nics: Vec<NicId> = self.map.nics().map(|(_, nic)| nic.id).collect();
        let subjects: Vec<Subject> = nics.iter().copied().map(Subject::Nic).collect();
        let told = explain(&view, &subjects)
            .into_iter()
            .map(|told| told.unwrap().nics.remove(0));
        nics.into_iter().zip(told).collect()
    }

    fn state(&self, session: &SessionName) -> &SessionState {
        let mut states = self.desired.sessions.iter();
        states.find(|state| state.name == *session).unwrap()
    }

    /// By what `resolve` makes of it: is the NIC a source of the session, or on a bridge that is one?
    fn is_present(&self, part: &Part, nic: NicId, port: &Port) -> (bool, bool) {
        let present = &self.state(&part.session).present;
        let itself = present.iter().any(|source| source.nic == Some(nic));
        let whole = present
            .iter()
            .any(|source| source.nic.is_none() && source.port == port.bridge);
        (itself, whole)
    }

    /// The engines that shall mirror the NIC for the session to an output.
    fn engines(
        &self,
        session: &SessionName,
        output: &str,
        nic: NicId,
        port: &Port,
    ) -> Vec<EngineKind> {
        let mut mirrors = self.desired.mirrors.iter();
        let ovs = mirrors.any(|(key, wanted)| {
            key.of.session == *session
                && key.of.output == output
                && key.engine.bridge() == Some(&port.bridge)
                && (wanted.config.all || wanted.config.ports.contains_key(&port.name))
        });
        let mut copies = self.desired.copies.iter();
        let nft = copies.any(|(key, copies)| {
            let is_nics =
                |source: &pve_span_core::engine::nft::spec::CopySource| source.nic == Some(nic);
            key.session == *session && key.output == output && copies.sources.values().any(is_nics)
        });
        let ovs = ovs.then_some(EngineKind::Ovs);
        ovs.into_iter()
            .chain(nft.then_some(EngineKind::Nft))
            .collect()
    }
}

fn holds(made: &Made, tally: &Tally) -> Result<(), TestCaseError> {
    for (nic, told) in made.explained() {
        let port = made.map.of_nic(nic).unwrap();
        prop_assert_eq!(told.sessions.len(), made.annotations.sessions.len());
        for part in &told.sessions {
            let runs = made.state(&part.session).phase == SessionPhase::Running;
            let (itself, whole) = made.is_present(part, nic, port);
            let taken = part.taken == Some(true);
            let about = || format!("{nic} {part:?}\n{:?}", made.desired);
            if whole {
                // What a whole bridge takes of its ports is the mirror's to say.
                prop_assert!(!taken || runs, "{}", about());
            } else {
                prop_assert_eq!(taken, runs && itself, "{}", about());
            }
            legs(made, part, nic, port, tally)?;
            tally.count(part);
        }
        tally
            .arrivals
            .set(tally.arrivals.get() + told.arrivals.len());
    }
    Ok(())
}

/// Every leg is something that shall be mirrored, and the other way round.
fn legs(
    made: &Made,
    part: &Part,
    nic: NicId,
    port: &Port,
    tally: &Tally,
) -> Result<(), TestCaseError> {
    let session = &made.annotations.sessions[&part.session];
    let outputs: Vec<String> = session
        .outputs
        .iter()
        .map(|output| output.value.to_string())
        .collect();
    let all = made.desired.mirrors.iter().any(|(key, wanted)| {
        key.of.session == part.session
            && wanted.config.all
            && key.engine.bridge() == Some(&port.bridge)
    });
    for output in &outputs {
        let engines = made.engines(&part.session, output, nic, port);
        let told = || part.outputs.iter().filter(|leg| leg.output == *output);
        let good: Vec<EngineKind> = told().filter_map(|leg| leg.engine).collect();
        let other_vlan = port
            .tag
            .is_some_and(|tag| !session.vlans.is_empty() && !session.vlans.contains(tag));
        let about = || {
            format!(
                "{nic} to {output} by {engines:?}\n{part:?}\n{:?}",
                made.desired
            )
        };
        // A mirror of everything names no port; what is left of it are outputs, which carry copies only.
        let is_output_of_all = all && part.taken == Some(false) && part.why.contains("output");
        if !is_output_of_all && !other_vlan {
            prop_assert_eq!(&good, &engines, "{}", about());
        }
        if part.taken == Some(true) {
            prop_assert!(told().count() > 0, "{}", about());
        }
        for leg in told() {
            prop_assert_eq!(leg.fault.is_none(), leg.engine.is_some(), "{}", about());
            let reaches = leg.path.last().is_some_and(|hop| hop.name == *output);
            prop_assert_eq!(reaches, leg.fault.is_none(), "{}", about());
            prop_assert!(leg.engine.is_none() || leg.why.is_some(), "{}", about());
            tally
                .legs
                .set(tally.legs.get() + usize::from(leg.fault.is_none()));
        }
    }
    Ok(())
}

/// What was met: a law about nothing would hold, too.
#[derive(Default)]
struct Tally {
    taken: Cell<usize>,
    left: Cell<usize>,
    unknown: Cell<usize>,
    legs: Cell<usize>,
    arrivals: Cell<usize>,
}

impl Tally {
    fn count(&self, part: &Part) {
        let cell = match part.taken {
            Some(true) => &self.taken,
            Some(false) => &self.left,
            None => &self.unknown,
        };
        cell.set(cell.get() + 1);
    }
}

#[test]
fn what_is_told_to_be_taken_is_what_is_mirrored() {
    let tally = Tally::default();
    let mut runner = TestRunner::new(Config {
        cases: 1500,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&node(), |node| holds(&Made::of(&node), &tally))
        .unwrap();
    for (what, count) in [
        ("taken", &tally.taken),
        ("left", &tally.left),
        ("legs", &tally.legs),
        ("arrivals", &tally.arrivals),
    ] {
        assert!(count.get() > 200, "{what}: {}", count.get());
    }
}

#[test]
fn what_is_unknown_is_told_as_that() {
    let tally = Tally::default();
    let mut runner = TestRunner::new(Config {
        cases: 600,
        failure_persistence: None,
        ..Config::default()
    });
    let unknown = |node: &Node| Made::with(node, Cluster::unknown("not mounted"), node.observed());
    runner
        .run(&node(), |node| holds(&unknown(&node), &tally))
        .unwrap();
    assert!(tally.unknown.get() > 200 && tally.taken.get() > 200);
}

#[test]
fn after_apply_everything_that_can_be_told_is_in_force() {
    let mut runner = TestRunner::new(Config {
        cases: 600,
        failure_persistence: None,
        ..Config::default()
    });
    let seen = Cell::new(0);
    let law = |node: Node| {
        let mut observed = node.observed();
        let before = Made::of(&node);
        apply_plan(&before.plan, &mut observed);
        let after = Made::with(&node, node.cluster(), observed);
        prop_assert!(after.plan.is_done());
        let problems = !after.plan.problems.is_empty();
        for (nic, told) in after.explained() {
            let legs = told.sessions.iter().flat_map(|part| &part.outputs);
            for leg in legs.filter_map(|leg| leg.in_force.as_ref()) {
                prop_assert!(problems || *leg == InForce::Yes, "{nic} {leg:?}");
                seen.set(seen.get() + 1);
            }
            prop_assert!(
                told.sessions
                    .iter()
                    .all(|part| !part.why.contains("still mirrored"))
            );
        }
        Ok(())
    };
    runner.run(&node(), law).unwrap();
    assert!(seen.get() > 200, "{}", seen.get());
}

#[test]
fn before_apply_what_is_not_there_is_told_as_that() {
    let mut runner = TestRunner::new(Config {
        cases: 600,
        failure_persistence: None,
        ..Config::default()
    });
    let pending = Cell::new(0);
    let law = |node: Node| {
        let made = Made::of(&node);
        for (_, told) in made.explained() {
            for part in &told.sessions {
                let changes = made.plan.sessions().contains(&part.session);
                let not_yet = |leg: &explain::OutputPath| leg.in_force == Some(InForce::No);
                if part.outputs.iter().any(not_yet) && made.plan.problems.is_empty() {
                    prop_assert!(changes, "{part:?}");
                    pending.set(pending.get() + 1);
                }
            }
        }
        Ok(())
    };
    runner.run(&node(), law).unwrap();
    assert!(pending.get() > 100, "{}", pending.get());
}
