//! Sync: a token goes in, a page comes out. Reads only.

mod classic;
mod told;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use hearth_core::filter::Ignored;
use hearth_storage::Storage;
use moka::sync::Cache;
use ruma::OwnedUserId;

use crate::{
    notify::{Known, Notifier},
    service::{push_rules::PushRules, sessions::Sessions, shape::Shapes, typing::Typing},
    shutdown::Shutdown,
};

pub use classic::SyncWish;

/// Answers syncs.
pub struct Syncs {
    storage: Arc<dyn Storage>,
    notifier: Arc<Notifier>,
    known: Arc<Known>,
    typing: Arc<Typing>,
    shapes: Arc<Shapes>,
    push_rules: Arc<PushRules>,
    sessions: Arc<Sessions>,
    shutdown: Shutdown,
    /// The process that the ephemeral serials in tokens are of.
    epoch: u64,
    timeouts: Timeouts,
    /// The rooms that users are in, as of their last sync from the database: what to subscribe to before the next read,
    /// and with the journal whether there has to be one.
    following: Cache<OwnedUserId, Arc<Following>>,
    told: told::ToldMembers,
}

/// Bytes of room numbers kept in memory.
const FOLLOWING_BYTES: u64 = 64 << 20;

/// The rooms that a user is in, and whom they ignore.
struct Following {
    /// Sorted.
    rooms: Vec<i64>,
    ignored: Arc<Ignored>,
    /// They are these at this position.
    as_of: AtomicI64,
}

impl Following {
    fn new(mut rooms: Vec<i64>, ignored: Arc<Ignored>, as_of: i64) -> Self {
        rooms.sort_unstable();
        Self { rooms, ignored, as_of: AtomicI64::new(as_of) }
    }

    fn as_of(&self) -> i64 {
        self.as_of.load(Ordering::Relaxed)
    }

    /// Nothing has changed up to there.
    fn holds_at(&self, pos: i64) {
        self.as_of.fetch_max(pos, Ordering::Relaxed);
    }
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
    pub known: Arc<Known>,
    pub typing: Arc<Typing>,
    pub shapes: Arc<Shapes>,
    pub push_rules: Arc<PushRules>,
    pub sessions: Arc<Sessions>,
    pub shutdown: Shutdown,
}

impl Syncs {
    pub fn new(sources: Sources, epoch: u64, timeouts: Timeouts) -> Arc<Self> {
        let Sources { storage, notifier, known, typing, shapes, push_rules, sessions, shutdown } = sources;
        let following = Cache::builder()
            .weigher(|_, f: &Arc<Following>| {
                u32::try_from(f.rooms.len() * 8 + f.ignored.size() + 256).unwrap_or(u32::MAX)
            })
            .max_capacity(FOLLOWING_BYTES)
            .build();
        Arc::new(Self {
            storage,
            notifier,
            known,
            typing,
            shapes,
            push_rules,
            sessions,
            shutdown,
            epoch,
            timeouts,
            following,
            told: told::ToldMembers::new(),
        })
    }
}
