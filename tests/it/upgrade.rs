//! Rooms that go on in another version.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use tokio::time::timeout;

use crate::support::{
    each_backend,
    people::{LONG, Person, escaped, joined, of_type, open_server},
};

async fn state(person: &Person, room: &str, kind: &str) -> Value {
    person.reads(room, &format!("state/{kind}/")).await.ok()
}

impl Person {
    async fn upgrades(&self, room: &str, version: &str) -> String {
        let reply = self.asks(room, "upgrade", json!({ "new_version": version })).await.ok();
        reply["replacement_room"].as_str().unwrap().to_owned()
    }
}

async fn listed(person: &Person) -> Vec<String> {
    let list = person.get("/publicRooms").await.ok();
    list["chunk"].as_array().unwrap().iter().map(|room| room["room_id"].as_str().unwrap().to_owned()).collect()
}

each_backend! {
    async fn a_room_goes_on_with_all_that_it_was(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let (carol, mallory) = (Person::registers(&server, "carol").await, Person::registers(&server, "mallory").await);
        for (from, to) in [("9", "12"), ("11", "12"), ("10", "11"), ("12", "12"), ("12", "11")] {
            let alias = format!("kitchen-{from}-{to}");
            let kept = [
                ("m.room.encryption", json!({ "algorithm": "m.megolm.v1.aes-sha2", "rotation_period_msgs": 7 })),
                ("m.room.server_acl", json!({ "allow": ["*"], "deny": ["evil.example"] })),
                ("m.room.avatar", json!({ "url": "mxc://test.example/kitchen" })),
                ("m.room.history_visibility", json!({ "history_visibility": "joined" })),
                ("m.room.guest_access", json!({ "guest_access": "can_join" })),
                ("m.room.join_rules", json!({ "join_rule": "public" })),
                ("m.room.name", json!({ "name": "Kitchen" })),
                ("m.room.topic", json!({ "topic": "tea", "m.topic": { "m.text": [{ "body": "tea" }] } })),
            ];
            let initial: Vec<Value> = kept.iter().map(|(kind, content)| json!({ "type": kind, "content": content })).collect();
            let room = alice
                .creates(json!({
                    "preset": "public_chat", "room_version": from, "initial_state": initial, "visibility": "public",
                    "room_alias_name": alias, "creation_content": { "m.federate": false, "type": "org.example.kitchen" },
                    "power_level_content_override": { "users": levels_of(&[&alice, &bob], from), "events_default": 3 },
                }))
                .await;
            bob.joins(&room).await;
            carol.joins(&room).await;
            alice.asks(&room, "ban", json!({ "user_id": mallory.id, "reason": "spits in the soup" })).await.ok();
            carol.syncs().await;

            for (who, version, status, errcode) in [
                (&mallory, to, 403, "M_FORBIDDEN"),
                (&carol, to, 403, "M_FORBIDDEN"),
                (&alice, "1", 400, "M_UNSUPPORTED_ROOM_VERSION"),
                (&alice, "odd", 400, "M_UNSUPPORTED_ROOM_VERSION"),
            ] {
                who.asks(&room, "upgrade", json!({ "new_version": version })).await.refused(status, errcode);
            }
            let new = alice.upgrades(&room, to).await;

            let create = state(&alice, &new, "m.room.create").await;
            assert_eq!((&create["room_version"], &create["type"]), (&json!(to), &json!("org.example.kitchen")));
            assert_eq!((&create["m.federate"], &create["predecessor"]["room_id"]), (&json!(false), &json!(room)));
            assert_eq!(create["predecessor"].get("event_id").is_some(), to != "12", "{create}");
            assert_eq!(create.get("creator"), (to == "10").then(|| json!(alice.id)).as_ref());
            for (kind, content) in &kept {
                assert_eq!(state(&alice, &new, kind).await, *content, "{kind}");
            }
            let levels = state(&alice, &new, "m.room.power_levels").await;
            assert_eq!((&levels["events_default"], &levels["users"][&bob.id]), (&json!(3), &json!(50)), "{levels}");
            assert_eq!(levels["users"].get(&alice.id).and_then(Value::as_i64), (to != "12").then_some(from_level(from)));
            let ban = alice.reads(&new, &format!("state/m.room.member/{}", escaped(&mallory.id))).await.ok();
            assert_eq!(ban, json!({ "membership": "ban", "reason": "spits in the soup" }));
            mallory.asks(&new, "join", json!({})).await.refused(403, "M_FORBIDDEN");

            // Its name and its place in the directory have moved.
            let alias = format!("#{alias}:test.example");
            let found = alice.get(&format!("/directory/room/{}", escaped(&alias))).await.ok();
            assert_eq!(found["room_id"], new);
            assert_eq!(state(&alice, &new, "m.room.canonical_alias").await["alias"], alias);
            assert_eq!(state(&alice, &room, "m.room.canonical_alias").await, json!({}));
            assert_eq!(listed(&alice).await, [new.clone()]);
            alice.put(&format!("/directory/list/room/{}", escaped(&new)), json!({ "visibility": "private" })).await.ok();

            // The old room says where it went, and only the mighty still speak there.
            let page = carol.syncs().await;
            let tombstone = of_type(&joined(&page, &room)["timeline"]["events"], "m.room.tombstone").unwrap();
            assert_eq!(tombstone["content"]["replacement_room"], new);
            carol.sends(&room, "t", "anybody here?").await.refused(403, "M_FORBIDDEN");
            bob.says(&room, "closed").await;
            carol.joins(&new).await;
            bob.joins(&new).await;
            bob.sends(&new, "t", "moved").await.ok();
        }
        alice.asks("!nowhere:test.example", "upgrade", json!({ "new_version": "12" })).await.refused(404, "M_NOT_FOUND");
        server.stop().await;
    }

    async fn an_upgrade_may_name_further_creators(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let room = alice.creates(json!({ "preset": "public_chat", "room_version": "11" })).await;
        bob.joins(&room).await;
        let levels = json!({ "users": { &alice.id: 100, &bob.id: 100, &carol.id: 40 } });
        alice.sets(&room, "m.room.power_levels", "", levels).await.ok();
        let wish = json!({ "new_version": "11", "additional_creators": [bob.id] });
        alice.asks(&room, "upgrade", wish).await.refused(400, "M_INVALID_PARAM");
        let wish = json!({ "new_version": "12", "additional_creators": [alice.id] });
        let reply = bob.asks(&room, "upgrade", wish).await.ok();
        let new = reply["replacement_room"].as_str().unwrap();
        assert_eq!(state(&bob, new, "m.room.create").await["additional_creators"], json!([alice.id]));
        let levels = state(&bob, new, "m.room.power_levels").await;
        assert_eq!(levels["users"], json!({ &carol.id: 40 }));
        assert_eq!(levels["events"]["m.room.tombstone"], 150);
        alice.joins(new).await;
        let wish = json!({ "users": { &alice.id: 100 } });
        bob.sets(new, "m.room.power_levels", "", wish).await.refused(400, "M_INVALID_PARAM");
        alice.upgrades(new, "12").await;
        server.stop().await;
    }

    async fn a_moderator_may_close_a_room_without_running_it(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        for (version, levels) in [("11", json!({ "users": { &alice.id: 100, &bob.id: 50 } })), ("12", json!({ "users": { &bob.id: 50 } }))] {
            let room = alice.creates(json!({ "preset": "public_chat", "room_version": version })).await;
            bob.joins(&room).await;
            let mut levels = levels;
            // What has to go with the room takes more power in it than bob has.
            levels["events"] = json!({ "m.room.tombstone": 50, "m.room.power_levels": 100, "m.room.encryption": 100 });
            alice.sets(&room, "m.room.power_levels", "", levels.clone()).await.ok();
            alice.sets(&room, "m.room.encryption", "", json!({ "algorithm": "m.megolm.v1.aes-sha2" })).await.ok();
            let new = bob.upgrades(&room, version).await;
            assert_eq!(state(&bob, &new, "m.room.encryption").await["algorithm"], "m.megolm.v1.aes-sha2");
            assert_eq!(state(&alice, &room, "m.room.tombstone").await["replacement_room"], new);
            assert_eq!(state(&alice, &room, "m.room.power_levels").await, levels, "left as they were");
        }
        server.stop().await;
    }

    async fn two_who_upgrade_a_room_at_once_do_not_part_those_in_it(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.creates(json!({ "preset": "public_chat", "room_version": "11" })).await;
        let upgrade = || alice.asks(&room, "upgrade", json!({ "new_version": "11" }));
        let mut went_on_from = BTreeSet::new();
        let mut successors = Vec::new();
        for reply in join_all((0..8).map(|_| upgrade())).await {
            if reply.status != 200 {
                reply.refused(403, "M_BAD_STATE");
                continue;
            }
            let new = reply.ok()["replacement_room"].as_str().unwrap().to_owned();
            let create = state(&alice, &new, "m.room.create").await;
            // One that began when the room was closed already goes on from there, and is another upgrade.
            let last = create["predecessor"]["event_id"].as_str().unwrap().to_owned();
            assert!(went_on_from.insert(last), "two rooms go on from where the old one was: {create}");
            successors.push(new);
        }
        let tombstone = state(&alice, &room, "m.room.tombstone").await;
        assert!(successors.iter().any(|new| tombstone["replacement_room"] == *new), "{tombstone}");
        server.stop().await;
    }

    async fn a_space_keeps_its_rooms_and_a_room_all_its_bans(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let wish = json!({
            "room_version": "11", "creation_content": { "type": "m.space" },
            "initial_state": [
                { "type": "m.space.child", "state_key": "!here:test.example", "content": { "via": ["test.example"] } },
                { "type": "m.space.child", "state_key": "!gone:test.example", "content": {} },
            ],
        });
        let space = alice.creates(wish).await;
        // More than one commit takes.
        for part in 0..13 {
            let bans = (0..40).map(|n| {
                let user = format!("@troll{}:test.example", part * 40 + n);
                let (alice, space) = (&alice, &space);
                async move { alice.asks(space, "ban", json!({ "user_id": user })).await.ok() }
            });
            join_all(bans).await;
        }
        let new = alice.upgrades(&space, "12").await;
        assert_eq!(alice.reads(&new, "state/m.space.child/!here:test.example").await.ok()["via"], json!(["test.example"]));
        alice.reads(&new, "state/m.space.child/!gone:test.example").await.refused(404, "M_NOT_FOUND");
        let banned = alice.reads(&new, "members?membership=ban").await.ok();
        assert_eq!(banned["chunk"].as_array().unwrap().len(), 520);
        server.stop().await;
    }

    async fn what_people_keep_of_a_room_goes_with_them(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let (carol, mallory) = (Person::registers(&server, "carol").await, Person::registers(&server, "mallory").await);
        let room = alice.creates(json!({ "preset": "public_chat", "room_version": "10" })).await;
        for who in [&bob, &carol] {
            who.joins(&room).await;
        }
        for who in [&alice, &bob, &carol] {
            who.arranges(&room, "u.work").await;
        }
        // Somebody else's room may say that it comes after this one, as often as they like; this one doesn't.
        let wish = json!({ "preset": "public_chat", "creation_content": { "predecessor": { "room_id": room } } });
        let false_one = mallory.creates(wish.clone()).await;
        bob.joins(&false_one).await;
        server.clock.advance(1);

        let new = alice.upgrades(&room, "11").await;
        alice.is_followed(&room, &new).await;
        bob.joins(&new).await;
        bob.is_followed(&room, &new).await;
        assert_eq!(bob.tags(&new).await, json!({ "u.work": { "order": 0.5 } }));
        assert_eq!(bob.tags(&room).await, bob.tags(&new).await, "the old room keeps its own");
        assert_eq!(bob.direct().await, json!({ "@friend:test.example": [room, new], "@other:test.example": ["!o:x.y"] }));
        let rules = bob.get("/pushrules/global/").await.ok();
        for kind in ["override", "room"] {
            let of = |room: &str| rules[kind].as_array().unwrap().iter().find(|rule| rule["rule_id"] == room).unwrap().clone();
            let (old, copy) = (of(&room), of(&new));
            assert_eq!((&old["actions"], &old["enabled"]), (&copy["actions"], &copy["enabled"]), "{rules}");
            assert_eq!(old["conditions"].to_string().replace(&room, &new), copy["conditions"].to_string());
        }
        let about = |room: &str| {
            let rules = rules["override"].as_array().unwrap().iter().map(|rule| &rule["conditions"]);
            rules.filter(|conditions| conditions.to_string().contains(room)).count()
        };
        assert_eq!((about(&room), about(&new)), (2, 2), "{rules}");
        assert_eq!(bob.tags(&false_one).await, json!({}));
        assert!(!rules.to_string().contains(&false_one), "{rules}");

        // Who has made up their mind about the new room has their way.
        carol.put(&carol.mine(&format!("rooms/{}/tags/u.new", escaped(&new))), json!({})).await.ok();
        carol.put(&format!("/pushrules/global/room/{}", escaped(&new)), json!({ "actions": ["notify"] })).await.ok();
        carol.joins(&new).await;
        carol.is_followed(&room, &new).await;
        assert_eq!(carol.tags(&new).await, json!({ "u.new": {} }));
        let rule = carol.get(&format!("/pushrules/global/room/{}", escaped(&new))).await.ok();
        assert_eq!(rule["actions"], json!(["notify"]));

        // Mallory was not there, and has nothing to take along.
        mallory.arranges(&room, "u.odd").await;
        mallory.joins(&new).await;
        // One who makes the successor by hand is in it before the old room says so.
        let by_hand = alice.creates(wish).await;
        alice.is_followed(&room, &by_hand).await;
        assert_eq!(mallory.tags(&new).await, json!({}));
        assert_eq!(mallory.direct().await["@friend:test.example"], json!([room]));
        // All of it is shown by the next sync.
        let page = bob.syncs().await;
        assert!(of_type(&page["account_data"]["events"], "m.push_rules").unwrap().to_string().contains(&new), "{page}");
        server.stop().await;
    }
}

