//! Accounts: who may be here, and how they came to be.

use crate::{
    Sql, account_data,
    error::{Error, Result},
    key_backup, keys,
    outbox::{self, NewItem},
    push_rules, registration_tokens,
    sessions::{self, Ending, NewSession},
    subscriptions,
    tx::{Answer, Engine, Op, Query, Reads, Row, Tx, args, statements},
    user_directory,
};

statements! {
    USER = "SELECT user_id, password_hash, admin, deactivated, created_ms FROM users WHERE user_id = $1";
    USERS = "SELECT user_id, password_hash, admin, deactivated, created_ms FROM users WHERE user_id > $1 \
        ORDER BY user_id LIMIT $2";
    INSERT_USER = "INSERT INTO users (user_id, password_hash, admin, deactivated, created_ms) \
        VALUES ($1, $2, $3, 0, $4) ON CONFLICT (user_id) DO NOTHING";
    SET_ADMIN = "UPDATE users SET admin = $2 WHERE user_id = $1 AND deactivated = 0";
    SET_PASSWORD = "UPDATE users SET password_hash = $2 WHERE user_id = $1 AND deactivated = 0";
    RENEW_PASSWORD_HASH = "UPDATE users SET password_hash = $3 WHERE user_id = $1 AND password_hash = $2";
    DEACTIVATE = "UPDATE users SET deactivated = $2, admin = 0, password_hash = NULL \
        WHERE user_id = $1 AND deactivated = 0";
    ERASED = "SELECT user_id, -deactivated FROM users WHERE deactivated < 0";
    ERASED_AMONG = "SELECT user_id, -deactivated FROM users WHERE deactivated < 0 AND user_id = ANY($1)";
    ERASE_PROFILE = "DELETE FROM profile_fields WHERE user_id = $1";
    IS_DEACTIVATED = "SELECT 1 FROM users WHERE user_id = $1 AND deactivated <> 0";
    DELETE_ACCOUNT_DATA = "DELETE FROM account_data WHERE user_id = $1 AND pos IN \
        (SELECT pos FROM account_data WHERE user_id = $1 ORDER BY pos LIMIT $2)";
    DELETE_FILTERS = "DELETE FROM filters WHERE user_id = $1 AND filter_id IN \
        (SELECT filter_id FROM filters WHERE user_id = $1 ORDER BY filter_id LIMIT $2)";
}

/// What stands in `users.deactivated` of an account that has been ended. If it was also erased, it is the position at which
/// that happened, as a negative number.
const ENDED: i64 = 1;

/// The outbox queue that makes a deactivated user leave what they were part of, and removes what they left behind.
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

/// Users.
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
    /// Puts another hash of the same password in the place of this one. False: the account has another by now, or none.
    fn renew_password_hash(&self, user_id: &str, old: &str, new: &str) -> Answer<'_, bool>;
    /// Ends the account and all its sessions; a worker makes the user leave the rooms. The name stays taken. False: no
    /// such active user.
    fn deactivate(&self, user_id: &str, erase: bool, ending: Ending) -> Answer<'_, bool>;
    /// Who has been deactivated and erased, among these users or all; and at which position.
    fn erased_users(&self, among: Option<Vec<String>>) -> Answer<'_, Vec<(String, i64)>>;
    /// Removes at most about `limit` rows of what a deactivated user kept here for themselves; how many there were.
    fn clean_account(&self, user_id: &str, limit: u32) -> Answer<'_, u64>;
    /// Whether the user is an administrator from now on. False: no such active user.
    fn set_admin(&self, user_id: &str, admin: bool, at_ms: i64) -> Answer<'_, bool>;
    /// The users after this one, by their ids.
    fn users(&self, after: &str, limit: u32) -> Answer<'_, Vec<UserRow>>;
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

    fn renew_password_hash(&self, user_id: &str, old: &str, new: &str) -> Answer<'_, bool> {
        self.0.write(RenewPasswordHash([user_id, old, new].map(ToOwned::to_owned)))
    }

    fn deactivate(&self, user_id: &str, erase: bool, ending: Ending) -> Answer<'_, bool> {
        self.0.write(Deactivate { user_id: user_id.to_owned(), erase, ending })
    }

    fn erased_users(&self, among: Option<Vec<String>>) -> Answer<'_, Vec<(String, i64)>> {
        self.0.read(ErasedUsers(among))
    }

    fn clean_account(&self, user_id: &str, limit: u32) -> Answer<'_, u64> {
        self.0.write(CleanAccount { user_id: user_id.to_owned(), limit })
    }

    fn set_admin(&self, user_id: &str, admin: bool, at_ms: i64) -> Answer<'_, bool> {
        self.0.write(SetAdmin { user_id: user_id.to_owned(), admin, at_ms })
    }

    fn users(&self, after: &str, limit: u32) -> Answer<'_, Vec<UserRow>> {
        self.0.read(Users { after: after.to_owned(), limit })
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
            match registration_tokens::use_up(tx, token, user.created_ms).await? {
                Some(makes_admin) => admin |= makes_admin,
                None => return Ok(Registered::BadToken),
            }
        }
        insert(tx, user, admin).await?;
        if let Some(session) = session {
            sessions::start(tx, &user.user_id, session).await?;
        }
        Ok(Registered::Done { admin })
    }
}

