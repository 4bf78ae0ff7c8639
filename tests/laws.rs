//! The four laws of docs/architecture.md, over generated nodes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod model;

use std::collections::BTreeSet;

use model::{Node, apply_plan, by_name_only, foreign, node, restricted};
use proptest::prelude::*;
use pve_span_core::model::Vmid;
use pve_span_core::plan::{Action, Change, plan};
use pve_span_core::resolve::resolve;
use pve_span_core::resolve::scope::Interest;
use pve_span_core::state::{Assumptions, Desired, Observed, OvsState};

fn desired(node: &Node, assume: &Assumptions) -> Desired {
    resolve(
        &node.annotations(),
        &node.cluster(),
        &node.observed(),
        assume,
    )
}

fn nobody_gone() -> Assumptions {
    Assumptions::default()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn law_1_after_the_plan_there_is_nothing_left_to_do(node in node()) {
        let (desired, mut observed) = (desired(&node, &nobody_gone()), node.observed());
        let first = plan(&desired, &observed);
        apply_plan(&first, &mut observed);
        let second = plan(&desired, &observed);
        prop_assert!(second.is_done(), "first:\n{first}then:\n{second}");
    }

    #[test]
    fn law_1_holds_when_a_guest_counts_as_gone(node in node(), gone in 101_u32..110) {
        let assume = Assumptions { gone: [Vmid::new(gone).unwrap()].into(), now: 0 };
        let (desired, mut observed) = (desired(&node, &assume), node.observed());
        apply_plan(&plan(&desired, &observed), &mut observed);
        prop_assert!(plan(&desired, &observed).is_done());
        let OvsState::Present(ovs) = &observed.ovs else { unreachable!() };
        let own = ovs.bridges.values().flat_map(|bridge| bridge.mirrors.values()).filter(|mirror| mirror.mark.is_some());
        let of_gone = own.flat_map(|mirror| mirror.config.ports.keys()).filter(|port| {
            desired.held.is_empty() && pve_span_core::model::port_owner(port.as_str()).is_some_and(|(nic, _)| nic.vmid.get() == gone)
        });
        let stays = node.text().contains("bridge:") || node.text().contains("pre-stop");
        prop_assert!(stays || of_gone.count() == 0, "a mirror of guest {gone} is still there");
    }

    #[test]
    fn law_2_nothing_without_our_mark_is_touched(node in node()) {
        let (desired, mut observed) = (desired(&node, &nobody_gone()), node.observed());
        let before = foreign(&observed);
        let plan = plan(&desired, &observed);
        let OvsState::Present(ovs) = &observed.ovs else { unreachable!() };
        for action in &plan.actions {
            if let Some(row) = &action.row {
                let bridge = action.mirror.engine.bridge().unwrap();
                let mirror = &ovs.bridges[bridge].mirrors[row];
                prop_assert_eq!(mirror.mark.as_ref().map(|mark| &mark.session), Some(&action.mirror.of.session));
            }
        }
        apply_plan(&plan, &mut observed);
        prop_assert_eq!(before, foreign(&observed));
    }

    #[test]
    fn what_was_changed_of_devices_is_put_back(node in node()) {
        let (desired, mut observed) = (desired(&node, &nobody_gone()), node.observed());
        let before = observed.ports.clone();
        apply_plan(&plan(&desired, &observed), &mut observed);
        apply_plan(&plan(&Desired::default(), &observed), &mut observed);
        prop_assert_eq!(before, observed.ports);
        prop_assert!(observed.saved.is_empty());
    }

    #[test]
    fn law_3_a_guest_that_stops_changes_nothing_for_the_others(node in node(), stops in 101_u32..110) {
        let vmid = Vmid::new(stops).unwrap();
        prop_assume!(!node.is_sensor(stops));
        let without = Assumptions { gone: [vmid].into(), now: 0 };
        let with_it = others(&plan(&desired(&node, &nobody_gone()), &node.observed()).actions, vmid);
        let without_it = others(&plan(&desired(&node, &without), &node.observed()).actions, vmid);
        // Where the last source stops, its mirror goes as a whole, and others' leftovers in it with it.
        let removed: BTreeSet<String> = without_it.iter().filter(|line| line.contains("remove")).cloned().collect();
        let keep = |lines: &[String]| lines.iter().filter(|line| {
            !removed.iter().any(|gone| line.split(':').next() == gone.split(':').next())
        }).cloned().collect::<Vec<_>>();
        prop_assert_eq!(keep(&with_it), keep(&without_it));
    }

    #[test]
    fn law_4_the_order_of_sections_and_words_does_not_matter(node in node(), seed in any::<u64>()) {
        let shuffled = node.shuffled(seed);
        let (one, other) = (desired(&node, &nobody_gone()), desired(&shuffled, &nobody_gone()));
        prop_assert_eq!(one.mirrors, other.mirrors);
        prop_assert_eq!(one.copies, other.copies);
        prop_assert_eq!(one.outputs, other.outputs);
        prop_assert_eq!(one.held, other.held);
    }

    #[test]
    fn looking_only_at_what_matters_gives_the_same_plan(node in node()) {
        let annotations = node.annotations();
        let all = node.observed();
        let few = match Interest::of(&annotations) {
            Interest::Everything => return Ok(()),
            Interest::EveryGuest(sensors) => by_name_only(&all, &sensors),
            Interest::Only(scope) => restricted(&all, &scope),
        };
        let of = |observed: &Observed| plan(&resolve(&annotations, &node.cluster(), observed, &nobody_gone()), observed);
        prop_assert_eq!(of(&all), of(&few));
    }

    #[test]
    fn what_is_unknown_changes_nothing(node in node()) {
        let mut observed = node.observed();
        apply_plan(&plan(&desired(&node, &nobody_gone()), &observed), &mut observed);
        let unknown = pve_span_core::pve::cluster::Cluster::unknown("not mounted");
        let desired = resolve(&node.annotations(), &unknown, &observed, &nobody_gone());
        let plan = plan(&desired, &observed);
        prop_assert!(plan.is_done(), "{plan}");
    }
}

/// What happens to other guests' sources and to mirrors, without what the stopping guest itself brings about.
fn others(actions: &[Action], vmid: Vmid) -> Vec<String> {
    let of_others = actions.iter().filter(|action| match &action.change {
        Change::SetSource { port, .. } => {
            pve_span_core::model::port_owner(port.as_str()).is_none_or(|(nic, _)| nic.vmid != vmid)
        }
        Change::Remove { .. } => true,
        _ => false,
    });
    of_others.map(ToString::to_string).collect()
}

#[test]
fn the_generator_makes_nodes_with_something_to_do() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut busy, mut valid) = (0, 0);
    for _ in 0..200 {
        let node = node().new_tree(&mut runner).unwrap().current();
        valid += usize::from(node.annotations().is_valid());
        let observed: Observed = node.observed();
        busy += usize::from(!plan(&desired(&node, &nobody_gone()), &observed).is_done());
    }
    assert!(
        busy > 100 && valid > 100,
        "{busy} of 200 nodes have something to do, {valid} have a valid file"
    );
}
