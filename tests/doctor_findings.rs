//! `pve-span doctor`, finding by finding: each condition is made on a node, told with its evidence and its remedy, and gone
//! when the remedy was applied.

#![allow(clippy::unwrap_used)]

mod doctor_lab;
mod lab;
mod scene;

use doctor_lab::{fine, found, found_by, gone, look, qm, sh};
use lab::{Guest, Node, wait_until};
use scene::linux::{linux_guests, sensor_on, vm_on};
use scene::{apply, guests, sensor, their_mirror, three_guests, vm};

const DMZ: &str = "[dmz]\nsource = 101\noutput = 200/net1\n";

fn dmz() -> Node {
    let node = three_guests();
    apply(&node, DMZ);
    node
}

#[test]
fn a_hookscript_that_is_missing_keeps_its_guests_from_starting() {
    let node = dmz();
    node.edit(101, |guest| {
        guest.set("hookscript", "local:snippets/pve-span")
    });
    let finding = found(&node, "snippet-missing", "");
    assert_eq!(finding.remedy, "apt install pve-span");
    node.put_package();
    let finding = found(&node, "snippet-missing", "");
    sh(&node, &finding.remedy);
    fine(&node, "snippet");
    gone(&node, "snippet-missing");
    // A link to a program that has gone.
    let snippet = node.path("var/lib/vz/snippets/pve-span");
    std::fs::remove_file(&snippet).unwrap();
    std::os::unix::fs::symlink("/nowhere/pve-span", &snippet).unwrap();
    let finding = found(&node, "snippet-missing", "");
    sh(&node, &finding.remedy);
    gone(&node, "snippet-missing");
    // Filed elsewhere in the cluster.
    std::fs::remove_file(&snippet).unwrap();
    node.file_under("pve2", 101);
    found(&node, "snippet-missing", "");
}

#[test]
fn a_hookscript_that_cannot_be_called_or_is_not_the_package_s() {
    let node = dmz();
    node.put_package();
    node.edit(101, |guest| {
        guest.set("hookscript", "local:snippets/pve-span")
    });
    sh(&node, &found(&node, "snippet-missing", "").remedy);
    let snippet = node.path("var/lib/vz/snippets/pve-span");
    sh(&node, &format!("chmod 644 {}", snippet.display()));
    let finding = found(&node, "snippet-not-executable", "");
    sh(&node, &finding.remedy);
    gone(&node, "snippet-not-executable");
    std::fs::write(&snippet, "#!/bin/nosuchshell\n").unwrap();
    let finding = found(&node, "snippet-broken", "");
    sh(&node, &finding.remedy);
    gone(&node, "snippet-broken");
    std::fs::write(&snippet, "echo no\n").unwrap();
    found(&node, "snippet-broken", "");
    std::fs::write(&snippet, "#!/bin/sh\nexit 0\n").unwrap();
    found(&node, "snippet-changed", "");
    let old = include_str!("../hookscripts/pve-span").replace("exit 0", "exit  0");
    std::fs::write(&snippet, old).unwrap();
    let finding = found(&node, "snippet-changed", "");
    let command = finding.remedy.split_once(", then ").unwrap().1;
    sh(&node, command);
    gone(&node, "snippet-changed");
    std::fs::remove_file(node.path("usr/bin/pve-span")).unwrap();
    found(&node, "program-missing", "");
}

#[test]
fn a_hookscript_s_storage_has_to_be_there_and_allow_snippets() {
    let node = dmz();
    node.put_package();
    found(&node, "snippet-absent", "");
    node.edit(101, |guest| guest.set("hookscript", "nas:snippets/mine.sh"));
    found(&node, "storage-unknown", "");
    node.pve_file("storage.cfg", "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\ndir: nas\n\tpath /srv/nas\n\tcontent images\n\tnodes pve2\n\n");
    found(&node, "storage-unknown", "");
    node.pve_file("storage.cfg", "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\ndir: nas\n\tpath /srv/nas\n\tcontent images\n\n");
    found(&node, "snippet-missing", "");
    let finding = found(&node, "storage-content", "");
    assert_eq!(finding.remedy, "pvesm set nas --content images,snippets");
    node.pve_file("storage.cfg", "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\ndir: nas\n\tpath /srv/nas\n\tcontent images,snippets\n\n");
    gone(&node, "storage-content");
    let script = node.path("srv/nas/snippets/mine.sh");
    std::fs::create_dir_all(script.parent().unwrap()).unwrap();
    std::fs::write(&script, "#!/bin/sh\novs-vsctl -- --id=@m create mirror name=x \\\n -- set bridge vmbr2 mirrors=@m\n").unwrap();
    sh(&node, &format!("chmod 755 {}", script.display()));
    gone(&node, "snippet-missing");
    fine(&node, "snippet");
    found(&node, "clears-mirrors", "");
    found(&node, "hookscript-foreign", "");
    node.edit(101, |guest| guest.unset("hookscript"));
    node.pve_file(
        "storage.cfg",
        "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\n",
    );
    found(&node, "storage-content", "");
    gone(&node, "clears-mirrors");
}

