//! What people are shown, and when.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

mod waiting;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{
    each_backend,
    people::{Person, escaped, event_id, follows, ids, joined, of_type, open_server, timeline},
};

fn is_limited(room: &Value) -> bool {
    room["timeline"]["limited"] == true
}

fn state(page: &Value, room: &str) -> Vec<String> {
    ids(&joined(page, room)["state"]["events"])
}

fn ephemeral<'a>(page: &'a Value, room: &str, kind: &str) -> Option<&'a Value> {
    of_type(&joined(page, room)["ephemeral"]["events"], kind)
}

/// The body of the event with this id.
fn found<'a>(page: &'a Value, room: &str, event: &str) -> &'a Value {
    let events = joined(page, room)["timeline"]["events"].as_array().unwrap();
    events.iter().find(|e| e["event_id"] == event).unwrap_or_else(|| panic!("{event} in {page}"))
}

impl Person {
    async fn types(&self, room: &str, typing: bool) {
        let path = format!("/rooms/{}/typing/{}", escaped(room), escaped(&self.id));
        let body = if typing { json!({ "typing": true, "timeout": 30_000 }) } else { json!({ "typing": false }) };
        self.put(&path, body).await.ok();
    }

    async fn has_read(&self, room: &str, kind: &str, event: &str) {
        self.asks(room, &format!("receipt/{kind}/{}", escaped(event)), json!({})).await.ok();
    }

    async fn keeps(&self, room: Option<&str>, kind: &str, content: Value) {
        let room = room.map_or(String::new(), |room| format!("/rooms/{}", escaped(room)));
        self.put(&format!("/user/{}{room}/account_data/{kind}", self.id), content).await.ok();
    }
}

