//! Messages from device to device: each arrives, in order, and goes when its device has it.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    Reply, Server, each_backend,
    people::{LONG, PASSWORD, Person, escaped, open_server},
};

const KIND: &str = "org.example.note";

/// What a page tells the device.
fn notes(page: &Value) -> Vec<String> {
    let events = page["to_device"]["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    let note = |event: &Value| {
        assert_eq!(event["type"], KIND, "{event}");
        event["content"]["note"].as_str().unwrap_or_else(|| panic!("{event}")).to_owned()
    };
    events.iter().map(note).collect()
}

fn numbered(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| n.to_string()).collect()
}

impl Person {
    async fn sends_to_devices(&self, txn: &str, messages: Value) -> Reply {
        self.put(&format!("/sendToDevice/{KIND}/{}", escaped(txn)), json!({ "messages": messages })).await
    }

    /// A note to one device; the text is the transaction id as well.
    async fn notes_to(&self, other: &Self, note: &str) {
        let messages = json!({ &other.id: { &other.device: { "note": note } } });
        self.sends_to_devices(note, messages).await.ok();
    }

    async fn sync_from(&self, token: &str) -> Value {
        self.sync(&format!("timeout=0&since={token}")).await
    }
}

fn next(page: &Value) -> &str {
    page["next_batch"].as_str().expect("a token")
}

async fn two(server: &Server) -> (Person, Person) {
    (Person::registers(server, "alice").await, Person::registers(server, "bob").await)
}

