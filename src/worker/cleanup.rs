//! Removing what nobody needs any more, a bounded piece at a time.

use hearth_core::{Error, Result, clock::Clock};
use hearth_storage::{Storage, key_backup::DeletedBackup, sessions::DeviceCleanup};
use ruma::UserId;

/// The most rows that one transaction removes, so that nobody waits long behind it.
const BATCH: u32 = 500;
/// A process that has not looked for so long reads everything anew.
const REVOCATIONS_KEPT_MS: i64 = 24 * 60 * 60 * 1000;

/// Does what an item of the queue [`DEVICE_CLEANUP`](hearth_storage::sessions::DEVICE_CLEANUP) says: removes all that
/// devices left behind that were logged out. May be done again.
pub async fn clean_devices(storage: &dyn Storage, payload: &str) -> Result<()> {
    let job: DeviceCleanup = match serde_json::from_str(payload) {
        Ok(job) => job,
        Err(e) => {
            // It will not be any better next time, and must not hold up the others.
            tracing::error!(error = %e, "a job to clean up after a device can't be read and is dropped");
            return Ok(());
        }
    };
    for device in &job.devices {
        while storage.clean_device(&job.user_id, device, BATCH).await? >= u64::from(BATCH) {}
    }
    Ok(())
}

/// Does what an item of the queue [`BACKUP_CLEANUP`](hearth_storage::key_backup::BACKUP_CLEANUP) says: removes the keys of
/// a backup that was deleted. May be done again.
pub async fn clean_backup(storage: &dyn Storage, payload: &str) -> Result<()> {
    let DeletedBackup { user_id, version } = serde_json::from_str(payload).map_err(Error::internal)?;
    while storage.clean_backup(&user_id, version, BATCH).await? > 0 {}
    Ok(())
}

/// Removes what a deactivated user kept here for themselves. May be done again.
pub async fn clean_account(storage: &dyn Storage, user: &UserId) -> Result<()> {
    while storage.clean_account(user.as_str(), BATCH).await? > 0 {}
    Ok(())
}

/// Forgets transaction ids after their retention, revocations that every process has seen, previews that are good no longer,
/// and logins elsewhere that nobody came back from. To be called now and then; how many rows went.
pub async fn purge(storage: &dyn Storage, clock: &dyn Clock, transaction_retention_s: u64) -> Result<u64> {
    let now = clock.now_ms();
    let kept = i64::try_from(transaction_retention_s).unwrap_or(i64::MAX).saturating_mul(1000);
    let mut gone = 0;
    loop {
        let batch = storage.purge_transactions(now.saturating_sub(kept), BATCH).await?;
        gone += batch;
        if batch < u64::from(BATCH) {
            break;
        }
    }
    loop {
        let batch = storage.purge_revocations(now - REVOCATIONS_KEPT_MS, BATCH).await?;
        gone += batch;
        if batch < u64::from(BATCH) {
            break;
        }
    }
    loop {
        let batch = storage.purge_url_previews(now, BATCH).await?;
        gone += batch;
        if batch < u64::from(BATCH) {
            break;
        }
    }
    loop {
        let batch = storage.purge_sso(now, BATCH).await?;
        gone += batch;
        if batch < u64::from(BATCH) {
            break;
        }
    }
    Ok(gone)
}
