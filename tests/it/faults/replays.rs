//! The same request again, because an answer was lost or somebody recorded it: one effect, and the same answer.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Http, each_backend,
    people::{PASSWORD, Person, escaped, event_id, ids, open_server},
};

async fn logs_in_to_renew(http: &Http, name: &str) -> (Person, Value) {
    let body = json!({
        "type": "m.login.password", "identifier": { "type": "m.id.user", "user": name }, "password": PASSWORD,
        "refresh_token": true,
    });
    let welcome = http.post("/_matrix/client/v3/login", &body).await.ok();
    (Person::from(http, &welcome), welcome)
}

each_backend! {
    async fn a_transaction_is_one_also_with_a_token_that_was_renewed(given: Given) {
        let server = open_server(given).await;
        let bob = Person::registers(&server, "bob").await;
        Person::registers(&server, "alice").await;
        let (mut alice, mut welcome) = logs_in_to_renew(&server, "alice").await;
        let (other, _) = logs_in_to_renew(&server, "alice").await;
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let note = json!({ "messages": { &bob.id: { "*": { "note": "once" } } } });
        let mut said = Vec::new();
        let mut redacted = Vec::new();
        let target = alice.says(&room, "target").await;
        for _ in 0..3 {
            for _ in 0..2 {
                said.push(event_id(&alice.sends(&room, "t", "once").await));
                let redact = format!("/rooms/{}/redact/{}/t", escaped(&room), escaped(&target));
                redacted.push(event_id(&alice.put(&redact, json!({})).await));
                alice.put("/sendToDevice/m.note/t", note.clone()).await.ok();
            }
            let old = json!({ "refresh_token": welcome["refresh_token"] });
            let new = server.post("/_matrix/client/v3/refresh", &old).await.ok();
            welcome["refresh_token"] = new["refresh_token"].clone();
            welcome["access_token"] = new["access_token"].clone();
            alice = Person::from(&server, &welcome);
        }
        for all in [&mut said, &mut redacted] {
            all.dedup();
            assert_eq!(all.len(), 1);
        }
        let elsewhere = event_id(&other.sends(&room, "t", "once").await);
        assert_ne!(elsewhere, said[0], "another device counts for itself");
        let page = bob.reads(&room, "messages?dir=b&limit=50").await.ok();
        let texts = page["chunk"].as_array().unwrap().iter().filter(|e| e["content"]["body"] == "once");
        assert_eq!(texts.count(), 2);
        assert_eq!(bob.syncs().await["to_device"]["events"].as_array().unwrap().len(), 1);
        server.stop().await;

        // Over a restart, too.
        let server = open_server(given).await;
        let (alice, bob) = (alice.turns_to(&server), bob.turns_to(&server));
        assert_eq!(event_id(&alice.sends(&room, "t", "once").await), said[0]);
        alice.put("/sendToDevice/m.note/t", note).await.ok();
        let fresh = bob.sync("timeout=0").await;
        assert_eq!(fresh["to_device"]["events"].as_array().unwrap().len(), 1, "{fresh}");
        server.stop().await;
    }

    async fn what_is_asked_twice_is_done_once(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        let version = alice.post("/room_keys/version", json!({ "algorithm": "m", "auth_data": {} })).await.ok()["version"].clone();
        let key = json!({ "first_message_index": 0, "forwarded_count": 0, "is_verified": false, "session_data": {} });
        let one_time = crate::e2ee::one_time(&alice, &["A", "B"], false);
        let user = format!("/user/{}", escaped(&alice.id));
        let said = alice.says(&room, "said").await;
        let r = format!("/rooms/{}", escaped(&room));
        let requests = [
            (Method::POST, "/keys/upload".to_owned(), json!({ "one_time_keys": one_time })),
            (Method::PUT, format!("/room_keys/keys/{}/s?version={}", escaped(&room), version.as_str().unwrap()), key),
            (Method::PUT, format!("{user}/account_data/m.note"), json!({ "a": 1 })),
            (Method::PUT, format!("{user}/rooms/{}/tags/u.a", escaped(&room)), json!({ "order": 0.5 })),
            (Method::PUT, "/pushrules/global/content/word".to_owned(), json!({ "pattern": "word", "actions": ["notify"] })),
            (Method::POST, format!("{user}/filter"), json!({ "room": { "timeline": { "limit": 3 } } })),
            (Method::POST, "/pushers/set".to_owned(), crate::support::gateway::pusher("https://push.example.org/_matrix/push/v1/notify", "key")),
            (Method::POST, format!("{r}/receipt/m.read/{}", escaped(&said)), json!({})),
            (Method::PUT, format!("{r}/state/m.room.topic/"), json!({ "topic": "same" })),
            (Method::POST, format!("{r}/invite"), json!({ "user_id": bob.id })),
        ];
        // Each once; what there is then.
        let mut first = Vec::new();
        for (method, path, body) in &requests {
            first.push(alice.send(method.clone(), path, Some(body)).await.ok());
        }
        let all = async || {
            let mut all = Vec::new();
            for path in ["/pushers", "/pushrules/global/", "/room_keys/version"] {
                all.push(alice.get(path).await.ok());
            }
            all.push(alice.get(&format!("{user}/rooms/{}/tags", escaped(&room))).await.ok());
            all.push(json!(ids(&alice.reads(&room, "messages?dir=b&limit=50").await.ok()["chunk"])));
            all
        };
        let before = all().await;
        for ((method, path, body), first) in requests.iter().zip(first) {
            for _ in 0..2 {
                let again = alice.send(method.clone(), path, Some(body)).await;
                assert_eq!(again.ok(), first, "{path}");
            }
        }
        assert_eq!(all().await, before);
        // A key that is given out is gone, whoever uploads it again before or asks again after.
        let mut claimed = Vec::new();
        for _ in 0..3 {
            let body = json!({ "one_time_keys": { &alice.id: { &alice.device: "signed_curve25519" } } });
            let keys = bob.post("/keys/claim", body).await.ok()["one_time_keys"][&alice.id][&alice.device].clone();
            claimed.extend(keys.as_object().into_iter().flatten().map(|(name, _)| name.clone()));
        }
        assert_eq!(claimed, ["signed_curve25519:A", "signed_curve25519:B"]);
        server.stop().await;
    }
}
