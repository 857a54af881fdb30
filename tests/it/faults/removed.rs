//! Who was put out of a room, or never was in it, learns nothing of what happens there.

use serde_json::json;

use super::{saying, slid};
use crate::support::{
    each_backend,
    gateway::Gateway,
    people::{Person, escaped, event_id},
};

each_backend! {
    async fn cve_2024_53867_who_was_put_out_is_told_nothing_more_by_any_way_to_read(given: Given) {
        let server = crate::push::pushing_server(given).await;
        let gateway = Gateway::start().await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.creates(json!({ "preset": "private_chat" })).await;
        alice.invites(&room, &bob).await;
        bob.joins(&room).await;
        let root = alice.says(&room, "before").await;
        let first = bob.syncs().await;
        let mut wish = slid(&room);
        wish["conn_id"] = "going on".into();
        let slides = bob.slides("timeout=0", &wish).await.ok();
        bob.sets_pusher(&gateway, "key").await;
        alice.does("kick", &room, &bob).await;

        // Something of every kind: state, a message, a thread, an edit, a member, a receipt, somebody who types.
        let planted = |n: u32| format!("planted words {n}");
        let mut events = vec![
            event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": planted(1) })).await),
            event_id(&alice.sets(&room, "m.room.name", "", json!({ "name": planted(2) })).await),
            alice.says(&room, &planted(3)).await,
            alice.answers_in_thread(&room, &root, &planted(4)).await,
            alice.edits(&room, &root, &planted(5)).await,
        ];
        let renamed = json!({ "membership": "join", "displayname": planted(6) });
        events.push(event_id(&alice.sets(&room, "m.room.member", &alice.id, renamed).await));
        alice.put(&format!("/rooms/{}/typing/{}", escaped(&room), alice.id), json!({ "typing": true, "timeout": 30_000 })).await.ok();
        let shown = alice.reads_everything_of(&room, &events).await;
        for n in 1..=6 {
            assert!(!saying(&shown, &planted(n)).is_empty(), "{n} can be read by who is there");
        }

        let stranger = Person::registers(&server, "stranger").await;
        for _ in 0..2 {
            for reader in [&bob, &stranger] {
                let shown = reader.reads_everything_of(&room, &events).await;
                assert_eq!(saying(&shown, "planted words"), [""; 0]);
            }
            // By the ways that go on from before.
            let page = bob.sync(&format!("timeout=0&since={}", first["next_batch"].as_str().unwrap())).await;
            assert!(page["rooms"]["leave"].get(&room).is_some(), "he is told that he left: {page}");
            assert!(!page.to_string().contains("planted words"), "{page}");
            let pos = slides["pos"].as_str().unwrap();
            let page = bob.slides(&format!("timeout=0&pos={pos}"), &wish).await.ok();
            assert!(page["rooms"].get(&room).is_some(), "he is told that he left: {page}");
            assert!(!page.to_string().contains("planted words"), "{page}");
            // Once more as somebody who is banned.
            alice.does("ban", &room, &bob).await;
        }
        let elsewhere = alice.creates(json!({ "preset": "public_chat" })).await;
        bob.joins(&elsewhere).await;
        let news = alice.says(&elsewhere, "news").await;
        // What would have been pushed before that was not.
        loop {
            let note = gateway.note().await;
            assert!(!note.to_string().contains("planted"), "{note}");
            if note["event_id"] == *news {
                break;
            }
        }
        server.stop().await;
    }

    async fn who_came_later_is_told_nothing_of_before_by_any_way_to_read(given: Given) {
        let server = crate::push::pushing_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let hidden = json!({ "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": "joined" } });
        let room = alice.creates(json!({ "preset": "public_chat", "visibility": "public", "initial_state": [hidden] })).await;
        let planted = |n: u32| format!("planted words {n}");
        let root = alice.says(&room, &planted(1)).await;
        let mut events = vec![
            alice.answers_in_thread(&room, &root, &planted(2)).await,
            alice.edits(&room, &root, &planted(3)).await,
            event_id(&alice.reacts(&room, &root, &planted(4)).await),
        ];
        let late = Person::registers(&server, "late").await;
        let mention = json!({ "msgtype": "m.text", "body": planted(5), "m.mentions": { "user_ids": [late.id], "room": true } });
        let path = format!("/rooms/{}/send/m.room.message/mention", escaped(&room));
        events.push(event_id(&alice.put(&path, mention).await));
        late.joins(&room).await;
        // What came since relates to what is hidden, and is at the end of its thread.
        events.push(alice.answers_in_thread(&room, &root, "seen").await);
        events.push(event_id(&alice.reacts(&room, &root, "seen, too").await));
        events.push(root);
        let shown = alice.reads_everything_of(&room, &events).await;
        for n in 1..=5 {
            assert!(!saying(&shown, &planted(n)).is_empty(), "{n} can be read by who was there");
        }
        let shown = late.reads_everything_of(&room, &events).await;
        assert_eq!(saying(&shown, "planted words"), [""; 0]);
        assert!(!saying(&shown, "seen, too").is_empty());
        server.stop().await;
    }
}
