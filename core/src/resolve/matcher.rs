//! Does a selector take a port? Yes, no, or: nobody can tell now.
//!
//! "Unknown" is an answer of its own (Kleene's three-valued logic), because a config that cannot be
//! read right now must neither add a mirror nor take one away.

use std::collections::BTreeSet;

use crate::config::selector::Selector;
use crate::config::{At, Session};
use crate::model::{IfName, NicId, Vmid};
use crate::pve::cluster::Cluster;
use crate::state::port_map::Port;

/// Yes, no, or unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Truth {
    /// No.
    No,
    /// Nobody can tell.
    Unknown,
    /// Yes.
    Yes,
}

impl From<bool> for Truth {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

impl Truth {
    fn and(self, other: Self) -> Self {
        self.min(other)
    }
}

/// A word of `source` or `exclude`, and where it stands.
pub type Word = At<Selector>;

/// What a session's words say of a port, and which of them decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'s> {
    /// It is a source by this word.
    Taken(&'s Word),
    /// It is, or may be, a source by the one word, and left out by the other.
    Excluded {
        /// Of `source`.
        source: &'s Word,
        /// Of `exclude`.
        by: &'s Word,
    },
    /// Nobody can tell what this word means for it.
    Unknown(&'s Word),
    /// This word takes every guest but sensors, and it is one's.
    Sensor(&'s Word),
    /// No word takes it.
    Nothing,
}

impl Verdict<'_> {
    /// Is it a source?
    pub fn truth(self) -> Truth {
        match self {
            Self::Taken(_) => Truth::Yes,
            Self::Unknown(_) => Truth::Unknown,
            Self::Excluded { .. } | Self::Sensor(_) | Self::Nothing => Truth::No,
        }
    }
}

/// What selectors look at: a port that exists, or a NIC that a config describes.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The guest's NIC, if it is one's.
    pub nic: Option<NicId>,
    /// The port's name, if it exists.
    pub port: Option<&'a str>,
    /// The bridge.
    pub bridge: &'a str,
}

impl Subject<'_> {
    /// A NIC whose device is in no bridge.
    pub fn unplugged(nic: NicId) -> Self {
        Self {
            nic: Some(nic),
            port: None,
            bridge: "",
        }
    }
}

impl<'a> From<&'a Port> for Subject<'a> {
    fn from(port: &'a Port) -> Self {
        Self {
            nic: port.nic.as_ref().map(|nic| nic.id),
            port: Some(port.name.as_str()),
            bridge: port.bridge.as_str(),
        }
    }
}

/// What selectors are matched against, besides the port itself.
pub struct Matcher<'a> {
    /// Tags, pools, this node's name.
    pub cluster: &'a Cluster,
    /// Guests that are an output of any session: `all` and `node:` leave them out.
    pub sensors: &'a BTreeSet<Vmid>,
}

impl Matcher<'_> {
    /// Is it one of the session's sources?
    pub fn takes(&self, session: &Session, subject: Subject<'_>) -> Truth {
        self.verdict(session, subject).truth()
    }

    /// Is it one of the session's sources, and by which word?
    pub fn verdict<'s>(&self, session: &'s Session, subject: Subject<'_>) -> Verdict<'s> {
        let is_sensor = subject
            .nic
            .is_some_and(|nic| self.sensors.contains(&nic.vmid));
        let leaves_out =
            |word: &Word| is_sensor && matches!(word.value, Selector::All(_) | Selector::Node(..));
        let sources = session.sources.iter().filter(|word| !leaves_out(word));
        let Some((taken, source)) = self.strongest(sources, subject) else {
            let groups = session.sources.iter().filter(|word| leaves_out(word));
            let group = self.strongest(groups, subject);
            return group.map_or(Verdict::Nothing, |(_, word)| Verdict::Sensor(word));
        };
        match self.strongest(session.exclude.iter(), subject) {
            Some((Truth::Yes, by)) => Verdict::Excluded { source, by },
            Some((_, by)) if taken == Truth::Yes => Verdict::Unknown(by),
            None if taken == Truth::Yes => Verdict::Taken(source),
            _ => Verdict::Unknown(source),
        }
    }

    /// The first word that matches; else the first of which nobody can tell.
    fn strongest<'s>(
        &self,
        words: impl Iterator<Item = &'s Word>,
        subject: Subject<'_>,
    ) -> Option<(Truth, &'s Word)> {
        let mut perhaps = None;
        for word in words {
            match self.matches(&word.value, subject) {
                Truth::Yes => return Some((Truth::Yes, word)),
                Truth::Unknown => perhaps = perhaps.or(Some((Truth::Unknown, word))),
                Truth::No => {}
            }
        }
        perhaps
    }

    /// Why nobody can tell what a word means for a port.
    pub fn why_unknown(&self, word: &Selector, nic: Option<NicId>) -> String {
        let cluster = self.cluster;
        let asked = match word {
            Selector::Pool(_) => cluster.pools.as_ref().err(),
            Selector::Node(..) => cluster.this.as_ref().err(),
            _ => nic.and_then(|nic| match cluster.guests.get(&nic.vmid) {
                Some(guest) => guest.as_ref().err(),
                None => cluster.placements.as_ref().err(),
            }),
        };
        match (asked, nic) {
            (Some(why), _) => why.to_string(),
            (None, Some(nic)) => format!("there is no config of guest {}", nic.vmid),
            (None, None) => "not known".into(),
        }
    }

    /// Does one selector match?
    fn matches(&self, selector: &Selector, subject: Subject<'_>) -> Truth {
        match selector {
            Selector::Bridge(bridge) => return (subject.bridge == bridge.as_str()).into(),
            Selector::Port(port) => return (subject.port == Some(port.as_str())).into(),
            _ => {}
        }
        let Some(nic) = subject.nic else {
            return Truth::No;
        };
        let same_nic =
            |wanted: &Option<_>| Truth::from(wanted.is_none_or(|index| index == nic.index));
        match selector {
            Selector::Guests {
                low,
                high,
                nic: index,
            } => Truth::from((*low..=*high).contains(&nic.vmid)).and(same_nic(index)),
            Selector::Tag(tag, index) => {
                let guest = self.cluster.guest(nic.vmid);
                guest
                    .map_or(Truth::Unknown, |guest| guest.tags.contains(tag).into())
                    .and(same_nic(index))
            }
            Selector::Pool(pool) => {
                let pools = self.cluster.pools.as_ref();
                pools.map_or(Truth::Unknown, |pools| {
                    pools.contains(pool, nic.vmid).into()
                })
            }
            Selector::Node(node, index) => {
                let this = self.cluster.this.as_ref();
                this.map_or(Truth::Unknown, |this| (this == node).into())
                    .and(same_nic(index))
            }
            Selector::All(index) => same_nic(index),
            Selector::Bridge(_) | Selector::Port(_) => Truth::No,
        }
    }
}

/// The bridges that a session takes as a whole.
pub fn whole_bridges(session: &Session) -> impl Iterator<Item = &IfName> {
    session
        .sources
        .iter()
        .filter_map(|source| match &source.value {
            Selector::Bridge(bridge) => Some(bridge),
            _ => None,
        })
}
