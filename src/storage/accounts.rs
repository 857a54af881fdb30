//! Accounts: who may be here, and how they came to be.

use crate::{
    Sql,
    error::{Error, Result},
    outbox::{self, NewItem},
    sessions::{self, Ending, NewSession},
    tx::{Answer, Engine, Op, Query, Reads, Tx, args, statements},
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
