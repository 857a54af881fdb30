//! What is told of the events that relate to one, beside it.

use serde_json::{Value, json};

use super::{edit, find, reaction};
use crate::support::{
    each_backend,
    people::{Person, escaped, event_id, joined, open_server},
};

each_backend! {
    async fn the_newest_edit_is_told(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let message = alice.says(&room, "hello").await;
        assert_eq!(bob.bundle(&room, &message).await, Value::Null);
        let first = alice.edits(&room, &message, "one").await;
        let told = bob.bundle(&room, &message).await;
        assert_eq!(told["m.replace"]["event_id"], first);
        assert_eq!(told["m.replace"]["content"]["m.new_content"]["body"], "one");
        assert_eq!(told["m.replace"]["room_id"], *room);
        assert_eq!(told["m.replace"]["sender"], alice.id);
        server.clock.advance(1_000);
        let second = alice.edits(&room, &message, "two").await;
        assert_eq!(bob.bundle(&room, &message).await["m.replace"]["event_id"], second);

        // Neither of others, nor of another type, nor of an edit, nor without anything new.
        server.clock.advance(1_000);
        bob.edits(&room, &message, "by another").await;
        alice.tries_to_relate(&room, "m.sticker", "type", edit(&message, "of another type")).await.ok();
        alice.relates(&room, "m.replace", &message, "nothing new").await;
        let nested = alice.edits(&room, &second, "of an edit").await;
        assert_eq!(bob.bundle(&room, &message).await["m.replace"]["event_id"], second);
        assert_eq!(bob.bundle(&room, &second).await, Value::Null);
        assert_eq!(bob.bundle(&room, &nested).await, Value::Null);
        let topic = event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": "t" })).await);
        alice.tries_to_relate(&room, "m.room.topic", "topic", edit(&topic, "of state")).await.ok();
        assert_eq!(bob.bundle(&room, &topic).await, Value::Null);

        // An edit that is taken back gives way to the one before, and with the message all are.
        alice.redacts(&room, &second).await.ok();
        assert_eq!(bob.bundle(&room, &message).await["m.replace"]["event_id"], first);
        alice.redacts(&room, &message).await.ok();
        assert_eq!(bob.bundle(&room, &message).await, Value::Null);
        server.stop().await;
    }

    async fn of_two_edits_in_one_moment_the_greater_id_is_newer(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let message = alice.says(&room, "hello").await;
        let mut edits = Vec::new();
        for n in 0..6 {
            edits.push(alice.edits(&room, &message, &n.to_string()).await);
        }
        let newest = edits.iter().max().unwrap();
        assert_eq!(alice.bundle(&room, &message).await["m.replace"]["event_id"], **newest);
        server.stop().await;
    }

    async fn an_encrypted_edit_is_one(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let secret = json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x" });
        let message = event_id(&alice.tries_to_relate(&room, "m.room.encrypted", "1", secret.clone()).await);
        let mut edited = secret;
        edited["m.relates_to"] = json!({ "rel_type": "m.replace", "event_id": message });
        let edited = event_id(&alice.tries_to_relate(&room, "m.room.encrypted", "2", edited).await);
        assert_eq!(alice.bundle(&room, &message).await["m.replace"]["event_id"], edited);
        server.stop().await;
    }

    async fn references_are_listed_and_reactions_are_not(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let message = alice.says(&room, "hello").await;
        bob.reacts(&room, &message, "+1").await.ok();
        assert_eq!(alice.bundle(&room, &message).await, Value::Null);
        let one = alice.relates(&room, "m.reference", &message, "one").await;
        let two = bob.relates(&room, "m.reference", &message, "two").await;
        let told = alice.bundle(&room, &message).await;
        assert_eq!(told, json!({ "m.reference": { "chunk": [{ "event_id": one }, { "event_id": two }] } }));
        alice.ignores(&[&bob]).await;
        let told = alice.bundle(&room, &message).await;
        assert_eq!(told, json!({ "m.reference": { "chunk": [{ "event_id": one }] } }));
        alice.redacts(&room, &one).await.ok();
        assert_eq!(alice.bundle(&room, &message).await, Value::Null);
        // A redacted event keeps what refers to it.
        alice.redacts(&room, &message).await.ok();
        assert_eq!(bob.bundle(&room, &message).await["m.reference"]["chunk"], json!([{ "event_id": two }]));
        server.stop().await;
    }

    async fn a_thread_is_told_at_its_root(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        carol.joins(&room).await;
        let root = alice.says(&room, "root").await;
        bob.answers_in_thread(&room, &root, "one").await;
        let two = bob.answers_in_thread(&room, &root, "two").await;
        let thread = carol.bundle(&room, &root).await["m.thread"].clone();
        assert_eq!((&thread["count"], &thread["current_user_participated"]), (&json!(2), &json!(false)));
        assert_eq!(thread["latest_event"]["event_id"], two);
        assert_eq!(thread["latest_event"]["room_id"], *room);
        assert_eq!(alice.bundle(&room, &root).await["m.thread"]["current_user_participated"], true, "her message");
        assert_eq!(bob.bundle(&room, &root).await["m.thread"]["current_user_participated"], true, "his answers");

        // The newest has its own beside it; and only it.
        let edited = bob.edits(&room, &two, "2").await;
        carol.relates(&room, "m.reference", &two, "see").await;
        let latest = carol.bundle(&room, &root).await["m.thread"]["latest_event"].clone();
        assert_eq!(latest["unsigned"]["m.relations"]["m.replace"]["event_id"], edited);
        assert_eq!(latest["unsigned"]["m.relations"]["m.reference"]["chunk"].as_array().unwrap().len(), 1);
        assert!(latest["unsigned"]["m.relations"].get("m.thread").is_none());

        // Those whom a reader ignores are left out.
        let three = carol.answers_in_thread(&room, &root, "three").await;
        assert_eq!(alice.bundle(&room, &root).await["m.thread"]["latest_event"]["event_id"], three);
        alice.ignores(&[&carol]).await;
        let thread = alice.bundle(&room, &root).await["m.thread"].clone();
        assert_eq!((&thread["count"], &thread["latest_event"]["event_id"]), (&json!(2), &json!(two)));
        assert!(thread["latest_event"]["unsigned"]["m.relations"].get("m.reference").is_none());
        alice.ignores(&[&bob, &carol]).await;
        assert_eq!(alice.bundle(&room, &root).await, Value::Null);
        alice.ignores(&[]).await;

        // What is taken back is no part of it; a root that is taken back still is one.
        carol.redacts(&room, &three).await.ok();
        assert_eq!(bob.bundle(&room, &root).await["m.thread"]["latest_event"]["event_id"], two);
        alice.redacts(&room, &root).await.ok();
        assert_eq!(bob.bundle(&room, &root).await["m.thread"]["count"], 2);
        bob.redacts(&room, &two).await.ok();
        assert_eq!(bob.bundle(&room, &root).await["m.thread"]["count"], 1);
        server.stop().await;
    }

    async fn every_page_tells_the_same(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        bob.syncs().await;
        let root = alice.says(&room, "root").await;
        let (answer, edited) = (bob.answers_in_thread(&room, &root, "one").await, alice.edits(&room, &root, "new").await);
        let last = alice.says(&room, "last").await;
        let told = |event: &Value| {
            let told = &event["unsigned"]["m.relations"];
            assert_eq!(told["m.replace"]["event_id"], edited, "{event}");
            assert_eq!(told["m.thread"]["latest_event"]["event_id"], answer);
            assert_eq!((&told["m.thread"]["count"], told.as_object().unwrap().len()), (&json!(1), 2));
        };
        told(&bob.event(&room, &root).await.ok());
        told(find(&bob.reads(&room, "messages?dir=b").await.ok()["chunk"], &root));
        let context = bob.reads(&room, &format!("context/{}?limit=8", escaped(&last))).await.ok();
        told(find(&context["events_before"], &root));
        told(&bob.reads(&room, &format!("context/{}", escaped(&root))).await.ok()["event"]);
        told(find(&bob.threads(&room, "").await.ok()["chunk"], &root));
        let pointed = alice.relates(&room, "m.reference", &last, "to the last").await;
        alice.edits(&room, &pointed, "to the last but one").await;
        let related = bob.related(&room, &last, "").await.ok();
        assert!(related["chunk"][0]["unsigned"]["m.relations"]["m.replace"].is_object(), "{related}");

        // A sync that lacks something tells it as well, in the form of its events; who gets all adds it up.
        let all = bob.syncs().await;
        let timeline = &joined(&all, &room)["timeline"];
        assert_eq!(timeline["limited"], false);
        assert!(find(&timeline["events"], &root)["unsigned"].get("m.relations").is_none());
        let filter = escaped(r#"{"room":{"timeline":{"limit":6}}}"#);
        let part = bob.sync(&format!("timeout=0&filter={filter}")).await;
        let timeline = &joined(&part, &room)["timeline"];
        assert_eq!(timeline["limited"], true);
        let shown = find(&timeline["events"], &root);
        told(shown);
        assert!(shown["unsigned"]["m.relations"]["m.replace"].get("room_id").is_none());
        assert!(shown["unsigned"]["m.relations"]["m.thread"]["latest_event"].get("room_id").is_none());
        server.stop().await;
    }

    async fn what_somebody_may_not_see_is_told_to_them_nowhere(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        alice.sets(&room, "m.room.history_visibility", "", json!({ "history_visibility": "joined" })).await.ok();
        bob.joins(&room).await;
        let root = alice.says(&room, "root").await;
        let seen = alice.answers_in_thread(&room, &root, "seen").await;
        bob.leaves(&room).await;
        server.clock.advance(1_000);
        let unseen = alice.answers_in_thread(&room, &root, "unseen").await;
        let edited = alice.edits(&room, &root, "unseen").await;
        alice.relates(&room, "m.reference", &root, "unseen").await;
        let is_told = |told: &Value| {
            assert_eq!(told["m.thread"]["latest_event"]["event_id"], seen, "{told}");
            assert_eq!((&told["m.thread"]["count"], told.as_object().unwrap().len()), (&json!(1), 1));
        };
        is_told(&bob.bundle(&room, &root).await);
        let page = bob.reads(&room, "messages?dir=b").await.ok();
        is_told(&find(&page["chunk"], &root)["unsigned"]["m.relations"]);
        is_told(&find(&bob.threads(&room, "").await.ok()["chunk"], &root)["unsigned"]["m.relations"]);
        let ids = |reply: Value| crate::support::people::ids(&reply["chunk"]);
        assert_eq!(ids(bob.related(&room, &root, "").await.ok()), [&*seen]);
        assert_eq!(ids(bob.related(&room, &root, "?recurse=true").await.ok()), [&*seen]);
        bob.related(&room, &unseen, "").await.refused(404, "M_NOT_FOUND");
        bob.related(&room, &edited, "").await.refused(404, "M_NOT_FOUND");

        // Back again, there is a gap in what they see.
        bob.joins(&room).await;
        let back = alice.answers_in_thread(&room, &root, "back").await;
        let thread = bob.bundle(&room, &root).await["m.thread"].clone();
        assert_eq!((&thread["count"], &thread["latest_event"]["event_id"]), (&json!(2), &json!(back)));
        assert_eq!(ids(bob.related(&room, &root, "").await.ok()), [&*back, &seen]);
        assert!(bob.bundle(&room, &root).await.get("m.replace").is_none());
        // A stranger sees nothing at all.
        let carol = Person::registers(&server, "carol").await;
        carol.related(&room, &root, "").await.refused(403, "M_FORBIDDEN");
        carol.threads(&room, "").await.refused(403, "M_FORBIDDEN");
        server.stop().await;
    }

    async fn nothing_is_asked_where_nothing_relates(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let root = alice.says(&room, "root").await;
        for n in 0..20 {
            alice.says(&room, &n.to_string()).await;
        }
        let cost = async |what: &str| {
            let before = server.work();
            alice.reads(&room, what).await.ok();
            server.work_since(&before)["page"].statements
        };
        let (few, many) = (cost("messages?dir=b&limit=2").await, cost("messages?dir=b&limit=20").await);
        assert_eq!(few, many);
        let other = alice.says(&room, "other").await;
        let message = reaction(&other, "+1");
        alice.tries_to_relate(&room, "m.reaction", "r", message).await.ok();
        assert_eq!(cost("messages?dir=b&limit=20").await, many, "a reaction is not told");
        alice.edits(&room, &other, "another").await;
        alice.answers_in_thread(&room, &root, "one").await;
        let one = cost("messages?dir=b&limit=100").await;
        for n in 0..10 {
            let message = alice.says(&room, "more").await;
            alice.answers_in_thread(&room, &message, &n.to_string()).await;
            alice.edits(&room, &message, "and more").await;
            alice.relates(&room, "m.reference", &message, "see").await;
        }
        assert_eq!(cost("messages?dir=b&limit=100").await, one, "however many relate");
        server.stop().await;
    }
}
