//! Which annotations are in force: the file's, or the last good copy's.
//!
//! An unreadable or invalid file never blinds a sensor. Only a valid file that no longer lists a
//! session removes it; everything else leaves the last good copy in force, and says so.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::pve::{Pve, SPAN_CFG};
use crate::sys::error::with_causes;
use crate::sys::files;
use pve_span_core::config;
use pve_span_core::config::Annotations;
use pve_span_core::config::diagnostic::{Diagnostic, Severity};

/// The last good copy, below the root directory.
const LAST_GOOD: &str = "var/lib/pve-span/span.cfg";

/// What the node goes by.
#[derive(Debug, Clone)]
pub enum InForce {
    /// The file itself.
    File {
        /// What it says.
        annotations: Annotations,
        /// As it stands, if the last good copy does not say the same: to be kept.
        news: Option<String>,
    },
    /// The last good copy.
    LastGood {
        /// What it says.
        annotations: Annotations,
        /// What is wrong with the file.
        cause: Cause,
        /// Why not the file, what to do, and what is gone by instead.
        why: String,
        /// What is gone by instead.
        fallback: String,
    },
    /// There has never been a file: nothing to do, and nothing to say.
    NotConfigured {
        /// Where it would be.
        path: PathBuf,
    },
    /// Nobody can tell: everything stays as it is.
    Unknown {
        /// What is wrong with the file.
        cause: Cause,
        /// Why, what to do, and what is gone by instead.
        why: String,
        /// What is gone by instead.
        fallback: String,
    },
}

/// What is wrong with the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cause {
    /// /etc/pve does not answer.
    Hangs,
    /// /etc/pve is not mounted.
    NotMounted,
    /// There is none any more.
    Missing,
    /// It cannot be read.
    Unreadable,
    /// It ends within a line.
    CutOff,
    /// It has so many errors, the first of them on this line.
    Invalid(usize, Option<usize>),
}

impl InForce {
    /// The sessions to go by, if that is known.
    pub fn annotations(&self) -> Option<&Annotations> {
        match self {
            Self::File { annotations, .. } | Self::LastGood { annotations, .. } => {
                Some(annotations)
            }
            Self::NotConfigured { .. } | Self::Unknown { .. } => None,
        }
    }

    /// What is wrong with the file, if anything is.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::LastGood { cause, .. } | Self::Unknown { cause, .. } => Some(*cause),
            Self::File { .. } | Self::NotConfigured { .. } => None,
        }
    }

    /// What is gone by instead of a file that cannot be used.
    pub fn fallback(&self) -> Option<&str> {
        match self {
            Self::LastGood { fallback, .. } | Self::Unknown { fallback, .. } => Some(fallback),
            Self::File { .. } | Self::NotConfigured { .. } => None,
        }
    }

    /// What every command has to say about it.
    pub fn notice(&self) -> Option<&str> {
        match self {
            Self::LastGood { why, .. } | Self::Unknown { why, .. } => Some(why),
            Self::File { .. } | Self::NotConfigured { .. } => None,
        }
    }
}

/// Where the last good copy is.
pub fn last_good(root: &Path) -> PathBuf {
    root.join(LAST_GOOD)
}

/// Reads the file, and the last good copy where it is needed.
pub fn load(root: &Path) -> InForce {
    let pve = Pve::new(root);
    let path = pve.path(SPAN_CFG);
    let last_good = files::read_text(&root.join(LAST_GOOD)).ok();
    let (cause, why) = if !pve.is_mounted() {
        (Cause::NotMounted, pve.not_mounted())
    } else {
        match files::read_text(&path) {
            Err(error) if error.is_missing() && last_good.is_none() => {
                return InForce::NotConfigured { path };
            }
            Err(error) if error.is_missing() => {
                let why = format!(
                    "there is no {}: `pve-span edit` begins with the last good copy, `pve-span init` with an example",
                    path.display()
                );
                (Cause::Missing, why)
            }
            Err(error) => (Cause::Unreadable, with_causes(&error)),
            Ok(text) if is_truncated(&text, last_good.as_deref()) => {
                let why = format!(
                    "{} is cut off: it ends within a line that the last good copy has whole",
                    path.display()
                );
                (Cause::CutOff, why)
            }
            Ok(text) => {
                let annotations = config::parse(&path.display().to_string(), &text);
                if annotations.is_valid() {
                    let news = (last_good.as_ref() != Some(&text)).then_some(text);
                    return InForce::File { annotations, news };
                }
                invalid(&path, &annotations.diagnostics)
            }
        }
    };
    fallback(root, last_good, cause, &why)
}

/// The last good copy, because the file cannot be read: nothing in /etc/pve is touched.
pub fn by_last_good(root: &Path, why: &str) -> InForce {
    let last_good = files::read_text(&root.join(LAST_GOOD)).ok();
    fallback(root, last_good, Cause::Hangs, why)
}

fn fallback(root: &Path, last_good: Option<String>, cause: Cause, why: &str) -> InForce {
    let copy = root.join(LAST_GOOD);
    let unknown = |fallback: &str| InForce::Unknown {
        cause,
        why: format!("{why}; {fallback}"),
        fallback: fallback.to_owned(),
    };
    let Some(text) = last_good else {
        return unknown("there is no last good copy, so nothing is changed");
    };
    let annotations = config::parse(&copy.display().to_string(), &text);
    if !annotations.is_valid() {
        return unknown("the last good copy is not valid either, so nothing is changed");
    }
    let fallback = format!("the last good copy, {}, stays in force", copy.display());
    InForce::LastGood {
        annotations,
        cause,
        why: format!("{why}; {fallback}"),
        fallback,
    }
}

