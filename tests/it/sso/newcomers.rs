//! People who have no account here yet.

use super::*;
use crate::support::{each_backend, people::PASSWORD};

each_backend! {
    async fn who_is_called_like_somebody_else_chooses_a_name(given: Given) {
        let provider = Provider::start().await;
        let server = server_of(given, &provider).await;
        Person::registers(&server, "alice").await;
        provider.knows(json!({ "sub": "1", "preferred_username": "Alice", "name": "Alice of elsewhere" }));
        let browser = Browser::of(&server);
        let page = browser.begins("house", APP).await;
        page.says(200, "Choose your name");
        page.says(200, "Alice of elsewhere");
        page.says(200, "value=\"Alice\"");

        let page = browser.sends(&page, "/_hearth/sso/name", &[("username", "alice")]).await;
        page.says(400, "This user name is taken");
        for bad in ["", "Ümit", "a b", "@a:b"] {
            let again = browser.sends(&page, "/_hearth/sso/name", &[("username", bad)]).await;
            again.says(400, "role=\"alert\"");
        }
        let asked = browser.sends(&page, "/_hearth/sso/name", &[("username", " Alice2 ")]).await;
        let away = goes_on(&browser, asked).await;
        let alice = Person::from(&server, &trade(&server, &away.token()).await.ok());
        assert_eq!(alice.id, "@alice2:test.example");
        assert_eq!(alice.get("/profile/@alice2:test.example").await.ok()["displayname"], "Alice of elsewhere");
        // The page is of no use any more, and the person is who they are.
        browser.sends(&page, "/_hearth/sso/name", &[("username", "carol")]).await.says(400, "took too long");
        assert_eq!(logs_in(&server, &browser, "house").await.id, alice.id);
        // There is no password to such an account.
        let login = json!({ "type": "m.login.password", "user": "alice2", "password": "" });
        server.post("/_matrix/client/v3/login", &login).await.refused(403, "M_FORBIDDEN");
    }

    async fn a_person_gets_one_account_however_often_they_ask(given: Given) {
        let provider = Provider::start().await;
        let server = server_with(given, &provider, |_, one| one.confirm_localpart = true).await;
        provider.knows(somebody("alice"));
        let (one, two) = (Browser::of(&server), Browser::of(&server));
        let pages = [one.begins("house", APP).await, two.begins("house", APP).await];
        for page in &pages {
            page.says(200, "value=\"alice\"");
        }
        let both = futures_util::future::join(
            one.sends(&pages[0], "/_hearth/sso/name", &[("username", "one")]),
            two.sends(&pages[1], "/_hearth/sso/name", &[("username", "two")]),
        );
        let (first, second) = both.await;
        let users = [goes_on(&one, first).await, goes_on(&two, second).await];
        let mut ids = Vec::new();
        for away in users {
            ids.push(Person::from(&server, &trade(&server, &away.token()).await.ok()).id);
        }
        assert_eq!(ids[0], ids[1]);
    }

    async fn who_has_an_account_links_it_by_its_password(given: Given) {
        let provider = Provider::start().await;
        let server = server_of(given, &provider).await;
        let alice = Person::registers(&server, "alice").await;
        provider.knows(somebody("alice"));
        let browser = Browser::of(&server);
        let page = browser.begins("house", APP).await;
        page.says(200, "I already have an account here");
        for (user, password) in [("alice", "wrong"), ("nobody", PASSWORD), ("@alice:elsewhere.example", PASSWORD), ("", "")] {
            let again = browser.sends(&page, "/_hearth/sso/link", &[("user", user), ("password", password)]).await;
            again.says(400, "Wrong user name or password");
        }
        let stolen = Browser::of(&server).sends(&page, "/_hearth/sso/link", &[("user", "alice"), ("password", PASSWORD)]).await;
        stolen.says(403, "This began in another browser");
        let asked = browser.sends(&page, "/_hearth/sso/link", &[("user", "alice"), ("password", PASSWORD)]).await;
        let away = goes_on(&browser, asked).await;
        assert_eq!(Person::from(&server, &trade(&server, &away.token()).await.ok()).id, alice.id);
        assert_eq!(logs_in(&server, &browser, "house").await.id, alice.id);
        alice.get("/account/whoami").await.ok();
    }

    async fn to_guess_a_password_by_linking_is_to_guess_it(given: Given) {
        let provider = Provider::start().await;
        let server = server_with(given, &provider, |config, _| {
            config.limits.rate_limit.enabled = true;
            config.limits.rate_limit.login_account = hearth::config::Limit::of(0.001, 2);
        }).await;
        Person::registers(&server, "alice").await;
        provider.knows(somebody("alice"));
        let browser = Browser::of(&server);
        let page = browser.begins("house", APP).await;
        for said in ["Wrong user name", "Wrong user name", "Too many requests"] {
            let fields = [("user", "alice"), ("password", "a guess")];
            browser.sends(&page, "/_hearth/sso/link", &fields).await.says(400, said);
        }
        let login = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD });
        server.post("/_matrix/client/v3/login", &login).await.refused(429, "M_LIMIT_EXCEEDED");
    }

    async fn an_account_is_adopted_by_its_name_only_where_the_operator_trusts_the_provider(given: Given) {
        let (trusted, other) = (Provider::start().await, Provider::start().await);
        let server = given.server_with(|config| {
            let mut first = configured("house", &trusted);
            first.trusted = true;
            with(config, vec![first, configured("street", &other)]);
        }).await;
        let token = server.first_admin_token().expect("nobody was there at the start");
        let auth = json!({ "type": "m.login.registration_token", "token": token });
        server.post("/_matrix/client/v3/register", &json!({ "username": "root", "auth": auth })).await.ok();
        let alice = Person::registers(&server, "alice").await;
        other.knows(somebody("alice"));
        trusted.knows(somebody("alice"));
        let browser = Browser::of(&server);
        browser.begins("street", APP).await.says(200, "Choose your name");
        assert_eq!(logs_in(&server, &browser, "house").await.id, alice.id);
        assert_eq!(logs_in(&server, &browser, "house").await.id, alice.id);
        // Who inherits the name there does not inherit the account here.
        trusted.knows(json!({ "sub": "another subject", "preferred_username": "alice" }));
        browser.begins("house", APP).await.says(403, "This account is somebody else’s");
        // Whose name is only like one here is not whom it belongs to.
        Person::registers(&server, "carol").await;
        trusted.knows(json!({ "sub": "Carol", "preferred_username": "Carol" }));
        browser.begins("house", APP).await.says(200, "Choose your name");
        // Nor is a name enough for who may do everything.
        trusted.knows(somebody("root"));
        browser.begins("house", APP).await.says(200, "Choose your name");
        // Who has none gets one.
        trusted.knows(somebody("bob"));
        assert_eq!(logs_in(&server, &browser, "house").await.id, "@bob:test.example");
    }

    async fn a_provider_may_bring_nobody_new(given: Given) {
        let provider = Provider::start().await;
        let server = server_with(given, &provider, |_, one| one.registration = false).await;
        Person::registers(&server, "alice").await;
        provider.knows(somebody("bob"));
        let browser = Browser::of(&server);
        let page = browser.begins("house", APP).await;
        page.says(200, "You have no account here yet");
        assert!(!page.text.contains("/_hearth/sso/name"), "{page:?}");
        let form = [("ticket", page.ticket()), ("username", "bob".to_owned())];
        let form: Vec<_> = form.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let forced = browser.asks(reqwest::Method::POST, &format!("{HOME}/_hearth/sso/name"), Some(&form)).await;
        forced.says(403, "There is no account for you here");
        server.get("/_matrix/client/v3/register/available?username=bob").await.ok();
        let asked = browser.sends(&page, "/_hearth/sso/link", &[("user", "alice"), ("password", PASSWORD)]).await;
        goes_on(&browser, asked).await.token();

        server.stop().await;
        let server = server_with(given, &provider, |config, one| {
            one.registration = false;
            config.sso.login_with_password = false;
        }).await;
        provider.knows(somebody("carol"));
        Browser::of(&server).begins("house", APP).await.says(403, "There is no account for you here");
    }

    async fn a_picture_comes_with_a_new_account_if_it_is_one(given: Given) {
        let provider = Provider::start().await;
        let server = server_with(given, &provider, |config, _| {
            // The provider may be inside, but what its people name may not, unless the operator says so.
            config.outgoing.outgoing_allowlist = vec!["localhost".parse().unwrap()];
        }).await;
        let inside = provider.issuer();
        let allowed = inside.replace("127.0.0.1", "localhost");
        let cases = [
            ("a", format!("{inside}/picture"), false),
            ("b", format!("{allowed}/page"), false),
            ("c", format!("{allowed}/nothing"), false),
            ("d", "file:///etc/passwd".to_owned(), false),
            ("e", format!("{allowed}/picture"), true),
        ];
        for (name, picture, kept) in cases {
            provider.knows(json!({ "sub": name, "preferred_username": name, "picture": picture }));
            let person = logs_in(&server, &Browser::of(&server), "house").await;
            let profile = person.get(&format!("/profile/{}", person.id)).await.ok();
            let url = profile["avatar_url"].as_str();
            assert_eq!(url.is_some(), kept, "{picture}: {profile}");
            let Some(id) = url.and_then(|url| url.strip_prefix("mxc://")) else { continue };
            let request = server.request(reqwest::Method::GET, &format!("/_matrix/client/v1/media/download/{id}"));
            let file = server.send(request.bearer_auth(&person.token)).await;
            assert_eq!((file.status, file.header("content-type")), (200, Some("image/gif")));
        }
    }

    async fn names_come_from_the_operators_templates(given: Given) {
        let provider = Provider::start().await;
        let server = server_with(given, &provider, |_, one| {
            one.localpart_template = "{{ user.email | split('@') | first }}.{{ user.team }}".to_owned();
            one.display_name_template = "{{ user.given }} ({{ user.team | upper }})".to_owned();
        }).await;
        provider.knows(json!({ "sub": "1", "email": "alice@b.c", "team": "x", "given": "Alice" }));
        let alice = logs_in(&server, &Browser::of(&server), "house").await;
        assert_eq!(alice.id, "@alice.x:test.example");
        assert_eq!(alice.get("/profile/@alice.x:test.example").await.ok()["displayname"], "Alice (X)");
        // A name that the provider lacks is asked for.
        provider.knows(json!({ "sub": "2" }));
        Browser::of(&server).begins("house", APP).await.says(200, "Choose your name");
    }
}
