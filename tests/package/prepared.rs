//! tests/prepare.sh installs what is missing, and leaves no service behind that was not there before.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::base::{Kind, base};
use crate::built;
use crate::chroot::{Chroot, Start};
use crate::lab;
use crate::release::Release;

const PREPARE: &str = include_str!("../prepare.sh");

/// What `make demo` needs and the chroots lack, each with the program that it is wanted for.
const PACKAGES: [(&str, &str); 9] = [
    ("gcc", "usr/bin/cc"),
    ("libc6-dev", "usr/include/stdio.h"),
    ("cargo", "usr/bin/cargo"),
    ("rustc", "usr/bin/rustc"),
    ("iproute2", "usr/bin/ip"),
    ("ethtool", "usr/sbin/ethtool"),
    ("tcpdump", "usr/bin/tcpdump"),
    ("openvswitch-common", "usr/bin/ovsdb-server"),
    ("openvswitch-switch", "usr/bin/ovs-vsctl"),
];

/// What `make test` needs besides.
const MORE_PACKAGES: [(&str, &str); 13] = [
    ("nftables", "usr/sbin/nft"),
    ("debootstrap", "usr/sbin/debootstrap"),
    ("lintian", "usr/bin/lintian"),
    ("man-db", "usr/bin/man"),
    ("zsh", "usr/bin/zsh"),
    ("fish", "usr/bin/fish"),
    ("git", "usr/bin/git"),
    ("build-essential", "usr/share/build-essential"),
    ("dpkg-dev", "usr/bin/dpkg-buildpackage"),
    ("debhelper", "usr/bin/dh"),
    ("apt-utils", "usr/bin/apt-ftparchive"),
    ("gnupg", "usr/bin/gpg"),
    ("xz-utils", "usr/bin/xz"),
];

/// As dh_installsystemd writes it.
const POSTINST: &str = "\
deb-systemd-helper unmask UNIT >/dev/null || true
if deb-systemd-helper --quiet was-enabled UNIT; then
    deb-systemd-helper enable UNIT >/dev/null || true
else
    deb-systemd-helper update-state UNIT >/dev/null || true
fi
if [ -d /run/systemd/system ]; then
    deb-systemd-invoke start UNIT >/dev/null || true
fi
";

