//! Doing it, for one guest: the record, Proxmox VE's program, and whether it is so afterwards.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::report::Outcome;
use super::run::Run;
use crate::pve::chained_hook;
use crate::pve::programs;
use crate::pve::{ClusterQueries, GuestsToRead};
use crate::sys::error::with_causes as text;
use pve_span_core::attach::{Call, Change, Step, Subject};
use pve_span_core::model::{NodeName, Vmid, excerpt};
use pve_span_core::pve::cluster::{Cluster, Known, Placement, Unknown};
use pve_span_core::pve::guest::Guest;
use pve_span_core::pve::storage::Volume;

/// How long the config is read again until it says what was asked for: another node's write takes a moment.
const SETTLES_IN: Duration = Duration::from_secs(2);

/// How often.
const PAUSE: Duration = Duration::from_millis(20);

/// What decides on a guest's step.
type Decide<'a> = dyn Fn(&Subject<'_>) -> Result<Step, String> + 'a;

impl Run {
    /// What becomes of a guest for which this was decided.
    pub(super) fn outcome(
        &self,
        cluster: &Cluster,
        this: &NodeName,
        vmid: Vmid,
        step: Result<Step, String>,
        decide: &Decide<'_>,
        ours: Option<&Volume>,
    ) -> Outcome {
        match step {
            Ok(step) => self
                .act(cluster, this, vmid, &step, decide, ours)
                .unwrap_or_else(Outcome::Failed),
            Err(why) => Outcome::Refused(why),
        }
    }

    /// Does what was decided, if that would still be decided; `ours` is what attaching sets.
    fn act(
        &self,
        cluster: &Cluster,
        this: &NodeName,
        vmid: Vmid,
        step: &Step,
        decide: &Decide<'_>,
        ours: Option<&Volume>,
    ) -> Result<Outcome, String> {
        let change = match (step, ours) {
            (Step::HasOurs(volume, chained), ours) => {
                let elsewhere = (ours != Some(volume)).then(|| volume.clone());
                return Ok(Outcome::HasOurs(elsewhere, chained.clone()));
            }
            (Step::HasNotOurs(hookscript), _) => {
                self.expect_unchanged(placement(cluster, vmid)?, vmid, step, decide)?;
                return Ok(Outcome::HasNotOurs(hookscript.clone(), self.clean(vmid)?));
            }
            (Step::Attach | Step::Chain(_), Some(ours)) => Change::Set(ours.clone()),
            (Step::Restore(chained), _) => Change::Set(chained.volume().clone()),
            (Step::Detach | Step::Attach | Step::Chain(_), _) => Change::Delete,
        };
        let placement = placement(cluster, vmid)?;
        let call = Call::change(vmid, placement, this, &change);
        if self.is_dry {
            return Ok(Outcome::Planned(step.clone(), call));
        }
        self.expect_unchanged(placement, vmid, step, decide)?;
        self.before(vmid, step)?;
        if let Err(error) = programs::call(&call, self.patience) {
            return Err(self.after_failure(vmid, step, &change, &error));
        }
        self.expect_set(vmid, &call, &change)?;
        self.after(vmid, step)?;
        Ok(match step {
            Step::Chain(chained) => Outcome::Attached(Some(chained.clone())),
            Step::Attach => Outcome::Attached(None),
            Step::Restore(chained) => Outcome::Detached(Some(chained.clone())),
            _ => Outcome::Detached(None),
        })
    }

    /// Removes the record of a guest that is gone.
    pub(super) fn forget(&self, vmid: Vmid) -> Outcome {
        let cleaned = self.clean(vmid);
        cleaned.map_or_else(Outcome::Failed, |cleaned| {
            Outcome::HasNotOurs(None, cleaned)
        })
    }

    /// Removes a record that is not in force; where it was.
    fn clean(&self, vmid: Vmid) -> Result<Option<String>, String> {
        if let Ok(None) = self.pve.chained(vmid) {
            return Ok(None);
        }
        if !self.is_dry {
            chained_hook::remove(&self.pve, vmid).map_err(|error| text(&error))?;
        }
        Ok(Some(
            chained_hook::path(&self.pve, vmid).display().to_string(),
        ))
    }

