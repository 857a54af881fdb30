//! Events, account data and names of no sense: whoever sends them, everybody's sync goes on.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::saying;
use crate::support::{
    each_backend,
    gateway::Gateway,
    people::{Person, escaped, timeline},
};

/// What servers look at in state and messages.
const FIELDS: [&str; 34] = [
    "name",
    "topic",
    "m.topic",
    "url",
    "info",
    "alias",
    "alt_aliases",
    "algorithm",
    "replacement_room",
    "guest_access",
    "history_visibility",
    "pinned",
    "allow",
    "deny",
    "allow_ip_literals",
    "via",
    "suggested",
    "order",
    "canonical",
    "body",
    "msgtype",
    "displayname",
    "avatar_url",
    "is_direct",
    "reason",
    "third_party_invite",
    "m.mentions",
    "m.relates_to",
    "m.new_content",
    "redacts",
    "join_rule",
    "room_version",
    "type",
    "predecessor",
];
const KINDS: [&str; 17] = [
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.encryption",
    "m.room.tombstone",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.pinned_events",
    "m.room.server_acl",
    "m.space.child",
    "m.space.parent",
    "m.room.join_rules",
    "m.room.power_levels",
    "m.room.aliases",
    "m.call.member",
    "m.room.create",
];

fn odd_values() -> [Value; 7] {
    [
        json!(7),
        json!(null),
        json!(true),
        json!([[], 1, null, {}]),
        json!({ "a": {}, "event_id": 7, "rel_type": [], "key": {}, "user_ids": {}, "room": 3 }),
        json!("\0"),
        json!({ "event_id": "$\0", "rel_type": "m.thread\0", "key": "\0", "user_ids": ["@bob\0:test.example", "\0", 1], "room": "\0" }),
    ]
}

/// All fields of this value.
fn content(value: &Value) -> Value {
    FIELDS.iter().map(|field| ((*field).to_owned(), value.clone())).collect::<Map<_, _>>().into()
}

impl Person {
    /// Does it, if the server takes it: it may refuse, but not break.
    async fn tries_to(&self, method: Method, path: &str, body: &Value) {
        let reply = self.send(method, path, Some(body)).await;
        assert!(reply.status < 500, "{path} {body}: {} {}", reply.status, reply.text);
    }
}

