//! The package and its unit under a real systemd: installed, crashed, hung, upgraded, started with the machine, removed.
//!
//! All of that happens to the machine itself, so it is one of tests/vm (`make test-vm`). The tests run one after the
//! other, with a reboot between them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod lab;

use std::fs::File;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lab::or_skip;
use nix::sched::{CloneFlags, setns};

/// The service is found hung after a minute, killed ten seconds later, and started five seconds after that.
const PATIENCE: Duration = Duration::from_secs(240);

/// Their network namespaces.
const SENSORS: [&str; 2] = ["g200", "g201"];

/// Guests 101, 102 and the sensor 200 on the Linux bridge vmbr0; 103, 104 and the sensor 201 on vmbr2, Open vSwitch's.
const PLUG: &str = r#"
set -e
ip link add vmbr0 type bridge 2>/dev/null && ip link set vmbr0 up
ovs-vsctl --may-exist add-br vmbr2
plug() {
    ip netns add "g$1"
    ip link add "tap$1i$2" type veth peer name eth0 netns "g$1"
    ip -n "g$1" link set eth0 up
    [ -z "$4" ] || ip -n "g$1" addr add "$4/24" dev eth0
    ip link set "tap$1i$2" up
    if [ "$3" = vmbr0 ]; then ip link set "tap$1i$2" master vmbr0; else ovs-vsctl --may-exist add-port "$3" "tap$1i$2"; fi
}
plug 101 0 vmbr0 10.9.0.101
plug 102 0 vmbr0 10.9.0.102
plug 200 1 vmbr0 ''
plug 103 0 vmbr2 10.9.0.103
plug 104 0 vmbr2 10.9.0.104
plug 201 1 vmbr2 ''
"#;

/// An /etc/pve as the cluster filesystem shows it.
const CLUSTER: &str = r#"
set -e
mkdir -p /etc/pve/nodes/pve1/qemu-server /etc/pve/nodes/pve1/lxc
cd /etc/pve
ln -s nodes/pve1 local
ln -s nodes/pve1/qemu-server qemu-server
ln -s nodes/pve1/lxc lxc
for vmid in 101 102 103 104 200 201; do
    case $vmid in
        101 | 102) bridge=vmbr0 n=0 ;;
        200) bridge=vmbr0 n=1 ;;
        201) bridge=vmbr2 n=1 ;;
        *) bridge=vmbr2 n=0 ;;
    esac
    echo "net$n: virtio=BC:24:11:2A:00:$((vmid - 90)),bridge=$bridge" >"qemu-server/$vmid.conf"
    # By its first NIC a sensor is managed.
    [ "$n" -eq 0 ] || echo "net0: virtio=BC:24:11:2A:01:$((vmid - 90)),bridge=vmbr0" >>"qemu-server/$vmid.conf"
    ids="$ids${ids:+,
}\"$vmid\": { \"node\": \"pve1\", \"type\": \"qemu\", \"version\": 1 }"
done
printf '{\n"nodename": "pve1",\n"version": 0\n}\n' >.members
printf '{\n"version": 1,\n"ids": {\n%s}\n\n}\n' "$ids" >.vmlist
printf '{\n"starttime": 1790000000,\n"clinfo": 0,\n"vmlist": 1\n}\n' >.version
printf '[lan]\nsource = 101\noutput = 200/net1\n\n[dmz]\nsource = 103\noutput = 201/net1\n' >span.cfg
"#;

/// Stands for Proxmox VE's unit that starts the guests; it writes down what the service was like then.
const GUESTS: &str = "[Service]\nType=oneshot\nExecStart=sh -c 'systemctl is-active pve-span >/at-guests'\n\
                      [Install]\nWantedBy=multi-user.target\n";

/// An emulated machine on a busy computer may take longer than a node. (WatchdogSec= is the unit's own.)
const PATIENT: &str = "[Service]\nTimeoutStartSec=240\nTimeoutStopSec=60\n";

/// What the package has, apart from dpkg's own books.
const LEFT: &str = "find / -xdev -name '*pve-span*' -not -path '/proc/*' -not -path '/tmp/*' -not -path '/job/*' \
                    -not -path '/var/log/*' -not -path '*/pve-span.service.d'; ls -d /run/pve-span* 2>/dev/null || true";

