//! What `attach` and `detach` have done, guest by guest: in words, and as JSON.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::commands::format::Format;
use crate::sys::output::Printer;
use pve_span_core::attach::{Call, Refusal, Step};
use pve_span_core::model::{GuestKind, NodeName, Vmid, excerpt};
use pve_span_core::pve::chained_hook::Chained;
use pve_span_core::pve::cluster::Cluster;
use pve_span_core::pve::storage::Volume;

/// What became of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It has our hookscript now, which perhaps calls this one.
    Attached(Option<Chained>),
    /// It has lost ours, and perhaps got this one back.
    Detached(Option<Chained>),
    /// It had ours before, perhaps from another storage.
    HasOurs(Option<Volume>, Option<Chained>),
    /// It had none of ours, but perhaps this one; where a stale record was.
    HasNotOurs(Option<String>, Option<String>),
    /// What would be done.
    Planned(Step, Call),
    /// Nothing was tried, and why.
    Refused(String),
    /// It was tried, and what went wrong.
    Failed(String),
}

/// All of it.
pub struct Report<'a> {
    cluster: &'a Cluster,
    is_dry: bool,
    entries: Vec<Entry>,
    /// What else was asked for and cannot be done.
    faults: Vec<String>,
    warnings: Vec<String>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Entry {
    guest: Vmid,
    name: Option<String>,
    node: Option<NodeName>,
    #[serde(rename = "type")]
    kind: Option<GuestKind>,
    result: &'static str,
    /// The hookscript that is called after ours, or is back.
    other: Option<Volume>,
    call: Option<Call>,
    why: Option<String>,
    #[serde(skip)]
    lines: Vec<String>,
}

#[derive(Serialize)]
struct Data<'a> {
    dry_run: bool,
    guests: &'a [Entry],
    faults: &'a [String],
    warnings: &'a [String],
    notes: &'a [String],
}

impl<'a> Report<'a> {
    /// Nothing done yet; what was refused to begin with.
    pub fn new(cluster: &'a Cluster, is_dry: bool, refusals: &[Refusal]) -> Self {
        let mut report = Self {
            cluster,
            is_dry,
            entries: Vec::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
            notes: Vec::new(),
        };
        for Refusal { guest, why } in refusals {
            match guest {
                Some(vmid) => report.add(*vmid, &Outcome::Refused(why.clone())),
                None => report.faults.push(why.clone()),
            }
        }
        report
    }

    /// What became of one.
    pub fn add(&mut self, vmid: Vmid, outcome: &Outcome) {
        let entry = self.done(vmid, outcome);
        self.entries.push(entry);
    }

    /// What else is worth knowing, and to be acted upon.
    pub fn warn(&mut self, warnings: Vec<String>) {
        self.warnings.extend(warnings);
    }

    /// Templates that a group would have taken.
    pub fn leave_out_templates(&mut self, templates: &BTreeSet<Vmid>) {
        if !templates.is_empty() {
            let list = list(templates, ", ");
            self.notes.push(format!(
                "templates left out: {list}; what is cloned from one has its hookscript, so name it by its number if you want that"
            ));
        }
    }

    /// Sensors without our hookscript.
    pub fn tell_sensors(&mut self, sensors: &BTreeSet<Vmid>, attached: &BTreeSet<Vmid>) {
        let has_ours = |vmid: &Vmid| {
            let hookscript = self
                .cluster
                .guest(*vmid)
                .and_then(|guest| guest.hookscript.as_ref());
            hookscript.is_some_and(|hookscript| {
                hookscript
                    .parse::<Volume>()
                    .is_ok_and(|volume| volume.is_ours())
            })
        };
        let without: BTreeSet<Vmid> = sensors
            .iter()
            .filter(|vmid| !attached.contains(vmid) && !has_ours(vmid))
            .copied()
            .collect();
        if !without.is_empty() {
            self.notes.push(format!(
                "for a sensor that reboots: pve-span attach {}",
                list(&without, " ")
            ));
        }
    }

    /// Prints all of it. Exit codes: 0 done, 1 something was refused or failed.
    pub fn tell(mut self, format: Format) -> u8 {
        self.entries.sort_by_key(|entry| entry.guest);
        for warning in &self.warnings {
            log::warn!("{warning}");
        }
        let mut out = Printer::new();
        if format == Format::Json {
            out.json(&Data {
                dry_run: self.is_dry,
                guests: &self.entries,
                faults: &self.faults,
                warnings: &self.warnings,
                notes: &self.notes,
            });
        } else {
            let lines = self.entries.iter().flat_map(|entry| &entry.lines);
            lines.chain(&self.notes).for_each(|line| out.line(line));
            if self.entries.is_empty() && self.faults.is_empty() {
                out.line("nothing to do");
            }
        }
        let refused = self
            .entries
            .iter()
            .filter_map(|entry| Some(format!("{}: {}", who(entry), entry.why.as_ref()?)));
        let faults: Vec<String> = refused.chain(self.faults).collect();
        faults.iter().for_each(|fault| log::error!("{fault}"));
        u8::from(!faults.is_empty())
    }

