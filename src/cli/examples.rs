//! Calls that people begin with, for `--help` and the man pages: a line each, the call, two blanks or more, and what it does.

/// Of pve-span itself.
pub const FIRST: &str = "Examples:\n  pve-span init    a first span.cfg, all comments\n  pve-span edit    change it: checked, planned, asked\n  pve-span status  is everything mirrored, and by which engine?\n  pve-span doctor  is anything in the way?";

/// Of `hook`.
pub const HOOK: &str = "Examples:\n  pve-span 101 post-start     as Proxmox VE calls it\n  pve-span hook 101 pre-stop  the same with the command's name";

/// Of `check`.
pub const CHECK: &str = "Examples:\n  pve-span check                the file that is in force\n  pve-span check /root/new.cfg  another one, before it is put in place; not only for root";

/// Of `plan`.
pub const PLAN: &str = "Examples:\n  pve-span plan         what would be changed here\n  pve-span plan --json  for programs";

/// Of `apply`.
pub const APPLY: &str = "Examples:\n  pve-span apply  what span.cfg asks for, now";

/// Of `clear`.
pub const CLEAR: &str = "Examples:\n  pve-span clear dmz    the mirrors of session dmz\n  pve-span clear --all  all of ours, whatever span.cfg says";

/// Of `status`.
pub const STATUS: &str = "Examples:\n  pve-span status           each session\n  pve-span status --events  what happened lately, and who did it";

/// Of `ports`.
pub const PORTS: &str = "Examples:\n  pve-span ports  each guest NIC of this node";

/// Of `attach`.
pub const ATTACH: &str = "Examples:\n  pve-span attach 101 tag:web            guest 101, and those with the tag\n  pve-span attach --all-sources          every guest that is mirrored\n  pve-span attach all --chain --dry-run  what would be called, with other hookscripts kept";

/// Of `detach`.
pub const DETACH: &str = "Examples:\n  pve-span detach 101    guest 101\n  pve-span detach --all  every guest that has it";

/// Of `explain`.
pub const EXPLAIN: &str = "Examples:\n  pve-span explain 101                each NIC of guest 101\n  pve-span explain 101/net0 200/net1  one of them, and what arrives at a sensor's";

/// Of `init`.
pub const INIT: &str = "Examples:\n  pve-span init --dry-run  what would be written\n  pve-span init            /etc/pve/span.cfg, if there is none";

/// Of `edit`.
pub const EDIT: &str = "Examples:\n  pve-span edit  with your editor";

/// Of `import`.
pub const IMPORT: &str = "Examples:\n  pve-span import                                              of the mirrors that Open vSwitch has\n  pve-span import --mirrors-conf /etc/ovs-mirror/mirrors.conf  of proxmox-ovs-mirror's rules\n  pve-span import --write                                      append them to span.cfg";

/// Of `doctor`.
pub const DOCTOR: &str =
    "Examples:\n  pve-span doctor     what is in the way\n  pve-span -v doctor  also what is well";

/// Of `watch`.
pub const WATCH: &str = "Examples:\n  pve-span watch                in the foreground, until SIGTERM\n  pve-span watch --listen 9877  with metrics at http://127.0.0.1:9877/metrics";

/// Of `verify`.
pub const VERIFY: &str = "Examples:\n  pve-span verify                         each session, for ten seconds\n  pve-span verify dmz --inject --time 30  one, with frames of its own, for longer";

/// The calls in such a text, each with what it does.
pub fn calls(text: &str) -> Vec<(&str, &str)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("  "));
    lines
        .filter_map(|line| line.split_once("  "))
        .map(|(call, what)| (call, what.trim_start()))
        .collect()
}
