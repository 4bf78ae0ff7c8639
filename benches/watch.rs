//! What the service costs on a node with 500 guests and 50 sessions, and for how long a session is blind after what no
//! hook tells of. `cargo bench --bench watch`, as root; with `-- --quick` for a moment only.

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../tests/lab/mod.rs"]
mod lab;

mod blind;
mod machine;
mod start;
mod table;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lab::{Guest, Node, Watch};
use machine::machine;
use start::{Pace, start};
use table::{Table, ms};

const GUESTS: u32 = 500;
const SESSIONS: u32 = 50;
const FIRST_GUEST: u32 = 1000;
const FIRST_SENSOR: u32 = 5000;

/// The bridges, with their part of guests and sessions: an Open vSwitch bridge has room for 32 mirrors.
const BRIDGES: [&str; 3] = ["vmbr2", "vmbr3", "vmbr0"];

fn main() -> ExitCode {
    start(run)
}

fn run(pace: Pace) -> Result<(), String> {
    let (idle, runs) = match pace {
        Pace::Quick => (Duration::from_secs(10), 2),
        Pace::Full => (Duration::from_secs(60), 15),
    };
    println!("{}\n", machine());
    println!("{GUESTS} guests on three bridges, {SESSIONS} sessions, half of them by tag\n");
    let node = node();
    let watch = node.watch();
    let mut costs = Table::new(["the service", "measured", "budget"], 1..2);
    for cost in idle_costs(&watch, idle)? {
        costs.row(cost);
    }
    println!("{costs}");
    let mut blindness = Table::new(["event", "median", "longest", "budget"], 1..3);
    for (name, budget, event) in EVENTS {
        let mut times = Vec::new();
        for _ in 0..runs {
            times.push(event(&node)?);
            // Somebody who undoes what the service does is quicker than that, and is answered less and less quickly.
            std::thread::sleep(Duration::from_millis(1500));
        }
        times.sort();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        let longest = times.last().copied().unwrap_or_default();
        blindness.row([name.to_owned(), ms(median), ms(longest), budget.to_owned()]);
    }
    println!("{blindness}");
    watch.terminate();
    Ok(())
}

fn bridge_of(number: u32) -> &'static str {
    BRIDGES[number as usize % BRIDGES.len()]
}

/// All guests run; every second session goes by tag, the others name their guests.
fn node() -> Node {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    node.ovs_bridge("vmbr3");
    node.linux_bridge("vmbr0");
    let mut span_cfg = String::new();
    for session in 0..SESSIONS {
        let of_session: Vec<String> = guests_of(session).map(|vmid| vmid.to_string()).collect();
        let source = match session / 3 % 2 {
            0 => format!("tag:team{session}"),
            _ => of_session.join(", "),
        };
        let sensor = FIRST_SENSOR + session;
        let _ = writeln!(
            span_cfg,
            "[session-{session}]\nsource = {source}\noutput = {sensor}/net1"
        );
    }
    let guest = |vmid: u32| {
        let session = (vmid - FIRST_GUEST) % SESSIONS;
        let bridge = bridge_of(session);
        let line = format!("virtio={},bridge={bridge}", lab::Nic::default_mac(vmid, 0));
        Guest::vm(vmid)
            .tags(&format!("prod;team{session}"))
            .net(0, &line)
    };
    let guests: Vec<Guest> = (FIRST_GUEST..FIRST_GUEST + GUESTS).map(guest).collect();
    let sensors: Vec<Guest> = (0..SESSIONS)
        .map(|session| {
            let vmid = FIRST_SENSOR + session;
            let mac = lab::Nic::default_mac(vmid, 1);
            let guest = Guest::vm(vmid).net(0, "virtio");
            guest.net(1, &format!("virtio={mac},bridge={}", bridge_of(session)))
        })
        .collect();
    node.add_all(guests.iter().chain(&sensors));
    node.start_guests(guests.iter().chain(&sensors).map(|guest| guest.vmid));
    node.span_cfg(&span_cfg);
    node
}

/// The guests of a session, all on the bridge of its sensor.
fn guests_of(session: u32) -> impl Iterator<Item = u32> {
    (FIRST_GUEST..FIRST_GUEST + GUESTS)
        .filter(move |vmid| (vmid - FIRST_GUEST) % SESSIONS == session)
}

/// Processor time and memory while nothing happens.
fn idle_costs(watch: &Watch, time: Duration) -> Result<Vec<[String; 3]>, String> {
    // The first reconcile and the first survey are behind it.
    std::thread::sleep(Duration::from_secs(20));
    let before = processor_time(watch)?;
    let began = Instant::now();
    std::thread::sleep(time);
    let used = processor_time(watch)?.saturating_sub(before);
    let share = used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    let processes = processes(watch);
    let kib = |field: &str| -> u64 { processes.iter().map(|pid| memory(*pid, field)).sum() };
    let mib = |kib: u64| {
        let tenths = kib * 10 / 1024;
        format!("{}.{} MiB", tenths / 10, tenths % 10)
    };
    Ok(vec![
        [
            format!("processor time, idle for {} s", time.as_secs()),
            format!("{share:.3} % of a core"),
            "≤ 0.1 %".to_owned(),
        ],
        [
            format!("resident memory of its {} processes", processes.len()),
            mib(kib("Rss:")),
            "≤ 15 MiB".to_owned(),
        ],
        [
            "of it its own share (PSS)".to_owned(),
            mib(kib("Pss:")),
            String::new(),
        ],
    ])
}

