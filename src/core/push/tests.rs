use ruma::{OwnedUserId, event_id, room_id};
use serde_json::{Value, json};

use super::*;
use crate::room_version::RoomVersion;

fn subject(event_type: &str, state_key: Option<&str>, content: &Value) -> Subject {
    let mut event = json!({
        "type": event_type, "sender": "@alice:x", "content": content, "origin_server_ts": 1, "prev_events": [],
        "auth_events": [], "depth": 1,
    });
    if let Some(key) = state_key {
        event["state_key"] = key.into();
    }
    let version = RoomVersion::get(&ruma::RoomVersionId::V11).expect("a version that is held");
    let (id, room) = (event_id!("$event").to_owned(), room_id!("!room:x"));
    let pdu = Pdu::parse(event.to_string().into(), id, room.to_owned(), version).expect("an event");
    Subject::new(&pdu, room, 3).expect("looked at")
}

fn message(content: &Value) -> Subject {
    let mut all = json!({ "msgtype": "m.text", "body": "hello" });
    for (key, value) in content.as_object().expect("an object") {
        all[key] = value.clone();
    }
    subject("m.room.message", None, &all)
}

const NOTIFY: Counts = Counts { notify: 1, highlight: 0 };
const BOTH: Counts = Counts { notify: 1, highlight: 1 };

#[test]
fn by_default_messages_notify_and_mentions_highlight() {
    let cases = [
        (message(&json!({})), NOTIFY, BOTH),
        (message(&json!({ "msgtype": "m.notice" })), Counts::NONE, Counts::NONE),
        (message(&json!({ "m.relates_to": { "rel_type": "m.replace", "event_id": "$a" } })), Counts::NONE, BOTH),
        (subject("m.room.encrypted", None, &json!({ "ciphertext": "…" })), NOTIFY, BOTH),
        (subject("m.reaction", None, &json!({ "m.relates_to": { "rel_type": "m.annotation" } })), Counts::NONE, BOTH),
        (subject("m.room.topic", Some(""), &json!({ "topic": "t" })), Counts::NONE, BOTH),
        (subject("m.room.tombstone", Some(""), &json!({ "body": "t" })), BOTH, BOTH),
        (subject("m.room.member", Some("@bob:x"), &json!({ "membership": "join" })), Counts::NONE, Counts::NONE),
        (subject("m.room.member", Some("@bob:x"), &json!({ "membership": "invite" })), Counts::NONE, Counts::NONE),
        (subject("org.example.custom", None, &json!({})), Counts::NONE, BOTH),
    ];
    for (i, (subject, nobody, mentioned)) in cases.into_iter().enumerate() {
        assert_eq!(subject.by_default(), nobody, "case {i}");
        assert_eq!(subject.by_default_if_mentioned(), mentioned, "case {i}");
    }
}

