//! Rooms that one comes into and leaves, what they are called, what of their state is told.

use super::*;

each_backend! {
    async fn an_invite_becomes_a_room(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let (slider, wish) = (Slider::of(&bob), all_rooms(10, of_a_list()));
        slider.is_told_nothing(&wish).await;
        let room = alice.creates(json!({ "name": "Kitchen", "preset": "private_chat" })).await;
        alice.says(&room, "a secret").await;
        alice.invites(&room, &bob).await;
        let page = slider.asks(&wish).await;
        let shown = &page["rooms"][&room];
        let invite = &shown["invite_state"];
        assert_eq!(of_type(invite, "m.room.name").unwrap()["content"]["name"], "Kitchen");
        assert!(of_type(invite, "m.room.member").is_some() && of_type(invite, "m.room.message").is_none());
        let own = invite.as_array().unwrap().iter().find(|e| e["state_key"] == bob.id).unwrap();
        assert_eq!(own["content"]["membership"], "invite");
        for not_for_strangers in ["timeline", "required_state", "joined_count", "heroes", "prev_batch"] {
            assert_eq!(shown.get(not_for_strangers), None, "{page}");
        }
        alice.says(&room, "another").await;
        slider.is_told_nothing(&wish).await;

        bob.joins(&room).await;
        let page = slider.asks(&wish).await;
        let shown = &page["rooms"][&room];
        assert_eq!((&shown["initial"], shown.get("invite_state")), (&json!(true), None));
        assert_eq!((&shown["name"], &shown["joined_count"]), (&json!("Kitchen"), &json!(2)));
        assert!(state_of(&page, &room).contains(&("m.room.create".to_owned(), String::new())));

        // One that is turned down is told of as left, to who was told of it.
        let other = alice.creates(json!({ "invite": [bob.id] })).await;
        slider.asks(&wish).await;
        bob.leaves(&other).await;
        let page = slider.asks(&wish).await;
        let own = &page["rooms"][&other]["timeline"][0];
        assert_eq!((&own["state_key"], &own["content"]["membership"]), (&json!(bob.id), &json!("leave")));
        // Clients go by the state that is shown, and take a room that shows none for one that they are in.
        let own_in = |page: &Value, room: &String| {
            let state = page["rooms"][room]["required_state"].as_array().cloned().unwrap_or_default();
            state.iter().map(|e| (e["state_key"].clone(), e["content"]["membership"].clone())).collect::<Vec<_>>()
        };
        assert_eq!(own_in(&page, &other), [(json!(bob.id), json!("leave"))], "{page}");
        slider.is_told_nothing(&wish).await;
        // So is one that is taken back, also to who asks for no event of the timeline.
        let quiet = Slider::of(&bob);
        let none = all_rooms(0, of_a_list());
        let other = alice.creates(json!({ "invite": [bob.id] })).await;
        for (slider, wish) in [(&slider, &wish), (&quiet, &none)] {
            assert!(slider.asks(wish).await["rooms"][&other]["invite_state"].is_array());
        }
        alice.does("kick", &other, &bob).await;
        for (slider, wish) in [(&slider, &wish), (&quiet, &none)] {
            let page = slider.asks(wish).await;
            assert_eq!(own_in(&page, &other), [(json!(bob.id), json!("leave"))], "{page}");
        }
        let page = Slider::of(&bob).asks(&wish).await;
        assert_eq!((rooms_in(&page), &page["lists"]["all"]["count"]), (vec![room.as_str()], &json!(1)));
        // Of whom he ignores he hears nothing.
        bob.ignores(&[&alice]).await;
        alice.creates(json!({ "invite": [bob.id] })).await;
        let page = slider.asks(&wish).await;
        assert_eq!((rooms_in(&page), &page["lists"]["all"]["count"]), (vec![], &json!(1)));
    }

    async fn who_leaves_hears_of_it_and_no_more(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let (slider, wish) = (Slider::of(&bob), all_rooms(10, of_a_list()));
        slider.asks(&wish).await;
        let before = alice.says(&room, "before").await;
        bob.leaves(&room).await;
        alice.sets(&room, "m.room.topic", "", json!({ "topic": "secret" })).await.ok();
        alice.says(&room, "after").await;
        let page = slider.asks(&wish).await;
        let told = timeline_of(&page, &room);
        assert_eq!((told.len(), &told[0]), (2, &before), "{page}");
        assert_eq!(page["rooms"][&room]["timeline"][1]["content"]["membership"], "leave");
        assert!(members_of(&page, &room).contains(&bob.id), "{page}");
        assert!(!state_of(&page, &room).iter().any(|(kind, _)| kind == "m.room.topic"));
        alice.says(&room, "much later").await;
        let page = slider.asks(&wish).await;
        assert_eq!((rooms_in(&page), &page["lists"]["all"]["count"]), (vec![], &json!(0)));
        // A new connection knows nothing of it; who asks for it by name sees what it was.
        let page = Slider::of(&bob).asks(&wish).await;
        assert_eq!((rooms_in(&page), &page["lists"]["all"]["count"]), (vec![], &json!(0)));
        let by_name = json!({ "room_subscriptions": { &room: { "timeline_limit": 10, "required_state": [["*", "*"]] } } });
        let page = Slider::of(&bob).asks(&by_name).await;
        assert_eq!(page["rooms"][&room]["timeline"].as_array().unwrap().last().unwrap()["content"]["membership"], "leave");
        assert!(!state_of(&page, &room).iter().any(|(kind, _)| kind == "m.room.topic"));
        assert_eq!(page["rooms"][&room].get("joined_count"), None, "who is there now is not for him");

        // Who comes again begins anew.
        bob.joins(&room).await;
        let page = slider.asks(&wish).await;
        assert_eq!(page["rooms"][&room]["initial"], true);
        // Who is sent away is told so, also on new connections, unless they put the room away.
        alice.does("kick", &room, &bob).await;
        alice.says(&room, "gone").await;
        for connection in [&slider, &Slider::of(&bob)] {
            let page = connection.asks(&wish).await;
            let last = page["rooms"][&room]["timeline"].as_array().unwrap().last().unwrap().clone();
            assert_eq!((&last["sender"], &last["content"]["membership"]), (&json!(alice.id), &json!("leave")));
            assert_eq!(page["lists"]["all"]["count"], 1);
            connection.is_told_nothing(&wish).await;
        }
        bob.asks(&room, "forget", json!({})).await.ok();
        alice.does("ban", &room, &bob).await;
        let page = slider.asks(&wish).await;
        assert_eq!(page["rooms"][&room]["timeline"][0]["content"]["membership"], "ban");
        slider.is_told_nothing(&wish).await;
        // Banned without ever having been there.
        let carol = Person::registers(&server, "carol").await;
        alice.does("ban", &room, &carol).await;
        Slider::of(&carol).is_told_nothing(&wish).await;
    }

    async fn what_was_said_before_one_came_stays_hidden(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let joined_only = json!({ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } });
        let room = alice.creates(json!({ "preset": "public_chat", "initial_state": [joined_only] })).await;
        let secret = alice.says(&room, "secret").await;
        bob.joins(&room).await;
        let said = alice.says(&room, "hello").await;
        let slider = Slider::of(&bob);
        let page = slider.asks(&all_rooms(1, json!([]))).await;
        assert_eq!(timeline_of(&page, &room), [said.clone()]);
        let page = slider.asks(&all_rooms(50, json!([]))).await;
        let told = timeline_of(&page, &room);
        assert!(told.contains(&said) && !told.contains(&secret), "{page}");
        // Nor is what was said while he was away, whatever the connection knows.
        bob.leaves(&room).await;
        let away = alice.says(&room, "while he is away").await;
        bob.joins(&room).await;
        let page = slider.asks(&all_rooms(50, json!([]))).await;
        assert!(!timeline_of(&page, &room).contains(&away) && !timeline_of(&page, &room).is_empty(), "{page}");
    }

    async fn whom_one_ignores_is_not_heard(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let (slider, wish) = (Slider::of(&bob), all_rooms(10, json!([])));
        slider.asks(&wish).await;
        alice.says(&room, "warm").await;
        slider.asks(&wish).await;
        bob.ignores(&[&alice]).await;
        slider.asks(&wish).await;
        alice.says(&room, "unheard").await;
        slider.is_told_nothing(&wish).await;
        let own = bob.says(&room, "anybody?").await;
        let page = slider.asks(&wish).await;
        assert_eq!(timeline_of(&page, &room), [own]);
    }

    async fn whom_one_ignores_is_not_counted(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let (slider, wish) = (Slider::of(&bob), all_rooms(10, json!([])));
        slider.asks(&wish).await;
        alice.says(&room, "one").await;
        let unread = async || slider.asks(&wish).await["rooms"][&room]["notification_count"].clone();
        assert_eq!(unread().await, 1);
        bob.ignores(&[&alice]).await;
        assert_eq!(unread().await, 0);
        alice.says(&room, "unheard").await;
        slider.is_told_nothing(&wish).await;
        bob.ignores(&[]).await;
        assert_eq!(unread().await, 2);
        slider.is_told_nothing(&wish).await;
    }

    async fn the_end_of_a_room_is_told_to_who_has_forgotten_it(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.creates(json!({ "preset": "private_chat", "invite": [bob.id] })).await;
        let (slider, wish) = (Slider::of(&bob), all_rooms(10, json!([["m.room.member", "$ME"]])));
        assert!(slider.asks(&wish).await["rooms"][&room]["invite_state"].is_array());
        bob.joins(&room).await;
        alice.asks(&room, "ban", json!({ "user_id": bob.id })).await.ok();
        bob.asks(&room, "forget", json!({})).await.ok();
        let page = slider.asks(&wish).await;
        assert_eq!(state_of(&page, &room), [("m.room.member".to_owned(), bob.id.clone())], "{page}");
        slider.is_told_nothing(&wish).await;
        // Who begins then is told nothing of it.
        assert_eq!(Slider::of(&bob).asks(&wish).await["rooms"], json!({}));
    }

    async fn the_state_that_is_asked_for_is_told(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.creates(json!({ "name": "A", "topic": "T" })).await;
        let slider = Slider::of(&alice);
        let key = |kind: &str| (kind.to_owned(), String::new());
        let page = slider.asks(&all_rooms(1, json!([["m.room.name", ""], ["m.room.avatar", ""]]))).await;
        assert_eq!(state_of(&page, &room), [key("m.room.name")]);
        // The name is told to who doesn't ask for the event, too.
        let page = Slider::of(&alice).asks(&all_rooms(1, json!([]))).await;
        assert_eq!((state_of(&page, &room), &page["rooms"][&room]["name"]), (vec![], &json!("A")));

        // What is wanted besides is told at once; what is not wanted any more, not.
        let page = slider.asks(&all_rooms(1, json!([["m.room.name", ""], ["m.room.topic", ""]]))).await;
        assert!(state_of(&page, &room).contains(&key("m.room.topic")), "{page}");
        assert_eq!((timeline_of(&page, &room), page["rooms"][&room].get("initial")), (vec![], None));
        slider.is_told_nothing(&all_rooms(1, json!([["m.room.topic", ""]]))).await;
        alice.sets(&room, "m.room.name", "", json!({ "name": "B" })).await.ok();
        let page = slider.asks(&all_rooms(1, json!([["m.room.topic", ""]]))).await;
        assert_eq!((state_of(&page, &room), &page["rooms"][&room]["name"]), (vec![], &json!("B")));
        let page = slider.asks(&all_rooms(1, json!([["*", "*"]]))).await;
        let all = state_of(&page, &room);
        assert!(all.contains(&key("m.room.create")) && all.contains(&("m.room.member".to_owned(), alice.id.clone())));
        slider.is_told_nothing(&all_rooms(1, json!([["*", ""]]))).await;
        alice.sets(&room, "org.example.s", "a", json!({})).await.ok();
        alice.sets(&room, "org.example.s", "b", json!({})).await.ok();
        let page = slider.asks(&all_rooms(5, json!([["org.example.s", "b"]]))).await;
        assert_eq!(state_of(&page, &room), [("org.example.s".to_owned(), "b".to_owned())]);
        assert_eq!(timeline_of(&page, &room).len(), 5, "{page}");
        // An avatar comes and goes.
        alice.sets(&room, "m.room.avatar", "", json!({ "url": "mxc://x/y" })).await.ok();
        let page = slider.asks(&all_rooms(5, json!([]))).await;
        assert_eq!(page["rooms"][&room]["avatar"], "mxc://x/y");
        alice.sets(&room, "m.room.avatar", "", json!({})).await.ok();
        let page = slider.asks(&all_rooms(5, json!([]))).await;
        assert_eq!(page["rooms"][&room].get("avatar"), Some(&Value::Null));
    }

    async fn what_is_unread_is_counted(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let (slider, wish) = (Slider::of(&bob), all_rooms(10, json!([])));
        slider.asks(&wish).await;
        let mut last = String::new();
        for n in 1..4 {
            last = alice.says(&room, "hello").await;
            let page = slider.asks(&wish).await;
            assert_eq!(page["rooms"][&room]["notification_count"], n, "{page}");
        }
        let receipt = |kind: &str| format!("receipt/{kind}/{last}");
        bob.asks(&room, &receipt("m.read"), json!({})).await.ok();
        let page = slider.asks(&wish).await;
        assert_eq!(page["rooms"][&room]["notification_count"], 0);
        assert_eq!(timeline_of(&page, &room), [""; 0]);
        slider.is_told_nothing(&wish).await;
        let last = alice.says(&room, "bob: are you there?").await;
        let page = slider.asks(&wish).await;
        assert_eq!(page["rooms"][&room]["notification_count"], 1);
        // In private, on another device.
        let phone = bob.logs_in_on(&server).await;
        phone.asks(&room, &format!("receipt/m.read.private/{last}"), json!({})).await.ok();
        let page = slider.asks(&wish).await;
        assert_eq!(page["rooms"][&room]["notification_count"], 0, "{page}");
        slider.is_told_nothing(&wish).await;
    }
}
