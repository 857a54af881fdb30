use ruma::{
    CanonicalJsonObject,
    signatures::{Ed25519KeyPair, sign_json},
    user_id,
};
use serde_json::{Value, json};

use super::*;

const KEY: &str = "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI";

fn keys() -> Value {
    json!({
        "user_id": "@a:x", "device_id": "D", "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": { "ed25519:D": KEY, "curve25519:D": KEY }, "signatures": { "@a:x": { "ed25519:D": "sig" } },
    })
}

fn accepted(value: &Value) -> Result<String> {
    device_keys(&value.to_string(), user_id!("@a:x"), "D")
}

#[test]
fn the_keys_of_a_device_are_kept_with_what_nobody_knows_yet() {
    let mut value = keys();
    value["org.example.new"] = json!([{ "deep": 1 }]);
    value["unsigned"] = json!({ "device_display_name": "not yours to say" });
    value["signatures"]["@b:x"] = json!({ "ed25519:B": "unseen" });
    let kept: Value = serde_json::from_str(&accepted(&value).expect("well formed")).expect("JSON");
    assert_eq!(kept["org.example.new"], json!([{ "deep": 1 }]));
    assert_eq!((kept.get("unsigned"), kept["signatures"].get("@b:x")), (None, None));
    assert_eq!(kept["signatures"]["@a:x"]["ed25519:D"], "sig");
}

#[test]
fn cve_2025_61672_keys_that_others_could_not_read_are_refused() {
    let broken: &[(&str, Value)] = &[
        ("user_id", json!("@b:x")),
        ("user_id", json!(1)),
        ("device_id", json!("E")),
        ("device_id", json!(null)),
        ("algorithms", json!("m.olm")),
        ("algorithms", json!([1])),
        ("algorithms", json!([["m.olm"]])),
        ("algorithms", json!(vec!["a"; MOST_ENTRIES + 1])),
        ("keys", json!([])),
        ("keys", json!({ "ed25519:E": KEY })),
        ("keys", json!({ "ed25519": KEY })),
        ("keys", json!({ "ed25519:D": 1 })),
        ("keys", json!({ "ed25519:D": "c2hvcnQ" })),
        ("keys", json!({ "ed25519:D": { "key": KEY } })),
        ("signatures", json!(null)),
        ("signatures", json!({ "@a:x": "sig" })),
        ("signatures", json!({ "nobody": {} })),
        ("signatures", json!({ "@a:x": { "ed25519:D": 1 } })),
        ("signatures", json!({ "@a:x": { "": "sig" } })),
        ("extra", json!(1.5)),
        ("extra", json!("x".repeat(limits::MAX_DEVICE_KEYS_BYTES))),
    ];
    accepted(&keys()).expect("well formed");
    for (field, value) in broken {
        let mut keys = keys();
        keys[*field] = value.clone();
        assert!(accepted(&keys).is_err(), "{field}: {value}");
    }
    for field in ["user_id", "device_id", "algorithms", "keys", "signatures"] {
        let mut keys = keys();
        keys.as_object_mut().expect("an object").remove(field);
        assert!(accepted(&keys).is_err(), "without {field}");
    }
}

#[test]
fn one_time_keys() {
    let signed = json!({ "key": KEY, "signatures": { "@a:x": { "ed25519:D": "sig" } }, "fallback": true });
    let key = one_time_key("signed_curve25519:AAAAHQ", &signed.to_string()).expect("well formed");
    assert_eq!((key.algorithm.as_str(), key.key_id.as_str()), ("signed_curve25519", "AAAAHQ"));
    assert_eq!(serde_json::from_str::<Value>(&key.json).expect("JSON"), signed);
    assert_eq!(one_time_key("curve25519:A", &format!(" {}", json!(KEY))).ok(), None);
    assert_eq!(
        one_time_key("curve25519:A", &json!(KEY).to_string()).expect("well formed").json,
        json!(KEY).to_string()
    );
    for (name, value) in [
        ("signed_curve25519", signed.clone()),
        ("signed_curve25519:", signed.clone()),
        (":A", signed.clone()),
        ("signed_curve25519:\u{1}", signed.clone()),
        ("signed_curve25519:A", json!(KEY)),
        ("signed_curve25519:A", json!({ "key": KEY })),
        ("signed_curve25519:A", json!({ "key": [KEY], "signatures": {} })),
        ("signed_curve25519:A", json!({ "key": "c2hvcnQ", "signatures": {} })),
        ("signed_curve25519:A", json!({ "key": KEY, "signatures": [] })),
        (
            "signed_curve25519:A",
            json!({ "key": KEY, "signatures": {}, "x": "x".repeat(limits::MAX_ONE_TIME_KEY_BYTES) }),
        ),
        ("signed_curve25519:A", json!([])),
        ("curve25519:A", json!("c2hvcnQ")),
        ("org.example:A", json!(7)),
    ] {
        assert!(one_time_key(name, &value.to_string()).is_err(), "{name}: {value}");
    }
}

