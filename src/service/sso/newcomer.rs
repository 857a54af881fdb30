//! People of a provider who have no account here yet: they get one, or say which is theirs.

use std::net::IpAddr;

use hearth_core::{Error, Kind, ids};
use hearth_storage::{
    accounts::NewUser,
    sso::external::{ExternalId, Joined, Linked, LinkedUser},
};
use ruma::{OwnedUserId, profile::ProfileFieldValue};

use super::{
    Cookie, Next, Place, Sso, Stop,
    claims::Identity,
    count,
    flow::{Newcomer, kept, look, secret, take},
    provider::Provider,
    redirect::Redirect,
};
use crate::service::{rate_limit::Limited, sessions::TokenHash};

/// What somebody is asked who has no account here.
pub struct NameWish {
    pub ticket: String,
    pub provider: String,
    pub server_name: String,
    /// What they might be called.
    pub localpart: String,
    pub display_name: Option<String>,
    pub place: Place,
    /// They may have a new account.
    pub may_join: bool,
    /// They may say which is theirs, by its password.
    pub may_link: bool,
    /// The account that they said is theirs.
    pub user: String,
    /// Why the name is none for them.
    pub name_problem: Option<String>,
    /// Why the account is not theirs.
    pub link_problem: Option<String>,
}

impl Sso {
    /// Somebody who has no account yet.
    pub(super) async fn welcome(
        &self,
        provider: &Provider,
        identity: Identity,
        redirect: String,
        cookie: TokenHash,
    ) -> Result<Next, Stop> {
        if provider.config.trusted
            && let Some(user) = self.adopt(provider, &identity).await?
        {
            return self.welcome_back(provider, identity, user, redirect, cookie).await;
        }
        let name = identity.localpart.clone().unwrap_or_default();
        let newcomer = Newcomer { provider: provider.id.clone(), identity, redirect };
        if provider.config.registration
            && !provider.config.confirm_localpart
            && let Ok(user) = self.join(provider, &newcomer.identity, &name).await?
        {
            return self.welcome_back(provider, newcomer.identity, user, newcomer.redirect, cookie).await;
        }
        let wish = self.wish(provider, &newcomer, secret(&*self.rng))?;
        if !wish.may_join && !wish.may_link {
            count(provider, "refused");
            return Err(Stop::NoAccount(provider.name.clone()));
        }
        let expires_ms = self.after(provider.config.grant_session_duration);
        self.storage.keep_flow(kept(&wish.ticket, cookie, &newcomer, expires_ms)?).await?;
        Ok(Next::Name(Box::new(wish)))
    }

    /// Somebody has chosen a name.
    pub async fn choose_name(&self, ticket: &str, cookies: &[Cookie], name: &str) -> Result<Next, Stop> {
        let (provider, newcomer, cookie) = self.newcomer(ticket, cookies).await?;
        if !provider.config.registration {
            return Err(Stop::NoAccount(provider.name.clone()));
        }
        match self.join(provider, &newcomer.identity, name).await? {
            Ok(user) => self.settled(provider, newcomer, user, ticket, cookie).await,
            Err(problem) => {
                let wish = self.wish(provider, &newcomer, ticket.to_owned())?;
                let (localpart, name_problem) = (name.to_owned(), Some(problem));
                Ok(Next::Name(Box::new(NameWish { localpart, name_problem, ..wish })))
            }
        }
    }

    /// Somebody says which account is theirs.
    pub async fn link_account(
        &self,
        ticket: &str,
        cookies: &[Cookie],
        user: &str,
        password: String,
        ip: IpAddr,
    ) -> Result<Next, Stop> {
        let (provider, newcomer, cookie) = self.newcomer(ticket, cookies).await?;
        if !self.accounts.takes_passwords() {
            return Err(Stop::NoAccount(provider.name.clone()));
        }
        let proved = async {
            self.accounts.limits.address(Limited::LoginAddress, ip).await?;
            self.accounts.prove(user, password).await
        };
        match proved.await {
            Ok(user_id) => match self.storage.link(self.external(provider, &newcomer.identity, &user_id), false).await?
            {
                Linked::Done => {
                    let linked = LinkedUser { user_id: user_id.to_string(), deactivated: false };
                    self.settled(provider, newcomer, linked, ticket, cookie).await
                }
                Linked::Already(user) => self.settled(provider, newcomer, user, ticket, cookie).await,
                Linked::NoUser | Linked::Other => Err(Stop::Deactivated),
            },
            Err(error) => {
                let wish = self.wish(provider, &newcomer, ticket.to_owned())?;
                let (user, link_problem) = (user.to_owned(), Some(Stop::problem(error)?));
                Ok(Next::Name(Box::new(NameWish { user, link_problem, ..wish })))
            }
        }
    }

