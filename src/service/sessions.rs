//! Access tokens: made here, known here.
//!
//! A token is 256 random bits and is stored as its SHA-256 only. What a token stands for is cached; the cache forgets at
//! once what ends in this process, and hears by position of what ends in another ([`Sessions::revoked`]).

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::BoxFuture;
use hearth_core::{
    Error, Kind, Result,
    clock::{Clock, Rng},
};
use hearth_storage::{Storage, Wake, sessions::Seen};
use moka::sync::Cache;
use ruma::{DeviceId, OwnedUserId, UserId};
use sha2::{Digest as _, Sha256};

use super::session::{Authenticator, Session};
use crate::notify::Notifier;

/// About 300 bytes each.
const CACHED: u64 = 100_000;
/// Should a revocation ever be missed, it is missed for so long.
const CACHED_FOR: Duration = Duration::from_secs(300);
/// A device is noted as seen no more often than this.
const SEEN_EVERY_MS: i64 = 60_000;
/// Devices seen in the last minute that are remembered so as not to be noted again, 16 bytes each.
const MAX_NOTED: usize = 100_000;
/// Notes that wait to be written. What does not fit is noted at the device's next request.
const MAX_PENDING: usize = 10_000;
const SEEN_BATCH: usize = 64;
/// Users whose revocations are told apart; beyond it, everything is read again once.
const MAX_REVOKED: usize = 50_000;

pub type TokenHash = [u8; 32];

/// A new access token and what is stored of it.
pub fn new_token(rng: &dyn Rng) -> (String, TokenHash) {
    secret(rng, "hrt")
}

/// A new refresh token and what is stored of it.
pub fn new_refresh_token(rng: &dyn Rng) -> (String, TokenHash) {
    secret(rng, "hrr")
}

/// A new token that is traded for a session, and what is stored of it.
pub fn new_login_token(rng: &dyn Rng) -> (String, TokenHash) {
    secret(rng, "hrl")
}

fn secret(rng: &dyn Rng, kind: &str) -> (String, TokenHash) {
    let mut secret = [0; 32];
    rng.fill(&mut secret);
    let token = format!("{kind}_{}", URL_SAFE_NO_PAD.encode(secret));
    let hash = hash(&token);
    (token, hash)
}

/// What is stored of a token.
pub fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

/// Knows whose a token is.
pub struct Sessions {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    notifier: Arc<Notifier>,
    cache: Cache<TokenHash, Cached>,
    revoked: RwLock<Revoked>,
    seen: Mutex<LastSeen>,
    hasher: RandomState,
}

#[derive(Clone)]
struct Cached {
    /// Its `as_of` is the [`Revoked::count`] before it was read: so that what was read before a revocation and cached
    /// after it counts for nothing.
    session: Session,
    expires_ms: Option<i64>,
}

/// Whose sessions ended, so that what was cached before is read again.
#[derive(Default)]
struct Revoked {
    count: u64,
    /// By user: the count at their last revocation.
    users: HashMap<OwnedUserId, u64>,
    /// Nothing that was read before this count holds.
    floor: u64,
}

impl Revoked {
    fn hit(&self, user: &UserId, as_of: u64) -> bool {
        as_of < self.floor || self.users.get(user).is_some_and(|at| as_of < *at)
    }
}

#[derive(Default)]
struct LastSeen {
    /// By the hash of user and device; two that collide share their notes, which does no harm.
    noted: HashMap<u64, i64>,
    pending: Vec<Seen>,
}

impl Sessions {
    pub fn new(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>, notifier: Arc<Notifier>) -> Arc<Self> {
        let cache = Cache::builder().name("sessions").max_capacity(CACHED).time_to_live(CACHED_FOR).build();
        Arc::new(Self {
            storage,
            clock,
            notifier,
            cache,
            revoked: RwLock::default(),
            seen: Mutex::default(),
            hasher: RandomState::new(),
        })
    }

