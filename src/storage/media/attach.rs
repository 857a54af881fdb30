//! What an upload ends with: a URI stands for content that is in the store.

use std::sync::Arc;

use super::files::{self, ENTER};
use crate::{
    error::Result,
    tx::{Op, Tx, Wake, args, statements},
};

statements! {
    NEW = "INSERT INTO media (server_name, media_id, kind, user_id, created_ms, file_key, content_type, file_name, \
        used_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $5)";
    FILL = "UPDATE media SET file_key = $3, content_type = $4, file_name = $5, used_ms = $6, expires_ms = NULL \
        WHERE server_name = $1 AND media_id = $2";
    // Whoever forgets what is old takes the rows in the same order.
    RESERVED = "UPDATE media SET used_ms = used_ms WHERE server_name = $1 AND media_id = $2 \
        RETURNING user_id, expires_ms, file_key";
    LOCK_TOTAL = "INSERT INTO media_totals (user_id, files, bytes, waiting) VALUES ($1, 0, 0, 0) \
        ON CONFLICT (user_id) DO UPDATE SET bytes = media_totals.bytes RETURNING bytes";
    COUNT = "INSERT INTO media_totals (user_id, files, bytes, waiting) VALUES ($1, 1, $2, 0) \
        ON CONFLICT (user_id) DO UPDATE SET files = media_totals.files + 1, bytes = media_totals.bytes + $2, \
        waiting = media_totals.waiting - $3 RETURNING bytes";
}

/// A URI, what it stands for, and who says so.
#[derive(Clone, Debug)]
pub struct Attach {
    pub server_name: String,
    pub media_id: String,
    pub named: Named,
    pub content: Content,
    pub content_type: String,
    pub file_name: Option<String>,
    pub at_ms: i64,
    /// The most bytes that the user may have uploaded after this.
    pub quota: Option<u64>,
}

/// Where the URI comes from.
#[derive(Clone, Debug)]
pub enum Named {
    /// It is new.
    New { user_id: String },
    /// Its owner had it made before.
    Reserved { user_id: String },
    /// It is new, and the server's own: a picture of a page that it looked at.
    Preview,
}

/// What is to be there.
#[derive(Clone, Debug)]
pub struct Content {
    pub sha256: [u8; 32],
    pub bytes: u64,
    /// None: the store had it already when it was last asked.
    pub written: Option<NewFile>,
}

/// A file that was just written to the store, having been expected there.
#[derive(Clone, Debug)]
pub struct NewFile {
    pub key: String,
    pub sniffed: String,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    Done,
    /// The store has it no more, or what was written was removed again: it has to be written.
    NotStored,
    /// Nobody reserved this URI, or the time is over.
    NotReserved,
    /// Somebody else reserved it.
    NotYours,
    /// It stands for something already.
    Taken,
    /// The user would have more than they may.
    OverQuota,
}

impl Op for Attach {
    const NAME: &'static str = "attach_media";
    type Out = Attached;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Attached> {
        let Self { server_name, media_id, content_type, file_name, at_ms, .. } = self;
        let uri = (server_name.as_str(), media_id.as_str());
        let (kind, user_id, reserved) = match &self.named {
            Named::New { user_id } => ("local", Some(user_id), false),
            Named::Reserved { user_id } => ("local", Some(user_id), true),
            Named::Preview => ("preview", None, false),
        };
        if reserved && let Some(refusal) = self.refusal(tx, user_id.map(String::as_str)).await? {
            return Ok(refusal);
        }
        if let Some(user_id) = user_id {
            let has: i64 = tx.query_one(LOCK_TOTAL, args![user_id]).await?.get(0)?;
            if self.quota.is_some_and(|quota| has.unsigned_abs().saturating_add(self.content.bytes) > quota) {
                return Ok(Attached::OverQuota);
            }
        }
        let Some(file_key) = enter(tx, &self.content, *at_ms).await? else { return Ok(Attached::NotStored) };
        if let Some(user_id) = user_id {
            let bytes = i64::try_from(self.content.bytes).unwrap_or(i64::MAX);
            tx.query_one(COUNT, args![user_id, bytes, i64::from(reserved)]).await?;
        }
        let file_name = file_name.as_deref();
        if reserved {
            tx.execute(FILL, args![uri.0, uri.1, &file_key, content_type, file_name, *at_ms]).await?;
            // Somebody may be waiting for it.
            if let Some(user_id) = user_id {
                tx.wake(Wake::User(Arc::from(user_id.as_str())));
            }
        } else {
            let user_id = user_id.map(String::as_str);
            tx.execute(NEW, args![uri.0, uri.1, kind, user_id, *at_ms, &file_key, content_type, file_name]).await?;
        }
        Ok(Attached::Done)
    }
}

impl Attach {
    /// Why nothing may be uploaded to a URI.
    async fn refusal<T: Tx>(&self, tx: &mut T, user_id: Option<&str>) -> Result<Option<Attached>> {
        let Some(mut row) = tx.query_opt(RESERVED, args![&self.server_name, &self.media_id]).await? else {
            return Ok(Some(Attached::NotReserved));
        };
        let (owner, expires_ms, there): (Option<String>, Option<i64>, Option<String>) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(if owner.as_deref() != user_id {
            Some(Attached::NotYours)
        } else if there.is_some() {
            Some(Attached::Taken)
        } else if expires_ms.is_some_and(|at| at <= self.at_ms) {
            Some(Attached::NotReserved)
        } else {
            None
        })
    }
}

/// The file of some content, which is kept from being forgotten until the transaction ends. None: there is none.
pub(super) async fn enter<T: Tx>(tx: &mut T, content: &Content, now_ms: i64) -> Result<Option<String>> {
    let sha256 = &content.sha256[..];
    let Some(NewFile { key, sniffed }) = &content.written else {
        return match tx.query_opt(files::LOCK_CONTENT, args![sha256]).await? {
            Some(mut row) => Ok(Some(row.get(0)?)),
            None => Ok(None),
        };
    };
    if tx.execute(files::ACCOUNTED, args![key]).await? == 0 {
        return Ok(None);
    }
    let bytes = i64::try_from(content.bytes).unwrap_or(i64::MAX);
    let there: String = tx.query_one(ENTER, args![key, sha256, bytes, sniffed]).await?.get(0)?;
    if there != *key {
        // Somebody else was quicker with the same.
        files::expect(tx, key, now_ms).await?;
    }
    Ok(Some(there))
}
