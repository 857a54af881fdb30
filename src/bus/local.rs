//! The bus of a single process.

use tokio::sync::broadcast;

use super::{Bus, Hint};

/// Reaches those who hold the same `LocalBus`.
pub struct LocalBus(broadcast::Sender<Hint>);

impl Default for LocalBus {
    fn default() -> Self {
        Self(broadcast::channel(64).0)
    }
}

impl Bus for LocalBus {
    fn publish(&self, hint: Hint) {
        // Nobody listening is no fault.
        let _ = self.0.send(hint);
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.0.subscribe()
    }
}
