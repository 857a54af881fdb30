//! What was taken back is told nowhere: neither by itself, nor beside something else.

use serde_json::json;

use super::saying;
use crate::support::{
    each_backend,
    gateway::Gateway,
    people::{Person, event_id},
};

each_backend! {
    async fn cve_2024_6300_what_was_redacted_is_told_by_no_way_to_read(given: Given) {
        let server = crate::push::pushing_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.creates(json!({ "preset": "public_chat", "visibility": "public" })).await;
        bob.joins(&room).await;
        let root = alice.says(&room, "root").await;
        let edited = alice.says(&room, "before").await;
        let planted = |n: u32| format!("planted words {n}");
        // A message, the newest of a thread, an edit, a reaction; state that is there, state that others came after.
        let mut gone = vec![
            alice.says(&room, &planted(1)).await,
            alice.answers_in_thread(&room, &root, &planted(2)).await,
            alice.edits(&room, &edited, &planted(3)).await,
            event_id(&alice.reacts(&room, &root, &planted(4)).await),
            event_id(&alice.sets(&room, "m.room.name", "", json!({ "name": planted(5) })).await),
            event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": planted(6) })).await),
        ];
        let topic = event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": "new" })).await);
        let named = json!({ "membership": "join", "displayname": planted(7), "reason": planted(8) });
        gone.push(event_id(&alice.sets(&room, "m.room.member", &alice.id, named).await));
        let all: Vec<String> = gone.iter().chain([&root, &edited, &topic]).cloned().collect();
        let shown = bob.reads_everything_of(&room, &all).await;
        for n in 1..=8 {
            assert!(!saying(&shown, &planted(n)).is_empty(), "{n} can be read while it is there");
        }

        for event in &gone {
            alice.redacts(&room, event).await.ok();
        }
        let carol = Person::registers(&server, "carol").await;
        alice.invites(&room, &carol).await;
        let dora = Person::registers(&server, "dora").await;
        for reader in [&alice, &bob, &carol, &dora] {
            let shown = reader.reads_everything_of(&room, &all).await;
            assert_eq!(saying(&shown, "planted words"), [""; 0]);
        }
        // A push says how a room and its people are called.
        let gateway = Gateway::start().await;
        bob.sets_pusher(&gateway, "key").await;
        let news = alice.says(&room, "news").await;
        let note = gateway.is_told_of(&news).await;
        assert!(!note.to_string().contains("planted"), "{note}");
        server.stop().await;

        let server = crate::push::pushing_server(given).await;
        let shown = bob.turns_to(&server).reads_everything_of(&room, &all).await;
        assert_eq!(saying(&shown, "planted words"), [""; 0], "after a restart");
        server.stop().await;
    }
}
