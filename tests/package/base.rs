//! Installed releases of Debian, made once and kept below cargo's folder: `rm -r target/tmp/chroots` has them made anew.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use super::release::Release;

/// Grows when what is installed changes.
const VERSION: u32 = 1;

/// What is installed in it.
#[derive(Clone, Copy)]
pub enum Kind {
    /// What the package depends on, and systemd, which every node has.
    Plain,
    /// Ansible as well.
    Ansible,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::Ansible => "ansible",
        }
    }

    fn packages(self) -> &'static str {
        match self {
            Kind::Plain => "nftables,systemd",
            // debootstrap does not follow dependencies on what is only provided (python3-cffi-backend).
            Kind::Ansible => "nftables,systemd,ansible-core,python3-apt,python3-cffi-backend",
        }
    }
}

/// The folder for what tests keep.
pub fn kept() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chroots");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Held by one process, and one thread of it, at a time.
pub fn lock(name: &str) -> Flock<File> {
    let file = File::create(kept().join(format!("{name}.lock"))).unwrap();
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .unwrap()
}

/// The folder of an installed release, which nobody writes to.
pub fn base(release: Release, kind: Kind) -> PathBuf {
    let name = format!("{}-{}-{VERSION}", release.codename(), kind.name());
    let _lock = lock(&name);
    let folder = kept().join(&name);
    if folder.is_dir() {
        return folder;
    }
    let new = kept().join(format!("{name}.new"));
    if new.exists() {
        fs::remove_dir_all(&new).unwrap();
    }
    // In namespaces of its own, so that what it mounts goes with it.
    let output = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child"])
        .args(["debootstrap", "--variant=minbase"])
        .arg(format!("--include={}", kind.packages()))
        .arg(release.codename())
        .args([new.as_os_str(), mirror().as_ref()])
        .env("PATH", super::chroot::PATH)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "debootstrap {} failed (the log is in {}):\n{}",
        release.codename(),
        new.join("debootstrap").display(),
        String::from_utf8_lossy(&output.stdout)
    );
    // There is no power to lose here.
    fs::write(new.join("etc/dpkg/dpkg.cfg.d/fast"), "force-unsafe-io\n").unwrap();
    let _ = fs::remove_dir_all(new.join("var/cache/apt/archives"));
    fs::create_dir_all(new.join("var/cache/apt/archives/partial")).unwrap();
    fs::rename(&new, &folder).unwrap();
    folder
}

/// Where this machine gets its packages: the first of apt's sources that has Debian itself.
fn mirror() -> String {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(more) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(more.map(|entry| entry.unwrap().path()));
    }
    files.sort();
    files
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .find_map(|text| mirror_in(&text))
        .expect("apt's sources (/etc/apt/sources.list*) name no mirror of Debian")
}

/// In either of apt's two formats.
fn mirror_in(text: &str) -> Option<String> {
    let is_url = |word: &&str| word.starts_with("http://") || word.starts_with("https://");
    let is_debian = |word: &str| word.trim_end_matches('/').ends_with("/debian");
    let lines = text.lines().filter(|line| {
        let begins = |word| line.trim_start().starts_with(word);
        begins("deb ") || begins("URIs:")
    });
    lines
        .flat_map(|line| line.split_whitespace().filter(is_url))
        .find(|word| is_debian(word))
        .map(str::to_owned)
}
