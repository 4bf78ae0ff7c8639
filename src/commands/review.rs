//! A text that is to become span.cfg: what is wrong with it, what it would change here, the question, and the deed. For
//! `edit` and `import --write`.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use super::context::context;
use super::{check, plan};
use crate::config::active;
use crate::config::active::InForce;
use crate::config::span_file::{Error, SpanFile};
use crate::daemon::state::State;
use crate::reconcile::inputs::Detail;
use crate::reconcile::observe::look_by;
use crate::sys::clock::now;
use crate::sys::error::with_causes;
use crate::sys::files;
use crate::sys::logging::say;
use crate::sys::output;
use crate::sys::output::Printer;
use crate::sys::terminal::{Answer, Terminal};
use pve_span_core::config::Annotations;

/// May a text become span.cfg?
pub enum Verdict {
    /// It is valid; what it was told to change has been told.
    Valid,
    /// It has faults, which have been told.
    Faults,
}

/// Tells what is wrong with a text, and if nothing is, what it would change on this node.
pub fn judge(root: &Path, file: &SpanFile, bytes: &[u8], out: &mut Printer) -> Verdict {
    let text = match files::text_of(file.path(), bytes.to_vec()) {
        Ok(text) => text,
        Err(error) => {
            out.line(&format!("error: {}", with_causes(&error)));
            return Verdict::Faults;
        }
    };
    let name = file.name();
    let examined = check::examine(root, &name, &text);
    for warning in &examined.warnings {
        log::warn!("{warning}");
    }
    check::tell(out, &name, &examined.annotations);
    if !examined.annotations.is_valid() {
        return Verdict::Faults;
    }
    tell_ends(root, &examined.annotations, out);
    tell_plan(root, examined.annotations, out);
    Verdict::Valid
}

/// Sessions that are in force and not in the text: they end on every node, whatever the plan for this one says.
fn tell_ends(root: &Path, new: &Annotations, out: &mut Printer) {
    let in_force = active::load(root);
    let Some(old) = in_force.annotations() else {
        return;
    };
    let ended = old
        .sessions
        .keys()
        .filter(|name| !new.sessions.contains_key(*name));
    let ended: Vec<&str> = ended.map(|name| name.as_str()).collect();
    if ended.is_empty() {
        return;
    }
    let all = if new.sessions.is_empty() {
        "; no session is left"
    } else {
        ""
    };
    out.line(&format!("It ends on every node: {}{all}", ended.join(", ")));
}

fn tell_plan(root: &Path, annotations: Annotations, out: &mut Printer) {
    let in_force = InForce::File {
        annotations,
        news: None,
    };
    let context = context(root, "edit");
    let look = look_by(in_force, &context, Detail::All, &BTreeSet::new());
    let why = match &look {
        Ok(look) => look
            .waits_for_ovs()
            .map(|why| format!("cannot reach Open vSwitch: {why}")),
        Err(error) => Some(with_causes(error)),
    };
    match (look, why) {
        (Ok(look), None) => {
            out.line("What it changes on this node (pve-span plan):");
            plan::tell(out, &look);
        }
        (_, why) => out.line(&format!(
            "What it changes on this node cannot be told now: {}",
            why.unwrap_or_default()
        )),
    }
}

/// Asks; an empty answer is the last of the words.
pub fn ask(desk: &Terminal, question: &str) -> Answer {
    output::note(std::io::stdout().flush());
    say(question);
    let answer = desk.answer();
    if answer == Answer::Nobody {
        say("\n");
    }
    answer
}

/// Puts the text in place, and says what comes next.
///
/// # Errors
/// It is not there; the old one is.
pub fn install(
    root: &Path,
    file: &SpanFile,
    was: Option<&[u8]>,
    bytes: &[u8],
    out: &mut Printer,
) -> Result<(), Error> {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    // One that ends within a line may be the beginning of the last good copy, and would count as cut off.
    if !text.ends_with('\n') {
        text.push('\n');
    }
    file.replace(was, &text)?;
    let is_served = State::load(root).is_some_and(|state| state.is_fresh(now()));
    out.line(&if is_served {
        format!(
            "{} is written; the service brings it into force in a moment: pve-span status",
            file.name()
        )
    } else {
        format!(
            "{} is written; the service does not run on this node, so bring it into force: pve-span apply",
            file.name()
        )
    });
    Ok(())
}
