use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, RoomVersionId, UInt, owned_event_id, owned_room_id, owned_user_id,
    server_name,
    signatures::{PublicKeyMap, PublicKeySet, Verified, verify_event},
    state_res::Event as _,
};
use serde_json::{Value, json};

use super::*;
use crate::{
    Kind,
    limits::{MAX_CONTENT_DEPTH, MAX_PDU_BYTES},
    testing::{Room, VERSIONS, raw, signer, version},
};

fn draft(content: &str) -> Draft {
    Draft {
        room_id: Some(owned_room_id!("!room:example.org")),
        sender: owned_user_id!("@alice:example.org"),
        event_type: TimelineEventType::RoomMessage,
        state_key: None,
        content: RawValue::from_string(content.to_owned()).expect("json"),
        redacts: None,
        prev_events: vec![owned_event_id!("$prev")],
        auth_events: vec![owned_event_id!("$auth")],
        depth: 12,
        origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::from(1_700_000_000u32)),
    }
}

fn build_in(id: &RoomVersionId, draft: Draft) -> Result<Pdu> {
    build(draft, &signer(), version(id))
}

fn v11(draft: Draft) -> Result<Pdu> {
    build_in(&RoomVersionId::V11, draft)
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> Kind {
    match result {
        Err(Error::Matrix { kind, .. }) => kind,
        other => panic!("{other:?}"),
    }
}

fn value(json: &str) -> Value {
    serde_json::from_str(json).expect("json")
}

#[test]
fn what_is_built_verifies_everywhere() {
    let signer = signer();
    let key = ruma::serde::Base64::parse(signer.public_key_base64()).expect("base64");
    let keys =
        PublicKeyMap::from([("example.org".to_owned(), PublicKeySet::from([(signer.key_id().to_owned(), key)]))]);
    for held in RoomVersion::all() {
        let (mut room, mut fork) = Room::new(&held.id);
        let pdu = room.message(&mut fork, "alice", "hi").expect("sent");
        for pdu in room.events.values().chain([&pdu]) {
            let object: CanonicalJsonObject = serde_json::from_str(&pdu.json).expect("canonical");
            let verified = verify_event(&keys, &object, &held.rules).expect("signed");
            assert_eq!(verified, Verified::All);
            let hash = ruma::signatures::reference_hash(&object, &held.rules).expect("hash");
            assert_eq!(pdu.event_id.as_str(), format!("${hash}"));
            assert_eq!(serde_json::to_string(&object).expect("json"), &*pdu.json, "canonical");
        }
    }
}

#[test]
fn parsing_what_was_built_gives_the_same() {
    for id in &VERSIONS {
        let (mut room, mut fork) = Room::new(id);
        let message = room.message(&mut fork, "alice", "hi").expect("sent");
        let target = Some(message.event_id.clone());
        room.send(&mut fork, "alice", "m.room.redaction", None, &json!({}), target).expect("redacted");
        for pdu in room.events.values() {
            let room_id = pdu.room_id.clone();
            let read = Pdu::parse(pdu.json.clone(), pdu.event_id.clone(), room_id, room.version).expect("ours");
            assert_eq!(format!("{read:?}"), format!("{pdu:?}"));
        }
    }
}

#[test]
fn a_room_is_named_after_its_create_event_from_version_12_on() {
    for id in &VERSIONS {
        let (room, fork) = Room::new(id);
        let create = room.get(&fork, &StateEventType::RoomCreate, "").expect("created");
        let json = value(&create.json);
        if *id == RoomVersionId::V12 {
            assert_eq!(create.room_id.strip_sigil(), &create.event_id.as_str()[1..]);
            assert_eq!((json.get("room_id"), create.room_id()), (None, None));
            assert_eq!(create_event_id(&create.room_id).expect("a hash"), create.event_id);
        } else {
            assert_eq!(json["room_id"], "!room:example.org");
            assert_eq!(create.room_id(), Some(&*create.room_id));
        }
        let other = room.events.values().find(|e| e.event_id != create.event_id).expect("more than one");
        assert_eq!(other.room_id(), Some(&*create.room_id));
    }
    let nameless = Draft { room_id: None, ..draft("{}") };
    assert!(matches!(v11(nameless.clone()), Err(Error::Internal(_))));
    let create = Draft { event_type: TimelineEventType::RoomCreate, ..draft("{}") };
    assert!(matches!(build_in(&RoomVersionId::V12, create), Err(Error::Internal(_))));
    assert!(matches!(build_in(&RoomVersionId::V12, nameless), Err(Error::Internal(_))));
}

#[test]
fn content_is_canonical_or_refused() {
    let pdu = v11(draft(r#"{ "b": [1, {"z": null, "y": "\u00e4"}], "a": true }"#)).expect("built");
    assert_eq!(pdu.content.get(), r#"{"a":true,"b":[1,{"y":"ä","z":null}]}"#);
    assert!(pdu.json.contains(pdu.content.get()));
    let nested = |levels: usize| format!("{}{{}}{}", r#"{"a":"#.repeat(levels - 1), "}".repeat(levels - 1));
    assert!(v11(draft(&nested(MAX_CONTENT_DEPTH))).is_ok());
    for content in [
        r#"{"a":1.5}"#,
        r#"{"a":9007199254740992}"#,
        r#"{"a":1,"a":1}"#,
        "[]",
        "null",
        &nested(MAX_CONTENT_DEPTH + 1),
        &nested(125),
    ] {
        assert_eq!(kind(v11(draft(content))), Kind::BadJson, "{content}");
    }
}

#[test]
fn an_event_of_exactly_the_limit_is_built_and_one_byte_more_is_not() {
    let with = |len: usize| v11(draft(&format!(r#"{{"body":"{}"}}"#, "a".repeat(len))));
    let frame = with(0).expect("small").json.len();
    assert_eq!(with(MAX_PDU_BYTES - frame).expect("at the limit").json.len(), MAX_PDU_BYTES);
    assert_eq!(kind(with(MAX_PDU_BYTES - frame + 1)), Kind::TooLarge);
    assert_eq!(kind(with(1_000_000)), Kind::TooLarge);
}

#[test]
fn parts_have_limits_of_their_own() {
    let long = |len: usize| "ä".repeat(len / 2) + &"a".repeat(len % 2);
    let typed = |t: String| v11(Draft { event_type: t.into(), ..draft("{}") });
    let keyed = |k: String| v11(Draft { state_key: Some(k), ..draft("{}") });
    assert!(typed(long(255)).is_ok() && keyed(long(255)).is_ok());
    assert_eq!((kind(typed(long(256))), kind(keyed(long(256)))), (Kind::TooLarge, Kind::TooLarge));
    assert_eq!(kind(typed("a\0b".to_owned())), Kind::InvalidParam);
    assert_eq!(kind(keyed("\0".to_owned())), Kind::InvalidParam);
    let parents = |n| v11(Draft { prev_events: vec![owned_event_id!("$prev"); n], ..draft("{}") });
    assert!(parents(20).is_ok() && parents(21).is_err());
    let foreign = Draft { sender: owned_user_id!("@alice:elsewhere.org"), ..draft("{}") };
    assert!(matches!(v11(foreign), Err(Error::Internal(_))));
    assert!(v11(Draft { depth: -1, ..draft("{}") }).is_err());
}

#[test]
fn a_redaction_names_its_target_where_the_version_wants_it() {
    let redaction = |content| Draft {
        event_type: TimelineEventType::RoomRedaction,
        redacts: Some(owned_event_id!("$target")),
        ..draft(content)
    };
    let old = build_in(&RoomVersionId::V10, redaction(r#"{"reason":"spam"}"#)).expect("built");
    let json = value(&old.json);
    assert_eq!((&json["redacts"], json["content"].get("redacts")), (&json!("$target"), None));
    let new = v11(redaction(r#"{"reason":"spam","redacts":"$other"}"#)).expect("built");
    let json = value(&new.json);
    assert_eq!((json.get("redacts"), &json["content"]["redacts"]), (None, &json!("$target")));
    for pdu in [&old, &new] {
        assert_eq!(pdu.redacts, Some(owned_event_id!("$target")));
        // Clients of any age find it, in rooms of any version.
        let client = client_json(pdu).and_then(|e| e.with_unsigned(&Unsigned::default())).expect("json");
        let client = value(client.get());
        assert_eq!((&client["redacts"], &client["content"]["redacts"]), (&json!("$target"), &json!("$target")));
        assert_eq!(client["content"]["reason"], "spam");
    }
    // A client may have put it into the content itself; that is then what the event says.
    let said = v11(Draft { redacts: None, ..redaction(r#"{"redacts":"$said"}"#) }).expect("built");
    assert_eq!(said.redacts, Some(owned_event_id!("$said")));
    let odd = v11(Draft { redacts: None, ..redaction(r#"{"redacts":7}"#) }).expect("built");
    assert_eq!(odd.redacts, None);
    let parsed = Pdu::parse(odd.json.clone(), odd.event_id.clone(), odd.room_id.clone(), version(&RoomVersionId::V11));
    assert_eq!(parsed.expect("parses").redacts, None);
    // Only a redaction redacts.
    let message = build_in(&RoomVersionId::V10, Draft { redacts: Some(owned_event_id!("$x")), ..draft("{}") });
    let message = message.expect("built");
    assert_eq!((message.redacts, value(&message.json).get("redacts")), (None, None));
}

#[test]
fn clients_get_their_own_form() {
    let odd = owned_user_id!("@al\"ice:example.org");
    let topic = Draft {
        event_type: "m.room.topic".into(),
        state_key: Some("\"k\"".to_owned()),
        sender: odd,
        ..draft(r#"{"topic":"t"}"#)
    };
    let pdu = v11(topic).expect("built");
    let event = client_json(&pdu).expect("client form");
    let mut expected = json!({
        "content": { "topic": "t" },
        "event_id": pdu.event_id,
        "origin_server_ts": 1_700_000_000,
        "room_id": "!room:example.org",
        "sender": "@al\"ice:example.org",
        "state_key": "\"k\"",
        "type": "m.room.topic",
    });
    let plain = event.with_unsigned(&Unsigned::default()).expect("json");
    assert_eq!(value(plain.get()), expected);

    let unsigned = Unsigned {
        age: Some(-3),
        transaction_id: Some("t\"1".to_owned()),
        prev_content: Some(raw(&json!({ "topic": "s" }))),
        membership: Some("join".to_owned()),
        redacted_because: Some(plain),
        invite_room_state: Some(vec![stripped_json(&pdu).expect("stripped")]),
        relations: Some(raw(&json!({ "m.thread": {} }))),
        ..Unsigned::default()
    };
    expected["unsigned"] = json!({
        "age": -3,
        "transaction_id": "t\"1",
        "prev_content": { "topic": "s" },
        "membership": "join",
        "redacted_because": expected.clone(),
        "invite_room_state": [{
            "content": { "topic": "t" },
            "sender": "@al\"ice:example.org",
            "state_key": "\"k\"",
            "type": "m.room.topic",
        }],
        "m.relations": { "m.thread": {} },
    });
    assert_eq!(value(event.with_unsigned(&unsigned).expect("json").get()), expected);
    expected.as_object_mut().expect("an object").remove("room_id");
    assert_eq!(value(event.without_room(&unsigned).expect("json").get()), expected);

    let message = client_json(&v11(draft("{}")).expect("built")).expect("client form");
    let message = value(message.without_room(&Unsigned::default()).expect("json").get());
    let keys: Vec<&String> = message.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["content", "event_id", "origin_server_ts", "sender", "type"]);
}

#[test]
fn redacted_events_keep_their_id_and_what_the_version_protects() {
    for id in &VERSIONS {
        let (mut room, mut fork) = Room::new(id);
        let content = json!({ "membership": "join", "displayname": "Bob" });
        let member = room.state(&mut fork, "bob", "m.room.member", "@bob:example.org", content).expect("joined");
        let message = room.message(&mut fork, "bob", "spam").expect("sent");
        let create = room.get(&fork, &StateEventType::RoomCreate, "").expect("created");
        for (pdu, content) in [
            (&member, r#"{"membership":"join"}"#),
            (&message, "{}"),
            (
                &create,
                match id {
                    RoomVersionId::V6 | RoomVersionId::V10 => r#"{"creator":"@alice:example.org"}"#,
                    RoomVersionId::V11 => r#"{"room_version":"11"}"#,
                    _ => r#"{"room_version":"12"}"#,
                },
            ),
        ] {
            let redacted = pdu.redact(room.version).expect("redacted");
            assert_eq!(redacted.content.get(), content);
            assert_eq!((&redacted.event_id, &redacted.room_id), (&pdu.event_id, &pdu.room_id));
            let object: CanonicalJsonObject = serde_json::from_str(&redacted.json).expect("canonical");
            let hash = ruma::signatures::reference_hash(&object, &room.version.rules).expect("hash");
            assert_eq!(redacted.event_id.as_str(), format!("${hash}"), "the id is that of the redacted form");
            assert!(matches!(object.get("signatures"), Some(CanonicalJsonValue::Object(_))));
            let again = redacted.redact(room.version).expect("redacted");
            assert_eq!(again.json, redacted.json);
        }
    }
}

#[test]
fn what_was_stored_and_does_not_parse_is_our_fault() {
    let id = owned_event_id!("$id");
    let broken = Pdu::parse("{}".into(), id, owned_room_id!("!r:example.org"), version(&RoomVersionId::V11));
    assert!(matches!(broken, Err(Error::Internal(_))));
    assert_eq!(signer().server_name(), server_name!("example.org"));
}
