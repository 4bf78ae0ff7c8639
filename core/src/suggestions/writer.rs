//! The offer as a span.cfg: all of it comments, and therefore valid, with no session in force.
//!
//! Prose has a blank behind its `#`; a line of a session has none, so that it counts as soon as the `#` is taken off.
//! What comes from guests is printable and cut short: it cannot begin a line.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::offer::{Count, Others, Suggestions};
use super::sensors::{Monitor, Sensor};
use crate::model::session_names::fresh;
use crate::model::{GuestKind, MAX_LISTED, excerpt};
use crate::state::port_map::BridgeKind;

/// The most bridges, sensors, tags or pools that are told of.
const MOST_TOLD: usize = 20;

/// The first span.cfg.
pub fn text(offer: &Suggestions) -> String {
    let mut text = String::from(
        "# /etc/pve/span.cfg: whose traffic goes to which sensor. Every node of the cluster reads this file.\n\
         #\n\
         # All of it is comments so far, and nothing is mirrored. Take the # off the lines of a session below, or write\n\
         # your own, best with `pve-span edit`; then `pve-span check`, `pve-span plan`, `pve-span apply`.\n\
         # docs/span.cfg.md of pve-span explains every key and word.\n\
         #\n",
    );
    let place = match &offer.node {
        Some(node) => format!("on {node} and in its cluster"),
        None => "here".to_owned(),
    };
    say(&mut text, &format!("What `pve-span init` saw {place}:"));
    bridges(&mut text, offer);
    sensors(&mut text, offer);
    groups(&mut text, "Tags", &offer.tags);
    groups(&mut text, "Pools", &offer.pools);
    for unseen in offer.unseen.iter().take(MOST_TOLD) {
        say(&mut text, &format!("Not seen: {}", excerpt(unseen)));
    }
    text.push_str("#\n");
    match target(offer) {
        Some((sensor, output)) => sessions(&mut text, offer, sensor, &output),
        None => without_sensor(&mut text),
    }
    text
}

fn say(text: &mut String, line: &str) {
    let _ = writeln!(text, "# {line}");
}

fn bridges(text: &mut String, offer: &Suggestions) {
    if offer.bridges.is_empty() {
        say(text, "  Bridges: none");
    }
    for bridge in offer.bridges.iter().take(MOST_TOLD) {
        let kind = match bridge.kind {
            BridgeKind::Ovs => "Open vSwitch",
            BridgeKind::Linux | BridgeKind::None => "Linux bridge",
        };
        let name = excerpt(bridge.name.as_str());
        let guests = plural(bridge.guests, "guest");
        say(text, &format!("  Bridge {name}: {kind}, {guests}"));
    }
    more(text, offer.bridges.len());
}

fn more(text: &mut String, all: usize) {
    if all > MOST_TOLD {
        say(text, &format!("  … and {} more", all - MOST_TOLD));
    }
}

fn plural(count: usize, one: &str) -> String {
    match count {
        0 => format!("no {one}"),
        1 => format!("1 {one}"),
        more => format!("{more} {one}s"),
    }
}

fn sensors(text: &mut String, offer: &Suggestions) {
    if offer.sensors.is_empty() {
        say(text, "  Sensors: no guest looks like one");
    }
    for sensor in offer.sensors.iter().take(MOST_TOLD) {
        let kind = match sensor.kind {
            GuestKind::Qemu => "VM",
            GuestKind::Lxc => "container",
        };
        let name = sensor.name.as_deref().map(excerpt).unwrap_or_default();
        let who = format!("{} {name}", sensor.vmid);
        let monitor = match (&sensor.elsewhere, &sensor.monitor) {
            (Some(node), _) => {
                format!("it is on {node}, and sensors on other nodes cannot be served yet")
            }
            (None, Monitor::Nic(nic)) => format!("monitor port: {nic}, it seems"),
            (None, Monitor::None(why)) => format!("no monitor port: {why}"),
        };
        let by = &sensor.by;
        say(
            text,
            &format!("  Sensor {} ({kind}, by {by}): {monitor}", who.trim_end()),
        );
    }
    more(text, offer.sensors.len());
}

