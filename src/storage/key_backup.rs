//! Backups of the keys to encrypted rooms: their versions. The keys in them: `keys`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>

pub(crate) mod keys;

pub use self::keys::{BackedUpKey, DeletedKeys, KeyBackupKeys, KeyUpload, KeysPut, Quality, Which};
use crate::{
    Result, Sql,
    outbox::{self, NewItem},
    tx::{Answer, Engine, Op, Query, Reads, Row, Tx, args, statements},
};

statements! {
    LOCK = "UPDATE key_backups SET last_version = last_version WHERE user_id = $1 RETURNING last_version";
    NEXT_VERSION = "INSERT INTO key_backups (user_id, last_version) VALUES ($1, 1)
        ON CONFLICT (user_id) DO UPDATE SET last_version = key_backups.last_version + 1 RETURNING last_version";
    HOW_MANY = "SELECT COUNT(*) FROM key_backup_versions WHERE user_id = $1";
    CREATE = "INSERT INTO key_backup_versions (user_id, version, algorithm, auth_data, count, etag)
        VALUES ($1, $2, $3, $4, 0, 0)";
    NEWEST = "SELECT version, algorithm, auth_data, count, etag FROM key_backup_versions WHERE user_id = $1
        ORDER BY version DESC LIMIT 1";
    BACKUP = "SELECT version, algorithm, auth_data, count, etag FROM key_backup_versions
        WHERE user_id = $1 AND version = $2";
    UPDATE = "UPDATE key_backup_versions SET auth_data = $4 WHERE user_id = $1 AND version = $2 AND algorithm = $3";
    DELETE = "DELETE FROM key_backup_versions WHERE user_id = $1 AND version = $2";
    FORGET_VERSIONS = "DELETE FROM key_backup_versions WHERE user_id = $1";
    FORGET = "DELETE FROM key_backups WHERE user_id = $1";
}

/// The outbox queue that removes the keys of deleted backups. The payload is a [`DeletedBackup`].
pub const BACKUP_CLEANUP: &str = "backup_cleanup";

/// What a row of the queue [`BACKUP_CLEANUP`] says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeletedBackup {
    pub user_id: String,
    pub version: i64,
}

/// A backup that is to be made.
#[derive(Clone, Debug)]
pub struct NewBackup {
    pub user_id: String,
    pub algorithm: String,
    /// JSON.
    pub auth_data: String,
    /// Only if the user has fewer than this.
    pub most: u32,
}

/// A backup, but for its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    pub version: i64,
    pub algorithm: String,
    pub auth_data: String,
    pub count: i64,
    pub etag: i64,
}

/// What became of a change to a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupUpdated {
    Done,
    Unknown,
    /// It is one of another algorithm.
    OtherAlgorithm,
}

/// The aggregate of backups. The newest of a user is the one that keys are put into.
pub trait KeyBackups: Send + Sync {
    /// The version of the new backup; `None`: the user has as many as they may.
    fn create_backup(&self, new: NewBackup) -> Answer<'_, Option<i64>>;
    /// That version, or the newest.
    fn backup(&self, user_id: &str, version: Option<i64>) -> Answer<'_, Option<Backup>>;
    fn update_backup(&self, user_id: &str, version: i64, algorithm: &str, auth_data: &str)
    -> Answer<'_, BackupUpdated>;
    /// False: there never was such a version. What was deleted before is deleted.
    fn delete_backup(&self, user_id: &str, version: i64, job_id: String, at_ms: i64) -> Answer<'_, bool>;
}

impl<E: Engine> KeyBackups for Sql<E> {
    fn create_backup(&self, new: NewBackup) -> Answer<'_, Option<i64>> {
        self.0.write(Create(new))
    }

    fn backup(&self, user_id: &str, version: Option<i64>) -> Answer<'_, Option<Backup>> {
        self.0.read(Get { user_id: user_id.to_owned(), version })
    }

    fn update_backup(
        &self,
        user_id: &str,
        version: i64,
        algorithm: &str,
        auth_data: &str,
    ) -> Answer<'_, BackupUpdated> {
        self.0.write(Update {
            user_id: user_id.to_owned(),
            version,
            algorithm: algorithm.to_owned(),
            auth_data: auth_data.to_owned(),
        })
    }

    fn delete_backup(&self, user_id: &str, version: i64, job_id: String, at_ms: i64) -> Answer<'_, bool> {
        self.0.write(Delete { of: DeletedBackup { user_id: user_id.to_owned(), version }, job_id, at_ms })
    }
}

