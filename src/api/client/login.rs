//! Sessions: how they begin and end.

use hearth_core::{Error, Result};
use ruma::api::client::{
    session::{
        get_login_token,
        get_login_types::{
            self,
            v3::{IdentityProvider, LoginType, PasswordLoginType, SsoLoginType, TokenLoginType},
        },
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
        confirm::Deed,
        rate_limit::Limited,
        sso::Offer,
    },
};

pub(super) fn routes(r: Routes) -> Routes {
    r.public(login_types)
        .public(login)
        .limited(Limited::LoginAddress)
        .public(refresh)
        .limited(Limited::Refresh)
        .client(login_token)
        .limited(Limited::Confirmation)
        .client(logout)
        .client(logout_all)
}

async fn login_types(api: Api, _: Public<get_login_types::v3::Request>) -> Result<get_login_types::v3::Response> {
    let mut ways = Vec::new();
    if api.accounts.takes_passwords() {
        ways.push(LoginType::Password(PasswordLoginType::new()));
    }
    let mut sso = SsoLoginType::new();
    sso.identity_providers = api.sso.offers().map(offered).collect();
    let mut token = TokenLoginType::new();
    token.get_login_token = api.config.sso.login_via_existing_session;
    let by_sso = !sso.identity_providers.is_empty();
    if by_sso {
        ways.push(LoginType::Sso(sso));
    }
    // Clients take it for a promise that there is some way to get one.
    if by_sso || token.get_login_token {
        ways.push(LoginType::Token(token));
    }
    Ok(get_login_types::v3::Response::new(ways))
}

fn offered(offer: Offer) -> IdentityProvider {
    let mut provider = IdentityProvider::new(offer.id, offer.name);
    provider.icon = offer.icon;
    provider.brand = offer.brand.map(Into::into);
    provider
}

async fn login_token(api: Api, req: Client<get_login_token::v1::Request>) -> Result<get_login_token::v1::Response> {
    if !api.config.sso.login_via_existing_session {
        return Err(Error::forbidden("Clients log in no other clients here"));
    }
    api.accounts.confirm(&req.auth, req.body.auth.as_ref(), Deed::LogInElsewhere).await?;
    let (token, life) = api.accounts.new_login_token(&req.auth).await?;
    Ok(get_login_token::v1::Response::new(life, token))
}

async fn login(api: Api, req: Public<login::v3::Request>) -> Result<login::v3::Response> {
    let login::v3::Request { login_info, device_id, initial_device_display_name, refresh_token, .. } = req.body;
    let device = DeviceWish { id: device_id, name: initial_device_display_name, refresh: refresh_token };
    let welcome = match login_info {
        LoginInfo::Password(info) => by_password(&api, info, device).await?,
        LoginInfo::Token(info) => api.accounts.login_by_token(&info.token, device).await?,
        _ => return Err(Error::unknown("This type of login is not supported")),
    };
    let Welcome { user_id, session } = welcome;
    let NewDevice { device_id, tokens } = session.ok_or_else(|| Error::internal("a login always begins a session"))?;
    let mut response = login::v3::Response::new(user_id, tokens.access_token, device_id);
    response.refresh_token = tokens.refresh_token;
    response.expires_in = tokens.expires_in;
    response.well_known =
        api.config.server.well_known.client.clone().map(|url| DiscoveryInfo::new(HomeserverInfo::new(url)));
    Ok(response)
}

async fn by_password(api: &Api, info: login::v3::Password, device: DeviceWish) -> Result<Welcome> {
    // Clients from before the identifiers send the user's name in a field of its own.
    #[allow(deprecated)]
    let user = match (info.identifier, info.user) {
        (Some(UserIdentifier::Matrix(id)), _) => id.user,
        (None, Some(user)) => user,
        (Some(_), _) => return Err(Error::invalid_param("Users are known by their user names only")),
        (None, None) => return Err(Error::missing_param("The identifier is missing")),
    };
    api.accounts.login(&user, info.password, device).await
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
