//! The relays of calls.

use hearth::config::Secret;
use serde_json::json;

use crate::support::{Given, Server, people::Person};

const PATH: &str = "/voip/turnServer";

/// A server where anybody may register, with these relays.
async fn server(given: &Given, change: impl FnOnce(&mut hearth::config::Turn)) -> Server {
    given
        .server_with(|config| {
            config.registration.allow_registration = true;
            config.registration.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true;
            change(&mut config.turn);
        })
        .await
}

#[tokio::test]
async fn without_relays_there_is_nothing_to_say() {
    let given = Given::sqlite();
    let server = server(&given, |_| {}).await;
    let alice = Person::registers(&server, "alice").await;
    assert_eq!(alice.get(PATH).await.ok(), json!({}));
    server.get(&format!("/_matrix/client/v3{PATH}")).await.refused(401, "M_MISSING_TOKEN");
    assert_eq!(server.get(&format!("/_matrix/client/r0{PATH}")).await.status, 401, "the path of old");
    server.stop().await;
}

#[tokio::test]
async fn a_secret_makes_credentials_for_each_user() {
    let given = Given::sqlite();
    let uris = || vec!["turn:turn.test.example?transport=udp".to_owned(), "turns:turn.test.example".to_owned()];
    let server = server(&given, |turn| {
        turn.turn_uris = uris();
        turn.turn_secret = Some(Secret::new("north"));
        turn.turn_ttl = 3_600;
    })
    .await;
    let alice = Person::registers(&server, "alice").await;
    // By openssl: `printf '1700003600:@alice:test.example' | openssl dgst -sha1 -hmac north -binary | base64`.
    let expected = json!({
        "username": "1700003600:@alice:test.example", "password": "KvuPqHsJtzxzU4cHWsWw1MuWGEg=", "uris": uris(), "ttl": 3_600,
    });
    assert_eq!(alice.get(PATH).await.ok(), expected);
    server.stop().await;
}

#[tokio::test]
async fn relays_may_take_the_same_from_everybody() {
    let given = Given::sqlite();
    let server = server(&given, |turn| {
        turn.turn_uris = vec!["turn:turn.test.example".to_owned()];
        turn.turn_username = Some("all".to_owned());
        turn.turn_password = Some(Secret::new("of us"));
    })
    .await;
    let alice = Person::registers(&server, "alice").await;
    let expected = json!({ "username": "all", "password": "of us", "uris": ["turn:turn.test.example"], "ttl": 86_400 });
    assert_eq!(alice.get(PATH).await.ok(), expected);
    server.stop().await;
}
