//! The media repository: what people share, kept once for each different content.
//!
//! An upload waits in a spool on this machine until all of it is there, goes to the store, and then stands for its URI; the
//! answer comes after that. What is known of files is in the database, so any process serves any of them.

pub mod copy;
mod pictures;
mod read;
mod spool;
pub mod store;
mod thumbnails;
mod tidy;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use hearth_core::{
    Error, Kind, Result,
    clock::{Clock, Rng, random_string},
    media::{headers, sniff},
};
use hearth_storage::{
    Storage,
    media::{Attach, Attached, Content, Named, NewFile, Reservation},
};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedMxcUri, OwnedServerName, ServerName, UserId};

pub use self::read::{Found, Part};
use self::{
    spool::{Spool, Spooled},
    store::Store,
    thumbnails::Workshop,
};
use crate::{config::MediaStore, notify::Notifier};

/// What was written to the store and stands for nothing after this time will not any more.
const UNACCOUNTED_MS: i64 = 24 * 60 * 60 * 1000;
/// How often the same upload is brought to the store anew, if what was there a moment ago is gone.
const TRIES: usize = 3;

/// What people share.
pub struct Media {
    server_name: OwnedServerName,
    storage: Arc<dyn Storage>,
    store: Arc<dyn Store>,
    spool: Spool,
    notifier: Arc<Notifier>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    rules: Rules,
    workshop: Workshop,
    /// What was looked at and is to be noted.
    used: Mutex<HashSet<String>>,
}

/// How much of it there may be.
pub struct Rules {
    pub config: MediaStore,
    /// Of one file.
    pub max_bytes: u64,
    /// Of a picture that a thumbnail is made of.
    pub max_pixels: u64,
    /// Where users learn more who have as much as they may.
    pub quota_info: String,
}

/// What the service works with.
pub struct Sources {
    pub storage: Arc<dyn Storage>,
    pub store: Arc<dyn Store>,
    /// Where uploads wait.
    pub spool: PathBuf,
    pub notifier: Arc<Notifier>,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
}

/// What is said of an upload.
pub struct About<'a> {
    pub content_type: Option<&'a str>,
    pub file_name: Option<&'a str>,
    /// How much there will be, where it is known.
    pub bytes: Option<u64>,
}

impl Media {
    pub fn new(server_name: OwnedServerName, sources: Sources, rules: Rules) -> Arc<Self> {
        let Sources { storage, store, spool, notifier, clock, rng } = sources;
        let spool = Spool::new(spool);
        let workshop = Workshop::new(rules.max_pixels);
        Arc::new(Self {
            server_name,
            storage,
            store,
            spool,
            notifier,
            clock,
            rng,
            rules,
            workshop,
            used: Mutex::default(),
        })
    }

    /// The largest upload.
    pub fn max_bytes(&self) -> u64 {
        self.rules.max_bytes
    }

    /// Makes a URI that something will be uploaded to, and says until when.
    pub async fn create(&self, user: &UserId) -> Result<(OwnedMxcUri, MilliSecondsSinceUnixEpoch)> {
        let created_ms = self.clock.now_ms();
        let after = Duration::from_secs(self.rules.config.unused_expires_after);
        let expires_ms = created_ms.saturating_add(i64::try_from(after.as_millis()).unwrap_or(i64::MAX));
        let media_id = self.new_id();
        let new = Reservation {
            server_name: self.server_name.to_string(),
            media_id: media_id.clone(),
            user_id: user.to_string(),
            created_ms,
            expires_ms,
        };
        if !self.storage.reserve_media(new, self.rules.config.max_unused_per_user.get()).await? {
            let retry_after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            let message = "You have too many ids that nothing was uploaded to: use these first";
            return Err(Error::new(Kind::LimitExceeded { retry_after_ms }, message));
        }
        let expires = u64::try_from(expires_ms).ok().and_then(|ms| ms.try_into().ok()).map(MilliSecondsSinceUnixEpoch);
        Ok((self.uri(&media_id), expires.ok_or_else(|| Error::internal("a time beyond all bounds"))?))
    }

