//! Mirrors of a living node: an upgrade leaves them alone, and removal takes ours down and puts everything back.

use crate::base::{Kind, base};
use crate::built::{self, NEWER, OLDER};
use crate::chroot::{Chroot, Start};
use crate::lab::{self, Node};
use crate::release::Release;
use crate::scene;
use crate::snippet::{SNIPPET, starts_guest_without_program};

const SPAN_CFG: &str =
    "[lan]\nsource = 103, 300\noutput = 201/net1\n\n[dmz]\nsource = 101\noutput = 200/net1\n";
/// The devices of the outputs.
const OUTPUTS: [&str; 2] = ["tap200i1", "tap201i1"];
const MIRROR: &str = "dmz tap200i1: from tap101i0, to tap101i0";

/// A node with guests on both kinds of bridges, as the chroot's own, and the package installed there.
struct Installed {
    chroot: Chroot,
    node: Node,
    /// The outputs' devices before.
    before: Vec<String>,
}

impl Installed {
    /// With mirrors of both engines up.
    fn new(release: Release) -> Option<Installed> {
        let node = scene::linux::mixed_bridges();
        let chroot = release.chroot(Start::On(&node))?;
        let before = OUTPUTS.map(|device| scene::settings(&node, device)).into();
        built::install(&chroot);
        node.span_cfg(SPAN_CFG);
        let installed = Installed {
            chroot,
            node,
            before,
        };
        installed.chroot.run("pve-span apply");
        installed.assert_mirrors("applied");
        let changed = OUTPUTS.map(|device| scene::settings(&installed.node, device));
        assert!(changed[1] != installed.before[1], "flags and offloads");
        Some(installed)
    }

    /// Both engines' mirrors are up, and what guests say arrives.
    #[track_caller]
    fn assert_mirrors(&self, token: &str) {
        assert_eq!(scene::mirrors(&self.node), [MIRROR]);
        let mut sensor = self.node.capture("201/net1");
        let sent = self.node.exchange("103/net0", "300/net0", token);
        sensor.wait_for(|frame| *frame == sent);
    }

    /// Our table with its handles, and its counters' names; what they have counted grows.
    fn table(&self) -> String {
        self.chroot
            .run("nft --stateless --handle list table netdev pve-span")
    }

    /// How many frames were counted.
    fn counted(&self) -> u64 {
        let text = self.chroot.run("nft list counters table netdev pve-span");
        let words: Vec<&str> = text.split_whitespace().collect();
        let counts = words.windows(2).filter(|pair| pair[0] == "packets");
        counts.map(|pair| pair[1].parse::<u64>().unwrap()).sum()
    }

    /// Nothing of ours is left on the node, and the outputs' devices are as they were.
    #[track_caller]
    fn assert_cleared(&self) {
        assert!(!self.node.nft_list().contains("pve-span"));
        assert_eq!(scene::mirrors(&self.node), Vec::<String>::new());
        let after = OUTPUTS.map(|device| scene::settings(&self.node, device));
        assert_eq!(after.to_vec(), self.before);
    }
}

fn in_both(test: impl Fn(Installed)) {
    for release in [Release::Twelve, Release::Thirteen] {
        if let Some(installed) = Installed::new(release) {
            test(installed);
        }
    }
}

#[test]
fn an_upgrade_and_the_way_back_leave_the_mirrors_alone() {
    in_both(|installed| {
        let (table, counted) = (installed.table(), installed.counted());
        assert!(counted > 0);
        for version in [NEWER, OLDER] {
            built::install_version(&installed.chroot, version);
            assert_eq!(installed.table(), table, "{version}");
            installed.assert_mirrors(version);
        }
        built::install(&installed.chroot);
        assert_eq!(installed.table(), table);
        assert!(installed.counted() > counted, "counters go on");
        let plan = installed.chroot.sh("pve-span plan");
        assert_eq!(plan.code, 0, "nothing is left to do: {}", plan.text);
    });
}

