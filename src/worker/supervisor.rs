//! Watches over the workers.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use crate::shutdown::Shutdown;

/// What runs beside the requests until the shutdown is said.
pub struct Supervisor {
    tasks: TaskTracker,
    shutdown: Shutdown,
}

impl Supervisor {
    pub fn new(shutdown: Shutdown) -> Self {
        Self { tasks: TaskTracker::new(), shutdown }
    }

    /// `work` returns soon after the shutdown is said. One that ends before that, or panics, takes the server with it:
    /// a supervisor starts it again, while nobody would notice that a queue has stood still since yesterday.
    pub fn start(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            let outcome = AssertUnwindSafe(work).catch_unwind().await;
            if outcome.is_err() || !shutdown.is_said() {
                tracing::error!(worker = name, "a worker ended by itself; the server stops");
                shutdown.say();
            }
        });
    }

    /// Waits for all of them, who have been told.
    pub async fn ended(&self, deadline: Instant) {
        self.tasks.close();
        if timeout_at(deadline, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "some workers did not end in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor() -> Supervisor {
        Supervisor::new(Shutdown::default())
    }

    #[tokio::test]
    async fn a_worker_that_ends_takes_the_server_with_it() {
        let returned = supervisor();
        returned.start("returns", async {});
        returned.shutdown.said().await;
        let panicked = supervisor();
        panicked.start("panics", async { panic!("on purpose") });
        panicked.shutdown.said().await;
    }

    #[tokio::test]
    async fn a_worker_ends_with_the_server() {
        let good = supervisor();
        let shutdown = good.shutdown.clone();
        good.start("good", async move { shutdown.said().await });
        assert_eq!(good.tasks.len(), 1);
        good.shutdown.say();
        good.tasks.close();
        good.tasks.wait().await;
    }
}
