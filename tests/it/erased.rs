//! What is left of somebody who left and wanted to be forgotten.

use serde_json::{Value, json};

use crate::support::{
    each_backend,
    people::{Person, joined, of_type, open_server},
};

async fn leaves_for_good(person: &Person, erase: bool) {
    let identifier = json!({ "type": "m.id.user", "user": person.id });
    let auth =
        json!({ "type": "m.login.password", "identifier": identifier, "password": "correct horse battery staple" });
    person.post("/account/deactivate", json!({ "auth": auth, "erase": erase })).await.ok();
}

/// The event with this id, among some.
fn found<'a>(events: &'a Value, id: &str) -> &'a Value {
    let events = events.as_array().expect("events");
    events.iter().find(|e| e["event_id"] == id).unwrap_or_else(|| panic!("{id} in {events:?}"))
}

each_backend! {
    async fn who_comes_later_gets_what_is_left(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = bob.opens_a_room().await;
        alice.joins(&room).await;
        let said = alice.says(&room, "a secret").await;
        let other = bob.says(&room, "no secret").await;
        let early = Person::registers(&server, "early").await;
        early.joins(&room).await;
        assert_eq!(early.event(&room, &said).await.ok()["content"]["body"], "a secret");
        leaves_for_good(&alice, true).await;
        let late = Person::registers(&server, "late").await;
        late.joins(&room).await;

        for (reader, sees) in [(&bob, true), (&early, true), (&late, false)] {
            let content = if sees { json!({ "msgtype": "m.text", "body": "a secret" }) } else { json!({}) };
            let event = reader.event(&room, &said).await.ok();
            assert_eq!((&event["content"], &event["sender"]), (&content, &json!(alice.id)), "{}", reader.id);
            let page = reader.reads(&room, "messages?dir=b&limit=50").await.ok();
            assert_eq!(found(&page["chunk"], &said)["content"], content);
            assert_eq!(found(&page["chunk"], &other)["content"]["body"], "no secret");
            let around = reader.reads(&room, &format!("context/{}", crate::support::people::escaped(&other))).await.ok();
            assert_eq!(found(&around["events_before"], &said)["content"], content);
            let first = reader.syncs_with("&filter=%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A50%7D%7D%7D").await;
            assert_eq!(found(&joined(&first, &room)["timeline"]["events"], &said)["content"], content);
        }

        // Another start knows it, too.
        server.stop().await;
        let server = open_server(given).await;
        assert_eq!(late.turns_to(&server).event(&room, &said).await.ok()["content"], json!({}));
        assert_eq!(bob.turns_to(&server).event(&room, &said).await.ok()["content"]["body"], "a secret");
        server.stop().await;
    }

    async fn who_only_leaves_is_remembered(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        let said = alice.says(&room, "no secret").await;
        alice.sets(&room, "m.room.topic", "", json!({ "topic": "cats" })).await.ok();
        leaves_for_good(&alice, false).await;
        bob.joins(&room).await;
        assert_eq!(bob.event(&room, &said).await.ok()["content"]["body"], "no secret");
        server.stop().await;
    }

    async fn what_a_room_is_made_of_stays(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        alice.sets(&room, "m.room.topic", "", json!({ "topic": "cats" })).await.ok();
        leaves_for_good(&alice, true).await;
        bob.joins(&room).await;
        let page = bob.reads(&room, "messages?dir=b&limit=50").await.ok();
        assert_eq!(of_type(&page["chunk"], "m.room.topic").expect("a topic")["content"]["topic"], "cats");
        assert_eq!(bob.reads(&room, "state/m.room.topic").await.ok()["topic"], "cats");
        server.stop().await;
    }
}
