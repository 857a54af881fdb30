//! Accounts: coming, being known, leaving.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use hearth_core::{
    Error, Kind, Result,
    clock::{Clock, Rng, random_string},
};
use hearth_storage::{
    Storage,
    accounts::{NewUser, Registered, RegistrationToken, UserRow},
    sessions::{DeviceRow, Ending, LoggedIn, NewSession},
};
use ruma::{
    DeviceId, OwnedDeviceId, OwnedServerName, OwnedUserId, UserId,
    api::client::uiaa::{AuthData, UserIdentifier},
};
use subtle::ConstantTimeEq as _;

use crate::config;

use super::{
    passwords::{MAX_PASSWORD_BYTES, Passwords},
    rate_limit::RateLimits,
    session::Session,
    sessions::{Sessions, TokenHash, new_token},
    uia,
};

/// The specification's limit for all ids.
const MAX_ID_BYTES: usize = 255;
const MAX_DEVICE_NAME_BYTES: usize = 1_000;
const WRONG_PASSWORD: &str = "Wrong user name or password";

/// Users, their passwords and their sessions.
pub struct Accounts {
    server_name: OwnedServerName,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    pub(super) registration: config::Registration,
    sessions: Arc<Sessions>,
    limits: Arc<RateLimits>,
    passwords: Passwords,
    /// There is no user yet: the first comes with the token that was printed at the start.
    empty: AtomicBool,
}

/// What somebody asks for who wants an account.
#[derive(Default)]
pub struct Registration {
    pub username: Option<String>,
    pub password: Option<String>,
    pub device_id: Option<OwnedDeviceId>,
    pub device_name: Option<String>,
    /// Make the account only, no session.
    pub inhibit_login: bool,
}

/// What somebody gets who registered or logged in.
pub struct Welcome {
    pub user_id: OwnedUserId,
    /// None if only the account was asked for.
    pub session: Option<NewDevice>,
}

