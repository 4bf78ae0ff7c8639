//! `pve-span init`: a first span.cfg, with what the node offers. It never overwrites one, and never ends a session.

use std::collections::BTreeSet;
use std::path::Path;

use super::context::context;
use crate::cli::InitArgs;
use crate::config::active;
use crate::config::active::InForce;
use crate::config::span_file::SpanFile;
use crate::pve::Pve;
use crate::reconcile;
use crate::reconcile::inputs::Detail;
use crate::reconcile::observe::{Look, look_by};
use crate::sys::error::with_causes;
use crate::sys::output::Printer;
use pve_span_core::state::OvsState;
use pve_span_core::state::port_map::PortMap;
use pve_span_core::suggestions;
use pve_span_core::suggestions::Suggestions;

/// What is in the way.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    File(#[from] crate::config::span_file::Error),
    #[error(transparent)]
    Look(#[from] reconcile::Error),
    /// A new file would end what there is.
    #[error("{0}")]
    WouldEnd(String),
}

/// Exit codes: 0 written, or shown with `--dry-run`; 1 not.
pub fn run(root: &Path, args: &InitArgs) -> u8 {
    let mut out = Printer::new();
    match init(root, args, &mut out) {
        Ok(()) => 0,
        Err(error) => {
            log::error!("{}", with_causes(&error));
            1
        }
    }
}

fn init(root: &Path, args: &InitArgs, out: &mut Printer) -> Result<(), Error> {
    let file = SpanFile::open(root)?;
    let there_is_one = file.path().symlink_metadata().is_ok();
    if there_is_one && !args.dry_run {
        let path = file.path().to_owned();
        return Err(crate::config::span_file::Error::Exists { path }.into());
    }
    if !args.dry_run {
        nothing_ends(root)?;
    }
    let text = suggestions::text(&offered(&first_look(root)?));
    if args.dry_run {
        text.lines().for_each(|line| out.line(line));
        return Ok(());
    }
    file.create(&text)?;
    out.line(&format!(
        "{} is written, all of it comments: nothing is mirrored yet.",
        file.name()
    ));
    out.line("Next, with sessions of your own or some of those in it:");
    for (command, what) in [
        (
            "pve-span edit",
            "checks what you write and shows what it would change, as check and plan do",
        ),
        ("pve-span apply", "does it now, on this node"),
        (
            "systemctl enable --now pve-span",
            "the service does so on each node by itself",
        ),
        ("pve-span status", "whether each sensor gets what it should"),
    ] {
        out.line(&format!("  {command:<32}  {what}"));
    }
    Ok(())
}

/// What the node and the cluster are like, whatever span.cfg says.
pub(super) fn first_look(root: &Path) -> Result<Look, reconcile::Error> {
    let path = Pve::new(root).path(crate::pve::SPAN_CFG);
    let nobody = InForce::NotConfigured { path };
    look_by(
        nobody,
        &context(root, "init"),
        Detail::All,
        &BTreeSet::new(),
    )
}

/// What `init` writes; `edit` begins with it, too, where there is no file.
pub(super) fn offered(look: &Look) -> Suggestions {
    let map = PortMap::new(&look.observed);
    let mut offer = suggestions::offer(&look.cluster, &map);
    if let OvsState::Failed(why) = &look.observed.ovs {
        offer.unseen.push(format!("Open vSwitch: {why}"));
    }
    offer
}

/// A valid file without sessions ends all that there are: they must not end because a file was lost.
pub(super) fn nothing_ends(root: &Path) -> Result<(), Error> {
    let copy = active::last_good(root);
    let copy = copy.display();
    let lost = match active::load(root) {
        InForce::LastGood { annotations, .. } if !annotations.sessions.is_empty() => {
            let count = annotations.sessions.len();
            let sessions = if count == 1 { "session" } else { "sessions" };
            format!("the last good copy, {copy}, is in force with {count} {sessions}")
        }
        InForce::Unknown { .. } => {
            format!("there has been one: its last good copy, {copy}, cannot be used")
        }
        _ => {
            let ours: Vec<String> = reconcile::ours(&first_look(root)?.observed)
                .iter()
                .map(ToString::to_string)
                .collect();
            if ours.is_empty() {
                return Ok(());
            }
            let ours = ours.join(", ");
            return Err(Error::WouldEnd(format!(
                "there is no span.cfg, but this node still mirrors: {ours}. A new file would end that. Restore the \
                 file from a backup, or end them first: pve-span clear --all"
            )));
        }
    };
    Err(Error::WouldEnd(format!(
        "span.cfg is missing, and {lost}; a new file would end those sessions on every node. To bring them back: \
         pve-span edit, which begins with that copy. To begin anew: remove the copy, on each node"
    )))
}
