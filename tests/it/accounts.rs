//! Coming, being known, leaving; and what people keep here for themselves.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use aws_lc_rs::hmac;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Given, Http, Reply, Server, each_backend};

const PASSWORD: &str = "correct horse battery staple";

/// Somebody who is logged in.
pub struct Somebody {
    http: Http,
    pub user_id: String,
    pub device_id: String,
    pub token: String,
}

impl Somebody {
    fn known_as(http: &Http, welcome: &Value) -> Self {
        let text = |key: &str| welcome[key].as_str().unwrap_or_else(|| panic!("{key} in {welcome}")).to_owned();
        Self { http: http.clone(), user_id: text("user_id"), device_id: text("device_id"), token: text("access_token") }
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let request = self.http.request(method, path).bearer_auth(&self.token);
        let request = if let Some(body) = body { request.json(body) } else { request };
        self.http.send(request).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, Some(body)).await
    }

    async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::PUT, path, Some(body)).await
    }

    async fn delete(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::DELETE, path, Some(body)).await
    }

    async fn whoami(&self) -> Reply {
        self.get("/_matrix/client/v3/account/whoami").await
    }

    async fn is_logged_in(&self) {
        assert_eq!(self.whoami().await.ok()["user_id"], self.user_id);
    }

    async fn is_logged_out(&self) {
        self.whoami().await.refused(401, "M_UNKNOWN_TOKEN");
    }

    fn own(&self, path: &str) -> String {
        format!("/_matrix/client/v3/user/{}/{path}", self.user_id)
    }
}

/// A server where anybody may register.
async fn open_server(given: &Given) -> Server {
    given
        .server_with(|config| {
            config.registration.allow_registration = true;
            config.registration.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true;
            config.registration.registration_shared_secret = Some(hearth::config::Secret::new("the shared secret"));
        })
        .await
}

async fn try_register(http: &Http, mut body: Value) -> Reply {
    body["auth"] = json!({ "type": "m.login.dummy" });
    http.post("/_matrix/client/v3/register", &body).await
}

async fn register(http: &Http, name: &str) -> Somebody {
    let reply = try_register(http, json!({ "username": name, "password": PASSWORD })).await;
    Somebody::known_as(http, &reply.ok())
}

async fn try_login(http: &Http, user: &str, password: &str, device: Option<&str>) -> Reply {
    let mut body = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": user },
        "password": password,
    });
    if let Some(device) = device {
        body["device_id"] = device.into();
    }
    http.post("/_matrix/client/v3/login", &body).await
}

async fn login(http: &Http, user: &str, device: Option<&str>) -> Somebody {
    Somebody::known_as(http, &try_login(http, user, PASSWORD, device).await.ok())
}

fn proof(user: &str, password: &str) -> Value {
    json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": user }, "password": password })
}

