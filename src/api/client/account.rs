//! Registration, and what an account's owner does with it.

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    routing::get,
};
use hearth_core::{Error, Kind, Result};
use http::{Response, StatusCode};
use ruma::api::client::account::{
    ThirdPartyIdRemovalStatus, change_password, check_registration_token_validity, deactivate,
    get_username_availability,
    register::{self, RegistrationKind},
    whoami,
};
use serde_json::{Value, json};

use crate::{
    api::{Api, Client, Public, Routes, respond},
    service::{
        accounts::{Registration, Welcome},
        shared_secret,
    },
};

pub(super) fn routes(r: Routes) -> Routes {
    let tools = Router::new()
        .route("/_synapse/admin/v1/register", get(nonce).post(register_by_shared_secret))
        .with_state(r.api().clone());
    r.public(register)
        .public(available)
        .public(token_validity)
        .client(whoami)
        .client(change_password)
        .client(deactivate)
        .untyped(tools)
}

async fn register(api: Api, req: Public<register::v3::Request>) -> Result<register::v3::Response> {
    let body = req.body;
    if body.kind == RegistrationKind::Guest {
        return Err(Error::new(Kind::GuestAccessForbidden, "This server has no guest accounts"));
    }
    if body.login_type.is_some() {
        return Err(Error::unknown("This type of registration is not supported"));
    }
    let wanted = Registration {
        username: body.username,
        password: body.password,
        device_id: body.device_id,
        device_name: body.initial_device_display_name,
        inhibit_login: body.inhibit_login,
    };
    let Welcome { user_id, session } = api.accounts.register(wanted, body.auth.as_ref()).await?;
    let mut response = register::v3::Response::new(user_id);
    if let Some(session) = session {
        response.access_token = Some(session.access_token);
        response.device_id = Some(session.device_id);
    }
    Ok(response)
}

async fn available(
    api: Api,
    req: Public<get_username_availability::v3::Request>,
) -> Result<get_username_availability::v3::Response> {
    api.accounts.available(&req.body.username).await?;
    Ok(get_username_availability::v3::Response::new(true))
}

async fn token_validity(
    api: Api,
    req: Public<check_registration_token_validity::v1::Request>,
) -> Result<check_registration_token_validity::v1::Response> {
    let valid = api.accounts.registration_token_is_valid(&req.body.token).await?;
    Ok(check_registration_token_validity::v1::Response::new(valid))
}

async fn whoami(_: Api, req: Client<whoami::v3::Request>) -> Result<whoami::v3::Response> {
    let mut response = whoami::v3::Response::new(req.auth.user_id, false);
    response.device_id = Some(req.auth.device_id);
    Ok(response)
}

async fn change_password(api: Api, req: Client<change_password::v3::Request>) -> Result<change_password::v3::Response> {
    let change_password::v3::Request { new_password, logout_devices, auth, .. } = req.body;
    api.accounts.confirm(&req.auth, auth.as_ref()).await?;
    api.accounts.change_password(&req.auth, new_password, logout_devices).await?;
    Ok(change_password::v3::Response::new())
}

async fn deactivate(api: Api, req: Client<deactivate::v3::Request>) -> Result<deactivate::v3::Response> {
    api.accounts.confirm(&req.auth, req.body.auth.as_ref()).await?;
    api.accounts.deactivate(&req.auth.user_id, req.body.erase).await?;
    // We know no identity server, so there is nothing to unbind there.
    Ok(deactivate::v3::Response::new(ThirdPartyIdRemovalStatus::NoSupport))
}

async fn nonce(State(api): State<Api>) -> Response<Body> {
    answer(api.accounts.shared_secret_nonce().map(|nonce| json!({ "nonce": nonce })))
}

async fn register_by_shared_secret(State(api): State<Api>, body: Bytes) -> Response<Body> {
    answer(welcome_by_shared_secret(&api, &body).await)
}

async fn welcome_by_shared_secret(api: &Api, body: &[u8]) -> Result<Value> {
    api.accounts.shared_secret_is_set()?;
    // The error would quote what it could not read, which may be a password.
    let request: shared_secret::Request =
        serde_json::from_slice(body).map_err(|_| Error::bad_json("This is not a registration request"))?;
    let Welcome { user_id, session } = api.accounts.register_by_shared_secret(request).await?;
    let mut said = json!({ "user_id": user_id, "home_server": user_id.server_name() });
    if let Some(session) = session {
        said["access_token"] = session.access_token.into();
        said["device_id"] = session.device_id.to_string().into();
    }
    Ok(said)
}

fn answer(result: Result<Value>) -> Response<Body> {
    match result {
        Ok(body) => respond::json(StatusCode::OK, &body),
        Err(e) => respond::error(&e),
    }
}
