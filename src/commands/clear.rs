//! `pve-span clear`: removes mirrors of ours from this node, whatever span.cfg says.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use super::context::{asked_context, context, expect_pve, say_first_step};
use super::format::Format;
use crate::cli::USAGE;
use crate::config::active;
use crate::config::active::InForce;
use crate::engine::ovs::CommitState;
use crate::reconcile;
use crate::reconcile::inputs::Detail;
use crate::reconcile::inputs::PVE_HANGS;
use crate::reconcile::observe::look;
use crate::reconcile::{Context, Error, PveAccess};
use crate::sys::output::Printer;
use pve_span_core::config::diagnostic::did_you_mean;
use pve_span_core::health::NOT_ACTED;
use pve_span_core::model::{SessionName, printable};
use pve_span_core::plan::{Action, PortChange};

#[derive(Serialize)]
struct Report<'a> {
    actions: &'a [Action],
    ports: &'a [PortChange],
    applied: bool,
}

/// Exit codes: 0 done and verified, 1 not, 64 there is no such session.
///
/// # Errors
/// Nothing was done, or it is not certain that what was done is in force.
pub fn run(root: &Path, sessions: &[String], format: Format) -> Result<u8, Error> {
    let chosen: BTreeSet<SessionName> = sessions
        .iter()
        .map(|name| SessionName::from_mark(name))
        .collect();
    let wanted = (!chosen.is_empty()).then_some(&chosen);
    let context = match wanted {
        Some(_) => asked_context(root, "clear"),
        // To clear all, /etc/pve need not answer.
        None => context(root, "clear"),
    };
    if wanted.is_some() {
        let missing = missing(&context, &chosen)?;
        if !missing.is_empty() {
            if format == Format::Json {
                Printer::new().json(&serde_json::json!({"error": missing.join("; ")}));
            }
            missing.iter().for_each(|one| log::error!("{one}"));
            return Ok(USAGE);
        }
    }
    // Whatever span.cfg says, and whether or not it can be read.
    let done = reconcile::clear(&context, wanted)?;
    let in_force = match context.pve {
        PveAccess::Hangs(_) => Ok(active::by_last_good(root, PVE_HANGS)),
        PveAccess::Answers => expect_pve(root).map(|()| active::load(root)),
    };
    if let Some(notice) = in_force.as_ref().ok().and_then(InForce::notice) {
        log::warn!("{notice}");
    }
    if wanted.is_none() && in_force.is_ok() {
        say_first_step(root);
    }
    let mut out = Printer::new();
    if format == Format::Json {
        out.json(&Report {
            actions: &done.actions,
            ports: &done.ports,
            applied: done.applied == CommitState::Yes,
        });
    } else if done.is_empty() && done.faults.is_empty() {
        out.line("nothing to clear");
    } else {
        done.in_words().iter().for_each(|line| out.line(line));
    }
    let annotations = in_force.as_ref().ok().and_then(InForce::annotations);
    let listed = annotations.map(|annotations| &annotations.sessions);
    let cleared: BTreeSet<&SessionName> = done
        .actions
        .iter()
        .map(|action| &action.mirror.of.session)
        // Another session may have been adapted.
        .filter(|name| wanted.is_none_or(|chosen| chosen.contains(*name)))
        .collect();
    let returning = cleared
        .into_iter()
        .filter(|name| listed.is_some_and(|listed| listed.contains_key(*name)));
    let returning: Vec<&str> = returning.map(SessionName::as_str).collect();
    if !returning.is_empty() {
        log::warn!(
            "span.cfg still lists {}: the next reconcile brings the mirrors back; write `enabled = no` to keep a session off",
            returning.join(", ")
        );
    }
    if let Err(error) = &in_force {
        log::warn!("{error}; nobody can tell whether span.cfg brings them back");
    }
    done.log_faults();
    if done.applied == CommitState::NotYet {
        log::warn!("{NOT_ACTED}");
    }
    let is_cleared = done.applied == CommitState::Yes && done.faults.is_empty();
    Ok(u8::from(!is_cleared))
}

/// The names that neither span.cfg nor a mirror of ours knows, in words.
fn missing(context: &Context, chosen: &BTreeSet<SessionName>) -> Result<Vec<String>, Error> {
    let look = look(context, Detail::Mirrors, &BTreeSet::new())?;
    let mut known: BTreeSet<String> = BTreeSet::new();
    if let Some(annotations) = look.in_force.annotations() {
        known.extend(
            annotations
                .sessions
                .keys()
                .map(|name| name.as_str().to_owned()),
        );
    }
    let ours = reconcile::ours(&look.observed);
    known.extend(ours.iter().map(|session| session.as_str().to_owned()));
    let unknown = chosen.iter().filter(|name| !known.contains(name.as_str()));
    let missing = unknown.map(|name| {
        let hint = did_you_mean(name.as_str(), known.iter().map(String::as_str))
            .map(|hint| format!(", {hint}"));
        format!(
            "there is no session `{}`{}",
            printable(name.as_str()),
            hint.unwrap_or_default()
        )
    });
    let missing: Vec<String> = missing.collect();
    match look.observed.ovs.unanswered() {
        Some(why) if !missing.is_empty() => Err(Error::Ovs(why.to_owned())),
        _ => Ok(missing),
    }
}
