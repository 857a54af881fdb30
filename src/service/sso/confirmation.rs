//! Confirming at a provider what one is about to do here.

use hearth_storage::sso::external::LinkedUser;

use super::{Cookie, Next, Sso, Stop, flow::Purpose, provider::Provider};
use crate::service::{
    sessions::{TokenHash, hash},
    uia,
};

/// What somebody is asked to confirm, and where they can.
pub enum Asked {
    Confirm {
        user_id: String,
        deed: String,
        ways: Vec<Way>,
    },
    /// They have.
    Done,
}

/// A provider that knows the user.
pub struct Way {
    pub name: String,
    pub url: String,
    pub cookie: Cookie,
}

impl Sso {
    /// Whatever waits for this session of user-interactive authentication.
    pub async fn asked(&self, session: &str) -> Result<Asked, Stop> {
        let session = hash(session);
        let asked = self.storage.confirmation(session, self.clock.now_ms()).await?.ok_or(Stop::Expired)?;
        if asked.done {
            return Ok(Asked::Done);
        }
        let mut ways: Vec<Way> = Vec::new();
        let mut silent = None;
        let ids = self.storage.external_ids(&asked.user_id).await?;
        let knows = |provider: &&Provider| ids.iter().any(|id| id.provider == provider.id);
        for provider in self.providers.iter().filter(knows) {
            let purpose = Purpose::Confirm { session, user_id: asked.user_id.clone() };
            match self.depart(provider, purpose).await {
                Ok((url, cookie)) => ways.push(Way { name: provider.name.clone(), url, cookie }),
                Err(stop) => silent = Some(stop),
            }
        }
        match silent {
            Some(stop) if ways.is_empty() => Err(stop),
            None if ways.is_empty() => Err(Stop::Expired),
            _ => Ok(Asked::Confirm { user_id: asked.user_id, deed: asked.deed, ways }),
        }
    }

    /// Somebody has logged in at a provider to confirm what a user is about to do.
    pub(super) async fn confirmed(
        &self,
        provider: &Provider,
        linked: Option<LinkedUser>,
        session: TokenHash,
        user_id: &str,
    ) -> Result<Next, Stop> {
        if linked.is_none_or(|linked| linked.deactivated || linked.user_id != user_id) {
            super::count(provider, "refused");
            return Err(Stop::NotYou(user_id.to_owned()));
        }
        let now = self.clock.now_ms();
        if !self.storage.confirm(session, user_id, now.saturating_add(uia::CONFIRMED_FOR_MS), now).await? {
            return Err(Stop::Expired);
        }
        super::count(provider, "confirmed");
        Ok(Next::Confirmed)
    }
}
