//! Providers, and those between, whose word is not to be believed. Each story has somebody log in with one thing wrong.

use super::*;
use crate::support::{
    each_backend,
    provider::{Key, Mischief},
};

/// What is wrong, and with which lie.
fn lies() -> Vec<(&'static str, Mischief)> {
    let claims = |claims: Value| Mischief { claims, ..Mischief::default() };
    let header = |header: Value| Mischief { header, ..Mischief::default() };
    let answer =
        |key: &str, value: &str| Mischief { answer: vec![(key.to_owned(), value.to_owned())], ..Mischief::default() };
    vec![
        ("nobody signed it", header(json!({ "alg": "none" }))),
        ("nobody signed it, in other letters", header(json!({ "alg": "None" }))),
        ("it is signed by a secret that two know", Mischief { shared_key: true, ..Mischief::default() }),
        (
            "it is signed by a key that the provider does not have",
            Mischief { foreign_key: true, ..Mischief::default() },
        ),
        ("it names another algorithm than that of the key", header(json!({ "alg": "RS256" }))),
        ("it wants something to be understood", header(json!({ "crit": ["exp"] }))),
        ("it is another provider's", claims(json!({ "iss": "https://id.example" }))),
        ("it is nobody's", claims(json!({ "iss": null }))),
        ("it is for another client", claims(json!({ "aud": "another" }))),
        ("it is for another client as well", claims(json!({ "aud": [CLIENT, "another"] }))),
        ("it was given to another client", claims(json!({ "azp": "another" }))),
        ("it is of another login", claims(json!({ "nonce": "another" }))),
        ("it is of no login", claims(json!({ "nonce": null }))),
        ("it has expired", claims(json!({ "exp": 1_699_999_999 }))),
        ("it expires now", claims(json!({ "exp": 1_700_000_000 }))),
        ("it does not expire", claims(json!({ "exp": null }))),
        ("it is of the future", claims(json!({ "iat": 1_700_001_000, "exp": 1_700_002_000 }))),
        ("it names nobody", claims(json!({ "sub": null }))),
        ("it names nobody that can be told", claims(json!({ "sub": "x".repeat(300) }))),
        ("it tells of somebody else", Mischief { userinfo: json!({ "sub": "another" }), ..Mischief::default() }),
        ("it tells of nobody", Mischief { userinfo: json!({ "sub": null }), ..Mischief::default() }),
        ("the answer names another", answer("iss", "https://id.example")),
        ("the answer does not name it as it promised", Mischief { promises_issuer: true, ..Mischief::default() }),
        ("it gives no token", Mischief { fails: true, ..Mischief::default() }),
    ]
}