/// The machine, which is thrown away afterwards. Shows the service's journal when a test fails.
struct Machine {
    sensors: Vec<Child>,
    tokens: u32,
}

impl Machine {
    fn new(boot: &str) -> Result<Machine, String> {
        // On the kernel's command line, as a variable is set too easily for what happens to this machine.
        let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        if !line.split_whitespace().any(|word| word == "pve_span.vm=1") {
            return Err(
                "it installs and breaks the package on a machine with systemd, see `make test-vm`"
                    .to_owned(),
            );
        }
        assert_eq!(std::env::var("VM_BOOT").as_deref(), Ok(boot));
        Ok(Machine {
            sensors: Vec::new(),
            tokens: 0,
        })
    }

    /// Plugs everything, and listens at both sensors.
    fn plug(&mut self) {
        sh(PLUG);
        for sensor in SENSORS {
            let mut command = Command::new("ip");
            command.args([
                "netns", "exec", sensor, "tcpdump", "-q", "-U", "-n", "-i", "eth0", "-w",
            ]);
            command.arg(format!("/tmp/{sensor}.pcap"));
            command.args(["udp", "port", "9"]).stderr(Stdio::null());
            self.sensors.push(command.spawn().unwrap());
            wait_until("the sensor listens", || {
                succeeds(&format!("test -s /tmp/{sensor}.pcap"))
            });
        }
    }

    /// Both sensors get a copy of what is said on their bridge, and no second one.
    #[track_caller]
    fn assert_mirrors(&mut self) {
        let token = self.send();
        wait_until("both sensors get copies", || {
            copies(&token).iter().all(|count| *count > 0)
        });
        let behind = self.send();
        wait_until("both sensors get what follows", || {
            copies(&behind).iter().all(|count| *count > 0)
        });
        assert_eq!(copies(&token), [1, 1]);
    }

    /// Sends a datagram on each bridge; returns what it says.
    #[track_caller]
    fn send(&mut self) -> String {
        self.tokens += 1;
        let token = format!("token-{}-", self.tokens);
        for (from, to) in [("g101", "10.9.0.102"), ("g103", "10.9.0.104")] {
            sh(&format!(
                "ip netns exec {from} bash -c 'echo {token} >/dev/udp/{to}/9'"
            ));
        }
        token
    }
}

/// How often each sensor has got it by now.
fn copies(token: &str) -> [usize; 2] {
    SENSORS.map(|sensor| {
        let (_, said) = output(&format!("tcpdump -A -n -r /tmp/{sensor}.pcap"));
        said.matches(token).count()
    })
}

impl Drop for Machine {
    fn drop(&mut self) {
        for sensor in &mut self.sensors {
            let _ = sensor.kill();
            let _ = sensor.wait();
        }
        if std::thread::panicking() {
            let said = Command::new("sh")
                .args(["-c", "systemctl status --no-pager -l pve-span; journalctl --no-pager -n 60 -u pve-span; pve-span status; nft list ruleset; ovs-vsctl show; ip -br link"])
                .output()
                .unwrap();
            eprintln!("{}", String::from_utf8_lossy(&said.stdout));
        }
    }
}

/// Who talks while the package is removed: on the Linux bridge, and on Open vSwitch's.
const CONVERSATIONS: [(&str, &str); 2] = [("g101", "10.9.0.102"), ("g103", "10.9.0.104")];

/// Numbered datagrams of one flow, ten milliseconds apart, and how many of them were heard at the other end.
struct Conversation {
    sent: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    sender: JoinHandle<()>,
    listener: JoinHandle<u64>,
}

