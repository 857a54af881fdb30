//! The pages of a login at an identity provider, and what a provider itself says.

use axum::body::Body;
use http::{HeaderValue, Method, Response, StatusCode, header};
use minijinja::{Value, context};
use ruma::api::client::{
    session::{sso_login, sso_login_with_provider},
    uiaa::get_uiaa_fallback_page,
};
use serde_json::json;
use url::form_urlencoded;

use super::{
    Api, Routes,
    pages::{self, Page, Visit},
    respond,
};
use crate::service::{
    rate_limit::Limited,
    sso::{Answered, Asked, Leave, NameWish, Next, Stop, Unheard},
};

pub fn routes(r: Routes) -> Routes {
    r.page_of::<sso_login::v3::Request, _, _>(choose)
        .limited(Limited::SsoAddress)
        .page_of::<sso_login_with_provider::v3::Request, _, _>(begin)
        .limited(Limited::SsoAddress)
        .page_of::<get_uiaa_fallback_page::v3::Request, _, _>(confirm)
        .limited(Limited::SsoAddress)
        .page(Method::GET, "/_hearth/sso/callback/{provider}", callback)
        .limited(Limited::SsoAddress)
        .page(Method::POST, "/_hearth/sso/name", name)
        .limited(Limited::SsoAddress)
        .page(Method::POST, "/_hearth/sso/link", link)
        .limited(Limited::SsoAddress)
        .page(Method::POST, "/_hearth/sso/leave", leave)
        .limited(Limited::SsoAddress)
        // Not limited: it comes from one address for everybody, and what is not signed is nothing.
        .page(Method::POST, "/_hearth/sso/backchannel/{provider}", logged_out)
}

async fn choose(api: Api, visit: Visit) -> Response<Body> {
    let redirect = visit.parameter("redirectUrl").unwrap_or_default();
    let offers: Vec<_> = api.sso.offers().collect();
    match &offers[..] {
        [] => stopped(&api, &Stop::NoSuchProvider),
        [only] => go_on(&api, api.sso.begin(&only.id, redirect).await),
        several => {
            if let Err(stop) = api.sso.check_redirect(redirect) {
                return stopped(&api, &stop);
            }
            let query = form_urlencoded::Serializer::new(String::new()).append_pair("redirectUrl", redirect).finish();
            // Beside this page, under whatever name a proxy has it.
            let url = |id: &str| format!("redirect/{id}?{query}");
            let providers: Vec<Value> =
                several.iter().map(|offer| context! { name => offer.name.as_str(), url => url(&offer.id) }).collect();
            api.pages.show(Page::new("choose.html", context! { providers }))
        }
    }
}

async fn begin(api: Api, visit: Visit) -> Response<Body> {
    let provider = visit.args.first().map_or("", String::as_str);
    go_on(&api, api.sso.begin(provider, visit.parameter("redirectUrl").unwrap_or_default()).await)
}

async fn callback(api: Api, visit: Visit) -> Response<Body> {
    let said = |name| visit.parameter(name).map(ToOwned::to_owned);
    let answered = Answered {
        state: said("state").unwrap_or_default(),
        code: said("code"),
        error: said("error"),
        issuer: said("iss"),
    };
    let provider = visit.args.first().map_or("", String::as_str);
    go_on(&api, api.sso.callback(provider, answered, &visit.cookies).await)
}

async fn name(api: Api, visit: Visit) -> Response<Body> {
    let form = visit.form();
    go_on(&api, api.sso.choose_name(form.field("ticket"), &visit.cookies, form.field("username").trim()).await)
}

async fn link(api: Api, visit: Visit) -> Response<Body> {
    let form = visit.form();
    let (user, password) = (form.field("user").trim(), form.field("password").to_owned());
    go_on(&api, api.sso.link_account(form.field("ticket"), &visit.cookies, user, password, visit.ip).await)
}

async fn leave(api: Api, visit: Visit) -> Response<Body> {
    let form = visit.form();
    go_on(&api, api.sso.leave(form.field("ticket"), &visit.cookies, form.field("go") == "yes").await)
}

