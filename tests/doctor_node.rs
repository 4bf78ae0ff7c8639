//! `pve-span doctor`, finding by finding: kernel, nftables, Open vSwitch, span.cfg and the service.
//! Each condition is made on a node, told with its evidence and its remedy, and gone when the remedy was applied.

#![allow(clippy::unwrap_used)]

mod doctor_lab;
mod lab;
mod scene;

use doctor_lab::{fine, found, found_by, gone, look, sh};
use lab::{Node, wait_until};
use scene::linux::{linux_guests, sensor_on, vm_on};
use scene::{apply, their_mirror, three_guests, vm};

const DMZ: &str = "[dmz]\nsource = 101\noutput = 200/net1\n";

fn dmz() -> Node {
    let node = three_guests();
    apply(&node, DMZ);
    node
}

#[test]
fn a_chain_that_comes_before_ours_is_told() {
    let node = linux_guests(&[vm_on(101, "bridge=vmbr0"), sensor_on(200, "bridge=vmbr0")]);
    apply(&node, DMZ);
    fine(&node, "kernel");
    fine(&node, "nft");
    node.nft("table netdev theirs {\n chain early {\n type filter hook ingress device \"tap101i0\" priority -600;\n drop\n }\n chain late {\n type filter hook ingress device \"tap101i0\" priority 0;\n }\n}\n");
    found(
        &node,
        "chain-before",
        "note: somebody else's nftables chain sees tap101i0's frames before they are mirrored: what it drops does not get to the sensor\n\
         seen: table netdev theirs, chain early: hook ingress, priority -600 (ours: -500)\n\
         do: nft list chain netdev theirs early",
    );
    node.nft("delete table netdev theirs\n");
    gone(&node, "chain-before");
}

