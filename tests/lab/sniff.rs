//! What arrives at a tap, as the program that holds it open gets it: frames with their headers, in order.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use super::node::Node;
use super::run::PATIENCE;
use super::tap::TapFrame;

/// What has arrived at a NIC made with [`super::Guest::qemu`] or [`super::Guest::qemu_reader`] since it was made.
pub struct TapCapture<'a> {
    node: &'a Node,
    device: String,
    arriving: Receiver<TapFrame>,
    frames: Vec<TapFrame>,
    missed_before: u64,
}

impl Node {
    /// Captures what arrives at the tap of `200/net1` from now on.
    ///
    /// # Panics
    /// If it has none, or does not run.
    #[track_caller]
    pub fn capture_tap(&self, nic: &str) -> TapCapture<'_> {
        let device = self.nic(nic).device();
        TapCapture {
            node: self,
            arriving: self.listen(nic),
            frames: Vec::new(),
            missed_before: self.dropped(&device),
            device,
        }
    }
}

impl TapCapture<'_> {
    /// Waits for a frame with `token`, then returns all frames before it and forgets them.
    ///
    /// # Panics
    /// If none arrives within [`PATIENCE`], or if the tap's queue was full at some time.
    #[track_caller]
    pub fn all_until(&mut self, token: &str) -> Vec<TapFrame> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.arriving.recv_timeout(left) {
                Ok(last) if last.frame.contains(token) => break,
                Ok(frame) => self.frames.push(frame),
                Err(RecvTimeoutError::Timeout) => panic!(
                    "waited {PATIENCE:?} in vain for `{token}` at {}; there are {} frames, the last ones {:#?}",
                    self.device,
                    self.frames.len(),
                    &self.frames[self.frames.len().saturating_sub(3)..]
                ),
                Err(RecvTimeoutError::Disconnected) => panic!("{} has gone", self.device),
            }
        }
        self.assert_nothing_missed();
        std::mem::take(&mut self.frames)
    }

    /// The frames that have arrived so far, without waiting for more; then forgets them.
    ///
    /// # Panics
    /// If the tap's queue was full at some time.
    #[track_caller]
    pub fn so_far(&mut self) -> Vec<TapFrame> {
        self.frames.extend(self.arriving.try_iter());
        self.assert_nothing_missed();
        std::mem::take(&mut self.frames)
    }

    #[track_caller]
    fn assert_nothing_missed(&self) {
        assert_eq!(
            self.node.dropped(&self.device),
            self.missed_before,
            "frames did not fit the queue of {}",
            self.device
        );
    }
}