fn processes(watch: &Watch) -> Vec<u32> {
    let mut all = watch.children();
    all.push(watch.pid());
    all
}

/// What it and its children have used so far, those that have ended included (proc_pid_stat(5): utime, stime, cutime,
/// cstime), from schedstat where that is finer.
fn processor_time(watch: &Watch) -> Result<Duration, String> {
    let mut ticks = 0;
    for pid in processes(watch) {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat
            .rsplit_once(") ")
            .map(|(_, rest)| rest.split(' ').collect())
            .unwrap_or_default();
        for field in 11..15 {
            ticks += fields
                .get(field)
                .and_then(|text| text.parse::<u64>().ok())
                .unwrap_or(0);
        }
    }
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .and_then(|ticks| u64::try_from(ticks).ok())
        .ok_or("no clock ticks")?;
    Ok(Duration::from_millis(ticks * 1000 / per_second))
}

fn memory(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

type Event = fn(&Node) -> Result<Duration, String>;

/// What happens, the budget, and how it is made to happen.
const EVENTS: [(&str, &str, Event); 7] = [
    ("a NIC is plugged into an OVS bridge", "≤ 50 ms", ovs_port),
    (
        "a NIC is plugged into a Linux bridge",
        "≤ 50 ms",
        linux_port,
    ),
    ("the firewall checkbox is ticked (OVS)", "≤ 50 ms", firewall),
    ("the bridge's mirrors are cleared by hand", "", cleared),
    ("nft flush ruleset", "", flushed),
    ("a sensor's port is plugged anew", "", sensor),
    ("a guest is tagged (looked for once a second)", "", tagged),
];

/// The guests of a session that have a part in the events: the source, another one of its bridge, the sensor.
fn cast(session: u32) -> [String; 3] {
    let source = FIRST_GUEST + session;
    // Not of the same session, so that only one side takes the frames.
    let other = FIRST_GUEST + session + 3;
    [
        format!("{source}/net0"),
        format!("{other}/net0"),
        format!("{}/net1", FIRST_SENSOR + session),
    ]
}

fn on(node: &Node, session: u32, event: impl FnOnce(&[String; 3])) -> Result<Duration, String> {
    let cast = cast(session);
    let [source, other, sensor] = &cast;
    node.introduce(source, other);
    blind::blind(node, [source, other, sensor], || event(&cast))
}

/// By then the service is through with a port that has gone.
const LET_GO: Duration = Duration::from_millis(500);

fn ovs_port(node: &Node) -> Result<Duration, String> {
    plugged(node, 0)
}

fn linux_port(node: &Node) -> Result<Duration, String> {
    plugged(node, 2)
}

/// The device has gone, is made again, and is plugged as soon as a frame can be sent from it.
fn plugged(node: &Node, session: u32) -> Result<Duration, String> {
    let cast = cast(session);
    node.unplug(&cast[0]);
    std::thread::sleep(LET_GO);
    node.make_device(&cast[0]);
    let blind = blind::blind(node, [&cast[0], &cast[1], &cast[2]], || {
        node.plug(&cast[0]);
    });
    node.settle();
    blind
}

fn firewall(node: &Node) -> Result<Duration, String> {
    let flip = |to: &str| {
        node.edit(FIRST_GUEST, |guest| {
            let mac = lab::Nic::default_mac(FIRST_GUEST, 0);
            guest.net(0, &format!("virtio={mac},bridge=vmbr2{to}"))
        });
        node.replug(&cast(0)[0]);
    };
    flip("");
    node.settle();
    let blind = on(node, 0, |_| flip(",firewall=1"));
    flip("");
    blind
}

fn cleared(node: &Node) -> Result<Duration, String> {
    on(node, 0, |_| {
        node.ovs_vsctl(&["clear", "bridge", "vmbr2", "mirrors"]);
    })
}

fn flushed(node: &Node) -> Result<Duration, String> {
    on(node, 2, |_| node.nft("flush ruleset"))
}

fn sensor(node: &Node) -> Result<Duration, String> {
    on(node, 0, |[_, _, sensor]| node.replug(sensor))
}

fn tagged(node: &Node) -> Result<Duration, String> {
    let tags = |tags: &str| node.edit(FIRST_GUEST, |guest| guest.tags(tags));
    tags("prod");
    let gone = || {
        let text = node.ovs_vsctl(&["--bare", "--columns=select_src_port", "list", "mirror"]);
        let port = node.ovs_vsctl(&["get", "port", &format!("tap{FIRST_GUEST}i0"), "_uuid"]);
        let ports: BTreeSet<&str> = text.split_whitespace().collect();
        !ports.contains(port.trim())
    };
    lab::wait_until("the guest is let go", gone);
    node.settle();
    on(node, 0, |_| tags("prod;team0"))
}
