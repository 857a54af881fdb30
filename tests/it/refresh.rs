//! Sessions that are renewed.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Http, Reply, Server, each_backend, people::open_server};

const PASSWORD: &str = "correct horse battery staple";
const HOUR_MS: i64 = 3_600_000;

/// What a client holds of a session that it can renew.
#[derive(Clone)]
struct Pair {
    access: String,
    refresh: String,
}

impl Pair {
    fn of(answer: &Value) -> Self {
        let text = |key: &str| answer[key].as_str().unwrap_or_else(|| panic!("{key} in {answer}")).to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token") }
    }

    async fn send(&self, http: &Http, method: Method, path: &str, body: &Value) -> Reply {
        http.send(http.request(method, path).bearer_auth(&self.access).json(body)).await
    }

    async fn whoami(&self, http: &Http) -> Reply {
        http.send(http.request(Method::GET, "/_matrix/client/v3/account/whoami").bearer_auth(&self.access)).await
    }

    async fn works(&self, http: &Http) {
        assert_eq!(self.whoami(http).await.ok()["user_id"], "@alice:test.example");
    }

    /// Neither of the two is good for anything.
    async fn is_dead(&self, http: &Http) {
        for refused in [self.whoami(http).await, renew(http, &self.refresh).await] {
            assert_ne!(refused.refused(401, "M_UNKNOWN_TOKEN")["soft_logout"], true);
        }
    }

    async fn renewed(&self, http: &Http) -> Self {
        Self::of(&renew(http, &self.refresh).await.ok())
    }
}

async fn renew(http: &Http, refresh: &str) -> Reply {
    http.post("/_matrix/client/v3/refresh", &json!({ "refresh_token": refresh })).await
}

async fn register(http: &Http) -> Value {
    let auth = json!({ "type": "m.login.dummy" });
    let body = json!({ "username": "alice", "password": PASSWORD, "refresh_token": true, "auth": auth });
    http.post("/_matrix/client/v3/register", &body).await.ok()
}

async fn login(http: &Http, refresh: bool, device: Option<&str>) -> Value {
    let identifier = json!({ "type": "m.id.user", "user": "alice" });
    let mut body = json!({
        "type": "m.login.password", "identifier": identifier, "password": PASSWORD, "refresh_token": refresh,
    });
    if let Some(device) = device {
        body["device_id"] = device.into();
    }
    http.post("/_matrix/client/v3/login", &body).await.ok()
}

fn proof() -> Value {
    json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" }, "password": PASSWORD })
}

