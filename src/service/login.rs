//! Proving who one is, and the sessions that begin and end by it.

use std::time::Duration;

use hearth_core::{Error, Kind, Result, ids};
use hearth_storage::{
    accounts::UserRow,
    refresh::{NewPair, Refreshed},
    sessions::{LoggedIn, NewRefresh, NewSession},
    sso::tokens::{NewLoginToken, TokenLogin},
};
use ruma::{OwnedUserId, UserId};

use super::{
    accounts::{Accounts, DeviceWish, NewDevice, Tokens, Welcome},
    devices::device_name,
    passwords::MAX_PASSWORD_BYTES,
    session::Session,
    sessions::{hash, new_login_token, new_refresh_token, new_token},
};

const WRONG_PASSWORD: &str = "Wrong user name or password";
const KEY_IN_USE: &str = "One of your keys is called like this device";
/// How often a login is tried whose password is replaced at the same time.
const TRIES: usize = 3;

impl Accounts {
    /// A session that is to begin, and what its owner will be told.
    pub(super) fn new_device(&self, wish: DeviceWish) -> Result<(NewSession, NewDevice)> {
        let DeviceWish { id, name, refresh } = wish;
        if let Some(id) = &id {
            ids::check_device_id(id.as_str())?;
        }
        let device_id = id.unwrap_or_else(|| ids::new_device_id(&*self.rng));
        let display_name = name.map(device_name).transpose()?;
        let created_ms = self.clock.now_ms();
        let (token_hash, expires_ms, refresh, tokens) = if refresh {
            let (pair, tokens) = self.new_pair(created_ms);
            (pair.access_hash, pair.access_expires_ms, Some(pair.refresh), tokens)
        } else {
            let (access_token, token_hash) = new_token(&*self.rng);
            (token_hash, None, None, Tokens { access_token, refresh_token: None, expires_in: None })
        };
        let session =
            NewSession { device_id: device_id.to_string(), display_name, token_hash, created_ms, expires_ms, refresh };
        Ok((session, NewDevice { device_id, tokens }))
    }

    /// Tokens for a session that will have to renew them.
    fn new_pair(&self, at_ms: i64) -> (NewPair, Tokens) {
        let (access_token, access_hash) = new_token(&*self.rng);
        let (refresh_token, token_hash) = new_refresh_token(&*self.rng);
        let expires_in = Duration::from_secs(self.lifetimes.access_token_ttl);
        let refresh = NewRefresh { token_hash, expires_ms: self.lifetimes.refresh_token_ttl.map(|s| after(at_ms, s)) };
        let access_expires_ms = Some(after(at_ms, self.lifetimes.access_token_ttl));
        let tokens = Tokens { access_token, refresh_token: Some(refresh_token), expires_in: Some(expires_in) };
        (NewPair { access_hash, access_expires_ms, refresh, at_ms }, tokens)
    }

