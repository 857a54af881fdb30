//! Profiles: what users tell the others about themselves.
//!
//! A change reaches the member events of the user's rooms through the outbox, so that it costs the one who makes it the
//! same in one room and in a thousand.

use std::sync::Arc;

use hearth_core::{
    Error, Kind, Result,
    clock::{Clock, Rng, random_string},
};
use hearth_storage::{
    Storage,
    profiles::{ProfileChange, ProfileSet},
};
use ruma::{
    OwnedMxcUri, OwnedServerName, OwnedUserId, UserId,
    profile::{ProfileFieldName, ProfileFieldValue, UserProfile},
};
use serde_json::Value;

use super::session::Session;

/// <https://spec.matrix.org/v1.16/client-server-api/#profiles>
const MAX_PROFILE_BYTES: usize = 64 << 10;
const MAX_KEY_BYTES: usize = 255;
/// These two are copied into the member event of each room, which has 64 KiB for everything.
const MAX_NAME_CHARS: usize = 256;
const MAX_AVATAR_BYTES: usize = 1_000;

/// The most people that one search finds.
const MAX_FOUND: u64 = 50;

/// Somebody whom a search found.
pub struct Person {
    pub user_id: OwnedUserId,
    pub display_name: Option<String>,
    pub avatar_url: Option<OwnedMxcUri>,
}

/// What a search for people found.
pub struct Found {
    pub people: Vec<Person>,
    /// There are more.
    pub limited: bool,
}

pub struct Profiles {
    server_name: OwnedServerName,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
}

impl Profiles {
    pub fn new(
        server_name: OwnedServerName,
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Self {
        Self { server_name, storage, clock, rng }
    }

    /// The whole profile of a user.
    pub async fn profile(&self, user: &UserId) -> Result<UserProfile> {
        let no_user = || Error::not_found("There is no such user");
        if user.server_name() != &*self.server_name {
            return Err(no_user());
        }
        let fields = self.storage.profile(user.as_str()).await?.ok_or_else(no_user)?;
        fields
            .into_iter()
            .map(|(key, value)| Ok((key, serde_json::from_str::<Value>(&value).map_err(Error::internal)?)))
            .collect()
    }

    /// One field of a user's profile.
    pub async fn field(&self, user: &UserId, name: &ProfileFieldName) -> Result<ProfileFieldValue> {
        let value = self.profile(user).await?.remove(name.as_str());
        let value = value.ok_or_else(|| Error::not_found("This profile field is not set"))?;
        ProfileFieldValue::new(name.as_str(), value).map_err(Error::internal)
    }

    /// Looks for people by name or id, among those whom the user may find.
    pub async fn search(&self, session: &Session, text: &str, limit: u64) -> Result<Found> {
        let limit = usize::try_from(limit.min(MAX_FOUND)).unwrap_or(usize::MAX);
        let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let mut ids = self.storage.search_users(session.user_id.as_str(), text.trim(), one_more).await?;
        let limited = ids.len() > limit;
        ids.truncate(limit);
        let mut fields = std::collections::HashMap::new();
        for (user, key, value) in self.storage.profiles(ids.clone()).await? {
            fields.insert((user, key), value);
        }
        let mut people = Vec::with_capacity(ids.len());
        for id in ids {
            let mut text = |key: &str| {
                fields.remove(&(id.clone(), key.to_owned())).and_then(|json| serde_json::from_str::<String>(&json).ok())
            };
            let (display_name, avatar_url) = (text("displayname"), text("avatar_url").map(Into::into));
            people.push(Person { user_id: id.try_into().map_err(Error::internal)?, display_name, avatar_url });
        }
        Ok(Found { people, limited })
    }

    /// Sets one field of one's own profile. An empty name or picture is none.
    pub async fn set(&self, session: &Session, user: &UserId, value: &ProfileFieldValue) -> Result<()> {
        own(session, user)?;
        self.set_of(user, value).await
    }

    /// The same of any user.
    pub async fn set_of(&self, user: &UserId, value: &ProfileFieldValue) -> Result<()> {
        match value {
            ProfileFieldValue::DisplayName(name) if name.chars().count() > MAX_NAME_CHARS => {
                return Err(Error::invalid_param(format!("A display name has at most {MAX_NAME_CHARS} characters")));
            }
            ProfileFieldValue::AvatarUrl(url) if url.as_str().len() > MAX_AVATAR_BYTES => {
                return Err(Error::invalid_param(format!("An avatar URL has at most {MAX_AVATAR_BYTES} bytes")));
            }
            _ => {}
        }
        let name = value.field_name();
        let empty = match value {
            ProfileFieldValue::DisplayName(name) => name.is_empty(),
            ProfileFieldValue::AvatarUrl(url) => url.as_str().is_empty(),
            _ => false,
        };
        let value = (!empty).then(|| value.value().to_string());
        self.change(user, &name, value).await
    }

    /// Removes one field of one's own profile.
    pub async fn remove(&self, session: &Session, user: &UserId, name: &ProfileFieldName) -> Result<()> {
        own(session, user)?;
        self.change(user, name, None).await
    }

    async fn change(&self, user: &UserId, name: &ProfileFieldName, value: Option<String>) -> Result<()> {
        check_key(name.as_str())?;
        let change = ProfileChange {
            user_id: user.to_string(),
            key: name.as_str().to_owned(),
            value,
            max_bytes: MAX_PROFILE_BYTES,
            at_ms: self.clock.now_ms(),
            job_id: random_string(&*self.rng, 24),
        };
        match self.storage.set_profile_field(change).await? {
            ProfileSet::Done | ProfileSet::Unchanged => Ok(()),
            ProfileSet::NoUser => Err(Error::not_found("There is no such user")),
            ProfileSet::TooLarge => {
                Err(Error::new(Kind::ProfileTooLarge, format!("A profile has at most {MAX_PROFILE_BYTES} bytes")))
            }
        }
    }
}

fn own(session: &Session, user: &UserId) -> Result<()> {
    if session.user_id == user { Ok(()) } else { Err(Error::forbidden("This is not your profile")) }
}

/// <https://spec.matrix.org/v1.16/appendices/#common-namespaced-identifier-grammar>
fn check_key(key: &str) -> Result<()> {
    if key.len() > MAX_KEY_BYTES {
        return Err(Error::new(Kind::KeyTooLarge, format!("A profile field's key has at most {MAX_KEY_BYTES} bytes")));
    }
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    if !key.starts_with(|c: char| c.is_ascii_lowercase()) || !key.bytes().all(allowed) {
        return Err(Error::invalid_param("A profile field's key begins with a-z and goes on with a-z, 0-9 and -_."));
    }
    Ok(())
}