/// A session that has just begun: the only time that anybody sees its token.
pub struct NewDevice {
    pub device_id: OwnedDeviceId,
    pub access_token: String,
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
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        sessions: Arc<Sessions>,
        limits: Arc<RateLimits>,
        registration: config::Registration,
    ) -> Self {
        let passwords = Passwords::new(Arc::clone(&rng));
        Self {
            server_name,
            storage,
            clock,
            rng,
            registration,
            sessions,
            limits,
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

    /// The user id that somebody may register under: the name in lower case, in today's alphabet.
    pub(super) fn user_id(&self, username: &str) -> Result<OwnedUserId> {
        let invalid = |why: &'static str| Error::new(Kind::InvalidUsername, why);
        let localpart = username.to_lowercase();
        let allowed = |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'=' | b'_' | b'/' | b'+');
        if localpart.is_empty() || !localpart.bytes().all(allowed) {
            return Err(invalid("A user name consists of a-z, 0-9 and the characters -.=_/+"));
        }
        let id = format!("@{localpart}:{}", self.server_name);
        if id.len() > MAX_ID_BYTES {
            return Err(invalid("This user name is too long"));
        }
        OwnedUserId::try_from(id).map_err(|_| invalid("This is no user name"))
    }

    /// Fails if the name can't be registered.
    pub async fn available(&self, username: &str) -> Result<()> {
        let user_id = self.user_id(username)?;
        match self.storage.user(user_id.as_str()).await? {
            Some(_) => Err(taken()),
            None => Ok(()),
        }
    }

    /// Makes an account for somebody who asks for one, if they pass the flow.
    pub async fn register(&self, wanted: Registration, auth: Option<&AuthData>) -> Result<Welcome> {
        let stages = self.registration_stages()?;
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

    /// Makes an account with a password that we make up, for an operator at the command line, who is to be shown it.
    pub async fn create_with_password(&self, localpart: &str, admin: bool) -> Result<(OwnedUserId, String)> {
        let password = random_string(&*self.rng, 24);
        let wanted = Registration {
            username: Some(localpart.to_owned()),
            password: Some(password.clone()),
            inhibit_login: true,
            ..Registration::default()
        };
        Ok((self.create(wanted, admin).await?.user_id, password))
    }

    /// A token that lets somebody register.
    pub async fn create_registration_token(
        &self,
        token: Option<String>,
        uses_allowed: Option<i64>,
        expires_ms: Option<i64>,
        makes_admin: bool,
    ) -> Result<RegistrationToken> {
        let token = token.unwrap_or_else(|| random_string(&*self.rng, 32));
        if !may_be_registration_token(&token) {
            return Err(Error::invalid_param("A token has 1 to 64 of the characters A-Z, a-z, 0-9 and ._~-"));
        }
        let token = RegistrationToken { token, uses_allowed, uses: 0, expires_ms, makes_admin };
        if !self.storage.create_registration_token(token.clone(), self.clock.now_ms()).await? {
            return Err(Error::invalid_param("There is such a token already"));
        }
        Ok(token)
    }

    /// Whether somebody could register with this token now.
    pub async fn registration_token_is_valid(&self, token: &str) -> Result<bool> {
        if self.is_configured_token(token) {
            return Ok(true);
        }
        if !may_be_registration_token(token) {
            return Ok(false);
        }
        let known = self.storage.registration_token(token).await?;
        Ok(known.is_some_and(|token| token.is_valid(self.clock.now_ms())))
    }

    fn is_configured_token(&self, token: &str) -> bool {
        let configured = self.registration.registration_token.as_ref();
        configured.is_some_and(|known| bool::from(known.expose().as_bytes().ct_eq(token.as_bytes())))
    }

    fn registration_stages(&self) -> Result<&'static [&'static str]> {
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
        let Registration { username, password, device_id, device_name, inhibit_login } = wanted;
        let named = username.as_deref().map(|name| self.user_id(name)).transpose()?;
        let device = self.device(device_id, device_name, inhibit_login)?;
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
                None => self.user_id(&random_string(&*self.rng, 12))?,
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
                    self.empty.store(false, Ordering::Relaxed);
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

    fn device(
        &self,
        device_id: Option<OwnedDeviceId>,
        display_name: Option<String>,
        inhibit_login: bool,
    ) -> Result<Option<(NewSession, NewDevice)>> {
        if inhibit_login {
            return Ok(None);
        }
        self.new_device(device_id, display_name).map(Some)
    }

    fn new_device(
        &self,
        device_id: Option<OwnedDeviceId>,
        display_name: Option<String>,
    ) -> Result<(NewSession, NewDevice)> {
        let device_id = match device_id {
            Some(id) if !is_device_id(id.as_str()) => {
                return Err(Error::invalid_param("A device id has 1 to 255 bytes"));
            }
            Some(id) => id,
            None => random_string(&*self.rng, 10).to_uppercase().into(),
        };
        let display_name = display_name.map(device_name).transpose()?;
        let (access_token, token_hash): (String, TokenHash) = new_token(&*self.rng);
        let session = NewSession {
            device_id: device_id.to_string(),
            display_name,
            token_hash,
            created_ms: self.clock.now_ms(),
            expires_ms: None,
        };
        Ok((session, NewDevice { device_id, access_token }))
    }

    /// Starts a session for somebody who knows the password.
    pub async fn login(
        &self,
        user: &str,
        password: String,
        device_id: Option<OwnedDeviceId>,
        device_name: Option<String>,
    ) -> Result<Welcome> {
        let (session, welcome) = self.new_device(device_id, device_name)?;
        let Some((user_id, hash)) = self.check(user, password).await? else {
            return Err(Error::forbidden(WRONG_PASSWORD));
        };
        match self.storage.login(user_id.as_str(), Some(&hash), session).await? {
            LoggedIn::Done { again } => {
                if again {
                    self.sessions.revoked([&*user_id]);
                }
                Ok(Welcome { user_id, session: Some(welcome) })
            }
            LoggedIn::Refused => Err(Error::forbidden(WRONG_PASSWORD)),
        }
    }

    /// The user and their password's hash, if the password is right. That there is no such user takes as long to find
    /// out as that the password is wrong.
    async fn check(&self, user: &str, password: String) -> Result<Option<(OwnedUserId, String)>> {
        let named = self.local_user(user);
        self.limits.account(&named.as_ref().map_or(user, |id| id.as_str()).to_lowercase()).await?;
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
        let Some(lower) = self.user_id(id.localpart()).ok().filter(|lower| *lower != id) else { return Ok(None) };
        let row = self.storage.user(lower.as_str()).await?;
        Ok(row.filter(|row| !row.deactivated).map(|row| (lower, row)))
    }

    /// A user of ours, by the whole id or the local part.
    fn local_user(&self, user: &str) -> Option<OwnedUserId> {
        let id = UserId::parse_with_server_name(user, &self.server_name).ok()?;
        (id.server_name() == &*self.server_name).then_some(id)
    }

    async fn hash(&self, password: String) -> Result<String> {
        if password.is_empty() {
            return Err(Error::new(Kind::WeakPassword, "The password is empty"));
        }
        if password.len() > MAX_PASSWORD_BYTES {
            return Err(Error::invalid_param(format!("A password has at most {MAX_PASSWORD_BYTES} bytes")));
        }
        self.passwords.hash(password).await
    }

    /// Fails with what the client has to do, until it has given the password of this very user.
    pub async fn confirm(&self, session: &Session, auth: Option<&AuthData>) -> Result<()> {
        let stages = &[uia::PASSWORD];
        let Some(AuthData::Password(stage)) = auth else {
            return Err(uia::ask(&*self.rng, stages, auth, None));
        };
        let named = match &stage.identifier {
            UserIdentifier::Matrix(id) => self.local_user(&id.user),
            _ => None,
        };
        if named.as_deref() != Some(&*session.user_id) {
            return Err(Error::forbidden("This is not the user who is logged in"));
        }
        match self.check(session.user_id.as_str(), stage.password.clone()).await? {
            Some(_) => Ok(()),
            None => Err(uia::ask(&*self.rng, stages, auth, Some("Wrong password"))),
        }
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

    /// Ends the sessions of some of the user's devices. Those that aren't there are passed over.
    pub async fn end_devices(&self, session: &Session, devices: &[OwnedDeviceId]) -> Result<()> {
        let devices = devices.iter().filter(|d| is_device_id(d.as_str())).map(ToString::to_string).collect();
        self.storage.end_sessions(session.user_id.as_str(), devices, self.ending()).await?;
        self.sessions.revoked([&*session.user_id]);
        Ok(())
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

    /// Ends the account for good.
    pub async fn deactivate(&self, user_id: &UserId, erase: bool) -> Result<()> {
        let ended = self.storage.deactivate(user_id.as_str(), erase, self.ending()).await?;
        self.sessions.revoked([user_id]);
        if ended { Ok(()) } else { Err(Error::not_found("There is no such active user")) }
    }

    /// The user's devices, oldest first.
    pub async fn devices(&self, session: &Session) -> Result<Vec<DeviceRow>> {
        Ok(self.storage.devices(session.user_id.as_str()).await?)
    }

    pub async fn device_of(&self, session: &Session, device: &DeviceId) -> Result<DeviceRow> {
        if !is_device_id(device.as_str()) {
            return Err(no_device());
        }
        let found = self.storage.device(session.user_id.as_str(), device.as_str()).await?;
        found.ok_or_else(no_device)
    }

    /// Gives one of the user's devices a name; without a name nothing changes.
    pub async fn rename_device(&self, session: &Session, device: &DeviceId, name: Option<String>) -> Result<()> {
        self.device_of(session, device).await?;
        let Some(name) = name.map(device_name).transpose()? else { return Ok(()) };
        let known = self.storage.rename_device(session.user_id.as_str(), device.as_str(), Some(&name)).await?;
        if known { Ok(()) } else { Err(no_device()) }
    }

    fn ending(&self) -> Ending {
        Ending { at_ms: self.clock.now_ms(), job_id: random_string(&*self.rng, 24) }
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    pub(super) fn rng(&self) -> &dyn Rng {
        &*self.rng
    }
}

/// <https://spec.matrix.org/v1.16/client-server-api/#token-authenticated-registration>
fn may_be_registration_token(token: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~-".contains(&b);
    (1..=64).contains(&token.len()) && token.bytes().all(allowed)
}

/// What no device was ever called: Postgres doesn't even want to hear of a null byte.
fn is_device_id(id: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len()) && !id.contains('\0')
}

fn device_name(name: String) -> Result<String> {
    if name.len() > MAX_DEVICE_NAME_BYTES || name.contains('\0') {
        return Err(Error::invalid_param(format!("A device name has at most {MAX_DEVICE_NAME_BYTES} bytes")));
    }
    Ok(name)
}

fn taken() -> Error {
    Error::new(Kind::UserInUse, "This user name is taken")
}

fn no_device() -> Error {
    Error::not_found("There is no such device")
}
