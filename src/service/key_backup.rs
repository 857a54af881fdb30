//! Backups of the keys to encrypted rooms. What is in them only their owner can read; the server keeps the better of two
//! keys to one session.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>

use std::sync::Arc;

use hearth_core::{
    Error, Kind, Result,
    clock::{Clock, Rng, random_string},
    limits::{MAX_CONTENT_DEPTH, nests_at_most},
};
use hearth_storage::{
    Storage,
    key_backup::{BackedUpKey, Backup, BackupUpdated, DeletedKeys, KeyUpload, KeysPut, NewBackup, Quality, Which},
};
use ruma::{RoomId, UInt};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::session::Session;

const MAX_ALGORITHM_BYTES: usize = 255;
/// A public key and some signatures.
const MAX_AUTH_DATA_BYTES: usize = 64 << 10;
/// Clients use the newest, and mostly delete the others.
const MAX_BACKUPS: u32 = 100;
/// One for each session of each room that somebody was ever in.
const MAX_KEYS: u32 = 500_000;
/// Clients put one or two hundred at once.
const MAX_KEYS_AT_ONCE: usize = 5_000;
const MAX_SESSION_ID_BYTES: usize = 255;
/// The encrypted key is about one kilobyte.
const MAX_SESSION_DATA_BYTES: usize = 16 << 10;
/// How many keys are read at once, where all are wanted,
const PAGE: u32 = 500;
/// and deleted, so that nobody waits long.
const BATCH: u32 = 500;

/// Keeps backups.
pub struct KeyBackups {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
}

/// How the keys of a backup are secured.
#[derive(Deserialize)]
struct Method {
    algorithm: String,
    auth_data: Box<RawValue>,
    version: Option<String>,
}

/// What a change left in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    pub count: UInt,
    pub etag: String,
}

/// A key as a client sends it: its room, its session, and all else as JSON.
pub struct SentKey<'a> {
    pub room_id: &'a RoomId,
    pub session_id: &'a str,
    pub data: &'a RawValue,
}

impl KeyBackups {
    pub fn new(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>, rng: Arc<dyn Rng>) -> Self {
        Self { storage, clock, rng }
    }

    /// The version of the new backup.
    pub async fn create(&self, session: &Session, method: &RawValue) -> Result<String> {
        let Method { algorithm, auth_data, .. } = Method::of(method)?;
        let new = NewBackup {
            user_id: session.user_id.to_string(),
            algorithm,
            auth_data: auth_data.get().to_owned(),
            most: MAX_BACKUPS,
        };
        let version = self.storage.create_backup(new).await?;
        let too_many = || Error::too_large(format!("A user has at most {MAX_BACKUPS} backups: delete one first"));
        Ok(version.ok_or_else(too_many)?.to_string())
    }

    /// That version of the user's, or the newest.
    pub async fn get(&self, session: &Session, version: Option<&str>) -> Result<Backup> {
        let version = version.map(number).transpose()?;
        let backup = self.storage.backup(session.user_id.as_str(), version).await?;
        backup.ok_or_else(|| match version {
            Some(_) => unknown(),
            None => Error::not_found("There is no backup"),
        })
    }

    pub async fn update(&self, session: &Session, version: &str, method: &RawValue) -> Result<()> {
        let Method { algorithm, auth_data, version: said } = Method::of(method)?;
        if said.is_some_and(|said| said != version) {
            return Err(Error::invalid_param("The version in the body is not the one in the path"));
        }
        let user = session.user_id.as_str();
        match self.storage.update_backup(user, number(version)?, &algorithm, auth_data.get()).await? {
            BackupUpdated::Done => Ok(()),
            BackupUpdated::Unknown => Err(unknown()),
            BackupUpdated::OtherAlgorithm => Err(Error::invalid_param("The backup is one of another algorithm")),
        }
    }

    pub async fn delete(&self, session: &Session, version: &str) -> Result<()> {
        let (job, now) = (random_string(&*self.rng, 16), self.clock.now_ms());
        match self.storage.delete_backup(session.user_id.as_str(), number(version)?, job, now).await? {
            true => Ok(()),
            false => Err(unknown()),
        }
    }

