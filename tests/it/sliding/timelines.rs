//! The timelines of rooms: limits, gaps, and more of them than before.

use super::*;
use crate::support::people::escaped;

each_backend! {
    async fn what_is_new_is_told_once(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let (slider, wish) = (Slider::of(&bob), all_rooms(20, of_a_list()));
        let page = slider.asks(&wish).await;
        assert_eq!(timeline_of(&page, &room).len(), 7, "from the beginning: {page}");
        assert_eq!((page["rooms"][&room].get("limited"), &page["rooms"][&room]["num_live"]), (None, &json!(0)));

        let mut told = Vec::new();
        for n in 0..5 {
            let message = alice.says(&room, &n.to_string()).await;
            let page = slider.asks(&wish).await;
            assert_eq!(timeline_of(&page, &room), [message.clone()]);
            let shown = &page["rooms"][&room];
            assert_eq!((&shown["num_live"], shown.get("limited"), shown.get("initial")), (&json!(1), None, None));
            let event = &shown["timeline"][0];
            assert_eq!((&event["sender"], &event["unsigned"]["membership"]), (&json!(alice.id), &json!("join")));
            assert!(event["unsigned"]["age"].is_u64() && event.get("room_id").is_none(), "{event}");
            slider.is_told_nothing(&wish).await;
            told.push(message);
        }
        // The device that sent it knows it by the id of its transaction.
        let own = bob.says(&room, "mine").await;
        let page = slider.asks(&wish).await;
        assert_eq!(timeline_of(&page, &room), [own]);
        assert!(page["rooms"][&room]["timeline"][0]["unsigned"]["transaction_id"].is_string(), "{page}");
        // A state event is in the timeline, and what it replaced beside it.
        alice.sets(&room, "m.room.topic", "", json!({ "topic": "one" })).await.ok();
        slider.asks(&wish).await;
        alice.sets(&room, "m.room.topic", "", json!({ "topic": "two" })).await.ok();
        let page = slider.asks(&wish).await;
        let shown = &page["rooms"][&room];
        assert_eq!(shown["timeline"][0]["unsigned"]["prev_content"]["topic"], "one");
        assert_eq!(shown["required_state"][0]["content"]["topic"], "two");
        // What was redacted is told with its redaction.
        alice.redacts(&room, &told[4]).await.ok();
        let page = slider.asks(&wish).await;
        assert_eq!(page["rooms"][&room]["timeline"][0]["redacts"], told[4]);
        let page = Slider::of(&bob).asks(&wish).await;
        let redacted = page["rooms"][&room]["timeline"].as_array().unwrap().iter().find(|e| e["event_id"] == told[4]);
        let redacted = redacted.unwrap();
        assert!(redacted["content"].as_object().unwrap().is_empty() && redacted["unsigned"]["redacted_because"].is_object());
    }

    async fn of_more_than_is_asked_for_the_newest_is_told_and_where_to_go_on(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.creates(json!({})).await;
        let (slider, wish) = (Slider::of(&alice), all_rooms(3, json!([["m.room.topic", ""]])));
        slider.asks(&wish).await;
        let mut all = Vec::new();
        for n in 0..6 {
            all.push(alice.says(&room, &n.to_string()).await);
            if n == 1 {
                alice.sets(&room, "m.room.topic", "", json!({ "topic": "in the gap" })).await.ok();
            }
        }
        let page = slider.asks(&wish).await;
        let shown = &page["rooms"][&room];
        assert_eq!((timeline_of(&page, &room), &shown["limited"]), (all[3..].to_vec(), &json!(true)));
        assert_eq!(shown["required_state"][0]["content"]["topic"], "in the gap");
        let from = escaped(shown["prev_batch"].as_str().unwrap());
        let before = alice.pages(&room, &format!("dir=b&limit=100&from={from}")).await;
        assert_eq!((&before[0], &before[2]), (&all[2], &all[1]));
        // A place on the connection is one in the room, too.
        let from = escaped(page["pos"].as_str().unwrap());
        assert_eq!(alice.pages(&room, &format!("dir=b&limit=100&from={from}")).await[0], all[5]);
        // Nothing of the timeline is wanted.
        alice.says(&room, "more").await;
        let page = slider.asks(&all_rooms(0, json!([]))).await;
        assert_eq!((timeline_of(&page, &room), &page["rooms"][&room]["limited"]), (vec![], &json!(true)));
    }

    async fn whoever_wants_more_of_a_timeline_is_told_at_once(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.creates(json!({})).await;
        let mut all = Vec::new();
        for n in 0..8 {
            all.push(alice.says(&room, &n.to_string()).await);
        }
        let slider = Slider::of(&alice);
        let page = slider.asks(&all_rooms(1, json!([]))).await;
        assert_eq!(timeline_of(&page, &room), all[7..]);
        let poll = slider.waits(&all_rooms(5, json!([]))).await;
        let page = poll.ends().await;
        slider.goes_back_to(page["pos"].as_str().map(str::to_owned));
        let shown = &page["rooms"][&room];
        assert_eq!((timeline_of(&page, &room), &shown["limited"]), (all[3..].to_vec(), &json!(true)));
        assert_eq!((&shown["unstable_expanded_timeline"], shown.get("initial")), (&json!(true), None));
        assert_eq!(shown["num_live"], 0);
        // Less, and then as much as before without a gap: nothing is told again.
        slider.is_told_nothing(&all_rooms(1, json!([]))).await;
        all.push(alice.says(&room, "8").await);
        let page = slider.asks(&all_rooms(1, json!([]))).await;
        assert_eq!(timeline_of(&page, &room), all[8..]);
        slider.is_told_nothing(&all_rooms(5, json!([]))).await;
        // But where there was a gap.
        for n in 9..12 {
            all.push(alice.says(&room, &n.to_string()).await);
        }
        let page = slider.asks(&all_rooms(1, json!([]))).await;
        assert_eq!((timeline_of(&page, &room), &page["rooms"][&room]["limited"]), (all[11..].to_vec(), &json!(true)));
        let page = slider.asks(&all_rooms(5, json!([]))).await;
        assert_eq!(timeline_of(&page, &room), all[7..]);
        // All that there is was told: there is no more.
        let page = slider.asks(&all_rooms(100, json!([]))).await;
        assert_eq!((timeline_of(&page, &room).len(), page["rooms"][&room].get("limited")), (18, None));
        slider.is_told_nothing(&all_rooms(101, json!([]))).await;
    }

    async fn who_waits_is_woken_by_what_is_in_view(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let (slider, wish) = (Slider::of(&bob), all_rooms(5, of_a_list()));
        slider.asks(&wish).await;
        let poll = slider.waits(&wish).await;
        let message = alice.says(&room, "wake up").await;
        let page = poll.ends().await;
        assert_eq!(timeline_of(&page, &room), [message]);
        slider.goes_back_to(page["pos"].as_str().map(str::to_owned));
        // An invite to a room that nobody here has heard of.
        let poll = slider.waits(&wish).await;
        let private = alice.creates(json!({ "invite": [bob.id] })).await;
        let page = poll.ends().await;
        assert_eq!(rooms_in(&page), [&private]);
        slider.goes_back_to(page["pos"].as_str().map(str::to_owned));
        // And a session that ends.
        let poll = slider.waits(&wish).await;
        server.is_waited_for_by(1).await;
        bob.post("/logout", json!({})).await.ok();
        assert_eq!(poll.ends().await["pos"].as_str().map(str::to_owned), slider.pos());
    }
}
