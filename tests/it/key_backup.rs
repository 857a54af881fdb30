//! Backups of room keys: kept for their owner, the better of two keys to a session, counted right whoever writes.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use futures_util::future::{join, join_all};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::support::{
    Reply, each_backend,
    people::{LONG, Person, escaped, open_server},
};

const ROOM: &str = "!room:test.example";

fn method() -> Value {
    json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": { "public_key": "abc", "signatures": {} } })
}

fn key(is_verified: bool, first_message_index: u32, forwarded_count: u32) -> Value {
    json!({
        "is_verified": is_verified, "first_message_index": first_message_index, "forwarded_count": forwarded_count,
        "session_data": { "ciphertext": format!("{first_message_index}"), "mac": "m" },
    })
}

impl Person {
    async fn begins_a_backup(&self) -> String {
        let reply = self.post("/room_keys/version", method()).await.ok();
        reply["version"].as_str().unwrap().to_owned()
    }

    async fn backs_up(&self, version: &str, room: &str, session: &str, key: Value) -> Reply {
        let path = format!("/room_keys/keys/{}/{}?version={version}", escaped(room), escaped(session));
        self.put(&path, key).await
    }

    async fn keys(&self, version: &str, of: &str) -> Reply {
        self.get(&format!("/room_keys/keys{of}?version={version}")).await
    }

    async fn deletes(&self, path: &str) -> Reply {
        self.send(Method::DELETE, &format!("/room_keys{path}"), None).await
    }
}

fn of_room(room: &str) -> String {
    format!("/{}", escaped(room))
}

fn state(reply: &Reply) -> (u64, String) {
    let body = reply.ok();
    (body["count"].as_u64().unwrap(), body["etag"].as_str().unwrap().to_owned())
}

