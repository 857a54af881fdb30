//! Tokens and numbers at the ends of what they may be: the database adds to them, and must not fall over the edge.

use reqwest::Method;
use serde_json::{Value, json};

use super::slid;
use crate::support::{
    each_backend,
    people::{Person, escaped, open_server},
};

/// As if they were ours.
const TOKENS: [&str; 14] = [
    "s1_9223372036854775807_0_0",
    "s1_9223372036854775807_18446744073709551615_ffffffffffffffff_t",
    "s1_9223372036854775806_0_0_d9223372036854775807_ffffffff",
    "s1_0_0_0",
    "s1_0_0_0_d9223372036854775807_0",
    "t1_9223372036854775807_9223372036854775807",
    "t1_9223372036854775807_0",
    "t1_-9223372036854775808_-9223372036854775808",
    "t1_0_-1",
    "p1_9223372036854775807_ffffffffffffffff",
    "p1_0_0",
    "d9223372036854775807",
    "9223372036854775807",
    "-1",
];
const NUMBERS: [&str; 8] =
    ["0", "1", "4294967296", "9007199254740991", "9223372036854775807", "18446744073709551615", "-1", "1e308"];

impl Person {
    async fn asks_oddly(&self, method: Method, path: &str, body: Option<&Value>) {
        let request = self.http().request(method, &format!("/_matrix/client/{path}")).bearer_auth(&self.token);
        let request = if let Some(body) = body { request.json(body) } else { request };
        let reply = self.http().send(request).await;
        assert!(reply.status < 500, "{path}: {} {}", reply.status, reply.text);
    }
}

each_backend! {
    async fn no_token_breaks_what_is_asked_by_it(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let said = escaped(&alice.says(&room, "said").await);
        let (_, r) = (alice.syncs().await, escaped(&room));
        for token in TOKENS {
            for path in [
                format!("v3/sync?timeout=0&since={token}"),
                format!("v3/sync?timeout=0&full_state=true&since={token}"),
                format!("v3/rooms/{r}/messages?dir=b&from={token}"),
                format!("v3/rooms/{r}/messages?dir=f&from={token}"),
                format!("v3/rooms/{r}/messages?dir=b&to={token}"),
                format!("v3/rooms/{r}/messages?dir=f&from={token}&to={token}"),
                format!("v3/rooms/{r}/members?at={token}"),
                format!("v1/rooms/{r}/relations/{said}?from={token}&dir=b"),
                format!("v1/rooms/{r}/relations/{said}?from={token}&to={token}&dir=f"),
                format!("v1/rooms/{r}/threads?from={token}"),
                format!("v1/rooms/{r}/hierarchy?from={token}"),
                format!("v3/notifications?from={token}"),
                format!("v3/keys/changes?from={token}&to={token}"),
                format!("v3/publicRooms?since={token}"),
                format!("v3/room_keys/keys?version={token}"),
            ] {
                alice.asks_oddly(Method::GET, &path, None).await;
            }
            let sliding = format!("unstable/org.matrix.simplified_msc3575/sync?timeout=0&pos={token}");
            alice.asks_oddly(Method::POST, &sliding, Some(&slid(&room))).await;
            let mut body = slid(&room);
            body["extensions"]["to_device"]["since"] = token.into();
            alice.asks_oddly(Method::POST, "unstable/org.matrix.simplified_msc3575/sync?timeout=0", Some(&body)).await;
            let events = "unstable/org.matrix.msc3814.v1/dehydrated_device/D/events";
            alice.asks_oddly(Method::POST, events, Some(&json!({ "next_batch": token }))).await;
        }
        let said = alice.says(&room, "all is well").await;
        alice.sees(&room, &said).await;
        server.stop().await;
    }

    async fn no_number_breaks_what_is_asked_with_it(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let event = alice.says(&room, "said").await;
        let (said, r, user) = (escaped(&event), escaped(&room), escaped(&alice.id));
        let backup = alice.post("/room_keys/version", json!({ "algorithm": "m", "auth_data": {} })).await.ok();
        let version = backup["version"].as_str().unwrap().to_owned();
        for number in NUMBERS {
            for path in [
                format!("v3/rooms/{r}/messages?dir=b&limit={number}"),
                format!("v3/rooms/{r}/context/{said}?limit={number}"),
                format!("v1/rooms/{r}/relations/{said}?limit={number}"),
                format!("v1/rooms/{r}/threads?limit={number}"),
                format!("v1/rooms/{r}/hierarchy?limit={number}&max_depth={number}"),
                format!("v1/rooms/{r}/timestamp_to_event?ts={number}&dir=f"),
                format!("v1/rooms/{r}/timestamp_to_event?ts={number}&dir=b"),
                format!("v3/notifications?limit={number}"),
                format!("v3/publicRooms?limit={number}"),
                format!("v3/room_keys/version/{number}"),
                format!("v3/sync?timeout=0&filter={}", escaped(&format!(r#"{{"room":{{"timeline":{{"limit":{number}}}}}}}"#))),
            ] {
                alice.asks_oddly(Method::GET, &path, None).await;
            }
            let number: Value = serde_json::from_str(number).unwrap();
            let key = json!({ "first_message_index": number, "forwarded_count": number, "is_verified": false, "session_data": {} });
            let list = json!({ "ranges": [[0, number], [number, number]], "timeline_limit": number });
            for (method, path, body) in [
                (Method::PUT, format!("v3/room_keys/keys/{r}/s{number}?version={version}"), key.clone()),
                (Method::PUT, format!("v3/room_keys/keys/{r}/same?version={version}"), key),
                (Method::PUT, format!("v3/user/{user}/rooms/{r}/tags/u.{number}"), json!({ "order": number })),
                (Method::PUT, format!("v3/rooms/{r}/typing/{user}"), json!({ "typing": true, "timeout": number })),
                (Method::POST, format!("v3/user/{user}/filter"), json!({ "room": { "timeline": { "limit": number } } })),
                (Method::POST, "v3/publicRooms".to_owned(), json!({ "limit": number })),
                (Method::POST, "v3/user_directory/search".to_owned(), json!({ "limit": number, "search_term": "a" })),
                (Method::PUT, "v3/pushrules/global/override/o".to_owned(), json!({ "conditions": [{ "kind": "room_member_count", "is": format!(">{number}") }, { "kind": "event_property_is", "key": "a", "value": number }], "actions": [{ "set_tweak": "n", "value": number }] })),
                (Method::POST, "unstable/org.matrix.simplified_msc3575/sync?timeout=0".to_owned(), json!({ "lists": { "a": list }, "extensions": { "to_device": { "enabled": true, "limit": number } } })),
            ] {
                alice.asks_oddly(method, &path, Some(&body)).await;
            }
            alice.reads_everything_of(&room, std::slice::from_ref(&event)).await;
        }
        server.stop().await;
    }
}