/// Waits for whoever changes a backup of the user. The last version that there was, if there ever was one.
async fn lock<T: Tx>(tx: &mut T, user_id: &str) -> Result<Option<i64>> {
    tx.query_opt(LOCK, args![user_id]).await?.map(|mut row| row.get(0)).transpose()
}

async fn backup<R: Reads>(tx: &mut R, user_id: &str, version: Option<i64>) -> Result<Option<Backup>> {
    let row = match version {
        Some(version) => tx.query_opt(BACKUP, args![user_id, version]).await?,
        None => tx.query_opt(NEWEST, args![user_id]).await?,
    };
    let backup = |mut row: Row| {
        Ok(Backup {
            version: row.get(0)?,
            algorithm: row.get(1)?,
            auth_data: row.get(2)?,
            count: row.get(3)?,
            etag: row.get(4)?,
        })
    };
    row.map(backup).transpose()
}

struct Create(NewBackup);

impl Op for Create {
    const NAME: &'static str = "create_backup";
    type Out = Option<i64>;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Option<i64>> {
        let NewBackup { user_id, algorithm, auth_data, most } = &self.0;
        lock(tx, user_id).await?;
        if tx.query_one(HOW_MANY, args![user_id]).await?.get::<i64>(0)? >= i64::from(*most) {
            return Ok(None);
        }
        let version: i64 = tx.query_one(NEXT_VERSION, args![user_id]).await?.get(0)?;
        tx.execute(CREATE, args![user_id, version, algorithm, auth_data]).await?;
        Ok(Some(version))
    }
}

struct Get {
    user_id: String,
    version: Option<i64>,
}

impl Query for Get {
    const NAME: &'static str = "backup";
    const SINGLE: bool = true;
    type Out = Option<Backup>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Option<Backup>> {
        backup(tx, &self.user_id, self.version).await
    }
}

struct Update {
    user_id: String,
    version: i64,
    algorithm: String,
    auth_data: String,
}

impl Op for Update {
    const NAME: &'static str = "update_backup";
    type Out = BackupUpdated;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<BackupUpdated> {
        let args = args![&self.user_id, self.version, &self.algorithm, &self.auth_data];
        if tx.execute(UPDATE, args).await? == 1 {
            return Ok(BackupUpdated::Done);
        }
        match backup(tx, &self.user_id, Some(self.version)).await? {
            Some(_) => Ok(BackupUpdated::OtherAlgorithm),
            None => Ok(BackupUpdated::Unknown),
        }
    }
}

struct Delete {
    of: DeletedBackup,
    job_id: String,
    at_ms: i64,
}

impl Op for Delete {
    const NAME: &'static str = "delete_backup";
    type Out = bool;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let DeletedBackup { user_id, version } = &self.of;
        let Some(last) = lock(tx, user_id).await? else { return Ok(false) };
        if tx.execute(DELETE, args![user_id, *version]).await? == 1 {
            let payload = serde_json::json!(self.of).to_string();
            let item = NewItem { id: self.job_id.clone(), payload, due_ms: self.at_ms };
            outbox::enqueue(tx, BACKUP_CLEANUP, vec![item]).await?;
        }
        Ok((1..=last).contains(version))
    }
}

/// Removes some of the backups of a user who is gone; how many rows went, about `limit` at most.
pub(crate) async fn clean<T: Tx>(tx: &mut T, user_id: &str, limit: i64) -> Result<u64> {
    let keys = keys::clean_user(tx, user_id, limit).await?;
    if keys > 0 {
        return Ok(keys);
    }
    let versions = tx.execute(FORGET_VERSIONS, args![user_id]).await?;
    Ok(versions + tx.execute(FORGET, args![user_id]).await?)
}

#[cfg(test)]
mod tests;
