//! User-interactive authentication.
//!
//! Each of our flows has a single stage, so a request that carries the stage carries all there is to check. Nothing is
//! kept between two requests: no secret can leak from what isn't stored, nothing has to be bounded or to expire, and the
//! second request may go to another process than the first. The one stage that no request can carry is a login elsewhere:
//! of that, the database keeps which user is to confirm what, and whether they have (`service/confirm.rs`).
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
pub const SSO: &str = "m.login.sso";

/// For so long somebody may take to confirm something elsewhere, and then their client to say that they have.
pub const CONFIRMED_FOR_MS: i64 = 10 * 60 * 1000;

/// The 401 that asks for one of these stages. `failed`: why the attempt in `auth` was not good enough.
pub fn ask(rng: &dyn Rng, stages: &[&str], auth: Option<&AuthData>, failed: Option<&str>) -> Error {
    // A client goes on with the session it was given.
    let session = auth.and_then(AuthData::session).filter(|s| s.len() <= 64);
    ask_in(session.map_or_else(|| new_session(rng), ToOwned::to_owned), stages, failed)
}

pub fn new_session(rng: &dyn Rng) -> String {
    random_string(rng, 24)
}

/// The same within a session.
pub fn ask_in(session: String, stages: &[&str], failed: Option<&str>) -> Error {
    Error::Uia(Box::new(Uia {
        flows: stages.iter().map(|stage| UiaFlow { stages: vec![(*stage).to_owned()] }).collect(),
        completed: Vec::new(),
        params: json!({}),
        session,
        error: failed.map(|error| UiaError { errcode: "M_FORBIDDEN".to_owned(), error: error.to_owned() }),
    }))
}
