//! A server in this process.

use std::{ops::Deref, sync::Arc};

use hearth::{
    app::{self, Deps, Running},
    config::Config,
};
use hearth_core::clock::{SeededRng, TestClock};
use tempfile::TempDir;

use super::Http;

/// A server at work, and a client that speaks to it.
pub struct Server {
    http: Http,
    pub clock: Arc<TestClock>,
    running: Running,
    _dir: Arc<TempDir>,
}

impl Server {
    pub async fn start(config: Config, dir: Arc<TempDir>) -> Self {
        let clock = TestClock::at(1_700_000_000_000);
        let deps = Deps { clock: clock.clone(), rng: Arc::new(SeededRng::new(rand::random())) };
        let running = app::start(Arc::new(config), deps).await.expect("a server");
        Self { http: Http::to(running.addresses()[0]), clock, running, _dir: dir }
    }

    /// A client for the metrics.
    pub fn metrics(&self) -> Http {
        Http::to(*self.running.metrics_addresses().first().expect("a listener for metrics"))
    }

    /// What an operator is shown at the first start.
    pub fn first_admin_token(&self) -> Option<String> {
        self.running.first_admin_token().map(ToOwned::to_owned)
    }

    /// Returns when so many syncs wait for news.
    pub async fn is_waited_for_by(&self, syncs: usize) {
        while self.running.waiting_syncs() < syncs {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    /// Says whether everybody was answered.
    pub async fn stop(self) -> bool {
        self.running.stop().await
    }
}

impl Deref for Server {
    type Target = Http;

    fn deref(&self) -> &Http {
        &self.http
    }
}