/// A package of that name with nothing but a program and, if it has one, a service: apt and dpkg treat it as the real one,
/// whose dependencies would take minutes.
fn package(folder: &Path, name: &str, program: &str, unit: Option<&str>) {
    let tree = tempfile::tempdir().unwrap();
    let tree = tree.path();
    let put = |path: &str, text: &str| {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put(
        "DEBIAN/control",
        &format!(
            "Package: {name}\nVersion: 99\nArchitecture: all\nInstalled-Size: 2048\n\
             Maintainer: nobody <nobody@example.org>\nDescription: stands for {name}\n"
        ),
    );
    built::script(tree, "../program", "#!/bin/sh\necho rustc 1.90.0\n");
    fs::create_dir_all(tree.join(program).parent().unwrap()).unwrap();
    fs::rename(tree.join("program"), tree.join(program)).unwrap();
    if name == "openvswitch-switch" {
        fs::copy(tree.join(program), tree.join("usr/bin/ovs-vswitchd")).unwrap();
    }
    let mut postinst = format!("#!/bin/sh\nset -e\n[ ! -e /{name}-fails ]\n");
    if let Some(unit) = unit {
        put(
            &format!("usr/lib/systemd/system/{unit}"),
            "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
        );
        postinst.push_str(&POSTINST.replace("UNIT", unit));
    }
    built::script(tree, "postinst", &postinst);
    let mut pack = Command::new("dpkg-deb");
    pack.args(["--root-owner-group", "-Zgzip", "-z1", "--build"])
        .arg(tree)
        .arg(folder.join(format!("{name}.deb")));
    lab::run(pack, "");
}

/// What runs at boot in a chroot before anything is prepared.
#[derive(Clone, Copy, PartialEq)]
enum Boots {
    Nothing,
    Prometheus,
}

/// A chroot in which apt finds those packages.
fn machine(release: Release, boots: Boots) -> Chroot {
    let chroot = Chroot::new(&base(release, Kind::Plain), Start::Alone);
    let folder = tempfile::tempdir().unwrap();
    for (name, program) in PACKAGES.into_iter().chain(MORE_PACKAGES) {
        let unit = (name == "openvswitch-switch").then_some("openvswitch-switch.service");
        package(folder.path(), name, program, unit);
    }
    package(
        folder.path(),
        "prometheus",
        "usr/bin/promtool",
        Some("prometheus.service"),
    );
    let mut index = Command::new("apt-ftparchive");
    index.args(["packages", "."]).current_dir(folder.path());
    let index = lab::run(index, "");
    fs::write(folder.path().join("Packages"), index).unwrap();
    chroot.run("mkdir /repo /sources; rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*");
    for file in fs::read_dir(folder.path()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        chroot.bring(&path, &format!("/repo/{name}"));
    }
    chroot.write("/etc/apt/sources.list", "deb [trusted=yes] file:/repo ./\n");
    chroot.write("/sources/prepare.sh", PREPARE);
    // Debian 12's own Rust is too old, so there is one from elsewhere.
    chroot.run("dpkg -i /repo/cargo.deb /repo/rustc.deb");
    if boots == Boots::Prometheus {
        chroot.run("dpkg -i /repo/prometheus.deb");
    }
    chroot
}

fn in_both(boots: Boots, test: impl Fn(&Chroot)) {
    for release in [Release::Twelve, Release::Thirteen] {
        test(&machine(release, boots));
    }
}

const IS_ENABLED: &str = "systemctl is-enabled openvswitch-switch prometheus || true";

#[test]
fn it_leaves_no_service_behind_and_touches_none_that_was_there() {
    in_both(Boots::Prometheus, |chroot| {
        let said = chroot.run("sh /sources/prepare.sh demo");
        assert!(
            said.contains(
                "prepare: switched off, as they came with these packages and nothing here needs them: \
                 openvswitch-switch.service\n"
            ),
            "{said}"
        );
        assert_eq!(chroot.run(IS_ENABLED), "disabled\nenabled\n");
        assert!(!chroot.has("/usr/sbin/policy-rc.d"));
        // The package is there now. What somebody makes of it is theirs.
        chroot.run("systemctl enable openvswitch-switch; dpkg -r --force-depends tcpdump");
        chroot.run("sh /sources/prepare.sh demo");
        assert!(chroot.has("/usr/bin/tcpdump"));
        assert_eq!(chroot.run(IS_ENABLED), "enabled\nenabled\n");
    });
}

#[test]
fn the_tests_leave_neither_of_their_services_behind() {
    in_both(Boots::Nothing, |chroot| {
        let said = chroot.run("sh /sources/prepare.sh test");
        let off = said.lines().find(|line| line.contains("switched off"));
        let off = off.unwrap_or_default();
        for unit in [" openvswitch-switch.service", " prometheus.service"] {
            assert!(off.contains(unit), "{unit}: {said}");
        }
        assert_eq!(chroot.run(IS_ENABLED), "disabled\ndisabled\n");
    });
}

#[test]
fn an_installation_that_fails_half_way_leaves_none_behind_either() {
    in_both(Boots::Prometheus, |chroot| {
        chroot.run("touch /tcpdump-fails");
        let said = chroot.sh("sh /sources/prepare.sh demo");
        assert_ne!(said.code, 0, "{}", said.text);
        assert!(chroot.has("/usr/bin/ovs-vsctl"));
        assert_eq!(chroot.run(IS_ENABLED), "disabled\nenabled\n");
        assert!(!chroot.has("/usr/sbin/policy-rc.d"));
    });
}

#[test]
fn it_says_what_it_installs_how_much_that_is_and_how_long_it_takes() {
    in_both(Boots::Prometheus, |chroot| {
        let said = chroot.run("sh /sources/prepare.sh demo");
        let line = said
            .lines()
            .find(|line| line.starts_with("prepare: installing"))
            .unwrap();
        for words in [
            " openvswitch-switch",
            " tcpdump",
            " to download",
            " of disk",
            "minutes",
        ] {
            assert!(line.contains(words), "{words}: {line}");
        }
        // Nothing is missing any more.
        let said = chroot.run("sh /sources/prepare.sh demo");
        assert!(!said.contains("installing"), "{said}");
    });
}
