//! Tokens that a client trades for a session.

use crate::{
    Sql,
    accounts::find_user,
    error::Result,
    sessions::{self, NewSession},
    tx::{Answer, Engine, Op, Tx, args, statements},
};

statements! {
    INSERT_TOKEN = "INSERT INTO login_tokens (token_hash, user_id, provider, subject, sid, expires_ms) \
        VALUES ($1, $2, $3, $4, $5, $6)";
    TOKEN = "SELECT user_id, provider, subject, sid FROM login_tokens WHERE token_hash = $1 AND expires_ms > $2";
    DELETE_TOKEN = "DELETE FROM login_tokens WHERE token_hash = $1";
    INSERT_SESSION = "INSERT INTO sso_sessions (user_id, device_id, provider, subject, sid) VALUES ($1, $2, $3, $4, $5) \
        ON CONFLICT (user_id, device_id) DO UPDATE SET provider = excluded.provider, subject = excluded.subject, \
        sid = excluded.sid";
    FORGET = "DELETE FROM sso_sessions WHERE user_id = $1 AND device_id = ANY($2)";
}

/// A login at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderSession {
    pub provider: String,
    pub subject: String,
    pub sid: Option<String>,
}

/// A login token that is to be kept. The token itself never comes here.
#[derive(Clone)]
pub struct NewLoginToken {
    pub token_hash: [u8; 32],
    pub user_id: String,
    /// None: it was asked for by another session of the user.
    pub from: Option<ProviderSession>,
    pub expires_ms: i64,
}

/// What became of a login by a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenLogin {
    /// `ended`: sessions are gone by it, as by any login.
    Done { user_id: String, ended: bool },
    /// The token is unknown, used or old, or its user's account has ended.
    Refused,
    /// The device would be called like a cross-signing key of the user.
    KeyInUse,
}

/// Tokens that a client trades for a session.
pub trait LoginTokens: Send + Sync {
    fn keep_login_token(&self, token: NewLoginToken) -> Answer<'_, ()>;
    /// Starts a session for whoever has the token, which ends by that.
    fn login_by_token(&self, token_hash: [u8; 32], session: NewSession) -> Answer<'_, TokenLogin>;
}

impl<E: Engine> LoginTokens for Sql<E> {
    fn keep_login_token(&self, token: NewLoginToken) -> Answer<'_, ()> {
        self.0.write(KeepToken(token))
    }

    fn login_by_token(&self, token_hash: [u8; 32], session: NewSession) -> Answer<'_, TokenLogin> {
        self.0.write(LoginByToken { token_hash, session })
    }
}

/// Forgets by which login at a provider these devices came.
pub(crate) async fn forget_devices<T: Tx>(tx: &mut T, user_id: &str, devices: &[String]) -> Result<()> {
    tx.execute(FORGET, args![user_id, devices.to_vec()]).await?;
    Ok(())
}

struct KeepToken(NewLoginToken);

impl Op for KeepToken {
    const NAME: &'static str = "keep_login_token";
    type Out = ();

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let NewLoginToken { token_hash, user_id, from, expires_ms } = &self.0;
        let from = from.as_ref();
        let [provider, subject] = [from.map(|f| f.provider.clone()), from.map(|f| f.subject.clone())];
        let sid = from.and_then(|f| f.sid.clone());
        tx.execute(INSERT_TOKEN, args![&token_hash[..], user_id, provider, subject, sid, *expires_ms]).await?;
        Ok(())
    }
}

struct LoginByToken {
    token_hash: [u8; 32],
    session: NewSession,
}

impl Op for LoginByToken {
    const NAME: &'static str = "login_by_token";
    type Out = TokenLogin;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<TokenLogin> {
        let token = &self.token_hash[..];
        let Some(mut row) = tx.query_opt(TOKEN, args![token, self.session.created_ms]).await? else {
            return Ok(TokenLogin::Refused);
        };
        let (user_id, provider, subject): (String, Option<String>, Option<String>) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let sid: Option<String> = row.get(3)?;
        if find_user(tx, &user_id).await?.is_none_or(|user| user.deactivated) {
            return Ok(TokenLogin::Refused);
        }
        if sessions::is_called_like_a_key(tx, &user_id, &self.session.device_id).await? {
            return Ok(TokenLogin::KeyInUse);
        }
        // Of several who come with it at once, one finds it.
        if tx.execute(DELETE_TOKEN, args![token]).await? == 0 {
            return Ok(TokenLogin::Refused);
        }
        let ended = sessions::begin(tx, &user_id, &self.session).await?;
        if let (Some(provider), Some(subject)) = (provider, subject) {
            let args = args![&user_id, &self.session.device_id, provider, subject, sid];
            tx.execute(INSERT_SESSION, args).await?;
        }
        Ok(TokenLogin::Done { user_id, ended })
    }
}
