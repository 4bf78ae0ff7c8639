//! The nodes on which hooks are timed, and what is timed on each.

use std::path::PathBuf;
use std::time::Duration;

use super::calls::{check, line, line_of};
use super::hyperfine::{Effort, Timed, medians};
use super::lab::{Guest, Nic, Node};

/// The guest that starts and stops.
const VMID: u32 = 101;
/// The sensor; its monitor NIC is net1.
const SENSOR: u32 = 9000;
const CLEAR: &str = "ovs-vsctl clear Bridge vmbr2 mirrors";
const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/ovs-vsctl-mirror.sh");

/// How the guests are plugged into the bridge.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Plugged {
    /// Straight.
    Directly,
    /// Each behind a firewall bridge of its own (`firewall=1`).
    BehindFirewall,
}

/// What the session takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The guest that starts and stops.
    Guest,
    /// Every guest, by a tag, so that the whole node has to be looked at. The script takes the whole bridge.
    Tag,
}

/// A node with one OVS bridge, a sensor and some guests, all of them running.
pub struct Situation {
    /// In a few words.
    pub name: &'static str,
    /// How many guests there are.
    pub guests: u32,
    /// How they are plugged.
    pub plugged: Plugged,
    /// What the session takes.
    pub source: Source,
}

/// A hook's time beside others'.
#[derive(Clone, Copy)]
pub struct Hooked {
    /// pve-span's.
    pub ours: Duration,
    /// The script's.
    pub script: Duration,
    /// Another pve-span's, where `PVE_SPAN_BEFORE` names one.
    pub before: Option<Duration>,
}

/// A hook, and what comes before it each time.
pub struct Hook {
    /// What it does, in words.
    pub does: &'static str,
    /// Its phase.
    pub phase: &'static str,
    before: Option<&'static str>,
}

/// The hooks that are timed. The first one's change is also made with ovs-vsctl, to time ovs-vswitchd.
pub const HOOKS: [Hook; 4] = [
    Hook {
        does: "begins to mirror",
        phase: "post-start",
        before: Some("pre-stop"),
    },
    Hook {
        does: "nothing to do",
        phase: "post-start",
        before: Some("post-start"),
    },
    Hook {
        does: "ceases to mirror",
        phase: "pre-stop",
        before: Some("post-start"),
    },
    Hook {
        does: "does nothing",
        phase: "pre-start",
        before: None,
    },
];

/// What was measured in a situation; medians.
pub struct Measured {
    /// In the order of [`HOOKS`].
    pub hooks: Vec<Hooked>,
    /// What ovs-vswitchd takes to act on the first one's change.
    pub vswitchd: Duration,
}

/// A command, and time for ovs-vswitchd to be through with it: guests do not start and stop within milliseconds.
fn at_rest(command: &str) -> String {
    format!("sh -c '{command} && sleep 0.2'")
}

impl Situation {
    /// Builds the node, measures, and takes the node away again.
    pub fn measure(&self, effort: Effort) -> Result<Measured, String> {
        let node = self.build();
        check(&node, VMID, "post-start", "mirrors 101/net0")?;
        check(&node, VMID, "post-start", "")?;
        check(&node, VMID, "pre-stop", "no longer mirrors")?;
        let environment = match self.source {
            Source::Guest => ("MIRROR_SOURCE", "guest"),
            Source::Tag => ("MIRROR_SOURCE", "bridge"),
        };
        let measure = |it: &Hook| {
            let timed = |call: &dyn Fn(&str) -> String| Timed {
                line: call(it.phase),
                prepare: it
                    .before
                    .map_or_else(|| "true".to_owned(), |phase| at_rest(&call(phase))),
            };
            let ours = timed(&|phase| hook(&node, phase));
            let script = timed(&|phase| format!("{PEER} {VMID} {phase}"));
            let environment = [environment];
            let Some(before) = before() else {
                let [ours, script] = medians(&node, &environment, CLEAR, effort, &[ours, script])?;
                return Ok(Hooked {
                    ours,
                    script,
                    before: None,
                });
            };
            let before = timed(&|phase| line_of(&before, &node, &format!("{VMID} {phase}")));
            let commands = [ours, script, before];
            let [ours, script, before] = medians(&node, &environment, CLEAR, effort, &commands)?;
            Ok(Hooked {
                ours,
                script,
                before: Some(before),
            })
        };
        let hooks: Result<Vec<Hooked>, String> = HOOKS.iter().map(measure).collect();
        Ok(Measured {
            hooks: hooks?,
            vswitchd: self.vswitchd(&node, effort)?,
        })
    }

    fn build(&self) -> Node {
        let node = Node::start();
        node.ovs_bridge("vmbr2");
        let firewall = match self.plugged {
            Plugged::Directly => "",
            Plugged::BehindFirewall => ",firewall=1",
        };
        let nic = |vmid, n| format!("virtio={},bridge=vmbr2", Nic::default_mac(vmid, n));
        let mut guests: Vec<Guest> = (VMID..VMID + self.guests)
            .map(|vmid| {
                Guest::vm(vmid)
                    .tags("web")
                    .net(0, &format!("{}{firewall}", nic(vmid, 0)))
            })
            .collect();
        let sensor = Guest::vm(SENSOR).name("sensor").net(0, "virtio");
        guests.push(sensor.net(1, &nic(SENSOR, 1)));
        node.add_all(&guests);
        node.start_guests(guests.iter().map(|guest| guest.vmid));
        let source = match self.source {
            Source::Guest => VMID.to_string(),
            Source::Tag => "tag:web".to_owned(),
        };
        node.span_cfg(&format!(
            "[ids]\nsource = {source}\noutput = {SENSOR}/net1\n"
        ));
        node
    }

    /// The same change with ovs-vsctl, which waits until ovs-vswitchd has acted on it, less the same without waiting.
    fn vswitchd(&self, node: &Node, effort: Effort) -> Result<Duration, String> {
        let port = match self.plugged {
            Plugged::Directly => format!("tap{VMID}i0"),
            Plugged::BehindFirewall => format!("fwln{VMID}o0"),
        };
        let (prepare, change) = match self.source {
            Source::Guest => (
                CLEAR.to_owned(),
                format!(
                    "--id=@source get Port {port} -- --id=@output get Port tap{SENSOR}i1 \
                     -- --id=@mirror create Mirror name=span0 select-src-port=@source select-dst-port=@source output-port=@output \
                     -- add Bridge vmbr2 mirrors @mirror"
                ),
            ),
            Source::Tag => {
                let mirror = format!("pve-span/ids/{SENSOR}/net1");
                (
                    hook(node, "pre-stop"),
                    format!(
                        "--id=@source get Port {port} -- add Mirror {mirror} select-src-port @source \
                         -- add Mirror {mirror} select-dst-port @source"
                    ),
                )
            }
        };
        let commands = ["", "--no-wait "].map(|wait| Timed {
            line: format!("ovs-vsctl {wait}-- {change}"),
            prepare: prepare.clone(),
        });
        let [with, without] = medians(node, &[], CLEAR, effort, &commands)?;
        Ok(with.saturating_sub(without))
    }
}

/// The binary that this one is compared with.
pub fn before() -> Option<PathBuf> {
    std::env::var_os("PVE_SPAN_BEFORE").map(PathBuf::from)
}

fn hook(node: &Node, phase: &str) -> String {
    line(node, &format!("{VMID} {phase}"))
}
