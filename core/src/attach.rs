//! Who gets pve-span's hookscript, who loses it, and what Proxmox VE is to be asked for it.
//!
//! A guest has one hookscript. Somebody else's is never overwritten: it stays, or is chained to ours, with a record of
//! what was there (`pve::chained_hook`). Whether a guest's config can be read decides about this guest alone.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::config::selector::Selector;
use super::model::{GuestKind, Invalid, NodeName, Vmid, excerpt, printable};
use super::pve::chained_hook::Chained;
use super::pve::cluster::{Cluster, Known, Placement, Placements, Unknown};
use super::pve::guest::Guest;
use super::pve::storage::{Storages, Volume};

/// Reads what an administrator has typed: span.cfg's selectors that name guests, also several in a word, with commas.
///
/// # Errors
/// All that is wrong with it.
pub fn parse_guests(words: &[String]) -> Result<Vec<Selector>, Vec<Invalid>> {
    let (mut selectors, mut faults) = (Vec::new(), Vec::new());
    let parts = words.iter().flat_map(|word| word.split(','));
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        match part.parse().and_then(of_guests) {
            Ok(selector) => selectors.push(selector),
            Err(fault) => faults.push(fault),
        }
    }
    if selectors.is_empty() && faults.is_empty() {
        faults.push(Invalid("which guests? 101, 300-399, tag:web, all".into()));
    }
    if faults.is_empty() {
        Ok(selectors)
    } else {
        Err(faults)
    }
}

fn of_guests(selector: Selector) -> Result<Selector, Invalid> {
    let whole = match &selector {
        Selector::Guests { low, high, nic } => nic.map(|_| Selector::Guests {
            low: *low,
            high: *high,
            nic: None,
        }),
        Selector::Tag(tag, nic) => nic.map(|_| Selector::Tag(tag.clone(), None)),
        Selector::Node(node, nic) => nic.map(|_| Selector::Node(node.clone(), None)),
        Selector::All(nic) => nic.map(|_| Selector::All(None)),
        Selector::Pool(_) => None,
        Selector::Bridge(_) | Selector::Port(_) => {
            return Err(Invalid(format!(
                "`{selector}` names no guest, and only guests have hookscripts"
            )));
        }
    };
    match whole {
        Some(whole) => Err(Invalid(format!(
            "`{selector}`: a hookscript is the whole guest's, not a NIC's; write {whole}"
        ))),
        None => Ok(selector),
    }
}

/// A guest that nothing is done for, or a selector that takes nobody, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The guest, if it is one.
    pub guest: Option<Vmid>,
    /// Why.
    pub why: String,
}

/// Who was meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chosen {
    /// The guests.
    pub guests: BTreeSet<Vmid>,
    /// Templates that a group would have taken: they never run.
    pub templates: BTreeSet<Vmid>,
    /// What could not be told, or is not there.
    pub refusals: Vec<Refusal>,
}

impl Chosen {
    /// Takes more; a guest that was taken by one selector is not refused for another.
    pub fn add(&mut self, guests: impl IntoIterator<Item = Vmid>) {
        self.guests.extend(guests);
        let guests = &self.guests;
        self.templates.retain(|vmid| !guests.contains(vmid));
        self.refusals
            .retain(|refusal| refusal.guest.is_none_or(|vmid| !guests.contains(&vmid)));
    }
}

