//! `pve-span import`: mirrors that others have made, as sessions, and how to take them over without a gap.
//!
//! What goes to stdout is a span.cfg; how to go on is said on stderr.

mod foreign_tools;
mod takeover;

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use super::context::context;
use super::format::Format;
use super::review::{Verdict, ask, install, judge};
use crate::cli::ImportArgs;
use crate::config::active;
use crate::config::active::InForce;
use crate::config::editor::Turn;
use crate::config::span_file::SpanFile;
use crate::engine::ovs;
use crate::pve::{Pve, SPAN_CFG};
use crate::reconcile;
use crate::reconcile::inputs::Detail;
use crate::reconcile::observe::{Look, look_by};
use crate::sys::error::with_causes;
use crate::sys::files;
use crate::sys::output::Printer;
use crate::sys::terminal::{Answer, Terminal};
use pve_span_core::config;
use pve_span_core::config::diagnostic::{Diagnostic, Severity};
use pve_span_core::import;
use pve_span_core::import::{Draft, Origin, Rule, append, mirrors_conf, ovs_mirrors};
use pve_span_core::model::SessionName;
use pve_span_core::state::{Fault, OvsState};
use takeover::Old;

/// What is in the way.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    File(#[from] files::Error),
    #[error(transparent)]
    Look(#[from] reconcile::Error),
    #[error("cannot read Open vSwitch's mirrors: {0}")]
    Ovs(String),
    #[error(transparent)]
    SpanFile(#[from] crate::config::span_file::Error),
    #[error(transparent)]
    Turn(#[from] crate::config::editor::Error),
    #[error(
        "import --write asks before it writes, and needs a terminal for it; --yes does without"
    )]
    NoTerminal,
    #[error("cannot hold signals back")]
    Signals(#[source] std::io::Error),
    #[error(
        "nothing is appended to a file that is not in force: {0}. Mend it first: pve-span edit"
    )]
    NotInForce(String),
    #[error(transparent)]
    WouldEnd(#[from] super::init::Error),
    #[error("{0} would not be valid")]
    NotValid(String),
}

/// What was found, made into sessions.
struct Found {
    drafts: Vec<Draft>,
    origins: Vec<Origin>,
    /// The old mirrors in Open vSwitch, by origin.
    old: Vec<Old>,
    diagnostics: Vec<Diagnostic>,
    /// What is to be known before the takeover.
    remarks: Vec<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    sessions: Vec<Entry<'a>>,
    not_taken_over: Vec<Left<'a>>,
    diagnostics: &'a [Diagnostic],
    remarks: &'a [String],
    span_cfg: &'a str,
    made_by: Vec<String>,
    remove: Vec<String>,
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    source: Vec<String>,
    direction: &'a str,
    vlan: Option<String>,
    snaplen: Option<u16>,
    output: Vec<String>,
    from: Vec<&'a str>,
    notes: &'a [String],
    refused: Option<&'a str>,
    already: Option<&'a str>,
}

#[derive(Serialize)]
struct Left<'a> {
    from: &'a str,
    what: &'a str,
}

/// Exit codes: 0 everything is a session now, 1 not everything or not written, 2 cannot tell.
pub fn run(root: &Path, args: &ImportArgs) -> u8 {
    let fail = |error: &Error, code| {
        if args.json {
            Printer::new().json(&serde_json::json!({"error": with_causes(error)}));
        }
        log::error!("{}", with_causes(error));
        code
    };
    let pve = Pve::new(root);
    let existing = match files::read_text(&pve.path(SPAN_CFG)) {
        Ok(text) => text,
        Err(error) if error.is_missing() => String::new(),
        // Its names and defaults would not be minded.
        Err(error) => return fail(&Error::File(error), 2),
    };
    let found = match find(root, args, &existing) {
        Ok(found) => found,
        Err(error) => return fail(&error, 2),
    };
    if args.write {
        return match write(root, args, &found, &existing) {
            Ok(code) => code,
            Err(error) => fail(&error, 1),
        };
    }
    tell(root, args, &found)
}

fn find(root: &Path, args: &ImportArgs, existing: &str) -> Result<Found, Error> {
    let path = Pve::new(root).path(SPAN_CFG);
    let nobody = InForce::NotConfigured { path };
    let context = context(root, "import");
    let mut look = look_by(nobody, &context, Detail::All, &BTreeSet::new())?;
    let (rules, mut origins, old, diagnostics) = match &args.mirrors_conf {
        Some(file) => {
            let text = files::read_text(file)?;
            let conf = mirrors_conf::parse(&file.display().to_string(), &text);
            let old = takeover::of_names(&look, &conf.names);
            (conf.rules, conf.origins, old, conf.diagnostics)
        }
        None => {
            let (rules, origins, old) = in_ovs(&mut look)?;
            (rules, origins, old, Vec::new())
        }
    };
    let mut drafts = import::merge(&rules, &mut origins);
    import::name_sessions(&mut drafts, &origins, existing);
    let remarks = try_out(root, existing, &mut drafts, &origins)?;
    Ok(Found {
        drafts,
        origins,
        old,
        diagnostics,
        remarks,
    })
}

