//! Forgetting what is old.

use super::files;
use crate::{
    error::Result,
    tx::{Op, Row, Tx, args, statements},
};

statements! {
    CREATED = "SELECT server_name, media_id FROM media WHERE kind = $1 AND created_ms < $2 \
        AND expires_ms IS NULL ORDER BY created_ms LIMIT $3";
    UNUSED = "SELECT server_name, media_id FROM media WHERE kind = $1 AND used_ms < $2 \
        AND expires_ms IS NULL ORDER BY used_ms LIMIT $3";
    EXPIRED = "SELECT server_name, media_id FROM media WHERE expires_ms <= $1 ORDER BY expires_ms LIMIT $2";
    FORGET = "DELETE FROM media WHERE server_name = $1 AND media_id = $2 RETURNING user_id, file_key";
    BYTES = "SELECT bytes FROM media_files WHERE file_key = $1";
    DISCOUNT = "UPDATE media_totals SET files = files - $2, bytes = bytes - $3, waiting = waiting - $4 \
        WHERE user_id = $1";
}

/// What is old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// URIs that nothing was uploaded to in time.
    Reserved { now_ms: i64 },
    /// URIs of a kind.
    Of { kind: &'static str, since: Since },
}

/// Since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    CreatedBefore(i64),
    UsedBefore(i64),
}

pub(super) struct Forget {
    pub(super) old: Old,
    pub(super) limit: u32,
}

impl Op for Forget {
    const NAME: &'static str = "forget_old_media";
    type Out = u64;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        let limit = i64::from(self.limit);
        let found = match self.old {
            Old::Reserved { now_ms } => tx.query(EXPIRED, args![now_ms, limit]).await?,
            Old::Of { kind, since: Since::CreatedBefore(ms) } => tx.query(CREATED, args![kind, ms, limit]).await?,
            Old::Of { kind, since: Since::UsedBefore(ms) } => tx.query(UNUSED, args![kind, ms, limit]).await?,
        };
        let uris = found.into_iter().map(|mut row: Row| Ok((row.get(0)?, row.get(1)?)));
        let mut keys = Vec::new();
        let mut gone = 0;
        for uri in uris.collect::<Result<Vec<(String, String)>>>()? {
            let Some(mut row) = tx.query_opt(FORGET, args![&uri.0, &uri.1]).await? else { continue };
            let (user_id, key): (Option<String>, Option<String>) = (row.get(0)?, row.get(1)?);
            gone += 1;
            if let Some(user_id) = user_id {
                discount(tx, &user_id, key.as_deref()).await?;
            }
            keys.extend(key);
        }
        files::forget_unused(tx, keys, 0).await?;
        Ok(gone)
    }
}

/// It is one less that the user has.
async fn discount<T: Tx>(tx: &mut T, user_id: &str, key: Option<&str>) -> Result<()> {
    let (files, bytes) = match key {
        None => (0, 0),
        Some(key) => (1, tx.query_opt(BYTES, args![key]).await?.map_or(Ok(0), |mut row| row.get(0))?),
    };
    tx.execute(DISCOUNT, args![user_id, files, bytes, 1 - files]).await?;
    Ok(())
}
