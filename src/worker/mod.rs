//! What happens behind the requests: queues are drained, other processes are followed, old things go.

pub mod cleanup;
mod drain;
mod follow;
mod presence;
mod push;
mod supervisor;

pub use supervisor::Supervisor;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use hearth_core::{
    Error, Result,
    clock::{Clock, Rng, random_string},
};
use hearth_storage::{
    Storage, accounts::DEACTIVATED, key_backup::BACKUP_CLEANUP, profiles::PROFILE, rooms::MOVES,
    sessions::DEVICE_CLEANUP,
};
use ruma::{OwnedRoomId, OwnedUserId};

use self::drain::Next;
use crate::{
    bus::Bus,
    notify::{Known, Notifier},
    service::{
        erased::Erased, media::Media, moves::Moves, presence::Presence, pushers::Deliveries, rooms::Rooms,
        sessions::Sessions,
    },
    shutdown::Shutdown,
    sync::Syncs,
};

/// How often "last seen" is written down.
const FLUSH_SEEN: Duration = Duration::from_secs(10);
/// How often it is written down what connections of sliding sync were told.
const SAVE_CONNECTIONS: Duration = Duration::from_secs(30);
/// The queue, and the only item in it, of looking for old rows.
const PURGE: &str = "purge";
const PURGE_EVERY: Duration = Duration::from_secs(600);
/// The same of looking for files that nobody needs.
const TIDY_MEDIA: &str = "tidy_media";
const UPKEEP_OF_MEDIA: Duration = Duration::from_secs(300);

/// What the workers work with.
pub struct Workers {
    pub storage: Arc<dyn Storage>,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
    pub notifier: Arc<Notifier>,
    pub bus: Arc<dyn Bus>,
    pub known: Arc<Known>,
    pub rooms: Arc<Rooms>,
    pub presence: Arc<Presence>,
    pub sessions: Arc<Sessions>,
    pub erased: Arc<Erased>,
    pub moves: Moves,
    pub media: Arc<Media>,
    pub syncs: Arc<Syncs>,
    pub deliveries: Deliveries,
    pub shutdown: Shutdown,
    pub transaction_retention_s: u64,
}

/// When the follower last saw the head; an old time means that this process no longer learns what others do.
#[derive(Default)]
pub struct Pulse(AtomicI64);

impl Pulse {
    fn beat(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::Relaxed);
    }

    pub fn last_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Starts all of them. They end when the shutdown is said.
pub fn start(workers: Workers, supervisor: &Supervisor) -> Arc<Pulse> {
    let workers = Arc::new(workers);
    let pulse = Arc::new(Pulse::default());
    pulse.beat(workers.clock.now_ms());
    supervisor.start("presence", presence::run(Arc::clone(&workers)));
    supervisor.start("push_marks", push::mark(Arc::clone(&workers)));
    supervisor.start("push", push::deliver(Arc::clone(&workers)));
    supervisor.start("follow", follow::run(Arc::clone(&workers), Arc::clone(&pulse)));
    supervisor.start(DEVICE_CLEANUP, drain::run(Arc::clone(&workers), DEVICE_CLEANUP, clean_device));
    supervisor.start(BACKUP_CLEANUP, drain::run(Arc::clone(&workers), BACKUP_CLEANUP, clean_backup));
    supervisor.start(PROFILE, drain::run(Arc::clone(&workers), PROFILE, show_profile));
    supervisor.start(DEACTIVATED, drain::run(Arc::clone(&workers), DEACTIVATED, clean_account));
    supervisor.start(MOVES, drain::run(Arc::clone(&workers), MOVES, follow_upgrade));
    let w = Arc::clone(&workers);
    let flush = move || {
        let w = Arc::clone(&w);
        async move { w.sessions.flush_seen().await }
    };
    supervisor.start("last_seen", every(Arc::clone(&workers), FLUSH_SEEN, flush));
    let w = Arc::clone(&workers);
    let save = move || {
        let w = Arc::clone(&w);
        async move { w.syncs.save_connections().await }
    };
    supervisor.start("connections", every(Arc::clone(&workers), SAVE_CONNECTIONS, save));
    let w = Arc::clone(&workers);
    let upkeep = move || {
        let w = Arc::clone(&w);
        async move { w.media.upkeep().await }
    };
    supervisor.start("media", every(Arc::clone(&workers), UPKEEP_OF_MEDIA, upkeep));
    supervisor.start(TIDY_MEDIA, by_turns(Arc::clone(&workers), TIDY_MEDIA, tidy_media));
    supervisor.start(PURGE, by_turns(workers, PURGE, purge));
    pulse
}

