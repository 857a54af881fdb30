//! Who gets in where one is not simply let in: knocking, and rooms that members of others may join.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use serde_json::{Value, json};

use crate::support::{
    each_backend,
    people::{Person, escaped, of_type, open_server},
};

/// A room with a join rule of its own.
async fn room_with(owner: &Person, version: &str, rules: Value) -> String {
    let initial = json!([{ "type": "m.room.join_rules", "content": rules }]);
    owner.creates(json!({ "preset": "private_chat", "room_version": version, "initial_state": initial })).await
}

fn members_of(rule: &str, rooms: &[&str]) -> Value {
    let allow: Vec<Value> = rooms.iter().map(|room| json!({ "type": "m.room_membership", "room_id": room })).collect();
    json!({ "join_rule": rule, "allow": allow })
}

/// The member event of somebody as another one reads it.
async fn member(reader: &Person, room: &str, user: &Person) -> Value {
    reader.reads(room, &format!("state/m.room.member/{}", escaped(&user.id))).await.ok()
}

/// The id of it.
async fn member_event(reader: &Person, room: &str, user: &Person) -> String {
    let event = reader.reads(room, &format!("state/m.room.member/{}?format=event", escaped(&user.id))).await.ok();
    event["event_id"].as_str().unwrap().to_owned()
}

impl Person {
    async fn knocks(&self, room: &str, reason: &str) -> crate::support::Reply {
        self.post(&format!("/knock/{}", escaped(room)), json!({ "reason": reason })).await
    }
}

