//! What is somebody's own is out of reach for everybody else: names of devices and backups are no secrets, and open nothing.

use reqwest::Method;
use serde_json::{Value, json};

use super::saying;
use crate::support::{
    each_backend,
    gateway::Gateway,
    people::{LONG, PASSWORD, Person, escaped, joined, open_server},
};

fn proof(person: &Person, password: &str) -> Value {
    json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": person.id }, "password": password })
}

each_backend! {
    async fn the_id_of_anothers_device_reaches_nothing_of_it(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let (_, keys) = alice.publishes().await;
        alice.uploads(json!({ "one_time_keys": crate::e2ee::one_time(&alice, &["A"], false) })).await.ok();
        carol.put("/sendToDevice/m.note/1", json!({ "messages": { &alice.id: { &alice.device: { "note": "for her" } } } })).await.ok();

        // The same id with another account: another device.
        let body = json!({
            "type": "m.login.password", "identifier": { "type": "m.id.user", "user": bob.id }, "password": PASSWORD,
            "device_id": alice.device,
        });
        let namesake = Person::from(&server, &server.post("/_matrix/client/v3/login", &body).await.ok());
        assert_eq!(namesake.device, alice.device);
        assert!(namesake.syncs().await["to_device"]["events"].as_array().is_none_or(Vec::is_empty));
        namesake.uploads(json!({ "device_keys": keys })).await.refused(400, "M_INVALID_PARAM");
        namesake.put(&format!("/devices/{}", alice.device), json!({ "display_name": "Mine now" })).await.ok();
        namesake.post("/logout", json!({})).await.ok();
        bob.post("/delete_devices", json!({ "devices": [alice.device], "auth": proof(&bob, PASSWORD) })).await.ok();

        let seen = carol.post("/keys/query", json!({ "device_keys": { &alice.id: [] } })).await.ok();
        assert_eq!(seen["device_keys"][&alice.id][&alice.device], keys, "as it was, and named as it was");
        let page = alice.syncs().await;
        assert_eq!(page["to_device"]["events"][0]["content"]["note"], "for her");
        assert_eq!(page["device_one_time_keys_count"]["signed_curve25519"], 1);
        server.stop().await;
    }

    async fn cve_2025_62425_a_token_alone_takes_over_no_account(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let phone = alice.logs_in_on(&server).await;
        let key = |usage: &str| {
            let public = crate::e2ee::some_key();
            json!({ "user_id": alice.id, "usage": [usage], "keys": { format!("ed25519:{public}"): public } })
        };
        let mine = json!({ "master_key": key("master") });
        alice.post("/keys/device_signing/upload", mine.clone()).await.ok();
        let stolen = &phone;
        let requests = [
            ("/account/password", json!({ "new_password": "another password", "logout_devices": true })),
            ("/account/deactivate", json!({})),
            ("/delete_devices", json!({ "devices": [alice.device] })),
            ("/keys/device_signing/upload", json!({ "master_key": key("master") })),
        ];
        for (path, body) in &requests {
            let asked = stolen.post(path, body.clone()).await;
            assert_eq!(asked.status, 401, "{path}: {}", asked.text);
            let session = asked.json()["session"].clone();
            assert!(asked.json()["flows"].as_array().unwrap().iter().all(|flow| flow["stages"] == json!(["m.login.password"])));
            // Whatever else somebody has, or says that they have.
            for auth in [
                json!({ "session": session }),
                json!({ "type": "m.login.dummy", "session": session }),
                json!({ "type": "m.login.sso", "session": session }),
                json!({ "type": "m.login.token", "token": stolen.token, "session": session }),
                json!({ "type": "m.login.password", "session": session }),
                json!({ "type": "m.login.registration_token", "token": "", "session": session }),
                proof(&alice, ""),
                proof(&alice, "*"),
                proof(&alice, &stolen.token),
                proof(&alice, "correct horse battery stapl"),
                proof(&bob, PASSWORD),
                json!({ "type": "m.login.password", "user": bob.id, "password": PASSWORD, "session": session }),
                json!(null),
            ] {
                let mut body = body.clone();
                body["auth"] = auth.clone();
                let reply = stolen.post(path, body).await;
                assert!(matches!(reply.status, 400 | 401 | 403), "{path} {auth}: {} {}", reply.status, reply.text);
            }
        }
        assert_eq!(alice.get("/devices").await.ok()["devices"].as_array().unwrap().len(), 2);
        let seen = bob.post("/keys/query", json!({ "device_keys": { &alice.id: [] } })).await.ok();
        assert_eq!(seen["master_keys"][&alice.id], mine["master_key"]);
        Person::logs_in(&server, "alice").await;
        server.stop().await;
    }

    async fn what_somebody_keeps_is_for_nobody_else(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let said = alice.says(&room, "said").await;
        let (r, user) = (escaped(&room), format!("/user/{}", escaped(&alice.id)));
        let version = alice.post("/room_keys/version", json!({ "algorithm": "m", "auth_data": { "a": "planted" } })).await.ok()["version"].clone();
        let version = version.as_str().unwrap();
        let key = json!({ "first_message_index": 0, "forwarded_count": 0, "is_verified": false, "session_data": { "a": "planted" } });
        alice.put(&format!("/room_keys/keys/{r}/s?version={version}"), key).await.ok();
        alice.put(&format!("{user}/account_data/m.note"), json!({ "a": "planted" })).await.ok();
        alice.put(&format!("{user}/rooms/{r}/account_data/m.note"), json!({ "a": "planted" })).await.ok();
        alice.put(&format!("{user}/rooms/{r}/tags/u.planted"), json!({})).await.ok();
        let filter = alice.post(&format!("{user}/filter"), json!({ "room": { "timeline": { "types": ["planted"] } } })).await.ok();
        alice.put("/pushrules/global/content/planted", json!({ "pattern": "planted", "actions": ["notify"] })).await.ok();
        alice.post("/pushers/set", crate::support::gateway::pusher("https://push.example.org/_matrix/push/v1/notify", "planted")).await.ok();
        alice.post(&format!("/rooms/{r}/receipt/m.read.private/{}", escaped(&said)), json!({})).await.ok();

        for path in [
            format!("{user}/account_data/m.note"),
            format!("{user}/account_data/m.push_rules"),
            format!("{user}/rooms/{r}/account_data/m.note"),
            format!("{user}/rooms/{r}/tags"),
            format!("{user}/filter/{}", filter["filter_id"].as_str().unwrap()),
            format!("/room_keys/version/{version}"),
            format!("/room_keys/keys?version={version}"),
            format!("/room_keys/keys/{r}/s?version={version}"),
            format!("/devices/{}", alice.device),
            "/pushers".to_owned(),
            "/pushrules/".to_owned(),
            format!("/sync?timeout=0&filter={}", filter["filter_id"].as_str().unwrap()),
            "/sync?timeout=0".to_owned(),
        ] {
            let reply = bob.get(&path).await;
            assert!(reply.status < 500 && !reply.text.contains("planted"), "{path}: {}", reply.text);
            assert!(!reply.text.contains("m.read.private"), "{path}: {}", reply.text);
        }
        for (method, path, body) in [
            (Method::PUT, format!("{user}/account_data/m.note"), json!({})),
            (Method::PUT, format!("{user}/rooms/{r}/account_data/m.note"), json!({})),
            (Method::PUT, format!("{user}/rooms/{r}/tags/u.mine"), json!({})),
            (Method::DELETE, format!("{user}/rooms/{r}/tags/u.planted"), json!({})),
            (Method::POST, format!("{user}/filter"), json!({})),
            (Method::PUT, format!("/room_keys/version/{version}"), json!({ "algorithm": "m", "auth_data": {}, "version": version })),
            (Method::DELETE, format!("/room_keys/version/{version}"), json!({})),
            (Method::PUT, format!("/rooms/{r}/typing/{}", escaped(&alice.id)), json!({ "typing": true, "timeout": 1_000 })),
            (Method::PUT, format!("/presence/{}/status", escaped(&alice.id)), json!({ "presence": "online" })),
        ] {
            let reply = bob.send(method, &path, Some(&body)).await;
            assert!(matches!(reply.status, 403 | 404), "{path}: {} {}", reply.status, reply.text);
        }
        let told = bob.reads_everything_of(&room, std::slice::from_ref(&said)).await;
        assert!(!saying(&told, &said).is_empty(), "he is in the room");
        for hers in ["planted", "m.read.private"] {
            assert_eq!(saying(&told, hers), [""; 0]);
        }
        assert_eq!(alice.get(&format!("/room_keys/version/{version}")).await.ok()["count"], 1);
        server.stop().await;
    }

    async fn cve_2023_42453_a_receipt_is_of_who_is_there_for_what_is_there(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let (room, other) = (alice.opens_a_room().await, alice.opens_a_room().await);
        let (here, there) = (alice.says(&room, "here").await, alice.says(&other, "there").await);
        bob.joins(&other).await;
        alice.syncs().await;
        for (room, event) in [(&room, &here), (&room, &there), (&other, &here)] {
            // Of an event that is not here a client may have heard elsewhere: to read it is no fault, and nobody's news.
            let is_taken = room == &other;
            for kind in ["m.read", "m.read.private", "m.fully_read"] {
                let path = format!("/rooms/{}/receipt/{kind}/{}", escaped(room), escaped(event));
                let reply = bob.post(&path, json!({})).await;
                assert_eq!(reply.status, if is_taken { 200 } else { 403 }, "{path}: {}", reply.text);
            }
            let reply = bob.post(&format!("/rooms/{}/read_markers", escaped(room)), json!({ "m.read": event })).await;
            assert_eq!(reply.status, if is_taken { 200 } else { 403 }, "{}", reply.text);
        }
        let typing = format!("/rooms/{}/typing/{}", escaped(&room), escaped(&bob.id));
        bob.put(&typing, json!({ "typing": true, "timeout": 30_000 })).await.refused(403, "M_FORBIDDEN");
        let page = alice.syncs().await;
        for room in [&room, &other] {
            let told = joined(&page, room)["ephemeral"].to_string();
            assert!(!told.contains(&bob.id), "{told}");
        }
        server.stop().await;
    }

    async fn cve_2023_32682_nothing_is_left_of_an_account_that_has_ended(given: Given) {
        let server = crate::push::pushing_server(given).await;
        let gateway = Gateway::start().await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = bob.opens_a_room().await;
        alice.joins(&room).await;
        alice.publishes().await;
        alice.uploads(json!({ "one_time_keys": crate::e2ee::one_time(&alice, &["A"], false) })).await.ok();
        alice.uploads(json!({ "fallback_keys": crate::e2ee::one_time(&alice, &["F"], true) })).await.ok();
        alice.sets_pusher(&gateway, "planted pushkey").await;
        bob.sets_pusher(&gateway, "his").await;
        alice.put("/pushrules/global/content/w", json!({ "pattern": "planted word", "actions": ["notify"] })).await.ok();
        alice.put(&format!("/user/{}/account_data/m.note", alice.id), json!({ "a": "planted account data" })).await.ok();
        alice.post("/account/deactivate", json!({ "auth": proof(&alice, PASSWORD) })).await.ok();

        let keys = bob.post("/keys/query", json!({ "device_keys": { &alice.id: [] } })).await.ok();
        assert_eq!(keys["device_keys"][&alice.id], json!({}));
        let claim = json!({ "one_time_keys": { &alice.id: { &alice.device: "signed_curve25519" } } });
        assert_eq!(bob.post("/keys/claim", claim).await.ok()["one_time_keys"], json!({}));
        for path in ["/sync?timeout=0", "/pushers", "/account/whoami", "/keys/changes?from=s1_1_1_1&to=s1_1_1_1"] {
            alice.get(path).await.refused(401, "M_UNKNOWN_TOKEN");
        }
        alice.post("/keys/upload", json!({})).await.refused(401, "M_UNKNOWN_TOKEN");
        // By every way to log in that there is.
        for kind in ["m.login.password", "m.login.token", "m.login.dummy", "m.login.application_service"] {
            for password in [PASSWORD, ""] {
                let mut body = proof(&alice, password);
                body["type"] = kind.into();
                body["token"] = alice.token.as_str().into();
                let reply = server.post("/_matrix/client/v3/login", &body).await;
                assert!(matches!(reply.status, 400 | 403), "{kind}: {} {}", reply.status, reply.text);
            }
        }
        let told = Person::registers(&server, "carol").await;
        told.joins(&room).await;
        let news = told.says(&room, "w").await;
        assert_eq!(gateway.is_told_of(&news).await["devices"][0]["pushkey"], "his");
        assert_eq!(gateway.unseen(), 0);
        // Where SQLite deleted something, its bytes stay until the page is used anew.
        if given.config().database.database_url.is_some() {
            for kept in ["planted pushkey", "planted word", "planted account data"] {
                let is_kept = async || given.everything_stored().await.windows(kept.len()).any(|bytes| bytes == kept.as_bytes());
                let removed = async { while is_kept().await {} };
                tokio::time::timeout(LONG, removed).await.unwrap_or_else(|_| panic!("{kept} is still there"));
            }
        }
        server.stop().await;
    }
}