    /// Keeps what somebody uploads, under a new URI.
    pub async fn upload<S>(&self, user: &UserId, about: About<'_>, body: S) -> Result<OwnedMxcUri>
    where
        S: Stream<Item = Result<Bytes>> + Send,
    {
        let media_id = self.new_id();
        self.take(&media_id, Named::New { user_id: user.to_string() }, about, body).await?;
        Ok(self.uri(&media_id))
    }

    /// Keeps what somebody uploads, under a URI that they had made before.
    pub async fn upload_to<S>(
        &self,
        user: &UserId,
        server: &ServerName,
        media_id: &str,
        about: About<'_>,
        body: S,
    ) -> Result<()>
    where
        S: Stream<Item = Result<Bytes>> + Send,
    {
        let reserved = match *server == *self.server_name && is_id(media_id) {
            true => self.storage.media(server.as_str(), media_id).await?,
            false => None,
        };
        // Before all of it is read: it would be for nothing. What may change meanwhile is asked again at the end.
        match reserved {
            None => return Err(not_reserved()),
            Some(media) if media.user_id.as_deref() != Some(user.as_str()) => return Err(not_yours()),
            Some(media) if media.file.is_some() => return Err(taken()),
            Some(media) if media.expires_ms.is_some_and(|at| at <= self.clock.now_ms()) => return Err(not_reserved()),
            Some(_) => {}
        }
        self.take(media_id, Named::Reserved { user_id: user.to_string() }, about, body).await
    }

    /// Keeps a picture that the server itself has fetched.
    async fn keep_picture(&self, bytes: Bytes, content_type: &str, file_name: Option<&str>) -> Result<OwnedMxcUri> {
        let media_id = self.new_id();
        let about = About { content_type: Some(content_type), file_name, bytes: Some(bytes.len() as u64) };
        let body = stream::iter([Ok(bytes)]);
        self.take(&media_id, Named::Preview, about, body).await?;
        Ok(self.uri(&media_id))
    }

    async fn take<S>(&self, media_id: &str, named: Named, about: About<'_>, body: S) -> Result<()>
    where
        S: Stream<Item = Result<Bytes>> + Send,
    {
        let user = match &named {
            Named::New { user_id } | Named::Reserved { user_id } => Some(user_id.as_str()),
            Named::Preview => None,
        };
        self.check_quota(user, about.bytes).await?;
        let mut spooled = self.spool(body).await?;
        let sha256 = spooled.end().await.map_err(no_room)?;
        // Before the store gets it: there it would lie until it is found to stand for nothing.
        self.check_quota(user, Some(spooled.bytes)).await?;
        let file_name = about.file_name.and_then(headers::decent_name);
        let content_type = headers::decent_type(about.content_type);
        let mut stored = self.storage.has_content(sha256).await?;
        for _ in 0..TRIES {
            let written = if stored { None } else { Some(self.write(&spooled).await?) };
            let key = written.as_ref().map(|file| file.key.clone());
            let attach = Attach {
                server_name: self.server_name.to_string(),
                media_id: media_id.to_owned(),
                named: named.clone(),
                content: Content { sha256, bytes: spooled.bytes, written },
                content_type: content_type.clone(),
                file_name: file_name.clone(),
                at_ms: self.clock.now_ms(),
                quota: self.rules.config.user_quota.filter(|_| user.is_some()),
            };
            let refusal = match self.storage.attach_media(attach).await? {
                Attached::Done => return Ok(()),
                Attached::NotStored => {
                    stored = false;
                    continue;
                }
                Attached::NotReserved => not_reserved(),
                Attached::NotYours => not_yours(),
                Attached::Taken => taken(),
                Attached::OverQuota => self.over_quota(),
            };
            if let Some(key) = key {
                self.storage.expect_file(&key, self.clock.now_ms()).await?;
            }
            return Err(refusal);
        }
        Err(Error::unavailable("The upload could not be kept: try again"))
    }

    /// Reads all of an upload, up to the size that is allowed.
    async fn spool<S>(&self, body: S) -> Result<Spooled>
    where
        S: Stream<Item = Result<Bytes>> + Send,
    {
        let mut spooled = self.spool.begin(&*self.rng).await.map_err(no_room)?;
        let mut body = std::pin::pin!(body);
        while let Some(piece) = body.next().await {
            let piece = piece?;
            if spooled.bytes + piece.len() as u64 > self.rules.max_bytes {
                return Err(Error::too_large(format!("An upload has at most {} bytes", self.rules.max_bytes)));
            }
            spooled.write(&piece).await.map_err(no_room)?;
        }
        Ok(spooled)
    }

    /// Brings a file to the store.
    async fn write(&self, spooled: &Spooled) -> Result<NewFile> {
        let key = store::new_key(&*self.rng);
        self.storage.expect_file(&key, self.clock.now_ms() + UNACCOUNTED_MS).await?;
        if let Err(e) = self.store.put(&key, spooled.path(), spooled.bytes).await {
            tracing::error!(error = %e, "the media store did not take a file");
            // What there is of it goes as soon as the store can be reached.
            self.storage.expect_file(&key, self.clock.now_ms()).await?;
            return Err(Error::unavailable("The media store can't be reached: try again later"));
        }
        Ok(NewFile { key, sniffed: sniff::sniff(spooled.head()).name().to_owned() })
    }

    /// Fails if the user has as much as they may already.
    async fn check_quota(&self, user: Option<&str>, more: Option<u64>) -> Result<()> {
        let (Some(user), Some(quota)) = (user, self.rules.config.user_quota) else { return Ok(()) };
        let has = self.storage.media_total(user).await?.bytes;
        if has.saturating_add(more.unwrap_or(1)) > quota { Err(self.over_quota()) } else { Ok(()) }
    }

    fn over_quota(&self) -> Error {
        let kind = Kind::UserLimitExceeded { info_uri: self.rules.quota_info.clone() };
        Error::new(kind, "You have as many files on this server as you may")
    }

    fn new_id(&self) -> String {
        random_string(&*self.rng, 24)
    }

    fn uri(&self, media_id: &str) -> OwnedMxcUri {
        format!("mxc://{}/{media_id}", self.server_name).into()
    }
}

/// What may be an id of anything.
///
/// <https://spec.matrix.org/v1.18/client-server-api/#security-considerations-5>
fn is_id(media_id: &str) -> bool {
    (1..=255).contains(&media_id.len()) && media_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn not_reserved() -> Error {
    Error::not_found("Nothing can be uploaded to this id, or not any more")
}

fn not_yours() -> Error {
    Error::forbidden("This id was made for somebody else")
}

fn taken() -> Error {
    Error::new(Kind::CannotOverwriteMedia, "Something was uploaded to this id already")
}

#[allow(clippy::needless_pass_by_value, reason = "errors are mapped by it")]
fn no_room(e: std::io::Error) -> Error {
    tracing::error!(error = %e, "an upload can't be written to disk");
    Error::unavailable("The server has no room for the upload: try again later")
}

#[cfg(test)]
mod tests {
    use super::is_id;

    #[test]
    fn cve_2021_41281_an_id_is_letters_digits_and_two_signs() {
        for id in ["a", "A1-_", &"a".repeat(255)] {
            assert!(is_id(id), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a%2Fb", "a b", "\u{e9}", "a\0", &"a".repeat(256)] {
            assert!(!is_id(id), "{id}");
        }
    }
}
