//! `pve-span attach` and `pve-span detach`: who has pve-span as hookscript, in the whole cluster.
//!
//! Everything that can be checked is checked before the first change. Guests' configs are changed by Proxmox VE's own
//! programs only, each guest by itself: a failure does not keep the others from being done.

mod execute;
mod report;
mod run;
mod snippet_check;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::cli::{AttachArgs, CommonArgs, DetachArgs, USAGE};
use crate::config::active;
use crate::pve::programs;
use crate::sys::clock::now;
use pve_span_core::attach::{
    Call, Change, Chosen, Others, Refusal, Step, Subject, choose, parse_guests,
};
use pve_span_core::config::selector::Selector;
use pve_span_core::model::{NodeName, Vmid};
use pve_span_core::pve::cluster::{Cluster, Members, Unknown};
use pve_span_core::pve::storage::{StorageId, Storages, Volume};
use pve_span_core::resolve::cluster_sources::{Sources, sources};
use report::Report;
use run::{Run, Stopped};

/// Exit codes: 0 every guest has it, 1 one of them was refused or failed, 64 a wrong call.
pub fn attach(root: &Path, args: &AttachArgs) -> u8 {
    let (storage, selectors) = match (args.storage.parse::<StorageId>(), selectors(&args.guests)) {
        (Ok(storage), Ok(selectors)) => (storage, selectors),
        (storage, selectors) => {
            let faults = storage.err().map(|fault| fault.0).into_iter();
            return usage(
                &args.common,
                faults.chain(selectors.err().unwrap_or_default()),
            );
        }
    };
    let command = Attach {
        run: Run::new(root, &args.common),
        volume: Volume::ours(storage),
        others: if args.chain {
            Others::Chain
        } else {
            Others::Stay
        },
    };
    let cluster = command
        .run
        .cluster(if args.all_sources { &[] } else { &selectors });
    let report = command.all(&cluster, &selectors, args.all_sources);
    command.run.told(report)
}

/// Exit codes: 0 none of them has it any longer, 1 one of them was refused or failed, 64 a wrong call.
pub fn detach(root: &Path, args: &DetachArgs) -> u8 {
    let selectors = match selectors(&args.guests) {
        Ok(selectors) => selectors,
        Err(faults) => return usage(&args.common, faults.into_iter()),
    };
    let run = Run::new(root, &args.common);
    let cluster = run.cluster(&selectors);
    run.told(run.detach_all(&cluster, &selectors))
}

fn selectors(words: &[String]) -> Result<Vec<Selector>, Stopped> {
    if words.is_empty() {
        return Ok(Vec::new());
    }
    parse_guests(words).map_err(|faults| faults.into_iter().map(|fault| fault.0).collect())
}

fn usage(common: &CommonArgs, faults: impl Iterator<Item = String>) -> u8 {
    report::stopped(common.json.into(), &faults.collect::<Vec<_>>());
    USAGE
}

impl Run {
    fn detach_all<'a>(
        &self,
        cluster: &'a Cluster,
        selectors: &[Selector],
    ) -> Result<Report<'a>, Stopped> {
        let (chosen, gone) = if selectors.is_empty() {
            self.everyone(cluster)?
        } else {
            let mut chosen = choose(selectors, cluster).map_err(cannot_tell_guests)?;
            // Whoever may have it.
            chosen.add(chosen.templates.clone());
            (chosen, BTreeSet::new())
        };
        let this = self.this(cluster)?;
        let mut steps = self.steps(cluster, &chosen.guests, |subject| subject.detach());
        if selectors.is_empty() {
            // Only those that have it, or of whom nobody can tell.
            let has_record = |vmid: &Vmid| !matches!(self.pve.chained(*vmid), Ok(None));
            steps.retain(|vmid, step| !matches!(step, Ok(Step::HasNotOurs(_))) || has_record(vmid));
        }
        let off = self.pve.members().map(|members| members.offline);
        let off = off.unwrap_or_default();
        let mut report = Report::new(cluster, self.is_dry, &chosen.refusals);
        let is_change = |step: &Step| matches!(step, Step::Detach | Step::Restore(_));
        self.check_programs(cluster, &this, &steps, is_change)?;
        for (vmid, step) in steps {
            let step = step.and_then(|step| match node_that_is_off(cluster, vmid, &off) {
                Some(node) if is_change(&step) => Err(format!(
                    "is on {node}, which is off; try again when it is back"
                )),
                _ => Ok(step),
            });
            let decide = |subject: &Subject<'_>| subject.detach();
            report.add(
                vmid,
                &self.outcome(cluster, &this, vmid, step, &decide, None),
            );
        }
        for vmid in gone {
            report.add(vmid, &self.forget(vmid));
        }
        Ok(report)
    }

    /// Every guest, and those that are gone and have left a record.
    fn everyone(&self, cluster: &Cluster) -> Result<(Chosen, BTreeSet<Vmid>), Stopped> {
        let placements = cluster.placements.as_ref();
        let placements = placements.map_err(|why| cannot_tell_guests(why.clone()))?;
        let mut chosen = Chosen::default();
        chosen.add(placements.keys().copied());
        let recorded = self.pve.guests_with_chained();
        let mut gone = recorded.map_err(|Unknown(why)| vec![why])?;
        gone.retain(|vmid| !placements.contains_key(vmid));
        Ok((chosen, gone))
    }

    /// Are Proxmox VE's programs there that are going to be called?
    fn check_programs(
        &self,
        cluster: &Cluster,
        this: &NodeName,
        steps: &BTreeMap<Vmid, Result<Step, String>>,
        is_change: impl Fn(&Step) -> bool,
    ) -> Result<(), Stopped> {
        let changed = steps
            .iter()
            .filter(|(_, step)| step.as_ref().is_ok_and(&is_change));
        let placements = cluster.placements.as_ref().ok();
        let programs: BTreeSet<String> = changed
            .filter_map(|(vmid, _)| {
                let placement = placements?.get(vmid)?;
                let call = Call::change(*vmid, placement, this, &Change::Delete);
                Some(call.program().to_owned())
            })
            .collect();
        let missing = programs
            .iter()
            .filter_map(|name| programs::check(name).err());
        let missing: Vec<String> = missing.map(|error| error.to_string()).collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(missing)
        }
    }
}

