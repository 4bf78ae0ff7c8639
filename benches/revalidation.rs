//! What it costs the others when the flows of conversations are revalidated, as they are after each change of Open vSwitch's
//! mirrors: in pve-span's way and in others. `cargo bench --bench revalidation`, as root; with `-- --quick` less of it.
//!
//! One guest sends numbered frames in many flows to a guest that says nothing, and a third one listens: who forgets the
//! second one's address floods. Every half second something is done. On each datapath that is there.

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../tests/lab/mod.rs"]
mod lab;

mod machine;
mod start;
mod table;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::{Frame, Guest, Mac, Node, run};
use machine::machine;
use start::{Pace, start};
use table::Table;

const FROM: &str = "101/net0";
const TO: &str = "102/net0";
const BYSTANDER: &str = "103/net0";
const TOKEN: &str = "revalidation";
const BETWEEN: Duration = Duration::from_millis(500);

/// What is done every half second.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Nothing,
    /// pve-span's own, with ovs-ofctl.
    DeleteNoFlow,
    Purge,
    Flush,
    FloodVlans,
}

impl Way {
    const ALL: [Way; 5] = [
        Way::Nothing,
        Way::DeleteNoFlow,
        Way::Purge,
        Way::Flush,
        Way::FloodVlans,
    ];

    fn name(self) -> &'static str {
        match self {
            Way::Nothing => "nothing is done",
            Way::DeleteNoFlow => "**a flow is deleted that nobody has (pve-span)**",
            Way::Purge => "`revalidator/purge`",
            Way::Flush => "`fdb/flush`",
            Way::FloodVlans => "`flood_vlans` set and cleared",
        }
    }

    fn go(self, node: &Node) {
        match self {
            Way::Nothing => {}
            Way::DeleteNoFlow => {
                let mut command = node.command("ovs-ofctl");
                let bridge = node.path("run/openvswitch/vmbr2.mgmt");
                command.args(["--strict", "del-flows"]);
                command.arg(format!("unix:{}", bridge.display()));
                command.arg("table=253,priority=1,ip,nw_src=192.0.2.1");
                run(command, "");
            }
            Way::Purge => drop(node.ovs_appctl(&["revalidator/purge"])),
            Way::Flush => drop(node.ovs_appctl(&["fdb/flush", "vmbr2"])),
            Way::FloodVlans => {
                node.ovs_vsctl(&["set", "Bridge", "vmbr2", "flood_vlans=4000"]);
                node.ovs_vsctl(&["clear", "Bridge", "vmbr2", "flood_vlans"]);
            }
        }
    }
}

/// What came of it.
struct Cost {
    sent: u64,
    waited: u64,
    lost: u64,
    flooded: u64,
    cpu: Duration,
}

fn main() -> ExitCode {
    start(measure)
}

fn measure(pace: Pace) -> Result<(), String> {
    // The first also for an emulated machine.
    let (times, per_second, flows): (u32, u32, &[u32]) = match pace {
        Pace::Quick => (12, 400, &[1000]),
        Pace::Full => (24, 2000, &[1000, 10_000]),
    };
    println!(
        "\n{}; {per_second} frames/s, something is done {times} times\n",
        machine()
    );
    let headings = [
        "datapath",
        "flows",
        "way",
        "frames",
        "waited for ovs-vswitchd",
        "lost",
        "flooded",
        "CPU of ovs-vswitchd a time",
    ];
    let mut table = Table::new(headings, 3..8);
    let has_kernel = Node::start_with_kernel_datapath()
        .inspect_err(|why| eprintln!("the kernel's datapath is left out: {why}"))
        .is_ok();
    let datapaths: &[&str] = if has_kernel {
        &["userspace", "kernel"]
    } else {
        &["userspace"]
    };
    for datapath in datapaths {
        for flows in flows {
            let mut nothing = Duration::ZERO;
            for way in Way::ALL {
                eprintln!("measuring: {datapath}, {flows} flows, {} …", way.name());
                let node = node(datapath)?;
                let cost = cost(&node, [*flows, per_second], way, times)?;
                if way == Way::Nothing {
                    nothing = cost.cpu;
                }
                let cpu = cost.cpu.saturating_sub(nothing) / times;
                table.row([
                    (*datapath).to_owned(),
                    flows.to_string(),
                    way.name().to_owned(),
                    cost.sent.to_string(),
                    cost.waited.to_string(),
                    cost.lost.to_string(),
                    cost.flooded.to_string(),
                    format!("{:.1} ms", cpu.as_secs_f64() * 1e3),
                ]);
            }
        }
    }
    print!("{table}");
    Ok(())
}

