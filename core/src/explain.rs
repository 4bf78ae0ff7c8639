//! What becomes of a guest's frames on this node, NIC by NIC: how each is plugged, which sessions take it and where its
//! frames go, and why the others do not; and what arrives at a sensor.
//!
//! Pure, and decides nothing: it reads [`Desired`], [`Plan`] and [`Observed`], and `resolve`'s own reasons. What is
//! told here is what `apply` does.

mod arrival;
mod delivery;
mod effective;
mod index;
mod path;
mod placement;
mod reason_text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::config::Annotations;
use super::model::{GuestKind, Invalid, NicId, Vmid, excerpt};
use super::plan::Plan;
use super::pve::cluster::Cluster;
use super::resolve::reasons::{Reason, reasons};
use super::state::port_map::PortMap;
use super::state::{Assumptions, Desired, Observed};

use index::Index;

pub use arrival::Arrival;
pub use delivery::{Engine, Leg, Part};
pub use effective::InForce;
pub use path::{Hop, HopKind};
pub use placement::{GuestState, NicState};
pub use reason_text::some;

/// What somebody wants explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A guest with all its NICs.
    Guest(Vmid),
    /// One NIC.
    Nic(NicId),
}

impl Subject {
    fn vmid(self) -> Vmid {
        match self {
            Self::Guest(vmid) => vmid,
            Self::Nic(nic) => nic.vmid,
        }
    }
}

impl FromStr for Subject {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match (text.parse(), text.parse()) {
            (Ok(vmid), _) => Ok(Self::Guest(vmid)),
            (_, Ok(nic)) => Ok(Self::Nic(nic)),
            _ => Err(Invalid(format!(
                "`{}` is neither a guest (101) nor a NIC (101/net0)",
                excerpt(text)
            ))),
        }
    }
}

/// Why there is nothing to explain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unexplained {
    /// There is no such guest or NIC.
    #[error("{0}")]
    NotThere(String),
    /// Nobody can tell whether there is.
    #[error("{0}")]
    Unknown(String),
}

/// A guest, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Guest {
    /// Its number.
    pub guest: Vmid,
    /// Its name.
    pub name: Option<String>,
    /// VM or container.
    #[serde(rename = "type")]
    pub kind: Option<GuestKind>,
    /// Where it is.
    pub state: GuestState,
    /// What is worth knowing of it.
    pub notes: Vec<String>,
    /// Its NICs, or the one that was asked for.
    pub nics: Vec<Nic>,
}

/// A NIC, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nic {
    /// Which.
    pub nic: NicId,
    /// How it is plugged.
    pub state: NicState,
    /// From the NIC to its bridge, as far as that goes.
    pub path: Vec<Hop>,
    /// What is worth knowing of it.
    pub notes: Vec<String>,
    /// What each session makes of it.
    pub sessions: Vec<Part>,
    /// What arrives at it, if it is an output.
    pub arrivals: Vec<Arrival>,
}

/// The node, as it was looked at.
pub struct View<'a> {
    /// The sessions, if it is known which.
    pub annotations: &'a Annotations,
    /// What /etc/pve tells.
    pub cluster: &'a Cluster,
    /// What is there.
    pub observed: &'a Observed,
    /// What shall be there.
    pub desired: &'a Desired,
    /// What has to change.
    pub plan: &'a Plan,
    /// The time, in seconds since 1970.
    pub now: i64,
}

/// What an explanation is read off.
struct Ground<'a> {
    view: &'a View<'a>,
    map: PortMap,
    reasons: BTreeMap<NicId, Vec<Reason>>,
    index: Index<'a>,
}

/// Explains each of them, or says why not.
pub fn explain(view: &View<'_>, subjects: &[Subject]) -> Vec<Result<Guest, Unexplained>> {
    let map = PortMap::new(view.observed);
    let chosen: Vec<_> = subjects
        .iter()
        .map(|subject| placement::nics(view, &map, *subject))
        .collect();
    let nics: BTreeSet<NicId> = chosen.iter().flatten().flatten().copied().collect();
    let assume = Assumptions {
        gone: BTreeSet::new(),
        now: view.now,
    };
    let nics: Vec<NicId> = nics.into_iter().collect();
    let ground = Ground {
        reasons: reasons(
            view.annotations,
            view.cluster,
            view.observed,
            &assume,
            &nics,
        ),
        index: Index::new(view),
        view,
        map,
    };
    let told = subjects.iter().zip(chosen);
    told.map(|(subject, nics)| nics.map(|nics| ground.guest(subject.vmid(), &nics)))
        .collect()
}

impl Ground<'_> {
    fn guest(&self, vmid: Vmid, nics: &[NicId]) -> Guest {
        let config = self.view.cluster.guest(vmid);
        let state = self.guest_state(vmid);
        Guest {
            guest: vmid,
            name: config.and_then(|config| config.name.clone()),
            kind: self.kind(vmid),
            notes: self.guest_notes(vmid, &state),
            nics: nics.iter().map(|nic| self.nic(*nic, &state)).collect(),
            state,
        }
    }

    fn nic(&self, nic: NicId, guest: &GuestState) -> Nic {
        let state = self.nic_state(nic, guest);
        let path = self.path(nic, &state);
        let reasons = self.reasons.get(&nic).map(Vec::as_slice);
        let parts = reasons.unwrap_or_default().iter();
        Nic {
            nic,
            sessions: parts
                .filter_map(|reason| self.part(nic, &state, &path, reason))
                .collect(),
            arrivals: self.arrivals(nic),
            notes: self.nic_notes(nic, &state),
            state,
            path,
        }
    }
}

impl fmt::Display for Guest {
    /// `VM 101 (web1)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Some(GuestKind::Qemu) => "VM",
            Some(GuestKind::Lxc) => "container",
            None => "guest",
        };
        write!(f, "{kind} {}", self.guest)?;
        match &self.name {
            Some(name) => write!(f, " ({})", excerpt(name)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_and_nics_are_told_apart_from_anything_else() {
        let read = |text: &str| text.parse::<Subject>();
        assert!(matches!(read("101"), Ok(Subject::Guest(vmid)) if vmid.get() == 101));
        assert!(matches!(read("101/net3"), Ok(Subject::Nic(nic)) if nic.to_string() == "101/net3"));
        for text in [
            "",
            "web1",
            "0",
            "101/",
            "101/eth0",
            "101/net32",
            "101/net0/1",
            "0101",
        ] {
            let fault = format!("`{text}` is neither a guest (101) nor a NIC (101/net0)");
            assert_eq!(read(text), Err(Invalid(fault)), "{text}");
        }
    }
}
