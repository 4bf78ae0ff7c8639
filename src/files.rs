//! Reading and replacing small text files on trees that may be absent, broken or hung.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// The most that a file in /etc/pve can have (pmxcfs), in bytes.
const MOST: u64 = 1 << 20;

/// A file that could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading failed.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is a folder, a pipe or a device.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// It is larger than a file in /etc/pve can be.
    #[error("{path} is larger than 1 MiB")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not text.
    #[error("{path} is not UTF-8 text (line {line})")]
    NotText {
        /// The file.
        path: PathBuf,
        /// The first line that is not.
        line: usize,
    },
    /// Writing failed.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// Is it simply not there?
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads a regular file of at most 1 MiB. A pipe or device in its place does not hang the reader.
///
/// # Errors
/// It is not there, not regular, too large, or cannot be read.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::NotAFile {
            path: path.to_owned(),
        });
    }
    // Read in one go where it fits: each read may be a round trip through FUSE.
    let mut bytes = Vec::with_capacity(64 * 1024);
    file.take(MOST + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MOST {
        return Err(Error::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

/// Reads a text file.
///
/// # Errors
/// As [`read_bytes`], or it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, Error> {
    text_of(path, read_bytes(path)?)
}

/// What was read of a text file, as text.
///
/// # Errors
/// It is not UTF-8.
pub fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|error| {
        let good = error
            .as_bytes()
            .get(..error.utf8_error().valid_up_to())
            .unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        Error::NotText {
            path: path.to_owned(),
            line,
        }
    })
}

/// Replaces a file as a whole (write aside, then rename): a reader sees the old or the new, never a part.
///
/// # Errors
/// The folder or file cannot be written; the old file is then still there.
pub fn replace(path: &Path, text: &str) -> Result<(), Error> {
    replace_with(path, text, DirBuilder::new().recursive(true), 0o640)
}

/// The same for a file that only root may read, in a folder of its own.
///
/// # Errors
/// As [`replace`].
pub fn replace_private(path: &Path, text: &str) -> Result<(), Error> {
    replace_with(path, text, &private(), 0o600)
}

fn replace_with(path: &Path, text: &str, folders: &DirBuilder, mode: u32) -> Result<(), Error> {
    let failed = |source| Error::Write {
        path: path.to_owned(),
        source,
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    folders.create(folder).map_err(failed)?;
    let aside = path.with_extension(format!("{}.tmp", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&aside);
        failed(source)
    })
}

/// Makes a folder that only root may look into, and those above it; one that is there stays as it is.
///
/// # Errors
/// It cannot be made.
pub fn make_private_folder(path: &Path) -> io::Result<()> {
    private().create(path)
}

fn private() -> DirBuilder {
    let mut folders = DirBuilder::new();
    folders.recursive(true).mode(0o700);
    folders
}

/// Replaces a file for other users to read, in a folder that is there and perhaps another user's, or within one: nothing
/// is written, removed or made outside of the folder, whatever is put in it meanwhile. Not synchronised with the disk:
/// it is for what is written anew all the time.
///
/// # Errors
/// The folder is missing, is a symbolic link or cannot be written; the old file is then still there.
pub fn publish(path: &Path, text: &str) -> Result<(), Error> {
    publish_in_folder(path, text).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

fn publish_in_folder(path: &Path, text: &str) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or(io::Error::from(io::ErrorKind::IsADirectory))?;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // All that follows is done in this folder, even if another one takes its place.
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_DIRECTORY | nix::libc::O_NOFOLLOW)
        .open(folder)?;
    let aside = aside(name);
    let remove = || unlinkat(&folder, aside.as_os_str(), UnlinkatFlags::NoRemoveDir);
    match remove() {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let write = || {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(
            &folder,
            aside.as_os_str(),
            flags,
            Mode::S_IRUSR | Mode::S_IWUSR,
        )?);
        file.write_all(text.as_bytes())?;
        // Whatever the umask is.
        file.set_permissions(Permissions::from_mode(0o644))?;
        renameat(&folder, aside.as_os_str(), &folder, name)?;
        Ok(())
    };
    write().inspect_err(|_| {
        let _ = remove();
    })
}

/// Where a file is written before it takes its name: hidden, and not with the ending that readers look for. Always the
/// same, so that what a crash leaves is gone with the next write.
fn aside(name: &OsStr) -> OsString {
    let mut aside = OsString::from(".");
    aside.push(name);
    aside.push(".tmp");
    aside
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_that_is_none_is_refused_without_hanging() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(read_text(&pipe), Err(Error::NotAFile { .. })));
        assert!(matches!(read_text(dir.path()), Err(Error::NotAFile { .. })));
        assert!(
            read_text(&dir.path().join("none"))
                .unwrap_err()
                .is_missing()
        );
    }

    #[test]
    fn what_is_not_text_or_too_large_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"a\nb\xff\n").unwrap();
        assert!(matches!(
            read_text(&path),
            Err(Error::NotText { line: 2, .. })
        ));
        fs::write(&path, vec![b'a'; (1 << 20) + 1]).unwrap();
        assert!(matches!(read_text(&path), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn replacing_leaves_nothing_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/file.cfg");
        replace(&path, "one").unwrap();
        replace(&path, "two").unwrap();
        assert_eq!(read_text(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_published_is_for_all_to_read_and_leaves_nothing_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pve-span.prom");
        publish(&path, "one").unwrap();
        publish(&path, "two").unwrap();
        assert_eq!(read_text(&path).unwrap(), "two");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn publishing_writes_through_no_link_that_somebody_else_has_made() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("pve-span.prom");
        symlink(&victim, folder.join(".pve-span.prom.tmp")).unwrap();
        symlink(&victim, &path).unwrap();
        publish(&path, "metrics").unwrap();
        assert!(path.symlink_metadata().unwrap().is_file());
        fs::hard_link(&victim, folder.join(".pve-span.prom.tmp")).unwrap();
        publish(&path, "metrics").unwrap();
        assert_eq!(read_text(&path).unwrap(), "metrics");
        assert_eq!(read_text(&victim).unwrap(), "precious");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);

        let link = dir.path().join("link");
        symlink(&folder, &link).unwrap();
        assert!(publish(&link.join("other.prom"), "metrics").is_err());
        assert!(!folder.join("other.prom").exists());
    }

    #[test]
    fn what_cannot_be_published_is_said_and_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none/pve-span.prom");
        let failed = publish(&missing, "metrics").unwrap_err();
        assert_eq!(
            failed.to_string(),
            format!("cannot write {}", missing.display())
        );
        assert!(!missing.parent().unwrap().exists());
        let path = dir.path().join("pve-span.prom");
        publish(&path, "old").unwrap();
        fs::create_dir(dir.path().join(".pve-span.prom.tmp")).unwrap();
        publish(&path, "new").unwrap_err();
        assert_eq!(read_text(&path).unwrap(), "old");
    }
}
