//! End-to-end encryption, as far as a server has a part in it.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

#[cfg(feature = "postgres")]
mod cluster;
mod cross_signing;
mod dehydrated;
mod keys;
mod lists;
mod model;

use ruma::{
    CanonicalJsonObject,
    serde::{Base64, base64::Standard},
    signatures::{Ed25519KeyPair, sign_json},
};
use serde_json::{Value, json};

use crate::support::{Reply, people::Person};

/// A pair of keys that is called by a name, or by its public half.
pub(crate) struct Pair {
    pair: Ed25519KeyPair,
    public: String,
}

impl Pair {
    fn called(name: &str) -> Self {
        let der = Ed25519KeyPair::generate();
        let pair = Ed25519KeyPair::from_der(&der, name.to_owned()).unwrap();
        let public = Base64::<Standard, _>::new(pair.public_key().to_vec()).encode();
        Self { pair, public }
    }

    /// As cross-signing keys are called.
    fn called_by_itself() -> Self {
        let der = Ed25519KeyPair::generate();
        let public = Ed25519KeyPair::from_der(&der, String::new()).unwrap().public_key().to_vec();
        let public = Base64::<Standard, _>::new(public).encode();
        let pair = Ed25519KeyPair::from_der(&der, public.clone()).unwrap();
        Self { pair, public }
    }

    fn id(&self) -> String {
        format!("ed25519:{}", self.public)
    }

    /// The object with a signature of this key of the user's.
    fn signs(&self, user: &str, object: &Value) -> Value {
        let mut object: CanonicalJsonObject = serde_json::from_value(object.clone()).unwrap();
        sign_json(user, &self.pair, &mut object).unwrap();
        serde_json::to_value(object).unwrap()
    }
}

/// 32 bytes that look like a key.
fn some_key() -> String {
    Pair::called("x").public
}

/// The identity keys of a person's device.
fn device_keys(person: &Person, pair: &Pair) -> Value {
    let (user, device) = (&person.id, &person.device);
    let keys = json!({
        "user_id": user, "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": { format!("ed25519:{device}"): pair.public, format!("curve25519:{device}"): some_key() },
    });
    pair.signs(user, &keys)
}

/// One-time keys of these names, or a fallback key.
pub(crate) fn one_time(person: &Person, names: &[&str], fallback: bool) -> Value {
    let mut keys = json!({});
    for name in names {
        let signature = json!({ &person.id: { format!("ed25519:{}", person.device): "a signature" } });
        keys[format!("signed_curve25519:{name}")] = json!({ "key": some_key(), "signatures": signature });
        if fallback {
            keys[format!("signed_curve25519:{name}")]["fallback"] = true.into();
        }
    }
    keys
}

impl Person {
    pub(crate) async fn uploads(&self, body: Value) -> Reply {
        self.post("/keys/upload", body).await
    }

    /// Publishes new keys for the device; what they are signed with.
    pub(crate) async fn publishes(&self) -> (Pair, Value) {
        let pair = Pair::called(&self.device);
        let keys = device_keys(self, &pair);
        self.uploads(json!({ "device_keys": keys })).await.ok();
        (pair, keys)
    }

    async fn queries(&self, other: &str) -> Value {
        self.post("/keys/query", json!({ "device_keys": { other: [] } })).await.ok()
    }

    /// Name and value of a key of this device, if there is one.
    async fn claims(&self, other: &Person) -> Option<(String, Value)> {
        let body = json!({ "one_time_keys": { &other.id: { &other.device: "signed_curve25519" } } });
        let reply = self.post("/keys/claim", body).await.ok();
        let keys = reply["one_time_keys"][&other.id][&other.device].as_object()?;
        assert_eq!(keys.len(), 1, "{reply}");
        keys.iter().next().map(|(name, key)| (name.clone(), key.clone()))
    }
}

/// How many one-time keys a sync says are left.
fn left(page: &Value) -> i64 {
    page["device_one_time_keys_count"]["signed_curve25519"].as_i64().unwrap_or_else(|| panic!("no count: {page}"))
}

/// Which users a sync calls changed, and which left.
fn lists(page: &Value) -> (Vec<&str>, Vec<&str>) {
    let users = |which: &str| {
        let users = page["device_lists"][which].as_array().map(Vec::as_slice).unwrap_or_default();
        users.iter().map(|user| user.as_str().unwrap()).collect()
    };
    (users("changed"), users("left"))
}
