//! How much somebody has not read.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use serde_json::{Value, json};

use crate::support::{
    each_backend,
    people::{Person, escaped, event_id, joined, open_server},
};

const THREADS: &str = r#"{"room":{"timeline":{"unread_thread_notifications":true}}}"#;

/// Notifications and highlights.
type Counts = (u64, u64);

fn counts(of: &Value) -> Counts {
    let number = |key: &str| of[key].as_u64().unwrap_or_else(|| panic!("{key} in {of}"));
    (number("notification_count"), number("highlight_count"))
}

/// Of a room, as this page shows it.
fn unread(page: &Value, room: &str) -> Counts {
    counts(&joined(page, room)["unread_notifications"])
}

impl Person {
    async fn sends_content(&self, room: &str, txn: &str, kind: &str, content: Value) -> String {
        event_id(&self.put(&format!("/rooms/{}/send/{kind}/{txn}", escaped(room)), content).await)
    }

    pub async fn writes(&self, room: &str, txn: &str, beside: Value) -> String {
        let mut content = json!({ "msgtype": "m.text", "body": txn });
        content.as_object_mut().unwrap().extend(beside.as_object().unwrap().clone());
        self.sends_content(room, txn, "m.room.message", content).await
    }

    pub async fn answers(&self, room: &str, txn: &str, root: &str) -> String {
        self.writes(room, txn, json!({ "m.relates_to": { "rel_type": "m.thread", "event_id": root } })).await
    }

    pub async fn marks_read(&self, room: &str, kind: &str, event: &str, thread: Option<&str>) {
        let body = thread.map_or(json!({}), |thread| json!({ "thread_id": thread }));
        self.asks(room, &format!("receipt/{kind}/{}", escaped(event)), body).await.ok();
    }

    /// What a device that comes anew is told: the room, and apart from it the main timeline and the threads.
    pub async fn unread_anew(&self, room: &str) -> (Counts, Counts, Vec<(String, Counts)>) {
        let all = unread(&self.sync("timeout=0").await, room);
        let page = self.sync(&format!("timeout=0&filter={}", escaped(THREADS))).await;
        let threads = joined(&page, room)["unread_thread_notifications"].as_object().cloned().unwrap_or_default();
        let threads = threads.iter().map(|(root, of)| (root.clone(), counts(of))).collect();
        (all, unread(&page, room), threads)
    }

    /// Is told this sooner or later, on a server that may not have heard of it yet.
    #[cfg(feature = "postgres")]
    async fn comes_to_know(&self, room: &str, counts: Counts) {
        let told = async {
            let mut since = self.since();
            loop {
                let page = self.sync(&format!("timeout=20000&since={since}")).await;
                since = page["next_batch"].as_str().unwrap().to_owned();
                if joined(&page, room).is_object() && unread(&page, room) == counts {
                    break;
                }
            }
        };
        tokio::time::timeout(crate::support::people::LONG, told)
            .await
            .unwrap_or_else(|_| panic!("{} is not told of {counts:?}", self.id));
    }

    /// What the next sync tells, which is what a device that comes anew is told.
    pub async fn unread_next(&self, room: &str) -> Counts {
        let next = unread(&self.syncs().await, room);
        assert_eq!(self.unread_anew(room).await.0, next, "{} goes on, and comes anew", self.id);
        next
    }
}

