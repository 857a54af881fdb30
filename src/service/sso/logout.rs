//! Providers that say that somebody has logged out there.
//!
//! <https://openid.net/specs/openid-connect-backchannel-1_0.html>

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hearth_core::{Error, clock::random_string};
use hearth_storage::{
    sessions::Ending,
    sso::logouts::{Ended, ProviderLogout, Which},
};
use openidconnect::{JsonWebKey as _, core::CoreJwsSigningAlgorithm};
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Sso,
    claims::Claims,
    provider::{ALGORITHMS, Provider, SKEW_MS, payload},
};
use crate::service::sessions::hash;

const MAX_TOKEN_BYTES: usize = 16 << 10;
const MAX_TEXT_BYTES: usize = 255;
/// What was said longer ago is not heard.
const HEARD_FOR_MS: i64 = 10 * 60 * 1000;
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Why it is not heard.
#[derive(Debug)]
pub enum Unheard {
    /// There is no such provider, or nobody listens to it.
    Nobody,
    /// It is not what such a provider says.
    Invalid(&'static str),
    Failed(Error),
}

/// What comes before the claims.
#[derive(Deserialize)]
struct Header {
    alg: CoreJwsSigningAlgorithm,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

impl Sso {
    /// Ends what began by a login at the provider that has ended there.
    pub async fn logged_out(&self, provider: &str, token: &str) -> Result<(), Unheard> {
        let provider = self.provider(provider).map_err(|_| Unheard::Nobody)?;
        if !provider.config.backchannel_logout {
            return Err(Unheard::Nobody);
        }
        check_signature(provider, token).await?;
        let claims = payload(token).ok_or(Unheard::Invalid("the token is no object"))?;
        let now = self.clock.now_ms();
        let (which, id) =
            check(&claims, provider.issuer(), &provider.config.client_id, now).map_err(Unheard::Invalid)?;
        let ending = Ending { at_ms: now, job_id: random_string(&*self.rng, 24) };
        let logout = ProviderLogout {
            provider: provider.id.clone(),
            which,
            id_hash: hash(id),
            expires_ms: now.saturating_add(HEARD_FOR_MS + SKEW_MS),
            ending,
        };
        let ended = self.storage.end_provider_sessions(logout).await;
        match ended.map_err(|e| Unheard::Failed(e.into()))? {
            Ended::Again => Err(Unheard::Invalid("the token was used before")),
            Ended::Done(users) => {
                let users: Vec<OwnedUserId> = users.into_iter().filter_map(|user| user.try_into().ok()).collect();
                self.accounts.sessions.revoked(users.iter().map(|user| &**user));
                Ok(())
            }
        }
    }
}

/// By a key of the provider; if it is none that we know, by those that it has now.
async fn check_signature(provider: &Provider, token: &str) -> Result<(), Unheard> {
    let invalid = || Unheard::Invalid("the token is none");
    if token.len() > MAX_TOKEN_BYTES {
        return Err(invalid());
    }
    let (signed, signature) = token.rsplit_once('.').ok_or_else(invalid)?;
    let (header, _) = signed.split_once('.').ok_or_else(invalid)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| invalid());
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| invalid())?;
    let kind = header.typ.as_deref().unwrap_or("jwt").to_ascii_lowercase();
    let kind = kind.strip_prefix("application/").unwrap_or(&kind);
    if !matches!(kind, "jwt" | "logout+jwt") || header.crit.is_some() || !ALGORITHMS.contains(&header.alg) {
        return Err(Unheard::Invalid("the token is of a kind that is not taken"));
    }
    let signature = decode(signature)?;
    let silent = |e| Unheard::Failed(Error::unavailable(format!("the provider can't be asked: {e}")));
    let mut metadata = provider.metadata().await.map_err(silent)?;
    for newer in [false, true] {
        if newer {
            metadata = provider.newer_metadata().await.ok_or(Unheard::Invalid("nobody we know signed the token"))?;
        }
        let named = |id: Option<&str>| header.kid.is_none() || header.kid.as_deref() == id;
        let mut keys = metadata.jwks().keys().iter().filter(|key| named(key.key_id().map(|id| id.as_str()))).peekable();
        let known = keys.peek().is_some();
        if keys.any(|key| key.verify_signature(&header.alg, signed.as_bytes(), &signature).is_ok()) {
            return Ok(());
        }
        if known {
            break;
        }
    }
    Err(Unheard::Invalid("the signature is not the provider's"))
}

