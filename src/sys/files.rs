//! Reading and replacing small text files on trees that may be absent, broken or hung.

mod error;
mod replace;

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub use error::Error;
pub use replace::{close_to_others, make_private_folder, publish, replace, replace_private};

/// The most that a file in /etc/pve can have (pmxcfs), in bytes.
const MOST: u64 = 1 << 20;

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

/// Opens a file for one's own use, and makes it if it is not there: for root alone, or another user could hold it.
pub(crate) fn open_or_make(path: &Path) -> std::io::Result<std::fs::File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)?;
    close_to_others(&file)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
}
