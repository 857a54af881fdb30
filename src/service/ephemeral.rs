//! What lives in memory only is counted by one serial, which sync tokens carry beside the position in the stream.

use std::sync::atomic::{AtomicU64, Ordering};

/// The serial of the last change. Whoever makes a change takes the next number *within* the lock that readers take to see
/// it: so a reader who reads the serial first, and then looks, misses nothing up to there.
#[derive(Default)]
pub struct Serial(AtomicU64);

impl Serial {
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}