impl Conversation {
    fn begin(from: &'static str, to: &'static str) -> Conversation {
        let (sent, is_over) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let to_netns = format!("g{}", to.rsplit('.').next().unwrap());
        let ear = inside(&to_netns, move || UdpSocket::bind((to, 9)).unwrap());
        ear.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mouth = inside(from, || UdpSocket::bind(("0.0.0.0", 0)).unwrap());
        let listener = std::thread::spawn(move || {
            let mut heard = 0;
            let mut datagram = [0; 64];
            while let Ok(length) = ear.recv(&mut datagram) {
                if &datagram[..length] == b"over" {
                    break;
                }
                heard += 1;
            }
            heard
        });
        let (counter, over) = (Arc::clone(&sent), Arc::clone(&is_over));
        let sender = std::thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                let number = counter.load(Ordering::SeqCst) + 1;
                let text = format!("conversation-{number}-");
                mouth.send_to(text.as_bytes(), (to, 9)).unwrap();
                counter.store(number, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(10));
            }
            mouth.send_to(b"over", (to, 9)).unwrap();
        });
        Conversation {
            sent,
            is_over,
            sender,
            listener,
        }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// How many datagrams were sent, and how many heard.
    fn end(self) -> (u64, u64) {
        self.is_over.store(true, Ordering::SeqCst);
        self.sender.join().unwrap();
        let heard = self.listener.join().unwrap();
        (self.sent.load(Ordering::SeqCst), heard)
    }
}

/// What `work` makes in a guest's network namespace.
fn inside<T: Send + 'static>(netns: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let netns = File::open(format!("/run/netns/{netns}")).unwrap();
    let thread = std::thread::spawn(move || {
        setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    });
    thread.join().unwrap()
}

/// The number of the last datagram of a conversation that the sensor has got a copy of.
fn last_copy(sensor: &str) -> u64 {
    let (_, said) = output(&format!("tcpdump -A -n -r /tmp/{sensor}.pcap"));
    let numbers = said.split("conversation-").skip(1);
    let numbers = numbers.filter_map(|rest| rest.split('-').next()?.parse().ok());
    numbers.max().unwrap()
}

