//! The walk to a provider, and back to a client.

use hearth_core::Error;
use hearth_storage::sso::{
    external::LinkedUser,
    tokens::{NewLoginToken, ProviderSession},
};

use super::{
    Answered, Cookie, Leave, Next, Place, Sso, Stop,
    claims::Identity,
    count,
    flow::{AtProvider, Leaving, Purpose, kept, look, new_cookie, secret, take},
    provider::{Doubt, Provider, Secrets},
    redirect::Redirect,
};
use crate::service::sessions::{TokenHash, hash, new_login_token};

impl Sso {
    /// Whether somebody could be sent back there.
    pub fn check_redirect(&self, redirect: &str) -> Result<(), Stop> {
        Redirect::parse(redirect).map(drop).ok_or(Stop::BadRedirect)
    }

    /// Sends a browser to a provider, to come back to a client with a login token.
    pub async fn begin(&self, provider: &str, redirect: &str) -> Result<Next, Stop> {
        let redirect = Redirect::parse(redirect).ok_or(Stop::BadRedirect)?;
        let provider = self.provider(provider)?;
        let purpose = Purpose::Login { redirect: redirect.as_str().to_owned() };
        let (url, cookie) = self.depart(provider, purpose).await?;
        Ok(Next::Away { url, cookie: Some(cookie) })
    }

    /// The URL by which a browser comes to a provider, and the cookie that it has to come back with.
    pub(super) async fn depart(&self, provider: &Provider, purpose: Purpose) -> Result<(String, Cookie), Stop> {
        let state = secret(&*self.rng);
        let secrets = Secrets { nonce: secret(&*self.rng), verifier: secret(&*self.rng) };
        let again = matches!(purpose, Purpose::Confirm { .. });
        let url = provider.authorization_url(state.clone(), &secrets, again).await;
        let url = url.map_err(|doubt| stop(provider, &doubt))?;
        let cookie = new_cookie(&*self.rng, &state, provider.is_secure());
        let step = AtProvider { provider: provider.id.clone(), secrets, purpose };
        let expires_ms = self.after(provider.config.grant_session_duration);
        self.storage.keep_flow(kept(&state, hash(&cookie.value), &step, expires_ms)?).await?;
        Ok((url, cookie))
    }

    /// A browser comes back from a provider.
    pub async fn callback(&self, provider: &str, answered: Answered, cookies: &[Cookie]) -> Result<Next, Stop> {
        let provider = self.provider(provider)?;
        let (storage, now) = (&*self.storage, self.clock.now_ms());
        let (step, cookie) =
            look::<AtProvider>(storage, &answered.state, cookies, |_| provider.is_secure(), now).await?;
        if step.provider != provider.id {
            return Err(stop(provider, &Doubt::Untrue("the login began at another provider".to_owned())));
        }
        let AtProvider { secrets, purpose, .. } = take(storage, &answered.state, cookie, now).await?;
        let code = match (&answered.error, &answered.code) {
            (None, Some(code)) => code.clone(),
            _ => {
                count(provider, "refused");
                tracing::debug!(provider = provider.id, error = ?answered.error, "a provider refuses a login");
                return Err(Stop::Refused(provider.name.clone()));
            }
        };
        let identity = provider.identity(&answered, code, secrets).await.map_err(|doubt| stop(provider, &doubt))?;
        let linked = self.storage.linked_user(&provider.id, &identity.subject).await?;
        match purpose {
            Purpose::Confirm { session, user_id } => self.confirmed(provider, linked, session, &user_id).await,
            Purpose::Login { redirect } => match linked {
                Some(user) => self.welcome_back(provider, identity, user, redirect, cookie).await,
                None => self.welcome(provider, identity, redirect, cookie).await,
            },
        }
    }

    /// Somebody who has an account is sent back to the client, or asked whether they know it.
    pub(super) async fn welcome_back(
        &self,
        provider: &Provider,
        identity: Identity,
        user: LinkedUser,
        redirect: String,
        cookie: TokenHash,
    ) -> Result<Next, Stop> {
        if user.deactivated {
            count(provider, "refused");
            return Err(Stop::Deactivated);
        }
        let Identity { subject, sid, email, .. } = identity;
        self.storage.set_external_email(&provider.id, &subject, email.as_deref()).await?;
        let leaving = Leaving { provider: provider.id.clone(), subject, sid, user_id: user.user_id, redirect };
        let place = Redirect::parse(&leaving.redirect).ok_or(Stop::BadRedirect)?;
        if place.is_among(&self.known) {
            return self.send_back(leaving).await;
        }
        let ticket = secret(&*self.rng);
        let expires_ms = self.after(provider.config.grant_session_duration);
        self.storage.keep_flow(kept(&ticket, cookie, &leaving, expires_ms)?).await?;
        Ok(Next::Leave(Leave { ticket, user_id: leaving.user_id, place: Place::from(&place) }))
    }

    /// Somebody says whether they know the client.
    pub async fn leave(&self, ticket: &str, cookies: &[Cookie], go: bool) -> Result<Next, Stop> {
        let (storage, now) = (&*self.storage, self.clock.now_ms());
        let secure = |leaving: &Leaving| self.provider(&leaving.provider).is_ok_and(Provider::is_secure);
        let (_, cookie) = look::<Leaving>(storage, ticket, cookies, secure, now).await?;
        let leaving = take::<Leaving>(storage, ticket, cookie, now).await?;
        if go { self.send_back(leaving).await } else { Err(Stop::Cancelled) }
    }

    async fn send_back(&self, leaving: Leaving) -> Result<Next, Stop> {
        let provider = self.provider(&leaving.provider)?;
        let Leaving { subject, sid, user_id, redirect, .. } = leaving;
        let place = Redirect::parse(&redirect).ok_or(Stop::BadRedirect)?;
        let (token, token_hash) = new_login_token(&*self.rng);
        let from = Some(ProviderSession { provider: provider.id.clone(), subject, sid });
        let expires_ms = self.clock.now_ms().saturating_add(self.token_ttl_ms);
        self.storage.keep_login_token(NewLoginToken { token_hash, user_id, from, expires_ms }).await?;
        count(provider, "done");
        Ok(Next::Away { url: place.with_token(&token), cookie: None })
    }
}

/// What people are told of a provider that vouches for nobody, and what operators are.
pub(super) fn stop(provider: &Provider, doubt: &Doubt) -> Stop {
    count(provider, "failed");
    tracing::warn!(provider = provider.id, reason = %doubt, "a login at a provider fails");
    match doubt {
        Doubt::Silent(_) => Stop::Unreachable(provider.name.clone()),
        Doubt::Untrue(_) => Stop::Untrue(provider.name.clone()),
    }
}

impl Stop {
    /// What somebody can do better in the same form.
    pub(super) fn problem(error: Error) -> Result<String, Self> {
        match error {
            Error::Matrix { message, .. } => Ok(message.into_owned()),
            other => Err(Self::Failed(other)),
        }
    }
}
