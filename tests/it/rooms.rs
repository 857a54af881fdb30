//! Making rooms, coming and going, sending and reading.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    each_backend,
    people::{Person, escaped, event_id, ids, joined, of_type, open_server, timeline},
};

async fn state(person: &Person, room: &str, kind: &str) -> Value {
    person.reads(room, &format!("state/{kind}/")).await.ok()
}

/// The membership of somebody as another one reads it.
async fn membership(person: &Person, room: &str, other: &Person) -> String {
    let member = person.reads(room, &format!("state/m.room.member/{}", escaped(&other.id))).await;
    if member.status == 404 {
        return "none".to_owned();
    }
    member.ok()["membership"].as_str().unwrap().to_owned()
}

each_backend! {
    async fn rooms_are_made_as_they_were_wished(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        for (preset, rule, guests, bobs_power) in [
            ("private_chat", "invite", "can_join", false),
            ("trusted_private_chat", "invite", "can_join", true),
            ("public_chat", "public", "forbidden", false),
        ] {
            for version in ["10", "11", "12"] {
                let wish = json!({ "preset": preset, "room_version": version, "invite": [bob.id], "is_direct": true });
                let room = alice.creates(wish).await;
                assert_eq!(state(&alice, &room, "m.room.join_rules").await["join_rule"], rule);
                assert_eq!(state(&alice, &room, "m.room.guest_access").await["guest_access"], guests);
                assert_eq!(state(&alice, &room, "m.room.history_visibility").await["history_visibility"], "shared");
                let create = state(&alice, &room, "m.room.create").await;
                assert_eq!(create["room_version"], version);
                let levels = state(&alice, &room, "m.room.power_levels").await;
                let creators = create["additional_creators"].as_array().cloned().unwrap_or_default();
                let mighty = levels["users"][&bob.id] == 100 || creators.contains(&json!(bob.id));
                assert_eq!(mighty, bobs_power, "{preset} {version}");
                let invite = alice.reads(&room, &format!("state/m.room.member/{}", escaped(&bob.id))).await.ok();
                assert_eq!((&invite["membership"], &invite["is_direct"]), (&json!("invite"), &json!(true)));
            }
        }
        for version in ["6", "7", "8", "9", "10", "11", "12"] {
            let room = alice.creates(json!({ "room_version": version })).await;
            assert_eq!(state(&alice, &room, "m.room.create").await["room_version"], version);
            assert_eq!(room.contains(':'), version != "12", "{room}");
            let event = alice.says(&room, "hello").await;
            alice.sees(&room, &event).await;
        }
        for version in ["1", "2", "99", "org.example.none"] {
            let refused = alice.post("/createRoom", json!({ "room_version": version })).await;
            refused.refused(400, "M_UNSUPPORTED_ROOM_VERSION");
        }
        server.stop().await;
    }

    async fn a_room_starts_with_the_state_that_was_wished(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let initial = json!([
            { "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } },
            { "type": "m.room.encryption", "state_key": "", "content": { "algorithm": "m.megolm.v1.aes-sha2" } },
            { "type": "org.example.odd", "state_key": "key", "content": { "odd": 1 } },
        ]);
        let wish = json!({
            "initial_state": initial, "name": "Kitchen", "topic": "tea", "room_alias_name": "kitchen",
            "creation_content": { "m.federate": false, "type": "m.space" },
            "power_level_content_override": { "events_default": 7 },
        });
        let room = alice.creates(wish.clone()).await;
        assert_eq!(state(&alice, &room, "m.room.history_visibility").await["history_visibility"], "joined");
        assert_eq!(state(&alice, &room, "m.room.encryption").await["algorithm"], "m.megolm.v1.aes-sha2");
        assert_eq!(alice.reads(&room, "state/org.example.odd/key").await.ok(), json!({ "odd": 1 }));
        assert_eq!(state(&alice, &room, "m.room.name").await["name"], "Kitchen");
        assert_eq!(state(&alice, &room, "m.room.topic").await["topic"], "tea");
        assert_eq!(state(&alice, &room, "m.room.canonical_alias").await["alias"], "#kitchen:test.example");
        let create = state(&alice, &room, "m.room.create").await;
        assert_eq!((&create["m.federate"], &create["type"]), (&json!(false), &json!("m.space")));
        let levels = state(&alice, &room, "m.room.power_levels").await;
        assert_eq!((&levels["events_default"], &levels["ban"]), (&json!(7), &json!(50)));

        alice.post("/createRoom", wish).await.refused(400, "M_ROOM_IN_USE");
        assert_eq!(alice.get("/joined_rooms").await.ok()["joined_rooms"], json!([room]), "and nothing half made");
        for bad in [
            json!({ "initial_state": [{ "type": "m.room.create", "content": {} }] }),
            json!({ "power_level_content_override": { "users": { "nobody": 100 } }, "room_version": "11" }),
        ] {
            alice.post("/createRoom", bad).await.refused(400, "M_INVALID_ROOM_STATE");
        }
        alice.post("/createRoom", json!({ "preset": "odd" })).await.refused(400, "M_INVALID_PARAM");
        server.stop().await;
    }

    async fn people_come_and_go(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let room = alice.creates(json!({ "preset": "private_chat" })).await;

        bob.asks(&room, "join", json!({})).await.refused(403, "M_FORBIDDEN");
        bob.asks(&room, "leave", json!({})).await.refused(403, "M_FORBIDDEN");
        assert_eq!(membership(&alice, &room, &bob).await, "none");
        alice.invites(&room, &bob).await;
        alice.invites(&room, &bob).await;
        bob.joins(&room).await;
        bob.joins(&room).await;
        let path = format!("/join/{}", escaped(&room));
        assert_eq!(bob.post(&path, json!({})).await.ok()["room_id"], room);
        assert_eq!(bob.get("/joined_rooms").await.ok()["joined_rooms"], json!([room]));
        alice.asks(&room, "invite", json!({ "user_id": bob.id })).await.refused(403, "M_FORBIDDEN");

        // In a private room everybody may bring others; only the mighty put them out.
        bob.invites(&room, &carol).await;
        carol.joins(&room).await;
        carol.asks(&room, "kick", json!({ "user_id": bob.id })).await.refused(403, "M_FORBIDDEN");
        carol.asks(&room, "ban", json!({ "user_id": bob.id })).await.refused(403, "M_FORBIDDEN");
        alice.asks(&room, "kick", json!({ "user_id": carol.id, "reason": "rude" })).await.ok();
        let left = alice.reads(&room, &format!("state/m.room.member/{}", escaped(&carol.id))).await.ok();
        assert_eq!(left, json!({ "membership": "leave", "reason": "rude" }));
        alice.asks(&room, "kick", json!({ "user_id": carol.id })).await.refused(403, "M_FORBIDDEN");
        carol.sends(&room, "t", "I am still here").await.refused(403, "M_FORBIDDEN");

        alice.does("ban", &room, &bob).await;
        assert_eq!(membership(&alice, &room, &bob).await, "ban");
        bob.asks(&room, "join", json!({})).await.refused(403, "M_FORBIDDEN");
        bob.asks(&room, "leave", json!({})).await.refused(403, "M_FORBIDDEN");
        alice.asks(&room, "invite", json!({ "user_id": bob.id })).await.refused(403, "M_FORBIDDEN");
        alice.does("unban", &room, &bob).await;
        assert_eq!(membership(&alice, &room, &bob).await, "leave");
        alice.asks(&room, "unban", json!({ "user_id": bob.id })).await.refused(403, "M_BAD_STATE");
        alice.invites(&room, &bob).await;
        bob.leaves(&room).await;
        assert_eq!(bob.get("/joined_rooms").await.ok()["joined_rooms"], json!([]));
        // Who has left has left, also if another device says so, or an answer was lost: nothing is written.
        let last = alice.reads(&room, "messages?dir=b&limit=1").await.ok()["chunk"].clone();
        bob.leaves(&room).await;
        bob.asks(&room, "leave", json!({ "reason": "really" })).await.ok();
        assert_eq!(alice.reads(&room, "messages?dir=b&limit=1").await.ok()["chunk"][0]["event_id"], last[0]["event_id"]);
        // Who was put out is told so.
        carol.asks(&room, "leave", json!({})).await.refused(403, "M_FORBIDDEN");
        alice.asks("!nowhere:test.example", "leave", json!({})).await.refused(404, "M_NOT_FOUND");

        alice.asks(&room, "forget", json!({})).await.refused(400, "M_UNKNOWN");
        carol.reads(&room, "messages?dir=b").await.ok();
        carol.asks(&room, "forget", json!({})).await.ok();
        carol.reads(&room, "messages?dir=b").await.refused(403, "M_FORBIDDEN");
        let all = carol.sync("filter={\"room\":{\"include_leave\":true}}").await;
        assert!(all["rooms"]["leave"].get(&room).is_none());
        alice.asks("!nowhere:test.example", "join", json!({})).await.refused(404, "M_NOT_FOUND");
        server.stop().await;
    }

    async fn state_is_set_and_read(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let first = event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": "tea" })).await);
        let same = event_id(&alice.sets(&room, "m.room.topic", "", json!({ "topic": "tea" })).await);
        assert_eq!(first, same, "nothing has changed");
        let odd = event_id(&alice.sets(&room, "org.example.odd", "a/b c", json!({ "n": 1 })).await);
        let read = bob.reads(&room, &format!("state/org.example.odd/{}", escaped("a/b c"))).await.ok();
        assert_eq!(read, json!({ "n": 1 }));
        let whole = bob.reads(&room, "state/m.room.topic/?format=event").await.ok();
        assert_eq!((&whole["event_id"], &whole["sender"]), (&json!(first), &json!(alice.id)));
        let all = bob.reads(&room, "state").await.ok();
        assert!(ids(&all).contains(&odd) && ids(&all).contains(&first));
        bob.sets(&room, "m.room.topic", "", json!({ "topic": "coffee" })).await.refused(403, "M_FORBIDDEN");
        bob.reads(&room, "state/m.room.name/").await.refused(404, "M_NOT_FOUND");
        alice.sets(&room, "m.room.create", "", json!({})).await.refused(400, "M_INVALID_PARAM");
        let carol = Person::registers(&server, "carol").await;
        carol.reads(&room, "state").await.refused(403, "M_FORBIDDEN");
        carol.reads(&room, "state/m.room.topic/").await.refused(403, "M_FORBIDDEN");
        carol.reads(&room, "members").await.refused(403, "M_FORBIDDEN");
        carol.reads(&room, "messages?dir=b").await.refused(403, "M_FORBIDDEN");
        carol.event(&room, &first).await.refused(404, "M_NOT_FOUND");
        carol.sends(&room, "t", "hi").await.refused(403, "M_FORBIDDEN");
        server.stop().await;
    }

    async fn a_transaction_is_one_event_even_after_a_restart(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let phone = alice.logs_in_on(&server).await;
        let room = alice.opens_a_room().await;
        let first = event_id(&alice.sends(&room, "t1", "once").await);
        assert_eq!(event_id(&alice.sends(&room, "t1", "once").await), first);
        let other = event_id(&phone.sends(&room, "t1", "from the phone").await);
        assert_ne!(other, first, "each device counts for itself");
        let redact = format!("/rooms/{}/redact/{}/t1", escaped(&room), escaped(&other));
        let redaction = event_id(&alice.put(&redact, json!({})).await);
        assert_ne!(redaction, first, "so does each endpoint");
        server.stop().await;

        let server = open_server(given).await;
        let alice = alice.turns_to(&server);
        assert_eq!(event_id(&alice.sends(&room, "t1", "once").await), first);
        assert_eq!(event_id(&alice.put(&redact, json!({})).await), redaction);
        let said = alice.pages(&room, "dir=f&limit=100").await;
        assert_eq!(said[said.len() - 3..], [first, other, redaction]);
        alice.syncs().await;
        let next = alice.says(&room, "going on").await;
        alice.sees(&room, &next).await;
        server.stop().await;
    }

    async fn what_is_redacted_is_gone(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        for version in ["10", "11"] {
            let room = alice.creates(json!({ "preset": "public_chat", "room_version": version })).await;
            bob.joins(&room).await;
            bob.syncs().await;
            let hers = alice.says(&room, "unspeakable").await;
            let his = bob.says(&room, "regretted").await;
            bob.sees(&room, &hers).await;
            bob.redacts(&room, &hers).await.refused(403, "M_FORBIDDEN");
            let own = event_id(&bob.redacts(&room, &his).await);
            let mighty = event_id(&alice.redacts(&room, &hers).await);
            bob.redacts(&room, "$nothing").await.refused(404, "M_NOT_FOUND");
            let create = &bob.reads(&room, "state/m.room.create/?format=event").await.ok()["event_id"];
            alice.redacts(&room, create.as_str().unwrap()).await.refused(403, "M_FORBIDDEN");
            for (event, by) in [(&his, &own), (&hers, &mighty)] {
                let read = bob.event(&room, event).await.ok();
                assert_eq!(read["content"], json!({}));
                assert_eq!(read["unsigned"]["redacted_because"]["event_id"], *by);
            }
            let redaction = bob.event(&room, &own).await.ok();
            let inside = &redaction["content"]["redacts"];
            assert!(if version == "11" { *inside == his } else { redaction["redacts"] == his }, "{redaction}");
            for read in [bob.reads(&room, "messages?dir=b&limit=100").await.ok(), bob.sync("timeout=0").await] {
                let text = read.to_string();
                assert!(!text.contains("unspeakable") && !text.contains("regretted"), "{text}");
            }
            bob.sees(&room, &own).await;
        }
        server.stop().await;
    }

    async fn messages_go_both_ways(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let mut said = Vec::new();
        for n in 0..12 {
            let who = if n % 3 == 0 { &bob } else { &alice };
            said.push(who.says(&room, &n.to_string()).await);
        }
        let forward = alice.pages(&room, "dir=f&limit=4").await;
        assert!(forward.ends_with(&said), "{forward:?}");
        let mut back = alice.pages(&room, "dir=b&limit=5").await;
        back.reverse();
        assert_eq!(back, forward);
        assert_eq!(alice.pages(&room, "dir=f&limit=1000").await, forward);

        // A filter decides what counts towards the limit.
        let filter = format!("filter={{\"senders\":[\"{}\"],\"types\":[\"m.room.message\"]}}", bob.id);
        let page = alice.reads(&room, &format!("messages?dir=b&limit=3&{filter}")).await.ok();
        assert_eq!(ids(&page["chunk"]), [&said[9], &said[6], &said[3]].map(Clone::clone));
        let rest = format!("messages?dir=b&limit=3&{filter}&from={}", page["end"].as_str().unwrap());
        let rest = alice.reads(&room, &rest).await.ok();
        assert_eq!((ids(&rest["chunk"]), rest.get("end")), (vec![said[0].clone()], None));

        // From one token to another, each wherever it came from.
        let token = alice.syncs().await["next_batch"].as_str().unwrap().to_owned();
        let more = bob.says(&room, "more").await;
        assert_eq!(alice.pages(&room, &format!("dir=b&to={token}")).await, [more.clone()]);
        let page = alice.reads(&room, &format!("messages?dir=f&from={token}")).await.ok();
        assert_eq!(ids(&page["chunk"]), [more]);
        let page = alice.reads(&room, &format!("messages?dir=b&limit=1&from={token}")).await.ok();
        assert_eq!(ids(&page["chunk"]), [said[11].clone()]);
        alice.reads(&room, "messages?dir=b&from=nonsense").await.refused(400, "M_INVALID_PARAM");
        server.stop().await;
    }

    async fn who_is_in_now_and_was_then(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        let alone = alice.syncs().await["next_batch"].as_str().unwrap().to_owned();
        bob.joins(&room).await;
        let both = alice.syncs().await["next_batch"].as_str().unwrap().to_owned();
        bob.leaves(&room).await;
        let names = async |query: &str| {
            let members = alice.reads(&room, &format!("members{query}")).await.ok();
            let members = members["chunk"].as_array().unwrap().clone();
            let mut names: Vec<String> = members.iter().map(|m| m["state_key"].as_str().unwrap().to_owned()).collect();
            names.sort();
            names
        };
        let (a, b) = (alice.id.clone(), bob.id.clone());
        assert_eq!(names("").await, [a.clone(), b.clone()]);
        assert_eq!(names("?membership=join").await, [a.clone()]);
        assert_eq!(names("?not_membership=join").await, [b.clone()]);
        assert_eq!(names(&format!("?at={alone}")).await, [a.clone()]);
        assert_eq!(names(&format!("?at={both}&membership=join")).await, [a.clone(), b.clone()]);
        let joined = alice.reads(&room, "joined_members").await.ok();
        assert_eq!(joined["joined"].as_object().unwrap().keys().collect::<Vec<_>>(), [&a]);
        bob.reads(&room, "joined_members").await.refused(403, "M_FORBIDDEN");
        server.stop().await;
    }

    async fn a_new_name_reaches_the_rooms(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let rooms = [alice.opens_a_room().await, alice.opens_a_room().await];
        for room in &rooms {
            bob.joins(room).await;
        }
        bob.syncs().await;
        alice.put(&format!("/profile/{}/displayname", alice.id), json!({ "displayname": "Alice" })).await.ok();
        let mut seen = Vec::new();
        while seen.len() < rooms.len() {
            bob.waits().await.ends().await;
            let page = bob.syncs().await;
            for room in &rooms {
                let events = &joined(&page, room)["timeline"]["events"];
                if of_type(events, "m.room.member").is_some_and(|e| e["content"]["displayname"] == "Alice") {
                    seen.push(room.clone());
                }
            }
        }
        for room in &rooms {
            let joined = bob.reads(room, "joined_members").await.ok();
            assert_eq!(joined["joined"][&alice.id]["display_name"], "Alice");
        }
        let room = alice.opens_a_room().await;
        let joined = alice.reads(&room, "joined_members").await.ok();
        assert_eq!(joined["joined"][&alice.id]["display_name"], "Alice", "and the rooms to come");
        server.stop().await;
    }

    async fn history_is_seen_as_the_room_wants(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        for (visibility, before_invite, between, after_leave) in [
            ("world_readable", true, true, true),
            ("shared", true, true, false),
            ("invited", false, true, false),
            ("joined", false, false, false),
        ] {
            let initial = json!([
                { "type": "m.room.history_visibility", "content": { "history_visibility": visibility } },
            ]);
            let room = alice.creates(json!({ "preset": "private_chat", "initial_state": initial })).await;
            let first = alice.says(&room, "before the invite").await;
            alice.invites(&room, &bob).await;
            let second = alice.says(&room, "before the join").await;
            bob.joins(&room).await;
            let third = alice.says(&room, "while he is in").await;
            let in_sync = timeline(&bob.sync("timeout=0").await, &room);
            bob.leaves(&room).await;
            let fourth = alice.says(&room, "after he left").await;

            let left = bob.sync("timeout=0&filter={\"room\":{\"include_leave\":true,\"timeline\":{\"limit\":50}}}").await;
            let left = ids(&left["rooms"]["leave"][&room]["timeline"]["events"]);
            let paged = bob.pages(&room, "dir=b&limit=3").await;
            let forward = bob.pages(&room, "dir=f&limit=3").await;
            for (event, sees) in [(&first, before_invite), (&second, between), (&third, true), (&fourth, after_leave)] {
                let about = format!("{visibility} {event} of {first} {second} {third} {fourth}");
                assert_eq!(paged.contains(event), sees, "back {about}");
                assert_eq!(forward.contains(event), sees, "forward {about}");
                assert_eq!(bob.event(&room, event).await.status == 200, sees, "event {about}");
                // A sync of a room that was left ends with the leave.
                assert_eq!(left.contains(event), sees && event != &fourth, "left {about}");
                if event != &fourth {
                    assert_eq!(in_sync.contains(event), sees, "sync {about}");
                }
                let receipt = bob.asks(&room, &format!("receipt/m.read/{}", escaped(event)), json!({})).await;
                receipt.refused(403, "M_FORBIDDEN");
                assert_eq!(carol.event(&room, event).await.status == 200, visibility == "world_readable", "{about}");
            }
            let peeked = carol.reads(&room, "messages?dir=b").await;
            assert_eq!(peeked.status == 200, visibility == "world_readable");
        }
        server.stop().await;
    }

    async fn who_was_never_in_a_room_reads_nothing_by_a_wrong_name(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let (hers, his) = (alice.opens_a_room().await, bob.opens_a_room().await);
        let event = alice.says(&hers, "hers").await;
        bob.event(&his, &event).await.refused(404, "M_NOT_FOUND");
        bob.redacts(&his, &event).await.refused(404, "M_NOT_FOUND");
        let typing = format!("/rooms/{}/typing/{}", escaped(&hers), escaped(&bob.id));
        bob.put(&typing, json!({ "typing": true, "timeout": 1_000 })).await.refused(403, "M_FORBIDDEN");
        let other = format!("/rooms/{}/typing/{}", escaped(&his), escaped(&alice.id));
        bob.put(&other, json!({ "typing": true, "timeout": 1_000 })).await.refused(403, "M_FORBIDDEN");
        let nobody = server.request(Method::GET, &format!("/_matrix/client/v3/rooms/{}/state", escaped(&hers)));
        server.send(nobody).await.refused(401, "M_MISSING_TOKEN");
        server.stop().await;
    }

    async fn a_transaction_id_is_forgotten_after_its_time(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let first = event_id(&alice.sends(&room, "once", "hello").await);
        assert_eq!(event_id(&alice.sends(&room, "once", "hello").await), first);
        server.clock.advance(3 * 24 * 60 * 60 * 1000);
        // The purge comes round every ten minutes of the clock; it looks at the clock every few seconds.
        while event_id(&alice.sends(&room, "once", "hello").await) == first {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        server.stop().await;
    }
}

each_backend! {
    async fn a_moment_is_found_in_a_room(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.creates(json!({ "preset": "private_chat" })).await;
        let start = 1_700_000_000_000i64;
        let mut said = Vec::new();
        for n in 1..=5 {
            server.clock.advance(1_000);
            said.push((start + n * 1_000, alice.says(&room, &n.to_string()).await));
            // Others talk elsewhere.
            bob.opens_a_room().await;
        }
        let near = async |who: &Person, ts: i64, dir: &str| {
            let path = format!("/_matrix/client/v1/rooms/{}/timestamp_to_event?ts={ts}&dir={dir}", escaped(&room));
            server.send(server.request(Method::GET, &path).bearer_auth(&who.token)).await
        };
        for (n, (ts, event)) in said.iter().enumerate() {
            for (asked, dir, found) in [
                (*ts, "f", Some(n)),
                (*ts, "b", Some(n)),
                (ts + 1, "b", Some(n)),
                (ts - 1, "f", Some(n)),
                (ts + 1, "f", (n < 4).then_some(n + 1)),
            ] {
                let reply = near(&alice, asked, dir).await;
                match found {
                    Some(n) => {
                        let found = json!({ "event_id": said[n].1, "origin_server_ts": said[n].0 });
                        assert_eq!(reply.ok(), found, "{asked} {dir} near {event}");
                    }
                    None => drop(reply.refused(404, "M_NOT_FOUND")),
                }
            }
        }
        near(&alice, start - 1, "b").await.refused(404, "M_NOT_FOUND");
        near(&bob, start, "f").await.refused(403, "M_FORBIDDEN");
        near(&alice, start, "x").await.refused(400, "M_INVALID_PARAM");
        // Only what one may see is found.
        alice.sets(&room, "m.room.history_visibility", "", json!({ "history_visibility": "joined" })).await.ok();
        alice.invites(&room, &bob).await;
        server.clock.advance(1_000);
        alice.says(&room, "among us").await;
        server.clock.advance(1_000);
        bob.joins(&room).await;
        let found = near(&bob, start + 5_500, "f").await.ok()["event_id"].as_str().unwrap().to_owned();
        let event = bob.event(&room, &found).await.ok();
        assert_eq!((&event["type"], &event["state_key"]), (&json!("m.room.member"), &json!(bob.id)), "{event}");
        server.stop().await;
    }

    async fn rooms_are_tagged(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        let tags = format!("/user/{}/rooms/{}/tags", escaped(&alice.id), escaped(&room));
        assert_eq!(alice.get(&tags).await.ok(), json!({ "tags": {} }));
        alice.syncs().await;
        alice.put(&format!("{tags}/m.favourite"), json!({ "order": 0.25 })).await.ok();
        alice.put(&format!("{tags}/u.Work"), json!({})).await.ok();
        let both = json!({ "tags": { "m.favourite": { "order": 0.25 }, "u.Work": {} } });
        assert_eq!(alice.get(&tags).await.ok(), both);
        let page = alice.syncs().await;
        let event = of_type(&joined(&page, &room)["account_data"]["events"], "m.tag").unwrap();
        assert_eq!(event["content"], both);
        alice.send(Method::DELETE, &format!("{tags}/u.Work"), None).await.ok();
        alice.send(Method::DELETE, &format!("{tags}/u.Work"), None).await.ok();
        let page = alice.syncs().await;
        let event = of_type(&joined(&page, &room)["account_data"]["events"], "m.tag").unwrap();
        assert_eq!(event["content"], json!({ "tags": { "m.favourite": { "order": 0.25 } } }));

        bob.get(&tags).await.refused(403, "M_FORBIDDEN");
        bob.put(&format!("{tags}/u.x"), json!({})).await.refused(403, "M_FORBIDDEN");
        bob.send(Method::DELETE, &format!("{tags}/m.favourite"), None).await.refused(403, "M_FORBIDDEN");
        alice.put(&format!("{tags}/u.{}", "x".repeat(254)), json!({})).await.refused(400, "M_INVALID_PARAM");
        alice.put(&format!("{tags}/u.x"), json!({ "order": [] })).await.refused(400, "M_BAD_JSON");
        let nowhere = format!("/user/{}/rooms/!nowhere:x/tags/u.x", escaped(&alice.id));
        alice.put(&nowhere, json!({})).await.refused(404, "M_NOT_FOUND");
        for n in 0..99 {
            alice.put(&format!("{tags}/u.{n}"), json!({})).await.ok();
        }
        alice.put(&format!("{tags}/u.toomany"), json!({})).await.refused(400, "M_INVALID_PARAM");
        server.stop().await;
    }

    async fn a_new_name_reaches_very_many_rooms(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let mut rooms = Vec::new();
        for _ in 0..60 {
            let room = alice.creates(json!({ "preset": "trusted_private_chat", "room_version": "11" })).await;
            alice.invites(&room, &bob).await;
            rooms.push(room);
        }
        // Somebody is with her in one of them, and one she leaves.
        bob.joins(&rooms[7]).await;
        bob.syncs().await;
        alice.leaves(&rooms[11]).await;
        alice.put(&format!("/profile/{}/displayname", alice.id), json!({ "displayname": "Alice" })).await.ok();
        for (n, room) in rooms.iter().enumerate().filter(|(n, _)| *n != 11) {
            let name = async || alice.reads(room, "joined_members").await.ok()["joined"][&alice.id]["display_name"].clone();
            while name().await != "Alice" {
                alice.get("/account/whoami").await.ok();
            }
            assert_eq!(alice.reads(room, "members?membership=join").await.ok()["chunk"].as_array().unwrap().len(), 1 + usize::from(n == 7));
        }
        assert_eq!(membership(&bob, &rooms[7], &alice).await, "join");
        server.stop().await;
    }
}
