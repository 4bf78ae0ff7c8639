//! Guests as QEMU has them: a tap on the node, held open by this process, and a kernel's network stack behind it.
//!
//! The guest's kernel is this machine's, in a network namespace without a name. Its side of the cable is a second
//! tap, and a thread hands frames from one to the other with their headers, as virtio-net does. So what the guest's
//! TCP sends meets the node in pieces of up to 64 KiB, as from a virtual machine.
//!
//! ```text
//!   netns …-node                              netns of the guest (no name)
//!   vmbr0 ── tap101i0 ══ fd ── relay ── fd ══ g101i0 (10.0.0.101/16)
//!   vmbr0 ── tap200i1 ══ fd ── reader                  (a sensor: no stack)
//! ```
//!
//! Containers with network stacks are here as well; theirs takes no tap and no thread.
//!
//! The kernel takes all of it away when the descriptors are closed, so the guardian need not know of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};

use super::guest::{Inside, Nic};
use super::node::{Node, named_netns, on_thread_in, silence};
use super::packet::LARGEST;
use super::run::{run, wait_until};
use super::tap::{self, HEADER, TapFrame};

/// Frames handed on between two looks at everything else.
const TURN: usize = 64;

/// Who wants to see what arrives at a NIC.
pub(super) type Listeners = Arc<Mutex<Vec<Sender<TapFrame>>>>;

/// The running processes, by guest.
pub(super) type Processes = BTreeMap<u32, Process>;

/// One guest's.
#[derive(Default)]
pub(super) struct Process {
    netns: Option<File>,
    /// A container's NIC needs no relay.
    nics: BTreeMap<u32, Option<Relay>>,
}

/// The thread behind one NIC; it ends, and the taps go, when this is dropped.
struct Relay {
    listeners: Listeners,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        // It has nothing to return; a panic of it has been printed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Node {
    /// Runs `work` on a thread inside the network namespace of a guest made with [`super::Guest::qemu`] or
    /// [`super::Guest::lxc`].
    #[track_caller]
    pub fn inside_guest<R: Send>(&self, vmid: u32, work: impl FnOnce() -> R + Send) -> R {
        let netns = self.guest_netns(vmid);
        on_thread_in(
            netns.unwrap_or_else(|| panic!("guest {vmid} has no network stack, or does not run")),
            work,
        )
    }

    /// The address of a NIC that has a network stack behind it: `10.0.0.101` for `101/net0`, in a /16 for each
    /// number of NIC.
    ///
    /// # Panics
    /// If there is no such NIC.
    #[track_caller]
    pub fn ip_of(&self, nic: &str) -> Ipv4Addr {
        address(&self.nic(nic))
    }

    pub(super) fn guest_netns(&self, vmid: u32) -> Option<File> {
        let processes = self.processes.lock().unwrap();
        let netns = processes.get(&vmid)?.netns.as_ref()?;
        Some(netns.try_clone().expect("cannot duplicate a descriptor"))
    }

    /// What arrives at a NIC from now on.
    #[track_caller]
    pub(super) fn listen(&self, nic: &str) -> Receiver<TapFrame> {
        let Nic { vmid, n, .. } = self.nic(nic);
        let processes = self.processes.lock().unwrap();
        let relay = processes
            .get(&vmid)
            .and_then(|process| process.nics.get(&n));
        let relay = relay.and_then(Option::as_ref);
        let relay = relay.unwrap_or_else(|| panic!("{nic} is not QEMU's, or does not run"));
        let (sender, receiver) = mpsc::channel();
        relay.listeners.lock().unwrap().push(sender);
        receiver
    }

    /// Opens a NIC's tap, and what belongs behind it.
    pub(super) fn open_tap(&self, nic: &Nic) {
        let device = nic.device();
        let open = |name: &str| {
            tap::open(name).unwrap_or_else(|error| panic!("cannot open the tap {name}: {error}"))
        };
        let outer = on_thread_in(named_netns(self.netns()), || open(&device));
        let mut processes = self.processes.lock().unwrap();
        let process = processes.entry(nic.vmid).or_default();
        let inner = (nic.inside == Inside::Stack).then(|| {
            let netns = process.netns.get_or_insert_with(new_netns).try_clone();
            let netns = netns.expect("cannot duplicate a descriptor");
            on_thread_in(netns, || open(&nic.guest_end()))
        });
        process.nics.insert(nic.n, Some(Relay::start(outer, inner)));
    }

