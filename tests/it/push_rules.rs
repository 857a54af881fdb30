//! Push rules: how they are kept, and what they make of what is unread.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    each_backend,
    people::{Person, escaped, open_server},
};

fn path(kind: &str, id: &str) -> String {
    format!("/pushrules/global/{kind}/{}", escaped(id))
}

/// A rule that comes before all others: nothing of this room.
fn silence(room: &str) -> Value {
    json!({ "conditions": [{ "kind": "event_match", "key": "room_id", "pattern": room }], "actions": [] })
}

impl Person {
    async fn sets_rule(&self, kind: &str, id: &str, rule: Value) {
        self.put(&path(kind, id), rule).await.ok();
    }

    async fn drops_rule(&self, kind: &str, id: &str) {
        self.send(Method::DELETE, &path(kind, id), None).await.ok();
    }

    async fn turns_rule(&self, kind: &str, id: &str, enabled: bool) {
        self.put(&format!("{}/enabled", path(kind, id)), json!({ "enabled": enabled })).await.ok();
    }

    async fn rules(&self, kind: &str) -> Vec<String> {
        let all = self.get("/pushrules/global/").await.ok();
        let rules = all[kind].as_array().into_iter().flatten();
        rules.filter(|rule| rule["default"] == false).map(|rule| rule["rule_id"].as_str().unwrap().to_owned()).collect()
    }
}

