//! Devices without a session.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Pair, device_keys, lists, one_time};
use crate::support::{
    Reply, each_backend,
    people::{Person, open_server},
};

const PATH: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";

impl Person {
    async fn asks_of_dehydrated(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        let request = self.http().request(method, &format!("{PATH}{path}")).bearer_auth(&self.token);
        let request = if let Some(body) = body { request.json(&body) } else { request };
        self.http().send(request).await
    }

    /// The same person on a device of this id, which has no session.
    fn as_device(&self, id: &str) -> Self {
        let welcome = json!({ "user_id": self.id, "device_id": id, "access_token": "none" });
        Self::from(self.http(), &welcome)
    }

    async fn dehydrates(&self, device: &str) -> Reply {
        self.asks_of_dehydrated(Method::PUT, "", Some(dehydration(&self.as_device(device)))).await
    }

    async fn sends_key_to(&self, other: &Self, device: &str, n: usize) {
        let messages = json!({ "messages": { &other.id: { device: { "n": n } } } });
        self.put(&format!("/sendToDevice/m.room.encrypted/{device}{n}"), messages).await.ok();
    }
}

fn dehydration(device: &Person) -> Value {
    let mut keys = device_keys(device, &Pair::called(&device.device));
    keys["dehydrated"] = true.into();
    json!({
        "device_id": device.device, "initial_device_display_name": "Asleep",
        "device_data": { "algorithm": "org.matrix.msc3814.v2", "device_pickle": "secret", "nonce": "once" },
        "device_keys": keys, "one_time_keys": one_time(device, &["A", "B"], false),
        "fallback_keys": one_time(device, &["F"], true),
    })
}

fn told(page: &Value) -> Vec<u64> {
    page["events"].as_array().unwrap().iter().map(|event| event["content"]["n"].as_u64().unwrap()).collect()
}