/// What mirrors do, which ones, and where they are.
type Read = (Vec<Rule>, Vec<Origin>, Vec<Old>);

/// Open vSwitch's mirrors that are not ours.
fn in_ovs(look: &mut Look) -> Result<Read, Error> {
    let (mut rules, mut origins, mut old) = (Vec::new(), Vec::new(), Vec::new());
    let ovs = match &look.observed.ovs {
        OvsState::Present(ovs) => ovs,
        OvsState::Absent(_) => return Ok((rules, origins, old)),
        OvsState::Failed(why) => return Err(Error::Ovs(why.clone())),
    };
    let filters = match &mut look.client {
        Some(client) => ovs::filters(client).map_err(|error| Error::Ovs(with_causes(&error)))?,
        None => Default::default(),
    };
    for (bridge, row) in &ovs.bridges {
        let others = row
            .mirrors
            .iter()
            .filter(|(_, mirror)| mirror.mark.is_none());
        let mut others: Vec<_> = others.collect();
        // Rows are numbered by chance.
        others.sort_by_key(|(id, mirror)| (&mirror.name, *id));
        for (id, mirror) in others {
            let filter = filters.get(id).map(String::as_str);
            let (origin, of) = ovs_mirrors::read(bridge, mirror, filter, origins.len());
            old.push(Old::new(origins.len(), bridge, id, mirror));
            origins.push(origin);
            rules.extend(of);
        }
    }
    Ok((rules, origins, old))
}

/// What would become of the sessions on this node: what is refused becomes a comment, and who is served by the other
/// engine is said.
fn try_out(
    root: &Path,
    existing: &str,
    drafts: &mut [Draft],
    origins: &[Origin],
) -> Result<Vec<String>, Error> {
    let mut remarks = Vec::new();
    let (whole, _) = append(existing, &import::text(drafts, origins));
    let annotations = config::parse(SPAN_CFG, &whole);
    if !annotations.is_valid() {
        return Ok(remarks);
    }
    let in_force = InForce::File {
        annotations,
        news: None,
    };
    let context = context(root, "import");
    let look = look_by(in_force, &context, Detail::All, &BTreeSet::new())?;
    for draft in drafts.iter_mut().filter(|draft| draft.refused.is_none()) {
        let mut states = look.desired.sessions.iter();
        let Some(state) = states.find(|state| state.name.as_str() == draft.name) else {
            continue;
        };
        let refused: Vec<String> = state
            .outputs
            .iter()
            .filter_map(|output| match &output.fault {
                Some(Fault::Refused(why)) => Some(format!("{}: {why}", output.output)),
                _ => None,
            })
            .collect();
        if !refused.is_empty() && refused.len() == state.outputs.len() {
            draft.refused = Some(refused.join("; "));
            continue;
        }
        draft.notes.extend(refused);
        for output in &state.outputs {
            for lack in &output.lacks {
                let what = format!("{lack} does not reach {}: {}", output.output, lack.why);
                draft.notes.push(what);
            }
            let engines = output.engine.as_ref();
            if let Some(engine) = engines.filter(|engines| engines.nft.is_some()) {
                remarks.push(format!(
                    "{} → {} will be served by nftables ({engine}): while the old mirror is there, too, frames may arrive \
                     twice",
                    draft.name, output.output
                ));
            }
        }
    }
    Ok(remarks)
}

impl Found {
    fn text(&self) -> String {
        import::text(&self.drafts, &self.origins)
    }

    /// Is everything that the old mirrors do a session now?
    fn is_whole(&self) -> bool {
        let is_told = |draft: &Draft| draft.refused.is_none() && draft.notes.is_empty();
        self.drafts.iter().all(is_told)
            && self.origins.iter().all(|origin| origin.left_out.is_empty())
            && self
                .diagnostics
                .iter()
                .all(|d| d.severity == Severity::Warning)
    }

    /// The old mirrors: those that can go, since sessions do all of their work, and the others.
    fn old(&self) -> (Vec<&Old>, Vec<&Old>) {
        let is_done = |old: &&Old| {
            let of = |draft: &&Draft| draft.origins.contains(&old.origin);
            let mut of = self.drafts.iter().filter(of).peekable();
            of.peek().is_some() && of.all(|draft| draft.refused.is_none() && draft.notes.is_empty())
        };
        self.old.iter().partition(is_done)
    }
}

