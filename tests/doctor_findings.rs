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
    let finding = found(
        &node,
        "snippet-missing",
        "error: guest 101 does not start here: the hookscript local:snippets/pve-span is missing\n\
         seen: /etc/pve/nodes/pve1/qemu-server/101.conf: hookscript: local:snippets/pve-span; there is no /var/lib/vz/snippets/pve-span\n\
         do: apt install pve-span",
    );
    assert_eq!(finding.remedy, "apt install pve-span");
    node.put_package();
    let finding = found(
        &node,
        "snippet-missing",
        "error: guest 101 does not start here: the hookscript local:snippets/pve-span is missing\n\
         seen: /etc/pve/nodes/pve1/qemu-server/101.conf: hookscript: local:snippets/pve-span; there is no /var/lib/vz/snippets/pve-span\n\
         do: mkdir -p /var/lib/vz/snippets && install -m 755 /usr/share/pve-span/hookscript /var/lib/vz/snippets/pve-span",
    );
    sh(&node, &finding.remedy);
    fine(&node, "snippet");
    gone(&node, "snippet-missing");
    // A link to a program that has gone.
    let snippet = node.path("var/lib/vz/snippets/pve-span");
    std::fs::remove_file(&snippet).unwrap();
    std::os::unix::fs::symlink("/nowhere/pve-span", &snippet).unwrap();
    let finding = found(
        &node,
        "snippet-missing",
        "error: guest 101 does not start here: the hookscript local:snippets/pve-span is missing\n\
         seen: /etc/pve/nodes/pve1/qemu-server/101.conf: hookscript: local:snippets/pve-span; /var/lib/vz/snippets/pve-span is a link to /nowhere/pve-span, which is not there\n\
         do: mkdir -p /var/lib/vz/snippets && install -m 755 /usr/share/pve-span/hookscript /var/lib/vz/snippets/pve-span",
    );
    sh(&node, &finding.remedy);
    gone(&node, "snippet-missing");
    // Filed elsewhere in the cluster.
    std::fs::remove_file(&snippet).unwrap();
    node.file_under("pve2", 101);
    found(
        &node,
        "snippet-missing",
        "error: guest 101 could not start here, nor be migrated here: the hookscript local:snippets/pve-span is missing\n\
         seen: /etc/pve/nodes/pve2/qemu-server/101.conf: hookscript: local:snippets/pve-span; there is no /var/lib/vz/snippets/pve-span\n\
         do: mkdir -p /var/lib/vz/snippets && install -m 755 /usr/share/pve-span/hookscript /var/lib/vz/snippets/pve-span",
    );
    // Somebody else's script, of a guest that is elsewhere.
    node.edit(101, |guest| {
        guest.set("hookscript", "local:snippets/theirs.sh")
    });
    found(
        &node,
        "snippet-missing",
        "warning: guest 101 could not start here, nor be migrated here: the hookscript local:snippets/theirs.sh is missing\n\
         seen: /etc/pve/nodes/pve2/qemu-server/101.conf: hookscript: local:snippets/theirs.sh; there is no /var/lib/vz/snippets/theirs.sh\n\
         do: put the script back; or, for each guest: qm set 101 --delete hookscript",
    );
}

#[test]
fn a_link_to_the_program_and_a_script_that_calls_it_will_do() {
    let node = dmz();
    node.put_package();
    let folder = node.path("var/lib/vz/snippets");
    std::os::unix::fs::symlink(node.path("usr/bin/pve-span"), folder.join("pve-span")).unwrap();
    sh(
        &node,
        &format!(
            "cd {}; printf '#!/bin/sh\\npve-span hook \"$1\" \"$2\"\\n' >own.sh; chmod 755 own.sh",
            folder.display()
        ),
    );
    node.edit(101, |guest| {
        guest.set("hookscript", "local:snippets/pve-span")
    });
    node.edit(200, |guest| {
        guest.set("hookscript", "local:snippets/own.sh")
    });
    for id in ["snippet-changed", "hookscript-foreign", "source-unattached"] {
        gone(&node, id);
    }
    fine(&node, "source-unattached");
}

