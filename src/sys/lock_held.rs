//! Whether this thread holds the node's lock: who does must not do what may hang.

use std::cell::Cell;

thread_local! {
    /// How many locks this thread holds: one, but for tests.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Does this thread hold the lock, and so must not do what may hang?
pub fn is_held() -> bool {
    HELD.get() > 0
}

/// Says that this thread holds the lock.
#[derive(Debug)]
pub struct HeldMark;

impl HeldMark {
    /// Until it is dropped.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        HELD.set(HELD.get() + 1);
        Self
    }
}

impl Drop for HeldMark {
    fn drop(&mut self) {
        HELD.set(HELD.get().saturating_sub(1));
    }
}
