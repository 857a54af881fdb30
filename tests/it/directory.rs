//! The directory: names of rooms, rooms that show themselves to strangers, people who can be found.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    each_backend,
    people::{Person, open_server},
};

fn alias(name: &str) -> String {
    format!("/directory/room/%23{name}:test.example")
}

/// The ids of the rooms on a page of the list.
fn listed(page: &Value) -> Vec<&str> {
    page["chunk"].as_array().unwrap().iter().map(|room| room["room_id"].as_str().unwrap()).collect()
}

each_backend! {
    async fn a_room_is_found_by_its_name(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.creates(json!({ "preset": "public_chat" })).await;
        let names = format!("/rooms/{room}/aliases");
        assert_eq!(alice.get(&names).await.ok()["aliases"], json!([]));

        bob.put(&alias("den"), json!({ "room_id": room })).await.refused(403, "M_FORBIDDEN");
        alice.put(&alias("den"), json!({ "room_id": room })).await.ok();
        alice.put(&alias("den"), json!({ "room_id": room })).await.refused(409, "M_UNKNOWN");
        let found = server.get(&format!("/_matrix/client/v3{}", alias("den"))).await.ok();
        assert_eq!(found, json!({ "room_id": room, "servers": ["test.example"] }));
        assert_eq!(alice.get(&names).await.ok()["aliases"], json!(["#den:test.example"]));
        bob.get(&names).await.refused(403, "M_FORBIDDEN");
        bob.post("/join/%23den:test.example", json!({})).await.ok();

        bob.send(Method::DELETE, &alias("den"), None).await.refused(403, "M_FORBIDDEN");
        alice.send(Method::DELETE, &alias("den"), None).await.ok();
        alice.send(Method::DELETE, &alias("den"), None).await.refused(404, "M_NOT_FOUND");
        bob.put(&alias("den"), json!({ "room_id": room })).await.ok();
        alice.send(Method::DELETE, &alias("den"), None).await.ok();
    }

    async fn a_room_calls_itself_only_what_leads_to_it(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.creates(json!({ "room_alias_name": "den" })).await;
        let other = alice.creates(json!({ "room_alias_name": "attic" })).await;
        let state = format!("/rooms/{room}/state/m.room.canonical_alias");
        let refused = |content: Value, errcode: &'static str| {
            let (alice, state) = (&alice, &state);
            async move { alice.put(state, content).await.refused(400, errcode) }
        };
        refused(json!({ "alias": "den" }), "M_INVALID_PARAM").await;
        refused(json!({ "alias": "#nothing:test.example" }), "M_BAD_ALIAS").await;
        refused(json!({ "alias": "#attic:test.example" }), "M_BAD_ALIAS").await;
        refused(json!({ "alt_aliases": ["#attic:test.example"] }), "M_BAD_ALIAS").await;
        alice.put(&alias("lair"), json!({ "room_id": room })).await.ok();
        let both = json!({ "alias": "#den:test.example", "alt_aliases": ["#lair:test.example"] });
        alice.put(&state, both).await.ok();

        // A name that is taken away is one that the room no longer calls itself.
        alice.send(Method::DELETE, &alias("lair"), None).await.ok();
        assert_eq!(alice.get(&state).await.ok(), json!({ "alias": "#den:test.example" }));
        alice.send(Method::DELETE, &alias("den"), None).await.ok();
        assert_eq!(alice.get(&state).await.ok(), json!({}));
        let kept = alice.get(&format!("/rooms/{other}/state/m.room.canonical_alias")).await.ok();
        assert_eq!(kept, json!({ "alias": "#attic:test.example" }));
    }

    async fn public_rooms_are_listed_and_searched(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let small = json!({ "visibility": "public", "name": "Small talk", "topic": "Über alles", "room_alias_name": "small" });
        let small = alice.creates(small).await;
        let large = alice.creates(json!({ "preset": "public_chat", "name": "Large" })).await;
        let space = alice.creates(json!({ "visibility": "public", "creation_content": { "type": "m.space" } })).await;
        bob.joins(&large).await;
        let shown = format!("/directory/list/room/{large}");
        assert_eq!(bob.get(&shown).await.ok(), json!({ "visibility": "private" }));
        bob.put(&shown, json!({ "visibility": "public" })).await.refused(403, "M_FORBIDDEN");
        alice.put(&shown, json!({ "visibility": "public" })).await.ok();

        let page = server.get("/_matrix/client/v3/publicRooms?limit=2").await.ok();
        assert_eq!((listed(&page), &page["total_room_count_estimate"]), (vec![&*large, &*space], &json!(3)));
        let next = page["next_batch"].as_str().unwrap();
        let page = server.get(&format!("/_matrix/client/v3/publicRooms?limit=2&since={next}")).await.ok();
        assert_eq!((listed(&page), page.get("/next_batch")), (vec![&*small], None));
        // And back again, a page at a time.
        let before = page["prev_batch"].as_str().unwrap();
        let back = server.get(&format!("/_matrix/client/v3/publicRooms?limit=1&since={before}")).await.ok();
        assert_eq!(listed(&back), [&*space]);
        let next = back["next_batch"].as_str().unwrap();
        let again = server.get(&format!("/_matrix/client/v3/publicRooms?since={next}")).await.ok();
        assert_eq!(listed(&again), [&*small]);
        let before = back["prev_batch"].as_str().unwrap();
        let back = server.get(&format!("/_matrix/client/v3/publicRooms?limit=5&since={before}")).await.ok();
        assert_eq!((listed(&back), back.get("prev_batch")), (vec![&*large], None));
        for odd in ["f", "f_1", "x_1_1", "b_1_1_1", "f_a_1"] {
            let page = server.get(&format!("/_matrix/client/v3/publicRooms?since={odd}")).await;
            page.refused(400, "M_INVALID_PARAM");
        }
        let room = &page["chunk"][0];
        assert_eq!((&room["name"], &room["canonical_alias"]), (&json!("Small talk"), &json!("#small:test.example")));
        assert_eq!((&room["num_joined_members"], &room["world_readable"]), (&json!(1), &json!(false)));

        let search = async |filter: Value| bob.post("/publicRooms", json!({ "filter": filter })).await.ok();
        assert_eq!(listed(&search(json!({ "generic_search_term": "über" })).await), [&*small]);
        assert_eq!(listed(&search(json!({ "generic_search_term": "#SMALL" })).await), [&*small]);
        assert_eq!(listed(&search(json!({ "room_types": ["m.space"] })).await), [&*space]);

        alice.put(&shown, json!({ "visibility": "private" })).await.ok();
        let page = server.get("/_matrix/client/v3/publicRooms").await.ok();
        assert_eq!(listed(&page), [&*space, &*small]);
    }

    async fn people_are_found_by_those_who_may_know_them(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let search = async |who: &Person| {
            who.post("/user_directory/search", json!({ "search_term": "wonder" })).await.ok()["results"].clone()
        };
        alice.put(&format!("/profile/{}/displayname", alice.id), json!({ "displayname": "Wonderland" })).await.ok();
        assert_eq!(search(&bob).await, json!([]));
        let room = alice.creates(json!({ "preset": "private_chat", "invite": [bob.id] })).await;
        bob.joins(&room).await;
        assert_eq!(search(&bob).await, json!([{ "user_id": alice.id, "display_name": "Wonderland" }]));
        // What she calls herself in one room is that room's own.
        let own = json!({ "membership": "join", "displayname": "Wondrous" });
        alice.put(&format!("/rooms/{room}/state/m.room.member/{}", alice.id), own).await.ok();
        assert_eq!(search(&bob).await[0]["display_name"], "Wonderland");
        assert_eq!(search(&alice).await, json!([]));
    }
}
