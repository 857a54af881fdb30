//! Hints between processes: "the stream has moved, look again". Never data: a lost hint costs a poll.

mod local;

pub use local::LocalBus;
use tokio::sync::broadcast;

/// The stream has been seen at `pos`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    pub pos: i64,
}

/// A way to tell other processes to look.
pub trait Bus: Send + Sync + 'static {
    /// Must not block; may lose the hint.
    fn publish(&self, hint: Hint);
    /// Hints from now on, this process's own among them. A reader that is slow misses some.
    fn hints(&self) -> broadcast::Receiver<Hint>;
}