/// Who is meant, in the whole cluster. A template counts where its number alone is written: what is cloned from it has its
/// hookscript. Sensors are guests like others here.
///
/// # Errors
/// Nobody can tell which guests there are.
pub fn choose(selectors: &[Selector], cluster: &Cluster) -> Known<Chosen> {
    let placements = cluster.placements.as_ref().map_err(Clone::clone)?;
    let mut chosen = Chosen::default();
    for selector in selectors {
        if let Some(vmid) = only_guest(selector) {
            if placements.contains_key(&vmid) {
                chosen.add([vmid]);
            } else {
                chosen.refusals.push(Refusal {
                    guest: Some(vmid),
                    why: "there is no such guest".into(),
                });
            }
            continue;
        }
        let group = group(selector, cluster, placements)?;
        if group == Chosen::default() {
            chosen.refusals.push(Refusal {
                guest: None,
                why: format!("`{selector}` takes no guest"),
            });
        }
        chosen.templates.extend(&group.templates);
        chosen.refusals.extend(group.refusals);
        chosen.add(group.guests);
    }
    Ok(chosen)
}

/// The guest whose number alone it is.
fn only_guest(selector: &Selector) -> Option<Vmid> {
    match selector {
        Selector::Guests { low, high, .. } if low == high => Some(*low),
        _ => None,
    }
}

fn group(selector: &Selector, cluster: &Cluster, placements: &Placements) -> Known<Chosen> {
    let mut chosen = Chosen::default();
    let pools = match selector {
        Selector::Pool(_) => Some(cluster.pools.as_ref().map_err(Clone::clone)?),
        _ => None,
    };
    for (vmid, placement) in placements {
        let is_in = match selector {
            Selector::Guests { low, high, .. } => (low..=high).contains(&vmid),
            Selector::Node(node, _) => placement.node == *node,
            Selector::All(_) => true,
            Selector::Pool(pool) => pools.is_some_and(|pools| pools.contains(pool, *vmid)),
            Selector::Tag(tag, _) => match cluster.guests.get(vmid) {
                Some(Ok(guest)) => guest.tags.contains(tag),
                unread => {
                    chosen.refusals.push(Refusal {
                        guest: Some(*vmid),
                        why: format!("cannot tell whether it has the tag {tag}: {}", why(unread)),
                    });
                    false
                }
            },
            Selector::Bridge(_) | Selector::Port(_) => false,
        };
        let is_template = || cluster.guest(*vmid).is_some_and(|guest| guest.template);
        if is_in && is_template() {
            chosen.templates.insert(*vmid);
        } else if is_in {
            chosen.guests.insert(*vmid);
        }
    }
    Ok(chosen)
}

fn why(unread: Option<&Known<Guest>>) -> &str {
    match unread {
        Some(Err(Unknown(why))) => why,
        _ => "its config was not read",
    }
}

/// What becomes of a hookscript that is somebody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// It stays, and ours is not set.
    Stay,
    /// It is called after ours.
    Chain,
}

/// What is to be done for a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It has our hookscript; perhaps with another one behind it.
    HasOurs(Volume, Option<Chained>),
    /// It has none, or somebody else's, which is not ours to take away.
    HasNotOurs(Option<String>),
    /// Sets our hookscript where there is none.
    Attach,
    /// Writes down the other hookscript and sets ours.
    Chain(Chained),
    /// Takes ours away.
    Detach,
    /// Sets the other hookscript back.
    Restore(Chained),
}

/// A guest, and the record of a chained hookscript.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its config, if it can be read.
    pub guest: &'a Known<Guest>,
    /// The record, which counts only where the guest has our hookscript.
    pub record: &'a Known<Option<Chained>>,
}