    /// Forgets what is cached of users some of whose sessions have ended, and has their long polls look at that.
    pub fn revoked<'a>(&self, users: impl IntoIterator<Item = &'a UserId>) {
        let mut wakes = Vec::new();
        {
            let mut revoked = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
            revoked.count += 1;
            let count = revoked.count;
            for user in users {
                revoked.users.insert(user.to_owned(), count);
                wakes.push(Wake::User(user.as_str().into()));
            }
            if revoked.users.len() > MAX_REVOKED {
                revoked.users.clear();
                revoked.floor = count;
            }
        }
        self.notifier.wake(&wakes);
    }

    /// Some session of the user has ended since one was looked up: maybe that one.
    pub fn ended_since(&self, user: &UserId, as_of: u64) -> bool {
        self.revoked.read().unwrap_or_else(PoisonError::into_inner).hit(user, as_of)
    }

    /// Forgets everything that is cached: too many sessions ended to say whose.
    pub fn forget_all(&self) {
        let mut revoked = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
        revoked.count += 1;
        revoked.floor = revoked.count;
        revoked.users.clear();
    }

    /// Writes down which devices were here since the last time. To be called every few seconds.
    pub async fn flush_seen(&self) -> Result<()> {
        let mut pending = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut seen.pending)
        };
        while !pending.is_empty() {
            let rest = pending.split_off(pending.len().min(SEEN_BATCH));
            self.storage.touch_devices(pending).await?;
            pending = rest;
        }
        Ok(())
    }

    async fn look_up(&self, hash: TokenHash) -> Result<Session> {
        let as_of = {
            let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(cached) = self.cache.get(&hash)
                && !revoked.hit(&cached.session.user_id, cached.session.as_of)
            {
                return self.unexpired(cached);
            }
            revoked.count
        };
        let Some(row) = self.storage.session_by_token(hash).await? else {
            return Err(unknown());
        };
        let user_id = OwnedUserId::try_from(row.user_id).map_err(Error::internal)?;
        let session = Session { user_id, device_id: row.device_id.into(), admin: row.admin, as_of };
        let cached = Cached { session, expires_ms: row.expires_ms };
        if row.replaces {
            let session = self.unexpired(cached)?;
            if !self.storage.take_up(hash, self.clock.now_ms()).await? {
                return Err(unknown());
            }
            self.revoked([&*session.user_id]);
            // What has just ended may not be taken for an end of this one, so it is looked up again.
            return Box::pin(self.look_up(hash)).await;
        }
        self.cache.insert(hash, cached.clone());
        self.unexpired(cached)
    }

    fn unexpired(&self, cached: Cached) -> Result<Session> {
        if cached.expires_ms.is_some_and(|at| at <= self.clock.now_ms()) {
            return Err(Error::new(Kind::UnknownToken { soft_logout: true }, "The access token has expired"));
        }
        Ok(cached.session)
    }
}

fn unknown() -> Error {
    Error::unknown_token("Unknown access token")
}

impl Authenticator for Sessions {
    fn authenticate(&self, token: &str) -> BoxFuture<'_, Result<Session>> {
        let hash = hash(token);
        Box::pin(self.look_up(hash))
    }

    fn seen(&self, session: &Session, ip: IpAddr, _user_agent: Option<&str>) {
        let now = self.clock.now_ms();
        let key = self.hasher.hash_one::<(&UserId, &DeviceId)>((&session.user_id, &session.device_id));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |at: &i64| (now - SEEN_EVERY_MS..=now).contains(at);
        if seen.noted.get(&key).is_some_and(recent) || seen.pending.len() >= MAX_PENDING {
            return;
        }
        if seen.noted.len() >= MAX_NOTED {
            seen.noted.retain(|_, at| recent(at));
            if seen.noted.len() >= MAX_NOTED {
                return;
            }
        }
        seen.noted.insert(key, now);
        seen.pending.push(Seen {
            user_id: session.user_id.to_string(),
            device_id: session.device_id.to_string(),
            at_ms: now,
            ip: Some(ip.to_string()),
        });
    }
}

#[cfg(test)]
mod tests {
    use hearth_core::clock::OsRng;

    use super::*;

    #[test]
    fn a_token_is_256_bits_that_nobody_has_seen() {
        let tokens: Vec<_> = (0..100).flat_map(|_| [new_token(&OsRng), new_refresh_token(&OsRng)]).collect();
        for (token, hashed) in &tokens {
            let (_, secret) = token.split_once('_').expect("a kind");
            assert_eq!(URL_SAFE_NO_PAD.decode(secret).expect("base64").len(), 32);
            assert_eq!(*hashed, hash(token));
        }
        let distinct: std::collections::HashSet<_> = tokens.iter().map(|(token, _)| token).collect();
        assert_eq!(distinct.len(), tokens.len());
    }
}