/// Writes an account whose name was found to be free.
pub(crate) async fn insert<T: Tx>(tx: &mut T, user: &NewUser, admin: bool) -> Result<()> {
    let made =
        tx.execute(INSERT_USER, args![&user.user_id, user.password_hash.clone(), admin, user.created_ms]).await?;
    if made == 0 {
        // Somebody took the name between the look and the insert; what came with it must not stand.
        return Err(Error::Conflict("user name"));
    }
    registration_tokens::end_first(tx).await?;
    user_directory::note(tx, &user.user_id, None).await
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
    tx.query_opt(USER, args![user_id]).await?.as_mut().map(user_row).transpose()
}

fn user_row(row: &mut Row) -> Result<UserRow> {
    Ok(UserRow {
        user_id: row.get(0)?,
        password_hash: row.get(1)?,
        admin: row.get(2)?,
        deactivated: row.get(3)?,
        created_ms: row.get(4)?,
    })
}

struct Users {
    after: String,
    limit: u32,
}

impl Query for Users {
    const NAME: &'static str = "users";
    const SINGLE: bool = true;
    type Out = Vec<UserRow>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Vec<UserRow>> {
        tx.query(USERS, args![&self.after, i64::from(self.limit)]).await?.iter_mut().map(user_row).collect()
    }
}

struct SetAdmin {
    user_id: String,
    admin: bool,
    at_ms: i64,
}

impl Op for SetAdmin {
    const NAME: &'static str = "set_admin";
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        if tx.execute(SET_ADMIN, args![&self.user_id, self.admin]).await? == 0 {
            return Ok(false);
        }
        // No session ends, but every process has to forget what it knows of them.
        sessions::revoke(tx, &self.user_id, &[], self.at_ms).await?;
        Ok(true)
    }
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

struct RenewPasswordHash([String; 3]);

impl Op for RenewPasswordHash {
    const NAME: &'static str = "renew_password_hash";
    type Out = bool;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let [user_id, old, new] = &self.0;
        Ok(tx.execute(RENEW_PASSWORD_HASH, args![user_id, old, new]).await? == 1)
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

    fn positions(&self) -> u32 {
        3
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let how = if self.erase { -tx.next_pos()? } else { ENDED };
        if tx.execute(DEACTIVATE, args![&self.user_id, how]).await? == 0 {
            return Ok(false);
        }
        if self.erase {
            tx.execute(ERASE_PROFILE, args![&self.user_id]).await?;
        }
        user_directory::drop(tx, &self.user_id).await?;
        sessions::end_all(tx, &self.user_id, None, &self.ending).await?;
        keys::forget_user(tx, &self.user_id).await?;
        let payload = serde_json::json!({ "user_id": self.user_id, "erase": self.erase }).to_string();
        let item = NewItem { id: format!("{}-leave", self.ending.job_id), payload, due_ms: self.ending.at_ms };
        outbox::enqueue(tx, DEACTIVATED, vec![item]).await?;
        Ok(true)
    }
}

struct ErasedUsers(Option<Vec<String>>);

impl Query for ErasedUsers {
    const NAME: &'static str = "erased_users";
    const SINGLE: bool = true;
    type Out = Vec<(String, i64)>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Vec<(String, i64)>> {
        let rows = match &self.0 {
            Some(among) => tx.query(ERASED_AMONG, args![among.clone()]).await?,
            None => tx.query(ERASED, args![]).await?,
        };
        rows.into_iter().map(|mut row| Ok((row.get(0)?, row.get(1)?))).collect()
    }
}

struct CleanAccount {
    user_id: String,
    limit: u32,
}

impl Op for CleanAccount {
    const NAME: &'static str = "clean_account";
    type Out = u64;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        if tx.query_opt(IS_DEACTIVATED, args![&self.user_id]).await?.is_none() {
            return Ok(0);
        }
        let limit = i64::from(self.limit);
        account_data::forget_total(tx, &self.user_id).await?;
        push_rules::forget(tx, &self.user_id).await?;
        let data = tx.execute(DELETE_ACCOUNT_DATA, args![&self.user_id, limit]).await?;
        let filters = tx.execute(DELETE_FILTERS, args![&self.user_id, limit]).await?;
        let threads = subscriptions::clean(tx, &self.user_id, limit).await?;
        Ok(data + filters + threads + key_backup::clean(tx, &self.user_id, limit).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        account_data::{AccountData as _, AccountDataChange, Scope},
        filters::Filters as _,
        follow::Follow as _,
        outbox::Outbox as _,
        sessions::{DEVICE_CLEANUP, LoggedIn, Sessions as _, tests::session},
        stream::Stream as _,
        testing::each_backend,
    };

