//! What is exactly as large as it may be is taken, and what is larger by one is refused: keys, filters, account data.

use serde_json::{Map, Value, json};

use crate::{
    e2ee::{one_time, some_key},
    support::{
        each_backend,
        people::{Person, open_server},
    },
};

/// With a field that makes it so many bytes.
fn sized(mut object: Value, bytes: usize) -> Value {
    object["x"] = "".into();
    let missing = bytes - object.to_string().len();
    object["x"] = "x".repeat(missing).into();
    assert_eq!(object.to_string().len(), bytes);
    object
}

each_backend! {
    async fn a_key_is_so_large_and_no_larger(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let device = json!({
            "user_id": alice.id, "device_id": alice.device, "algorithms": [], "signatures": {},
            "keys": { format!("ed25519:{}", alice.device): some_key() },
        });
        let upload = async |bytes| alice.uploads(json!({ "device_keys": sized(device.clone(), bytes) })).await;
        upload(16_385).await.refused(413, "M_TOO_LARGE");
        upload(16_384).await.ok();
        for kind in ["one_time_keys", "fallback_keys"] {
            let key = one_time(&alice, &["A"], false)["signed_curve25519:A"].clone();
            let upload = async |bytes| {
                alice.uploads(json!({ kind: { "signed_curve25519:A": sized(key.clone(), bytes) } })).await
            };
            upload(2_049).await.refused(413, "M_TOO_LARGE");
            upload(2_048).await.ok();
        }
        let public = some_key();
        let master = json!({ "user_id": alice.id, "usage": ["master"], "keys": { format!("ed25519:{public}"): public } });
        let upload = async |bytes| {
            alice.post("/keys/device_signing/upload", json!({ "master_key": sized(master.clone(), bytes) })).await
        };
        upload(16_385).await.refused(413, "M_TOO_LARGE");
        upload(16_384).await.ok();
        server.stop().await;
    }

    async fn so_many_keys_are_asked_for_at_once(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let some = |n: usize, value: Value| (0..n).map(|n| (format!("D{n}"), value.clone())).collect::<Map<_, _>>();
        let users = |n: usize| (0..n).map(|n| (format!("@{n}:x"), json!([]))).collect::<Map<_, _>>();
        let query = async |n| alice.post("/keys/query", json!({ "device_keys": users(n) })).await;
        query(5_001).await.refused(413, "M_TOO_LARGE");
        query(5_000).await.ok();
        let claim = async |n| {
            let devices = some(n, "signed_curve25519".into());
            alice.post("/keys/claim", json!({ "one_time_keys": { &alice.id: devices } })).await
        };
        claim(5_001).await.refused(413, "M_TOO_LARGE");
        claim(5_000).await.ok();
        let sign = async |n| alice.post("/keys/signatures/upload", json!({ &alice.id: some(n, json!({})) })).await;
        sign(501).await.refused(413, "M_TOO_LARGE");
        let failures = sign(500).await.ok()["failures"][&alice.id].as_object().map(Map::len);
        assert_eq!(failures, Some(500));
        server.stop().await;
    }

    async fn a_filter_and_a_piece_of_account_data_are_so_large(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let user = format!("/user/{}", alice.id);
        let filter = async |bytes: usize| {
            let filter = |n: usize| json!({ "room": { "timeline": { "types": ["x".repeat(n)] } } });
            let filter = filter(bytes - filter(0).to_string().len());
            assert_eq!(filter.to_string().len(), bytes);
            alice.post(&format!("{user}/filter"), filter).await
        };
        filter(65_537).await.refused(413, "M_TOO_LARGE");
        let id = filter(65_536).await.ok()["filter_id"].clone();
        alice.sync(&format!("timeout=0&filter={}", id.as_str().unwrap())).await;
        let data = async |bytes: usize| {
            alice.put(&format!("{user}/account_data/m.note"), sized(json!({}), bytes)).await
        };
        data((512 << 10) + 1).await.refused(413, "M_TOO_LARGE");
        data(512 << 10).await.ok();
        server.stop().await;
    }

    async fn somebody_has_so_many_filters_and_rules(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let filter = async |n: u32| {
            let filter = json!({ "room": { "timeline": { "types": [n.to_string()] } } });
            alice.post(&format!("/user/{}/filter", alice.id), filter).await
        };
        for n in 0..1_000 {
            filter(n).await.ok();
        }
        filter(1_000).await.refused(403, "M_FORBIDDEN");
        filter(7).await.ok();
        // Rules change together: all of them are written again at each change.
        let rule = async |n: u32| alice.put(&format!("/pushrules/global/sender/@{n}:x"), json!({ "actions": [] })).await;
        for n in 0..1_000 {
            rule(n).await.ok();
        }
        rule(1_000).await.refused(403, "M_FORBIDDEN");
        rule(7).await.ok();
        let room = alice.opens_a_room().await;
        alice.says(&room, "all is well").await;
        server.stop().await;
    }
}
