//! Making rooms: what a client may ask for, and what it gets.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use serde_json::{Value, json};

use crate::support::{
    each_backend,
    people::{Person, escaped, open_server},
};

async fn state(person: &Person, room: &str, kind: &str) -> Value {
    person.reads(room, &format!("state/{kind}/")).await.ok()
}

each_backend! {
    async fn only_creators_close_a_room_whatever_levels_were_asked_for(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        // What the client replaces as a whole leaves out what the version asks for.
        for (asked, closes) in [
            (json!({ "events": { "org.example.call": 0 } }), 150),
            (json!({ "events": {}, "state_default": 200 }), 201),
            (json!({ "state_default": 160 }), 161),
            (json!({ "events": { "m.room.tombstone": 100 } }), 100),
        ] {
            let wish = json!({ "room_version": "12", "power_level_content_override": asked });
            let levels = state(&alice, &alice.creates(wish).await, "m.room.power_levels").await;
            assert_eq!(levels["events"]["m.room.tombstone"], closes, "{levels}");
        }
        let wish = json!({ "room_version": "11", "power_level_content_override": { "events": {} } });
        let levels = state(&alice, &alice.creates(wish).await, "m.room.power_levels").await;
        assert_eq!(levels["events"], json!({}));
        server.stop().await;
    }

    async fn a_room_calls_itself_only_what_leads_to_it(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        alice.creates(json!({ "room_alias_name": "kitchen" })).await;
        let named = |content: Value| json!([{ "type": "m.room.canonical_alias", "content": content }]);
        for content in [
            json!({ "alias": "#kitchen:test.example" }),
            json!({ "alias": "#nothing:test.example" }),
            json!({ "alias": "#cellar:test.example", "alt_aliases": ["#kitchen:test.example"] }),
        ] {
            let wish = json!({ "initial_state": named(content), "room_alias_name": "cellar" });
            alice.post("/createRoom", wish).await.refused(400, "M_BAD_ALIAS");
        }
        let odd = json!({ "initial_state": named(json!({ "alias": 3 })) });
        alice.post("/createRoom", odd).await.refused(400, "M_BAD_JSON");
        alice.get("/directory/room/%23cellar:test.example").await.refused(404, "M_NOT_FOUND");
        let content = json!({ "alt_aliases": ["#cellar:test.example"] });
        let room = alice.creates(json!({ "initial_state": named(content.clone()), "room_alias_name": "cellar" })).await;
        assert_eq!(state(&alice, &room, "m.room.canonical_alias").await, content);
        for localpart in ["", "a:b", "a:b.example", "a\0", &"a".repeat(260)] {
            let wish = json!({ "room_alias_name": localpart });
            alice.post("/createRoom", wish).await.refused(400, "M_INVALID_PARAM");
        }
        assert_eq!(alice.get("/joined_rooms").await.ok()["joined_rooms"].as_array().unwrap().len(), 2);
        server.stop().await;
    }

    async fn who_is_named_twice_is_invited_once(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        for version in ["11", "12"] {
            let wish = json!({ "room_version": version, "preset": "trusted_private_chat", "invite": [bob.id, bob.id] });
            let room = alice.creates(wish).await;
            let all = alice.reads(&room, "messages?dir=f&limit=50").await.ok();
            let of_bob = |event: &&Value| event["state_key"] == bob.id;
            assert_eq!(all["chunk"].as_array().unwrap().iter().filter(of_bob).count(), 1, "{all}");
        }
        server.stop().await;
    }

    async fn what_is_named_outside_of_the_initial_state_wins(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let wish = json!({
            "visibility": "public", "name": "Kitchen", "topic": "tea",
            "initial_state": [
                { "type": "m.room.name", "content": { "name": "Cellar" } },
                { "type": "m.room.topic", "content": { "topic": "wine" } },
                { "type": "m.room.guest_access", "content": { "guest_access": "can_join" } },
            ],
        });
        let room = alice.creates(wish).await;
        assert_eq!(state(&alice, &room, "m.room.name").await["name"], "Kitchen");
        assert_eq!(state(&alice, &room, "m.room.topic").await["topic"], "tea");
        // Without a preset, what is public to find is public to join.
        assert_eq!(state(&alice, &room, "m.room.join_rules").await["join_rule"], "public");
        assert_eq!(state(&alice, &room, "m.room.guest_access").await["guest_access"], "can_join");
        assert_eq!(bob.get("/publicRooms").await.ok()["chunk"][0]["room_id"], room);

        // And what can't be done leaves nothing behind.
        for (wish, status, errcode) in [
            (json!({ "invite_3pid": [{ "id_server": "x.example", "id_access_token": "t", "medium": "email", "address": "a@b.c" }] }), 400, "M_INVALID_PARAM"),
            (json!({ "invite": ["@a:elsewhere.example"] }), 403, "M_FORBIDDEN"),
            (json!({ "invite": ["nobody"] }), 400, "M_BAD_JSON"),
            (json!({ "invite": [alice.id] }), 400, "M_INVALID_ROOM_STATE"),
            (json!({ "initial_state": [{ "type": "m.room.name" }] }), 400, "M_BAD_JSON"),
            (json!({ "initial_state": [{ "type": "m.room.name", "content": 3 }] }), 400, "M_BAD_JSON"),
            (json!({ "initial_state": [{ "type": "m.room.name", "content": { "name": "x".repeat(70_000) } }] }), 413, "M_TOO_LARGE"),
            (json!({ "creation_content": 3 }), 400, "M_BAD_JSON"),
            (json!({ "creation_content": { "m.federate": "odd" } }), 400, "M_BAD_JSON"),
            (json!({ "power_level_content_override": { "ban": "odd" } }), 400, "M_INVALID_ROOM_STATE"),
            (json!({ "power_level_content_override": { "state_default": 101 }, "room_version": "11", "name": "x" }), 400, "M_INVALID_ROOM_STATE"),
            (json!({ "visibility": "odd" }), 400, "M_INVALID_PARAM"),
        ] {
            let mut wish = wish;
            wish["room_alias_name"] = "half".into();
            let refused = alice.post("/createRoom", wish.clone()).await;
            assert_eq!((refused.status, refused.json()["errcode"].as_str().unwrap()), (status, errcode), "{wish}: {}", refused.text);
        }
        alice.get(&format!("/directory/room/{}", escaped("#half:test.example"))).await.refused(404, "M_NOT_FOUND");
        assert_eq!(alice.get("/joined_rooms").await.ok()["joined_rooms"], json!([room]));
        server.stop().await;
    }
}
