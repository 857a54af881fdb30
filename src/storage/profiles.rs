//! Profiles: what a user tells the others about themselves.

use crate::{
    Sql,
    accounts::find_user,
    error::Result,
    outbox::{self, NewItem},
    tx::{Answer, Engine, Op, Query, Reads, Tx, args, statements},
};

statements! {
    FIELDS = "SELECT key, value FROM profile_fields WHERE user_id = $1 ORDER BY key";
    PROFILES = "SELECT user_id, key, value FROM profile_fields WHERE user_id = ANY($1) ORDER BY user_id, key";
    SET_FIELD = "INSERT INTO profile_fields (user_id, key, value) VALUES ($1, $2, $3) \
        ON CONFLICT (user_id, key) DO UPDATE SET value = excluded.value";
    DELETE_FIELD = "DELETE FROM profile_fields WHERE user_id = $1 AND key = $2";
}

/// The outbox queue that carries a changed profile into the user's rooms. The payload is `{"user_id": …}`.
pub const PROFILE: &str = "profile";

/// The fields of a profile with their JSON values, ordered by key.
pub type Fields = Vec<(String, String)>;

/// What became of a change to a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileSet {
    Done,
    /// It was like this before: nobody needs to hear of it.
    Unchanged,
    /// There is no such user, or not any more.
    NoUser,
    /// The whole profile would be larger than allowed.
    TooLarge,
}

/// A change of one field: `value` is JSON, None removes the field.
#[derive(Clone, Debug)]
pub struct ProfileChange {
    pub user_id: String,
    pub key: String,
    pub value: Option<String>,
    /// The most bytes that all keys and values may have together.
    pub max_bytes: usize,
    pub at_ms: i64,
    /// The id of the job that tells the user's rooms.
    pub job_id: String,
}

/// Profiles, field by field.
pub trait Profiles: Send + Sync {
    /// None: no such user.
    fn profile(&self, user_id: &str) -> Answer<'_, Option<Fields>>;
    /// The fields of many users at once, as (user, key, value); users without any are left out.
    fn profiles(&self, user_ids: Vec<String>) -> Answer<'_, Vec<(String, String, String)>>;
    /// Changes one field, and leaves word for the worker that tells the user's rooms.
    fn set_profile_field(&self, change: ProfileChange) -> Answer<'_, ProfileSet>;
}

impl<E: Engine> Profiles for Sql<E> {
    fn profile(&self, user_id: &str) -> Answer<'_, Option<Fields>> {
        self.0.read(Profile(user_id.to_owned()))
    }

    fn profiles(&self, user_ids: Vec<String>) -> Answer<'_, Vec<(String, String, String)>> {
        self.0.read(ManyProfiles(user_ids))
    }

    fn set_profile_field(&self, change: ProfileChange) -> Answer<'_, ProfileSet> {
        self.0.write(SetProfileField(change))
    }
}

async fn fields<R: Reads>(tx: &mut R, user_id: &str) -> Result<Fields> {
    tx.query(FIELDS, args![user_id]).await?.iter_mut().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

struct Profile(String);

impl Query for Profile {
    const NAME: &'static str = "profile";
    type Out = Option<Fields>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Option<Fields>> {
        match find_user(tx, &self.0).await? {
            Some(_) => fields(tx, &self.0).await.map(Some),
            None => Ok(None),
        }
    }
}

struct ManyProfiles(Vec<String>);

impl Query for ManyProfiles {
    const NAME: &'static str = "profiles";
    type Out = Vec<(String, String, String)>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let mut rows = tx.query(PROFILES, args![self.0.clone()]).await?;
        rows.iter_mut().map(|row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).collect()
    }
}

struct SetProfileField(ProfileChange);

impl Op for SetProfileField {
    const NAME: &'static str = "set_profile_field";
    type Out = ProfileSet;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<ProfileSet> {
        let ProfileChange { user_id, key, value, max_bytes, at_ms, job_id } = &self.0;
        if find_user(tx, user_id).await?.is_none_or(|user| user.deactivated) {
            return Ok(ProfileSet::NoUser);
        }
        let now = fields(tx, user_id).await?;
        if now.iter().find(|(k, _)| k == key).map(|(_, v)| v) == value.as_ref() {
            return Ok(ProfileSet::Unchanged);
        }
        let others: usize = now.iter().filter(|(k, _)| k != key).map(|(k, v)| k.len() + v.len()).sum();
        match value {
            Some(value) if others + key.len() + value.len() > *max_bytes => return Ok(ProfileSet::TooLarge),
            Some(value) => tx.execute(SET_FIELD, args![user_id, key, value]).await?,
            None => tx.execute(DELETE_FIELD, args![user_id, key]).await?,
        };
        let payload = serde_json::json!({ "user_id": user_id }).to_string();
        let item = NewItem { id: job_id.clone(), payload, due_ms: *at_ms };
        outbox::enqueue(tx, PROFILE, vec![item]).await?;
        Ok(ProfileSet::Done)
    }
}
