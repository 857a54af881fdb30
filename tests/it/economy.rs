//! What a server does without its database: what happens most often.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use serde_json::{Value, json};

use crate::support::{
    Server, each_backend,
    people::{Person, escaped, event_id, joined, open_server, timeline},
};

/// What it takes to tell somebody of these rooms, after a token or from the beginning.
async fn cost_of(server: &Server, reader: &Person, rooms: &[String], since: Option<&str>, timeline: Value) -> u64 {
    let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
    let filter = json!({ "room": {
        "rooms": rooms, "include_leave": true, "timeline": timeline, "state": { "lazy_load_members": true },
    } });
    let before = server.work();
    let page = reader.sync(&format!("timeout=0{since}&filter={}", escaped(&filter.to_string()))).await;
    let sections = ["join", "leave"].map(|section| page["rooms"][section].as_object().map_or(0, serde_json::Map::len));
    assert_eq!(sections.iter().sum::<usize>(), rooms.len(), "all of them are shown: {page}");
    server.work_since(&before)["sync_page"].statements
}

each_backend! {
    async fn a_message_is_one_transaction_and_those_who_follow_read_nothing(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let (room, other) = (alice.opens_a_room().await, alice.opens_a_room().await);
        for room in [&room, &other] {
            bob.joins(room).await;
        }
        // The first of everything may read what is kept in memory from then on.
        for room in [&room, &other] {
            alice.says(room, "warm").await;
        }
        bob.syncs().await;
        alice.syncs().await;
        alice.says(&room, "warmer").await;
        bob.syncs().await;
        alice.syncs().await;

        for turn in 0..3 {
            let before = server.work();
            let message = alice.says(&room, "hello").await;
            let work = server.work_since(&before);
            assert_eq!(work.keys().collect::<Vec<_>>(), [&"persist"], "turn {turn}: {work:?}");
            // Its check, the event, the room, the transaction id; and what it counts as unread.
            assert_eq!(work["persist"].runs, 1);
            assert!(work["persist"].statements <= 5, "{work:?}");

            let before = server.work();
            bob.sees(&room, &message).await;
            alice.sees(&room, &message).await;
            let nothing = bob.syncs().await;
            assert!(nothing["rooms"]["join"].is_null(), "{nothing}");
            let work = server.work_since(&before);
            assert!(work.is_empty(), "turn {turn}: syncs after a message have read {work:?}");
        }
    }

    async fn a_long_poll_that_a_message_ends_reads_nothing(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        alice.says(&room, "warm").await;
        bob.syncs().await;
        bob.syncs().await;
        let waiting = bob.waits().await;
        server.is_waited_for_by(1).await;

        let before = server.work();
        let message = alice.says(&room, "wake up").await;
        assert!(timeline(&waiting.ends().await, &room).contains(&message));
        let work = server.work_since(&before);
        assert_eq!(work.keys().collect::<Vec<_>>(), [&"persist"], "{work:?}");
    }

    async fn who_comes_with_a_token_is_told_of_a_message_for_a_look_at_what_is_unread(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        alice.says(&room, "one").await;
        alice.says(&room, "two").await;
        alice.syncs().await;
        // As after a start of the server: nothing is known of bob but that he has seen all up to here.
        let since = format!("since={}&timeout=0", alice.since());
        let nothing = bob.sync(&since).await;
        assert!(nothing["rooms"]["join"].is_null(), "{nothing}");

        let before = server.work();
        let message = alice.says(&room, "three").await;
        for _ in 0..2 {
            let page = bob.sync(&since).await;
            assert_eq!(timeline(&page, &room), [&*message]);
            assert_eq!(joined(&page, &room)["unread_notifications"]["notification_count"], 3);
        }
        let work = server.work_since(&before);
        assert_eq!(work.keys().collect::<Vec<_>>(), [&"persist", &"unread"], "{work:?}");
        assert_eq!(work["unread"].runs, 1);
    }

    async fn of_somebody_who_speaks_up_all_who_load_members_lazily_are_told_for_one_look(given: Given) {
        const LAZY: &str = r#"{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":5}}}"#;
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        // With a name, for a room without one is called after members who are told of.
        let room = alice.creates(json!({ "name": "The hall", "preset": "public_chat" })).await;
        let carol = Person::registers(&server, "carol").await;
        carol.joins(&room).await;
        let mut readers = Vec::new();
        for n in 0..4 {
            let reader = Person::registers(&server, &format!("reader{n}")).await;
            reader.joins(&room).await;
            readers.push(reader);
        }
        for n in 0..6 {
            alice.says(&room, &format!("{n}")).await;
        }
        let lazily = format!("&filter={}", escaped(LAZY));
        for reader in &readers {
            reader.syncs_with(&lazily).await;
        }

        let before = server.work();
        let message = carol.says(&room, "may I?").await;
        let mut lost = Vec::new();
        for reader in &readers {
            let since = reader.since();
            let page = reader.syncs_with(&lazily).await;
            assert_eq!(timeline(&page, &room), [&*message]);
            let member = &joined(&page, &room)["state"]["events"];
            assert_eq!(member.as_array().map(Vec::len), Some(1), "{page}");
            assert_eq!((&member[0]["type"], &member[0]["state_key"]), (&json!("m.room.member"), &json!(carol.id)));
            assert_eq!((&member[0]["content"]["membership"], &member[0]["unsigned"]["membership"]), (&json!("join"), &json!("join")));
            assert!(member[0]["event_id"].is_string() && member[0]["room_id"].is_null(), "{member}");
            lost.push((since, page));
        }
        // Who has not read the answer is told again.
        for (reader, (since, page)) in readers.iter().zip(&lost) {
            let again = reader.sync(&format!("timeout=0&since={since}{lazily}")).await;
            assert_eq!(joined(&again, &room)["state"]["events"][0]["event_id"], joined(page, &room)["state"]["events"][0]["event_id"]);
        }
        let work = server.work_since(&before);
        assert_eq!(work.keys().collect::<Vec<_>>(), [&"persist", &"speaker"], "{work:?}");
        assert_eq!(work["speaker"].runs, 1);

        // Who has read it is not.
        let before = server.work();
        let second = carol.says(&room, "thank you").await;
        for reader in &readers {
            let page = reader.syncs_with(&lazily).await;
            assert_eq!(timeline(&page, &room), [&*second]);
            assert!(joined(&page, &room)["state"]["events"].is_null(), "{page}");
        }
        let work = server.work_since(&before);
        assert_eq!(work.keys().collect::<Vec<_>>(), [&"persist"], "{work:?}");
    }

    async fn a_message_that_is_sent_again_is_found_in_the_transaction(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.creates(json!({})).await;
        let first = event_id(&alice.sends(&room, "1", "hi").await);
        let before = server.work();
        assert_eq!(event_id(&alice.sends(&room, "1", "hi").await), first);
        let work = server.work_since(&before);
        assert_eq!((work["persist"].runs, work["persist"].statements), (1, 1), "{work:?}");
    }

    async fn a_sync_asks_no_more_often_for_many_rooms_than_for_one(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let mut rooms = Vec::new();
        for _ in 0..5 {
            let room = alice.opens_a_room().await;
            bob.joins(&room).await;
            rooms.push(room);
        }
        bob.syncs().await;
        let in_all = bob.since();
        let busy = async |n: u32| {
            for room in &rooms {
                for _ in 0..n {
                    bob.says(room, "hello").await;
                }
                let what_for = alice.says(room, "what for?").await;
                alice.redacts(room, &what_for).await.ok();
            }
        };
        let costs_the_same = async |since: Option<&str>, timeline: Value| {
            let one = cost_of(&server, &bob, &rooms[..1], since, timeline.clone()).await;
            let all = cost_of(&server, &bob, &rooms, since, timeline).await;
            assert_eq!(one, all, "since {since:?}");
        };
        let few = || json!({ "limit": 5 });
        // Of these some are looked for beyond the newest events.
        let hers = || json!({ "limit": 1, "senders": [alice.id] });

        busy(15).await;
        for since in [None, Some(in_all.as_str())] {
            costs_the_same(since, few()).await;
            costs_the_same(since, hers()).await;
        }
        for room in &rooms {
            bob.leaves(room).await;
        }
        bob.syncs().await;
        let in_none = bob.since();
        for since in [None, Some(in_all.as_str())] {
            costs_the_same(since, few()).await;
            costs_the_same(since, hers()).await;
        }
        // And those which they came to in between and left again, or are new in.
        for room in &rooms {
            bob.joins(room).await;
        }
        costs_the_same(Some(&in_none), few()).await;
        costs_the_same(Some(&in_all), few()).await;
        for room in &rooms {
            bob.leaves(room).await;
        }
        costs_the_same(Some(&in_none), few()).await;
        server.stop().await;
    }
}