/// One process at a time looks for what is old: it is an item of the outbox like any other, that comes round again.
async fn by_turns(workers: Arc<Workers>, what: &'static str, handle: drain::Handle) {
    let now = workers.clock.now_ms();
    if let Err(e) = workers.storage.plan(what, what, now).await {
        tracing::warn!(what, error = %e, "regular work can't be planned; the next start will");
    }
    drain::run(workers, what, handle).await;
}

fn tidy_media<'a>(workers: &'a Workers, _: &'a str) -> BoxFuture<'a, Result<Next>> {
    Box::pin(async move {
        workers.media.tidy().await?;
        Ok(Next::Again(PURGE_EVERY))
    })
}

fn purge<'a>(workers: &'a Workers, _: &'a str) -> BoxFuture<'a, Result<Next>> {
    Box::pin(async move {
        cleanup::purge(&*workers.storage, &*workers.clock, workers.transaction_retention_s).await?;
        Ok(Next::Again(PURGE_EVERY))
    })
}

fn clean_device<'a>(workers: &'a Workers, payload: &'a str) -> BoxFuture<'a, Result<Next>> {
    Box::pin(async move {
        cleanup::clean_devices(&*workers.storage, payload).await?;
        Ok(Next::Done)
    })
}

fn clean_backup<'a>(workers: &'a Workers, payload: &'a str) -> BoxFuture<'a, Result<Next>> {
    Box::pin(async move {
        cleanup::clean_backup(&*workers.storage, payload).await?;
        Ok(Next::Done)
    })
}

/// What the payloads of the queues about users have in common.
#[derive(serde::Deserialize)]
struct OfUser {
    user_id: OwnedUserId,
}

fn show_profile<'a>(workers: &'a Workers, payload: &'a str) -> BoxFuture<'a, Result<Next>> {
    Box::pin(async move {
        let of: OfUser = serde_json::from_str(payload).map_err(Error::internal)?;
        workers.rooms.profile_changed(&of.user_id).await?;
        Ok(Next::Done)
    })
}

/// Who joined the successor of a room takes along what they keep of that.
fn follow_upgrade<'a>(workers: &'a Workers, payload: &'a str) -> BoxFuture<'a, Result<Next>> {
    #[derive(serde::Deserialize)]
    struct Move {
        user_id: OwnedUserId,
        from: OwnedRoomId,
        to: OwnedRoomId,
    }
    Box::pin(async move {
        let Move { user_id, from, to } = serde_json::from_str(payload).map_err(Error::internal)?;
        workers.moves.follow(&user_id, &from, &to).await?;
        Ok(Next::Done)
    })
}

fn clean_account<'a>(workers: &'a Workers, payload: &'a str) -> BoxFuture<'a, Result<Next>> {
    Box::pin(async move {
        let of: OfUser = serde_json::from_str(payload).map_err(Error::internal)?;
        workers.rooms.leave_all(&of.user_id).await?;
        cleanup::clean_account(&*workers.storage, &of.user_id).await?;
        Ok(Next::Done)
    })
}

/// Does something now and then, and once more when the server stops.
async fn every<F: Future<Output = Result<()>>>(workers: Arc<Workers>, period: Duration, what: impl Fn() -> F) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(period) => {}
            () = workers.shutdown.said() => {}
        }
        if let Err(e) = what().await {
            tracing::warn!(error = %e, "a regular task failed; it will be tried again");
        }
        if workers.shutdown.is_said() {
            return;
        }
    }
}

/// A name for one holder of leases.
fn owner(workers: &Workers) -> String {
    random_string(&*workers.rng, 16)
}