each_backend! {
    async fn a_knock_is_answered_or_taken_back(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        for (version, rule) in [("7", "knock"), ("10", "knock_restricted"), ("12", "knock")] {
            let room = alice.creates(json!({ "preset": "private_chat", "room_version": version, "name": "Parlour" })).await;
            bob.knocks(&room, "open up").await.refused(403, "M_FORBIDDEN");
            alice.sets(&room, "m.room.join_rules", "", json!({ "join_rule": rule })).await.ok();
            bob.asks(&room, "join", json!({})).await.refused(403, "M_FORBIDDEN");
            alice.syncs().await;
            bob.syncs().await;

            assert_eq!(bob.knocks(&room, "please").await.ok()["room_id"], room);
            let page = bob.syncs().await;
            let shown = &page["rooms"]["knock"][&room]["knock_state"]["events"];
            assert_eq!(of_type(shown, "m.room.name").unwrap()["content"]["name"], "Parlour");
            let own = of_type(shown, "m.room.member").unwrap();
            assert_eq!((&own["state_key"], &own["content"]["membership"]), (&json!(bob.id), &json!("knock")));
            let page = alice.syncs().await;
            let heard = of_type(&page["rooms"]["join"][&room]["timeline"]["events"], "m.room.member").unwrap();
            assert_eq!(heard["content"]["reason"], "please");
            // He sees no more of the room than that.
            let said = alice.says(&room, "shall we?").await;
            bob.event(&room, &said).await.refused(404, "M_NOT_FOUND");
            bob.reads(&room, "messages?dir=b").await.refused(403, "M_FORBIDDEN");
            bob.asks(&room, "join", json!({})).await.refused(403, "M_FORBIDDEN");

            // Once more, louder; then not at all.
            bob.knocks(&room, "really").await.ok();
            assert_eq!(member(&alice, &room, &bob).await["reason"], "really");
            bob.syncs().await;
            bob.leaves(&room).await;
            let page = bob.syncs().await;
            assert!(page["rooms"]["leave"].get(&room).is_some(), "{page}");
            assert!(page["rooms"]["knock"].get(&room).is_none(), "{page}");
            assert_eq!(member(&alice, &room, &bob).await["membership"], "leave");

            bob.knocks(&room, "again").await.ok();
            let first = bob.sync("timeout=0").await;
            assert!(first["rooms"]["knock"].get(&room).is_some(), "{first}");
            alice.asks(&room, "kick", json!({ "user_id": bob.id, "reason": "no" })).await.ok();
            let page = bob.syncs().await;
            let left = &page["rooms"]["leave"][&room]["timeline"]["events"];
            assert_eq!(of_type(left, "m.room.member").unwrap()["content"]["reason"], "no", "{page}");
            assert_eq!(left.as_array().unwrap().len(), 1, "and nothing of what was said: {page}");

            bob.knocks(&room, "").await.ok();
            alice.invites(&room, &bob).await;
            bob.knocks(&room, "thanks").await.refused(403, "M_FORBIDDEN");
            let page = bob.syncs().await;
            assert!(page["rooms"]["invite"].get(&room).is_some(), "{page}");
            bob.joins(&room).await;
            bob.knocks(&room, "in already").await.refused(403, "M_FORBIDDEN");
            alice.does("ban", &room, &bob).await;
            bob.knocks(&room, "sorry").await.refused(403, "M_FORBIDDEN");
        }
        bob.knocks("!nowhere:test.example", "").await.refused(404, "M_NOT_FOUND");
        bob.knocks("#nowhere:test.example", "").await.refused(404, "M_NOT_FOUND");
        bob.knocks("nonsense", "").await.refused(400, "M_INVALID_PARAM");
        // Version 6 knows no knocking.
        let old = alice.creates(json!({ "preset": "private_chat", "room_version": "6", "room_alias_name": "old" })).await;
        alice.sets(&old, "m.room.join_rules", "", json!({ "join_rule": "knock" })).await.ok();
        bob.knocks("#old:test.example", "").await.refused(403, "M_FORBIDDEN");
        server.stop().await;
    }

    async fn who_left_learns_nothing_new_at_the_door(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = room_with(&alice, "10", json!({ "join_rule": "knock" })).await;
        alice.invites(&room, &bob).await;
        bob.joins(&room).await;
        alice.sets(&room, "m.room.topic", "", json!({ "topic": "when he was here" })).await.ok();
        alice.does("kick", &room, &bob).await;
        alice.sets(&room, "m.room.topic", "", json!({ "topic": "a secret" })).await.ok();
        let name = json!({ "membership": "join", "displayname": "Boss" });
        alice.sets(&room, "m.room.member", &alice.id, name).await.ok();

        // Each of these events is about him, and he sees it; what the room has become since he does not.
        let lazy = escaped(&json!({ "lazy_load_members": true }).to_string());
        let learns_nothing = async |what: &str| {
            let own = member_event(&alice, &room, &bob).await;
            let mut start = String::new();
            for query in ["limit=10", &format!("limit=0&filter={lazy}")] {
                let page = bob.reads(&room, &format!("context/{}?{query}", escaped(&own))).await.ok();
                assert_eq!(page["event"]["event_id"], own);
                let topic = of_type(&page["state"], "m.room.topic").unwrap_or_else(|| panic!("{what}: {page}"));
                assert_eq!(topic["content"]["topic"], "when he was here", "{what}");
                assert!(!page["state"].to_string().contains("Boss"), "{what}: {page}");
                start = page["start"].as_str().unwrap().to_owned();
            }
            let page = format!("messages?dir=f&limit=1&filter={lazy}&from={start}");
            let page = bob.reads(&room, &page).await.ok();
            assert_eq!(page["chunk"][0]["event_id"], own, "{what}: {page}");
            assert!(!page["state"].to_string().contains("Boss"), "{what}: {page}");
        };
        bob.knocks(&room, "please").await.ok();
        bob.leaves(&room).await;
        learns_nothing("a knock that was taken back").await;
        alice.invites(&room, &bob).await;
        bob.leaves(&room).await;
        learns_nothing("an invite that was refused").await;
        alice.does("ban", &room, &bob).await;
        learns_nothing("a ban").await;
        server.stop().await;
    }

    async fn an_invite_shows_no_state_that_its_guest_may_not_see(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let initial = json!([{ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } }]);
        let room = alice.creates(json!({ "preset": "private_chat", "initial_state": initial })).await;
        alice.sets(&room, "m.room.topic", "", json!({ "topic": "before he came" })).await.ok();
        alice.invites(&room, &bob).await;
        let invite = member_event(&alice, &room, &bob).await;
        alice.sets(&room, "m.room.topic", "", json!({ "topic": "when he came" })).await.ok();
        bob.joins(&room).await;
        let around = async |event: &str| bob.reads(&room, &format!("context/{}?limit=0", escaped(event))).await.ok();
        let page = around(&invite).await;
        assert_eq!(page["event"]["event_id"], invite);
        assert!(of_type(&page["state"], "m.room.topic").is_none(), "{page}");
        let page = around(&member_event(&alice, &room, &bob).await).await;
        assert_eq!(of_type(&page["state"], "m.room.topic").unwrap()["content"]["topic"], "when he came");
        bob.leaves(&room).await;
        let page = around(&invite).await;
        assert!(of_type(&page["state"], "m.room.topic").is_none(), "not after he left either: {page}");
        let page = around(&member_event(&alice, &room, &bob).await).await;
        assert_eq!(of_type(&page["state"], "m.room.topic").unwrap()["content"]["topic"], "when he came");
        server.stop().await;
    }

    async fn members_of_one_room_may_join_another(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let eve = Person::registers(&server, "eve").await;
        let club = alice.opens_a_room().await;
        let other = eve.opens_a_room().await;
        for (version, rule) in [("8", "restricted"), ("10", "knock_restricted"), ("12", "restricted")] {
            let room = room_with(&alice, version, members_of(rule, &["!gone:test.example", &club])).await;
            bob.asks(&room, "join", json!({})).await.refused(403, "M_FORBIDDEN");
            bob.joins(&club).await;
            bob.joins(&room).await;
            let content = member(&alice, &room, &bob).await;
            assert_eq!(content["join_authorised_via_users_server"], alice.id, "{content}");
            bob.says(&room, "here I am").await;

            // A new name is no new join; what clients send back of it is nobody's word.
            let renamed = json!({
                "membership": "join", "displayname": "Bobby", "join_authorised_via_users_server": "whoever",
            });
            bob.sets(&room, "m.room.member", &bob.id, renamed.clone()).await.ok();
            let content = member(&alice, &room, &bob).await;
            assert_eq!(content, json!({ "membership": "join", "displayname": "Bobby" }));

            bob.leaves(&club).await;
            bob.says(&room, "and here I stay").await;
            bob.leaves(&room).await;
            bob.asks(&room, "join", json!({})).await.refused(403, "M_FORBIDDEN");
            bob.sets(&room, "m.room.member", &bob.id, renamed.clone()).await.refused(403, "M_FORBIDDEN");
            alice.invites(&room, &bob).await;
            bob.joins(&room).await;
            assert!(member(&alice, &room, &bob).await.get("join_authorised_via_users_server").is_none());
            bob.leaves(&room).await;

            // Also where the member event is written as any other state.
            bob.joins(&club).await;
            bob.sets(&room, "m.room.member", &bob.id, renamed).await.ok();
            assert_eq!(member(&alice, &room, &bob).await["join_authorised_via_users_server"], alice.id);
            alice.does("ban", &room, &bob).await;
            bob.asks(&room, "join", json!({})).await.refused(403, "M_FORBIDDEN");
            alice.does("unban", &room, &bob).await;

            // Who is in a room that is not named is a stranger, whatever the list says beside.
            eve.asks(&room, "join", json!({})).await.refused(403, "M_FORBIDDEN");
            for mangled in [
                json!("all"),
                json!(["all"]),
                json!([{ "type": "org.example.other", "room_id": other }]),
                json!([{ "type": "m.room_membership" }, { "room_id": other }, null]),
            ] {
                let rules = json!({ "join_rule": rule, "allow": mangled });
                alice.sets(&room, "m.room.join_rules", "", rules).await.ok();
                bob.asks(&room, "join", json!({})).await.refused(403, "M_FORBIDDEN");
                eve.asks(&room, "join", json!({})).await.refused(403, "M_FORBIDDEN");
            }
            bob.leaves(&club).await;
        }
        // Version 7 knows no such rule: nobody comes in by it.
        let old = room_with(&alice, "7", members_of("restricted", &[&club])).await;
        bob.joins(&club).await;
        bob.asks(&old, "join", json!({})).await.refused(403, "M_FORBIDDEN");
        server.stop().await;
    }

    async fn somebody_with_the_power_to_invite_vouches(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let (carol, dave) = (Person::registers(&server, "carol").await, Person::registers(&server, "dave").await);
        let club = alice.opens_a_room().await;
        for person in [&bob, &carol, &dave] {
            person.joins(&club).await;
        }
        let rules = members_of("restricted", &[&club]);
        let room = room_with(&alice, "11", rules).await;
        let levels = json!({ "users": { &alice.id: 100, &bob.id: 50 }, "invite": 50 });
        alice.sets(&room, "m.room.power_levels", "", levels).await.ok();
        bob.joins(&room).await;
        alice.leaves(&room).await;
        carol.joins(&room).await;
        assert_eq!(member(&bob, &room, &carol).await["join_authorised_via_users_server"], bob.id);
        bob.leaves(&room).await;
        // Carol has not the power, and nobody else is left.
        dave.asks(&room, "join", json!({})).await.refused(403, "M_FORBIDDEN");
        bob.asks(&room, "join", json!({})).await.refused(403, "M_FORBIDDEN");

        // Where everybody may invite, anybody who is in will do.
        let room = room_with(&alice, "12", members_of("restricted", &[&club])).await;
        bob.joins(&room).await;
        alice.leaves(&room).await;
        carol.joins(&room).await;
        assert_eq!(member(&bob, &room, &carol).await["join_authorised_via_users_server"], bob.id);
        server.stop().await;
    }
}
