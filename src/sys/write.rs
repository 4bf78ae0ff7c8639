//! Writing to whoever called us, without waiting for a reader that sleeps.

use std::io::Write;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What a pipe takes at once or not at all (`PIPE_BUF`, pipe(7)), in bytes.
const PIPE_BUF: usize = 4096;

/// Writes a text until the deadline at most. A reader that has gone or sleeps costs the rest of the text
/// and nothing else.
pub fn write_in_time(fd: BorrowedFd<'_>, mut to: impl Write, text: &[u8], deadline: Instant) {
    for piece in text.chunks(PIPE_BUF) {
        let mut ready = [PollFd::new(fd, PollFlags::POLLOUT)];
        // A pipe that says that it can take something takes so much without blocking.
        let is_ready = poll(&mut ready, remaining(deadline)).is_ok_and(|count| count > 0);
        if !is_ready || to.write_all(piece).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

/// What is left until then, for poll(2); rounded up, as a moment too early is another round for nothing.
pub(crate) fn remaining(deadline: Instant) -> PollTimeout {
    let left = deadline.saturating_duration_since(Instant::now());
    PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
}