each_backend! {
    async fn cve_2024_52815_no_event_breaks_the_sync_of_anybody(given: Given) {
        let server = crate::push::pushing_server(given).await;
        let gateway = Gateway::start().await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let room = alice.creates(json!({ "preset": "public_chat", "visibility": "public", "room_version": "10" })).await;
        bob.joins(&room).await;
        bob.sets_pusher(&gateway, "key").await;
        bob.syncs().await;
        let path = format!("/rooms/{}", escaped(&room));
        for (n, value) in odd_values().iter().enumerate() {
            let odd = content(value);
            for kind in KINDS {
                for key in ["", &room, &bob.id, "\0"] {
                    alice.tries_to(Method::PUT, &format!("{path}/state/{kind}/{}", escaped(key)), &odd).await;
                }
            }
            for membership in ["join", "odd"] {
                let mut member = odd.clone();
                member["membership"] = membership.into();
                alice.tries_to(Method::PUT, &format!("{path}/state/m.room.member/{}", alice.id), &member).await;
            }
            for kind in ["m.room.message", "m.reaction", "m.room.encrypted", "m.poll.start", "m.room.redaction", "\0"] {
                alice.tries_to(Method::PUT, &format!("{path}/send/{}/odd{n}", escaped(kind)), &odd).await;
            }
            let said = alice.says(&room, "all is well").await;
            assert!(timeline(&bob.syncs().await, &room).contains(&said), "{value}");
            while gateway.note().await["event_id"] != *said {}
            alice.tries_to(Method::POST, &format!("{path}/invite"), &json!({ "user_id": carol.id, "reason": value })).await;
            for reader in [&alice, &bob, &carol] {
                reader.reads_everything_of(&room, std::slice::from_ref(&said)).await;
            }
        }
        let late = Person::registers(&server, "late").await;
        late.tries_to(Method::POST, &format!("{path}/join"), &json!({})).await;
        alice.tries_to(Method::POST, &format!("{path}/upgrade"), &json!({ "new_version": "11" })).await;
        server.stop().await;

        // By what is stored, not by what is remembered.
        let server = crate::push::pushing_server(given).await;
        for reader in [&alice, &bob, &carol, &late] {
            reader.turns_to(&server).reads_everything_of(&room, &[]).await;
        }
        server.stop().await;
    }

    async fn no_account_data_breaks_the_sync_of_its_owner(given: Given) {
        let server = crate::push::pushing_server(given).await;
        let gateway = Gateway::start().await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        bob.sets_pusher(&gateway, "key").await;
        let user = format!("/user/{}", escaped(&bob.id));
        let in_room = format!("{user}/rooms/{}", escaped(&room));
        let fields = ["tags", "ignored_users", "event_id", "global", "m.marked_unread", "unread", "recent_emoji", "@alice:test.example"];
        for value in odd_values() {
            let odd: Value = fields.iter().map(|field| ((*field).to_owned(), value.clone())).collect::<Map<_, _>>().into();
            for kind in ["m.direct", "m.ignored_user_list", "m.tag", "m.marked_unread", "m.identity_server", "m.fully_read", "m.push_rules", "\0"] {
                let kind = escaped(kind);
                bob.tries_to(Method::PUT, &format!("{user}/account_data/{kind}"), &odd).await;
                bob.tries_to(Method::PUT, &format!("{in_room}/account_data/{kind}"), &odd).await;
            }
            bob.tries_to(Method::PUT, &format!("{in_room}/tags/{}", escaped("u.\0")), &json!({ "order": value })).await;
            bob.tries_to(Method::PUT, &format!("{in_room}/tags/u.odd"), &json!({ "order": value, "more": value })).await;
            let markers = json!({ "m.fully_read": value, "m.read": value, "m.read.private": value });
            bob.tries_to(Method::POST, &format!("/rooms/{}/read_markers", escaped(&room)), &markers).await;
            let said = alice.says(&room, "all is well").await;
            while gateway.note().await["event_id"] != *said {}
            let told = bob.reads_everything_of(&room, std::slice::from_ref(&said)).await;
            assert!(!saying(&told, &said).is_empty());
        }
        server.stop().await;
    }

    async fn no_name_breaks_what_is_asked_by_it(given: Given) {
        let server = crate::push::pushing_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let said = alice.says(&room, "said").await;
        let version = alice.post("/room_keys/version", json!({ "algorithm": "m", "auth_data": {} })).await.ok()["version"].clone();
        let version = version.as_str().unwrap();
        let key = json!({ "first_message_index": 0, "forwarded_count": 0, "is_verified": false, "session_data": {} });
        for name in ["\0", "a\0b", "\u{202e}", "\u{10ffff}", "%", "'\"\\", "💥", &"x".repeat(300), &"é".repeat(128), ".", " ", "\n"] {
            let (e, r) = (escaped(name), escaped(&room));
            let messages = |device: &str| json!({ "messages": { &alice.id: { device: { "note": name } } } });
            let device = json!({ "user_id": alice.id, "device_id": name, "algorithms": [name], "keys": { format!("ed25519:{name}"): name } });
            let (get, put, post, delete) = (Method::GET, Method::PUT, Method::POST, Method::DELETE);
            let requests = [
                // Keys.
                (post.clone(), "/keys/upload".to_owned(), json!({ "device_keys": device })),
                (post.clone(), "/keys/upload".to_owned(), json!({ "one_time_keys": { format!("signed_curve25519:{name}"): {} } })),
                (post.clone(), "/keys/upload".to_owned(), json!({ "one_time_keys": { format!("{name}:A"): "key" } })),
                (post.clone(), "/keys/upload".to_owned(), json!({ "fallback_keys": { format!("{name}:A"): { "key": name, "signatures": {} } } })),
                (post.clone(), "/keys/query".to_owned(), json!({ "device_keys": { format!("@{name}:test.example"): [name] } })),
                (post.clone(), "/keys/query".to_owned(), json!({ "device_keys": { &alice.id: [name] } })),
                (post.clone(), "/keys/claim".to_owned(), json!({ "one_time_keys": { &alice.id: { name: name } } })),
                (post.clone(), "/keys/claim".to_owned(), json!({ "one_time_keys": { format!("@{name}:test.example"): { name: name } } })),
                (post.clone(), "/keys/signatures/upload".to_owned(), json!({ &alice.id: { name: { "user_id": alice.id, "device_id": name } } })),
                (post.clone(), "/keys/device_signing/upload".to_owned(), json!({ "master_key": { "user_id": alice.id, "usage": ["master"], "keys": { format!("ed25519:{name}"): name } } })),
                (get.clone(), format!("/keys/changes?from={e}&to={e}"), json!({})),
                // Backups.
                (put.clone(), format!("/room_keys/keys/{e}/{e}?version={version}"), key.clone()),
                (put.clone(), format!("/room_keys/keys/{r}/{e}?version={e}"), key.clone()),
                (put.clone(), format!("/room_keys/keys/{r}/{e}?version={version}"), key.clone()),
                (get.clone(), format!("/room_keys/keys/{r}/{e}?version={e}"), json!({})),
                (get.clone(), format!("/room_keys/version/{e}"), json!({})),
                (delete.clone(), format!("/room_keys/version/{e}"), json!({})),
                (post.clone(), "/room_keys/version".to_owned(), json!({ "algorithm": name, "auth_data": { name: name } })),
                // Devices, and what is sent to them.
                (put.clone(), format!("/devices/{e}"), json!({ "display_name": name })),
                (put.clone(), format!("/devices/{}", alice.device), json!({ "display_name": name })),
                (put.clone(), format!("/sendToDevice/{e}/{e}"), messages(name)),
                (put.clone(), format!("/sendToDevice/m.odd/t{}", e.len()), messages(&alice.device)),
                // Push.
                (put.clone(), format!("/pushrules/global/override/{e}"), json!({ "conditions": [{ "kind": "event_match", "key": name, "pattern": name }], "actions": [name, { "set_tweak": name, "value": name }] })),
                (put.clone(), format!("/pushrules/global/content/{e}"), json!({ "pattern": name, "actions": ["notify"] })),
                (put.clone(), format!("/pushrules/global/sender/{e}"), json!({ "actions": [] })),
                (put.clone(), format!("/pushrules/global/room/{e}?before={e}&after={e}"), json!({ "actions": [] })),
                (put.clone(), format!("/pushrules/global/override/{e}/enabled"), json!({ "enabled": false })),
                (delete.clone(), format!("/pushrules/global/underride/{e}"), json!({})),
                (post.clone(), "/pushers/set".to_owned(), json!({ "kind": "http", "app_id": name, "pushkey": name, "app_display_name": name, "device_display_name": name, "lang": name, "profile_tag": name, "data": { "url": "https://push.example.org/_matrix/push/v1/notify", name: name, "format": name } })),
                (post.clone(), "/pushers/set".to_owned(), json!({ "kind": null, "app_id": name, "pushkey": name })),
                (get.clone(), format!("/notifications?from={e}&only={e}"), json!({})),
                // Sync and account data.
                (get.clone(), format!("/sync?timeout=0&since={e}&filter={e}"), json!({})),
                (get.clone(), format!("/sync?timeout=0&filter={}", escaped(&json!({ "event_fields": [name], "room": { "timeline": { "types": [name], "senders": [format!("@{name}:test.example")] } } }).to_string())), json!({})),
                (post.clone(), format!("/user/{}/filter", alice.id), json!({ "room": { "rooms": [format!("!{name}:x")], "timeline": { "types": [name], "not_types": [name] } }, "event_fields": [name] })),
                (get.clone(), format!("/user/{}/filter/{e}", alice.id), json!({})),
                (put.clone(), format!("/user/{}/account_data/{e}", alice.id), json!({ name: name })),
                (put.clone(), format!("/user/{}/rooms/{e}/account_data/{e}", alice.id), json!({ name: name })),
                (put.clone(), format!("/user/{}/rooms/{r}/tags/{e}", alice.id), json!({ "order": 0.5, name: name })),
                (post.clone(), format!("/rooms/{r}/receipt/m.read/{e}"), json!({ "thread_id": name })),
                (post.clone(), format!("/rooms/{r}/receipt/m.read/{}", escaped(&said)), json!({ "thread_id": name })),
                (post.clone(), format!("/rooms/{r}/receipt/{e}/{}", escaped(&said)), json!({})),
                (put.clone(), format!("/rooms/{r}/typing/{e}"), json!({ "typing": true })),
                (put.clone(), format!("/presence/{}/status", alice.id), json!({ "presence": "online", "status_msg": name })),
            ];
            for (method, path, body) in requests {
                let body = (method != Method::GET && method != Method::DELETE).then_some(&body);
                let reply = alice.send(method, &path, body).await;
                assert!(reply.status < 500, "{path} {body:?}: {} {}", reply.status, reply.text);
            }
            let slide = json!({
                "conn_id": name, "lists": { name: { "ranges": [[0, 9]], "timeline_limit": 1, "required_state": [[name, name]], "filters": { "tags": [name], "room_types": [name] } } },
                "room_subscriptions": { format!("!{name}:x"): { "timeline_limit": 1, "required_state": [[name, name]] } },
                "extensions": { "to_device": { "enabled": true, "since": name }, "account_data": { "enabled": true, "lists": [name] } },
            });
            for pos in [String::new(), format!("&pos={e}")] {
                let reply = alice.slides(&format!("timeout=0{pos}"), &slide).await;
                assert!(reply.status < 500, "{slide}: {} {}", reply.status, reply.text);
            }
            alice.reads_everything_of(&room, std::slice::from_ref(&said)).await;
        }
        server.stop().await;
    }
}