    async fn newcomer(&self, ticket: &str, cookies: &[Cookie]) -> Result<(&Provider, Newcomer, TokenHash), Stop> {
        let secure = |newcomer: &Newcomer| self.provider(&newcomer.provider).is_ok_and(Provider::is_secure);
        let now = self.clock.now_ms();
        let (newcomer, cookie) = look::<Newcomer>(&*self.storage, ticket, cookies, secure, now).await?;
        Ok((self.provider(&newcomer.provider)?, newcomer, cookie))
    }

    /// They have an account now: the form is of no use any more.
    async fn settled(
        &self,
        provider: &Provider,
        newcomer: Newcomer,
        user: LinkedUser,
        ticket: &str,
        cookie: TokenHash,
    ) -> Result<Next, Stop> {
        take::<Newcomer>(&*self.storage, ticket, cookie, self.clock.now_ms()).await?;
        self.welcome_back(provider, newcomer.identity, user, newcomer.redirect, cookie).await
    }

    /// The account of the name that a trusted provider gives them. None: there is none yet.
    async fn adopt(&self, provider: &Provider, identity: &Identity) -> Result<Option<LinkedUser>, Stop> {
        let name = identity.localpart.as_deref().unwrap_or_default();
        let Ok(user_id) = ids::new_user_id(name, &self.accounts.server_name) else { return Ok(None) };
        // Letter by letter: where capitals are others, `Alice` is not whom `alice` is here. And who may do everything says
        // themselves, by their password, that it is them.
        let is_admin = self.storage.user(user_id.as_str()).await?.is_some_and(|row| row.admin);
        if user_id.localpart() != name || is_admin {
            return Ok(None);
        }
        match self.storage.link(self.external(provider, identity, &user_id), true).await? {
            Linked::Done => {
                tracing::info!(provider = provider.id, %user_id, "an account belongs to somebody of a trusted provider");
                Ok(Some(LinkedUser { user_id: user_id.into(), deactivated: false }))
            }
            Linked::Already(user) => Ok(Some(user)),
            Linked::Other => Err(Stop::Occupied),
            Linked::NoUser => match self.storage.user(user_id.as_str()).await? {
                Some(_) => Err(Stop::Deactivated),
                None => Ok(None),
            },
        }
    }

    /// A new account of this name; else why the name is none for them.
    async fn join(
        &self,
        provider: &Provider,
        identity: &Identity,
        name: &str,
    ) -> Result<Result<LinkedUser, String>, Stop> {
        let user_id = match ids::new_user_id(name, &self.accounts.server_name) {
            Ok(user_id) => user_id,
            Err(error) => return Stop::problem(error).map(Err),
        };
        let created_ms = self.clock.now_ms();
        let user = NewUser { user_id: user_id.to_string(), password_hash: None, admin: false, created_ms };
        match self.storage.join(user, self.external(provider, identity, &user_id)).await {
            Ok(Joined::Done) => {
                self.accounts.somebody_came();
                count(provider, "registered");
                self.introduce(&user_id, identity).await;
                Ok(Ok(LinkedUser { user_id: user_id.into(), deactivated: false }))
            }
            Ok(Joined::Already(user)) => Ok(Ok(user)),
            Ok(Joined::Taken) | Err(hearth_storage::Error::Conflict(_)) => {
                Stop::problem(Error::new(Kind::UserInUse, "This user name is taken")).map(Err)
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Sets what the provider knows of somebody's profile. Nobody is kept out because that fails.
    async fn introduce(&self, user_id: &OwnedUserId, identity: &Identity) {
        let name = identity.display_name.clone().map(ProfileFieldValue::DisplayName);
        let avatar = self.avatar(user_id, identity).await.map(ProfileFieldValue::AvatarUrl);
        for value in [name, avatar].into_iter().flatten() {
            if let Err(error) = self.profiles.set_of(user_id, &value).await {
                tracing::warn!(%user_id, %error, "a new profile is not what the provider says");
            }
        }
    }

    fn external(&self, provider: &Provider, identity: &Identity, user_id: &OwnedUserId) -> ExternalId {
        ExternalId {
            provider: provider.id.clone(),
            subject: identity.subject.clone(),
            user_id: user_id.to_string(),
            email: identity.email.clone(),
            created_ms: self.clock.now_ms(),
        }
    }

    fn wish(&self, provider: &Provider, newcomer: &Newcomer, ticket: String) -> Result<NameWish, Stop> {
        let place = Redirect::parse(&newcomer.redirect).ok_or(Stop::BadRedirect)?;
        Ok(NameWish {
            ticket,
            provider: provider.name.clone(),
            server_name: self.accounts.server_name.to_string(),
            localpart: newcomer.identity.localpart.clone().unwrap_or_default(),
            display_name: newcomer.identity.display_name.clone(),
            place: Place::from(&place),
            may_join: provider.config.registration,
            may_link: self.accounts.takes_passwords(),
            user: String::new(),
            name_problem: None,
            link_problem: None,
        })
    }
}
