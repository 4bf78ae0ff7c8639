//! The guests' side: sending frames out of a guest's NIC, and seeing what arrives at it.
//!
//! Packet sockets of our own (`packet`) rather than tcpdump: they are listening when `capture` returns, cost
//! microseconds, and say when they have missed something.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::frame::{Frame, Mac};
use super::guest::{split_nic, wire_device};
use super::node::{Node, on_thread_in};
use super::packet::{LARGEST, Use, missed, open, receive};
use super::run::PATIENCE;

impl Node {
    /// Sends a frame out of a guest's NIC (`101/net0`) or into a cable (`weno1`).
    #[track_caller]
    pub fn send(&self, from: &str, frame: &Frame) {
        self.sender(from).send(frame);
    }

    /// For sending many frames.
    #[track_caller]
    pub fn sender(&self, from: &str) -> Sender {
        let device = wire_device(from);
        let socket = self.packet_socket(from, &device, Use::Send);
        let socket =
            socket.unwrap_or_else(|error| panic!("cannot send from {from} ({device}): {error}"));
        Sender { socket, device }
    }

    /// Captures what arrives at a guest's NIC or at the end of a cable, from now on.
    #[track_caller]
    pub fn capture(&self, at: &str) -> Capture {
        let device = wire_device(at);
        let socket = self.packet_socket(at, &device, Use::Receive);
        let socket =
            socket.unwrap_or_else(|error| panic!("cannot capture at {at} ({device}): {error}"));
        Capture {
            socket,
            device,
            frames: Vec::new(),
        }
    }

    /// A socket on a device where the guest is that `word` names; a cable's end is on the wire.
    pub(super) fn packet_socket(
        &self,
        word: &str,
        device: &str,
        purpose: Use,
    ) -> io::Result<OwnedFd> {
        match split_nic(word).and_then(|(vmid, _)| self.guest_netns(vmid)) {
            Some(netns) => on_thread_in(netns, || open(device, purpose)),
            None => self.inside_wire(|| open(device, purpose)),
        }
    }

    /// The Ethernet address of `101/net0`.
    #[track_caller]
    pub fn mac(&self, nic: &str) -> Mac {
        self.nic(nic).mac
    }

    /// A frame from NIC to NIC that carries `token`.
    #[track_caller]
    pub fn frame(&self, from: &str, to: &str, token: &str) -> Frame {
        Frame::new(self.mac(from), self.mac(to)).carrying(token)
    }

    /// Sends one frame with `token` from NIC `from` to NIC `to`, and returns when the node is wholly through with it,
    /// copies included: behind it goes a second frame, without the token, and both have arrived. Returns the first as
    /// it arrived.
    #[track_caller]
    pub fn exchange(&self, from: &str, to: &str, token: &str) -> Frame {
        let mut capture = self.capture(to);
        let sender = self.sender(from);
        sender.send(&self.frame(from, to, token));
        let arrived = capture.wait_for(|frame| frame.contains(token));
        sender.send(&self.frame(from, to, "behind-it"));
        capture.wait_for(|frame| frame.contains("behind-it"));
        arrived
    }

    /// Lets two NICs hear of each other, so that the switches on the way have learned both and flood no frame between
    /// them any more.
    #[track_caller]
    pub fn introduce(&self, a: &str, b: &str) {
        self.exchange(a, b, "introduction");
        self.exchange(b, a, "introduction");
        self.settle();
    }
}

/// A socket to send through.
pub struct Sender {
    socket: OwnedFd,
    device: String,
}

impl Sender {
    /// Sends a frame.
    #[track_caller]
    pub fn send(&self, frame: &Frame) {
        if let Err(error) = nix::unistd::write(&self.socket, frame.bytes()) {
            panic!("cannot send from {}: {error}", self.device);
        }
    }
}

/// What has arrived since it was made.
pub struct Capture {
    socket: OwnedFd,
    device: String,
    frames: Vec<Frame>,
}

impl Capture {
    /// Waits for a frame that `wanted` accepts, among those already there too.
    ///
    /// # Panics
    /// If none arrives within [`PATIENCE`].
    #[track_caller]
    pub fn wait_for(&mut self, wanted: impl FnMut(&Frame) -> bool) -> Frame {
        let found = self.wait_within(PATIENCE, wanted);
        found.unwrap_or_else(|| {
            panic!(
                "waited {PATIENCE:?} in vain for a frame at {}; there are {:#?}",
                self.device, self.frames
            )
        })
    }

    /// The same; `None` if none arrives in time.
    pub fn wait_within(
        &mut self,
        time: Duration,
        mut wanted: impl FnMut(&Frame) -> bool,
    ) -> Option<Frame> {
        let deadline = Instant::now() + time;
        let mut looked_at = 0;
        loop {
            self.drain();
            if let Some(found) = self.frames[looked_at..].iter().find(|frame| wanted(frame)) {
                return Some(found.clone());
            }
            looked_at = self.frames.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => panic!("cannot wait for frames at {}: {error}", self.device),
            }
        }
    }

    /// All frames that have arrived so far.
    pub fn frames(&mut self) -> Vec<Frame> {
        self.drain();
        self.frames.clone()
    }

    /// How many frames with `token` have arrived so far.
    pub fn count(&mut self, token: &str) -> usize {
        self.drain();
        self.frames
            .iter()
            .filter(|frame| frame.contains(token))
            .count()
    }

    /// Forgets what has arrived so far.
    pub fn clear(&mut self) {
        self.drain();
        self.frames.clear();
    }

    fn drain(&mut self) {
        let mut buffer = vec![0; LARGEST];
        loop {
            match receive(&self.socket, &mut buffer) {
                Ok(frame) => self.frames.push(frame),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                // The guest stopped. What had arrived stays.
                Err(Errno::ENETDOWN) => {}
                Err(error) => panic!("cannot receive at {}: {error}", self.device),
            }
        }
        let missed = missed(&self.socket);
        assert_eq!(
            missed,
            Ok(0),
            "frames did not fit the capture at {}: read it more often",
            self.device
        );
    }
}
