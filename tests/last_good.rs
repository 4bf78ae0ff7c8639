//! An unreadable or invalid file never blinds a sensor: the last good copy stays in force, and it is said.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use lab::{Node, try_run};
use scene::{apply, hook, mirrors, stderr, three_guests, told};

const SPAN_CFG: &str =
    "[dmz]\nsource = 101, 102\noutput = 200/net1\n[two]\nsource = 101\noutput = vlan:999\n";
const DMZ: &str = "dmz tap200i1: from tap101i0 tap102i0, to tap101i0 tap102i0";
const STAYS: &str = "; the last good copy, /var/lib/pve-span/span.cfg, stays in force\n";

fn node() -> Node {
    let node = three_guests();
    apply(&node, SPAN_CFG);
    assert_eq!(mirrors(&node).len(), 2);
    node
}

/// A guest stops and starts, and every command is called: the mirrors are back, and each says why.
#[track_caller]
fn assert_it_stays_in_force(node: &Node, why: &str) {
    assert_it_stays(node, why, "");
}

#[track_caller]
fn assert_it_stays(node: &Node, why: &str, and_before: &str) {
    let notice = format!("pve-span: warning: {why}{STAYS}");
    hook(node, 101, "pre-stop");
    assert_eq!(mirrors(node), ["dmz tap200i1: from tap102i0, to tap102i0"]);
    let (_, err) = hook(node, 101, "post-start");
    assert_eq!(err, format!("{and_before}{notice}"));
    assert_eq!(mirrors(node).len(), 2);
    assert!(mirrors(node).contains(&DMZ.to_owned()));
    for command in ["apply", "plan", "status", "ports"] {
        let output = node.pve_span(&[command]);
        assert!(
            stderr(node, &output).contains(&notice),
            "{command}: {}",
            told(&output)
        );
    }
}

#[test]
fn when_etc_pve_is_not_mounted() {
    let node = node();
    node.unmount_pve();
    assert_it_stays(
        &node,
        "/etc/pve/ is not mounted (no .version in it); see systemctl status pve-cluster",
        "pve-span: error: guest 101: cannot tell whether another hookscript is to be called after pve-span, so none is: \
         /etc/pve is not mounted\n",
    );
    node.mount_pve();
    assert_eq!(hook(&node, 101, "post-start").1, "");
}

#[test]
fn when_the_file_is_truncated() {
    let node = node();
    node.span_cfg("");
    assert_it_stays_in_force(
        &node,
        "/etc/pve/span.cfg is not valid (the file is empty); see pve-span check",
    );
    node.span_cfg("[dmz]\nsource = 101, 10");
    let (_, err) = hook(&node, 101, "post-start");
    assert!(err.contains("span.cfg is cut off"), "{err}");
    assert_eq!(mirrors(&node).len(), 2);
}

#[test]
fn when_the_file_has_a_syntax_error() {
    let node = node();
    node.span_cfg(&SPAN_CFG.replace("vlan:999", "vlna:999"));
    assert_it_stays_in_force(
        &node,
        "/etc/pve/span.cfg is not valid (line 6: `vlna:999` is not an output (200/net1, port:eno2, vlan:999, vxlan:…, gre:…, \
         erspan:…), did you mean `vlan`?); see pve-span check",
    );
}

#[test]
fn when_the_file_is_gone() {
    let node = node();
    std::fs::remove_file(node.path("etc/pve/span.cfg")).unwrap();
    assert_it_stays_in_force(
        &node,
        "there is no /etc/pve/span.cfg: `pve-span edit` begins with the last good copy, `pve-span init` with an example",
    );
}

#[test]
fn but_a_session_that_a_valid_file_no_longer_lists_is_removed() {
    let node = node();
    node.span_cfg("[dmz]\nsource = 101, 102\noutput = 200/net1\n");
    let (out, err) = hook(&node, 101, "post-start");
    assert_eq!(
        out,
        "pve-span: two: no longer mirrors to vlan:999 (ovs, vmbr2): span.cfg does not list the session\n"
    );
    assert_eq!(err, "");
    assert_eq!(mirrors(&node), [DMZ]);
    node.span_cfg("# no sessions any more\n");
    hook(&node, 101, "post-start");
    assert_eq!(mirrors(&node), [] as [&str; 0]);
}

/// What is below a folder, with its mode, links and sockets left out.
fn modes(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() || metadata.is_file() {
            found.push((path.clone(), metadata.permissions().mode() & 0o7777));
        }
        if metadata.is_dir() {
            found.extend(modes(&path));
        }
    }
    found.sort();
    found
}

/// Calls it in a shell, after something.
fn after(node: &Node, before: &str, args: &str) -> Output {
    let mut shell = node.command("sh");
    shell.arg("-c").arg(format!(
        "{before}; exec {} --root {} {args}",
        lab::binary().display(),
        node.root().display()
    ));
    try_run(shell, "")
}

#[test]
fn what_is_written_has_its_modes_whatever_the_umask_is() {
    let nft = format!("{SPAN_CFG}[three]\nsource = 102\noutput = 200/net1\nfilter = tcp\n");
    let written = ["000", "022", "077"].map(|umask| {
        let node = three_guests();
        node.span_cfg(&nft);
        for folder in ["run/pve-span", "var/lib/pve-span"] {
            let _ = fs::remove_dir_all(node.path(folder));
        }
        for args in ["apply", "hook 101 post-stop", "edit --yes"] {
            let before = format!("umask {umask}; export EDITOR=true");
            let output = after(&node, &before, args);
            assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        }
        let below = |folder: &str| {
            let own = node.path(folder);
            let mode = own.metadata().unwrap().permissions().mode() & 0o7777;
            let mut found = modes(&own);
            found.push((own, mode));
            found
        };
        let mut found = below("run/pve-span");
        found.extend(below("var/lib/pve-span"));
        let lock = node.path("run/pve-span.lock");
        let mode = lock.metadata().unwrap().permissions().mode() & 0o7777;
        found.push((lock, mode));
        let mut found: Vec<(String, u32)> = found
            .into_iter()
            .map(|(path, mode)| {
                let path = path.strip_prefix(node.root()).unwrap();
                (path.display().to_string(), mode)
            })
            .collect();
        found.sort();
        found
    });
    assert_eq!(
        written[1]
            .iter()
            .map(|(path, mode)| (path.as_str(), *mode))
            .collect::<Vec<_>>(),
        [
            ("run/pve-span", 0o700),
            ("run/pve-span.lock", 0o600),
            ("run/pve-span/edit.lock", 0o600),
            ("run/pve-span/events", 0o600),
            ("run/pve-span/flows.json", 0o600),
            ("run/pve-span/outputs.json", 0o600),
            ("var/lib/pve-span", 0o755),
            ("var/lib/pve-span/span.cfg", 0o640),
        ]
    );
    assert_eq!(written[0], written[1]);
    assert_eq!(written[2], written[1]);
}

#[test]
fn what_killed_reconciles_leave_beside_a_file_does_not_add_up() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    let folder = node.path("var/lib/pve-span");
    for _ in 0..3 {
        // Killed while it writes: SIGXFSZ.
        let output = after(&node, "ulimit -c 0; ulimit -f 0", "apply");
        assert!(!output.status.success(), "{}", told(&output));
        let left: Vec<_> = modes(&folder);
        assert!(left.len() <= 1, "{left:?}");
    }
    assert_eq!(node.pve_span(&["apply"]).status.code(), Some(0));
    let left: Vec<_> = modes(&folder).into_iter().map(|(path, _)| path).collect();
    assert_eq!(left, [folder.join("span.cfg")]);
}
