//! What somebody may not do or see, however they ask.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use serde_json::{Value, json};

use crate::support::{
    each_backend,
    people::{Person, escaped, joined, open_server, timeline},
};

/// The members that a person is told of.
async fn members(person: &Person, room: &str, at: &str) -> Vec<String> {
    let chunk = person.reads(room, &format!("members{at}")).await.ok()["chunk"].clone();
    let mut members: Vec<String> = chunk
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["content"]["membership"] == "join")
        .map(|e| e["state_key"].as_str().unwrap().to_owned())
        .collect();
    members.sort();
    members
}

fn private(visibility: &str) -> Value {
    json!({
        "preset": "private_chat",
        "initial_state": [
            { "type": "m.room.history_visibility", "content": { "history_visibility": visibility } },
        ],
    })
}

each_backend! {
    async fn nobody_vouches_for_themselves(given: Given) {
        let server = open_server(given).await;
        let (alice, eve) = (Person::registers(&server, "alice").await, Person::registers(&server, "eve").await);
        let club = alice.creates(json!({ "preset": "private_chat" })).await;
        let rules = json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": club }] });
        let room = alice
            .creates(json!({
                "room_version": "11",
                "initial_state": [{ "type": "m.room.join_rules", "content": rules }],
            }))
            .await;
        let forged = json!({ "membership": "join", "join_authorised_via_users_server": alice.id });
        eve.sets(&room, "m.room.member", &eve.id, forged.clone()).await.refused(403, "M_FORBIDDEN");
        eve.asks(&room, "join", forged).await.refused(403, "M_FORBIDDEN");
        assert_eq!(members(&alice, &room, "").await, [alice.id.clone()]);
        server.stop().await;
    }

    async fn a_redaction_is_no_state(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        for version in ["10", "12"] {
            let room = alice
                .creates(json!({
                    "preset": "public_chat", "room_version": version,
                    "power_level_content_override": { "state_default": 0, "redact": 100 },
                }))
                .await;
            bob.joins(&room).await;
            let said = alice.says(&room, "keep this").await;
            let content = json!({ "redacts": said });
            bob.sets(&room, "m.room.redaction", "x", content.clone()).await.refused(403, "M_FORBIDDEN");
            bob.redacts(&room, &said).await.refused(403, "M_FORBIDDEN");
            assert_eq!(bob.event(&room, &said).await.ok()["content"]["body"], "keep this");
            let wish = json!({
                "room_version": version,
                "initial_state": [{ "type": "m.room.redaction", "state_key": "", "content": content }],
            });
            assert_ne!(alice.post("/createRoom", wish).await.status, 200);
        }
        server.stop().await;
    }

    async fn who_was_away_sees_nothing_of_that_time(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.creates(private("joined")).await;
        alice.invites(&room, &bob).await;
        bob.joins(&room).await;
        bob.syncs().await;
        let before = alice.says(&room, "with bob").await;
        alice.does("kick", &room, &bob).await;
        let secret = alice.says(&room, "without bob").await;
        alice.invites(&room, &bob).await;
        bob.joins(&room).await;
        let after = alice.says(&room, "with bob again").await;
        let page = bob.syncs().await;
        let shown = timeline(&page, &room);
        assert!(shown.contains(&after) && !shown.contains(&secret), "{shown:?}");
        assert_eq!(joined(&page, &room)["timeline"]["limited"], true, "there is a gap before it");
        let all = bob.pages(&room, "dir=b&limit=50").await;
        assert!(all.contains(&before) && all.contains(&after) && !all.contains(&secret));
        bob.event(&room, &secret).await.refused(404, "M_NOT_FOUND");
        server.stop().await;
    }

    async fn who_left_sees_what_was_until_then(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let room = alice.creates(private("shared")).await;
        alice.invites(&room, &bob).await;
        bob.joins(&room).await;
        bob.syncs().await;
        bob.leaves(&room).await;
        alice.invites(&room, &carol).await;
        carol.joins(&room).await;
        alice.sets(&room, "m.room.topic", "", json!({ "topic": "bob" })).await.ok();
        alice.does("ban", &room, &bob).await;
        assert_eq!(members(&bob, &room, "").await, [alice.id.clone()]);
        bob.reads(&room, "state/m.room.topic/").await.refused(404, "M_NOT_FOUND");
        let page = bob.syncs().await;
        assert!(!page.to_string().contains(&carol.id), "{page}");
        alice.does("unban", &room, &bob).await;
        assert_eq!(members(&bob, &room, "").await, [alice.id.clone()]);
        let page = bob.syncs().await;
        assert!(!page.to_string().contains(&carol.id), "{page}");
        server.stop().await;
    }

    async fn the_members_of_then_are_for_those_who_might_have_seen_them(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        for (visibility, seen) in [("joined", false), ("shared", true)] {
            let room = alice.creates(private(visibility)).await;
            alice.syncs().await;
            let then = alice.since();
            alice.invites(&room, &bob).await;
            bob.joins(&room).await;
            let at = format!("?at={}", escaped(&then));
            if seen {
                assert_eq!(members(&bob, &room, &at).await, [alice.id.clone()]);
            } else {
                bob.reads(&room, &format!("members{at}")).await.refused(403, "M_FORBIDDEN");
            }
            assert_eq!(members(&alice, &room, &at).await, [alice.id.clone()]);
        }
        server.stop().await;
    }

    async fn cve_2021_39163_strangers_learn_nothing_by_asking(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let eve = Person::registers(&server, "eve").await;
        let room = alice.creates(json!({ "preset": "private_chat" })).await;
        alice.does("ban", &room, &bob).await;
        for (what, whom) in [("ban", &bob), ("unban", &bob), ("unban", &alice), ("kick", &alice), ("kick", &bob)] {
            let refused = eve.asks(&room, what, json!({ "user_id": whom.id })).await;
            refused.refused(403, "M_FORBIDDEN");
        }
        server.stop().await;
    }

    async fn a_filtered_timeline_hides_no_change_of_state(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.creates(json!({ "preset": "public_chat" })).await;
        alice.syncs().await;
        bob.joins(&room).await;
        let said = bob.says(&room, "hello").await;
        let filter = "&filter={\"room\":{\"timeline\":{\"types\":[\"m.room.message\"]}}}";
        let page = alice.syncs_with(filter).await;
        assert_eq!(timeline(&page, &room), [said]);
        let state = joined(&page, &room)["state"]["events"].as_array().cloned().unwrap_or_default();
        assert!(state.iter().any(|e| e["state_key"] == bob.id.as_str()), "{state:?}");
        server.stop().await;
    }

    async fn odd_ids_are_refused_at_the_door(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.creates(json!({})).await;
        alice.sends(&room, "a%00b", "x").await.refused(400, "M_INVALID_PARAM");
        let long = "t".repeat(300);
        assert_eq!(alice.sends(&room, &long, "x").await.status, 400);
        let huge = format!("${}", "e".repeat(5_000));
        let read = json!({ "m.read": huge });
        assert_eq!(alice.asks(&room, "read_markers", read).await.status, 400);
        let said = alice.says(&room, "hello").await;
        let path = format!("receipt/m.read/{}", escaped(&said));
        for thread in ["", "anything", &"$t".repeat(200)] {
            assert_eq!(alice.asks(&room, &path, json!({ "thread_id": thread })).await.status, 400, "{thread}");
        }
        alice.asks(&room, &path, json!({ "thread_id": "main" })).await.ok();
        let invites: Vec<String> = (0..300).map(|n| format!("@u{n}:hearth.test")).collect();
        assert_eq!(alice.post("/createRoom", json!({ "invite": invites })).await.status, 400);
        server.stop().await;
    }
}
