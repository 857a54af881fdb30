//! Following the stream: what other processes committed is noticed by the head having moved without us. The bus makes it
//! quick; without any word from it the head is looked at once a second.

use std::{sync::Arc, time::Duration};

use hearth_storage::Wake;
use ruma::{RoomId, UserId};
use tokio::sync::broadcast::error::RecvError;

use super::{Pulse, Workers};

const LOOK: Duration = Duration::from_secs(1);
/// More changes than this are not told one by one.
const MOST: i64 = 1_000;

pub(super) async fn run(workers: Arc<Workers>, pulse: Arc<Pulse>) {
    let mut hints = workers.bus.hints();
    loop {
        // The head first, and then what changed: what comes between is told twice, never left out.
        match look(&workers).await {
            Ok(()) => pulse.beat(workers.clock.now_ms()),
            Err(e) => tracing::warn!(error = %e, "the head of the stream can't be read"),
        }
        let deadline = tokio::time::Instant::now() + LOOK;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => break,
                () = workers.shutdown.said() => return,
                hint = hints.recv() => match hint {
                    // Our own commits are known by the time that their hints come.
                    Ok(hint) if hint.pos > workers.known.pos() => break,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => {
                        tokio::time::sleep_until(deadline).await;
                        break;
                    }
                },
            }
        }
    }
}

async fn look(workers: &Workers) -> hearth_core::Result<()> {
    let known = workers.known.pos();
    let head = workers.storage.head().await?;
    if head <= known {
        return Ok(());
    }
    let changes = workers.storage.changes_after(known, MOST).await?;
    // Before what is known is raised: if it fails, the next look says the same again.
    let ended = changes.revoked.iter().map(|(user, _)| user.clone()).collect();
    workers.erased.look((!changes.too_many).then_some(ended)).await?;
    workers.known.raise_to(head);
    if changes.too_many {
        workers.sessions.forget_all();
        workers.rooms.all_moved();
        workers.notifier.wake_all();
        return Ok(());
    }
    workers.sessions.revoked(changes.revoked.iter().filter_map(|(user, _)| <&UserId>::try_from(user.as_str()).ok()));
    workers.rooms.moved(changes.rooms.iter().filter_map(|room| <&RoomId>::try_from(room.as_str()).ok()));
    workers.notifier.wake(&changes.wakes);
    // Whoever waits for work may have been given some.
    workers.notifier.wake(&[
        Wake::Queue(hearth_storage::accounts::DEACTIVATED),
        Wake::Queue(hearth_storage::sessions::DEVICE_CLEANUP),
        Wake::Queue(hearth_storage::profiles::PROFILE),
        Wake::Queue(hearth_storage::pushers::PUSHERS_SET),
    ]);
    Ok(())
}
