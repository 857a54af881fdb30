//! What people share: `mxc:` URIs, the content that they stand for, and what the media store holds of it.
//!
//! Content is a *file* of the store, once for each different content (`media_files`); any number of URIs and thumbnails
//! stand for it. The store is no part of a transaction. So a file is entered as unaccounted for before it is written
//! there, and again in the transaction that forgets it; what is entered for longer than it should be is removed from the
//! store. Whichever process dies at whatever moment, no file is lost that a URI stands for, and none stays for ever that
//! nothing does.

pub(crate) mod attach;
pub(crate) mod files;
pub(crate) mod retention;
#[cfg(test)]
mod tests;
pub(crate) mod thumbnails;

pub use self::{
    attach::{Attach, Attached, Content, Named, NewFile},
    retention::{Old, Since},
    thumbnails::{NewThumbnail, Thumbnail},
};

use crate::{
    Sql,
    error::Result,
    tx::{Answer, Engine, Op, Query, Reads, Row, Tx, args, statements},
};

statements! {
    RESERVE = "INSERT INTO media (server_name, media_id, kind, user_id, created_ms, expires_ms, used_ms) \
        VALUES ($1, $2, 'local', $3, $4, $5, $4)";
    WAITS = "INSERT INTO media_totals (user_id, files, bytes, waiting) VALUES ($1, 0, 0, 1) \
        ON CONFLICT (user_id) DO UPDATE SET waiting = media_totals.waiting + 1 WHERE media_totals.waiting < $2 \
        RETURNING waiting";
    TOTAL = "SELECT files, bytes, waiting FROM media_totals WHERE user_id = $1";
    FIND = "SELECT m.user_id, m.expires_ms, m.content_type, m.file_name, f.file_key, f.sha256, f.bytes, f.sniffed, \
        m.used_ms FROM media m LEFT JOIN media_files f ON f.file_key = m.file_key \
        WHERE m.server_name = $1 AND m.media_id = $2";
    USED = "UPDATE media SET used_ms = $3 WHERE server_name = $1 AND media_id = ANY($2) AND used_ms < $3";
}

/// Whose a URI is, and since when.
#[derive(Clone, Debug)]
pub struct Reservation {
    pub server_name: String,
    pub media_id: String,
    pub user_id: String,
    pub created_ms: i64,
    /// Until when something may be uploaded.
    pub expires_ms: i64,
}

/// What a URI stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    pub user_id: Option<String>,
    /// None: nothing was uploaded yet. It may be until the time that stands beside it.
    pub file: Option<File>,
    pub expires_ms: Option<i64>,
    pub content_type: Option<String>,
    pub file_name: Option<String>,
    pub used_ms: i64,
}

/// What the store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub key: String,
    pub sha256: Vec<u8>,
    pub bytes: u64,
    pub sniffed: String,
}

impl File {
    fn of(row: &mut Row, at: usize) -> Result<Option<Self>> {
        let Some(key) = row.get(at)? else { return Ok(None) };
        let bytes: i64 = row.get(at + 2)?;
        Ok(Some(Self { key, sha256: row.get(at + 1)?, bytes: bytes.unsigned_abs(), sniffed: row.get(at + 3)? }))
    }
}

/// How much somebody has uploaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaTotal {
    pub files: u64,
    pub bytes: u64,
    /// How many URIs they have that nothing was uploaded to.
    pub waiting: u64,
}

/// What people share.
pub trait MediaRepository: Send + Sync {
    /// Makes a URI that content will be uploaded to. False: its owner has `most` of these already.
    fn reserve_media(&self, new: Reservation, most: u32) -> Answer<'_, bool>;
    /// What a URI stands for.
    fn media(&self, server_name: &str, media_id: &str) -> Answer<'_, Option<Media>>;
    /// Somebody looked at these.
    fn media_used(&self, server_name: &str, media_ids: Vec<String>, at_ms: i64) -> Answer<'_, ()>;
    fn media_total(&self, user_id: &str) -> Answer<'_, MediaTotal>;
    /// Lets a URI stand for content, see [`Attach`].
    fn attach_media(&self, attach: Attach) -> Answer<'_, Attached>;
    /// Whether the store has a file of this content.
    fn has_content(&self, sha256: [u8; 32]) -> Answer<'_, bool>;
    /// A file is about to be written to the store: it is removed again at `due_ms` unless something stands for it by then.
    fn expect_file(&self, key: &str, due_ms: i64) -> Answer<'_, ()>;
    /// Files that the store may hold and nothing stands for, and whose time has come.
    fn unaccounted_files(&self, now_ms: i64, limit: u32) -> Answer<'_, Vec<String>>;
    /// These are no longer in the store.
    fn files_gone(&self, keys: Vec<String>) -> Answer<'_, ()>;
    /// What the store should hold, by key, after this one.
    fn files_after(&self, key: &str, limit: u32) -> Answer<'_, Vec<File>>;
    /// A thumbnail that was made before.
    fn thumbnail(&self, file_key: &str, variant: &str) -> Answer<'_, Option<Thumbnail>>;
    /// Keeps what was made of a picture. None: the picture is gone, or the content is not in the store (any more).
    fn keep_thumbnail(&self, new: NewThumbnail) -> Answer<'_, Option<Thumbnail>>;
    /// Forgets a piece of what is this old, and the files that nothing stands for any more; how many URIs that were.
    fn forget_old_media(&self, old: Old, limit: u32) -> Answer<'_, u64>;
}

