//! Profiles: what a user tells the others about themselves.

use crate::{
    Sql,
    accounts::find_user,
    error::Result,
    outbox::{self, NewItem},
    tx::{Answer, Engine, Op, Query, Reads, Tx, args, statements},
    user_directory,
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
        if key == "displayname" {
            user_directory::note(tx, user_id, value.as_deref()).await?;
        }
        let payload = serde_json::json!({ "user_id": user_id }).to_string();
        let item = NewItem { id: job_id.clone(), payload, due_ms: *at_ms };
        outbox::enqueue(tx, PROFILE, vec![item]).await?;
        Ok(ProfileSet::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        accounts::{Accounts as _, NewUser},
        outbox::Outbox as _,
        testing::{Store, each_backend},
    };

    async fn set(store: &Store, user: &str, key: &str, value: Option<&str>, job: &str) -> ProfileSet {
        let change = ProfileChange {
            user_id: user.to_owned(),
            key: key.to_owned(),
            value: value.map(ToOwned::to_owned),
            max_bytes: 20,
            at_ms: 1,
            job_id: job.to_owned(),
        };
        store.set_profile_field(change).await.unwrap()
    }

    #[test]
    fn a_profile_changes_field_by_field_and_its_rooms_hear_of_it() {
        each_backend(|store| async move {
            for name in ["@a:x", "@b:x"] {
                let user = NewUser { user_id: name.to_owned(), password_hash: None, admin: false, created_ms: 1 };
                store.register(user, None, None).await.unwrap();
            }
            assert_eq!(store.profile("@a:x").await.unwrap(), Some(vec![]));
            assert_eq!(store.profile("@c:x").await.unwrap(), None);
            assert_eq!(set(&store, "@a:x", "displayname", Some("\"Al\""), "1").await, ProfileSet::Done);
            assert_eq!(set(&store, "@a:x", "displayname", Some("\"Al\""), "2").await, ProfileSet::Unchanged);
            assert_eq!(set(&store, "@a:x", "m", Some("[1]"), "3").await, ProfileSet::Done);
            assert_eq!(set(&store, "@a:x", "m", Some("[22]"), "4").await, ProfileSet::Done, "20 bytes");
            assert_eq!(set(&store, "@a:x", "m", Some("[333]"), "5").await, ProfileSet::TooLarge, "21 bytes");
            assert_eq!(set(&store, "@c:x", "m", Some("1"), "6").await, ProfileSet::NoUser);
            let both = [("displayname", "\"Al\""), ("m", "[22]")].map(|(k, v)| (k.to_owned(), v.to_owned()));
            assert_eq!(store.profile("@a:x").await.unwrap().as_deref(), Some(&both[..]));
            assert_eq!(set(&store, "@b:x", "m", Some("1"), "7").await, ProfileSet::Done);
            let all = store.profiles(vec!["@a:x".to_owned(), "@b:x".to_owned(), "@c:x".to_owned()]).await.unwrap();
            assert_eq!(all.len(), 3);
            assert_eq!(set(&store, "@a:x", "m", None, "8").await, ProfileSet::Done);
            assert_eq!(set(&store, "@a:x", "m", None, "9").await, ProfileSet::Unchanged);
            assert_eq!(store.profile("@a:x").await.unwrap().as_deref(), Some(&both[..1]));
            let told: Vec<_> = store.lease(PROFILE, "w", 1, 1, 99).await.unwrap().into_iter().map(|i| i.id).collect();
            assert_eq!(told, ["1", "3", "4", "7", "8"]);
        });
    }
}
