//! A server in this process.

use std::{collections::BTreeMap, ops::Deref, sync::Arc};

use hearth::{
    app::{self, Deps, Running},
    config::Config,
};
use hearth_core::clock::{SeededRng, TestClock};
use hearth_storage::Work;
use tempfile::TempDir;

use super::Http;

/// What the server does with its database without being asked.
const OF_ITSELF: [&str; 13] = [
    "any_pusher_due",
    "stream_head",
    "small_rooms_of",
    "outbox_lease",
    "outbox_again",
    "outbox_done",
    "purge_transactions",
    "purge_revocations",
    "purge_url_previews",
    "purge_sso",
    "touch_devices",
    "forget_old_media",
    "unaccounted_files",
];

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

    /// Where it is, as the beginning of a URL.
    pub fn address(&self) -> String {
        format!("http://{}", self.running.addresses()[0])
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

    /// What clients had the database do since `before`, by operation: what the server looks at by itself is left out.
    pub fn work_since(&self, before: &BTreeMap<&'static str, Work>) -> BTreeMap<&'static str, Work> {
        let mut work = self.running.storage_work();
        work.retain(|name, _| !OF_ITSELF.contains(name));
        for (name, work) in &mut work {
            let before = before.get(name).copied().unwrap_or_default();
            work.runs -= before.runs;
            work.statements -= before.statements;
        }
        work.retain(|_, work| work.runs > 0);
        work
    }

    pub fn work(&self) -> BTreeMap<&'static str, Work> {
        self.running.storage_work()
    }

    /// Does now what is done with files from time to time.
    pub async fn tidies_media(&self) {
        self.running.tidy_media().await.expect("everything old is gone");
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
