//! Which rooms are told: lists, their ranges and filters, subscriptions.

use super::*;

fn list(ranges: Value, filters: Value) -> Value {
    let mut list = json!({ "timeline_limit": 1, "required_state": [] });
    list["ranges"] = ranges;
    list["filters"] = filters;
    json!({ "lists": { "some": list } })
}

each_backend! {
    async fn a_list_is_sorted_by_what_happened_last_and_told_by_ranges(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let mut rooms = Vec::new();
        for n in 0..5 {
            rooms.push(alice.creates(json!({ "name": format!("Room {n}") })).await);
        }
        let slider = Slider::of(&alice);
        let page = slider.asks(&list(json!([[0, 1]]), json!({}))).await;
        assert_eq!(page["lists"]["some"]["count"], 5);
        assert_eq!(rooms_in(&page), sorted(&[&rooms[4], &rooms[3]]));
        let newest = &page["rooms"][&rooms[4]];
        assert_eq!((&newest["initial"], &newest["name"]), (&json!(true), &json!("Room 4")));
        assert_eq!((&newest["joined_count"], &newest["limited"]), (&json!(1), &json!(true)));
        assert!(newest["bump_stamp"].as_u64() > page["rooms"][&rooms[3]]["bump_stamp"].as_u64(), "{page}");
        slider.is_told_nothing(&list(json!([[0, 1]]), json!({}))).await;

        // A wider range tells what it has more; several are one.
        let page = slider.asks(&list(json!([[0, 0], [1, 2]]), json!({}))).await;
        assert_eq!(rooms_in(&page), [&rooms[2]]);
        // What happens beyond the range moves a room into it.
        let message = alice.says(&rooms[0], "up").await;
        let page = slider.asks(&list(json!([[0, 0]]), json!({}))).await;
        assert_eq!(rooms_in(&page), [&rooms[0]]);
        assert_eq!(page["rooms"][&rooms[0]]["initial"], true);
        assert_eq!(timeline_of(&page, &rooms[0]), [message]);
        // A state event moves it, but is not what people sort by.
        let stamp = page["rooms"][&rooms[0]]["bump_stamp"].clone();
        alice.sets(&rooms[1], "m.room.topic", "", json!({ "topic": "t" })).await.ok();
        alice.sets(&rooms[0], "m.room.topic", "", json!({ "topic": "t" })).await.ok();
        let page = slider.asks(&list(json!([[0, 0]]), json!({}))).await;
        assert_eq!((rooms_in(&page), &page["rooms"][&rooms[0]]["bump_stamp"]), (vec![rooms[0].as_str()], &stamp));
        let page = slider.asks(&list(json!([[1, 1]]), json!({}))).await;
        assert_eq!(rooms_in(&page), [&rooms[1]]);
        // Out of range, and in again: what happened in between, and no more.
        let first = alice.says(&rooms[1], "one").await;
        let second = alice.says(&rooms[0], "two").await;
        let page = slider.asks(&list(json!([[0, 0]]), json!({}))).await;
        assert_eq!((rooms_in(&page), timeline_of(&page, &rooms[0])), (vec![rooms[0].as_str()], vec![second]));
        let page = slider.asks(&list(json!([[0, 1]]), json!({}))).await;
        assert_eq!((rooms_in(&page), timeline_of(&page, &rooms[1])), (vec![rooms[1].as_str()], vec![first]));
        assert_eq!(page["rooms"][&rooms[1]].get("initial"), None);
    }

    async fn lists_are_filtered(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let plain = alice.creates(json!({})).await;
        let encryption = json!({ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } });
        let secret = alice.creates(json!({ "initial_state": [encryption] })).await;
        let space = alice.creates(json!({ "creation_content": { "type": "m.space" } })).await;
        let odd = alice.creates(json!({ "creation_content": { "type": "org.example.odd" } })).await;
        let direct = alice.creates(json!({ "is_direct": true })).await;
        let invite = bob.creates(json!({ "invite": [alice.id] })).await;
        alice.put(&format!("/user/{}/account_data/m.direct", alice.id), json!({ &bob.id: [direct] })).await.ok();
        let tag = format!("/user/{}/rooms/{}/tags/m.favourite", alice.id, crate::support::people::escaped(&plain));
        alice.put(&tag, json!({})).await.ok();

        let all = [&plain, &secret, &space, &odd, &direct, &invite];
        let but = |not: &[&String]| all.iter().copied().filter(|room| !not.contains(room)).collect::<Vec<_>>();
        for (filters, expected) in [
            (json!({}), all.to_vec()),
            (json!({ "is_dm": true }), vec![&direct]),
            (json!({ "is_dm": false }), but(&[&direct])),
            (json!({ "is_encrypted": true }), vec![&secret]),
            (json!({ "is_encrypted": false }), but(&[&secret])),
            (json!({ "is_invite": true }), vec![&invite]),
            (json!({ "is_invited": true }), vec![&invite]),
            (json!({ "is_invite": false }), but(&[&invite])),
            (json!({ "room_types": ["m.space"] }), vec![&space]),
            (json!({ "room_types": ["m.space", null] }), but(&[&odd])),
            (json!({ "room_types": [null], "is_invite": false }), vec![&plain, &secret, &direct]),
            (json!({ "not_room_types": ["m.space"] }), but(&[&space])),
            (json!({ "room_types": ["m.space"], "not_room_types": ["m.space"] }), vec![]),
            (json!({ "tags": ["m.favourite"] }), vec![&plain]),
            (json!({ "not_tags": ["m.favourite"] }), but(&[&plain])),
            (json!({ "tags": ["m.favourite"], "not_tags": ["m.favourite"] }), vec![]),
        ] {
            let page = Slider::of(&alice).asks(&list(json!([[0, 99]]), filters.clone())).await;
            assert_eq!(rooms_in(&page), sorted(&expected), "{filters}");
            assert_eq!(page["lists"]["some"]["count"], expected.len(), "{filters}");
        }

        // What a room becomes moves it between lists.
        let slider = Slider::of(&alice);
        let page = slider.asks(&list(json!([[0, 99]]), json!({ "is_dm": true }))).await;
        assert_eq!(page["rooms"][&direct]["is_dm"], true);
        let both = json!({ &bob.id: [direct, plain] });
        alice.put(&format!("/user/{}/account_data/m.direct", alice.id), both).await.ok();
        let page = slider.asks(&list(json!([[0, 99]]), json!({ "is_dm": true }))).await;
        assert_eq!((rooms_in(&page), &page["rooms"][&plain]["is_dm"]), (vec![plain.as_str()], &json!(true)));
        alice.put(&format!("/user/{}/account_data/m.direct", alice.id), json!({})).await.ok();
        let page = slider.asks(&list(json!([[0, 99]]), json!({}))).await;
        assert_eq!(page["rooms"][&plain], json!({
            "is_dm": false, "bump_stamp": page["rooms"][&plain]["bump_stamp"], "num_live": 0,
            "notification_count": 0, "highlight_count": 0, "prev_batch": page["rooms"][&plain]["prev_batch"],
        }));
        alice.sets(&plain, "m.room.encryption", "", json!({ "algorithm": "m.megolm.v1.aes-sha2" })).await.ok();
        let page = slider.asks(&list(json!([[0, 99]]), json!({ "is_encrypted": true }))).await;
        assert_eq!(page["lists"]["some"]["count"], 2, "{page}");
    }

    async fn a_list_may_be_of_what_is_in_spaces(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let space = async |who: &Person| {
            who.creates(json!({ "preset": "public_chat", "creation_content": { "type": "m.space" } })).await
        };
        let (one, two, below, his) = (space(&alice).await, space(&alice).await, space(&alice).await, space(&bob).await);
        let (a, b, deep) = (alice.opens_a_room().await, alice.opens_a_room().await, alice.opens_a_room().await);
        let (none, theirs) = (alice.opens_a_room().await, bob.opens_a_room().await);
        let holds = async |who: &Person, space: &String, room: &String, via: Value| {
            who.sets(space, "m.space.child", room, json!({ "via": via })).await.ok();
        };
        for (space, room) in [(&one, &a), (&one, &below), (&one, &theirs), (&two, &b), (&below, &deep), (&none, &b)] {
            holds(&alice, space, room, json!(["test.example"])).await;
        }
        holds(&alice, &one, &none, json!([])).await;
        holds(&bob, &his, &none, json!(["test.example"])).await;
        let of = |spaces: &[&String]| list(json!([[0, 99]]), json!({ "spaces": spaces }));
        let nowhere = "!nowhere:x".to_owned();
        for (spaces, expected) in [
            (&[&one][..], vec![&a, &below]),
            (&[&two], vec![&b]),
            (&[&one, &two, &nowhere], vec![&a, &below, &b]),
            (&[&below], vec![&deep]),
            // Which no room is, which is none, where she is not.
            (&[&nowhere], vec![]),
            (&[&none], vec![]),
            (&[&his], vec![]),
        ] {
            let page = Slider::of(&alice).asks(&of(spaces)).await;
            assert_eq!((rooms_in(&page), &page["lists"]["some"]["count"]), (sorted(&expected), &json!(expected.len())));
        }
        let nested = list(json!([[0, 99]]), json!({ "spaces": [one], "room_types": ["m.space"] }));
        assert_eq!(rooms_in(&Slider::of(&alice).asks(&nested).await), [&*below]);

        // Whoever waits is told of a room that comes in, and of none that has gone.
        let slider = Slider::of(&alice);
        slider.asks(&of(&[&one])).await;
        let poll = slider.waits(&of(&[&one])).await;
        holds(&alice, &one, &b, json!(["test.example"])).await;
        let page = poll.ends().await;
        assert_eq!((rooms_in(&page), &page["lists"]["some"]["count"]), (vec![b.as_str()], &json!(3)));
        slider.goes_back_to(page["pos"].as_str().map(str::to_owned));
        alice.sets(&one, "m.space.child", &a, json!({})).await.ok();
        alice.says(&a, "out").await;
        let inside = alice.says(&b, "in").await;
        let page = slider.asks(&of(&[&one])).await;
        assert_eq!((rooms_in(&page), timeline_of(&page, &b)), (vec![b.as_str()], vec![inside]));
        assert_eq!(page["lists"]["some"]["count"], 2);
        // As long as nothing happens in the space, it is not looked at.
        let before = server.work();
        for n in 0..3 {
            alice.says(&b, &n.to_string()).await;
            assert_eq!(rooms_in(&slider.asks(&of(&[&one])).await), [&*b]);
        }
        assert!(!server.work_since(&before).contains_key("space_children"), "{:?}", server.work_since(&before));
        slider.tries(&list(json!([[0, 1]]), json!({ "spaces": "all" }))).await.refused(400, "M_BAD_JSON");
        let many: Vec<String> = (0..201).map(|n| format!("!{n}:x")).collect();
        slider.tries(&list(json!([[0, 1]]), json!({ "spaces": many }))).await.refused(400, "M_INVALID_PARAM");
    }

    async fn a_room_that_is_subscribed_to_is_told_of_wherever_it_stands(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let (quiet, busy) = (alice.opens_a_room().await, alice.opens_a_room().await);
        let private = bob.creates(json!({})).await;
        let slider = Slider::of(&alice);
        let wish = |rooms: &[&String]| {
            let one = json!({ "timeline_limit": 3, "required_state": [["m.room.create", ""]] });
            let rooms: serde_json::Map<_, _> = rooms.iter().map(|room| ((*room).clone(), one.clone())).collect();
            let mut wish = list(json!([[0, 0]]), json!({}));
            wish["room_subscriptions"] = rooms.into();
            wish
        };
        let unknown = "!nowhere:example.org".to_owned();
        let page = slider.asks(&wish(&[&quiet, &private, &unknown])).await;
        assert_eq!(rooms_in(&page), sorted(&[&quiet, &busy]), "none that she may not see, or that there is not");
        assert_eq!(timeline_of(&page, &quiet).len(), 3);
        assert_eq!(state_of(&page, &quiet), [("m.room.create".to_owned(), String::new())]);
        assert_eq!((timeline_of(&page, &busy).len(), state_of(&page, &busy)), (1, vec![]));
        alice.says(&busy, "hello").await;
        let message = alice.says(&quiet, "hello").await;
        alice.says(&busy, "hello").await;
        let page = slider.asks(&wish(&[&quiet])).await;
        assert_eq!(timeline_of(&page, &quiet), [message]);
        // Without the subscription it is one of the list's rooms, and not in its range.
        alice.says(&quiet, "anybody?").await;
        alice.says(&busy, "here").await;
        let page = slider.asks(&wish(&[])).await;
        assert_eq!(rooms_in(&page), [&busy]);
        // Whoever is let in later is told then.
        bob.invites(&private, &alice).await;
        alice.joins(&private).await;
        let page = slider.asks(&wish(&[&private])).await;
        assert_eq!(page["rooms"][&private]["initial"], true);
    }

    async fn what_asks_too_much_is_refused(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let slider = Slider::of(&alice);
        let one = json!({ "ranges": [[0, 9]], "timeline_limit": 1, "required_state": [] });
        let many = |n: usize| (0..n).map(|n| (n.to_string(), one.clone())).collect::<serde_json::Map<_, _>>();
        slider.asks(&json!({ "lists": many(100) })).await;
        slider.tries(&json!({ "lists": many(101) })).await.refused(400, "M_INVALID_PARAM");
        let rooms = |n: usize| (0..n).map(|n| (format!("!{n}:x"), one.clone())).collect::<serde_json::Map<_, _>>();
        slider.asks(&json!({ "room_subscriptions": rooms(100) })).await;
        slider.tries(&json!({ "room_subscriptions": rooms(101) })).await.refused(400, "M_INVALID_PARAM");
        let list = |field: &str, value: Value| {
            let mut list = one.clone();
            list[field] = value;
            json!({ "lists": { "a": list } })
        };
        let required = |n: usize| list("required_state", (0..n).map(|n| json!(["t", n.to_string()])).collect());
        slider.asks(&required(200)).await;
        slider.tries(&required(201)).await.refused(400, "M_INVALID_PARAM");
        let ranges = |n: usize| list("ranges", (0..n).map(|n| json!([n, n])).collect());
        slider.asks(&ranges(20)).await;
        slider.tries(&ranges(21)).await.refused(400, "M_INVALID_PARAM");
        slider.tries(&list("ranges", json!([[1, 0]]))).await.refused(400, "M_INVALID_PARAM");
        slider.tries(&list("ranges", json!([[-1, 0]]))).await.refused(400, "M_BAD_JSON");
        slider.tries(&list("required_state", json!([["a"]]))).await.refused(400, "M_BAD_JSON");
        slider.tries(&list("filters", json!({ "tags": 3 }))).await.refused(400, "M_BAD_JSON");
        let longest = "x".repeat(64);
        Slider::named(&alice, &longest).asks(&json!({ "lists": { &longest: one } })).await;
        let long = "x".repeat(65);
        Slider::named(&alice, &long).tries(&json!({})).await.refused(400, "M_INVALID_PARAM");
        slider.tries(&json!({ "lists": { &long: one } })).await.refused(400, "M_INVALID_PARAM");
        // A timeline may be asked for at any length: so much is told.
        let room = alice.opens_a_room().await;
        for n in 0..110 {
            alice.says(&room, &n.to_string()).await;
        }
        let page = Slider::of(&alice).asks(&all_rooms(100_000, json!([]))).await;
        assert_eq!((timeline_of(&page, &room).len(), &page["rooms"][&room]["limited"]), (100, &json!(true)));
        let path = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
        server.post(path, &json!({})).await.refused(401, "M_MISSING_TOKEN");
    }
}