impl<E: Engine> MediaRepository for Sql<E> {
    fn reserve_media(&self, new: Reservation, most: u32) -> Answer<'_, bool> {
        self.0.write(Reserve { new, most })
    }

    fn media(&self, server_name: &str, media_id: &str) -> Answer<'_, Option<Media>> {
        self.0.read(Find { server_name: server_name.to_owned(), media_id: media_id.to_owned() })
    }

    fn media_used(&self, server_name: &str, media_ids: Vec<String>, at_ms: i64) -> Answer<'_, ()> {
        self.0.write(MediaUsed { server_name: server_name.to_owned(), media_ids, at_ms })
    }

    fn media_total(&self, user_id: &str) -> Answer<'_, MediaTotal> {
        self.0.read(Total(user_id.to_owned()))
    }

    fn attach_media(&self, attach: Attach) -> Answer<'_, Attached> {
        self.0.write(attach)
    }

    fn has_content(&self, sha256: [u8; 32]) -> Answer<'_, bool> {
        self.0.read(files::HasContent(sha256))
    }

    fn expect_file(&self, key: &str, due_ms: i64) -> Answer<'_, ()> {
        self.0.write(files::Expect { key: key.to_owned(), due_ms })
    }

    fn unaccounted_files(&self, now_ms: i64, limit: u32) -> Answer<'_, Vec<String>> {
        self.0.read(files::Unaccounted { now_ms, limit })
    }

    fn files_gone(&self, keys: Vec<String>) -> Answer<'_, ()> {
        self.0.write(files::Gone(keys))
    }

    fn files_after(&self, key: &str, limit: u32) -> Answer<'_, Vec<File>> {
        self.0.read(files::After { key: key.to_owned(), limit })
    }

    fn thumbnail(&self, file_key: &str, variant: &str) -> Answer<'_, Option<Thumbnail>> {
        self.0.read(thumbnails::Find { file_key: file_key.to_owned(), variant: variant.to_owned() })
    }

    fn keep_thumbnail(&self, new: NewThumbnail) -> Answer<'_, Option<Thumbnail>> {
        self.0.write(new)
    }

    fn forget_old_media(&self, old: Old, limit: u32) -> Answer<'_, u64> {
        self.0.write(retention::Forget { old, limit })
    }
}

struct Reserve {
    new: Reservation,
    most: u32,
}

impl Op for Reserve {
    const NAME: &'static str = "reserve_media";
    type Out = bool;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let Reservation { server_name, media_id, user_id, created_ms, expires_ms } = &self.new;
        if tx.query_opt(WAITS, args![user_id, i64::from(self.most)]).await?.is_none() {
            return Ok(false);
        }
        tx.execute(RESERVE, args![server_name, media_id, user_id, *created_ms, *expires_ms]).await?;
        Ok(true)
    }
}

async fn total<R: Reads>(tx: &mut R, user_id: &str) -> Result<MediaTotal> {
    let Some(mut row) = tx.query_opt(TOTAL, args![user_id]).await? else { return Ok(MediaTotal::default()) };
    let mut number = |at| row.get::<i64>(at).map(i64::unsigned_abs);
    Ok(MediaTotal { files: number(0)?, bytes: number(1)?, waiting: number(2)? })
}

struct Total(String);

impl Query for Total {
    const NAME: &'static str = "media_total";
    const SINGLE: bool = true;
    type Out = MediaTotal;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<MediaTotal> {
        total(tx, &self.0).await
    }
}

struct Find {
    server_name: String,
    media_id: String,
}

impl Query for Find {
    const NAME: &'static str = "media";
    const SINGLE: bool = true;
    type Out = Option<Media>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Option<Media>> {
        let Some(mut row) = tx.query_opt(FIND, args![&self.server_name, &self.media_id]).await? else {
            return Ok(None);
        };
        Ok(Some(Media {
            user_id: row.get(0)?,
            expires_ms: row.get(1)?,
            content_type: row.get(2)?,
            file_name: row.get(3)?,
            file: File::of(&mut row, 4)?,
            used_ms: row.get(8)?,
        }))
    }
}

struct MediaUsed {
    server_name: String,
    media_ids: Vec<String>,
    at_ms: i64,
}

impl Op for MediaUsed {
    const NAME: &'static str = "media_used";
    type Out = ();

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.execute(USED, args![&self.server_name, self.media_ids.clone(), self.at_ms]).await?;
        Ok(())
    }
}
