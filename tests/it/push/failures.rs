//! Gateways that fail, servers that die, and several of them.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::{pushing, pushing_server};
use crate::support::{
    Server, each_backend,
    gateway::{Gateway, PATH, pusher},
    people::{Person, open_server},
    program::Program,
};

/// Returns once it holds.
async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let poll = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(crate::support::people::LONG, poll).await.is_ok(), "{what}");
}

/// Returns when the only pusher there is has been given up so many times.
async fn gave_up(server: &Server, times: usize) {
    let runs = async || server.work().get("step_pusher").is_some_and(|work| work.runs >= times as u64);
    eventually("a failure is written down", runs).await;
}

/// Returns when somebody has looked for pushers whose time has come, from beginning to end.
async fn looked(server: &Server) {
    let looks = || server.work().get("any_pusher_due").map_or(0, |work| work.runs);
    let before = looks();
    eventually("somebody looks", async || looks() >= before + 2).await;
}

/// Somebody with a pusher, somebody who writes to them, and where.
async fn a_chat(server: &Server, gateway: &Gateway) -> (Person, Person, String) {
    let (alice, bob) = (Person::registers(server, "alice").await, Person::registers(server, "bob").await);
    let room = alice.opens_a_room().await;
    bob.joins(&room).await;
    alice.sets_pusher(gateway, "key").await;
    (alice, bob, room)
}

