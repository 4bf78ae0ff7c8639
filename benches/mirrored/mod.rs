//! The nodes on which the `nft` engine's reconciles are timed, and what is timed on each.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use super::calls::{check, check_command, line};
use super::hyperfine::{Effort, Timed, medians};
use super::lab::{Guest, Nic, Node, run};

/// The guest that starts and stops, and the first of all.
const VMID: u32 = 1000;
/// The sensor; its monitor NIC is net1.
const SENSOR: u32 = 9000;
/// A Linux bridge has room for 1,023 ports.
const ON_A_BRIDGE: u32 = 250;

/// What the session takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The guest that starts and stops.
    One,
    /// Every guest, by a range of numbers.
    All,
}

/// A node with Linux bridges, a sensor and some guests with a NIC each, all of them running. No Open vSwitch.
pub struct Situation {
    /// In a few words.
    pub name: &'static str,
    /// How many guests there are.
    pub guests: u32,
    /// Which of them are mirrored.
    pub source: Source,
}

/// A call, and what comes before it each time.
pub struct Call {
    /// What it does, in words.
    pub does: &'static str,
    words: &'static str,
    before: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Changes the table: what nft(8) takes of that is timed by itself.
    Changes,
    /// Leaves the table as it is.
    Looks,
}

/// The calls that are timed, hooks first.
pub const CALLS: [Call; 6] = [
    Call {
        does: "post-start, begins to mirror",
        words: "1000 post-start",
        before: "1000 pre-stop",
        kind: Kind::Changes,
    },
    Call {
        does: "post-start, nothing to do",
        words: "1000 post-start",
        before: "1000 post-start",
        kind: Kind::Looks,
    },
    Call {
        does: "pre-stop, ceases to mirror",
        words: "1000 pre-stop",
        before: "1000 post-start",
        kind: Kind::Changes,
    },
    Call {
        does: "apply, from nothing",
        words: "apply",
        before: "clear ids",
        kind: Kind::Changes,
    },
    Call {
        does: "apply, nothing to do",
        words: "apply",
        before: "apply",
        kind: Kind::Looks,
    },
    Call {
        does: "clear",
        words: "clear ids",
        before: "apply",
        kind: Kind::Changes,
    },
];

/// How many of them are hooks.
pub const HOOKS: usize = 3;

/// A call's time, and of it nft(8)'s where that is known; medians.
#[derive(Clone, Copy)]
pub struct Took {
    /// All of it.
    pub whole: Duration,
    /// The same change of the table made by nft(8), which is handed the same text.
    pub nft: Option<Duration>,
}

impl Situation {
    /// Builds the node, measures, and takes the node away again. In the order of [`CALLS`].
    pub fn measure(&self, hooks: Effort, commands: Effort) -> Result<Vec<Took>, String> {
        let node = self.build();
        check_command(&node, "apply", "mirrors 1000/net0")?;
        check_command(&node, "apply", "nothing to do")?;
        check(&node, VMID, "pre-stop", "no longer mirrors")?;
        check(&node, VMID, "post-start", "mirrors 1000/net0")?;
        check(&node, VMID, "post-start", "")?;
        let measure = |(number, call): (usize, &Call)| {
            let effort = if number < HOOKS { hooks } else { commands };
            self.time(&node, call, effort)
        };
        CALLS.iter().enumerate().map(measure).collect()
    }

    fn time(&self, node: &Node, call: &Call, effort: Effort) -> Result<Took, String> {
        let timed = |line: String| Timed {
            line,
            prepare: self::line(node, call.before),
        };
        let begin = line(node, "apply");
        let whole = timed(line(node, call.words));
        if call.kind == Kind::Looks {
            let [whole] = medians(node, &[], &begin, effort, &[whole])?;
            return Ok(Took { whole, nft: None });
        }
        let change = record(node, call)?;
        let nft = timed(format!("nft -j -f {}", change.display()));
        let [whole, nft] = medians(node, &[], &begin, effort, &[whole, nft])?;
        Ok(Took {
            whole,
            nft: Some(nft),
        })
    }

    fn build(&self) -> Node {
        let node = Node::without_ovs();
        let bridge = |number: u32| format!("vmbr{}", number / ON_A_BRIDGE);
        for number in (0..self.guests).step_by(ON_A_BRIDGE as usize) {
            node.linux_bridge(&bridge(number));
        }
        let nic = |vmid, n, bridge| format!("virtio={},bridge={bridge}", Nic::default_mac(vmid, n));
        let mut guests: Vec<Guest> = (0..self.guests)
            .map(|number| {
                let vmid = VMID + number;
                Guest::vm(vmid).net(0, &nic(vmid, 0, bridge(number)))
            })
            .collect();
        guests.push(
            Guest::vm(SENSOR)
                .name("sensor")
                .net(0, "virtio")
                .net(1, &nic(SENSOR, 1, bridge(0))),
        );
        node.add_all(&guests);
        // In parts: the laboratory does not wait for one call for ever.
        for some in guests.chunks(200) {
            node.start_guests(some.iter().map(|guest| guest.vmid));
        }
        let source = match self.source {
            Source::One => VMID.to_string(),
            Source::All => format!("{VMID}-{}", VMID + self.guests - 1),
        };
        node.span_cfg(&format!(
            "[ids]\nsource = {source}\noutput = {SENSOR}/net1\n"
        ));
        node
    }
}

/// What a call hands to nft(8): makes the call once, with an nft in front of the real one that writes it down.
fn record(node: &Node, call: &Call) -> Result<PathBuf, String> {
    let folder = node.path("record");
    let (script, text) = (folder.join("nft"), folder.join("nft.json"));
    let written = || {
        std::fs::create_dir_all(&folder)?;
        std::fs::write(
            &script,
            "#!/bin/sh\nPATH=${PATH#*:}\ntee \"$0.json\" | nft \"$@\"\n",
        )?;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))
    };
    written().map_err(|error| format!("cannot write {}: {error}", script.display()))?;
    let words = |words: &'static str| words.split(' ').collect::<Vec<_>>();
    run(node.pve_span_command(&words(call.before)), "");
    let mut command = node.pve_span_command(&words(call.words));
    let path = std::env::var("PATH").unwrap_or_default();
    command.env(
        "PATH",
        format!("{}:{path}:/usr/sbin:/sbin", folder.display()),
    );
    run(command, "");
    if text.is_file() {
        Ok(text)
    } else {
        Err(format!("nft(8) was not called: {}", call.does))
    }
}