each_backend! {
    async fn a_rule_goes_where_it_is_wanted(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let put = async |id: &str| alice.put(&format!("/pushrules/global/sender/{id}"), json!({ "actions": [] })).await;
        for id in ["@a:x", "@b:x", "@c:x"] {
            put(id).await.ok();
        }
        assert_eq!(alice.rules("sender").await, ["@c:x", "@b:x", "@a:x"], "the newest is the most important");
        put("@c:x?after=@a:x").await.ok();
        assert_eq!(alice.rules("sender").await, ["@b:x", "@a:x", "@c:x"]);
        put("@b:x?after=@a:x").await.ok();
        assert_eq!(alice.rules("sender").await, ["@a:x", "@b:x", "@c:x"]);
        put("@c:x?before=@a:x").await.ok();
        assert_eq!(alice.rules("sender").await, ["@c:x", "@a:x", "@b:x"]);
        put("@d:x?after=@c:x&before=@b:x").await.ok();
        assert_eq!(alice.rules("sender").await, ["@c:x", "@a:x", "@d:x", "@b:x"]);
        put("@a:x").await.ok();
        assert_eq!(alice.rules("sender").await, ["@c:x", "@a:x", "@d:x", "@b:x"], "it stays where it is");
        alice.turns_rule("sender", "@d:x", false).await;
        put("@d:x?before=@c:x").await.ok();
        assert_eq!(alice.rules("sender").await[0], "@d:x");
        assert_eq!(alice.get(&path("sender", "@d:x")).await.ok()["enabled"], false, "a rule that is off stays off");
        for wrong in ["@e:x?after=@nobody:x", "@a:x?after=@a:x", "@e:x?after=@b:x&before=@c:x"] {
            assert_eq!(put(wrong).await.status, 400, "{wrong}");
        }
        assert_eq!(alice.rules("sender").await, ["@d:x", "@c:x", "@a:x", "@b:x"]);
        put("@a:x?before=.m.rule.message").await.refused(400, "M_INVALID_PARAM");
        server.stop().await;
    }

    async fn cve_2021_29471_rules_are_small_and_few(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let word = |pattern: &str| json!({ "pattern": pattern, "actions": ["notify"] });
        for n in 0..100 {
            alice.sets_rule("content", &format!("w{n}"), word("w*")).await;
        }
        alice.put(&path("content", "w100"), word("w")).await.refused(403, "M_FORBIDDEN");
        alice.sets_rule("content", "w99", word("another")).await;
        let long = |n: usize| word(&format!("*{}?", "a".repeat(n)));
        alice.sets_rule("content", "w0", long(126)).await;
        alice.put(&path("content", "w0"), long(127)).await.refused(400, "M_INVALID_PARAM");
        alice.put(&path("content", "w0"), word("")).await.refused(400, "M_INVALID_PARAM");
        let condition = json!({ "kind": "event_match", "key": "content.body", "pattern": format!("?{}", "a".repeat(127)) });
        let rule = json!({ "conditions": [condition], "actions": [] });
        alice.put(&path("override", "o"), rule).await.refused(400, "M_INVALID_PARAM");
        // What has left the specification says nothing, and is kept, as is what nobody knows: clients find what they set.
        let actions = json!(["dont_notify", "notify", "coalesce", { "set_tweak": "x", "value": 1 }, "org.example"]);
        alice.sets_rule("underride", "u", json!({ "conditions": [], "actions": &actions })).await;
        assert_eq!(alice.get(&path("underride", "u")).await.ok()["actions"], actions);
        let of_default = format!("{}/actions", path("underride", ".m.rule.message"));
        alice.put(&of_default, json!({ "actions": ["dont_notify"] })).await.ok();
        assert_eq!(alice.get(&of_default).await.ok()["actions"], json!(["dont_notify"]));
        server.stop().await;
    }

    async fn rules_about_polls_are_those_that_clients_know(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let (one, two) = (alice.opens_a_room().await, alice.opens_a_room().await);
        for room in [&one, &two] {
            bob.joins(room).await;
        }
        Person::registers(&server, "carol").await.joins(&two).await;
        bob.syncs().await;
        let of_polls = |kind: &str| json!({ "kind": "event_match", "key": "type", "pattern": format!("org.matrix.msc3381.poll.{kind}") });
        let two_people = json!({ "kind": "room_member_count", "is": "2" });
        let aloud = json!(["notify", { "set_tweak": "sound", "value": "default" }]);
        for touched in [false, true] {
            for (kind, id, conditions, actions) in [
                ("override", "poll_response", json!([of_polls("response")]), json!([])),
                ("underride", "poll_start_one_to_one", json!([two_people, of_polls("start")]), aloud.clone()),
                ("underride", "poll_start", json!([of_polls("start")]), json!(["notify"])),
                ("underride", "poll_end_one_to_one", json!([two_people, of_polls("end")]), aloud.clone()),
                ("underride", "poll_end", json!([of_polls("end")]), json!(["notify"])),
            ] {
                let rule = bob.get(&path(kind, &format!(".org.matrix.msc3930.rule.{id}"))).await.ok();
                assert_eq!((&rule["conditions"], &rule["actions"]), (&conditions, &actions), "{rule}");
                assert_eq!((&rule["default"], &rule["enabled"]), (&json!(true), &json!(true)), "{rule}");
            }
            let all = bob.get("/pushrules/global/").await.ok();
            let ids: Vec<&str> = all["underride"].as_array().unwrap().iter().map(|r| r["rule_id"].as_str().unwrap()).collect();
            let place = |id: &str| ids.iter().position(|r| r.ends_with(id)).unwrap();
            assert!(place("poll_start_one_to_one") < place("rule.poll_start"), "{ids:?}");
            assert!(place("poll_end_one_to_one") < place("rule.poll_end"), "{ids:?}");

            for room in [&one, &two] {
                let before = bob.unread_anew(room).await.0.0;
                for (kind, told) in [("start", 1), ("response", 1), ("end", 2)] {
                    let txn = alice.next_txn();
                    let path = format!("/rooms/{}/send/org.matrix.msc3381.poll.{kind}/{txn}", escaped(room));
                    alice.put(&path, json!({})).await.ok();
                    assert_eq!(bob.unread_anew(room).await.0, (before + told, 0), "{kind}");
                }
            }
            // Rules that are stored, since one of them was changed, are shown no other way.
            bob.turns_rule("override", ".m.rule.suppress_notices", touched).await;
        }
        server.stop().await;
    }

    async fn what_somebody_muted_is_not_unread(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let (room, other) = (alice.opens_a_room().await, alice.opens_a_room().await);
        for person in [&bob, &carol] {
            person.joins(&room).await;
            person.joins(&other).await;
            person.syncs().await;
        }
        let mention = json!({ "m.mentions": { "user_ids": [bob.id, carol.id] } });
        alice.says(&room, "before").await;
        assert_eq!(bob.unread_next(&room).await, (1, 0));
        bob.sets_rule("override", &room, silence(&room)).await;
        alice.says(&room, "quiet").await;
        alice.writes(&room, "a", mention.clone()).await;
        let root = alice.says(&room, "root").await;
        alice.answers(&room, "in a thread", &root).await;
        assert_eq!(bob.unread_next(&room).await, (1, 0), "what was unread before stays unread");
        assert_eq!(carol.unread_next(&room).await, (5, 1));
        alice.says(&other, "elsewhere").await;
        assert_eq!(bob.unread_next(&other).await, (1, 0));

        // Of several who muted it, each counts what they did not read.
        carol.sets_rule("override", "whatever", silence(&room)).await;
        let read = alice.says(&room, "quiet to both").await;
        bob.marks_read(&room, "m.read", &read, None).await;
        assert_eq!(bob.unread_next(&room).await, (0, 0));
        assert_eq!(carol.unread_next(&room).await, (5, 1));
        bob.drops_rule("override", &room).await;
        let gone = alice.says(&room, "loud again").await;
        assert_eq!(bob.unread_next(&room).await, (1, 0));
        assert_eq!(carol.unread_next(&room).await, (5, 1));
        alice.redacts(&room, &gone).await.ok();
        assert_eq!(bob.unread_next(&room).await, (0, 0));
        assert_eq!(carol.unread_next(&room).await, (5, 1), "what was never counted is not taken off");

        // Who comes later, and who comes again.
        let dora = Person::registers(&server, "dora").await;
        dora.sets_rule("override", &room, silence(&room)).await;
        dora.joins(&room).await;
        dora.syncs().await;
        alice.writes(&room, "b", json!({ "m.mentions": { "room": true } })).await;
        assert_eq!(dora.unread_next(&room).await, (0, 0));
        assert_eq!(bob.unread_next(&room).await, (1, 1));
        dora.turns_rule("override", &room, false).await;
        alice.says(&room, "on").await;
        assert_eq!(dora.unread_next(&room).await, (1, 0));
        dora.turns_rule("override", &room, true).await;
        dora.leaves(&room).await;
        dora.joins(&room).await;
        dora.syncs().await;
        alice.says(&room, "off").await;
        assert_eq!(dora.unread_next(&room).await, (0, 0));
        server.stop().await;
    }

    async fn some_want_to_hear_of_mentions_and_some_of_words(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let (carol, dora) = (Person::registers(&server, "carol").await, Person::registers(&server, "dora").await);
        let room = alice.opens_a_room().await;
        for person in [&bob, &carol, &dora] {
            person.joins(&room).await;
            person.syncs().await;
        }
        let loud = json!(["notify", { "set_tweak": "highlight" }]);
        let to = |whom: &Person| json!({ "m.mentions": { "user_ids": [whom.id] } });
        bob.sets_rule("room", &room, json!({ "actions": [] })).await;
        carol.sets_rule("content", "c", json!({ "pattern": "ca?e", "actions": loud })).await;
        dora.sets_rule("room", &room, json!({ "actions": [] })).await;
        dora.sets_rule("content", "c", json!({ "pattern": "cake", "actions": loud })).await;

        alice.says(&room, "hello").await;
        assert_eq!(bob.unread_next(&room).await, (0, 0));
        assert_eq!(carol.unread_next(&room).await, (1, 0));
        assert_eq!(dora.unread_next(&room).await, (0, 0));
        alice.says(&room, "Cake for everybody!").await;
        assert_eq!(bob.unread_next(&room).await, (0, 0));
        assert_eq!(carol.unread_next(&room).await, (2, 1));
        assert_eq!(dora.unread_next(&room).await, (1, 1));
        alice.writes(&room, "care", to(&bob)).await;
        assert_eq!(bob.unread_next(&room).await, (1, 1));
        assert_eq!(carol.unread_next(&room).await, (3, 2));
        assert_eq!(dora.unread_next(&room).await, (1, 1));
        alice.says(&room, "bob? dora?").await;
        assert_eq!(bob.unread_next(&room).await, (2, 2), "older clients mention by name");
        assert_eq!(carol.unread_next(&room).await, (4, 2));
        assert_eq!(dora.unread_next(&room).await, (2, 2));

        // The defaults, otherwise.
        carol.drops_rule("content", "c").await;
        carol.turns_rule("override", ".m.rule.is_user_mention", false).await;
        carol.turns_rule("override", ".m.rule.suppress_notices", false).await;
        alice.writes(&room, "d", to(&carol)).await;
        alice.writes(&room, "e", json!({ "msgtype": "m.notice" })).await;
        assert_eq!(carol.unread_next(&room).await, (6, 2));
        assert_eq!(dora.unread_next(&room).await, (2, 2));
        carol.turns_rule("override", ".m.rule.master", true).await;
        alice.says(&room, "cake again").await;
        assert_eq!(carol.unread_next(&room).await, (6, 2));
        carol.turns_rule("override", ".m.rule.master", false).await;
        let actions = format!("{}/actions", path("underride", ".m.rule.message"));
        carol.put(&actions, json!({ "actions": loud })).await.ok();
        alice.says(&room, "so?").await;
        assert_eq!(carol.unread_next(&room).await, (7, 3));
        let display_name = json!({ "conditions": [{ "kind": "contains_display_name" }], "actions": [] });
        carol.sets_rule("override", "not me", display_name).await;
        carol.sets(&room, "m.room.member", &carol.id, json!({ "membership": "join", "displayname": "Big C" })).await.ok();
        carol.syncs().await;
        alice.writes(&room, "hear, big c", json!({ "m.mentions": {} })).await;
        assert_eq!(carol.unread_next(&room).await, (7, 3));
        server.stop().await;
    }

    async fn rules_cost_a_message_nothing_to_read(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let room = alice.opens_a_room().await;
        for person in [&bob, &carol] {
            person.joins(&room).await;
        }
        bob.sets_rule("override", &room, silence(&room)).await;
        carol.sets_rule("content", "c", json!({ "pattern": "cake", "actions": ["notify", { "set_tweak": "highlight" }] })).await;
        for _ in 0..2 {
            alice.says(&room, "warm").await;
            bob.syncs().await;
            carol.syncs().await;
        }
        for (text, statements) in [("hello", 6), ("cake", 7)] {
            let before = server.work();
            alice.says(&room, text).await;
            let work = server.work_since(&before);
            assert_eq!(work.keys().collect::<Vec<_>>(), [&"persist"], "{work:?}");
            assert!(work["persist"].statements <= statements, "{work:?}");
            let before = server.work();
            for person in [&bob, &carol] {
                assert_eq!(person.syncs().await["rooms"]["join"].as_object().unwrap().len(), 1);
            }
            let work = server.work_since(&before);
            assert!(work.is_empty(), "syncs after a message have read {work:?}");
        }
        // Those who are somewhere else are of no concern.
        let dora = Person::registers(&server, "dora").await;
        dora.sets_rule("room", &room, json!({ "actions": [] })).await;
        let before = server.work();
        alice.says(&room, "and again").await;
        let work = server.work_since(&before);
        assert_eq!(work.keys().collect::<Vec<_>>(), [&"persist"], "{work:?}");
        assert_eq!(work["persist"].runs, 1, "{work:?}");
        server.stop().await;
    }
}

