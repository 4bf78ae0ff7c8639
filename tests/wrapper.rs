//! The wrapper for snippets folders on shared storage: a missing package must not keep a guest from starting.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};

use lab::Node;
use scene::{mirrors, three_guests, told};

const WRAPPER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hookscripts/pve-span");

/// Calls the wrapper where /usr/local/sbin holds what `put` puts there, and nothing else.
fn call(node: &Node, put: &str, phase: &str) -> Output {
    let mut shell = node.command("unshare");
    shell.args(["-m", "sh", "-c"]).arg(format!(
        "mount -t tmpfs none /usr/local/sbin && cd /usr/local/sbin && {put} && exec {WRAPPER} 101 {phase} --root {}",
        node.root().display()
    ));
    let output = lab::try_run(shell, "");
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    output
}

#[test]
fn where_the_package_is_installed_it_calls_it() {
    let node = three_guests();
    node.span_cfg("[dmz]\nsource = 101\noutput = 200/net1\n");
    let put = format!("ln -s {} pve-span", lab::binary().display());
    let output = call(&node, &put, "post-start");
    assert_eq!(
        told(&output),
        "pve-span: dmz: mirrors 101/net0 to 200/net1 (ovs, vmbr2)\n"
    );
    assert_eq!(mirrors(&node), ["dmz tap200i1: from tap101i0, to tap101i0"]);
}

#[test]
fn where_it_is_missing_the_guest_goes_on() {
    let node = three_guests();
    let output = call(&node, "true", "pre-start");
    let said = told(&output);
    assert!(said.starts_with("pve-span: not installed on "), "{said}");
    assert!(
        said.ends_with("; guest 101 goes on without its mirrors\n"),
        "{said}"
    );
}

#[test]
fn where_it_is_broken_the_guest_goes_on() {
    let node = three_guests();
    let output = call(
        &node,
        "printf '#!/bin/sh\\nexit 3\\n' >pve-span && chmod 755 pve-span",
        "pre-start",
    );
    assert_eq!(
        told(&output),
        "pve-span: /usr/local/sbin/pve-span failed with exit code 3; the guest goes on\n"
    );
}

/// Users that nothing else runs as, so that their limit of processes counts one hookscript's alone.
static USER: AtomicU32 = AtomicU32::new(64_000);

/// What is below `folder` for the hookscript of a limited caller: a copy of it, a record and the script that it names.
fn put_chained(folder: &Path) {
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    let file = |name: &str, text: &str| {
        fs::write(folder.join(name), text).unwrap();
        fs::set_permissions(folder.join(name), Permissions::from_mode(0o755)).unwrap();
    };
    let records = folder.join("span-hooks");
    fs::create_dir(&records).unwrap();
    fs::set_permissions(&records, Permissions::from_mode(0o755)).unwrap();
    let text = fs::read_to_string(WRAPPER).unwrap();
    let here = format!("records={}", records.display());
    file("hook", &text.replace("records=/etc/pve/span-hooks", &here));
    file("veto", "#!/bin/sh\nexit 7\n");
    let veto = folder.join("veto");
    file(
        "span-hooks/101",
        &format!("volume = local:snippets/veto\npath = {}\n", veto.display()),
    );
}

/// Calls the hookscript within limits; `put` makes /usr/local/sbin/pve-span.
fn limited(node: &Node, folder: &Path, put: &str, limits: &str, redirect: &str) -> Output {
    let user = USER.fetch_add(1, Ordering::Relaxed);
    let mut shell = node.command("unshare");
    shell.args(["-m", "sh", "-c"]).arg(format!(
        "mount -t tmpfs none /usr/local/sbin && cd /usr/local/sbin && {put} && chmod 755 . && cd / && \
         exec setpriv --reuid={user} --regid={user} --clear-groups prlimit {limits} {}/hook 101 pre-start {redirect}",
        folder.display()
    ));
    lab::try_run(shell, "")
}

const CRASHES: &str = "printf '#!/bin/sh\\nkill -SEGV $$\\n' >pve-span && chmod 755 pve-span";