impl Person {
    fn mine(&self, what: &str) -> String {
        format!("/user/{}/{what}", escaped(&self.id))
    }

    /// Tags a room, mutes it, wants to be told of mentions only, and says that it is a direct chat.
    async fn arranges(&self, room: &str, tag: &str) {
        self.put(&self.mine(&format!("rooms/{}/tags/{tag}", escaped(room))), json!({ "order": 0.5 })).await.ok();
        let path = |kind: &str| format!("/pushrules/global/{kind}/{}", escaped(room));
        let here = json!([{ "kind": "event_match", "key": "room_id", "pattern": room }]);
        self.put(&path("override"), json!({ "actions": [], "conditions": here })).await.ok();
        self.put(&format!("{}/enabled", path("override")), json!({ "enabled": false })).await.ok();
        self.put(&path("room"), json!({ "actions": [] })).await.ok();
        let said = json!({ "kind": "event_match", "key": "content.body", "pattern": "tea" });
        let rule = json!({ "actions": ["notify"], "conditions": [here[0], said] });
        self.put("/pushrules/global/override/org.example.tea", rule).await.ok();
        let direct = json!({ "@friend:test.example": [room], "@other:test.example": ["!o:x.y"] });
        self.put(&self.mine("account_data/m.direct"), direct).await.ok();
    }

    async fn direct(&self) -> Value {
        self.get(&self.mine("account_data/m.direct")).await.ok()
    }

    async fn tags(&self, room: &str) -> Value {
        self.get(&self.mine(&format!("rooms/{}/tags", escaped(room)))).await.ok()["tags"].clone()
    }

    /// Waits until what is kept of the old room is kept of the new one, too.
    async fn is_followed(&self, old: &str, new: &str) {
        let done = async || self.direct().await["@friend:test.example"].as_array().unwrap().contains(&json!(new));
        timeout(LONG, async { while !done().await {} })
            .await
            .unwrap_or_else(|_| panic!("{new} is not kept like {old}"));
    }
}

/// Bob is a moderator; a creator of version 12 has no level.
fn levels_of(people: &[&Person; 2], version: &str) -> Value {
    let [alice, bob] = people;
    match version {
        "12" => json!({ &bob.id: 50 }),
        // Until version 10 a level could be a text.
        "9" => json!({ &alice.id: "100", &bob.id: "50" }),
        _ => json!({ &alice.id: 100, &bob.id: 50 }),
    }
}

fn from_level(version: &str) -> i64 {
    // What stood above all numbers stands as high as the highest.
    if version == "12" { 150 } else { 100 }
}