fn invalid(path: &Path, diagnostics: &[Diagnostic]) -> (Cause, String) {
    let errors: Vec<&Diagnostic> = diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .collect();
    let line = errors.first().and_then(|first| first.place.as_ref());
    let cause = Cause::Invalid(errors.len(), line.map(|place| place.line));
    let first = errors.first().map(|first| match &first.place {
        Some(place) => format!("line {}: {}", place.line, first.message),
        None => first.message.clone(),
    });
    let more = if errors.len() > 1 {
        format!(" and {} more", errors.len() - 1)
    } else {
        String::new()
    };
    let why = format!(
        "{} is not valid ({}{more}); see pve-span check",
        path.display(),
        first.unwrap_or_default()
    );
    (cause, why)
}

/// Was the file caught while it was being written? Its end within a line, and nothing else new, tells.
fn is_truncated(text: &str, last_good: Option<&str>) -> bool {
    let rest = last_good.and_then(|whole| whole.strip_prefix(text));
    !text.is_empty()
        && !text.ends_with('\n')
        && rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['\n', '\r']))
}

/// Keeps a valid file as the last good copy, unless it is kept already.
///
/// # Errors
/// The copy cannot be written; mirroring goes on without one.
pub fn keep(root: &Path, in_force: &InForce) -> Result<(), files::Error> {
    match in_force {
        InForce::File {
            news: Some(text), ..
        } => files::replace(&root.join(LAST_GOOD), text),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const GOOD: &str = "[dmz]\nsource = 101, 102\noutput = 200/net1\n";

    /// A mounted tree with that file, whose last good copy is [`GOOD`].
    fn tree(text: Option<&str>) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/pve")).unwrap();
        fs::write(root.path().join("etc/pve/.version"), "{}").unwrap();
        files::replace(&root.path().join(LAST_GOOD), GOOD).unwrap();
        if let Some(text) = text {
            fs::write(root.path().join("etc/pve/span.cfg"), text).unwrap();
        }
        root
    }

    fn notice(root: &tempfile::TempDir) -> String {
        match load(root.path()) {
            InForce::LastGood {
                annotations,
                why,
                fallback,
                ..
            } => {
                assert_eq!(annotations.sessions.len(), 1);
                assert!(why.ends_with(&fallback), "{why}");
                why.replace(&root.path().display().to_string(), "")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_unmounted_tree_leaves_the_last_good_copy_in_force() {
        let root = tree(None);
        fs::remove_file(root.path().join("etc/pve/.version")).unwrap();
        assert_eq!(
            notice(&root),
            "/etc/pve/ is not mounted (no .version in it); see systemctl status pve-cluster; the last good copy, \
             /var/lib/pve-span/span.cfg, stays in force"
        );
    }

    #[test]
    fn a_missing_empty_or_truncated_file_leaves_it_in_force() {
        let tail = "; the last good copy, /var/lib/pve-span/span.cfg, stays in force";
        assert_eq!(
            notice(&tree(None)),
            format!(
                "there is no /etc/pve/span.cfg: `pve-span edit` begins with the last good copy, `pve-span init` with an \
                 example{tail}"
            )
        );
        assert_eq!(
            notice(&tree(Some(""))),
            format!("/etc/pve/span.cfg is not valid (the file is empty); see pve-span check{tail}")
        );
        for cut in 1..GOOD.len() - 1 {
            assert!(
                notice(&tree(Some(&GOOD[..cut]))).ends_with(tail),
                "{:?}",
                &GOOD[..cut]
            );
        }
    }

    #[test]
    fn a_syntax_error_leaves_it_in_force() {
        assert_eq!(
            notice(&tree(Some("[dmz]\nsouce = 101\noutput = 200\n"))),
            "/etc/pve/span.cfg is not valid (line 2: unknown key `souce` and 1 more); see pve-span check; \
             the last good copy, /var/lib/pve-span/span.cfg, stays in force"
        );
    }

    #[test]
    fn a_session_removed_on_purpose_is_removed() {
        let root = tree(Some("# the end\n"));
        let in_force = load(root.path());
        assert_eq!(in_force.annotations().map(|a| a.sessions.len()), Some(0));
        keep(root.path(), &in_force).unwrap();
        assert_eq!(
            files::read_text(&root.path().join(LAST_GOOD)).unwrap(),
            "# the end\n"
        );
    }

    #[test]
    fn without_a_last_good_copy_unknown_is_not_empty() {
        let root = tree(Some("nonsense\n"));
        fs::write(root.path().join(LAST_GOOD), "nonsense\n").unwrap();
        assert!(load(root.path()).fallback().is_some());
        fs::remove_file(root.path().join(LAST_GOOD)).unwrap();
        assert!(matches!(load(root.path()), InForce::Unknown { .. }));
        assert!(load(root.path()).fallback().is_some());
        fs::remove_file(root.path().join("etc/pve/span.cfg")).unwrap();
        assert!(matches!(load(root.path()), InForce::NotConfigured { .. }));
        fs::remove_file(root.path().join("etc/pve/.version")).unwrap();
        assert!(matches!(load(root.path()), InForce::Unknown { .. }));
    }
}
