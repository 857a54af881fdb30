//! Tokens that let somebody register.

use crate::{
    Sql,
    error::Result,
    tx::{Answer, Engine, Op, Query, Reads, Row, Tx, args, statements},
};

statements! {
    ANY_USER = "SELECT 1 FROM users LIMIT 1";
    USE_TOKEN = "UPDATE registration_tokens SET uses = uses + 1 WHERE token = $1 \
        AND (uses_allowed IS NULL OR uses < uses_allowed) AND (expires_ms IS NULL OR expires_ms > $2) \
        RETURNING makes_admin";
    TOKEN = "SELECT token, uses_allowed, uses, expires_ms, makes_admin FROM registration_tokens WHERE token = $1";
    FIRST_TOKEN = "SELECT token FROM registration_tokens WHERE uses = 0 \
        AND token = (SELECT value FROM server_facts WHERE name = 'first_admin_token')";
    NAME_FIRST_TOKEN = "INSERT INTO server_facts (name, value) VALUES ('first_admin_token', $1) \
        ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    END_FIRST_TOKEN = "DELETE FROM registration_tokens WHERE uses = 0 \
        AND token = (SELECT value FROM server_facts WHERE name = 'first_admin_token')";
    INSERT_TOKEN = "INSERT INTO registration_tokens (token, uses_allowed, uses, expires_ms, makes_admin, created_ms) \
        VALUES ($1, $2, 0, $3, $4, $5) ON CONFLICT (token) DO NOTHING";
    TOKENS = "SELECT token, uses_allowed, uses, expires_ms, makes_admin FROM registration_tokens WHERE token > $1 \
        ORDER BY token LIMIT $2";
    DELETE_TOKEN = "DELETE FROM registration_tokens WHERE token = $1";
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

/// Tokens by which users may come.
pub trait RegistrationTokens: Send + Sync {
    /// False: there is such a token already.
    fn create_registration_token(&self, token: RegistrationToken, created_ms: i64) -> Answer<'_, bool>;
    fn registration_token(&self, token: &str) -> Answer<'_, Option<RegistrationToken>>;
    /// While there is no user at all: the one-time token that makes the first of them an administrator. `fresh` is
    /// stored unless an earlier start left one. It ends with the first account, however that is made.
    fn first_admin_token(&self, fresh: &str, created_ms: i64) -> Answer<'_, Option<String>>;
    /// Whether there is any user.
    fn anybody(&self) -> Answer<'_, bool>;
    /// The tokens after this one, by their texts.
    fn registration_tokens(&self, after: &str, limit: u32) -> Answer<'_, Vec<RegistrationToken>>;
    /// False: there is no such token.
    fn delete_registration_token(&self, token: &str) -> Answer<'_, bool>;
}

impl<E: Engine> RegistrationTokens for Sql<E> {
    fn create_registration_token(&self, token: RegistrationToken, created_ms: i64) -> Answer<'_, bool> {
        self.0.write(CreateRegistrationToken { token, created_ms })
    }

    fn registration_token(&self, token: &str) -> Answer<'_, Option<RegistrationToken>> {
        self.0.read(FindRegistrationToken(token.to_owned()))
    }

    fn first_admin_token(&self, fresh: &str, created_ms: i64) -> Answer<'_, Option<String>> {
        self.0.write(FirstAdminToken { fresh: fresh.to_owned(), created_ms })
    }

    fn anybody(&self) -> Answer<'_, bool> {
        self.0.read(Anybody)
    }

    fn registration_tokens(&self, after: &str, limit: u32) -> Answer<'_, Vec<RegistrationToken>> {
        self.0.read(RegistrationTokensAfter { after: after.to_owned(), limit })
    }

    fn delete_registration_token(&self, token: &str) -> Answer<'_, bool> {
        self.0.write(DeleteRegistrationToken(token.to_owned()))
    }
}

/// Takes one use of the token, inside the transaction that makes an account by it. Whether it makes an administrator;
/// None: it is not valid.
pub(crate) async fn use_up<T: Tx>(tx: &mut T, token: &str, now_ms: i64) -> Result<Option<bool>> {
    tx.query_opt(USE_TOKEN, args![token, now_ms]).await?.as_mut().map(|row| row.get(0)).transpose()
}

/// Ends the token that was meant for the first user, inside the transaction that makes an account.
pub(crate) async fn end_first<T: Tx>(tx: &mut T) -> Result<()> {
    tx.execute(END_FIRST_TOKEN, args![]).await.map(drop)
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
        tx.query_opt(TOKEN, args![&self.0]).await?.as_mut().map(token_row).transpose()
    }
}

