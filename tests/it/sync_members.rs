//! Members that are told of when they are needed, and what a room is called after.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{
    Given, each_backend,
    people::{Person, escaped, event_id, joined, open_server, timeline},
};

const LAZY: &str = r#"{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":2}}}"#;

impl Person {
    /// What is new, with members told of as they are needed.
    async fn syncs_lazily(&self) -> Value {
        self.syncs_with(&format!("&filter={}", escaped(LAZY))).await
    }

    async fn is_called(&self, room: &str, name: &str) -> String {
        let content = json!({ "membership": "join", "displayname": name });
        event_id(&self.sets(room, "m.room.member", &self.id, content).await)
    }
}

/// Whose member events are in this part of a room.
fn members(state: &Value) -> BTreeSet<&str> {
    let events = state["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().filter(|e| e["type"] == "m.room.member").map(|e| e["state_key"].as_str().unwrap()).collect()
}

fn told<'a>(page: &'a Value, room: &str) -> BTreeSet<&'a str> {
    members(&joined(page, room)["state"])
}

fn these<'a>(people: &[&'a Person]) -> BTreeSet<&'a str> {
    people.iter().map(|p| p.id.as_str()).collect()
}

async fn four(given: &Given) -> (crate::support::Server, [Person; 4], String) {
    let server = open_server(given).await;
    let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(|name| Person::registers(&server, name));
    let people = [alice.await, bob.await, carol.await, dave.await];
    let room = people[0].creates(json!({ "preset": "public_chat", "name": "Kitchen" })).await;
    for person in &people[1..] {
        person.joins(&room).await;
    }
    (server, people, room)
}