impl Subject<'_> {
    fn hookscript(&self) -> Result<Option<&str>, String> {
        match self.guest {
            Ok(guest) => Ok(guest.hookscript.as_deref()),
            Err(Unknown(why)) => Err(format!("its config cannot be read: {why}")),
        }
    }

    /// The record in force: that of a guest with our hookscript.
    fn chained(&self) -> Result<Option<Chained>, String> {
        self.record.clone().map_err(|Unknown(why)| {
            format!("the record of the hookscript that it had before cannot be used: {why}")
        })
    }

    /// What attaching means here.
    ///
    /// # Errors
    /// Nothing can be done, and why.
    pub fn attach(&self, others: Others, storages: &Storages) -> Result<Step, String> {
        let Some(hookscript) = self.hookscript()? else {
            return Ok(Step::Attach);
        };
        let volume: Result<Volume, Invalid> = hookscript.parse();
        match (volume, others) {
            (Ok(volume), _) if volume.is_ours() => Ok(Step::HasOurs(volume, self.chained()?)),
            (Ok(volume), Others::Chain) => {
                let path = storages.path(&volume);
                let chained = path.and_then(|path| Chained::new(volume.clone(), path));
                chained
                    .map(Step::Chain)
                    .map_err(|error| format!("has {volume}, which cannot be chained: {error}"))
            }
            (Err(error), Others::Chain) => {
                Err(format!("its hookscript cannot be chained: {error}"))
            }
            (_, Others::Stay) => Err(format!(
                "has {} already; --chain keeps calling it",
                excerpt(hookscript)
            )),
        }
    }

    /// What detaching means here.
    ///
    /// # Errors
    /// Nothing can be done, and why.
    pub fn detach(&self) -> Result<Step, String> {
        let Some(hookscript) = self.hookscript()? else {
            return Ok(Step::HasNotOurs(None));
        };
        let is_ours = hookscript
            .parse::<Volume>()
            .is_ok_and(|volume| volume.is_ours());
        if !is_ours {
            return Ok(Step::HasNotOurs(Some(hookscript.to_owned())));
        }
        Ok(self.chained()?.map_or(Step::Detach, Step::Restore))
    }
}

/// What Proxmox VE's own program is asked to do to a guest's `hookscript`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Set it.
    Set(Volume),
    /// Take it away.
    Delete,
}

impl Change {
    /// What the config has afterwards.
    pub fn hookscript(&self) -> Option<String> {
        match self {
            Self::Set(volume) => Some(volume.to_id()),
            Self::Delete => None,
        }
    }
}

/// A call of one of Proxmox VE's programs: its name, then its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Call(pub Vec<String>);

impl Call {
    /// Changes a guest's hookscript: `qm` and `pct` for guests of this node, `pvesh` for others'.
    pub fn change(vmid: Vmid, placement: &Placement, this: &NodeName, change: &Change) -> Self {
        let mut words = if placement.node == *this {
            let program = match placement.kind {
                GuestKind::Qemu => "qm",
                GuestKind::Lxc => "pct",
            };
            vec![program.to_owned(), "set".to_owned(), vmid.to_string()]
        } else {
            let kind = match placement.kind {
                GuestKind::Qemu => "qemu",
                GuestKind::Lxc => "lxc",
            };
            let path = format!("/nodes/{}/{kind}/{vmid}/config", placement.node);
            vec!["pvesh".to_owned(), "set".to_owned(), path]
        };
        words.extend(match change {
            Change::Set(volume) => ["--hookscript".to_owned(), volume.to_id()],
            Change::Delete => ["--delete".to_owned(), "hookscript".to_owned()],
        });
        Self(words)
    }

    /// Lists the snippets that a node has on a storage.
    pub fn snippets(node: &NodeName, volume: &Volume) -> Self {
        let path = format!("/nodes/{node}/storage/{}/content", volume.storage());
        let options = ["--content", "snippets", "--output-format", "json"];
        let words = ["pvesh", "get", &path].into_iter().chain(options);
        Self(words.map(str::to_owned).collect())
    }

    /// The program's name.
    pub fn program(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// Its arguments.
    pub fn arguments(&self) -> &[String] {
        self.0.get(1..).unwrap_or_default()
    }
}

/// As an administrator would type it.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,".contains(c);
        for (at, word) in self.0.iter().enumerate() {
            let blank = if at == 0 { "" } else { " " };
            if !word.is_empty() && word.chars().all(is_plain) {
                write!(f, "{blank}{word}")?;
            } else {
                let word = printable(&word.replace('\'', r"'\''"));
                write!(f, "{blank}'{word}'")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
