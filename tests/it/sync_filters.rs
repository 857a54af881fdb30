//! What people do not want to see.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use serde_json::{Value, json};

use crate::support::{
    each_backend,
    people::{Person, escaped, event_id, ids, joined, of_type, open_server, timeline},
};

impl Person {
    /// What a sync after this token shows through this filter.
    async fn sync_through(&self, since: &str, filter: &Value) -> Value {
        let since = if since.is_empty() { String::new() } else { format!("&since={since}") };
        self.sync(&format!("timeout=0{since}&filter={}", escaped(&filter.to_string()))).await
    }
}

fn limited(page: &Value, room: &str) -> bool {
    joined(page, room)["timeline"]["limited"].as_bool().unwrap()
}

each_backend! {
    async fn cve_2026_45076_a_filter_is_asked_before_events_are_counted(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        alice.syncs().await;
        let token = alice.since();
        let mut hers = Vec::new();
        for n in 0..5 {
            hers.push(alice.says(&room, &n.to_string()).await);
            for n in 0..30 {
                bob.says(&room, &n.to_string()).await;
            }
        }
        let not_his = |limit: u32| json!({ "room": { "timeline": { "not_senders": [bob.id], "limit": limit } } });
        for since in [token.as_str(), ""] {
            let page = alice.sync_through(since, &not_his(3)).await;
            assert_eq!((timeline(&page, &room), limited(&page, &room)), (hers[2..].to_vec(), true));
            let prev = joined(&page, &room)["timeline"]["prev_batch"].as_str().unwrap();
            let filter = escaped(&json!({ "not_senders": [bob.id], "types": ["m.room.mess*"] }).to_string());
            let older = alice.pages(&room, &format!("dir=b&limit=1&from={prev}&filter={filter}")).await;
            assert_eq!(older, [hers[1].clone(), hers[0].clone()]);
        }
        let page = alice.sync_through(&token, &not_his(5)).await;
        assert_eq!(timeline(&page, &room), hers);
        let page = alice.sync_through(&token, &not_his(6)).await;
        assert_eq!((timeline(&page, &room), limited(&page, &room)), (hers.clone(), false), "there are no more");

        // Who wants none of it is told of none, and their poll goes on.
        let nothing = alice.sync_through(&token, &json!({ "room": { "timeline": { "types": ["org.example.*"] } } })).await;
        assert!(nothing["rooms"]["join"].get(&room).is_none(), "{nothing}");
        let nothing = alice.sync_through(&token, &json!({ "room": { "timeline": { "types": [] } } })).await;
        assert!(nothing["rooms"]["join"].get(&room).is_none(), "{nothing}");

        // State that the timeline's filter drops is told all the same, beside it.
        let topic = event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": "tea" })).await);
        let messages = json!({ "room": { "timeline": { "types": ["m.room.message"], "limit": 2 } } });
        let page = alice.sync_through(&token, &messages).await;
        assert_eq!(ids(&joined(&page, &room)["state"]["events"]), [topic]);
        assert_eq!(timeline(&page, &room).len(), 2);
        server.stop().await;
    }

    async fn a_narrow_filter_finds_what_lies_far_back(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let wanted = alice.says(&room, "the one").await;
        bob.syncs().await;
        let before = alice.pages(&room, "dir=f&limit=100").await;
        let filter = escaped(&json!({ "senders": [alice.id], "types": ["m.room.message"] }).to_string());
        // Nothing is found in pages of one, yet all is looked through.
        for n in 0..60 {
            bob.says(&room, &n.to_string()).await;
        }
        assert_eq!(alice.pages(&room, &format!("dir=b&limit=1&filter={filter}")).await, [wanted.clone()]);
        assert_eq!(alice.pages(&room, &format!("dir=f&limit=1&filter={filter}")).await, [wanted]);
        assert_eq!(alice.pages(&room, "dir=b&limit=100").await.len(), before.len() + 60);
        server.stop().await;
    }

    async fn a_newcomer_with_a_filter_is_told_that_there_was_more(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        let mut said = Vec::new();
        for n in 0..8 {
            said.push(alice.says(&room, &n.to_string()).await);
        }
        bob.syncs().await;
        bob.joins(&room).await;
        let filter = json!({ "room": {
            "timeline": { "limit": 10, "types": ["m.room.message"] }, "state": { "types": [] },
        } });
        let page = bob.sync_through(&bob.since(), &filter).await;
        assert_eq!((timeline(&page, &room), limited(&page, &room)), (said, true));
        server.stop().await;
    }

    async fn who_is_ignored_is_not_heard(given: Given) {
        let server = open_server(given).await;
        let (alice, mallory) = (Person::registers(&server, "alice").await, Person::registers(&server, "mallory").await);
        let room = alice.opens_a_room().await;
        mallory.joins(&room).await;
        alice.syncs().await;
        let start = alice.since();
        let before = mallory.says(&room, "first").await;
        alice.sees(&room, &before).await;
        alice.ignores(&[&mallory]).await;
        alice.syncs().await;
        let token = alice.since();
        let hers = alice.says(&room, "hers").await;
        let mut noise = Vec::new();
        for n in 0..30 {
            noise.push(mallory.says(&room, &n.to_string()).await);
        }
        let topic = event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": "tea" })).await);
        let name = json!({ "membership": "join", "displayname": "M" });
        let renamed = event_id(&mallory.sets(&room, "m.room.member", &mallory.id, name).await);
        let page = alice.sync(&format!("timeout=0&since={token}")).await;
        assert_eq!(timeline(&page, &room), [hers.clone(), topic.clone(), renamed.clone()], "state is seen");
        assert_eq!(joined(&page, &room)["timeline"]["limited"], false);
        alice.syncs().await;
        // From memory as well: only messages came since.
        noise.push(mallory.says(&room, "again").await);
        let also = alice.says(&room, "also hers").await;
        let page = alice.syncs().await;
        assert_eq!(timeline(&page, &room), [also]);
        noise.push(mallory.says(&room, "and again").await);
        alice.sees_nothing_of(&room).await;
        for since in ["", &start] {
            let page = alice.sync_through(since, &json!({})).await;
            assert!(timeline(&page, &room).iter().all(|id| !noise.contains(id) && *id != before), "{page}");
        }
        let seen = alice.pages(&room, "dir=b&limit=3").await;
        assert!(seen.contains(&hers) && seen.iter().all(|id| !noise.contains(id) && *id != before));
        alice.event(&room, &before).await.refused(404, "M_NOT_FOUND");
        alice.reads(&room, &format!("context/{}", escaped(&before))).await.refused(404, "M_NOT_FOUND");
        let around = alice.reads(&room, &format!("context/{}?limit=4", escaped(&topic))).await.ok();
        assert_eq!(ids(&around["events_before"]).first(), Some(&hers), "{around}");
        alice.event(&room, &renamed).await.ok();
        mallory.event(&room, &before).await.ok();
        // Forgiven, they are heard again.
        alice.ignores(&[]).await;
        alice.syncs().await;
        alice.event(&room, &before).await.ok();
        let last = mallory.says(&room, "thanks").await;
        alice.sees(&room, &last).await;
        server.stop().await;
    }

    async fn an_event_is_read_with_what_lies_around_it(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let mut said = Vec::new();
        for n in 0..4 {
            said.push(alice.says(&room, &n.to_string()).await);
            said.push(bob.says(&room, &n.to_string()).await);
        }
        event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": "later" })).await);
        let around = async |event: &str, query: &str| {
            alice.reads(&room, &format!("context/{}?{query}", escaped(event))).await.ok()
        };
        let page = around(&said[4], "limit=5").await;
        assert_eq!(page["event"]["event_id"], said[4]);
        assert_eq!(ids(&page["events_before"]), [said[3].clone(), said[2].clone()]);
        assert_eq!(ids(&page["events_after"]), said[5..8]);
        assert!(of_type(&page["state"], "m.room.topic").is_none(), "the state then");
        assert!(ids(&page["state"]).len() > 5);
        // Pages go on where it ends, both ways.
        let mut older = alice.pages(&room, &format!("dir=b&limit=2&from={}", page["start"].as_str().unwrap())).await;
        older.reverse();
        assert_eq!(older[older.len() - 2..], said[..2]);
        let newer = alice.pages(&room, &format!("dir=f&limit=2&from={}", page["end"].as_str().unwrap())).await;
        assert_eq!(newer.len(), 1, "the topic: {newer:?}");

        let page = around(&said[4], "limit=0").await;
        assert_eq!((page.get("events_before"), page.get("events_after")), (None, None));
        let filter = escaped(&json!({ "senders": [bob.id], "lazy_load_members": true }).to_string());
        let page = around(&said[4], &format!("limit=4&filter={filter}")).await;
        assert_eq!(ids(&page["events_before"]), [said[3].clone(), said[1].clone()]);
        assert_eq!(ids(&page["events_after"]), [said[5].clone(), said[7].clone()]);
        let members: Vec<&Value> =
            page["state"].as_array().unwrap().iter().filter(|e| e["type"] == "m.room.member").collect();
        assert_eq!(members.len(), 2, "of those who speak");
        let dave = Person::registers(&server, "dave").await;
        dave.reads(&room, &format!("context/{}", escaped(&said[4]))).await.refused(403, "M_FORBIDDEN");
        alice.reads(&room, "context/$nothing").await.refused(404, "M_NOT_FOUND");
        server.stop().await;
    }

    async fn members_can_be_asked_for_as_of_the_beginning(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        alice.says(&room, "Hello world!").await;
        let page = alice.syncs().await;
        let prev = joined(&page, &room)["timeline"]["prev_batch"].as_str().unwrap();
        bob.joins(&room).await;
        bob.says(&room, "Hello back").await;
        let members = alice.reads(&room, &format!("members?at={prev}")).await.ok();
        let keys: Vec<&Value> = members["chunk"].as_array().unwrap().iter().map(|e| &e["state_key"]).collect();
        assert_eq!(keys, [&json!(alice.id)], "nobody was there before its creator");
        server.stop().await;
    }

    async fn account_data_and_ephemeral_events_are_filtered_by_room_and_type(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let event = alice.says(&room, "read me").await;
        alice.asks(&room, &format!("receipt/m.read/{}", escaped(&event)), json!({})).await.ok();
        for kind in ["org.example.a", "org.example.b"] {
            let path = format!("/user/{}/rooms/{}/account_data/{kind}", alice.id, escaped(&room));
            alice.put(&path, json!({})).await.ok();
        }
        let filter = json!({ "room": {
            "account_data": { "not_types": ["*.a"] }, "ephemeral": { "not_rooms": [room] },
        } });
        let page = alice.sync_through("", &filter).await;
        let kept = &joined(&page, &room)["account_data"]["events"];
        assert!(of_type(kept, "org.example.b").is_some() && of_type(kept, "org.example.a").is_none());
        assert!(joined(&page, &room).get("ephemeral").is_none());
        let page = alice.sync_through("", &json!({})).await;
        assert!(of_type(&joined(&page, &room)["ephemeral"]["events"], "m.receipt").is_some());
        server.stop().await;
    }
}
