//! Writes span.cfg: a new one, or one in place of what was read. Whoever writes it holds its lock, which counts on every
//! node, from looking at what is there until the new one is in place.
//!
//! pmxcfs knows rename(2), cluster-wide and at once; it has no links and no chmod, and refuses every write while the
//! cluster has no quorum.

use std::io;
use std::path::{Path, PathBuf};

use crate::pve::cluster_lock;
use crate::pve::cluster_lock::{ClusterLock, hint};
use crate::pve::{Pve, SPAN_CFG};
use crate::sys::files;
use pve_span_core::pve::cluster::Quorum;

/// What is in the way of writing span.cfg.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no cluster filesystem.
    #[error("{0}")]
    NotMounted(String),
    /// The cluster filesystem is read-only.
    #[error("the cluster is not quorate, so {folder} is read-only; see pvecm status")]
    NoQuorum {
        /// Where it is.
        folder: PathBuf,
    },
    /// There is one already.
    #[error("there is a {path} already, and it stays as it is; pve-span edit changes it")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It is a link, a folder, a pipe.
    #[error("{path} is not a regular file; nothing is written in its place")]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// Somebody else was faster.
    #[error("{path} was changed meanwhile, here or on another node, and is not overwritten")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else writes it, on whatever node, or nobody can.
    #[error(transparent)]
    Lock(#[from] cluster_lock::Error),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] files::Error),
    /// It cannot be written.
    #[error("cannot write {path}{}", hint(source))]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// /etc/pve/span.cfg.
#[derive(Debug, Clone)]
pub struct SpanFile {
    pve: Pve,
    path: PathBuf,
}

impl SpanFile {
    /// The file, in a cluster filesystem that is there and can be written.
    ///
    /// # Errors
    /// It is not mounted, or the cluster has no quorum.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let pve = Pve::new(root);
        if !pve.is_mounted() {
            return Err(Error::NotMounted(pve.not_mounted()));
        }
        if pve.quorum() == Some(Quorum::Lost) {
            let folder = pve.path("");
            return Err(Error::NoQuorum { folder });
        }
        let path = pve.path(SPAN_CFG);
        Ok(Self { pve, path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name in diagnostics.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// What is in it; nothing if there is none.
    ///
    /// # Errors
    /// It cannot be read, or is not a file.
    pub fn content(&self) -> Result<Option<Vec<u8>>, Error> {
        match self.path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(metadata) if !metadata.is_file() => {
                let path = self.path.clone();
                return Err(Error::NotAFile { path });
            }
            _ => {}
        }
        match files::read_bytes(&self.path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes it, where there is nothing of its name.
    ///
    /// # Errors
    /// There is something, somebody else is writing it, or it cannot be written; then there is still none.
    pub fn create(&self, text: &str) -> Result<(), Error> {
        let lock = ClusterLock::take(&self.pve, SPAN_CFG)?;
        if self.path.symlink_metadata().is_ok() {
            let path = self.path.clone();
            return Err(Error::Exists { path });
        }
        lock.put(text).map_err(|source| self.cannot_write(source))
    }

    /// Puts a text in place of what was read, as a whole.
    ///
    /// # Errors
    /// The file is not what was read any more, somebody else is writing it, or it cannot be written; it is then as it was.
    pub fn replace(&self, was: Option<&[u8]>, text: &str) -> Result<(), Error> {
        let lock = ClusterLock::take(&self.pve, SPAN_CFG)?;
        if self.content()?.as_deref() != was {
            let path = self.path.clone();
            return Err(Error::Changed { path });
        }
        lock.put(text).map_err(|source| self.cannot_write(source))
    }

    fn cannot_write(&self, source: io::Error) -> Error {
        let path = self.path.clone();
        Error::Write { path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn tree() -> (tempfile::TempDir, SpanFile) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/pve")).unwrap();
        fs::write(root.path().join("etc/pve/.version"), "{}").unwrap();
        let file = SpanFile::open(root.path()).unwrap();
        (root, file)
    }

    fn names(file: &SpanFile) -> Vec<String> {
        let folder = fs::read_dir(file.path().parent().unwrap()).unwrap();
        let mut names: Vec<String> = folder
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "priv")
            .collect();
        names.sort();
        names
    }

    #[test]
    fn it_is_made_only_where_there_is_nothing() {
        let (_root, file) = tree();
        file.create("one").unwrap();
        assert!(matches!(file.create("two"), Err(Error::Exists { .. })));
        assert_eq!(file.content().unwrap().unwrap(), b"one");
        let mode = file.path().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        fs::remove_file(file.path()).unwrap();
        symlink("/nowhere/at/all", file.path()).unwrap();
        assert!(matches!(file.create("two"), Err(Error::Exists { .. })));
        assert!(matches!(file.content(), Err(Error::NotAFile { .. })));
        assert_eq!(names(&file), [".version", "span.cfg"]);
    }

    #[test]
    fn it_is_replaced_only_if_it_is_what_was_read() {
        let (_root, file) = tree();
        file.replace(None, "one").unwrap();
        assert!(matches!(
            file.replace(None, "two"),
            Err(Error::Changed { .. })
        ));
        assert!(matches!(
            file.replace(Some(b"two"), "three"),
            Err(Error::Changed { .. })
        ));
        file.replace(Some(b"one"), "two").unwrap();
        assert_eq!(file.content().unwrap().unwrap(), b"two");
        fs::remove_file(file.path()).unwrap();
        assert!(matches!(
            file.replace(Some(b"two"), "three"),
            Err(Error::Changed { .. })
        ));
        assert_eq!(names(&file), [".version"]);
    }

    #[test]
    fn a_cluster_without_quorum_and_an_unmounted_tree_are_told_apart() {
        let (root, file) = tree();
        fs::write(
            root.path().join("etc/pve/.members"),
            r#"{"nodename":"pve1","version":6,"cluster":{"name":"lab","version":3,"nodes":3,"quorate":0},"nodelist":{}}"#,
        )
        .unwrap();
        let why = |root: &Path| {
            let why = SpanFile::open(root).unwrap_err().to_string();
            why.replace(&root.display().to_string(), "")
        };
        assert_eq!(
            why(root.path()),
            "the cluster is not quorate, so /etc/pve/ is read-only; see pvecm status"
        );
        fs::remove_file(file.path().with_file_name(".version")).unwrap();
        assert_eq!(
            why(root.path()),
            "/etc/pve/ is not mounted (no .version in it); see systemctl status pve-cluster"
        );
    }
}
