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
mod view;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::model::{GuestKind, Invalid, NicId, Vmid, excerpt};
use super::resolve::reasons::reasons;
use super::state::Assumptions;
use super::state::port_map::PortMap;

use index::{ExplainContext, Index};
use placement::devices;

pub use arrival::Arrival;
pub use delivery::{OutputPath, Part};
pub use effective::InForce;
pub use path::{Hop, HopKind};
pub use placement::{GuestState, NicState};
pub use view::View;

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

/// Explains each of them, or says why not.
pub fn explain(view: &View<'_>, subjects: &[Subject]) -> Vec<Result<Guest, Unexplained>> {
    let map = PortMap::new(view.observed);
    let chosen: Vec<_> = subjects
        .iter()
        .map(|subject| nics(view, &map, *subject))
        .collect();
    let nics: BTreeSet<NicId> = chosen.iter().flatten().flatten().copied().collect();
    let assume = Assumptions {
        gone: BTreeSet::new(),
        now: view.now,
    };
    let nics: Vec<NicId> = nics.into_iter().collect();
    let ground = ExplainContext {
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

/// The NICs that are asked for.
fn nics(view: &View<'_>, map: &PortMap, subject: Subject) -> Result<Vec<NicId>, Unexplained> {
    let vmid = subject.vmid();
    let mut nics: BTreeSet<NicId> = devices(map, vmid).collect();
    let has_device = !nics.is_empty();
    let config = view.cluster.guests.get(&vmid);
    match config {
        Some(Ok(config)) => nics.extend(config.nics.keys().map(|index| NicId {
            vmid,
            index: *index,
        })),
        _ if has_device => {}
        Some(Err(why)) if is_filed(view, vmid) != Some(false) => {
            return Err(Unexplained::Unknown(format!(
                "cannot tell what guest {vmid} is like: {why}"
            )));
        }
        _ => return Err(no_guest(view, vmid)),
    }
    let Subject::Nic(nic) = subject else {
        return Ok(nics.into_iter().collect());
    };
    if nics.contains(&nic) {
        return Ok(vec![nic]);
    }
    if !matches!(config, Some(Ok(_))) {
        return Err(Unexplained::Unknown(format!(
            "cannot tell whether guest {vmid} has a net{}: its config cannot be read",
            nic.index
        )));
    }
    let has: Vec<String> = nics.iter().map(|nic| format!("net{}", nic.index)).collect();
    let has = if has.is_empty() {
        "no NIC at all".to_owned()
    } else {
        has.join(", ")
    };
    Err(Unexplained::NotThere(format!(
        "guest {vmid} has no net{}: it has {has}",
        nic.index
    )))
}

fn is_filed(view: &View<'_>, vmid: Vmid) -> Option<bool> {
    let placements = view.cluster.placements.as_ref().ok()?;
    Some(placements.contains_key(&vmid))
}

fn no_guest(view: &View<'_>, vmid: Vmid) -> Unexplained {
    match &view.cluster.placements {
        Ok(_) => Unexplained::NotThere(format!("there is no guest {vmid} in the cluster")),
        Err(why) => Unexplained::Unknown(format!(
            "cannot tell whether there is a guest {vmid}: it has no device here, and {why}"
        )),
    }
}

impl ExplainContext<'_> {
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
