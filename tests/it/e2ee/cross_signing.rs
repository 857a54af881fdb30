//! Users vouch for their devices, and for each other.

use serde_json::{Value, json};

use super::{Pair, lists};
use crate::support::{
    Reply, each_backend,
    people::{Person, open_server},
};

/// The three keys of a person.
pub(super) struct Keys {
    pub(super) master: Pair,
    own: Pair,
    others: Pair,
}

fn key(person: &Person, usage: &str, pair: &Pair) -> Value {
    json!({ "user_id": person.id, "usage": [usage], "keys": { pair.id(): pair.public } })
}

impl Keys {
    fn new() -> Self {
        Self { master: Pair::called_by_itself(), own: Pair::called_by_itself(), others: Pair::called_by_itself() }
    }

    fn upload(&self, person: &Person) -> Value {
        json!({
            "master_key": key(person, "master", &self.master),
            "self_signing_key": self.master.signs(&person.id, &key(person, "self_signing", &self.own)),
            "user_signing_key": self.master.signs(&person.id, &key(person, "user_signing", &self.others)),
        })
    }
}

impl Person {
    async fn sets_up(&self, body: Value) -> Reply {
        self.post("/keys/device_signing/upload", body).await
    }

    /// A fresh set of keys, the first of the person.
    pub(super) async fn cross_signs(&self) -> Keys {
        let keys = Keys::new();
        self.sets_up(keys.upload(self)).await.ok();
        keys
    }

    /// What was not taken.
    async fn signs(&self, user: &str, name: &str, object: &Value) -> Value {
        let said = self.post("/keys/signatures/upload", json!({ user: { name: object } })).await.ok();
        said["failures"][user][name]["errcode"].clone()
    }
}

fn proof(name: &str) -> Value {
    let user = json!({ "type": "m.id.user", "user": name });
    json!({ "type": "m.login.password", "identifier": user, "password": "correct horse battery staple" })
}

