//! What the gateways of pushers are told, and when.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use hearth::config::BadgeCounts;
use serde_json::{Value, json};

use super::{pushing, pushing_server};
use crate::support::{
    each_backend,
    gateway::{Gateway, pusher},
    people::{Person, escaped, event_id},
};

impl Person {
    /// Sends something else than a text; its id.
    async fn says_as(&self, room: &str, kind: &str, txn: &str, content: Value) -> String {
        event_id(&self.put(&format!("/rooms/{}/send/{kind}/{txn}", escaped(room)), content).await)
    }

    async fn reads_up_to(&self, room: &str, event: &str) {
        self.asks(room, &format!("receipt/m.read/{}", escaped(event)), json!({})).await.ok();
    }
}

each_backend! {
    async fn a_message_is_pushed_with_all_that_is_to_be_said_of_it(given: Given) {
        let server = pushing_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        bob.put(&format!("/profile/{}/displayname", bob.id), json!({ "displayname": "Bob the Builder" })).await.ok();
        let room = alice.creates(json!({ "preset": "public_chat", "name": "Garden", "room_alias_name": "garden" })).await;
        bob.joins(&room).await;
        let gateway = Gateway::start().await;
        let mut pusher = pusher(&gateway.url(), "key");
        pusher["data"]["default_payload"] = json!({ "aps": {} });
        alice.post("/pushers/set", pusher).await.ok();

        let message = bob.says(&room, "the roses are out").await;
        let note = gateway.is_told_of(&message).await;
        assert_eq!(
            note,
            json!({
                "event_id": message, "room_id": room, "type": "m.room.message", "sender": bob.id,
                "sender_display_name": "Bob the Builder", "room_name": "Garden", "room_alias": "#garden:test.example",
                "content": { "msgtype": "m.text", "body": "the roses are out" },
                // In a room of two every message makes a sound.
                "prio": "high", "counts": { "unread": 1 },
                "devices": [{
                    "app_id": "org.example.app", "pushkey": "key", "pushkey_ts": 1_700_000_000,
                    "data": { "default_payload": { "aps": {} } }, "tweaks": { "sound": "default" },
                }],
            })
        );
        // One after another, and none of them twice.
        let mut all = Vec::new();
        for n in 0..20 {
            all.push(bob.says(&room, &n.to_string()).await);
        }
        for message in &all {
            gateway.is_told_of(message).await;
        }
        assert_eq!(gateway.tries(), 21);
        server.stop().await;
    }

    async fn how_much_is_said_and_how_urgent_it_is(given: Given) {
        let server = pushing_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        carol.joins(&room).await;
        let gateway = Gateway::start().await;
        alice.sets_pusher(&gateway, "key").await;

        let plain = bob.says(&room, "in passing").await;
        let note = gateway.is_told_of(&plain).await;
        assert_eq!(note["prio"], "low", "{note}");
        assert!(note["devices"][0].get("tweaks").is_none(), "{note}");
        let mention = json!({ "msgtype": "m.text", "body": "hey", "m.mentions": { "user_ids": [alice.id] } });
        let mention = bob.says_as(&room, "m.room.message", "mention", mention).await;
        let note = gateway.is_told_of(&mention).await;
        assert_eq!(note["devices"][0]["tweaks"], json!({ "highlight": true, "sound": "default" }));
        assert_eq!(note["prio"], "high");
        // What it says only the client can tell.
        let secret = json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x", "session_id": "s" });
        let secret = bob.says_as(&room, "m.room.encrypted", "secret", secret.clone()).await;
        let note = gateway.is_told_of(&secret).await;
        assert_eq!((&note["prio"], &note["type"]), (&json!("high"), &json!("m.room.encrypted")));
        assert_eq!(note["content"]["ciphertext"], "x");

        let mut by_id = pusher(&gateway.url(), "key");
        by_id["data"]["format"] = "event_id_only".into();
        alice.post("/pushers/set", by_id).await.ok();
        let last = bob.says(&room, "of which only the id is told").await;
        let note = gateway.is_told_of(&last).await;
        let device = json!({
            "app_id": "org.example.app", "pushkey": "key", "pushkey_ts": 1_700_000_000,
            "data": { "format": "event_id_only" },
        });
        let whole = json!({
            "event_id": last, "room_id": room, "prio": "low", "counts": { "unread": 1 }, "devices": [device],
        });
        assert_eq!(note, whole);
        server.stop().await;
    }

    async fn an_invite_is_pushed_to_whom_it_is_for(given: Given) {
        let server = pushing_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let gateway = Gateway::start().await;
        alice.sets_pusher(&gateway, "key").await;
        let room = bob.creates(json!({ "preset": "private_chat", "name": "Plot" })).await;
        bob.says(&room, "not for her yet").await;
        bob.invites(&room, &alice).await;
        let note = gateway.note().await;
        assert_eq!((&note["type"], &note["content"]["membership"]), (&json!("m.room.member"), &json!("invite")));
        assert_eq!((&note["user_is_target"], &note["room_name"]), (&json!(true), &json!("Plot")));
        assert_eq!(note["counts"]["unread"], 1, "an invite waits for an answer");
        bob.says(&room, "nor is this, until she is in").await;
        alice.leaves(&room).await;
        gateway.is_told_the_badge(0).await;
        bob.invites(&room, &alice).await;
        assert_eq!(gateway.note().await["type"], "m.room.member");
        alice.joins(&room).await;
        gateway.is_told_the_badge(0).await;
        let now = bob.says(&room, "welcome").await;
        gateway.is_told_of(&now).await;
        server.stop().await;
    }

    async fn what_nobody_wants_to_hear_is_not_pushed(given: Given) {
        let server = pushing_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let mallory = Person::registers(&server, "mallory").await;
        let (room, muted) = (alice.opens_a_room().await, alice.opens_a_room().await);
        for person in [&bob, &mallory] {
            person.joins(&room).await;
            person.joins(&muted).await;
        }
        bob.says(&room, "before there was a pusher").await;
        let gateway = Gateway::start().await;
        alice.sets_pusher(&gateway, "key").await;
        let mute = json!({ "actions": [], "conditions": [{ "kind": "event_match", "key": "room_id", "pattern": muted }] });
        alice.put(&format!("/pushrules/global/override/{}", escaped(&muted)), mute).await.ok();
        let ignore = json!({ "ignored_users": { &mallory.id: {} } });
        alice.put(&format!("/user/{}/account_data/m.ignored_user_list", alice.id), ignore).await.ok();

        alice.says(&room, "her own").await;
        bob.says(&muted, "in a muted room").await;
        mallory.says(&room, "from somebody whom she ignores").await;
        let react = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": "$x", "key": "+" } });
        bob.says_as(&room, "m.reaction", "react", react).await;
        let notice = json!({ "msgtype": "m.notice", "body": "from a bot" });
        bob.says_as(&room, "m.room.message", "notice", notice).await;
        bob.sets(&room, "org.example.odd", "", json!({})).await;
        let wanted = bob.says(&room, "at last").await;
        gateway.is_told_of(&wanted).await;

        alice.put(&format!("/user/{}/account_data/m.ignored_user_list", alice.id), json!({ "ignored_users": {} })).await.ok();
        alice.send(reqwest::Method::DELETE, &format!("/pushrules/global/override/{}", escaped(&muted)), None).await.ok();
        let heard = mallory.says(&muted, "heard again").await;
        gateway.is_told_of(&heard).await;
        alice.leaves(&room).await;
        gateway.is_told_the_badge(1).await;
        bob.says(&room, "she is gone").await;
        let here = bob.says(&muted, "she is here").await;
        gateway.is_told_of(&here).await;
        server.stop().await;
    }

    async fn the_badge_falls_with_whoever_is_ignored(given: Given) {
        let server = pushing_server(given).await;
        let (alice, mallory) = (Person::registers(&server, "alice").await, Person::registers(&server, "mallory").await);
        let room = alice.opens_a_room().await;
        mallory.joins(&room).await;
        let gateway = Gateway::start().await;
        alice.sets_pusher(&gateway, "key").await;
        let noise = mallory.says(&room, "noise").await;
        assert_eq!(gateway.is_told_of(&noise).await["counts"]["unread"], 1);
        alice.ignores(&[&mallory]).await;
        gateway.is_told_the_badge(0).await;
        server.stop().await;
    }

    async fn what_was_read_or_redacted_meanwhile_is_not_pushed(given: Given) {
        let server = pushing_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let gateway = Gateway::start().await;
        gateway.fails_with(503);
        alice.sets_pusher(&gateway, "key").await;
        let read = bob.says(&room, "she will have read this").await;
        gateway.was_tried(1).await;
        alice.reads_up_to(&room, &read).await;
        let regretted = bob.says(&room, "he will regret this").await;
        bob.redacts(&room, &regretted).await.ok();
        let last = bob.says(&room, "news").await;
        gateway.works_again();
        server.clock.advance(10_000);
        let note = gateway.is_told_of(&last).await;
        assert_eq!(note["counts"]["unread"], 1);
        server.stop().await;
    }

    async fn the_badge_counts_rooms_and_falls_when_they_are_read(given: Given) {
        let server = pushing_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let (one, two) = (alice.opens_a_room().await, alice.opens_a_room().await);
        for room in [&one, &two] {
            bob.joins(room).await;
        }
        let gateway = Gateway::start().await;
        alice.sets_pusher(&gateway, "key").await;
        let mut last = String::new();
        for (room, unread) in [(&one, 1), (&one, 1), (&two, 2)] {
            last = bob.says(room, "hello").await;
            assert_eq!(gateway.is_told_of(&last).await["counts"]["unread"], unread);
        }
        alice.reads_up_to(&two, &last).await;
        gateway.is_told_the_badge(1).await;
        let private = bob.says(&one, "read in private").await;
        gateway.is_told_of(&private).await;
        alice.asks(&one, &format!("receipt/m.read.private/{}", escaped(&private)), json!({})).await.ok();
        gateway.is_told_the_badge(0).await;
        // There is nothing that could fall.
        bob.reads_up_to(&one, &private).await;
        alice.reads_up_to(&one, &private).await;
        let next = bob.says(&one, "next").await;
        assert_eq!(gateway.is_told_of(&next).await["counts"]["unread"], 1);
        bob.redacts(&one, &next).await.ok();
        gateway.is_told_the_badge(0).await;
        server.stop().await;
    }

    async fn the_badge_falls_for_a_pusher_that_was_set_when_something_was_unread(given: Given) {
        let server = pushing_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let rooms = [alice.opens_a_room().await, alice.opens_a_room().await];
        let mut said = Vec::new();
        for room in &rooms {
            bob.joins(room).await;
            said.push(bob.says(room, "hello").await);
        }
        let gateway = Gateway::start().await;
        alice.sets_pusher(&gateway, "key").await;
        alice.reads_up_to(&rooms[0], &said[0]).await;
        gateway.is_told_the_badge(1).await;
        alice.reads_up_to(&rooms[1], &said[1]).await;
        gateway.is_told_the_badge(0).await;
        server.stop().await;
    }

    async fn the_badge_counts_messages_where_the_operator_says_so(given: Given) {
        let server = given.server_with(|config| {
            pushing(config);
            config.push.push_badge_counts = BadgeCounts::Messages;
        });
        let server = server.await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let gateway = Gateway::start().await;
        alice.sets_pusher(&gateway, "key").await;
        let mut messages = Vec::new();
        for unread in 1..=3 {
            messages.push(bob.says(&room, "hello").await);
            assert_eq!(gateway.is_told_of(&messages[unread - 1]).await["counts"]["unread"], unread);
        }
        alice.reads_up_to(&room, &messages[0]).await;
        gateway.is_told_the_badge(2).await;
        bob.redacts(&room, &messages[1]).await.ok();
        gateway.is_told_the_badge(1).await;
        alice.reads_up_to(&room, &messages[2]).await;
        gateway.is_told_the_badge(0).await;
        server.stop().await;
    }

    async fn a_user_who_logs_out_is_told_nothing_more(given: Given) {
        let server = pushing_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let phone = Person::logs_in(&server, "alice").await;
        let (kept, ended) = (Gateway::start().await, Gateway::start().await);
        alice.sets_pusher(&kept, "desk").await;
        phone.sets_pusher(&ended, "phone").await;
        let first = bob.says(&room, "to both").await;
        kept.is_told_of(&first).await;
        ended.is_told_of(&first).await;
        phone.post("/logout", json!({})).await.ok();
        let second = bob.says(&room, "to one").await;
        kept.is_told_of(&second).await;
        let third = bob.says(&room, "and again").await;
        kept.is_told_of(&third).await;
        assert_eq!(ended.tries(), 1);
        server.stop().await;
    }
}