/// A key pair and its public half.
fn pair(id: &str) -> (Ed25519KeyPair, String) {
    let der = Ed25519KeyPair::generate();
    let pair = Ed25519KeyPair::from_der(&der, id.to_owned()).expect("a key");
    let public = Base64::<Standard, _>::new(pair.public_key().to_vec()).encode();
    (pair, public)
}

fn cross_signing(usage: &str, public: &str) -> CanonicalJsonObject {
    let name = format!("ed25519:{public}");
    let value = json!({ "user_id": "@a:x", "usage": [usage], "keys": { name: public } });
    serde_json::from_value(value).expect("canonical")
}

#[test]
fn a_signature_counts_if_it_is_of_this_very_object() {
    let (_, public) = pair("unused");
    let (signer, master) = {
        let der = Ed25519KeyPair::generate();
        let public = Ed25519KeyPair::from_der(&der, "0".to_owned()).expect("a key").public_key().to_vec();
        let public = Base64::<Standard, _>::new(public).encode();
        (Ed25519KeyPair::from_der(&der, public.clone()).expect("a key"), public)
    };
    let user = user_id!("@a:x");
    let master = serde_json::to_string(&cross_signing("master", &master)).expect("JSON");
    let master = CrossSigningKey::parse(&master, user, Usage::Master).expect("a master key");
    let mut object = cross_signing("self_signing", &public);
    sign_json("@a:x", &signer, &mut object).expect("signed");
    let signed = CrossSigningKey::parse(&serde_json::to_string(&object).expect("JSON"), user, Usage::SelfSigning)
        .expect("a self-signing key");
    assert!(master.has_signed(user, signed.object()));
    assert!(!master.has_signed(user_id!("@b:x"), signed.object()));
    assert!(!signed.has_signed(user, master.object()));
    let kept = signed.stored_with(user, Some(&master.key_id())).expect("JSON");
    assert!(master.has_signed(user, &Signable::parse(&kept).expect("an object")));
    assert!(!signed.stored_with(user, None).expect("JSON").contains("signatures"));

    object.insert("usage".to_owned(), CanonicalJsonValue::Array(vec!["user_signing".to_owned().into()]));
    let altered = Signable::parse(&serde_json::to_string(&object).expect("JSON")).expect("an object");
    assert!(!master.has_signed(user, &altered));
}

#[test]
fn a_cross_signing_key_is_one_key_called_by_itself() {
    let user = user_id!("@a:x");
    let parse = |value: Value| CrossSigningKey::parse(&value.to_string(), user, Usage::Master);
    let name = format!("ed25519:{KEY}");
    let good = json!({ "user_id": "@a:x", "usage": ["master"], "keys": { &name: KEY } });
    assert_eq!(parse(good.clone()).expect("well formed").key_id(), name);
    for (field, value) in [
        ("user_id", json!("@b:x")),
        ("usage", json!("master")),
        ("usage", json!(["self_signing"])),
        ("usage", json!(["master", "self_signing"])),
        ("keys", json!({})),
        ("keys", json!({ &name: KEY, "ed25519:other": KEY })),
        ("keys", json!({ "ed25519:other": KEY })),
        ("keys", json!({ "ed25519:c2hvcnQ": "c2hvcnQ" })),
        ("signatures", json!([])),
    ] {
        let mut key = good.clone();
        key[field] = value.clone();
        assert!(parse(key).is_err(), "{field}: {value}");
    }
}

#[test]
fn what_is_shown_has_the_signatures_of_others_beside_its_own() {
    let json = accepted(&keys()).expect("well formed");
    assert_eq!(shown(&json, [], None).expect("JSON"), json);
    let more = [["@a:x", "ed25519:SSK", "by self"], ["@b:x", "ed25519:USK", "by other"]];
    let shown: Value = serde_json::from_str(&shown(&json, more, Some("Phone")).expect("JSON")).expect("JSON");
    let by_me = json!({ "ed25519:D": "sig", "ed25519:SSK": "by self" });
    assert_eq!(shown["signatures"], json!({ "@a:x": by_me, "@b:x": { "ed25519:USK": "by other" } }));
    assert_eq!(shown["unsigned"], json!({ "device_display_name": "Phone" }));
}
