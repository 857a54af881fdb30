//! Who is there, and who may know.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use serde_json::{Value, json};

use crate::support::{
    Reply, each_backend,
    people::{Person, escaped, open_server},
};

impl Person {
    async fn is(&self, presence: &str, status: Option<&str>) {
        let path = format!("/presence/{}/status", escaped(&self.id));
        self.put(&path, json!({ "presence": presence, "status_msg": status })).await.ok();
    }

    async fn asks_after(&self, other: &Self) -> Reply {
        self.get(&format!("/presence/{}/status", escaped(&other.id))).await
    }
}

/// What a sync tells of somebody.
fn told(page: &Value, user: &Person) -> Option<Value> {
    let events = page["presence"]["events"].as_array()?;
    let event = events.iter().find(|e| e["sender"] == user.id)?;
    assert_eq!(event["type"], "m.presence");
    Some(event["content"].clone())
}

each_backend! {
    async fn those_who_share_a_room_see_each_other_come_and_go(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let room = alice.opens_a_room().await;
        assert_eq!(alice.asks_after(&alice).await.ok()["presence"], "offline");
        let forged = format!("/presence/{}/status", escaped(&bob.id));
        alice.put(&forged, json!({ "presence": "online" })).await.refused(403, "M_FORBIDDEN");
        for (body, errcode) in [
            (json!({ "presence": "dancing" }), "M_INVALID_PARAM"),
            (json!({ "presence": "online", "status_msg": "x".repeat(1_001) }), "M_INVALID_PARAM"),
            (json!({ "presence": 1 }), "M_BAD_JSON"),
        ] {
            let path = format!("/presence/{}/status", escaped(&alice.id));
            alice.put(&path, body).await.refused(400, errcode);
        }

        bob.is("online", Some("about")).await;
        alice.syncs().await;
        assert_eq!(bob.asks_after(&bob).await.ok()["status_msg"], "about");
        alice.asks_after(&bob).await.refused(403, "M_FORBIDDEN");
        alice.asks_after(&carol).await.refused(403, "M_FORBIDDEN");
        bob.joins(&room).await;
        // Nothing of him has changed, but now it is her business.
        let seen = told(&alice.syncs().await, &bob).unwrap();
        assert_eq!((&seen["presence"], &seen["status_msg"]), (&json!("online"), &json!("about")));
        assert_eq!(alice.asks_after(&bob).await.ok()["currently_active"], true);
        assert_eq!(told(&alice.sync("timeout=0").await, &bob).unwrap()["presence"], "online");
        let first = bob.syncs().await;
        assert_eq!(told(&first, &alice).unwrap()["presence"], "online", "she has synced");
        assert_eq!(told(&first, &bob), None, "he knows of himself");
        assert_eq!(told(&alice.syncs().await, &bob), None, "once is enough");
        assert_eq!(told(&carol.syncs().await, &alice), None);
        assert_eq!(carol.syncs().await.get("presence"), None);

        // Who waits hears of it.
        let waiting = alice.waits().await;
        bob.is("unavailable", None).await;
        let seen = told(&waiting.ends().await, &bob).unwrap();
        assert_eq!((&seen["presence"], seen.get("status_msg")), (&json!("unavailable"), None));
        assert_eq!(told(&alice.syncs().await, &bob).unwrap()["presence"], "unavailable");
        let filter = escaped(r#"{"presence":{"not_types":["m.presence"]}}"#);
        assert_eq!(told(&alice.sync(&format!("timeout=0&filter={filter}")).await, &bob), None);

        // Carol comes in: all of them are new to each other.
        carol.joins(&room).await;
        let page = carol.syncs().await;
        assert_eq!(told(&page, &bob).unwrap()["presence"], "unavailable");
        assert_eq!(told(&page, &alice).unwrap()["presence"], "online");
        assert_eq!(told(&alice.syncs().await, &carol).unwrap()["presence"], "online");

        // And goes: it is none of her business any more, nor is she of theirs.
        carol.leaves(&room).await;
        bob.is("online", Some("for friends")).await;
        carol.is("unavailable", Some("alone")).await;
        assert_eq!(told(&carol.syncs().await, &bob), None);
        assert_eq!(told(&alice.syncs().await, &carol), None);
        assert_eq!(told(&alice.sync("timeout=0").await, &carol), None);
        alice.asks_after(&carol).await.refused(403, "M_FORBIDDEN");
        server.stop().await;
    }

    async fn a_sync_says_how_its_user_is(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let is = async |presence: &str| {
            let page = bob.syncs_with("&set_presence=offline").await;
            assert_eq!(told(&page, &alice).map(|told| told["presence"].clone()), Some(json!(presence)), "{page}");
        };
        alice.sync("timeout=0&set_presence=offline").await;
        assert_eq!(told(&bob.syncs_with("&set_presence=offline").await, &alice), None);
        alice.sync("timeout=0").await;
        is("online").await;
        alice.sync("timeout=0&set_presence=unavailable").await;
        is("unavailable").await;
        alice.sync("timeout=0&set_presence=online").await;
        is("online").await;
        assert_eq!(bob.asks_after(&bob).await.ok()["presence"], "offline", "he only looks");
        let list = format!("/user/{}/account_data/m.ignored_user_list", escaped(&bob.id));
        bob.put(&list, json!({ "ignored_users": { &alice.id: {} } })).await.ok();
        alice.sync("timeout=0&set_presence=unavailable").await;
        assert_eq!(told(&bob.syncs_with("&set_presence=offline").await, &alice), None, "he ignores her");
        assert_eq!(told(&bob.sync("timeout=0&set_presence=offline").await, &alice), None);
        server.stop().await;
    }

    async fn time_makes_people_absent(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        for person in [&alice, &bob, &alice] {
            person.syncs().await;
        }
        // Her device waits for news all the while, his sees her grow idle.
        let hers = alice.waits().await;
        server.is_waited_for_by(1).await;
        server.clock.advance(5 * 60 * 1000 + 1);
        let mut page = bob.syncs().await;
        while told(&page, &alice).is_none() {
            page = bob.waits().await.ends().await;
        }
        let seen = told(&page, &alice).unwrap();
        assert_eq!(seen["presence"], "unavailable");
        assert!(seen["last_active_ago"].as_i64().unwrap() > 5 * 60 * 1000, "{seen}");
        bob.syncs().await;
        // He says something, and her poll ends; she does not poll again.
        bob.says(&room, "are you there?").await;
        hers.ends().await;
        server.clock.advance(31 * 1000);
        let mut page = bob.syncs().await;
        while told(&page, &alice).is_none_or(|told| told["presence"] != "offline") {
            page = bob.waits().await.ends().await;
        }
        assert_eq!(bob.asks_after(&alice).await.ok()["presence"], "offline");
        alice.syncs().await;
        assert_eq!(bob.asks_after(&alice).await.ok()["presence"], "online");
        server.stop().await;
    }

    async fn presence_can_be_turned_off(given: Given) {
        let server = given
            .server_with(|config| {
                config.registration.allow_registration = true;
                config.registration.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true;
                config.presence.allow_local_presence = false;
            })
            .await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        bob.is("online", Some("here")).await;
        bob.syncs().await;
        assert_eq!(alice.asks_after(&bob).await.ok(), json!({ "presence": "offline" }));
        assert_eq!(alice.sync("timeout=0").await.get("presence"), None);
        server.stop().await;
    }
}