#[test]
fn open_vswitch_that_is_full_behind_or_down_is_told() {
    let node = dmz();
    for number in 0..27 {
        their_mirror(&node, &[&format!("name=theirs{number}")]);
    }
    found(
        &node,
        "mirror-budget",
        "warning: vmbr2 is nearly full of mirrors: Open vSwitch allows 32 a bridge\n\
         seen: 28 of 32 mirrors, 27 of them not pve-span's; 28 with what is planned\n\
         do: use fewer sessions or outputs on this bridge, or `engine = nft`, which needs one mirror for each output port; ovs-vsctl list mirror shows whose they are",
    );
    for number in 27..32 {
        their_mirror(&node, &[&format!("name=theirs{number}")]);
    }
    found(
        &node,
        "mirror-budget",
        "error: vmbr2 has no room for all of its mirrors: Open vSwitch allows 32 a bridge\n\
         seen: 33 of 32 mirrors, 32 of them not pve-span's; 33 with what is planned\n\
         do: use fewer sessions or outputs on this bridge, or `engine = nft`, which needs one mirror for each output port; ovs-vsctl list mirror shows whose they are",
    );
    node.span_cfg(
        "[dmz]\nsource = 101\noutput = 200/net1\n[two]\nsource = 102\noutput = 200/net1\n",
    );
    found(
        &node,
        "mirror-budget",
        "error: vmbr2 has no room for all of its mirrors: Open vSwitch allows 32 a bridge\n\
         seen: 33 of 32 mirrors, 32 of them not pve-span's; 34 with what is planned\n\
         do: use fewer sessions or outputs on this bridge, or `engine = nft`, which needs one mirror for each output port; ovs-vsctl list mirror shows whose they are",
    );
    node.ovs_vsctl(&["clear", "bridge", "vmbr2", "mirrors"]);
    gone(&node, "mirror-budget");
    found(
        &node,
        "plan-pending",
        "warning: changes are pending, and no service runs that would make them\n\
         seen: pve-span plan has 6 changes (of dmz and two)\n\
         do: pve-span apply",
    );
    node.ovs_vsctl(&["set", "Open_vSwitch", ".", "other_config:hw-offload=true"]);
    found(
        &node,
        "ovs-offload",
        "warning: Open vSwitch leaves flows to the network card, which switches them past mirrors and nftables: sensors may miss most of a conversation\n\
         seen: Open_vSwitch table: other_config:hw-offload=true\n\
         do: ovs-vsctl remove Open_vSwitch . other_config hw-offload && systemctl restart openvswitch-switch",
    );
    node.ovs_vsctl(&["remove", "Open_vSwitch", ".", "other_config", "hw-offload"]);
    gone(&node, "ovs-offload");
    node.ovs_vsctl(&[
        "add-port",
        "vmbr2",
        "dpdk0",
        "--",
        "set",
        "Interface",
        "dpdk0",
        "type=dpdk",
    ]);
    found(
        &node,
        "dpdk-port",
        "note: Open vSwitch drives dpdk0 past the kernel: nftables sees nothing of it, only Open vSwitch's own mirrors do\n\
         seen: Interface table: type=dpdk\n\
         do: keep sources and sensor on one Open vSwitch bridge",
    );
    node.ovs_vsctl(&["del-port", "dpdk0"]);
    gone(&node, "dpdk-port");
    node.kill_vswitchd();
    node.ovs_vsctl(&["set", "Open_vSwitch", ".", "next_cfg=1000"]);
    found(
        &node,
        "ovs-behind",
        "error: ovs-vswitchd does not act on what the database says: new mirrors have no effect\n\
         seen: cur_cfg is N and next_cfg 1000, for 2 seconds\n\
         do: systemctl status openvswitch-switch, then systemctl restart openvswitch-switch",
    );
    std::fs::write(node.path("run/openvswitch/ovs-vswitchd.pid"), "999999999\n").unwrap();
    found(
        &node,
        "ovs-behind",
        "error: ovs-vswitchd does not act on what the database says: new mirrors have no effect\n\
         seen: /run/openvswitch/ovs-vswitchd.pid names process N, which is not there\n\
         do: systemctl status openvswitch-switch, then systemctl restart openvswitch-switch",
    );
    std::fs::remove_file(node.path("run/openvswitch/ovs-vswitchd.pid")).unwrap();
    node.start_vswitchd();
    gone(&node, "ovs-behind");
    node.kill_ovsdb();
    found(
        &node,
        "ovs-down",
        "error: Open vSwitch does not answer: its bridges are unknown here, and its mirrors stay as they are\n\
         seen: cannot connect to /run/openvswitch/db.sock: is ovsdb-server running? (systemctl status openvswitch-switch): Connection refused (os error 111)\n\
         do: systemctl status openvswitch-switch, then systemctl restart openvswitch-switch",
    );
    node.start_ovsdb();
    gone(&node, "ovs-down");
    node.span_cfg("# nothing\n");
    node.edit(102, |_| vm(102, "").net(1, "virtio,bridge=vmbr7"));
    found(
        &node,
        "bridge-missing",
        "warning: guest 102 cannot start here, there is no bridge vmbr7\n\
         seen: /etc/pve/nodes/pve1/qemu-server/102.conf: bridge=vmbr7; neither a Linux bridge nor one of Open vSwitch's has this name\n\
         do: ifreload -a; or change the guest's bridge",
    );
}

