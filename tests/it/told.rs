//! What somebody is told who was away, came late, or was put out: stories that the random histories of `model` found first.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use serde_json::{Value, json};

use crate::support::{
    each_backend,
    people::{Person, escaped, event_id, ids, joined, of_type, open_server, timeline},
};

async fn sets_history(person: &Person, room: &str, visibility: &str) {
    let content = json!({ "history_visibility": visibility });
    person.sets(room, "m.room.history_visibility", "", content).await.ok();
}

fn left<'a>(page: &'a Value, room: &str) -> &'a Value {
    &page["rooms"]["leave"][room]
}

each_backend! {
    async fn what_stands_before_something_hidden_can_be_paged_to(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        let old = alice.says(&room, "for whoever comes").await;
        sets_history(&alice, &room, "joined").await;
        let hidden = alice.says(&room, "among us").await;
        bob.joins(&room).await;
        let page = bob.syncs().await;
        let here = &joined(&page, &room)["timeline"];
        assert_eq!((timeline(&page, &room).len(), &here["limited"]), (1, &json!(true)), "his join, and there is more");
        let from = here["prev_batch"].as_str().unwrap();
        let before = bob.pages(&room, &format!("dir=b&from={from}")).await;
        assert!(before.contains(&old) && !before.contains(&hidden));
        server.stop().await;
    }

    async fn an_event_can_be_read_in_two_threads(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let (thread, event) = (alice.says(&room, "a thread").await, alice.says(&room, "the last").await);
        let path = format!("receipt/m.read/{}", escaped(&event));
        for body in [json!({ "thread_id": thread }), json!({ "thread_id": "main" }), json!({})] {
            alice.asks(&room, &path, body).await.ok();
        }
        let page = alice.syncs().await;
        let receipts = joined(&page, &room)["ephemeral"]["events"].as_array().unwrap();
        let mut threads: Vec<&Value> =
            receipts.iter().map(|r| &r["content"][&event]["m.read"][&alice.id]["thread_id"]).collect();
        threads.sort_by_key(ToString::to_string);
        assert_eq!(threads, [&json!(thread), &json!("main"), &Value::Null]);
        server.stop().await;
    }

    async fn what_was_kept_for_a_room_comes_when_one_joins(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        let path = format!("/user/{}/rooms/{}/account_data/org.example.k", bob.id, escaped(&room));
        bob.put(&path, json!({ "n": 1 })).await.ok();
        bob.syncs().await;
        bob.joins(&room).await;
        let page = bob.syncs().await;
        let kept = &joined(&page, &room)["account_data"]["events"];
        assert_eq!(of_type(kept, "org.example.k").unwrap()["content"]["n"], 1);
        server.stop().await;
    }

    async fn state_says_who_redacted_it(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let topic = event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": "gone" })).await);
        let redaction = event_id(&alice.redacts(&room, &topic).await);
        let invite = event_id(&alice.sets(&room, "m.room.member", "@bob:test.example", json!({ "membership": "invite" })).await);
        let other = event_id(&alice.redacts(&room, &invite).await);
        let state = alice.reads(&room, "state").await.ok();
        let members = alice.reads(&room, "members").await.ok();
        let page = alice.sync(r#"timeout=0&filter={"room":{"timeline":{"limit":1}}}"#).await;
        for (place, id, redaction) in [
            (&state, &topic, &redaction),
            (&members["chunk"], &invite, &other),
            (&joined(&page, &room)["state"]["events"], &topic, &redaction),
        ] {
            let event = place.as_array().unwrap().iter().find(|e| e["event_id"] == **id).unwrap();
            assert_eq!(event["unsigned"]["redacted_because"]["event_id"], **redaction, "{event}");
        }
        let path = format!("/rooms/{}/state/m.room.topic/?format=event", escaped(&room));
        let event = alice.get(&path).await.ok();
        assert_eq!(event["unsigned"]["redacted_because"]["event_id"], redaction, "{event}");
        server.stop().await;
    }

    async fn who_is_banned_after_they_left_learns_nothing_of_the_time_between(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        let before = event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": "known" })).await);
        bob.joins(&room).await;
        bob.leaves(&room).await;
        alice.sets(&room, "m.room.topic", "", json!({ "topic": "secret" })).await.ok();
        alice.does("ban", &room, &bob).await;
        let page = bob.sync(r#"timeout=0&filter={"room":{"include_leave":true}}"#).await;
        assert!(!page.to_string().contains("secret"), "{page}");
        let part = left(&page, &room);
        assert!(ids(&part["state"]["events"]).contains(&before), "the topic as he knew it");
        let ban = &part["timeline"]["events"][0];
        assert_eq!((&ban["content"]["membership"], &ban["unsigned"]["prev_content"]["membership"]), (&json!("ban"), &json!("leave")));
        server.stop().await;
    }

    async fn who_left_is_not_told_what_anybody_may_read(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        sets_history(&alice, &room, "world_readable").await;
        bob.joins(&room).await;
        bob.syncs().await;
        bob.leaves(&room).await;
        let after = event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": "later" })).await);
        alice.does("ban", &room, &bob).await;
        let page = bob.syncs().await;
        let told = &left(&page, &room)["timeline"]["events"];
        let memberships: Vec<&Value> = told.as_array().unwrap().iter().map(|e| &e["content"]["membership"]).collect();
        assert_eq!(memberships, ["leave", "ban"], "his own, and nothing else");
        bob.event(&room, &after).await.ok();
        server.stop().await;
    }

    async fn who_left_learns_nothing_of_who_was_in_before_them(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let room = alice.opens_a_room().await;
        sets_history(&alice, &room, "joined").await;
        carol.joins(&room).await;
        bob.syncs().await;
        let then = escaped(&bob.since());
        carol.leaves(&room).await;
        bob.joins(&room).await;
        bob.reads(&room, &format!("members?at={then}")).await.refused(403, "M_FORBIDDEN");
        bob.leaves(&room).await;
        bob.reads(&room, &format!("members?at={then}")).await.refused(403, "M_FORBIDDEN");
        bob.reads(&room, "members").await.ok();
        server.stop().await;
    }

    async fn who_wants_no_events_is_told_that_there_are_some(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.creates(json!({ "preset": "private_chat", "invite": [bob.id] })).await;
        bob.syncs().await;
        bob.leaves(&room).await;
        let page = bob.syncs_with(r#"&filter={"room":{"timeline":{"limit":0}}}"#).await;
        assert_eq!(left(&page, &room)["timeline"]["limited"], true, "{page}");
        server.stop().await;
    }
}
