//! Threads that one follows.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Reply, each_backend,
    people::{Person, Waiting, escaped, event_id, open_server},
};

const CONFLICT: &str = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION";
const NOT_IN_THREAD: &str = "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD";

impl Person {
    async fn of_thread(&self, method: Method, room: &str, root: &str, body: Option<Value>) -> Reply {
        let (room, root) = (escaped(room), escaped(root));
        let path = format!("/_matrix/client/unstable/io.element.msc4306/rooms/{room}/thread/{root}/subscription");
        let request = self.http().request(method, &path).bearer_auth(&self.token);
        self.http().send(if let Some(body) = body { request.json(&body) } else { request }).await
    }

    async fn subscribes(&self, room: &str, root: &str) -> Reply {
        self.of_thread(Method::PUT, room, root, Some(json!({}))).await
    }

    async fn subscribes_because(&self, room: &str, root: &str, cause: &str) -> Reply {
        self.of_thread(Method::PUT, room, root, Some(json!({ "automatic": cause }))).await
    }

    async fn unsubscribes(&self, room: &str, root: &str) -> Reply {
        self.of_thread(Method::DELETE, room, root, None).await
    }

    async fn subscription(&self, room: &str, root: &str) -> Reply {
        self.of_thread(Method::GET, room, root, None).await
    }

    async fn changes(&self, query: &str) -> Reply {
        let path = format!("/_matrix/client/unstable/io.element.msc4308/thread_subscriptions?{query}");
        self.http().send(self.http().request(Method::GET, &path).bearer_auth(&self.token)).await
    }

    async fn replies_in(&self, room: &str, root: &str) -> String {
        let relates_to = json!({ "rel_type": "m.thread", "event_id": root });
        let content = json!({ "msgtype": "m.text", "body": "reply", "m.relates_to": relates_to });
        event_id(&self.put(&format!("/rooms/{}/send/m.room.message/{}", escaped(room), self.next_txn()), content).await)
    }
}

/// What sliding sync tells of them, from a position on.
async fn slides(person: &Person, pos: Option<&str>, limit: u32) -> (String, Value) {
    let query = pos.map_or("timeout=0".to_owned(), |pos| format!("timeout=0&pos={pos}"));
    told(&person.slides(&query, &wish(limit)).await.ok())
}

async fn waits(person: &Person, pos: &str) -> Waiting {
    person.waits_for(pos, &wish(9)).await
}

fn wish(limit: u32) -> Value {
    json!({ "extensions": { "io.element.msc4308.thread_subscriptions": { "enabled": true, "limit": limit } } })
}

fn told(page: &Value) -> (String, Value) {
    let told = &page["extensions"]["io.element.msc4308.thread_subscriptions"];
    (page["pos"].as_str().unwrap().to_owned(), told.clone())
}

/// The roots that are told in one of its parts.
fn roots<'a>(told: &'a Value, part: &str) -> Vec<&'a str> {
    let rooms = told[part].as_object().into_iter().flat_map(|rooms| rooms.values());
    rooms.flat_map(|threads| threads.as_object().unwrap().keys()).map(String::as_str).collect()
}