#[test]
fn what_is_in_force_is_told() {
    let node = three_guests();
    found(
        &node,
        "cfg-missing",
        "note: there are no sessions yet\n\
         seen: there is no /etc/pve/span.cfg\n\
         do: pve-span init",
    );
    apply(&node, DMZ);
    fine(&node, "cfg");
    node.span_cfg("[dmz]\nsouce = 101\noutput = 200/net1\n");
    found(
        &node,
        "cfg-faults",
        "error: span.cfg has 1 error: it is not taken at all\n\
         seen: /etc/pve/span.cfg, line 2: unknown key `souce`\n\
         do: pve-span check",
    );
    found(
        &node,
        "last-good-copy",
        "error: what is in force is not the file, but its last good copy: edits have no effect\n\
         seen: /etc/pve/span.cfg is not valid (line 2: unknown key `souce`); see pve-span check; the last good copy, /var/lib/pve-span/span.cfg, stays in force\n\
         do: pve-span check",
    );
    node.span_cfg(&format!("{DMZ}filter = tcp\nsnaplen = 64\n"));
    found(
        &node,
        "cfg-unsupported",
        "warning: span.cfg has 1 thing that is not supported: the sessions that ask for it are refused\n\
         seen: /etc/pve/span.cfg, line 5: `snaplen` is refused: the nft engine, which `filter` needs, does not cut frames\n\
         do: pve-span check",
    );
    node.span_cfg("[dmz]\nsource = 101, 105\noutput = 200/net1\n[off]\nsource = 101\noutput = 200/net1\nenabled = no\n[past]\nsource = 101\noutput = 200/net1\nexpires = 2020-01-01T00:00Z\n[none]\nsource = tag:none\noutput = 200/net1\n");
    found(
        &node,
        "cfg-warnings",
        "warning: span.cfg has 2 warnings: it probably does not do what is meant\n\
         seen: /etc/pve/span.cfg, line 2: there is no guest 105 (and 1 more)\n\
         do: pve-span check",
    );
    found(
        &node,
        "session-over",
        "note: session off is switched off\n\
         seen: /etc/pve/span.cfg, [off], `enabled = no`\n\
         do: pve-span edit: change that key, or delete the session",
    );
    found(
        &node,
        "session-empty",
        "warning: session none takes nothing: none of its sources is a guest anywhere, or a port or bridge here\n\
         seen: /etc/pve/span.cfg, [none], `source`\n\
         do: pve-span edit; pve-span ports lists what there is on this node",
    );
    node.unmount_pve();
    found(
        &node,
        "pve-unmounted",
        "error: the cluster filesystem is not mounted: no guest's config can be read, and none can be changed\n\
         seen: there is no /etc/pve/.version\n\
         do: systemctl status pve-cluster, then systemctl restart pve-cluster",
    );
    found(
        &node,
        "last-good-copy",
        "error: what is in force is not the file, but its last good copy: edits have no effect\n\
         seen: /etc/pve/ is not mounted (no .version in it); see systemctl status pve-cluster; the last good copy, /var/lib/pve-span/span.cfg, stays in force\n\
         do: systemctl status pve-cluster, then systemctl restart pve-cluster",
    );
    std::fs::remove_file(node.path("var/lib/pve-span/span.cfg")).unwrap();
    found(
        &node,
        "nothing-in-force",
        "error: nobody knows what shall be mirrored: everything stays as it is\n\
         seen: /etc/pve/ is not mounted (no .version in it); see systemctl status pve-cluster; there is no last good copy, so nothing is changed\n\
         do: systemctl status pve-cluster, then systemctl restart pve-cluster",
    );
    node.mount_pve();
    apply(&node, DMZ);
    node.edit(102, |guest| {
        guest.net(3, "superfast=BC:24:11:2A:00:99,bridge=vmbr2")
    });
    found(
        &node,
        "guest-config",
        "note: 1 line of guests' configs cannot be understood: what they say has no effect\n\
         seen: /etc/pve/nodes/pve1/qemu-server/102.conf:4: `net3`: unknown NIC model `superfast`\n\
         do: qm config and pct config show what Proxmox VE makes of them",
    );
}

