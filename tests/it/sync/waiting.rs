//! Who waits for news: what wakes them, and what ends it.

use super::*;

each_backend! {
    async fn a_long_poll_ends_with_its_session(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let stolen = alice.logs_in_on(&server).await;
        alice.syncs().await;
        stolen.syncs().await;
        let (waiting, robbed) = (alice.waits().await, stolen.waits().await);
        server.is_waited_for_by(2).await;
        let since = stolen.since();

        stolen.post("/logout", json!({})).await.ok();
        assert_eq!(robbed.ends().await, json!({ "device_one_time_keys_count": {}, "next_batch": since }));
        stolen.get(&format!("/sync?since={since}")).await.refused(401, "M_UNKNOWN_TOKEN");
        // Who asked for the end may be asked to look again, and goes on.
        let since = waiting.ends().await["next_batch"].as_str().unwrap().to_owned();
        let room = alice.opens_a_room().await;
        let page = alice.sync(&format!("timeout=0&since={since}")).await;
        assert!(page["rooms"]["join"][&room].is_object(), "{page}");
    }

    async fn who_waits_is_woken(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        bob.syncs().await;

        let poll = bob.waits().await;
        let message = alice.says(&room, "wake up").await;
        assert_eq!(timeline(&poll.ends().await, &room), [message.clone()]);
        bob.sees(&room, &message).await;

        let poll = bob.waits().await;
        alice.types(&room, true).await;
        let page = poll.ends().await;
        assert_eq!(ephemeral(&page, &room, "m.typing").unwrap()["content"]["user_ids"], json!([alice.id]));
        bob.syncs().await;

        let poll = bob.waits().await;
        alice.has_read(&room, "m.read", &message).await;
        let page = poll.ends().await;
        assert!(ephemeral(&page, &room, "m.receipt").unwrap()["content"][&message]["m.read"].get(&alice.id).is_some());
        bob.syncs().await;

        // What is one's own is for one's other devices only.
        let phone = bob.logs_in_on(&server).await;
        // That she is there, too, is news.
        alice.syncs().await;
        phone.syncs().await;
        let poll = phone.waits().await;
        bob.has_read(&room, "m.read.private", &message).await;
        let page = poll.ends().await;
        let content = &ephemeral(&page, &room, "m.receipt").unwrap()["content"];
        assert!(content[&message]["m.read.private"].get(&bob.id).is_some());
        alice.sees_nothing_of(&room).await;
        phone.syncs().await;
        let poll = phone.waits().await;
        bob.keeps(None, "org.example.k", json!({ "n": 1 })).await;
        assert!(of_type(&poll.ends().await["account_data"]["events"], "org.example.k").is_some());
        phone.syncs().await;
        bob.syncs().await;

        // A room that he has not been in.
        let poll = bob.waits().await;
        let private = alice.creates(json!({ "preset": "private_chat", "name": "Secret", "invite": [bob.id] })).await;
        let page = poll.ends().await;
        let invite = &page["rooms"]["invite"][&private]["invite_state"]["events"];
        assert_eq!(of_type(invite, "m.room.name").unwrap()["content"]["name"], "Secret");
        let own = invite.as_array().unwrap().iter().find(|e| e["state_key"] == bob.id).unwrap();
        assert_eq!((&own["content"]["membership"], own.get("event_id")), (&json!("invite"), None));
        bob.syncs().await;
        let poll = bob.waits().await;
        bob.joins(&private).await;
        poll.ends().await;
        bob.syncs().await;
        let poll = bob.waits().await;
        let message = alice.says(&private, "among us").await;
        assert_eq!(timeline(&poll.ends().await, &private), [message]);
        bob.syncs().await;
        let poll = bob.waits().await;
        alice.does("kick", &private, &bob).await;
        assert!(poll.ends().await["rooms"]["leave"].get(&private).is_some());
        bob.syncs().await;
        alice.says(&private, "without him").await;
        bob.sees_nothing_of(&private).await;
        server.stop().await;
    }

    async fn who_follows_misses_nothing_while_many_write(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let dave = Person::registers(&server, "dave").await;
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        dave.joins(&room).await;
        dave.syncs().await;
        let before = alice.pages(&room, "dir=f&limit=100").await;
        let hers = async {
            let mut written = Vec::new();
            for n in 0..12 {
                written.push(alice.says(&room, &n.to_string()).await);
                written.push(event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": n })).await));
                alice.types(&room, n % 2 == 0).await;
            }
            written
        };
        let his = async {
            let mut written = Vec::new();
            for n in 0..30 {
                written.push(bob.says(&room, &n.to_string()).await);
                bob.has_read(&room, "m.read", &written[n]).await;
            }
            written
        };
        let both = async {
            let (hers, his) = futures_util::future::join(hers, his).await;
            [hers, his].concat()
        };
        let seen = follows(&[dave], &room, both).await;
        assert_eq!([before, seen].concat(), alice.pages(&room, "dir=f&limit=100").await);
        server.stop().await;
    }

    async fn a_typing_notice_does_not_outlive_its_process(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let (room, other) = (alice.opens_a_room().await, alice.opens_a_room().await);
        bob.joins(&room).await;
        bob.joins(&other).await;
        alice.says(&other, "quiet here").await;
        bob.syncs().await;
        let before = bob.since();
        alice.types(&room, true).await;
        let page = bob.syncs().await;
        assert_eq!(ephemeral(&page, &room, "m.typing").unwrap()["content"], json!({ "user_ids": [alice.id] }));
        bob.sees_nothing_of(&room).await;
        // News from memory in between: he has seen her type all the same.
        alice.says(&other, "still quiet").await;
        assert!(ephemeral(&bob.syncs().await, &room, "m.typing").is_none());
        // Who comes into the room is told, too.
        let carol = Person::registers(&server, "carol").await;
        carol.syncs().await;
        carol.joins(&room).await;
        assert!(ephemeral(&carol.syncs().await, &room, "m.typing").is_some());
        assert!(server.stop().await);

        let server = open_server(given).await;
        let (alice, bob) = (alice.turns_to(&server), bob.turns_to(&server));
        // A poll doesn't wait for somebody who will never be told to have stopped.
        let poll = bob.waits().await;
        let page = poll.ends().await;
        let notice = ephemeral(&page, &room, "m.typing").unwrap();
        assert_eq!(notice["content"], json!({ "user_ids": [] }));
        assert!(bob.syncs().await["rooms"]["join"].get(&room).is_some());
        bob.sees_nothing_of(&room).await;
        let page = bob.sync(&format!("timeout=0&since={before}")).await;
        assert!(ephemeral(&page, &room, "m.typing").is_none(), "who saw nobody type is told nothing");
        alice.types(&room, true).await;
        let page = bob.sync(&format!("timeout=0&since={before}")).await;
        assert!(ephemeral(&page, &room, "m.typing").is_some() && ephemeral(&page, &other, "m.typing").is_none());
        server.stop().await;
    }

    async fn typing_for_no_time_is_told_as_nobody_typing(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        bob.syncs().await;
        let before = bob.since();
        alice.types(&room, true).await;
        alice.types(&room, false).await;
        let page = bob.sync(&format!("timeout=0&since={before}")).await;
        let notice = ephemeral(&page, &room, "m.typing").unwrap();
        assert_eq!((&notice["content"]["user_ids"], notice.get("room_id")), (&json!([]), None));
        let path = format!("/rooms/{}/typing/{}", escaped(&room), escaped(&alice.id));
        alice.put(&path, json!({ "typing": true, "timeout": 0 })).await.ok();
        let page = bob.sync(&format!("timeout=0&since={before}")).await;
        assert_eq!(ephemeral(&page, &room, "m.typing").unwrap()["content"]["user_ids"], json!([]));
        bob.put(&path, json!({ "typing": true, "timeout": 0 })).await.refused(403, "M_FORBIDDEN");
        server.stop().await;
    }

    async fn who_waits_is_answered_when_the_server_stops(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        alice.syncs().await;
        let polls = [alice.waits().await, alice.waits().await];
        server.is_waited_for_by(polls.len()).await;
        assert!(server.stop().await, "everybody was answered");
        for poll in polls {
            let page = poll.ends().await;
            assert_eq!(page["next_batch"].as_str(), Some(alice.since().as_str()));
            assert!(page["rooms"]["join"].get(&room).is_none());
        }
    }
}
