//! What a browser is in the middle of: kept in the database, so that any process goes on with it, and bound to the
//! browser by a cookie, so that no other does.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hearth_core::{Error, Result, clock::Rng};
use hearth_storage::{
    Storage,
    sso::{Flow, NewFlow},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use subtle::ConstantTimeEq as _;

use super::{Stop, claims::Identity, provider::Secrets};
use crate::service::sessions::{TokenHash, hash};

/// A cookie lives longer than anything that it may be needed for.
pub const COOKIE_SECONDS: u32 = 24 * 60 * 60;

/// What a flow waits for, by what is known then.
pub(super) trait Step: Serialize + DeserializeOwned {
    const NAME: &'static str;
}

/// The browser is at the provider.
#[derive(Serialize, Deserialize)]
pub(super) struct AtProvider {
    pub(super) provider: String,
    pub(super) secrets: Secrets,
    pub(super) purpose: Purpose,
}

impl Step for AtProvider {
    const NAME: &'static str = "provider";
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Purpose {
    /// To be sent back to a client with a login token.
    Login { redirect: String },
    /// To confirm what a user is about to do.
    Confirm { session: TokenHash, user_id: String },
}

/// Somebody has no account here yet.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Newcomer {
    pub(super) provider: String,
    pub(super) identity: Identity,
    pub(super) redirect: String,
}

impl Step for Newcomer {
    const NAME: &'static str = "newcomer";
}

/// Somebody is to say whether the client is one that they know.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Leaving {
    pub(super) provider: String,
    pub(super) subject: String,
    pub(super) sid: Option<String>,
    pub(super) user_id: String,
    pub(super) redirect: String,
}

impl Step for Leaving {
    const NAME: &'static str = "leaving";
}

/// A cookie that binds a flow to a browser, or that a browser sent.
#[derive(Clone)]
pub struct Cookie {
    pub name: String,
    pub value: String,
}

/// What our cookies are called. Behind TLS it is a name that browsers let nobody set but this very host.
///
/// <https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis#name-the-__host-prefix>
pub fn cookie_prefix(secure: bool) -> &'static str {
    if secure { "__Host-hearth-sso-" } else { "hearth-sso-" }
}

/// 256 random bits.
pub(super) fn secret(rng: &dyn Rng) -> String {
    let mut secret = [0; 32];
    rng.fill(&mut secret);
    URL_SAFE_NO_PAD.encode(secret)
}

/// The cookie of a new flow, by the hash of what names the flow.
pub(super) fn new_cookie(rng: &dyn Rng, key: &str, secure: bool) -> Cookie {
    let which: String = hash(key).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    Cookie { name: format!("{}{which}", cookie_prefix(secure)), value: secret(rng) }
}

pub(super) fn kept<S: Step>(key: &str, cookie_hash: TokenHash, step: &S, expires_ms: i64) -> Result<NewFlow> {
    let data = serde_json::to_string(step).map_err(Error::internal)?;
    Ok(NewFlow { key_hash: hash(key), cookie_hash, step: S::NAME, data, expires_ms })
}

/// What is known of a flow that waits for this step of this browser, and its cookie's hash. It goes on waiting.
pub(super) async fn look<S: Step>(
    storage: &dyn Storage,
    key: &str,
    cookies: &[Cookie],
    secure: impl FnOnce(&S) -> bool,
    now_ms: i64,
) -> Result<(S, TokenHash), Stop> {
    let found = storage.flow(hash(key), S::NAME, now_ms).await.map_err(Error::from)?;
    let Flow { cookie_hash, data } = found.ok_or(Stop::Expired)?;
    let step: S = serde_json::from_str(&data).map_err(Error::internal)?;
    let prefix = cookie_prefix(secure(&step));
    let ours = cookies.iter().filter(|cookie| cookie.name.starts_with(prefix)).map(|cookie| hash(&cookie.value));
    let mine = ours.into_iter().find(|hash| bool::from(hash[..].ct_eq(&cookie_hash)));
    Ok((step, mine.ok_or(Stop::OtherBrowser)?))
}

/// The same, for one caller: the flow waits no longer.
pub(super) async fn take<S: Step>(
    storage: &dyn Storage,
    key: &str,
    cookie_hash: TokenHash,
    now_ms: i64,
) -> Result<S, Stop> {
    let taken = storage.take_flow(hash(key), cookie_hash, S::NAME, now_ms).await.map_err(Error::from)?;
    Ok(serde_json::from_str(&taken.ok_or(Stop::Expired)?).map_err(Error::internal)?)
}
