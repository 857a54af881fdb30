//! Sync: a token goes in, a page comes out. Reads only.

mod classic;

use std::{sync::Arc, time::Duration};

use hearth_storage::Storage;
use moka::sync::Cache;
use ruma::OwnedUserId;

use crate::{
    notify::Notifier,
    service::{push_rules::PushRules, shape::Shapes, typing::Typing},
    shutdown::Shutdown,
};

pub use classic::SyncWish;

/// Answers syncs.
pub struct Syncs {
    storage: Arc<dyn Storage>,
    notifier: Arc<Notifier>,
    typing: Arc<Typing>,
    shapes: Arc<Shapes>,
    push_rules: Arc<PushRules>,
    shutdown: Shutdown,
    /// The process that the ephemeral serials in tokens are of.
    epoch: u64,
    timeouts: Timeouts,
    /// The rooms whose changes a user waited for last: what to subscribe to before the next read.
    following: Cache<OwnedUserId, Arc<Vec<i64>>>,
}

/// How long a sync waits for news.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub min: Duration,
    pub default: Duration,
    pub max: Duration,
}

/// What syncs are answered from.
pub struct Sources {
    pub storage: Arc<dyn Storage>,
    pub notifier: Arc<Notifier>,
    pub typing: Arc<Typing>,
    pub shapes: Arc<Shapes>,
    pub push_rules: Arc<PushRules>,
    pub shutdown: Shutdown,
}

impl Syncs {
    pub fn new(sources: Sources, epoch: u64, timeouts: Timeouts) -> Arc<Self> {
        let Sources { storage, notifier, typing, shapes, push_rules, shutdown } = sources;
        let following = Cache::new(100_000);
        Arc::new(Self { storage, notifier, typing, shapes, push_rules, shutdown, epoch, timeouts, following })
    }
}
