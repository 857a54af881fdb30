//! Who does too much of something is told when to come back.

use hearth::config::{Limit, RateLimit};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Given, Http, Reply, Server, each_backend, people::Person};

/// A server where anybody may register, and nobody may do too much.
async fn strict_server(given: &Given, limits: RateLimit) -> Server {
    given
        .server_with(|config| {
            config.registration.allow_registration = true;
            config.registration.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true;
            config.limits.rate_limit = limits;
        })
        .await
}

async fn asks_from(http: &Http, address: &str, method: Method, path: &str, body: Option<&Value>) -> Reply {
    let request = http.request(method, path).header("x-forwarded-for", address);
    let request = if let Some(body) = body { request.json(body) } else { request };
    http.send(request).await
}

async fn login_from(http: &Http, address: &str, user: &str, password: &str) -> Reply {
    let identifier = json!({ "type": "m.id.user", "user": user });
    let body = json!({ "type": "m.login.password", "identifier": identifier, "password": password });
    asks_from(http, address, Method::POST, "/_matrix/client/v3/login", Some(&body)).await
}

/// How long to wait, which is said in two places.
#[track_caller]
fn told_to_wait(reply: &Reply) -> i64 {
    let ms = reply.refused(429, "M_LIMIT_EXCEEDED")["retry_after_ms"].as_i64().expect("a time to wait");
    let seconds: i64 = reply.header("retry-after").expect("the header").parse().expect("seconds");
    assert_eq!(seconds, (ms + 999) / 1000);
    ms
}

const RIGHT: &str = "correct horse battery staple";

/// A new password that is the old one, asked for by somebody who knows it, or not.
fn confirmed_by(password: &str) -> Value {
    let identifier = json!({ "type": "m.id.user", "user": "alice" });
    let auth = json!({ "type": "m.login.password", "identifier": identifier, "password": password });
    json!({ "new_password": RIGHT, "logout_devices": false, "auth": auth })
}