each_backend! {
    async fn messages_are_unread_until_they_are_read(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        alice.says(&room, "before he came").await;
        bob.joins(&room).await;
        assert_eq!(bob.unread_next(&room).await, (0, 0));
        for n in 1..4 {
            alice.says(&room, "news").await;
            assert_eq!(bob.unread_next(&room).await, (n, 0));
        }
        let own = bob.says(&room, "his own is not news to him").await;
        assert_eq!(bob.unread_next(&room).await, (3, 0));
        assert_eq!(alice.unread_anew(&room).await.0, (1, 0));
        alice.sets(&room, "m.room.topic", "", json!({ "topic": "no news" })).await.ok();
        assert_eq!(bob.unread_next(&room).await, (3, 0));
        let last = alice.says(&room, "more").await;
        assert_eq!(bob.unread_next(&room).await, (4, 0));

        bob.marks_read(&room, "m.read", &own, None).await;
        assert_eq!(bob.unread_next(&room).await, (1, 0), "his receipt shows him the room");
        bob.marks_read(&room, "m.read.private", &last, None).await;
        assert_eq!(bob.unread_next(&room).await, (0, 0));
        alice.says(&room, "again").await;
        assert_eq!(bob.unread_next(&room).await, (1, 0));
        bob.says(&room, "an answer is no receipt").await;
        assert_eq!(bob.unread_next(&room).await, (1, 0));

        // Somebody who never reads is told the sum all the same.
        let bot = Person::registers(&server, "bot").await;
        bot.joins(&room).await;
        bot.syncs().await;
        for n in 1..30 {
            alice.says(&room, "on and on").await;
            if n % 7 == 0 {
                assert_eq!(bot.unread_next(&room).await, (n, 0));
            }
        }
        // What was said while somebody was away is not for them.
        bob.leaves(&room).await;
        alice.says(&room, "behind his back").await;
        bob.joins(&room).await;
        assert_eq!(bob.unread_next(&room).await, (0, 0));
        alice.says(&room, "welcome back").await;
        assert_eq!(bob.unread_next(&room).await, (1, 0));
        server.stop().await;
    }

    async fn a_mention_highlights(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        carol.joins(&room).await;
        for person in [&bob, &carol] {
            person.syncs().await;
        }
        let mention = alice.writes(&room, "a", json!({ "m.mentions": { "user_ids": [bob.id, "@elsewhere:far.away", 7] } })).await;
        assert_eq!(bob.unread_next(&room).await, (1, 1));
        assert_eq!(carol.unread_next(&room).await, (1, 0));
        let notice = json!({ "msgtype": "m.notice", "m.mentions": { "user_ids": [bob.id] } });
        alice.writes(&room, "b", notice).await;
        assert_eq!(bob.unread_next(&room).await, (1, 1), "bots don't disturb");
        alice.writes(&room, "c", json!({ "m.mentions": { "room": true } })).await;
        assert_eq!(bob.unread_next(&room).await, (2, 2));
        assert_eq!(carol.unread_next(&room).await, (2, 1));
        carol.writes(&room, "d", json!({ "m.mentions": { "room": true } })).await;
        assert_eq!(bob.unread_next(&room).await, (3, 2), "she has no power to call the room");

        // Old clients don't say whom they mean.
        let dave = Person::registers(&server, "dave").await;
        dave.joins(&room).await;
        dave.sets(&room, "m.room.member", &dave.id, json!({ "membership": "join", "displayname": "Big D" })).await.ok();
        dave.syncs().await;
        alice.says(&room, &format!("hello {}, and big d!", bob.id)).await;
        assert_eq!(dave.unread_next(&room).await, (1, 1));
        assert_eq!(bob.unread_next(&room).await, (4, 3));
        dave.sets(&room, "m.room.member", &dave.id, json!({ "membership": "join", "displayname": "Dee" })).await.ok();
        alice.says(&room, "who was big d? and bobby?").await;
        assert_eq!(dave.unread_next(&room).await, (2, 1));
        alice.writes(&room, "Dee", json!({ "m.mentions": {} })).await;
        assert_eq!(dave.unread_next(&room).await, (3, 1), "she says that she means nobody");
        alice.says(&room, "@room").await;
        assert_eq!(dave.unread_next(&room).await, (4, 2));
        dave.leaves(&room).await;
        let all = alice.says(&room, "dee and carol").await;
        assert_eq!(carol.unread_next(&room).await.1, 3);
        bob.marks_read(&room, "m.read", &all, Some("$elsewhere")).await;
        assert_eq!(bob.unread_next(&room).await, (8, 4));
        let (bob_n, bob_h) = (8, 4);

        // An edit is nothing new; a reaction neither.
        let to = |rel: &str| json!({ "m.relates_to": { "rel_type": rel, "event_id": mention, "key": "+" } });
        let mut edit = to("m.replace");
        edit["m.new_content"] = json!({ "msgtype": "m.text", "body": "edited" });
        alice.writes(&room, "e", edit).await;
        assert_eq!(bob.unread_next(&room).await, (bob_n, bob_h));
        alice.sends_content(&room, "f", "m.reaction", to("m.annotation")).await;
        assert_eq!(bob.unread_next(&room).await, (bob_n, bob_h));
        // What is redacted is nothing to read any more.
        alice.redacts(&room, &mention).await.ok();
        assert_eq!(bob.unread_next(&room).await, (bob_n - 1, bob_h - 1));
        alice.redacts(&room, &mention).await.ok();
        assert_eq!(bob.unread_next(&room).await, (bob_n - 1, bob_h - 1), "once");
        let next = alice.writes(&room, "g", json!({ "m.mentions": { "user_ids": [bob.id] } })).await;
        assert_eq!(bob.unread_next(&room).await, (bob_n, bob_h));
        bob.marks_read(&room, "m.read", &next, None).await;
        alice.redacts(&room, &next).await.ok();
        assert_eq!(bob.unread_next(&room).await, (0, 0), "it had been read");
        server.stop().await;
    }

    async fn a_message_can_mention_so_many(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        bob.syncs().await;
        let crowd = |n: usize| (0..n).map(|n| format!("@a{n}:test.example")).collect::<Vec<_>>();
        let to = |users: Vec<String>| json!({ "m.mentions": { "user_ids": users } });
        alice.writes(&room, "a", to([crowd(99), vec![bob.id.clone()]].concat())).await;
        assert_eq!(bob.unread_next(&room).await, (1, 1));
        alice.writes(&room, "b", to([vec![bob.id.clone()], crowd(500)].concat())).await;
        assert_eq!(bob.unread_next(&room).await, (2, 2), "the first are meant");
        alice.writes(&room, "c", to([crowd(100), vec![bob.id.clone()]].concat())).await;
        assert_eq!(bob.unread_next(&room).await, (3, 2), "to the others it is a message like any");
        server.stop().await;
    }

    async fn threads_without_end_are_summed(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        bob.syncs().await;
        for n in 0..101 {
            alice.answers(&room, &format!("made up {n}"), &format!("$made_up_{n}")).await;
        }
        let (all, main, threads) = bob.unread_anew(&room).await;
        assert_eq!((all, main, threads), ((101, 0), (101, 0), vec![]), "nothing grows from nothing");
        for n in 0..101 {
            let root = alice.says(&room, "root").await;
            alice.answers(&room, &n.to_string(), &root).await;
        }
        let (all, main, threads) = bob.unread_anew(&room).await;
        assert_eq!((all, main, threads.len()), ((303, 0), (203, 0), 100), "so many are told apart");
        bob.syncs().await;
        let before = server.work();
        alice.says(&room, "main").await;
        assert_eq!(unread(&bob.syncs().await, &room), (304, 0));
        assert_eq!(server.work_since(&before).keys().collect::<Vec<_>>(), [&"persist"], "the sum is known");
        assert_eq!(bob.unread_anew(&room).await.1, (204, 0));
        server.stop().await;
    }

    async fn nobody_hears_of_those_they_ignore(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        carol.joins(&room).await;
        bob.syncs().await;
        alice.says(&room, "one").await;
        let loud = carol.writes(&room, "two", json!({ "m.mentions": { "user_ids": [bob.id] } })).await;
        assert_eq!(bob.unread_next(&room).await, (2, 1));
        bob.ignores(&[&carol]).await;
        bob.syncs().await;
        alice.says(&room, "three").await;
        assert_eq!(bob.unread_next(&room).await, (2, 0));
        carol.says(&room, "four").await;
        alice.says(&room, "five").await;
        assert_eq!(bob.unread_next(&room).await, (3, 0));
        carol.redacts(&room, &loud).await.ok();
        alice.says(&room, "six").await;
        assert_eq!(bob.unread_next(&room).await, (4, 0), "what was not counted is not taken off");
        bob.ignores(&[]).await;
        alice.says(&room, "seven").await;
        assert_eq!(bob.unread_next(&room).await, (6, 0));
        server.stop().await;
    }

    async fn threads_are_read_apart(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        bob.syncs().await;
        let root = alice.says(&room, "root").await;
        let first = alice.answers(&room, "first", &root).await;
        let reference = json!({ "m.relates_to": { "rel_type": "m.reference", "event_id": first } });
        alice.writes(&room, "refers to an answer", reference).await;
        let main = alice.says(&room, "main").await;
        let other = alice.answers(&room, "other", &main).await;
        let third = alice.answers(&room, "third", &root).await;
        bob.answers(&room, "his own", &root).await;
        let of = |root: &str, n: u64| (root.to_owned(), (n, 0));
        let sorted = |mut threads: Vec<(String, Counts)>| {
            threads.sort();
            threads
        };
        let next = bob.syncs_with(&format!("&filter={}", escaped(THREADS))).await;
        assert_eq!(unread(&next, &room), (2, 0));
        assert_eq!(counts(&joined(&next, &room)["unread_thread_notifications"][&root]), (3, 0));
        assert_eq!(bob.unread_anew(&room).await, ((6, 0), (2, 0), sorted(vec![of(&root, 3), of(&main, 1)])));

        bob.marks_read(&room, "m.read", &first, Some(&root)).await;
        assert_eq!(bob.unread_anew(&room).await, ((5, 0), (2, 0), sorted(vec![of(&root, 2), of(&main, 1)])));
        bob.marks_read(&room, "m.read.private", &root, Some("main")).await;
        assert_eq!(bob.unread_anew(&room).await, ((4, 0), (1, 0), sorted(vec![of(&root, 2), of(&main, 1)])));
        bob.marks_read(&room, "m.read", &main, None).await;
        assert_eq!(bob.unread_anew(&room).await, ((2, 0), (0, 0), sorted(vec![of(&root, 1), of(&main, 1)])));
        assert_eq!(unread(&bob.syncs().await, &room), (2, 0));
        alice.answers(&room, "fourth", &root).await;
        let next = bob.syncs_with(&format!("&filter={}", escaped(THREADS))).await;
        assert_eq!(unread(&next, &room), (0, 0));
        assert_eq!(counts(&joined(&next, &room)["unread_thread_notifications"][&root]), (2, 0));
        bob.marks_read(&room, "m.read", &third, Some(&root)).await;
        assert_eq!(bob.unread_anew(&room).await, ((2, 0), (0, 0), sorted(vec![of(&root, 1), of(&main, 1)])));
        bob.marks_read(&room, "m.read", &other, Some(&main)).await;
        alice.redacts(&room, &third).await.ok();
        assert_eq!(bob.unread_anew(&room).await, ((1, 0), (0, 0), vec![of(&root, 1)]));

        // Both kinds of receipt at one event: the one for the whole room says more.
        let last = alice.answers(&room, "last", &root).await;
        bob.syncs().await;
        bob.marks_read(&room, "m.read", &last, None).await;
        bob.marks_read(&room, "m.read", &last, Some(&root)).await;
        let page = bob.syncs().await;
        let receipts = &joined(&page, &room)["ephemeral"]["events"][0]["content"];
        assert!(receipts[&last]["m.read"][&bob.id].get("thread_id").is_none(), "{receipts}");
        assert_eq!(bob.unread_anew(&room).await, ((0, 0), (0, 0), vec![]));
        server.stop().await;
    }

    async fn counts_outlive_the_process(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        bob.syncs().await;
        let read = alice.says(&room, "one").await;
        alice.writes(&room, "two", json!({ "m.mentions": { "user_ids": [bob.id] } })).await;
        bob.marks_read(&room, "m.read", &read, None).await;
        assert_eq!(bob.unread_next(&room).await, (1, 1));
        server.stop().await;
        let server = open_server(given).await;
        let (alice, bob) = (alice.turns_to(&server), bob.turns_to(&server));
        alice.says(&room, "three").await;
        assert_eq!(bob.unread_next(&room).await, (2, 1));
        alice.says(&room, "four").await;
        assert_eq!(bob.unread_next(&room).await, (3, 1));
        server.stop().await;
    }
}

