//! How clients and servers that know only the server's name find it.

use axum::body::Body;
use hearth_core::{Error, Result};
use http::{Response, StatusCode};
use ruma::api::client::discovery::{
    discover_homeserver::{self, HomeserverInfo},
    discover_support::{self, Contact},
};
use serde_json::json;

use crate::api::{Api, Public, Routes, respond};

pub fn routes(r: Routes) -> Routes {
    r.public(client).public(support).plain("/.well-known/matrix/server", server)
}

async fn client(api: Api, _: Public<discover_homeserver::Request>) -> Result<discover_homeserver::Response> {
    match &api.config.server.well_known.client {
        Some(url) => Ok(discover_homeserver::Response::new(HomeserverInfo::new(url.clone()))),
        None => Err(nothing()),
    }
}

async fn support(api: Api, _: Public<discover_support::Request>) -> Result<discover_support::Response> {
    let known = &api.config.server.well_known;
    let role = known.support_role.clone();
    let contact = match (&known.support_email, &known.support_mxid) {
        (Some(email), matrix_id) => {
            let mut contact = Contact::with_email_address(role, email.clone());
            contact.matrix_id.clone_from(matrix_id);
            Some(contact)
        }
        (None, Some(id)) => Some(Contact::with_matrix_id(role, id.clone())),
        (None, None) => None,
    };
    let mut response = discover_support::Response::with_contacts(contact.into_iter().collect());
    response.support_page.clone_from(&known.support_page);
    if response.contacts.is_empty() && response.support_page.is_none() {
        return Err(nothing());
    }
    Ok(response)
}

/// <https://spec.matrix.org/v1.18/server-server-api/#getwell-knownmatrixserver>
async fn server(api: Api) -> Response<Body> {
    match &api.config.server.well_known.server {
        Some(name) => respond::json(StatusCode::OK, &json!({ "m.server": name })),
        None => respond::error(&nothing()),
    }
}

fn nothing() -> Error {
    Error::not_found("Nothing is known of this server here")
}
