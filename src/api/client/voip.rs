//! Calls: the relays that help them through firewalls.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hearth_core::Result;
use ruma::{UserId, api::client::voip::get_turn_server_info};
use serde::Serialize;

use crate::{
    api::{Api, Client, Json, Routes},
    config::{Secret, Turn},
};

pub(super) fn routes(r: Routes) -> Routes {
    r.client_as(relays)
}

/// What a client is to say to the relays. Where there are none, clients want an empty answer, which ruma's type can't be.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Relays {
    #[serde(flatten)]
    found: Option<Found>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Found {
    username: String,
    password: String,
    uris: Vec<String>,
    ttl: u64,
}

async fn relays(api: Api, req: Client<get_turn_server_info::v3::Request>) -> Result<Json<Relays>> {
    Ok(Json(Relays { found: found(&api.config.turn, &req.auth.user_id, api.clock.now_ms()) }))
}

/// With a secret, the name says until when it is good, and the password proves that it was us who said so.
///
/// <https://datatracker.ietf.org/doc/html/draft-uberti-behave-turn-rest-00>
fn found(turn: &Turn, user: &UserId, now_ms: i64) -> Option<Found> {
    let (uris, ttl) = (turn.turn_uris.clone(), turn.turn_ttl);
    if uris.is_empty() {
        return None;
    }
    let (username, password) = match (&turn.turn_secret, &turn.turn_username, &turn.turn_password) {
        (Some(secret), ..) => {
            let until = (now_ms / 1_000).saturating_add(i64::try_from(ttl).unwrap_or(i64::MAX));
            let name = format!("{until}:{user}");
            let proof = proof(secret, &name);
            (name, proof)
        }
        (None, Some(name), Some(password)) => (name.clone(), password.expose().to_owned()),
        _ => return None,
    };
    Some(Found { username, password, uris, ttl })
}

fn proof(secret: &Secret, name: &str) -> String {
    use aws_lc_rs::hmac;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose().as_bytes());
    STANDARD.encode(hmac::sign(&key, name.as_bytes()))
}
