//! What somebody is told that they were told.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use serde_json::{Value, json};

use crate::support::{
    each_backend,
    people::{Person, escaped, event_id, open_server},
};

impl Person {
    async fn notifications(&self, parameters: &str) -> Value {
        self.get(&format!("/notifications?{parameters}")).await.ok()
    }
}

fn events(page: &Value) -> Vec<&str> {
    page["notifications"].as_array().unwrap().iter().map(|n| n["event"]["event_id"].as_str().unwrap()).collect()
}

async fn mentions(person: &Person, room: &str, whom: &Person, txn: &str) -> String {
    let content = json!({ "msgtype": "m.text", "body": "look", "m.mentions": { "user_ids": [whom.id] } });
    event_id(&person.put(&format!("/rooms/{}/send/m.room.message/{txn}", escaped(room)), content).await)
}

each_backend! {
    async fn what_notified_somebody_is_listed_newest_first(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        server.get("/_matrix/client/v3/notifications").await.refused(401, "M_MISSING_TOKEN");
        assert_eq!(alice.notifications("").await, json!({ "notifications": [] }));
        let (one, two) = (alice.opens_a_room().await, alice.opens_a_room().await);
        for room in [&one, &two] {
            bob.joins(room).await;
            carol.joins(room).await;
        }
        let first = bob.says(&one, "first").await;
        alice.says(&one, "her own").await;
        server.clock.advance(1_000);
        let second = mentions(&bob, &two, &alice, "t").await;
        let nobody = json!({ "msgtype": "m.notice", "body": "nobody is told of what bots say" });
        bob.put(&format!("/rooms/{}/send/m.room.message/n", escaped(&two)), nobody).await.ok();
        let third = carol.says(&one, "third").await;
        let regretted = carol.says(&one, "regretted").await;
        carol.redacts(&one, &regretted).await.ok();
        alice.asks(&one, &format!("receipt/m.read/{}", escaped(&first)), json!({})).await.ok();

        let page = alice.notifications("").await;
        assert_eq!(events(&page), [&*third, &*second, &*first], "{page}");
        let read: Vec<&Value> = page["notifications"].as_array().unwrap().iter().map(|n| &n["read"]).collect();
        assert_eq!(read, [false, false, true]);
        let told = &page["notifications"][1];
        assert_eq!((&told["room_id"], &told["ts"]), (&json!(two), &json!(1_700_000_001_000_i64)));
        let aloud = json!(["notify", { "set_tweak": "highlight" }, { "set_tweak": "sound", "value": "default" }]);
        assert_eq!(told["actions"].as_array().unwrap().len(), 3, "{told}");
        for action in aloud.as_array().unwrap() {
            assert!(told["actions"].as_array().unwrap().contains(action), "{told}");
        }
        assert_eq!((&told["event"]["content"]["body"], &told["event"]["sender"]), (&json!("look"), &json!(bob.id)));
        assert!(told["event"].get("room_id").is_none() && page.get("next_token").is_none(), "{page}");
        assert_eq!(events(&alice.notifications("only=highlight").await), [&*second]);
        alice.get("/notifications?only=other").await.refused(400, "M_INVALID_PARAM");
        alice.get("/notifications?from=odd").await.refused(400, "M_INVALID_PARAM");
        assert_eq!(events(&bob.notifications("").await).len(), 2, "others are told of other things");

        // Who left a room is no longer told of it.
        alice.leaves(&one).await;
        assert_eq!(events(&alice.notifications("").await), [&*second]);
        server.stop().await;
    }

    async fn a_long_list_comes_in_pages(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let mut rooms = Vec::new();
        for _ in 0..3 {
            let room = alice.opens_a_room().await;
            bob.joins(&room).await;
            rooms.push(room);
        }
        // More than is read at once, most of it not for her to be told of.
        let mut all = Vec::new();
        for n in 0..130 {
            let room = &rooms[if n < 70 { 0 } else { n % 3 }];
            if n % 2 == 0 {
                alice.says(room, &n.to_string()).await;
            } else if n % 10 == 1 {
                all.insert(0, mentions(&bob, room, &alice, &n.to_string()).await);
            } else {
                all.insert(0, bob.says(room, &n.to_string()).await);
            }
        }
        for (limit, only) in [("limit=7", ""), ("limit=1", "&only=highlight"), ("limit=1000", ""), ("limit=0", "&only=highlight"), ("", "")] {
            let (mut seen, mut from) = (Vec::new(), String::new());
            loop {
                let page = alice.notifications(&format!("{limit}{only}{from}")).await;
                seen.extend(events(&page).into_iter().map(str::to_owned));
                let Some(next) = page["next_token"].as_str() else { break };
                from = format!("&from={next}");
            }
            if only.is_empty() {
                assert_eq!(seen, all, "{limit}");
            } else {
                assert_eq!(seen.len(), 13, "{limit}");
            }
        }
        assert_eq!(events(&alice.notifications("").await).len(), 20);
        server.stop().await;
    }

    async fn what_is_old_or_was_not_for_them_is_not_listed(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let (room, muted) = (bob.opens_a_room().await, bob.opens_a_room().await);
        bob.says(&room, "before she came").await;
        alice.joins(&room).await;
        alice.joins(&muted).await;
        let old = bob.says(&room, "old").await;
        assert_eq!(events(&alice.notifications("").await), [&*old]);
        server.clock.advance(31 * 24 * 60 * 60 * 1_000);
        assert_eq!(events(&alice.notifications("").await), [""; 0]);
        let mute = json!({ "actions": [] });
        alice.put(&format!("/pushrules/global/room/{}", escaped(&muted)), mute).await.ok();
        let conditions = json!([{ "kind": "event_match", "key": "room_id", "pattern": muted }]);
        let mute = json!({ "actions": [], "conditions": conditions });
        alice.put(&format!("/pushrules/global/override/{}", escaped(&muted)), mute).await.ok();
        bob.says(&muted, "in vain").await;
        let new = bob.says(&room, "new").await;
        assert_eq!(events(&alice.notifications("").await), [&*new]);
        let ignore = json!({ "ignored_users": { &bob.id: {} } });
        alice.put(&format!("/user/{}/account_data/m.ignored_user_list", alice.id), ignore).await.ok();
        assert_eq!(events(&alice.notifications("").await), [""; 0]);
        server.stop().await;
    }
}
