//! `make demo`: a miniature Proxmox VE node, its hookscript called as Proxmox VE calls it, and what arrives at the
//! sensor before, while and after guest 101 is mirrored.
//!
//! Guests talk over TCP behind real taps, with the offloads that QEMU gives them: what they send meets the node in
//! pieces of up to 64 KiB, without checksums. Every frame that the sensor gets is inspected, and a figure that is not
//! as it has to be ends the demo with an error.
//!
//! `make demo KEEP=1` leaves a node up.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic)]

#[path = "../tests/lab/mod.rs"]
mod lab;

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::process::Command;

use lab::{Frame, Guest, Inspection, Node, Stream, TapCapture, TapFrame};

const SPAN_CFG: &str = "[dmz-ids]\nsource = 101, 102, tag:web\noutput = 200/net1\n";
/// Who talks with whom.
const TALKS: [(u32, u32); 2] = [(101, 104), (102, 103)];
const ON_OVS: [u32; 2] = [101, 104];
/// How much each of them says.
const BYTES: usize = 1 << 20;
const MTU: usize = 1500;

/// What is behind the guests' NICs.
#[derive(Clone, Copy)]
enum Nics {
    /// Taps that this process holds open, as QEMU does, and network stacks.
    Taps,
    /// Veth pairs, which stay when this process ends.
    Veths,
}

fn main() {
    heading("A Proxmox VE node, in network namespaces of its own");
    let node = build(Nics::Taps);
    println!("  101 web1    VM, VLAN 10          tap101i0 ─ fwbr101i0 ─ fwln101o0 ┐");
    println!(
        "  104 db1     VM, VLAN 10                                  tap104i0 ┼ vmbr2, Open vSwitch"
    );
    println!("  200 sensor  VM, listens at net1                          tap200i1 ┘");
    println!(
        "  102 app1    VM                                           tap102i0 ┬ vmbr0, Linux bridge"
    );
    println!("  103 cache1  container, tag `web`                        veth103i0 ┘");

    heading("Before: guests talk over TCP, 1 MiB each way");
    let mut sensor = node.capture_tap("200/net1");
    talk(&node, &mut sensor, &[]).print();
    node.stop_guest(101);

    heading("/etc/pve/span.cfg");
    node.span_cfg(SPAN_CFG);
    print!("{}", indented(SPAN_CFG));

    heading("Guest 101 starts: Proxmox VE calls the hookscript");
    hook(&node, 101, "pre-start");
    start(&node, [101]);
    hook(&node, 101, "post-start");
    node.settle();

    heading("While: guests talk over TCP, 1 MiB each way");
    let all = talk(&node, &mut sensor, &[101, 102, 103]);
    all.print();
    all.assert_wire_true();
    apply(&node, &format!("{SPAN_CFG}wire = no\n"));
    println!("  {}", talk(&node, &mut sensor, &[]).without_wire());
    apply(&node, SPAN_CFG);

    heading("What there is");
    // ovs-vswitchd writes its counters every five seconds.
    lab::wait_until("Open vSwitch's counters", || counted(&node) >= 8 * BYTES);
    pve_span(&node, "status");
    println!();
    pve_span(&node, "ports");

    heading("The service runs, and things happen that no hook tells of");
    let watch = node.watch();
    nobody_tells(&node);
    println!("  the journal then has, of pve-span.service:");
    print!("{}", indented(&watch.stderr()));
    talk(&node, &mut sensor, &[101, 102, 103]).print();
    watch.terminate();

    heading("Guest 101 stops");
    hook(&node, 101, "pre-stop");
    node.settle();
    talk(&node, &mut sensor, &[102, 103]).print();
    node.stop_guest(101);
    hook(&node, 101, "post-stop");

    drop(sensor);
    drop(node);
    println!("\nThe node is gone again: no namespace, process or file is left.");
    if std::env::var_os("KEEP").is_some_and(|keep| !keep.is_empty() && keep != "0") {
        keep();
    }
}