each_backend! {
    async fn s12_what_does_not_prove_anything_lets_nobody_in(given: Given) {
        // A provider of its own for each, as what it says of itself is remembered.
        let mut providers = Vec::new();
        for (what, mischief) in lies() {
            let provider = Provider::start().await;
            provider.knows(somebody("alice"));
            provider.lies(mischief);
            providers.push((what, provider));
        }
        let server = given.server_with(|config| {
            let one = |(n, (_, provider)): (usize, &(_, Provider))| configured(&format!("p{n}"), provider);
            with(config, providers.iter().enumerate().map(one).collect());
        }).await;
        let browser = Browser::of(&server);
        for (n, (what, _)) in providers.iter().enumerate() {
            let shown = browser.begins(&format!("p{n}"), APP).await;
            assert_eq!(shown.status, 403, "{what}: {shown:?}");
            assert!(shown.text.contains(&format!("The answer of The p{n} is not believed")), "{what}: {shown:?}");
        }
        server.get("/_matrix/client/v3/register/available?username=alice").await.ok();
        // Nor is it because of anything else.
        providers[0].1.lies(Mischief::default());
        logs_in(&server, &browser, "p0").await;
    }

    async fn what_a_provider_may_say_is_taken(given: Given) {
        let provider = Provider::with_key(Key::rsa()).await;
        let server = server_of(given, &provider).await;
        provider.knows(somebody("alice"));
        let browser = Browser::of(&server);
        let issuer = vec![("iss".to_owned(), provider.issuer())];
        for mischief in [
            Mischief::default(),
            Mischief { claims: json!({ "aud": [CLIENT], "azp": CLIENT, "more": { "a": [1] } }), ..Mischief::default() },
            Mischief { header: json!({ "typ": null }), ..Mischief::default() },
            Mischief { header: json!({ "kid": null }), ..Mischief::default() },
            Mischief { answer: issuer.clone(), ..Mischief::default() },
        ] {
            provider.lies(mischief);
            assert_eq!(logs_in(&server, &browser, "house").await.id, "@alice:test.example");
        }
    }

    async fn s12_a_code_is_of_the_login_that_it_was_given_for(given: Given) {
        let provider = Provider::start().await;
        let server = server_of(given, &provider).await;
        let (mallory, victim) = (Browser::of(&server), Browser::of(&server));
        let code_of = |back: &str| {
            let url: url::Url = back.parse().unwrap();
            url.query_pairs().find(|(key, _)| key == "code").unwrap().1.into_owned()
        };
        for forgets_pkce in [false, true] {
            provider.lies(Mischief { forgets_pkce, ..Mischief::default() });
            provider.knows(somebody("mallory"));
            let theirs = mallory.comes_back("house", APP).await;
            provider.knows(somebody("victim"));
            let own = victim.comes_back("house", APP).await;
            // What the victim's browser brings back is somebody else's: the proof of who began it is another, and where
            // a provider does not ask for that, so is the nonce.
            let injected = own.replace(&code_of(&own), &code_of(&theirs));
            victim.opens(&injected).await.says(403, "is not believed");
        }
        // A code that was used is refused by the provider, and with it the login.
        provider.lies(Mischief::default());
        let first = mallory.comes_back("house", APP).await;
        mallory.opens(&first).await.says(200, "Do you know this app?");
        let second = mallory.comes_back("house", APP).await;
        mallory.opens(&second.replace(&code_of(&second), &code_of(&first))).await.says(403, "is not believed");
    }

    async fn a_provider_may_change_its_key(given: Given) {
        let provider = Provider::start().await;
        let server = server_of(given, &provider).await;
        provider.knows(somebody("alice"));
        let browser = Browser::of(&server);
        logs_in(&server, &browser, "house").await;
        provider.changes_its_key();
        // It was asked for its keys just now, and is not to be asked at each login that somebody makes up.
        browser.begins("house", APP).await.says(403, "is not believed");
        server.clock.advance(60_000);
        logs_in(&server, &browser, "house").await;
    }

    async fn a_provider_that_is_not_there_is_told(given: Given) {
        let provider = Provider::start().await;
        let server = server_with(given, &provider, |_, one| one.issuer_url = "http://127.0.0.1:1".to_owned()).await;
        Browser::of(&server).begins("house", APP).await.says(502, "The house can’t be reached");
        server.stop().await;
        // Another host than that of the issuer may not be reached inside.
        let liar = axum::Router::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let issuer = format!("http://127.0.0.1:{}", address.port());
        let body = json!({
            "issuer": issuer, "authorization_endpoint": format!("{issuer}/a"), "token_endpoint": format!("{issuer}/t"),
            "jwks_uri": provider.issuer().replace("127.0.0.1", "127.0.0.2") + "/keys", "response_types_supported": ["code"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["RS256"],
        });
        let said = move || async move { ([("content-type", "application/json")], body.to_string()) };
        let liar = liar.route("/.well-known/openid-configuration", axum::routing::get(said));
        tokio::spawn(async move { axum::serve(listener, liar).await });
        let server = server_with(given, &provider, |_, one| one.issuer_url = issuer).await;
        Browser::of(&server).begins("house", APP).await.says(502, "The house can’t be reached");
    }
}
