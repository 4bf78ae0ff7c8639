//! A copy of a release to break: a layer in memory above the installed one, in namespaces of its own.
//!
//! A holder process keeps the namespaces; all that was mounted, written and started goes with it, however the test
//! ends. A kernel that cannot lay a file system over another gets a real copy.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{chroot, fchdir};

use crate::fuse;
use crate::lab::Node;

/// Debian's own, as a node's root has it.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Ends when its standard input does.
const HOLDER: &str = r#"
set -e
base=$1 here=$2 pve=$3 ovs=$4
mount --make-rprivate /
mount -t tmpfs -o mode=755 none "$here"
mkdir "$here/upper" "$here/work" "$here/root"
mount -t overlay -o "lowerdir=$base,upperdir=$here/upper,workdir=$here/work" none "$here/root" 2>/dev/null ||
    cp -a "$base/." "$here/root"
cd "$here/root"
mount -t proc none proc
mount --rbind /sys sys
mount --rbind /dev dev
[ -z "$pve" ] || { mkdir -p etc/pve; mount --bind "$pve" etc/pve; }
[ -z "$ovs" ] || { mkdir -p run/openvswitch; mount --bind "$ovs" run/openvswitch; }
echo ready
exec cat >/dev/null
"#;

/// Where it runs.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    /// With a network of its own, without anything in it, and without /etc/pve.
    Alone,
    /// As the system of a laboratory's node: its network, its /etc/pve, its Open vSwitch.
    On(&'a Node),
}

/// A system to install packages in.
pub struct Chroot {
    holder: Child,
    /// Of the process that the namespaces belong to.
    pid: u32,
    here: PathBuf,
}

/// What a script has said, both streams in one, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub text: String,
}

impl Chroot {
    pub fn new(base: &Path, start: Start<'_>) -> Chroot {
        // Each mounts over it in a namespace of its own, so that one empty folder is enough for all.
        let here = super::base::kept().join("here");
        std::fs::create_dir_all(&here).unwrap();
        let unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"];
        let (mut command, pve, ovs) = match start {
            Start::Alone => {
                let mut command = Command::new(unshare[0]);
                command.args(&unshare[1..]).arg("--net");
                (command, PathBuf::new(), PathBuf::new())
            }
            Start::On(node) => {
                let mut command = node.command(unshare[0]);
                command.args(&unshare[1..]);
                let ovs = node.path("run/openvswitch");
                let ovs = if ovs.is_dir() { ovs } else { PathBuf::new() };
                (command, node.path("etc/pve"), ovs)
            }
        };
        let mut holder = command
            .args(["sh", "-c", HOLDER, "holder"])
            .args([base, &here, &pve, &ovs])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = holder.stdout.take().unwrap();
        let word = BufReader::new(stdout).lines().next();
        assert!(
            matches!(&word, Some(Ok(word)) if word == "ready"),
            "no chroot: {word:?}"
        );
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let children = std::fs::read_to_string(children).unwrap();
        let pid = children.trim().parse().unwrap();
        Chroot { holder, pid, here }
    }

    /// Runs a script in it, for five minutes at most.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Said {
        let output = self.command(script).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let code = output.status.code().unwrap_or(-1);
        assert_ne!(code, 124, "not done after five minutes: {script}\n{text}");
        Said { code, text }
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["-k", "5", "300", "nsenter", "--target"])
            .arg(self.pid.to_string())
            // With its root, too: this may be a chroot itself, and namespaces know nothing of that.
            .args(["--mount", "--pid", "--net", "--root", "chroot"])
            .arg(self.here.join("root"))
            .args(["env", "-i", "HOME=/root", "LC_ALL=C.UTF-8"])
            .arg(format!("PATH={PATH}"))
            .arg("DEBIAN_FRONTEND=noninteractive")
            .args(["sh", "-c", &format!("exec 2>&1\n{script}")])
            .stdin(Stdio::null());
        command
    }

    /// Runs a script that has to succeed; returns what it has said.
    #[track_caller]
    pub fn run(&self, script: &str) -> String {
        let Said { code, text } = self.sh(script);
        assert_eq!(code, 0, "{script}\n{text}");
        text
    }

    /// A path in it as seen from here.
    pub fn path(&self, path: &str) -> PathBuf {
        let root = format!("/proc/{}/root{}/root", self.pid, self.here.display());
        Path::new(&root).join(path.trim_start_matches('/'))
    }

    /// Writes a file in it, and the folders above.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap()
    }

    /// Is there anything under this name, a dangling link included?
    pub fn has(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// Brings a file into it.
    #[track_caller]
    pub fn bring(&self, file: &Path, path: &str) {
        std::fs::copy(file, self.path(path)).unwrap();
    }

    /// Runs `work` while /etc/pve takes every request and answers none.
    pub fn while_pve_hangs(&self, work: impl FnOnce()) {
        let (pid, folder) = (self.pid, self.here.join("root/etc/pve"));
        let (ready, is_ready) = mpsc::channel();
        let (done, is_done) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // A thread that shares its folder with others may not change its mounts.
                unshare(CloneFlags::CLONE_FS).unwrap();
                let mounts = File::open(format!("/proc/{pid}/ns/mnt")).unwrap();
                let root = File::open(format!("/proc/{pid}/root")).unwrap();
                setns(mounts, CloneFlags::CLONE_NEWNS).unwrap();
                fchdir(&root).unwrap();
                chroot(".").unwrap();
                let hung = fuse::mount_hung(&folder);
                ready.send(()).unwrap();
                let _ = is_done.recv();
                drop(hung);
            });
            is_ready.recv().expect("a file system that hangs");
            // Also lets go when the work panics.
            let _done = done;
            work();
        });
    }
}

impl Drop for Chroot {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
