//! Nodes with the service on them, and what has to be true after whatever happens there, without a hook.

use std::collections::BTreeSet;
use std::time::Instant;

use super::super::lab::{Guest, Node, PATIENCE, Watch, wait_until};
use super::linux::{sensor_on, start, vm_on};
use super::{counts, mirrors, run};

/// 101 is mirrored.
pub const DMZ: &str = "[dmz]\nsource = 101\noutput = 200/net1\n";

/// Where sources and sensor are plugged in, and so which engine serves them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The bridge of the sources.
    pub sources: &'static str,
    /// The bridge of the sensor.
    pub sensor: &'static str,
}

/// Both on Open vSwitch: the engine `ovs`.
pub const OVS: Place = Place {
    sources: "vmbr2",
    sensor: "vmbr2",
};

/// Both on a Linux bridge, on a node without Open vSwitch: the engine `nft`.
pub const LINUX: Place = Place {
    sources: "vmbr0",
    sensor: "vmbr0",
};

/// Sources on Open vSwitch, the sensor on a Linux bridge: the engine `nft`, on ports that Open vSwitch holds.
pub const MIXED: Place = Place {
    sources: "vmbr2",
    sensor: "vmbr0",
};

impl Place {
    /// All of them; the name of each is shown if a test fails there.
    #[allow(clippy::print_stderr)]
    pub fn all() -> impl Iterator<Item = Place> {
        [OVS, LINUX, MIXED].into_iter().inspect(|place| {
            eprintln!(
                "sources on {}, the sensor on {}",
                place.sources, place.sensor
            );
        })
    }

    /// A guest with one NIC where the sources are.
    pub fn vm(self, vmid: u32, more: &str) -> Guest {
        vm_on(vmid, &format!("bridge={}{more}", self.sources))
    }

    /// The sensor, its monitor NIC net1.
    pub fn sensor(self, vmid: u32, more: &str) -> Guest {
        sensor_on(vmid, &format!("bridge={}{more}", self.sensor))
    }

    /// These guests, all running.
    pub fn guests(self, guests: &[Guest]) -> Node {
        let node = if self == LINUX {
            Node::without_ovs()
        } else {
            let node = Node::start();
            node.ovs_bridge("vmbr2");
            node
        };
        node.linux_bridge("vmbr0");
        start(&node, guests);
        node
    }

    /// 101, 102 and the sensor 200, all running.
    pub fn three_guests(self) -> Node {
        self.guests(&[self.vm(101, ""), self.vm(102, ""), self.sensor(200, "")])
    }
}

/// Starts the service with this file, and waits until nothing is left to do.
#[track_caller]
pub fn watched(node: &Node, span_cfg: &str) -> Watch {
    node.span_cfg(span_cfg);
    let watch = node.watch();
    quiet(node);
    watch
}

/// Waits until `plan` finds nothing left to do and nothing wrong.
#[track_caller]
pub fn quiet(node: &Node) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (code, out, err) = run(node, &["plan"]);
        if code == 0 {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "after {PATIENCE:?} there is still something to do:\n{out}{err}"
        );
    }
}

/// Waits until what `from` sends to `to` reaches the sensor 200, says how long after `since` that was, and makes sure
/// that frames between the two arrive there once.
#[track_caller]
pub fn followed(node: &Node, what: &str, from: &str, to: &str, since: Instant) {
    say_after(what, node.arrives(from, to, "200/net1", since));
    quiet(node);
    assert_mirrored(node, what, from, to);
}

/// Shown with `--nocapture`: how long it took, for people to compare.
#[allow(clippy::print_stderr)]
pub fn say_after(what: &str, after: std::time::Duration) {
    eprintln!("{what}: mirrored after {} ms", after.as_millis());
}

/// Does each frame between the two arrive at the sensor 200 once?
#[track_caller]
pub fn assert_mirrored(node: &Node, token: &str, from: &str, to: &str) {
    assert_mirrored_at(node, "200/net1", token, from, to);
}

/// Does each frame between the two arrive at this sensor once?
#[track_caller]
pub fn assert_mirrored_at(node: &Node, sensor: &str, token: &str, from: &str, to: &str) {
    node.acquaint(from, to);
    let mut sensor = node.capture(sensor);
    let (there, back) = (format!("{token}-there"), format!("{token}-back"));
    node.exchange(from, to, &there);
    node.exchange(to, from, &back);
    sensor.wait_for(|frame| frame.contains(&there));
    sensor.wait_for(|frame| frame.contains(&back));
    assert_eq!(counts(&mut sensor, &[&there, &back]), [1, 1], "{token}");
}

/// All that is ours in Open vSwitch and in nftables, as text.
pub fn ours(node: &Node) -> String {
    let mut lines = Vec::new();
    if node.ovs_pids().0.is_some() {
        lines = mirrors(node);
    }
    let list = node.nft_list();
    let table = list
        .split("table ")
        .filter(|table| table.starts_with("netdev pve-span "));
    lines.extend(table.map(str::to_owned));
    lines.join("\n")
}

/// Waits until nothing of ours mentions this device any more.
#[track_caller]
pub fn let_go(node: &Node, device: &str) {
    wait_until(&format!("{device} is in no mirror"), || {
        !mentions(&ours(node), device)
    });
}

/// Is the device named there, and not only one whose name begins like it?
pub fn mentions(text: &str, device: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| word == device)
}

/// Nothing went wrong, as far as the service has told.
#[track_caller]
pub fn assert_no_faults(watch: &Watch) {
    let told = watch.stderr();
    let faults: BTreeSet<&str> = told
        .lines()
        .filter(|line| line.contains("error: ") || line.contains("warning: "))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// What happened lately, as `status --events` has it: `watch: dmz: …`.
#[track_caller]
pub fn events(node: &Node) -> Vec<String> {
    let (code, out, err) = run(node, &["status", "--events", "--json"]);
    assert_eq!(code, 0, "{err}");
    let events: serde_json::Value = serde_json::from_str(&out).expect("it is JSON");
    let events = events.as_array().expect("it is a list");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    events
        .iter()
        .map(|event| format!("{}: {}", text(&event["by"]), text(&event["what"])))
        .collect()
}

/// A device's settings without what is its own: its name, its number, the bridge that it is in.
pub fn without_identity(settings: &str) -> String {
    let mut lines = settings.lines().map(str::to_owned).collect::<Vec<_>>();
    for line in &mut lines {
        // `12: tap101i0@if3: <…> mtu 1500 master vmbr0 state forwarding priority 32 cost 2`
        if let Some((_, rest)) = line.split_once(": <") {
            let words: Vec<&str> = rest.split(' ').collect();
            let master = words.iter().position(|word| *word == "master");
            let keep = |(at, _): &(usize, &&str)| master.is_none_or(|master| *at != master + 1);
            let kept = words.iter().enumerate().filter(keep);
            *line = kept.map(|(_, word)| *word).collect::<Vec<_>>().join(" ");
        }
        if line.starts_with("Features for ") {
            line.clear();
        }
    }
    lines.join("\n")
}