fn tell(root: &Path, args: &ImportArgs, found: &Found) -> u8 {
    let mut out = Printer::new();
    let text = found.text();
    let format = Format::from(args.json);
    if format == Format::Json {
        let entry = |draft| entry(draft, &found.origins);
        let left = |origin| left(origin);
        out.json(&Report {
            sessions: found.drafts.iter().map(entry).collect(),
            not_taken_over: found.origins.iter().flat_map(left).collect(),
            diagnostics: &found.diagnostics,
            remarks: &found.remarks,
            span_cfg: &text,
            made_by: foreign_tools::makers(root),
            remove: found.old().0.iter().map(|old| old.remove()).collect(),
        });
        return u8::from(!found.is_whole());
    }
    for diagnostic in &found.diagnostics {
        takeover::say(&format!("{diagnostic}\n"));
    }
    if found.origins.is_empty() {
        takeover::say(&match &args.mirrors_conf {
            Some(file) => format!("there are no mirrors in {}: nothing to take over", file.display()),
            None => "there are no mirrors in Open vSwitch, but pve-span's own: nothing to take over (tc's mirred is not \
                     looked at)"
                .to_owned(),
        });
        super::context::say_first_step(root);
        return u8::from(!found.is_whole());
    }
    out.line("# Sessions for span.cfg, by `pve-span import`.");
    text.lines().for_each(|line| out.line(line));
    if found.drafts.iter().all(|draft| draft.refused.is_some()) {
        takeover::say(
            "none of these mirrors can be a session: nothing is taken over, and they stay as they are",
        );
        return u8::from(!found.is_whole());
    }
    let first = if found.drafts.iter().any(Draft::is_new) {
        takeover::Step::Write(args.mirrors_conf.as_deref())
    } else {
        takeover::Step::Apply
    };
    takeover::guide(root, &first, &found.remarks, &found.old());
    u8::from(!found.is_whole())
}

fn entry<'a>(draft: &'a Draft, origins: &'a [Origin]) -> Entry<'a> {
    let from = draft.origins.iter().filter_map(|index| origins.get(*index));
    Entry {
        name: draft
            .covered
            .as_ref()
            .map_or(&draft.name, SessionName::as_str),
        source: draft.sources.iter().map(ToString::to_string).collect(),
        direction: draft.direction().word(),
        vlan: Some(draft.vlans.to_string()).filter(|vlans| !vlans.is_empty()),
        snaplen: draft.snaplen,
        output: draft.outputs.iter().map(ToString::to_string).collect(),
        from: from.map(|origin| origin.label.as_str()).collect(),
        notes: &draft.notes,
        refused: draft.refused.as_deref(),
        already: draft.covered.as_ref().map(SessionName::as_str),
    }
}

fn left(origin: &Origin) -> impl Iterator<Item = Left<'_>> {
    let from = origin.label.as_str();
    origin.left_out.iter().map(move |what| Left { from, what })
}

/// Appends the sessions to span.cfg, as `edit` would.
fn write(root: &Path, args: &ImportArgs, found: &Found, existing: &str) -> Result<u8, Error> {
    let mut out = Printer::new();
    for diagnostic in &found.diagnostics {
        takeover::say(&format!("{diagnostic}\n"));
    }
    if !found.drafts.iter().any(Draft::is_new) {
        found.text().lines().for_each(|line| out.line(line));
        takeover::say("there is nothing to write");
        return Ok(u8::from(!found.is_whole()));
    }
    if !args.yes && !Terminal::is_attended() {
        return Err(Error::NoTerminal);
    }
    let file = SpanFile::open(root)?;
    let _turn = Turn::take(root)?;
    let was = file.content()?;
    let there = was.clone().unwrap_or_default();
    if there != existing.as_bytes() {
        let path = file.path().to_owned();
        return Err(crate::config::span_file::Error::Changed { path }.into());
    }
    if was.is_none() {
        super::init::nothing_ends(root)?;
    } else if let Some(notice) = active::load(root).notice() {
        return Err(Error::NotInForce(notice.to_owned()));
    }
    let text = found.text();
    text.lines().for_each(|line| out.line(line));
    let (whole, _) = append(existing, &text);
    let whole = match existing {
        "" => whole.trim_start(),
        _ => whole.as_str(),
    };
    let desk = Terminal::open().map_err(Error::Signals)?;
    if let Verdict::Faults = judge(root, &file, whole.as_bytes(), &mut out) {
        return Err(Error::NotValid(file.name()));
    }
    let question = format!("Append these sessions to {}? [y/N] ", file.name());
    if !args.yes && !is_yes(&ask(&desk, &question)) {
        out.line(&format!("{} stays as it was", file.name()));
        return Ok(1);
    }
    install(root, &file, was.as_deref(), whole.as_bytes(), &mut out)?;
    let first = takeover::Step::Apply;
    takeover::guide(root, &first, &found.remarks, &found.old());
    Ok(u8::from(!found.is_whole()))
}

fn is_yes(answer: &Answer) -> bool {
    matches!(answer, Answer::Line(line) if line == "y" || line == "yes")
}
