//! Where a program is, and calling one for its answer.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::process;
pub use super::process::Outcome;

/// Looks along `PATH`, and where administrators' programs are on Debian: a hook's `PATH` may be short.
pub fn find(name: &str) -> Option<PathBuf> {
    find_along(std::env::var_os("PATH").as_deref(), name)
}

pub(crate) fn find_along(path: Option<&OsStr>, name: &str) -> Option<PathBuf> {
    let along = std::env::split_paths(path.unwrap_or_default());
    along
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        // A program of root's is not looked for in whatever folder the caller is in.
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|path| is_program(path))
}

/// Is it a file that may be executed?
pub fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Runs a program that has nothing to read; how it ended, and its answer.
///
/// # Errors
/// It cannot be started or waited for.
pub fn ask(
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    deadline: Instant,
) -> io::Result<(Outcome, Vec<u8>)> {
    process::ask(program, arguments, deadline)
}
