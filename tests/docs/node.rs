//! The node that the documentation speaks of: commands run on it as they stand there, without prefix and options.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use super::page::Block;
use crate::lab::{Guest, Node, Watch, binary, try_run};
use crate::proxmox::{PROGRAMS, STAND_IN, STORAGE_CFG};
use crate::scene::told;

/// Makes the node's folder the root of the file system, in a mount namespace of its own, and runs a command line there.
const ENTER: &str = r#"
set -e
cd "$1"
for folder in usr proc sys dev; do
    mount --rbind "/$folder" "$folder"
done
# The pages install and remove things there.
mount --bind local-bin usr/local/bin
exec env -i LAB_ROOT= HOME=/root TERM=dumb PATH=/opt/bin:/usr/sbin:/usr/bin:/sbin:/bin chroot . /bin/sh -c "cd /root; $2"
"#;

/// Where the package puts what is in pve-config/.
const EXAMPLES: &str = "/usr/share/doc/pve-span/examples/";

/// Where it puts what is no program of its own.
const SHARE: &str = "/usr/share/pve-span/";

/// docs/editing.md's rules of proxmox-ovs-mirror.
const MIRRORS_CONF: &str =
    "# BRIDGE SOURCE DEST_VMID DEST_NIC\n\n\nzone1  eno1  200  1\nzone1  eno1  201  1\n";

/// The session that the pages begin with.
const DMZ: &str = "[dmz-ids]\nsource = 101, 102, tag:web\noutput = 200/net1\n";

pub struct DocNode {
    node: Node,
}

impl DocNode {
    /// 101 to 104, of which 104 has a hookscript of its own, and the sensors 200 and 201; all running, and no span.cfg.
    pub fn new() -> Self {
        let node = Node::start();
        node.ovs_bridge("vmbr2");
        node.linux_bridge("vmbr0");
        node.physical("eno1", "vmbr0");
        node.physical_unplugged("eno2");
        let vm = |vmid: u32, name: &str, more: &str| {
            let mac = format!("BC:24:11:2A:00:{vmid:02X}");
            Guest::vm(vmid)
                .name(name)
                .net(0, &format!("virtio={mac},bridge=vmbr2{more}"))
        };
        let sensor = |vmid: u32| {
            let mac = |nic: u32| format!("BC:24:11:2A:{nic:02X}:{vmid:02X}");
            let guest = Guest::vm(vmid)
                .name("sensor")
                .net(0, &format!("virtio={},bridge=vmbr0", mac(8)));
            guest.net(1, &format!("virtio={},bridge=vmbr2", mac(9)))
        };
        let guests = [
            vm(101, "web1", ",firewall=1,tag=10").tags("dmz"),
            vm(102, "app1", ""),
            Guest::ct(103).name("cache1").tags("web").net(
                0,
                "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:2A:00:67,type=veth",
            ),
            vm(104, "db1", ",tag=10").set("hookscript", "local:snippets/backup.pl"),
            sensor(200),
            sensor(201),
        ];
        node.add_all(&guests);
        node.user_cfg("user:root@pam:1:0:::root@example.invalid:::\n\npool:prod::104::\n");
        node.start_guests(guests.iter().map(|guest| guest.vmid));
        furnish(&node);
        Self { node }
    }

    /// The same, mirrored as the README has it.
    pub fn mirroring() -> Self {
        let this = Self::new();
        let (code, said) = this.apply(DMZ);
        assert_eq!(code, 0, "{said}");
        this
    }

    /// The service, until it is dropped.
    pub fn service(&self) -> Watch {
        self.node.watch()
    }

    /// Runs a command line as root types it on the node.
    pub fn run(&self, line: &str) -> Output {
        let line = &line
            .replace(EXAMPLES, "/root/pve-config/")
            .replace(SHARE, "/root/share/");
        let root = self.node.root().to_str().unwrap();
        if line.starts_with("pve-span edit") {
            // With a terminal; the editor writes the README's session, and root says yes.
            let mut command = self.node.command("script");
            let entered = format!(
                "unshare -m sh -c '{ENTER}' sh {root} 'EDITOR=/opt/bin/editor pve-span edit'"
            );
            command.args(["-qec", &entered, "/dev/null"]);
            return try_run(command, "y\n");
        }
        let mut command = self.node.command("unshare");
        command.args(["-m", "sh", "-c", ENTER, "sh", root, line]);
        try_run(command, "")
    }

    /// Puts a span.cfg into force; the exit code of `pve-span apply`, and what it said.
    pub fn apply(&self, span_cfg: &str) -> (i32, String) {
        self.node.span_cfg(span_cfg);
        let output = self.run("pve-span apply");
        (output.status.code().unwrap_or(-1), told(&output))
    }

