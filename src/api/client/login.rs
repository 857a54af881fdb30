//! Sessions: how they begin and end.

use hearth_core::{Error, Result};
use ruma::api::client::{
    session::{
        get_login_types,
        login::{
            self,
            v3::{DiscoveryInfo, HomeserverInfo, LoginInfo},
        },
        logout, logout_all, refresh_token,
    },
    uiaa::UserIdentifier,
};

use crate::{
    api::{Api, Client, Public, Routes},
    service::{
        accounts::{DeviceWish, NewDevice, Welcome},
        rate_limit::Limited,
    },
};

pub(super) fn routes(r: Routes) -> Routes {
    r.public(login_types)
        .public(login)
        .limited(Limited::LoginAddress)
        .public(refresh)
        .limited(Limited::Refresh)
        .client(logout)
        .client(logout_all)
}

async fn login_types(_: Api, _: Public<get_login_types::v3::Request>) -> Result<get_login_types::v3::Response> {
    let password = get_login_types::v3::LoginType::Password(get_login_types::v3::PasswordLoginType::new());
    Ok(get_login_types::v3::Response::new(vec![password]))
}

async fn login(api: Api, req: Public<login::v3::Request>) -> Result<login::v3::Response> {
    let login::v3::Request { login_info, device_id, initial_device_display_name, refresh_token, .. } = req.body;
    let LoginInfo::Password(info) = login_info else {
        return Err(Error::unknown("This type of login is not supported"));
    };
    // Clients from before the identifiers send the user's name in a field of its own.
    #[allow(deprecated)]
    let user = match (info.identifier, info.user) {
        (Some(UserIdentifier::Matrix(id)), _) => id.user,
        (None, Some(user)) => user,
        (Some(_), _) => return Err(Error::invalid_param("Users are known by their user names only")),
        (None, None) => return Err(Error::missing_param("The identifier is missing")),
    };
    let device = DeviceWish { id: device_id, name: initial_device_display_name, refresh: refresh_token };
    let Welcome { user_id, session } = api.accounts.login(&user, info.password, device).await?;
    let NewDevice { device_id, tokens } = session.ok_or_else(|| Error::internal("a login always begins a session"))?;
    let mut response = login::v3::Response::new(user_id, tokens.access_token, device_id);
    response.refresh_token = tokens.refresh_token;
    response.expires_in = tokens.expires_in;
    response.well_known =
        api.config.server.well_known.client.clone().map(|url| DiscoveryInfo::new(HomeserverInfo::new(url)));
    Ok(response)
}

async fn refresh(api: Api, req: Public<refresh_token::v3::Request>) -> Result<refresh_token::v3::Response> {
    let tokens = api.accounts.refresh(&req.body.refresh_token).await?;
    let mut response = refresh_token::v3::Response::new(tokens.access_token);
    response.refresh_token = tokens.refresh_token;
    response.expires_in_ms = tokens.expires_in;
    Ok(response)
}

async fn logout(api: Api, req: Client<logout::v3::Request>) -> Result<logout::v3::Response> {
    api.accounts.logout(&req.auth).await?;
    Ok(logout::v3::Response::new())
}

async fn logout_all(api: Api, req: Client<logout_all::v3::Request>) -> Result<logout_all::v3::Response> {
    api.accounts.logout_all(&req.auth).await?;
    Ok(logout_all::v3::Response::new())
}
