//! Replaces files as a whole, and makes folders: with the modes that stand here, whatever the umask is. What a killed
//! process leaves beside a file is under one name, and the next writer takes it over.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::error::Error;

/// How long a writer waits for another one of the same file. A write takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// Folders that anybody may look into, and those that only root may.
const OPEN: u32 = 0o755;
const PRIVATE: u32 = 0o700;

/// Replaces a file as a whole (write aside, then rename): a reader sees the old or the new, never a part.
///
/// # Errors
/// The folder or file cannot be written; the old file is then still there.
pub fn replace(path: &Path, text: &str) -> Result<(), Error> {
    replace_with(path, text, OPEN, 0o640, File::sync_all)
}

/// The same for a file below /run that only root may read, in a folder of its own. A reboot undoes it, so no disk is waited for.
///
/// # Errors
/// As [`replace`].
pub fn replace_private(path: &Path, text: &str) -> Result<(), Error> {
    replace_with(path, text, PRIVATE, 0o600, |_| Ok(()))
}

fn replace_with(
    path: &Path,
    text: &str,
    folder: u32,
    mode: u32,
    sync: impl Fn(&File) -> io::Result<()>,
) -> Result<(), Error> {
    let write = || {
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        make_folder(parent, folder)?;
        let aside = parent.join(aside(name));
        // Held until the file has its name, so that no other writer takes it over.
        let mut file = open_aside(&aside)?;
        let mut write = || {
            file.set_len(0)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            file.write_all(text.as_bytes())?;
            sync(&file)?;
            fs::rename(&aside, path)
        };
        write().inspect_err(|_| {
            let _ = fs::remove_file(&aside);
        })
    };
    write().map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

/// Opens what is written beside a file, new or left by a killed writer, once nobody else writes it.
fn open_aside(path: &Path) -> io::Result<Flock<File>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            // Another writer has just given it its name, if it is not the one that is found here.
            Ok(file) if is_alone_at(&file, path) => return Ok(file),
            Ok(_) => {}
            Err((_, Errno::EWOULDBLOCK)) => std::thread::sleep(Duration::from_millis(1)),
            Err((_, error)) => return Err(error.into()),
        }
        if Instant::now() > until {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
    }
}

/// Is this file found under that name, and under no other one?
fn is_alone_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(ours), Ok(found)) => {
            ours.nlink() == 1 && (ours.dev(), ours.ino()) == (found.dev(), found.ino())
        }
        _ => false,
    }
}

/// Makes a folder that only root may look into, and those above it. One that is there is closed to others' writing.
///
/// # Errors
/// It cannot be made.
pub fn make_private_folder(path: &Path) -> io::Result<()> {
    make_folder(path, PRIVATE)
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    let make = || DirBuilder::new().mode(mode).create(path);
    let made = match (make(), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            make_folder(parent, OPEN)?;
            make()
        }
        (made, _) => made,
    };
    match made {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => close_to_writers(path, mode),
        Err(error) => Err(error),
    }
}

/// Takes the right to write off a folder of ours, from those who have it and should not.
fn close_to_writers(path: &Path, mode: u32) -> io::Result<()> {
    let metadata = path.metadata()?;
    if !metadata.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let now = metadata.permissions().mode();
    let excess = now & 0o022 & !mode;
    if excess == 0 || metadata.uid() != geteuid().as_raw() {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(now & 0o7777 & !excess))
}

/// Takes all rights to a file off everybody but its owner.
///
/// # Errors
/// It is somebody else's, or on a read-only file system.
pub fn close_to_others(file: &File) -> io::Result<()> {
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
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
    use crate::sys::files::read_text;
    use std::os::unix::fs::symlink;

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
    fn what_a_killed_writer_has_left_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.json");
        let left = dir.path().join(".file.json.tmp");
        fs::write(&left, "longer than what comes next").unwrap();
        fs::set_permissions(&left, Permissions::from_mode(0o666)).unwrap();
        replace(&path, "next").unwrap();
        assert_eq!(read_text(&path).unwrap(), "next");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn several_writers_at_once_leave_one_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.json");
        let texts = ["a", "b", "c"].map(|letter| letter.repeat(10_000));
        replace(&path, &texts[0]).unwrap();
        std::thread::scope(|scope| {
            let path = &path;
            let writers = texts.each_ref().map(|text| {
                scope.spawn(move || (0..50).for_each(|_| replace_private(path, text).unwrap()))
            });
            while !writers.iter().all(|writer| writer.is_finished()) {
                assert!(texts.contains(&read_text(path).unwrap()));
            }
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_of_ours_that_all_may_write_in_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
        let (open, private) = (dir.path().join("open"), dir.path().join("private"));
        for (folder, before) in [(&open, 0o1777), (&private, 0o775)] {
            fs::create_dir(folder).unwrap();
            fs::set_permissions(folder, Permissions::from_mode(before)).unwrap();
        }
        replace(&open.join("file"), "").unwrap();
        replace_private(&private.join("file"), "").unwrap();
        // Who may look into it is the administrator's to decide.
        assert_eq!((mode(&open), mode(&private)), (0o1755, 0o755));
        let new = dir.path().join("deep/er");
        make_private_folder(&new).unwrap();
        assert_eq!((mode(&new), mode(new.parent().unwrap())), (0o700, 0o755));
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
