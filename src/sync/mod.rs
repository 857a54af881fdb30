//! Sync: a token goes in, a page comes out. Reads only.

mod classic;
mod following;
mod keys;
mod presence;
mod sliding;
mod speakers;
mod told;

use std::{sync::Arc, time::Duration};

use hearth_core::clock::{Clock, Rng};
use hearth_storage::Storage;
use moka::sync::Cache;
use ruma::OwnedUserId;
use tokio::sync::Semaphore;

use crate::{
    notify::{Known, Notifier},
    service::{
        ephemeral::Serial, presence::Presence, push_rules::PushRules, sessions::Sessions, shape::Shapes, typing::Typing,
    },
    shutdown::Shutdown,
};

pub use classic::SyncWish;
use following::Following;
pub use sliding::{Beside, Slid, SlidingWish, StateWish};

/// Answers syncs.
pub struct Syncs {
    storage: Arc<dyn Storage>,
    notifier: Arc<Notifier>,
    known: Arc<Known>,
    serial: Arc<Serial>,
    typing: Arc<Typing>,
    presence: Arc<Presence>,
    shapes: Arc<Shapes>,
    push_rules: Arc<PushRules>,
    sessions: Arc<Sessions>,
    shutdown: Shutdown,
    /// The process that the ephemeral serials in tokens are of.
    epoch: u64,
    timeouts: Timeouts,
    /// The rooms that users are in, what is unread there and whom they ignore, as of their last sync: what to subscribe to
    /// before the next read, and with the journal whether that has to be one of the database.
    following: Cache<OwnedUserId, Arc<Following>>,
    told: told::ToldMembers,
    /// The rooms of those who use sliding sync, as their lists are sorted and filtered.
    my_rooms: Cache<OwnedUserId, Arc<sliding::MyRooms>>,
    connections: sliding::Connections,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    speakers: speakers::Speakers,
    /// When news for a room of thousands take a look at the database, they take turns: whoever waits here holds nothing,
    /// and what others ask of the database is not behind all of them.
    turns: Semaphore,
}

/// So many syncs read the database at once.
const READS_AT_ONCE: usize = 64;

/// Bytes of it kept in memory.
const FOLLOWING_BYTES: u64 = 64 << 20;
const MY_ROOMS_BYTES: u64 = 128 << 20;

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
    pub serial: Arc<Serial>,
    pub typing: Arc<Typing>,
    pub presence: Arc<Presence>,
    pub shapes: Arc<Shapes>,
    pub push_rules: Arc<PushRules>,
    pub sessions: Arc<Sessions>,
    pub shutdown: Shutdown,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
}

impl Syncs {
    pub fn new(sources: Sources, epoch: u64, timeouts: Timeouts) -> Arc<Self> {
        let Sources { storage, notifier, known, serial, typing, presence, shapes, push_rules, sessions, .. } = sources;
        let Sources { shutdown, clock, rng, .. } = sources;
        let following = Cache::builder()
            .weigher(|_, f: &Arc<Following>| u32::try_from(f.bytes()).unwrap_or(u32::MAX))
            .max_capacity(FOLLOWING_BYTES)
            .build();
        let my_rooms = Cache::builder()
            .weigher(|_, mine: &Arc<sliding::MyRooms>| u32::try_from(mine.bytes()).unwrap_or(u32::MAX))
            .max_capacity(MY_ROOMS_BYTES)
            .build();
        Arc::new(Self {
            storage,
            notifier,
            known,
            serial,
            typing,
            presence,
            shapes,
            push_rules,
            sessions,
            shutdown,
            epoch,
            timeouts,
            following,
            told: told::ToldMembers::new(),
            my_rooms,
            connections: sliding::Connections::new(),
            clock,
            rng,
            speakers: speakers::Speakers::new(),
            turns: Semaphore::new(READS_AT_ONCE),
        })
    }
}
