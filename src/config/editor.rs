//! An administrator's copy of span.cfg: a private folder, an editor, and one of them at a time on a node.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use crate::sys::files;
use crate::sys::files::open_or_make;
use pve_span_core::model::excerpt;

/// Where copies are, below the root directory. Only root may look into it.
const FOLDER: &str = "run/pve-span";

/// Who is at it holds this.
const LOCK: &str = "edit.lock";

/// What a copy's folder is called; a number follows.
const PREFIX: &str = "edit-";

/// What is tried where neither VISUAL nor EDITOR says.
const EDITORS: [&str; 4] = ["sensible-editor", "editor", "nano", "vi"];

/// What is in the way of editing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else is at it.
    #[error("span.cfg is being edited by somebody else on this node: {who}")]
    Busy {
        /// What they said of themselves.
        who: String,
    },
    /// The copy or the lock cannot be made.
    #[error("cannot make {path}")]
    Make {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no editor.
    #[error("there is no editor: set EDITOR, or install one (apt install nano)")]
    NoEditor,
}

/// The right to edit, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _lock: Flock<File>,
}

impl Turn {
    /// Takes it, if nobody has it.
    ///
    /// # Errors
    /// Somebody has it, or the lock cannot be made.
    pub fn take(root: &Path) -> Result<Self, Error> {
        let folder = root.join(FOLDER);
        let path = folder.join(LOCK);
        let failed = |source| Error::Make {
            path: path.clone(),
            source,
        };
        files::make_private_folder(&folder).map_err(failed)?;
        let file = open_or_make(&path).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                // Only for the message to others.
                let _ = lock.set_len(0);
                let _ = lock.rewind();
                let _ = lock.write_all(myself().as_bytes());
                Ok(Self { _lock: lock })
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut who = String::new();
                let _ = Read::by_ref(&mut file).take(200).read_to_string(&mut who);
                let who = excerpt(who.trim());
                Err(Error::Busy { who })
            }
            Err((_, error)) => Err(failed(error.into())),
        }
    }
}

/// Which process this is, and at which terminal.
fn myself() -> String {
    let terminal = fs::read_link("/proc/self/fd/0").unwrap_or_default();
    let terminal = match terminal.to_str() {
        Some(name) if name.starts_with("/dev/") && name != "/dev/null" => format!(" at {name}"),
        _ => String::new(),
    };
    format!("process {}{terminal}", std::process::id())
}

/// A copy to edit. It stays, unless it is removed.
#[derive(Debug)]
pub struct Draft {
    folder: PathBuf,
    path: PathBuf,
}

impl Draft {
    /// Makes one.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(root: &Path, content: &[u8]) -> Result<Self, Error> {
        let folder = new_folder(&root.join(FOLDER))?;
        let path = folder.join("span.cfg");
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content));
        written.map_err(|source| Error::Make {
            path: path.clone(),
            source,
        })?;
        Ok(Self { folder, path })
    }

    /// Those that earlier editing has left.
    pub fn left(root: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(root.join(FOLDER)).into_iter().flatten();
        let mut left: Vec<PathBuf> = entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
            .map(|entry| entry.path().join("span.cfg"))
            .filter(|path| path.is_file())
            .collect();
        left.sort();
        left
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it now.
    ///
    /// # Errors
    /// It cannot be read, or is none any more.
    pub fn content(&self) -> Result<Vec<u8>, files::Error> {
        files::read_bytes(&self.path)
    }

    /// Is there nothing in it but this text, and nothing beside it? What cannot be read is something, and an editor that is
    /// killed leaves what was typed in a file of its own (`.span.cfg.swp`, `span.cfg.save`, `#span.cfg#`).
    pub fn holds_only(&self, text: &[u8]) -> bool {
        let is_same = match self.content() {
            Ok(now) => now == text,
            Err(error) => error.is_missing(),
        };
        let own = self.path.file_name();
        let is_alone = fs::read_dir(&self.folder).is_ok_and(|mut all| {
            all.all(|entry| entry.is_ok_and(|it| Some(&*it.file_name()) == own))
        });
        is_same && is_alone
    }

    /// Takes it away, with what the editor has put beside it.
    pub fn remove(self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn new_folder(parent: &Path) -> Result<PathBuf, Error> {
    let number = std::process::id();
    let mut folder = parent.join(format!("{PREFIX}{number}"));
    for again in 2..100 {
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            // Left by another process of the same number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                folder = parent.join(format!("{PREFIX}{number}-{again}"));
            }
            Err(source) => {
                return Err(Error::Make {
                    path: folder,
                    source,
                });
            }
        }
    }
    let source = io::ErrorKind::AlreadyExists.into();
    Err(Error::Make {
        path: folder,
        source,
    })
}

