//! The keys in a backup.
//!
//! What they count, and the number that grows with each change, stand beside their version and change with them: whoever
//! writes holds the row of the user.

use std::cmp::Reverse;

use super::{Backup, backup, lock};
use crate::{
    Result, Sql,
    tx::{Answer, Engine, Op, Query, Reads, Row, Tx, args, statements},
};

statements! {
    QUALITY = "SELECT is_verified, first_message_index, forwarded_count FROM key_backup_keys
        WHERE user_id = $1 AND version = $2 AND room_id = $3 AND session_id = $4";
    COUNTED = "UPDATE key_backup_versions SET count = count + $3, etag = etag + 1 WHERE user_id = $1 AND version = $2
        RETURNING count, etag";
    KEY = "SELECT k.room_id, k.session_id, k.is_verified, k.first_message_index, k.forwarded_count, k.session_data
        FROM key_backup_keys k JOIN key_backup_versions v ON v.user_id = k.user_id AND v.version = k.version
        WHERE k.user_id = $1 AND k.version = $2 AND k.room_id = $3 AND k.session_id = $4";
    KEYS = "SELECT room_id, session_id, is_verified, first_message_index, forwarded_count, session_data
        FROM key_backup_keys WHERE user_id = $1 AND version = $2 AND (room_id, session_id) > ($3, $4)
        ORDER BY room_id, session_id LIMIT $5";
    KEYS_OF_ROOM = "SELECT room_id, session_id, is_verified, first_message_index, forwarded_count, session_data
        FROM key_backup_keys WHERE user_id = $1 AND version = $2 AND room_id = $3 AND session_id > $4
        ORDER BY session_id LIMIT $5";
    // Where the first so many end. Asked before they are deleted: Postgres would read all keys to find so many in a list.
    END = "SELECT room_id, session_id FROM
        (SELECT room_id, session_id FROM key_backup_keys WHERE user_id = $1 AND version = $2
            ORDER BY room_id, session_id LIMIT $3) AS first
        ORDER BY room_id DESC, session_id DESC LIMIT 1";
    DELETE_UP_TO = "DELETE FROM key_backup_keys WHERE user_id = $1 AND version = $2
        AND (room_id, session_id) <= ($3, $4)";
    END_IN_ROOM = "SELECT session_id FROM
        (SELECT session_id FROM key_backup_keys WHERE user_id = $1 AND version = $2 AND room_id = $3
            ORDER BY session_id LIMIT $4) AS first
        ORDER BY session_id DESC LIMIT 1";
    DELETE_IN_ROOM_UP_TO = "DELETE FROM key_backup_keys WHERE user_id = $1 AND version = $2 AND room_id = $3
        AND session_id <= $4";
    DELETE_ONE = "DELETE FROM key_backup_keys WHERE user_id = $1 AND version = $2 AND room_id = $3 AND session_id = $4";
    ANY_VERSION = "SELECT version FROM key_backup_keys WHERE user_id = $1 ORDER BY version LIMIT 1";
    bulk PUT = "key_backup_keys" (
        "user_id": Text, "version": Int, "room_id": Text, "session_id": Text, "is_verified": Int,
        "first_message_index": Int, "forwarded_count": Int, "session_data": Text
    ) "ON CONFLICT (user_id, version, room_id, session_id) DO UPDATE SET is_verified = excluded.is_verified,
        first_message_index = excluded.first_message_index, forwarded_count = excluded.forwarded_count,
        session_data = excluded.session_data";
}

/// A key in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackedUpKey {
    pub room_id: String,
    pub session_id: String,
    pub quality: Quality,
    /// JSON.
    pub session_data: String,
}

/// How good a key is, of several to the same session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    pub is_verified: bool,
    pub first_message_index: i64,
    pub forwarded_count: i64,
}

impl Quality {
    /// Whether this one is to replace `other`.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>
    pub fn is_better_than(&self, other: &Self) -> bool {
        let order = |q: &Self| (q.is_verified, Reverse(q.first_message_index), Reverse(q.forwarded_count));
        order(self) > order(other)
    }
}

/// Keys to put into a backup, each once.
#[derive(Clone, Debug)]
pub struct KeyUpload {
    pub user_id: String,
    pub version: i64,
    pub keys: Vec<BackedUpKey>,
    /// How many keys one backup holds.
    pub most: u32,
}

/// What became of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeysPut {
    /// The backup after it.
    Done {
        count: i64,
        etag: i64,
    },
    /// There is a newer one.
    WrongVersion {
        current: i64,
    },
    Unknown,
    Full,
}

/// Of which keys of a backup something is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    All,
    Room(String),
    One(String, String),
}

/// A backup after some of its keys were deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletedKeys {
    pub gone: u64,
    pub count: i64,
    pub etag: i64,
}

