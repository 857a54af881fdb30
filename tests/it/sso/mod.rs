//! People who log in elsewhere, in a browser, and come back to a client.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

mod backchannel;
mod cluster;
mod confirmations;
mod doubts;
mod logins;
mod newcomers;
mod pages;
mod tokens;

use hearth::config::{Config, IdentityProvider, Secret};
use serde_json::{Value, json};

use crate::support::{
    Given, Http, Reply, Server,
    browser::{APP, Browser, HOME, Shown},
    people::Person,
    provider::{Provider, SECRET},
};

/// What the server is called at the provider.
const CLIENT: &str = "hearth at home";

/// A provider as an operator writes it down.
fn configured(id: &str, provider: &Provider) -> IdentityProvider {
    IdentityProvider {
        id: Some(id.to_owned()),
        name: Some(format!("The {id}")),
        issuer_url: provider.issuer(),
        client_id: CLIENT.to_owned(),
        client_secret: Some(Secret::new(SECRET)),
        ..IdentityProvider::default()
    }
}

fn with(config: &mut Config, providers: Vec<IdentityProvider>) {
    config.server.well_known.client = Some(HOME.to_owned());
    config.registration.allow_registration = true;
    config.registration.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true;
    config.sso.identity_provider = providers;
}

/// A server that people of one provider log in to.
async fn server_of(given: &Given, provider: &Provider) -> Server {
    server_with(given, provider, |_, _| {}).await
}

async fn server_with(
    given: &Given,
    provider: &Provider,
    change: impl FnOnce(&mut Config, &mut IdentityProvider),
) -> Server {
    given
        .server_with(|config| {
            let mut one = configured("house", provider);
            change(config, &mut one);
            with(config, vec![one]);
        })
        .await
}

/// Somebody of a provider, who is nobody else.
fn somebody(name: &str) -> Value {
    json!({ "sub": format!("subject of {name}"), "sid": format!("sid of {name}"), "preferred_username": name, "name": name })
}

async fn trade(http: &Http, token: &str) -> Reply {
    http.post("/_matrix/client/v3/login", &json!({ "type": "m.login.token", "token": token })).await
}

/// Logs somebody in who may have been here before, by all pages that there are on the way.
async fn logs_in(server: &Server, browser: &Browser, id: &str) -> Person {
    let asked = browser.begins(id, APP).await;
    let away = goes_on(browser, asked).await;
    Person::from(server, &trade(server, &away.token()).await.ok())
}

/// Says yes to the client.
async fn goes_on(browser: &Browser, asked: Shown) -> Shown {
    asked.says(200, "Do you know this app?");
    browser.sends(&asked, "/_hearth/sso/leave", &[("go", "yes")]).await
}