each_backend! {
    async fn the_first_keys_take_no_password_and_others_do(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let keys = Keys::new();
        let mut upload = keys.upload(&alice);
        let orphan = json!({ "self_signing_key": upload["self_signing_key"] });
        alice.sets_up(orphan).await.refused(400, "M_MISSING_PARAM");
        alice.sets_up(upload.clone()).await.ok();
        let seen = alice.queries(&alice.id).await;
        for (field, told) in [("master_key", "master_keys"), ("self_signing_key", "self_signing_keys"), ("user_signing_key", "user_signing_keys")] {
            assert_eq!(seen[told][&alice.id], upload[field], "{told}");
        }
        let seen = bob.queries(&alice.id).await;
        assert_eq!(seen["master_keys"][&alice.id], upload["master_key"]);
        assert_eq!(seen["self_signing_keys"][&alice.id], upload["self_signing_key"]);
        assert!(seen["user_signing_keys"].is_null(), "hers alone: {seen}");

        // The same again, or some of it, asks for nothing.
        alice.sets_up(upload.clone()).await.ok();
        alice.sets_up(json!({ "master_key": upload["master_key"] })).await.ok();
        alice.sets_up(json!({ "user_signing_key": upload["user_signing_key"] })).await.ok();
        // One new key does.
        let new = Pair::called_by_itself();
        let new = keys.master.signs(&alice.id, &key(&alice, "self_signing", &new));
        for body in [Keys::new().upload(&alice), json!({ "self_signing_key": new })] {
            let asked = alice.sets_up(body.clone()).await;
            assert_eq!((asked.status, asked.json()["flows"][0]["stages"][0].as_str()), (401, Some("m.login.password")));
            let mut wrong = body.clone();
            wrong["auth"] = proof("bob");
            alice.sets_up(wrong).await.refused(403, "M_FORBIDDEN");
        }
        assert_eq!(alice.queries(&alice.id).await["master_keys"][&alice.id], upload["master_key"]);
        upload = json!({ "self_signing_key": new, "auth": proof("alice") });
        alice.sets_up(upload).await.ok();
        assert_eq!(alice.queries(&alice.id).await["self_signing_keys"][&alice.id], new);
    }

    async fn keys_that_the_master_key_has_not_signed_are_refused(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let (keys, others) = (Keys::new(), Keys::new());
        for (field, usage) in [("self_signing_key", "self_signing"), ("user_signing_key", "user_signing")] {
            let mut upload = keys.upload(&alice);
            upload[field] = key(&alice, usage, &keys.own);
            alice.sets_up(upload.clone()).await.refused(400, "M_INVALID_SIGNATURE");
            upload[field] = others.master.signs(&alice.id, &key(&alice, usage, &keys.own));
            alice.sets_up(upload.clone()).await.refused(400, "M_INVALID_SIGNATURE");
            // Signed, and altered then.
            upload[field] = keys.master.signs(&alice.id, &key(&alice, usage, &keys.own));
            upload[field]["extra"] = 1.into();
            alice.sets_up(upload).await.refused(400, "M_INVALID_SIGNATURE");
        }
        for (field, value) in [("user_id", json!("@bob:test.example")), ("usage", json!(["self_signing"])), ("keys", json!({}))] {
            let mut upload = keys.upload(&alice);
            upload["master_key"][field] = value;
            alice.sets_up(upload).await.refused(400, "M_INVALID_PARAM");
        }
        assert!(alice.queries(&alice.id).await["master_keys"].is_null());

        // A key that is called like a device could be taken for it.
        let logs_in = async |device_id: &str| {
            let body = json!({
                "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" },
                "password": "correct horse battery staple", "device_id": device_id,
            });
            server.post("/_matrix/client/v3/login", &body).await
        };
        logs_in(&keys.master.public).await.ok();
        alice.sets_up(keys.upload(&alice)).await.refused(403, "M_FORBIDDEN");
        // And a device that is called like a key.
        alice.sets_up(others.upload(&alice)).await.ok();
        logs_in(&others.own.public).await.refused(400, "M_INVALID_PARAM");
        logs_in(&alice.device).await.ok();
    }

    async fn signatures_are_looked_at_before_they_are_kept(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let (device, device_keys) = alice.publishes().await;
        let nothing = json!("M_NOT_FOUND");
        assert_eq!(alice.signs(&alice.id, &alice.device, &device_keys).await, nothing, "no key to sign with");
        let (hers, his) = (alice.cross_signs().await, bob.cross_signs().await);

        // Her device, by her own key.
        let wrong = json!("M_INVALID_SIGNATURE");
        assert_eq!(alice.signs(&alice.id, &alice.device, &device_keys).await, wrong, "nothing new");
        let by_other = his.own.signs(&alice.id, &device_keys);
        assert_eq!(alice.signs(&alice.id, &alice.device, &by_other).await, wrong);
        let mut altered = device_keys.clone();
        altered["algorithms"] = json!([]);
        assert_eq!(alice.signs(&alice.id, &alice.device, &hers.own.signs(&alice.id, &altered)).await, wrong);
        let signed = hers.own.signs(&alice.id, &device_keys);
        assert_eq!(alice.signs(&alice.id, "NOWHERE", &signed).await, nothing);
        assert_eq!(bob.signs(&alice.id, &alice.device, &signed).await, nothing, "another's device is not his to sign");
        assert_eq!(alice.signs(&alice.id, &alice.device, &signed).await, Value::Null);
        assert_eq!(bob.queries(&alice.id).await["device_keys"][&alice.id][&alice.device], signed);

        // Her master key, by her device.
        let master = key(&alice, "master", &hers.master);
        let name = &hers.master.public;
        let stranger = Pair::called(&alice.device);
        assert_eq!(alice.signs(&alice.id, name, &stranger.signs(&alice.id, &master)).await, wrong);
        let by_device = device.signs(&alice.id, &master);
        assert_eq!(alice.signs(&alice.id, name, &by_device).await, Value::Null);
        assert_eq!(carol.queries(&alice.id).await["master_keys"][&alice.id], by_device);

        // Her master key, by his key for others: only he is told.
        let by_him = his.others.signs(&bob.id, &master);
        assert_eq!(bob.signs(&alice.id, name, &his.own.signs(&bob.id, &master)).await, wrong);
        assert_eq!(carol.signs(&alice.id, name, &by_him).await, nothing);
        assert_eq!(bob.signs(&alice.id, name, &by_him).await, Value::Null);
        let seen = bob.queries(&alice.id).await["master_keys"][&alice.id]["signatures"].clone();
        assert_eq!(seen[&bob.id], by_him["signatures"][&bob.id]);
        assert_eq!(seen[&alice.id], by_device["signatures"][&alice.id]);
        for other in [&alice, &carol] {
            assert_eq!(other.queries(&alice.id).await["master_keys"][&alice.id], by_device);
        }
        let elsewhere = json!({ "user_id": "@x:elsewhere.example" });
        assert_eq!(bob.signs("@x:elsewhere.example", "key", &elsewhere).await, nothing);
        bob.post("/keys/signatures/upload", json!({ &alice.id: 1 })).await.refused(400, "M_BAD_JSON");
    }

    async fn who_has_to_know_hears_of_signatures_and_keys(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        let (_, device_keys) = alice.publishes().await;
        alice.syncs().await;
        bob.syncs().await;
        let poll = bob.waits().await;
        let keys = alice.cross_signs().await;
        assert_eq!(lists(&poll.ends().await).0, [&alice.id]);
        bob.syncs().await;
        let signed = keys.own.signs(&alice.id, &device_keys);
        assert_eq!(alice.signs(&alice.id, &alice.device, &signed).await, Value::Null);
        assert_eq!(lists(&bob.syncs().await).0, [&alice.id]);
        assert_eq!(alice.signs(&alice.id, &alice.device, &signed).await, Value::Null);
        assert_eq!(lists(&bob.syncs().await), (vec![], vec![]), "the same again is no news");
        alice.syncs().await;

        // That he vouches for her is between him and his devices.
        let his = bob.cross_signs().await;
        let phone = bob.logs_in_on(&server).await;
        alice.syncs().await;
        phone.syncs().await;
        phone.syncs().await;
        let poll = phone.waits().await;
        let by_him = his.others.signs(&bob.id, &key(&alice, "master", &keys.master));
        assert_eq!(bob.signs(&alice.id, &keys.master.public, &by_him).await, Value::Null);
        assert_eq!(lists(&poll.ends().await), (vec![alice.id.as_str()], vec![]));
        assert_eq!(lists(&alice.syncs().await), (vec![], vec![]));
    }

    async fn what_was_signed_goes_with_the_key(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let (device, device_keys) = alice.publishes().await;
        let (hers, his) = (alice.cross_signs().await, bob.cross_signs().await);
        let master = key(&alice, "master", &hers.master);
        alice.signs(&alice.id, &alice.device, &hers.own.signs(&alice.id, &device_keys)).await;
        bob.signs(&alice.id, &hers.master.public, &his.others.signs(&bob.id, &master)).await;

        // A master key may come with the signature of a device; one that is not right is left out.
        let new = Keys::new();
        let mut upload = new.upload(&alice);
        upload["master_key"] = device.signs(&alice.id, &upload["master_key"]);
        let signed = upload["master_key"].clone();
        upload["master_key"]["signatures"][&alice.id]["ed25519:NOWHERE"] = "a signature".into();
        upload["auth"] = proof("alice");
        alice.sets_up(upload).await.ok();
        let seen = bob.queries(&alice.id).await;
        assert_eq!(seen["master_keys"][&alice.id], signed);
        assert_eq!(seen["device_keys"][&alice.id][&alice.device], device_keys, "signed by a key that is no more");

        // So does what a device has signed.
        let phone = alice.logs_in_on(&server).await;
        alice.post("/logout", json!({})).await.ok();
        assert!(bob.queries(&alice.id).await["master_keys"][&alice.id].get("signatures").is_none());
        phone.post("/account/deactivate", json!({ "auth": proof("alice") })).await.ok();
        assert!(bob.queries(&alice.id).await["master_keys"].is_null());
    }
}