each_backend! {
    async fn a_first_sync_and_those_after_it(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let empty = bob.syncs().await;
        assert!(empty.get("rooms").is_none_or(|rooms| rooms.get("join").is_none()), "{empty}");
        assert!(of_type(&empty["account_data"]["events"], "m.push_rules").is_some());
        let room = alice.creates(json!({ "preset": "public_chat", "name": "Kitchen" })).await;
        let first = alice.says(&room, "hello").await;
        bob.joins(&room).await;

        let page = bob.syncs().await;
        let here = joined(&page, &room);
        let all: Vec<String> = [state(&page, &room), timeline(&page, &room)].concat();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "nothing twice");
        assert!(all.contains(&first));
        assert_eq!(here["summary"]["m.joined_member_count"], 2);
        assert_eq!(here["timeline"]["limited"], false, "said, not left out");
        let again = bob.sync("timeout=0").await;
        let fresh: Vec<String> = [state(&again, &room), timeline(&again, &room)].concat();
        assert_eq!(fresh, all, "the same to who comes anew");

        let nothing = bob.syncs().await;
        assert!(nothing.get("rooms").is_none_or(|rooms| rooms.get("join").is_none()), "{nothing}");
        let message = alice.says(&room, "news").await;
        let topic = event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": "tea" })).await);
        let page = bob.syncs().await;
        assert_eq!(timeline(&page, &room), [message, topic.clone()]);
        assert!(state(&page, &room).is_empty());
        assert!(found(&page, &room, &topic).get("room_id").is_none());
        assert!(found(&page, &room, &topic)["unsigned"]["age"].is_number());
        let next = event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": "more tea" })).await);
        let page = bob.syncs().await;
        let unsigned = &found(&page, &room, &next)["unsigned"];
        assert_eq!((&unsigned["prev_content"]["topic"], &unsigned["replaces_state"]), (&json!("tea"), &json!(topic)));

        let full = bob.syncs_with("&full_state=true").await;
        assert!(timeline(&full, &room).is_empty());
        assert!(state(&full, &room).contains(&next) && state(&full, &room).len() >= 7);
        bob.get("/sync?since=nonsense").await.refused(400, "M_INVALID_PARAM");
        bob.get("/sync?since=s1_999999999_0_0").await.refused(400, "M_INVALID_PARAM");
        server.stop().await;
    }

    async fn everything_written_is_read_at_once(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        let page = alice.syncs().await;
        assert!(page["rooms"]["join"].get(&room).is_some());
        for n in 0..5 {
            let message = alice.says(&room, &n.to_string()).await;
            alice.sees(&room, &message).await;
            let topic = event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": n })).await);
            alice.sees(&room, &topic).await;
            let redaction = event_id(&alice.redacts(&room, &message).await);
            alice.sees(&room, &redaction).await;
            alice.types(&room, n % 2 == 0).await;
            let page = alice.syncs().await;
            let typing = ephemeral(&page, &room, "m.typing").unwrap();
            assert_eq!(typing["content"]["user_ids"].as_array().unwrap().len(), usize::from(n % 2 == 0));
            alice.has_read(&room, "m.read", &topic).await;
            let page = alice.syncs().await;
            let receipt = ephemeral(&page, &room, "m.receipt").unwrap();
            assert!(receipt["content"][&topic]["m.read"][&alice.id]["ts"].is_number());
            alice.keeps(None, "org.example.k", json!({ "n": n })).await;
            let page = alice.syncs().await;
            assert_eq!(of_type(&page["account_data"]["events"], "org.example.k").unwrap()["content"]["n"], n);
            alice.keeps(Some(&room), "org.example.k", json!({ "n": n })).await;
            let page = alice.syncs().await;
            let datum = of_type(&joined(&page, &room)["account_data"]["events"], "org.example.k").unwrap();
            assert_eq!(datum["content"]["n"], n);
            alice.invites(&room, &bob).await;
            assert!(bob.syncs().await["rooms"]["invite"].get(&room).is_some());
            bob.joins(&room).await;
            assert!(bob.syncs().await["rooms"]["join"].get(&room).is_some());
            bob.leaves(&room).await;
            assert!(bob.syncs().await["rooms"]["leave"].get(&room).is_some());
            bob.sees_nothing_of(&room).await;
            alice.syncs().await;
        }
        server.stop().await;
    }

    async fn a_gap_can_be_paged_through(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let other = alice.opens_a_room().await;
        let seen = alice.pages(&room, "dir=f&limit=100").await;
        let page = bob.syncs().await;
        let before = page["next_batch"].as_str().unwrap().to_owned();
        let mut said = Vec::new();
        for n in 0..15 {
            said.push(alice.says(&room, &n.to_string()).await);
            alice.says(&other, "elsewhere").await;
        }
        let topic = event_id(&alice.sets(&other, "m.room.topic", "", json!({ "topic": "elsewhere" })).await);
        let filter = "&filter={\"room\":{\"timeline\":{\"limit\":4}}}";
        let page = bob.syncs_with(filter).await;
        let here = &joined(&page, &room)["timeline"];
        assert_eq!((&here["limited"], ids(&here["events"])), (&json!(true), said[11..].to_vec()));
        let prev = here["prev_batch"].as_str().unwrap();
        let mut rest = bob.pages(&room, &format!("dir=b&limit=3&from={prev}&to={before}")).await;
        rest.reverse();
        assert_eq!(rest, said[..11], "neither gap nor repetition");
        let mut older = bob.pages(&room, &format!("dir=b&limit=3&from={prev}")).await;
        older.reverse();
        assert_eq!(older, [seen, said[..11].to_vec()].concat());
        let forward = bob.reads(&room, &format!("messages?dir=f&limit=100&from={prev}")).await.ok();
        assert_eq!(ids(&forward["chunk"]), said[11..]);

        // Of a state that changed in a gap, a sync tells.
        bob.joins(&other).await;
        bob.syncs().await;
        let topic_now = event_id(&alice.sets(&other, "m.room.topic", "", json!({ "topic": "news" })).await);
        for n in 0..5 {
            alice.says(&other, &n.to_string()).await;
        }
        let page = bob.syncs_with(filter).await;
        assert_eq!(state(&page, &other), [topic_now]);
        assert_eq!(joined(&page, &other)["timeline"]["limited"], true);
        assert!(!timeline(&page, &other).contains(&topic));
        server.stop().await;
    }

    async fn a_first_sync_can_be_continued_backwards(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        for n in 0..6 {
            alice.says(&room, &n.to_string()).await;
        }
        let all = alice.pages(&room, "dir=f&limit=100").await;
        for limit in [1, 2, 5, 11, 12, 13, 50] {
            let filter = format!("timeout=0&filter={{\"room\":{{\"timeline\":{{\"limit\":{limit}}}}}}}");
            let page = alice.sync(&filter).await;
            let here = &joined(&page, &room)["timeline"];
            let mut older = alice.pages(&room, &format!("dir=b&limit=2&from={}", here["prev_batch"].as_str().unwrap())).await;
            older.reverse();
            assert_eq!([older.clone(), ids(&here["events"])].concat(), all, "{limit} at first");
            assert_eq!(is_limited(joined(&page, &room)), !older.is_empty());
        }
        server.stop().await;
    }

    async fn only_the_device_that_sent_it_is_told_its_transaction(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let phone = alice.logs_in_on(&server).await;
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let event = event_id(&alice.sends(&room, "the-txn", "hello").await);
        for (person, told) in [(&alice, true), (&phone, false), (&bob, false)] {
            let expected = if told { json!("the-txn") } else { Value::Null };
            let page = person.syncs().await;
            assert_eq!(found(&page, &room, &event)["unsigned"]["transaction_id"], expected, "sync");
            assert_eq!(person.event(&room, &event).await.ok()["unsigned"]["transaction_id"], expected, "event");
            let page = person.reads(&room, "messages?dir=b").await.ok();
            let read = page["chunk"].as_array().unwrap().iter().find(|e| e["event_id"] == event).unwrap();
            assert_eq!(read["unsigned"]["transaction_id"], expected, "messages");
        }
        server.stop().await;
    }

    async fn a_filter_leaves_out(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let (room, other) = (alice.opens_a_room().await, alice.opens_a_room().await);
        bob.joins(&room).await;
        let hers = alice.says(&room, "hers").await;
        let his = bob.says(&room, "his").await;
        let filtered = async |filter: Value| {
            let path = format!("/user/{}/filter", alice.id);
            let id = alice.post(&path, filter.clone()).await.ok()["filter_id"].as_str().unwrap().to_owned();
            let by_id = alice.sync(&format!("timeout=0&filter={id}")).await;
            let inline = alice.sync(&format!("timeout=0&filter={}", escaped(&filter.to_string()))).await;
            assert_eq!(timeline(&by_id, &room), timeline(&inline, &room));
            by_id
        };
        let page = filtered(json!({ "room": { "rooms": [room] } })).await;
        assert!(page["rooms"]["join"].get(&room).is_some() && page["rooms"]["join"].get(&other).is_none());
        let page = filtered(json!({ "room": { "not_rooms": [room] } })).await;
        assert!(page["rooms"]["join"].get(&room).is_none() && page["rooms"]["join"].get(&other).is_some());
        let page = filtered(json!({ "room": { "timeline": { "not_senders": [bob.id] } } })).await;
        assert!(timeline(&page, &room).contains(&hers) && !timeline(&page, &room).contains(&his));
        let page = filtered(json!({ "room": { "timeline": { "types": ["m.room.message"] }, "state": { "types": [] } } })).await;
        assert_eq!(timeline(&page, &room), [hers, his]);
        assert!(state(&page, &room).is_empty());
        let page = filtered(json!({ "account_data": { "types": [] } })).await;
        assert!(page.get("account_data").is_none_or(|data| ids_free(&data["events"])), "{page}");
        alice.get("/sync?filter=nothing").await.refused(404, "M_NOT_FOUND");
        server.stop().await;
    }

    async fn what_was_kept_comes_with_the_room(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let event = alice.says(&room, "read me").await;
        alice.keeps(Some(&room), "m.tag", json!({ "tags": {} })).await;
        alice.has_read(&room, "m.read", &event).await;
        let marker = json!({ "m.fully_read": event, "m.read": event });
        alice.asks(&room, "read_markers", marker).await.ok();
        for page in [alice.syncs().await, alice.sync("timeout=0").await] {
            let kept = &joined(&page, &room)["account_data"]["events"];
            assert!(of_type(kept, "m.tag").is_some());
            assert_eq!(of_type(kept, "m.fully_read").unwrap()["content"]["event_id"], event);
            assert!(ephemeral(&page, &room, "m.receipt").is_some());
        }
        alice.sees_nothing_of(&room).await;
        server.stop().await;
    }

    async fn who_is_refused_or_put_out_is_told_no_more(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.creates(json!({ "preset": "private_chat" })).await;
        alice.says(&room, "history").await;
        bob.syncs().await;
        alice.invites(&room, &bob).await;
        assert!(bob.syncs().await["rooms"]["invite"].get(&room).is_some());
        alice.does("kick", &room, &bob).await;
        let page = bob.syncs().await;
        let part = &page["rooms"]["leave"][&room];
        let events = part["timeline"]["events"].as_array().unwrap();
        assert_eq!((events.len(), &events[0]["content"]["membership"]), (1, &json!("leave")));
        assert!(!page.to_string().contains("history"));
        alice.invites(&room, &bob).await;
        bob.joins(&room).await;
        bob.syncs().await;
        let last = alice.says(&room, "the last he hears").await;
        alice.does("ban", &room, &bob).await;
        let topic = event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": "secret" })).await);
        let page = bob.syncs().await;
        let part = &page["rooms"]["leave"][&room];
        assert_eq!(ids(&part["timeline"]["events"]).first(), Some(&last));
        assert!(!page.to_string().contains(&topic) && !page.to_string().contains("secret"));
        let whole = bob.sync("timeout=0&full_state=true&filter={\"room\":{\"include_leave\":true}}").await;
        assert!(!whole.to_string().contains("secret"), "{whole}");
        let read = bob.reads(&room, "state").await.ok();
        assert!(!read.to_string().contains("secret"), "the state as it was when he left");
        bob.sees_nothing_of(&room).await;
        server.stop().await;
    }

    async fn memory_and_database_tell_the_same(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let kitchen = alice.creates(json!({ "preset": "public_chat" })).await;
        let cellar = alice.creates(json!({ "preset": "public_chat" })).await;
        bob.joins(&kitchen).await;
        let mut tokens = Vec::new();
        for step in 0..24 {
            for person in [&alice, &bob] {
                person.syncs().await;
                tokens.push(person.since());
            }
            // Steps with messages alone come between those with all else.
            match step {
                3 => bob.joins(&cellar).await,
                7 => drop(event_id(&alice.sets(&kitchen, "m.room.topic", "", json!({ "topic": "tea" })).await)),
                11 => {
                    let said = bob.says(&cellar, "a slip").await;
                    alice.redacts(&cellar, &said).await.ok();
                }
                14 => bob.keeps(Some(&kitchen), "org.example.note", json!({ "n": 1 })).await,
                16 => {
                    let said = alice.says(&kitchen, "read this").await;
                    bob.has_read(&kitchen, "m.read", &said).await;
                }
                18 => bob.leaves(&cellar).await,
                _ => drop(bob.says(&kitchen, "more").await),
            }
            alice.says(&cellar, "from below").await;
            for person in [&alice, &bob] {
                for since in tokens.iter().rev().take(12) {
                    let page = without_passing(person.sync(&format!("timeout=0&since={since}")).await);
                    // A filter by rooms is what memory has no answer to.
                    let elsewhere = "filter={\"room\":{\"not_rooms\":[\"!elsewhere:hearth.test\"]}}";
                    let stored = person.sync(&format!("timeout=0&since={since}&{elsewhere}")).await;
                    assert_eq!(page, without_passing(stored), "{} after {since}, step {step}", person.id);
                }
            }
        }
        server.stop().await;
    }
}

fn ids_free(events: &Value) -> bool {
    events.as_array().is_none_or(Vec::is_empty)
}

/// A page without what is another in each answer, and without the counts of members, which need not be told where they
/// have not changed.
fn without_passing(mut page: Value) -> Value {
    let rooms = page["rooms"]["join"].as_object_mut();
    for room in rooms.into_iter().flat_map(|rooms| rooms.values_mut()) {
        room.as_object_mut().unwrap().remove("summary");
        for part in ["timeline", "state"] {
            for event in room[part]["events"].as_array_mut().into_iter().flatten() {
                event["unsigned"].as_object_mut().unwrap().remove("age");
            }
        }
    }
    page
}
