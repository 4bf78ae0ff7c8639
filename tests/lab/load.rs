//! Numbered frames at a steady rate, and who got which: for saying that none is lost and none doubled while
//! something else happens.
//!
//! The sender never has more than a few frames on the way that have not come out at the other guest, so no queue
//! between them can overflow; the receivers have large buffers and a thread each, and say so if they were full.

use std::fmt;
use std::ops::Range;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::frame::Frame;
use super::guest::wire_device;
use super::node::Node;
use super::packet::{LARGEST, Use, missed, receive};
use super::run::{PATIENCE, wait_until};

/// Frames on the way: far below the 1,000 that a CPU's receive queue holds (net.core.netdev_max_backlog), with
/// copies and several hops in mind.
const ON_THE_WAY: u64 = 128;

/// After how long without one that arrives those on the way are taken for lost.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(1);

/// How often the sender looks at the clock.
const BEAT: Duration = Duration::from_millis(1);

/// A thread that sends numbered frames, from 0 on.
pub struct Load<'a> {
    node: &'a Node,
    ends: [String; 2],
    destination: Counter<'a>,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A thread that takes note of the numbered frames that arrive at a NIC.
pub struct Counter<'a> {
    node: &'a Node,
    at: String,
    dropped_before: u64,
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<u8>>>,
}

/// Which numbers arrived, and how often.
pub struct Tally {
    /// The NIC.
    pub at: String,
    /// Frames that the device's queue on the node had no room for: the machine was too busy.
    pub dropped: u64,
    times: Vec<u8>,
}

impl Node {
    /// Sends numbered frames from NIC `from` to NIC `to`, until it is told to finish. `token` says whose they are.
    #[track_caller]
    pub fn load(&self, from: &str, to: &str, token: &str, per_second: u32) -> Load<'_> {
        let destination = self.counter(to, token);
        let socket = self.packet_socket(from, &wire_device(from), Use::Send);
        let socket = socket.unwrap_or_else(|error| panic!("cannot send from {from}: {error}"));
        let sent = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let sender = Sender {
            socket,
            frame: Frame::new(self.mac(from), self.mac(to)),
            token: token.to_owned(),
            per_second,
            sent: Arc::clone(&sent),
            received: Arc::clone(&destination.received),
            stop: Arc::clone(&stop),
        };
        Load {
            node: self,
            ends: [from.to_owned(), to.to_owned()],
            destination,
            sent,
            stop,
            thread: Some(thread::spawn(move || sender.run())),
        }
    }

    /// Counts the numbered frames with `token` that arrive at `at` from now on.
    #[track_caller]
    pub fn counter(&self, at: &str, token: &str) -> Counter<'_> {
        let socket = self.packet_socket(at, &wire_device(at), Use::Receive);
        let socket = socket.unwrap_or_else(|error| panic!("cannot count at {at}: {error}"));
        let received = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (at, token) = (at.to_owned(), token.to_owned());
            let (received, stop) = (Arc::clone(&received), Arc::clone(&stop));
            thread::spawn(move || count(&at, &socket, &token, &received, &stop))
        };
        Counter {
            node: self,
            at: at.to_owned(),
            dropped_before: self.dropped(&self.nic(at).device()),
            received,
            stop,
            thread: Some(thread),
        }
    }
}

impl Load<'_> {
    /// How many have been sent so far: the number that the next one will have.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// Waits until `more` frames have been sent from now on.
    #[track_caller]
    pub fn wait_for(&self, more: u64) {
        let goal = self.sent() + more;
        wait_until("numbered frames are sent", || self.sent() >= goal);
    }

    /// Ends it, waits until the last frame is wholly through the node, copies included, and returns how many were
    /// sent and what arrived at the other guest. Where something is lost there, that takes its time.
    #[track_caller]
    pub fn finish(mut self) -> (u64, Tally) {
        self.stop.store(true, Ordering::Release);
        join(self.thread.take());
        let sent = self.sent();
        let deadline = Instant::now() + PATIENCE;
        while self.destination.received() < sent && Instant::now() < deadline {
            thread::sleep(BEAT);
        }
        let [from, to] = &self.ends;
        self.node.exchange(from, to, "behind-the-load");
        (sent, self.destination.end())
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Counter<'_> {
    /// How many have arrived so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }

    /// What has arrived, all that is in the buffer included; for after [`Load::finish`].
    ///
    /// # Panics
    /// If the buffer was full at some time.
    #[track_caller]
    pub fn finish(mut self) -> Tally {
        self.end()
    }

    #[track_caller]
    fn end(&mut self) -> Tally {
        self.stop.store(true, Ordering::Release);
        let times = join(self.thread.take());
        let device = self.node.nic(&self.at).device();
        Tally {
            at: self.at.clone(),
            dropped: self
                .node
                .dropped(&device)
                .saturating_sub(self.dropped_before),
            times,
        }
    }
}

