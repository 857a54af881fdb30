//! The way there and back.

use super::*;
use crate::support::{browser::login_url, each_backend};

each_backend! {
    async fn somebody_logs_in_elsewhere_and_is_the_same_the_next_time(given: Given) {
        let provider = Provider::start().await;
        let server = server_of(given, &provider).await;
        provider.knows(somebody("alice"));
        let browser = Browser::of(&server);

        let asked = browser.begins("house", APP).await;
        asked.says(200, "Do you know this app?");
        asked.says(200, "app.example");
        asked.says(200, "@alice:test.example");
        let away = browser.sends(&asked, "/_hearth/sso/leave", &[("go", "yes")]).await;
        assert_eq!(away.status, 303);
        let url = away.away.clone().unwrap();
        assert!(url.starts_with("https://app.example/client?x=1&loginToken=") && url.ends_with("#here"), "{url}");
        let alice = Person::from(&server, &trade(&server, &away.token()).await.ok());
        assert_eq!(alice.id, "@alice:test.example");
        let profile = alice.get("/profile/@alice:test.example").await.ok();
        assert_eq!(profile["displayname"], "alice");

        let asked = provider.asked();
        assert_eq!(asked["scope"].split(' ').collect::<std::collections::BTreeSet<_>>().len(), 3);
        assert_eq!(asked["redirect_uri"], format!("{HOME}/_hearth/sso/callback/house"));
        assert!(!asked.contains_key("prompt"));

        // Whatever they are called by now.
        provider.knows(json!({ "sub": "subject of alice", "preferred_username": "bob", "name": "Bob" }));
        let again = logs_in(&server, &browser, "house").await;
        assert_eq!(again.id, alice.id);
        assert_ne!(again.device, alice.device);
        assert_eq!(again.get("/profile/@alice:test.example").await.ok()["displayname"], "alice");
        // And in any other browser.
        assert_eq!(logs_in(&server, &Browser::of(&server), "house").await.id, alice.id);
    }

    async fn clients_are_told_of_the_providers(given: Given) {
        let (one, two) = (Provider::start().await, Provider::start().await);
        let server = given.server_with(|config| {
            let mut first = configured("house", &one);
            first.brand = Some("GitHub".to_owned());
            first.icon = Some("mxc://test.example/icon".into());
            with(config, vec![first, configured("street", &two)]);
        }).await;
        let ways = server.get("/_matrix/client/v3/login").await.ok();
        assert_eq!(ways["flows"], json!([
            { "type": "m.login.password" },
            { "type": "m.login.sso", "identity_providers": [
                { "id": "house", "name": "The house", "icon": "mxc://test.example/icon", "brand": "github" },
                { "id": "street", "name": "The street", "icon": null, "brand": null },
            ] },
            { "type": "m.login.token", "get_login_token": true },
        ]));

        // Who is of both is two, until they say otherwise.
        one.knows(somebody("alice"));
        two.knows(somebody("bob"));
        let browser = Browser::of(&server);
        assert_eq!(logs_in(&server, &browser, "house").await.id, "@alice:test.example");
        assert_eq!(logs_in(&server, &browser, "street").await.id, "@bob:test.example");
        // The same words of another provider are another's.
        two.knows(somebody("alice"));
        browser.begins("street", APP).await.says(200, "Choose your name");
        browser.begins("nobody", APP).await.says(404, "no such way to log in");

        // Clients that know nothing of several leave it to a page.
        let page = browser.opens(&format!("{HOME}/_matrix/client/v3/login/sso/redirect?redirectUrl=https%3A%2F%2Fapp.example%2F%3Fa%26b")).await;
        page.says(200, "How do you want to log in?");
        let links = page.links();
        assert_eq!(links, ["house", "street"].map(|id| format!("redirect/{id}?redirectUrl=https%3A%2F%2Fapp.example%2F%3Fa%26b")));
        let chosen = browser.opens(&format!("{HOME}/_matrix/client/v3/login/sso/{}", links[0])).await;
        chosen.says(200, "Do you know this app?");
    }

    async fn without_a_provider_there_is_no_such_login(given: Given) {
        let server = given.server().await;
        let ways = server.get("/_matrix/client/v3/login").await.ok();
        assert_eq!(ways["flows"], json!([{ "type": "m.login.password" }, { "type": "m.login.token", "get_login_token": true }]));
        let browser = Browser::of(&server);
        for path in ["", "/house"] {
            let url = format!("{HOME}/_matrix/client/v3/login/sso/redirect{path}?redirectUrl=https%3A%2F%2Fa.b");
            browser.opens(&url).await.says(404, "no such way to log in");
        }
        browser.opens(&format!("{HOME}/_hearth/sso/callback/house?state=a&code=b")).await.says(404, "no such way");
    }

    async fn who_may_not_log_in_by_a_password_is_not_offered_it(given: Given) {
        let provider = Provider::start().await;
        let server = server_with(given, &provider, |config, _| config.sso.login_with_password = false).await;
        let ways = server.get("/_matrix/client/v3/login").await.ok();
        assert_eq!(ways["flows"][0]["type"], "m.login.sso");
        Person::registers(&server, "alice").await;
        let login = json!({ "type": "m.login.password", "user": "alice", "password": crate::support::people::PASSWORD });
        server.post("/_matrix/client/v3/login", &login).await.refused(403, "M_FORBIDDEN");
        provider.knows(somebody("alice"));
        let page = Browser::of(&server).begins("house", APP).await;
        page.says(200, "Choose your name");
        assert!(!page.text.contains("/_hearth/sso/link"), "nor to link an account by it: {page:?}");
    }

    async fn a_login_that_is_refused_is_told(given: Given) {
        let provider = Provider::start().await;
        let server = server_of(given, &provider).await;
        provider.knows(somebody("alice"));
        let browser = Browser::of(&server);
        provider.lies(crate::support::provider::Mischief { refuses: Some("access_denied".to_owned()), ..Default::default() });
        let back = browser.comes_back("house", APP).await;
        browser.opens(&back).await.says(403, "The house did not log you in");
        browser.opens(&back).await.says(400, "took too long, or is done already");
        // Who asks again is asked again.
        provider.lies(Default::default());
        logs_in(&server, &browser, "house").await;
    }

    async fn a_login_is_for_some_time_and_once(given: Given) {
        let provider = Provider::start().await;
        let server = server_of(given, &provider).await;
        provider.knows(somebody("alice"));
        let browser = Browser::of(&server);
        let back = browser.comes_back("house", APP).await;
        browser.opens(&back).await.says(200, "Do you know this app?");
        browser.opens(&back).await.says(400, "took too long, or is done already");

        let back = browser.comes_back("house", APP).await;
        server.clock.advance(600_000);
        browser.opens(&back).await.says(400, "took too long");
        browser.opens(&format!("{HOME}/_hearth/sso/callback/house")).await.says(400, "took too long");
        browser.opens(&format!("{HOME}/_hearth/sso/callback/house?state=%00&code=a")).await.says(400, "took too long");

        // The question whether the client is known is for some time and once, too.
        let asked = browser.begins("house", APP).await;
        browser.sends(&asked, "/_hearth/sso/leave", &[("go", "yes")]).await.token();
        browser.sends(&asked, "/_hearth/sso/leave", &[("go", "yes")]).await.says(400, "took too long");
        let asked = browser.begins("house", APP).await;
        browser.sends(&asked, "/_hearth/sso/leave", &[("go", "no")]).await.says(200, "You were not logged in");
        browser.sends(&asked, "/_hearth/sso/leave", &[("go", "yes")]).await.says(400, "took too long");
    }

    async fn nobody_ends_in_another_browser_what_began_in_one(given: Given) {
        let provider = Provider::start().await;
        let server = server_of(given, &provider).await;
        provider.knows(somebody("mallory"));
        let (mallory, victim) = (Browser::of(&server), Browser::of(&server));
        let back = mallory.comes_back("house", APP).await;
        victim.opens(&back).await.says(403, "This began in another browser");
        // Nor with a login of its own under way.
        victim.comes_back("house", APP).await;
        victim.opens(&back).await.says(403, "This began in another browser");
        // Nor with a cookie of a name that a neighbour of this host could have set.
        for value in mallory.cookies().values() {
            victim.has_cookie("hearth-sso-1", value);
        }
        victim.opens(&back).await.says(403, "This began in another browser");
        // The browser that began is not kept from its end by that.
        let asked = mallory.opens(&back).await;
        asked.says(200, "Do you know this app?");
        // The same goes for each step after it.
        let taken = victim.sends(&asked, "/_hearth/sso/leave", &[("go", "yes")]).await;
        taken.says(403, "This began in another browser");
        goes_on(&mallory, asked).await.token();
        mallory.forgets_its_cookies();
        let back = victim.comes_back("house", APP).await;
        mallory.opens(&back).await.says(403, "This began in another browser");
    }

    async fn a_login_at_one_provider_is_none_at_another(given: Given) {
        let (house, street) = (Provider::start().await, Provider::start().await);
        let server = given.server_with(|config| {
            with(config, vec![configured("house", &house), configured("street", &street)]);
        }).await;
        house.knows(somebody("alice"));
        let browser = Browser::of(&server);
        let back = browser.comes_back("house", APP).await;
        let mixed = back.replace("/callback/house", "/callback/street");
        browser.opens(&mixed).await.says(403, "The answer of The street is not believed");
        browser.opens(&back).await.says(200, "Do you know this app?");
    }

    async fn an_account_that_has_ended_stays_so(given: Given) {
        let provider = Provider::start().await;
        let server = server_of(given, &provider).await;
        provider.knows(somebody("alice"));
        let browser = Browser::of(&server);
        let alice = logs_in(&server, &browser, "house").await;
        let before = browser.begins("house", APP).await;
        let token = goes_on(&browser, before).await.token();
        confirmations::ends_the_account(&server, &browser, &alice).await;
        trade(&server, &token).await.refused(403, "M_FORBIDDEN");
        browser.begins("house", APP).await.says(403, "This account has been ended");
    }

    async fn pages_are_for_so_many_browsers_at_one_address(given: Given) {
        let provider = Provider::start().await;
        let server = server_with(given, &provider, |config, _| {
            config.limits.rate_limit.enabled = true;
            config.limits.rate_limit.sso_address = hearth::config::Limit::of(0.001, 2);
        }).await;
        let browser = Browser::of(&server);
        for _ in 0..2 {
            assert_eq!(browser.asks(reqwest::Method::GET, &login_url("house", APP), None).await.status, 302);
        }
        browser.asks(reqwest::Method::GET, &login_url("house", APP), None).await.says(429, "Too many requests");
    }
}