each_backend! {
    async fn a_message_comes_until_the_device_has_it(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = two(&server).await;
        let before = next(&bob.syncs().await).to_owned();
        alice.notes_to(&bob, "1").await;
        let first = bob.sync_from(&before).await;
        let event = json!({ "sender": alice.id, "type": KIND, "content": { "note": "1" } });
        assert_eq!(first["to_device"]["events"], json!([event]));
        alice.notes_to(&bob, "2").await;
        // The answer was lost.
        assert_eq!(notes(&bob.sync_from(&before).await), ["1", "2"]);
        assert_eq!(notes(&bob.sync("timeout=0").await), ["1", "2"], "from the beginning");
        let second = bob.sync_from(next(&first)).await;
        assert_eq!(notes(&second), ["2"]);
        assert_eq!(notes(&bob.sync_from(&before).await), ["2"], "the first is his");
        assert_eq!(notes(&bob.sync_from(next(&first)).await), ["2"]);
        let last = bob.sync_from(next(&second)).await;
        assert_eq!(notes(&last), [""; 0]);
        assert_eq!(notes(&bob.sync_from(&before).await), [""; 0]);
        assert_eq!(notes(&bob.sync("timeout=0").await), [""; 0]);
        server.stop().await;
    }

    async fn a_token_is_word_of_one_device(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = two(&server).await;
        let phone = bob.logs_in_on(&server).await;
        let messages = json!({ &bob.id: { "*": { "note": "to all" } } });
        alice.sends_to_devices("t", messages).await.ok();
        let bobs = bob.syncs().await;
        assert_eq!(notes(&bobs), ["to all"]);
        let phones = phone.sync_from(next(&bobs)).await;
        assert_eq!(notes(&phones), ["to all"], "the phone was told nothing by that answer");
        let alices = alice.sync_from(next(&bobs)).await;
        assert_eq!(notes(&alices), [""; 0]);
        assert_eq!(notes(&bob.sync_from(next(&phones)).await), ["to all"]);
        assert_eq!(notes(&phone.sync_from(next(&phones)).await), [""; 0]);
        assert_eq!(notes(&bob.sync_from(next(&bobs)).await), [""; 0]);
        // A token of a time that is not yet.
        alice.notes_to(&bob, "later").await;
        let told = next(&bob.sync("timeout=0").await).to_owned();
        let mut parts: Vec<String> = told.split('_').map(str::to_owned).collect();
        parts[1] = "999999".to_owned();
        bob.get(&format!("/sync?since={}", parts.join("_"))).await.refused(400, "M_INVALID_PARAM");
        assert_eq!(notes(&bob.sync("timeout=0").await), ["later"]);
        server.stop().await;
    }

    async fn a_message_ends_the_polls_of_its_user(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = two(&server).await;
        let phone = bob.logs_in_on(&server).await;
        for n in 0..3 {
            bob.syncs().await;
            bob.syncs().await;
            let poll = bob.waits().await;
            server.is_waited_for_by(1).await;
            alice.notes_to(&bob, &n.to_string()).await;
            assert_eq!(notes(&poll.ends().await), [n.to_string()]);
            assert_eq!(notes(&phone.syncs().await), [""; 0]);
            assert_eq!(notes(&bob.syncs().await), [n.to_string()]);
        }
        server.stop().await;
    }

    async fn many_come_a_hundred_at_a_time(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = two(&server).await;
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        bob.syncs().await;
        for n in numbered(0, 250) {
            alice.notes_to(&bob, &n).await;
        }
        let said = alice.says(&room, "beside them").await;
        let page = bob.syncs().await;
        assert_eq!(notes(&page), numbered(0, 100));
        assert!(page["rooms"].to_string().contains(&said));
        // What happens meanwhile does not hide what was held back.
        let said = alice.says(&room, "meanwhile").await;
        let page = bob.syncs().await;
        assert_eq!(notes(&page), numbered(100, 200));
        assert!(page["rooms"].to_string().contains(&said));
        let poll = bob.waits().await;
        assert_eq!(notes(&poll.ends().await), numbered(200, 250), "at once");
        assert_eq!(notes(&bob.syncs().await), numbered(200, 250));
        assert_eq!(notes(&bob.syncs().await), [""; 0]);
        server.stop().await;
    }

    async fn a_restart_loses_nothing_and_sends_nothing_twice(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = two(&server).await;
        let before = next(&bob.syncs().await).to_owned();
        alice.notes_to(&bob, "1").await;
        alice.notes_to(&bob, "2").await;
        let told = next(&bob.sync_from(&before).await).to_owned();
        alice.notes_to(&bob, "3").await;
        server.stop().await;

        let server = open_server(given).await;
        let (alice, bob) = (alice.turns_to(&server), bob.turns_to(&server));
        alice.notes_to(&bob, "3").await;
        assert_eq!(notes(&bob.sync_from(&before).await), ["1", "2", "3"]);
        let page = bob.sync_from(&told).await;
        assert_eq!(notes(&page), ["3"]);
        server.stop().await;

        let server = open_server(given).await;
        let bob = bob.turns_to(&server);
        assert_eq!(notes(&bob.sync_from(&told).await), ["3"]);
        assert_eq!(notes(&bob.sync_from(next(&page)).await), [""; 0]);
        assert_eq!(notes(&bob.sync_from(&before).await), [""; 0]);
        server.stop().await;
    }

    async fn a_transaction_is_of_a_device_and_a_type(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = two(&server).await;
        let phone = alice.logs_in_on(&server).await;
        let messages = |note: &str| json!({ &bob.id: { &bob.device: { "note": note } } });
        alice.sends_to_devices("t", messages("1")).await.ok();
        alice.sends_to_devices("t", messages("again")).await.ok();
        phone.sends_to_devices("t", messages("2")).await.ok();
        let old = format!("/_matrix/client/r0/sendToDevice/{KIND}/u");
        let request = server.request(reqwest::Method::PUT, &old).bearer_auth(&alice.token);
        server.send(request.json(&json!({ "messages": messages("3") }))).await.ok();
        let other = json!({ "messages": { &bob.id: { &bob.device: { "note": "4" } } } });
        alice.put("/sendToDevice/org.example.other/t", other).await.ok();
        let page = bob.syncs().await;
        let events = page["to_device"]["events"].as_array().unwrap();
        let all: Vec<&Value> = events.iter().map(|e| &e["content"]["note"]).collect();
        assert_eq!(all, ["1", "2", "3", "4"]);
        // Who has nobody to send to has sent.
        for nobody in [json!({}), json!({ "@nobody:test.example": { "*": {} } }), json!({ "@far:away": { "D": {} } })] {
            alice.sends_to_devices(&nobody.to_string(), nobody.clone()).await.ok();
        }
        server.stop().await;
    }

    async fn what_is_too_much_or_no_message_is_refused(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = two(&server).await;
        let one = |content: Value| json!({ &bob.id: { &bob.device: content } });
        let sized = |n: usize| one(json!({ "note": "x".repeat(n - "{\"note\":\"\"}".len()) }));
        alice.sends_to_devices("1", sized(65_537)).await.refused(413, "M_TOO_LARGE");
        alice.sends_to_devices("1", sized(65_536)).await.ok();
        alice.sends_to_devices("2", one(json!([]))).await.refused(400, "M_BAD_JSON");
        alice.sends_to_devices("2", json!({ "nobody": {} })).await.refused(400, "M_BAD_JSON");
        let devices = |n: u32| -> BTreeMap<String, Value> { (0..n).map(|n| (n.to_string(), json!({}))).collect() };
        alice.sends_to_devices("3", json!({ &bob.id: devices(2_001) })).await.refused(413, "M_TOO_LARGE");
        alice.sends_to_devices("3", json!({ &bob.id: devices(2_000) })).await.ok();
        for path in [format!("{}/4", "x".repeat(256)), format!("{KIND}/{}", "x".repeat(256)), "a%00b/4".to_owned()] {
            let reply = alice.put(&format!("/sendToDevice/{path}"), json!({ "messages": {} })).await;
            reply.refused(400, "M_INVALID_PARAM");
        }
        alice.put(&format!("/sendToDevice/{KIND}/5"), json!({})).await.refused(400, "M_MISSING_PARAM");
        let path = format!("/_matrix/client/v3/sendToDevice/{KIND}/6");
        server.put(&path, &json!({ "messages": {} })).await.refused(401, "M_MISSING_TOKEN");
        assert_eq!(bob.syncs().await["to_device"]["events"].as_array().unwrap().len(), 1);
        server.stop().await;
    }

    async fn what_waits_ends_with_the_device(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = two(&server).await;
        let phone = bob.logs_in_on(&server).await;
        let messages = json!({ &bob.id: { "*": { "note": "a secret of the phone" } } });
        alice.sends_to_devices("t", messages.clone()).await.ok();
        phone.post("/logout", json!({})).await.ok();
        alice.sends_to_devices("u", messages).await.ok();
        // Whoever has the id from now on is another.
        let again = phone.logs_in_again(&server).await;
        assert_eq!(again.device, phone.device);
        assert_eq!(notes(&again.syncs().await), [""; 0]);
        assert_eq!(notes(&bob.syncs().await).len(), 2);

        // Nothing is left of somebody who went for good.
        let identifier = json!({ "type": "m.id.user", "user": bob.id });
        let auth = json!({ "type": "m.login.password", "identifier": identifier, "password": PASSWORD });
        bob.post("/account/deactivate", json!({ "auth": auth })).await.ok();
        // Where SQLite deleted something, its bytes stay until the page is used anew.
        if given.config().database.database_url.is_some() {
            let secret = b"a secret of the phone";
            let is_kept = async || given.everything_stored().await.windows(secret.len()).any(|bytes| bytes == secret);
            let removed = async { while is_kept().await {} };
            tokio::time::timeout(LONG, removed).await.expect("it is removed");
        }
        server.stop().await;
    }

    async fn a_login_with_the_id_of_a_device_begins_anew(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = two(&server).await;
        let phone = bob.logs_in_on(&server).await;
        let told = async |note: &str| {
            alice.sends_to_devices(note, json!({ &bob.id: { "*": { "note": note } } })).await.ok();
        };
        told("1").await;
        let first = phone.syncs().await;
        assert_eq!(notes(&first), ["1"]);
        told("2").await;
        let again = phone.logs_in_again(&server).await;
        assert_eq!(notes(&again.sync("timeout=0").await), [""; 0], "they were for another");
        // What comes now comes, also with a token of the time before, and however often it is brought.
        told("3").await;
        told("4").await;
        let later = again.sync_from(next(&first)).await;
        assert_eq!(notes(&later), ["3", "4"]);
        assert_eq!(notes(&again.sync_from(next(&first)).await), ["3", "4"]);
        assert_eq!(notes(&again.sync_from(next(&later)).await), [""; 0]);
        assert_eq!(notes(&bob.syncs().await), ["1", "2", "3", "4"], "another device has nothing to do with it");
        server.stop().await;
    }

    async fn who_follows_closely_reads_only_what_was_sent(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = two(&server).await;
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        alice.says(&room, "warm").await;
        bob.syncs().await;
        bob.syncs().await;

        let before = server.work();
        alice.notes_to(&bob, "1").await;
        let work = server.work_since(&before);
        assert_eq!(work.keys().collect::<Vec<_>>(), [&"send_to_device"], "{work:?}");
        // The transaction id is looked for, the devices are, and both are written.
        assert_eq!((work["send_to_device"].runs, work["send_to_device"].statements), (1, 4));
        assert_eq!(notes(&bob.syncs().await), ["1"]);

        let before = server.work();
        assert_eq!(notes(&bob.syncs().await), [""; 0]);
        let work = server.work_since(&before);
        assert_eq!(work.keys().collect::<Vec<_>>(), [&"acknowledge_to_device", &"sync_page"], "{work:?}");
        assert_eq!((work["acknowledge_to_device"].runs, work["acknowledge_to_device"].statements), (1, 1));

        // From then on it is as if there had been none.
        alice.says(&room, "warmer").await;
        bob.syncs().await;
        for _ in 0..3 {
            let message = alice.says(&room, "hello").await;
            let before = server.work();
            bob.sees(&room, &message).await;
            bob.syncs().await;
            let work = server.work_since(&before);
            assert!(work.is_empty(), "{work:?}");
        }
        server.stop().await;
    }

    async fn many_send_while_the_device_reads(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = two(&server).await;
        let carol = Person::registers(&server, "carol").await;
        bob.syncs().await;
        let write = join_all([&alice, &carol].map(|sender| async {
            for n in 0..60 {
                sender.notes_to(&bob, &format!("{} {n}", sender.id)).await;
            }
        }));
        let read = async {
            let mut seen: Vec<String> = Vec::new();
            while seen.len() < 120 {
                seen.extend(notes(&bob.syncs().await));
            }
            seen
        };
        let (seen, _) = futures_util::future::join(read, write).await;
        for sender in [&alice, &carol] {
            let theirs: Vec<&String> = seen.iter().filter(|note| note.starts_with(&sender.id)).collect();
            let sent: Vec<String> = (0..60).map(|n| format!("{} {n}", sender.id)).collect();
            assert_eq!(theirs, sent.iter().collect::<Vec<_>>(), "each once and in order, where no answer is lost");
        }
        server.stop().await;
    }
}
