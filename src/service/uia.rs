//! User-interactive authentication.
//!
//! Each of our flows has a single stage, so a request that carries the stage carries all there is to check. Nothing is
//! kept between two requests: no secret can leak from what isn't stored, nothing has to be bounded or to expire, and the
//! second request may go to another process than the first.
//!
//! <https://spec.matrix.org/v1.16/client-server-api/#user-interactive-authentication-api>

use hearth_core::{
    Error,
    clock::{Rng, random_string},
    error::{Uia, UiaError, UiaFlow},
};
use ruma::api::client::uiaa::AuthData;
use serde_json::json;

pub const DUMMY: &str = "m.login.dummy";
pub const PASSWORD: &str = "m.login.password";
pub const REGISTRATION_TOKEN: &str = "m.login.registration_token";

/// The 401 that asks for one of these stages. `failed`: why the attempt in `auth` was not good enough.
pub fn ask(rng: &dyn Rng, stages: &[&str], auth: Option<&AuthData>, failed: Option<&str>) -> Error {
    // A client goes on with the session it was given.
    let session = auth.and_then(AuthData::session).filter(|s| s.len() <= 64);
    Error::Uia(Box::new(Uia {
        flows: stages.iter().map(|stage| UiaFlow { stages: vec![(*stage).to_owned()] }).collect(),
        completed: Vec::new(),
        params: json!({}),
        session: session.map_or_else(|| random_string(rng, 24), ToOwned::to_owned),
        error: failed.map(|error| UiaError { errcode: "M_FORBIDDEN".to_owned(), error: error.to_owned() }),
    }))
}