#[test]
fn removal_takes_down_what_is_ours_and_says_so() {
    in_both(|installed| {
        let Installed { chroot, node, .. } = &installed;
        scene::their_mirror(node, &["name=theirs", "select_src_port=@tap101i0"]);
        node.nft("add table netdev theirs; add chain netdev theirs in");
        let said = chroot.run("dpkg -r pve-span");
        installed.assert_cleared();
        assert!(node.mirrors_raw().contains("theirs"), "others' stay");
        assert!(node.nft_list().contains("table netdev theirs"));
        let told: Vec<&str> = said
            .lines()
            .filter(|line| line.starts_with("pve-span: "))
            .collect();
        assert_eq!(
            told,
            [
                "pve-span: dmz: no longer mirrors to 200/net1 (ovs, vmbr2): cleared",
                "pve-span: lan: no longer mirrors to 201/net1 (nft): cleared",
                "pve-span: tap200i1: as before it was an output",
                "pve-span: tap201i1: as before it was an output",
                "pve-span: left: /etc/pve/span.cfg and /etc/pve/span-hooks, which are every node's, and /var/lib/pve-span, which goes with: \
                 apt purge pve-span",
            ],
            "{said}"
        );
        assert!(!chroot.has(SNIPPET), "no guest has it");
        assert!(node.path("etc/pve/span.cfg").exists());
    });
}

#[test]
fn a_guest_that_starts_while_the_package_is_removed_leaves_no_mirror_behind() {
    in_both(|installed| {
        // Its hook comes after prerm has taken the mirrors down, when the program is still there.
        let version = built::version(NEWER, |tree| {
            built::append(
                &tree.join("DEBIAN/prerm"),
                "\n[ \"$1\" != remove ] || /var/lib/vz/snippets/pve-span 101 post-start\n",
            );
        });
        let Installed { chroot, node, .. } = &installed;
        chroot.bring(&version.path().join("pve-span.deb"), "/late.deb");
        chroot.run("dpkg -i /late.deb");
        node.edit(101, |guest| {
            guest.set("hookscript", "local:snippets/pve-span")
        });
        let said = chroot.run("dpkg -r pve-span");
        assert!(
            said.contains("pve-span: dmz: mirrors 101/net0 to 200/net1 (ovs, vmbr2)"),
            "{said}"
        );
        installed.assert_cleared();
        starts_guest_without_program(chroot);
        assert!(!chroot.has("/var/lib/pve-span/pve-span.removed"));
    });
}

#[test]
fn without_room_for_files_mirrors_are_taken_down_all_the_same() {
    in_both(|installed| {
        let Installed { chroot, .. } = &installed;
        chroot.run("mount -t tmpfs -o ro none /tmp");
        chroot.run("dpkg -r pve-span");
        installed.assert_cleared();
        assert!(!chroot.has(SNIPPET), "no guest has it");
    });
}

#[test]
fn what_cannot_be_taken_down_is_told_and_removal_goes_on() {
    in_both(|installed| {
        let Installed { chroot, node, .. } = &installed;
        node.stop_ovsdb();
        let said = chroot.run("dpkg -r pve-span");
        assert!(
            said.contains(
                "pve-span: not all mirrors could be taken down (exit code 1). What may be left on this node, and how to take \
                 it away: nft delete table netdev pve-span; for Open vSwitch's, ovs-vsctl find Mirror \
                 'external_ids:pve-span!=\"\"' and ovs-vsctl -- --id=@m get Mirror NAME -- remove Bridge BRIDGE mirrors @m\n"
            ),
            "{said}"
        );
        assert!(
            !node.nft_list().contains("pve-span"),
            "the other engine's are down"
        );
        assert!(!chroot.has("/usr/bin/pve-span"));
        node.start_ovsdb();
        lab::wait_until("Open vSwitch is back", || !scene::mirrors(node).is_empty());
        // As told.
        let found = node.ovs_vsctl(&[
            "--bare",
            "--columns=name",
            "find",
            "Mirror",
            "external_ids:pve-span!=\"\"",
        ]);
        node.ovs_vsctl(&[
            "--",
            "--id=@m",
            "get",
            "Mirror",
            found.trim(),
            "--",
            "remove",
            "Bridge",
            "vmbr2",
            "mirrors",
            "@m",
        ]);
        assert_eq!(scene::mirrors(node), Vec::<String>::new());
    });
}

#[test]
fn without_nft_and_open_vswitch_removal_has_nothing_to_do() {
    for release in [Release::Twelve, Release::Thirteen] {
        let Some(chroot) = release.chroot(Start::Alone) else {
            continue;
        };
        assert!(base(release, Kind::Plain).join("usr/sbin/nft").exists());
        built::install(&chroot);
        chroot.run("dpkg --force-depends -r nftables");
        let said = chroot.run("dpkg -r pve-span");
        assert!(!said.contains("not all mirrors"), "{said}");
    }
}
