//! One identity provider: what it says of itself, how it is asked, and what of its answers is believed.
//!
//! <https://openid.net/specs/openid-connect-core-1_0.html>, <https://www.rfc-editor.org/rfc/rfc9700>

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use hearth_core::clock::Clock;
use http::{Request, header};
use moka::future::Cache;
use openidconnect::{
    AuthType, AuthenticationFlow, AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret, CsrfToken,
    IssuerUrl, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError,
    Scope, SignatureVerificationError, TokenResponse as _, TokenUrl, UserInfoUrl,
    core::{CoreClient, CoreClientAuthMethod, CoreIdToken, CoreJwsSigningAlgorithm, CoreResponseType},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::{
    asking::{BOUNDS, Metadata, Via, with_host_of},
    claims::{Claims, Identity, Mapping},
};
use crate::{
    config::{IdentityProvider, Outgoing, Server},
    http_client::{HttpClient, Resolve},
};

/// What a provider says of itself is asked again after so long; and sooner when it signs with a key that nobody knows,
/// but not more often than this.
const KNOWN_FOR: Duration = Duration::from_secs(3_600);
const ASKED_EVERY_MS: i64 = 60_000;
/// What proves something is signed by one of these. A secret that we share with the provider signs nothing: whoever has
/// our configuration could be anybody.
pub(super) const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];
/// By so much the provider's clock may be ahead.
pub(super) const SKEW_MS: i64 = 5 * 60 * 1000;

/// Why a provider vouches for nobody.
#[derive(Debug, thiserror::Error)]
pub enum Doubt {
    #[error("it can't be reached: {0}")]
    Silent(String),
    #[error("its word is not believed: {0}")]
    Untrue(String),
}

/// The secrets of one login, which nobody but this server and the provider gets to see.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Secrets {
    pub(super) nonce: String,
    pub(super) verifier: String,
}

/// What a provider sends a browser back with.
#[derive(Clone, Debug, Default)]
pub struct Answered {
    pub state: String,
    pub code: Option<String>,
    pub error: Option<String>,
    pub issuer: Option<String>,
}

pub(super) struct Provider {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) config: IdentityProvider,
    pub(super) callback: Url,
    issuer: IssuerUrl,
    mapping: Mapping,
    via: Via,
    clock: Arc<dyn Clock>,
    known: Cache<(), Arc<Metadata>>,
    asked_ms: AtomicI64,
}

impl Provider {
    /// None: the configuration does not say enough, which it was asked when it was loaded.
    pub(super) fn new(
        config: &IdentityProvider,
        server: &Server,
        outgoing: &Outgoing,
        names: Arc<dyn Resolve>,
        clock: Arc<dyn Clock>,
    ) -> Option<Self> {
        let issuer = IssuerUrl::new(config.issuer_url.clone()).ok()?;
        Some(Self {
            id: config.id(),
            name: config.name(),
            callback: config.callback_url(server)?,
            mapping: Mapping::new(config),
            via: Via(HttpClient::new(&with_host_of(issuer.url(), outgoing), names)),
            config: config.clone(),
            issuer,
            clock,
            known: Cache::builder().max_capacity(1).time_to_live(KNOWN_FOR).build(),
            asked_ms: AtomicI64::new(i64::MIN),
        })
    }

