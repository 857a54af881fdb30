//! Connections: lost answers, restarts, positions that nobody knows.

use super::*;
use crate::support::{people::escaped, program::Program};

fn messages(person: &Person, body: &str) -> Value {
    json!({ "messages": { &person.id: { &person.device: { "body": body } } } })
}

fn to_device(since: Option<&str>) -> Value {
    let mut wish = all_rooms(10, json!([]));
    wish["extensions"] = json!({ "to_device": { "enabled": true, "since": since } });
    wish
}

fn bodies(page: &Value) -> Vec<String> {
    let events = page["extensions"]["to_device"]["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().map(|event| event["content"]["body"].as_str().unwrap().to_owned()).collect()
}

fn next_batch(page: &Value) -> String {
    page["extensions"]["to_device"]["next_batch"].as_str().unwrap().to_owned()
}

each_backend! {
    async fn a_lost_answer_is_told_again(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let (slider, wish) = (Slider::of(&bob), all_rooms(10, of_a_list()));
        slider.asks(&wish).await;
        let one = alice.says(&room, "one").await;
        let before = slider.pos();
        let first = slider.asks(&wish).await;
        let two = alice.says(&room, "two").await;
        slider.goes_back_to(before.clone());
        let again = slider.asks(&wish).await;
        assert_eq!(timeline_of(&first, &room), [one.clone()]);
        assert_eq!(timeline_of(&again, &room), [one.clone(), two]);
        // With another wish, too.
        slider.goes_back_to(before.clone());
        let by_name = json!({ "room_subscriptions": { &room: { "timeline_limit": 20, "required_state": [] } } });
        assert!(timeline_of(&slider.asks(&by_name).await, &room).contains(&one));
        // Once a later position has come back, the one before is gone.
        slider.asks(&wish).await;
        slider.goes_back_to(before);
        slider.tries(&wish).await.refused(400, "M_UNKNOWN_POS");
    }

    async fn what_a_lost_answer_told_beside_the_timeline_is_told_again(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let (slider, mut wish) = (Slider::of(&alice), all_rooms(10, json!([])));
        let on = json!({ "enabled": true });
        wish["extensions"] = json!({ "account_data": on, "receipts": on });
        slider.asks(&wish).await;
        let before = slider.pos();
        let message = bob.says(&room, "hello").await;
        bob.asks(&room, &format!("receipt/m.read/{}", escaped(&message)), json!({})).await.ok();
        let user = format!("/user/{}", alice.id);
        alice.put(&format!("{user}/account_data/m.direct"), json!({ &bob.id: [room] })).await.ok();
        alice.put(&format!("{user}/rooms/{}/account_data/org.example.b", escaped(&room)), json!({ "n": 2 })).await.ok();
        let told = |page: &Value| {
            let (shown, beside) = (&page["rooms"][&room], &page["extensions"]);
            let receipts = &beside["receipts"]["rooms"][&room]["content"][&message]["m.read"];
            let of_room = of_type(&beside["account_data"]["rooms"][&room], "org.example.b");
            (
                (shown["notification_count"].clone(), shown["is_dm"].clone(), receipts.get(&bob.id).is_some()),
                of_type(&beside["account_data"]["global"], "m.direct").map(|event| event["content"].clone()),
                of_room.map(|event| event["content"].clone()),
            )
        };
        let all = ((json!(1), json!(true), true), Some(json!({ &bob.id: [room] })), Some(json!({ "n": 2 })));
        assert_eq!(told(&slider.asks(&wish).await), all);
        slider.goes_back_to(before.clone());
        assert_eq!(told(&slider.asks(&wish).await), all, "once more");
        // What has changed meanwhile is told as it is now.
        alice.asks(&room, &format!("receipt/m.read/{}", escaped(&message)), json!({})).await.ok();
        alice.put(&format!("{user}/account_data/m.direct"), json!({})).await.ok();
        slider.goes_back_to(before);
        let page = slider.asks(&wish).await;
        let now = told(&page);
        assert_eq!((&now.0.0, now.0.2, &now.1, &now.2), (&json!(0), true, &Some(json!({})), &all.2), "{page}");
        assert_ne!(now.0.1, json!(true), "{page}");
        let page = slider.asks(&wish).await;
        assert_eq!((&page["rooms"], page["extensions"].get("receipts")), (&json!({}), None), "{page}");
    }

    async fn a_position_is_of_one_connection_of_one_device(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let phone = alice.logs_in_on(&server).await;
        let room = alice.opens_a_room().await;
        let (slider, wish) = (Slider::of(&alice), all_rooms(10, json!([])));
        slider.asks(&wish).await;
        let other = Slider::named(&alice, "other");
        other.goes_back_to(slider.pos());
        other.tries(&wish).await.refused(400, "M_UNKNOWN_POS");
        slider.moves_to(&phone).tries(&wish).await.refused(400, "M_UNKNOWN_POS");
        for odd in ["nonsense", "s1_1_2_3", "p1_1_1"] {
            other.goes_back_to(Some(odd.to_owned()));
            other.tries(&wish).await.refused(400, "M_UNKNOWN_POS");
        }
        // Each is told by itself.
        other.goes_back_to(None);
        assert_eq!(other.asks(&wish).await["rooms"][&room]["initial"], true);
        let message = alice.says(&room, "hello").await;
        for slider in [&slider, &other] {
            assert_eq!(timeline_of(&slider.asks(&wish).await, &room), [message.clone()]);
        }
        // Of too many the oldest goes.
        let mut many = Vec::new();
        for n in 0..8 {
            let slider = Slider::named(&alice, &n.to_string());
            server.clock.advance(1_000);
            slider.asks(&wish).await;
            many.push(slider);
        }
        slider.tries(&wish).await.refused(400, "M_UNKNOWN_POS");
        many[0].is_told_nothing(&wish).await;
        // A device that is gone has none; nor has one that takes its name.
        let txn = json!({ "txn_id": "abc", "lists": {} });
        assert_eq!(many[0].asks(&txn).await["txn_id"], "abc");
    }

    async fn a_connection_outlives_the_server(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let (room, quiet) = (alice.opens_a_room().await, alice.opens_a_room().await);
        for room in [&room, &quiet] {
            bob.joins(room).await;
        }
        let mut wish = all_rooms(10, of_a_list());
        wish["lists"]["all"]["ranges"] = json!([[0, 0]]);
        let slider = Slider::of(&bob);
        let last = alice.says(&quiet, "seen").await;
        assert!(timeline_of(&slider.asks(&wish).await, &quiet).contains(&last));
        let missed = alice.says(&quiet, "not seen").await;
        alice.says(&room, "up").await;
        slider.asks(&wish).await;
        let before = slider.pos();
        let one = alice.says(&room, "one").await;
        let lost = slider.asks(&wish).await;
        assert_eq!(timeline_of(&lost, &room), [one.clone()]);
        assert!(server.stop().await);

        let server = open_server(given).await;
        let (alice, bob) = (alice.turns_to(&server), bob.turns_to(&server));
        let after = slider.pos();
        let slider = slider.moves_to(&bob);
        // The last answer may have been lost, or not.
        slider.goes_back_to(before);
        assert_eq!(timeline_of(&slider.asks(&wish).await, &room), [one]);
        slider.goes_back_to(after);
        let two = alice.says(&room, "two").await;
        let page = slider.asks(&wish).await;
        assert_eq!((timeline_of(&page, &room), page["rooms"][&room].get("initial")), (vec![two], None));
        // Where it was left, the other room goes on.
        wish["lists"]["all"]["ranges"] = json!([[0, 9]]);
        let page = slider.asks(&wish).await;
        assert_eq!((timeline_of(&page, &quiet), page["rooms"][&quiet].get("initial")), (vec![missed], None));
    }

    async fn after_a_kill_a_client_begins_anew_once_and_misses_nothing(given: Given) {
        let program = Program::start(given).await;
        let (alice, bob) = (Person::registers(&program.http, "alice").await, Person::registers(&program.http, "bob").await);
        let slider = Slider::of(&bob);
        let page = slider.asks(&to_device(None)).await;
        let since = next_batch(&page);
        alice.put("/sendToDevice/m.x/1", messages(&bob, "one")).await.ok();
        // Of this answer it keeps the position, and not yet what it said.
        assert_eq!(bodies(&slider.asks(&to_device(Some(&since))).await), ["one"]);
        program.dies().await;

        let server = open_server(given).await;
        let (alice, bob) = (alice.turns_to(&server), bob.turns_to(&server));
        let last = slider.pos();
        let slider = slider.moves_to(&bob);
        slider.goes_back_to(last);
        slider.tries(&to_device(Some(&since))).await.refused(400, "M_UNKNOWN_POS");
        slider.goes_back_to(None);
        alice.put("/sendToDevice/m.x/2", messages(&bob, "two")).await.ok();
        let page = slider.asks(&to_device(Some(&since))).await;
        assert_eq!(bodies(&page), ["one", "two"]);
        let since = next_batch(&page);
        slider.is_told_nothing(&to_device(Some(&since))).await;
        server.stop().await;
    }

    async fn no_message_to_a_device_is_lost_with_a_position(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let slider = Slider::of(&bob);
        let page = slider.asks(&to_device(None)).await;
        let since = next_batch(&page);
        alice.put("/sendToDevice/m.x/1", messages(&bob, "one")).await.ok();
        let told = slider.asks(&to_device(Some(&since))).await;
        assert_eq!(bodies(&told), ["one"]);
        // The answer got lost, and then the position.
        slider.goes_back_to(Some("p1_1_1".to_owned()));
        slider.tries(&to_device(Some(&since))).await.refused(400, "M_UNKNOWN_POS");
        slider.goes_back_to(None);
        alice.put("/sendToDevice/m.x/2", messages(&bob, "two")).await.ok();
        let told = slider.asks(&to_device(Some(&since))).await;
        assert_eq!(bodies(&told), ["one", "two"]);
        // Who says that they have them is not told again, on whatever connection.
        let since = next_batch(&told);
        assert_eq!(bodies(&slider.asks(&to_device(Some(&since))).await), [""; 0]);
        assert_eq!(bodies(&Slider::of(&bob).asks(&to_device(None)).await), [""; 0]);
        // Another device's word is none.
        let phone = bob.logs_in_on(&server).await;
        alice.put("/sendToDevice/m.x/3", messages(&phone, "three")).await.ok();
        let theirs = Slider::of(&phone);
        assert_eq!(bodies(&theirs.asks(&to_device(Some(&since))).await), ["three"]);
        assert_eq!(bodies(&theirs.asks(&to_device(None)).await), ["three"]);
        // Whoever waits is woken.
        let page = slider.asks(&to_device(Some(&since))).await;
        let since = next_batch(&page);
        let poll = slider.waits(&to_device(Some(&since))).await;
        alice.put("/sendToDevice/m.x/4", messages(&bob, "four")).await.ok();
        assert_eq!(bodies(&poll.ends().await), ["four"]);
        // A queue is told in pieces.
        for n in 0..5 {
            alice.put(&format!("/sendToDevice/m.x/n{n}"), messages(&bob, &n.to_string())).await.ok();
        }
        let mut wish = to_device(Some(&since));
        wish["extensions"]["to_device"]["limit"] = 4.into();
        let page = slider.asks(&wish).await;
        assert_eq!(bodies(&page), ["four", "0", "1", "2"]);
        wish["extensions"]["to_device"]["since"] = page["extensions"]["to_device"]["next_batch"].clone();
        assert_eq!(bodies(&slider.asks(&wish).await), ["3", "4"]);
    }

    async fn who_follows_closely_is_told_from_memory(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let (room, other) = (alice.opens_a_room().await, alice.opens_a_room().await);
        for room in [&room, &other] {
            bob.joins(room).await;
            alice.says(room, "warm").await;
        }
        let mut wish = all_rooms(10, of_a_list());
        let on = json!({ "enabled": true });
        wish["extensions"] = json!({ "account_data": on, "receipts": on, "typing": on });
        let rooms = Slider::of(&bob);
        let keys = Slider::named(&bob, "encryption");
        let of_keys = Mutex::new(json!({ "extensions": { "e2ee": on, "to_device": on } }));
        let asks_for_keys = async || {
            let wish = of_keys.lock().unwrap().clone();
            let page = keys.asks(&wish).await;
            let next = page["extensions"]["to_device"]["next_batch"].clone();
            of_keys.lock().unwrap()["extensions"]["to_device"]["since"] = next;
        };
        rooms.asks(&wish).await;
        asks_for_keys().await;
        alice.says(&room, "warmer").await;
        rooms.asks(&wish).await;
        asks_for_keys().await;
        for turn in 0..3 {
            let message = alice.says(&room, "hello").await;
            let before = server.work();
            assert_eq!(timeline_of(&rooms.asks(&wish).await, &room), [message]);
            rooms.is_told_nothing(&wish).await;
            asks_for_keys().await;
            let work = server.work_since(&before);
            assert!(work.is_empty(), "turn {turn}: after a message was read {work:?}");
        }
        let poll = rooms.waits(&wish).await;
        server.is_waited_for_by(1).await;
        let before = server.work();
        let message = alice.says(&other, "wake up").await;
        assert_eq!(timeline_of(&poll.ends().await, &other), [message]);
        let work = server.work_since(&before);
        assert_eq!(work.keys().collect::<Vec<_>>(), [&"persist"], "{work:?}");
    }

    async fn a_list_of_rooms_that_are_known_is_sorted_in_memory(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let mut rooms = Vec::new();
        for _ in 0..20 {
            let room = alice.opens_a_room().await;
            bob.joins(&room).await;
            rooms.push(room);
        }
        let mut wish = all_rooms(1, of_a_list());
        wish["lists"]["all"]["ranges"] = json!([[0, 2]]);
        Slider::of(&alice).asks(&wish).await;
        let before = server.work();
        // Each time on a connection of its own, after news of a room that stood at the end.
        for n in 0..3 {
            bob.says(&rooms[n], "up").await;
            let newest = [n, (n + 19) % 20, (n + 18) % 20].map(|n| &rooms[n]);
            let page = Slider::of(&alice).asks(&wish).await;
            assert_eq!(rooms_in(&page), sorted(&newest), "{page}");
        }
        let work = server.work_since(&before);
        assert!(!work.contains_key("room_list"), "{work:?}");
    }

    async fn a_list_costs_the_same_however_many_rooms_there_are(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let cost = async || {
            let before = server.work();
            Slider::of(&alice).asks(&all_rooms(10, of_a_list())).await;
            server.work_since(&before)["sliding_page"].statements
        };
        alice.opens_a_room().await;
        let one = cost().await;
        for _ in 0..4 {
            alice.opens_a_room().await;
        }
        assert_eq!(cost().await, one);
    }
}
