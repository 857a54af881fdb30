//! Registration by a shared secret, under the path where the tools of Synapse look for it.

use hearth_core::Result;
use ruma::{
    OwnedDeviceId, OwnedServerName, OwnedUserId,
    api::{
        IncomingRequest,
        auth_scheme::NoAuthentication,
        error::{DeserializationError, Error},
        metadata,
    },
};
use serde::Serialize;

use crate::{
    api::{Api, Json, Public, Routes},
    service::{accounts::Welcome, shared_secret},
};

pub(super) fn routes(r: Routes) -> Routes {
    r.public(nonce).public(register)
}

struct GetNonce;

metadata! {
    @for GetNonce,
    method: GET,
    rate_limited: true,
    authentication: NoAuthentication,
    path: "/_synapse/admin/v1/register",
}

#[derive(Serialize)]
struct Nonce {
    nonce: String,
}

impl IncomingRequest for GetNonce {
    type EndpointError = Error;
    type OutgoingResponse = Json<Nonce>;

    fn try_from_http_request_inner(_: http::Request<&[u8]>, _: &[&str]) -> Result<Self, DeserializationError> {
        Ok(Self)
    }
}

struct Register(shared_secret::Request);

metadata! {
    @for Register,
    method: POST,
    rate_limited: true,
    authentication: NoAuthentication,
    path: "/_synapse/admin/v1/register",
}

#[derive(Serialize)]
struct Registered {
    user_id: OwnedUserId,
    home_server: OwnedServerName,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<OwnedDeviceId>,
}

impl IncomingRequest for Register {
    type EndpointError = Error;
    type OutgoingResponse = Json<Registered>;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, _: &[&str]) -> Result<Self, DeserializationError> {
        Ok(Self(serde_json::from_slice(request.body())?))
    }
}

async fn nonce(api: Api, _: Public<GetNonce>) -> Result<Json<Nonce>> {
    Ok(Json(Nonce { nonce: api.accounts.shared_secret_nonce()? }))
}

async fn register(api: Api, req: Public<Register>) -> Result<Json<Registered>> {
    let Welcome { user_id, session } = api.accounts.register_by_shared_secret(req.body.0).await?;
    let home_server = user_id.server_name().to_owned();
    let (access_token, device_id) = session.map(|s| (s.tokens.access_token, s.device_id)).unzip();
    Ok(Json(Registered { user_id, home_server, access_token, device_id }))
}