    /// Runs a block's commands where a sensor's guest has its second NIC; what went wrong.
    pub fn in_sensor(&self, block: &Block) -> Option<String> {
        let mut script =
            "set -e\nip link add ens19 type veth peer name far19\nip link set ens19 up\nip link set far19 up\n"
                .to_owned();
        for (_, command) in block.commands() {
            let enough = if command.starts_with("timeout ") {
                " || [ $? = 124 ]"
            } else {
                ""
            };
            script.push_str(&format!("{command}{enough}\n"));
        }
        let mut command = Command::new("unshare");
        command.args(["-n", "-m", "sh", "-c", &script]);
        let output = try_run(command, "");
        (!output.status.success())
            .then(|| format!("line {}, in the sensor:\n{}", block.line, told(&output)))
    }
}

/// What programs look for in the root of a file system, beside what the laboratory puts there.
fn furnish(node: &Node) {
    let root = node.root();
    for folder in [
        "usr",
        "proc",
        "sys",
        "dev",
        "tmp",
        "root",
        "opt/bin",
        "local-bin",
        "etc/systemd/system",
        "etc/apt/sources.list.d",
    ] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    for name in ["bin", "sbin", "lib", "lib32", "lib64"] {
        if let Ok(target) = std::fs::read_link(Path::new("/").join(name)) {
            symlink(target, root.join(name)).unwrap();
        }
    }
    symlink("../run", root.join("var/run")).unwrap();
    for name in [
        "passwd",
        "group",
        "nsswitch.conf",
        "services",
        "protocols",
        "ethertypes",
        "os-release",
    ] {
        let _ = std::fs::copy(Path::new("/etc").join(name), root.join("etc").join(name));
    }
    // Debian's alternatives (editor, nft's neighbours) are links through here.
    let _ = Command::new("cp")
        .args(["-a", "/etc/alternatives"])
        .arg(root.join("etc"))
        .status();
    install(node);
    check_out(root);
    let editor = root.join("opt/bin/editor");
    std::fs::write(&editor, format!("#!/bin/sh\nprintf '{DMZ}' >>\"$1\"\n")).unwrap();
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
    for folder in ["fail", "hang", "lie", "late"] {
        std::fs::create_dir_all(root.join("stand-in").join(folder)).unwrap();
    }
    std::fs::write(root.join("etc/pve/storage.cfg"), STORAGE_CFG).unwrap();
}

/// What the package, Proxmox VE and Debian bring.
fn install(node: &Node) {
    let root = node.root();
    let bin = root.join("opt/bin");
    executable(&binary(), &bin.join("pve-span"));
    for folder in [
        "var/lib/vz/snippets",
        "mnt/pve/nas/snippets",
        "var/www/html",
    ] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    let wrapper = repository().join("hookscripts/pve-span");
    executable(&wrapper, &root.join("var/lib/vz/snippets/pve-span"));
    let other = root.join("var/lib/vz/snippets/backup.pl");
    std::fs::write(&other, "#!/bin/sh\nexit 0\n").unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755)).unwrap();
    executable(
        &repository().join("tests/docs/systemctl.sh"),
        &bin.join("systemctl"),
    );
    for program in ["ssh", "scp"] {
        executable(&repository().join("tests/docs/ssh.sh"), &bin.join(program));
    }
    for program in PROGRAMS {
        executable(Path::new(STAND_IN), &bin.join(program));
    }
}

/// root's folder is a checkout in which everything has been built.
fn check_out(root: &Path) {
    let home = root.join("root");
    for folder in ["pve-config", "hookscripts"] {
        let copy = Command::new("cp")
            .arg("-r")
            .arg(repository().join(folder))
            .arg(&home)
            .status();
        assert!(copy.unwrap().success());
    }
    for folder in ["target/release", "target/apt", "share"] {
        std::fs::create_dir_all(home.join(folder)).unwrap();
    }
    let rules = root.join("etc/ovs-mirror");
    std::fs::create_dir_all(&rules).unwrap();
    std::fs::write(rules.join("mirrors.conf"), MIRRORS_CONF).unwrap();
    executable(&binary(), &home.join("target/release/pve-span"));
    executable(
        &repository().join("hookscripts/pve-span"),
        &home.join("share/hookscript"),
    );
    for file in ["pve-span.gpg", "pve-span_0.1.0-1_amd64.deb"] {
        std::fs::write(home.join(file), "").unwrap();
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn executable(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755)).unwrap();
}