each_backend! {
    async fn a_backup_has_versions(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        alice.get("/room_keys/version").await.refused(404, "M_NOT_FOUND");
        let first = alice.begins_a_backup().await;
        alice.backs_up(&first, ROOM, "s", key(false, 0, 0)).await.ok();
        let second = alice.begins_a_backup().await;
        assert_ne!(first, second);
        let newest = alice.get("/room_keys/version").await.ok();
        assert_eq!((&newest["version"], &newest["count"]), (&json!(second), &json!(0)));
        assert_eq!((&newest["algorithm"], &newest["auth_data"]), (&method()["algorithm"], &method()["auth_data"]));
        let older = alice.get(&format!("/room_keys/version/{first}")).await.ok();
        assert_eq!((&older["version"], &older["count"]), (&json!(first), &json!(1)));

        let path = format!("/room_keys/version/{second}");
        let mut changed = method();
        changed["auth_data"]["public_key"] = json!("other");
        alice.put(&path, changed.clone()).await.ok();
        assert_eq!(alice.get(&path).await.ok()["auth_data"], changed["auth_data"]);
        let mut wrong = changed.clone();
        wrong["version"] = json!(first);
        alice.put(&path, wrong.clone()).await.refused(400, "M_INVALID_PARAM");
        wrong["version"] = json!(second);
        alice.put(&path, wrong).await.ok();
        let other = json!({ "algorithm": "org.example.other", "auth_data": {} });
        alice.put(&path, other).await.refused(400, "M_INVALID_PARAM");

        alice.deletes(&format!("/version/{second}")).await.ok();
        alice.deletes(&format!("/version/{second}")).await.ok();
        alice.get(&path).await.refused(404, "M_NOT_FOUND");
        alice.put(&path, changed).await.refused(404, "M_NOT_FOUND");
        assert_eq!(alice.get("/room_keys/version").await.ok()["version"], json!(first));
        assert_ne!(alice.begins_a_backup().await, second);
        for never in ["99", "0", "01", "x", "-1"] {
            alice.get(&format!("/room_keys/version/{never}")).await.refused(404, "M_NOT_FOUND");
            alice.deletes(&format!("/version/{never}")).await.refused(404, "M_NOT_FOUND");
            alice.keys(never, "").await.refused(404, "M_NOT_FOUND");
        }
        server.stop().await;
    }

    async fn the_better_key_stays(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let version = alice.begins_a_backup().await;
        let path = format!("{}/{}", of_room(ROOM), escaped("a/b+c="));
        // Each is better than those before it.
        let rising = [key(false, 9, 9), key(false, 9, 5), key(false, 3, 9), key(true, 9, 9), key(true, 9, 3), key(true, 2, 4)];
        let mut etags = Vec::new();
        for (i, better) in rising.iter().enumerate() {
            let (count, etag) = state(&alice.backs_up(&version, ROOM, "a/b+c=", better.clone()).await);
            assert_eq!(count, 1);
            assert!(!etags.contains(&etag), "something has changed");
            for worse in &rising[..=i] {
                let unchanged = state(&alice.backs_up(&version, ROOM, "a/b+c=", worse.clone()).await);
                assert_eq!(unchanged, (1, etag.clone()));
            }
            assert_eq!(alice.keys(&version, &path).await.ok(), *better);
            etags.push(etag);
        }
        server.stop().await;
    }

    async fn keys_are_put_read_and_deleted_in_every_way(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let version = alice.begins_a_backup().await;
        let other = "!other";
        let rooms = json!({ "rooms": {
            ROOM: { "sessions": { "a": key(false, 1, 0), "b": key(false, 2, 0) } },
            other: { "sessions": { "a": key(true, 3, 0) } },
        } });
        let with = |path: &str| format!("/room_keys/keys{path}?version={version}");
        assert_eq!(alice.keys(&version, "").await.ok(), json!({ "rooms": {} }));
        assert_eq!(alice.keys(&version, &of_room(ROOM)).await.ok(), json!({ "sessions": {} }));
        assert_eq!(state(&alice.put(&with(""), rooms.clone()).await).0, 3);
        assert_eq!(alice.keys(&version, "").await.ok(), rooms);
        assert_eq!(alice.keys(&version, &of_room(ROOM)).await.ok(), rooms["rooms"][ROOM]);
        alice.keys(&version, &format!("{}/none", of_room(ROOM))).await.refused(404, "M_NOT_FOUND");

        let more = json!({ "sessions": { "b": key(false, 1, 0), "c": key(false, 1, 0) } });
        let (count, etag) = state(&alice.put(&with(&of_room(ROOM)), more).await);
        assert_eq!(count, 4);
        let backup = alice.get("/room_keys/version").await.ok();
        assert_eq!((&backup["count"], &backup["etag"]), (&json!(4), &json!(etag)));

        let gone = alice.deletes(&format!("/keys{}/a?version={version}", of_room(ROOM))).await;
        assert_eq!(state(&gone).0, 3);
        assert_ne!(state(&gone).1, etag);
        let again = alice.deletes(&format!("/keys{}/a?version={version}", of_room(ROOM))).await;
        assert_eq!(state(&again), state(&gone), "nothing has changed");
        assert_eq!(state(&alice.deletes(&format!("/keys{}?version={version}", of_room(ROOM))).await).0, 1);
        assert_eq!(alice.keys(&version, "").await.ok()["rooms"], json!({ other: rooms["rooms"][other] }));
        assert_eq!(state(&alice.deletes(&format!("/keys?version={version}")).await).0, 0);
        assert_eq!(alice.keys(&version, "").await.ok(), json!({ "rooms": {} }));
        alice.deletes("/keys?version=7").await.refused(404, "M_NOT_FOUND");
        server.stop().await;
    }

    async fn keys_go_into_the_newest_backup_of_their_owner(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let first = alice.begins_a_backup().await;
        alice.backs_up(&first, ROOM, "s", key(false, 0, 0)).await.ok();
        alice.backs_up("9", ROOM, "s", key(false, 0, 0)).await.refused(404, "M_NOT_FOUND");
        let second = alice.begins_a_backup().await;
        let refused = alice.backs_up(&first, ROOM, "s", key(true, 0, 0)).await;
        assert_eq!(refused.refused(403, "M_WRONG_ROOM_KEYS_VERSION")["current_version"], json!(second));
        assert_eq!(alice.keys(&first, &format!("{}/s", of_room(ROOM))).await.ok(), key(false, 0, 0));

        bob.keys(&first, "").await.refused(404, "M_NOT_FOUND");
        bob.backs_up(&first, ROOM, "s", key(true, 0, 0)).await.refused(404, "M_NOT_FOUND");
        assert_eq!(bob.begins_a_backup().await, first);
        assert_eq!(bob.keys(&first, "").await.ok(), json!({ "rooms": {} }));
        bob.keys(&first, &format!("{}/s", of_room(ROOM))).await.refused(404, "M_NOT_FOUND");
        bob.deletes(&format!("/version/{second}")).await.refused(404, "M_NOT_FOUND");
        // Each device of hers has it.
        let phone = alice.logs_in_on(&server).await;
        assert_eq!(phone.keys(&first, &format!("{}/s", of_room(ROOM))).await.ok(), key(false, 0, 0));
        let nobody = server.get("/_matrix/client/v3/room_keys/version").await;
        nobody.refused(401, "M_MISSING_TOKEN");
        server.stop().await;
    }

    async fn what_is_too_large_or_no_key_is_refused(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let large = |bytes: usize| json!({ "a": "x".repeat(bytes - "{\"a\":\"\"}".len()) });
        let begin = |algorithm: Value, auth_data: Value| {
            alice.post("/room_keys/version", json!({ "algorithm": algorithm, "auth_data": auth_data }))
        };
        begin(json!("m"), large(65_537)).await.refused(413, "M_TOO_LARGE");
        begin(json!("x".repeat(256)), json!({})).await.refused(400, "M_INVALID_PARAM");
        begin(json!(1), json!({})).await.refused(400, "M_BAD_JSON");
        begin(json!("m"), json!([])).await.refused(400, "M_BAD_JSON");
        begin(json!("m"), large(65_536)).await.ok();
        let put = |session: &str, data: Value| {
            let mut key = key(false, 0, 0);
            key["session_data"] = data;
            let session = session.to_owned();
            let alice = &alice;
            async move { alice.backs_up("1", ROOM, &session, key).await }
        };
        put("s", large(16_385)).await.refused(413, "M_TOO_LARGE");
        put("s", json!("text")).await.refused(400, "M_BAD_JSON");
        put(&"s".repeat(256), json!({})).await.refused(400, "M_INVALID_PARAM");
        put("s\0", json!({})).await.refused(400, "M_INVALID_PARAM");
        put(&"s".repeat(255), large(16_384)).await.ok();
        for wrong in [json!({}), json!({ "is_verified": 1 })] {
            alice.backs_up("1", ROOM, "s", wrong).await.refused(400, "M_BAD_JSON");
        }
        let mut negative = key(false, 0, 0);
        negative["first_message_index"] = json!(-1);
        alice.backs_up("1", ROOM, "s", negative).await.refused(400, "M_BAD_JSON");
        let many = |n: u32| -> Map<String, Value> { (0..n).map(|n| (n.to_string(), key(false, 0, 0))).collect() };
        let path = format!("/room_keys/keys{}?version=1", of_room(ROOM));
        alice.put(&path, json!({ "sessions": many(5_001) })).await.refused(413, "M_TOO_LARGE");
        alice.put(&format!("/room_keys/keys{}", of_room(ROOM)), json!({ "sessions": {} })).await.refused(400, "M_MISSING_PARAM");
        assert_eq!(alice.get("/room_keys/version").await.ok()["count"], 1);
        assert_eq!(state(&alice.put(&path, json!({ "sessions": many(5_000) })).await).0, 5_001);
        for _ in 1..100 {
            alice.begins_a_backup().await;
        }
        let one_more = json!({ "algorithm": "m", "auth_data": {} });
        alice.post("/room_keys/version", one_more).await.refused(413, "M_TOO_LARGE");
        server.stop().await;
    }

    async fn a_large_backup_is_told_page_by_page(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let version = alice.begins_a_backup().await;
        let path = format!("/room_keys/keys?version={version}");
        let mut all = Map::new();
        // A page ends in the middle of a room, and another with one.
        for (room, sessions) in [("!a:x", 300), ("!b:x", 400), ("!c:x", 300), ("!d:x", 1), ("!e\"\\:x", 700)] {
            let sessions: Map<String, Value> =
                (0..sessions).map(|n| (format!("session \"{n}\""), key(n % 2 == 0, n, 0))).collect();
            all.insert(room.to_owned(), json!({ "sessions": sessions }));
        }
        assert_eq!(state(&alice.put(&path, json!({ "rooms": all })).await).0, 1_701);
        let before = server.work();
        let reply = alice.keys(&version, "").await;
        assert_eq!(reply.ok(), json!({ "rooms": all }));
        assert_eq!(server.work_since(&before)["backup_keys"].runs, 4);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        for room in ["!a:x", "!d:x", "!e\"\\:x"] {
            assert_eq!(alice.keys(&version, &of_room(room)).await.ok(), all[room]);
        }
        assert_eq!(state(&alice.deletes(&format!("/keys{}?version={version}", of_room("!e\"\\:x"))).await).0, 1_001);
        assert_eq!(state(&alice.deletes(&format!("/keys?version={version}")).await).0, 0);
        server.stop().await;
    }

    async fn a_restart_keeps_it_and_an_end_removes_it(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let version = alice.begins_a_backup().await;
        let mut secret = key(false, 0, 0);
        secret["session_data"] = json!({ "ciphertext": "what nobody may keep" });
        let put = state(&alice.backs_up(&version, ROOM, "s", secret.clone()).await);
        server.stop().await;

        let server = open_server(given).await;
        let alice = alice.turns_to(&server);
        let backup = alice.get("/room_keys/version").await.ok();
        assert_eq!((backup["count"].as_u64().unwrap(), backup["etag"].as_str().unwrap().to_owned()), put);
        assert_eq!(alice.keys(&version, &format!("{}/s", of_room(ROOM))).await.ok(), secret);
        alice.deletes(&format!("/version/{version}")).await.ok();
        let again = alice.begins_a_backup().await;
        alice.backs_up(&again, ROOM, "s", secret).await.ok();
        let user = json!({ "type": "m.id.user", "user": alice.id });
        let auth = json!({ "type": "m.login.password", "identifier": user, "password": "correct horse battery staple" });
        alice.post("/account/deactivate", json!({ "auth": auth })).await.ok();
        // Where SQLite deleted something, its bytes stay until the page is used anew.
        if given.config().database.database_url.is_some() {
            let words = b"what nobody may keep";
            let is_kept = async || given.everything_stored().await.windows(words.len()).any(|bytes| bytes == words);
            let removed = async { while is_kept().await {} };
            tokio::time::timeout(LONG, removed).await.expect("it is removed");
        }
        server.stop().await;
    }

    async fn many_write_at_once_and_all_is_counted(given: Given) {
        let server = open_server(given).await;
        let other = match given.config().database.database_url {
            Some(_) => Some(open_server(given).await),
            None => None,
        };
        let alice = Person::registers(&server, "alice").await;
        let phone = alice.logs_in_on(other.as_ref().unwrap_or(&server)).await;
        let version = alice.begins_a_backup().await;
        let write = async |who: &Person| {
            let puts = (0..15u32).map(|n| {
                let sessions: Map<String, Value> =
                    (0..20).map(|i| (((n * 7 + i) % 60).to_string(), key(false, n, 0))).collect();
                let path = format!("/room_keys/keys{}?version={version}", of_room(ROOM));
                async move { state(&who.put(&path, json!({ "sessions": sessions })).await) }
            });
            join_all(puts).await
        };
        join(write(&alice), write(&phone)).await;
        let keys = phone.keys(&version, &of_room(ROOM)).await.ok();
        let there = keys["sessions"].as_object().unwrap().len();
        assert_eq!(alice.get("/room_keys/version").await.ok()["count"].as_u64().unwrap() as usize, there);
        for (session, key) in keys["sessions"].as_object().unwrap() {
            // The best that anybody put there.
            let id: u32 = session.parse().unwrap();
            let best = (0..15).find(|n| (0..20).any(|i| (n * 7 + i) % 60 == id)).unwrap();
            assert_eq!(key["first_message_index"], best, "{session}");
        }
        if let Some(other) = other {
            other.stop().await;
        }
        server.stop().await;
    }
}
