//! How large, how deep and of which numbers an event may be.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use reqwest::{Method, header};
use serde_json::{Value, json};

use crate::support::{
    Http, Reply, each_backend,
    people::{Person, escaped, event_id, open_server},
};

/// A body as it is: not every JSON can be written by a library.
async fn sends_text(http: &Http, person: &Person, path: &str, body: String) -> Reply {
    let request = http.request(Method::PUT, &format!("/_matrix/client/v3{path}"));
    let request = request.bearer_auth(&person.token).header(header::CONTENT_TYPE, "application/json");
    http.send(request.body(body)).await
}

/// Objects in objects.
fn nested(levels: usize) -> String {
    format!("{}{{}}{}", r#"{"a":"#.repeat(levels - 1), "}".repeat(levels - 1))
}

each_backend! {
    async fn an_event_is_as_large_as_allowed_and_no_larger(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let path = format!("/rooms/{}/send/m.room.message/", escaped(&room));
        let send = async |n: usize| alice.put(&format!("{path}size{n}"), json!({ "body": "x".repeat(n) })).await;
        // How much of the whole is not the text, differs a little: the depth is a number.
        let (mut fits, mut too_much) = (60_000, 65_536);
        send(fits).await.ok();
        send(too_much).await.refused(413, "M_TOO_LARGE");
        while too_much - fits > 1 {
            let middle = usize::midpoint(fits, too_much);
            match send(middle).await.status {
                200 => fits = middle,
                413 => too_much = middle,
                other => panic!("{other}"),
            }
        }
        assert!((64_000..65_536).contains(&fits), "{fits}");
        // The whole of a request is bounded before anything looks at it.
        alice.sets(&room, "org.example.big", "", json!({ "body": "x".repeat(70_000) })).await.refused(413, "M_TOO_LARGE");
        let wish = json!({ "topic": "x".repeat(70_000) });
        alice.post("/createRoom", wish).await.refused(413, "M_TOO_LARGE");
        let joined = alice.get("/joined_rooms").await.ok();
        assert_eq!(joined["joined_rooms"], json!([room]), "and no half of a room");
        server.stop().await;
    }

    async fn names_have_255_bytes(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let (fits, too_long) = ("é".repeat(127) + "x", "é".repeat(128));
        assert_eq!((fits.len(), too_long.len()), (255, 256));
        alice.sets(&room, &escaped(&fits), &fits, json!({})).await.ok();
        alice.sets(&room, &escaped(&too_long), "", json!({})).await.refused(413, "M_TOO_LARGE");
        alice.sets(&room, "m.odd", &too_long, json!({})).await.refused(413, "M_TOO_LARGE");
        let send = async |kind: &str, txn: &str| {
            alice.put(&format!("/rooms/{}/send/{}/{}", escaped(&room), escaped(kind), escaped(txn)), json!({})).await
        };
        event_id(&send(&fits, "t1").await);
        send(&too_long, "t2").await.refused(413, "M_TOO_LARGE");
        event_id(&send("m.odd", &fits).await);
        send("m.odd", &too_long).await.refused(400, "M_INVALID_PARAM");
        let alias = |len: usize| format!("#{}:test.example", "a".repeat(len - "#:test.example".len()));
        let name = |alias: &str| format!("/directory/room/{}", escaped(alias));
        alice.put(&name(&alias(255)), json!({ "room_id": room })).await.ok();
        alice.put(&name(&alias(256)), json!({ "room_id": room })).await.refused(400, "M_INVALID_PARAM");
        let long = format!("@{}:test.example", "a".repeat(243));
        assert_eq!(long.len(), 257);
        alice.asks(&room, "invite", json!({ "user_id": long })).await.refused(400, "M_BAD_JSON");
        server.stop().await;
    }

    async fn only_what_all_servers_read_alike_is_an_event(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let send = format!("/rooms/{}/send/m.room.message/", escaped(&room));
        let state = format!("/rooms/{}/state/org.example.odd/", escaped(&room));
        let refused = [
            r#"{"n":1.5}"#, r#"{"n":1.0}"#, r#"{"n":1e3}"#, r#"{"n":-0}"#, r#"{"n":1e999}"#,
            r#"{"n":9007199254740992}"#, r#"{"n":-9007199254740992}"#, r#"{"n":99999999999999999999}"#,
            r#"{"a":{"n":[0.1]}}"#, r#"{"a":1,"a":2}"#, r#"{"a":{"b":1,"b":1}}"#, r#"{"a":"\ud800"}"#,
        ];
        for (n, body) in refused.iter().enumerate() {
            sends_text(&server, &alice, &format!("{send}r{n}"), (*body).to_owned()).await.refused(400, "M_BAD_JSON");
            sends_text(&server, &alice, &state, (*body).to_owned()).await.refused(400, "M_BAD_JSON");
        }
        for (n, body) in ["[]", "1", "null", "\"text\""].iter().enumerate() {
            let reply = sends_text(&server, &alice, &format!("{send}o{n}"), (*body).to_owned()).await;
            assert_eq!(reply.status, 400, "{body}: {}", reply.text);
        }
        sends_text(&server, &alice, &format!("{send}j"), "{".to_owned()).await.refused(400, "M_NOT_JSON");
        for (n, body) in [r#"{"n":9007199254740991,"m":-9007199254740991}"#.to_owned(), nested(100)].iter().enumerate() {
            let event = event_id(&sends_text(&server, &alice, &format!("{send}f{n}"), body.clone()).await);
            let read = alice.event(&room, &event).await.ok();
            assert_eq!(read["content"], serde_json::from_str::<Value>(body).unwrap());
        }
        sends_text(&server, &alice, &format!("{send}d1"), nested(101)).await.refused(400, "M_BAD_JSON");
        for levels in [200, 1_000, 30_000] {
            let reply = sends_text(&server, &alice, &format!("{send}d{levels}"), nested(levels)).await;
            assert_eq!(reply.status, 400, "{levels}: {}", reply.text);
        }
        // What was let in can be read by every path.
        alice.syncs().await;
        alice.pages(&room, "dir=b&limit=3").await;
        // The same rules hold for what a room begins with.
        let wish = r#"{"initial_state":[{"type":"org.example.odd","state_key":"","content":{"n":1.5}}]}"#;
        let request = server.request(Method::POST, "/_matrix/client/v3/createRoom").bearer_auth(&alice.token);
        server.send(request.body(wish)).await.refused(400, "M_BAD_JSON");
        let power = r#"{"power_level_content_override":{"events_default":0.5}}"#;
        let request = server.request(Method::POST, "/_matrix/client/v3/createRoom").bearer_auth(&alice.token);
        assert_eq!(server.send(request.body(power)).await.status, 400);
        server.stop().await;
    }
}
