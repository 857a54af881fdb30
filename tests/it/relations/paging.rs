//! Pages of what relates to an event.

use serde_json::{Value, json};

use crate::support::{
    Reply, each_backend,
    people::{Person, escaped, event_id, ids, open_server},
};

fn next(page: &Value) -> String {
    format!("&from={}", page["next_batch"].as_str().unwrap_or_else(|| panic!("a token in {page}")))
}

fn shown(reply: &Reply) -> Vec<String> {
    ids(&reply.ok()["chunk"])
}

each_backend! {
    async fn what_relates_is_found_by_how_it_does(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let root = alice.says(&room, "root").await;
        let other = alice.says(&room, "other").await;
        let answer = alice.answers_in_thread(&room, &root, "answer").await;
        let content = json!({ "m.relates_to": { "rel_type": "m.thread", "event_id": root } });
        let dummy = event_id(&alice.tries_to_relate(&room, "m.dummy", "d", content).await);
        let edited = alice.edits(&room, &root, "new").await;
        let liked = event_id(&bob.reacts(&room, &root, "+1").await);
        let mine = alice.relates(&room, "org.example.mine", &root, "mine").await;
        alice.answers_in_thread(&room, &other, "elsewhere").await;
        let related = async |what: &str| shown(&bob.related(&room, &root, what).await);
        assert_eq!(related("").await, [&*mine, &liked, &edited, &dummy, &answer], "the newest first");
        assert_eq!(related("?dir=f").await, [&*answer, &dummy, &edited, &liked, &mine]);
        assert_eq!(related("/m.thread").await, [&*dummy, &answer]);
        assert_eq!(related("/m.thread/m.room.message").await, [&*answer]);
        assert_eq!(related("/m.annotation").await, [&*liked]);
        assert_eq!(related("/org.example.mine").await, [&*mine]);
        assert!(related("/m.replace/m.reaction").await.is_empty());
        let whole = bob.related(&room, &root, "").await.ok();
        assert!(whole.get("next_batch").is_none() && whole.get("prev_batch").is_none());
        assert!(whole.get("recursion_depth").is_none());
        assert_eq!(whole["chunk"][0]["room_id"], *room);

        // Under the path of old as well.
        let old = format!("/_matrix/client/unstable/rooms/{}/relations/{}", escaped(&room), escaped(&root));
        let request = server.request(reqwest::Method::GET, &old).bearer_auth(&bob.token);
        assert_eq!(shown(&server.send(request).await).len(), 5);

        // What is taken back, or said by those whom one ignores, is not there.
        alice.redacts(&room, &mine).await.ok();
        assert_eq!(related("").await, [&*liked, &edited, &dummy, &answer]);
        bob.ignores(&[&alice]).await;
        assert_eq!(related("").await, [&*liked]);
        bob.ignores(&[]).await;
        alice.redacts(&room, &root).await.ok();
        assert_eq!(related("").await, [&*liked, &dummy, &answer], "with the message its edits are taken back");

        bob.related(&room, "$nowhere", "").await.refused(404, "M_NOT_FOUND");
        let (room_of_two, _) = (alice.opens_a_room().await, ());
        alice.related(&room_of_two, &root, "").await.refused(404, "M_NOT_FOUND");
        bob.related(&room_of_two, &root, "").await.refused(403, "M_FORBIDDEN");
        bob.related(&room, &root, "?from=nonsense").await.refused(400, "M_INVALID_PARAM");
        server.get(&format!("/_matrix/client/v1/rooms/{}/relations/{}", escaped(&room), escaped(&root)))
            .await
            .refused(401, "M_MISSING_TOKEN");
        server.stop().await;
    }

    async fn pages_go_both_ways(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let root = alice.says(&room, "root").await;
        let mut answers = Vec::new();
        for n in 0..10 {
            answers.push(alice.answers_in_thread(&room, &root, &n.to_string()).await);
            alice.says(&room, "between").await;
        }
        for (dir, recurse) in [("b", ""), ("f", ""), ("b", "&recurse=true"), ("f", "&recurse=true")] {
            let mut expected = answers.clone();
            if dir == "b" {
                expected.reverse();
            }
            let mut seen = Vec::new();
            let mut from = String::new();
            let pages = loop {
                let page = alice.related(&room, &root, &format!("?dir={dir}&limit=3{recurse}{from}")).await.ok();
                assert_eq!(page.get("prev_batch").is_some(), !seen.is_empty());
                seen.push(ids(&page["chunk"]));
                if page.get("next_batch").is_none() {
                    break seen;
                }
                from = next(&page);
            };
            assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3, 1], "{dir}{recurse}");
            assert_eq!(pages.concat(), expected, "{dir}{recurse}");
        }
        // A last page that is full is the last.
        let page = alice.related(&room, &root, "?limit=5").await.ok();
        let page = alice.related(&room, &root, &format!("?limit=5{}", next(&page))).await.ok();
        assert!(page.get("next_batch").is_none(), "{page}");

        // From one token to another, whoever gave them.
        let page = alice.related(&room, &root, "?limit=3").await.ok();
        let from = next(&page);
        let page = alice.related(&room, &root, &format!("?limit=3{from}")).await.ok();
        let to = page["next_batch"].as_str().unwrap().to_owned();
        let between = shown(&alice.related(&room, &root, &format!("?limit=9{from}&to={to}")).await);
        assert_eq!(between, [&*answers[6], &answers[5], &answers[4]]);
        alice.syncs().await;
        let since = alice.since();
        let new = alice.answers_in_thread(&room, &root, "new").await;
        assert_eq!(shown(&alice.related(&room, &root, &format!("?dir=f&from={since}")).await), [&*new]);
        assert_eq!(shown(&alice.related(&room, &root, &format!("?limit=1&from={since}")).await), [&*answers[9]]);
        assert_eq!(shown(&alice.related(&room, &root, &format!("?to={since}")).await), [&*new]);
        server.stop().await;
    }

    async fn what_relates_to_what_relates_is_found(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let root = alice.says(&room, "root").await;
        let one = alice.answers_in_thread(&room, &root, "one").await;
        let two = alice.answers_in_thread(&room, &root, "two").await;
        let edit = alice.edits(&room, &one, "one, edited").await;
        let liked = event_id(&bob.reacts(&room, &one, "+1").await);
        let deep = alice.relates(&room, "m.reference", &edit, "third").await;
        let deeper = alice.relates(&room, "m.reference", &deep, "fourth").await;
        alice.relates(&room, "m.reference", &deeper, "too far").await;
        let related = async |what: &str| bob.related(&room, &root, what).await.ok();
        let page = related("?recurse=true").await;
        assert_eq!(ids(&page["chunk"]), [&*deeper, &deep, &liked, &edit, &two, &one]);
        assert_eq!(page["recursion_depth"], 3);
        assert_eq!(ids(&related("?org.matrix.msc3981.recurse=true").await["chunk"]).len(), 6);
        assert_eq!(ids(&related("?recurse=false").await["chunk"]), [&*two, &one]);
        assert_eq!(ids(&related("?recurse=true&dir=f").await["chunk"]), [&*one, &two, &edit, &liked, &deep, &deeper]);
        assert_eq!(ids(&related("/m.annotation?recurse=true").await["chunk"]), [&*liked]);
        assert_eq!(ids(&related("/m.reference/m.room.message?recurse=true").await["chunk"]), [&*deeper, &deep]);
        // A page forwards finds what belongs to something before it.
        let page = related("?recurse=true&dir=f&limit=2").await;
        let page = related(&format!("?recurse=true&dir=f&limit=3{}", next(&page))).await;
        assert_eq!(ids(&page["chunk"]), [&*edit, &liked, &deep]);
        server.stop().await;
    }
}
