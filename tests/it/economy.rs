//! What a server does without its database: what happens most often.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use serde_json::json;

use crate::support::{
    each_backend,
    people::{Person, event_id, open_server, timeline},
};

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
}
