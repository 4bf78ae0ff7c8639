//! `pve-span doctor`: each condition is made on a node, told with its evidence and its remedy, and gone when the remedy
//! was applied.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use scene::{apply, run, three_guests};

#[test]
fn a_look() {
    let node = three_guests();
    apply(&node, "[dmz]\nsource = 101\noutput = 200/net1\n");
    let (code, out, err) = run(&node, &["doctor", "-v"]);
    panic!("{code}\n{out}\n{err}");
}