each_backend! {
    async fn members_are_told_of_when_they_speak(given: Given) {
        let (server, [alice, bob, carol, dave], room) = four(given).await;
        bob.says(&room, "one").await;
        bob.says(&room, "two").await;
        let page = alice.syncs_lazily().await;
        assert_eq!(told(&page, &room), these(&[&alice, &bob]), "who speaks, and oneself");
        assert!(joined(&page, &room)["state"]["events"].as_array().unwrap().len() > 5);
        let all = alice.sync("timeout=0&filter={\"room\":{\"timeline\":{\"limit\":2}}}").await;
        assert_eq!(told(&all, &room), these(&[&alice, &bob, &carol, &dave]), "all, who doesn't ask for it");

        // Told once, not again; somebody new is.
        bob.says(&room, "three").await;
        assert!(told(&alice.syncs_lazily().await, &room).is_empty());
        let before = alice.since();
        carol.says(&room, "hello").await;
        bob.says(&room, "four").await;
        assert_eq!(told(&alice.syncs_lazily().await, &room), these(&[&carol]));
        carol.says(&room, "again").await;
        assert!(told(&alice.syncs_lazily().await, &room).is_empty());
        // An answer that got lost is given again.
        let page = alice.sync(&format!("timeout=0&since={before}&filter={}", escaped(LAZY))).await;
        assert_eq!(told(&page, &room), these(&[&carol]));
        // And who wants it is told each time.
        let redundant = LAZY.replace("\"lazy_load_members\":true", "\"lazy_load_members\":true,\"include_redundant_members\":true");
        let page = alice.sync(&format!("timeout=0&since={before}&filter={}", escaped(&redundant))).await;
        assert_eq!(told(&page, &room), these(&[&bob, &carol]));
        // Another device has been told of nobody.
        let phone = alice.logs_in_on(&server).await;
        let page = phone.sync(&format!("timeout=0&since={before}&filter={}", escaped(LAZY))).await;
        assert_eq!(told(&page, &room), these(&[&bob, &carol]));
        server.stop().await;
    }

    async fn changes_of_members_in_a_gap_are_told(given: Given) {
        let (server, [alice, bob, carol, dave], room) = four(given).await;
        alice.syncs_lazily().await;
        dave.leaves(&room).await;
        carol.is_called(&room, "C").await;
        for n in 0..3 {
            bob.says(&room, &n.to_string()).await;
        }
        let page = alice.syncs_lazily().await;
        assert_eq!(joined(&page, &room)["timeline"]["limited"], true);
        assert_eq!(told(&page, &room), these(&[&bob, &carol, &dave]));
        let of_dave = joined(&page, &room)["state"]["events"].as_array().unwrap().iter()
            .find(|e| e["state_key"] == dave.id).unwrap();
        assert_eq!((&of_dave["content"]["membership"], &of_dave["unsigned"]["membership"]), (&json!("leave"), &json!("join")));
        // A member who changes in the timeline is told of there; in the state stands what they were before.
        let renamed = carol.is_called(&room, "D").await;
        carol.says(&room, "it is me").await;
        let phone = alice.logs_in_on(&server).await;
        let page = phone.syncs_lazily().await;
        assert_eq!(timeline(&page, &room).first(), Some(&renamed));
        let of_carol = joined(&page, &room)["state"]["events"].as_array().unwrap().iter()
            .find(|e| e["state_key"] == carol.id).unwrap();
        assert_eq!(of_carol["content"]["displayname"], "C");
        // Who leaves and comes again hears of all anew.
        alice.syncs_lazily().await;
        alice.leaves(&room).await;
        alice.syncs_lazily().await;
        alice.joins(&room).await;
        carol.says(&room, "welcome").await;
        assert_eq!(told(&alice.syncs_lazily().await, &room), these(&[&alice, &carol]));
        // All of the state, lazily.
        let page = alice.syncs_with(&format!("&full_state=true&filter={}", escaped(LAZY))).await;
        assert_eq!(told(&page, &room), these(&[&alice]));
        // Perhaps she had lost what she knew: who is not in that answer is told of again.
        carol.says(&room, "what was lost?").await;
        assert_eq!(told(&alice.syncs_lazily().await, &room), these(&[&carol]));
        server.stop().await;
    }

    async fn who_left_is_not_told_what_members_became(given: Given) {
        let (server, [alice, bob, ..], room) = four(given).await;
        bob.leaves(&room).await;
        alice.is_called(&room, "Nobody's Business").await;
        bob.syncs_lazily().await;
        alice.does("ban", &room, &bob).await;
        for state in ["state", "state_after"] {
            let with = format!("&use_state_after={}&filter={}", state == "state_after", escaped(LAZY));
            let page = bob.sync(&format!("timeout=0&since={}{with}", bob.since())).await;
            let part = &page["rooms"]["leave"][&room];
            assert_eq!(part["timeline"]["events"][0]["content"]["membership"], "ban");
            assert!(members(&part[state]).contains(alice.id.as_str()), "who banned him");
            assert!(!page.to_string().contains("Nobody's Business"), "{page}");
        }
        server.stop().await;
    }

    async fn pages_tell_of_those_who_speak(given: Given) {
        let (server, [alice, bob, carol, _dave], room) = four(given).await;
        let hers = carol.says(&room, "before").await;
        carol.is_called(&room, "Other").await;
        bob.says(&room, "after").await;
        let filter = escaped(r#"{"lazy_load_members":true,"types":["m.room.message"]}"#);
        let page = alice.reads(&room, &format!("messages?dir=b&limit=1&filter={filter}")).await.ok();
        assert_eq!(members(&json!({ "events": page["state"] })), these(&[&bob]));
        let page = alice.reads(&room, &format!("messages?dir=f&limit=1&filter={filter}")).await.ok();
        assert_eq!(page["chunk"][0]["event_id"], hers);
        assert_eq!(members(&json!({ "events": page["state"] })), these(&[&carol]));
        assert_eq!(page["state"][0]["content"]["displayname"], Value::Null, "as she was then");
        let page = alice.reads(&room, "messages?dir=b&limit=5").await.ok();
        assert!(page.get("state").is_none(), "all are known to who doesn't ask");
        server.stop().await;
    }

    async fn a_room_without_a_name_is_called_after_its_members(given: Given) {
        let server = open_server(given).await;
        let names = ["alice", "bob", "carol", "dave", "erin", "frank", "grace"];
        let mut people = Vec::new();
        for name in names {
            people.push(Person::registers(&server, name).await);
        }
        let (alice, others) = people.split_first().unwrap();
        let room = alice.opens_a_room().await;
        let heroes = |page: &Value| joined(page, &room)["summary"].get("m.heroes").cloned().unwrap_or(Value::Null);
        let page = alice.syncs_lazily().await;
        assert_eq!(joined(&page, &room)["summary"]["m.joined_member_count"], 1);
        assert_eq!(heroes(&page), Value::Null, "never oneself");
        others[0].joins(&room).await;
        alice.invites(&room, &others[1]).await;
        let page = alice.syncs_lazily().await;
        assert_eq!(heroes(&page), json!([others[0].id, others[1].id]));
        let summary = &joined(&page, &room)["summary"];
        assert_eq!((&summary["m.joined_member_count"], &summary["m.invited_member_count"]), (&json!(2), &json!(1)));
        for other in &others[1..] {
            other.joins(&room).await;
        }
        for n in 0..3 {
            others[0].says(&room, &n.to_string()).await;
        }
        let first_five: Vec<&str> = others[..5].iter().map(|p| p.id.as_str()).collect();
        assert_eq!(heroes(&alice.syncs_lazily().await), json!(first_five), "those who came first");
        // Nothing changed, so nothing is told; and a new device hears of the heroes' memberships, too.
        others[0].says(&room, "news").await;
        let page = alice.syncs_lazily().await;
        assert!(joined(&page, &room).get("summary").is_none(), "{page}");
        let page = alice.sync(&format!("timeout=0&filter={}", escaped(LAZY))).await;
        let expected = these(&[alice, &others[0], &others[1], &others[2], &others[3], &others[4]]);
        assert_eq!(told(&page, &room), expected);
        others[0].is_called(&room, "B").await;
        assert_eq!(heroes(&alice.syncs_lazily().await), json!(first_five), "in the same order");

        // A name says it all.
        alice.sets(&room, "m.room.name", "", json!({ "name": "Kitchen" })).await.ok();
        alice.syncs_lazily().await;
        others[5].leaves(&room).await;
        let page = alice.syncs_lazily().await;
        assert_eq!((heroes(&page), &joined(&page, &room)["summary"]["m.joined_member_count"]), (Value::Null, &json!(6)));
        // An empty one says nothing. When all are gone, those who were are named.
        alice.sets(&room, "m.room.name", "", json!({ "name": "" })).await.ok();
        assert_eq!(heroes(&alice.syncs_lazily().await), json!(first_five));
        for other in &others[..5] {
            other.leaves(&room).await;
        }
        assert_eq!(heroes(&alice.syncs_lazily().await), json!(first_five));
        server.stop().await;
    }

    async fn the_state_after_the_timeline_is_told_to_who_asks(given: Given) {
        let (server, [alice, bob, carol, dave], room) = four(given).await;
        let (after, before) = ("&use_state_after=true", "&org.matrix.msc4222.use_state_after=true");
        let topic = event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": "tea" })).await);
        let page = alice.syncs_with(after).await;
        let here = joined(&page, &room);
        let ids = crate::support::people::ids;
        assert!(here.get("state").is_none());
        assert!(ids(&here["state_after"]["events"]).contains(&topic) && timeline(&page, &room).contains(&topic));
        assert_eq!(members(&here["state_after"]), these(&[&alice, &bob, &carol, &dave]));
        alice.says(&room, "nothing but a message").await;
        let page = alice.syncs_with(after).await;
        assert_eq!(joined(&page, &room)["state_after"], json!({ "events": [] }), "told to be none, from memory");
        let second = event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": "more tea" })).await);
        let third = event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": "most tea" })).await);
        let page = alice.syncs_with(before).await;
        let here = joined(&page, &room);
        assert_eq!(ids(&here["org.matrix.msc4222.state_after"]["events"]), [third.clone()]);
        assert!(here.get("state_after").is_none() && here.get("state").is_none());
        assert_eq!(timeline(&page, &room), [second, third]);
        alice.leaves(&room).await;
        let page = alice.syncs_with(after).await;
        assert_eq!(members(&page["rooms"]["leave"][&room]["state_after"]), these(&[&alice]));
        server.stop().await;
    }
}