    fn entry(&self, vmid: Vmid, result: &'static str) -> Entry {
        let placement = self.cluster.placements.as_ref().ok();
        let placement = placement.and_then(|all| all.get(&vmid));
        let guest = self.cluster.guest(vmid);
        Entry {
            guest: vmid,
            name: guest.and_then(|guest| guest.name.clone()),
            node: placement.map(|placement| placement.node.clone()),
            kind: placement.map(|placement| placement.kind),
            result,
            other: None,
            call: None,
            why: None,
            lines: Vec::new(),
        }
    }

    fn done(&self, vmid: Vmid, outcome: &Outcome) -> Entry {
        let (result, other, call) = match outcome {
            Outcome::Attached(other) => ("attached", other.as_ref(), None),
            Outcome::Detached(other) => ("detached", other.as_ref(), None),
            Outcome::HasOurs(_, other) => ("unchanged", other.as_ref(), None),
            Outcome::HasNotOurs(..) => ("unchanged", None, None),
            Outcome::Planned(Step::Chain(other) | Step::Restore(other), call) => {
                ("planned", Some(other), Some(call.clone()))
            }
            Outcome::Planned(_, call) => ("planned", None, Some(call.clone())),
            Outcome::Refused(_) => ("refused", None, None),
            Outcome::Failed(_) => ("failed", None, None),
        };
        let mut entry = self.entry(vmid, result);
        entry.other = other.map(|other| other.volume().clone());
        entry.call = call;
        if let Outcome::Refused(why) | Outcome::Failed(why) = outcome {
            entry.why = Some(why.clone());
            return entry;
        }
        let who = who(&entry);
        let lines = self.words(vmid, outcome);
        entry.lines = lines.iter().map(|line| format!("{who}: {line}")).collect();
        entry
    }

    fn words(&self, vmid: Vmid, outcome: &Outcome) -> Vec<String> {
        let calls = |other: &Option<Chained>| {
            let other = other.as_ref().map(Chained::volume);
            other.map_or_else(String::new, |other| {
                format!(", and {other} is called after it")
            })
        };
        let line = match outcome {
            Outcome::Attached(other) => format!("attached{}", calls(other)),
            Outcome::Detached(None) => "detached".into(),
            Outcome::Detached(Some(other)) => {
                format!("detached, and {} is its hookscript again", other.volume())
            }
            Outcome::HasOurs(volume, other) => {
                let volume = volume.as_ref().map(|volume| format!(" ({volume})"));
                let volume = volume.unwrap_or_default();
                format!("attached already{volume}{}", calls(other))
            }
            Outcome::HasNotOurs(hookscript, stale) => {
                let has = hookscript.as_ref().map_or_else(
                    || "is not attached".to_owned(),
                    |other| format!("is not attached; its hookscript is {}", excerpt(other)),
                );
                let removed = if self.is_dry {
                    "would be removed"
                } else {
                    "was removed"
                };
                let stale = stale
                    .as_ref()
                    .map(|path| format!("; its record {path} is stale and {removed}"));
                has + &stale.unwrap_or_default()
            }
            // Told as faults.
            Outcome::Refused(_) | Outcome::Failed(_) => return Vec::new(),
            Outcome::Planned(step, call) => {
                let record = match step {
                    Step::Chain(other) => Some(format!(
                        "would write down {} in /etc/pve/span-hooks/{vmid}, to be called after pve-span",
                        other.volume()
                    )),
                    _ => None,
                };
                let call = format!("would call {call}");
                return record.into_iter().chain([call]).collect();
            }
        };
        vec![line]
    }
}

/// `101 web1`.
fn who(entry: &Entry) -> String {
    let name = entry
        .name
        .as_ref()
        .map(|name| format!(" {}", excerpt(name)));
    format!("{}{}", entry.guest, name.unwrap_or_default())
}

fn list(guests: &BTreeSet<Vmid>, between: &str) -> String {
    let guests: Vec<String> = guests.iter().map(ToString::to_string).collect();
    guests.join(between)
}

/// Nothing was done, and why.
pub fn stopped(format: Format, faults: &[String]) {
    if format == Format::Json {
        Printer::new().json(&serde_json::json!({"error": faults.join("; ")}));
    }
    faults.iter().for_each(|fault| log::error!("{fault}"));
}