    pub async fn put(&self, session: &Session, version: &str, keys: &[SentKey<'_>]) -> Result<Left> {
        if keys.len() > MAX_KEYS_AT_ONCE {
            return Err(Error::too_large(format!("One request has at most {MAX_KEYS_AT_ONCE} keys")));
        }
        let keys = keys.iter().map(SentKey::checked).collect::<Result<_>>()?;
        let upload =
            KeyUpload { user_id: session.user_id.to_string(), version: number(version)?, keys, most: MAX_KEYS };
        match self.storage.put_backup_keys(upload).await? {
            KeysPut::Done { count, etag } => left(count, etag),
            KeysPut::WrongVersion { current } => {
                let kind = Kind::WrongRoomKeysVersion { current_version: current.to_string() };
                Err(Error::new(kind, "Keys are put into the newest backup"))
            }
            KeysPut::Unknown => Err(unknown()),
            KeysPut::Full => Err(Error::too_large(format!("A backup has at most {MAX_KEYS} keys"))),
        }
    }

    pub async fn key(&self, session: &Session, version: &str, room_id: &RoomId, id: &str) -> Result<BackedUpKey> {
        check_session_id(id)?;
        let key = self.storage.backup_key(session.user_id.as_str(), number(version)?, room_id.as_str(), id).await?;
        key.ok_or_else(|| Error::not_found("There is no such key"))
    }

    /// Some keys of the backup, or of a room in it, in the order of rooms and sessions; and whether there may be more.
    pub async fn keys_after(
        &self,
        session: &Session,
        version: &str,
        room_id: Option<&RoomId>,
        after: Option<&BackedUpKey>,
    ) -> Result<(Vec<BackedUpKey>, bool)> {
        let after = after.map(|key| (key.room_id.clone(), key.session_id.clone()));
        let (user, room_id) = (session.user_id.as_str(), room_id.map(RoomId::as_str));
        let keys = self.storage.backup_keys(user, number(version)?, room_id, after, PAGE).await?.ok_or_else(unknown)?;
        let more = keys.len() >= PAGE as usize;
        Ok((keys, more))
    }

    /// Deletes keys. Many are deleted piece by piece: it is not undone where it is broken off.
    pub async fn delete_keys(&self, session: &Session, version: &str, which: &Which) -> Result<Left> {
        let (user, version) = (session.user_id.as_str(), number(version)?);
        if let Which::One(_, session_id) = which {
            check_session_id(session_id)?;
        }
        loop {
            let deleted = self.storage.delete_backup_keys(user, version, which.clone(), BATCH).await?;
            let DeletedKeys { gone, count, etag } = deleted.ok_or_else(unknown)?;
            if gone < u64::from(BATCH) {
                return left(count, etag);
            }
        }
    }
}

impl Method {
    fn of(json: &RawValue) -> Result<Self> {
        let method: Self = parse(json)?;
        if method.algorithm.len() > MAX_ALGORITHM_BYTES || method.algorithm.contains('\0') {
            return Err(Error::invalid_param(format!("An algorithm has at most {MAX_ALGORITHM_BYTES} bytes")));
        }
        check_object("`auth_data`", &method.auth_data, MAX_AUTH_DATA_BYTES)?;
        Ok(method)
    }
}

impl SentKey<'_> {
    fn checked(&self) -> Result<BackedUpKey> {
        #[derive(Deserialize)]
        struct Data {
            is_verified: bool,
            first_message_index: UInt,
            forwarded_count: UInt,
            session_data: Box<RawValue>,
        }
        check_session_id(self.session_id)?;
        let Data { is_verified, first_message_index, forwarded_count, session_data } = parse(self.data)?;
        check_object("`session_data`", &session_data, MAX_SESSION_DATA_BYTES)?;
        Ok(BackedUpKey {
            room_id: self.room_id.to_string(),
            session_id: self.session_id.to_owned(),
            quality: Quality {
                is_verified,
                first_message_index: first_message_index.into(),
                forwarded_count: forwarded_count.into(),
            },
            session_data: session_data.get().to_owned(),
        })
    }
}

fn parse<'a, T: Deserialize<'a>>(json: &'a RawValue) -> Result<T> {
    serde_json::from_str(json.get()).map_err(|e| Error::bad_json(e.to_string()))
}

fn check_object(what: &str, json: &RawValue, most: usize) -> Result<()> {
    match json.get() {
        object if !object.starts_with('{') => Err(Error::bad_json(format!("{what} is an object"))),
        object if object.len() > most => Err(Error::too_large(format!("{what} has at most {most} bytes"))),
        // A key that can't be read would keep its owner from reading all those that come with it.
        _ if !nests_at_most(&parse(json)?, MAX_CONTENT_DEPTH) => {
            Err(Error::bad_json(format!("{what} has at most {MAX_CONTENT_DEPTH} levels")))
        }
        _ => Ok(()),
    }
}

fn check_session_id(id: &str) -> Result<()> {
    if id.len() > MAX_SESSION_ID_BYTES || id.contains('\0') {
        return Err(Error::invalid_param(format!("A session id has at most {MAX_SESSION_ID_BYTES} bytes")));
    }
    Ok(())
}

/// A version that prints in another way was not made here.
fn number(version: &str) -> Result<i64> {
    version.parse::<i64>().ok().filter(|number| number.to_string() == version).ok_or_else(unknown)
}

fn unknown() -> Error {
    Error::not_found("There is no backup of this version")
}

fn left(count: i64, etag: i64) -> Result<Left> {
    Ok(Left { count: UInt::try_from(count).map_err(Error::internal)?, etag: etag.to_string() })
}