each_backend! {
    async fn a_thread_is_followed_and_left(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let versions = server.get("/_matrix/client/versions").await.ok();
        assert_eq!(versions["unstable_features"]["org.matrix.msc4306"], true);
        let room = alice.opens_a_room().await;
        let (root, other) = (alice.says(&room, "root").await, alice.says(&room, "other").await);
        alice.subscription(&room, &root).await.refused(404, "M_NOT_FOUND");
        alice.unsubscribes(&room, &root).await.ok();
        // A client needs a reason in the thread.
        let elsewhere = alice.replies_in(&room, &other).await;
        for cause in [&root, &elsewhere, "$nothing"] {
            alice.subscribes_because(&room, &root, cause).await.refused(400, NOT_IN_THREAD);
        }
        let reply = alice.replies_in(&room, &root).await;
        alice.subscribes_because(&room, &root, &reply).await.ok();
        assert_eq!(alice.subscription(&room, &root).await.ok(), json!({ "automatic": true }));
        // What people do themselves comes first, and stays.
        alice.subscribes(&room, &root).await.ok();
        alice.subscribes_because(&room, &root, &reply).await.ok();
        assert_eq!(alice.subscription(&room, &root).await.ok(), json!({ "automatic": false }));
        let before = alice.replies_in(&room, &root).await;
        alice.unsubscribes(&room, &root).await.ok();
        alice.unsubscribes(&room, &root).await.ok();
        alice.subscription(&room, &root).await.refused(404, "M_NOT_FOUND");
        // A device that comes back late doesn't undo it; one that has seen something new does.
        let after = alice.replies_in(&room, &root).await;
        for cause in [&reply, &before] {
            alice.subscribes_because(&room, &root, cause).await.refused(409, CONFLICT);
        }
        alice.subscription(&room, &root).await.refused(404, "M_NOT_FOUND");
        alice.subscribes_because(&room, &root, &after).await.ok();
        assert_eq!(alice.subscription(&room, &root).await.ok(), json!({ "automatic": true }));
        // What is taken back is no reason.
        let gone = alice.replies_in(&room, &other).await;
        alice.redacts(&room, &gone).await.ok();
        alice.subscribes_because(&room, &other, &gone).await.refused(400, NOT_IN_THREAD);
        server.stop().await;
    }

    async fn a_thread_is_followed_by_those_who_see_it(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let joined_only = json!({
            "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": "joined" },
        });
        let room = alice.creates(json!({ "preset": "public_chat", "initial_state": [joined_only] })).await;
        let before = alice.says(&room, "before he came").await;
        let unseen = alice.replies_in(&room, &before).await;
        let refused = async |root: &str| {
            bob.subscription(&room, root).await.refused(404, "M_NOT_FOUND");
            bob.subscribes(&room, root).await.refused(404, "M_NOT_FOUND");
            bob.subscribes_because(&room, root, &unseen).await.refused(404, "M_NOT_FOUND");
            bob.unsubscribes(&room, root).await.refused(404, "M_NOT_FOUND");
        };
        refused(&before).await;
        bob.joins(&room).await;
        refused(&before).await;
        refused("$nothing:x").await;
        let root = alice.says(&room, "root").await;
        bob.subscribes(&room, &root).await.ok();
        alice.subscription(&room, &root).await.refused(404, "M_NOT_FOUND");
        // Not through another room, nor from outside.
        let other = bob.opens_a_room().await;
        bob.subscription(&other, &root).await.refused(404, "M_NOT_FOUND");
        bob.leaves(&room).await;
        refused(&root).await;
        server.stop().await;
    }

    async fn other_devices_are_told(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let (one, two) = (alice.says(&room, "one").await, alice.says(&room, "two").await);
        let (start, nothing) = slides(&alice, None, 9).await;
        assert!(nothing.is_null(), "{nothing}");
        let poll = waits(&alice, &start).await;
        alice.subscribes(&room, &one).await.ok();
        let (pos, page) = told(&poll.ends().await);
        let stamp = page["subscribed"][&room][&one]["bump_stamp"].as_u64().unwrap();
        assert_eq!(page, json!({ "subscribed": { &room: { &one: { "automatic": false, "bump_stamp": stamp } } } }));
        assert!(slides(&alice, Some(&pos), 9).await.1.is_null(), "it was told");
        bob.subscribes(&room, &two).await.ok();
        assert!(slides(&alice, Some(&pos), 9).await.1.is_null(), "it is nobody else's business");

        let poll = waits(&alice, &pos).await;
        alice.unsubscribes(&room, &one).await.ok();
        let (pos, page) = told(&poll.ends().await);
        let later = page["unsubscribed"][&room][&one]["bump_stamp"].as_u64().unwrap();
        assert!(later > stamp);
        assert_eq!(page, json!({ "unsubscribed": { &room: { &one: { "bump_stamp": later } } } }));
        // Of each thread the last change, also to those who begin; and nothing to who doesn't ask.
        let reply = alice.replies_in(&room, &two).await;
        alice.subscribes_because(&room, &two, &reply).await.ok();
        let (_, page) = slides(&alice, Some(&pos), 9).await;
        assert_eq!((roots(&page, "subscribed"), page.get("unsubscribed")), (vec![&*two], None), "{page}");
        assert_eq!(page["subscribed"][&room][&two]["automatic"], true);
        let (pos, page) = slides(&alice, None, 9).await;
        assert_eq!((roots(&page, "subscribed"), roots(&page, "unsubscribed")), (vec![&*two], vec![&*one]), "{page}");
        alice.subscribes(&room, &one).await.ok();
        let page = alice.slides(&format!("timeout=0&pos={pos}"), &json!({})).await.ok();
        assert!(page.get("extensions").is_none_or(|all| *all == json!({})), "{page}");
        server.stop().await;
    }

    async fn what_is_too_much_for_one_answer_is_read_page_by_page(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let mut threads = Vec::new();
        for n in 0..7 {
            threads.push(alice.says(&room, &n.to_string()).await);
        }
        alice.subscribes(&room, &threads[0]).await.ok();
        let (start, page) = slides(&alice, None, 1).await;
        assert_eq!((roots(&page, "subscribed"), page.get("prev_batch")), (vec![&*threads[0]], None));
        for root in &threads[1..] {
            alice.subscribes(&room, root).await.ok();
        }
        alice.unsubscribes(&room, &threads[1]).await.ok();
        let (_, page) = slides(&alice, Some(&start), 2).await;
        assert_eq!((roots(&page, "subscribed"), roots(&page, "unsubscribed")), (vec![&*threads[6]], vec![&*threads[1]]));
        let mut from = page["prev_batch"].as_str().unwrap().to_owned();
        let mut rest = Vec::new();
        loop {
            let page = alice.changes(&format!("dir=b&limit=3&to={start}&from={from}")).await.ok();
            rest.push(roots(&page, "subscribed").into_iter().map(str::to_owned).collect::<Vec<_>>());
            let Some(end) = page["end"].as_str() else { break };
            from = end.to_owned();
        }
        assert_eq!(rest.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1]);
        let mut rest = rest.concat();
        rest.sort_unstable();
        let mut missed = threads[2..6].to_vec();
        missed.sort_unstable();
        assert_eq!(rest, missed);
        let all = alice.changes("dir=b").await.ok();
        assert_eq!((roots(&all, "subscribed").len(), roots(&all, "unsubscribed").len(), all.get("end")), (6, 1, None));
        for wrong in ["", "dir=f", "dir=b&limit=0", "dir=b&limit=-1", "dir=b&from=nonsense", "dir=b&to=t1_3_0"] {
            assert_eq!(alice.changes(wrong).await.status, 400, "{wrong}");
        }
        let path = "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions?dir=b";
        server.get(path).await.refused(401, "M_MISSING_TOKEN");
        server.stop().await;
    }

    async fn threads_that_are_followed_have_no_rules_of_their_own(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        bob.syncs().await;
        let (one, two) = (alice.says(&room, "one").await, alice.says(&room, "two").await);
        bob.subscribes(&room, &one).await.ok();
        alice.replies_in(&room, &one).await;
        alice.replies_in(&room, &two).await;
        assert_eq!(bob.unread_anew(&room).await.0, (4, 0));
        let rules = bob.get("/pushrules/global/").await.ok();
        assert!(rules.get("postcontent").is_none(), "{rules}");
        for kind in ["postcontent", "io.element.msc4306.postcontent"] {
            let rule = json!({ "conditions": [], "actions": [] });
            bob.put(&format!("/pushrules/global/{kind}/mine"), rule).await.refused(400, "M_INVALID_PARAM");
        }
        server.stop().await;
    }
}

/// Whoever waits at another process is woken, too.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_at_other_processes_are_told() {
    let given = crate::support::Given::postgres().await;
    let (one, two) = (open_server(&given).await, open_server(&given).await);
    let alice = Person::registers(&one, "alice").await;
    let room = alice.opens_a_room().await;
    let root = alice.says(&room, "root").await;
    let there = alice.logs_in_on(&two).await;
    let (pos, _) = slides(&there, None, 9).await;
    let poll = waits(&there, &pos).await;
    alice.subscribes(&room, &root).await.ok();
    let (_, page) = told(&poll.ends().await);
    assert_eq!(roots(&page, "subscribed"), [&*root], "{page}");
    one.stop().await;
    two.stop().await;
    given.clean_up().await;
}
