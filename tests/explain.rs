//! `explain`: what becomes of each NIC's frames, for every way that a NIC can be plugged, and what is said.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use lab::{Guest, Node};
use scene::linux::{ct_on, mixed_guests, sensor_on, vm_on};
use scene::{apply, guests, run, sensor, vm};

fn explain(node: &Node, args: &[&str]) -> (i32, String, String) {
    run(node, &[&["explain"], args].concat())
}

#[test]
fn scratch() {
    let node = guests(&[
        vm(101, ",firewall=1,tag=10").name("web1").tags("prod;db"),
        vm(102, ""),
        sensor(200),
    ]);
    node.span_cfg("[dmz-ids]\nsource = 101, 102\noutput = 200/net1\n[web]\nsource = tag:web\noutput = 200/net1\n[early]\nsource = all\nexclude = 102\npoint = guest\nfilter = tcp\noutput = 200/net1\n");
    for args in [&["101", "102"][..], &["200"], &["101/net7", "999"]] {
        let (code, out, err) = explain(&node, args);
        println!("# {args:?} {code}\n{out}{err}");
    }
    node.pve_span(&["apply"]);
    for args in [&["101", "102"][..], &["200"], &["101", "--json"]] {
        let (code, out, err) = explain(&node, args);
        println!("# {args:?} {code}\n{out}{err}");
    }
}