#[test]
fn a_hookscript_that_cannot_be_called_or_is_not_the_package_s() {
    let node = dmz();
    node.put_package();
    node.edit(101, |guest| {
        guest.set("hookscript", "local:snippets/pve-span")
    });
    sh(&node, &found(&node, "snippet-missing", "error: guest 101 does not start here: the hookscript local:snippets/pve-span is missing\n\
         seen: /etc/pve/nodes/pve1/qemu-server/101.conf: hookscript: local:snippets/pve-span; there is no /var/lib/vz/snippets/pve-span\n\
         do: mkdir -p /var/lib/vz/snippets && install -m 755 /usr/share/pve-span/hookscript /var/lib/vz/snippets/pve-span").remedy);
    let snippet = node.path("var/lib/vz/snippets/pve-span");
    sh(&node, &format!("chmod 644 {}", snippet.display()));
    let finding = found(
        &node,
        "snippet-not-executable",
        "error: guest 101 does not start here: the hookscript local:snippets/pve-span may not be executed\n\
         seen: /etc/pve/nodes/pve1/qemu-server/101.conf: hookscript: local:snippets/pve-span; /var/lib/vz/snippets/pve-span has no x bit\n\
         do: chmod 755 /var/lib/vz/snippets/pve-span",
    );
    sh(&node, &finding.remedy);
    gone(&node, "snippet-not-executable");
    std::fs::write(&snippet, "#!/bin/nosuchshell\n").unwrap();
    let finding = found(
        &node,
        "snippet-broken",
        "error: guest 101 does not start here: the hookscript local:snippets/pve-span cannot run\n\
         seen: /etc/pve/nodes/pve1/qemu-server/101.conf: hookscript: local:snippets/pve-span; /var/lib/vz/snippets/pve-span: its first line asks for /bin/nosuchshell, which is not there\n\
         do: mkdir -p /var/lib/vz/snippets && install -m 755 /usr/share/pve-span/hookscript /var/lib/vz/snippets/pve-span",
    );
    sh(&node, &finding.remedy);
    gone(&node, "snippet-broken");
    std::fs::write(&snippet, "echo no\n").unwrap();
    found(
        &node,
        "snippet-broken",
        "error: guest 101 does not start here: the hookscript local:snippets/pve-span cannot run\n\
         seen: /etc/pve/nodes/pve1/qemu-server/101.conf: hookscript: local:snippets/pve-span; /var/lib/vz/snippets/pve-span: it is neither a program nor a script that begins with #! and an interpreter\n\
         do: mkdir -p /var/lib/vz/snippets && install -m 755 /usr/share/pve-span/hookscript /var/lib/vz/snippets/pve-span",
    );
    std::fs::write(&snippet, "#!/bin/sh\nexit 0\n").unwrap();
    found(
        &node,
        "snippet-changed",
        "warning: the hookscript local:snippets/pve-span is not pve-span's, but somebody's own script: it may do anything, and may keep guests from starting\n\
         seen: /var/lib/vz/snippets/pve-span is not what pve-span 0.1.0 comes with\n\
         do: look at it, move it away if it is still wanted, then mkdir -p /var/lib/vz/snippets && install -m 755 /usr/share/pve-span/hookscript /var/lib/vz/snippets/pve-span",
    );
    let old = include_str!("../hookscripts/pve-span").replace("exit 0", "exit  0");
    std::fs::write(&snippet, old).unwrap();
    let finding = found(
        &node,
        "snippet-changed",
        "warning: the hookscript local:snippets/pve-span is another version's snippet: it may not do what this version documents\n\
         seen: /var/lib/vz/snippets/pve-span is not what pve-span 0.1.0 comes with\n\
         do: look at it, move it away if it is still wanted, then mkdir -p /var/lib/vz/snippets && install -m 755 /usr/share/pve-span/hookscript /var/lib/vz/snippets/pve-span",
    );
    let command = finding.remedy.split_once(", then ").unwrap().1;
    sh(&node, command);
    gone(&node, "snippet-changed");
    std::fs::remove_file(node.path("usr/bin/pve-span")).unwrap();
    found(
        &node,
        "program-missing",
        "warning: the hookscript local:snippets/pve-span finds no pve-span here: guest 101 starts, but no hook mirrors anything\n\
         seen: there is no pve-span in /usr/bin, /usr/local/bin, /usr/sbin or /usr/local/sbin\n\
         do: apt install pve-span",
    );
}

