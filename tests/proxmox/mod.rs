//! Proxmox VE's programs for a laboratory node: `stand-in.sh` under the names of qm, pct, pvesh and pvesm.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Output;

use super::lab::{self, Guest, Node};

pub const STAND_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proxmox/stand-in.sh");
/// The hookscript that is installed.
pub const WRAPPER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hookscripts/pve-span");
/// Ours.
pub const OURS: &str = "local:snippets/pve-span";
pub const STORAGE_CFG: &str = "dir: local\n\tpath /var/lib/vz\n\tcontent iso,vztmpl,snippets\n\n\
                           dir: share\n\tpath /srv\n\tcontent snippets\n\tshared 1\n\n\
                           dir: some\n\tpath /some\n\tcontent snippets\n\tnodes pve1\n\n\
                           dir: off\n\tpath /off\n\tcontent snippets\n\tdisable\n\n\
                           lvmthin: local-lvm\n\tthinpool data\n\tvgname pve\n\tcontent images\n";

/// The programs that it stands in for.
pub const PROGRAMS: [&str; 4] = ["qm", "pct", "pvesh", "pvesm"];

/// What is done to a call of a stand-in.
#[derive(Clone, Copy)]
pub enum Trouble {
    /// It fails.
    Fail(&'static str),
    /// It never ends.
    Hang,
    /// It says that it is done, and has done nothing.
    Lie,
    /// It does what it is asked for, and never ends then.
    Late,
    /// Meanwhile somebody else does this, in /etc/pve.
    Meddle(&'static str),
}

/// A node on its own, with the programs, storages, and the hookscript installed.
pub fn node() -> Node {
    let node = Node::without_ovs();
    for folder in ["bin", "fail", "hang", "lie", "late", "meddle"] {
        fs::create_dir_all(node.path("stand-in").join(folder)).unwrap();
    }
    fs::write(node.path("stand-in/calls"), "").unwrap();
    for program in PROGRAMS {
        symlink(STAND_IN, node.path("stand-in/bin").join(program)).unwrap();
    }
    fs::write(node.path("etc/pve/storage.cfg"), STORAGE_CFG).unwrap();
    install(&node, "var/lib/vz/snippets/pve-span");
    node.span_cfg("# no sessions\n");
    node
}

/// Three of them: pve1, which is this one, pve2 and pve3, all with the hookscript.
pub fn cluster() -> Node {
    let node = node();
    members(&node, &[]);
    for other in ["pve2", "pve3"] {
        install(
            &node,
            &format!("others/{other}/var/lib/vz/snippets/pve-span"),
        );
    }
    node
}

/// Which nodes are there, and which of them are off.
pub fn members(node: &Node, off: &[&str]) {
    let line = |(at, name): (usize, &str)| {
        let online = u8::from(!off.contains(&name));
        format!("  \"{name}\": {{ \"id\": {at}, \"online\": {online}, \"ip\": \"10.99.0.{at}\"}}")
    };
    let lines: Vec<String> = (1..).zip(["pve1", "pve2", "pve3"]).map(line).collect();
    node.members(&format!(
        "{{\n\"nodename\": \"pve1\",\n\"version\": 6,\n\"cluster\": {{ \"name\": \"lab\", \"version\": 3, \"nodes\": 3, \"quorate\": 1 }},\n\
         \"nodelist\": {{\n{}\n  }}\n}}\n",
        lines.join(",\n")
    ));
}

/// Puts the hookscript there.
pub fn install(node: &Node, path: &str) {
    let path = node.path(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(WRAPPER, path).unwrap();
}

/// Puts a script of somebody else's into the snippets folder of `local`.
pub fn script(node: &Node, name: &str, text: &str) -> PathBuf {
    let path = node.path("var/lib/vz/snippets").join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A guest, filed under a node.
pub fn add(node: &Node, place: &str, guest: &Guest) {
    node.add(guest);
    if place != "pve1" {
        node.file_under(place, guest.vmid);
    }
}

/// A guest's config as it stands.
pub fn conf(node: &Node, path: &str) -> String {
    fs::read_to_string(node.path("etc/pve/nodes").join(path)).unwrap()
}

/// From now on this happens to calls for a guest or node: `trouble(&node, "qm-101", Trouble::Hang)`.
pub fn trouble(node: &Node, call: &str, trouble: Trouble) {
    let (folder, text) = match trouble {
        Trouble::Fail(text) => ("fail", text),
        Trouble::Hang => ("hang", ""),
        Trouble::Lie => ("lie", ""),
        Trouble::Late => ("late", ""),
        Trouble::Meddle(text) => ("meddle", text),
    };
    fs::write(node.path("stand-in").join(folder).join(call), text).unwrap();
}

/// The calls since the last time, one a line.
pub fn calls(node: &Node) -> Vec<String> {
    let path = node.path("stand-in/calls");
    let calls = fs::read_to_string(&path).unwrap();
    fs::write(path, "").unwrap();
    calls.lines().map(str::to_owned).collect()
}

/// `pve-span <args>` with the stand-ins in `PATH`.
#[track_caller]
pub fn output(node: &Node, args: &[&str]) -> Output {
    let mut command = node.pve_span_command(args);
    let path = std::env::var("PATH").unwrap_or_default();
    let bin = node.path("stand-in/bin");
    command
        .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", bin.display()))
        .env("LAB_ROOT", node.root());
    lab::try_run(command, "")
}

/// Exit code, stdout and stderr, with the node's root taken out.
#[track_caller]
pub fn run(node: &Node, args: &[&str]) -> (i32, String, String) {
    let output = output(node, args);
    let root = node.root().display().to_string();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&root, "");
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// A VM with a name and a NIC.
pub fn vm(vmid: u32) -> Guest {
    Guest::vm(vmid).name(&format!("web{vmid}")).net(
        0,
        &format!("virtio=BC:24:11:2A:00:{:02X},bridge=vmbr0", vmid % 256),
    )
}

/// A container with a NIC.
pub fn ct(vmid: u32) -> Guest {
    Guest::ct(vmid).net(
        0,
        "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:2A:01:01,type=veth",
    )
}

/// The guest with a hookscript.
pub fn with(hookscript: &str, guest: Guest) -> Guest {
    guest.set("hookscript", hookscript)
}

/// What went well, and nothing else was said.
#[track_caller]
pub fn says(node: &Node, args: &[&str], expected: &str) {
    assert_eq!(
        run(node, args),
        (0, expected.to_owned(), String::new()),
        "{args:?}"
    );
}

/// Exit code 1, and this is said.
#[track_caller]
pub fn refuses(node: &Node, args: &[&str], out: &str, err: &str) {
    assert_eq!(
        run(node, args),
        (1, out.to_owned(), err.to_owned()),
        "{args:?}"
    );
}
