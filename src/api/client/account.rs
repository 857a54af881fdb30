//! Registration, and what an account's owner does with it.

use hearth_core::{Error, Kind, Result};
use ruma::api::client::account::{
    ThirdPartyIdRemovalStatus, change_password, check_registration_token_validity, deactivate,
    get_username_availability,
    register::{self, RegistrationKind},
    whoami,
};

use crate::{
    api::{Api, Client, Public, Routes},
    service::{
        accounts::{DeviceWish, NewDevice, Registration, Welcome},
        confirm::Deed,
        rate_limit::Limited,
    },
};

pub(super) fn routes(r: Routes) -> Routes {
    r.public(register)
        .public(available)
        .limited(Limited::RegistrationAvailable)
        .public(token_validity)
        .limited(Limited::RegistrationTokenValidity)
        .client(whoami)
        .client(change_password)
        .client(deactivate)
}

async fn register(api: Api, req: Public<register::v3::Request>) -> Result<register::v3::Response> {
    let body = req.body;
    if body.kind == RegistrationKind::Guest {
        return Err(Error::new(Kind::GuestAccessForbidden, "This server has no guest accounts"));
    }
    if body.login_type.is_some() {
        return Err(Error::unknown("This type of registration is not supported"));
    }
    // Who only asks what to do is told whether the name is free.
    let what = if body.auth.is_some() { Limited::Registration } else { Limited::RegistrationAvailable };
    api.limits.address(what, req.ip).await?;
    let device = DeviceWish { id: body.device_id, name: body.initial_device_display_name, refresh: body.refresh_token };
    let wanted = Registration {
        username: body.username,
        password: body.password,
        device: (!body.inhibit_login).then_some(device),
    };
    let Welcome { user_id, session } = api.accounts.register(wanted, body.auth.as_ref()).await?;
    let mut response = register::v3::Response::new(user_id);
    if let Some(NewDevice { device_id, tokens }) = session {
        response.device_id = Some(device_id);
        response.access_token = Some(tokens.access_token);
        response.refresh_token = tokens.refresh_token;
        response.expires_in = tokens.expires_in;
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
    api.accounts.confirm(&req.auth, auth.as_ref(), Deed::SetPassword).await?;
    api.accounts.change_password(&req.auth, new_password, logout_devices).await?;
    Ok(change_password::v3::Response::new())
}

async fn deactivate(api: Api, req: Client<deactivate::v3::Request>) -> Result<deactivate::v3::Response> {
    api.accounts.confirm(&req.auth, req.body.auth.as_ref(), Deed::Deactivate).await?;
    api.accounts.deactivate(&req.auth.user_id, req.body.erase).await?;
    // We know no identity server, so there is nothing to unbind there.
    Ok(deactivate::v3::Response::new(ThirdPartyIdRemovalStatus::NoSupport))
}
