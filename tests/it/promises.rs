//! What clients rely on, as a suite of tests for servers found it.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use serde_json::{Value, json};

use crate::support::{
    each_backend,
    people::{Person, event_id, open_server},
};

/// Types and senders' memberships of a timeline.
fn memberships(timeline: &Value) -> Vec<&str> {
    let events = timeline["events"].as_array().unwrap();
    events.iter().map(|event| event["unsigned"]["membership"].as_str().unwrap()).collect()
}

each_backend! {
    async fn a_transaction_id_counts_in_one_room(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let (one, two) = (alice.creates(json!({})).await, alice.creates(json!({})).await);
        let first = event_id(&alice.sends(&one, "1", "hi").await);
        assert_eq!(event_id(&alice.sends(&one, "1", "hi again").await), first);
        assert_ne!(event_id(&alice.sends(&two, "1", "hi").await), first);
    }

    async fn two_rooms_of_one_moment_are_two(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        for version in ["11", "12"] {
            let wish = json!({ "room_version": version });
            let (one, two, three) = tokio::join!(alice.creates(wish.clone()), alice.creates(wish.clone()), alice.creates(wish));
            assert!(one != two && two != three && one != three);
            alice.says(&two, "hi").await;
        }
    }

    async fn each_event_says_what_the_reader_was(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.creates(json!({ "preset": "public_chat" })).await;
        let message = alice.says(&room, "before").await;
        bob.joins(&room).await;
        let sync = bob.sync("timeout=0&filter={\"room\":{\"timeline\":{\"limit\":2}}}").await;
        assert_eq!(memberships(&sync["rooms"]["join"][&room]["timeline"]), ["leave", "join"]);
        alice.says(&room, "after").await;
        let since = sync["next_batch"].as_str().unwrap();
        let sync = bob.sync(&format!("timeout=0&since={since}")).await;
        assert_eq!(memberships(&sync["rooms"]["join"][&room]["timeline"]), ["join"]);
        let event = bob.get(&format!("/rooms/{room}/event/{message}")).await.ok();
        assert_eq!(event["unsigned"]["membership"], "leave");
        // Left and back between two syncs.
        bob.leaves(&room).await;
        bob.joins(&room).await;
        let since = sync["next_batch"].as_str().unwrap();
        let sync = bob.sync(&format!("timeout=0&since={since}")).await;
        assert_eq!(memberships(&sync["rooms"]["join"][&room]["timeline"]), ["leave", "join"]);
    }

    async fn a_timeline_of_nothing_is_a_limited_one(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.creates(json!({ "name": "The room" })).await;
        let filter = "&filter={\"room\":{\"timeline\":{\"limit\":0}}}";
        let sync = alice.sync(&format!("timeout=0{filter}")).await;
        let shown = &sync["rooms"]["join"][&room];
        assert_eq!((&shown["timeline"]["events"], &shown["timeline"]["limited"]), (&json!([]), &json!(true)));
        let state = shown["state"]["events"].as_array().unwrap();
        assert!(state.iter().any(|event| event["type"] == "m.room.name"), "all of the state stands beside it");
        let since = sync["next_batch"].as_str().unwrap();
        alice.says(&room, "hi").await;
        let sync = alice.sync(&format!("timeout=0{filter}&since={since}")).await;
        assert_eq!(sync["rooms"]["join"][&room]["timeline"]["limited"], true);
    }

    async fn other_devices_hear_of_a_room_that_was_forgotten(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.creates(json!({ "preset": "public_chat" })).await;
        bob.joins(&room).await;
        let since = bob.sync("timeout=0").await["next_batch"].as_str().unwrap().to_owned();
        bob.leaves(&room).await;
        bob.post(&format!("/rooms/{room}/forget"), json!({})).await.ok();
        assert!(bob.sync(&format!("timeout=0&since={since}")).await["rooms"]["leave"][&room].is_object());
        let fresh = bob.sync("timeout=0&filter={\"room\":{\"include_leave\":true}}").await;
        assert!(fresh["rooms"]["leave"][&room].is_null());
        bob.get(&format!("/rooms/{room}/messages")).await.refused(403, "M_FORBIDDEN");
    }

    async fn invites_of_the_ignored_are_not_shown(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let ignored = json!({ "ignored_users": { &bob.id: {} } });
        alice.put(&format!("/user/{}/account_data/m.ignored_user_list", alice.id), ignored).await.ok();
        let wish = json!({ "invite": [alice.id] });
        let (unwanted, wanted) = (bob.creates(wish.clone()).await, carol.creates(wish).await);
        let invites = alice.sync("timeout=0").await["rooms"]["invite"].clone();
        assert_eq!((invites.get(&unwanted).is_some(), invites.get(&wanted).is_some()), (false, true));
    }

    async fn a_join_says_what_its_sender_wants_it_to(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.creates(json!({ "preset": "public_chat" })).await;
        let body = json!({ "foo": "bar", "membership": "ban", "join_authorised_via_users_server": alice.id });
        bob.post(&format!("/join/{room}"), body).await.ok();
        let content = alice.get(&format!("/rooms/{room}/state/m.room.member/{}", bob.id)).await.ok();
        assert_eq!(content, json!({ "membership": "join", "foo": "bar" }), "but not what only the server may say");
        let joined = alice.get(&format!("/rooms/{room}/joined_members")).await.ok();
        assert_eq!(joined["joined"][&bob.id], json!({ "display_name": null, "avatar_url": null }));
    }

    async fn messages_bring_those_who_sent_them(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.creates(json!({ "preset": "public_chat" })).await;
        bob.joins(&room).await;
        bob.says(&room, "hi").await;
        let page = async |query: &str| alice.get(&format!("/rooms/{room}/messages?dir=b&limit=1{query}")).await.ok();
        let lazy = page("&filter={\"lazy_load_members\":true}").await;
        assert_eq!(lazy["state"].as_array().map(Vec::len), Some(1));
        assert_eq!((&lazy["state"][0]["type"], &lazy["state"][0]["state_key"]), (&json!("m.room.member"), &json!(bob.id)));
        assert!(page("").await["state"].is_null());
    }
}