fn token_row(row: &mut Row) -> Result<RegistrationToken> {
    Ok(RegistrationToken {
        token: row.get(0)?,
        uses_allowed: row.get(1)?,
        uses: row.get(2)?,
        expires_ms: row.get(3)?,
        makes_admin: row.get(4)?,
    })
}

struct Anybody;

impl Query for Anybody {
    const NAME: &'static str = "anybody";
    const SINGLE: bool = true;
    type Out = bool;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<bool> {
        Ok(tx.query_opt(ANY_USER, args![]).await?.is_some())
    }
}

struct RegistrationTokensAfter {
    after: String,
    limit: u32,
}

impl Query for RegistrationTokensAfter {
    const NAME: &'static str = "registration_tokens";
    const SINGLE: bool = true;
    type Out = Vec<RegistrationToken>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Vec<RegistrationToken>> {
        tx.query(TOKENS, args![&self.after, i64::from(self.limit)]).await?.iter_mut().map(token_row).collect()
    }
}

struct DeleteRegistrationToken(String);

impl Op for DeleteRegistrationToken {
    const NAME: &'static str = "delete_registration_token";
    type Out = bool;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        Ok(tx.execute(DELETE_TOKEN, args![&self.0]).await? == 1)
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
            // One may be left if an account was made in the very moment of the first start.
            end_first(tx).await?;
            return Ok(None);
        }
        if let Some(mut row) = tx.query_opt(FIRST_TOKEN, args![]).await? {
            return row.get(0).map(Some);
        }
        tx.execute(NAME_FIRST_TOKEN, args![&self.fresh]).await?;
        tx.execute(INSERT_TOKEN, args![&self.fresh, Some(1i64), None::<i64>, true, self.created_ms]).await?;
        Ok(Some(self.fresh.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        accounts::{Accounts as _, NewUser, Registered},
        testing::each_backend,
    };

    fn user(name: &str) -> NewUser {
        NewUser { user_id: name.to_owned(), password_hash: None, admin: false, created_ms: 1 }
    }

    fn token(name: &str, uses_allowed: Option<i64>, expires_ms: Option<i64>, makes_admin: bool) -> RegistrationToken {
        RegistrationToken { token: name.to_owned(), uses_allowed, uses: 0, expires_ms, makes_admin }
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
    fn the_first_token_ends_with_the_first_account_and_the_operators_tokens_do_not() {
        each_backend(|store| async move {
            store.create_registration_token(token("operators", Some(1), None, true), 0).await.unwrap();
            let first = store.first_admin_token("one", 1).await.unwrap();
            assert_eq!(first.as_deref(), Some("one"), "the operator's token is for whom the operator likes");
            assert!(!store.anybody().await.unwrap());
            let done = store.register(user("@a:x"), None, None).await.unwrap();
            assert_eq!(done, Registered::Done { admin: false });
            assert!(store.anybody().await.unwrap());
            assert!(store.registration_token("one").await.unwrap().is_none());
            assert_eq!(store.register(user("@b:x"), None, first).await.unwrap(), Registered::BadToken);
            let done = store.register(user("@b:x"), None, Some("operators".to_owned())).await.unwrap();
            assert_eq!(done, Registered::Done { admin: true });
        });
    }

    #[test]
    fn tokens_are_listed_and_taken_back() {
        each_backend(|store| async move {
            for name in ["b", "c", "a"] {
                store.create_registration_token(token(name, Some(2), None, false), 1).await.unwrap();
            }
            store.register(user("@a:x"), None, Some("b".to_owned())).await.unwrap();
            let list = |after: &'static str, limit| store.registration_tokens(after, limit);
            let all: Vec<_> = list("", 9).await.unwrap().into_iter().map(|t| (t.token, t.uses)).collect();
            assert_eq!(all, [("a".to_owned(), 0), ("b".to_owned(), 1), ("c".to_owned(), 0)]);
            assert_eq!(list("a", 1).await.unwrap()[0].token, "b");
            assert!(store.delete_registration_token("b").await.unwrap());
            assert!(!store.delete_registration_token("b").await.unwrap());
            assert_eq!(store.register(user("@b:x"), None, Some("b".to_owned())).await.unwrap(), Registered::BadToken);
            assert_eq!(list("", 9).await.unwrap().len(), 2);
        });
    }
}
