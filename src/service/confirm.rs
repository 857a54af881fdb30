//! Proving again who one is, before something that a token alone should not do.

use hearth_core::{Error, Result};
use ruma::api::client::uiaa::{AuthData, Password, UserIdentifier};

use super::{accounts::Accounts, session::Session, sessions::hash, uia};

/// What is about to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    SetPassword,
    Deactivate,
    EndDevices,
    ReplaceKeys,
    LogInElsewhere,
}

impl Deed {
    /// As it is stored, and known to the page that asks whether it is meant.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SetPassword => "set_password",
            Self::Deactivate => "deactivate",
            Self::EndDevices => "end_devices",
            Self::ReplaceKeys => "replace_keys",
            Self::LogInElsewhere => "log_in_elsewhere",
        }
    }
}

impl Accounts {
    /// Fails with what the client has to do, until it has given the password of this very user, or they have logged in
    /// at a provider that knows them.
    pub async fn confirm(&self, session: &Session, auth: Option<&AuthData>, deed: Deed) -> Result<()> {
        let stages = self.stages(session).await?;
        match auth {
            Some(AuthData::Password(stage)) if stages.contains(&uia::PASSWORD) => {
                if self.confirm_by_password(session, stage).await? {
                    return Ok(());
                }
                Err(self.ask(session, &stages, auth, deed, Some("Wrong password")).await?)
            }
            Some(auth) if stages.contains(&uia::SSO) && is_said_to_be_done(auth) => {
                self.limits.confirmation(session).await?;
                let (id, user, now) = (auth.session().unwrap_or_default(), &session.user_id, self.clock.now_ms());
                if self.storage.use_confirmation(hash(id), user.as_str(), deed.name(), now).await? {
                    return Ok(());
                }
                Err(self.ask(session, &stages, Some(auth), deed, Some("You have not confirmed this")).await?)
            }
            _ => Err(self.ask(session, &stages, auth, deed, None).await?),
        }
    }

    /// By what the user can prove who they are. Who has no password is not asked for one, unless there is nothing else
    /// to ask for.
    async fn stages(&self, session: &Session) -> Result<Vec<&'static str>> {
        if self.sso.identity_provider.is_empty() {
            return Ok(vec![uia::PASSWORD]);
        }
        let user = session.user_id.as_str();
        let ids = self.storage.external_ids(user).await?;
        let known = |provider: &str| self.sso.identity_provider.iter().any(|one| one.id() == provider);
        if !ids.iter().any(|id| known(&id.provider)) {
            return Ok(vec![uia::PASSWORD]);
        }
        let has_password = self.storage.user(user).await?.is_some_and(|user| user.password_hash.is_some());
        if has_password && self.takes_passwords() {
            return Ok(vec![uia::SSO, uia::PASSWORD]);
        }
        Ok(vec![uia::SSO])
    }

    async fn confirm_by_password(&self, session: &Session, stage: &Password) -> Result<bool> {
        let named = match &stage.identifier {
            UserIdentifier::Matrix(id) => self.local_user(&id.user),
            _ => None,
        };
        if named.as_deref() != Some(&*session.user_id) {
            return Err(Error::forbidden("This is not the user who is logged in"));
        }
        self.limits.confirmation(session).await?;
        Ok(self.check(named, stage.password.clone()).await?.is_some())
    }

    /// The 401 that says what to do.
    async fn ask(
        &self,
        session: &Session,
        stages: &[&str],
        auth: Option<&AuthData>,
        deed: Deed,
        failed: Option<&str>,
    ) -> Result<Error> {
        if !stages.contains(&uia::SSO) {
            return Ok(uia::ask(&*self.rng, stages, auth, failed));
        }
        let (user, now) = (session.user_id.as_str(), self.clock.now_ms());
        if let Some(id) = auth.and_then(AuthData::session) {
            let asked = self.storage.confirmation(hash(id), now).await?;
            if asked.is_some_and(|asked| asked.user_id == user && asked.deed == deed.name()) {
                return Ok(uia::ask_in(id.to_owned(), stages, failed));
            }
        }
        let id = uia::new_session(&*self.rng);
        let expires_ms = now.saturating_add(uia::CONFIRMED_FOR_MS);
        self.storage.ask_confirmation(hash(&id), user, deed.name(), expires_ms).await?;
        Ok(uia::ask_in(id, stages, failed))
    }
}

/// A client says nothing but its session once somebody has been elsewhere; some name the stage.
fn is_said_to_be_done(auth: &AuthData) -> bool {
    let named = auth.auth_type().is_some_and(|kind| kind.as_str() == uia::SSO);
    auth.session().is_some() && (named || matches!(auth, AuthData::FallbackAcknowledgement(_)))
}
