//! What a laboratory has no hardware for, or cannot break.

use super::*;
use crate::engine::nft::NftState;
use crate::plan::Plan;
use crate::pve::cluster::{Cluster, Unknown};
use crate::state::{Desired, Observed, OvsState};

fn host() -> Host {
    Host {
        version: "1.0.0".into(),
        kernel: None,
        features: Ok(Vec::new()),
        nft: Ok(None),
        chains: Vec::new(),
        service: None,
        enabled: Ok("enabled".into()),
    }
}

/// What is told of a node that is made to order, as `severity: what | seen | remedy`.
fn told(id: Id, nft: NftState, change: impl Fn(&mut Facts<'_>)) -> Vec<String> {
    let (host, ovs) = (host(), OvsState::Absent("none".into()));
    let (cluster, desired, plan) = (
        Cluster::unknown("not read"),
        Desired::default(),
        Plan::default(),
    );
    let observed = Observed {
        nft,
        ..Observed::default()
    };
    let mut facts = Facts {
        node: Ok(Node {
            file: File::Missing,
            annotations: None,
            cluster: &cluster,
            observed: &observed,
            desired: &desired,
            plan: &plan,
            needs_ovs: Answer::No,
        }),
        pve: Answer::Yes,
        ovs: &ovs,
        ovs_more: None,
        host: &host,
        volumes: Vec::new(),
        storages: Ok(crate::pve::storage::Storages::default()),
        chains: Vec::new(),
        programs: Vec::new(),
        packaged: None,
        clearing: Vec::new(),
        diversions: Vec::new(),
        offloading: Vec::new(),
    };
    change(&mut facts);
    let findings = examine(&facts).into_iter();
    findings
        .filter(|finding| finding.id == id)
        .map(|finding| {
            let remedy = finding.remedy.unwrap_or_default();
            format!(
                "{}: {} | {} | {remedy}",
                finding.severity.word(),
                finding.what,
                finding.evidence
            )
        })
        .collect()
}

#[test]
fn a_network_card_that_switches_frames_itself_is_told() {
    let told = told(Id::TcOffload, NftState::default(), |facts| {
        facts.offloading = vec!["eno1".parse().unwrap(), "eno2".parse().unwrap()];
    });
    assert_eq!(
        told,
        [
            "warning: eno1 and eno2 may switch frames in hardware, past mirrors: what is switched there no sensor gets | \
          ethtool -k eno1: hw-tc-offload: on | ethtool -K eno1 hw-tc-offload off"
        ]
    );
}

#[test]
fn what_could_not_be_looked_at_is_a_finding_of_its_own() {
    let nothing = |_: &mut Facts<'_>| {};
    assert_eq!(
        told(
            Id::TableUnreadable,
            NftState::Failed("no answer in time".into()),
            nothing
        ),
        [
            "warning: cannot tell what nftables copies: its part stays as it is | no answer in time | nft list table netdev pve-span"
        ]
    );
    assert_eq!(
        told(Id::StorageUnclear, NftState::default(), |facts| {
            facts.storages = Err(Unknown("cannot read /etc/pve/storage.cfg".into()));
        }),
        [
            "warning: cannot tell where hookscripts are: the storages are not known | cannot read /etc/pve/storage.cfg | pvesm status"
        ]
    );
    assert_eq!(
        told(Id::CannotTell, NftState::default(), |facts| {
            facts.node = Err(Unknown("not done within 25 s".into()));
        }),
        [
            "warning: sessions, guests and sensors were not looked at | not done within 25 s | pve-span status -vv tells how far a look gets"
        ]
    );
    assert_eq!(
        told(Id::OvsSchema, NftState::default(), |facts| {
            facts.ovs_more = Some(OvsMore {
                version: None,
                schema: None,
                lacks: Err(Unknown("refused".into())),
                behind: None,
                hw_offload: None,
                dpdk: Vec::new(),
            });
        }),
        [] as [&str; 0],
        "no Open vSwitch, no schema"
    );
}
