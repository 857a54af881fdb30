//! Accounts: coming, being known, leaving.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hearth_core::{
    Error, Kind, Result,
    clock::{Clock, Rng, random_string},
    ids,
};
use hearth_storage::{
    Storage,
    accounts::{NewUser, Registered},
    sessions::Ending,
};
use ruma::{OwnedDeviceId, OwnedServerName, OwnedUserId, UserId, api::client::uiaa::AuthData};

use crate::config;

use super::{
    erased::Erased,
    passwords::{MAX_PASSWORD_BYTES, Passwords},
    rate_limit::RateLimits,
    session::Session,
    sessions::Sessions,
    uia,
};

/// Users, their passwords and their sessions.
pub struct Accounts {
    pub(super) server_name: OwnedServerName,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) rng: Arc<dyn Rng>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) limits: Arc<RateLimits>,
    erased: Arc<Erased>,
    pub(super) registration: config::Registration,
    pub(super) lifetimes: config::Sessions,
    pub(super) sso: config::Sso,
    pub(super) passwords: Passwords,
    /// There was no user yet when we last looked: the first comes with the token that was printed at the start. Once
    /// false it stays so.
    empty: AtomicBool,
}

/// What the service works with.
pub struct Sources {
    pub storage: Arc<dyn Storage>,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
    pub sessions: Arc<Sessions>,
    pub limits: Arc<RateLimits>,
    pub erased: Arc<Erased>,
}

/// What somebody asks for who wants an account.
#[derive(Default)]
pub struct Registration {
    pub username: Option<String>,
    pub password: Option<String>,
    /// None: make the account only, no session.
    pub device: Option<DeviceWish>,
}

/// The device that a session is to be of.
#[derive(Default)]
pub struct DeviceWish {
    /// None: a new one.
    pub id: Option<OwnedDeviceId>,
    pub name: Option<String>,
    /// The access token may expire, as the client can renew it.
    pub refresh: bool,
}

/// What somebody gets who registered or logged in.
pub struct Welcome {
    pub user_id: OwnedUserId,
    /// None if only the account was asked for.
    pub session: Option<NewDevice>,
}

/// A session that has just begun.
pub struct NewDevice {
    pub device_id: OwnedDeviceId,
    pub tokens: Tokens,
}

/// What proves a session: the only time that anybody sees it.
pub struct Tokens {
    pub access_token: String,
    pub refresh_token: Option<String>,
    /// None: until the session is ended.
    pub expires_in: Option<Duration>,
}

/// How a registration is justified.
enum Right {
    Open,
    /// By a token that counts its uses.
    Token(String),
    /// By the operator.
    Operator {
        admin: bool,
    },
}

impl Accounts {
    pub fn new(
        server_name: OwnedServerName,
        sources: Sources,
        registration: config::Registration,
        lifetimes: config::Sessions,
        sso: config::Sso,
    ) -> Self {
        let Sources { storage, clock, rng, sessions, limits, erased } = sources;
        let passwords = Passwords::new(Arc::clone(&rng), &registration);
        Self {
            server_name,
            storage,
            clock,
            rng,
            sessions,
            limits,
            erased,
            registration,
            lifetimes,
            sso,
            passwords,
            empty: AtomicBool::new(false),
        }
    }

    /// At the start: if there is no user yet, the token with which the first one registers as an administrator. The
    /// caller shows it to the operator.
    pub async fn first_start(&self) -> Result<Option<String>> {
        let fresh = random_string(&*self.rng, 32);
        let token = self.storage.first_admin_token(&fresh, self.clock.now_ms()).await?;
        self.empty.store(token.is_some(), Ordering::Relaxed);
        Ok(token)
    }

    /// Fails if the name can't be registered.
    pub async fn available(&self, username: &str) -> Result<()> {
        let user_id = ids::new_user_id(username, &self.server_name)?;
        match self.storage.user(user_id.as_str()).await? {
            Some(_) => Err(taken()),
            None => Ok(()),
        }
    }

    /// Makes an account for somebody who asks for one, if they pass the flow.
    pub async fn register(&self, wanted: Registration, auth: Option<&AuthData>) -> Result<Welcome> {
        let stages = self.registration_stages().await?;
        if let Some(name) = &wanted.username {
            self.available(name).await?;
        }
        let right = self.right_to_register(stages, auth)?;
        match self.make(wanted, right).await? {
            Some(welcome) => Ok(welcome),
            None => Err(uia::ask(&*self.rng, stages, auth, Some("This registration token is not valid"))),
        }
    }

    /// Makes an account for the operator.
    pub async fn create(&self, wanted: Registration, admin: bool) -> Result<Welcome> {
        let made = self.make(wanted, Right::Operator { admin }).await?;
        made.ok_or_else(|| Error::internal("the operator needs no registration token"))
    }

    /// There is an account now, whoever made it.
    pub(super) fn somebody_came(&self) {
        self.empty.store(false, Ordering::Relaxed);
    }

