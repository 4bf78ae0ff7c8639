//! Why a session takes a NIC or not, in the words of span.cfg.

use super::index::ExplainContext;
use super::placement::NicState;
use crate::config::Session;
use crate::config::selector::{Output, Selector};
use crate::model::{MAX_LISTED, NicId, SessionName, Switch, Taken, Vmid, excerpt, some};
use crate::resolve::reasons::{Reason, Standing, Word};
use crate::resolve::selection::{closes_loop, own_sensor};
use crate::state::SessionPhase;

/// What comes from a NIC.
pub(super) const SENT: &str = "what it sends";
/// What goes to a NIC.
pub(super) const DELIVERED: &str = "what is delivered to it";

/// Why a session takes a NIC or not.
pub(super) fn why(
    ground: &ExplainContext<'_>,
    session: &Session,
    reason: &Reason,
    nic: NicId,
    state: &NicState,
) -> String {
    let phase = ground.laid_out(&session.name).map(|state| &state.phase);
    let over = match phase {
        Some(SessionPhase::Disabled) => format!("switched off{}", stands(session, "enabled")),
        Some(SessionPhase::Expired) => {
            let end = session.expires.map(|end| format!(" at {end}"));
            let end = end.unwrap_or_default();
            format!("expired{end}{}", stands(session, "expires"))
        }
        Some(SessionPhase::Running) | None => return standing(ground, session, reason, nic, state),
    };
    match &reason.standing {
        Standing::Taken(by) => format!("{over}; would take it by {}", word(by)),
        _ => over,
    }
}

/// ` (span.cfg:4)`, where a key has its value.
fn stands(session: &Session, key: &str) -> String {
    let place = session.keys.get(key);
    place.map_or_else(String::new, |place| format!(" (span.cfg:{})", place.line))
}

fn standing(
    ground: &ExplainContext<'_>,
    session: &Session,
    reason: &Reason,
    nic: NicId,
    state: &NicState,
) -> String {
    match &reason.standing {
        Standing::Taken(by) => taken(session, by, state),
        Standing::Undecided(by, why) => {
            format!(
                "cannot tell what {} means for it: {why}; existing mirrors are kept",
                word(by)
            )
        }
        Standing::PerhapsLoop(sensor) => format!(
            "cannot tell whether {}; existing mirrors are kept",
            closes_loop("it", *sensor)
        ),
        Standing::Loop(sensor) => format!("left out: {}", closes_loop("it", *sensor)),
        Standing::Excluded { source, by } => {
            format!(
                "excluded by {}; without that, {} would take it",
                word(by),
                word(source)
            )
        }
        Standing::Sensor(by) => format!(
            "{} leaves sensors out, and guest {} is one, of {}",
            word(by),
            nic.vmid,
            sensor_of(ground, nic.vmid)
        ),
        Standing::OwnSensor => own_sensor(nic.vmid),
        Standing::Output(_) if is_output(session, nic) => {
            "it is the session's own output, and carries copies only".into()
        }
        Standing::Output(of) => format!("it is an output of {of}, and carries copies only"),
        Standing::NoWord => no_word(ground, session, nic, state),
    }
}

fn taken(session: &Session, by: &Word, state: &NicState) -> String {
    match state {
        NicState::Plugged => {
            let frames = frames(session);
            format!(
                "by {}: {}{frames}",
                word(by),
                directions(session, &by.selector)
            )
        }
        NicState::NotHere(why) | NicState::Unplugged(why) => {
            format!("would take it by {}, but {why}", word(by))
        }
        NicState::NoBridge(_) => format!("would take it by {}, but it is in no bridge", word(by)),
        NicState::NoDevice(_) => format!("would take it by {}, but it has no device", word(by)),
    }
}

/// Which frames, where not all.
fn frames(session: &Session) -> String {
    let mut words = Vec::new();
    if !session.vlans.is_empty() {
        words.push(format!("VLAN {} only", session.vlans));
    }
    if let Some(filter) = &session.filter {
        words.push(format!("only `{filter}`"));
    }
    if session.sample > 1 {
        words.push(format!("one frame in {}", session.sample));
    }
    if let Some(bytes) = session.snaplen {
        words.push(format!("the first {bytes} bytes of each frame"));
    }
    if session.dedup == Switch::No {
        words.push("frames between two sources twice with nft".into());
    }
    words.iter().map(|word| format!("; {word}")).collect()
}

/// `` `tag:web` (span.cfg:2) ``, whether it is the file or its last good copy.
fn word(word: &Word) -> String {
    format!("`{}` (span.cfg:{})", word.selector, word.line)
}