/// One process is told of the other's rules before it stores what it worked out by old ones.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_hold_in_all_processes() {
    let given = crate::support::Given::postgres().await;
    let (one, two) = (open_server(&given).await, open_server(&given).await);
    let (alice, bob) = (Person::registers(&one, "alice").await, Person::registers(&two, "bob").await);
    let room = alice.opens_a_room().await;
    bob.joins(&room).await;
    alice.says(&room, "warm").await;
    for turn in 1..6 {
        bob.sets_rule("override", &room, silence(&room)).await;
        alice.says(&room, "quiet").await;
        assert_eq!(bob.unread_anew(&room).await.0, (turn, 0));
        bob.drops_rule("override", &room).await;
        alice.says(&room, "loud").await;
        assert_eq!(bob.unread_anew(&room).await.0, (turn + 1, 0));
    }
    // And in the middle of many.
    let (says, changes) = (
        async {
            for n in 0..30 {
                alice.says(&room, &format!("{n}")).await;
            }
        },
        async {
            for _ in 0..10 {
                bob.sets_rule("override", &room, silence(&room)).await;
                bob.drops_rule("override", &room).await;
            }
        },
    );
    futures_util::future::join(says, changes).await;
    bob.sets_rule("override", &room, silence(&room)).await;
    let then = bob.unread_anew(&room).await.0;
    alice.says(&room, "quiet").await;
    assert_eq!(bob.unread_anew(&room).await.0, then);
    one.stop().await;
    two.stop().await;
    given.clean_up().await;
}
