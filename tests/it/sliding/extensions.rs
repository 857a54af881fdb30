//! What is told beside rooms.

use super::*;
use crate::{e2ee::one_time, support::people::escaped};

fn with(name: &str, wish: Value) -> Value {
    let mut all = all_rooms(10, json!([]));
    all["extensions"][name] = wish;
    all
}

each_backend! {
    async fn receipts_are_told_of_rooms_in_scope(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let old = alice.says(&room, "old").await;
        let message = alice.says(&room, "hello").await;
        bob.asks(&room, &format!("receipt/m.read/{message}"), json!({})).await.ok();
        alice.asks(&room, &format!("receipt/m.read.private/{old}"), json!({})).await.ok();
        let receipts = |page: &Value| page["extensions"]["receipts"]["rooms"][&room]["content"].clone();
        let slider = Slider::of(&alice);
        let page = slider.asks(&with("receipts", json!({ "enabled": true }))).await;
        assert!(receipts(&page)[&message]["m.read"].get(&bob.id).is_some(), "{page}");
        assert!(receipts(&page)[&old]["m.read.private"].get(&alice.id).is_some(), "{page}");
        let his = Slider::of(&bob).asks(&with("receipts", json!({ "enabled": true }))).await;
        assert!(receipts(&his).get(&old).is_none(), "it is private: {his}");
        // Of a room that begins, those of what is shown, and one's own.
        let mut short = with("receipts", json!({ "enabled": true }));
        short["lists"]["all"]["timeline_limit"] = 1.into();
        bob.says(&room, "newer").await;
        let page = Slider::of(&alice).asks(&short).await;
        assert!(receipts(&page).get(&message).is_none() && receipts(&page).get(&old).is_some(), "{page}");

        slider.asks(&with("receipts", json!({ "enabled": true }))).await;
        let poll = slider.waits(&with("receipts", json!({ "enabled": true }))).await;
        let last = alice.says(&room, "last").await;
        poll.ends().await;
        slider.asks(&with("receipts", json!({ "enabled": true }))).await;
        bob.asks(&room, &format!("receipt/m.read/{last}"), json!({})).await.ok();
        // Out of scope nothing is told, until it is.
        for scope in [
            json!({ "enabled": true, "lists": [] }),
            json!({ "enabled": true, "lists": ["other"], "rooms": ["*"] }),
            json!({ "enabled": false }),
        ] {
            let page = slider.asks(&with("receipts", scope.clone())).await;
            assert!(receipts(&page).is_null(), "{scope}: {page}");
        }
        let page = slider.asks(&with("receipts", json!({ "enabled": true, "lists": [], "rooms": [room] }))).await;
        assert!(receipts(&page)[&last]["m.read"].get(&bob.id).is_some(), "{page}");
        assert_eq!(page["rooms"], json!({}));
        let page = slider.asks(&with("receipts", json!({ "enabled": true }))).await;
        assert!(receipts(&page).is_null(), "{page}");
    }

    async fn who_types_is_told(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let typing = |on: bool| json!({ "typing": on, "timeout": 30_000 });
        let path = format!("/rooms/{}/typing/{}", escaped(&room), bob.id);
        let users = |page: &Value| page["extensions"]["typing"]["rooms"][&room]["content"]["user_ids"].clone();
        let (slider, wish) = (Slider::of(&alice), with("typing", json!({ "enabled": true })));
        let page = slider.asks(&wish).await;
        assert!(users(&page).is_null(), "{page}");
        let poll = slider.waits(&wish).await;
        bob.put(&path, typing(true)).await.ok();
        let page = poll.ends().await;
        assert_eq!((users(&page), &page["rooms"]), (json!([bob.id]), &json!({})));
        slider.goes_back_to(page["pos"].as_str().map(str::to_owned));
        assert!(users(&slider.asks(&wish).await).is_null());
        // Who begins is told who types.
        assert_eq!(users(&Slider::named(&alice, "b").asks(&wish).await), json!([bob.id]));
        let out = with("typing", json!({ "enabled": true, "lists": [], "rooms": [] }));
        assert!(users(&Slider::named(&alice, "c").asks(&out).await).is_null());
        bob.put(&path, typing(false)).await.ok();
        assert_eq!(users(&slider.asks(&wish).await), json!([]));
    }

    async fn account_data_is_told_of_the_account_and_of_rooms(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let data = |room: Option<&str>, kind: &str| match room {
            None => format!("/user/{}/account_data/{kind}", alice.id),
            Some(room) => format!("/user/{}/rooms/{}/account_data/{kind}", alice.id, escaped(room)),
        };
        alice.put(&data(None, "org.example.a"), json!({ "n": 1 })).await.ok();
        alice.put(&data(Some(&room), "org.example.b"), json!({ "n": 2 })).await.ok();
        let global = |page: &Value, kind: &str| {
            of_type(&page["extensions"]["account_data"]["global"], kind).map(|event| event["content"].clone())
        };
        let of_room = |page: &Value, kind: &str| {
            of_type(&page["extensions"]["account_data"]["rooms"][&room], kind).map(|event| event["content"].clone())
        };
        let (slider, wish) = (Slider::of(&alice), with("account_data", json!({ "enabled": true })));
        let page = slider.asks(&wish).await;
        assert_eq!((global(&page, "org.example.a"), of_room(&page, "org.example.b")), (Some(json!({ "n": 1 })), Some(json!({ "n": 2 }))));
        assert!(global(&page, "m.push_rules").is_some(), "{page}");
        let page = slider.asks(&wish).await;
        assert!(page["extensions"].get("account_data").is_none(), "{page}");
        let poll = slider.waits(&wish).await;
        alice.put(&data(None, "org.example.a"), json!({ "n": 3 })).await.ok();
        let page = poll.ends().await;
        assert_eq!(global(&page, "org.example.a"), Some(json!({ "n": 3 })));
        slider.goes_back_to(page["pos"].as_str().map(str::to_owned));
        alice.put(&data(Some(&room), "org.example.b"), json!({ "n": 4 })).await.ok();
        // Out of scope, and in again.
        let out = with("account_data", json!({ "enabled": true, "lists": [] }));
        assert_eq!(of_room(&slider.asks(&out).await, "org.example.b"), None);
        let page = slider.asks(&wish).await;
        assert_eq!((of_room(&page, "org.example.b"), &page["rooms"]), (Some(json!({ "n": 4 })), &json!({})));
    }

    async fn keys_are_counted_and_lists_of_devices_followed(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let wish = json!({ "extensions": { "e2ee": { "enabled": true } } });
        let slider = Slider::named(&alice, "encryption");
        let page = slider.asks(&wish).await;
        let e2ee = &page["extensions"]["e2ee"];
        assert_eq!(e2ee["device_one_time_keys_count"], json!({ "signed_curve25519": 0 }));
        assert_eq!((&e2ee["device_unused_fallback_key_types"], e2ee.get("device_lists")), (&json!([]), None));
        // A new device of somebody whom she shares a room with, once it has keys.
        let poll = slider.waits(&wish).await;
        bob.publishes().await;
        let page = poll.ends().await;
        assert_eq!(page["extensions"]["e2ee"]["device_lists"]["changed"], json!([bob.id]));
        slider.goes_back_to(page["pos"].as_str().map(str::to_owned));
        slider.asks(&wish).await;
        // And what is left of her own.
        let poll = slider.waits(&wish).await;
        alice.uploads(json!({ "fallback_keys": one_time(&alice, &["f"], true) })).await.ok();
        let page = poll.ends().await;
        assert_eq!(page["extensions"]["e2ee"]["device_unused_fallback_key_types"], json!(["signed_curve25519"]), "{page}");
        slider.goes_back_to(page["pos"].as_str().map(str::to_owned));
        bob.leaves(&room).await;
        let page = slider.asks(&wish).await;
        assert_eq!(page["extensions"]["e2ee"]["device_lists"]["left"], json!([bob.id]), "{page}");
    }
}