    fn user(name: &str) -> NewUser {
        NewUser { user_id: name.to_owned(), password_hash: Some("hash".to_owned()), admin: false, created_ms: 1 }
    }

    fn datum(name: &str, kind: &str) -> AccountDataChange {
        AccountDataChange {
            user_id: name.to_owned(),
            scope: Scope::Global,
            kind: kind.to_owned(),
            content: Some("{}".to_owned()),
            expects: None,
            quota: None,
        }
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
    fn users_are_listed_and_made_administrators() {
        each_backend(|store| async move {
            for name in ["@b:x", "@c:x", "@a:x"] {
                store.register(user(name), Some(session("D", name.as_bytes()[1])), None).await.unwrap();
            }
            let ids = |rows: Vec<UserRow>| rows.into_iter().map(|row| row.user_id).collect::<Vec<_>>();
            assert_eq!(ids(store.users("", 2).await.unwrap()), ["@a:x", "@b:x"]);
            assert_eq!(ids(store.users("@b:x", 2).await.unwrap()), ["@c:x"]);
            assert!(store.set_admin("@b:x", true, 5).await.unwrap());
            assert!(store.session_by_token([b'b'; 32]).await.unwrap().unwrap().admin);
            let heard = store.changes_after(0, 9).await.unwrap().revoked;
            assert_eq!(heard, [("@b:x".to_owned(), String::new())], "other processes hear of it");
            assert!(store.set_admin("@b:x", false, 5).await.unwrap());
            assert!(!store.user("@b:x").await.unwrap().unwrap().admin);
            assert!(!store.set_admin("@d:x", true, 5).await.unwrap());
            store.deactivate("@b:x", false, ending("j")).await.unwrap();
            assert!(!store.set_admin("@b:x", true, 5).await.unwrap());
        });
    }

    #[test]
    fn what_a_deactivated_user_kept_here_goes_piece_by_piece() {
        each_backend(|store| async move {
            for name in ["@a:x", "@b:x"] {
                store.register(user(name), None, None).await.unwrap();
                for kind in ["k1", "k2", "k3"] {
                    store.set_account_data(datum(name, kind)).await.unwrap();
                }
                store.put_filter(name, "f", "{}", 9).await.unwrap();
            }
            assert_eq!(store.clean_account("@a:x", 9).await.unwrap(), 0, "they are still here");
            store.deactivate("@a:x", false, ending("j")).await.unwrap();
            assert_eq!(store.clean_account("@a:x", 2).await.unwrap(), 3);
            assert_eq!(store.clean_account("@a:x", 2).await.unwrap(), 1);
            assert_eq!(store.clean_account("@a:x", 2).await.unwrap(), 0);
            for kind in ["k1", "k2", "k3"] {
                assert!(store.account_data("@b:x", &Scope::Global, kind).await.unwrap().is_some());
            }
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
    fn a_renewed_hash_never_takes_the_place_of_a_new_password() {
        each_backend(|store| async move {
            store.register(user("@a:x"), Some(session("D", 1)), None).await.unwrap();
            let hash = async || store.user("@a:x").await.unwrap().unwrap().password_hash;
            assert!(store.renew_password_hash("@a:x", "hash", "renewed").await.unwrap());
            assert_eq!(hash().await.as_deref(), Some("renewed"));
            assert!(store.session_by_token([1; 32]).await.unwrap().is_some(), "it is the same password");
            store.set_password("@a:x", "of another", None, None).await.unwrap();
            assert!(!store.renew_password_hash("@a:x", "renewed", "again").await.unwrap());
            assert_eq!(hash().await.as_deref(), Some("of another"));
            store.deactivate("@a:x", false, ending("j")).await.unwrap();
            assert!(!store.renew_password_hash("@a:x", "of another", "again").await.unwrap());
            assert_eq!(hash().await, None);
            assert!(!store.renew_password_hash("@b:x", "hash", "again").await.unwrap());
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

    #[test]
    fn it_is_known_since_when_a_user_is_erased() {
        each_backend(|store| async move {
            for (name, erase) in [("@a:x", true), ("@b:x", false), ("@c:x", true)] {
                store.register(user(name), None, None).await.unwrap();
                let before = store.head().await.unwrap();
                assert!(store.deactivate(name, erase, ending(name)).await.unwrap());
                assert!(store.user(name).await.unwrap().unwrap().deactivated);
                let found = store.erased_users(Some(vec![name.to_owned()])).await.unwrap();
                assert_eq!(found.len(), usize::from(erase));
                assert!(found.iter().all(|(user, at)| user == name && *at > before), "{found:?}");
            }
            let mut all: Vec<_> = store.erased_users(None).await.unwrap().into_iter().map(|(user, _)| user).collect();
            all.sort();
            assert_eq!(all, ["@a:x", "@c:x"]);
        });
    }
}
