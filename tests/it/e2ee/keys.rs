//! Keys of devices: published, asked for, given out once.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Pair, device_keys, left, one_time, some_key};
use crate::support::{
    each_backend,
    people::{Person, open_server},
    program::Program,
};

each_backend! {
    async fn cve_2023_43796_what_a_device_publishes_others_see(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let none = bob.queries(&alice.id).await;
        assert_eq!(none["device_keys"], json!({ &alice.id: {} }), "a user without keys is no failure: {none}");
        let (_, mut keys) = alice.publishes().await;
        let phone = alice.logs_in_on(&server).await;
        phone.publishes().await;

        let seen = bob.queries(&alice.id).await;
        assert_eq!(seen["device_keys"][&alice.id].as_object().unwrap().len(), 2);
        assert_eq!(seen["device_keys"][&alice.id][&alice.device], keys, "as it was uploaded");
        let named = json!({ "device_keys": { &alice.id: [alice.device] } });
        let seen = bob.post("/keys/query", named).await.ok();
        assert_eq!(seen["device_keys"][&alice.id].as_object().unwrap().len(), 1);

        alice.put(&format!("/devices/{}", alice.device), json!({ "display_name": "Laptop" })).await.ok();
        keys["unsigned"] = json!({ "device_display_name": "Laptop" });
        assert_eq!(bob.queries(&alice.id).await["device_keys"][&alice.id][&alice.device], keys);

        let elsewhere = json!({ "device_keys": { "@carol:elsewhere.example": [], "@nobody:test.example": [] } });
        let seen = bob.post("/keys/query", elsewhere).await.ok();
        assert!(seen["failures"]["elsewhere.example"].is_object(), "{seen}");
        assert_eq!(seen["device_keys"], json!({ "@nobody:test.example": {} }));
        bob.post("/keys/query", json!({ "device_keys": { &alice.id: {} } })).await.refused(400, "M_BAD_JSON");
        bob.post("/keys/query", json!({})).await.refused(400, "M_MISSING_PARAM");
        let many: serde_json::Map<String, Value> = (0..5_001).map(|n| (format!("@u{n}:test.example"), json!([]))).collect();
        bob.post("/keys/query", json!({ "device_keys": many })).await.refused(413, "M_TOO_LARGE");
        server.post("/_matrix/client/v3/keys/query", &json!({ "device_keys": {} })).await.refused(401, "M_MISSING_TOKEN");
    }

    async fn keys_that_are_not_the_devices_own_or_not_well_formed_are_refused(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let good = device_keys(&alice, &Pair::called(&alice.device));
        bob.uploads(json!({ "device_keys": good })).await.refused(400, "M_INVALID_PARAM");
        let phone = alice.logs_in_on(&server).await;
        phone.uploads(json!({ "device_keys": good })).await.refused(400, "M_INVALID_PARAM");
        for (field, value) in [
            ("algorithms", json!([["m.olm"]])),
            ("algorithms", json!(null)),
            ("keys", json!({ "ed25519:OTHER": some_key() })),
            ("keys", json!({ format!("ed25519:{}", alice.device): 7 })),
            ("signatures", json!({ &alice.id: "all of them" })),
            ("extra", json!(0.5)),
        ] {
            let mut keys = good.clone();
            keys[field] = value;
            alice.uploads(json!({ "device_keys": keys })).await.refused(400, "M_BAD_JSON");
        }
        let mut keys = good.clone();
        keys["extra"] = "x".repeat(20_000).into();
        alice.uploads(json!({ "device_keys": keys })).await.refused(413, "M_TOO_LARGE");
        for (name, key) in [
            ("signed_curve25519:A", json!(some_key())),
            ("signed_curve25519:A", json!({ "key": some_key() })),
            ("signed_curve25519:A", json!({ "key": "short", "signatures": {} })),
            ("signed_curve25519:A", json!({ "key": some_key(), "signatures": { "x": {} } })),
            ("curve25519:A", json!(5)),
        ] {
            let keys = json!({ name: key });
            alice.uploads(json!({ "one_time_keys": keys })).await.refused(400, "M_BAD_JSON");
            alice.uploads(json!({ "fallback_keys": keys })).await.refused(400, "M_BAD_JSON");
        }
        // Nothing of an upload is kept of which something is refused.
        let mixed = json!({ "device_keys": good, "one_time_keys": { "signed_curve25519:A": 1 } });
        alice.uploads(mixed).await.refused(400, "M_BAD_JSON");
        assert_eq!(bob.queries(&alice.id).await["device_keys"][&alice.id], json!({}));
        alice.send(Method::POST, "/keys/upload", None).await.ok();
    }

    async fn a_key_that_was_given_is_not_given_again_when_its_upload_is_repeated(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let keys = one_time(&alice, &["A", "B"], false);
        let left = async |keys: &Value| {
            let said = alice.uploads(json!({ "one_time_keys": keys })).await.ok();
            said["one_time_key_counts"]["signed_curve25519"].clone()
        };
        let claimed = async || bob.claims(&alice).await.map(|(name, _)| name);
        assert_eq!(left(&keys).await, 2);
        assert_eq!(claimed().await.unwrap(), "signed_curve25519:A");
        // A client whose answer was lost says the same again; also after it has said something else.
        assert_eq!(left(&keys).await, 1);
        assert_eq!(left(&one_time(&alice, &["C"], false)).await, 2);
        assert_eq!(left(&keys).await, 2);
        let another = one_time(&alice, &["A"], false);
        alice.uploads(json!({ "one_time_keys": another })).await.refused(400, "M_INVALID_PARAM");
        assert_eq!(claimed().await.unwrap(), "signed_curve25519:B");
        assert_eq!(claimed().await.unwrap(), "signed_curve25519:C");
        assert_eq!(claimed().await, None);
        server.stop().await;
    }

    async fn what_was_given_stays_given_after_a_kill(given: Given) {
        let program = Program::start(given).await;
        let (alice, bob) = (Person::registers(&program.http, "alice").await, Person::registers(&program.http, "bob").await);
        let keys = json!({ "one_time_keys": one_time(&alice, &["A", "B", "C"], false) });
        alice.uploads(keys.clone()).await.ok();
        assert_eq!(bob.claims(&alice).await.unwrap().0, "signed_curve25519:A");
        program.dies().await;

        let server = open_server(given).await;
        let (alice, bob) = (alice.turns_to(&server), bob.turns_to(&server));
        assert_eq!(left(&alice.syncs().await), 2);
        assert_eq!(bob.claims(&alice).await.unwrap().0, "signed_curve25519:B");
        let counts = alice.uploads(keys).await.ok();
        assert_eq!(counts["one_time_key_counts"], json!({ "signed_curve25519": 1 }));
        assert_eq!(bob.claims(&alice).await.unwrap().0, "signed_curve25519:C");
        assert_eq!(bob.claims(&alice).await, None);
        server.stop().await;
    }

    async fn a_one_time_key_is_given_once_and_the_oldest_first(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let older = one_time(&alice, &["Z", "Y"], false);
        let counts = alice.uploads(json!({ "one_time_keys": older })).await.ok();
        assert_eq!(counts["one_time_key_counts"], json!({ "signed_curve25519": 2 }));
        let newer = one_time(&alice, &["A"], false);
        alice.uploads(json!({ "one_time_keys": newer })).await.ok();

        // The same again is nothing new; another of the same name is refused, with all that comes with it.
        let counts = alice.uploads(json!({ "one_time_keys": older })).await.ok();
        assert_eq!(counts["one_time_key_counts"], json!({ "signed_curve25519": 3 }));
        let mut other = one_time(&alice, &["A", "B"], false);
        let said = alice.uploads(json!({ "one_time_keys": other })).await.refused(400, "M_INVALID_PARAM");
        assert!(said["error"].as_str().unwrap().contains("signed_curve25519:A already exists"), "{said}");
        other.as_object_mut().unwrap().remove("signed_curve25519:A");

        let mut given = Vec::new();
        while let Some((name, key)) = bob.claims(&alice).await {
            assert_eq!(key, *[&older, &newer].iter().find_map(|all| all.get(&name)).unwrap());
            given.push(name);
        }
        assert_eq!(given, ["signed_curve25519:Y", "signed_curve25519:Z", "signed_curve25519:A"]);
        let counts = alice.uploads(json!({})).await.ok();
        assert_eq!(counts["one_time_key_counts"], json!({ "signed_curve25519": 0 }));
        let nobody = json!({ "one_time_keys": {
            "@carol:elsewhere.example": { "D": "signed_curve25519" }, &alice.id: { "NOWHERE": "signed_curve25519" },
        } });
        let said = bob.post("/keys/claim", nobody).await.ok();
        assert_eq!((&said["one_time_keys"], said["failures"]["elsewhere.example"].is_object()), (&json!({}), true));
    }

    async fn a_fallback_key_is_there_for_all_who_come_too_late(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let unused = async || alice.syncs().await["device_unused_fallback_key_types"].clone();
        assert_eq!(unused().await, json!([]));
        let fallback = one_time(&alice, &["F"], true);
        let keys = one_time(&alice, &["1"], false);
        alice.uploads(json!({ "one_time_keys": keys, "fallback_keys": fallback })).await.ok();
        assert_eq!(unused().await, json!(["signed_curve25519"]));
        assert_eq!(bob.claims(&alice).await.unwrap().0, "signed_curve25519:1");
        assert_eq!(unused().await, json!(["signed_curve25519"]));
        for _ in 0..2 {
            let (name, key) = bob.claims(&alice).await.unwrap();
            assert_eq!(json!({ name: key }), fallback);
            assert_eq!(unused().await, json!([]));
        }
        // The same key does not become unused again, another takes its place.
        alice.uploads(json!({ "fallback_keys": fallback })).await.ok();
        assert_eq!(unused().await, json!([]));
        alice.uploads(json!({ "fallback_keys": one_time(&alice, &["G"], true) })).await.ok();
        assert_eq!(unused().await, json!(["signed_curve25519"]));
        assert_eq!(bob.claims(&alice).await.unwrap().0, "signed_curve25519:G");
        let two = one_time(&alice, &["H", "I"], true);
        alice.uploads(json!({ "fallback_keys": two })).await.refused(400, "M_INVALID_PARAM");
    }

    async fn there_are_so_many_keys_and_no_more(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let names: Vec<String> = (0..201).map(|n| n.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let all = one_time(&alice, &names, false);
        alice.uploads(json!({ "one_time_keys": all })).await.refused(413, "M_TOO_LARGE");
        let mut most = all.clone();
        let rest = json!({ "signed_curve25519:200": most.as_object_mut().unwrap().remove("signed_curve25519:200") });
        alice.uploads(json!({ "one_time_keys": most })).await.ok();
        alice.uploads(json!({ "one_time_keys": rest })).await.refused(413, "M_TOO_LARGE");
        alice.uploads(json!({ "one_time_keys": most })).await.ok();
        assert!(alice.claims(&alice).await.is_some());
        alice.uploads(json!({ "one_time_keys": rest })).await.ok();
        assert_eq!(left(&alice.syncs().await), 200);
        // One of each algorithm.
        let fallback = |n: usize| -> Value {
            (0..n).map(|n| (format!("org.example.{n}:A"), json!({ "key": n.to_string() }))).collect()
        };
        alice.uploads(json!({ "fallback_keys": fallback(11) })).await.refused(413, "M_TOO_LARGE");
        alice.uploads(json!({ "fallback_keys": fallback(10) })).await.ok();
        let types = alice.syncs().await["device_unused_fallback_key_types"].as_array().map(Vec::len);
        assert_eq!(types, Some(10));
    }

    async fn what_is_left_stands_in_every_sync_and_a_claim_ends_the_poll(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let phone = alice.logs_in_on(&server).await;
        assert_eq!(left(&alice.syncs().await), 0);
        alice.uploads(json!({ "one_time_keys": one_time(&alice, &["1", "2"], false) })).await.ok();
        phone.uploads(json!({ "one_time_keys": one_time(&phone, &["1"], false) })).await.ok();
        assert_eq!((left(&alice.syncs().await), left(&phone.syncs().await)), (2, 1), "each device has its own");

        let poll = alice.waits().await;
        bob.claims(&alice).await.unwrap();
        assert_eq!(left(&poll.ends().await), 1);
        alice.syncs().await;
        phone.syncs().await;
        // Also in those that are answered from memory.
        bob.says(&room, "warm").await;
        alice.syncs().await;
        phone.syncs().await;
        for turn in 0..2 {
            bob.says(&room, "news").await;
            let before = server.work();
            assert_eq!((left(&alice.syncs().await), left(&phone.syncs().await)), (1, 1));
            let work = server.work_since(&before);
            assert!(work.is_empty(), "turn {turn}: {work:?}");
        }
        bob.claims(&phone).await.unwrap();
        bob.says(&room, "more").await;
        assert_eq!((left(&alice.syncs().await), left(&phone.syncs().await)), (1, 0));
    }

    async fn many_at_once_get_a_key_each(given: Given) {
        let server = open_server(given).await;
        let alice = &Person::registers(&server, "alice").await;
        let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        alice.uploads(json!({ "one_time_keys": one_time(alice, &names, false) })).await.ok();
        let claims = (0..30).map(|_| alice.claims(alice));
        let given: Vec<_> = futures_util::future::join_all(claims).await.into_iter().flatten().collect();
        let names: BTreeSet<&String> = given.iter().map(|(name, _)| name).collect();
        assert_eq!((given.len(), names.len()), (20, 20));
    }

    async fn the_keys_of_a_device_go_with_it(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let phone = alice.logs_in_on(&server).await;
        let keys = async |of: &Person| {
            of.publishes().await;
            let fallback = one_time(of, &["F"], true);
            of.uploads(json!({ "one_time_keys": one_time(of, &["1"], false), "fallback_keys": fallback })).await.ok();
        };
        keys(&alice).await;
        keys(&phone).await;
        let seen = async || bob.queries(&alice.id).await["device_keys"][&alice.id].clone();
        assert_eq!(seen().await.as_object().unwrap().len(), 2);
        phone.post("/logout", json!({})).await.ok();
        assert_eq!(seen().await.as_object().unwrap().keys().collect::<Vec<_>>(), [&alice.device]);
        assert_eq!(bob.claims(&phone).await, None);

        // Somebody logs in with the id of a device that is there: nothing of it is theirs.
        let user = json!({ "type": "m.id.user", "user": "alice" });
        let login = json!({
            "type": "m.login.password", "identifier": user, "password": "correct horse battery staple",
            "device_id": alice.device,
        });
        let again = Person::from(&server, &server.post("/_matrix/client/v3/login", &login).await.ok());
        assert_eq!((seen().await, bob.claims(&again).await), (json!({}), None));
        assert_eq!(left(&again.syncs().await), 0);
        keys(&again).await;
        assert_eq!(seen().await.as_object().unwrap().len(), 1);

        let auth = json!({ "type": "m.login.password", "identifier": user, "password": "correct horse battery staple" });
        again.post("/account/deactivate", json!({ "auth": auth })).await.ok();
        assert_eq!((seen().await, bob.claims(&again).await), (json!({}), None));
    }
}
