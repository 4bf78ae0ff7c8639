//! `pve-span edit`: span.cfg as visudo does it. The file is what it was until a valid one takes its place.

use std::path::Path;

use super::init;
use super::review::{Verdict, ask, install, judge};
use crate::cli::EditArgs;
use crate::config::active;
use crate::config::editor;
use crate::config::editor::{Draft, Turn, editor};
use crate::config::span_file;
use crate::config::span_file::SpanFile;
use crate::reconcile;
use crate::sys::error::with_causes;
use crate::sys::files;
use crate::sys::output::Printer;
use crate::sys::process::Ended;
use crate::sys::terminal::{Answer, Left, Terminal};
use pve_span_core::suggestions;

/// What is in the way.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("edit needs a terminal. For scripts: EDITOR=/a/script pve-span edit --yes")]
    NoTerminal,
    #[error(transparent)]
    Editor(#[from] editor::Error),
    #[error(transparent)]
    File(#[from] span_file::Error),
    #[error(transparent)]
    Look(#[from] reconcile::Error),
    #[error("cannot start the editor {program}; set EDITOR to another one")]
    Start {
        program: String,
        source: std::io::Error,
    },
    #[error("cannot hold signals back")]
    Signals(#[source] std::io::Error),
    #[error("the editor ended with exit code {0}")]
    Failed(i32),
    #[error("the editor was ended by signal {0}")]
    Killed(i32),
    #[error("ended by {0}")]
    Told(&'static str),
    #[error("what was edited cannot be read")]
    Draft(#[source] files::Error),
    #[error("it has faults")]
    Faults,
    #[error("nobody answers any more")]
    Nobody,
}

/// How it ended, if nothing was in the way.
enum End {
    /// The new text is in place.
    Written,
    /// There was nothing to write.
    Unchanged,
    /// It was thrown away.
    Discarded,
    /// It was not wanted yet, and is kept.
    Declined,
}

/// Exit codes: 0 written or unchanged, 1 not written.
pub fn run(root: &Path, args: &EditArgs) -> u8 {
    let mut out = Printer::new();
    match begin(root, args, &mut out) {
        Ok(code) => code,
        Err(error) => {
            log::error!("{}", with_causes(&error));
            1
        }
    }
}

fn begin(root: &Path, args: &EditArgs, out: &mut Printer) -> Result<u8, Error> {
    if !args.yes && !Terminal::is_attended() {
        return Err(Error::NoTerminal);
    }
    let file = SpanFile::open(root)?;
    let _turn = Turn::take(root)?;
    for path in Draft::left(root) {
        out.line(&format!("Left by earlier editing: {}", path.display()));
    }
    let was = file.content()?;
    let start = start(root, &file, was.as_deref(), out)?;
    let desk = Terminal::open().map_err(Error::Signals)?;
    let draft = Draft::new(root, &start.text)?;
    let edit = Edit {
        root,
        file: &file,
        was: was.as_deref(),
        start: &start,
        draft: &draft,
        desk: &desk,
        ask: !args.yes,
    };
    Ok(conclude(edit.go(out), &file, draft, &start, out))
}

/// What editing begins with.
struct Start {
    text: Vec<u8>,
    /// Is it worth writing as it is?
    counts: bool,
}

fn start(
    root: &Path,
    file: &SpanFile,
    was: Option<&[u8]>,
    out: &mut Printer,
) -> Result<Start, Error> {
    if let Some(text) = was {
        if let Some(notice) = active::load(root).notice() {
            log::warn!("{notice}");
        }
        let (text, counts) = (text.to_owned(), false);
        return Ok(Start { text, counts });
    }
    let copy = active::last_good(root);
    if let Ok(text) = files::read_bytes(&copy) {
        out.line(&format!(
            "There is no {}: this begins with the last good copy, {}",
            file.name(),
            copy.display()
        ));
        return Ok(Start { text, counts: true });
    }
    out.line(&format!(
        "There is no {} yet: this begins with what pve-span init would write",
        file.name()
    ));
    let look = init::first_look(root)?;
    let text = suggestions::text(&init::offered(&look)).into_bytes();
    let counts = false;
    Ok(Start { text, counts })
}

struct Edit<'a> {
    root: &'a Path,
    file: &'a SpanFile,
    was: Option<&'a [u8]>,
    start: &'a Start,
    draft: &'a Draft,
    desk: &'a Terminal,
    ask: bool,
}

impl Edit<'_> {
    fn go(&self, out: &mut Printer) -> Result<End, Error> {
        loop {
            self.call_editor()?;
            let text = match self.draft.content() {
                Err(error) if self.ask && !error.is_missing() => {
                    out.line(&format!("error: {}", with_causes(&error)));
                    match self.after_faults()? {
                        Some(end) => return Ok(end),
                        None => continue,
                    }
                }
                text => text.map_err(Error::Draft)?,
            };
            if text == self.start.text && !self.start.counts {
                return Ok(End::Unchanged);
            }
            let end = match judge(self.root, self.file, &text, out) {
                Verdict::Faults => self.after_faults()?,
                Verdict::Valid => self.after_plan()?,
            };
            match end {
                Some(End::Written) => {
                    install(self.root, self.file, self.was, &text, out)?;
                    return Ok(End::Written);
                }
                Some(end) => return Ok(end),
                None => {}
            }
        }
    }

    fn call_editor(&self) -> Result<(), Error> {
        let mut command = editor()?;
        let program = command.get_program().to_string_lossy().into_owned();
        command.arg(self.draft.path());
        let left = self.desk.run(&mut command);
        match left.map_err(|source| Error::Start { program, source })? {
            Left::Ended(Ended::Exited(0)) => Ok(()),
            Left::Ended(Ended::Exited(code)) => Err(Error::Failed(code)),
            Left::Ended(Ended::Killed(signal)) => Err(Error::Killed(signal as i32)),
            Left::Told(signal) => Err(Error::Told(signal.as_str())),
        }
    }

    /// What to do with a text that must not be written; nothing means: edit again.
    fn after_faults(&self) -> Result<Option<End>, Error> {
        if !self.ask {
            return Err(Error::Faults);
        }
        loop {
            match ask(
                self.desk,
                "It is not written. Edit again, or discard it? [E/d] ",
            ) {
                Answer::Nobody => return Err(Error::Nobody),
                Answer::Line(line) => match line.as_str() {
                    "" | "e" | "edit" => return Ok(None),
                    "d" | "discard" => return Ok(Some(End::Discarded)),
                    _ => {}
                },
            }
        }
    }

    /// Whether to write a valid text; nothing means: edit again.
    fn after_plan(&self) -> Result<Option<End>, Error> {
        if !self.ask {
            return Ok(Some(End::Written));
        }
        let question = format!(
            "Write {}? Yes, no, or edit again? [y/N/e] ",
            self.file.name()
        );
        loop {
            match ask(self.desk, &question) {
                Answer::Nobody => return Err(Error::Nobody),
                Answer::Line(line) => match line.as_str() {
                    "y" | "yes" => return Ok(Some(End::Written)),
                    "" | "n" | "no" => return Ok(Some(End::Declined)),
                    "e" | "edit" => return Ok(None),
                    _ => {}
                },
            }
        }
    }
}

/// Says how it ended, and keeps what somebody has written, unless it is in place or they do not want it.
fn conclude(
    ended: Result<End, Error>,
    file: &SpanFile,
    draft: Draft,
    start: &Start,
    out: &mut Printer,
) -> u8 {
    let (name, kept) = (file.name(), draft.path().display().to_string());
    let is_changed = !draft.holds_only(&start.text);
    match ended {
        Ok(End::Written) => {
            draft.remove();
            0
        }
        Ok(End::Unchanged) => {
            draft.remove();
            out.line(&format!("nothing was edited: {name} stays as it is"));
            0
        }
        Ok(End::Discarded) => {
            draft.remove();
            out.line(&format!("discarded: {name} stays as it was"));
            1
        }
        Ok(End::Declined) => {
            out.line(&format!(
                "{name} stays as it was; what was edited is kept: {kept}"
            ));
            1
        }
        Err(error) => {
            let is_conflict = matches!(error, Error::File(span_file::Error::Changed { .. }));
            log::error!("{}", with_causes(&error));
            if !is_changed {
                draft.remove();
                log::warn!("{name} stays as it was");
            } else if is_conflict {
                log::warn!("what was edited is kept; see what differs: diff {name} {kept}");
            } else {
                log::warn!("{name} stays as it was; what was edited is kept: {kept}");
            }
            1
        }
    }
}