fn build(nics: Nics) -> Node {
    let node = Node::start();
    node.ovs_takes_offloads();
    node.ovs_bridge("vmbr2");
    node.linux_bridge("vmbr0");
    let mac = |number: u32| format!("BC:24:11:2A:00:{number:02X}");
    let vm = |vmid: u32, name: &str, nic: &str| {
        let line = format!("virtio={},{nic}", mac(vmid - 100));
        Guest::vm(vmid).name(name).net(0, &line)
    };
    let vms = [
        vm(101, "web1", "bridge=vmbr2,firewall=1,tag=10"),
        vm(102, "app1", "bridge=vmbr0"),
        vm(104, "db1", "bridge=vmbr2,tag=10"),
    ];
    let line = format!("name=eth0,bridge=vmbr0,hwaddr={},type=veth", mac(3));
    let container = Guest::ct(103).name("cache1").tags("web").net(0, &line);
    let sensor = Guest::vm(200)
        .name("sensor")
        .net(0, &format!("virtio={}", mac(0xc7)))
        .net(1, &format!("virtio={},bridge=vmbr2", mac(0xc8)));
    match nics {
        Nics::Taps => {
            node.add_all(&vms.map(Guest::qemu));
            node.add_all([&container.lxc(), &sensor.qemu_reader()]);
            node.start_guests([200]);
            start(&node, [101, 102, 103, 104]);
        }
        Nics::Veths => {
            node.add_all(&vms);
            node.add_all([&container, &sensor]);
            node.start_guests([101, 102, 103, 104, 200]);
        }
    }
    node
}

/// Starts guests that have network stacks.
fn start<const N: usize>(node: &Node, guests: [u32; N]) {
    node.start_guests(guests);
    for guest in guests {
        node.inside_guest(guest, || {
            // So little is under way at a time that no queue overflows, however busy the machine is.
            std::fs::write("/proc/sys/net/ipv4/tcp_rmem", "4096 65536 65536").unwrap();
        });
    }
    // Open vSwitch's userspace datapath, which stands in for the kernel's here, does not cut large frames as they have
    // to be cut.
    for guest in guests.into_iter().filter(|guest| ON_OVS.contains(guest)) {
        node.inside_guest(guest, || {
            let mut command = Command::new("ethtool");
            command.args(["-K", &node.nic(&nic(guest)).guest_end(), "tso", "off"]);
            lab::run(command, "");
        });
    }
}

/// What the guests said, and what of it the sensor got.
struct Talk<'a> {
    node: &'a Node,
    streams: [Stream; 2],
    /// From whom, to whom, and how many frames.
    sent: Vec<(u32, u32, usize)>,
    mirrored: Vec<u32>,
    frames: Vec<TapFrame>,
}

/// Lets the guests talk, and waits until all of what those in `mirrored` have sent and received has arrived.
fn talk<'a>(node: &'a Node, sensor: &mut TapCapture<'_>, mirrored: &[u32]) -> Talk<'a> {
    for (a, b) in TALKS {
        node.introduce(&nic(a), &nic(b));
    }
    sensor.so_far();
    let pairs = TALKS.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]);
    let before: Vec<usize> = pairs
        .clone()
        .map(|(from, _)| segments(node, from))
        .collect();
    let mut talk = Talk {
        node,
        streams: TALKS.map(|(a, b)| node.stream(&nic(a), &nic(b), BYTES)),
        sent: Vec::new(),
        mirrored: mirrored.to_vec(),
        frames: Vec::new(),
    };
    for guest in TALKS.into_iter().flat_map(|(a, b)| [a, b]) {
        lab::wait_until("the guests are done", || is_done(node, guest));
    }
    let sent = pairs.zip(before);
    let sent = sent.map(|((from, to), before)| (from, to, segments(node, from) - before));
    talk.sent = sent.collect();
    lab::wait_until("the sensor gets what it has to get", || {
        talk.frames.extend(sensor.so_far());
        talk.is_complete()
    });
    talk
}