/// <https://spec.matrix.org/v1.18/client-server-api/#fallback>
async fn confirm(api: Api, visit: Visit) -> Response<Body> {
    if visit.args.first().map(String::as_str) != Some("m.login.sso") {
        return stopped(&api, &Stop::NoSuchProvider);
    }
    match api.sso.asked(visit.parameter("session").unwrap_or_default()).await {
        Ok(Asked::Done) => go_on(&api, Ok(Next::Confirmed)),
        Ok(Asked::Confirm { user_id, deed, ways }) => {
            let links: Vec<Value> =
                ways.iter().map(|way| context! { name => way.name.as_str(), url => way.url.as_str() }).collect();
            let says = context! { user_id, deed, ways => links };
            let cookies = ways.into_iter().map(|way| way.cookie).collect();
            api.pages.show(Page { cookies, ..Page::new("confirm.html", says) })
        }
        Err(stop) => stopped(&api, &stop),
    }
}

/// <https://openid.net/specs/openid-connect-backchannel-1_0.html#BCResponse>
async fn logged_out(api: Api, visit: Visit) -> Response<Body> {
    let provider = visit.args.first().map_or("", String::as_str);
    let told = api.sso.logged_out(provider, visit.form().field("logout_token")).await;
    let mut response = match told {
        Ok(()) => Response::new(Body::empty()),
        Err(Unheard::Nobody) => respond::error(&hearth_core::Error::not_found("There is no such provider")),
        Err(Unheard::Invalid(why)) => {
            let body = json!({ "error": "invalid_request", "error_description": why });
            respond::json(StatusCode::BAD_REQUEST, &body)
        }
        Err(Unheard::Failed(error)) => respond::error(&error),
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn go_on(api: &Api, next: Result<Next, Stop>) -> Response<Body> {
    match next {
        Ok(Next::Away { url, cookie }) => pages::away(&url, cookie.as_slice()),
        Ok(Next::Name(wish)) => ask_name(api, *wish),
        Ok(Next::Leave(Leave { ticket, user_id, place })) => {
            let says = context! { ticket, user_id, shown => place.shown, is_app => place.is_app };
            api.pages.show(Page { leads_to: Some(place.source), ..Page::new("leave.html", says) })
        }
        Ok(Next::Confirmed) => api.pages.show(Page::new("done.html", context! {})),
        Err(stop) => stopped(api, &stop),
    }
}

fn ask_name(api: &Api, wish: NameWish) -> Response<Body> {
    let wrong = wish.name_problem.is_some() || wish.link_problem.is_some();
    let status = if wrong { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let says = context! {
        ticket => wish.ticket, provider => wish.provider, server_name => wish.server_name, localpart => wish.localpart,
        display_name => wish.display_name, may_join => wish.may_join, may_link => wish.may_link, user => wish.user,
        name_problem => wish.name_problem, link_problem => wish.link_problem,
    };
    api.pages.show(Page { status, leads_to: Some(wish.place.source), ..Page::new("name.html", says) })
}

fn stopped(api: &Api, stop: &Stop) -> Response<Body> {
    let (status, reason, name) = match stop {
        Stop::Expired => (StatusCode::BAD_REQUEST, "expired", ""),
        Stop::OtherBrowser => (StatusCode::FORBIDDEN, "other_browser", ""),
        Stop::NoSuchProvider => (StatusCode::NOT_FOUND, "no_provider", ""),
        Stop::BadRedirect => (StatusCode::BAD_REQUEST, "bad_redirect", ""),
        Stop::Refused(name) => (StatusCode::FORBIDDEN, "refused", name.as_str()),
        Stop::Unreachable(name) => (StatusCode::BAD_GATEWAY, "unreachable", name.as_str()),
        Stop::Untrue(name) => (StatusCode::FORBIDDEN, "untrue", name.as_str()),
        Stop::NoAccount(name) => (StatusCode::FORBIDDEN, "no_account", name.as_str()),
        Stop::Deactivated => (StatusCode::FORBIDDEN, "deactivated", ""),
        Stop::Occupied => (StatusCode::FORBIDDEN, "occupied", ""),
        Stop::NotYou(user) => (StatusCode::FORBIDDEN, "not_you", user.as_str()),
        Stop::Cancelled => (StatusCode::OK, "cancelled", ""),
        Stop::Failed(error) => return pages::failed(api, error),
    };
    api.pages.show(Page { status, ..Page::new("stopped.html", context! { reason, name }) })
}