    /// Trades a refresh token for new tokens. The old ones end when one of the new is used.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Tokens> {
        let token_hash = hash(refresh_token);
        if !self.storage.knows_refresh_token(token_hash).await? {
            return Err(Error::unknown_token("Unknown refresh token"));
        }
        let (pair, tokens) = self.new_pair(self.clock.now_ms());
        match self.storage.refresh(token_hash, pair).await? {
            Refreshed::Done { user_id } => {
                // If this was the first use of the token, those before it have ended.
                self.sessions.revoked([&*OwnedUserId::try_from(user_id).map_err(Error::internal)?]);
                Ok(tokens)
            }
            Refreshed::Unknown => Err(Error::unknown_token("Unknown refresh token")),
            Refreshed::Expired => {
                Err(Error::new(Kind::UnknownToken { soft_logout: true }, "The refresh token has expired"))
            }
        }
    }

    /// Starts a session for somebody who knows the password.
    pub async fn login(&self, user: &str, password: String, device: DeviceWish) -> Result<Welcome> {
        if !self.takes_passwords() {
            return Err(Error::forbidden("Nobody logs in by a password here"));
        }
        let (session, welcome) = self.new_device(device)?;
        let named = self.local_user(user);
        self.limits.account(&named.as_ref().map_or(user, |id| id.as_str()).to_lowercase()).await?;
        // The hash may be another by the time that the session is to begin: of a new password, or a new one of this.
        for _ in 0..TRIES {
            let Some((user_id, hash)) = self.check(named.clone(), password.clone()).await? else { break };
            match self.storage.login(user_id.as_str(), Some(&hash), session.clone()).await? {
                LoggedIn::Done { ended: true } => self.sessions.revoked([&*user_id]),
                LoggedIn::Done { ended: false } => {}
                LoggedIn::Refused => continue,
                LoggedIn::KeyInUse => return Err(Error::invalid_param(KEY_IN_USE)),
            }
            self.renew_hash(&user_id, &hash, password).await;
            return Ok(Welcome { user_id, session: Some(welcome) });
        }
        Err(Error::forbidden(WRONG_PASSWORD))
    }

    /// The user who is called so and knows the password.
    pub(super) async fn prove(&self, user: &str, password: String) -> Result<OwnedUserId> {
        let named = self.local_user(user);
        self.limits.account(&named.as_ref().map_or(user, |id| id.as_str()).to_lowercase()).await?;
        let proved = self.check(named, password).await?;
        proved.map(|(user_id, _)| user_id).ok_or_else(|| Error::forbidden(WRONG_PASSWORD))
    }

    /// Whether anybody may log in by a password.
    pub fn takes_passwords(&self) -> bool {
        self.sso.login_with_password
    }

    /// Starts a session for somebody who has a token for one.
    pub async fn login_by_token(&self, token: &str, device: DeviceWish) -> Result<Welcome> {
        let (session, welcome) = self.new_device(device)?;
        match self.storage.login_by_token(hash(token), session).await? {
            TokenLogin::Done { user_id, ended } => {
                let user_id = OwnedUserId::try_from(user_id).map_err(Error::internal)?;
                if ended {
                    self.sessions.revoked([&*user_id]);
                }
                Ok(Welcome { user_id, session: Some(welcome) })
            }
            TokenLogin::Refused => Err(Error::forbidden("This login token is unknown, was used or has expired")),
            TokenLogin::KeyInUse => Err(Error::invalid_param(KEY_IN_USE)),
        }
    }

    /// A token with which another client gets a session of the same user, and how long it is good.
    pub async fn new_login_token(&self, session: &Session) -> Result<(String, Duration)> {
        let life = Duration::from_millis(self.sso.login_token_ttl);
        let (token, token_hash) = new_login_token(&*self.rng);
        let expires_ms = self.clock.now_ms().saturating_add(i64::try_from(life.as_millis()).unwrap_or(i64::MAX));
        let user_id = session.user_id.to_string();
        self.storage.keep_login_token(NewLoginToken { token_hash, user_id, from: None, expires_ms }).await?;
        Ok((token, life))
    }

    /// Hashes a password that has just proved right at the cost of today. An account whose hash has another cost can be
    /// told from one that doesn't exist by how long it takes to be refused; so that ends with its next login.
    async fn renew_hash(&self, user_id: &UserId, old: &str, password: String) {
        if !self.passwords.is_outdated(old) {
            return;
        }
        let renewed = async {
            let new = self.passwords.hash(password).await?;
            Ok::<_, Error>(self.storage.renew_password_hash(user_id.as_str(), old, &new).await?)
        };
        // Nobody is kept out for it: there will be another login.
        if let Err(e) = renewed.await {
            tracing::debug!(%user_id, error = %e, "a password hash keeps its old cost");
        }
    }

    /// The user and their password's hash, if the password is right. That there is no such user takes as long to find
    /// out as that the password is wrong.
    pub(super) async fn check(
        &self,
        named: Option<OwnedUserId>,
        password: String,
    ) -> Result<Option<(OwnedUserId, String)>> {
        let row = match named {
            Some(id) => self.active_user(id).await?,
            None => None,
        };
        let hash = row.as_ref().and_then(|(_, row)| row.password_hash.clone());
        if password.len() > MAX_PASSWORD_BYTES || !self.passwords.verify(password, hash.as_deref()).await? {
            return Ok(None);
        }
        Ok(row.map(|(id, _)| id).zip(hash))
    }

    /// The user as they are called, else the one in lower case: we give out no other names, but people write them.
    async fn active_user(&self, id: OwnedUserId) -> Result<Option<(OwnedUserId, UserRow)>> {
        if let Some(row) = self.storage.user(id.as_str()).await? {
            return Ok((!row.deactivated).then_some((id, row)));
        }
        let Some(lower) = ids::new_user_id(id.localpart(), &self.server_name).ok().filter(|lower| *lower != id) else {
            return Ok(None);
        };
        let row = self.storage.user(lower.as_str()).await?;
        Ok(row.filter(|row| !row.deactivated).map(|row| (lower, row)))
    }

    /// A user of ours, by the whole id or the local part.
    pub(super) fn local_user(&self, user: &str) -> Option<OwnedUserId> {
        let id = UserId::parse_with_server_name(user, &self.server_name).ok()?;
        (id.server_name() == &*self.server_name).then_some(id)
    }

    /// Ends the session that asks for it.
    pub async fn logout(&self, session: &Session) -> Result<()> {
        self.end_devices(session, std::slice::from_ref(&session.device_id)).await
    }

    /// Ends all sessions of the user.
    pub async fn logout_all(&self, session: &Session) -> Result<()> {
        self.storage.end_all_sessions(session.user_id.as_str(), self.ending()).await?;
        self.sessions.revoked([&*session.user_id]);
        Ok(())
    }
}

fn after(now_ms: i64, seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000).saturating_add(now_ms)
}
