//! The threads of a room.

use serde_json::{Value, json};

use crate::support::{
    Reply, each_backend,
    people::{Person, ids, open_server},
};

/// The roots, and what is newest in their threads.
fn shown(reply: &Reply) -> Vec<(String, String)> {
    let page = reply.ok();
    let of = |root: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} in {root}")).to_owned();
        let newest = &root["unsigned"]["m.relations"]["m.thread"]["latest_event"]["event_id"];
        (text(&root["event_id"]), text(newest))
    };
    page["chunk"].as_array().unwrap().iter().map(of).collect()
}

fn pair(root: &str, newest: &str) -> (String, String) {
    (root.to_owned(), newest.to_owned())
}

each_backend! {
    async fn the_liveliest_thread_comes_first(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        assert_eq!(alice.threads(&room, "").await.ok(), json!({ "chunk": [] }));
        let (one, two) = (alice.says(&room, "one").await, alice.says(&room, "two").await);
        let a = alice.answers_in_thread(&room, &one, "a").await;
        let b = alice.answers_in_thread(&room, &two, "b").await;
        assert_eq!(shown(&bob.threads(&room, "").await), [pair(&two, &b), pair(&one, &a)]);
        let c = bob.answers_in_thread(&room, &one, "c").await;
        assert_eq!(shown(&bob.threads(&room, "").await), [pair(&one, &c), pair(&two, &b)]);
        // Neither edits nor reactions bring a thread up.
        alice.edits(&room, &b, "edited").await;
        alice.reacts(&room, &two, "+1").await.ok();
        assert_eq!(shown(&bob.threads(&room, "").await), [pair(&one, &c), pair(&two, &b)]);
        // What is taken back does not keep it up, and nothing is no thread.
        bob.redacts(&room, &c).await.ok();
        assert_eq!(shown(&bob.threads(&room, "").await), [pair(&two, &b), pair(&one, &a)]);
        alice.redacts(&room, &a).await.ok();
        assert_eq!(shown(&bob.threads(&room, "").await), [pair(&two, &b)]);
        // A thread of another room, or of nothing, is none of this one.
        let other = alice.opens_a_room().await;
        alice.answers_in_thread(&other, &one, "elsewhere").await;
        alice.answers_in_thread(&other, "$nowhere", "nowhere").await;
        assert_eq!(alice.threads(&other, "").await.ok(), json!({ "chunk": [] }));
        assert_eq!(shown(&bob.threads(&room, "").await), [pair(&two, &b)]);
        server.stop().await;
    }

    async fn one_may_ask_for_ones_own_and_page_by_page(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let mut roots = Vec::new();
        for n in 0..50 {
            let by = if n % 10 == 3 { &bob } else { &alice };
            let root = by.says(&room, "root").await;
            alice.answers_in_thread(&room, &root, "by alice").await;
            if n % 10 == 7 {
                bob.answers_in_thread(&room, &root, "by bob").await;
            }
            roots.push(root);
        }
        roots.reverse();
        let pages = async |what: &str| {
            let (mut pages, mut from) = (Vec::new(), String::new());
            loop {
                let page = bob.threads(&room, &format!("?{what}{from}")).await.ok();
                pages.push(ids(&page["chunk"]));
                let Some(next) = page["next_batch"].as_str() else { return pages };
                from = format!("&from={next}");
            }
        };
        let all = pages("limit=20").await;
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [20, 20, 10]);
        assert_eq!(all.concat(), roots);
        assert_eq!(pages("limit=50").await.len(), 1);
        let own: Vec<String> =
            roots.iter().rev().enumerate().filter(|(n, _)| [3, 7].contains(&(n % 10))).map(|(_, r)| r.clone()).collect();
        let mine = pages("include=participated&limit=4").await;
        assert_eq!(mine.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(mine.concat(), own.into_iter().rev().collect::<Vec<_>>());
        assert_eq!(pages("include=all&limit=100").await.concat(), roots);
        bob.threads(&room, "?include=some").await.refused(400, "M_INVALID_PARAM");
        bob.threads(&room, "?from=nonsense").await.refused(400, "M_INVALID_PARAM");
        server.stop().await;
    }

    async fn a_root_by_somebody_who_is_ignored_is_empty(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        carol.joins(&room).await;
        let root = carol.says(&room, "root").await;
        let answer = alice.answers_in_thread(&room, &root, "answer").await;
        carol.edits(&room, &root, "edited").await;
        carol.answers_in_thread(&room, &root, "her own").await;
        bob.ignores(&[&carol]).await;
        let page = bob.threads(&room, "").await.ok();
        let shown = &page["chunk"][0];
        assert_eq!((&shown["event_id"], &shown["content"]), (&json!(root), &json!({})));
        let told = &shown["unsigned"]["m.relations"];
        assert!(told.get("m.replace").is_none(), "{told}");
        assert_eq!((&told["m.thread"]["count"], &told["m.thread"]["latest_event"]["event_id"]), (&json!(1), &json!(answer)));
        // The thread can be read, for all that.
        assert_eq!(ids(&bob.related(&room, &root, "/m.thread").await.ok()["chunk"]), [&*answer]);
        assert_eq!(alice.threads(&room, "").await.ok()["chunk"][0]["content"]["body"], "root");
        server.stop().await;
    }
}