/// Both processes add to the same totals, and each tells what the other has counted.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_count_together() {
    let given = crate::support::Given::postgres().await;
    let (one, two) = (open_server(&given).await, open_server(&given).await);
    let (alice, bob) = (Person::registers(&one, "alice").await, Person::registers(&two, "bob").await);
    let carol = Person::registers(&two, "carol").await;
    let room = alice.opens_a_room().await;
    bob.joins(&room).await;
    carol.joins(&room).await;
    bob.syncs().await;
    let (here, there) = (bob.turns_to(&one), bob.turns_to(&two));
    for n in 1..6 {
        let mention = json!({ "m.mentions": { "user_ids": [bob.id] } });
        let (by_alice, by_carol) = (format!("a{n}"), format!("c{n}"));
        futures_util::future::join(alice.writes(&room, &by_alice, mention), carol.writes(&room, &by_carol, json!({})))
            .await;
        assert_eq!(here.unread_anew(&room).await.0, (2 * n, n));
        assert_eq!(there.unread_anew(&room).await.0, (2 * n, n));
        there.comes_to_know(&room, (2 * n, n)).await;
    }
    let last = alice.says(&room, "last").await;
    here.marks_read(&room, "m.read", &last, None).await;
    there.comes_to_know(&room, (0, 0)).await;
    carol.says(&room, "more").await;
    there.comes_to_know(&room, (1, 0)).await;
    alice.says(&room, "and more").await;
    there.comes_to_know(&room, (2, 0)).await;
    one.stop().await;
    two.stop().await;
    given.clean_up().await;
}
