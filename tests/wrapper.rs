//! The wrapper for snippets folders on shared storage: a missing package must not keep a guest from starting.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::process::Output;

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