impl Talk<'_> {
    fn is_complete(&self) -> bool {
        let mirrored = |guest: &u32| self.mirrored.contains(guest);
        let is_complete = |(from, to, sent): &(u32, u32, usize)| {
            !(mirrored(from) || mirrored(to)) || self.arrived(*from, *to) >= *sent
        };
        self.sent.iter().all(is_complete)
    }

    /// How many TCP frames from the one to the other the sensor got.
    fn arrived(&self, from: u32, to: u32) -> usize {
        self.between(from, to).count()
    }

    fn between(&self, from: u32, to: u32) -> impl Iterator<Item = &Frame> {
        let ip = |guest| self.node.ip_of(&nic(guest)).octets();
        let (from, to) = (ip(from), ip(to));
        let frames = self.frames.iter().map(|tap| &tap.frame);
        frames.filter(move |frame| {
            let packet = frame.payload();
            let is_tcp = frame.ethertype() == 0x0800 && packet[9] == 6;
            is_tcp && packet[12..16] == from && packet[16..20] == to
        })
    }

    /// Shows the figures, if they are as they have to be.
    fn print(&self) {
        println!("  FROM  TO   FRAMES SENT  AT THE SENSOR");
        for (from, to, sent) in &self.sent {
            let arrived = self.arrived(*from, *to);
            let vlans: BTreeSet<_> = self.between(*from, *to).filter_map(Frame::vlan).collect();
            let tagged: String = vlans
                .iter()
                .map(|vlan| format!("  tagged {vlan}"))
                .collect();
            println!("  {from}   {to}  {sent:11}  {arrived:13}{tagged}");
            let mirrored = [from, to].iter().any(|guest| self.mirrored.contains(guest));
            assert_eq!(arrived, if mirrored { *sent } else { 0 }, "{from} to {to}");
            let is_tagged = mirrored && ON_OVS.contains(from);
            assert_eq!(vlans, is_tagged.then_some(10).into_iter().collect());
        }
    }

    /// The same for what it found in them.
    fn assert_wire_true(&self) {
        let found = Inspection::of_tap(&self.frames, MTU);
        println!(
            "  each of {} frames inspected: duplicates {}, oversize {}, bad checksums {}",
            found.frames,
            found.doubled,
            found.oversize,
            found.bad_ip + found.bad_tcp
        );
        assert!(found.is_wire_true(), "{found:?}");
        for stream in &self.streams {
            assert_eq!(found.has_all_of(stream), Ok(()));
        }
        println!("  every byte that they said is in them");
    }

    /// What it found in frames that nobody has finished.
    fn without_wire(&self) -> String {
        let found = Inspection::of_tap(&self.frames, MTU);
        assert!(found.oversize > 0 && found.bad_tcp > 0, "{found:?}");
        format!(
            "with `wire = no`, {} frames: duplicates {}, oversize {} (up to {} bytes), bad checksums {}",
            found.frames,
            found.doubled,
            found.oversize,
            found.longest,
            found.bad_ip + found.bad_tcp
        )
    }
}

/// How many frames a guest's TCP has sent: it counts them as they have to be on a wire, however many it hands over in
/// one piece, and those sent anew apart (`tcpOutSegs` and `tcpRetransSegs`, RFC 4022).
fn segments(node: &Node, guest: u32) -> usize {
    let text = proc_net(node, guest, "snmp");
    let mut tcp = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (tcp.next().unwrap(), tcp.next().unwrap());
    let pairs = names.split(' ').zip(values.split(' '));
    let sent = pairs.filter(|(name, _)| ["OutSegs", "RetransSegs"].contains(name));
    sent.map(|(_, value)| value.parse::<usize>().unwrap()).sum()
}

/// Whether nothing of a guest's connections is under way: all are in TIME-WAIT, or gone.
fn is_done(node: &Node, guest: u32) -> bool {
    let text = proc_net(node, guest, "tcp");
    let mut states = text
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().nth(3));
    states.all(|state| state == Some("06"))
}