/// The sessions whose sensor a guest is.
fn sensor_of(ground: &ExplainContext<'_>, vmid: Vmid) -> String {
    let sessions = ground.index.sensor_of.get(&vmid).into_iter().flatten();
    let names: Vec<&SessionName> = sessions.copied().collect();
    some(&names)
}

fn is_output(session: &Session, nic: NicId) -> bool {
    let mut outputs = session.outputs.iter();
    outputs.any(|output| output.value == Output::Nic(nic))
}

/// What its words are, and what the NIC has instead.
fn no_word(ground: &ExplainContext<'_>, session: &Session, nic: NicId, state: &NicState) -> String {
    let mut words: Vec<&Selector> = session.sources.iter().map(|at| &at.value).collect();
    if words.len() > MAX_LISTED {
        // The words that something is said of are not those that are left out.
        words.sort_by_key(|word| matches!(word, Selector::Guests { nic: None, .. }));
    }
    let mut facts: Vec<String> = Vec::new();
    let mut pools = false;
    for selector in &words {
        // That takes going through all pools, and is the same for each.
        if matches!(selector, Selector::Pool(_)) && std::mem::replace(&mut pools, true) {
            continue;
        }
        let fact = fact(ground, selector, nic, state);
        facts.extend(fact.filter(|fact| !facts.contains(fact)));
    }
    let facts: String = facts.iter().map(|fact| format!("; {fact}")).collect();
    format!("takes {}{facts}", some(&words))
}

/// What is true of the NIC, of the kind that a selector looks at.
fn fact(
    ground: &ExplainContext<'_>,
    selector: &Selector,
    nic: NicId,
    state: &NicState,
) -> Option<String> {
    let cluster = ground.view.cluster;
    let vmid = nic.vmid;
    let guest = cluster.guest(vmid);
    match selector {
        Selector::Guests {
            low,
            high,
            nic: Some(_),
        } if (*low..=*high).contains(&vmid) => Some(format!("this is net{}", nic.index)),
        Selector::Guests { .. } | Selector::Port(_) => None,
        Selector::All(_) => Some(format!("this is net{}", nic.index)),
        Selector::Tag(tag, _) => {
            let tags = &guest?.tags;
            Some(if tags.contains(tag) {
                format!("this is net{}", nic.index)
            } else if tags.is_empty() {
                format!("{vmid} has no tags")
            } else {
                let tags: Vec<String> = tags.iter().map(|tag| excerpt(tag)).collect();
                let s = if tags.len() == 1 { "" } else { "s" };
                format!("{vmid} has the tag{s} {}", some(&tags))
            })
        }
        Selector::Pool(_) => {
            let pools = cluster.pools.as_ref().ok()?;
            let names = pools.names().filter(|name| pools.contains(name, vmid));
            let names: Vec<String> = names.map(excerpt).collect();
            Some(match names.as_slice() {
                [] => format!("{vmid} is in no pool"),
                [one] => format!("{vmid} is in the pool {one}"),
                _ => format!("{vmid} is in the pools {}", some(&names)),
            })
        }
        Selector::Node(node, _) => {
            let this = cluster.this.as_ref().ok()?;
            Some(if this == node {
                format!("this is net{}", nic.index)
            } else {
                format!("this node is {this}")
            })
        }
        Selector::Bridge(_) => {
            let port = ground
                .map
                .of_nic(nic)
                .filter(|_| *state == NicState::Plugged);
            let config = guest.and_then(|guest| guest.nics.get(&nic.index)?.bridge.clone());
            let bridge = port.map(|port| port.bridge.to_string());
            let bridge = bridge.or_else(|| config.map(|bridge| excerpt(&bridge)));
            bridge.map(|bridge| format!("it is on {bridge}"))
        }
    }
}

/// Which of a NIC's frames a session takes.
pub(super) fn directions(session: &Session, by: &Selector) -> String {
    if let Selector::Bridge(bridge) = by {
        return format!("every frame that crosses {bridge}, once");
    }
    let (sent, delivered) = (
        session.direction.takes_sent(),
        session.direction.takes_delivered(),
    );
    match Taken::new(sent, delivered) {
        Some(Taken::Both) => format!("{} and {}", SENT, DELIVERED),
        Some(Taken::Sent) => SENT.to_owned(),
        Some(Taken::Delivered) => DELIVERED.to_owned(),
        None => "nothing".to_owned(),
    }
}
