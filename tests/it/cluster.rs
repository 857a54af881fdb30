//! Two servers on one Postgres, which know of each other by nothing but the database.

#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::join;
use hearth::{app, bus::LocalBus};
use hearth_storage::profiles::{PROFILE, ProfileChange};
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};

use crate::support::{
    Given, Server,
    people::{LONG, Person, event_id, follows, joined, of_type, open_server, timeline},
    program::Program,
};

async fn two_servers() -> (Given, Server, Server) {
    let given = Given::postgres().await;
    let (one, two) = (open_server(&given).await, open_server(&given).await);
    (given, one, two)
}

async fn end(given: Given, one: Server, two: Server) {
    one.stop().await;
    two.stop().await;
    given.clean_up().await;
}

/// Everything in a room, each event once, the same to both.
async fn same_room(one: &Person, other: &Person, room: &str) -> Vec<String> {
    let all = one.pages(room, "dir=f&limit=100").await;
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "nothing twice");
    assert_eq!(other.pages(room, "dir=f&limit=100").await, all);
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_on_one_is_seen_on_the_other() {
    let (given, one, two) = two_servers().await;
    let alice = Person::registers(&one, "alice").await;
    let bob = Person::registers(&two, "bob").await;
    bob.syncs().await;

    let poll = bob.waits().await;
    let room = alice.creates(json!({ "preset": "private_chat", "invite": [bob.id] })).await;
    assert!(poll.ends().await["rooms"]["invite"].get(&room).is_some());
    bob.joins(&room).await;
    bob.syncs().await;
    alice.syncs().await;
    for n in 0..3 {
        let poll = bob.waits().await;
        let event = alice.says(&room, &format!("to Bob {n}")).await;
        assert_eq!(timeline(&poll.ends().await, &room), [event.clone()]);
        bob.sees(&room, &event).await;
        alice.syncs().await;
        let poll = alice.waits().await;
        let event = bob.says(&room, &format!("to Alice {n}")).await;
        assert_eq!(timeline(&poll.ends().await, &room), [event.clone()]);
        alice.sees(&room, &event).await;
        bob.syncs().await;
    }
    // A device of hers on the other server.
    let phone = alice.logs_in_on(&two).await;
    phone.syncs().await;
    let read = alice.says(&room, "read").await;
    phone.syncs().await;
    let poll = phone.waits().await;
    alice.asks(&room, &format!("receipt/m.read.private/{read}"), json!({})).await.ok();
    let page = poll.ends().await;
    assert!(of_type(&joined(&page, &room)["ephemeral"]["events"], "m.receipt").is_some());
    phone.syncs().await;
    let poll = phone.waits().await;
    alice.put(&format!("/user/{}/account_data/k", alice.id), json!({ "n": 1 })).await.ok();
    assert!(of_type(&poll.ends().await["account_data"]["events"], "k").is_some());
    // He is put out on the one, and is out on the other, which may not have heard.
    alice.does("kick", &room, &bob).await;
    bob.sends(&room, "late", "I am still here").await.refused(403, "M_FORBIDDEN");
    assert!(bob.syncs().await["rooms"]["leave"].get(&room).is_some());
    end(given, one, two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_write_to_one_room_at_the_same_time() {
    let (given, one, two) = two_servers().await;
    let alice = Person::registers(&one, "alice").await;
    let bob = Person::registers(&two, "bob").await;
    let room = alice.opens_a_room().await;
    bob.joins(&room).await;
    let levels = json!({ "users": { &bob.id: 100 }, "state_default": 50 });
    alice.sets(&room, "m.room.power_levels", "", levels).await.ok();

    let busy = async |person: &Person| {
        let mut written = Vec::new();
        for n in 0..15 {
            written.push(person.says(&room, &format!("{} {n}", person.id)).await);
            let topic = json!({ "topic": format!("{} {n}", person.id) });
            written.push(event_id(&person.sets(&room, "m.room.topic", "", topic).await));
            let odd = person.sets(&room, "org.example.odd", &format!("{} {n}", person.device), json!({ "n": n })).await;
            written.push(event_id(&odd));
        }
        written
    };
    // The phone, by way of the other server, writes into the same turn as Bob.
    let phone = alice.logs_in_on(&two).await;
    let ((hers, his), phones) = join(join(busy(&alice), busy(&bob)), busy_phone(&phone, &room)).await;
    let all = same_room(&alice, &bob, &room).await;
    for event in hers.iter().chain(&his).chain(&phones) {
        assert!(all.contains(event), "{event}");
    }
    // Both have the same state, of which each key is somebody's last word.
    let state = alice.reads(&room, "state").await.ok();
    assert_eq!(state.as_array().unwrap().iter().filter(|e| e["type"] == "org.example.odd").count(), 30);
    let topic = alice.reads(&room, "state/m.room.topic/?format=event").await.ok();
    assert_eq!(bob.reads(&room, "state/m.room.topic/?format=event").await.ok()["event_id"], topic["event_id"]);

    // An event that knows all ends is the only end.
    let storage = app::open(&given.config(), Arc::new(LocalBus::default())).await.unwrap().storage;
    let last = event_id(&alice.sets(&room, "m.room.name", "", json!({ "name": "after all" })).await);
    let head = storage.room_head(&room).await.unwrap().unwrap();
    let ends: Vec<&str> = head.extremities.iter().map(|e| e.event_id.as_str()).collect();
    assert_eq!(ends, [last.as_str()]);
    end(given, one, two).await;
}

async fn busy_phone(phone: &Person, room: &str) -> Vec<String> {
    let mut written = Vec::new();
    for n in 0..15 {
        written.push(phone.says(room, &format!("phone {n}")).await);
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_both_in_turn_misses_nothing() {
    let (given, one, two) = two_servers().await;
    let alice = Person::registers(&one, "alice").await;
    let bob = Person::registers(&two, "bob").await;
    let room = alice.opens_a_room().await;
    bob.joins(&room).await;
    let dave = Person::registers(&one, "dave").await;
    dave.joins(&room).await;
    dave.syncs().await;
    let before = alice.pages(&room, "dir=f&limit=100").await;
    let busy = async |person: &Person| {
        let mut written = Vec::new();
        for n in 0..20 {
            written.push(person.says(&room, &format!("{} {n}", person.id)).await);
        }
        written
    };
    let both = async {
        let (hers, his) = join(busy(&alice), busy(&bob)).await;
        [hers, his].concat()
    };
    let there = dave.turns_to(&two);
    let seen = follows(&[dave, there], &room, both).await;
    assert_eq!([before, seen].concat(), same_room(&alice, &bob, &room).await);
    end(given, one, two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_transaction_sent_to_both_is_one_event() {
    let (given, one, two) = two_servers().await;
    let alice = Person::registers(&one, "alice").await;
    let there = alice.turns_to(&two);
    let room = alice.opens_a_room().await;
    let before = alice.pages(&room, "dir=f&limit=100").await;
    let mut said = Vec::new();
    for n in 0..10 {
        let (txn, body) = (format!("t{n}"), format!("once {n}"));
        let (a, b) = join(alice.sends(&room, &txn, &body), there.sends(&room, &txn, &body)).await;
        assert_eq!(event_id(&a), event_id(&b));
        said.push(event_id(&a));
    }
    assert_eq!(same_room(&alice, &there, &room).await, [before, said].concat());
    end(given, one, two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_logged_out_on_one_is_soon_out_on_the_other() {
    let (given, one, two) = two_servers().await;
    let alice = Person::registers(&one, "alice").await;
    let there = alice.turns_to(&two);
    there.get("/account/whoami").await.ok();
    alice.post("/logout", json!({})).await.ok();
    alice.get("/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    let refused = async {
        loop {
            let reply = there.get("/account/whoami").await;
            if reply.status == 401 {
                return reply;
            }
        }
    };
    timeout(LONG, refused).await.expect("the other server hears of it").refused(401, "M_UNKNOWN_TOKEN");
    end(given, one, two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_work_of_one_that_died_is_taken_over() {
    let given = Given::postgres().await;
    let one = open_server(&given).await;
    let alice = Person::registers(&one, "alice").await;
    let bob = Person::registers(&one, "bob").await;
    let room = alice.opens_a_room().await;
    bob.joins(&room).await;
    bob.syncs().await;
    one.stop().await;

    // One that died held the work of telling her rooms of her new name.
    let storage = app::open(&given.config(), Arc::new(LocalBus::default())).await.unwrap().storage;
    let change = ProfileChange {
        user_id: alice.id.clone(),
        key: "displayname".to_owned(),
        value: Some("\"Alice\"".to_owned()),
        max_bytes: 1_000,
        at_ms: 1_700_000_000_000,
        job_id: "a job".to_owned(),
    };
    storage.set_profile_field(change).await.unwrap();
    let held = storage.lease(PROFILE, "one that died", 1_700_000_000_000, 60_000, 10).await.unwrap();
    assert_eq!(held.len(), 1);

    let two = open_server(&given).await;
    let (alice, bob) = (alice.turns_to(&two), bob.turns_to(&two));
    let name = async || bob.reads(&room, "joined_members").await.ok()["joined"][&alice.id]["display_name"].clone();
    assert!(name().await.is_null(), "the lease has not ended");
    let poll = bob.waits().await;
    two.clock.advance(60_001);
    let page = poll.ends().await;
    let member = of_type(&joined(&page, &room)["timeline"]["events"], "m.room.member").unwrap();
    assert_eq!(member["content"]["displayname"], "Alice");
    assert_eq!(name().await, "Alice");
    two.stop().await;
    given.clean_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_is_killed_and_the_other_goes_on() {
    let given = Given::postgres().await;
    let (one, two) = (Program::start(&given).await, Program::start(&given).await);
    let alice = Person::registers(&one.http, "alice").await;
    let bob = Person::registers(&two.http, "bob").await;
    let room = alice.opens_a_room().await;
    bob.joins(&room).await;
    bob.syncs().await;

    // She talks until nobody answers. What was under way then may have been written or not; what was acknowledged was.
    let (acknowledged, mut heard) = mpsc::unbounded_channel();
    let talk = async {
        for n in 0.. {
            let Some(id) = alice.tries_to_say(&room, n).await else { return };
            acknowledged.send(id).unwrap();
        }
    };
    let mut said = Vec::new();
    let kill = async {
        for _ in 0..10 {
            said.push(heard.recv().await.unwrap());
        }
        one.dies().await;
    };
    join(talk, kill).await;
    while let Ok(id) = heard.try_recv() {
        said.push(id);
    }
    let alice = alice.turns_to(&two.http);
    let poll = bob.waits().await;
    said.push(alice.says(&room, "going on").await);
    poll.ends().await;
    said.push(bob.says(&room, "so do I").await);
    alice.sets(&room, "m.room.topic", "", json!({ "topic": "survivors" })).await.ok();
    let all = same_room(&alice, &bob, &room).await;
    let kept: Vec<&String> = all.iter().filter(|id| said.contains(id)).collect();
    assert_eq!(kept, said.iter().collect::<Vec<_>>());

    // Another comes in its place.
    let three = Program::start(&given).await;
    let carol = bob.turns_to(&three.http);
    let back = carol.says(&room, "by a new server").await;
    assert!(same_room(&alice, &carol, &room).await.contains(&back));
    three.dies().await;
    two.dies().await;
    given.clean_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_on_the_one_does_not_bring_back_what_was_redacted_on_the_other() {
    let (given, one, two) = two_servers().await;
    let alice = Person::registers(&one, "alice").await;
    let room = alice.opens_a_room().await;
    let phone = alice.logs_in_on(&two).await;
    // The topic is in the memory of both.
    let topic = event_id(&phone.sets(&room, "m.room.topic", "", json!({ "topic": "a secret" })).await);
    alice.redacts(&room, &topic).await.ok();
    let reply = phone.asks(&room, "upgrade", json!({ "new_version": "11" })).await.ok();
    let successor = reply["replacement_room"].as_str().unwrap();
    let state = alice.reads(successor, "state").await.ok();
    assert!(!state.to_string().contains("a secret"), "{state}");
    end(given, one, two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_to_a_device_finds_it_on_the_other() {
    let (given, one, two) = two_servers().await;
    let alice = Person::registers(&one, "alice").await;
    let bob = Person::registers(&two, "bob").await;
    let notes = |page: &serde_json::Value| -> Vec<i64> {
        let events = page["to_device"]["events"].as_array().cloned().unwrap_or_default();
        events.iter().map(|event| event["content"]["n"].as_i64().unwrap()).collect()
    };
    bob.syncs().await;
    for n in 0..3 {
        bob.syncs().await;
        let poll = bob.waits().await;
        let path = format!("/sendToDevice/org.example.note/{n}");
        let body = json!({ "messages": { &bob.id: { "*": { "n": n } } } });
        // One request that reaches both is one message.
        let there = alice.turns_to(&two);
        let (a, b) = join(alice.put(&path, body.clone()), there.put(&path, body)).await;
        a.ok();
        b.ok();
        assert_eq!(notes(&poll.ends().await), [n]);
        let here = bob.turns_to(&one);
        assert_eq!(notes(&here.waits().await.ends().await), [n]);
        assert_eq!(notes(&here.syncs().await), [n]);
        assert!(notes(&here.syncs().await).is_empty());
        assert!(notes(&bob.syncs().await).is_empty(), "acknowledged on the other");
    }
    end(given, one, two).await;
}