fn output(script: &str) -> (bool, String) {
    let output = Command::new("sh")
        .args(["-c", &format!("exec 2>&1\n{script}")])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

fn succeeds(script: &str) -> bool {
    output(script).0
}

/// Runs a script that has to succeed; what it said.
#[track_caller]
fn sh(script: &str) -> String {
    let (succeeded, said) = output(script);
    assert!(succeeded, "{script}\n{said}");
    said
}

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "waited {PATIENCE:?} in vain: {what}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Says how far the test is: with the machine's speed this takes minutes.
fn step(what: &str) {
    eprintln!("systemd: {what}");
}

/// A property of the service, as systemd has it.
fn property(name: &str) -> String {
    sh(&format!(
        "systemctl show --value -p {name} pve-span.service"
    ))
    .trim()
    .to_owned()
}

/// The service runs and has said that it is ready, and systemd has nothing to complain about.
#[track_caller]
fn assert_ready() {
    assert_eq!(property("ActiveState"), "active");
    assert_eq!(property("SubState"), "running");
    assert_eq!(property("Type"), "notify");
    assert_eq!(sh("systemctl is-enabled pve-span").trim(), "enabled");
    assert_eq!(
        sh("systemctl --failed --no-legend --plain | grep pve-span || true"),
        ""
    );
}

/// Sends the service a signal; returns when systemd has started it anew.
#[track_caller]
fn started_anew_after(signal: &str) {
    let (pid, restarts) = (property("MainPID"), property("NRestarts"));
    sh(&format!("kill -{signal} {pid}"));
    wait_until("systemd has started the service anew", || {
        let new = property("MainPID");
        new != pid && new != "0" && property("ActiveState") == "active"
    });
    let restarts: u32 = restarts.parse().unwrap();
    assert_eq!(property("NRestarts"), (restarts + 1).to_string());
    assert_ready();
}

/// Our table, with its handles: the same ones as long as nobody takes it down.
fn table() -> String {
    sh("nft --stateless --handle list table netdev pve-span")
}

#[test]
fn first_boot_installed_crashed_hung_and_upgraded_the_service_is_back_and_the_mirrors_stay() {
    let Some(mut machine) = or_skip(Machine::new("1")) else {
        return;
    };
    step("a node is made");
    sh("systemctl enable --now openvswitch-switch.service");
    std::fs::write("/etc/systemd/system/pve-guests.service", GUESTS).unwrap();
    let drop_in = "/etc/systemd/system/pve-span.service.d";
    std::fs::create_dir(drop_in).unwrap();
    std::fs::write(format!("{drop_in}/patient.conf"), PATIENT).unwrap();
    sh("systemctl daemon-reload; systemctl enable pve-guests.service");
    sh(CLUSTER);
    machine.plug();
    step("installed");
    let deb = std::env::var("PVE_SPAN_DEB").expect("tests/vm/test sets it");
    sh(&format!("dpkg -i '{deb}'"));
    assert_ready();
    wait_until("all sessions are active", || succeeds("pve-span status"));
    machine.assert_mirrors();

    step("crashed");
    started_anew_after("KILL");
    machine.assert_mirrors();

    step("reloaded");
    let pid = property("MainPID");
    sh("systemctl reload pve-span");
    assert_eq!(property("MainPID"), pid);
    machine.assert_mirrors();

    let before = table();
    step("stopped and started");
    sh("systemctl stop pve-span");
    machine.assert_mirrors();
    sh("systemctl start pve-span");
    assert_ready();

    let pid = property("MainPID");
    step("upgraded");
    sh(&format!(
        "dpkg-deb --raw-extract '{deb}' /tmp/newer && sed -i 's/^Version: .*/Version: 99.0.0-1/' /tmp/newer/DEBIAN/control && \
         dpkg-deb --root-owner-group -Znone --build /tmp/newer /tmp/newer.deb && dpkg -i /tmp/newer.deb"
    ));
    assert_eq!(sh("dpkg-query -W -f '${Version}' pve-span"), "99.0.0-1");
    assert_ready();
    assert_ne!(property("MainPID"), pid, "the new version runs");
    assert_eq!(table(), before);
    machine.assert_mirrors();

    step("hung");
    // The unit's own WatchdogSec=.
    started_anew_after("STOP");
    assert!(sh("journalctl --no-pager -u pve-span").contains("Watchdog timeout"));
    machine.assert_mirrors();
}

#[test]
fn second_boot_the_service_starts_before_the_guests_and_is_removed_without_a_trace() {
    let Some(mut machine) = or_skip(Machine::new("2")) else {
        return;
    };
    assert_ready();
    assert_eq!(property("NRestarts"), "0");
    assert_eq!(std::fs::read_to_string("/at-guests").unwrap(), "active\n");
    step("started with the machine");
    machine.plug();
    wait_until("all sessions are active", || succeeds("pve-span status"));
    machine.assert_mirrors();

    step("removed, while guests talk");
    let talks = CONVERSATIONS.map(|(from, to)| Conversation::begin(from, to));
    wait_until("both conversations are mirrored", || {
        copies("conversation-").iter().all(|count| *count > 0)
    });
    sh("dpkg -r pve-span");
    let removed = talks.each_ref().map(Conversation::sent);
    wait_until("the conversations go on", || {
        let sent = talks.each_ref().map(Conversation::sent);
        sent.iter()
            .zip(removed)
            .all(|(sent, removed)| *sent > removed + 100)
    });
    let (all, heard): (Vec<u64>, Vec<u64>) = talks.map(Conversation::end).into_iter().unzip();
    assert_eq!(all, heard, "the guests themselves have lost nothing");
    for (sensor, removed) in SENSORS.iter().zip(removed) {
        let last = last_copy(sensor);
        assert!(
            last <= removed,
            "{sensor}: {last} came, removed at {removed}"
        );
    }
    assert_eq!(property("LoadState"), "not-found");
    assert_eq!(property("ActiveState"), "inactive");
    assert_eq!(sh("ovs-vsctl --bare --columns=name list Mirror"), "");
    assert_eq!(sh("nft list tables | grep pve-span || true"), "");
    sh("dpkg -P pve-span");
    assert_eq!(sh(LEFT), "");
    assert!(succeeds("test -f /etc/pve/span.cfg"), "it is every node's");
    assert_eq!(
        sh("systemctl --failed --no-legend --plain | grep pve-span || true"),
        ""
    );
}