fn proc_net(node: &Node, guest: u32, file: &str) -> String {
    let path = format!("/proc/thread-self/net/{file}");
    node.inside_guest(guest, || std::fs::read_to_string(path).unwrap())
}

fn nic(guest: u32) -> String {
    format!("{guest}/net0")
}

fn heading(text: &str) {
    if std::io::stdout().is_terminal() {
        println!("\n\u{1b}[1m{text}\u{1b}[0m");
    } else {
        println!("\n== {text}");
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// Calls the hookscript as Proxmox VE does, and shows what the task log would show.
fn hook(node: &Node, vmid: u32, phase: &str) {
    println!("  # /var/lib/vz/snippets/pve-span {vmid} {phase}");
    let output = node.hook(vmid, phase);
    let said = [output.stdout, output.stderr].concat();
    print!("{}", indented(&String::from_utf8_lossy(&said)));
    assert!(output.status.success(), "the hookscript failed");
}

fn apply(node: &Node, span_cfg: &str) {
    node.span_cfg(span_cfg);
    let output = node.pve_span(&["apply"]);
    assert!(output.status.success(), "{output:?}");
}

/// Others' commands, and a click in the web GUI: the port is plugged anew.
fn nobody_tells(node: &Node) {
    println!("  # ovs-vsctl clear bridge vmbr2 mirrors");
    node.ovs_vsctl(&["clear", "bridge", "vmbr2", "mirrors"]);
    println!("  # nft flush ruleset");
    node.nft("flush ruleset");
    println!("  # qm set 101 --net0 …,firewall=0");
    node.edit(101, |guest| {
        guest.net(0, "virtio=BC:24:11:2A:00:01,bridge=vmbr2,tag=10")
    });
    node.replug(&nic(101));
    lab::wait_until("the service has done what there is to do", || {
        node.pve_span(&["plan"]).status.success()
    });
    node.settle();
}

/// Runs a command whose output is the reader's.
fn pve_span(node: &Node, command: &str) {
    println!("# pve-span {command}");
    let status = node.pve_span_command(&[command]).status();
    assert!(status.unwrap().success(), "pve-span {command} failed");
}

/// How many bytes `pve-span status` says have been mirrored.
fn counted(node: &Node) -> usize {
    let status = node.pve_span(&["status", "--json"]).stdout;
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    let bytes = status["sessions"][0]["outputs"][0]["bytes"].as_u64();
    bytes.unwrap_or_default().try_into().unwrap()
}

/// Leaves a node up. Taps would go with this process.
fn keep() {
    let node = build(Nics::Veths);
    apply(&node, SPAN_CFG);
    let (netns, wire) = (node.netns().to_owned(), node.wire_netns().to_owned());
    let root = node.root().display().to_string();
    node.ip_wire(&["address add 10.0.0.101/16 dev g101i0"]);
    let clean_up = node.keep();
    println!(
        "\nAnother one like it stays up, with veth pairs in place of taps. In a shell on it (`exit` leaves it):"
    );
    println!("  ip netns exec {netns} bash");
    println!(
        "  alias pve-span='{} --root {root}'",
        lab::binary().display()
    );
    println!("  pve-span check; pve-span plan; pve-span apply; pve-span status; pve-span ports");
    println!("  pve-span 103 pre-stop; pve-span 103 post-start");
    println!("  nft list table netdev pve-span");
    println!("  ovs-vsctl --db=unix:{root}/run/openvswitch/db.sock list Mirror");
    println!(
        "The files are in {root}/etc/pve: edit span.cfg there. What the sensor gets, and a frame from guest 101:"
    );
    println!("  ip netns exec {wire} tcpdump -nei g200i1 &");
    println!("  ip netns exec {wire} bash -c 'echo >/dev/udp/10.0.0.9/9'");
    println!("Take it down with:");
    println!("  {clean_up}");
}