each_backend! {
    async fn a_session_is_renewed_when_its_time_is_over(given: Given) {
        let server = open_server(given).await;
        let welcome = register(&server).await;
        assert_eq!(welcome["expires_in_ms"], HOUR_MS);
        let old = Pair::of(&welcome);
        server.clock.advance(HOUR_MS - 1);
        old.works(&server).await;
        server.clock.advance(1);
        let over = old.whoami(&server).await.refused(401, "M_UNKNOWN_TOKEN");
        assert_eq!(over["soft_logout"], true, "the session itself is not over");

        let answer = renew(&server, &old.refresh).await.ok();
        assert_eq!(answer["expires_in_ms"], HOUR_MS);
        let new = Pair::of(&answer);
        assert!(new.access != old.access && new.refresh != old.refresh);
        new.works(&server).await;
        new.works(&server).await;
        assert_eq!(new.whoami(&server).await.ok()["device_id"], welcome["device_id"]);
        old.is_dead(&server).await;
        let newer = new.renewed(&server).await;
        newer.works(&server).await;
        new.is_dead(&server).await;
    }

    async fn who_did_not_ask_for_it_needs_not_renew(given: Given) {
        let server = open_server(given).await;
        register(&server).await;
        let plain = login(&server, false, None).await;
        assert_eq!((&plain["refresh_token"], &plain["expires_in_ms"]), (&Value::Null, &Value::Null));
        server.clock.advance(10_000 * HOUR_MS);
        let me = server.request(Method::GET, "/_matrix/client/v3/account/whoami");
        server.send(me.bearer_auth(plain["access_token"].as_str().unwrap())).await.ok();
    }

    async fn an_answer_that_was_lost_is_asked_for_again(given: Given) {
        let server = open_server(given).await;
        let old = Pair::of(&register(&server).await);
        old.works(&server).await;
        let lost = old.renewed(&server).await;
        old.works(&server).await;
        let new = old.renewed(&server).await;
        lost.is_dead(&server).await;
        old.works(&server).await;
        new.works(&server).await;
        old.is_dead(&server).await;
        new.works(&server).await;
    }

    async fn the_first_use_of_a_refresh_token_ends_the_old_ones_too(given: Given) {
        let server = open_server(given).await;
        let old = Pair::of(&register(&server).await);
        old.works(&server).await;
        let unused = old.renewed(&server).await;
        let new = unused.renewed(&server).await;
        old.is_dead(&server).await;
        unused.works(&server).await;
        new.works(&server).await;
        unused.is_dead(&server).await;
    }

    async fn what_is_no_refresh_token_is_refused(given: Given) {
        let server = open_server(given).await;
        let alice = Pair::of(&register(&server).await);
        for wrong in ["", "hrr_invented", &alice.access, &"x".repeat(10_000), "\0"] {
            let refused = renew(&server, wrong).await.refused(401, "M_UNKNOWN_TOKEN");
            assert_ne!(refused["soft_logout"], true);
        }
        Pair { access: alice.refresh.clone(), ..alice.clone() }.whoami(&server).await.refused(401, "M_UNKNOWN_TOKEN");
        server.post("/_matrix/client/v3/refresh", &json!({})).await.refused(400, "M_MISSING_PARAM");
        server.post("/_matrix/client/v3/refresh", &json!({ "refresh_token": 1 })).await.refused(400, "M_BAD_JSON");
    }

    async fn a_session_that_ends_can_not_be_renewed(given: Given) {
        let server = open_server(given).await;
        let first = Pair::of(&register(&server).await);
        let another = || async { Pair::of(&login(&server, true, None).await) };

        // By its owner, with what was offered and not used yet.
        let (out, again) = (another().await, another().await);
        let offered = again.renewed(&server).await;
        out.send(&server, Method::POST, "/_matrix/client/v3/logout", &json!({})).await.ok();
        out.is_dead(&server).await;
        offered.send(&server, Method::POST, "/_matrix/client/v3/logout", &json!({})).await.ok();
        again.is_dead(&server).await;
        offered.is_dead(&server).await;

        // By another of their devices.
        let phone = Pair::of(&login(&server, true, Some("PHONE")).await);
        first.send(&server, Method::DELETE, "/_matrix/client/v3/devices/PHONE", &json!({ "auth": proof() })).await.ok();
        phone.is_dead(&server).await;

        // By the same device, that logs in again.
        let before = Pair::of(&login(&server, true, Some("PHONE")).await);
        let after = Pair::of(&login(&server, true, Some("PHONE")).await);
        before.is_dead(&server).await;
        after.works(&server).await;

        // By a new password, and by all that ends everything.
        let change = json!({ "new_password": PASSWORD, "auth": proof() });
        first.send(&server, Method::POST, "/_matrix/client/v3/account/password", &change).await.ok();
        after.is_dead(&server).await;
        let third = another().await;
        first.send(&server, Method::POST, "/_matrix/client/v3/logout/all", &json!({})).await.ok();
        third.is_dead(&server).await;
        first.is_dead(&server).await;
    }

    async fn a_deactivated_user_renews_nothing(given: Given) {
        let server = open_server(given).await;
        let alice = Pair::of(&register(&server).await);
        let offered = alice.renewed(&server).await;
        let end = json!({ "auth": proof() });
        alice.send(&server, Method::POST, "/_matrix/client/v3/account/deactivate", &end).await.ok();
        alice.is_dead(&server).await;
        offered.is_dead(&server).await;
    }

    async fn a_session_that_nobody_uses_can_come_to_an_end(given: Given) {
        let server = given
            .server_with(|config| {
                config.registration.allow_registration = true;
                config.registration.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true;
                config.sessions.access_token_ttl = 60;
                config.sessions.refresh_token_ttl = Some(600);
            })
            .await;
        let mut alice = Pair::of(&register(&server).await);
        for _ in 0..3 {
            server.clock.advance(599_999);
            alice = alice.renewed(&server).await;
        }
        server.clock.advance(600_000);
        let refused = renew(&server, &alice.refresh).await.refused(401, "M_UNKNOWN_TOKEN");
        assert_eq!(refused["soft_logout"], true, "the device, and what it has, are still there");
    }

    async fn a_transaction_id_outlives_the_token_it_was_sent_with(given: Given) {
        let server = open_server(given).await;
        let old = Pair::of(&register(&server).await);
        let room = old.send(&server, Method::POST, "/_matrix/client/v3/createRoom", &json!({})).await.ok();
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/t", room["room_id"].as_str().unwrap());
        let message = json!({ "msgtype": "m.text", "body": "hello" });
        let sent = old.send(&server, Method::PUT, &path, &message).await.ok();
        let new = old.renewed(&server).await;
        assert_eq!(new.send(&server, Method::PUT, &path, &message).await.ok(), sent);
    }

    async fn another_process_hears_that_a_token_was_replaced(given: Given) {
        let (here, there) = (open_server(given).await, open_server(given).await);
        let old = Pair::of(&register(&here).await);
        for server in [&here, &there] {
            old.works(server).await;
        }
        let new = old.renewed(&there).await;
        new.works(&there).await;
        old.is_dead(&there).await;
        let heard = async { while old.whoami(&here).await.status == 200 {} };
        tokio::time::timeout(crate::support::people::LONG, heard).await.expect("it hears of it");
        old.is_dead(&here).await;
        new.works(&here).await;
    }

    async fn the_first_use_of_a_token_may_be_to_wait(given: Given) {
        let server = open_server(given).await;
        let old = Pair::of(&register(&server).await);
        let other = Pair::of(&login(&server, true, None).await);
        let room = old.send(&server, Method::POST, "/_matrix/client/v3/createRoom", &json!({})).await.ok();
        let room = room["room_id"].as_str().unwrap();
        let sync = |path: String, pair: Pair| server.send(server.request(Method::GET, &path).bearer_auth(pair.access));
        let page = sync("/_matrix/client/v3/sync".to_owned(), old.clone()).await.ok();
        let path = format!("/_matrix/client/v3/sync?timeout=600000&since={}", page["next_batch"].as_str().unwrap());
        let says = async {
            server.is_waited_for_by(1).await;
            let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/t");
            other.send(&server, Method::PUT, &path, &json!({ "msgtype": "m.text", "body": "hello" })).await.ok()
        };
        let (seen, said) = futures_util::future::join(sync(path, old.renewed(&server).await), says).await;
        let timeline = seen.ok()["rooms"]["join"][room]["timeline"]["events"].clone();
        assert_eq!(timeline[0]["event_id"], said["event_id"], "it is not told that a session has ended");
    }

    async fn many_uses_of_a_new_token_at_once_are_all_good(given: Given) {
        let server: Server = open_server(given).await;
        let new = Pair::of(&register(&server).await).renewed(&server).await;
        futures_util::future::join_all((0..8).map(|_| new.works(&server))).await;
    }
}
