//! Rooms as one sees them before one is in.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Reply, Server, each_backend,
    people::{Person, escaped, open_server},
};

async fn v1(server: &Server, person: Option<&Person>, path: &str) -> Reply {
    let request = server.request(Method::GET, &format!("/_matrix/client/v1{path}"));
    let request = match person {
        Some(person) => request.bearer_auth(&person.token),
        None => request,
    };
    server.send(request).await
}

async fn summary(server: &Server, person: Option<&Person>, room: &str) -> Reply {
    v1(server, person, &format!("/room_summary/{}", escaped(room))).await
}

async fn tree(server: &Server, person: &Person, room: &str, query: &str) -> Reply {
    v1(server, Some(person), &format!("/rooms/{}/hierarchy?{query}", escaped(room))).await
}

fn rooms(page: &Value) -> Vec<String> {
    page["rooms"].as_array().unwrap().iter().map(|room| room["room_id"].as_str().unwrap().to_owned()).collect()
}

async fn space(owner: &Person, preset: &str, name: &str) -> String {
    owner.creates(json!({ "preset": preset, "name": name, "creation_content": { "type": "m.space" } })).await
}

async fn holds(owner: &Person, space: &str, room: &str, more: Value) {
    let mut content = json!({ "via": ["test.example"] });
    content.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    owner.sets(space, "m.space.child", room, content).await.ok();
}

each_backend! {
    async fn a_room_is_summed_up_for_those_who_might_join(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let public = alice
            .creates(json!({
                "preset": "public_chat", "name": "Kitchen", "topic": "tea", "room_alias_name": "kitchen",
                "initial_state": [{ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } }],
            }))
            .await;
        for room in [&public, "#kitchen:test.example"] {
            let told = summary(&server, None, room).await.ok();
            assert_eq!((&told["room_id"], &told["name"], &told["topic"]), (&json!(public), &json!("Kitchen"), &json!("tea")));
            // That anybody may join goes without saying.
            assert_eq!((told.get("join_rule"), &told["num_joined_members"]), (None, &json!(1)));
            assert_eq!((&told["room_version"], &told["encryption"]), (&json!("12"), &json!("m.megolm.v1.aes-sha2")));
            assert_eq!((told.get("membership"), told.get("allowed_room_ids")), (None, None));
        }
        assert_eq!(summary(&server, Some(&alice), &public).await.ok()["membership"], "join");
        assert_eq!(summary(&server, Some(&bob), &public).await.ok()["membership"], "leave");

        let private = alice.creates(json!({ "preset": "private_chat" })).await;
        let rules = json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": public }] });
        let initial = json!([{ "type": "m.room.join_rules", "content": rules }]);
        let club = alice.creates(json!({ "preset": "private_chat", "initial_state": initial })).await;
        for room in [&private, &club] {
            summary(&server, None, room).await.refused(404, "M_NOT_FOUND");
            summary(&server, Some(&bob), room).await.refused(404, "M_NOT_FOUND");
            summary(&server, Some(&alice), room).await.ok();
        }
        bob.joins(&public).await;
        let told = summary(&server, Some(&bob), &club).await.ok();
        assert_eq!((&told["join_rule"], &told["allowed_room_ids"]), (&json!("restricted"), &json!([public])));
        alice.invites(&private, &bob).await;
        assert_eq!(summary(&server, Some(&bob), &private).await.ok()["membership"], "invite");
        bob.leaves(&private).await;
        summary(&server, Some(&bob), &private).await.refused(404, "M_NOT_FOUND");
        summary(&server, Some(&bob), "!nowhere:test.example").await.refused(404, "M_NOT_FOUND");
        summary(&server, Some(&bob), "#nowhere:test.example").await.refused(404, "M_NOT_FOUND");
        server.stop().await;
    }

    async fn a_space_shows_what_lies_below_it(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let root = space(&alice, "public_chat", "root").await;
        let sub = space(&alice, "public_chat", "sub").await;
        let secret = space(&alice, "private_chat", "secret").await;
        let [one, two, three, hidden] =
            [alice.opens_a_room().await, alice.opens_a_room().await, alice.opens_a_room().await, alice.opens_a_room().await];
        holds(&alice, &root, &one, json!({ "order": "b", "suggested": true })).await;
        holds(&alice, &root, &sub, json!({ "order": "a" })).await;
        holds(&alice, &root, &secret, json!({ "order": "c" })).await;
        holds(&alice, &root, &two, json!({})).await;
        holds(&alice, &sub, &three, json!({})).await;
        // Round and round, and nowhere.
        holds(&alice, &sub, &root, json!({})).await;
        holds(&alice, &sub, "!nowhere:test.example", json!({})).await;
        alice.sets(&root, "m.space.child", "no room", json!({ "via": ["test.example"] })).await.ok();
        holds(&alice, &secret, &hidden, json!({})).await;

        let all = tree(&server, &bob, &root, "").await.ok();
        assert_eq!(rooms(&all), [&root, &sub, &three, &one, &two].map(Clone::clone), "by order, each before what it holds");
        let links = &all["rooms"][0]["children_state"];
        let linked: Vec<&str> = links.as_array().unwrap().iter().map(|l| l["state_key"].as_str().unwrap()).collect();
        assert_eq!(linked, [&sub, &one, &secret, &two]);
        assert_eq!((&links[0]["type"], links[0].get("event_id")), (&json!("m.space.child"), None));
        assert_eq!((&all["rooms"][0]["room_type"], &all["rooms"][0]["name"]), (&json!("m.space"), &json!("root")));
        let hers = rooms(&tree(&server, &alice, &root, "").await.ok());
        assert_eq!(hers, [&root, &sub, &three, &one, &secret, &hidden, &two].map(Clone::clone));

        assert_eq!(rooms(&tree(&server, &bob, &root, "max_depth=1").await.ok()), [&root, &sub, &one, &two].map(Clone::clone));
        assert_eq!(rooms(&tree(&server, &bob, &root, "max_depth=0").await.ok()), [root.clone()]);
        assert_eq!(rooms(&tree(&server, &bob, &root, "suggested_only=true").await.ok()), [&root, &one].map(Clone::clone));
        let (mut paged, mut query) = (Vec::new(), "limit=2&max_depth=1".to_owned());
        loop {
            let page = tree(&server, &bob, &root, &query).await.ok();
            assert!(rooms(&page).len() <= 2);
            paged.extend(rooms(&page));
            let Some(next) = page["next_batch"].as_str() else { break };
            query = format!("limit=2&from={next}");
        }
        assert_eq!(paged, [&root, &sub, &one, &two].map(Clone::clone));

        tree(&server, &bob, &secret, "").await.refused(403, "M_FORBIDDEN");
        tree(&server, &bob, "!nowhere:test.example", "").await.refused(403, "M_FORBIDDEN");
        for from in ["nonsense", "1_2", "1_999_0", "1_1_2", "-1_1_0"] {
            tree(&server, &bob, &root, &format!("from={from}")).await.refused(400, "M_INVALID_PARAM");
        }
        // What was taken out of the space is not in it.
        alice.sets(&root, "m.space.child", &sub, json!({})).await.ok();
        assert_eq!(rooms(&tree(&server, &bob, &root, "").await.ok()), [&root, &one, &two].map(Clone::clone));
        server.stop().await;
    }
}