#[test]
fn what_wipes_mirrors_with_the_network_is_told() {
    let node = dmz();
    std::fs::create_dir_all(node.path("etc/network")).unwrap();
    std::fs::write(
        node.path("etc/network/interfaces"),
        "auto vmbr2\niface vmbr2 inet manual\n\tpost-up ovs-vsctl clear bridge vmbr2 mirrors\n",
    )
    .unwrap();
    found(&node, "clears-mirrors", "");
    std::fs::write(node.path("etc/network/interfaces"), "auto vmbr2\n").unwrap();
    gone(&node, "clears-mirrors");
}

#[test]
fn records_of_chained_hookscripts_that_nobody_uses_are_told() {
    let node = dmz();
    node.put_package();
    std::fs::create_dir(node.path("etc/pve/span-hooks")).unwrap();
    let record = "volume = local:snippets/a.sh\npath = /var/lib/vz/snippets/a.sh\n";
    node.pve_file("span-hooks/101", record);
    let finding = found(&node, "chain-stale", "");
    node.edit(101, |guest| {
        guest.set("hookscript", "local:snippets/pve-span")
    });
    found(&node, "chain-stale", "");
    let script = node.path("var/lib/vz/snippets/a.sh");
    sh(
        &node,
        &format!(
            "printf '#!/bin/sh\\n' >{0}; chmod 755 {0}",
            script.display()
        ),
    );
    gone(&node, "chain-stale");
    node.pve_file("span-hooks/101", "rubbish\n");
    found(&node, "chain-stale", "");
    sh(&node, &finding.remedy);
    gone(&node, "chain-stale");
    node.pve_file("span-hooks/999", record);
    found(&node, "chain-stale", "");
}

#[test]
fn what_keeps_copies_from_a_sensor_is_told() {
    let node = guests(&[
        vm(101, ""),
        sensor(200),
        Guest::vm(201)
            .net(
                0,
                "virtio=BC:24:11:2A:00:C9,bridge=vmbr2,firewall=1,rate=5,link_down=1",
            )
            .set("ipconfig0", "ip=10.0.0.7/24"),
        Guest::ct(202)
            .net(
                0,
                "name=eth0,bridge=vmbr2,hwaddr=BC:24:11:2A:00:CA,ip=dhcp,type=veth",
            )
            .net(
                1,
                "name=eth1,bridge=vmbr2,hwaddr=BC:24:11:2A:00:CB,ip=dhcp,gw=10.0.0.1,type=veth",
            ),
    ]);
    apply(&node, DMZ);
    fine(&node, "sensors");
    node.stop_guest(200);
    found(&node, "sensor-off", "");
    found(&node, "session-degraded", "");
    node.start_guest(200);
    gone(&node, "sensor-off");
    apply(&node, &DMZ.replace("200/net1", "201/net0"));
    set_sensor(&node, found(&node, "sensor-firewall", ""));
    set_sensor(&node, found(&node, "sensor-address", ""));
    set_sensor(&node, found(&node, "sensor-unplugged", ""));
    set_sensor(&node, found(&node, "sensor-rate", ""));
    set_sensor(&node, found(&node, "sensor-only-nic", ""));
    node.stop_guest(201);
    node.span_cfg(&format!(
        "{}engine = ovs\n",
        DMZ.replace("200/net1", "201/net0")
    ));
    node.edit(201, |guest| {
        guest.net(0, "virtio=BC:24:11:2A:00:C9,bridge=vmbr2,firewall=1")
    });
    node.start_guest(201);
    found(&node, "sensor-firewall", "");
    apply(&node, &DMZ.replace("200/net1", "202/net1"));
    let finding = found(&node, "sensor-address", "");
    qm(&node, &finding.remedy);
    gone(&node, "sensor-address");
}