/// The aggregate of the keys in backups.
pub trait KeyBackupKeys: Send + Sync {
    /// Puts keys into the newest backup, where they are better than what is there.
    fn put_backup_keys(&self, upload: KeyUpload) -> Answer<'_, KeysPut>;
    /// The next of the keys, in the order of their rooms and sessions; `None` if there is no such backup.
    fn backup_keys(
        &self,
        user_id: &str,
        version: i64,
        room_id: Option<&str>,
        after: Option<(String, String)>,
        limit: u32,
    ) -> Answer<'_, Option<Vec<BackedUpKey>>>;
    fn backup_key(
        &self,
        user_id: &str,
        version: i64,
        room_id: &str,
        session_id: &str,
    ) -> Answer<'_, Option<BackedUpKey>>;
    /// Deletes at most `limit` of them; `None` if there is no such backup.
    fn delete_backup_keys(
        &self,
        user_id: &str,
        version: i64,
        which: Which,
        limit: u32,
    ) -> Answer<'_, Option<DeletedKeys>>;
    /// Removes at most `limit` keys of a backup that was deleted; how many there were.
    fn clean_backup(&self, user_id: &str, version: i64, limit: u32) -> Answer<'_, u64>;
}

impl<E: Engine> KeyBackupKeys for Sql<E> {
    fn put_backup_keys(&self, upload: KeyUpload) -> Answer<'_, KeysPut> {
        self.0.write(Put(upload))
    }

    fn backup_keys(
        &self,
        user_id: &str,
        version: i64,
        room_id: Option<&str>,
        after: Option<(String, String)>,
        limit: u32,
    ) -> Answer<'_, Option<Vec<BackedUpKey>>> {
        let room_id = room_id.map(str::to_owned);
        self.0.read(Keys { user_id: user_id.to_owned(), version, room_id, after, limit })
    }

    fn backup_key(
        &self,
        user_id: &str,
        version: i64,
        room_id: &str,
        session_id: &str,
    ) -> Answer<'_, Option<BackedUpKey>> {
        self.0.read(Key(user_id.to_owned(), version, room_id.to_owned(), session_id.to_owned()))
    }

    fn delete_backup_keys(
        &self,
        user_id: &str,
        version: i64,
        which: Which,
        limit: u32,
    ) -> Answer<'_, Option<DeletedKeys>> {
        self.0.write(DeleteKeys { user_id: user_id.to_owned(), version, which, limit: limit.into() })
    }

    fn clean_backup(&self, user_id: &str, version: i64, limit: u32) -> Answer<'_, u64> {
        self.0.write(Clean { user_id: user_id.to_owned(), version, limit: limit.into() })
    }
}

struct Put(KeyUpload);

impl Op for Put {
    const NAME: &'static str = "put_backup_keys";
    type Out = KeysPut;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<KeysPut> {
        let KeyUpload { user_id, version, keys, most } = &self.0;
        lock(tx, user_id).await?;
        let Backup { count, etag, .. } = match backup(tx, user_id, None).await? {
            Some(newest) if newest.version == *version => newest,
            Some(newest) if backup(tx, user_id, Some(*version)).await?.is_some() => {
                return Ok(KeysPut::WrongVersion { current: newest.version });
            }
            _ => return Ok(KeysPut::Unknown),
        };
        if keys.is_empty() {
            return Ok(KeysPut::Done { count, etag });
        }
        let asked: Vec<_> =
            keys.iter().map(|key| args![user_id, *version, &key.room_id, &key.session_id].to_vec()).collect();
        let mut rows = Vec::new();
        let mut new = 0;
        for ((key, mut row), there) in keys.iter().zip(asked.clone()).zip(tx.query_each(QUALITY, &asked).await?) {
            match there.into_iter().next() {
                None => new += 1,
                Some(mut there) => {
                    if !key.quality.is_better_than(&quality(&mut there, 0)?) {
                        continue;
                    }
                }
            }
            let Quality { is_verified, first_message_index, forwarded_count } = key.quality;
            row.extend_from_slice(args![is_verified, first_message_index, forwarded_count, &key.session_data]);
            rows.push(row);
        }
        if rows.is_empty() {
            return Ok(KeysPut::Done { count, etag });
        }
        if new > 0 && count + new > i64::from(*most) {
            return Ok(KeysPut::Full);
        }
        tx.insert_rows(PUT, &rows).await?;
        let (count, etag) = counted(tx, user_id, *version, new).await?;
        Ok(KeysPut::Done { count, etag })
    }
}

/// The keys have changed, and there are so many more.
async fn counted<T: Tx>(tx: &mut T, user_id: &str, version: i64, more: i64) -> Result<(i64, i64)> {
    let mut row = tx.query_one(COUNTED, args![user_id, version, more]).await?;
    Ok((row.get(0)?, row.get(1)?))
}

fn quality(row: &mut Row, first: usize) -> Result<Quality> {
    Ok(Quality {
        is_verified: row.get(first)?,
        first_message_index: row.get(first + 1)?,
        forwarded_count: row.get(first + 2)?,
    })
}

