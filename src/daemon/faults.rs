//! What is wrong right now, so that each fault is said when it begins and when it is over, and not each time that it is
//! met.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::duration::duration;
use crate::config::active::Cause;
use crate::reconcile::{Error, lock};
use crate::sys::error::with_causes;
use pve_span_core::model::IfName;

/// Who met a fault: each one says all that it meets each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FaultSource {
    Reconcile,
    /// Somebody who undoes what is done.
    Again,
    /// A child that could not be started.
    Start,
    /// A reconcile that did not end, or said nothing.
    Work,
    /// A look at the node that did not end.
    Look,
    Survey,
    /// The look at /etc/pve.
    Files,
    /// What a child said on stderr.
    Said,
    /// A file that could not be written.
    Writing,
}

/// Which fault it is. One that is met again has the same id, whatever its text tells of causes, processes and how long something
/// was waited for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FaultId {
    NotInForce(Cause),
    LockFile,
    /// Another one holds the lock, or reads in /etc/pve.
    LockBusy,
    Links,
    Ovs,
    OvsRefused,
    OvsUncertain,
    /// ovs-vswitchd has not acted on a change.
    NotActed,
    Flows(IfName),
    Nft,
    NftRefused,
    Device(IfName),
    Conflicts,
    NotVerified,
    /// What only commands meet.
    Other,
    /// Somebody undoes what is done.
    Undone,
    NoChild,
    /// A child did not end.
    TooLate(FaultSource),
    /// A child ended, and gave no result.
    NoResult(FaultSource),
    PveHangs,
    StateFile,
    MetricsFile,
    /// A child has said something on stderr: where in the code.
    Said(String),
}

impl From<&Error> for FaultId {
    fn from(error: &Error) -> Self {
        match error {
            Error::Lock(lock::Error::Open { .. }) => Self::LockFile,
            Error::Lock(_) => Self::LockBusy,
            Error::Links(_) => Self::Links,
            Error::Ovs(_) => Self::Ovs,
            Error::Refused(_) => Self::OvsRefused,
            Error::Uncertain(_) => Self::OvsUncertain,
            Error::Flows { bridge, .. } => Self::Flows(bridge.clone()),
            Error::NoNft(_) => Self::Nft,
            Error::Nft { .. } => Self::NftRefused,
            Error::Output(error) => Self::Device(error.device().clone()),
            Error::Conflicts => Self::Conflicts,
            Error::NotVerified(_) => Self::NotVerified,
            Error::Events(_)
            | Error::Capture(_)
            | Error::Watch(_)
            | Error::NoSession { .. }
            | Error::NotRoot
            | Error::PveHangs { .. }
            | Error::NotInForce(_) => Self::Other,
        }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub id: FaultId,
    pub text: String,
}

impl Fault {
    pub(super) fn new(id: FaultId, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { id, text }
    }
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        Self::new(error.into(), with_causes(error))
    }
}

#[derive(Debug)]
struct Known {
    text: String,
    since: Instant,
    times: u64,
}

/// The faults that there are.
#[derive(Debug, Default)]
pub struct Faults(BTreeMap<(FaultSource, FaultId), Known>);

impl Faults {
    /// Takes note of all that is wrong now, says what is new, and what is over.
    pub fn now(&mut self, source: FaultSource, wrong: &[Fault]) {
        let is_over = |key: &&(FaultSource, FaultId)| {
            key.0 == source && wrong.iter().all(|fault| fault.id != key.1)
        };
        let over: Vec<_> = self.0.keys().filter(is_over).cloned().collect();
        for key in over {
            if let Some(fault) = self.0.remove(&key).filter(|_| !self.is_known(&key.1)) {
                let lasted = duration(fault.since.elapsed());
                let times = match fault.times {
                    1 => String::new(),
                    times => format!(" (met {times} times)"),
                };
                log::info!("over after {lasted}{times}: {}", fault.text);
            }
        }
        for Fault { id, text } in wrong {
            let key = (source, id.clone());
            if let Some(fault) = self.0.get_mut(&key) {
                fault.times += 1;
                continue;
            }
            if !self.is_known(id) {
                log::error!("{text}");
            }
            let known = Known {
                text: text.clone(),
                since: Instant::now(),
                times: 1,
            };
            self.0.insert(key, known);
        }
    }

    /// Has somebody met the same already?
    fn is_known(&self, id: &FaultId) -> bool {
        self.0.keys().any(|(_, known)| known == id)
    }

    /// Is anything wrong, as far as one of them can tell?
    pub fn any(&self, source: FaultSource) -> bool {
        self.0.keys().any(|key| key.0 == source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_one_until_it_is_over_whatever_was_measured() {
        let mut faults = Faults::default();
        let busy = |ms: u32| [Fault::new(FaultId::LockBusy, format!("not within {ms} ms"))];
        faults.now(FaultSource::Reconcile, &busy(1));
        faults.now(FaultSource::Reconcile, &busy(2));
        let times: Vec<u64> = faults.0.values().map(|fault| fault.times).collect();
        assert_eq!(times, [2]);
        faults.now(FaultSource::Files, &[]);
        assert!(faults.any(FaultSource::Reconcile));
        faults.now(FaultSource::Reconcile, &[]);
        assert!(!faults.any(FaultSource::Reconcile));
    }
}