/// What has ended, and the id of this token.
///
/// <https://openid.net/specs/openid-connect-backchannel-1_0.html#Validation>
fn check<'a>(claims: &'a Claims, issuer: &str, client: &str, now_ms: i64) -> Result<(Which, &'a str), &'static str> {
    let text = |key: &str| claims.get(key).and_then(Value::as_str);
    let name = |key: &str| match claims.get(key) {
        None => Ok(None),
        Some(Value::String(s)) if (1..=MAX_TEXT_BYTES).contains(&s.len()) && !s.contains('\0') => Ok(Some(s.clone())),
        Some(_) => Err("the token names whom it is about in an odd way"),
    };
    let ms = |key: &str| claims.get(key).and_then(Value::as_i64).map(|seconds| seconds.saturating_mul(1000));
    if text("iss") != Some(issuer) {
        return Err("the token is another provider's");
    }
    let for_us = match claims.get("aud") {
        Some(Value::String(one)) => one == client,
        Some(Value::Array(list)) => !list.is_empty() && list.iter().all(|one| one == client),
        _ => false,
    };
    if !for_us {
        return Err("the token is for another client");
    }
    let issued = ms("iat").ok_or("the token does not say when it was made")?;
    let expired = match claims.get("exp") {
        None => false,
        Some(_) => ms("exp").is_none_or(|at| at <= now_ms),
    };
    if expired || issued > now_ms.saturating_add(SKEW_MS) || issued < now_ms.saturating_sub(HEARD_FOR_MS) {
        return Err("the token is too old, or of the future");
    }
    if !claims.get("events").and_then(|events| events.get(EVENT)).is_some_and(Value::is_object) {
        return Err("the token says nothing of a logout");
    }
    if claims.contains_key("nonce") {
        return Err("the token is one of a login");
    }
    let id = text("jti").filter(|id| !id.is_empty()).ok_or("the token has no id")?;
    let which = match (name("sid")?, name("sub")?) {
        (Some(sid), Some(subject)) => Which::SessionOf { sid, subject },
        (Some(sid), None) => Which::Session(sid),
        (None, Some(subject)) => Which::AllOf(subject),
        (None, None) => return Err("the token names nobody"),
    };
    Ok((which, id))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn told(change: &Value) -> Result<Which, &'static str> {
        let mut claims = json!({
            "iss": "https://id.b", "aud": "us", "iat": 1_700_000_000, "exp": 1_700_000_060, "jti": "1", "sub": "alice",
            "events": { EVENT: {} },
        });
        let claims = claims.as_object_mut().expect("an object");
        for (key, value) in change.as_object().expect("an object") {
            match value {
                Value::Null => _ = claims.remove(key),
                value => _ = claims.insert(key.clone(), value.clone()),
            }
        }
        check(claims, "https://id.b", "us", NOW).map(|(which, _)| which)
    }

    #[test]
    fn a_logout_is_of_a_session_or_of_somebody() {
        assert_eq!(told(&json!({})), Ok(Which::AllOf("alice".to_owned())));
        assert_eq!(told(&json!({ "sid": "s", "sub": null, "aud": ["us"] })), Ok(Which::Session("s".to_owned())));
        let both = Which::SessionOf { sid: "s".to_owned(), subject: "alice".to_owned() };
        assert_eq!(told(&json!({ "sid": "s", "exp": null })), Ok(both));
    }

    #[test]
    fn what_is_no_logout_is_not_heard() {
        for odd in [
            json!({ "iss": "https://other.b" }),
            json!({ "iss": null }),
            json!({ "aud": "them" }),
            json!({ "aud": ["us", "them"] }),
            json!({ "aud": [] }),
            json!({ "aud": null }),
            json!({ "iat": null }),
            json!({ "iat": 1_700_000_400 }),
            json!({ "iat": 1_699_999_000 }),
            json!({ "exp": 1_700_000_000 }),
            json!({ "exp": "never" }),
            json!({ "events": null }),
            json!({ "events": { "http://schemas.openid.net/event/other": {} } }),
            json!({ "events": { EVENT: null } }),
            json!({ "nonce": "n" }),
            json!({ "jti": null }),
            json!({ "jti": "" }),
            json!({ "sub": null }),
            json!({ "sub": 1 }),
            json!({ "sid": "x".repeat(256) }),
        ] {
            assert!(told(&odd).is_err(), "{odd}");
        }
    }
}