each_backend! {
    async fn somebody_registers_in_one_request(given: Given) {
        let server = open_server(given).await;
        let asked = server.post("/_matrix/client/v3/register", &json!({})).await;
        assert_eq!(asked.status, 401);
        assert!(asked.json()["flows"].as_array().unwrap().contains(&json!({ "stages": ["m.login.dummy"] })));
        assert!(asked.json()["session"].is_string());

        let alice = register(&server, "Alice").await;
        assert_eq!(alice.user_id, "@alice:test.example", "names are in lower case");
        let me = alice.whoami().await.ok();
        assert_eq!((&me["device_id"], &me["is_guest"]), (&json!(alice.device_id), &Value::Null));

        let named = json!({
            "username": "bob", "password": PASSWORD, "device_id": "PHONE", "initial_device_display_name": "My phone",
        });
        let bob = Somebody::known_as(&server, &try_register(&server, named).await.ok());
        assert_eq!(bob.device_id, "PHONE");
        let devices = bob.get("/_matrix/client/v3/devices").await.ok();
        assert_eq!(devices["devices"][0]["display_name"], "My phone");

        let nameless = try_register(&server, json!({ "password": PASSWORD, "inhibit_login": true })).await.ok();
        assert!(nameless["user_id"].as_str().unwrap().ends_with(":test.example"));
        assert_eq!((&nameless["access_token"], &nameless["device_id"]), (&Value::Null, &Value::Null));
    }

    async fn not_every_name_can_be_had(given: Given) {
        let server = open_server(given).await;
        register(&server, "alice").await;
        for name in ["alice", "ALICE"] {
            try_register(&server, json!({ "username": name, "password": "x" })).await.refused(400, "M_USER_IN_USE");
            // The name is told before anything else is asked for.
            let early = server.post("/_matrix/client/v3/register", &json!({ "username": name })).await;
            early.refused(400, "M_USER_IN_USE");
            server
                .get(&format!("/_matrix/client/v3/register/available?username={name}"))
                .await
                .refused(400, "M_USER_IN_USE");
        }
        let free = server.get("/_matrix/client/v3/register/available?username=bob").await.ok();
        assert_eq!(free["available"], true);
        for bad in ["", "a b", "a:b", "@a", "a!", "a\n", "\u{e9}", "a\0", &"a".repeat(242)] {
            let body = json!({ "username": bad, "password": "x" });
            try_register(&server, body).await.refused(400, "M_INVALID_USERNAME");
        }
        for good in ["q", "3", ".", "=", "_", "/", "-", "+", &"a".repeat(241)] {
            register(&server, good).await;
        }
    }

    async fn what_is_no_registration_is_refused(given: Given) {
        let server = open_server(given).await;
        let guest = server.post("/_matrix/client/v3/register?kind=guest", &json!({})).await;
        guest.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
        let device = json!({ "username": "a", "password": "x", "device_id": "D".repeat(256) });
        try_register(&server, device).await.refused(400, "M_INVALID_PARAM");
        let long = json!({ "username": "a", "password": "x".repeat(513) });
        try_register(&server, long).await.refused(400, "M_INVALID_PARAM");
        let body = json!({ "username": "a", "password": "x", "auth": { "type": "m.login.nonsense" } });
        assert_eq!(server.post("/_matrix/client/v3/register", &body).await.status, 401);
    }

    async fn many_want_one_name_and_one_gets_it(given: Given) {
        let server = open_server(given).await;
        let all = (0..6).map(|_| try_register(&server, json!({ "username": "alice", "password": PASSWORD })));
        let all = futures_util::future::join_all(all).await;
        assert_eq!(all.iter().filter(|r| r.status == 200).count(), 1);
        for lost in all.iter().filter(|r| r.status != 200) {
            lost.refused(400, "M_USER_IN_USE");
        }
    }

    async fn a_closed_server_lets_its_first_administrator_in(given: Given) {
        let server = given.server().await;
        let token = server.first_admin_token().expect("a token, as there is nobody yet");
        let ask = |name: &str, token: &str| {
            let auth = json!({ "type": "m.login.registration_token", "token": token, "session": "s" });
            json!({ "username": name, "password": PASSWORD, "auth": auth })
        };
        let path = "/_matrix/client/v3/register";
        let flows = server.post(path, &json!({})).await.json();
        assert_eq!(flows["flows"], json!([{ "stages": ["m.login.registration_token"] }]));
        try_register(&server, json!({ "username": "a", "password": "x" })).await;
        let wrong = server.post(path, &ask("mallory", "guess")).await;
        assert_eq!((wrong.status, &wrong.json()["errcode"]), (401, &json!("M_FORBIDDEN")));
        assert_eq!(wrong.json()["session"], "s", "the client goes on with its session");
        let valid = format!("/_matrix/client/v1/register/m.login.registration_token/validity?token={token}");
        assert_eq!(server.get(&valid).await.ok()["valid"], true);

        server.post(path, &ask("alice", &token)).await.ok();
        server.post(path, &ask("bob", &token)).await.refused(403, "M_FORBIDDEN");
        assert_eq!(server.get(&valid).await.ok()["valid"], false);
        server.stop().await;
        assert_eq!(given.server().await.first_admin_token(), None);
    }

    async fn a_configured_token_lets_in_who_knows_it(given: Given) {
        let server = given
            .server_with(|config| {
                config.registration.allow_registration = true;
                config.registration.registration_token = Some(hearth::config::Secret::new("friends"));
            })
            .await;
        let refused = try_register(&server, json!({ "username": "mallory", "password": "x" })).await;
        assert_eq!(refused.status, 401, "a dummy stage is not enough");
        for name in ["alice", "bob"] {
            let auth = json!({ "type": "m.login.registration_token", "token": "friends" });
            let body = json!({ "username": name, "password": PASSWORD, "auth": auth });
            server.post("/_matrix/client/v3/register", &body).await.ok();
        }
    }

    async fn somebody_logs_in_by_password(given: Given) {
        let server = open_server(given).await;
        register(&server, "alice").await;
        let types = server.get("/_matrix/client/v3/login").await.ok();
        let token = json!({ "type": "m.login.token", "get_login_token": true });
        assert_eq!(types["flows"], json!([{ "type": "m.login.password" }, token]));
        for name in ["alice", "@alice:test.example", "Alice"] {
            login(&server, name, None).await.is_logged_in().await;
        }
        let old = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD });
        server.post("/_matrix/client/r0/login", &old).await.ok();
        let wrong = try_login(&server, "alice", "wrong", None).await.refused(403, "M_FORBIDDEN");
        for nobody in ["bob", "@alice:elsewhere.example", "", "\0"] {
            let said = try_login(&server, nobody, PASSWORD, None).await.refused(403, "M_FORBIDDEN");
            assert_eq!(said, wrong, "nobody can tell a wrong password from an unknown user");
        }
        let other = json!({ "type": "m.login.appservice", "token": "x" });
        server.post("/_matrix/client/v3/login", &other).await.refused(400, "M_UNKNOWN");
        let by_mail = json!({
            "type": "m.login.password", "password": "x",
            "identifier": { "type": "m.id.thirdparty", "medium": "email", "address": "a@b.c" },
        });
        server.post("/_matrix/client/v3/login", &by_mail).await.refused(400, "M_INVALID_PARAM");
    }

    async fn an_account_without_a_password_has_no_password_login(given: Given) {
        let server = open_server(given).await;
        for body in [json!({ "username": "a" }), json!({ "username": "b", "password": "" })] {
            let session = Somebody::known_as(&server, &try_register(&server, body.clone()).await.ok());
            let name = body["username"].as_str().unwrap();
            for guess in ["", "*", "null", "$argon2id$v=19$m=19456,t=2,p=1$", "password"] {
                try_login(&server, name, guess, None).await.refused(403, "M_FORBIDDEN");
                // Nor is there a word that opens what is guarded by the password.
                let path = format!("/_matrix/client/v3/devices/{}", session.device_id);
                let refused = session.delete(&path, &json!({ "auth": proof(name, guess) })).await;
                assert_eq!(refused.refused(401, "M_FORBIDDEN")["completed"], json!([]));
            }
            session.is_logged_in().await;
        }
    }

    async fn a_logout_counts_at_once(given: Given) {
        let server = open_server(given).await;
        let first = register(&server, "alice").await;
        let (second, third) = (login(&server, "alice", None).await, login(&server, "alice", None).await);
        for session in [&first, &second, &third] {
            session.is_logged_in().await;
        }
        second.post("/_matrix/client/v3/logout", &json!({})).await.ok();
        second.is_logged_out().await;
        first.is_logged_in().await;
        first.get(&format!("/_matrix/client/v3/devices/{}", second.device_id)).await.refused(404, "M_NOT_FOUND");
        first.post("/_matrix/client/v3/logout/all", &json!({})).await.ok();
        first.is_logged_out().await;
        third.is_logged_out().await;
        server.get("/_matrix/client/v3/account/whoami").await.refused(401, "M_MISSING_TOKEN");
    }

    async fn a_logout_is_heard_by_the_other_process(given: Given) {
        let (here, there) = (open_server(given).await, open_server(given).await);
        let alice = register(&here, "alice").await;
        let same = Somebody { http: (*there).clone(), ..login(&here, "alice", Some(&alice.device_id)).await };
        same.is_logged_in().await;
        let again = login(&here, "alice", Some(&alice.device_id)).await;
        again.is_logged_in().await;
        let heard = async { while same.whoami().await.status == 200 {} };
        tokio::time::timeout(std::time::Duration::from_secs(20), heard).await.expect("it hears of it");
        same.is_logged_out().await;
    }

    async fn a_device_that_logs_in_again_has_one_token(given: Given) {
        let server = open_server(given).await;
        let alice = register(&server, "alice").await;
        let bob = try_register(&server, json!({ "username": "bob", "device_id": alice.device_id })).await.ok();
        let bob = Somebody::known_as(&server, &bob);
        alice.is_logged_in().await;
        let again = login(&server, "alice", Some(&alice.device_id)).await;
        assert_eq!(again.device_id, alice.device_id);
        alice.is_logged_out().await;
        again.is_logged_in().await;
        bob.is_logged_in().await;
        assert_eq!(again.get("/_matrix/client/v3/devices").await.ok()["devices"].as_array().unwrap().len(), 1);
    }

    async fn a_new_password_needs_the_old_one(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (register(&server, "alice").await, register(&server, "bob").await);
        let (kept, ended) = (login(&server, "alice", None).await, login(&server, "alice", None).await);
        let path = "/_matrix/client/v3/account/password";
        let change = |new: &str, auth: Value| json!({ "new_password": new, "auth": auth });

        let asked = alice.post(path, &json!({ "new_password": "n" })).await;
        assert_eq!((asked.status, &asked.json()["flows"][0]["stages"][0]), (401, &json!("m.login.password")));
        let wrong = alice.post(path, &change("n", proof("alice", "wrong"))).await;
        assert_eq!((wrong.status, &wrong.json()["errcode"]), (401, &json!("M_FORBIDDEN")));
        alice.post(path, &change("n", proof(&bob.user_id, PASSWORD))).await.refused(403, "M_FORBIDDEN");
        let dummy = alice.post(path, &change("n", json!({ "type": "m.login.dummy" }))).await;
        assert_eq!(dummy.status, 401);
        alice.post(path, &change("", proof("alice", PASSWORD))).await.refused(400, "M_WEAK_PASSWORD");

        let mut keep = change("second", proof("alice", PASSWORD));
        keep["logout_devices"] = false.into();
        alice.post(path, &keep).await.ok();
        kept.is_logged_in().await;
        try_login(&server, "alice", PASSWORD, None).await.refused(403, "M_FORBIDDEN");
        kept.post(path, &change("third", proof("alice", "second"))).await.ok();
        kept.is_logged_in().await;
        for other in [&alice, &ended] {
            other.is_logged_out().await;
        }
        try_login(&server, "alice", "third", None).await.ok();
        bob.is_logged_in().await;
    }

    async fn an_old_account_drifts_to_the_cost_of_today(given: Given) {
        let at_cost = async |memory_kib| {
            given
                .server_with(|config| {
                    config.registration.allow_registration = true;
                    config.registration.registration_token = Some(hearth::config::Secret::new("friends"));
                    config.registration.password_hash_memory_kib = memory_kib;
                    config.registration.password_hash_passes = 1;
                })
                .await
        };
        let stored = async |cost: &str| {
            let cost = format!("$argon2id$v=19$m={cost},t=1,p=1$");
            given.everything_stored().await.windows(cost.len()).any(|part| part == cost.as_bytes())
        };
        let server = at_cost(8).await;
        let auth = json!({ "type": "m.login.registration_token", "token": "friends" });
        let body = json!({ "username": "alice", "password": PASSWORD, "auth": auth });
        server.post("/_matrix/client/v3/register", &body).await.ok();
        server.stop().await;

        let server = at_cost(16).await;
        try_login(&server, "alice", "wrong", None).await.refused(403, "M_FORBIDDEN");
        assert!(!stored("16").await, "a guess changes nothing");
        // Several at once: the first that is through takes nothing from the others.
        for outcome in futures_util::future::join_all((0..8).map(|_| login(&server, "alice", None))).await {
            outcome.is_logged_in().await;
        }
        assert!(stored("16").await);
        login(&server, "alice", None).await.is_logged_in().await;
        try_login(&server, "alice", "wrong", None).await.refused(403, "M_FORBIDDEN");
        server.stop().await;
    }

    async fn a_deactivated_account_is_over(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (register(&server, "alice").await, register(&server, "bob").await);
        let phone = login(&server, "alice", None).await;
        let path = "/_matrix/client/v3/account/deactivate";
        assert_eq!(alice.post(path, &json!({})).await.status, 401);
        alice.post(path, &json!({ "auth": proof("bob", PASSWORD) })).await.refused(403, "M_FORBIDDEN");
        alice.is_logged_in().await;
        let done = alice.post(path, &json!({ "auth": proof("alice", PASSWORD) })).await.ok();
        assert_eq!(done["id_server_unbind_result"], "no-support");
        for session in [&alice, &phone] {
            session.is_logged_out().await;
        }
        try_login(&server, "alice", PASSWORD, None).await.refused(403, "M_FORBIDDEN");
        try_register(&server, json!({ "username": "alice", "password": "x" })).await.refused(400, "M_USER_IN_USE");
        bob.is_logged_in().await;
    }

    async fn devices_are_their_owners(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (register(&server, "alice").await, register(&server, "bob").await);
        let laptop = login(&server, "alice", Some("LAPTOP")).await;
        let path = "/_matrix/client/v3/devices/LAPTOP";
        assert_eq!(alice.get("/_matrix/client/v3/devices").await.ok()["devices"].as_array().unwrap().len(), 2);
        alice.put(path, &json!({ "display_name": "Work" })).await.ok();
        alice.put(path, &json!({})).await.ok();
        let device = alice.get(path).await.ok();
        assert_eq!((&device["device_id"], &device["display_name"]), (&json!("LAPTOP"), &json!("Work")));
        alice.get("/_matrix/client/v3/devices/%00").await.refused(400, "M_INVALID_PARAM");
        for (method, path) in [(Method::GET, path), (Method::PUT, path)] {
            let body = (method == Method::PUT).then(|| json!({ "display_name": "Mine" }));
            bob.send(method, path, body.as_ref()).await.refused(404, "M_NOT_FOUND");
        }

        let asked = alice.delete(path, &json!({})).await;
        assert_eq!((asked.status, asked.json()["session"].is_string()), (401, true));
        alice.delete(path, &json!({ "auth": proof("bob", PASSWORD) })).await.refused(403, "M_FORBIDDEN");
        laptop.is_logged_in().await;
        bob.delete(path, &json!({ "auth": proof("bob", PASSWORD) })).await.ok();
        laptop.is_logged_in().await;
        alice.delete(path, &json!({ "auth": proof("alice", PASSWORD) })).await.ok();
        laptop.is_logged_out().await;

        let tablet = login(&server, "alice", Some("TABLET")).await;
        let many = json!({ "devices": ["TABLET", "NOWHERE"], "auth": proof("alice", PASSWORD) });
        alice.post("/_matrix/client/v3/delete_devices", &many).await.ok();
        tablet.is_logged_out().await;
        alice.is_logged_in().await;
    }

    async fn a_device_was_last_seen_when_it_was_last_here(given: Given) {
        let server = open_server(given).await;
        let alice = register(&server, "alice").await;
        server.clock.advance(5_000);
        alice.is_logged_in().await;
        server.clock.advance(5_000);
        alice.is_logged_in().await;
        server.stop().await;
        let server = open_server(given).await;
        let alice = Somebody { http: (*server).clone(), ..alice };
        let device = &alice.get("/_matrix/client/v3/devices").await.ok()["devices"][0];
        assert_eq!(device["last_seen_ts"], 1_700_000_005_000i64, "not written at every request");
        assert_eq!(device["last_seen_ip"], "127.0.0.1");
    }

    async fn a_profile_is_told_to_anybody(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (register(&server, "alice").await, register(&server, "bob").await);
        let whole = format!("/_matrix/client/v3/profile/{}", alice.user_id);
        let field = |name: &str| format!("{whole}/{name}");
        assert_eq!(server.get(&whole).await.ok(), json!({}));
        server.get(&field("displayname")).await.refused(404, "M_NOT_FOUND");
        alice.put(&field("displayname"), &json!({ "displayname": "Alice \u{1f431}" })).await.ok();
        alice.put(&field("avatar_url"), &json!({ "avatar_url": "mxc://test.example/cat" })).await.ok();
        alice.put(&field("org.example.pet"), &json!({ "org.example.pet": { "cat": 1 } })).await.ok();
        assert_eq!(server.get(&field("displayname")).await.ok(), json!({ "displayname": "Alice \u{1f431}" }));
        let all = json!({
            "displayname": "Alice \u{1f431}", "avatar_url": "mxc://test.example/cat", "org.example.pet": { "cat": 1 },
        });
        assert_eq!(server.get(&whole).await.ok(), all);

        bob.put(&field("displayname"), &json!({ "displayname": "Eve" })).await.refused(403, "M_FORBIDDEN");
        alice.put(&field("displayname"), &json!({ "displayname": "x".repeat(257) })).await.refused(400, "M_INVALID_PARAM");
        alice.put(&field("displayname"), &json!({ "displayname": 1 })).await.refused(400, "M_BAD_JSON");
        let key = "k".repeat(256);
        alice.put(&field(&key), &json!({ key.clone(): 1 })).await.refused(400, "M_KEY_TOO_LARGE");
        alice.put(&field("Bad"), &json!({ "Bad": 1 })).await.refused(400, "M_INVALID_PARAM");
        alice.put(&field("big"), &json!({ "big": "x".repeat(65_000) })).await.ok();
        alice.put(&field("more"), &json!({ "more": "x".repeat(1_000) })).await.refused(400, "M_PROFILE_TOO_LARGE");

        alice.put(&field("displayname"), &json!({ "displayname": "" })).await.ok();
        alice.send(Method::DELETE, &field("org.example.pet"), None).await.ok();
        bob.send(Method::DELETE, &field("avatar_url"), None).await.refused(403, "M_FORBIDDEN");
        for gone in ["displayname", "org.example.pet"] {
            server.get(&field(gone)).await.refused(404, "M_NOT_FOUND");
        }
        for nobody in ["@nobody:test.example", "@alice:elsewhere.example"] {
            server.get(&format!("/_matrix/client/v3/profile/{nobody}")).await.refused(404, "M_NOT_FOUND");
        }
    }

    async fn account_data_is_its_owners(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (register(&server, "alice").await, register(&server, "bob").await);
        let path = alice.own("account_data/org.example.colour");
        alice.get(&path).await.refused(404, "M_NOT_FOUND");
        alice.put(&path, &json!({ "colour": "red", "order": 0.5 })).await.ok();
        alice.put(&path, &json!({ "colour": "blue", "order": 0.5 })).await.ok();
        assert_eq!(alice.get(&path).await.ok(), json!({ "colour": "blue", "order": 0.5 }));
        bob.get(&path).await.refused(403, "M_FORBIDDEN");
        bob.put(&path, &json!({})).await.refused(403, "M_FORBIDDEN");
        for managed in ["m.fully_read", "m.push_rules"] {
            for place in ["account_data", "rooms/!r:test.example/account_data"] {
                let path = alice.own(&format!("{place}/{managed}"));
                alice.put(&path, &json!({})).await.refused(405, "M_BAD_JSON");
            }
        }
        assert!(alice.get(&alice.own("account_data/m.push_rules")).await.ok()["global"]["override"].is_array());
        alice.put(&path, &json!([])).await.refused(400, "M_BAD_JSON");
        alice.put(&path, &json!({ "x": "x".repeat(600_000) })).await.refused(413, "M_TOO_LARGE");
        let nowhere = alice.own("rooms/!nowhere:test.example/account_data/m.tag");
        alice.get(&nowhere).await.refused(404, "M_NOT_FOUND");
        alice.put(&nowhere, &json!({})).await.refused(404, "M_NOT_FOUND");
        alice.put(&alice.own("account_data/%00"), &json!({})).await.refused(400, "M_INVALID_PARAM");
    }

    async fn nobody_fills_the_server_with_account_data(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (register(&server, "alice").await, register(&server, "bob").await);
        let piece = json!({ "x": "x".repeat(520_000) });
        let path = |n: u32| alice.own(&format!("account_data/org.example.piece{n}"));
        for n in 0..20 {
            alice.put(&path(n), &piece).await.ok();
        }
        let said = alice.put(&path(20), &piece).await.refused(413, "M_TOO_LARGE");
        assert!(said["error"].as_str().unwrap().contains("together"), "{said}");
        alice.get(&path(20)).await.refused(404, "M_NOT_FOUND");
        alice.put(&path(3), &piece).await.ok();
        alice.put(&path(3), &json!({})).await.ok();
        alice.put(&path(20), &piece).await.ok();
        bob.put(&bob.own("account_data/org.example.piece"), &piece).await.ok();
    }

    async fn a_filter_has_one_id(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (register(&server, "alice").await, register(&server, "bob").await);
        let filter = json!({ "room": { "timeline": { "limit": 7 } } });
        let id = alice.post(&alice.own("filter"), &filter).await.ok();
        assert_eq!(alice.post(&alice.own("filter"), &filter).await.ok(), id);
        let path = alice.own(&format!("filter/{}", id["filter_id"].as_str().unwrap()));
        assert_eq!(alice.get(&path).await.ok(), filter);
        bob.get(&path).await.refused(403, "M_FORBIDDEN");
        bob.post(&alice.own("filter"), &filter).await.refused(403, "M_FORBIDDEN");
        alice.get(&alice.own("filter/nonsense")).await.refused(404, "M_NOT_FOUND");
        alice.get(&alice.own("filter/%00")).await.refused(400, "M_INVALID_PARAM");
    }

    async fn push_rules_begin_with_the_servers(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (register(&server, "alice").await, register(&server, "bob").await);
        let path = |rest: &str| format!("/_matrix/client/v3/pushrules/global/{rest}");
        let all = alice.get("/_matrix/client/v3/pushrules/").await.ok();
        assert_eq!(all["global"], alice.get(&path("")).await.ok());
        let ids = |kind: &str| {
            let rules = all["global"][kind].as_array().into_iter().flatten().map(|rule| rule["rule_id"].as_str().unwrap());
            rules.map(|id| id.replace(".m.rule.", "").replace(".org.matrix.msc3930.rule.", "")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ids("override"), "master suppress_notices invite_for_me member_event is_user_mention \
            contains_display_name is_room_mention roomnotif tombstone reaction room.server_acl suppress_edits poll_response");
        assert_eq!((ids("content"), ids("room"), ids("sender")), ("contains_user_name".to_owned(), String::new(), String::new()));
        assert_eq!(ids("underride"), "call encrypted_room_one_to_one room_one_to_one message encrypted \
            poll_start_one_to_one poll_start poll_end_one_to_one poll_end");

        alice.put(&path("content/cats"), &json!({ "pattern": "cat*", "actions": ["notify"] })).await.ok();
        alice.put(&path("content/dogs?before=cats"), &json!({ "pattern": "dog", "actions": [] })).await.ok();
        let rule = alice.get(&path("content/cats")).await.ok();
        assert_eq!((&rule["pattern"], &rule["default"], &rule["enabled"]), (&json!("cat*"), &json!(false), &json!(true)));
        let content = alice.get(&path("")).await.ok()["content"].clone();
        assert_eq!((&content[0]["rule_id"], &content[1]["rule_id"]), (&json!("dogs"), &json!("cats")));
        bob.get(&path("content/cats")).await.refused(404, "M_NOT_FOUND");

        let master = path("override/.m.rule.master/enabled");
        alice.put(&master, &json!({ "enabled": true })).await.ok();
        assert_eq!(alice.get(&master).await.ok()["enabled"], true);
        assert_eq!(bob.get(&master).await.ok()["enabled"], false);
        let actions = path("content/cats/actions");
        alice.put(&actions, &json!({ "actions": [{ "set_tweak": "highlight" }] })).await.ok();
        assert_eq!(alice.get(&actions).await.ok()["actions"], json!([{ "set_tweak": "highlight" }]));
        let stored = alice.get(&alice.own("account_data/m.push_rules")).await.ok();
        assert_eq!(stored["global"], alice.get(&path("")).await.ok());

        let body = json!({ "pattern": "x", "actions": [] });
        alice.put(&path("content/.mine"), &body).await.refused(400, "M_INVALID_PARAM");
        alice.put(&path("content/a?after=nowhere"), &body).await.refused(400, "M_UNKNOWN");
        alice.put(&path("content/a"), &json!({ "pattern": "x".repeat(1025), "actions": [] })).await.refused(400, "M_INVALID_PARAM");
        alice.put(&path("content/a"), &json!({ "actions": [] })).await.refused(400, "M_MISSING_PARAM");
        alice.put(&path("content/nowhere/enabled"), &json!({ "enabled": true })).await.refused(404, "M_NOT_FOUND");
        alice.send(Method::DELETE, &path("override/.m.rule.master"), None).await.refused(400, "M_INVALID_PARAM");
        alice.send(Method::DELETE, &path("content/nowhere"), None).await.refused(404, "M_NOT_FOUND");
        alice.send(Method::DELETE, &path("content/cats"), None).await.ok();
        alice.get(&path("content/cats")).await.refused(404, "M_NOT_FOUND");
    }

    async fn rules_changed_at_the_same_time_are_all_kept(given: Given) {
        let server = open_server(given).await;
        let alice = &register(&server, "alice").await;
        let put = |n: u32| async move {
            let path = format!("/_matrix/client/v3/pushrules/global/content/r{n}");
            alice.put(&path, &json!({ "pattern": "x", "actions": [] })).await.ok();
        };
        futures_util::future::join_all((0..4).map(put)).await;
        let all = alice.get("/_matrix/client/v3/pushrules/global/").await.ok();
        assert_eq!(all["content"].as_array().unwrap().iter().filter(|r| r["default"] == false).count(), 4);
    }

    async fn tools_register_by_the_shared_secret(given: Given) {
        let server = open_server(given).await;
        let path = "/_synapse/admin/v1/register";
        let nonce = || async { server.get(path).await.ok()["nonce"].as_str().unwrap().to_owned() };
        let signed = |nonce: &str, name: &str, admin: bool, secret: &str| {
            let word = if admin { "admin" } else { "notadmin" };
            let text = [nonce, name, PASSWORD, word].join("\0");
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
            let mac: String = hmac::sign(&key, text.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect();
            json!({ "nonce": nonce, "username": name, "password": PASSWORD, "admin": admin, "mac": mac })
        };
        let secret = "the shared secret";
        let admin = server.post(path, &signed(&nonce().await, "Root", true, secret)).await.ok();
        assert_eq!((&admin["user_id"], &admin["home_server"]), (&json!("@root:test.example"), &json!("test.example")));
        Somebody::known_as(&server, &admin).is_logged_in().await;
        login(&server, "root", None).await;

        server.post(path, &signed(&nonce().await, "b", false, "a guess")).await.refused(403, "M_FORBIDDEN");
        let mut raised = signed(&nonce().await, "b", false, secret);
        raised["admin"] = true.into();
        server.post(path, &raised).await.refused(403, "M_FORBIDDEN");
        server.post(path, &signed("invented", "b", false, secret)).await.refused(400, "M_UNKNOWN");
        server.post(path, &signed(&nonce().await, "a!", false, secret)).await.refused(400, "M_INVALID_USERNAME");
        let again = signed(&nonce().await, "carol", false, secret);
        server.post(path, &again).await.ok();
        server.post(path, &again).await.refused(400, "M_USER_IN_USE");
        let late = signed(&nonce().await, "dave", false, secret);
        server.clock.advance(60_000);
        server.post(path, &late).await.refused(400, "M_UNKNOWN");
    }

    async fn without_a_shared_secret_there_is_no_such_registration(given: Given) {
        let server = given.server().await;
        server.get("/_synapse/admin/v1/register").await.refused(404, "M_UNRECOGNIZED");
        let body = json!({ "nonce": "n", "username": "a", "password": "b", "mac": "00" });
        server.post("/_synapse/admin/v1/register", &body).await.refused(404, "M_UNRECOGNIZED");
    }
}