each_backend! {
    async fn an_address_has_ten_logins_a_minute(given: Given) {
        let server = strict_server(given, RateLimit::default()).await;
        Person::registers(&server, "alice").await;
        for n in 0..9 {
            login_from(&server, "192.0.2.1", &format!("user{n}"), "a guess").await.refused(403, "M_FORBIDDEN");
        }
        login_from(&server, "192.0.2.1", "alice", RIGHT).await.ok();
        let wait = told_to_wait(&login_from(&server, "192.0.2.1", "alice", RIGHT).await);
        login_from(&server, "192.0.2.2", "alice", RIGHT).await.ok();
        login_from(&server, "2001:db8::1", "alice", RIGHT).await.ok();

        server.clock.advance(wait - 1);
        told_to_wait(&login_from(&server, "192.0.2.1", "alice", RIGHT).await);
        server.clock.advance(1);
        login_from(&server, "192.0.2.1", "alice", RIGHT).await.ok();
        told_to_wait(&login_from(&server, "192.0.2.1", "alice", RIGHT).await);
        server.clock.advance(60_000);
        for n in 0..10 {
            login_from(&server, "192.0.2.1", &format!("user{n}"), "a guess").await.refused(403, "M_FORBIDDEN");
        }
        told_to_wait(&login_from(&server, "192.0.2.1", "alice", RIGHT).await);
    }

    async fn an_account_is_not_guessed_from_many_addresses(given: Given) {
        let limits = RateLimit { login_account: Limit::of(0.17, 10), ..RateLimit::default() };
        let server = strict_server(given, limits).await;
        Person::registers(&server, "alice").await;
        let mut answers = Vec::new();
        // However the name is written, and whether there is such a user or not.
        for names in [["alice", "@alice:test.example", "Alice"], ["nobody", "@nobody:test.example", "Nobody"]] {
            for n in 0..10 {
                let from = format!("192.0.2.{n}");
                login_from(&server, &from, names[n % 3], "a guess").await.refused(403, "M_FORBIDDEN");
            }
            let refusal = login_from(&server, "198.51.100.1", names[0], RIGHT).await;
            told_to_wait(&refusal);
            answers.push(refusal.json());
        }
        assert_eq!(answers[0], answers[1]);
        // Other users are not concerned.
        Person::registers(&server, "bob").await;
        login_from(&server, "198.51.100.1", "bob", RIGHT).await.ok();
    }

    async fn nobody_locks_an_owner_out_from_one_address(given: Given) {
        let server = strict_server(given, RateLimit::default()).await;
        let alice = Person::registers(&server, "alice").await;
        let mut guesses = 0;
        for _ in 0..3 {
            loop {
                let guess = login_from(&server, "192.0.2.1", "alice", "a guess").await;
                if guess.status == 429 {
                    break;
                }
                guess.refused(403, "M_FORBIDDEN");
                guesses += 1;
            }
            server.clock.advance(60_000);
        }
        assert!(guesses >= 30, "as many as there can be: {guesses}");
        login_from(&server, "198.51.100.1", "alice", RIGHT).await.ok();
        alice.post("/account/password", confirmed_by(RIGHT)).await.ok();
    }

    async fn a_stolen_session_is_no_way_to_guess_its_password(given: Given) {
        let server = strict_server(given, RateLimit::default()).await;
        let alice = Person::registers(&server, "alice").await;
        for _ in 0..10 {
            alice.post("/account/password", confirmed_by("a guess")).await.refused(401, "M_FORBIDDEN");
        }
        let wait = told_to_wait(&alice.post("/account/password", confirmed_by(RIGHT)).await);
        login_from(&server, "198.51.100.1", "alice", RIGHT).await.ok();
        server.clock.advance(wait);
        alice.post("/account/password", confirmed_by(RIGHT)).await.ok();
    }

    async fn strangers_do_not_renew_sessions(given: Given) {
        let server = strict_server(given, RateLimit { refresh: Limit::of(1.0, 2), ..RateLimit::default() }).await;
        let path = "/_matrix/client/v3/refresh";
        let guess = json!({ "refresh_token": "a guess" });
        let before = server.work();
        for _ in 0..2 {
            asks_from(&server, "192.0.2.1", Method::POST, path, Some(&guess)).await.refused(401, "M_UNKNOWN_TOKEN");
        }
        told_to_wait(&asks_from(&server, "192.0.2.1", Method::POST, path, Some(&guess)).await);
        asks_from(&server, "192.0.2.2", Method::POST, path, Some(&guess)).await.refused(401, "M_UNKNOWN_TOKEN");
        let work = server.work_since(&before);
        assert!(!work.contains_key("refresh"), "nobody writes for a guess: {work:?}");
    }

    async fn account_data_is_set_at_a_pace(given: Given) {
        let limits = RateLimit { account_data: Limit::of(1.0, 2), ..RateLimit::default() };
        let server = strict_server(given, limits).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        let own = format!("/user/{}/account_data/x.y", alice.id);
        alice.put(&own, json!({})).await.ok();
        alice.put(&format!("/user/{}/rooms/{room}/account_data/x.y", alice.id), json!({})).await.ok();
        let wait = told_to_wait(&alice.put(&own, json!({})).await);
        alice.get(&own).await.ok();
        bob.put(&format!("/user/{}/account_data/x.y", bob.id), json!({})).await.ok();
        server.clock.advance(wait);
        alice.put(&own, json!({})).await.ok();
    }

    async fn an_address_makes_so_many_accounts(given: Given) {
        let limits = RateLimit {
            registration: Limit::of(0.5, 2),
            registration_available: Limit::of(1.0, 3),
            registration_token_validity: Limit::of(1.0, 1),
            ..RateLimit::default()
        };
        let server = strict_server(given, limits).await;
        let path = "/_matrix/client/v3/register";
        let register = |from: &'static str, name: &'static str| {
            let http = &server;
            async move {
                let body = json!({ "username": name, "password": "x", "auth": { "type": "m.login.dummy" } });
                asks_from(http, from, Method::POST, path, Some(&body)).await
            }
        };
        register("192.0.2.1", "a").await.ok();
        register("192.0.2.1", "a").await.refused(400, "M_USER_IN_USE");
        let wait = told_to_wait(&register("192.0.2.1", "b").await);
        register("192.0.2.2", "b").await.ok();
        server.clock.advance(wait);
        register("192.0.2.1", "c").await.ok();

        // Asking what to do first costs no attempt, and is counted with the looks for a name.
        let ask = json!({ "username": "d" });
        let look = "/_matrix/client/v3/register/available?username=d";
        for _ in 0..2 {
            assert_eq!(asks_from(&server, "192.0.2.3", Method::POST, path, Some(&ask)).await.status, 401);
        }
        asks_from(&server, "192.0.2.3", Method::GET, look, None).await.ok();
        told_to_wait(&asks_from(&server, "192.0.2.3", Method::GET, look, None).await);
        told_to_wait(&asks_from(&server, "192.0.2.3", Method::POST, path, Some(&ask)).await);
        let token = "/_matrix/client/v1/register/m.login.registration_token/validity?token=guess";
        asks_from(&server, "192.0.2.3", Method::GET, token, None).await.ok();
        told_to_wait(&asks_from(&server, "192.0.2.3", Method::GET, token, None).await);
    }

    async fn nobody_floods_a_room(given: Given) {
        let limits = RateLimit { message: Limit::of(1.0, 5), ..RateLimit::default() };
        let server = strict_server(given, limits).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        // Messages, state, redactions, leaving, a new name: all of it is written to rooms.
        let first = alice.says(&room, "one").await;
        alice.sets(&room, "m.room.topic", "", json!({ "topic": "cats" })).await.ok();
        alice.redacts(&room, &first).await.ok();
        alice.put(&format!("/profile/{}/displayname", alice.id), json!({ "displayname": "A" })).await.ok();
        alice.does("kick", &room, &bob).await;
        let wait = told_to_wait(&alice.sends(&room, "t", "six").await);
        told_to_wait(&alice.sets(&room, "m.room.topic", "", json!({ "topic": "dogs" })).await);
        told_to_wait(&alice.redacts(&room, &first).await);
        told_to_wait(&alice.asks(&room, "leave", json!({})).await);
        // Reading is free, and others are not concerned.
        alice.syncs().await;
        let own = bob.opens_a_room().await;
        bob.says(&own, "one").await;
        server.clock.advance(wait);
        alice.sends(&room, "t", "six").await.ok();
    }

    async fn nobody_wakes_a_room_without_end(given: Given) {
        let limits = RateLimit { receipt: Limit::of(1.0, 3), ..RateLimit::default() };
        let server = strict_server(given, limits).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let said = alice.says(&room, "one").await;
        let receipt = format!("receipt/m.read/{said}");
        let typing = format!("/rooms/{room}/typing/{}", alice.id);
        let types = json!({ "typing": true, "timeout": 1000 });
        alice.asks(&room, &receipt, json!({})).await.ok();
        alice.asks(&room, "read_markers", json!({ "m.fully_read": said })).await.ok();
        alice.put(&typing, types.clone()).await.ok();
        let wait = told_to_wait(&alice.asks(&room, &receipt, json!({})).await);
        told_to_wait(&alice.asks(&room, "read_markers", json!({ "m.fully_read": said })).await);
        told_to_wait(&alice.put(&typing, types).await);
        alice.says(&room, "messages are counted apart").await;
        server.clock.advance(wait);
        alice.asks(&room, &receipt, json!({})).await.ok();
    }

    async fn devices_and_backups_are_not_flooded(given: Given) {
        let limits = RateLimit { to_device: Limit::of(1.0, 2), key_backup: Limit::of(1.0, 2), ..RateLimit::default() };
        let server = strict_server(given, limits).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let send = async |who: &Person, txn: u32| {
            let messages = json!({ &bob.id: { "*": {} } });
            who.put(&format!("/sendToDevice/x.y/{txn}"), json!({ "messages": messages })).await
        };
        send(&alice, 1).await.ok();
        send(&alice, 2).await.ok();
        let wait = told_to_wait(&send(&alice, 3).await);
        send(&bob, 1).await.ok();
        let method = json!({ "algorithm": "m", "auth_data": {} });
        alice.post("/room_keys/version", method).await.ok();
        let put = async || alice.put("/room_keys/keys?version=1", json!({ "rooms": {} })).await;
        put().await.ok();
        told_to_wait(&put().await);
        alice.get("/room_keys/version").await.ok();
        server.clock.advance(wait);
        send(&alice, 3).await.ok();
        put().await.ok();
    }

    async fn rooms_joins_and_invites_have_limits_of_their_own(given: Given) {
        let limits = RateLimit {
            room_creation: Limit::of(0.001, 4),
            join: Limit::of(0.001, 2),
            invite: Limit::of(0.001, 5),
            ..RateLimit::default()
        };
        let server = strict_server(given, limits).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let mut rooms = Vec::new();
        for _ in 0..3 {
            rooms.push(alice.opens_a_room().await);
        }
        bob.joins(&rooms[0]).await;
        bob.post(&format!("/join/{}", rooms[1]), json!({})).await.ok();
        told_to_wait(&bob.asks(&rooms[2], "join", json!({})).await);
        told_to_wait(&bob.post(&format!("/join/{}", rooms[2]), json!({})).await);
        told_to_wait(&bob.sets(&rooms[2], "m.room.member", &bob.id, json!({ "membership": "join" })).await);

        let team: Vec<String> = (0..3).map(|n| format!("@user{n}:test.example")).collect();
        alice.post("/createRoom", json!({ "invite": team })).await.ok();
        told_to_wait(&alice.post("/createRoom", json!({})).await);
        let invite = |n: u32| json!({ "user_id": format!("@other{n}:test.example") });
        alice.asks(&rooms[0], "invite", invite(1)).await.ok();
        alice.sets(&rooms[0], "m.room.member", "@other2:test.example", json!({ "membership": "invite" })).await.ok();
        told_to_wait(&alice.asks(&rooms[0], "invite", invite(3)).await);
        told_to_wait(
            &alice.sets(&rooms[0], "m.room.member", "@other3:test.example", json!({ "membership": "invite" })).await,
        );
    }

    async fn who_makes_a_room_with_many_pays_for_all_of_them(given: Given) {
        let server = strict_server(given, RateLimit { invite: Limit::of(1.0, 5), ..RateLimit::default() }).await;
        let people = [Person::registers(&server, "alice").await, Person::registers(&server, "bob").await];
        let ids: Vec<String> = (0..20).map(|n| format!("@user{n}:test.example")).collect();
        let content = json!({ "membership": "invite" });
        let events: Vec<Value> =
            ids.iter().map(|id| json!({ "type": "m.room.member", "state_key": id, "content": content })).collect();
        let wishes = [json!({ "invite": ids }), json!({ "initial_state": events })];
        for (person, wish) in people.iter().zip(wishes) {
            let room = person.creates(wish).await;
            let next = json!({ "user_id": "@other:test.example" });
            let wait = told_to_wait(&person.asks(&room, "invite", next.clone()).await);
            assert_eq!(wait, 16_000, "fifteen are owed");
            server.clock.advance(wait - 1);
            told_to_wait(&person.asks(&room, "invite", next.clone()).await);
            server.clock.advance(1);
            person.asks(&room, "invite", next).await.ok();
        }
    }

    async fn an_administrator_cleans_up_at_any_pace(given: Given) {
        let limits = RateLimit { message: Limit::of(0.001, 3), login_address: Limit(None), ..RateLimit::default() };
        let server = strict_server(given, limits).await;
        let token = server.first_admin_token().expect("nobody is here yet");
        let auth = json!({ "type": "m.login.registration_token", "token": token });
        let root = json!({ "username": "root", "password": RIGHT, "auth": auth });
        server.post("/_matrix/client/v3/register", &root).await.ok();
        let root = Person::logs_in(&server, "root").await;
        let room = root.opens_a_room().await;
        for n in 0..9 {
            root.says(&room, &n.to_string()).await;
            login_from(&server, "192.0.2.1", &format!("user{n}"), "a guess").await.refused(403, "M_FORBIDDEN");
            login_from(&server, "192.0.2.1", &format!("other{n}"), "a guess").await.refused(403, "M_FORBIDDEN");
        }
    }
}
