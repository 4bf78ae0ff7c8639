//! What is in the package, and what lintian says of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::base::{Kind, base};
use crate::built::{deb, field, file};
use crate::chroot::{Chroot, Start};
use crate::lab;
use crate::release::Release;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn lintian_finds_nothing() {
    let mut command = Command::new("lintian");
    command
        .args([
            "--allow-root",
            "--fail-on",
            "error,warning",
            "--tag-display-limit",
            "0",
        ])
        .arg(file(".changes"));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn every_override_of_lintian_s_is_explained() {
    let text =
        fs::read_to_string(Path::new(ROOT).join("debian/pve-span.lintian-overrides")).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    for (index, line) in lines.iter().enumerate() {
        let is_explained = || index > 0 && lines[index - 1].starts_with("# ");
        assert!(line.starts_with("# ") || is_explained(), "{line}");
    }
}

#[test]
fn it_needs_nftables_and_libraries_and_no_more() {
    let depends = field(&deb(), "Depends");
    let names: Vec<&str> = depends
        .split(", ")
        .filter_map(|one| one.split(' ').next())
        .collect();
    assert_eq!(names, ["nftables", "libc6", "libgcc-s1"]);
    assert_eq!(
        field(&deb(), "Suggests"),
        "openvswitch-switch, sensible-utils"
    );
    assert_eq!(field(&deb(), "Recommends"), "");
}

/// What is packed says who keeps it: whoever builds it.
#[test]
fn its_maintainer_is_who_builds_it_and_a_build_without_one_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut copy = Command::new("cp");
    copy.arg("-rL")
        .arg(Path::new(ROOT).join("debian"))
        .arg(folder.path());
    lab::run(copy, "");
    let control = |builder: &[(&str, &str)]| {
        let mut make = Command::new("make");
        make.args(["-s", "-f", "debian/rules", "override_dh_gencontrol"])
            .current_dir(folder.path())
            .env_remove("DEBFULLNAME")
            .env_remove("DEBEMAIL")
            .envs(builder.iter().copied());
        let output = lab::try_run(make, "");
        assert!(output.status.success(), "{output:?}");
        let text =
            fs::read_to_string(folder.path().join("debian/pve-span/DEBIAN/control")).unwrap();
        let line = text.lines().find(|line| line.starts_with("Maintainer: "));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (line.unwrap().to_owned(), said)
    };
    let (line, said) = control(&[
        ("DEBFULLNAME", "Ann O'Nymous"),
        ("DEBEMAIL", "ann@example.org"),
    ]);
    assert_eq!(line, "Maintainer: Ann O'Nymous <ann@example.org>");
    assert!(!said.contains("maintainer"), "{said}");
    for builder in [&[][..], &[("DEBEMAIL", "ann@example.org")]] {
        let (line, said) = control(builder);
        assert!(line.ends_with(".invalid>"), "{line}");
        assert!(
            said.contains(
                "pve-span: the package names no maintainer, as DEBFULLNAME (your name) and DEBEMAIL (your address) are not set\n"
            ),
            "{said}"
        );
    }
}

#[test]
fn its_version_is_cargo_s() {
    let version = field(&deb(), "Version");
    assert_eq!(
        version.rsplit_once('-').unwrap().0,
        env!("CARGO_PKG_VERSION")
    );
}

#[test]
fn all_that_belongs_to_it_is_in_it_and_nothing_below_var() {
    let mut command = Command::new("dpkg-deb");
    command.arg("--contents").arg(deb());
    let list = lab::run(command, "");
    let paths: Vec<&str> = list
        .lines()
        .filter_map(|line| line.split("./").nth(1))
        .collect();
    for path in [
        "usr/bin/pve-span",
        "usr/share/bash-completion/completions/pve-span",
        "usr/share/doc/pve-span/LICENCES-OF-CRATES.gz",
        "usr/share/doc/pve-span/README.md",
        "usr/share/doc/pve-span/changelog.Debian.gz",
        "usr/share/doc/pve-span/changelog.gz",
        "usr/share/doc/pve-span/copyright",
        "usr/share/doc/pve-span/examples/grafana-dashboard.json",
        "usr/share/doc/pve-span/examples/prometheus-alerts.yml",
        "usr/share/doc/pve-span/examples/span.cfg",
        "usr/share/doc/pve-span/install.md",
        "usr/share/doc/pve-span/span.cfg.md",
        "usr/share/fish/vendor_completions.d/pve-span.fish",
        "usr/share/man/man5/span.cfg.5.gz",
        "usr/share/man/man8/pve-span.8.gz",
        "usr/share/man/man8/pve-span-check.8.gz",
        "usr/share/pve-span/hookscript",
        "usr/share/zsh/vendor-completions/_pve-span",
    ] {
        assert!(paths.contains(&path), "{path} is not in\n{list}");
    }
    assert!(
        list.contains("lib/systemd/system/pve-span.service"),
        "{list}"
    );
    assert!(
        !paths
            .iter()
            .any(|path| path.starts_with("var") || path.starts_with("etc")),
        "{list}"
    );
}

/// Pages lead to each other, to the examples and to nothing that is not there.
#[test]
fn links_of_the_installed_pages_lead_to_installed_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("dpkg-deb");
    command.arg("--extract").arg(deb()).arg(folder.path());
    lab::run(command, "");
    let docs = folder.path().join("usr/share/doc/pve-span");
    let mut faults = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(&docs).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "md") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        // Outside of fences.
        for prose in text.split("```").step_by(2) {
            for rest in prose.split("](").skip(1) {
                let target = rest.split(')').next().unwrap();
                let file = target.split('#').next().unwrap();
                if target.contains("://") || file.is_empty() {
                    continue;
                }
                count += 1;
                if !docs.join(file).exists() {
                    faults.push(format!("{name}: {target} is not in the package"));
                }
            }
        }
    }
    assert!(count > 50, "only {count} links");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_licences_of_all_crates_are_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("dpkg-deb");
    command.arg("--extract").arg(deb()).arg(folder.path());
    lab::run(command, "");
    let mut command = Command::new("zcat");
    command.arg(
        folder
            .path()
            .join("usr/share/doc/pve-span/LICENCES-OF-CRATES.gz"),
    );
    let text = lab::run(command, "");
    let (list, texts) = text.split_once("\n-----").unwrap();
    let texts = texts.split_whitespace().collect::<Vec<&str>>().join(" ");
    let crates: Vec<&str> = list
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|one| one.0)
        .collect();
    assert!(
        crates.iter().any(|name| name.starts_with("clap ")) && crates.len() > 40,
        "{list}"
    );
    assert!(crates.iter().all(|name| !name.trim().is_empty()), "{list}");
    let without: Vec<&str> = crates
        .iter()
        .copied()
        .filter(|name| !texts.contains(name))
        .collect();
    assert_eq!(without, Vec::<&str>::new(), "without a text of its licence");
}

/// tests/completion.rs has what all shells complete; here it is that they find it.
#[test]
fn bash_completes_commands() {
    let chroot = Chroot::new(&base(Release::Thirteen, Kind::Plain), Start::Alone);
    chroot.bring(&deb(), "/pve-span.deb");
    chroot.run("dpkg-deb --extract /pve-span.deb /");
    let said = chroot.run(
        "bash -c '. /usr/share/bash-completion/completions/pve-span; COMP_WORDS=(pve-span st) COMP_CWORD=1; \
         _pve_span pve-span st pve-span; echo \"${COMPREPLY[*]}\"'",
    );
    assert_eq!(said.trim_end(), "status");
}
