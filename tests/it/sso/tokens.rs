//! Where people are sent with a login token, and what it is good for.

use super::*;
use crate::support::{browser::login_url, each_backend, people::PASSWORD};

each_backend! {
    async fn cve_2020_26891_and_cve_2021_21332_nobody_is_sent_to_a_stranger_unasked(given: Given) {
        let provider = Provider::start().await;
        let server = server_with(given, &provider, |config, _| {
            config.sso.sso_client_whitelist =
                vec!["https://app.element.io/".to_owned(), "https://chat.example/app".to_owned(), "element://".to_owned()];
        }).await;
        provider.knows(somebody("alice"));
        let browser = Browser::of(&server);
        for known in ["https://app.element.io", "https://app.element.io/#/x", "https://chat.example/app/?a=b", "element://vector/"] {
            let away = browser.begins("house", known).await;
            assert_eq!(away.status, 303, "{known}");
            assert!(trade(&server, &away.token()).await.status == 200, "{known}");
        }
        for (stranger, shown) in [
            ("https://app.element.io.evil/", "app.element.io.evil"),
            ("https://app.element.io:8443/", "app.element.io:8443"),
            ("http://app.element.io/", "http://app.element.io"),
            ("https://evil.example/https://app.element.io/", "evil.example"),
            ("https://evil.example\\@app.element.io/", "evil.example"),
            ("https://chat.example/apple", "chat.example"),
            ("https://chat.example/app/../other", "chat.example"),
            ("https://еlement.io/", "xn--lement-2of.io"),
            ("elements://vector/", "elements://vector"),
        ] {
            let asked = browser.begins("house", stranger).await;
            asked.says(200, "Do you know this app?");
            asked.says(200, &format!("<p class=\"place\">{}</p>", shown.replace('/', "&#x2f;")));
            assert!(!asked.text.contains("loginToken"), "{asked:?}");
        }
        for nowhere in [
            "javascript:alert(1)",
            "JaVaScRiPt://app.element.io/%0aalert(1)",
            "data:text/html,<script>alert(1)</script>",
            "vbscript:x",
            "file:///etc/passwd",
            "https://app.element.io@evil.example/",
            "//evil.example/",
            "/",
            "",
        ] {
            let refused = browser.asks(reqwest::Method::GET, &login_url("house", nowhere), None).await;
            refused.says(400, "Nobody is sent there from here");
        }
        let without = format!("{HOME}/_matrix/client/v3/login/sso/redirect/house");
        browser.opens(&without).await.says(400, "Nobody is sent there from here");
    }

    async fn a_token_is_for_one_session_and_not_for_long(given: Given) {
        let provider = Provider::start().await;
        let server = server_of(given, &provider).await;
        provider.knows(somebody("alice"));
        let browser = Browser::of(&server);
        let asked = browser.begins("house", APP).await;
        let token = goes_on(&browser, asked).await.token();
        let all = (0..4).map(|_| trade(&server, &token));
        let all = futures_util::future::join_all(all).await;
        assert_eq!(all.iter().filter(|reply| reply.status == 200).count(), 1);
        trade(&server, &token).await.refused(403, "M_FORBIDDEN");
        for odd in ["", "nonsense", "hrl_AAAA"] {
            trade(&server, odd).await.refused(403, "M_FORBIDDEN");
        }
        let asked = browser.begins("house", APP).await;
        let token = goes_on(&browser, asked).await.token();
        let login = json!({ "type": "m.login.token", "token": token, "device_id": "" });
        server.post("/_matrix/client/v3/login", &login).await.refused(400, "M_INVALID_PARAM");
        server.clock.advance(119_999);
        trade(&server, &token).await.ok();
        let asked = browser.begins("house", APP).await;
        let token = goes_on(&browser, asked).await.token();
        server.clock.advance(120_000);
        trade(&server, &token).await.refused(403, "M_FORBIDDEN");
    }

    async fn a_client_logs_in_another_once_its_user_has_proved_who_they_are(given: Given) {
        let server = crate::support::people::open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let ask = async |auth: Value| {
            let request = server.request(reqwest::Method::POST, "/_matrix/client/v1/login/get_token");
            server.send(request.bearer_auth(&alice.token).json(&auth)).await
        };
        assert_eq!(ask(json!({})).await.status, 401);
        let user = json!({ "type": "m.id.user", "user": "alice" });
        let wrong = json!({ "auth": { "type": "m.login.password", "identifier": user, "password": "wrong" } });
        assert_eq!(ask(wrong).await.status, 401);
        let auth = json!({ "auth": { "type": "m.login.password", "identifier": user, "password": PASSWORD } });
        let given_out = ask(auth.clone()).await.ok();
        assert_eq!(given_out["expires_in_ms"], 120_000);
        let other = trade(&server, given_out["login_token"].as_str().unwrap()).await.ok();
        assert_eq!(other["user_id"], "@alice:test.example");
        assert_ne!(other["device_id"], alice.device.as_str());
        server.post("/_matrix/client/v1/login/get_token", &auth).await.refused(401, "M_MISSING_TOKEN");

        server.stop().await;
        let server = given.server_with(|config| config.sso.login_via_existing_session = false).await;
        let request = server.request(reqwest::Method::POST, "/_matrix/client/v1/login/get_token");
        server.send(request.bearer_auth(&alice.token).json(&auth)).await.refused(403, "M_FORBIDDEN");
        let ways = server.get("/_matrix/client/v3/login").await.ok();
        assert_eq!(ways["flows"], json!([{ "type": "m.login.password" }]));
    }
}
