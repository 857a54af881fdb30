//! Bodies that nest without end, and numbers that are none. A parser that follows the one runs out of stack, and takes the
//! process with it; of the other, each reader makes something else.

use reqwest::{Method, header};
use serde_json::{Value, json};

use super::Told;
use crate::support::{
    Reply, each_backend,
    people::{Person, escaped, open_server},
};

/// So many levels of arrays, or of objects.
fn deep(levels: usize, arrays: bool) -> String {
    let (open, close) = if arrays { ("[", "]") } else { (r#"{"a":"#, "}") };
    format!("{}1{}", open.repeat(levels), close.repeat(levels))
}

impl Person {
    async fn sends_text(&self, method: Method, path: &str, body: String) -> Reply {
        let request = self.http().request(method, &format!("/_matrix/client/{path}")).bearer_auth(&self.token);
        self.http().send(request.header(header::CONTENT_TYPE, "application/json").body(body)).await
    }
}

/// Where something odd is put.
const HERE: &str = "HERE";

/// Bodies of all kinds, good but for what is put into them.
fn places(alice: &Person, room: &str, said: &str, version: &str) -> Vec<(Method, String, String)> {
    let (r, u, id) = (escaped(room), format!("v3/user/{}", escaped(&alice.id)), &alice.id);
    let (post, put) = (Method::POST, Method::PUT);
    let public = crate::e2ee::some_key();
    let device =
        |device: &str| json!({ "user_id": id, "device_id": device, "algorithms": [], "keys": {}, "signatures": {} });
    let with = |mut object: Value| {
        object["x"] = HERE.into();
        object
    };
    let one_time = with(json!({ "key": public, "signatures": {} }));
    let master = json!({ "user_id": id, "usage": ["master"], "keys": { format!("ed25519:{public}"): public } });
    let key = json!({
        "first_message_index": 0, "forwarded_count": 0, "is_verified": false, "session_data": { "x": HERE },
    });
    let mut pusher = crate::support::gateway::pusher("https://push.example.org/_matrix/push/v1/notify", "key");
    pusher["data"]["x"] = HERE.into();
    let condition = json!({ "conditions": [{ "kind": "odd", "x": HERE }], "actions": [] });
    let actions = json!({ "actions": [{ "set_tweak": "odd", "value": HERE }] });
    let dehydrated =
        json!({ "device_id": "D", "device_data": with(json!({ "algorithm": "m" })), "device_keys": device("D") });
    let sliding = "unstable/org.matrix.simplified_msc3575/sync?timeout=0";
    let list = json!({ "ranges": [], "timeline_limit": HERE });
    let places = [
        (&post, "v3/keys/upload".to_owned(), json!({ "device_keys": with(device(&alice.device)) })),
        (&post, "v3/keys/upload".to_owned(), json!({ "one_time_keys": { "signed_curve25519:A": one_time } })),
        (&post, "v3/keys/upload".to_owned(), json!({ "fallback_keys": { "signed_curve25519:F": one_time } })),
        (&post, "v3/keys/query".to_owned(), json!({ "device_keys": { id: HERE } })),
        (&post, "v3/keys/claim".to_owned(), json!({ "one_time_keys": { id: { "D": HERE } } })),
        (&post, "v3/keys/device_signing/upload".to_owned(), json!({ "master_key": with(master) })),
        (&post, "v3/keys/signatures/upload".to_owned(), json!({ id: { "a": HERE } })),
        (&put, "unstable/org.matrix.msc3814.v1/dehydrated_device".to_owned(), dehydrated),
        (&post, "v3/room_keys/version".to_owned(), json!({ "algorithm": "m", "auth_data": { "x": HERE } })),
        (&put, format!("v3/room_keys/keys/{r}/s?version={version}"), key.clone()),
        (&put, format!("v3/room_keys/keys/{r}?version={version}"), json!({ "sessions": { "s": key } })),
        (
            &put,
            format!("v3/room_keys/keys?version={version}"),
            json!({ "rooms": { room: { "sessions": { "s": key } } } }),
        ),
        (&put, "v3/sendToDevice/m.odd/t".to_owned(), json!({ "messages": { id: { "*": { "x": HERE } } } })),
        (&post, "v3/pushers/set".to_owned(), pusher),
        (&put, "v3/pushrules/global/override/o".to_owned(), condition),
        (&put, "v3/pushrules/global/override/.m.rule.master/actions".to_owned(), actions),
        (&post, format!("{u}/filter"), json!({ "room": { "timeline": { "limit": HERE } } })),
        (&put, format!("{u}/account_data/m.odd"), json!({ "x": HERE })),
        (&put, format!("{u}/account_data/m.ignored_user_list"), json!({ "ignored_users": { "@a:x": HERE } })),
        (&put, format!("{u}/rooms/{r}/account_data/m.odd"), json!({ "x": HERE })),
        (&put, format!("{u}/rooms/{r}/tags/u.odd"), json!({ "order": HERE })),
        (&put, format!("v3/profile/{}/org.example.odd", escaped(id)), json!({ "org.example.odd": HERE })),
        (&post, format!("v3/rooms/{r}/read_markers"), json!({ "m.read": HERE })),
        (&post, format!("v3/rooms/{r}/receipt/m.read/{}", escaped(said)), json!({ "thread_id": HERE })),
        (&put, format!("v3/rooms/{r}/typing/{}", escaped(id)), json!({ "typing": HERE })),
        (&put, format!("v3/rooms/{r}/send/m.odd/t"), json!({ "x": HERE })),
        (&put, format!("v3/rooms/{r}/state/m.odd/"), json!({ "x": HERE })),
        (&post, sliding.to_owned(), json!({ "lists": { "a": list } })),
        (&post, sliding.to_owned(), json!({ "extensions": { "typing": { "enabled": HERE } } })),
    ];
    places.into_iter().map(|(method, path, body)| (method.clone(), path, body.to_string())).collect()
}

/// The body with something put into it.
fn filled(body: &str, odd: &str) -> String {
    body.replace(&format!("\"{HERE}\""), odd)
}

fn is_refused(reply: &Reply, what: &str) {
    let said = reply.json();
    // Of many signatures, each that is not right is named.
    let refused = if reply.status == 200 { &said["failures"]["@alice:test.example"]["a"] } else { &said };
    assert!(matches!(reply.status, 200 | 400 | 413), "{what}: {} {}", reply.status, reply.text);
    assert!(refused["errcode"].is_string(), "{what}: {}", reply.text);
}

async fn begins_a_backup(person: &Person) -> String {
    let backup = person.post("/room_keys/version", json!({ "algorithm": "m", "auth_data": {} })).await.ok();
    backup["version"].as_str().unwrap().to_owned()
}

each_backend! {
    async fn cve_2020_26890_no_body_holds_a_number_that_is_none(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let said = alice.says(&room, "said").await;
        let version = begins_a_backup(&alice).await;
        for (method, path, body) in places(&alice, &room, &said, &version) {
            for number in ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "{\"a\":NaN}", "{\"a\":1e999}", "[1e999]"] {
                let reply = alice.sends_text(method.clone(), &path, filled(&body, number)).await;
                is_refused(&reply, &format!("{path} of {number}"));
            }
        }
        server.stop().await;
    }

    async fn no_body_is_too_deep_to_be_refused(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        let said = alice.says(&room, "said").await;
        let version = begins_a_backup(&alice).await;
        for (method, path, body) in &places(&alice, &room, &said, &version) {
            // As deep as a body may be at all, and just deeper than what parsers follow.
            for (levels, arrays) in [(400_000, true), (30_000, true), (10_000, false), (200, true), (128, false)] {
                let reply = alice.sends_text(method.clone(), path, filled(body, &deep(levels, arrays))).await;
                is_refused(&reply, &format!("{path} of {levels}"));
            }
        }
        let filter = escaped(&format!(r#"{{"room":{}}}"#, deep(2_000, true)));
        let reply = alice.get(&format!("/sync?timeout=0&filter={filter}")).await;
        assert!(matches!(reply.status, 400 | 404 | 414 | 431), "{} {}", reply.status, reply.text);
        // Whatever of it was taken can be read, also beside what others wrote.
        bob.joins(&room).await;
        for reader in [&alice, &bob] {
            reader.reads_everything_of(&room, std::slice::from_ref(&said)).await;
        }
        server.stop().await;
    }

    async fn what_was_taken_can_be_read_by_parsers_that_stop_at_128_levels(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let root = alice.says(&room, "root").await;
        let (r, user) = (escaped(&room), format!("v3/user/{}", escaped(&alice.id)));
        let thread = json!({ "rel_type": "m.thread", "event_id": root });
        let mut taken = 0;
        for levels in [50, 90, 100, 110, 115, 119, 123, 126, 127] {
            let version = begins_a_backup(&alice).await;
            let rest = r#""first_message_index":0,"forwarded_count":0,"is_verified":false"#;
            let deep = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
            let custom = format!(r#"{{"set_tweak":"odd","value":{deep}}}"#);
            for (path, body) in [
                (format!("{user}/account_data/m.odd"), format!(r#"{{"a":{deep}}}"#)),
                (format!("{user}/account_data/m.direct"), format!(r#"{{"@a:x":{deep}}}"#)),
                (format!("{user}/rooms/{r}/account_data/m.odd"), format!(r#"{{"a":{deep}}}"#)),
                (format!("{user}/rooms/{r}/account_data/m.tag"), format!(r#"{{"tags":{{"u.b":{{"a":{deep}}}}}}}"#)),
                (format!("{user}/rooms/{r}/tags/u.a"), format!(r#"{{"order":0.5,"a":{deep}}}"#)),
                ("v3/pushrules/global/override/o".to_owned(), format!(r#"{{"conditions":[{{"kind":"odd","a":{deep}}}],"actions":[]}}"#)),
                ("v3/pushrules/global/underride/u".to_owned(), format!(r#"{{"conditions":[],"actions":["notify",{custom}]}}"#)),
                ("v3/pushrules/global/underride/.m.rule.message/actions".to_owned(), format!(r#"{{"actions":["notify",{custom}]}}"#)),
                (format!("v3/room_keys/keys/{r}/s?version={version}"), format!(r#"{{{rest},"session_data":{{"a":{deep}}}}}"#)),
                (format!("v3/room_keys/version/{version}"), format!(r#"{{"algorithm":"m","auth_data":{{"a":{deep}}}}}"#)),
                (format!("v3/profile/{}/org.example.odd", alice.id), format!(r#"{{"org.example.odd":{deep}}}"#)),
                (format!("v3/sendToDevice/m.odd/{levels}"), format!(r#"{{"messages":{{"{}":{{"*":{{"a":{deep}}}}}}}}}"#, alice.id)),
                (format!("v3/rooms/{r}/send/m.odd/{levels}"), format!(r#"{{"a":{deep}}}"#)),
                (format!("v3/rooms/{r}/send/m.room.message/{levels}"), format!(r#"{{"a":{deep},"m.relates_to":{thread}}}"#)),
                (format!("v3/rooms/{r}/state/m.odd/"), format!(r#"{{"a":{deep}}}"#)),
            ] {
                let reply = alice.sends_text(Method::PUT, &path, body).await;
                assert!(matches!(reply.status, 200 | 400), "{path} of {levels}: {} {}", reply.status, reply.text);
                taken += usize::from(reply.status == 200);
            }
            bob.says(&room, "what she keeps is nothing to me").await;
            let mut told = alice.reads_everything_of(&room, std::slice::from_ref(&root)).await;
            for path in [
                "v3/pushrules/".to_owned(),
                format!("{user}/account_data/m.push_rules"),
                format!("{user}/account_data/m.odd"),
                format!("{user}/rooms/{r}/tags"),
                "v3/room_keys/version".to_owned(),
                format!("v3/room_keys/keys?version={version}"),
                format!("v3/profile/{}", alice.id),
            ] {
                told.push(alice.is_told(Method::GET, &path, None).await);
            }
            for Told { what, text } in told {
                assert!(serde_json::from_str::<Value>(&text).is_ok(), "{levels} levels can't be read: {what}: {text}");
            }
        }
        assert!(taken > 30, "{taken}");
        server.stop().await;
    }
}
