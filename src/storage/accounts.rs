//! Accounts: who may be here, and how they came to be.

use crate::{
    Sql,
    error::{Error, Result},
    outbox::{self, NewItem},
    sessions::{self, Ending, NewSession},
    tx::{Answer, Engine, Op, Query, Reads, Tx, args, statements},
    user_directory,
};

statements! {
    USER = "SELECT user_id, password_hash, admin, deactivated, created_ms FROM users WHERE user_id = $1";
    ANY_USER = "SELECT 1 FROM users LIMIT 1";
    INSERT_USER = "INSERT INTO users (user_id, password_hash, admin, deactivated, created_ms) \
        VALUES ($1, $2, $3, 0, $4) ON CONFLICT (user_id) DO NOTHING";
    SET_PASSWORD = "UPDATE users SET password_hash = $2 WHERE user_id = $1 AND deactivated = 0";
    DEACTIVATE = "UPDATE users SET deactivated = 1, admin = 0, password_hash = NULL \
        WHERE user_id = $1 AND deactivated = 0";
    ERASE_PROFILE = "DELETE FROM profile_fields WHERE user_id = $1";
    USE_TOKEN = "UPDATE registration_tokens SET uses = uses + 1 WHERE token = $1 \
        AND (uses_allowed IS NULL OR uses < uses_allowed) AND (expires_ms IS NULL OR expires_ms > $2) \
        RETURNING makes_admin";
    TOKEN = "SELECT token, uses_allowed, uses, expires_ms, makes_admin FROM registration_tokens WHERE token = $1";
    UNUSED_ADMIN_TOKEN = "SELECT token FROM registration_tokens WHERE makes_admin = 1 AND uses = 0 \
        AND uses_allowed = 1 AND expires_ms IS NULL ORDER BY created_ms LIMIT 1";
    INSERT_TOKEN = "INSERT INTO registration_tokens (token, uses_allowed, uses, expires_ms, makes_admin, created_ms) \
        VALUES ($1, $2, 0, $3, $4, $5) ON CONFLICT (token) DO NOTHING";
}

/// The outbox queue that makes a deactivated user leave what they were part of.
pub const DEACTIVATED: &str = "deactivated";

/// An account that is to be made.
pub struct NewUser {
    pub user_id: String,
    /// None for an account that has no password to log in with.
    pub password_hash: Option<String>,
    pub admin: bool,
    pub created_ms: i64,
}

/// An account as it is stored.
pub struct UserRow {
    pub user_id: String,
    pub password_hash: Option<String>,
    pub admin: bool,
    pub deactivated: bool,
    pub created_ms: i64,
}

/// What became of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    Done { admin: bool },
    Taken,
    BadToken,
}

/// A token that lets somebody register.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistrationToken {
    pub token: String,
    /// None: as often as they like.
    pub uses_allowed: Option<i64>,
    pub uses: i64,
    pub expires_ms: Option<i64>,
    /// Whoever registers with it is an administrator.
    pub makes_admin: bool,
}

impl RegistrationToken {
    /// Whether somebody could register with it now.
    pub fn is_valid(&self, now_ms: i64) -> bool {
        self.uses_allowed.is_none_or(|allowed| self.uses < allowed) && self.expires_ms.is_none_or(|at| at > now_ms)
    }
}

/// Users, and the tokens by which they may come.
pub trait Accounts: Send + Sync {
    /// Makes the account with its first session, if it wants one, and uses up the registration token.
    fn register(
        &self,
        user: NewUser,
        session: Option<NewSession>,
        registration_token: Option<String>,
    ) -> Answer<'_, Registered>;
    fn user(&self, user_id: &str) -> Answer<'_, Option<UserRow>>;
    /// Sets the password. With `ending`, every session but that of `keep` ends with it. False: no such active user.
    fn set_password(
        &self,
        user_id: &str,
        password_hash: &str,
        keep: Option<&str>,
        ending: Option<Ending>,
    ) -> Answer<'_, bool>;
    /// Ends the account and all its sessions; a worker makes the user leave the rooms. The name stays taken. False: no
    /// such active user.
    fn deactivate(&self, user_id: &str, erase: bool, ending: Ending) -> Answer<'_, bool>;
    /// False: there is such a token already.
    fn create_registration_token(&self, token: RegistrationToken, created_ms: i64) -> Answer<'_, bool>;
    fn registration_token(&self, token: &str) -> Answer<'_, Option<RegistrationToken>>;
    /// While there is no user at all: the one-time token that makes the first of them an administrator. `fresh` is
    /// stored unless an earlier start left one.
    fn first_admin_token(&self, fresh: &str, created_ms: i64) -> Answer<'_, Option<String>>;
}