/// The two questions are what each member's own rules would have said.
#[test]
fn one_judgement_stands_for_all() {
    let contents = [
        json!({}),
        json!({ "m.mentions": {} }),
        json!({ "m.mentions": { "user_ids": ["@bob:x"] } }),
        json!({ "m.mentions": { "user_ids": ["@bob:x", 7, "nonsense", "@:nobody.invalid"], "room": true } }),
        json!({ "m.mentions": { "user_ids": "@bob:x" } }),
        json!({ "body": "BOB: hello" }),
        json!({ "body": "hello, master builder!" }),
        json!({ "body": "hello, master builder!", "m.relates_to": { "rel_type": "m.replace" } }),
        json!({ "body": "carol and bob", "m.relates_to": { "rel_type": "m.replace" } }),
        json!({ "body": "kebob", "msgtype": "m.notice" }),
        json!({ "body": "@room bob", "msgtype": "m.notice" }),
        json!({ "body": "@room bob", "m.mentions": {} }),
        json!({ "m.mentions": { "user_ids": ["@bob:x"] }, "msgtype": "m.notice" }),
        json!({ "m.mentions": { "user_ids": ["@bob:x"] }, "m.relates_to": { "rel_type": "m.replace" } }),
        json!({ "m.relates_to": { "rel_type": "m.replace" }, "m.new_content": { "body": "bob" } }),
    ];
    for content in contents {
        for kind in ["m.room.message", "m.room.encrypted", "m.reaction", "m.call.invite", "org.example"] {
            let subject = subject(kind, None, &content);
            let mentioned = subject.mentioned();
            let mut names = Names::default();
            let members = [("@bob:x", "Master Builder"), ("@carol:x", "Carol")];
            for (member, name) in members {
                names.set(<&UserId>::try_from(member).expect("a user id"), Some(name));
            }
            let called = subject.text().map(|text| names.called_in(text)).unwrap_or_default();
            for (member, name) in members {
                let member = OwnedUserId::try_from(member).expect("a user id");
                let told = match called.iter().find(|(user, _)| *user == member) {
                    Some((_, by)) => subject.by_default_if_called(*by),
                    None if mentioned.contains(&member) => subject.by_default_if_mentioned(),
                    None => subject.by_default(),
                };
                let mut room = subject.room.clone();
                room.user_id.clone_from(&member);
                room.user_display_name = name.to_owned();
                let own = Subject { flat: FlattenedJson::from_raw(&raw(kind, &content)), room, place: Place::Main };
                assert_eq!(told, own.judged(&default_rules(&member)), "{kind} {content} for {name}");
            }
        }
    }
}

fn raw(kind: &str, content: &Value) -> Raw<Value> {
    Raw::new(&json!({ "type": kind, "sender": "@alice:x", "content": content })).expect("json")
}

#[test]
fn the_whole_room_is_mentioned_by_those_who_may() {
    let power = |level: i32| {
        let levels = json!({ "users": { "@alice:x": level } });
        let content: ruma::events::room::power_levels::RoomPowerLevelsEventContent =
            serde_json::from_value(levels).expect("levels");
        let version = RoomVersion::get(&ruma::RoomVersionId::V11).expect("a version that is held");
        ruma::events::room::power_levels::RoomPowerLevels::new(content.into(), &version.rules.authorization, [])
    };
    let mut subject = message(&json!({ "m.mentions": { "room": true } }));
    assert!(subject.mentions_room());
    assert_eq!(subject.by_default(), NOTIFY, "without power");
    subject.set_power(power(49).into());
    assert_eq!(subject.by_default(), NOTIFY, "with too little");
    subject.set_power(power(50).into());
    assert_eq!(subject.by_default(), BOTH);
    assert!(!message(&json!({ "m.mentions": { "room": "true" } })).mentions_room());
}

#[test]
fn an_event_is_in_a_thread_or_where_that_is_which_it_belongs_to() {
    let root = || event_id!("$root").to_owned();
    let relates = |to: Value| message(&json!({ "m.relates_to": to })).place().clone();
    assert_eq!(message(&json!({})).place(), &Place::Main);
    assert_eq!(relates(json!({ "rel_type": "m.thread", "event_id": "$root" })), Place::Thread(root()));
    assert_eq!(relates(json!({ "rel_type": "m.annotation", "event_id": "$root", "key": "+" })), Place::With(root()));
    assert_eq!(relates(json!({ "m.in_reply_to": { "event_id": "$root" } })), Place::Main);
    for odd in [
        json!(null),
        json!("$root"),
        json!({ "rel_type": "m.thread" }),
        json!({ "rel_type": "m.thread", "event_id": 7 }),
    ] {
        assert_eq!(relates(odd), Place::Main);
    }
    assert_eq!(relates(json!({ "rel_type": "m.thread", "event_id": "$\0" })), Place::Main);
    let state = json!({ "m.relates_to": { "rel_type": "m.thread", "event_id": "$root" } });
    assert_eq!(subject("m.room.topic", Some(""), &state).place(), &Place::Main);
}
