//! The package, built once for a run of the tests, and other versions of it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::base::{kept, lock};
use super::chroot::Chroot;

/// An older and a newer version than the one that is built.
pub const OLDER: &str = "0.0.9-1";
pub const NEWER: &str = "99.0.0-1";

/// The folder with the package, its .changes and its .buildinfo.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let _lock = lock("build");
        let folder = kept().join("package");
        // What another run of the tests, side by side, has just built is the same.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let mut make = Command::new("sh");
        make.arg("debian/make-deb")
            .arg(&folder)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("CARGO_TARGET_DIR", target);
        // cargo's own word to its children about this test would only have it build anew.
        for (name, _) in std::env::vars() {
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_BIN_") {
                make.env_remove(name);
            }
        }
        let output = make.output().unwrap();
        assert!(
            output.status.success(),
            "debian/make-deb failed:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        // A copy of this run's own, as the next run builds into the same folder.
        forget_earlier_runs();
        let own = kept().join(format!("package-{}", std::process::id()));
        fs::create_dir(&own).unwrap();
        for file in fs::read_dir(&folder).unwrap() {
            let path = file.unwrap().path();
            fs::copy(&path, own.join(path.file_name().unwrap())).unwrap();
        }
        own
    })
}

/// Removes the copies of runs that are over.
fn forget_earlier_runs() {
    for entry in fs::read_dir(kept()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if let Some(Ok(pid)) = name.strip_prefix("package-").map(str::parse::<u32>) {
            let is_over = pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists();
            if is_over {
                fs::remove_dir_all(path).unwrap();
            }
        }
    }
}

/// The package's file with this ending.
pub fn file(ending: &str) -> PathBuf {
    let mut files = fs::read_dir(folder()).unwrap();
    files
        .find_map(|file| {
            let path = file.unwrap().path();
            path.to_string_lossy().ends_with(ending).then_some(path)
        })
        .unwrap()
}

/// The package.
pub fn deb() -> PathBuf {
    file(".deb")
}

/// The version of libc6 that it was linked with.
pub fn needed_libc() -> String {
    let depends = field(&deb(), "Depends");
    let libc = depends.split(", ").find(|one| one.starts_with("libc6"));
    let version = libc.and_then(|libc| libc.split_once(">= "));
    version.unwrap().1.trim_end_matches(')').to_owned()
}

/// A line of a package's description.
pub fn field(deb: &Path, name: &str) -> String {
    let mut command = Command::new("dpkg-deb");
    command.arg("--field").arg(deb).arg(name);
    crate::lab::run(command, "").trim_end().to_owned()
}

/// The package under another version number, its hookscript marked with it, and with a change to what is in it.
pub fn version(version: &str, change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--raw-extract").arg(deb()).arg(&tree);
    crate::lab::run(unpack, "");
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).unwrap();
    let old = field(&deb(), "Version");
    let new = text.replace(&format!("Version: {old}"), &format!("Version: {version}"));
    assert_ne!(text, new);
    fs::write(&control, new).unwrap();
    append(
        &tree.join("usr/share/pve-span/hookscript"),
        &format!("# {version}\n"),
    );
    change(&tree);
    let mut pack = Command::new("dpkg-deb");
    pack.args(["--root-owner-group", "-Zgzip", "-z1", "--build"])
        .arg(&tree)
        .arg(folder.path().join("pve-span.deb"));
    crate::lab::run(pack, "");
    folder
}

/// Writes behind what a file has.
pub fn append(file: &Path, text: &str) {
    let old = fs::read_to_string(file).unwrap();
    fs::write(file, old + text).unwrap();
}

/// Makes a maintainer script of a version.
pub fn script(tree: &Path, name: &str, text: &str) {
    let path = tree.join("DEBIAN").join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Brings the package into a chroot as /pve-span.deb, and installs it.
#[track_caller]
pub fn install(chroot: &Chroot) -> String {
    chroot.bring(&deb(), "/pve-span.deb");
    chroot.run("dpkg -i /pve-span.deb")
}

/// The same with another version, as /VERSION.deb.
#[track_caller]
pub fn install_version(chroot: &Chroot, number: &str) -> String {
    let folder = version(number, |_| {});
    chroot.bring(
        &folder.path().join("pve-span.deb"),
        &format!("/{number}.deb"),
    );
    chroot.run(&format!("dpkg -i /{number}.deb"))
}