impl<E: Engine> Accounts for Sql<E> {
    fn register(
        &self,
        user: NewUser,
        session: Option<NewSession>,
        registration_token: Option<String>,
    ) -> Answer<'_, Registered> {
        self.0.write(Register { user, session, registration_token })
    }

    fn user(&self, user_id: &str) -> Answer<'_, Option<UserRow>> {
        self.0.read(User(user_id.to_owned()))
    }

    fn set_password(
        &self,
        user_id: &str,
        password_hash: &str,
        keep: Option<&str>,
        ending: Option<Ending>,
    ) -> Answer<'_, bool> {
        self.0.write(SetPassword {
            user_id: user_id.to_owned(),
            password_hash: password_hash.to_owned(),
            keep: keep.map(ToOwned::to_owned),
            ending,
        })
    }

    fn deactivate(&self, user_id: &str, erase: bool, ending: Ending) -> Answer<'_, bool> {
        self.0.write(Deactivate { user_id: user_id.to_owned(), erase, ending })
    }

    fn create_registration_token(&self, token: RegistrationToken, created_ms: i64) -> Answer<'_, bool> {
        self.0.write(CreateRegistrationToken { token, created_ms })
    }

    fn registration_token(&self, token: &str) -> Answer<'_, Option<RegistrationToken>> {
        self.0.read(FindRegistrationToken(token.to_owned()))
    }

    fn first_admin_token(&self, fresh: &str, created_ms: i64) -> Answer<'_, Option<String>> {
        self.0.write(FirstAdminToken { fresh: fresh.to_owned(), created_ms })
    }
}

struct Register {
    user: NewUser,
    session: Option<NewSession>,
    registration_token: Option<String>,
}

impl Op for Register {
    const NAME: &'static str = "register";
    type Out = Registered;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Registered> {
        let Self { user, session, registration_token } = self;
        if tx.query_opt(USER, args![&user.user_id]).await?.is_some() {
            return Ok(Registered::Taken);
        }
        let mut admin = user.admin;
        if let Some(token) = registration_token {
            let Some(mut row) = tx.query_opt(USE_TOKEN, args![token, user.created_ms]).await? else {
                return Ok(Registered::BadToken);
            };
            admin |= row.get::<bool>(0)?;
        }
        let made =
            tx.execute(INSERT_USER, args![&user.user_id, user.password_hash.clone(), admin, user.created_ms]).await?;
        if made == 0 {
            // Somebody took the name between the look and the insert; the use of the token must not stand.
            return Err(Error::Conflict("user name"));
        }
        user_directory::note(tx, &user.user_id, None).await?;
        if let Some(session) = session {
            sessions::start(tx, &user.user_id, session).await?;
        }
        Ok(Registered::Done { admin })
    }
}

struct User(String);

impl Query for User {
    const NAME: &'static str = "user";
    type Out = Option<UserRow>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Option<UserRow>> {
        find_user(tx, &self.0).await
    }
}

pub(crate) async fn find_user<R: Reads>(tx: &mut R, user_id: &str) -> Result<Option<UserRow>> {
    let Some(mut row) = tx.query_opt(USER, args![user_id]).await? else { return Ok(None) };
    Ok(Some(UserRow {
        user_id: row.get(0)?,
        password_hash: row.get(1)?,
        admin: row.get(2)?,
        deactivated: row.get(3)?,
        created_ms: row.get(4)?,
    }))
}

struct SetPassword {
    user_id: String,
    password_hash: String,
    keep: Option<String>,
    ending: Option<Ending>,
}

impl Op for SetPassword {
    const NAME: &'static str = "set_password";
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        if tx.execute(SET_PASSWORD, args![&self.user_id, &self.password_hash]).await? == 0 {
            return Ok(false);
        }
        if let Some(ending) = &self.ending {
            sessions::end_all(tx, &self.user_id, self.keep.as_deref(), ending).await?;
        }
        Ok(true)
    }
}

struct Deactivate {
    user_id: String,
    erase: bool,
    ending: Ending,
}

impl Op for Deactivate {
    const NAME: &'static str = "deactivate";
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        if tx.execute(DEACTIVATE, args![&self.user_id]).await? == 0 {
            return Ok(false);
        }
        if self.erase {
            tx.execute(ERASE_PROFILE, args![&self.user_id]).await?;
        }
        user_directory::drop(tx, &self.user_id).await?;
        sessions::end_all(tx, &self.user_id, None, &self.ending).await?;
        let payload = serde_json::json!({ "user_id": self.user_id, "erase": self.erase }).to_string();
        let item = NewItem { id: format!("{}-leave", self.ending.job_id), payload, due_ms: self.ending.at_ms };
        outbox::enqueue(tx, DEACTIVATED, vec![item]).await?;
        Ok(true)
    }
}

