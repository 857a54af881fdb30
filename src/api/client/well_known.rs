//! How clients and servers that know only the server's name find it.

use axum::body::Body;
use hearth_core::{Error, Result};
use http::{Response, StatusCode};
use ruma::api::client::discovery::discover_homeserver::{self, HomeserverInfo};
use serde_json::json;

use crate::api::{Api, Public, Routes, respond};

pub fn routes(r: Routes) -> Routes {
    r.public(client).plain("/.well-known/matrix/server", server)
}

async fn client(api: Api, _: Public<discover_homeserver::Request>) -> Result<discover_homeserver::Response> {
    match &api.config.server.well_known.client {
        Some(url) => Ok(discover_homeserver::Response::new(HomeserverInfo::new(url.clone()))),
        None => Err(nothing()),
    }
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