#[test]
fn a_service_that_does_not_run_or_come_back_is_told() {
    let node = dmz();
    found(
        &node,
        "service-stopped",
        "warning: the service does not run: between hooks nobody follows what happens to ports, bridges and span.cfg\n\
         seen: there is no /run/pve-span/state.json; systemctl is-enabled pve-span.service: not-found\n\
         do: apt install pve-span",
    );
    found(
        &node,
        "source-unattached",
        "warning: guests 101 and 200 do not call pve-span: no service runs either, so after a start nothing is mirrored until pve-span apply\n\
         seen: /etc/pve/nodes/pve1/qemu-server/101.conf has no `hookscript`\n\
         do: pve-span attach 101 200",
    );
    let watch = node.watch();
    wait_until("the service is known", || {
        look(&node)
            .1
            .iter()
            .all(|finding| finding.id != "service-stopped")
    });
    found(
        &node,
        "source-unattached",
        "note: guests 101 and 200 do not call pve-span: the service mirrors such guests all the same, a moment later, and their task logs do not tell\n\
         seen: /etc/pve/nodes/pve1/qemu-server/101.conf has no `hookscript`\n\
         do: pve-span attach 101 200",
    );
    found(
        &node,
        "service-disabled",
        "warning: the service does not start with the node: after its next boot nobody follows what happens between hooks\n\
         seen: systemctl is-enabled pve-span.service: not-found\n\
         do: apt install pve-span",
    );
    let unit = node.path("etc/systemd/system/pve-span.service");
    std::fs::create_dir_all(unit.parent().unwrap()).unwrap();
    std::fs::write(&unit, include_str!("../pve-config/pve-span.service")).unwrap();
    found(
        &node,
        "service-disabled",
        "warning: the service does not start with the node: after its next boot nobody follows what happens between hooks\n\
         seen: systemctl is-enabled pve-span.service: disabled\n\
         do: systemctl enable --now pve-span",
    );
    sh(
        &node,
        &format!("systemctl --root={} enable pve-span", node.root().display()),
    );
    gone(&node, "service-disabled");
    let state = node.path("run/pve-span/state.json");
    watch.signal(nix::sys::signal::Signal::SIGSTOP);
    let text = std::fs::read_to_string(&state).unwrap();
    std::fs::write(
        &state,
        text.replace("\"version\":\"", "\"version\":\"0.0.9-"),
    )
    .unwrap();
    found(
        &node,
        "service-version",
        "warning: the service that runs is of version 0.0.9-0.1.0, and pve-span is 0.1.0\n\
         seen: /run/pve-span/state.json: process N\n\
         do: systemctl restart pve-span",
    );
    watch.kill();
    found(
        &node,
        "service-stopped",
        "warning: the service does not run: between hooks nobody follows what happens to ports, bridges and span.cfg\n\
         seen: /run/pve-span/state.json: process N wrote it last, N s ago; systemctl is-enabled pve-span.service: enabled\n\
         do: systemctl enable --now pve-span",
    );
}

/// Puts a stand-in for nft first into `PATH`, a shell script.
fn with_nft(node: &Node, script: &str) -> std::process::Command {
    let folder = node.path("stand-in");
    std::fs::create_dir_all(&folder).unwrap();
    let nft = folder.join("nft");
    // Written by another process: what this one has open for writing while a test starts a child cannot be run.
    sh(
        node,
        &format!(
            "cat >{0} <<'END'\n#!/bin/sh\n{script}\nEND\nchmod 755 {0}",
            nft.display()
        ),
    );
    let mut command = node.pve_span_command(&["doctor", "--json"]);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", folder.display()));
    command
}

