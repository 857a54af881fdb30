//! Sliding sync in the form in which the proposal was accepted.

use reqwest::Method;

use super::*;
use crate::support::people::escaped;

const PATH: &str = "/_matrix/client/v4/sync";

/// One list of all rooms, with a name and this state of each.
fn all(limit: u32, required: Value) -> Value {
    let mut list = json!({ "timeline_limit": limit });
    list["required_state"] = required;
    json!({ "lists": { "all": list } })
}

impl Person {
    async fn tries_merged(&self, body: &Value) -> Reply {
        self.http().send(self.http().request(Method::POST, PATH).bearer_auth(&self.token).json(body)).await
    }

    /// What is new for who has this answer.
    async fn asks_merged(&self, wish: &Value, after: Option<&Value>) -> Value {
        let mut body = wish.clone();
        if let Some(after) = after {
            body["pos"] = after["pos"].clone();
        }
        self.tries_merged(&body).await.ok()
    }
}

each_backend! {
    async fn the_form_that_was_accepted_is_spoken_too(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.creates(json!({ "preset": "public_chat", "name": "Kitchen" })).await;
        let invite = bob.creates(json!({ "name": "Cellar", "invite": [alice.id] })).await;
        let wish = all(1, json!({ "include": [{ "type": "m.room.create", "state_key": "" }] }));
        let first = alice.asks_merged(&wish, None).await;
        assert_eq!((rooms_in(&first), &first["lists"]["all"]["count"]), (sorted(&[&room, &invite]), &json!(2)));
        let shown = &first["rooms"][&room];
        assert_eq!((&shown["name"], &shown["membership"], &shown["lists"]), (&json!("Kitchen"), &json!("join"), &json!(["all"])));
        assert_eq!((&shown["initial"], &shown["limited"], &shown["joined_count"]), (&json!(true), &json!(true), &json!(1)));
        assert_eq!(state_of(&first, &room), [("m.room.create".to_owned(), String::new())]);
        for gone in ["notification_count", "highlight_count", "invite_state", "unstable_expanded_timeline"] {
            assert_eq!(shown.get(gone), None, "{first}");
        }
        let stranger = &first["rooms"][&invite];
        assert_eq!((&stranger["membership"], stranger.get("timeline")), (&json!("invite"), None));
        assert_eq!(of_type(&stranger["stripped_state"], "m.room.name").unwrap()["content"]["name"], "Cellar");

        // A position is of the body, and so is how long to wait.
        let mut patient = wish.clone();
        patient["pos"] = first["pos"].clone();
        patient["timeout"] = 600_000.into();
        let poll = alice.tries_merged(&patient);
        let (page, message) = futures_util::future::join(poll, alice.says(&room, "hello")).await;
        let page = page.ok();
        assert_eq!((timeline_of(&page, &room), page["rooms"][&room].get("initial")), (vec![message], None));
        // More of the timeline is told again, and a name that goes is none.
        let mut more = wish.clone();
        more["lists"]["all"]["timeline_limit"] = 3.into();
        let page = alice.asks_merged(&more, Some(&page)).await;
        assert_eq!((&page["rooms"][&room]["expanded_timeline"], timeline_of(&page, &room).len()), (&json!(true), 3));
        alice.sets(&room, "m.room.name", "", json!({})).await.ok();
        let page = alice.asks_merged(&more, Some(&page)).await;
        assert_eq!(page["rooms"][&room].get("name"), Some(&Value::Null), "{page}");
        let page = alice.asks_merged(&more, Some(&page)).await;
        assert_eq!(page["rooms"], json!({}));
        // Pages of history go on from its positions.
        let history = alice.pages(&room, &format!("dir=b&from={}", page["pos"].as_str().unwrap())).await;
        assert!(history.len() > 4);
        alice.leaves(&invite).await;
        let page = alice.asks_merged(&more, Some(&page)).await;
        assert_eq!(page["rooms"][&invite]["membership"], "leave", "{page}");
        server.stop().await;
    }

    async fn rooms_are_in_lists_and_subscribed_to(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let (quiet, busy) = (alice.opens_a_room().await, alice.opens_a_room().await);
        let list = |range: Value| json!({ "timeline_limit": 1, "required_state": {}, "range": range });
        let one = json!({ "timeline_limit": 1, "required_state": {} });
        let wish = json!({ "lists": { "first": list(json!([0, 0])), "second": list(json!([1, 1])) } });
        let page = alice.asks_merged(&wish, None).await;
        assert_eq!((&page["rooms"][&busy]["lists"], &page["rooms"][&quiet]["lists"]), (&json!(["first"]), &json!(["second"])));
        let wish = json!({ "lists": { "a": list(json!([0, 0])), "b": one }, "room_subscriptions": { &quiet: one } });
        let page = alice.asks_merged(&wish, None).await;
        assert_eq!((&page["rooms"][&busy]["lists"], &page["rooms"][&quiet]["lists"]), (&json!(["a", "b"]), &json!(["b"])));
        let wish = json!({ "room_subscriptions": { &quiet: one } });
        let page = alice.asks_merged(&wish, None).await;
        assert_eq!((rooms_in(&page), page["rooms"][&quiet].get("lists")), (vec![&*quiet], None));
        assert_eq!(page["rooms"][&quiet].get("required_state"), None);
        server.stop().await;
    }

    async fn state_is_asked_for_by_what_it_is_and_what_not(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.creates(json!({ "preset": "public_chat", "name": "Kitchen", "topic": "tea" })).await;
        bob.joins(&room).await;
        alice.sets(&room, "org.example.x", "*", json!({})).await.ok();
        alice.sets(&room, "org.example.x", "y", json!({})).await.ok();
        alice.says(&room, "hello").await;
        let (member, word) = ("m.room.member", "org.example.x");
        let all_but = |not: Value| json!({ "include": [{}], "exclude": not });
        let told = async |required: Value| {
            let page = alice.asks_merged(&all(1, required), None).await;
            state_of(&page, &room)
        };
        let everything = told(all_but(json!([]))).await;
        let keys = |kind: &str, all: &[(String, String)]| -> Vec<String> {
            all.iter().filter(|(of, _)| of == kind).map(|(_, key)| key.clone()).collect()
        };
        let mut both = vec![alice.id.clone(), bob.id.clone()];
        both.sort_unstable();
        assert_eq!((keys(member, &everything), keys(word, &everything)), (both, vec!["*".to_owned(), "y".to_owned()]));
        for (required, kept) in [
            (json!({}), vec![]),
            (json!({ "include": [{ "type": word, "state_key": "*" }] }), vec![(word, "*")]),
            (json!({ "include": [{ "type": word }], "exclude": [{ "state_key": "*" }] }), vec![(word, "y")]),
            (json!({ "include": [{ "state_key": "y" }, { "type": member, "state_key": bob.id }] }), vec![(member, &*bob.id), (word, "y")]),
            (json!({ "include": [{ "type": member, "state_key": "$ME" }, { "type": member, "state_key": "$LAZY" }] }), vec![]),
            // Who spoke is told of, whatever is left out.
            (json!({ "exclude": [{ "type": member }], "lazy_members": true }), vec![(member, &*alice.id)]),
        ] {
            let kept: Vec<_> = kept.iter().map(|(kind, key)| ((*kind).to_owned(), (*key).to_owned())).collect();
            assert_eq!(told(required.clone()).await, kept, "{required}");
        }
        let but = |not: &dyn Fn(&(String, String)) -> bool| everything.iter().filter(|s| !not(s)).cloned().collect::<Vec<_>>();
        assert_eq!(told(all_but(json!([{ "type": member }]))).await, but(&|(kind, _)| kind == member));
        assert_eq!(told(all_but(json!([{ "type": member, "state_key": bob.id }]))).await, but(&|(_, key)| *key == bob.id));
        assert_eq!(told(all_but(json!([{ "state_key": "" }]))).await, but(&|(_, key)| key.is_empty()));
        let lazily = told(json!({ "include": [{}], "lazy_members": true })).await;
        assert_eq!(lazily, but(&|(_, key)| *key == bob.id));

        // What is left out no more is told.
        let page = alice.asks_merged(&all(1, all_but(json!([{ "type": word }]))), None).await;
        let page = alice.asks_merged(&all(1, all_but(json!([]))), Some(&page)).await;
        assert_eq!(keys(word, &state_of(&page, &room)), ["*", "y"], "{page}");
        server.stop().await;
    }

    async fn what_is_of_no_timeline_is_told_beside_the_rooms(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let root = alice.says(&room, "root").await;
        let answer = alice.answers_in_thread(&room, &root, "answer").await;
        let on = json!({ "enabled": true });
        let mut wish = all(10, json!({}));
        wish["extensions"] = json!({
            "account_data": on, "receipts": on, "typing": on, "to_device": on, "e2ee": on,
        });
        let first = alice.asks_merged(&wish, None).await;
        assert_eq!(first["extensions"]["e2ee"]["device_one_time_keys_count"], json!({ "signed_curve25519": 0 }), "{first}");
        let receipt = format!("receipt/m.read/{}", escaped(&answer));
        bob.asks(&room, &receipt, json!({ "thread_id": root })).await.ok();
        bob.put(&format!("/rooms/{}/typing/{}", escaped(&room), bob.id), json!({ "typing": true, "timeout": 30_000 })).await.ok();
        alice.put(&format!("/user/{}/account_data/org.example.a", alice.id), json!({ "n": 1 })).await.ok();
        let note = json!({ "messages": { &alice.id: { &alice.device: { "body": "note" } } } });
        bob.put("/sendToDevice/m.x/1", note).await.ok();
        let page = alice.asks_merged(&wish, Some(&first)).await;
        let beside = &page["extensions"];
        let read = &beside["receipts"]["rooms"][&room]["content"][&answer]["m.read"][&bob.id];
        assert_eq!(read["thread_id"], *root, "{page}");
        assert_eq!(beside["typing"]["rooms"][&room]["content"]["user_ids"], json!([bob.id]));
        assert_eq!(of_type(&beside["account_data"]["global"], "org.example.a").unwrap()["content"], json!({ "n": 1 }));
        assert_eq!(beside["to_device"]["events"][0]["content"]["body"], "note");
        // What was told is deleted with the token that says so, and told until then.
        wish["extensions"]["to_device"]["since"] = first["extensions"]["to_device"]["next_batch"].clone();
        let again = alice.asks_merged(&wish, Some(&first)).await;
        assert_eq!(again["extensions"]["to_device"]["events"][0]["content"]["body"], "note");
        wish["extensions"]["to_device"]["since"] = beside["to_device"]["next_batch"].clone();
        let page = alice.asks_merged(&wish, Some(&page)).await;
        assert_eq!((&page["rooms"], page["extensions"]["to_device"].get("events")), (&json!({}), None), "{page}");
        server.stop().await;
    }

    async fn what_is_asked_wrongly_is_refused(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let list = |list: Value| json!({ "lists": { "a": list } });
        alice.tries_merged(&list(json!({ "timeline_limit": 1 }))).await.refused(400, "M_MISSING_PARAM");
        alice.tries_merged(&list(json!({ "required_state": {} }))).await.refused(400, "M_MISSING_PARAM");
        let ranged = |range: Value| list(json!({ "timeline_limit": 1, "required_state": {}, "range": range }));
        alice.tries_merged(&ranged(json!([1, 0]))).await.refused(400, "M_INVALID_PARAM");
        alice.tries_merged(&ranged(json!([[0, 1]]))).await.refused(400, "M_BAD_JSON");
        let many = |n: usize| {
            let elements: Vec<Value> = (0..n).map(|n| json!({ "type": n.to_string() })).collect();
            all(1, json!({ "include": elements, "exclude": [{ "type": "x" }] }))
        };
        alice.tries_merged(&many(199)).await.ok();
        alice.tries_merged(&many(200)).await.refused(400, "M_INVALID_PARAM");
        let long = json!({ "include": [{ "state_key": "x".repeat(256) }] });
        alice.tries_merged(&all(1, long)).await.refused(400, "M_INVALID_PARAM");
        alice.tries_merged(&json!({ "set_presence": "asleep" })).await.refused(400, "M_INVALID_PARAM");
        alice.tries_merged(&json!({ "set_presence": "offline" })).await.ok();
        // A position is of one device of one user.
        let page = alice.asks_merged(&json!({}), None).await;
        for pos in [page["pos"].clone(), json!("nonsense")] {
            bob.tries_merged(&json!({ "pos": pos })).await.refused(400, "M_UNKNOWN_POS");
        }
        server.post(PATH, &json!({})).await.refused(401, "M_MISSING_TOKEN");
        server.stop().await;
    }
}
