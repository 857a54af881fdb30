//! How a provider is asked: by our own client, behind its guard.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use openidconnect::{
    AdditionalProviderMetadata, AsyncHttpClient, HttpRequest, HttpResponse, ProviderMetadata,
    core::{
        CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreGrantType, CoreJsonWebKey,
        CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreResponseMode, CoreResponseType,
        CoreSubjectIdentifierType,
    },
};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::{
    config::{Destination, Outgoing},
    http_client::{Bounds, Failure, HttpClient},
};

/// What one request to a provider may take.
pub(super) const BOUNDS: Bounds = Bounds { time: Duration::from_secs(10), bytes: 256 << 10 };

/// What we want to know of a provider beside what everybody does.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct More {
    /// <https://www.rfc-editor.org/rfc/rfc9207>
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for More {}

pub(super) type Metadata = ProviderMetadata<
    More,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// The operator named the provider, which may well be inside; nothing else there is thereby open to it.
pub(super) fn with_host_of(issuer: &Url, outgoing: &Outgoing) -> Outgoing {
    let mut outgoing = outgoing.clone();
    let host = issuer.host_str().map(|host| host.trim_start_matches('[').trim_end_matches(']'));
    outgoing.outgoing_allowlist.extend(host.and_then(|host| host.parse::<Destination>().ok()));
    outgoing
}

/// Requests by our own client, behind its guard.
pub(super) struct Via(pub(super) HttpClient);

impl<'c> AsyncHttpClient<'c> for Via {
    type Error = Failure;
    type Future = BoxFuture<'c, Result<HttpResponse, Failure>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let answer = self.0.send(request.map(Bytes::from), BOUNDS).await?;
            Ok(answer.map(|body| body.to_vec()))
        })
    }
}
