//! Proving elsewhere again who one is.

use super::*;
use crate::support::{each_backend, people::PASSWORD};

fn fallback(session: &str) -> String {
    format!("{HOME}/_matrix/client/v3/auth/m.login.sso/fallback/web?session={session}")
}

/// Asks for something, and is told in which session to prove who it is.
async fn asks_to(person: &Person, path: &str, body: &Value) -> (String, Value) {
    let asked = person.post(path, body.clone()).await;
    assert_eq!(asked.status, 401, "{asked:?}");
    let told = asked.json();
    (told["session"].as_str().unwrap().to_owned(), told["flows"].clone())
}

/// The same again, once that was done.
async fn repeats(person: &Person, path: &str, body: &Value, session: &str) -> Reply {
    let mut body = body.clone();
    body["auth"] = json!({ "session": session });
    person.post(path, body).await
}

/// Confirms whatever it is, at the first provider that is offered.
async fn confirms(browser: &Browser, session: &str) -> Shown {
    let page = browser.opens(&fallback(session)).await;
    page.says(200, "Confirm that it is you");
    browser.opens(&page.links()[0]).await
}

pub(super) async fn ends_the_account(server: &Server, browser: &Browser, person: &Person) {
    let (session, _) = asks_to(person, "/account/deactivate", &json!({})).await;
    confirms(&Browser::of(server), &session).await.says(200, "It is confirmed");
    repeats(person, "/account/deactivate", &json!({}), &session).await.ok();
    let _ = browser;
}

each_backend! {
    async fn who_has_no_password_proves_elsewhere_who_they_are(given: Given) {
        let provider = Provider::start().await;
        let server = server_of(given, &provider).await;
        provider.knows(somebody("alice"));
        let browser = Browser::of(&server);
        let alice = logs_in(&server, &browser, "house").await;
        let body = json!({ "new_password": PASSWORD });
        let (session, flows) = asks_to(&alice, "/account/password", &body).await;
        assert_eq!(flows, json!([{ "stages": ["m.login.sso"] }]));
        // A password that there is not proves nothing.
        let mut guess = body.clone();
        guess["auth"] = json!({
            "type": "m.login.password", "identifier": { "type": "m.id.user", "user": alice.id }, "password": "",
            "session": session,
        });
        assert_eq!(alice.post("/account/password", guess).await.status, 401);
        assert_eq!(repeats(&alice, "/account/password", &body, &session).await.status, 401);

        let page = browser.opens(&fallback(&session)).await;
        page.says(200, "set the password of this account");
        page.says(200, "@alice:test.example");
        let done = browser.opens(&page.links()[0]).await;
        done.says(200, "It is confirmed");
        assert_eq!(provider.asked()["prompt"], "login", "whoever sits there may be somebody else");
        assert!(done.text.contains("window.opener.postMessage(\"authDone\", \"*\")"), "{done:?}");
        repeats(&alice, "/account/password", &body, &session).await.ok();
        // Once.
        assert_eq!(repeats(&alice, "/account/password", &body, &session).await.status, 401);
        browser.opens(&fallback(&session)).await.says(400, "took too long");

        // Who has one by now may use it.
        let (_, flows) = asks_to(&alice, "/account/password", &body).await;
        assert_eq!(flows, json!([{ "stages": ["m.login.sso"] }, { "stages": ["m.login.password"] }]));
        Person::logs_in(&server, "alice").await;
    }

    async fn who_is_nobody_elsewhere_is_not_sent_there(given: Given) {
        let provider = Provider::start().await;
        let server = server_of(given, &provider).await;
        let alice = Person::registers(&server, "alice").await;
        let (session, flows) = asks_to(&alice, "/account/deactivate", &json!({})).await;
        assert_eq!(flows, json!([{ "stages": ["m.login.password"] }]));
        let browser = Browser::of(&server);
        browser.opens(&fallback(&session)).await.says(400, "took too long");
        assert_eq!(repeats(&alice, "/account/deactivate", &json!({}), &session).await.status, 401);
        browser.opens(&format!("{HOME}/_matrix/client/v3/auth/m.login.dummy/fallback/web?session=x")).await.says(404, "no such way");
    }

    async fn nobody_else_confirms_what_somebody_does(given: Given) {
        let provider = Provider::start().await;
        let server = server_of(given, &provider).await;
        let browser = Browser::of(&server);
        provider.knows(somebody("mallory"));
        let mallory = logs_in(&server, &browser, "house").await;
        provider.knows(somebody("alice"));
        let alice = logs_in(&server, &browser, "house").await;
        let body = json!({ "new_password": PASSWORD });
        let (session, _) = asks_to(&alice, "/account/password", &body).await;

        // Another person of the provider, with an account here or without one.
        for other in ["mallory", "bob"] {
            provider.knows(somebody(other));
            confirms(&browser, &session).await.says(403, "This is not @alice:test.example");
            assert_eq!(repeats(&alice, "/account/password", &body, &session).await.status, 401);
        }
        provider.knows(somebody("alice"));
        // A link to the page is worth nothing in another browser than that which the page was shown to.
        let page = browser.opens(&fallback(&session)).await;
        Browser::of(&server).opens(&page.links()[0]).await.says(403, "This began in another browser");
        assert_eq!(repeats(&alice, "/account/password", &body, &session).await.status, 401);

        confirms(&browser, &session).await.says(200, "It is confirmed");
        // Neither is it good for another user, nor for something else.
        assert_eq!(repeats(&mallory, "/account/password", &body, &session).await.status, 401);
        assert_eq!(repeats(&alice, "/account/deactivate", &json!({}), &session).await.status, 401);
        repeats(&alice, "/account/password", &body, &session).await.ok();
    }

    async fn a_confirmation_is_for_some_time_and_there_are_so_many(given: Given) {
        let provider = Provider::start().await;
        let server = server_of(given, &provider).await;
        provider.knows(somebody("alice"));
        let browser = Browser::of(&server);
        let alice = logs_in(&server, &browser, "house").await;
        let body = json!({ "new_password": PASSWORD });
        let (session, _) = asks_to(&alice, "/account/password", &body).await;
        confirms(&browser, &session).await.says(200, "It is confirmed");
        server.clock.advance(600_000);
        assert_eq!(repeats(&alice, "/account/password", &body, &session).await.status, 401);

        let (first, _) = asks_to(&alice, "/account/password", &body).await;
        browser.opens(&fallback(&first)).await.says(200, "Confirm that it is you");
        server.clock.advance(1_000);
        for _ in 0..20 {
            asks_to(&alice, "/account/password", &body).await;
        }
        browser.opens(&fallback(&first)).await.says(400, "took too long");
    }

    async fn keys_and_devices_take_it_too(given: Given) {
        let provider = Provider::start().await;
        let server = server_of(given, &provider).await;
        provider.knows(somebody("alice"));
        let browser = Browser::of(&server);
        let alice = logs_in(&server, &browser, "house").await;
        let other = logs_in(&server, &browser, "house").await;
        let body = json!({ "devices": [other.device] });
        let (session, _) = asks_to(&alice, "/delete_devices", &body).await;
        let page = browser.opens(&fallback(&session)).await;
        page.says(200, "log out devices");
        browser.opens(&page.links()[0]).await.says(200, "It is confirmed");
        repeats(&alice, "/delete_devices", &body, &session).await.ok();
        other.get("/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    }
}