#[test]
fn whichever_process_cannot_be_started_the_guest_goes_on() {
    let node = Node::without_ovs();
    let folder = tempfile::tempdir().unwrap();
    put_chained(folder.path());
    let copied = format!("cp {} pve-span", lab::binary().display());
    for put in ["true", CRASHES, &copied] {
        let mut codes = Vec::new();
        for most in 0..12 {
            let output = limited(&node, folder.path(), put, &format!("--nproc={most}"), "");
            let (code, said) = (output.status.code(), told(&output));
            match code {
                // The other hookscript's, where enough processes could be started to find it.
                Some(7) => {}
                // Somebody is told that it was not called.
                Some(0) => assert!(
                    said.contains("no other hookscript is called")
                        || said.contains("another hookscript is to be called"),
                    "{put}, {most} processes: {said}"
                ),
                _ => panic!("{put}, {most} processes: {code:?}, {said}"),
            }
            codes.push(code);
        }
        assert_eq!(codes.first(), Some(&Some(0)), "{put}");
        // The program itself finds no record, since /etc/pve is not mounted.
        let last = if put == copied { 0 } else { 7 };
        assert_eq!(codes.last(), Some(&Some(last)), "{put}: {codes:?}");
    }
}

#[test]
fn whatever_else_is_amiss_the_guest_goes_on_and_the_other_hookscript_counts() {
    let node = Node::without_ovs();
    let folder = tempfile::tempdir().unwrap();
    put_chained(folder.path());
    let copied = format!("cp {} pve-span", lab::binary().display());
    let garbage = "head -c 4096 /dev/urandom >pve-span && chmod 755 pve-span";
    let unreadable = "echo >pve-span && chmod 711 pve-span";
    let everything = "--nproc=64";
    let memory = "--nproc=64 --as=16777216";
    for (put, limits, redirect) in [
        (CRASHES, everything, ""),
        (garbage, everything, ""),
        (unreadable, everything, ""),
        (&copied, memory, ""),
        ("true", everything, ">/dev/full 2>/dev/full"),
        (CRASHES, everything, ">&- 2>&- <&-"),
        (CRASHES, "--nproc=64 --fsize=0", ">/dev/full"),
    ] {
        let output = limited(&node, folder.path(), put, limits, redirect);
        let code = output.status.code();
        assert_eq!(
            code,
            Some(7),
            "{put} {limits} {redirect}: {}",
            told(&output)
        );
    }
    fs::remove_file(folder.path().join("span-hooks/101")).unwrap();
    for redirect in ["", ">/dev/full 2>/dev/full", ">&- 2>&- <&-"] {
        for (put, limits) in [
            ("true", "--nproc=0"),
            (CRASHES, everything),
            (&copied, everything),
        ] {
            let output = limited(&node, folder.path(), put, limits, redirect);
            let code = output.status.code();
            assert_eq!(
                code,
                Some(0),
                "{put} {limits} {redirect}: {}",
                told(&output)
            );
        }
    }
}

#[test]
fn another_hookscript_that_cannot_be_started_is_told_and_the_guest_goes_on() {
    let node = Node::without_ovs();
    let folder = tempfile::tempdir().unwrap();
    put_chained(folder.path());
    let veto = folder.path().join("veto");
    for text in ["#!/usr/bin/no-such-program\n", "#!/bin/sh\r\nexit 7\r\n"] {
        fs::write(&veto, text).unwrap();
        let call = |redirect| limited(&node, folder.path(), "true", "--nproc=64", redirect);
        let output = call("");
        let end = format!(
            "pve-span: guest 101: cannot call local:snippets/veto, {}; the guest goes on without it\n",
            veto.display()
        );
        assert!(told(&output).ends_with(&end), "{}", told(&output));
        assert_eq!(output.status.code(), Some(0), "{text:?}");
        for redirect in [">/dev/full 2>/dev/full", ">&- 2>&- <&-", "2>&1 | true"] {
            let output = call(redirect);
            assert_eq!(output.status.code(), Some(0), "{text:?} {redirect}");
        }
    }
    // How it fails by itself is its own.
    fs::write(&veto, "#!/bin/sh\nexit 127\n").unwrap();
    let output = limited(&node, folder.path(), "true", "--nproc=64", "");
    assert_eq!(output.status.code(), Some(127), "{}", told(&output));
}

#[test]
fn a_record_that_cannot_be_read_is_not_taken_for_none() {
    let node = Node::without_ovs();
    let folder = tempfile::tempdir().unwrap();
    put_chained(folder.path());
    let record = folder.path().join("span-hooks/101");
    fs::set_permissions(&record, Permissions::from_mode(0o600)).unwrap();
    let output = limited(&node, folder.path(), "true", "--nproc=64", "");
    assert_eq!(output.status.code(), Some(0));
    let end = format!(
        "pve-span: guest 101: {} cannot be read, so nobody can tell whether another hookscript is to be called; none is\n",
        record.parent().unwrap().display()
    );
    assert!(told(&output).ends_with(&end), "{}", told(&output));
}