    fn read(&self, vmid: Vmid) -> (Cluster, Known<Guest>) {
        let questions = ClusterQueries {
            tags: false,
            pools: false,
            nodes: true,
        };
        let mut cluster =
            self.pve
                .cluster(questions, &GuestsToRead::Of(BTreeSet::from([vmid])), None);
        let guest = cluster.guests.remove(&vmid);
        let guest = guest.unwrap_or_else(|| Err(Unknown("it was not read".into())));
        (cluster, guest)
    }

    /// Somebody may have changed it while others were done.
    fn expect_unchanged(
        &self,
        decided: &Placement,
        vmid: Vmid,
        step: &Step,
        decide: &Decide<'_>,
    ) -> Result<(), String> {
        let (cluster, guest) = self.read(vmid);
        let now = decide(&Subject {
            guest: &guest,
            record: &self.pve.chained(vmid),
        })?;
        let is_there = placement(&cluster, vmid)?.node == decided.node;
        if now == *step && is_there {
            Ok(())
        } else {
            Err(
                "its config has just been changed by somebody else; nothing was done, try again"
                    .into(),
            )
        }
    }

    /// The record, which has to be there before our hookscript looks for it, and must not be if it is another time's.
    fn before(&self, vmid: Vmid, step: &Step) -> Result<(), String> {
        match step {
            Step::Chain(chained) => chained_hook::write(&self.pve, vmid, chained),
            Step::Attach => chained_hook::remove(&self.pve, vmid),
            _ => Ok(()),
        }
        .map_err(|error| text(&error))
    }

    /// The record, which must not be there any longer, or still has to be: a `detach` at the same time may have taken it for
    /// a stale one, as long as the config did not have ours.
    fn after(&self, vmid: Vmid, step: &Step) -> Result<(), String> {
        match step {
            Step::Restore(_) => chained_hook::remove(&self.pve, vmid),
            Step::Chain(chained) => match self.pve.chained(vmid) {
                Ok(Some(found)) if found == *chained => Ok(()),
                _ => chained_hook::write(&self.pve, vmid, chained),
            },
            _ => Ok(()),
        }
        .map_err(|error| text(&error))
    }

    /// Undoes what came before, if it is certain that the config stays as it was. What a program that hangs has asked for,
    /// above all another node, may be done all the same, now or later: a record too many does no harm, but without
    /// its record the other hookscript would be lost.
    fn after_failure(
        &self,
        vmid: Vmid,
        step: &Step,
        change: &Change,
        error: &programs::Error,
    ) -> String {
        let failed = text(error);
        let (_, guest) = self.read(vmid);
        let is_set = guest.is_ok_and(|guest| guest.hookscript == change.hookscript());
        if is_set {
            let done = "its config has been changed all the same";
            return format!("{failed}; {done}, run the same command again");
        }
        match step {
            Step::Chain(_) if error.is_final() => match chained_hook::remove(&self.pve, vmid) {
                Ok(()) => failed,
                Err(left) => format!("{failed}; {}", text(&left)),
            },
            Step::Chain(_) => {
                let path = chained_hook::path(&self.pve, vmid);
                let path = path.display();
                format!("{failed}; it may be done later, so the record {path} stays")
            }
            _ => failed,
        }
    }

    /// Does the config say what was asked for?
    fn expect_set(&self, vmid: Vmid, call: &Call, change: &Change) -> Result<(), String> {
        let wanted = change.hookscript();
        let deadline = Instant::now() + SETTLES_IN;
        loop {
            let (_, guest) = self.read(vmid);
            let found = guest.map(|guest| guest.hookscript);
            if found.as_ref().is_ok_and(|found| *found == wanted) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(match found {
                    Ok(Some(found)) => {
                        format!(
                            "`{call}` says it is done, but the hookscript is {}",
                            excerpt(&found)
                        )
                    }
                    Ok(None) => format!("`{call}` says it is done, but there is no hookscript"),
                    Err(Unknown(why)) => {
                        format!("`{call}` says it is done, but its config cannot be read: {why}")
                    }
                });
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn placement(cluster: &Cluster, vmid: Vmid) -> Result<&Placement, String> {
    let placements = cluster
        .placements
        .as_ref()
        .map_err(|error| error.to_string())?;
    placements
        .get(&vmid)
        .ok_or_else(|| "there is no such guest any longer".to_owned())
}