#[test]
fn a_hookscript_s_storage_has_to_be_there_and_allow_snippets() {
    let node = dmz();
    node.put_package();
    found(
        &node,
        "snippet-absent",
        "note: there is no snippet here, and no guest refers to one: only the service and pve-span apply do anything\n\
         seen: there is no /var/lib/vz/snippets/pve-span\n\
         do: mkdir -p /var/lib/vz/snippets && install -m 755 /usr/share/pve-span/hookscript /var/lib/vz/snippets/pve-span",
    );
    node.edit(101, |guest| guest.set("hookscript", "nas:snippets/mine.sh"));
    found(
        &node,
        "storage-unknown",
        "error: guest 101 does not start here: there is no place for the hookscript nas:snippets/mine.sh\n\
         seen: /etc/pve/nodes/pve1/qemu-server/101.conf: hookscript: nas:snippets/mine.sh; there is no storage `nas`\n\
         do: qm set 101 --delete hookscript",
    );
    node.pve_file("storage.cfg", "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\ndir: nas\n\tpath /srv/nas\n\tcontent images\n\tnodes pve2\n\n");
    found(
        &node,
        "storage-unknown",
        "error: guest 101 does not start here: this node does not have the storage of the hookscript nas:snippets/mine.sh\n\
         seen: /etc/pve/nodes/pve1/qemu-server/101.conf: hookscript: nas:snippets/mine.sh; /etc/pve/storage.cfg: nas: `nodes` does not name this node\n\
         do: pvesm set STORAGE --nodes … with this node among them; or keep the snippet on local",
    );
    node.pve_file("storage.cfg", "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\ndir: nas\n\tpath /srv/nas\n\tcontent images\n\n");
    found(
        &node,
        "snippet-missing",
        "error: guest 101 does not start here: the hookscript nas:snippets/mine.sh is missing\n\
         seen: /etc/pve/nodes/pve1/qemu-server/101.conf: hookscript: nas:snippets/mine.sh; there is no /srv/nas/snippets/mine.sh\n\
         do: put the script back; or, for each guest: qm set 101 --delete hookscript",
    );
    let finding = found(
        &node,
        "storage-content",
        "warning: the storage nas does not allow snippets, and hookscripts are on it: Proxmox VE does not list them there, and may refuse them\n\
         seen: /etc/pve/storage.cfg, nas: `content` lacks `snippets`\n\
         do: pvesm set nas --content images,snippets",
    );
    assert_eq!(finding.remedy, "pvesm set nas --content images,snippets");
    node.pve_file("storage.cfg", "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\ndir: nas\n\tpath /srv/nas\n\tcontent images,snippets\n\n");
    gone(&node, "storage-content");
    let script = node.path("srv/nas/snippets/mine.sh");
    std::fs::create_dir_all(script.parent().unwrap()).unwrap();
    std::fs::write(&script, "#!/bin/sh\novs-vsctl -- --id=@m create mirror name=x \\\n -- set bridge vmbr2 mirrors=@m\n").unwrap();
    sh(&node, &format!("chmod 755 {}", script.display()));
    gone(&node, "snippet-missing");
    fine(&node, "snippet");
    found(
        &node,
        "clears-mirrors",
        "warning: /srv/nas/snippets/mine.sh sets or clears all mirrors of a bridge, other people's and pve-span's with them: each run of it blinds sensors\n\
         seen: line 2: ovs-vsctl -- --id=@m create mirror name=x \\\n\
         do: ovs-vsctl -- --id=@m create mirror … -- add bridge BRIDGE mirrors @m adds one, ovs-vsctl remove bridge BRIDGE mirrors NAME removes one; or let pve-span do it (pve-span import)",
    );
    found(
        &node,
        "hookscript-foreign",
        "warning: guest 101 has another hookscript than pve-span's: no service runs either, so after a start nothing is mirrored until pve-span apply\n\
         seen: /etc/pve/nodes/pve1/qemu-server/101.conf: hookscript: nas:snippets/mine.sh\n\
         do: pve-span attach 101 --chain",
    );
    node.edit(101, |guest| guest.unset("hookscript"));
    node.pve_file(
        "storage.cfg",
        "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\n",
    );
    found(
        &node,
        "storage-content",
        "note: the storage local does not allow snippets, and nor does any other: Proxmox VE does not list them there, and may refuse them\n\
         seen: /etc/pve/storage.cfg, local: `content` lacks `snippets`\n\
         do: pvesm set local --content iso,snippets",
    );
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
    found(
        &node,
        "clears-mirrors",
        "warning: /etc/network/interfaces sets or clears all mirrors of a bridge, other people's and pve-span's with them: each run of it blinds sensors\n\
         seen: line 3: post-up ovs-vsctl clear bridge vmbr2 mirrors\n\
         do: ovs-vsctl -- --id=@m create mirror … -- add bridge BRIDGE mirrors @m adds one, ovs-vsctl remove bridge BRIDGE mirrors NAME removes one; or let pve-span do it (pve-span import)",
    );
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
    let finding = found(
        &node,
        "chain-stale",
        "warning: a record of a chained hookscript is left of guest 101, which does not call pve-span\n\
         seen: /etc/pve/span-hooks/101: local:snippets/a.sh; /etc/pve/nodes/pve1/qemu-server/101.conf: hookscript: none\n\
         do: rm /etc/pve/span-hooks/101",
    );
    node.edit(101, |guest| {
        guest.set("hookscript", "local:snippets/pve-span")
    });
    found(
        &node,
        "chain-stale",
        "error: the hookscript local:snippets/a.sh that guest 101 had before pve-span's cannot be called here\n\
         seen: /etc/pve/span-hooks/101; /var/lib/vz/snippets/a.sh is no file that may be executed\n\
         do: put the script back; or rm /etc/pve/span-hooks/101 to do without it",
    );
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
    found(
        &node,
        "chain-stale",
        "warning: nobody can tell which hookscript guest 101 shall have besides pve-span's\n\
         seen: /etc/pve/span-hooks/101 is not understood: `rubbish` is neither `volume = …` nor `path = …`\n\
         do: pve-span detach 101, or rm /etc/pve/span-hooks/101",
    );
    sh(&node, &finding.remedy);
    gone(&node, "chain-stale");
    node.pve_file("span-hooks/999", record);
    found(
        &node,
        "chain-stale",
        "warning: a record of a chained hookscript is left of guest 999, which is gone\n\
         seen: /etc/pve/span-hooks/999: local:snippets/a.sh\n\
         do: rm /etc/pve/span-hooks/999",
    );
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
    found(
        &node,
        "sensor-off",
        "warning: the sensor 200 (sensor) does not run: what session dmz mirrors gets nowhere\n\
         seen: 200/net1 has no port on any bridge of this node\n\
         do: qm start 200",
    );
    found(
        &node,
        "session-degraded",
        "warning: session dmz is degraded: something that it should mirror is not mirrored\n\
         seen: not in force yet: see pve-span plan, then pve-span apply; nothing is mirrored to 200/net1: guest 200 is not running on this node\n\
         do: pve-span status",
    );
    node.start_guest(200);
    gone(&node, "sensor-off");
    apply(&node, &DMZ.replace("200/net1", "201/net0"));
    set_sensor(
        &node,
        found(
            &node,
            "sensor-firewall",
            "note: the sensor's 201/net0 is behind its firewall bridge: engine nft delivers past it, Open vSwitch could not\n\
         seen: tap201i0 is a port of fwbr201i0; /etc/pve/nodes/pve1/qemu-server/201.conf: firewall=1\n\
         do: qm set 201 --net0 virtio=BC:24:11:2A:00:C9,bridge=vmbr2,rate=5,link_down=1",
        ),
    );
    set_sensor(
        &node,
        found(
            &node,
            "sensor-address",
            "warning: the sensor's 201/net0 has an IP configuration, and as an output it is cut off from the network: the guest would use an address that answers nobody\n\
         seen: /etc/pve/nodes/pve1/qemu-server/201.conf: ipconfig0: ip=10.0.0.7/24\n\
         do: qm set 201 --delete ipconfig0",
        ),
    );
    set_sensor(
        &node,
        found(
            &node,
            "sensor-unplugged",
            "error: the sensor's 201/net0 is unplugged (link_down=1): the guest sees no frame\n\
         seen: /etc/pve/nodes/pve1/qemu-server/201.conf: net0: link_down=1\n\
         do: qm set 201 --net0 virtio=BC:24:11:2A:00:C9,bridge=vmbr2,rate=5",
        ),
    );
    set_sensor(
        &node,
        found(
            &node,
            "sensor-rate",
            "warning: the sensor's 201/net0 is limited to 5 MB/s: copies beyond that are dropped\n\
         seen: /etc/pve/nodes/pve1/qemu-server/201.conf: net0: rate=5\n\
         do: qm set 201 --net0 virtio=BC:24:11:2A:00:C9,bridge=vmbr2",
        ),
    );
    set_sensor(
        &node,
        found(
            &node,
            "sensor-only-nic",
            "warning: the sensor 201 has no other NIC than 201/net0, which as an output is cut off from the network: nobody can reach it\n\
         seen: /etc/pve/nodes/pve1/qemu-server/201.conf: only net0\n\
         do: qm set 201 --net1 virtio,bridge=vmbr2",
        ),
    );
    node.stop_guest(201);
    node.span_cfg(&format!(
        "{}engine = ovs\n",
        DMZ.replace("200/net1", "201/net0")
    ));
    node.edit(201, |guest| {
        guest.net(0, "virtio=BC:24:11:2A:00:C9,bridge=vmbr2,firewall=1")
    });
    node.start_guest(201);
    found(
        &node,
        "sensor-firewall",
        "error: the sensor's 201/net0 is behind its firewall bridge, which drops copies, and session dmz leaves engine nft out, which would deliver past it\n\
         seen: tap201i0 is a port of fwbr201i0; /etc/pve/nodes/pve1/qemu-server/201.conf: firewall=1\n\
         do: qm set 201 --net0 virtio=BC:24:11:2A:00:C9,bridge=vmbr2; or leave `engine = ovs` out of span.cfg",
    );
    apply(&node, &DMZ.replace("200/net1", "202/net1"));
    let finding = found(
        &node,
        "sensor-address",
        "warning: the sensor's 202/net1 has an IP configuration, and as an output it is cut off from the network: the guest would use an address that answers nobody\n\
         seen: /etc/pve/nodes/pve1/lxc/202.conf: net1: ip=dhcp\n\
         do: pct set 202 --net1 name=eth1,bridge=vmbr2,hwaddr=BC:24:11:2A:00:CB,type=veth",
    );
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
    let finding = found(
        &node,
        "mtu-smaller",
        "warning: session dmz: frames above 1500 bytes may be lost on the way to 200/net1, and its sources send up to 9000\n\
         seen: tap101i0 has MTU 9000, tap200i1 has MTU 1500\n\
         do: ip link set tap200i1 mtu 9000; to last, `mtu 9000` for its bridge in /etc/network/interfaces; the sensor has to take such frames, too",
    );
    sh(&node, finding.remedy.split_once(';').unwrap().0);
    gone(&node, "mtu-smaller");
    fine(&node, "mtu");
    node.edit(200, |_| sensor_on(200, "bridge=vmbr0,mtu=1500"));
    let finding = found(
        &node,
        "mtu-smaller",
        "warning: session dmz: frames above 1500 bytes may be lost on the way to 200/net1, and its sources send up to 9000\n\
         seen: tap101i0 has MTU 9000, /etc/pve/nodes/pve1/qemu-server/200.conf has net1: mtu=1500\n\
         do: qm set 200 --net1 virtio=BC:24:11:2A:01:C8,bridge=vmbr0,mtu=9000; the sensor has to take such frames, too",
    );
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
         do: use fewer sessions or outputs on this bridge, or `engine = nft`; ovs-vsctl list mirror shows whose they are",
    );
    for number in 27..32 {
        their_mirror(&node, &[&format!("name=theirs{number}")]);
    }
    found(
        &node,
        "mirror-budget",
        "error: vmbr2 has no room for all of its mirrors: Open vSwitch allows 32 a bridge\n\
         seen: 33 of 32 mirrors, 32 of them not pve-span's; 33 with what is planned\n\
         do: use fewer sessions or outputs on this bridge, or `engine = nft`; ovs-vsctl list mirror shows whose they are",
    );
    node.span_cfg(
        "[dmz]\nsource = 101\noutput = 200/net1\n[two]\nsource = 102\noutput = 200/net1\n",
    );
    found(
        &node,
        "mirror-budget",
        "error: vmbr2 has no room for all of its mirrors: Open vSwitch allows 32 a bridge\n\
         seen: 33 of 32 mirrors, 32 of them not pve-span's; 34 with what is planned\n\
         do: use fewer sessions or outputs on this bridge, or `engine = nft`; ovs-vsctl list mirror shows whose they are",
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

#[test]
fn guests_that_no_mirror_of_this_node_reaches_are_told() {
    let node = guests(&[
        vm(101, ""),
        vm(102, ""),
        vm(103, "").set("hostpci0", "0000:01:00"),
        sensor(200),
    ]);
    apply(&node, "[dmz]\nsource = 101-103\noutput = 200/net1\n");
    found(
        &node,
        "passthrough",
        "note: guest 103 has devices of the node for itself: if one of them is a network card, no mirror on this node sees its frames\n\
         seen: /etc/pve/nodes/pve1/qemu-server/103.conf: hostpci0\n\
         do: give it a NIC on a bridge instead, or mirror on the physical switch",
    );
    node.stop_guest(102);
    node.file_under("pve2", 102);
    found(
        &node,
        "source-elsewhere",
        "warning: session dmz: 102/net0 is on another node than the sensor, and not mirrored to 200/net1 (tunnels are not there yet)\n\
         seen: /etc/pve/nodes/pve2/qemu-server/102.conf; the sensor is here, on pve1\n\
         do: a sensor on each node; or qm migrate 102 pve1 --online",
    );
    node.file_under("pve1", 102);
    gone(&node, "source-elsewhere");
    node.stop_guest(200);
    node.file_under("pve2", 200);
    found(
        &node,
        "sensor-elsewhere",
        "warning: session dmz: the sensor 200/net1 is on node pve2, and 101/net0, 102/net0 and 103/net0 of this node are not mirrored to it (tunnels are not there yet)\n\
         seen: /etc/pve/nodes/pve2/qemu-server/200.conf; /etc/pve/nodes/pve1/qemu-server/101.conf\n\
         do: a sensor on each node; or, on pve2: qm migrate 200 pve1 --online",
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
         seen: /stand-in/nft --version was not through within 3 s, and has been ended\n\
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
