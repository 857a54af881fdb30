//! What is behind a link, for clients to show beside it.
//!
//! Whoever links to something must not thereby send the server anywhere: a page has to be one that the operator allows,
//! wherever it redirects to as well, and each request goes through the guard of the one client. A look has a time, a
//! number of bytes and a turn; however many ask for the same link, there is one.

mod lists;
mod look;
#[cfg(test)]
mod tests;
mod turns;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hearth_core::{Error, Kind, Result, clock::Clock, media::preview::LONGEST_URL};
use hearth_storage::{Storage, url_previews::UrlPreview as Stored};
use moka::future::Cache;
use ruma::{OwnedMxcUri, UserId};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use url::Url;

use self::{
    lists::Lists,
    look::{Look, Seen},
    turns::Turns,
};
use crate::{
    config::UrlPreview,
    http_client::{Failure, HttpClient},
    shutdown::Shutdown,
    telemetry::name,
};

const MINUTE_MS: i64 = 60 * 1_000;
/// How long it is good what was seen; and what was seen without a picture that should be there.
const FRESH_MS: i64 = 24 * 60 * MINUTE_MS;
const HALF_FRESH_MS: i64 = 10 * MINUTE_MS;
/// After a failure nobody looks again for so long.
const FAILED_MS: i64 = 5 * MINUTE_MS;
/// Bytes kept in memory.
const REMEMBERED: u64 = 16 << 20;

/// Who keeps the pictures of pages, so that clients get them from here.
pub trait KeepImage: Send + Sync {
    /// Refuses what is no picture, whatever it is said to be.
    fn keep(&self, bytes: Bytes, content_type: &str, name: Option<&str>) -> BoxFuture<'_, Result<KeptImage>>;
}

/// A picture that is kept here.
#[derive(Clone, Debug)]
pub struct KeptImage {
    pub mxc: OwnedMxcUri,
    pub width: Option<u32>,
    pub height: Option<u32>,
    pub bytes: u64,
    pub content_type: String,
}

/// Looks at links.
pub struct Previews {
    is_on: bool,
    look: Look,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
    turns: Turns,
    remembered: Cache<Key, Remembered>,
}

/// What previews are made of.
pub struct Sources {
    pub storage: Arc<dyn Storage>,
    pub clock: Arc<dyn Clock>,
    pub http: HttpClient,
    /// None: there are no pictures in previews.
    pub pictures: Option<Arc<dyn KeepImage>>,
    pub shutdown: Shutdown,
}

/// The hash of a URL.
type Key = [u8; 32];

#[derive(Clone)]
struct Remembered {
    outcome: Outcome,
    until_ms: i64,
}

#[derive(Clone)]
enum Outcome {
    Seen(Arc<str>),
    Failed,
    /// Nobody has looked.
    Busy,
}

impl Previews {
    pub fn new(config: &UrlPreview, sources: Sources) -> Arc<Self> {
        let Sources { storage, clock, http, pictures, shutdown } = sources;
        let weight = |_: &Key, remembered: &Remembered| match &remembered.outcome {
            Outcome::Seen(answer) => u32::try_from(answer.len() + 160).unwrap_or(u32::MAX),
            Outcome::Failed | Outcome::Busy => 160,
        };
        Arc::new(Self {
            is_on: config.is_on(),
            look: Look::new(config, Lists::new(config), http, pictures),
            storage,
            clock,
            shutdown,
            turns: Turns::default(),
            remembered: Cache::builder().max_capacity(REMEMBERED).weigher(weight).build(),
        })
    }

    /// Whether the operator allows anything to be looked at.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// What is behind a link that a user has, in the words of OpenGraph.
    pub async fn preview(self: &Arc<Self>, user: &UserId, link: &str) -> Result<Box<RawValue>> {
        let url = self.admitted(link)?;
        let key: Key = Sha256::digest(url.as_str()).into();
        let known = self.remembered.get(&key).await.filter(|known| !self.is_over(known));
        let seen = match known {
            Some(known) => known,
            None => {
                // In a task of its own: whoever goes away takes the look from nobody.
                let (this, user) = (Arc::clone(self), user.to_owned());
                let look = tokio::spawn(async move { this.seen(key, &url, &user).await });
                look.await.map_err(Error::internal)?
            }
        };
        match seen.outcome {
            Outcome::Seen(answer) => RawValue::from_string(answer.as_ref().to_owned()).map_err(Error::internal),
            // Who asks learns nothing of what is reached from here and what is not.
            Outcome::Failed => Err(Error::new(Kind::Unreachable, "There is no page that could be looked at")),
            Outcome::Busy => Err(Error::unavailable("Too many links are being looked at: try again")),
        }
    }

    /// The URL of a page that may be looked at.
    fn admitted(&self, link: &str) -> Result<Url> {
        if link.len() > LONGEST_URL {
            return Err(Error::invalid_param(format!("A URL has at most {LONGEST_URL} bytes")));
        }
        let mut url: Url = link.parse().map_err(|_| Error::invalid_param("This is not a URL"))?;
        url.set_fragment(None);
        match self.look.check(&url) {
            Ok(()) => Ok(url),
            Err(why @ Failure::BadUrl(_)) => Err(Error::invalid_param(why.to_string())),
            Err(_) => Err(Error::forbidden("This server does not look at such pages")),
        }
    }

    fn is_over(&self, known: &Remembered) -> bool {
        known.until_ms <= self.clock.now_ms()
    }

    /// One look, for all who ask meanwhile.
    async fn seen(&self, key: Key, url: &Url, user: &UserId) -> Remembered {
        let found = self.found(key, url, user);
        self.remembered.entry(key).or_insert_with_if(found, |known| self.is_over(known)).await.into_value()
    }

    async fn found(&self, key: Key, url: &Url, user: &UserId) -> Remembered {
        let now = self.clock.now_ms();
        match self.storage.url_preview(key, now).await {
            Ok(Some(Stored { answer, expires_ms, .. })) => {
                return Remembered { outcome: Outcome::Seen(answer.into()), until_ms: expires_ms };
            }
            Ok(None) => {}
            Err(e) => tracing::warn!(error = %e, "a preview can't be read; the page is looked at again"),
        }
        let looked = tokio::select! {
            looked = self.in_turn(url, user) => looked,
            () = self.shutdown.said() => None,
        };
        let Some(looked) = looked else { return Remembered::busy() };
        let outcome = if looked.is_ok() { "seen" } else { "failed" };
        metrics::counter!(name::URL_PREVIEWS, "outcome" => outcome).increment(1);
        let Ok(seen) = looked else {
            return Remembered { outcome: Outcome::Failed, until_ms: now + FAILED_MS };
        };
        let until_ms = now + if seen.is_whole { FRESH_MS } else { HALF_FRESH_MS };
        let answer = serde_json::Value::Object(seen.told).to_string();
        let stored = Stored { answer: answer.clone(), at_ms: now, expires_ms: until_ms };
        if let Err(e) = self.storage.keep_url_preview(key, stored).await {
            tracing::warn!(error = %e, "a preview is not stored; this process alone remembers it");
        }
        Remembered { outcome: Outcome::Seen(answer.into()), until_ms }
    }

    /// None: the turn did not come.
    async fn in_turn(&self, url: &Url, user: &UserId) -> Option<Result<Seen, Failure>> {
        let _turn = self.turns.wait(user).await?;
        Some(self.look.at(url).await)
    }
}

impl Remembered {
    /// Not remembered at all.
    fn busy() -> Self {
        Self { outcome: Outcome::Busy, until_ms: i64::MIN }
    }
}
