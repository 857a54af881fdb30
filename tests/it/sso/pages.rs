//! What the pages are made of, whoever had a hand in it.

use super::*;
use crate::support::{each_backend, people::escaped};

const MARKUP: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 1234*5678 }}";

#[track_caller]
fn is_safe(shown: &Shown) {
    let header = |name: &str| shown.headers.get(name).map_or("", |value| value.to_str().unwrap());
    let policy = header("content-security-policy");
    for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"] {
        assert!(policy.contains(part), "{part} in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("referrer-policy"), "no-referrer");
    assert_eq!(header("cache-control"), "no-store");
    assert_eq!(header("x-frame-options"), "DENY");
    assert_eq!(header("content-type"), "text/html; charset=utf-8");
    assert!(shown.headers.get("access-control-allow-origin").is_none(), "{shown:?}");
    for bad in ["<script>alert", "<img", "onerror=alert(2)>", "7006652"] {
        assert!(!shown.text.contains(bad), "{bad} in {}", shown.text);
    }
    for good in ["<meta name=\"viewport\"", "lang=\"en\"", "<title>", "<h1>"] {
        assert!(shown.text.contains(good), "{good} in {}", shown.text);
    }
}

each_backend! {
    async fn what_others_say_is_text_on_every_page(given: Given) {
        let (provider, other) = (Provider::start().await, Provider::start().await);
        let server = given.server_with(|config| {
            let mut odd = configured("odd", &other);
            odd.name = Some(MARKUP.to_owned());
            odd.registration = false;
            with(config, vec![configured("house", &provider), odd]);
        }).await;
        let browser = Browser::of(&server);
        let odd = json!({
            "sub": MARKUP, "preferred_username": MARKUP, "name": MARKUP, "picture": MARKUP, "email": MARKUP, "sid": MARKUP,
        });
        provider.knows(odd.clone());
        other.knows(odd);
        let client = format!("https://app.example/?{}", escaped(MARKUP));

        let page = browser.begins("house", &client).await;
        page.says(200, "&lt;script&gt;");
        is_safe(&page);
        let again = browser.sends(&page, "/_hearth/sso/name", &[("username", MARKUP)]).await;
        again.says(400, "&lt;script&gt;");
        is_safe(&again);
        let again = browser.sends(&page, "/_hearth/sso/link", &[("user", MARKUP), ("password", MARKUP)]).await;
        again.says(400, "&lt;script&gt;");
        is_safe(&again);
        let asked = browser.sends(&page, "/_hearth/sso/name", &[("username", "alice")]).await;
        asked.says(200, "Do you know this app?");
        is_safe(&asked);
        let policy = asked.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("form-action 'self' https://app.example;"), "{policy}");
        let away = goes_on(&browser, asked).await;
        assert!(away.away.unwrap().starts_with("https://app.example/?%3Cscript%3E"));

        let all = browser.opens(&format!("{HOME}/_matrix/client/v3/login/sso/redirect?redirectUrl={}", escaped(&client))).await;
        all.says(200, "Continue with &lt;script&gt;");
        is_safe(&all);
        let linked = browser.begins("odd", &client).await;
        linked.says(200, "You have no account here yet");
        is_safe(&linked);
        other.lies(crate::support::provider::Mischief { refuses: Some(MARKUP.to_owned()), ..Default::default() });
        let refused = browser.begins("odd", &client).await;
        refused.says(403, "&lt;script&gt;");
        is_safe(&refused);
        for url in [
            format!("{HOME}/_matrix/client/v3/login/sso/redirect/{}?redirectUrl=https://a.b", escaped(MARKUP)),
            format!("{HOME}/_matrix/client/v3/login/sso/redirect/house?redirectUrl={}", escaped(MARKUP)),
            format!("{HOME}/_hearth/sso/callback/house?state={0}&error={0}&iss={0}", escaped(MARKUP)),
            format!("{HOME}/_matrix/client/v3/auth/m.login.sso/fallback/web?session={}", escaped(MARKUP)),
            format!("{HOME}/_matrix/client/v3/auth/{}/fallback/web?session=x", escaped(MARKUP)),
        ] {
            let shown = browser.opens(&url).await;
            assert!((400..500).contains(&shown.status), "{shown:?}");
            is_safe(&shown);
        }
        // A name of a scheme or host adds nothing to what a page may do.
        let odd = browser.begins("house", "https://a.b;script-src%20*/").await;
        if odd.status == 200 {
            is_safe(&odd);
            assert!(!odd.headers["content-security-policy"].to_str().unwrap().contains("b;script"), "{odd:?}");
        }
    }

    async fn forms_have_a_size_and_a_type(given: Given) {
        let provider = Provider::start().await;
        let server = server_of(given, &provider).await;
        let browser = Browser::of(&server);
        let url = format!("{HOME}/_hearth/sso/name");
        let large = browser.asks(reqwest::Method::POST, &url, Some(&[("username", &"a".repeat(30_000))])).await;
        is_safe(&large);
        assert_eq!(large.status, 413);
        browser.asks(reqwest::Method::POST, &url, None).await.says(400, "took too long");
        let json = server.request(reqwest::Method::POST, "/_hearth/sso/name").body("ticket=a");
        assert_eq!(server.send(json).await.status, 400);
        assert_eq!(server.get("/_hearth/sso/name").await.status, 405);
        let head = server.request(reqwest::Method::HEAD, "/_matrix/client/v3/login/sso/redirect/nobody?redirectUrl=https://a.b");
        assert_eq!(server.send(head).await.status, 404);
    }

    async fn the_page_that_tells_the_app_runs_this_script_and_no_other(given: Given) {
        use base64::Engine as _;
        use sha2::Digest as _;

        let provider = Provider::start().await;
        let server = server_of(given, &provider).await;
        provider.knows(somebody("alice"));
        let browser = Browser::of(&server);
        let alice = logs_in(&server, &browser, "house").await;
        let session = alice.post("/account/deactivate", json!({})).await.json()["session"].as_str().unwrap().to_owned();
        let page = browser.opens(&format!("{HOME}/_matrix/client/v3/auth/m.login.sso/fallback/web?session={session}")).await;
        is_safe(&page);
        assert!(!page.text.contains("<script"), "{page:?}");
        let done = browser.opens(&page.links()[0]).await;
        is_safe(&done);
        for (tag, directive) in [("script", "script-src"), ("style", "style-src")] {
            let (_, rest) = done.text.split_once(&format!("<{tag}>")).unwrap();
            let (text, _) = rest.split_once(&format!("</{tag}>")).unwrap();
            let hash = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(text.as_bytes()));
            let policy = done.headers["content-security-policy"].to_str().unwrap();
            assert!(policy.contains(&format!("{directive} 'sha256-{hash}'")), "{policy}");
        }
    }
}