    async fn registration_stages(&self) -> Result<&'static [&'static str]> {
        // The first account may also be made by another process.
        if self.empty.load(Ordering::Relaxed) && self.storage.anybody().await? {
            self.empty.store(false, Ordering::Relaxed);
        }
        match (self.registration.is_open(), self.empty.load(Ordering::Relaxed)) {
            (true, true) => Ok(&[uia::DUMMY, uia::REGISTRATION_TOKEN]),
            (true, false) => Ok(&[uia::DUMMY]),
            (false, first) if first || self.registration.allow_registration => Ok(&[uia::REGISTRATION_TOKEN]),
            (false, _) => Err(Error::forbidden("This server takes no registrations")),
        }
    }

    fn right_to_register(&self, stages: &[&str], auth: Option<&AuthData>) -> Result<Right> {
        match auth {
            Some(AuthData::RegistrationToken(stage)) if self.is_configured_token(&stage.token) => Ok(Right::Open),
            Some(AuthData::RegistrationToken(stage)) => Ok(Right::Token(stage.token.clone())),
            Some(AuthData::Dummy(_)) if stages.contains(&uia::DUMMY) => Ok(Right::Open),
            _ => Err(uia::ask(&*self.rng, stages, auth, None)),
        }
    }

    /// None: the registration token is not valid.
    async fn make(&self, wanted: Registration, right: Right) -> Result<Option<Welcome>> {
        let Registration { username, password, device } = wanted;
        let named = username.as_deref().map(|name| ids::new_user_id(name, &self.server_name)).transpose()?;
        let device = device.map(|wish| self.new_device(wish)).transpose()?;
        // A token that is spent must not cost a hash.
        if let Right::Token(token) = &right
            && !self.registration_token_is_valid(token).await?
        {
            return Ok(None);
        }
        // An account may do without a password: its owner then can't log in by one.
        let password_hash = match password.filter(|p| !p.is_empty()) {
            Some(password) => Some(self.hash(password).await?),
            None => None,
        };
        let (admin, token) = match right {
            Right::Open => (false, None),
            Right::Token(token) => (false, Some(token)),
            Right::Operator { admin } => (admin, None),
        };
        // A name that we make up may be taken by chance, and anybody may take one between our look and the insert.
        for _ in 0..5 {
            let user_id = match &named {
                Some(user_id) => user_id.clone(),
                None => ids::new_user_id(&random_string(&*self.rng, 12), &self.server_name)?,
            };
            let user = NewUser {
                user_id: user_id.to_string(),
                password_hash: password_hash.clone(),
                admin,
                created_ms: self.clock.now_ms(),
            };
            let session = device.as_ref().map(|(session, _)| session.clone());
            match self.storage.register(user, session, token.clone()).await {
                Ok(Registered::Done { .. }) => {
                    self.somebody_came();
                    return Ok(Some(Welcome { user_id, session: device.map(|(_, welcome)| welcome) }));
                }
                Ok(Registered::BadToken) => return Ok(None),
                Ok(Registered::Taken) if named.is_some() => return Err(taken()),
                Ok(Registered::Taken) | Err(hearth_storage::Error::Conflict(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(Error::unavailable("No free user name was found"))
    }

    pub(super) async fn hash(&self, password: String) -> Result<String> {
        if password.is_empty() {
            return Err(Error::new(Kind::WeakPassword, "The password is empty"));
        }
        if password.len() > MAX_PASSWORD_BYTES {
            return Err(Error::invalid_param(format!("A password has at most {MAX_PASSWORD_BYTES} bytes")));
        }
        self.passwords.hash(password).await
    }

    /// Sets a new password, and ends the user's other sessions if that is wanted.
    pub async fn change_password(&self, session: &Session, password: String, end_others: bool) -> Result<()> {
        let hash = self.hash(password).await?;
        let keep = Some(session.device_id.as_str());
        let ending = end_others.then(|| self.ending());
        if !self.storage.set_password(session.user_id.as_str(), &hash, keep, ending).await? {
            return Err(Error::new(Kind::UserDeactivated, "This account has been deactivated"));
        }
        self.sessions.revoked([&*session.user_id]);
        Ok(())
    }

    /// Ends the account for good. `erase`: who was not there when the user said something gets redacted copies only.
    pub async fn deactivate(&self, user_id: &UserId, erase: bool) -> Result<()> {
        let ended = self.storage.deactivate(user_id.as_str(), erase, self.ending()).await?;
        self.sessions.revoked([user_id]);
        if erase {
            self.erased.look(Some(vec![user_id.to_string()])).await?;
        }
        if ended { Ok(()) } else { Err(Error::not_found(format!("There is no active user {user_id}"))) }
    }

    pub(super) fn ending(&self) -> Ending {
        Ending { at_ms: self.clock.now_ms(), job_id: random_string(&*self.rng, 24) }
    }
}

fn taken() -> Error {
    Error::new(Kind::UserInUse, "This user name is taken")
}
