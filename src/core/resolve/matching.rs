//! Does a selector take a port? Yes, no, or: nobody can tell now.
//!
//! "Unknown" is an answer of its own (Kleene's three-valued logic), because a config that cannot be
//! read right now must neither add a mirror nor take one away.

use std::collections::BTreeSet;

use crate::core::annotations::Session;
use crate::core::cluster::Cluster;
use crate::core::model::{IfName, NicId, Vmid};
use crate::core::ports::Port;
use crate::core::selector::Selector;

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

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::Unknown => Self::Unknown,
            Self::No => Self::Yes,
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
        let is_sensor = subject
            .nic
            .is_some_and(|nic| self.sensors.contains(&nic.vmid));
        let sources = session.sources.iter().filter(|source| {
            !(is_sensor && matches!(source.value, Selector::All(_) | Selector::Node(..)))
        });
        let taken = sources
            .map(|source| self.matches(&source.value, subject))
            .max()
            .unwrap_or(Truth::No);
        if taken == Truth::No {
            Truth::No
        } else {
            taken.and(self.excludes(session, subject).not())
        }
    }

    /// Is it left out of the session?
    fn excludes(&self, session: &Session, subject: Subject<'_>) -> Truth {
        session
            .exclude
            .iter()
            .map(|exclude| self.matches(&exclude.value, subject))
            .max()
            .unwrap_or(Truth::No)
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