each_backend! {
    async fn a_gateway_that_fails_is_tried_later_each_time_also_after_a_restart(given: Given) {
        let server = pushing_server(given).await;
        let gateway = Gateway::start().await;
        let (_, bob, room) = a_chat(&server, &gateway).await;
        gateway.fails_with(500);
        let mut all = vec![bob.says(&room, "one").await];
        gave_up(&server, 1).await;
        // It waits for one second, then two, then four; whatever happens meanwhile.
        for (n, wait) in [(1, 1_000), (2, 2_000)] {
            server.clock.advance(wait - 1);
            all.push(bob.says(&room, "more").await);
            looked(&server).await;
            assert_eq!(gateway.tries(), n);
            server.clock.advance(1);
            gateway.was_tried(n + 1).await;
            gave_up(&server, n + 1).await;
        }
        server.stop().await;

        let server = pushing_server(given).await;
        let bob = Person::logs_in(&server, "bob").await;
        server.clock.advance(3_000 + 3_999);
        all.push(bob.says(&room, "after the restart").await);
        looked(&server).await;
        assert_eq!(gateway.tries(), 3);
        gateway.works_again();
        server.clock.advance(1);
        for message in &all {
            gateway.is_told_of(message).await;
        }
        // Then from the beginning again.
        looked(&server).await;
        let steps = server.work()["step_pusher"].runs;
        gateway.fails_with(500);
        all.push(bob.says(&room, "again").await);
        gateway.was_tried(3 + all.len()).await;
        eventually("it failed again", async || server.work()["step_pusher"].runs > steps).await;
        looked(&server).await;
        gateway.works_again();
        server.clock.advance(1_000);
        gateway.is_told_of(all.last().unwrap()).await;
        server.stop().await;
    }

    async fn what_is_a_day_old_is_no_news(given: Given) {
        let server = pushing_server(given).await;
        let gateway = Gateway::start().await;
        let (_, bob, room) = a_chat(&server, &gateway).await;
        gateway.fails_with(502);
        bob.says(&room, "news of the day before").await;
        gave_up(&server, 1).await;
        server.clock.advance(25 * 60 * 60 * 1_000);
        gateway.works_again();
        let news = bob.says(&room, "news of today").await;
        gateway.is_told_of(&news).await;
        server.stop().await;
    }

    async fn a_rejected_pushkey_is_removed(given: Given) {
        let server = pushing_server(given).await;
        let gateway = Gateway::start().await;
        let (alice, bob, room) = a_chat(&server, &gateway).await;
        alice.sets_pusher(&gateway, "good").await;
        let first = bob.says(&room, "to both").await;
        gateway.is_told_of(&first).await;
        gateway.is_told_of(&first).await;
        gateway.rejects("key");
        let second = bob.says(&room, "to one").await;
        gateway.is_told_of(&second).await;
        eventually("the pusher goes", async || alice.pushkeys().await == ["good"]).await;
        let third = bob.says(&room, "still to one").await;
        gateway.is_told_of(&third).await;
        assert_eq!(gateway.tries(), 5);
        server.stop().await;
    }

    async fn a_pusher_that_is_set_anew_is_tried_at_once(given: Given) {
        let server = pushing_server(given).await;
        let (broken, works) = (Gateway::start().await, Gateway::start().await);
        let (alice, bob, room) = a_chat(&server, &broken).await;
        broken.fails_with(404);
        let message = bob.says(&room, "hello").await;
        broken.was_tried(1).await;
        alice.sets_pusher(&works, "key").await;
        works.is_told_of(&message).await;
        assert_eq!((alice.pushkeys().await.len(), broken.tries()), (1, 1));
        server.stop().await;
    }

    async fn a_slow_gateway_holds_up_nobody_else(given: Given) {
        let server = pushing_server(given).await;
        let (slow, quick) = (Gateway::start().await, Gateway::start().await);
        let (alice, bob, room) = a_chat(&server, &slow).await;
        let carol = Person::registers(&server, "carol").await;
        carol.joins(&room).await;
        carol.sets_pusher(&quick, "carols").await;
        alice.sets_pusher(&quick, "tablet").await;
        slow.hangs();
        let mut all = Vec::new();
        for n in 0..5 {
            all.push(bob.says(&room, &n.to_string()).await);
            quick.is_told_of(&all[n]).await;
            quick.is_told_of(&all[n]).await;
        }
        assert_eq!(slow.tries(), 1, "one after another");
        slow.works_again();
        for message in &all {
            slow.is_told_of(message).await;
        }
        // A server that stops doesn't wait for it.
        slow.hangs();
        let last = bob.says(&room, "last").await;
        slow.was_tried(6).await;
        assert!(server.stop().await);
        slow.works_again();
        let server = pushing_server(given).await;
        loop {
            // It may have come through before the end, and is told again all the same.
            let note = slow.note().await;
            assert_eq!(note["event_id"], last);
            if slow.tries() >= 7 && slow.unseen() == 0 {
                break;
            }
        }
        server.stop().await;
    }

    async fn many_pushers_of_one_user_hold_up_nobody_else(given: Given) {
        let server = pushing_server(given).await;
        let (tar_pit, quick) = (Gateway::start().await, Gateway::start().await);
        let (mallory, bob, room) = a_chat(&server, &tar_pit).await;
        let alice = Person::registers(&server, "carol").await;
        alice.joins(&room).await;
        alice.sets_pusher(&quick, "hers").await;
        tar_pit.hangs();
        for n in 0..100 {
            mallory.sets_pusher(&tar_pit, &n.to_string()).await;
        }
        for n in 0..3 {
            let message = bob.says(&room, &n.to_string()).await;
            quick.is_told_of(&message).await;
            tar_pit.was_tried(4).await;
            server.clock.advance(1_000);
        }
        assert_eq!(tar_pit.tries(), 4);
        server.stop().await;
    }

    async fn cve_2024_52594_a_gateway_inside_is_not_reached_by_its_name(given: Given) {
        let server = open_server(given).await;
        let gateway = Gateway::start().await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let url = format!("http://localhost:{}{PATH}", gateway.port());
        alice.post("/pushers/set", pusher(&url, "key")).await.ok();
        bob.says(&room, "hello").await;
        eventually("it was tried", async || server.work().get("step_pusher").is_some_and(|work| work.runs > 0)).await;
        assert_eq!(gateway.tries(), 0);
        assert_eq!(alice.pushkeys().await, ["key"], "the operator may come to allow it");
        server.stop().await;
    }

    async fn a_kill_loses_nothing(given: Given) {
        let program = Program::start_with(given, &["outgoing_allowlist=[\"127.0.0.1\"]"]).await;
        let gateway = Gateway::start().await;
        let (alice, bob) = (Person::registers(&program.http, "alice").await, Person::registers(&program.http, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        alice.sets_pusher(&gateway, "key").await;
        gateway.hangs();
        let mut said = vec![bob.says(&room, "on its way").await];
        gateway.was_tried(1).await;
        for n in 0..3 {
            said.push(bob.says(&room, &n.to_string()).await);
        }
        program.dies().await;
        gateway.works_again();

        let server = given.server_with(pushing).await;
        // Until the dead one's lease has ended.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        server.clock.advance(i64::try_from(now).unwrap() - 1_700_000_000_000 + 120_000);
        let mut told = Vec::new();
        while told.last() != said.last() {
            told.push(gateway.note().await["event_id"].as_str().unwrap().to_owned());
        }
        told.dedup();
        assert_eq!(told, said, "each of them, in this order");
        server.stop().await;
    }

    async fn a_room_without_pushers_pays_nothing(given: Given) {
        let server = pushing_server(given).await;
        let gateway = Gateway::start().await;
        let (alice, bob, pushed) = a_chat(&server, &gateway).await;
        let carol = Person::registers(&server, "carol").await;
        let quiet = bob.opens_a_room().await;
        carol.joins(&quiet).await;
        for room in [&pushed, &quiet] {
            bob.says(room, "warm").await;
        }
        gateway.note().await;
        looked(&server).await;
        // So that whoever was woken has probably looked by the time that they are done; nothing is wrong if they have not.
        let a_while = async || {
            for _ in 0..50 {
                alice.get("/account/whoami").await.ok();
            }
        };
        let before = server.work();
        for n in 0..3 {
            bob.says(&quiet, &n.to_string()).await;
        }
        a_while().await;
        let work = server.work_since(&before);
        assert_eq!(work["persist"].runs, 3, "{work:?}");
        for look in ["push_news", "mark_pushers", "news_of", "badge"] {
            assert!(!work.contains_key(look), "{work:?}");
        }
        // Where somebody has one, the send itself is what it was.
        let before = server.work();
        let message = bob.says(&pushed, "hello").await;
        gateway.is_told_of(&message).await;
        let work = server.work_since(&before);
        assert_eq!(work["persist"].runs, 1, "{work:?}");
        assert!(work["persist"].statements <= 5, "{work:?}");
        for read in ["room_head", "events_by_id", "state"] {
            assert!(!work.contains_key(read), "{work:?}");
        }
        server.stop().await;
    }
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_push_once() {
    let given = crate::support::Given::postgres().await;
    let (one, two) = (pushing_server(&given).await, pushing_server(&given).await);
    let gateway = Gateway::start().await;
    let (alice, bob, room) = a_chat(&one, &gateway).await;
    let there = bob.logs_in_on(&two).await;
    let mut all = Vec::new();
    for n in 0..20 {
        let writer = if n % 2 == 0 { &bob } else { &there };
        all.push(writer.says(&room, &n.to_string()).await);
    }
    for message in &all {
        gateway.is_told_of(message).await;
    }
    // A pusher that is set on the one is known to the other.
    let phone = alice.logs_in_on(&two).await;
    phone.sets_pusher(&gateway, "phone").await;
    let last = bob.says(&room, "to both").await;
    let keys = [gateway.is_told_of(&last).await, gateway.is_told_of(&last).await];
    let mut keys = keys.map(|note| note["devices"][0]["pushkey"].clone());
    keys.sort_by_key(ToString::to_string);
    assert_eq!(keys, [json!("key"), json!("phone")]);
    // What has been taken by then is written down.
    looked(&one).await;
    looked(&two).await;
    one.stop().await;
    let message = there.says(&room, "alone").await;
    gateway.is_told_of(&message).await;
    gateway.is_told_of(&message).await;
    assert_eq!(gateway.tries(), all.len() + 4);
    two.stop().await;
    given.clean_up().await;
}