/// Three guests on a bridge.
fn node(datapath: &str) -> Result<Node, String> {
    let node = if datapath == "kernel" {
        Node::start_with_kernel_datapath()?
    } else {
        Node::start()
    };
    node.ovs_bridge("vmbr2");
    let vm = |vmid| Guest::vm(vmid).net(0, "virtio,bridge=vmbr2");
    node.add_all([&vm(101), &vm(102), &vm(103)]);
    node.start_guests([101, 102, 103]);
    // Each flow has a source address of its own.
    node.ovs_vsctl(&[
        "set",
        "Bridge",
        "vmbr2",
        "other_config:mac-table-size=50000",
    ]);
    node.introduce(FROM, TO);
    Ok(node)
}

fn cost(node: &Node, [flows, per_second]: [u32; 2], way: Way, times: u32) -> Result<Cost, String> {
    let (arrived, bystander) = (node.counter(TO, TOKEN), node.counter(BYSTANDER, TOKEN));
    let (sender, to) = (node.sender(FROM), node.mac(TO));
    let send = |number: u64| {
        let [.., high, middle, low] = (number % u64::from(flows)).to_be_bytes();
        let source = Mac([2, 0, 1, high, middle, low]);
        let payload = [TOKEN.as_bytes(), &number.to_be_bytes()].concat();
        sender.send(&Frame::new(source, to).carrying(payload).padded_to(60));
    };
    // All flows are there before anything is measured.
    let (is_warm, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let measured = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let (began, mut number) = (Instant::now(), 0_u64);
            while !is_over.load(Ordering::Acquire) {
                let due = began.elapsed().as_secs_f64() * f64::from(per_second);
                while (number as f64) < due {
                    send(number);
                    number += 1;
                }
                is_warm.store(number >= u64::from(flows) * 2, Ordering::Release);
                thread::sleep(Duration::from_millis(1));
            }
            number
        });
        while !is_warm.load(Ordering::Acquire) && !sending.is_finished() {
            thread::sleep(BETWEEN);
        }
        let before = (missed(node), cpu(node), arrived.received());
        let measured = || {
            for _ in 0..times {
                way.go(node);
                thread::sleep(BETWEEN);
            }
            Some((missed(node)? - before.0?, cpu(node)? - before.1?, before.2))
        };
        let measured = measured();
        is_over.store(true, Ordering::Release);
        sending.join().ok().zip(measured)
    });
    let (sent, (waited, cpu, before)) = measured.ok_or("ovs-vswitchd's figures cannot be read")?;
    node.exchange(FROM, TO, "behind-it");
    Ok(Cost {
        sent: sent - before,
        waited,
        lost: sent - arrived.finish().received() as u64,
        flooded: bystander.finish().received() as u64,
        cpu,
    })
}

/// Frames that no datapath flow was there for.
fn missed(node: &Node) -> Option<u64> {
    let said = node.ovs_appctl(&["dpctl/show"]);
    let rest = said.split("missed:").nth(1)?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The time that all threads of ovs-vswitchd have run for (/proc/PID/task/TID/schedstat, in nanoseconds).
fn cpu(node: &Node) -> Option<Duration> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", node.ovs_pids().1?)).ok()?;
    let of = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    let nanoseconds = threads.flatten().filter_map(of).sum();
    Some(Duration::from_nanos(nanoseconds))
}
