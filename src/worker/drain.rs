//! Draining one queue of the outbox: items are taken under a lease, done, and forgotten; or given back for later.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use hearth_core::Result;
use hearth_storage::{Item, Wake};

use super::{Workers, owner};

/// How long an item is held before another process may take it.
const LEASE_MS: i64 = 60_000;
/// How many are taken at once. One may be long (a profile is told to every room of its user), and those behind it should
/// not wait for it under a lease that ends.
const BATCH: u32 = 1;
/// How often the queue is looked at without a wake: another process may have died with a lease.
const LOOK: Duration = Duration::from_secs(5);
/// The longest time between two tries.
const LONGEST_BACK_OFF_MS: i64 = 3_600_000;

/// What becomes of an item whose work is done.
pub(super) enum Next {
    Done,
    /// It comes round again, whichever process is there then.
    Again(Duration),
}

/// Does the work of one item.
pub(super) type Handle = for<'a> fn(&'a Workers, &'a str) -> BoxFuture<'a, Result<Next>>;

/// Drains `queue` until the server stops.
pub(super) async fn run(workers: Arc<Workers>, queue: &'static str, handle: Handle) {
    let owner = owner(&workers);
    let waiter = workers.notifier.subscribe([Wake::Queue(queue)]);
    loop {
        let now = workers.clock.now_ms();
        let items = match workers.storage.lease(queue, &owner, now, LEASE_MS, BATCH).await {
            Ok(items) => items,
            Err(e) => {
                tracing::warn!(queue, error = %e, "the outbox can't be read");
                Vec::new()
            }
        };
        let idle = items.is_empty();
        for item in items {
            if workers.shutdown.is_said() {
                // Whatever is still held is free again when its lease ends, or at once if it can be given back.
                let _ = workers.storage.retry(vec![item.id], &owner, item.due_ms).await;
                continue;
            }
            one(&workers, queue, &owner, item, handle).await;
        }
        if idle {
            tokio::select! {
                () = waiter.woken() => {}
                () = tokio::time::sleep(LOOK) => {}
                () = workers.shutdown.said() => {}
            }
        }
        if workers.shutdown.is_said() {
            return;
        }
    }
}

async fn one(workers: &Workers, queue: &'static str, owner: &str, item: Item, handle: Handle) {
    let outcome = match handle(workers, &item.payload).await {
        Ok(Next::Done) => workers.storage.done(vec![item.id], owner).await,
        Ok(Next::Again(after)) => {
            let due = workers.clock.now_ms().saturating_add(i64::try_from(after.as_millis()).unwrap_or(i64::MAX));
            workers.storage.again(vec![item.id], owner, due).await
        }
        Err(e) => {
            let wait = 1_000i64.checked_shl(u32::try_from(item.attempts).unwrap_or(u32::MAX).min(20));
            let wait = wait.unwrap_or(LONGEST_BACK_OFF_MS).min(LONGEST_BACK_OFF_MS);
            tracing::warn!(queue, attempts = item.attempts, error = %e, "a piece of work failed; it will be tried again");
            workers.storage.retry(vec![item.id], owner, workers.clock.now_ms() + wait).await
        }
    };
    if let Err(e) = outcome {
        // The lease ends by itself, and the work may be done again.
        tracing::warn!(queue, error = %e, "the outbox can't be written");
    }
}