/// Does what the remedy says to guest 201, after which the finding has to be gone.
#[track_caller]
fn set_sensor(node: &Node, finding: doctor_lab::Finding) {
    // What a NIC is plugged into changes with its config.
    node.stop_guest(201);
    qm(node, &finding.remedy);
    node.start_guest(201);
    gone(node, &finding.id);
}

#[test]
fn an_output_that_takes_less_than_its_sources_send_is_told() {
    let node = linux_guests(&[vm_on(101, "bridge=vmbr0"), sensor_on(200, "bridge=vmbr0")]);
    node.ip(&["link set tap101i0 mtu 9000"]);
    apply(&node, DMZ);
    let finding = found(&node, "mtu-smaller", "");
    sh(&node, finding.remedy.split_once(';').unwrap().0);
    gone(&node, "mtu-smaller");
    fine(&node, "mtu");
    node.edit(200, |_| sensor_on(200, "bridge=vmbr0,mtu=1500"));
    let finding = found(&node, "mtu-smaller", "");
    qm(&node, finding.remedy.split_once(';').unwrap().0);
    gone(&node, "mtu-smaller");
}

#[test]
fn a_chain_that_comes_before_ours_is_told() {
    let node = linux_guests(&[vm_on(101, "bridge=vmbr0"), sensor_on(200, "bridge=vmbr0")]);
    apply(&node, DMZ);
    fine(&node, "kernel");
    fine(&node, "nft");
    node.nft("table netdev theirs {\n chain early {\n type filter hook ingress device \"tap101i0\" priority -600;\n drop\n }\n chain late {\n type filter hook ingress device \"tap101i0\" priority 0;\n }\n}\n");
    found(&node, "chain-before", "");
    node.nft("delete table netdev theirs\n");
    gone(&node, "chain-before");
}

#[test]
fn open_vswitch_that_is_full_behind_or_down_is_told() {
    let node = dmz();
    for number in 0..27 {
        their_mirror(&node, &[&format!("name=theirs{number}")]);
    }
    found(&node, "mirror-budget", "");
    for number in 27..32 {
        their_mirror(&node, &[&format!("name=theirs{number}")]);
    }
    found(&node, "mirror-budget", "");
    node.span_cfg(
        "[dmz]\nsource = 101\noutput = 200/net1\n[two]\nsource = 102\noutput = 200/net1\n",
    );
    found(&node, "mirror-budget", "");
    node.ovs_vsctl(&["clear", "bridge", "vmbr2", "mirrors"]);
    gone(&node, "mirror-budget");
    found(&node, "plan-pending", "");
    node.ovs_vsctl(&["set", "Open_vSwitch", ".", "other_config:hw-offload=true"]);
    found(&node, "ovs-offload", "");
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
    found(&node, "dpdk-port", "");
    node.ovs_vsctl(&["del-port", "dpdk0"]);
    gone(&node, "dpdk-port");
    node.kill_vswitchd();
    node.ovs_vsctl(&["set", "Open_vSwitch", ".", "next_cfg=1000"]);
    found(&node, "ovs-behind", "");
    std::fs::write(node.path("run/openvswitch/ovs-vswitchd.pid"), "999999999\n").unwrap();
    found(&node, "ovs-behind", "");
    std::fs::remove_file(node.path("run/openvswitch/ovs-vswitchd.pid")).unwrap();
    node.start_vswitchd();
    gone(&node, "ovs-behind");
    node.kill_ovsdb();
    found(&node, "ovs-down", "");
    node.start_ovsdb();
    gone(&node, "ovs-down");
    node.span_cfg("# nothing\n");
    node.edit(102, |_| vm(102, "").net(1, "virtio,bridge=vmbr7"));
    found(&node, "bridge-missing", "");
}

