//! A conversation that goes on while mirrors change, and what of it arrives at a sensor.

use std::ops::Range;
use std::process::Output;

use super::super::lab::{Counter, Load, Node, wait_until};
use super::{editing, hook, told};

/// Frames a second, in each direction.
const RATE: u32 = 100;

/// So many frames in a row that none of them was copied: then none is any more.
const NONE_OF: u64 = 30;

/// The session's sources, output and options, as span.cfg has them.
pub const DMZ: &str = "[dmz]\nsource = 101\noutput = 200/net1\n";

/// What 101 and 102 say to each other all the time, in two flows that never rest.
pub struct Conversation<'a> {
    loads: [Load<'a>; 2],
    sensor: [Counter<'a>; 2],
    bystander: [Counter<'a>; 2],
}

/// Which of 101's frames are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    Nothing,
    Sent,
    Heard,
    Both,
}

impl<'a> Conversation<'a> {
    /// Begins, and goes on for a while before anything else happens.
    #[track_caller]
    pub fn begin(node: &'a Node, sensor: &str, bystander: &str) -> Self {
        node.introduce("101/net0", "102/net0");
        node.introduce(bystander, "102/net0");
        let counters = |at: &str| ["sent", "heard"].map(|token| node.counter(at, token));
        let (sensor, bystander) = (counters(sensor), counters(bystander));
        let loads = [
            node.load("101/net0", "102/net0", "sent", RATE),
            node.load("102/net0", "101/net0", "heard", RATE),
        ];
        loads.iter().for_each(|load| load.wait_for(NONE_OF));
        Self {
            loads,
            sensor,
            bystander,
        }
    }

    /// Waits until what is copied of it is this and nothing else.
    #[track_caller]
    pub fn becomes(&self, what: &str, copied: Copied) {
        let wanted = match copied {
            Copied::Nothing => [false, false],
            Copied::Sent => [true, false],
            Copied::Heard => [false, true],
            Copied::Both => [true, true],
        };
        for ((load, counter), wanted) in self.loads.iter().zip(&self.sensor).zip(wanted) {
            wait_until(&format!("after `{what}` {copied:?} is copied"), || {
                let before = counter.received();
                load.wait_for(NONE_OF);
                (counter.received() > before) == wanted
            });
        }
    }

    /// Ends it: no frame was lost or doubled at either guest or flooded to the bystander, and none arrived twice at the
    /// sensor.
    #[track_caller]
    pub fn end(self) {
        self.end_but(|lost| assert_eq!(lost, []));
    }

    /// The same where ovs-vswitchd was stopped meanwhile: what its userspace datapath has to forward then waits in buffers, which
    /// have an end.
    #[track_caller]
    pub fn end_after_a_stop(self) {
        self.end_but(drop);
    }

    #[track_caller]
    fn end_but(self, judge_lost: impl Fn(Vec<Range<u64>>)) {
        for load in self.loads {
            let (sent, tally) = load.finish();
            judge_lost(tally.lost(0..sent));
            assert_eq!(tally.doubled(), [0; 0], "{tally:?}");
        }
        for counter in self.sensor {
            let tally = counter.finish();
            assert_eq!(tally.doubled(), [0; 0], "{tally:?}");
        }
        for counter in self.bystander {
            let tally = counter.finish();
            assert_eq!(tally.received(), 0, "flooded: {tally:?}");
        }
    }
}

#[track_caller]
fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", told(output));
}

/// Every way in which a command or a hook changes mirrors, one after the other, of 101 and 102 in VLAN 10, with the
/// sensor 200 and the bystander 103.
#[track_caller]
pub fn every_way(node: &Node) {
    use Copied::{Both, Heard, Nothing, Sent};
    let conversation = Conversation::begin(node, "200/net1", "103/net0");
    let apply = |text: &str, copied: Copied| {
        node.span_cfg(text);
        succeeded(&node.pve_span(&["apply"]));
        conversation.becomes(text, copied);
    };
    let with = |line: &str| format!("{DMZ}{line}\n");
    apply(DMZ, Both);
    apply("# nothing\n", Nothing);
    apply(&with("direction = from"), Sent);
    apply(&with("direction = to"), Heard);
    apply(&with("vlan = 20"), Nothing);
    apply(&with("vlan = 10, 20"), Both);
    apply(&with("exclude = 101"), Nothing);
    apply(&DMZ.replace("101", "tag:web"), Both);
    node.edit(101, |guest| guest.tags("db"));
    succeeded(&node.pve_span(&["apply"]));
    conversation.becomes("101 is tagged db", Nothing);
    apply(&DMZ.replace("101", "103"), Nothing);
    apply(&DMZ.replace("101", "bridge:vmbr2"), Both);
    apply(&DMZ.replace("200/net1", "201/net1"), Nothing);
    // The sensor's port is a trunk like others then, with this VLAN too.
    apply(&DMZ.replace("200/net1", "vlan:999"), Both);
    apply(&DMZ.replace("200/net1", "201/net1"), Nothing);
    apply(&with("enabled = yes"), Both);
    apply(&with("enabled = no"), Nothing);
    apply(&with("expires = 2100-01-01T00:00Z"), Both);
    apply(&with("expires = 2020-01-01T00:00Z"), Nothing);
    apply(DMZ, Both);
    let mut sensor = node.capture("200/net1");
    node.span_cfg(&with("snaplen = 40"));
    succeeded(&node.pve_span(&["apply"]));
    sensor.wait_for(|frame| frame.contains("sent") && frame.len() <= 44);
    for command in [&["clear", "dmz"][..], &["clear", "--all"]] {
        apply(DMZ, Both);
        succeeded(&node.pve_span(command));
        conversation.becomes(&command.join(" "), Nothing);
    }
    hook(node, 102, "post-start");
    conversation.becomes("a hook", Both);
    hook(node, 101, "pre-stop");
    conversation.becomes("101 is about to stop", Nothing);
    hook(node, 101, "post-start");
    conversation.becomes("101 has started", Both);
    conversation.end();
}

/// Ways in which the service changes mirrors, with the same guests. It runs already.
#[track_caller]
pub fn by_the_service(node: &Node) {
    use Copied::{Both, Heard, Nothing, Sent};
    let conversation = Conversation::begin(node, "200/net1", "103/net0");
    let by_file = |text: &str, copied: Copied| {
        node.span_cfg(text);
        conversation.becomes(text, copied);
    };
    by_file(DMZ, Both);
    by_file(&format!("{DMZ}direction = from\n"), Sent);
    by_file(&format!("{DMZ}direction = to\n"), Heard);
    by_file("# nothing\n", Nothing);
    let soon = jiff::Timestamp::now() + std::time::Duration::from_secs(5);
    by_file(&format!("{DMZ}expires = {soon:.0}\n"), Both);
    conversation.becomes("its time is over", Nothing);
    by_file(&DMZ.replace("101", "tag:web"), Both);
    node.edit(101, |guest| guest.tags("db"));
    conversation.becomes("101 is tagged db", Nothing);
    node.edit(101, |guest| guest.tags("web"));
    conversation.becomes("101 is tagged web", Both);
    let (code, out, err) = editing::edit(node, &editing::writes("# nothing\n"));
    assert_eq!(code, 0, "{out}{err}");
    conversation.becomes("edit", Nothing);
    by_file(DMZ, Both);
    node.ovs_vsctl(&["clear", "Bridge", "vmbr2", "mirrors"]);
    conversation.becomes("somebody clears the bridge's mirrors", Both);
    conversation.end();
}