#[test]
fn what_the_kernel_or_nft_lacks_is_told_and_how_bad_it_is_depends_on_who_needs_it() {
    let node = linux_guests(&[vm_on(101, "bridge=vmbr0"), sensor_on(200, "bridge=vmbr0")]);
    fine(&node, "kernel");
    fine(&node, "nft");
    let no_egress = "[ \"$1\" = --version ] && exec /usr/sbin/nft --version\n\
        input=$(cat)\n\
        case $input in *egress*) echo 'Error: Could not process rule: Operation not supported' >&2; exit 1;; esac\n\
        printf '%s\\n' \"$input\" | /usr/sbin/nft \"$@\"";
    found_by(
        with_nft(&node, no_egress),
        &node,
        "kernel-lacks",
        "note: this kernel has no egress hook for nftables (CONFIG_NETFILTER_EGRESS, Linux 5.16 or newer): no session needs it now, but without it only guests and sensors on one Open vSwitch bridge can be mirrored\n\
         seen: tried in a network namespace of its own on Linux RELEASE; nft says: Could not process rule: Operation not supported\n\
         do: boot a kernel of Proxmox VE's or Debian's, 5.16 or newer (proxmox-boot-tool kernel list); or keep guests and sensor on one Open vSwitch bridge",
    );
    apply(&node, DMZ);
    found_by(
        with_nft(&node, no_egress),
        &node,
        "kernel-lacks",
        "error: this kernel has no egress hook for nftables (CONFIG_NETFILTER_EGRESS, Linux 5.16 or newer): session dmz cannot be mirrored\n\
         seen: tried in a network namespace of its own on Linux RELEASE; nft says: Could not process rule: Operation not supported\n\
         do: boot a kernel of Proxmox VE's or Debian's, 5.16 or newer (proxmox-boot-tool kernel list); or keep guests and sensor on one Open vSwitch bridge",
    );
    let old = "echo 'nftables v0.9.8 (E.D.S.)'; exit 1";
    found_by(
        with_nft(&node, old),
        &node,
        "nft-old",
        "error: nft is too old, it does not know the egress hook: session dmz cannot be mirrored\n\
         seen: /stand-in/nft --version says `nftables v0.9.8 (E.D.S.)`; 1.0.1 is the oldest that does\n\
         do: apt install nftables",
    );
    found_by(
        with_nft(&node, "echo hello"),
        &node,
        "nft-unclear",
        "warning: cannot tell which version of nft is installed\n\
         seen: /stand-in/nft --version says `hello`\n\
         do: nft --version",
    );
    found_by(
        with_nft(&node, "sleep 1000"),
        &node,
        "nft-unclear",
        "warning: cannot tell which version of nft is installed\n\
         seen: /stand-in/nft --version timed out after 3 s and was killed\n\
         do: nft --version",
    );
    let not_permitted = "[ \"$1\" = --version ] && exec /usr/sbin/nft --version\n\
        echo 'Error: Could not process rule: Operation not permitted' >&2; exit 1";
    found_by(
        with_nft(&node, not_permitted),
        &node,
        "kernel-unclear",
        "warning: cannot tell whether this kernel has what the nft engine needs\n\
         seen: nft refused the change: Could not process rule: Operation not permitted\n\
         do: nft list hooks; and run pve-span doctor as root on the node itself, not in a container",
    );
    // None at all: its places are covered.
    let mut none = node.command("unshare");
    let binary = lab::binary();
    none.args(["-m", "sh", "-c"]).arg(format!(
        "for nft in /usr/sbin/nft /sbin/nft; do [ ! -e $nft ] || mount --bind /dev/null $nft; done; \
         exec {} doctor --json --root {}",
        binary.display(),
        node.root().display()
    ));
    found_by(
        none,
        &node,
        "nft-missing",
        "error: the program nft is not there: session dmz cannot be mirrored\n\
         seen: not found along PATH, nor in /usr/sbin or /sbin\n\
         do: apt install nftables",
    );
}

#[test]
fn a_database_without_what_mirrors_need_is_told() {
    let node = dmz();
    node.kill_vswitchd();
    node.stop_ovsdb();
    let db = node.path("etc/openvswitch/conf.db");
    let schema = "/usr/share/openvswitch/vswitch.ovsschema";
    let text = std::fs::read_to_string(schema).unwrap();
    let mut less: serde_json::Value = serde_json::from_str(&text).unwrap();
    less["tables"]["Mirror"]["columns"]
        .as_object_mut()
        .unwrap()
        .remove("snaplen");
    let less_path = node.path("less.ovsschema");
    std::fs::write(&less_path, less.to_string()).unwrap();
    sh(
        &node,
        &format!(
            "rm {0}; ovsdb-tool create {0} {1}",
            db.display(),
            less_path.display()
        ),
    );
    node.start_ovsdb();
    found(
        &node,
        "ovs-schema",
        "error: this Open vSwitch's database has no mirrors as pve-span needs them: engine ovs cannot work\n\
         seen: schema N lacks Mirror.snaplen\n\
         do: apt install openvswitch-switch (3.1 or newer), then ovs-vsctl --version",
    );
    gone(&node, "ovs-down");
}

#[test]
fn engine_ovs_without_open_vswitch_is_told() {
    let node = linux_guests(&[vm_on(101, "bridge=vmbr0"), sensor_on(200, "bridge=vmbr0")]);
    fine(&node, "ovs");
    node.span_cfg(&format!("{DMZ}engine = ovs\n"));
    found(
        &node,
        "ovs-absent",
        "error: no Open vSwitch here, and `engine = ovs` asks for it: nothing of dmz is mirrored\n\
         seen: there is no /run/openvswitch/db.sock: Open vSwitch is not installed or not running (systemctl status openvswitch-switch)\n\
         do: leave `engine = ovs` out (pve-span edit); or apt install openvswitch-switch",
    );
}