#[test]
fn what_is_in_force_is_told() {
    let node = three_guests();
    found(&node, "cfg-missing", "");
    apply(&node, DMZ);
    fine(&node, "cfg");
    node.span_cfg("[dmz]\nsouce = 101\noutput = 200/net1\n");
    found(&node, "cfg-faults", "");
    found(&node, "last-good-copy", "");
    node.span_cfg(&format!("{DMZ}filter = tcp\nsnaplen = 64\n"));
    found(&node, "cfg-unsupported", "");
    node.span_cfg("[dmz]\nsource = 101, 105\noutput = 200/net1\n[off]\nsource = 101\noutput = 200/net1\nenabled = no\n[past]\nsource = 101\noutput = 200/net1\nexpires = 2020-01-01T00:00Z\n[none]\nsource = tag:none\noutput = 200/net1\n");
    found(&node, "cfg-warnings", "");
    found(&node, "session-over", "");
    found(&node, "session-empty", "");
    node.unmount_pve();
    found(&node, "pve-unmounted", "");
    found(&node, "last-good-copy", "");
    std::fs::remove_file(node.path("var/lib/pve-span/span.cfg")).unwrap();
    found(&node, "nothing-in-force", "");
    node.mount_pve();
    apply(&node, DMZ);
    node.edit(102, |guest| {
        guest.net(3, "superfast=BC:24:11:2A:00:99,bridge=vmbr2")
    });
    found(&node, "guest-config", "");
}

#[test]
fn a_service_that_does_not_run_or_come_back_is_told() {
    let node = dmz();
    found(&node, "service-stopped", "");
    found(&node, "source-unattached", "");
    let watch = node.watch();
    wait_until("the service is known", || {
        look(&node)
            .1
            .iter()
            .all(|finding| finding.id != "service-stopped")
    });
    found(&node, "source-unattached", "");
    found(&node, "service-disabled", "");
    let unit = node.path("etc/systemd/system/pve-span.service");
    std::fs::create_dir_all(unit.parent().unwrap()).unwrap();
    std::fs::write(&unit, include_str!("../pve-config/pve-span.service")).unwrap();
    found(&node, "service-disabled", "");
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
    found(&node, "service-version", "");
    watch.kill();
    found(&node, "service-stopped", "");
}

#[test]
fn guests_that_no_mirror_of_this_node_reaches_are_told() {
    let node = guests(&[
        vm(101, ""),
        vm(102, ""),
        vm(103, "").set("hostpci0", "0000:01:00"),
        sensor(200),
    ]);
    apply(&node, "[dmz]\nsource = 101-103\noutput = 200/net1\n");
    found(&node, "passthrough", "");
    node.stop_guest(102);
    node.file_under("pve2", 102);
    found(&node, "source-elsewhere", "");
    node.file_under("pve1", 102);
    gone(&node, "source-elsewhere");
    node.stop_guest(200);
    node.file_under("pve2", 200);
    found(&node, "sensor-elsewhere", "");
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
    found_by(with_nft(&node, no_egress), &node, "kernel-lacks", "");
    apply(&node, DMZ);
    found_by(with_nft(&node, no_egress), &node, "kernel-lacks", "");
    let old = "echo 'nftables v0.9.8 (E.D.S.)'; exit 1";
    found_by(with_nft(&node, old), &node, "nft-old", "");
    found_by(with_nft(&node, "echo hello"), &node, "nft-unclear", "");
    found_by(with_nft(&node, "sleep 1000"), &node, "nft-unclear", "");
    let not_permitted = "[ \"$1\" = --version ] && exec /usr/sbin/nft --version\n\
        echo 'Error: Could not process rule: Operation not permitted' >&2; exit 1";
    found_by(with_nft(&node, not_permitted), &node, "kernel-unclear", "");
    // None at all: its places are covered.
    let mut none = node.command("unshare");
    let binary = lab::binary();
    none.args(["-m", "sh", "-c"]).arg(format!(
        "for nft in /usr/sbin/nft /sbin/nft; do [ ! -e $nft ] || mount --bind /dev/null $nft; done; \
         exec {} doctor --json --root {}",
        binary.display(),
        node.root().display()
    ));
    found_by(none, &node, "nft-missing", "");
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
    found(&node, "ovs-schema", "");
    gone(&node, "ovs-down");
}

#[test]
fn engine_ovs_without_open_vswitch_is_told() {
    let node = linux_guests(&[vm_on(101, "bridge=vmbr0"), sensor_on(200, "bridge=vmbr0")]);
    fine(&node, "ovs");
    node.span_cfg(&format!("{DMZ}engine = ovs\n"));
    found(&node, "ovs-absent", "");
}