    /// The namespace for a container's NIC, as ip(8) takes it.
    pub(super) fn container_netns(&self, nic: &Nic) -> String {
        let mut processes = self.processes.lock().unwrap();
        let process = processes.entry(nic.vmid).or_default();
        process.nics.insert(nic.n, None);
        let netns = process.netns.get_or_insert_with(new_netns);
        format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd())
    }

    /// Sets the guest's end of a NIC up, if there is a network stack.
    pub(super) fn give_address(&self, nic: &Nic) {
        if nic.inside != Inside::Stack {
            return;
        }
        let (end, mac, ip) = (nic.guest_end(), nic.mac, address(nic));
        self.inside_guest(nic.vmid, || {
            let mut command = self.marked_command("ip");
            command.args(["-batch", "-"]);
            let lines = [
                format!("link set {end} address {mac} up\n"),
                format!("address add {ip}/16 dev {end}\n"),
            ];
            run(command, &lines.concat());
        });
    }

    /// Ends what is behind some NICs; their taps have gone when it returns.
    pub(super) fn end_processes(&self, nics: &[Nic]) {
        let mut processes = self.processes.lock().unwrap();
        for nic in nics {
            if let Some(process) = processes.get_mut(&nic.vmid) {
                process.nics.remove(&nic.n);
            }
        }
        processes.retain(|_, process| !process.nics.is_empty());
        drop(processes);
        if !nics.iter().any(Nic::is_tap) {
            return;
        }
        // A child that another thread is just starting holds copies of all descriptors until it runs its program.
        wait_until("closed taps go", || {
            let devices = self.devices();
            let mut taps = nics.iter().filter(|nic| nic.is_tap());
            taps.all(|nic| !devices.contains(&nic.device()))
        });
    }
}

impl Relay {
    fn start(outer: File, inner: Option<File>) -> Relay {
        let listeners = Listeners::default();
        let (stop, stopped) = UnixStream::pair().expect("cannot make a pair of sockets");
        let told = Arc::clone(&listeners);
        let thread = thread::spawn(move || relay(&outer, inner.as_ref(), &stopped, &told));
        Relay {
            listeners,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

/// Hands frames on until `stopped` or one of the taps is closed.
fn relay(outer: &File, inner: Option<&File>, stopped: &UnixStream, listeners: &Listeners) {
    let mut buffer = vec![0; HEADER + LARGEST];
    loop {
        let mut fds = vec![
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
            PollFd::new(outer.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(inner.map(|inner| PollFd::new(inner.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => panic!("cannot wait at a tap: {error}"),
        }
        if fds[0].any() != Some(false) {
            return;
        }
        let arrived = turn(outer, &mut buffer, |frame| {
            tell(listeners, frame);
            if let Some(inner) = inner {
                write(inner, frame);
            }
        });
        let sent = inner.map(|inner| turn(inner, &mut buffer, |frame| write(outer, frame)));
        if arrived.is_none() || sent == Some(None) {
            return;
        }
    }
}

/// Reads some frames; nothing if the device has gone.
fn turn(from: &File, buffer: &mut [u8], mut each: impl FnMut(&[u8])) -> Option<()> {
    let mut from = from;
    for _ in 0..TURN {
        match from.read(buffer) {
            Ok(len) => each(&buffer[..len]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(())
}

fn write(to: &File, frame: &[u8]) {
    let mut to = to;
    match to.write(frame) {
        Ok(_) => {}
        // The device is down: nobody listens at the other end of the cable.
        Err(error) if error.raw_os_error() == Some(libc::EIO) => {}
        Err(error) => eprintln!("lab: a tap does not take a frame: {error}"),
    }
}

fn tell(listeners: &Listeners, frame: &[u8]) {
    let mut listeners = listeners.lock().unwrap();
    listeners.retain(|listener| listener.send(TapFrame::parse(frame)).is_ok());
}

/// A namespace of its own, which lives as long as the file.
fn new_netns() -> File {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("cannot make a network namespace");
        silence();
        File::open("/proc/thread-self/ns/net").expect("cannot open a network namespace")
    });
    match thread.join() {
        Ok(file) => file,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn address(nic: &Nic) -> Ipv4Addr {
    let [_, _, high, low] = nic.vmid.to_be_bytes();
    Ipv4Addr::new(10, nic.n.to_be_bytes()[3], high, low)
}