struct CreateRegistrationToken {
    token: RegistrationToken,
    created_ms: i64,
}

impl Op for CreateRegistrationToken {
    const NAME: &'static str = "create_registration_token";
    type Out = bool;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let RegistrationToken { token, uses_allowed, expires_ms, makes_admin, .. } = &self.token;
        let args = args![token, *uses_allowed, *expires_ms, *makes_admin, self.created_ms];
        Ok(tx.execute(INSERT_TOKEN, args).await? == 1)
    }
}

struct FindRegistrationToken(String);

impl Query for FindRegistrationToken {
    const NAME: &'static str = "registration_token";
    type Out = Option<RegistrationToken>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Option<RegistrationToken>> {
        let Some(mut row) = tx.query_opt(TOKEN, args![&self.0]).await? else { return Ok(None) };
        Ok(Some(RegistrationToken {
            token: row.get(0)?,
            uses_allowed: row.get(1)?,
            uses: row.get(2)?,
            expires_ms: row.get(3)?,
            makes_admin: row.get(4)?,
        }))
    }
}

struct FirstAdminToken {
    fresh: String,
    created_ms: i64,
}

impl Op for FirstAdminToken {
    const NAME: &'static str = "first_admin_token";
    type Out = Option<String>;

    // It takes none, but processes that start together must not make a token each: asking for one puts them in a row.
    fn positions(&self) -> u32 {
        1
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Option<String>> {
        if tx.query_opt(ANY_USER, args![]).await?.is_some() {
            return Ok(None);
        }
        if let Some(mut row) = tx.query_opt(UNUSED_ADMIN_TOKEN, args![]).await? {
            return row.get(0).map(Some);
        }
        tx.execute(INSERT_TOKEN, args![&self.fresh, Some(1i64), None::<i64>, true, self.created_ms]).await?;
        Ok(Some(self.fresh.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        outbox::Outbox as _,
        sessions::{DEVICE_CLEANUP, LoggedIn, Sessions as _, tests::session},
        testing::each_backend,
    };

    fn user(name: &str) -> NewUser {
        NewUser { user_id: name.to_owned(), password_hash: Some("hash".to_owned()), admin: false, created_ms: 1 }
    }

    fn token(name: &str, uses_allowed: Option<i64>, expires_ms: Option<i64>, makes_admin: bool) -> RegistrationToken {
        RegistrationToken { token: name.to_owned(), uses_allowed, uses: 0, expires_ms, makes_admin }
    }

    fn ending(job: &str) -> Ending {
        Ending { at_ms: 9, job_id: job.to_owned() }
    }

    #[test]
    fn a_registration_makes_the_account_and_its_session() {
        each_backend(|store| async move {
            let done = store.register(user("@a:x"), Some(session("D", 1)), None).await.unwrap();
            assert_eq!(done, Registered::Done { admin: false });
            let row = store.user("@a:x").await.unwrap().unwrap();
            assert_eq!((row.admin, row.deactivated, row.password_hash.as_deref()), (false, false, Some("hash")));
            assert_eq!(store.session_by_token([1; 32]).await.unwrap().unwrap().device_id, "D");
            let again = store.register(user("@a:x"), Some(session("E", 2)), None).await.unwrap();
            assert_eq!(again, Registered::Taken);
            assert_eq!(store.session_by_token([2; 32]).await.unwrap(), None);
            assert!(store.user("@b:x").await.unwrap().is_none());
        });
    }

    #[test]
    fn one_of_many_gets_a_name_that_all_want() {
        each_backend(|store| async move {
            let all = (0..8).map(|i| store.register(user("@a:x"), Some(session("D", i)), None));
            let all = futures_util::future::join_all(all).await;
            assert_eq!(all.iter().filter(|r| matches!(r, Ok(Registered::Done { .. }))).count(), 1);
            let lost = |r: &&Result<Registered>| matches!(r, Ok(Registered::Taken) | Err(Error::Conflict(_)));
            assert_eq!(all.iter().filter(lost).count(), 7);
        });
    }

    #[test]
    fn a_registration_token_is_used_up_by_those_who_get_in() {
        each_backend(|store| async move {
            assert!(store.create_registration_token(token("t", Some(1), None, false), 1).await.unwrap());
            assert!(!store.create_registration_token(token("t", None, None, true), 1).await.unwrap());
            let t = || Some("t".to_owned());
            store.register(user("@a:x"), None, None).await.unwrap();
            assert_eq!(store.register(user("@a:x"), None, t()).await.unwrap(), Registered::Taken);
            assert_eq!(
                store.registration_token("t").await.unwrap().unwrap().uses,
                0,
                "who finds the name taken uses none"
            );
            let done = store.register(user("@b:x"), None, t()).await.unwrap();
            assert_eq!(done, Registered::Done { admin: false });
            assert_eq!(store.register(user("@c:x"), None, t()).await.unwrap(), Registered::BadToken);
            assert!(store.user("@c:x").await.unwrap().is_none());
            let unknown = store.register(user("@c:x"), None, Some("u".to_owned())).await.unwrap();
            assert_eq!(unknown, Registered::BadToken);
        });
    }

    #[test]
    fn a_token_with_one_use_lets_one_of_many_in() {
        each_backend(|store| async move {
            store.create_registration_token(token("t", Some(1), None, false), 1).await.unwrap();
            let all = (0..8).map(|i| store.register(user(&format!("@{i}:x")), None, Some("t".to_owned())));
            let all = futures_util::future::join_all(all).await;
            assert_eq!(all.iter().filter(|r| matches!(r, Ok(Registered::Done { .. }))).count(), 1);
            assert_eq!(store.registration_token("t").await.unwrap().unwrap().uses, 1);
        });
    }

    #[test]
    fn a_registration_token_expires() {
        each_backend(|store| async move {
            store.create_registration_token(token("t", None, Some(1), false), 0).await.unwrap();
            let late = store.register(user("@a:x"), None, Some("t".to_owned())).await.unwrap();
            assert_eq!(late, Registered::BadToken, "the account would be made in the very millisecond of the end");
        });
    }

    #[test]
    fn the_first_user_of_all_may_be_an_administrator() {
        each_backend(|store| async move {
            let first = store.first_admin_token("one", 1).await.unwrap();
            assert_eq!(first.as_deref(), Some("one"));
            assert_eq!(store.first_admin_token("two", 2).await.unwrap(), first, "a second start shows the same one");
            let done = store.register(user("@a:x"), None, first).await.unwrap();
            assert_eq!(done, Registered::Done { admin: true });
            assert_eq!(store.first_admin_token("three", 3).await.unwrap(), None);
        });
    }

    #[test]
    fn a_changed_password_ends_the_other_sessions_if_that_is_wanted() {
        each_backend(|store| async move {
            store.register(user("@a:x"), Some(session("D", 1)), None).await.unwrap();
            store.login("@a:x", Some("hash"), session("E", 2)).await.unwrap();
            assert!(store.set_password("@a:x", "new", Some("D"), None).await.unwrap());
            assert!(store.session_by_token([2; 32]).await.unwrap().is_some());
            store.sink.take();
            assert!(store.set_password("@a:x", "newer", Some("D"), Some(ending("j"))).await.unwrap());
            assert!(store.session_by_token([1; 32]).await.unwrap().is_some());
            assert!(store.session_by_token([2; 32]).await.unwrap().is_none());
            assert_eq!(store.user("@a:x").await.unwrap().unwrap().password_hash.as_deref(), Some("newer"));
            let wakes: Vec<_> = store.sink.take().into_iter().flat_map(|c| c.wakes).collect();
            assert!(wakes.contains(&crate::Wake::User("@a:x".into())), "{wakes:?}");
            assert!(wakes.contains(&crate::Wake::Queue(DEVICE_CLEANUP)), "{wakes:?}");
            assert!(!store.set_password("@b:x", "new", None, None).await.unwrap());
        });
    }

    #[test]
    fn a_deactivated_account_has_nothing_left_to_come_back_with() {
        each_backend(|store| async move {
            store.register(user("@a:x"), Some(session("D", 1)), None).await.unwrap();
            assert!(store.deactivate("@a:x", true, ending("j")).await.unwrap());
            assert!(store.session_by_token([1; 32]).await.unwrap().is_none());
            let row = store.user("@a:x").await.unwrap().unwrap();
            assert!(row.deactivated && row.password_hash.is_none());
            let login = store.login("@a:x", Some("hash"), session("D", 2)).await.unwrap();
            assert_eq!(login, LoggedIn::Refused);
            let login = store.login("@a:x", None, session("D", 2)).await.unwrap();
            assert_eq!(login, LoggedIn::Refused);
            assert!(!store.set_password("@a:x", "new", None, None).await.unwrap());
            assert!(!store.deactivate("@a:x", false, ending("k")).await.unwrap());
            assert_eq!(store.register(user("@a:x"), None, None).await.unwrap(), Registered::Taken);
            let items = store.lease(DEACTIVATED, "w", 10, 10, 9).await.unwrap();
            assert_eq!(items.len(), 1);
            assert!(items[0].payload.contains("@a:x"));
        });
    }
}