each_backend! {
    async fn one_sleeps_until_another_takes_over(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        bob.syncs().await;
        alice.asks_of_dehydrated(Method::GET, "", None).await.refused(404, "M_NOT_FOUND");
        alice.asks_of_dehydrated(Method::DELETE, "", None).await.refused(404, "M_NOT_FOUND");

        assert_eq!(alice.dehydrates("SLEEPS").await.ok(), json!({ "device_id": "SLEEPS" }));
        let kept = alice.asks_of_dehydrated(Method::GET, "", None).await.ok();
        assert_eq!((&kept["device_id"], &kept["device_data"]["device_pickle"]), (&json!("SLEEPS"), &json!("secret")));
        assert_eq!(lists(&bob.syncs().await).0, [&*alice.id], "it is a device like others to others");
        let keys = bob.queries(&alice.id).await["device_keys"][&alice.id]["SLEEPS"].clone();
        assert_eq!((&keys["dehydrated"], &keys["unsigned"]["device_display_name"]), (&json!(true), &json!("Asleep")));
        let asleep = alice.as_device("SLEEPS");
        for name in ["A", "B", "F", "F"] {
            assert_eq!(bob.claims(&asleep).await.unwrap().0, format!("signed_curve25519:{name}"));
        }
        let devices = alice.get("/devices").await.ok();
        assert!(devices["devices"].as_array().unwrap().iter().any(|d| d["device_id"] == "SLEEPS"), "{devices}");

        // What is sent to it waits, and can be read from any place, again.
        for n in 0..7 {
            bob.sends_key_to(&alice, "SLEEPS", n).await;
        }
        let read = async |query: &str| alice.asks_of_dehydrated(Method::GET, &format!("/SLEEPS/events{query}"), None).await;
        let (mut all, mut from) = (Vec::new(), String::new());
        loop {
            let page = read(&format!("?limit=3{from}")).await.ok();
            all.push(told(&page));
            let Some(next) = page["next_batch"].as_str() else { break };
            from = format!("&from={next}");
        }
        assert_eq!(all, [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
        assert_eq!(told(&read("").await.ok()).len(), 7);
        assert_eq!(read("").await.ok()["events"][0]["sender"], bob.id);
        // The older way, which ends with an answer without events.
        let page = alice.asks_of_dehydrated(Method::POST, "/SLEEPS/events", Some(json!({}))).await.ok();
        assert_eq!(told(&page).len(), 7);
        let page = alice.asks_of_dehydrated(Method::POST, "/SLEEPS/events", Some(json!({ "next_batch": page["next_batch"] })));
        let page = page.await.ok();
        assert!(told(&page).is_empty() && page["next_batch"].is_string(), "{page}");

        read("?from=nonsense").await.refused(400, "M_INVALID_PARAM");
        let other = format!("/{}/events", alice.device);
        alice.asks_of_dehydrated(Method::GET, &other, None).await.refused(403, "M_FORBIDDEN");
        bob.asks_of_dehydrated(Method::GET, "/SLEEPS/events", None).await.refused(403, "M_FORBIDDEN");
        server.get(PATH).await.refused(401, "M_MISSING_TOKEN");
        server.stop().await;
    }

    async fn the_next_takes_its_place(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        alice.dehydrates("ONE").await.ok();
        bob.sends_key_to(&alice, "ONE", 1).await;
        alice.dehydrates("TWO").await.ok();
        let of_alice = async || {
            let keys = bob.queries(&alice.id).await["device_keys"][&alice.id].clone();
            keys.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(of_alice().await, ["TWO"]);
        assert!(bob.claims(&alice.as_device("ONE")).await.is_none());
        alice.asks_of_dehydrated(Method::GET, "/ONE/events", None).await.refused(403, "M_FORBIDDEN");
        // One of the same name has nothing of the one before.
        bob.sends_key_to(&alice, "TWO", 2).await;
        bob.claims(&alice.as_device("TWO")).await.unwrap();
        alice.dehydrates("TWO").await.ok();
        let events = alice.asks_of_dehydrated(Method::GET, "/TWO/events", None).await.ok();
        assert_eq!(events, json!({ "events": [] }));
        assert_eq!(bob.claims(&alice.as_device("TWO")).await.unwrap().0, "signed_curve25519:A");
        assert_eq!(of_alice().await, ["TWO"]);

        // A session is no such device, and neither is a key.
        alice.dehydrates(&alice.device).await.refused(400, "M_INVALID_PARAM");
        let keys = alice.cross_signs().await;
        alice.dehydrates(&keys.master.public).await.refused(400, "M_INVALID_PARAM");
        assert_eq!(alice.asks_of_dehydrated(Method::GET, "", None).await.ok()["device_id"], "TWO");
        alice.get("/account/whoami").await.ok();
        // Whoever logs in with its id takes it out of its sleep.
        let session = alice.as_device("TWO").logs_in_again(&server).await;
        alice.asks_of_dehydrated(Method::GET, "", None).await.refused(404, "M_NOT_FOUND");
        assert!(of_alice().await.is_empty());
        session.post("/logout", json!({})).await.ok();

        alice.dehydrates("THREE").await.ok();
        let ended = alice.asks_of_dehydrated(Method::DELETE, "", None).await.ok();
        assert_eq!(ended, json!({ "device_id": "THREE" }));
        assert!(of_alice().await.is_empty());
        alice.dehydrates("FOUR").await.ok();
        alice.post("/logout/all", json!({})).await.ok();
        assert!(of_alice().await.is_empty(), "it ends with all devices");
        server.stop().await;
    }

    async fn what_is_no_device_is_refused(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let good = dehydration(&alice.as_device("D"));
        let put = async |field: &str, value: Value| {
            let mut body = good.clone();
            body[field] = value;
            alice.asks_of_dehydrated(Method::PUT, "", Some(body)).await
        };
        put("device_id", json!("OTHER")).await.refused(400, "M_INVALID_PARAM");
        put("device_id", json!("x".repeat(256))).await.refused(400, "M_INVALID_PARAM");
        put("device_keys", json!({})).await.refused(400, "M_BAD_JSON");
        put("device_data", json!({})).await.refused(400, "M_BAD_JSON");
        put("device_data", json!([])).await.refused(400, "M_BAD_JSON");
        let large = json!({ "algorithm": "a", "device_pickle": "x".repeat(65_536) });
        put("device_data", large).await.refused(413, "M_TOO_LARGE");
        let largest = |n: usize| json!({ "algorithm": "a", "device_pickle": "x".repeat(n) });
        let (most, more) = (65_536 - largest(0).to_string().len(), 65_537 - largest(0).to_string().len());
        put("device_data", largest(more)).await.refused(413, "M_TOO_LARGE");
        put("initial_device_display_name", json!("x".repeat(1_001))).await.refused(400, "M_INVALID_PARAM");
        put("one_time_keys", json!({ "signed_curve25519:A": { "key": "short" } })).await.refused(400, "M_BAD_JSON");
        let names: Vec<String> = (0..201).map(|n| n.to_string()).collect();
        let many = one_time(&alice, &names.iter().map(String::as_str).collect::<Vec<_>>(), false);
        put("one_time_keys", many).await.refused(413, "M_TOO_LARGE");
        alice.asks_of_dehydrated(Method::GET, "", None).await.refused(404, "M_NOT_FOUND");
        put("device_id", json!("D")).await.ok();
        put("device_data", largest(most)).await.ok();
        server.stop().await;
    }

    async fn how_a_device_is_heard_is_forgotten_with_it(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let phone = alice.logs_in_on(&server).await;
        alice.syncs().await;
        let path = |kind: &str, of: &Person| format!("/user/{}/account_data/{kind}.{}", alice.id, of.device);
        let kinds = ["org.matrix.msc3890.local_notification_settings", "m.local_notification_settings"];
        for kind in kinds {
            for of in [&alice, &phone] {
                alice.put(&path(kind, of), json!({ "is_silenced": true })).await.ok();
            }
        }
        alice.syncs().await;
        phone.post("/logout", json!({})).await.ok();
        let page = alice.syncs().await;
        assert_eq!(page["account_data"]["events"].as_array().unwrap().len(), 2, "she is told: {page}");
        for kind in kinds {
            alice.get(&path(kind, &phone)).await.refused(404, "M_NOT_FOUND");
            assert_eq!(alice.get(&path(kind, &alice)).await.ok(), json!({ "is_silenced": true }));
            assert!(page["account_data"]["events"].as_array().unwrap().iter().any(|event| {
                event["type"] == format!("{kind}.{}", phone.device) && event["content"] == json!({})
            }));
        }
        server.stop().await;
    }
}
