//! Keeps the cache of sessions honest, and notes who was here.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use crate::{service::sessions::Sessions, shutdown::Shutdown};

/// A session that ended in another process is known here for no longer than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const FLUSH_EVERY: u32 = 10;

/// Runs until the server stops. `after` is the position of the stream at the start.
pub async fn run(sessions: Arc<Sessions>, mut after: i64, shutdown: Shutdown) {
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 1u32.. {
        tokio::select! {
            _ = tick.tick() => {}
            () = shutdown.said() => break,
        }
        match sessions.hear_revocations(after).await {
            Ok(heard) => after = heard,
            Err(e) => {
                tracing::warn!(error = %e, "can't hear which sessions ended elsewhere; looking all of them up");
                sessions.forget_all();
            }
        }
        if n % FLUSH_EVERY == 0 {
            flush(&sessions).await;
        }
    }
    flush(&sessions).await;
}

async fn flush(sessions: &Sessions) {
    if let Err(e) = sessions.flush_seen().await {
        tracing::warn!(error = %e, "can't note when devices were last seen");
    }
}
