//! Setting pushers, and what ends them.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use serde_json::{Value, json};

use super::pushing_server;
use crate::support::{
    each_backend,
    gateway::{PATH, pusher},
    people::{Person, open_server},
};

fn url() -> String {
    format!("https://push.example.org{PATH}")
}

fn with(key: &str, value: Value) -> Value {
    let mut pusher = pusher(&url(), "key");
    pusher[key] = value;
    pusher
}

fn without(key: &str) -> Value {
    let mut pusher = pusher(&url(), "key");
    pusher.as_object_mut().unwrap().remove(key);
    pusher
}

each_backend! {
    async fn a_pusher_is_what_was_said_of_it(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let nobody = server.get("/_matrix/client/v3/pushers").await;
        nobody.refused(401, "M_MISSING_TOKEN");
        assert_eq!(alice.get("/pushers").await.ok(), json!({ "pushers": [] }));

        let mut said = pusher(&url(), "one");
        said["profile_tag"] = "work".into();
        said["data"] = json!({
            "url": url(), "format": "event_id_only", "default_payload": { "aps": { "mutable-content": 1 } },
        });
        assert_eq!(alice.post("/pushers/set", said.clone()).await.ok(), json!({}));
        assert_eq!(alice.get("/pushers").await.ok(), json!({ "pushers": [said] }));
        assert_eq!(bob.get("/pushers").await.ok(), json!({ "pushers": [] }), "they are hers");

        // Said anew, it is the same pusher; another key or another app is another.
        said["lang"] = "eo".into();
        said["data"] = json!({ "url": url() });
        alice.post("/pushers/set", said.clone()).await.ok();
        assert_eq!(alice.get("/pushers").await.ok(), json!({ "pushers": [said] }));
        let mut other_app = said.clone();
        other_app["app_id"] = "org.example.other".into();
        alice.post("/pushers/set", other_app).await.ok();
        alice.post("/pushers/set", pusher(&url(), "two")).await.ok();
        assert_eq!(alice.pushkeys().await, ["one", "one", "two"]);

        let gone = json!({ "kind": null, "app_id": "org.example.app", "pushkey": "one" });
        bob.post("/pushers/set", gone.clone()).await.ok();
        assert_eq!(alice.pushkeys().await, ["one", "one", "two"], "he has none of this name");
        for _ in 0..2 {
            alice.post("/pushers/set", gone.clone()).await.ok();
            assert_eq!(alice.pushkeys().await, ["one", "two"]);
        }
        server.stop().await;
    }

    async fn a_phone_is_one_users_unless_it_says_otherwise(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        alice.post("/pushers/set", pusher(&url(), "phone")).await.ok();
        let mut beside = pusher(&url(), "phone");
        beside["append"] = true.into();
        bob.post("/pushers/set", beside).await.ok();
        assert_eq!((alice.pushkeys().await.len(), bob.pushkeys().await.len()), (1, 1));
        bob.post("/pushers/set", pusher(&url(), "phone")).await.ok();
        assert_eq!((alice.pushkeys().await.len(), bob.pushkeys().await.len()), (0, 1));
        server.stop().await;
    }

    async fn what_is_no_pusher_is_refused(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let data = |bytes: usize| {
            let data = |n: usize| json!({ "url": url(), "more": "m".repeat(n) });
            data(bytes - data(0).to_string().len())
        };
        for key in ["app_id", "pushkey", "app_display_name", "device_display_name", "lang", "data"] {
            alice.post("/pushers/set", without(key)).await.refused(400, "M_MISSING_PARAM");
        }
        alice.post("/pushers/set", with("data", json!({}))).await.refused(400, "M_MISSING_PARAM");
        alice.post("/pushers/set", with("append", json!("yes"))).await.refused(400, "M_BAD_JSON");
        for (key, bad) in [
            ("kind", json!("email")),
            ("kind", json!("carrier.pigeon")),
            ("app_id", json!("")),
            ("app_id", json!("a".repeat(65))),
            ("app_id", json!("a\0b")),
            ("pushkey", json!("")),
            ("pushkey", json!("ä".repeat(257))),
            ("pushkey", json!("a\0b")),
            ("lang", json!("e".repeat(1_025))),
            ("profile_tag", json!("t".repeat(1_025))),
            ("data", data(8_193)),
        ] {
            alice.post("/pushers/set", with(key, bad)).await.refused(400, "M_INVALID_PARAM");
        }
        let mut deep = json!(1);
        for _ in 0..30 {
            deep = json!({ "a": deep });
        }
        alice.post("/pushers/set", with("data", json!({ "url": url(), "deep": deep }))).await.refused(400, "M_INVALID_PARAM");
        for bad in [
            "push.example.org",
            "https://push.example.org/",
            "https://push.example.org/_matrix/push/v1/notify/",
            "https://push.example.org/_matrix/push/v1/../v1/other",
            "ftp://push.example.org/_matrix/push/v1/notify",
            "file:///_matrix/push/v1/notify",
            "https://user:password@push.example.org/_matrix/push/v1/notify",
            "https:///_matrix/push/v1/notify#",
        ] {
            alice.post("/pushers/set", pusher(bad, "key")).await.refused(400, "M_INVALID_PARAM");
        }
        // What is exactly as long as it may be.
        let mut long = pusher(&url(), &"k".repeat(512));
        long["app_id"] = "ä".repeat(64).into();
        (long["lang"], long["profile_tag"], long["data"]) = ("e".repeat(1_024).into(), "t".repeat(1_024).into(), data(8_192));
        alice.post("/pushers/set", long).await.ok();
        assert_eq!(alice.pushkeys().await.len(), 1);
        server.stop().await;
    }

    async fn a_user_has_only_so_many(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        for n in 0..200 {
            alice.post("/pushers/set", pusher(&url(), &n.to_string())).await.ok();
        }
        alice.post("/pushers/set", pusher(&url(), "200")).await.refused(403, "M_FORBIDDEN");
        alice.post("/pushers/set", pusher(&url(), "7")).await.ok();
        server.stop().await;
    }

    async fn cve_2024_52594_an_address_inside_is_refused_when_it_is_set(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        for host in ["127.0.0.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:10.0.0.1]", "192.168.1.1:8080", "169.254.169.254"] {
            let refused = alice.post("/pushers/set", pusher(&format!("http://{host}{PATH}"), "key")).await;
            let said = refused.refused(400, "M_INVALID_PARAM");
            assert!(said["error"].as_str().unwrap().contains("may not be reached"), "{said}");
        }
        server.stop().await;
    }

    async fn a_pusher_ends_with_its_session(given: Given) {
        let server = pushing_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let proof = json!({
            "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" },
            "password": "correct horse battery staple",
        });
        let mut phones = Vec::new();
        for n in 0..6 {
            let phone = Person::logs_in(&server, "alice").await;
            phone.post("/pushers/set", pusher(&url(), &format!("phone {n}"))).await.ok();
            phones.push(phone);
        }
        alice.post("/pushers/set", pusher(&url(), "desk")).await.ok();
        phones[0].post("/logout", json!({})).await.ok();
        assert_eq!(alice.pushkeys().await.len(), 6);
        let delete = json!({ "devices": [phones[1].device], "auth": proof });
        alice.post("/delete_devices", delete).await.ok();
        assert_eq!(alice.pushkeys().await, ["phone 2", "phone 3", "phone 4", "phone 5", "desk"]);
        // With the id of a device that is there: its session is another's from now on.
        let again = json!({
            "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" },
            "password": "correct horse battery staple", "device_id": phones[2].device,
        });
        server.post("/_matrix/client/v3/login", &again).await.ok();
        assert_eq!(alice.pushkeys().await, ["phone 3", "phone 4", "phone 5", "desk"]);
        let change = |logout: bool| json!({ "new_password": "correct horse battery staple", "logout_devices": logout, "auth": proof });
        alice.post("/account/password", change(false)).await.ok();
        assert_eq!(alice.pushkeys().await.len(), 4);
        alice.post("/account/password", change(true)).await.ok();
        assert_eq!(alice.pushkeys().await, ["desk"]);
        server.stop().await;
    }
}
