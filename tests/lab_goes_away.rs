//! The laboratory leaves nothing behind: no namespace, no process, no file, however its owner ends.

mod lab;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use lab::{Guest, Node, run, wait_until};

/// What a node leaves for others to see.
struct Traces {
    root: PathBuf,
    netns: Vec<String>,
    pids: Vec<u32>,
}

impl Traces {
    fn of(node: &Node) -> Traces {
        let netns = vec![node.netns().to_owned(), node.wire_netns().to_owned()];
        Traces {
            root: node.root().to_owned(),
            netns,
            pids: node.pids(),
        }
    }

    fn to_line(&self) -> String {
        let pids: Vec<String> = self.pids.iter().map(u32::to_string).collect();
        format!(
            "traces {} {} {}",
            self.root.display(),
            self.netns.join(","),
            pids.join(",")
        )
    }

    fn from_line(line: &str) -> Option<Traces> {
        let mut words = line.strip_prefix("traces ")?.split(' ');
        let root = words.next()?.into();
        let netns = words.next()?.split(',').map(str::to_owned).collect();
        let pids = words
            .next()?
            .split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        Some(Traces { root, netns, pids })
    }

    fn left(&self) -> Vec<String> {
        let netns = self.netns.iter().map(|name| format!("/run/netns/{name}"));
        let pids = self.pids.iter().map(|pid| format!("/proc/{pid}"));
        let root = self.root.display().to_string();
        netns
            .chain(pids)
            .chain([root])
            .filter(|path| Path::new(path).exists())
            .collect()
    }

    /// The same, but a zombie is no process any more.
    fn alive(&self) -> Vec<String> {
        let mut left = self.left();
        left.retain(
            |path| match std::fs::read_to_string(format!("{path}/stat")) {
                Ok(stat) => !stat.contains(") Z "),
                Err(_) => Path::new(path).exists(),
            },
        );
        left
    }

    fn all(&self) -> usize {
        1 + self.netns.len() + self.pids.len()
    }
}

/// A node with everything on it that might be left behind.
fn busy_node() -> Node {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    node.linux_bridge("vmbr0");
    for vmid in [101, 102] {
        node.add(&Guest::vm(vmid).net(0, "virtio,bridge=vmbr2,firewall=1"));
    }
    node.add(&Guest::vm(103).net(0, "virtio,bridge=vmbr0").qemu());
    node.start_guests([101, 102, 103]);
    // Somebody's own process, deaf to polite signals and in a session of its own.
    let mut stray = node.command("setsid");
    stray.args([
        "-f",
        "sh",
        "-c",
        "trap '' TERM HUP INT; exec sleep 1000 >&- 2>&-",
    ]);
    run(stray, "");
    node.pause_ovsdb();
    node
}

#[test]
fn nothing_is_left_of_a_dropped_node() {
    let node = busy_node();
    let traces = Traces::of(&node);
    assert_eq!(traces.left().len(), traces.all());
    assert!(traces.pids.len() >= 3, "{:?}", traces.pids);
    drop(node);
    assert_eq!(traces.alive(), Vec::<String>::new());
}

#[test]
fn nothing_is_left_after_a_panic() {
    let traces = thread::spawn(|| {
        let node = busy_node();
        std::panic::panic_any(Traces::of(&node));
    });
    let panic = traces.join().unwrap_err();
    let traces = panic
        .downcast_ref::<Traces>()
        .expect("its own panic, not the laboratory's");
    assert_eq!(traces.alive(), Vec::<String>::new());
}

#[test]
fn nothing_is_left_after_the_owner_was_killed() {
    const OWNER: &str = "PVE_SPAN_LAB_OWNER";
    if std::env::var_os(OWNER).is_some() {
        let node = busy_node();
        println!("\n{}", Traces::of(&node).to_line());
        loop {
            thread::park();
        }
    }
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "nothing_is_left_after_the_owner_was_killed",
            "--nocapture",
        ])
        .env(OWNER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let traces = lines
        .map_while(Result::ok)
        .find_map(|line| Traces::from_line(&line));
    let traces = traces.expect("the owner says what it has made");
    assert_eq!(traces.left().len(), traces.all());
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until("the guardian has cleaned up", || traces.left().is_empty());
}

#[test]
fn a_kept_node_stays_until_its_command_takes_it_away() {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    let traces = Traces::of(&node);
    let clean = node.keep();
    assert_eq!(traces.left().len(), traces.all());
    assert!(
        Command::new("sh")
            .arg("-c")
            .arg(clean)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(traces.alive(), Vec::<String>::new());
}
