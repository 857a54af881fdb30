//! Providers that say that somebody has logged out there.

use super::*;
use crate::support::{each_backend, people::PASSWORD, provider::Mischief};

async fn says(server: &Server, provider: &str, token: &str) -> Shown {
    let url = format!("{HOME}/_hearth/sso/backchannel/{provider}");
    Browser::of(server).asks(reqwest::Method::POST, &url, Some(&[("logout_token", token)])).await
}

async fn is_there(person: &Person) -> bool {
    person.get("/account/whoami").await.status == 200
}

each_backend! {
    async fn sessions_end_with_that_at_the_provider(given: Given) {
        let provider = Provider::start().await;
        let server = server_of(given, &provider).await;
        let browser = Browser::of(&server);
        let mut sessions = Vec::new();
        for sid in ["one", "two"] {
            provider.knows(json!({ "sub": "1", "sid": sid, "preferred_username": "alice" }));
            sessions.push(logs_in(&server, &browser, "house").await);
        }
        provider.knows(somebody("bob"));
        let bob = logs_in(&server, &browser, "house").await;
        let [one, two] = &sessions[..] else { unreachable!() };

        let token = provider.says_logged_out(CLIENT, &json!({ "sid": "one", "sub": "1" }));
        let told = says(&server, "house", &token).await;
        assert_eq!((told.status, told.headers["cache-control"].to_str().unwrap()), (200, "no-store"), "{told:?}");
        assert!(!is_there(one).await && is_there(two).await && is_there(&bob).await);
        // The same again is not the same again.
        provider.knows(json!({ "sub": "1", "sid": "one", "preferred_username": "alice" }));
        let back = logs_in(&server, &browser, "house").await;
        assert_eq!(says(&server, "house", &token).await.status, 400);
        assert!(is_there(&back).await);

        // Who does not come by the provider is not sent away by it.
        let (session, _) = {
            let asked = back.post("/account/password", json!({ "new_password": PASSWORD })).await.json();
            (asked["session"].as_str().unwrap().to_owned(), ())
        };
        let page = browser.opens(&format!("{HOME}/_matrix/client/v3/auth/m.login.sso/fallback/web?session={session}")).await;
        browser.opens(&page.links()[0]).await.says(200, "It is confirmed");
        let set = json!({ "new_password": PASSWORD, "logout_devices": false, "auth": { "session": session } });
        back.post("/account/password", set).await.ok();
        let by_password = Person::logs_in(&server, "alice").await;
        // Nor what is on its way here, unless it is.
        let asked = browser.begins("house", APP).await;
        let pending = goes_on(&browser, asked).await.token();
        assert_eq!(says(&server, "house", &provider.says_logged_out(CLIENT, &json!({ "sub": "1" }))).await.status, 200);
        assert!(!is_there(two).await && !is_there(&back).await);
        assert!(is_there(&by_password).await && is_there(&bob).await);
        trade(&server, &pending).await.refused(403, "M_FORBIDDEN");
    }

    async fn what_is_no_logout_ends_nothing(given: Given) {
        let (provider, other) = (Provider::start().await, Provider::start().await);
        let server = given.server_with(|config| {
            let mut deaf = configured("deaf", &other);
            deaf.backchannel_logout = false;
            with(config, vec![configured("house", &provider), deaf]);
        }).await;
        provider.knows(somebody("alice"));
        let browser = Browser::of(&server);
        let alice = logs_in(&server, &browser, "house").await;
        let said = |changes: Value| {
            let mut all = json!({ "sub": "subject of alice" });
            all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            provider.says_logged_out(CLIENT, &all)
        };
        let mut lies = vec![
            String::new(),
            "a.b.c".to_owned(),
            provider.says_logged_out("another", &json!({ "sub": "subject of alice" })),
            other.says_logged_out(CLIENT, &json!({ "sub": "subject of alice", "iss": provider.issuer() })),
            said(json!({ "iss": other.issuer() })),
            said(json!({ "events": {} })),
            said(json!({ "nonce": "n" })),
            said(json!({ "jti": null })),
            said(json!({ "iat": 1_600_000_000 })),
            said(json!({ "exp": 1_600_000_000 })),
            said(json!({ "sub": null })),
        ];
        for mischief in [
            Mischief { header: json!({ "alg": "none" }), ..Mischief::default() },
            Mischief { header: json!({ "typ": "at+jwt" }), ..Mischief::default() },
            Mischief { foreign_key: true, ..Mischief::default() },
            Mischief { shared_key: true, ..Mischief::default() },
        ] {
            provider.lies(mischief);
            lies.push(said(json!({})));
        }
        for lie in lies {
            let told = says(&server, "house", &lie).await;
            assert_eq!(told.status, 400, "{told:?}");
            assert!(told.text.contains("\"invalid_request\""), "{told:?}");
        }
        provider.lies(Mischief::default());
        for nobody in ["nobody", "deaf"] {
            assert_eq!(says(&server, nobody, &said(json!({}))).await.status, 404);
        }
        assert!(is_there(&alice).await);
        assert_eq!(says(&server, "house", &said(json!({}))).await.status, 200);
        assert!(!is_there(&alice).await);
    }
}
