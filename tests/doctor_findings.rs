//! `pve-span doctor`, finding by finding: each condition is made on a node, told with its evidence and its remedy, and gone
//! when the remedy was applied.

#![allow(clippy::unwrap_used)]

mod doctor_lab;
mod lab;
mod scene;

use doctor_lab::{fine, found, gone, look, qm, sh};
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
fn a_hookscript_that_is_missing() {
    let node = dmz();
    node.edit(101, |guest| {
        guest.set("hookscript", "local:snippets/pve-span")
    });
    let finding = found(&node, "snippet-missing", "");
    // Nothing to put there.
    let _ = finding;
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
fn a_hookscript_that_may_not_be_executed() {
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
fn storages() {
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
fn clearing_elsewhere() {
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
fn chained() {
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
fn sensors() {
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
    for (id, key) in [
        ("sensor-firewall", ""),
        ("sensor-address", ""),
        ("sensor-unplugged", ""),
        ("sensor-rate", ""),
        ("sensor-only-nic", ""),
    ] {
        let finding = found(&node, id, key);
        // What a NIC is plugged into changes with its config.
        node.stop_guest(201);
        qm(&node, &finding.remedy);
        node.start_guest(201);
        gone(&node, id);
    }
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

#[test]
fn sizes() {
    let node = linux_guests(&[vm_on(101, "bridge=vmbr0"), sensor_on(200, "bridge=vmbr0")]);
    node.ip(&["link set tap101i0 mtu 9000"]);
    apply(&node, DMZ);
    let finding = found(&node, "mtu-smaller", "");
    sh(&node, finding.remedy.split_once(',').unwrap().0);
    gone(&node, "mtu-smaller");
    fine(&node, "mtu");
    node.edit(200, |_| sensor_on(200, "bridge=vmbr0,mtu=1500"));
    found(&node, "mtu-smaller", "");
}

#[test]
fn kernel_and_nft() {
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
fn ovs() {
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
    sh_vsctl(&node, &["clear", "bridge", "vmbr2", "mirrors"]);
    gone(&node, "mirror-budget");
    found(&node, "plan-pending", "");
    sh_vsctl(
        &node,
        &["set", "Open_vSwitch", ".", "other_config:hw-offload=true"],
    );
    found(&node, "ovs-offload", "");
    sh_vsctl(
        &node,
        &["remove", "Open_vSwitch", ".", "other_config", "hw-offload"],
    );
    gone(&node, "ovs-offload");
    node.kill_vswitchd();
    sh_vsctl(&node, &["set", "Open_vSwitch", ".", "next_cfg=1000"]);
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

fn sh_vsctl(node: &Node, args: &[&str]) {
    node.ovs_vsctl(args);
}

#[test]
fn file() {
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
fn service() {
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
fn elsewhere() {
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