fn key(mut row: Row) -> Result<BackedUpKey> {
    let quality = quality(&mut row, 2)?;
    Ok(BackedUpKey { room_id: row.get(0)?, session_id: row.get(1)?, quality, session_data: row.get(5)? })
}

struct Keys {
    user_id: String,
    version: i64,
    room_id: Option<String>,
    after: Option<(String, String)>,
    limit: u32,
}

impl Query for Keys {
    const NAME: &'static str = "backup_keys";
    type Out = Option<Vec<BackedUpKey>>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        if backup(tx, &self.user_id, Some(self.version)).await?.is_none() {
            return Ok(None);
        }
        let (after_room, after_session) = self.after.clone().unwrap_or_default();
        let rows = match &self.room_id {
            Some(room) => {
                let args = args![&self.user_id, self.version, room, after_session, i64::from(self.limit)];
                tx.query(KEYS_OF_ROOM, args).await?
            }
            None => {
                let args = args![&self.user_id, self.version, after_room, after_session, i64::from(self.limit)];
                tx.query(KEYS, args).await?
            }
        };
        rows.into_iter().map(key).collect::<Result<_>>().map(Some)
    }
}

struct Key(String, i64, String, String);

impl Query for Key {
    const NAME: &'static str = "backup_key";
    const SINGLE: bool = true;
    type Out = Option<BackedUpKey>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Option<BackedUpKey>> {
        tx.query_opt(KEY, args![&self.0, self.1, &self.2, &self.3]).await?.map(key).transpose()
    }
}

struct DeleteKeys {
    user_id: String,
    version: i64,
    which: Which,
    limit: i64,
}

impl Op for DeleteKeys {
    const NAME: &'static str = "delete_backup_keys";
    type Out = Option<DeletedKeys>;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let (user, version, limit) = (&self.user_id, self.version, self.limit);
        lock(tx, user).await?;
        let Some(Backup { count, etag, .. }) = backup(tx, user, Some(version)).await? else { return Ok(None) };
        let gone = match &self.which {
            Which::All => delete_first(tx, user, version, limit).await?,
            Which::Room(room) => delete_first_in_room(tx, user, version, room, limit).await?,
            Which::One(room, session) => tx.execute(DELETE_ONE, args![user, version, room, session]).await?,
        };
        if gone == 0 {
            return Ok(Some(DeletedKeys { gone, count, etag }));
        }
        let fewer = -i64::try_from(gone).unwrap_or(i64::MAX);
        let (count, etag) = counted(tx, user, version, fewer).await?;
        Ok(Some(DeletedKeys { gone, count, etag }))
    }
}

struct Clean {
    user_id: String,
    version: i64,
    limit: i64,
}

impl Op for Clean {
    const NAME: &'static str = "clean_backup";
    type Out = u64;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        if backup(tx, &self.user_id, Some(self.version)).await?.is_some() {
            return Ok(0);
        }
        delete_first(tx, &self.user_id, self.version, self.limit).await
    }
}

async fn delete_first<T: Tx>(tx: &mut T, user_id: &str, version: i64, limit: i64) -> Result<u64> {
    let Some(mut end) = tx.query_opt(END, args![user_id, version, limit]).await? else { return Ok(0) };
    let (room, session): (String, String) = (end.get(0)?, end.get(1)?);
    tx.execute(DELETE_UP_TO, args![user_id, version, room, session]).await
}

async fn delete_first_in_room<T: Tx>(
    tx: &mut T,
    user_id: &str,
    version: i64,
    room_id: &str,
    limit: i64,
) -> Result<u64> {
    let end = tx.query_opt(END_IN_ROOM, args![user_id, version, room_id, limit]).await?;
    let Some(mut end) = end else { return Ok(0) };
    tx.execute(DELETE_IN_ROOM_UP_TO, args![user_id, version, room_id, end.get::<String>(0)?]).await
}

/// Removes some keys of a user, in whatever backup; how many there were.
pub(super) async fn clean_user<T: Tx>(tx: &mut T, user_id: &str, limit: i64) -> Result<u64> {
    match tx.query_opt(ANY_VERSION, args![user_id]).await? {
        Some(mut row) => delete_first(tx, user_id, row.get(0)?, limit).await,
        None => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verified_key_is_better_and_then_one_that_reaches_further_back() {
        let quality = |is_verified, first_message_index, forwarded_count| Quality {
            is_verified,
            first_message_index,
            forwarded_count,
        };
        let falling = [
            quality(true, 0, 0),
            quality(true, 0, 9),
            quality(true, 9, 0),
            quality(false, 0, 0),
            quality(false, 0, 1),
            quality(false, 1, 0),
        ];
        for (i, better) in falling.iter().enumerate() {
            assert!(!better.is_better_than(better), "what is there stays");
            for worse in &falling[i + 1..] {
                assert!(better.is_better_than(worse) && !worse.is_better_than(better), "{better:?} {worse:?}");
            }
        }
    }
}