/// The administrator's editor: VISUAL, EDITOR, or what there is. Words are separated by blanks, as git and visudo do it.
///
/// # Errors
/// There is none.
pub fn editor() -> Result<Command, Error> {
    let wish = |name| std::env::var_os(name).filter(|value| !is_blank(value));
    if let Some(wish) = wish("VISUAL").or_else(|| wish("EDITOR")) {
        return words(&wish).ok_or(Error::NoEditor);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |program: &&str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let program = EDITORS.iter().copied().find(is_there);
    program.map(Command::new).ok_or(Error::NoEditor)
}

fn is_blank(text: &OsStr) -> bool {
    text.as_encoded_bytes().iter().all(u8::is_ascii_whitespace)
}

fn words(text: &OsStr) -> Option<Command> {
    // A path that is not UTF-8 is taken as one word.
    let words: Vec<OsString> = match text.to_str() {
        Some(text) => text.split_whitespace().map(OsString::from).collect(),
        None => vec![text.to_owned()],
    };
    let (program, arguments) = words.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments);
    Some(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_edits_at_a_time_and_the_other_is_told_who() {
        let root = tempfile::tempdir().unwrap();
        let turn = Turn::take(root.path()).unwrap();
        let busy = Turn::take(root.path()).unwrap_err().to_string();
        let who = format!("on this node: process {}", std::process::id());
        assert!(busy.contains(&who), "{busy}");
        drop(turn);
        Turn::take(root.path()).unwrap();
    }

    #[test]
    fn a_draft_is_private_and_another_one_does_not_touch_it() {
        let root = tempfile::tempdir().unwrap();
        files::make_private_folder(&root.path().join(FOLDER)).unwrap();
        let one = Draft::new(root.path(), b"one").unwrap();
        let two = Draft::new(root.path(), b"two").unwrap();
        assert_eq!(Draft::left(root.path()).len(), 2);
        two.remove();
        assert_eq!(Draft::left(root.path()), [one.path()]);
        assert_eq!(one.content().unwrap(), b"one");
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(one.path()), mode(&one.folder)), (0o600, 0o700));
    }

    #[test]
    fn what_a_killed_editor_leaves_beside_a_draft_is_seen() {
        let root = tempfile::tempdir().unwrap();
        files::make_private_folder(&root.path().join(FOLDER)).unwrap();
        let draft = Draft::new(root.path(), b"one").unwrap();
        assert!(draft.holds_only(b"one"));
        assert!(!draft.holds_only(b"two"));
        let swap = draft.folder.join(".span.cfg.swp");
        fs::write(&swap, "typed").unwrap();
        assert!(!draft.holds_only(b"one"));
        fs::remove_file(swap).unwrap();
        fs::write(draft.path(), vec![b'#'; 2 << 20]).unwrap();
        assert!(!draft.holds_only(b"one"), "it cannot be read");
        fs::remove_file(draft.path()).unwrap();
        assert!(draft.holds_only(b"one"), "there is nothing to keep");
    }

    #[test]
    fn an_editor_may_have_arguments() {
        let command = words(OsStr::new("  emacs -nw\t--quick ")).unwrap();
        assert_eq!(command.get_program(), "emacs");
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["-nw", "--quick"]);
        assert!(words(OsStr::new(" ")).is_none());
    }
}