fn groups(text: &mut String, what: &str, groups: &[(String, Count)]) {
    if groups.is_empty() {
        return;
    }
    let of = |(name, count): &(String, Count)| {
        let name = excerpt(name);
        if count.here == count.all {
            format!("{name} ({})", plural(count.all, "guest"))
        } else {
            format!(
                "{name} ({}, {} here)",
                plural(count.all, "guest"),
                count.here
            )
        }
    };
    let shown: Vec<String> = groups.iter().take(MOST_TOLD).map(of).collect();
    // A few to a line: a name may have 60 characters.
    for (number, part) in shown.chunks(MAX_LISTED).enumerate() {
        let head = if number == 0 { what } else { "  and" };
        say(text, &format!("  {head}: {}", part.join(", ")));
    }
    more(text, groups.len());
}

/// The sensor that the examples send to.
fn target(offer: &Suggestions) -> Option<(&Sensor, String)> {
    offer
        .sensors
        .iter()
        .filter(|sensor| sensor.elsewhere.is_none())
        .find_map(|sensor| match &sensor.monitor {
            Monitor::Nic(nic) => Some((sensor, nic.to_string())),
            Monitor::None(_) => None,
        })
}

fn sessions(text: &mut String, offer: &Suggestions, sensor: &Sensor, output: &str) {
    let name = sensor.name.as_deref().map(excerpt).unwrap_or_default();
    let who = format!("{} {name}", sensor.vmid);
    say(
        text,
        &format!(
            "Sessions to choose from, for sensor {}. A frame that several of them take arrives once.",
            who.trim_end()
        ),
    );
    say(
        text,
        &format!("While one of them is in force, {output} carries copies only."),
    );
    if offer.others == Others::Some {
        say(
            text,
            "Guests of other nodes do not reach it yet: there, a session that takes them is degraded.",
        );
    }
    let mut taken = BTreeSet::new();
    let mut session = |name: &str, what: &str, source: &str| {
        let name = fresh(name, &mut taken);
        let _ = write!(
            text,
            "\n# {what}\n#[{name}]\n#source = {source}\n#output = {output}\n"
        );
    };
    for (tag, count) in few(&offer.tags) {
        let what = format!(
            "All that guests with the tag {} send and get.",
            excerpt(tag)
        );
        if count.here > 0 {
            session(tag, &what, &format!("tag:{tag}"));
        }
    }
    for (pool, count) in few(&offer.pools) {
        let what = format!(
            "All that guests in the pool {} send and get.",
            excerpt(pool)
        );
        if count.here > 0 {
            session(&format!("pool-{pool}"), &what, &format!("pool:{pool}"));
        }
    }
    let plain = |name: &str| name.bytes().all(|b| b.is_ascii_graphic());
    let with_sources = offer.bridges.iter().filter(|bridge| bridge.sources > 0);
    for bridge in with_sources.take(MAX_LISTED) {
        let name = bridge.name.as_str();
        if plain(name) {
            let what = format!("All that crosses the bridge {name}, each frame once.");
            session(name, &what, &format!("bridge:{name}"));
        }
    }
    match &offer.node {
        Some(node) => session(
            "everything",
            "All that any guest of this node sends and gets.",
            &format!("node:{node}"),
        ),
        None => session("everything", "All that any guest sends and gets.", "all"),
    }
}

fn few<T>(list: &[T]) -> impl Iterator<Item = &T> {
    list.iter().take(MAX_LISTED)
}

fn without_sensor(text: &mut String) {
    text.push_str(
        "# No guest of this node looks like a sensor with a free NIC. Give yours a second NIC for this alone, without\n\
         # address, VLAN tag and firewall. For VM 200 that is: qm set 200 --net1 virtio,bridge=vmbr0,firewall=0\n\
         # Then a session is, with its own numbers and tags:\n\
         #\n\
         #   [dmz-ids]\n\
         #   source = 101, 102/net0, tag:web\n\
         #   output = 200/net1\n",
    );
}
