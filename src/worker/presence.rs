//! Tells those who wait of people who come and go, and lets time pass for those who do neither.

use std::{sync::Arc, time::Duration};

use hearth_storage::Wake;

use super::Workers;
use crate::service::presence::MOST_MEMBERS;

const TICK: Duration = Duration::from_secs(1);
/// Whoever comes or goes within this time is told of at once, so that a crowd wakes a room a few times a second.
const GATHER: Duration = Duration::from_millis(100);
const MOST_AT_ONCE: usize = 500;

pub(super) async fn run(workers: Arc<Workers>) {
    let presence = &workers.presence;
    if !presence.is_enabled() {
        return;
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = presence.news() => {}
            () = workers.shutdown.said() => return,
        }
        presence.expire();
        let users = presence.take_untold(MOST_AT_ONCE);
        if users.is_empty() {
            continue;
        }
        let ids = users.iter().map(ToString::to_string).collect();
        match workers.storage.small_rooms_of(ids, MOST_MEMBERS).await {
            Ok(rooms) => workers.notifier.wake(&rooms.into_iter().map(Wake::Room).collect::<Vec<_>>()),
            // They are told by their next sync.
            Err(e) => tracing::debug!(error = %e, "nobody is woken for who came and went"),
        }
        tokio::select! {
            () = tokio::time::sleep(GATHER) => {}
            () = workers.shutdown.said() => return,
        }
    }
}
