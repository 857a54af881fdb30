//! What is old goes, and what nothing stands for.

use std::{
    collections::HashSet,
    sync::{MutexGuard, PoisonError},
};

use hearth_core::Result;
use hearth_storage::media::{Old, Since};

use super::Media;
use crate::config::RetentionScope;

/// The most URIs that one transaction forgets, or files that are removed before the database hears of it.
const PIECE: u32 = 100;
/// What could not be removed is tried again after so long.
const AGAIN_MS: i64 = 60 * 60 * 1000;
/// Pictures of pages are fetched anew after this time; the pages themselves sooner.
const PREVIEWS_KEPT_MS: i64 = 30 * 24 * 60 * 60 * 1000;

impl Media {
    /// Forgets what is old by the rules that the operator set, and removes what nothing stands for. To be called now and
    /// then, by one process at a time.
    pub async fn tidy(&self) -> Result<()> {
        let now_ms = self.clock.now_ms();
        self.forget(Old::Reserved { now_ms }).await?;
        self.forget(Old::Of { kind: "preview", since: Since::CreatedBefore(now_ms - PREVIEWS_KEPT_MS) }).await?;
        for rule in &self.rules.config.retention {
            let kind = match rule.scope {
                RetentionScope::Local => "local",
                RetentionScope::Remote => "remote",
            };
            if let Some(age) = rule.created {
                self.forget(Old::Of { kind, since: Since::CreatedBefore(now_ms.saturating_sub(age.ms())) }).await?;
            }
            if let Some(age) = rule.accessed {
                self.forget(Old::Of { kind, since: Since::UsedBefore(now_ms.saturating_sub(age.ms())) }).await?;
            }
        }
        self.remove_unaccounted().await
    }

    /// What each process has to do for itself now and then.
    pub async fn upkeep(&self) -> Result<()> {
        if let Err(e) = self.spool.tidy().await {
            tracing::warn!(error = %e, "old uploads are left in the spool");
        }
        self.flush_used().await
    }

    async fn forget(&self, old: Old) -> Result<()> {
        while self.storage.forget_old_media(old, PIECE).await? >= u64::from(PIECE) {}
        Ok(())
    }

    async fn remove_unaccounted(&self) -> Result<()> {
        loop {
            let keys = self.storage.unaccounted_files(self.clock.now_ms(), PIECE).await?;
            let all = keys.len();
            let mut gone = Vec::new();
            for key in keys {
                match self.store.remove(&key).await {
                    Ok(()) => gone.push(key),
                    Err(e) => {
                        tracing::warn!(key, error = %e, "a file stays in the media store for now");
                        // One that can't be removed must not keep those behind it.
                        self.storage.expect_file(&key, self.clock.now_ms() + AGAIN_MS).await?;
                    }
                }
            }
            // Where nothing went, the store is out of reach.
            let go_on = all == PIECE as usize && !gone.is_empty();
            self.storage.files_gone(gone).await?;
            if !go_on {
                return Ok(());
            }
        }
    }

    /// Writes down what was looked at.
    async fn flush_used(&self) -> Result<()> {
        let used = std::mem::take(&mut *self.used());
        if used.is_empty() {
            return Ok(());
        }
        let (now_ms, ids) = (self.clock.now_ms(), used.iter().cloned().collect());
        let noted = self.storage.media_used(self.server_name.as_str(), ids, now_ms).await;
        if noted.is_err() {
            self.used().extend(used);
        }
        Ok(noted?)
    }

    pub(super) fn used(&self) -> MutexGuard<'_, HashSet<String>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
