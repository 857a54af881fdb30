//! What can't be said of another event.

use serde_json::json;

use super::{edit, reaction};
use crate::support::{
    each_backend,
    people::{Person, event_id, open_server},
};

each_backend! {
    async fn a_reaction_counts_once(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let message = alice.says(&room, "hello").await;
        let first = alice.tries_to_relate(&room, "m.reaction", "once", reaction(&message, "+1")).await;
        alice.reacts(&room, &message, "+1").await.refused(400, "M_DUPLICATE_ANNOTATION");
        // Who asks again for the same gets the answer of then.
        let again = alice.tries_to_relate(&room, "m.reaction", "once", reaction(&message, "+1")).await;
        assert_eq!(event_id(&again), event_id(&first));

        alice.reacts(&room, &message, "-1").await.ok();
        bob.reacts(&room, &message, "+1").await.ok();
        alice.tries_to_relate(&room, "m.sticker", "kind", reaction(&message, "+1")).await.ok();
        let other = bob.says(&room, "another").await;
        alice.reacts(&room, &other, "+1").await.ok();
        // Taken back, it can be said anew, once.
        alice.redacts(&room, &event_id(&first)).await.ok();
        alice.reacts(&room, &message, "+1").await.ok();
        alice.reacts(&room, &message, "+1").await.refused(400, "M_DUPLICATE_ANNOTATION");
        // The room goes on.
        alice.says(&room, "and on").await;

        let nothing = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": message } });
        alice.tries_to_relate(&room, "m.reaction", "nothing", nothing).await.refused(400, "M_INVALID_PARAM");
        alice.reacts(&room, &message, &"x".repeat(500)).await.ok();
        alice.reacts(&room, &message, &"x".repeat(501)).await.refused(400, "M_INVALID_PARAM");
        alice.reacts(&room, &message, "a\0b").await.refused(400, "M_INVALID_PARAM");
        server.stop().await;
    }

    async fn of_many_at_once_one_reaction_is_taken(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let message = alice.says(&room, "hello").await;
        let (alice, room, message) = (&alice, &room, &message);
        let sends = (0..12).map(|n| async move {
            if n % 3 == 2 {
                alice.says(room, "between").await;
                return None;
            }
            Some(alice.reacts(room, message, "+1").await.status)
        });
        let statuses: Vec<u16> = futures_util::future::join_all(sends).await.into_iter().flatten().collect();
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| [200, 400].contains(status)), "{statuses:?}");
        server.stop().await;
    }

    async fn no_thread_begins_within_a_relation(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let root = alice.says(&room, "root").await;
        let answer = alice.answers_in_thread(&room, &root, "answer").await;
        let reference = alice.relates(&room, "m.reference", &root, "see above").await;
        let reacted = event_id(&alice.reacts(&room, &root, "+1").await);
        let edited = event_id(&alice.tries_to_relate(&room, "m.room.message", "edit", edit(&root, "new")).await);
        for (n, target) in [&answer, &reference, &reacted, &edited].into_iter().enumerate() {
            let content = json!({ "body": "no", "m.relates_to": { "rel_type": "m.thread", "event_id": target } });
            let txn = format!("thread {n}");
            alice.tries_to_relate(&room, "m.room.message", &txn, content).await.refused(400, "M_UNKNOWN");
        }
        // A reply is no such relation; and what was taken back relates to nothing.
        let reply = json!({ "body": "re", "m.relates_to": { "m.in_reply_to": { "event_id": root } } });
        let reply = event_id(&alice.tries_to_relate(&room, "m.room.message", "reply", reply).await);
        alice.answers_in_thread(&room, &reply, "to a reply").await;
        alice.redacts(&room, &reference).await.ok();
        alice.answers_in_thread(&room, &reference, "to what is left").await;
        // Many who go on in one thread, and many who begin one where they can't.
        let (alice, room, root, answer) = (&alice, &room, &root, &answer);
        let sends = (0..10).map(|n| async move {
            let target = if n % 2 == 0 { root } else { answer };
            let content = json!({ "body": n, "m.relates_to": { "rel_type": "m.thread", "event_id": target } });
            let reply = alice.tries_to_relate(room, "m.room.message", &format!("many {n}"), content).await;
            assert_eq!(reply.status, if n % 2 == 0 { 200 } else { 400 }, "{}", reply.text);
        });
        futures_util::future::join_all(sends).await;
        assert_eq!(alice.bundle(room, root).await["m.thread"]["count"], 6);
        server.stop().await;
    }
}
