//! Logging in by the word of somebody else: identity providers that speak OpenID Connect.
//!
//! A login is a walk of a browser from page to page. What is known in between is a row in the database that the browser
//! can name and nobody can guess, and that counts together with the cookie of that browser only; each is good for one
//! step. So any process can go on with it, and nobody can make another's browser go on with theirs.

mod asking;
mod avatar;
mod claims;
mod confirmation;
mod flow;
mod login;
mod logout;
mod newcomer;
mod provider;
mod redirect;

use std::sync::Arc;

use hearth_core::{
    Error, Result,
    clock::{Clock, Rng},
};
use hearth_storage::Storage;
use ruma::OwnedMxcUri;
use url::Url;

pub use self::{
    confirmation::Asked,
    flow::{COOKIE_SECONDS, Cookie, cookie_prefix},
    logout::Unheard,
    newcomer::NameWish,
    provider::Answered,
};
use self::{provider::Provider, redirect::Redirect};
use super::{accounts::Accounts, media::Media, profiles::Profiles};
use crate::{
    config::Config,
    http_client::{HttpClient, Resolve},
    telemetry::name,
};

/// Logins at identity providers.
pub struct Sso {
    providers: Vec<Provider>,
    /// Clients that people are sent back to without a question.
    known: Vec<Url>,
    token_ttl_ms: i64,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    accounts: Arc<Accounts>,
    profiles: Arc<Profiles>,
    media: Arc<Media>,
    http: HttpClient,
}

/// What the service works with.
pub struct Sources {
    pub storage: Arc<dyn Storage>,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
    pub accounts: Arc<Accounts>,
    pub profiles: Arc<Profiles>,
    pub media: Arc<Media>,
    /// For what people of a provider name, who are nobody that the operator knows.
    pub http: HttpClient,
    pub names: Arc<dyn Resolve>,
}

/// A provider as clients show it.
pub struct Offer {
    pub id: String,
    pub name: String,
    pub brand: Option<String>,
    pub icon: Option<OwnedMxcUri>,
}

/// Where a browser goes from here.
pub enum Next {
    /// Elsewhere: to a provider, or back to a client.
    Away { url: String, cookie: Option<Cookie> },
    /// Somebody has to choose a name, or to say which account is theirs.
    Name(Box<NameWish>),
    /// Somebody has to say whether they know the client that they are to be sent back to.
    Leave(Leave),
    /// It is confirmed what they want to do.
    Confirmed,
}

/// What somebody is asked before a client gets to be them.
pub struct Leave {
    pub ticket: String,
    pub user_id: String,
    pub place: Place,
}

/// The client that somebody is to be sent back to.
pub struct Place {
    /// What people should look at.
    pub shown: String,
    /// An app on the same machine, and not a web page.
    pub is_app: bool,
    /// As a source in a content security policy: where forms may lead.
    pub source: String,
}

impl From<&Redirect> for Place {
    fn from(redirect: &Redirect) -> Self {
        Self { shown: redirect.shown(), is_app: redirect.is_app(), source: redirect.source() }
    }
}

/// Why a browser goes nowhere.
#[derive(Debug)]
pub enum Stop {
    /// There is nothing that it could be in the middle of: it took too long, or did it already.
    Expired,
    /// Another browser is in the middle of it.
    OtherBrowser,
    NoSuchProvider,
    /// Nobody is sent back to such a URL.
    BadRedirect,
    /// The provider, or the person there, said no.
    Refused(String),
    /// The provider can't be reached.
    Unreachable(String),
    /// The provider says what is not believed.
    Untrue(String),
    /// There is no account here for these people of the provider.
    NoAccount(String),
    /// The account has been ended.
    Deactivated,
    /// The account is somebody else's of this provider.
    Occupied,
    /// Somebody else than the user who has to.
    NotYou(String),
    /// They changed their mind.
    Cancelled,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<hearth_storage::Error> for Stop {
    fn from(error: hearth_storage::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Sso {
    pub fn new(config: &Config, sources: Sources) -> Result<Self> {
        let Sources { storage, clock, rng, accounts, profiles, media, http, names } = sources;
        let provider = |one| {
            Provider::new(one, &config.server, &config.outgoing, Arc::clone(&names), Arc::clone(&clock))
                .ok_or_else(|| Error::internal(format!("the identity provider {} lacks something", one.id())))
        };
        Ok(Self {
            providers: config.sso.identity_provider.iter().map(provider).collect::<Result<_>>()?,
            known: config.sso.sso_client_whitelist.iter().filter_map(|url| url.parse().ok()).collect(),
            token_ttl_ms: i64::try_from(config.sso.login_token_ttl).unwrap_or(i64::MAX),
            storage,
            clock,
            rng,
            accounts,
            profiles,
            media,
            http,
        })
    }

    /// The providers, in the operator's order.
    pub fn offers(&self) -> impl Iterator<Item = Offer> {
        self.providers.iter().map(|provider| Offer {
            id: provider.id.clone(),
            name: provider.name.clone(),
            brand: provider.config.brand.as_ref().map(|brand| brand.to_ascii_lowercase()),
            icon: provider.config.icon.clone(),
        })
    }

    fn provider(&self, id: &str) -> Result<&Provider, Stop> {
        self.providers.iter().find(|provider| provider.id == id).ok_or(Stop::NoSuchProvider)
    }

    fn after(&self, seconds: u64) -> i64 {
        self.clock.now_ms().saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000))
    }
}

/// Counts what became of a login.
fn count(provider: &Provider, outcome: &'static str) {
    metrics::counter!(name::SSO_LOGINS, "provider" => provider.id.clone(), "outcome" => outcome).increment(1);
}
