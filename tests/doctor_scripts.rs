//! `pve-span doctor`, finding by finding: hookscripts, their storages, and other people's scripts.
//! Each condition is made on a node, told with its evidence and its remedy, and gone when the remedy was applied.

#![allow(clippy::unwrap_used)]

mod doctor_lab;
mod lab;
mod scene;

use doctor_lab::{fine, found, gone, sh};
use lab::Node;
use scene::{apply, three_guests};

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
    let broken = |text: &[u8], why: &str| {
        std::fs::write(&snippet, text).unwrap();
        found(
            &node,
            "snippet-broken",
            &format!(
                "error: guest 101 does not start here: the hookscript local:snippets/pve-span cannot run\n\
             seen: /etc/pve/nodes/pve1/qemu-server/101.conf: hookscript: local:snippets/pve-span; /var/lib/vz/snippets/pve-span: {why}\n\
             do: mkdir -p /var/lib/vz/snippets && install -m 755 /usr/share/pve-span/hookscript /var/lib/vz/snippets/pve-span",
            ),
        );
    };
    broken(b"\0\x01\0", "it is neither a program nor a script");
    broken(
        b"#!/bin/sh\r\nexit 0\r\n",
        "its first line asks for /bin/sh\\r, which is not there (its lines end as on Windows: sed -i 's/\\r$//' mends that)",
    );
    // Perl's exec leaves a script without a first line of that kind to /bin/sh.
    std::fs::write(&snippet, "exit 0\n").unwrap();
    gone(&node, "snippet-broken");
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
         do: ovs-vsctl -- --id=@m create mirror … -- add bridge BRIDGE mirrors @m adds one, ovs-vsctl -- --id=@m get mirror NAME -- remove bridge BRIDGE mirrors @m removes one; or let pve-span do it (pve-span import)",
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
         do: ovs-vsctl -- --id=@m create mirror … -- add bridge BRIDGE mirrors @m adds one, ovs-vsctl -- --id=@m get mirror NAME -- remove bridge BRIDGE mirrors @m removes one; or let pve-span do it (pve-span import)",
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