impl Drop for Counter<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Tally {
    /// How many different numbers arrived.
    pub fn received(&self) -> usize {
        self.times.iter().filter(|times| **times > 0).count()
    }

    /// The numbers of these that did not arrive, as ranges.
    pub fn lost(&self, numbers: Range<u64>) -> Vec<Range<u64>> {
        let mut lost: Vec<Range<u64>> = Vec::new();
        for number in numbers {
            let index = usize::try_from(number).expect("numbers are counted from 0");
            if self.times.get(index).is_some_and(|times| *times > 0) {
                continue;
            }
            match lost.last_mut() {
                Some(last) if last.end == number => last.end += 1,
                _ => lost.push(number..number + 1),
            }
        }
        lost
    }

    /// The numbers that arrived more than once.
    pub fn doubled(&self) -> Vec<usize> {
        let times = self.times.iter().enumerate();
        times
            .filter_map(|(number, times)| (*times > 1).then_some(number))
            .collect()
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "at {} {} numbers, {} of them more than once; {} frames dropped on the way",
            self.at,
            self.received(),
            self.doubled().len(),
            self.dropped
        )
    }
}

/// What the sending thread needs.
struct Sender {
    socket: OwnedFd,
    frame: Frame,
    token: String,
    per_second: u32,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Sender {
    fn run(self) {
        let began = Instant::now();
        let mut progress = (0, Instant::now());
        let mut number = 0;
        let mut given_up = 0;
        while !self.stop.load(Ordering::Acquire) {
            let received = self.received.load(Ordering::Acquire);
            let by_time = began.elapsed().as_millis() * u128::from(self.per_second) / 1000;
            let by_time = u64::try_from(by_time).unwrap_or(u64::MAX);
            let until = by_time.min(received + given_up + ON_THE_WAY);
            while number < until {
                self.send(number);
                number += 1;
            }
            self.sent.store(number, Ordering::Release);
            if progress.0 != received {
                progress = (received, Instant::now());
            }
            // Those that a port took with it do not arrive any more.
            if progress.1.elapsed() > GIVEN_UP_AFTER {
                given_up = number - received;
            }
            assert!(
                progress.1.elapsed() < PATIENCE || number == 0,
                "of the numbered frames none has arrived for {PATIENCE:?}"
            );
            thread::sleep(BEAT);
        }
    }

    fn send(&self, number: u64) {
        let payload = [self.token.as_bytes(), &number.to_be_bytes()].concat();
        let frame = self.frame.clone().carrying(payload).padded_to(60);
        if let Err(error) = nix::unistd::write(&self.socket, frame.bytes()) {
            panic!("cannot send a numbered frame: {error}");
        }
    }
}

/// The counting thread: how often each number came.
fn count(
    at: &str,
    socket: &OwnedFd,
    token: &str,
    received: &AtomicU64,
    stop: &AtomicBool,
) -> Vec<u8> {
    let mut times: Vec<u8> = Vec::new();
    let mut buffer = vec![0; LARGEST];
    loop {
        // Before the last look, so that nothing that was there is left.
        let last = stop.load(Ordering::Acquire);
        loop {
            let frame = match receive(socket, &mut buffer) {
                Ok(frame) => frame,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR | Errno::ENETDOWN) => continue,
                Err(error) => panic!("cannot receive at {at}: {error}"),
            };
            let Some(number) = number(&frame, token) else {
                continue;
            };
            if times.len() <= number {
                times.resize(number + 1, 0);
            }
            times[number] = times[number].saturating_add(1);
            received.fetch_add(1, Ordering::Release);
        }
        let full = missed(socket);
        assert_eq!(full, Ok(0), "frames did not fit the counter at {at}");
        if last {
            return times;
        }
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(10_u8)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => panic!("cannot wait for frames at {at}: {error}"),
        }
    }
}

fn number(frame: &Frame, token: &str) -> Option<usize> {
    let rest = frame.payload().strip_prefix(token.as_bytes())?;
    let bytes = rest.first_chunk()?;
    usize::try_from(u64::from_be_bytes(*bytes)).ok()
}

fn join<T>(thread: Option<JoinHandle<T>>) -> T {
    match thread.expect("it is taken once").join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
