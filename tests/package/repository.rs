//! The signed repository that `make apt-repo` makes: apt installs from it, and from no other.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::built::{self, NEWER, deb};
use crate::chroot::{Chroot, Start};
use crate::lab;
use crate::release::Release;

/// A keyring of the test's own, with a key for each of these.
pub struct Keys(tempfile::TempDir);

impl Keys {
    pub fn new(owners: &[&str]) -> Keys {
        let keys = Keys(tempfile::tempdir().unwrap());
        for owner in owners {
            let mut gpg = keys.command("gpg");
            gpg.args([
                "--batch",
                "--passphrase",
                "",
                "--quick-generate-key",
                owner,
                "ed25519",
                "sign",
                "never",
            ]);
            let output = gpg.output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        keys
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("GNUPGHOME", self.0.path())
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        command
    }

    /// `make apt-repo`, without make.
    pub fn repository(&self, key: &str, folder: &std::path::Path, debs: &[PathBuf]) -> Output {
        let mut script = self.command("sh");
        script
            .arg("debian/apt-repo")
            .arg(key)
            .arg(folder)
            .args(debs);
        script.output().unwrap()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = self
            .command("gpgconf")
            .args(["--kill", "gpg-agent"])
            .output();
    }
}

pub const OURS: &str = "ours@example.org";

/// A repository with the package, and a chroot that has it in /repo, as docs/install.md says.
struct Served {
    chroot: Chroot,
    folder: tempfile::TempDir,
    keys: Keys,
}

impl Served {
    fn new(release: Release) -> Option<Served> {
        let chroot = release.chroot(Start::Alone)?;
        let keys = Keys::new(&[OURS, "theirs@example.org"]);
        let folder = tempfile::tempdir().unwrap();
        let output = keys.repository(OURS, folder.path(), &[deb()]);
        assert!(output.status.success(), "{output:?}");
        let served = Served {
            chroot,
            folder,
            keys,
        };
        served.bring();
        served.chroot.write(
            "/etc/apt/sources.list.d/pve-span.sources",
            "Types: deb\nURIs: file:/repo\nSuites: stable\nComponents: main\nSigned-By: /etc/apt/keyrings/pve-span.gpg\n",
        );
        served
            .chroot
            .run("mkdir -p /etc/apt/keyrings; cp /repo/pve-span.gpg /etc/apt/keyrings/");
        // The chroot has no network: Debian's own are left out.
        served
            .chroot
            .run("rm -f /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources");
        Some(served)
    }

    /// Copies the repository, as it is now, into the chroot.
    fn bring(&self) {
        let mut copy = Command::new("cp");
        let _ = std::fs::remove_dir_all(self.chroot.path("/repo"));
        copy.arg("-rT")
            .arg(self.folder.path())
            .arg(self.chroot.path("/repo"));
        lab::run(copy, "");
    }
}

fn in_both(test: impl Fn(Served)) {
    for release in [Release::Twelve, Release::Thirteen] {
        if let Some(served) = Served::new(release) {
            test(served);
        }
    }
}

#[test]
fn apt_installs_and_upgrades_from_it_with_the_signature_checked() {
    in_both(|served| {
        let Served {
            chroot,
            folder,
            keys,
        } = &served;
        let said = chroot.run("apt-get update");
        assert!(
            !said.contains("W:") && !said.contains("unauthenticated"),
            "{said}"
        );
        chroot.run("apt-get install -y pve-span");
        assert_eq!(chroot.run("pve-span --version"), "pve-span 0.1.0\n");

        let newer = built::version(NEWER, |_| {});
        let output = keys.repository(OURS, folder.path(), &[newer.path().join("pve-span.deb")]);
        assert!(output.status.success(), "{output:?}");
        served.bring();
        chroot.run("apt-get update; apt-get upgrade -y");
        let version = "dpkg-query -W -f '${Version}' pve-span";
        assert_eq!(chroot.run(version), NEWER);
        // The one before is still there to go back to.
        chroot.run("apt-get install -y --allow-downgrades pve-span=0.1.0-1");
        assert_eq!(chroot.run(version), "0.1.0-1");
    });
}

#[test]
fn a_package_that_was_changed_is_refused() {
    in_both(|served| {
        let Served { chroot, .. } = &served;
        chroot.run("apt-get update");
        // As long as it was, with one byte of another value.
        chroot.run(
            "cd /repo/pool; printf X | dd of=$(ls) bs=1 seek=5000 conv=notrunc status=none; \
             ! apt-get install -y pve-span >/said 2>&1",
        );
        let said = chroot.read("/said");
        assert!(
            said.contains("Hash Sum mismatch") || said.contains("unexpected size"),
            "{said}"
        );
        assert!(!chroot.has("/usr/bin/pve-span"));
    });
}

#[test]
fn another_s_signature_and_none_are_refused() {
    in_both(|served| {
        let Served {
            chroot,
            folder,
            keys,
        } = &served;
        let output = keys.repository("theirs@example.org", folder.path(), &[deb()]);
        assert!(output.status.success(), "{output:?}");
        served.bring();
        for damage in [
            "true",
            "rm /repo/dists/stable/InRelease /repo/dists/stable/Release.gpg",
        ] {
            let said = chroot.run(&format!("{damage}; apt-get update || echo refused"));
            assert!(
                said.contains("is not signed") && said.ends_with("refused\n"),
                "{said}"
            );
            let said = chroot.sh("apt-get install -y pve-span");
            assert_ne!(said.code, 0, "{}", said.text);
        }
        // A list that was changed after it was signed.
        keys.repository(OURS, folder.path(), &[deb()]);
        served.bring();
        chroot.run("echo >>/repo/dists/stable/main/binary-amd64/Packages; rm /repo/dists/stable/main/binary-amd64/Packages.*");
        let said = chroot.sh("apt-get update && apt-get install -y pve-span");
        assert_ne!(said.code, 0, "{}", said.text);
    });
}

#[test]
fn the_same_version_with_other_contents_is_not_taken() {
    let keys = Keys::new(&[OURS]);
    let folder = tempfile::tempdir().unwrap();
    let one = built::version("1.0-1", |_| {});
    let other = built::version("1.0-1", |tree| {
        built::append(&tree.join("usr/share/pve-span/hookscript"), "# other\n");
    });
    let [one, other] = [one, other].map(|folder| (folder.path().join("pve-span.deb"), folder));
    assert!(
        keys.repository(OURS, folder.path(), &[one.0])
            .status
            .success()
    );
    let output = keys.repository(OURS, folder.path(), &[other.0]);
    assert!(!output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stderr).replace(&folder.path().display().to_string(), ""),
        "apt-repo: /pool/pve-span_1.0-1_amd64.deb is another file of the same version: a new build needs a new version \
         (debian/changelog)\n"
    );
}

#[test]
fn without_a_key_it_says_how_to_come_by_one() {
    let keys = Keys::new(&[]);
    let folder = tempfile::tempdir().unwrap();
    let output = keys.repository("", folder.path(), &[deb()]);
    assert!(!output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "apt-repo: whose key signs it? make apt-repo KEY=… takes one that gpg has (gpg --list-secret-keys). To make one: \
         gpg --quick-generate-key 'pve-span repository <you@example.org>' ed25519 sign never\n"
    );
    let output = keys.repository("nobody@example.org", folder.path(), &[deb()]);
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "apt-repo: gpg has no secret key for 'nobody@example.org' (gpg --list-secret-keys)\n"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