    /// Whether browsers come here by TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.callback.scheme() == "https"
    }

    /// Where a browser is sent to log in.
    pub(super) async fn authorization_url(
        &self,
        state: String,
        secrets: &Secrets,
        again: bool,
    ) -> Result<String, Doubt> {
        let metadata = self.metadata().await?;
        let client = self.client(&metadata);
        let verifier = PkceCodeVerifier::new(secrets.verifier.clone());
        let nonce = Nonce::new(secrets.nonce.clone());
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let mut request = client
            .authorize_url(flow, move || CsrfToken::new(state), move || nonce)
            .set_redirect_uri(std::borrow::Cow::Owned(self.redirect_uri()))
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            .add_scopes(self.config.scope.iter().filter(|s| *s != "openid").map(|s| Scope::new(s.clone())));
        for (key, value) in &self.config.extra_authorization_parameters {
            if !(again && key == "prompt") {
                request = request.add_extra_param(key, value);
            }
        }
        if again {
            // Whoever sits at a browser that is logged in there is not thereby the one whom it belongs to.
            request = request.add_extra_param("prompt", "login");
        }
        Ok(request.url().0.into())
    }

    /// Who it is that the provider sent back.
    pub(super) async fn identity(
        &self,
        answered: &Answered,
        code: String,
        secrets: Secrets,
    ) -> Result<Identity, Doubt> {
        let metadata = self.metadata().await?;
        self.check_issuer(&metadata, answered)?;
        let client = self.client(&metadata);
        let tokens = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(untrue)?
            .set_redirect_uri(std::borrow::Cow::Owned(self.redirect_uri()))
            .set_pkce_verifier(PkceCodeVerifier::new(secrets.verifier))
            .request_async(&self.via)
            .await
            .map_err(|e| match e {
                RequestTokenError::Request(failure) => silent(failure),
                other => untrue(other),
            })?;
        let id_token = tokens.id_token().ok_or_else(|| untrue("it gives no ID token"))?;
        let mut claims = self.verified(&metadata, id_token, &Nonce::new(secrets.nonce)).await?;
        if self.mapping.lacks(&claims)
            && let Some(endpoint) = metadata.userinfo_endpoint()
        {
            let more = self.user_info(endpoint.url(), tokens.access_token().secret()).await?;
            if more.get("sub") != claims.get("sub") {
                return Err(untrue("it tells of somebody else than it vouches for"));
            }
            // What is signed counts.
            for (key, value) in more {
                claims.entry(key).or_insert(value);
            }
        }
        self.mapping.identity(&claims).map_err(untrue)
    }

    /// A provider that says who answers is asked no other's answer.
    fn check_issuer(&self, metadata: &Metadata, answered: &Answered) -> Result<(), Doubt> {
        let must = metadata.additional_metadata().authorization_response_iss_parameter_supported;
        match &answered.issuer {
            Some(issuer) if issuer != self.issuer.as_str() => Err(untrue("the answer is another provider's")),
            None if must => Err(untrue("the answer does not say whose it is")),
            _ => Ok(()),
        }
    }

    /// The claims of an ID token that is this provider's, for us, of this login, and not old.
    ///
    /// <https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation>
    async fn verified(&self, metadata: &Metadata, token: &CoreIdToken, nonce: &Nonce) -> Result<Claims, Doubt> {
        let now_ms = self.clock.now_ms();
        let check = |metadata: &Metadata| {
            let client = self.client(metadata);
            let verifier = client
                .id_token_verifier()
                .set_allowed_algs(ALGORITHMS)
                .set_time_fn(move || at(now_ms).into())
                .set_issue_time_verifier_fn(move |issued| {
                    if SystemTime::from(issued) > at(now_ms + SKEW_MS) {
                        Err("it is of the future".to_owned())
                    } else {
                        Ok(())
                    }
                });
            Ok(token.claims(&verifier, nonce).map(drop))
        };
        let mut found = check(metadata)?;
        // It may be signed by a key that is new.
        if let Err(ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoMatchingKey)) = found
            && let Some(newer) = self.newer_metadata().await
        {
            found = check(&newer)?;
        }
        found.map_err(untrue)?;
        let claims = payload(&token.to_string()).ok_or_else(|| untrue("its ID token is no object"))?;
        match claims.get("azp") {
            None => Ok(claims),
            Some(party) if party == self.config.client_id.as_str() => Ok(claims),
            Some(_) => Err(untrue("its ID token is for another client")),
        }
    }

    /// <https://openid.net/specs/openid-connect-core-1_0.html#UserInfo>
    async fn user_info(&self, endpoint: &Url, access_token: &str) -> Result<Claims, Doubt> {
        let request = Request::get(endpoint.as_str())
            .header(header::ACCEPT, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {access_token}"))
            .body(Bytes::new())
            .map_err(untrue)?;
        let answer = self.via.0.send(request, BOUNDS).await.map_err(silent)?;
        if !answer.status().is_success() {
            return Err(silent(format!("it tells nothing of its users: {}", answer.status())));
        }
        serde_json::from_slice(answer.body()).map_err(untrue)
    }

    fn client(&self, metadata: &Metadata) -> Client {
        let secret = self.config.client_secret.as_ref().map(|secret| ClientSecret::new(secret.expose().to_owned()));
        let methods = metadata.token_endpoint_auth_methods_supported();
        let basic = methods.is_none_or(|methods| methods.contains(&CoreClientAuthMethod::ClientSecretBasic));
        let how = if basic { AuthType::BasicAuth } else { AuthType::RequestBody };
        let client_id = ClientId::new(self.config.client_id.clone());
        CoreClient::from_provider_metadata(metadata.clone(), client_id, secret).set_auth_type(how)
    }

    fn redirect_uri(&self) -> RedirectUrl {
        RedirectUrl::from_url(self.callback.clone())
    }

    /// What the provider says of itself, its keys among it.
    pub(super) async fn metadata(&self) -> Result<Arc<Metadata>, Doubt> {
        self.known.try_get_with((), self.ask()).await.map_err(silent)
    }

    async fn ask(&self) -> Result<Arc<Metadata>, String> {
        self.asked_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        let found = Metadata::discover_async(self.issuer.clone(), &self.via).await.map_err(|e| e.to_string())?;
        // Keys, too, that came from such a place are nobody's.
        let safe =
            |url: &Url| url.scheme() == "https" || (url.scheme() == "http" && self.issuer.url().scheme() == "http");
        let places = [
            Some(found.authorization_endpoint().url()),
            found.token_endpoint().map(TokenUrl::url),
            Some(found.jwks_uri().url()),
            found.userinfo_endpoint().map(UserInfoUrl::url),
        ];
        if !places.into_iter().flatten().all(safe) {
            return Err("what it says of itself leads to places that are not safe".to_owned());
        }
        Ok(Arc::new(found))
    }

    /// The same, asked again, if that was not done just now.
    pub(super) async fn newer_metadata(&self) -> Option<Arc<Metadata>> {
        let (now, last) = (self.clock.now_ms(), self.asked_ms.load(Ordering::Relaxed));
        if last.checked_add(ASKED_EVERY_MS).is_some_and(|next| now < next && now >= last) {
            return None;
        }
        // What is known stays until there is something newer: whoever makes up a key takes nothing away.
        let newer = self.ask().await.ok()?;
        self.known.insert((), Arc::clone(&newer)).await;
        Some(newer)
    }

    pub(super) fn issuer(&self) -> &str {
        self.issuer.as_str()
    }
}

type Client = CoreClient<
    openidconnect::EndpointSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointMaybeSet,
    openidconnect::EndpointMaybeSet,
>;

/// What a token says, whoever says so.
pub(super) fn payload(token: &str) -> Option<Claims> {
    let part = token.split('.').nth(1)?;
    match serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()? {
        Value::Object(claims) => Some(claims),
        _ => None,
    }
}

fn at(ms: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}

pub(super) fn untrue(what: impl std::fmt::Display) -> Doubt {
    Doubt::Untrue(what.to_string())
}

fn silent(what: impl std::fmt::Display) -> Doubt {
    Doubt::Silent(what.to_string())
}
