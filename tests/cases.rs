//! `tests/cases/<name>/`: a node and a span.cfg as files, and the plan that they come to.
//!
//! A case reads like documentation: `node` describes what exists (see [`read_node`]), `span.cfg` and
//! the optional `vmlist`, `user.cfg` and `<vmid>.conf` what the cluster filesystem holds, `plan` what
//! `pve-span plan` makes of it. `UPDATE_CASES=1 cargo test --test cases` writes the plans anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use pve_span_core::config;
use pve_span_core::health::faults;
use pve_span_core::model::Taken;
use pve_span_core::model::{GuestKind, IfName, OutputKey, SessionName};
use pve_span_core::plan::plan;
use pve_span_core::pve::cluster::{Cluster, parse_pools, parse_vmlist};
use pve_span_core::pve::guest;
use pve_span_core::resolve::resolve;
use pve_span_core::state::{
    Assumptions, Desired, Link, Mirror, MirrorConfig, MirrorOutput, Observed, Ovs, OvsBridge,
    OvsPort, OvsState, RowId, SessionPhase,
};

#[test]
fn every_case_comes_to_its_plan() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases"));
    let mut cases: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert!(cases.len() >= 8, "only {} cases", cases.len());
    let mut wrong = String::new();
    for case in &cases {
        let is = outcome(case);
        let expected = case.join("plan");
        if std::env::var_os("UPDATE_CASES").is_some() {
            fs::write(&expected, &is).unwrap();
        }
        let shall = fs::read_to_string(&expected).unwrap_or_default();
        if is != shall {
            writeln!(
                wrong,
                "{}:\n--- expected\n{shall}--- is\n{is}",
                case.display()
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn outcome(case: &Path) -> String {
    let read = |name: &str| fs::read_to_string(case.join(name)).ok();
    let (observed, assume) = read_node(&read("node").expect("a case has a node"));
    let annotations = config::parse(
        "span.cfg",
        &read("span.cfg").expect("a case has a span.cfg"),
    );
    let mut text = String::new();
    for diagnostic in &annotations.diagnostics {
        writeln!(text, "{diagnostic}").unwrap();
    }
    if !annotations.is_valid() {
        return text;
    }
    let mut cluster = Cluster::unknown("not in this case");
    cluster.this = Ok("pve1".parse().unwrap());
    if let Some(vmlist) = read("vmlist") {
        cluster.placements = Ok(parse_vmlist(&vmlist).unwrap());
    }
    if let Some(user_cfg) = read("user.cfg") {
        cluster.pools = Ok(parse_pools(&user_cfg).unwrap());
    }
    for entry in fs::read_dir(case).unwrap() {
        let path = entry.unwrap().path();
        let vmid = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse().ok());
        if let Some(vmid) = vmid.filter(|_| {
            path.extension()
                .is_some_and(|extension| extension == "conf")
        }) {
            let (guest, _) =
                guest::parse(vmid, GuestKind::Qemu, &fs::read_to_string(&path).unwrap());
            cluster.guests.insert(vmid, Ok(guest));
        }
    }
    let desired = resolve(&annotations, &cluster, &observed, &assume);
    text + &sessions(&desired) + &plan(&desired, &observed).to_string()
}

/// What became of each session, where it is worth a word.
fn sessions(desired: &Desired) -> String {
    let mut text = String::new();
    for state in &desired.sessions {
        if state.phase != SessionPhase::Running {
            writeln!(text, "{}: {:?}", state.name, state.phase).unwrap();
        }
        for fault in faults(state) {
            writeln!(text, "{}: {fault}", state.name).unwrap();
        }
        for note in state.all_notes() {
            writeln!(text, "{}: {note}", state.name).unwrap();
        }
    }
    text
}

/// A node, one fact a line:
///
/// ```text
/// ovs vmbr2: eno1 tap101i0 fwln102o0          ports of an Open vSwitch bridge
/// linux vmbr0: eno2 veth300i0                 ports of a Linux bridge
/// firewall 102/net0: tap102i0                 a device behind its firewall bridge
/// address 10.0.0.1 vmbr2                      an address of the node
/// mirror vmbr2 dmz 200/net1: tap200i1 < tap101i0 both, tap102i0 from       a mirror of ours
/// mirror vmbr2 -: tap200i1 < tap101i0 both    somebody else's
/// gone 101                                    a guest that is about to stop
/// ```
fn read_node(text: &str) -> (Observed, Assumptions) {
    let mut observed = Observed::default();
    let mut bridges: BTreeMap<IfName, OvsBridge> = BTreeMap::new();
    let mut assume = Assumptions {
        now: 1_800_000_000,
        ..Assumptions::default()
    };
    let if_name = |text: &str| text.trim().parse::<IfName>().unwrap();
    for line in text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
    {
        let (word, rest) = line.split_once(' ').unwrap();
        let (head, tail) = rest.split_once(':').unwrap_or((rest, ""));
        let link = |kind: &str, master: Option<&str>| Link {
            kind: Some(kind.to_owned()),
            master: master.map(if_name),
            ..Link::default()
        };
        match word {
            "ovs" => {
                observed
                    .links
                    .insert(if_name(head), link("openvswitch", None));
                let bridge = bridges.entry(if_name(head)).or_default();
                for name in tail.split_whitespace() {
                    let kind = if name.starts_with("fwln") {
                        "internal"
                    } else {
                        ""
                    };
                    let port = OvsPort {
                        kind: kind.into(),
                        interfaces: 1,
                        row: RowId(name.into()),
                        ..OvsPort::default()
                    };
                    bridge.ports.insert(if_name(name), port);
                    observed.links.insert(if_name(name), Link::default());
                }
            }
            "linux" => {
                observed.links.insert(if_name(head), link("bridge", None));
                for name in tail.split_whitespace() {
                    observed
                        .links
                        .insert(if_name(name), link("veth", Some(head)));
                }
            }
            "firewall" => {
                let firewall = format!("fwbr{}", head.replace("/net", "i"));
                observed
                    .links
                    .insert(if_name(&firewall), link("bridge", None));
                observed
                    .links
                    .insert(if_name(tail), link("tun", Some(&firewall)));
            }
            "address" => {
                let (address, device) = head.split_once(' ').unwrap();
                observed
                    .links
                    .get_mut(&if_name(device))
                    .unwrap()
                    .addresses
                    .push(address.parse().unwrap());
            }
            "gone" => {
                assume.gone.insert(head.parse().unwrap());
            }
            "mirror" => {
                let words: Vec<&str> = head.split(' ').collect();
                let bridge = bridges.get_mut(&if_name(words[0])).unwrap();
                let row = RowId(format!("mirror {}", bridge.mirrors.len() + 1));
                bridge.mirrors.insert(row, mirror(&words[1..], tail));
            }
            _ => panic!("what is `{line}`?"),
        }
    }
    for (number, link) in observed.links.values_mut().enumerate() {
        link.index = u32::try_from(number).unwrap() + 1;
    }
    observed.ovs = OvsState::Present(Ovs {
        bridges,
        caught_up: true,
    });
    (observed, assume)
}

fn mirror(whose: &[&str], what: &str) -> Mirror {
    let (output, sources) = what.split_once('<').unwrap();
    let mut config = MirrorConfig::default();
    if let Ok(port) = output.trim().parse() {
        config.output = MirrorOutput::Port(port);
    }
    for source in sources
        .split(',')
        .map(str::trim)
        .filter(|source| !source.is_empty())
    {
        let (port, taken) = source.split_once(' ').unwrap();
        let taken = match taken {
            "both" => Taken::Both,
            "from" => Taken::Sent,
            _ => Taken::Delivered,
        };
        config.ports.insert(port.parse().unwrap(), taken);
    }
    let mark = (whose != ["-"]).then(|| OutputKey {
        session: SessionName::from_mark(whose[0]),
        output: whose[1].to_owned(),
    });
    Mirror {
        name: "mirror".into(),
        mark,
        config,
        statistics: None,
    }
}