struct Attach {
    run: Run,
    volume: Volume,
    others: Others,
}

impl Attach {
    fn all<'a>(
        &self,
        cluster: &'a Cluster,
        selectors: &[Selector],
        all_sources: bool,
    ) -> Result<Report<'a>, Stopped> {
        let run = &self.run;
        let mut chosen = choose(selectors, cluster).map_err(cannot_tell_guests)?;
        let sensors = if all_sources {
            let sources = run.sources(cluster)?;
            chosen.refusals.extend(unknown_sources(&sources));
            chosen.add(sources.taken);
            sources.sensors
        } else {
            BTreeSet::new()
        };
        let this = run.this(cluster)?;
        let storages = run.pve.storages().map_err(|Unknown(why)| vec![why])?;
        let decide = |subject: &Subject<'_>| subject.attach(self.others, &storages);
        let mut steps = run.steps(cluster, &chosen.guests, decide);
        let mut report = Report::new(cluster, run.is_dry, &chosen.refusals);
        let is_change = |step: &Step| matches!(step, Step::Attach | Step::Chain(_));
        if steps.values().flatten().any(is_change) {
            let members = run.pve.members();
            let members = members.map_err(|Unknown(why)| {
                vec![format!("cannot tell which nodes there are: {why}")]
            })?;
            run.check_programs(cluster, &this, &steps, is_change)?;
            report.warn(self.check_snippet(&storages, &this, &members)?);
            self.refuse_where_it_cannot_be(cluster, &storages, &members, &mut steps);
        }
        for (vmid, step) in steps {
            let ours = Some(&self.volume);
            report.add(
                vmid,
                &run.outcome(cluster, &this, vmid, step, &decide, ours),
            );
        }
        report.leave_out_templates(&chosen.templates);
        report.tell_sensors(&sensors, &chosen.guests);
        Ok(report)
    }

    fn check_snippet(
        &self,
        storages: &Storages,
        this: &NodeName,
        members: &Members,
    ) -> Result<Vec<String>, Stopped> {
        snippet_check::Question {
            root: &self.run.root,
            volume: &self.volume,
            storages,
            this,
            members,
            patience: self.run.patience,
        }
        .check()
    }

    /// Guests on nodes that do not have the storage, or that are off.
    fn refuse_where_it_cannot_be(
        &self,
        cluster: &Cluster,
        storages: &Storages,
        members: &Members,
        steps: &mut BTreeMap<Vmid, Result<Step, String>>,
    ) {
        let storage = storages.get(self.volume.storage());
        for (vmid, step) in steps {
            let Ok(Step::Attach | Step::Chain(_)) = step else {
                continue;
            };
            let placements = cluster.placements.as_ref().ok();
            let Some(placement) = placements.and_then(|all| all.get(vmid)) else {
                continue;
            };
            let node = &placement.node;
            if node_that_is_off(cluster, *vmid, &members.offline).is_some() {
                *step = Err(format!(
                    "is on {node}, which is off; try again when it is back"
                ));
            } else if storage.is_some_and(|storage| !storage.is_on(node)) {
                let id = self.volume.storage();
                *step = Err(format!(
                    "is on {node}, which does not have the storage {id}"
                ));
            }
        }
    }
}

impl Run {
    /// Who is a source of the sessions in force.
    fn sources(&self, cluster: &Cluster) -> Result<Sources, Stopped> {
        let in_force = active::load(&self.root);
        if let Some(notice) = in_force.notice() {
            log::warn!("{notice}");
        }
        let annotations = in_force.annotations().ok_or_else(|| {
            let why = match &in_force {
                active::InForce::NotConfigured { .. } => "there are no sessions, and so no sources",
                _ => "cannot tell which sessions there are",
            };
            vec![why.to_owned()]
        })?;
        sources(annotations, cluster, now()).map_err(cannot_tell_guests)
    }
}

fn unknown_sources(sources: &Sources) -> Vec<Refusal> {
    let refusal = |(vmid, why): (&Vmid, &String)| Refusal {
        guest: Some(*vmid),
        why: format!("cannot tell whether it is a source: {why}"),
    };
    sources.unknown.iter().map(refusal).collect()
}

fn cannot_tell_guests(Unknown(why): Unknown) -> Stopped {
    vec![format!("cannot tell which guests are meant: {why}")]
}

/// The guest's node, if it is known to be off.
fn node_that_is_off<'a>(
    cluster: &'a Cluster,
    vmid: Vmid,
    off: &BTreeSet<NodeName>,
) -> Option<&'a NodeName> {
    let placement = cluster.placements.as_ref().ok()?.get(&vmid)?;
    off.contains(&placement.node).then_some(&placement.node)
}
